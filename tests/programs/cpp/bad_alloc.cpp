// operator new that fails: 5 times what nobody has, each caught three calls above, between 9 blocks of 77 bytes each.
// What the exceptions themselves take is the C++ library's.
// totals: allocated=693/9 freed=539/7 current=154/2 peak=693/9
// runtime: libstdc++
#include <cstdio>
#include <new>

static void *volatile blocks[9];
static volatile std::size_t huge = static_cast<std::size_t>(-1) / 4;

__attribute__((noinline)) static void *third(std::size_t bytes) {
    return ::operator new(bytes);
}

__attribute__((noinline)) static void *second(std::size_t bytes) {
    void *block = third(bytes);
    return block;
}

__attribute__((noinline)) static bool fails(std::size_t bytes) {
    try {
        blocks[0] = second(bytes);
        return false;
    } catch (const std::bad_alloc &) {
        return true;
    }
}

int main() {
    for (int i = 0; i < 5; i++)
        if (!fails(huge))
            return 1;
    for (auto &block : blocks)
        block = ::operator new(77); //@ allocated=693/9 live=154/2 peak=693/9
    for (int i = 2; i < 9; i++)
        ::operator delete(blocks[i]);
    std::puts("caught");
    return 0;
}
