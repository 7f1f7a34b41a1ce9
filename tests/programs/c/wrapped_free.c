// Frees through a wrapper that calls the C library's free, as a preloaded library does; says `ready`, waits for a line, works, and
// says `done`. All blocks are of 24 bytes: 10 are made before, 1 at an address that was just freed.
// 13 calls of the wrapper, each with one of `free`: 11 of blocks that are made here, 2 of blocks from before the line.
#include <stdlib.h>
#include <unistd.h>

__attribute__((noinline)) void wrapped_free(void *block) {
    free(block);
    // So that the call above is no jump.
    __asm__ volatile("");
}

static void say(const char *text, int length) {
    if (write(1, text, length) != length)
        _exit(1);
}

int main(void) {
    void *before[2] = {malloc(24), malloc(24)};
    void *blocks[10];
    char line;
    say("ready\n", 6);
    if (read(0, &line, 1) != 1)
        return 1;
    for (int n = 0; n < 10; n++)
        blocks[n] = malloc(24);
    wrapped_free(blocks[0]);
    // The C library hands out what was freed last: the same address, of a block that is another.
    void *again = malloc(24);
    if (again != blocks[0])
        return 2;
    wrapped_free(again);
    for (int n = 1; n < 10; n++)
        wrapped_free(blocks[n]);
    wrapped_free(before[0]);
    wrapped_free(before[1]);
    say("done\n", 5);
    while (read(0, &line, 1) == 1)
        ;
    return 7;
}
