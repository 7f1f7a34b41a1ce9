// pvalloc, which not every allocator has: 19 x 611 B, 17 freed.
// totals: allocated=11609/19 freed=10387/17 current=1222/2 peak=11609/19
#define _GNU_SOURCE
#include <malloc.h>
#include <stdlib.h>

static void *blocks[19];

int main(void) {
    for (int i = 0; i < 19; i++)
        blocks[i] = pvalloc(611); //@ allocated=11609/19 live=1222/2 peak=11609/19
    for (int i = 2; i < 19; i++)
        free(blocks[i]);
    return 0;
}
