// A malloc wrapper as hook libraries have it: every call goes on to the next definition, by its address.
#define _GNU_SOURCE
#include <dlfcn.h>
#include <stddef.h>

#define NEXT(type, name, ...)                           \
    static type (*next)(__VA_ARGS__);                   \
    if (next == NULL)                                   \
        next = (type(*)(__VA_ARGS__))dlsym(RTLD_NEXT, #name)

void *malloc(size_t size) {
    NEXT(void *, malloc, size_t);
    void *block = next(size);
    return block;
}

void *calloc(size_t count, size_t size) {
    NEXT(void *, calloc, size_t, size_t);
    void *block = next(count, size);
    return block;
}

void *realloc(void *old, size_t size) {
    NEXT(void *, realloc, void *, size_t);
    void *block = next(old, size);
    return block;
}

void free(void *block) {
    NEXT(void, free, void *);
    next(block);
}
