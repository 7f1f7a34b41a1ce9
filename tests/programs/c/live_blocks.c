// live_blocks N: says `ready`, and after a line on stdin makes N blocks of 123 B, keeps them and says `made`. Ends with status 7
// at the end of its input. Nothing else allocates.
#include <stdlib.h>
#include <unistd.h>

static void **kept;

int main(int argc, char **argv) {
    static void *room[1 << 16];
    char go;
    long n = argc > 1 ? atol(argv[1]) : 0;
    kept = room;
    if (n > 1 << 16 || write(1, "ready\n", 6) != 6)
        return 1;
    if (read(0, &go, 1) == 1) {
        for (long i = 0; i < n; i++)
            kept[i] = malloc(123);
        if (write(1, "made\n", 5) != 5)
            return 1;
    }
    while (read(0, &go, 1) == 1)
        ;
    return 7;
}
