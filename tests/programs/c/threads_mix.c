// Eight threads, 8000 random calls each: malloc, calloc, realloc and free over shared slots, so that blocks are moved and freed
// on other threads than they were made on. The program keeps its own books and prints them; a peak it cannot know.
#include <pthread.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define N_THREADS 8
#define N_SLOTS 300
#define N_CALLS 8000

struct block {
    unsigned long size; // of the whole block, asked for
};

static _Atomic(struct block *) slots[N_SLOTS];
static atomic_ulong allocated_bytes, allocated_count, freed_bytes, freed_count;

static void made(struct block *block, unsigned long size) {
    if (block == NULL)
        _exit(3);
    block->size = size;
    allocated_bytes += size;
    allocated_count++;
}

static void gone(unsigned long size) {
    freed_bytes += size;
    freed_count++;
}

static void *work(void *number) {
    unsigned long state = (unsigned long)number;
    for (int i = 0; i < N_CALLS; i++) {
        state = state * 6364136223846793005UL + 1442695040888963407UL;
        unsigned long size = sizeof(struct block) + (state >> 44) % 3000;
        int slot = (int)((state >> 33) % N_SLOTS);
        // Whoever takes a block out of its slot owns it.
        struct block *block = atomic_exchange(&slots[slot], NULL);
        if (block == NULL) {
            block = i % 2 == 0 ? malloc(size) : calloc(1, size);
            made(block, size);
        } else if (i % 3 == 0) {
            gone(block->size);
            free(block);
            continue;
        } else {
            gone(block->size);
            block = realloc(block, size);
            made(block, size);
        }
        struct block *other = atomic_exchange(&slots[slot], block);
        if (other != NULL) {
            gone(other->size);
            free(other);
        }
    }
    return NULL;
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

int main(void) {
    pthread_t threads[N_THREADS];
    for (long i = 0; i < N_THREADS; i++)
        pthread_create(&threads[i], NULL, work, (void *)(i + 1)); //@ runtime
    for (int i = 0; i < N_THREADS; i++)
        pthread_join(threads[i], NULL);
    strcpy(line, "truth: ");
    say("allocated_bytes", allocated_bytes);
    say("allocated_count", allocated_count);
    say("freed_bytes", freed_bytes);
    say("freed_count", freed_count);
    strcat(line, "\n");
    return write(1, line, strlen(line)) != (ssize_t)strlen(line);
}
