// busy_threads N: N threads that allocate, fill, check and free blocks of 1 to 509 B (up to 64 live each) until the input ends.
// Says `ready` when all run. Each then frees what it holds; says `right: ROUNDS` if every block held what was written to it
// and every thread counted as many frees as allocations, else `wrong`.
#include <pthread.h>
#include <stdatomic.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define N_SLOTS 64
#define MAX_THREADS 64

static atomic_bool over;
static atomic_ulong rounds, wrong;
static pthread_barrier_t started;

static void release(unsigned char **slot, size_t *bytes, unsigned char mark, unsigned long *freed) {
    for (size_t i = 0; i < *bytes; i++)
        if ((*slot)[i] != mark)
            atomic_fetch_add(&wrong, 1);
    free(*slot);
    *slot = NULL;
    ++*freed;
}

static void *work(void *argument) {
    unsigned char *slots[N_SLOTS] = {0};
    size_t bytes[N_SLOTS] = {0};
    uint64_t random = 88172645463325252ULL + (uintptr_t)argument;
    unsigned char mark = (unsigned char)(uintptr_t)argument;
    unsigned long allocated = 0, freed = 0;
    pthread_barrier_wait(&started);
    while (!atomic_load(&over)) {
        random ^= random << 13, random ^= random >> 7, random ^= random << 17;
        unsigned n = random % N_SLOTS;
        if (slots[n] != NULL)
            release(&slots[n], &bytes[n], mark, &freed);
        bytes[n] = 1 + (random >> 32) % 509;
        slots[n] = malloc(bytes[n]);
        memset(slots[n], mark, bytes[n]);
        allocated++;
    }
    for (unsigned n = 0; n < N_SLOTS; n++)
        if (slots[n] != NULL)
            release(&slots[n], &bytes[n], mark, &freed);
    if (allocated != freed)
        atomic_fetch_add(&wrong, 1);
    atomic_fetch_add(&rounds, allocated);
    return NULL;
}

int main(int argc, char **argv) {
    pthread_t threads[MAX_THREADS];
    int n_threads = argc > 1 ? atoi(argv[1]) : 1;
    char go;
    if (n_threads > MAX_THREADS)
        return 2;
    pthread_barrier_init(&started, NULL, (unsigned)n_threads + 1);
    for (int n = 0; n < n_threads; n++)
        if (pthread_create(&threads[n], NULL, work, (void *)(uintptr_t)(n + 1)) != 0)
            return 1;
    pthread_barrier_wait(&started);
    if (write(1, "ready\n", 6) != 6)
        return 1;
    while (read(0, &go, 1) == 1)
        ;
    atomic_store(&over, 1);
    for (int n = 0; n < n_threads; n++)
        pthread_join(threads[n], NULL);
    if (atomic_load(&wrong) != 0)
        puts("wrong");
    else
        printf("right: %lu\n", atomic_load(&rounds));
    return 0;
}
