// Fragments glibc's heap, or does not: fragmented all|most. 262 144 blocks of 488 B (chunks of 496 B, 124 MiB), each touched;
// `most` frees all but every 50th, so that nearly every page of the heap stays although 2 % of it is live; `all` keeps them. Says
// `ready` and waits for the end of its stdin.
// totals of most: live=2558584/5243 of all: live=127926272/262144 (and the buffer of stdout)
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { COUNT = 262144, SIZE = 488 };

static void *blocks[COUNT];

int main(int argc, char **argv) {
    if (argc != 2)
        return 2;
    for (int i = 0; i < COUNT; i++) {
        blocks[i] = malloc(SIZE);
        memset(blocks[i], 1, SIZE);
    }
    for (int i = 0; strcmp(argv[1], "most") == 0 && i < COUNT; i++)
        if (i % 50 != 49 && i != 0)
            free(blocks[i]);
    puts("ready");
    fflush(stdout);
    while (getchar() != EOF)
        ;
    return 0;
}
