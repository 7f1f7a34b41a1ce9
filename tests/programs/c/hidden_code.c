// 3 blocks of 707 B from code without unwind information that nothing leads to but an address made at run time, 2 of 909 B from
// main.
#include <stdlib.h>

// 64 bytes behind a function that does nothing, without a symbol: push rbx; call rsi; pop rbx; ret.
__asm__(".pushsection .text\n"
        ".balign 64\n"
        ".globl visible\n"
        ".type visible, @function\n"
        "visible: ret\n"
        ".balign 64\n"
        ".byte 0x53, 0xff, 0xd6, 0x5b, 0xc3\n"
        ".balign 64\n"
        ".popsection\n");

extern char visible[];

static volatile size_t distance = 64;
static void *kept[5];

int main(void) {
    void *(*hidden)(size_t, void *(*)(size_t)) = (void *)(visible + distance);
    for (int i = 0; i < 3; i++) {
        kept[i] = hidden(707, malloc);
    }
    for (int i = 3; i < 5; i++) {
        kept[i] = malloc(909);
    }
    return 0;
}
