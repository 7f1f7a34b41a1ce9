// free(NULL) 29 times does nothing; 3 blocks of 19 B are freed among them.
// totals: allocated=57/3 freed=57/3 current=0/0 peak=57/3
// counters: frees_of_null=29
#include <stdlib.h>

static void *volatile blocks[32];

int main(void) {
    for (int i = 0; i < 3; i++)
        blocks[10 * i] = malloc(19); //@ allocated=57/3 peak=57/3
    for (int i = 0; i < 32; i++)
        free(blocks[i]);
    return 0;
}
