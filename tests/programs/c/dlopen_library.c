// Opened by dlopen_host.c, which states the totals.
#include <stdlib.h>

static void *constructed[31], *worked[41];

__attribute__((constructor)) static void opened(void) {
    for (int i = 0; i < 31; i++)
        constructed[i] = malloc(37); //@ allocated=1147/31 peak=1147/31
}

void work(void) {
    for (int i = 0; i < 41; i++)
        worked[i] = malloc(59); //@ allocated=2419/41 live=2419/41 peak=2419/41
}

__attribute__((destructor)) static void closed(void) {
    for (int i = 0; i < 31; i++)
        free(constructed[i]);
}
