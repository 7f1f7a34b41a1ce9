// many_stacks BLOCKS STACKS THREADS: threads that allocate BLOCKS blocks through STACKS call paths (a binary choice at each of
// 16 levels, at most 65 536) and keep them. Block b is of 9 + 2 * (b % 40) B, by path b % STACKS and thread b % THREADS.
// Says `ready` when all threads run, allocates after a line, then prints `truth: …`, and ends at the end of its input. From
// `ready` on nothing else allocates.
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define LEVELS 16
#define MAX_THREADS 256

struct block {
    struct block *next;
};

static unsigned long n_blocks, n_stacks, n_threads;
static pthread_barrier_t start, finish;
static struct block *kept[MAX_THREADS];

static struct block *left(unsigned path, int level, size_t bytes);
static struct block *right(unsigned path, int level, size_t bytes);

#define CHOOSE \
    struct block *block = level == LEVELS ? malloc(bytes) \
                          : path & 1      ? right(path >> 1, level + 1, bytes) \
                                          : left(path >> 1, level + 1, bytes); \
    __asm__ volatile(""); /* keeps the calls from becoming jumps */ \
    return block;

__attribute__((noipa)) static struct block *left(unsigned path, int level, size_t bytes) { CHOOSE }
__attribute__((noipa)) static struct block *right(unsigned path, int level, size_t bytes) { CHOOSE }

static void *allocate(void *argument) {
    unsigned long thread = (unsigned long)argument;
    pthread_barrier_wait(&start);
    for (unsigned long b = thread; b < n_blocks; b += n_threads) {
        struct block *block = left((unsigned)(b % n_stacks), 0, 9 + 2 * (b % 40));
        block->next = kept[thread];
        kept[thread] = block;
    }
    pthread_barrier_wait(&finish);
    pause();
    return NULL;
}

int main(int argc, char **argv) {
    if (argc != 4)
        return 2;
    n_blocks = strtoul(argv[1], NULL, 10);
    n_stacks = strtoul(argv[2], NULL, 10);
    n_threads = strtoul(argv[3], NULL, 10);
    if (n_threads > MAX_THREADS || n_stacks > 1 << LEVELS)
        return 2;
    pthread_barrier_init(&start, NULL, (unsigned)n_threads + 1);
    pthread_barrier_init(&finish, NULL, (unsigned)n_threads + 1);
    for (unsigned long thread = 0; thread < n_threads; thread++) {
        pthread_t id;
        if (pthread_create(&id, NULL, allocate, (void *)thread) != 0)
            return 1;
    }
    char go, truth[512]; // dprintf would allocate
    if (write(1, "ready\n", 6) != 6 || read(0, &go, 1) != 1)
        return 1;
    pthread_barrier_wait(&start);
    pthread_barrier_wait(&finish);
    unsigned long bytes = 0;
    for (unsigned long b = 0; b < n_blocks; b++)
        bytes += 9 + 2 * (b % 40);
    snprintf(truth, sizeof truth,
             "truth: current_bytes=%lu current_count=%lu peak_bytes=%lu peak_count=%lu allocated_bytes=%lu "
             "allocated_count=%lu freed_bytes=0 freed_count=0\n",
             bytes, n_blocks, bytes, n_blocks, bytes, n_blocks);
    if (write(1, truth, strlen(truth)) < 0)
        return 1;
    while (read(0, &go, 1) == 1)
        ;
    _exit(0);
}
