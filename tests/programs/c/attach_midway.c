// Before the attach: 40 blocks of 1013 B. After it: 25 of them freed, 3 of them grown to 2027 B, 6 new ones of 99 B of which 2
// are freed, and 4 more of the old ones freed. Never are the totals negative.
// totals: allocated=6675/9 freed=198/2 current=6477/7 peak=6477/7
// counters: frees_unknown=29 reallocs_unknown=3
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static void *old[40], *new[6];

static void say(const char *line) {
    if (write(1, line, strlen(line)) < 0)
        _exit(1);
}

static void wait_for_go(void) {
    char line[8];
    if (read(0, line, sizeof line) <= 0)
        _exit(2);
}

int main(void) {
    for (int i = 0; i < 40; i++)
        old[i] = malloc(1013);
    say("ready\n");
    wait_for_go();
    for (int i = 0; i < 25; i++)
        free(old[i]);
    for (int i = 0; i < 6; i++)
        new[i] = malloc(99); //@ allocated=594/6 live=396/4 peak=396/4
    free(new[1]);
    free(new[4]);
    for (int i = 25; i < 28; i++)
        old[i] = realloc(old[i], 2027); //@ allocated=6081/3 live=6081/3 peak=6081/3
    for (int i = 28; i < 32; i++)
        free(old[i]);
    return 0;
}
