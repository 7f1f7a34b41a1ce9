// An allocator of the program's own that never calls malloc: 40 blocks of 123 B from a pool, 15 of them given back.
//   --allocator 'alloc=pool:pool_alloc(size=arg1,ret=ptr) free=pool:pool_free(ptr=arg1)'
// totals: allocated=4920/40 freed=1845/15 current=3075/25 peak=4920/40
#include <stddef.h>

struct pool {
    char *next;
    char bytes[64 * 128];
};

static struct pool pool = {.next = pool.bytes};
static void *volatile blocks[40];

__attribute__((noinline)) void *pool_alloc(struct pool *from, size_t size) {
    char *block = from->next;
    from->next += (size + 15) & ~(size_t)15;
    return block;
}

__attribute__((noinline)) void pool_free(struct pool *to, void *block) {
    *(struct pool *volatile *)block = to;
}

int main(void) {
    for (int i = 0; i < 40; i++)
        blocks[i] = pool_alloc(&pool, 123);         //@ allocated=4920/40 live=3075/25 peak=4920/40
    for (int i = 0; i < 15; i++)
        pool_free(&pool, blocks[i]);
    return 0;
}
