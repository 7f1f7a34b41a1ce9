// operator new and delete in every form that C++17 has, small, past a fast path's limit and large; one block of each is left.
// totals: allocated=2338140/241 freed=1631040/227 current=707100/14 peak=2338140/241
// counters: frees_of_null=any
// runtime: libstdc++
#include <new>

static void *volatile blocks[14][41];

int main() {
    for (int i = 0; i < 7; i++)
        blocks[0][i] = ::operator new(41); //@ allocated=287/7 live=41/1 peak=287/7
    for (int i = 0; i < 11; i++)
        blocks[1][i] = ::operator new[](43); //@ allocated=473/11 live=43/1 peak=473/11
    for (int i = 0; i < 13; i++)
        blocks[2][i] = ::operator new(47, std::nothrow); //@ allocated=611/13 live=47/1 peak=611/13
    for (int i = 0; i < 5; i++)
        blocks[3][i] = ::operator new[](53, std::nothrow); //@ allocated=265/5 live=53/1 peak=265/5
    for (int i = 0; i < 17; i++)
        blocks[4][i] = ::operator new(192, std::align_val_t(64)); //@ allocated=3264/17 live=192/1 peak=3264/17
    for (int i = 0; i < 3; i++)
        blocks[5][i] = ::operator new[](320, std::align_val_t(64)); //@ allocated=960/3 live=320/1 peak=960/3
    for (int i = 0; i < 19; i++)
        blocks[6][i] = ::operator new(128, std::align_val_t(128), std::nothrow); //@ allocated=2432/19 live=128/1 peak=2432/19
    for (int i = 0; i < 23; i++)
        blocks[7][i] = ::operator new[](256, std::align_val_t(128), std::nothrow); //@ allocated=5888/23 live=256/1 peak=5888/23
    for (int i = 0; i < 29; i++)
        blocks[8][i] = ::operator new(59); //@ allocated=1711/29 live=59/1 peak=1711/29
    for (int i = 0; i < 31; i++)
        blocks[9][i] = ::operator new[](61); //@ allocated=1891/31 live=61/1 peak=1891/31
    for (int i = 0; i < 37; i++)
        blocks[10][i] = ::operator new(384, std::align_val_t(64)); //@ allocated=14208/37 live=384/1 peak=14208/37
    for (int i = 0; i < 2; i++)
        blocks[11][i] = ::operator new[](512, std::align_val_t(256)); //@ allocated=1024/2 live=512/1 peak=1024/2
    for (int i = 0; i < 41; i++)
        blocks[12][i] = ::operator new(5003); //@ allocated=205123/41 live=5003/1 peak=205123/41
    for (int i = 0; i < 3; i++)
        blocks[13][i] = ::operator new(700001); //@ allocated=2100003/3 live=700001/1 peak=2100003/3
    for (int i = 1; i < 7; i++)
        ::operator delete(blocks[0][i]);
    for (int i = 1; i < 11; i++)
        ::operator delete[](blocks[1][i]);
    for (int i = 1; i < 13; i++)
        ::operator delete(blocks[2][i], std::nothrow);
    for (int i = 1; i < 5; i++)
        ::operator delete[](blocks[3][i], std::nothrow);
    for (int i = 1; i < 17; i++)
        ::operator delete(blocks[4][i], std::align_val_t(64));
    for (int i = 1; i < 3; i++)
        ::operator delete[](blocks[5][i], std::align_val_t(64));
    for (int i = 1; i < 19; i++)
        ::operator delete(blocks[6][i], std::align_val_t(128), std::nothrow);
    for (int i = 1; i < 23; i++)
        ::operator delete[](blocks[7][i], std::align_val_t(128), std::nothrow);
    for (int i = 1; i < 29; i++)
        ::operator delete(blocks[8][i], 59);
    for (int i = 1; i < 31; i++)
        ::operator delete[](blocks[9][i], 61);
    for (int i = 1; i < 37; i++)
        ::operator delete(blocks[10][i], 384, std::align_val_t(64));
    for (int i = 1; i < 2; i++)
        ::operator delete[](blocks[11][i], 512, std::align_val_t(256));
    for (int i = 1; i < 41; i++)
        ::operator delete(blocks[12][i]);
    for (int i = 1; i < 3; i++)
        ::operator delete(blocks[13][i], 700001);
    return 0;
}
