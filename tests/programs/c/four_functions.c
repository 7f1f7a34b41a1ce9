// malloc, calloc, realloc and free alone, for an allocator that has no more: odd sizes, 3 failures.
// totals: allocated=60665/295 freed=58993/291 current=1672/4 peak=58092/264
// counters: failed=3 frees_of_null=9 moves=31
#include <stdlib.h>

static void *m[211], *c[53];

int main(void) {
    for (int i = 0; i < 211; i++)
        m[i] = malloc(83);          //@ allocated=17513/211 peak=14940/180
    for (int i = 0; i < 53; i++)
        c[i] = calloc(7, 31);       //@ allocated=11501/53 live=651/3 peak=11501/53
    for (int i = 0; i < 31; i++)
        m[i] = realloc(m[i], 1021); //@ allocated=31651/31 live=1021/1 peak=31651/31
    if (malloc((size_t)-99999) != NULL || calloc((size_t)1 << 33, (size_t)1 << 33) != NULL)
        return 1;
    if (realloc(m[0], (size_t)-88888) != NULL)
        return 2;
    for (int i = 1; i < 211; i++)
        free(m[i]);
    for (int i = 3; i < 53; i++)
        free(c[i]);
    void *volatile nothing = NULL;
    for (int i = 0; i < 9; i++)
        free(nothing);
    return 0;
}
