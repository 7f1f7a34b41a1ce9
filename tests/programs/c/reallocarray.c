// reallocarray: of NULL, growing, shrinking, to zero, and one whose product overflows (2^33 x 2^33) and fails.
// totals: allocated=4459/4 freed=4375/3 current=84/1 peak=3073/2
// counters: failed=1 moves=2
#define _GNU_SOURCE
#include <stdlib.h>

static void *volatile a, *volatile b;

int main(void) {
    a = reallocarray(NULL, 7, 43);    //@ allocated=301/1
    a = reallocarray(a, 61, 49);      //@ allocated=2989/1 peak=2989/1
    b = reallocarray(NULL, 12, 7);    //@ allocated=84/1 live=84/1 peak=84/1
    if (reallocarray(a, (size_t)1 << 33, (size_t)1 << 33) != NULL)
        return 1;
    a = reallocarray(a, 5, 217);      //@ allocated=1085/1
    a = reallocarray(a, 0, 217);
    return a != NULL;
}
