// A filter that kills the process at any system call but read, write, brk, mmap, munmap, getrandom and exit_group. Says `ready`, and after a
// line makes 123 blocks of 77 B, frees 23 of them, and says `made`; ends at the end of its input.
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <stddef.h>
#include <stdlib.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <unistd.h>

#define ALLOW(call) \
    BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, SYS_##call, 0, 1), BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW)

static void *kept[123];

int main(void) {
    struct sock_filter filter[] = {
        BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, nr)),
        ALLOW(read), ALLOW(write), ALLOW(brk), ALLOW(mmap), ALLOW(munmap), ALLOW(getrandom), ALLOW(exit_group),
        BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_KILL_PROCESS),
    };
    struct sock_fprog program = {sizeof filter / sizeof filter[0], filter};
    char go;
    if (prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) != 0 || prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, &program) != 0)
        return 1;
    if (write(1, "ready\n", 6) != 6 || read(0, &go, 1) != 1)
        return 1;
    for (int i = 0; i < 123; i++)
        kept[i] = malloc(77);
    for (int i = 0; i < 23; i++)
        free(kept[i]);
    if (write(1, "made\n", 5) != 5)
        return 1;
    while (read(0, &go, 1) == 1)
        ;
    return 0;
}
