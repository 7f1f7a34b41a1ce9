// An allocator of its own whose malloc(4242) says `inside` and does not return before a line comes on stdin. Says `ready`; after a
// line it makes that call, and then 7 blocks of 123 B, deeper on its stack than that call was; says `done`. Status 7.
#include <stddef.h>
#include <unistd.h>

static char memory[1 << 16] __attribute__((aligned(16)));
static size_t used;

__attribute__((noinline)) static void wait_inside(void) {
    char go;
    if (write(1, "inside\n", 7) != 7 || read(0, &go, 1) != 1)
        _exit(1);
}

__attribute__((noipa)) void *malloc(size_t size) {
    if (size == 4242)
        wait_inside();
    void *block = memory + used;
    used += (size + 15) & ~(size_t)15;
    return block;
}

__attribute__((noipa)) void free(void *block) { (void)block; }

static void *volatile kept[8];

__attribute__((noipa)) static void deeper(volatile char *caller) {
    volatile char frame[512];
    frame[0] = caller[0];
    for (int i = 0; i < 7; i++)
        kept[i] = malloc(123);
    caller[0] = frame[0];
}

int main(void) {
    char go;
    volatile char frame[64] = {0};
    if (write(1, "ready\n", 6) != 6 || read(0, &go, 1) != 1)
        return 1;
    kept[7] = malloc(4242);
    deeper(frame);
    if (write(1, "done\n", 5) != 5)
        return 1;
    while (read(0, &go, 1) == 1)
        ;
    return 7;
}
