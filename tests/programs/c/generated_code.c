// Generated code that calls malloc: 7 blocks of 1003 B from a function with a frame pointer, 5 of 505 B from one that uses rbp for
// something else.
// totals: allocated=9546/12 freed=0/0 current=9546/12 peak=9546/12
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

typedef void *(*generated)(size_t, void *(*)(size_t));

// push rbp; mov rbp, rsp; call rsi; pop rbp; ret
static const unsigned char with_frame_pointer[] = {0x55, 0x48, 0x89, 0xe5, 0xff, 0xd6, 0x5d, 0xc3};
// push rbp; mov ebp, 1; call rsi; pop rbp; ret
static const unsigned char without_frame_pointer[] = {0x55, 0xbd, 1, 0, 0, 0, 0xff, 0xd6, 0x5d, 0xc3};

static void *made[12];

static __attribute__((noinline)) void call_framed(generated code) {
    for (int i = 0; i < 7; i++) {
        made[i] = code(1003, malloc);
    }
}

static __attribute__((noinline)) void call_frameless(generated code) {
    for (int i = 7; i < 12; i++) {
        made[i] = code(505, malloc);
    }
}

int main(void) {
    unsigned char *code = mmap(NULL, 4096, PROT_READ | PROT_WRITE | PROT_EXEC, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (code == MAP_FAILED) {
        return 1;
    }
    memcpy(code, with_frame_pointer, sizeof with_frame_pointer);
    memcpy(code + 64, without_frame_pointer, sizeof without_frame_pointer);
    char line[8];
    if (write(1, "ready\n", 6) < 0 || read(0, line, sizeof line) <= 0) {
        return 2;
    }
    call_framed((generated)(void *)code);
    call_frameless((generated)(void *)(code + 64));
    return 0;
}
