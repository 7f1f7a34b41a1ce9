// A thread that is not the first one calls exec: the process stays, its memory goes. Says `ready`; at a line on stdin it makes
// 20 x 123 B, and its thread 3 x 77 B; then the thread executes this program again, which says `after`, makes 7 x 51 B at a line on
// stdin, says `done`, and ends with status 7 at the end of its input.
// before: allocated=2691/23; after: allocated=357/7
#include <pthread.h>
#include <stdlib.h>
#include <unistd.h>

static void *volatile block;
static char *self;

static int hear(void) {
    char byte;
    while (read(0, &byte, 1) == 1)
        if (byte == '\n')
            return 1;
    return 0;
}

static void *becomes(void *unused) {
    for (int i = 0; i < 3; i++)
        block = malloc(77);
    char *args[] = {self, "after", NULL};
    execv("/proc/self/exe", args);
    return unused;
}

int main(int argc, char **argv) {
    self = argv[0];
    if (argc > 1) {
        if (write(1, "after\n", 6) != 6)
            return 1;
        hear();
        for (int i = 0; i < 7; i++)
            block = malloc(51);
        if (write(1, "done\n", 5) != 5)
            return 1;
        while (hear())
            ;
        return 7;
    }
    // The stack of a thread and what it keeps are made before the words that begin the count.
    if (write(1, "ready\n", 6) != 6)
        return 1;
    hear();
    for (int i = 0; i < 20; i++)
        block = malloc(123);
    pthread_t thread;
    if (pthread_create(&thread, NULL, becomes, NULL) != 0)
        return 1;
    pthread_join(thread, NULL);
    return 1;
}
