// A small service that leaks as services do: by a forgotten free on a path that only runs when a cache is full.
//
//   leaky_service SOCKET        serves lines on a unix socket; says `ready` when it listens
//   leaky_service SOCKET N      a client: makes N requests, each after the answer to the one before
//   leaky_service SOCKET quit   ends the service
//
// Every request comes from a new user, gets a session and is logged. The cache keeps the last 256 sessions and the log the last
// 64 lines; parsing and answering churn. What is dropped from the cache loses its user's name and itself, not its agent: the leak.
//
// After N >= 256 requests there live: 256 sessions of 88 B (session_create), 256 names of 24 B (session_create), N agents of
// 123 B (session_create), 64 log lines of 72 B (log_line): 33 280 + 123 N bytes in 576 + N blocks.
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#define N_CACHED 256
#define N_LOGGED 64
#define NAME_BYTES 24
#define AGENT_BYTES 123
#define LOG_BYTES 72
#define LINE_BYTES 256

struct session {
    char *user;
    char *agent;
    char token[72];
};

static struct session *cache[N_CACHED];
static char *logged[N_LOGGED];
static unsigned long n_cached, n_logged, n_requests;

__attribute__((noinline)) static struct session *session_create(const char *user, const char *agent) {
    struct session *session = malloc(sizeof *session);
    session->user = malloc(NAME_BYTES);
    session->agent = malloc(AGENT_BYTES);
    snprintf(session->user, NAME_BYTES, "%s", user);
    snprintf(session->agent, AGENT_BYTES, "%s", agent);
    snprintf(session->token, sizeof session->token, "%s-%lu", user, n_requests);
    return session;
}

__attribute__((noinline)) static void cache_put(struct session *session) {
    struct session **slot = &cache[n_cached++ % N_CACHED];
    if (*slot) {
        free((*slot)->user);
        free(*slot); // the leak: its agent is forgotten
    }
    *slot = session;
}

__attribute__((noinline)) static void log_line(const char *user) {
    char **slot = &logged[n_logged++ % N_LOGGED];
    free(*slot);
    *slot = malloc(LOG_BYTES);
    snprintf(*slot, LOG_BYTES, "request %lu of %s", n_requests, user);
}

__attribute__((noinline)) static char *handle_request(const char *line) {
    char *user = strdup(line);
    n_requests++;
    cache_put(session_create(user, "agent/1.0 (unix; line)"));
    log_line(user);
    char *answer = malloc(64);
    snprintf(answer, 64, "hello %.40s\n", user);
    free(user);
    return answer;
}

static void fail(const char *what) {
    perror(what);
    exit(1);
}

// One line, without its end; 0 at the end of input.
static int read_line(int fd, char line[LINE_BYTES]) {
    for (int at = 0; at < LINE_BYTES - 1; at++) {
        if (read(fd, &line[at], 1) != 1)
            return 0;
        if (line[at] == '\n') {
            line[at] = 0;
            return 1;
        }
    }
    return 0;
}

static void say(int fd, const char *text) {
    if (write(fd, text, strlen(text)) < 0)
        fail("write");
}

static void serve(int listening) {
    char line[LINE_BYTES];
    for (;;) {
        int client = accept(listening, NULL, NULL);
        if (client < 0)
            fail("accept");
        while (read_line(client, line)) {
            if (strcmp(line, "quit") == 0) {
                say(client, "bye\n");
                return;
            }
            char *answer = handle_request(line);
            snprintf(line, sizeof line, "%s", answer);
            free(answer);
            // All is done by now: who has the answer finds the service at rest.
            say(client, line);
        }
        close(client);
    }
}

static void request(int fd, const char *text) {
    char answer[LINE_BYTES];
    say(fd, text);
    if (!read_line(fd, answer)) {
        fputs("the service has gone\n", stderr);
        exit(1);
    }
}

static void ask(int fd, const char *what) {
    char line[LINE_BYTES];
    if (strcmp(what, "quit") == 0) {
        request(fd, "quit\n");
        return;
    }
    long n = strtol(what, NULL, 10);
    for (long i = 0; i < n; i++) {
        snprintf(line, sizeof line, "user-%ld\n", i);
        request(fd, line);
    }
    printf("%ld requests answered\n", n);
}

int main(int argc, char **argv) {
    if (argc < 2 || argc > 3) {
        fputs("usage: leaky_service SOCKET [N|quit]\n", stderr);
        return 2;
    }
    struct sockaddr_un address = {.sun_family = AF_UNIX};
    snprintf(address.sun_path, sizeof address.sun_path, "%s", argv[1]);
    int fd = socket(AF_UNIX, SOCK_STREAM, 0);
    if (fd < 0)
        fail("socket");
    if (argc == 3) {
        if (connect(fd, (struct sockaddr *)&address, sizeof address))
            fail(argv[1]);
        ask(fd, argv[2]);
        return 0;
    }
    unlink(argv[1]);
    if (bind(fd, (struct sockaddr *)&address, sizeof address) || listen(fd, 8))
        fail(argv[1]);
    say(1, "ready\n");
    serve(fd);
    unlink(argv[1]);
    return 0;
}
