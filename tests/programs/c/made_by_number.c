// Works in steps, one for each line on stdin, and says `done` after each: a line `N` makes N blocks of 123 B, a line `-N` frees the
// N oldest. Ends with status 7 at the end of its input. Nothing else allocates.
#include <stdlib.h>
#include <unistd.h>

#define ROOM (1 << 16)

static void *kept[ROOM];
static long first, next;

// A whole line, or 0 at the end.
static int hear(char *line, int room) {
    int n = 0;
    while (n < room - 1 && read(0, &line[n], 1) == 1)
        if (line[n++] == '\n')
            return line[n] = 0, 1;
    return 0;
}

int main(void) {
    char line[32];
    if (write(1, "ready\n", 6) != 6)
        return 1;
    while (hear(line, sizeof line)) {
        long n = strtol(line, NULL, 10);
        for (; n > 0 && next < ROOM; n--)
            kept[next++] = malloc(123);
        for (; n < 0 && first < next; n++)
            free(kept[first++]);
        if (write(1, "done\n", 5) != 5)
            return 1;
    }
    return 7;
}
