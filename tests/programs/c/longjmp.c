// longjmp over frames between allocations (never out of an allocator): 19 rounds of 107 B each, every second one freed.
// totals: allocated=2033/19 freed=963/9 current=1070/10 peak=1070/10
#include <setjmp.h>
#include <stdlib.h>

static jmp_buf back;
static void *volatile block;
static volatile int rounds;

__attribute__((noinline)) static void allocate_and_jump(int depth) {
    if (depth > 0)
        allocate_and_jump(depth - 1);
    block = malloc(107); //@ allocated=2033/19 live=1070/10 peak=1070/10
    if (rounds % 2 == 1)
        free(block);
    longjmp(back, 1);
}

int main(void) {
    if (setjmp(back) != 0)
        rounds++;
    if (rounds < 19)
        allocate_and_jump(rounds);
    return 0;
}
