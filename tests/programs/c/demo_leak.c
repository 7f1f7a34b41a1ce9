// A small server that leaks: every request's answer goes into a cache that nothing ever leaves (one block of 159 B and one
// of 48 B a request, in cache_add), while parsing churns (two blocks a request, freed). Ends by itself: 5000 requests in
// about five seconds, 5000 x 207 B = 1 035 000 B left.
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#define N_REQUESTS 5000
#define ANSWER_BYTES 159

struct entry {
    struct entry *next;
    char *answer;
    char key[32];
};

static struct entry *cache;

__attribute__((noinline)) static void cache_add(const char *key, const char *answer) {
    struct entry *entry = malloc(sizeof *entry);
    entry->answer = malloc(ANSWER_BYTES); // the leak: looked up never, freed never
    snprintf(entry->key, sizeof entry->key, "%s", key);
    snprintf(entry->answer, ANSWER_BYTES, "%s", answer);
    entry->next = cache;
    cache = entry;
}

__attribute__((noinline)) static char *parse(const char *request) {
    char *copy = strdup(request);
    char *key = malloc(32);
    snprintf(key, 32, "%s", strrchr(copy, '/') + 1);
    free(copy);
    return key;
}

__attribute__((noinline)) static void handle(int number) {
    char request[64], answer[64];
    snprintf(request, sizeof request, "GET /images/%d", number);
    char *key = parse(request);
    snprintf(answer, sizeof answer, "image %s", key);
    cache_add(key, answer);
    free(key);
}

int main(void) {
    const struct timespec pause = {.tv_nsec = 900 * 1000};
    fprintf(stderr, "demo: serving %d requests; the cache grows by %zu bytes with each\n", N_REQUESTS,
            sizeof(struct entry) + ANSWER_BYTES);
    for (int number = 0; number < N_REQUESTS; number++) {
        handle(number);
        nanosleep(&pause, NULL);
    }
    fprintf(stderr, "demo: done, %zu bytes in the cache\n", N_REQUESTS * (sizeof(struct entry) + ANSWER_BYTES));
    return 0;
}
