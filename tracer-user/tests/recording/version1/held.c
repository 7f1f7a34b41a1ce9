// Holds 7 blocks of 123 B; 5 blocks of 77 B come and go; a thread holds 3 of 1001 B.
#include <pthread.h>
#include <stdlib.h>

static void *kept[16];
static void hold(int n) { for (int i = 0; i < n; i++) kept[i] = malloc(123); }
static void churn(int n) { for (int i = 0; i < n; i++) free(malloc(77)); }
static void *work(void *none) { for (int i = 8; i < 11; i++) kept[i] = malloc(1001); return none; }

int main(void) {
    pthread_t thread;
    hold(8);
    churn(5);
    pthread_create(&thread, NULL, work, NULL);
    pthread_join(thread, NULL);
    free(kept[0]);
    return kept[1] == NULL;
}
