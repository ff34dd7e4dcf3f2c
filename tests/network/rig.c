/* See rig.h. */
#include "rig.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/if_tun.h>
#include <net/if.h>
#include <poll.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/ioctl.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

int sh(const char *fmt, ...)
{
        char text[1024];
        va_list ap;
        int r;

        va_start(ap, fmt);
        vsnprintf(text, sizeof(text), fmt, ap);
        va_end(ap);
        fflush(stdout);
        r = system(text); /* NOLINT: the test's own words */
        return WIFEXITED(r) ? WEXITSTATUS(r) : 255;
}
static int attach(const char *name)
{
        int fd = open("/dev/net/tun", O_RDWR | O_CLOEXEC);
        struct ifreq f = {.ifr_flags = IFF_TAP | IFF_NO_PI | IFF_VNET_HDR};

        snprintf(f.ifr_name, sizeof(f.ifr_name), "%s", name);
        return fd >= 0 && ioctl(fd, TUNSETIFF, &f) == 0 ? fd : -1;
}

static void carry(int a, int b)
{
        static char frame[70000];
        struct pollfd p[] = {{a, POLLIN, 0}, {b, POLLIN, 0}};

        while (poll(p, 2, -1) > 0)
                for (int i = 0; i < 2; i++) {
                        ssize_t n = p[i].revents ? read(p[i].fd, frame, sizeof(frame)) : 0;

                        if (p[i].revents & (POLLERR | POLLHUP) && n <= 0)
                                _exit(0); /* the driver took the tap away */
                        if (n > 0 && write(p[!i].fd, frame, n) < 0 && errno == EBADFD)
                                _exit(0);
                }
        _exit(1);
}

pid_t rig_guest(const struct rig_guest *g)
{
        int ready[2];
        char c = 1;
        pid_t pid;

        assert_int_equal(pipe2(ready, O_CLOEXEC), 0);
        pid = fork();
        if (pid == 0) {
                int outer = attach(g->tap), inner;

                prctl(PR_SET_PDEATHSIG, SIGKILL);
                if (outer < 0 || unshare(CLONE_NEWNET) < 0 || (inner = attach("eth0")) < 0)
                        _exit(1);
                sh("ip link set lo up; ip link set eth0 address %s; sysctl -qw "
                   "net.ipv6.conf.eth0.accept_dad=0 net.ipv6.conf.eth0.router_solicitation_delay=0 "
                   "net.ipv6.conf.eth0.accept_ra=2; ip addr add %s dev eth0; "
                   "ip link set eth0 mtu %u up; ip route add default via %s",
                   g->mac, g->address, g->mtu, g->gateway);
                if (write(ready[1], &c, 1) == 1)
                        carry(outer, inner);
                _exit(1);
        }
        close(ready[1]);
        assert_int_equal(read(ready[0], &c, 1), 1);
        close(ready[0]);
        return pid;
}

void gone(pid_t pid)
{
        kill(pid, SIGKILL);
        waitpid(pid, NULL, 0);
}

pid_t rig_outside(const char *device)
{
        pid_t pid = fork();

        if (pid == 0) {
                prctl(PR_SET_PDEATHSIG, SIGKILL);
                if (unshare(CLONE_NEWNET) == 0)
                        kill(getpid(), SIGSTOP);
                for (;;)
                        pause();
        }
        assert_true(pid > 0 && waitpid(pid, NULL, WUNTRACED) == pid);
        kill(pid, SIGCONT);
        yes("ip link add %s type veth peer name eth0 netns %d && ip link set %s up && "
            "nsenter -n -t %d ip link set eth0 up && nsenter -n -t %d ip link set lo up",
            device, pid, device, pid, pid);
        return pid;
}
