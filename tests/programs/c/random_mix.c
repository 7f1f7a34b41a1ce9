// 60 000 random calls of malloc, calloc, realloc, posix_memalign and free over 700 slots; the generator starts from the first
// argument. The program keeps its own books and says at the end what they hold, in the words of the report's totals.
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define N_SLOTS 700
#define N_CALLS 60000

static void *blocks[N_SLOTS];
static unsigned long sizes[N_SLOTS], state;
static unsigned long current_bytes, current_count, peak_bytes, peak_count;
static unsigned long allocated_bytes, allocated_count, freed_bytes, freed_count;

static unsigned long next(unsigned long below) {
    state = state * 6364136223846793005UL + 1442695040888963407UL;
    return (state >> 33) % below;
}

static void gone(int slot) {
    freed_bytes += sizes[slot];
    freed_count++;
    current_bytes -= sizes[slot];
    current_count--;
}

static void made(int slot, void *block, unsigned long size) {
    if (block == NULL)
        _exit(3);
    blocks[slot] = block;
    sizes[slot] = size;
    allocated_bytes += size;
    allocated_count++;
    current_bytes += size;
    current_count++;
    if (current_bytes > peak_bytes) {
        peak_bytes = current_bytes;
        peak_count = current_count;
    }
}

// As one step: the books never hold both.
static void resize(int slot, unsigned long size) {
    void *block = realloc(blocks[slot], size);
    gone(slot);
    made(slot, block, size);
}

static void step(void) {
    int slot = (int)next(N_SLOTS);
    unsigned long size = next(10) == 0 ? next(300000) + 1 : next(900) + 1;
    if (blocks[slot] == NULL) {
        void *block;
        switch (next(4)) {
        case 0: made(slot, calloc(1, size), size); break;
        case 1: made(slot, realloc(NULL, size), size); break;
        case 2: made(slot, posix_memalign(&block, 64, size) == 0 ? block : NULL, size); break;
        default: made(slot, malloc(size), size);
        }
    } else if (next(3) == 0) {
        resize(slot, size);
    } else {
        free(blocks[slot]);
        gone(slot);
        blocks[slot] = NULL;
    }
}

static char line[512];

static void say(const char *name, unsigned long value) {
    char digits[24];
    int n = 0;
    do
        digits[n++] = (char)('0' + value % 10);
    while ((value /= 10) != 0);
    strcat(strcat(line, name), "=");
    for (size_t end = strlen(line); n > 0; end++)
        line[end] = digits[--n];
    strcat(line, " ");
}

int main(int argc, char **argv) {
    state = strtoul(argv[argc - 1], NULL, 10);
    for (int i = 0; i < N_CALLS; i++)
        step();
    strcpy(line, "truth: ");
    say("current_bytes", current_bytes);
    say("current_count", current_count);
    say("peak_bytes", peak_bytes);
    say("peak_count", peak_count);
    say("allocated_bytes", allocated_bytes);
    say("allocated_count", allocated_count);
    say("freed_bytes", freed_bytes);
    say("freed_count", freed_count);
    strcat(line, "\n");
    return write(1, line, strlen(line)) != (ssize_t)strlen(line);
}
