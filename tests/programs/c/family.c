// Works in steps, one for each line on stdin, and says `done` after each:
//
//   make N S        makes N blocks of S bytes and keeps them
//   free N          frees its N oldest blocks, those that it was forked with included
//   regrow N S      reallocates its N oldest blocks to S bytes; they are its newest then
//   fork            makes a child that works in steps, and says its process id in place of `done`
//   c LINE          the child that it made last does LINE
//   exit CODE       ends; its parent says `done` when it has seen that
//   crowd N K S     makes N children one after the other, each of which makes K blocks of S bytes and ends
//   vfork S         makes a child by vfork, which makes a block of S bytes in its parent's memory and becomes this program again,
//                   works in steps, and is the child that was made last
//   exec            a thread that is not the first one makes a block of 11 bytes and calls exec of this program, which says `ready`
//   lead            goes on in another thread, while the first one ends
//   again PID       makes a child that has this process id, if it is free
//
// Nothing else allocates, but what the C library does for a thread that is started (272 bytes of calloc on x86-64 glibc).
#define _GNU_SOURCE
#include <fcntl.h>
#include <linux/sched.h>
#include <pthread.h>
#include <signal.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#define ROOM (1 << 14)

static void *kept[ROOM];
static long first, next;
static int in = 0, out = 1;
static int to_child, from_child;
static pid_t child;
extern char **environ;

// A whole line without its end, or 0 at the end.
static int hear(int from, char *line, int room) {
    for (int n = 0; n < room - 1 && read(from, &line[n], 1) == 1; n++)
        if (line[n] == '\n')
            return line[n] = 0, 1;
    return 0;
}

static void tell(int to, const char *line) {
    char text[96];
    int n = strlen(line);
    memcpy(text, line, n);
    text[n] = '\n';
    if (write(to, text, n + 1) != n + 1)
        _exit(9);
}

static void tell_number(int to, long number) {
    char digits[24], *at = &digits[23];
    *at = 0;
    do
        *--at = '0' + number % 10;
    while (number /= 10);
    tell(to, at);
}

static void keep(void *block) { kept[next++ % ROOM] = block; }

// Pipes of a child that is to be made: `theirs` for it, and `to_child`, `from_child` for this process.
static void make_pipes(int theirs[2]) {
    int down[2], up[2];
    if (pipe2(down, O_CLOEXEC) || pipe2(up, O_CLOEXEC))
        _exit(9);
    theirs[0] = down[0], theirs[1] = up[1];
    to_child = down[1], from_child = up[0];
}

static void close_pipes(const int theirs[2]) { close(theirs[0]), close(theirs[1]); }

static void become_child(const int theirs[2]) { in = theirs[0], out = theirs[1], child = 0; }

static void become_program(const int pipes[2]) {
    char *const arguments[] = {"family", NULL};
    dup2(pipes[0], 0), dup2(pipes[1], 1);
    execve("/proc/thread-self/exe", arguments, environ);
    _exit(9);
}

static void *exec_in_thread(void *unused) {
    keep(malloc(11));
    become_program((int[]){in, out});
    return unused;
}

static void work(void);

static void *go_on(void *unused) {
    pthread_join(*(pthread_t *)unused, NULL);
    tell(out, "done");
    work();
    _exit(7);
}

static void work(void) {
    char line[96];
    while (hear(in, line, sizeof line)) {
        long a = 0, b = 0, c = 0;
        char *rest = strchr(line, ' ');
        if (rest) {
            *rest++ = 0;
            char *end;
            a = strtol(rest, &end, 10), b = strtol(end, &end, 10), c = strtol(end, &end, 10);
        }
        int theirs[2];
        if (!strcmp(line, "make")) {
            while (a-- > 0)
                keep(malloc(b));
        } else if (!strcmp(line, "free")) {
            for (; a > 0 && first < next; a--)
                free(kept[first++ % ROOM]);
        } else if (!strcmp(line, "regrow")) {
            for (; a > 0 && first < next; a--)
                keep(realloc(kept[first++ % ROOM], b));
        } else if (!strcmp(line, "fork")) {
            make_pipes(theirs);
            child = fork();
            if (child == 0) {
                close(to_child), close(from_child);
                become_child(theirs);
                continue;
            }
            close_pipes(theirs);
            tell_number(out, child);
            continue;
        } else if (!strcmp(line, "again")) {
            make_pipes(theirs);
            pid_t wanted = a;
            struct clone_args arguments = {
                .exit_signal = SIGCHLD, .set_tid = (uintptr_t)&wanted, .set_tid_size = 1};
            long made = syscall(SYS_clone3, &arguments, sizeof arguments);
            if (made < 0) {
                tell(out, "taken");
                continue;
            }
            child = made;
            if (child == 0) {
                close(to_child), close(from_child);
                become_child(theirs);
                continue;
            }
            close_pipes(theirs);
        } else if (!strcmp(line, "c")) {
            tell(to_child, rest);
            char answer[96];
            if (hear(from_child, answer, sizeof answer)) {
                tell(out, answer);
                continue;
            }
            waitpid(child, NULL, 0);
            close(to_child), close(from_child);
        } else if (!strcmp(line, "crowd")) {
            while (a-- > 0) {
                pid_t one = fork();
                if (one == 0) {
                    while (c > 0 && b-- > 0)
                        keep(malloc(c));
                    _exit(0);
                }
                waitpid(one, NULL, 0);
            }
        } else if (!strcmp(line, "vfork")) {
            make_pipes(theirs);
            child = vfork();
            if (child == 0) {
                keep(malloc(a));
                become_program(theirs);
            }
            close_pipes(theirs);
            // The new program is ready.
            hear(from_child, line, sizeof line);
            tell_number(out, child);
            continue;
        } else if (!strcmp(line, "exec")) {
            pthread_t thread;
            pthread_create(&thread, NULL, exec_in_thread, NULL);
            pthread_join(thread, NULL);
        } else if (!strcmp(line, "lead")) {
            static pthread_t leader;
            leader = pthread_self();
            pthread_t thread;
            pthread_create(&thread, NULL, go_on, &leader);
            pthread_exit(NULL);
        } else if (!strcmp(line, "exit")) {
            _exit(a);
        }
        tell(out, "done");
    }
}

int main(void) {
    tell(1, "ready");
    work();
    return 7;
}
