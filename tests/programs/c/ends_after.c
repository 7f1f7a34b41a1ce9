// ends_after MS: says `ready`, allocates and frees for MS milliseconds of its own CPU time, and ends with status 0.
#include <stdlib.h>
#include <time.h>
#include <unistd.h>

static void *volatile block;

int main(int argc, char **argv) {
    clock_t until = (clock_t)(argc > 1 ? atol(argv[1]) : 0) * (CLOCKS_PER_SEC / 1000);
    if (write(1, "ready\n", 6) != 6)
        return 1;
    until += clock();
    do {
        block = malloc(33);
        free(block);
    } while (clock() < until);
    return 0;
}
