// The child of a fork makes 1000 x 997 B and frees a block of its parent's: none of it is the parent's. The parent makes 11 x 47 B
// before and 13 x 51 B after.
// totals: allocated=1180/24 freed=47/1 current=1133/23 peak=1180/24
#include <stdlib.h>
#include <sys/wait.h>
#include <unistd.h>

static void *volatile blocks[11], *volatile block;

int main(void) {
    for (int i = 0; i < 11; i++)
        blocks[i] = malloc(47); //@ allocated=517/11 live=470/10 peak=517/11
    pid_t child = fork();
    if (child == 0) {
        free(blocks[3]);
        for (int i = 0; i < 1000; i++)
            block = malloc(997);
        _exit(0);
    }
    int status;
    if (waitpid(child, &status, 0) != child || status != 0)
        return 1;
    for (int i = 0; i < 13; i++)
        block = malloc(51); //@ allocated=663/13 live=663/13 peak=663/13
    free(blocks[5]);
    return 0;
}
