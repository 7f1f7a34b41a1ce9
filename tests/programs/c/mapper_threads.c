// mapper_threads SEED CALLS: eight threads make CALLS random calls each of mmap, munmap (of parts too), mremap and madvise, on
// mappings of their own; the kernel hands addresses from one to the other. Says `ready` and waits for a line; at the end the books
// of all threads together, a line for each site, `end`, and waits for a line. The threads' stacks are libc's.
#define _GNU_SOURCE
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <unistd.h>

#define N_THREADS 8
#define N_SLOTS 24
#define PAGE 4096UL

enum site { MAP, MOVE, N_SITES };
static const char *const names[N_SITES] = {"map", "move"};

struct books {
    unsigned long live, count, allocated, allocated_count;
};
// A mapping: up to two pieces are left of it.
struct slot {
    char *start[2];
    unsigned long pages[2];
    enum site site;
};
struct thread {
    pthread_t id;
    unsigned long state;
    struct books books[N_SITES];
    struct slot slots[N_SLOTS];
};
static struct thread threads[N_THREADS];
static unsigned long n_calls;

static unsigned long next(struct thread *own, unsigned long below) {
    own->state = own->state * 6364136223846793005UL + 1442695040888963407UL;
    return (own->state >> 33) % below;
}

static void made(struct thread *own, struct slot *slot, enum site site, void *p, unsigned long pages) {
    if (p == MAP_FAILED)
        _exit(3);
    *slot = (struct slot){{p, NULL}, {pages, 0}, site};
    own->books[site].live += pages * PAGE;
    own->books[site].count++;
    own->books[site].allocated += pages * PAGE;
    own->books[site].allocated_count++;
}

static void gone(struct thread *own, struct slot *slot, unsigned long pages) {
    own->books[slot->site].live -= pages * PAGE;
    own->books[slot->site].count -= slot->pages[0] + slot->pages[1] == 0;
}

__attribute__((noinline)) static void map(struct thread *own, struct slot *slot) {
    unsigned long pages = next(own, 16) + 1;
    made(own, slot, MAP, mmap(NULL, pages * PAGE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0), pages);
}

__attribute__((noinline)) static void move(struct thread *own, struct slot *slot) {
    unsigned long old = slot->pages[0], pages = next(own, 16) + 1;
    void *p = mremap(slot->start[0], old * PAGE, pages * PAGE, MREMAP_MAYMOVE);
    slot->pages[0] = 0;
    gone(own, slot, old);
    made(own, slot, MOVE, p, pages);
}

static void unmap(struct thread *own, struct slot *slot) {
    for (int i = 0; i < 2; i++) {
        unsigned long pages = slot->pages[i];
        if (pages == 0)
            continue;
        if (munmap(slot->start[i], pages * PAGE) != 0)
            _exit(3);
        slot->pages[i] = 0;
        gone(own, slot, pages);
    }
}

// Takes the middle page out.
static void split(struct thread *own, struct slot *slot) {
    unsigned long pages = slot->pages[0], middle = pages / 2;
    if (munmap(slot->start[0] + middle * PAGE, PAGE) != 0)
        _exit(3);
    slot->pages[0] = middle;
    slot->start[1] = slot->start[0] + (middle + 1) * PAGE;
    slot->pages[1] = pages - middle - 1;
    gone(own, slot, 1);
}

static void *work(void *arg) {
    struct thread *own = arg;
    for (unsigned long i = 0; i < n_calls; i++) {
        struct slot *slot = &own->slots[next(own, N_SLOTS)];
        if (slot->pages[0] + slot->pages[1] == 0) {
            map(own, slot);
            continue;
        }
        switch (next(own, 4)) {
        case 0:
            if (slot->pages[1] == 0)
                move(own, slot);
            break;
        case 1:
            if (slot->pages[1] == 0 && slot->pages[0] > 2)
                split(own, slot);
            break;
        case 2:
            if (slot->pages[0] > 0)
                madvise(slot->start[0], PAGE, MADV_DONTNEED);
            break;
        default: unmap(own, slot);
        }
    }
    return NULL;
}

int main(int argc, char **argv) {
    char text[1024], word[64];
    if (argc != 3)
        return 1;
    n_calls = strtoul(argv[2], NULL, 10);
    if (write(1, "ready\n", 6) != 6 || read(0, word, sizeof word) < 0)
        return 1;
    for (unsigned long i = 0; i < N_THREADS; i++) {
        threads[i].state = strtoul(argv[1], NULL, 10) * N_THREADS + i;
        if (pthread_create(&threads[i].id, NULL, work, &threads[i]) != 0)
            return 1;
    }
    for (int i = 0; i < N_THREADS; i++)
        pthread_join(threads[i].id, NULL);
    int length = 0;
    for (int site = 0; site < N_SITES; site++) {
        struct books sum = {0};
        for (int i = 0; i < N_THREADS; i++) {
            sum.live += threads[i].books[site].live;
            sum.count += threads[i].books[site].count;
            sum.allocated += threads[i].books[site].allocated;
            sum.allocated_count += threads[i].books[site].allocated_count;
        }
        length += snprintf(text + length, sizeof text - (size_t)length, "site %s live=%lu/%lu allocated=%lu/%lu\n", names[site], sum.live,
                           sum.count, sum.allocated, sum.allocated_count);
    }
    length += snprintf(text + length, sizeof text - (size_t)length, "end\n");
    return write(1, text, (size_t)length) == length && read(0, word, sizeof word) >= 0 ? 0 : 1;
}
