// steps: says `ready`, then does what each line on stdin asks for and says its word back. `a`: 100 blocks of 123 B, kept.
// `b`: 50 blocks of 77 B, kept. `f`: frees what the last `a` made. `x`: becomes itself anew by exec, without any block. Ends with
// status 0 at the end of its input. Nothing else allocates.
#include <stdlib.h>
#include <unistd.h>

static void *a[100], *b[50];

static void make_a(void) {
    for (int i = 0; i < 100; i++)
        a[i] = malloc(123);
}

static void make_b(void) {
    for (int i = 0; i < 50; i++)
        b[i] = malloc(77);
}

static void free_a(void) {
    for (int i = 0; i < 100; i++)
        free(a[i]);
}

int main(int argc, char **argv) {
    char step[2];
    if (argc > 1 || write(1, "ready\n", 6) != 6)
        return 1;
    while (read(0, step, 2) == 2) {
        switch (step[0]) {
        case 'a':
            make_a();
            break;
        case 'b':
            make_b();
            break;
        case 'f':
            free_a();
            break;
        case 'x':
            execv("/proc/self/exe", argv);
            return 3;
        default:
            return 2;
        }
        if (write(1, step, 2) != 2)
            return 1;
    }
    return 0;
}
