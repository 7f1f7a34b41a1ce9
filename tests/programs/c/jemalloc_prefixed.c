// A program's own jemalloc, with a prefix, beside libc's malloc: two allocators in one process.
// totals: allocated=58116/340 freed=54452/334 current=3664/6 peak=53913/328
// counters: moves=12 failed=1
#include <stddef.h>
#include <stdlib.h>

void *je_malloc(size_t);
void *je_calloc(size_t, size_t);
void *je_realloc(void *, size_t);
void je_free(void *);
int je_posix_memalign(void **, size_t, size_t);
void *je_aligned_alloc(size_t, size_t);
void *je_mallocx(size_t, int);
void *je_rallocx(void *, size_t, int);
size_t je_xallocx(void *, size_t, size_t, int);
void je_dallocx(void *, int);
void je_sdallocx(void *, size_t, int);

static void *m[211], *c[53], *a[13], *x[17], *p[5], *libc[29];

int main(void) {
    for (int i = 0; i < 211; i++)
        m[i] = je_malloc(83); //@ allocated=17513/211 peak=17015/205
    for (int i = 0; i < 53; i++)
        c[i] = je_calloc(7, 31); //@ allocated=11501/53 live=217/1 peak=11501/53
    for (int i = 0; i < 13; i++)
        a[i] = je_aligned_alloc(64, 192); //@ allocated=2496/13 live=192/1 peak=2496/13
    for (int i = 0; i < 17; i++)
        x[i] = je_mallocx(333, 0); //@ allocated=5661/17 peak=3996/12
    for (int i = 0; i < 5; i++)
        if (je_posix_memalign(&p[i], 64, 123) != 0) //@ allocated=615/5 live=123/1 peak=615/5
            return 1;
    for (int i = 0; i < 29; i++)
        libc[i] = malloc(71); //@ allocated=2059/29 live=71/1 peak=2059/29
    for (int i = 0; i < 6; i++)
        m[i] = je_realloc(m[i], 1021); //@ allocated=6126/6 live=1021/1 peak=6126/6
    for (int i = 0; i < 5; i++)
        x[i] = je_rallocx(x[i], 2021, 0); //@ allocated=10105/5 peak=10105/5
    if (je_xallocx(x[5], 100000, 0, 0) >= 100000)
        return 2;

    for (int i = 1; i < 211; i++)
        je_free(m[i]);
    for (int i = 1; i < 53; i++)
        je_free(c[i]);
    for (int i = 1; i < 13; i++)
        je_free(a[i]);
    for (int i = 1; i < 17; i++)
        i % 2 ? je_dallocx(x[i], 0) : je_sdallocx(x[i], i < 5 ? 2021 : 333, 0);
    for (int i = 1; i < 5; i++)
        je_free(p[i]);
    for (int i = 1; i < 29; i++)
        free(libc[i]);
    // In place: the block is as large as its class, 2048 B.
    if (je_xallocx(x[0], 2040, 0, 0) < 2040) //@ allocated=2040/1 live=2040/1
        return 3;
    return 0;
}
