// A realloc that cannot be served (more than PTRDIFF_MAX; more than the address space) leaves the old block as it was.
// totals: allocated=3009/2 freed=1001/1 current=2008/1 peak=3009/2
// counters: failed=3
#include <stdlib.h>

static void *volatile a, *volatile b;

int main(void) {
    a = malloc(1001);                       //@ allocated=1001/1 peak=1001/1
    b = malloc(2008);                       //@ allocated=2008/1 live=2008/1 peak=2008/1
    if (realloc(a, (size_t)-5) != NULL)
        return 1;
    if (realloc(b, (size_t)1 << 60) != NULL)
        return 2;
    if (realloc(NULL, (size_t)-9) != NULL)
        return 3;
    free(a);
    return 0;
}
