// A signal handler that allocates, at a safe point (raise): 13 x 71 B in the handler on the thread's stack, 11 x 73 B in one on
// the alternate stack, 17 x 79 B after both. Every stack goes through the signal frame to main.
// totals: allocated=3069/41 freed=0/0 current=3069/41 peak=3069/41
#include <signal.h>
#include <stdlib.h>

static void *volatile block;
static char alternate[64 * 1024];

__attribute__((noinline)) static void on_usr1(int signal) {
    (void)signal;
    for (int i = 0; i < 13; i++)
        block = malloc(71); //@ allocated=923/13 live=923/13 peak=923/13
}

__attribute__((noinline)) static void on_usr2(int signal) {
    (void)signal;
    for (int i = 0; i < 11; i++)
        block = malloc(73); //@ allocated=803/11 live=803/11 peak=803/11
}

int main(void) {
    stack_t stack = {.ss_sp = alternate, .ss_size = sizeof alternate};
    struct sigaction usr1 = {.sa_handler = on_usr1}, usr2 = {.sa_handler = on_usr2, .sa_flags = SA_ONSTACK};
    sigaltstack(&stack, NULL);
    sigaction(SIGUSR1, &usr1, NULL);
    sigaction(SIGUSR2, &usr2, NULL);
    raise(SIGUSR1);
    raise(SIGUSR2);
    for (int i = 0; i < 17; i++)
        block = malloc(79); //@ allocated=1343/17 live=1343/17 peak=1343/17
    return 0;
}
