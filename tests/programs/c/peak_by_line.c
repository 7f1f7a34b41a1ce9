// Four lines whose figures at the peak all differ from their figures at the end and at their own highest. Highest total: right
// after the 9 x 1009 B of step 5, when 7 of the first line's 20, 15 of the second's and none of the third's are live.
// totals: allocated=27772/56 freed=24264/49 current=3508/7 peak=14096/31
#include <stdlib.h>

static void *first[20], *second[15], *third[8], *fourth[9], *fifth[4];

static void release(void **blocks, int from, int to) {
    for (int i = from; i < to; i++)
        free(blocks[i]);
}

int main(void) {
    for (int i = 0; i < 20; i++)
        first[i] = malloc(200);   //@ allocated=4000/20 live=600/3 peak=1400/7
    release(first, 7, 20);
    for (int i = 0; i < 8; i++)
        third[i] = malloc(1021);  //@ allocated=8168/8
    release(third, 0, 8);
    for (int i = 0; i < 15; i++)
        second[i] = malloc(241);  //@ allocated=3615/15 peak=3615/15
    for (int i = 0; i < 9; i++)
        fourth[i] = malloc(1009); //@ allocated=9081/9 peak=9081/9
    release(fourth, 0, 9);
    release(second, 0, 15);
    release(first, 0, 4);
    for (int i = 0; i < 4; i++)
        fifth[i] = malloc(727);   //@ allocated=2908/4 live=2908/4
    return 0;
}
