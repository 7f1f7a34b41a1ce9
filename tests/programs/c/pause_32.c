// A 32-bit process without a library, for `gcc -m32 -static -nostdlib -ffreestanding`: says `ready` and waits for the end of
// its input.
static int call(int number, int a, const void *b, int c) {
    int result;
    __asm__ volatile("int $0x80" : "=a"(result) : "a"(number), "b"(a), "c"(b), "d"(c) : "memory");
    return result;
}

void _start(void) {
    char go;
    call(4, 1, "ready\n", 6); // write
    while (call(3, 0, &go, 1) == 1) // read
        ;
    call(1, 0, 0, 0); // exit
}
