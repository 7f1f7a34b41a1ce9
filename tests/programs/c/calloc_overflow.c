// calloc whose product overflows fails and counts nothing: 3 ways; the largest that cannot be served; one that can.
// totals: allocated=1001/1 freed=0/0 current=1001/1 peak=1001/1
// counters: failed=4
#include <stdlib.h>

static void *volatile a;

int main(void) {
    if (calloc((size_t)1 << 32, (size_t)1 << 32) != NULL) // product 2^64: wraps to 0
        return 1;
    if (calloc((size_t)-1, 3) != NULL)
        return 2;
    if (calloc(3, ((size_t)-1) / 3 + 7) != NULL)          // wraps to 20
        return 3;
    if (calloc((size_t)1 << 31, (size_t)1 << 31) != NULL) // 2^62: no overflow, no memory
        return 4;
    a = calloc(91, 11); //@ allocated=1001/1 live=1001/1 peak=1001/1
    return a == NULL;
}
