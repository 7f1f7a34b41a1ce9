// A block that malloc maps by itself grows by mremap, without a copy: 1000003 -> 9000011 -> 5000017 B, then 31 B on the heap.
// totals: allocated=15000062/4 freed=15000062/4 current=0/0 peak=9000011/1
// counters: moves=3
#include <stdlib.h>

int main(void) {
    void *volatile block = malloc(1000003); //@ allocated=1000003/1
    block = realloc(block, 9000011);        //@ allocated=9000011/1 peak=9000011/1
    block = realloc(block, 5000017);        //@ allocated=5000017/1
    block = realloc(block, 31);             //@ allocated=31/1
    free(block);
    return 0;
}
