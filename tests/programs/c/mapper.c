// mapper SEED STEPS MARKS: STEPS random calls of mmap (also MAP_FIXED over what is there, and of a file), munmap of parts, mremap
// (grown, shrunk, moved, duplicated), sbrk, brk and madvise. Each site keeps its own books; after every step their sum is
// compared with the anonymous memory in /proc/self/maps. Says `ready`, then at each of MARKS points and at the end its books:
// a line `mark N`, a line for each site (in the words of the report), `end`, and waits for a line. Allocates nothing by malloc.
#define _GNU_SOURCE
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#define PAGE 4096UL
#define AREA_PAGES 1024UL
#define MAX_BLOCKS 200000
#define TABLE (1 << 17)

enum site { MAP_ANYWHERE, MAP_TWICE, MAP_OVER, MOVE, DUPLICATE, GROW_BREAK, SET_BREAK, N_SITES };
static const char *const names[N_SITES] = {"map_anywhere", "map_twice", "map_over", "move", "duplicate", "grow_break", "set_break"};

static struct books {
    unsigned long live, count, allocated, allocated_count, peak, peak_count;
} books[N_SITES];
static struct block {
    unsigned long pages;
    enum site site;
} blocks[MAX_BLOCKS];
static unsigned n_blocks;
static unsigned long total, peak, given_back, base, area, state, steps_done;
static int own_file;

// Page number -> 1 + block, open addressing; 0 = never used, `GONE` = unmapped.
#define GONE 0xffffffffU
static unsigned long keys[TABLE];
static unsigned values[TABLE];
static unsigned long n_used;

static void die(const char *why) {
    ssize_t ignored = write(2, why, strlen(why));
    (void)ignored;
    _exit(3);
}

static unsigned long next(unsigned long below) {
    state = state * 6364136223846793005UL + 1442695040888963407UL;
    return (state >> 33) % below;
}

static unsigned long slot_of(unsigned long page) {
    unsigned long at = (page * 0x9E3779B97F4A7C15UL) >> 47;
    while (values[at] != 0 && keys[at] != page)
        at = (at + 1) % TABLE;
    return at;
}

// 1 + block, or 0.
static unsigned owner(unsigned long page) {
    unsigned value = values[slot_of(page)];
    return value == GONE ? 0 : value;
}

static void leave(unsigned long page) {
    unsigned long at = slot_of(page);
    if (values[at] == 0 || values[at] == GONE)
        return;
    struct block *block = &blocks[values[at] - 1];
    values[at] = GONE;
    block->pages--;
    books[block->site].live -= PAGE;
    books[block->site].count -= block->pages == 0;
    total -= PAGE;
}

static void enter(unsigned long page, unsigned block) {
    unsigned long at = slot_of(page);
    if (values[at] == 0 && ++n_used > TABLE / 2)
        die("table full\n");
    keys[at] = page;
    values[at] = block + 1;
}

static void unmapped(void *start, unsigned long n) {
    for (unsigned long i = 0; i < n; i++)
        leave((unsigned long)start / PAGE + i);
}

static void mapped(enum site site, void *start, unsigned long n) {
    if (n == 0)
        return;
    if (n_blocks == MAX_BLOCKS)
        die("too many blocks\n");
    blocks[n_blocks] = (struct block){n, site};
    for (unsigned long i = 0; i < n; i++)
        enter((unsigned long)start / PAGE + i, n_blocks);
    n_blocks++;
    books[site].live += n * PAGE;
    books[site].count++;
    books[site].allocated += n * PAGE;
    books[site].allocated_count++;
    total += n * PAGE;
}

static void step_done(void) {
    if (total <= peak)
        return;
    peak = total;
    for (int i = 0; i < N_SITES; i++) {
        books[i].peak = books[i].live;
        books[i].peak_count = books[i].count;
    }
}

// Anonymous bytes that the kernel sees: mappings without a file, and the data segment; not the stack.
static unsigned long kernel_sum(void) {
    static char text[1 << 22];
    int fd = open("/proc/self/maps", O_RDONLY);
    long length = 0, n;
    while ((n = read(fd, text + length, sizeof text - 1 - (unsigned long)length)) > 0)
        length += n;
    close(fd);
    if (length == sizeof text - 1)
        die("maps too long\n");
    unsigned long sum = 0;
    for (char *line = text; line < text + length;) {
        char *end = memchr(line, '\n', (unsigned long)(text + length - line)), *at = line;
        unsigned long start = strtoul(at, &at, 16), stop = strtoul(at + 1, &at, 16);
        for (int field = 0; field < 3; field++)
            at = memchr(at + 1, ' ', (unsigned long)(end - at));
        int is_file = !(at[1] == '0' && at[2] == ' ');
        for (at = strchr(at + 1, ' '); at < end && *at == ' ';)
            at++;
        // Shared anonymous memory is a deleted file of the kernel's own.
        if (is_file ? strncmp(at, "/dev/zero (deleted)", 19) == 0 : at == end || strncmp(at, "[heap]", 6) == 0)
            sum += stop - start;
        line = end + 1;
    }
    return sum;
}

