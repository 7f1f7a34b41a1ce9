// glibc's realloc(p, 0) frees p and returns NULL: no failure, and no block is left. realloc(NULL, 0) allocates 0 B.
// totals: allocated=2002/3 freed=2002/2 current=0/1 peak=2002/2
#include <stdlib.h>

static void *volatile a, *volatile b;

int main(void) {
    a = malloc(999);      //@ allocated=999/1 peak=999/1
    b = malloc(1003);     //@ allocated=1003/1 peak=1003/1
    a = realloc(a, 0);
    b = realloc(b, 0);
    if (a != NULL || b != NULL)
        return 1;
    a = realloc(NULL, 0); //@ allocated=0/1 live=0/1
    return a == NULL;
}
