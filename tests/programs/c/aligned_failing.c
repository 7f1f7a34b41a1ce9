// posix_memalign with an alignment that is none, and more than there is; the others likewise. The out-pointer stays.
// totals: allocated=55/1 freed=0/0 current=55/1 peak=55/1
// counters: failed=7
#define _GNU_SOURCE
#include <errno.h>
#include <malloc.h>
#include <stdlib.h>

static void *volatile kept;

int main(void) {
    kept = malloc(55); //@ allocated=55/1 live=55/1 peak=55/1
    void *out = kept;
    if (posix_memalign(&out, 3, 100) != EINVAL || posix_memalign(&out, 24, 100) != EINVAL)
        return 1;
    if (posix_memalign(&out, 64, (size_t)1 << 62) != ENOMEM || out != kept)
        return 2;
    if (memalign(64, (size_t)-100) != NULL || aligned_alloc(64, (size_t)-128) != NULL)
        return 3;
    return valloc((size_t)-5000) != NULL || pvalloc((size_t)-5000) != NULL;
}