static int protection(void) {
    static const int some[] = {PROT_NONE, PROT_READ, PROT_READ | PROT_WRITE};
    return some[next(3)];
}

__attribute__((noinline)) static void map_anywhere(unsigned long n) {
    void *p = mmap(NULL, n * PAGE - next(PAGE), protection(), MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (p != MAP_FAILED)
        mapped(MAP_ANYWHERE, p, n);
}

__attribute__((noinline)) static void map_twice(unsigned long n) {
    for (int i = 0; i < 2; i++) {
        void *p = mmap64((void *)area, n * PAGE, protection(), MAP_SHARED | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
        if (p != MAP_FAILED)
            mapped(MAP_TWICE, p, n);
        step_done();
    }
}

__attribute__((noinline)) static void map_over(unsigned long n) {
    void *at = (void *)(area + next(AREA_PAGES - n) * PAGE);
    int is_file = next(4) == 0;
    int flags = MAP_PRIVATE | MAP_FIXED | (is_file ? 0 : MAP_ANONYMOUS);
    void *p = mmap(at, n * PAGE, is_file ? PROT_READ : protection(), flags, is_file ? own_file : -1, 0);
    if (p == MAP_FAILED)
        return;
    unmapped(p, n);
    if (!is_file)
        mapped(MAP_OVER, p, n);
}

static void unmap(unsigned long n) {
    void *at = (void *)(area + next(AREA_PAGES - n) * PAGE);
    if (munmap(at, n * PAGE - next(PAGE)) == 0)
        unmapped(at, n);
}

// A run of pages of one block: its first page; `n` becomes its length, at most what it was.
static unsigned long some_run(unsigned long *n) {
    for (int tries = 0; tries < 2000; tries++) {
        unsigned long at = next(TABLE);
        if (values[at] == 0 || values[at] == GONE)
            continue;
        // The data segment stays where it is.
        enum site site = blocks[values[at] - 1].site;
        if (site == GROW_BREAK || site == SET_BREAK)
            continue;
        unsigned long page = keys[at], length = 1;
        while (length < *n && owner(page + length) == values[at])
            length++;
        *n = length;
        return page;
    }
    return 0;
}

__attribute__((noinline)) static void move(unsigned long n) {
    unsigned long old_n = next(8) + 1, page = some_run(&old_n), how = next(3);
    if (page == 0)
        return;
    void *old = (void *)(page * PAGE), *p;
    if (how == 0) {
        p = mremap(old, old_n * PAGE, n * PAGE, 0);
    } else if (how == 1) {
        p = mremap(old, old_n * PAGE, n * PAGE, MREMAP_MAYMOVE);
    } else {
        unsigned long to = area / PAGE + next(AREA_PAGES - n);
        if (to < page + old_n && page < to + n)
            return;
        p = mremap(old, old_n * PAGE, n * PAGE, MREMAP_MAYMOVE | MREMAP_FIXED, (void *)(to * PAGE));
    }
    if (p == MAP_FAILED)
        return;
    unmapped(old, old_n);
    unmapped(p, n);
    mapped(MOVE, p, n);
}

__attribute__((noinline)) static void duplicate(void) {
    unsigned long n = next(4) + 1, page = some_run(&n);
    if (page == 0)
        return;
    enum site site = blocks[owner(page) - 1].site;
    void *p;
    if (site == MAP_TWICE)
        p = mremap((void *)(page * PAGE), 0, n * PAGE, MREMAP_MAYMOVE);
    else
        p = mremap((void *)(page * PAGE), n * PAGE, n * PAGE, MREMAP_MAYMOVE | MREMAP_DONTUNMAP);
    if (p != MAP_FAILED)
        mapped(DUPLICATE, p, n);
}

static unsigned long page_up(unsigned long bytes) {
    return (bytes + PAGE - 1) / PAGE * PAGE;
}

static void break_moved(enum site site, unsigned long before, unsigned long now) {
    before = page_up(before);
    now = page_up(now);
    if (now > before)
        mapped(site, (void *)before, (now - before) / PAGE);
    else
        unmapped((void *)now, (before - now) / PAGE);
}

__attribute__((noinline)) static void grow_break(void) {
    unsigned long before = (unsigned long)sbrk(0);
    long by = (long)next(10 * PAGE) - (long)next(8 * PAGE);
    if (by < 0 && before - base < (unsigned long)-by)
        by = (long)(base - before);
    if (sbrk(by) != (void *)-1)
        break_moved(GROW_BREAK, before, before + (unsigned long)by);
}

__attribute__((noinline)) static void set_break(void) {
    unsigned long before = (unsigned long)sbrk(0), to = base + next(40 * PAGE);
    if (brk((void *)to) == 0)
        break_moved(SET_BREAK, before, to);
}

static void advise(void) {
    unsigned long n = next(8) + 1, page = some_run(&n);
    int gives_back = next(2) == 0;
    if (page != 0 && madvise((void *)(page * PAGE), n * PAGE, gives_back ? MADV_DONTNEED : MADV_WILLNEED) == 0 && gives_back)
        given_back += n * PAGE;
}

static char said[1 << 14];
static unsigned long n_said;

static void say(const char *word) {
    size_t n = strlen(word);
    memcpy(said + n_said, word, n);
    n_said += n;
}

static void say_number(const char *word, unsigned long number) {
    char digits[24];
    int at = sizeof digits - 1;
    digits[at] = 0;
    do
        digits[--at] = (char)('0' + number % 10);
    while ((number /= 10) > 0);
    say(word);
    say(digits + at);
}

static void mark(unsigned long n) {
    char word[64];
    n_said = 0;
    say_number("mark ", n);
    say_number(" steps=", steps_done);
    say_number(" peak=", peak);
    say_number(" given_back=", given_back);
    for (int i = 0; i < N_SITES; i++) {
        say("\nsite ");
        say(names[i]);
        say_number(" live=", books[i].live);
        say_number("/", books[i].count);
        say_number(" peak=", books[i].peak);
        say_number("/", books[i].peak_count);
        say_number(" allocated=", books[i].allocated);
        say_number("/", books[i].allocated_count);
    }
    say("\nend\n");
    if (write(1, said, n_said) != (ssize_t)n_said || read(0, word, sizeof word) < 0)
        _exit(4);
}

static void random_call(void) {
    unsigned long n = next(12) + 1;
    switch (next(16)) {
    case 0: case 1: case 2: map_anywhere(n); break;
    case 3: map_twice(n / 2 + 1); break;
    case 4: case 5: case 6: map_over(n); break;
    case 7: case 8: case 9: unmap(n * 2); break;
    case 10: case 11: case 12: move(n); break;
    case 13: duplicate(); break;
    case 14: if (next(2) == 0) grow_break(); else set_break(); break;
    default: advise();
    }
}

// Most of what the kernel placed lies outside of the area: it goes in whole runs.
static void make_room(void) {
    for (int i = 0; i < 40; i++) {
        unsigned long n = 64, page = some_run(&n);
        if (page != 0 && munmap((void *)(page * PAGE), n * PAGE) == 0)
            unmapped((void *)(page * PAGE), n);
        step_done();
    }
}

int main(int argc, char **argv) {
    char word[64];
    if (argc != 4)
        return 1;
    state = strtoul(argv[1], NULL, 10);
    unsigned long steps = strtoul(argv[2], NULL, 10), marks = strtoul(argv[3], NULL, 10);
    own_file = open("/proc/self/exe", O_RDONLY);
    base = (unsigned long)sbrk(0);
    if (write(1, "ready\n", 6) != 6 || read(0, word, sizeof word) < 0)
        return 1;
    // A stretch of address space that nobody else takes.
    void *found = mmap(NULL, AREA_PAGES * PAGE, PROT_NONE, MAP_PRIVATE, own_file, 0);
    if (found == MAP_FAILED || munmap(found, AREA_PAGES * PAGE) != 0)
        return 1;
    area = (unsigned long)found;
    unsigned long before = kernel_sum();
    for (steps_done = 1; steps_done <= steps; steps_done++) {
        random_call();
        step_done();
        if (total > 2000 * PAGE)
            make_room();
        if (kernel_sum() != before + total)
            die("the kernel has other books\n");
        if (marks > 0 && steps_done % (steps / marks) == 0)
            mark(steps_done / (steps / marks));
    }
    return 0;
}
