// A known number of calls of every allocator function, each with an odd size of its own, and four calls that fail.
// totals: allocated=70257/348 freed=67611/339 current=2646/9 peak=67684/317
// counters: failed=4 frees_of_null=9 moves=31
#define _GNU_SOURCE
#include <errno.h>
#include <malloc.h>
#include <stdlib.h>

static void *m[211], *c[53], *ra[17], *pm[13], *ma[11], *aa[7], *va[5];

static void release(void **blocks, int from, int to) {
    for (int i = from; i < to; i++)
        free(blocks[i]);
}

int main(void) {
    for (int i = 0; i < 211; i++)
        m[i] = malloc(83);                          //@ allocated=17513/211 peak=14940/180
    for (int i = 0; i < 53; i++)
        c[i] = calloc(7, 31);                       //@ allocated=11501/53 live=651/3 peak=11501/53
    for (int i = 0; i < 31; i++)
        m[i] = realloc(m[i], 1021);                 //@ allocated=31651/31 live=1021/1 peak=31651/31
    for (int i = 0; i < 17; i++)
        ra[i] = reallocarray(NULL, 3, 43);          //@ allocated=2193/17 live=129/1 peak=2193/17
    for (int i = 0; i < 13; i++)
        if (posix_memalign(&pm[i], 64, 123) != 0)   //@ allocated=1599/13 live=123/1 peak=1599/13
            return 1;
    for (int i = 0; i < 11; i++)
        ma[i] = memalign(128, 333);                 //@ allocated=3663/11 live=333/1 peak=3663/11
    for (int i = 0; i < 7; i++)
        aa[i] = aligned_alloc(32, 96);              //@ allocated=672/7 live=96/1 peak=672/7
    for (int i = 0; i < 5; i++)
        va[i] = valloc(293);                        //@ allocated=1465/5 live=293/1 peak=1465/5

    void *volatile out = NULL;
    if (malloc((size_t)-99999) != NULL || calloc((size_t)1 << 33, (size_t)1 << 33) != NULL)
        return 2;
    if (realloc(m[0], (size_t)-88888) != NULL || posix_memalign((void **)&out, 64, (size_t)-77777) == 0)
        return 3;

    release(m, 31, 211);
    release(c, 3, 53);
    release(m, 1, 31);
    release(ra, 1, 17);
    release(pm, 1, 13);
    release(ma, 1, 11);
    release(aa, 1, 7);
    release(va, 1, 5);
    for (int i = 0; i < 9; i++)
        free(out);
    return 0;
}
