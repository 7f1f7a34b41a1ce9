// Eight threads at once, 1000 rounds each of malloc(33) and free, then 11 blocks of 101 B each that stay. All eight hold 3
// blocks of 5003 B at the same time: the peak, whatever their order.
// totals: allocated=392960/8112 freed=384072/8024 current=8888/88 peak=120072/24
// counters: frees_unknown=16 frees_of_null=any
// A thread that ends frees its tcache (made inside of malloc) and what the tcache holds, here one block that was freed before:
// two frees a thread of blocks that no one holds (glibc 2.36 malloc/malloc.c, tcache_thread_shutdown), and NULLs.
#include <pthread.h>
#include <stdlib.h>

static pthread_barrier_t barrier;
static void *volatile kept[8][11];

static void *work(void *number) {
    for (int i = 0; i < 1000; i++) {
        void *volatile passing = malloc(33); //@ allocated=264000/8000
        free(passing);
    }
    void *large[3];
    for (int i = 0; i < 3; i++)
        large[i] = malloc(5003); //@ allocated=120072/24 peak=120072/24
    pthread_barrier_wait(&barrier);
    for (int i = 0; i < 3; i++)
        free(large[i]);
    pthread_barrier_wait(&barrier);
    for (int i = 0; i < 11; i++)
        kept[(long)number][i] = malloc(101); //@ allocated=8888/88 live=8888/88
    return NULL;
}

int main(void) {
    pthread_t threads[8];
    pthread_barrier_init(&barrier, NULL, 8);
    for (long i = 0; i < 8; i++)
        pthread_create(&threads[i], NULL, work, (void *)i); //@ runtime
    for (int i = 0; i < 8; i++)
        pthread_join(threads[i], NULL);
    return 0;
}
