// Recurses as deep as the first argument says, allocates 103 B there, returns, and does so 7 times.
// totals: allocated=721/7 freed=0/0 current=721/7 peak=721/7
#include <stdlib.h>

static void *volatile block;
static volatile int depth_reached;

__attribute__((noinline, noclone)) static void descend(int more) {
    if (more > 0)
        descend(more - 1);
    else
        block = malloc(103); //@ allocated=721/7 live=721/7 peak=721/7
    depth_reached++;
}

int main(int argc, char **argv) {
    for (int i = 0; i < 7; i++)
        descend(atoi(argv[argc - 1]));
    return 0;
}
