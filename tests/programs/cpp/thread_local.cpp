// Four threads one after the other, each with a thread_local object that owns 401 B; its destructor frees them at thread exit
// and leaves one block of 403 B.
// totals: allocated=3216/8 freed=1604/4 current=1612/4 peak=1612/4
// counters: frees_unknown=8 frees_of_null=any
// runtime: libstdc++
// Each thread's end frees its tcache and the entry that it holds: the 32 B of libc's list of destructors, freed before.
#include <pthread.h>

static char *volatile kept[4];
static int n_kept;

struct Owner {
    char *volatile block;
    Owner() {
        block = new char[401]; //@ allocated=1604/4
    }
    ~Owner() {
        delete[] block;
        kept[n_kept++] = new char[403]; //@ allocated=1612/4 live=1612/4 peak=1612/4
    }
};

static thread_local Owner owner; //@ runtime

static void *work(void *) {
    owner.block[0] = 1;
    return nullptr;
}

int main() {
    for (int i = 0; i < 4; i++) {
        pthread_t thread;
        pthread_create(&thread, nullptr, work, nullptr); //@ runtime
        pthread_join(thread, nullptr);
    }
    return 0;
}
