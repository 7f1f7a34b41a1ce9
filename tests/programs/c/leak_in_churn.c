// A leak inside churn: leak_in_churn SECONDS LEAKS_A_SECOND. Each 10 ms: 50 blocks of 10 000 B (50 MB/s), of which a changing
// number of up to 400 is live at any moment; a cache that takes 123 B until a sixth of the time has gone and then stops; and
// LEAKS_A_SECOND times a second, evenly, 100 B that nobody frees. The churn's blocks are freed at the end.
#define _POSIX_C_SOURCE 200809L
#include <stdio.h>
#include <stdlib.h>
#include <time.h>

enum { TICKS_A_SECOND = 100, CHURN_BLOCKS = 50, RING = 400, MAX_CACHED = 100000 };

static void *ring[RING];
static void *volatile cached[MAX_CACHED];
void *volatile leaked;

__attribute__((noinline)) static void churn(int at) {
    free(ring[at]);
    ring[at] = malloc(10000);
}

__attribute__((noinline)) static void cache(int at) {
    cached[at] = malloc(123);
}

__attribute__((noinline)) static void leak(void) {
    leaked = malloc(100);
}

int main(int argc, char **argv) {
    if (argc != 3)
        return 2;
    int ticks = atoi(argv[1]) * TICKS_A_SECOND, every = TICKS_A_SECOND / atoi(argv[2]);
    unsigned random = 1;
    struct timespec next;
    clock_gettime(CLOCK_MONOTONIC, &next);
    for (int tick = 0; tick < ticks; tick++) {
        // The ring's size changes all the time, so that the churn's live bytes go up and down.
        random = random * 1103515245u + 12345u;
        int size = RING / 8 + (int)(random >> 16) % (RING * 7 / 8);
        for (int i = size; i < RING; i++) {
            free(ring[i]);
            ring[i] = NULL;
        }
        for (int i = 0; i < CHURN_BLOCKS; i++) {
            random = random * 1103515245u + 12345u;
            churn((int)(random >> 16) % size);
        }
        if (tick < ticks / 6 && tick < MAX_CACHED)
            cache(tick);
        if (tick % every == 0)
            leak();
        next.tv_nsec += 1000000000L / TICKS_A_SECOND;
        if (next.tv_nsec >= 1000000000L) {
            next.tv_nsec -= 1000000000L;
            next.tv_sec++;
        }
        while (clock_nanosleep(CLOCK_MONOTONIC, TIMER_ABSTIME, &next, NULL) != 0)
            ;
    }
    for (int i = 0; i < RING; i++)
        free(ring[i]);
    return 0;
}
