// Starts itself twice, by vfork and by posix_spawn. Says `ready`; at a line on stdin it makes 10 x 123 B; each of the two makes
// 6 x 77 B and ends with 0; then it makes 4 x 51 B, says `done`, and ends with status 7 at the end of its input. What posix_spawn
// itself allocates is freed by it.
// parent: live=1434/14; each child: allocated=462/6
#include <spawn.h>
#include <stdlib.h>
#include <sys/wait.h>
#include <unistd.h>

static void *volatile block;

static int hear(void) {
    char byte;
    while (read(0, &byte, 1) == 1)
        if (byte == '\n')
            return 1;
    return 0;
}

static int ended_well(pid_t child) {
    int status;
    return waitpid(child, &status, 0) == child && status == 0;
}

int main(int argc, char **argv) {
    if (argc > 1) {
        for (int i = 0; i < 6; i++)
            block = malloc(77);
        _exit(0);
    }
    if (write(1, "ready\n", 6) != 6)
        return 1;
    hear();
    for (int i = 0; i < 10; i++)
        block = malloc(123);
    char *args[] = {argv[0], "child", NULL};
    pid_t child = vfork();
    if (child == 0) {
        execv("/proc/self/exe", args);
        _exit(1);
    }
    if (!ended_well(child))
        return 1;
    if (posix_spawn(&child, "/proc/self/exe", NULL, NULL, args, NULL) != 0 || !ended_well(child))
        return 1;
    for (int i = 0; i < 4; i++)
        block = malloc(51);
    if (write(1, "done\n", 5) != 5)
        return 1;
    while (hear())
        ;
    return 7;
}
