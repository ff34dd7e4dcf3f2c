/* stratofs-metadata DIR DEVICE UID, by stratod, as root, in the network's namespace.
 *
 * DIR/meta holds the bundles; DIR/metadata.pid is written.  Answers on DEVICE.  It is a
 * daemon when it returns, and serves then. */
#include "metadata/metadata.h"

#include <fcntl.h>
#include <net/if.h>
#include <signal.h>
#include <sys/random.h>
#include <sys/resource.h>
#include <sys/socket.h>

#include "common/drop.h"
#include "common/err.h"
#include "common/fileio.h"

enum { HTTP = 80, ADDRESS = 0xa9fea9fe };

static int listening(const char *device, struct err **e)
{
        struct sockaddr_in a = {
                .sin_family = AF_INET, .sin_port = htons(HTTP), .sin_addr.s_addr = htonl(ADDRESS)};
        _cleanup_close_ int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
        int on = 1;

        if (fd < 0 || setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &on, sizeof(on)) < 0 ||
            setsockopt(fd, SOL_SOCKET, SO_BINDTODEVICE, device, strlen(device) + 1) < 0 ||
            bind(fd, (struct sockaddr *)&a, sizeof(a)) < 0 || listen(fd, CONNECTIONS) < 0)
                return err_errno(e, -errno, "169.254.169.254 on %s", device);
        return TAKE_FD(fd);
}

/* fe80::a9fe:a9fe, which the device has as soon as its network has IPv6; -1: this kernel has none.
 */
static int listening6(const char *device, struct err **e)
{
        struct sockaddr_in6 a = {
                .sin6_family = AF_INET6,
                .sin6_port = htons(HTTP),
                .sin6_addr.s6_addr = {0xfe,
                                      0x80, [12] = 0xa9, [13] = 0xfe, [14] = 0xa9, [15] = 0xfe},
                .sin6_scope_id = if_nametoindex(device)};
        _cleanup_close_ int fd = socket(AF_INET6, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
        int on = 1;

        if (fd < 0)
                return -1;
        if (setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &on, sizeof(on)) < 0 ||
            setsockopt(fd, IPPROTO_IPV6, IPV6_V6ONLY, &on, sizeof(on)) < 0 ||
            setsockopt(fd, IPPROTO_IPV6, IPV6_FREEBIND, &on, sizeof(on)) < 0 ||
            setsockopt(fd, SOL_SOCKET, SO_BINDTODEVICE, device, strlen(device) + 1) < 0 ||
            bind(fd, (struct sockaddr *)&a, sizeof(a)) < 0 || listen(fd, CONNECTIONS) < 0)
                return err_errno(e, -errno, "fe80::a9fe:a9fe on %s", device);
        return TAKE_FD(fd);
}

/* Neither processes nor sockets, nor a look at others, from here on. */
static int confine(const char *dir, uid_t uid, struct err **e)
{
        const struct drop_user u = {.uid = uid, .gid = uid};
        const struct rlimit files = {2 * CONNECTIONS + 64, 2 * CONNECTIONS + 64};
        const struct rlimit size = {2 * PASSWORD_MAX, 2 * PASSWORD_MAX}, none = {0, 0};
        int r;

        if (chdir(dir) < 0 || chdir("meta") < 0 || chroot(".") < 0)
                return err_errno(e, -errno, "chroot '%s/meta'", dir);
        if (setrlimit(RLIMIT_NOFILE, &files) < 0 || setrlimit(RLIMIT_FSIZE, &size) < 0 ||
            setrlimit(RLIMIT_CORE, &none) < 0)
                return err_errno(e, -errno, "limits");
        r = drop_to_user(&u, e);
        if (r < 0)
                return r;
        drop_dumps(true);
        return drop_calls(DROP_ALONE, e);
}

/* 1 in the daemon, which tells by a byte in *ret_ready that it serves; 0 in the parent, after that.
 */
static int detach(const char *dir, int *ret_ready, struct err **e)
{
        _cleanup_free_ char *path = path_printf("%s/metadata.pid", dir);
        char text[16], byte;
        int ready[2];
        pid_t pid;

        if (!path || pipe2(ready, O_CLOEXEC) < 0)
                return err_errno(e, -errno, "pipe");
        pid = fork();
        if (pid < 0)
                return err_errno(e, -errno, "fork");
        close(ready[pid == 0 ? 0 : 1]);
        if (pid == 0) {
                *ret_ready = ready[1];
                return setsid() < 0 ? err_errno(e, -errno, "setsid") : 1;
        }
        if (read(ready[0], &byte, 1) != 1)
                return err_set(e, -EIO, "it ended at its start");
        snprintf(text, sizeof(text), "%d\n", (int)pid);
        return file_replace(path, text, strlen(text), 0644, e);
}

int main(int argc, char **argv)
{
        _cleanup_err_ struct err *err = NULL;
        struct service s = {};
        int null, fd[2] = {-1, -1}, r, ready = -1;

        if (argc != 4 || atol(argv[3]) <= 0) {
                fputs("usage: stratofs-metadata DIR DEVICE UID, by stratod\n", stderr);
                return 2;
        }
        signal(SIGPIPE, SIG_IGN);
        signal(SIGXFSZ, SIG_IGN);
        fd[0] = r = listening(argv[2], &err);
        if (r >= 0)
                fd[1] = listening6(argv[2], &err);
        if (err)
                r = err->code;
        null = open("/dev/null", O_RDWR | O_CLOEXEC);
        if (r >= 0 && (null < 0 || getrandom(s.secret, sizeof(s.secret), 0) != sizeof(s.secret)))
                r = err_errno(&err, -EIO, "/dev/null");
        if (r >= 0)
                r = detach(argv[1], &ready, &err);
        if (r == 0)
                return 0;
        if (r > 0)
                r = confine(argv[1], atol(argv[3]), &err);
        if (r < 0) {
                fprintf(stderr, "stratofs-metadata: %s\n", err_msg(err));
                return 1;
        }
        for (int i = 0; i < 3; i++)
                dup2(null, i);
        if (write(ready, "", 1) != 1)
                return 1;
        close(ready);
        return http_serve(&s, fd) < 0;
}
