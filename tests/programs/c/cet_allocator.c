/*
 * A small allocator library for a build with -fcf-protection=full: every function begins with endbr64.
 * It never gives memory back; what counts are the first instructions of malloc, calloc, realloc and free.
 *
 * gcc -O2 -fPIC -shared -fcf-protection=full -Wl,-Bsymbolic -o libcet_allocator.so cet_allocator.c
 */
#include <errno.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>
#include <sys/mman.h>

#define ARENA_BYTES ((size_t)1 << 30)
#define ALIGNMENT 16

struct header {
    size_t size;
    size_t freed;
};

static char *arena;
static size_t used;
static size_t live;

static int arena_map(void)
{
    void *mapping = mmap(NULL, ARENA_BYTES, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (mapping == MAP_FAILED)
        return -1;
    arena = mapping;
    return 0;
}

/* Inlined into each caller, as in real allocators. */
static inline __attribute__((always_inline)) void *allocate(size_t size)
{
    struct header *block;
    size_t offset;

    if (size > ARENA_BYTES || (arena == NULL && arena_map() != 0))
        goto fail;
    size = (size + ALIGNMENT - 1) & ~(size_t)(ALIGNMENT - 1);
    offset = __atomic_fetch_add(&used, sizeof *block + size, __ATOMIC_RELAXED);
    if (offset + sizeof *block + size > ARENA_BYTES)
        goto fail;
    block = (struct header *)(arena + offset);
    block->size = size;
    __atomic_fetch_add(&live, 1, __ATOMIC_RELAXED);
    return block + 1;
fail:
    errno = ENOMEM;
    return NULL;
}

void *malloc(size_t size)
{
    return allocate(size);
}

void free(void *ptr)
{
    struct header *block = ptr;

    if (ptr == NULL)
        return;
    block[-1].freed = 1;
    __atomic_fetch_sub(&live, 1, __ATOMIC_RELAXED);
}

/* A mere jump to free: one call, one event. */
void cfree(void *ptr)
{
    free(ptr);
}

void *calloc(size_t count, size_t size)
{
    size_t bytes;
    void *ptr;

    if (__builtin_mul_overflow(count, size, &bytes)) {
        errno = ENOMEM;
        return NULL;
    }
    ptr = allocate(bytes);
    return ptr != NULL ? memset(ptr, 0, bytes) : NULL;
}

void *realloc(void *ptr, size_t size)
{
    struct header *block = ptr;
    void *moved;

    if (ptr == NULL)
        return allocate(size);
    if (size <= block[-1].size)
        return ptr;
    moved = allocate(size);
    if (moved == NULL)
        return NULL;
    memcpy(moved, ptr, block[-1].size);
    free(ptr);
    return moved;
}
