// Starts N processes (its argument), one after the other, at most R a second where a second argument says so, by fork and exec of
// itself, and waits for each. Each makes
// 5 x 41 B and frees 2, and ends with 0. After every 20th it starts one that lives until it is told to end, 150 ms or more later.
// Says `long <pid>` for each of those, and `done <number of short ones>` at the end; ends with status 7 at the end of its input.
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

static void *volatile block;

static void live(int pipe_to_end) {
    void *volatile blocks[5];
    for (int i = 0; i < 5; i++)
        blocks[i] = malloc(41);
    free(blocks[0]);
    free(blocks[1]);
    char byte;
    if (pipe_to_end >= 0)
        while (read(pipe_to_end, &byte, 1) > 0)
            ;
    _exit(0);
}

static double now(void) {
    struct timespec time;
    clock_gettime(CLOCK_MONOTONIC, &time);
    return time.tv_sec + time.tv_nsec * 1e-9;
}

static pid_t start(char *name, int pipe_to_end, int not_for_it) {
    char number[16];
    snprintf(number, sizeof number, "%d", pipe_to_end);
    pid_t child = fork();
    if (child == 0) {
        if (not_for_it >= 0)
            close(not_for_it);
        execl(name, name, "live", number, NULL);
        _exit(1);
    }
    return child;
}

int main(int argc, char **argv) {
    if (argc == 3 && strcmp(argv[1], "live") == 0)
        live(atoi(argv[2]));
    int n = argc > 1 ? atoi(argv[1]) : 0;
    int per_second = argc > 2 ? atoi(argv[2]) : 0;
    setvbuf(stdout, NULL, _IOLBF, 512);
    puts("ready");
    char line[16];
    if (!fgets(line, sizeof line, stdin))
        return 1;
    pid_t long_life = 0;
    int to_end[2] = {-1, -1};
    double since = 0;
    int n_short = 0;
    double begun = now();
    for (int i = 0; i < n || long_life; i++) {
        if (long_life && now() - since >= 0.15) {
            close(to_end[1]);
            if (waitpid(long_life, NULL, 0) != long_life)
                return 1;
            long_life = 0;
        }
        if (!long_life && i < n && i % 20 == 0) {
            if (pipe(to_end) != 0)
                return 1;
            long_life = start(argv[0], to_end[0], to_end[1]);
            close(to_end[0]);
            since = now();
            printf("long %d\n", (int)long_life);
        }
        int status;
        pid_t child = start(argv[0], -1, to_end[1]);
        if (waitpid(child, &status, 0) != child || status != 0)
            return 1;
        n_short++;
        double early = per_second > 0 ? begun + (double)n_short / per_second - now() : 0;
        struct timespec rest = {(time_t)early, (long)((early - (time_t)early) * 1e9)};
        if (early > 0)
            nanosleep(&rest, NULL);
    }
    printf("done %d\n", n_short);
    while (fgets(line, sizeof line, stdin))
        ;
    return 7;
}
