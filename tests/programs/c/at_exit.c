// Allocations in atexit handlers: 3 handlers, run in reverse order, each 9 x 61 B, and one free each.
// totals: allocated=1647/27 freed=183/3 current=1464/24 peak=1525/25
#include <stdlib.h>

static void *volatile kept[9];

static void goodbye(void) {
    for (int i = 0; i < 9; i++)
        kept[i] = malloc(61); //@ allocated=1647/27 live=1464/24 peak=1525/25
    free(kept[0]);
}

int main(void) {
    atexit(goodbye);
    atexit(goodbye);
    atexit(goodbye);
    return 0;
}
