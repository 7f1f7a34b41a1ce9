// Opens the library named by the first argument, calls its `work`, and closes it. The library's constructor makes 31 x 37 B,
// `work` 41 x 59 B and its destructor frees the first 31. What dlopen itself allocates is libc's.
// totals: allocated=3610/73 freed=1147/31 current=2463/42 peak=3610/73
// counters: frees_of_null=any
#include <dlfcn.h>
#include <stdlib.h>

static void *volatile block;

int main(int argc, char **argv) {
    block = malloc(44);                              //@ allocated=44/1 live=44/1 peak=44/1
    void *library = dlopen(argv[argc - 1], RTLD_NOW); //@ runtime
    if (library == NULL)
        return 1;
    void (*work)(void) = (void (*)(void))dlsym(library, "work"); //@ runtime
    work();
    return dlclose(library);                         //@ runtime
}
