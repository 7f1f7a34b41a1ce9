// fork_mappings: the parent maps 40 pages; its child, which has them too, unmaps 10 of them, maps 7 of its own, and becomes itself
// anew by exec, which maps 5 and ends. Then the parent unmaps 15 of its own. Allocates nothing by malloc.
#define _GNU_SOURCE
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>

#define PAGE 4096UL

static char *pages(unsigned long n) {
    return mmap(NULL, n * PAGE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
}

__attribute__((noinline)) static void child(char *inherited, char **argv) {
    munmap(inherited, 10 * PAGE);
    if (pages(7) == MAP_FAILED)
        _exit(1);
    execv("/proc/self/exe", (char *[]){argv[0], "again", NULL});
    _exit(2);
}

int main(int argc, char **argv) {
    int status;
    if (argc > 1)
        return pages(5) == MAP_FAILED;
    char *own = pages(40);
    pid_t pid = fork();
    if (pid == 0)
        child(own, argv);
    if (pid < 0 || waitpid(pid, &status, 0) != pid || status != 0)
        return 3;
    return munmap(own, 15 * PAGE);
}
