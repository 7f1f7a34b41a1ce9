// Allocations before main, in a constructor of the program (19 x 53 B), and in its destructor after main (5 x 21 B).
// totals: allocated=1119/25 freed=0/0 current=1119/25 peak=1119/25
#include <stdlib.h>

static void *volatile blocks[25];

__attribute__((constructor)) static void before_main(void) {
    for (int i = 0; i < 19; i++)
        blocks[i] = malloc(53); //@ allocated=1007/19 live=1007/19 peak=1007/19
}

__attribute__((destructor)) static void after_main(void) {
    for (int i = 20; i < 25; i++)
        blocks[i] = malloc(21); //@ allocated=105/5 live=105/5 peak=105/5
}

int main(void) {
    blocks[19] = malloc(7); //@ allocated=7/1 live=7/1 peak=7/1
    return 0;
}
