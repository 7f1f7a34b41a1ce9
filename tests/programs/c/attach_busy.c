// Four threads exchange blocks of odd sizes over shared slots all the time, so that most are freed on another thread than they
// were made on. After a line on stdin each does 5000 more rounds, and main frees what is left: nothing stays.
#include <pthread.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <unistd.h>

#define N_SLOTS 256

static _Atomic(void *) slots[N_SLOTS];
static atomic_int told;

static void *work(void *number) {
    unsigned long state = (unsigned long)number;
    for (int rest = 5000; rest > 0;) {
        if (atomic_load(&told))
            rest--;
        state = state * 6364136223846793005UL + 1442695040888963407UL;
        void *block = malloc(2 * ((state >> 40) % 500) + 1);
        free(atomic_exchange(&slots[(state >> 33) % N_SLOTS], block));
    }
    return NULL;
}

int main(void) {
    pthread_t threads[4];
    char line[8];
    for (long i = 0; i < 4; i++)
        pthread_create(&threads[i], NULL, work, (void *)(i + 1));
    // The attach finds full slots.
    for (int i = 0; i < N_SLOTS;)
        i += atomic_load(&slots[i]) != NULL;
    if (write(1, "ready\n", 6) != 6 || read(0, line, sizeof line) <= 0)
        return 1;
    atomic_store(&told, 1);
    for (int i = 0; i < 4; i++)
        pthread_join(threads[i], NULL);
    for (int i = 0; i < N_SLOTS; i++)
        free(atomic_load(&slots[i]));
    return 0;
}
