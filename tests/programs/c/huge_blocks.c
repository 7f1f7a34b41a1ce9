// Blocks so large that libc maps each of them, beside a mapping of the program's own: 123 pages, of which 23 are unmapped again.
// totals: allocated=9938268/5 freed=3703701/3 current=6234567/2 peak=7469134/3
// counters: moves=1
#define _GNU_SOURCE
#include <stdlib.h>
#include <sys/mman.h>

int main(void) {
    char *kept = malloc(1234567); //@ allocated=1234567/1 live=1234567/1 peak=1234567/1
    char *freed = malloc(1234567); //@ allocated=1234567/1 peak=1234567/1
    char *grown = calloc(1, 1234567); //@ allocated=1234567/1
    char *own = mmap(NULL, 123 * 4096, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    grown = realloc(grown, 5000000); //@ allocated=5000000/1 live=5000000/1 peak=5000000/1
    free(freed);
    munmap(own + 50 * 4096, 23 * 4096);
    free(malloc(1234567)); //@ allocated=1234567/1
    return kept == NULL || grown == NULL;
}
