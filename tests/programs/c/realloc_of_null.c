// realloc(NULL, n) is malloc(n): 77 blocks of 13 B, 70 of them freed.
// totals: allocated=1001/77 freed=910/70 current=91/7 peak=1001/77
#include <stdlib.h>

static void *blocks[77];

int main(void) {
    for (int i = 0; i < 77; i++)
        blocks[i] = realloc(NULL, 13); //@ allocated=1001/77 live=91/7 peak=1001/77
    for (int i = 0; i < 70; i++)
        free(blocks[i]);
    return 0;
}
