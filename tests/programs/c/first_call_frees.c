// A thread whose first call of the allocator is a free: glibc makes it an arena then, 128 MiB of address space, which is the
// allocator's. The program itself maps the thread's stack only, by pthread_create.
#include <pthread.h>
#include <stdlib.h>

static void *consume(void *block) {
    free(block);
    return NULL;
}

int main(void) {
    pthread_t thread;
    if (pthread_create(&thread, NULL, consume, malloc(123)) != 0)
        return 1;
    return pthread_join(thread, NULL);
}
