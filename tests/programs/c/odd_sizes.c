// Sizes at both ends: malloc(0) gives blocks of 0 B (5, 2 freed), calloc(0, 9) and calloc(9, 0) too; 3 GiB + 1 is served and
// freed; more than PTRDIFF_MAX is refused.
// totals: allocated=3221225473/8 freed=3221225473/3 current=0/5 peak=3221225473/8
// counters: failed=2
#include <stdlib.h>

static void *volatile blocks[5], *volatile zeroed[2], *volatile huge;

int main(void) {
    for (int i = 0; i < 5; i++)
        blocks[i] = malloc(0);                      //@ allocated=0/5 live=0/3 peak=0/5
    zeroed[0] = calloc(0, 9);                       //@ allocated=0/1 live=0/1 peak=0/1
    zeroed[1] = calloc(9, 0);                       //@ allocated=0/1 live=0/1 peak=0/1
    huge = malloc(((size_t)3 << 30) + 1);           //@ allocated=3221225473/1 peak=3221225473/1
    if (huge == NULL)
        return 1;
    if (malloc((size_t)-1) != NULL || malloc((size_t)1 << 63) != NULL)
        return 2;
    free(huge);
    free(blocks[0]);
    free(blocks[4]);
    return 0;
}
