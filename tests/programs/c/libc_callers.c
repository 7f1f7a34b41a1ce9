// Blocks that libc allocates for its callers: 11 copies of a string of 32 bytes (33 with its end), a line of 6 characters, a
// directory. How many bytes a line's buffer and a directory take is libc's affair.
// A thread makes one more copy, of 76 bytes (77).
#define _GNU_SOURCE
#include <dirent.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static void copy_strings(void) {
    for (int i = 0; i < 11; i++) {
        if (!strdup("0123456789abcdef0123456789abcdef")) {
            abort();
        }
    }
}

static void read_line(void) {
    FILE *file = tmpfile();
    char *line = NULL;
    size_t size = 0;
    if (!file || fputs("line\n", file) < 0) {
        abort();
    }
    rewind(file);
    if (getline(&line, &size, file) != 5) {
        abort();
    }
}

static void open_directory(void) {
    DIR *directory = opendir("/");
    if (!directory || !readdir(directory)) {
        abort();
    }
}

static void *in_thread(void *text) {
    return strdup(text);
}

int main(void) {
    copy_strings();
    read_line();
    open_directory();
    char text[77];
    memset(text, 'x', sizeof text);
    text[76] = 0;
    pthread_t thread;
    if (pthread_create(&thread, NULL, in_thread, text) || pthread_join(thread, NULL)) {
        abort();
    }
    return 0;
}
