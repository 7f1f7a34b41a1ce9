// Parent and child of a fork free the same blocks, each its own copy. Says `ready`, and goes on at each line on stdin:
// parent: 100 x 123 B, forks; child: frees 40 of those 100, makes 10 x 77 B, frees 2 of these, says `child <pid>`, and ends at the
// next line; parent: frees 30 of the 100, makes 5 x 55 B, says `parent`, and ends with status 7 at the end of its input.
// With the argument `hold` the child does not end by itself.
// parent: allocated=12575/105 freed=3690/30; child: inherited=12300/100 allocated=770/10 freed=154/2 frees_inherited=40
#include <stdio.h>
#include <stdlib.h>
#include <sys/wait.h>
#include <unistd.h>

static void *volatile blocks[100], *volatile own[10];

static void say(const char *text, int length) {
    if (write(1, text, length) != length)
        _exit(1);
}

static int hear(int from) {
    char byte;
    while (read(from, &byte, 1) == 1)
        if (byte == '\n')
            return 1;
    return 0;
}

int main(int argc, char **argv) {
    (void)argv;
    int to_child[2], to_parent[2];
    if (pipe(to_child) != 0 || pipe(to_parent) != 0)
        return 1;
    say("ready\n", 6);
    hear(0);
    for (int i = 0; i < 100; i++)
        blocks[i] = malloc(123);
    pid_t child = fork();
    if (child == 0) {
        close(to_child[1]);
        for (int i = 0; i < 40; i++)
            free(blocks[i]);
        for (int i = 0; i < 10; i++)
            own[i] = malloc(77);
        free(own[0]);
        free(own[1]);
        char line[32];
        int length = snprintf(line, sizeof line, "child %d\n", (int)getpid());
        say(line, length);
        if (write(to_parent[1], "\n", 1) != 1)
            _exit(1);
        // Ends when its parent has closed the pipe, or never.
        hear(to_child[0]);
        if (argc > 1)
            for (;;)
                pause();
        _exit(0);
    }
    hear(to_parent[0]);
    for (int i = 0; i < 30; i++)
        free(blocks[i]);
    for (int i = 0; i < 5; i++)
        own[i] = malloc(55);
    say("parent\n", 7);
    hear(0);
    close(to_child[1]);
    if (argc == 1)
        waitpid(child, NULL, 0);
    say("over\n", 5);
    while (hear(0))
        ;
    return 7;
}
