// Frames whose CFA needs an expression (DRAP): locals of 64-byte alignment next to alloca, and a realigned argument pointer.
// 23 x 83 B below the first, 29 x 89 B below the second.
// totals: allocated=4490/52 freed=0/0 current=4490/52 peak=4490/52
#include <alloca.h>
#include <stdlib.h>

static void *volatile block;
static volatile char sink;

__attribute__((noinline)) static void below_alloca(void) {
    block = malloc(83); //@ allocated=1909/23 live=1909/23 peak=1909/23
    sink++;
}

__attribute__((noinline)) static void below_realigned(void) {
    block = malloc(89); //@ allocated=2581/29 live=2581/29 peak=2581/29
    sink++;
}

__attribute__((noinline)) static int drap(int n, int a, int b, int c, int d, int e, int on_stack) {
    volatile char aligned[128] __attribute__((aligned(64)));
    volatile char *dynamic = alloca((size_t)n * 16 + 1);
    aligned[n] = dynamic[0] = (char)n;
    below_alloca();
    return aligned[n] + dynamic[0] + a + b + c + d + e + on_stack;
}

__attribute__((noinline, force_align_arg_pointer)) static int realigned(int n, int a, int b, int c, int d, int e, int on_stack) {
    volatile char aligned[96] __attribute__((aligned(32)));
    aligned[n] = (char)n;
    below_realigned();
    return aligned[n] + a + b + c + d + e + on_stack;
}

int main(void) {
    int sum = 0;
    for (int i = 0; i < 23; i++)
        sum += drap(i, 1, 2, 3, 4, 5, 6);
    for (int i = 0; i < 29; i++)
        sum += realigned(i, 1, 2, 3, 4, 5, 6);
    return sum == 0;
}
