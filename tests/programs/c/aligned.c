// The aligned family, odd sizes asked for; what counts is the size asked for, not what pvalloc rounds it up to.
// totals: allocated=7521/23 freed=5421/18 current=2100/5 peak=7521/23
#define _GNU_SOURCE
#include <malloc.h>
#include <stdlib.h>

static void *blocks[23];

int main(void) {
    for (int i = 0; i < 7; i++)
        if (posix_memalign(&blocks[i], 64, 123) != 0)   //@ allocated=861/7 peak=861/7
            return 1;
    for (int i = 7; i < 12; i++)
        blocks[i] = memalign(256, 333);                 //@ allocated=1665/5 peak=1665/5
    for (int i = 12; i < 15; i++)
        blocks[i] = aligned_alloc(32, 96 * 7);          //@ allocated=2016/3 peak=2016/3
    for (int i = 15; i < 18; i++)
        blocks[i] = valloc(293);                        //@ allocated=879/3 peak=879/3
    for (int i = 18; i < 23; i++)
        blocks[i] = pvalloc(420);                       //@ allocated=2100/5 live=2100/5 peak=2100/5
    for (int i = 0; i < 18; i++)
        free(blocks[i]);
    return 0;
}
