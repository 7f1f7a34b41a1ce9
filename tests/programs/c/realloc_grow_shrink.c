// realloc in place, moved and shrunk: block a 101 -> 103 (fits its chunk: in place) -> 20001 (b lies behind it: moves) -> 17
// (shrinks in place); at no moment do both old and new count.
// totals: allocated=20331/5 freed=20205/3 current=126/2 peak=20110/2
// counters: moves=3
#include <stdlib.h>

static void *volatile a, *volatile b;

int main(void) {
    a = malloc(101);           //@ allocated=101/1
    b = malloc(109);           //@ allocated=109/1 live=109/1 peak=109/1
    void *before = a;
    a = realloc(a, 103);       //@ allocated=103/1
    if (a != before)
        return 1;
    a = realloc(a, 20001);     //@ allocated=20001/1 peak=20001/1
    if (a == before)
        return 2;
    before = a;
    a = realloc(a, 17);        //@ allocated=17/1 live=17/1
    return a == before ? 0 : 3;
}
