// Five threads, each with a key whose destructor frees the thread's block of 301 B and allocates one of 303 B that stays.
// Each thread is joined before the next starts.
// totals: allocated=3020/10 freed=1505/5 current=1515/5 peak=1515/5
// counters: frees_unknown=5 frees_of_null=any
// Each thread's end frees its tcache, made inside of malloc, and NULLs; the tcache is empty, as 303 B reuse the chunk of 301 B.
#include <pthread.h>
#include <stdlib.h>

static pthread_key_t key;
static void *volatile kept[5];
static int n_kept;

static void thread_ends(void *block) {
    free(block);
    kept[n_kept++] = malloc(303); //@ allocated=1515/5 live=1515/5 peak=1515/5
}

static void *work(void *unused) {
    (void)unused;
    pthread_setspecific(key, malloc(301)); //@ allocated=1505/5
    return NULL;
}

int main(void) {
    pthread_key_create(&key, thread_ends);
    for (int i = 0; i < 5; i++) {
        pthread_t thread;
        pthread_create(&thread, NULL, work, NULL); //@ runtime
        pthread_join(thread, NULL);
    }
    return 0;
}
