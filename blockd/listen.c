#include <arpa/inet.h>
#include <fcntl.h>
#include <net/if.h>
#include <netdb.h>
#include <netinet/tcp.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>

#include "blockd/server.h"
#include "common/fileio.h"

#define NBD_PORT "10809"

/* Bound under another name and renamed into place: there is no moment without a socket, and the
 * mode is set before anyone can see it (fchmod on an unbound socket is what bind(2) gives the
 * name).  path's folder must be ours. */
int listen_unix(const char *path, mode_t mode, struct err **e)
{
        struct sockaddr_un sa = {.sun_family = AF_UNIX};
        _cleanup_free_ char *tmp = path_printf("%s.new", path);
        _cleanup_close_ int fd = -1;

        if (!tmp)
                return err_errno(e, -ENOMEM, "listen");
        if (strlen(tmp) >= sizeof(sa.sun_path))
                return err_set(e, -ENAMETOOLONG, "'%s' is too long for a socket's name", path);
        strcpy(sa.sun_path, tmp);
        fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
        if (fd < 0 || fchmod(fd, mode) < 0)
                return err_errno(e, -errno, "socket");
        if (unlink(tmp) < 0 && errno != ENOENT)
                return err_errno(e, -errno, "remove '%s'", tmp);
        if (bind(fd, (struct sockaddr *)&sa, sizeof(sa)) < 0)
                return err_errno(e, -errno, "bind '%s'", tmp);
        if (listen(fd, 128) < 0 || rename(tmp, path) < 0)
                return err_errno(e, -errno, "listen on '%s'", path);
        return TAKE_FD(fd);
}

/* ADDRESS[:PORT] into its parts; only [ADDRESS] may hold colons of its own. */
static int split(const char *text, char *host, size_t size, const char **port)
{
        const bool v6 = text[0] == '[';
        const char *start = text + v6, *end = start + strcspn(start, v6 ? "]" : ":");

        if (end == start || (size_t)(end - start) >= size || (v6 && *end != ']'))
                return -EINVAL;
        memcpy(host, start, end - start);
        host[end - start] = '\0';
        end += v6;
        if (*end && (*end != ':' || !end[1]))
                return -EINVAL;
        *port = *end ? end + 1 : NBD_PORT;
        /* getaddrinfo() takes what is left of a number that is too large. */
        return strlen(*port) <= 5 && atoi(*port) <= UINT16_MAX ? 0 : -EINVAL;
}

static int set_options(int fd, int family)
{
        static const struct {
                int level, name, value;
        } options[] = {
                {SOL_SOCKET, SO_REUSEADDR, 1},
                {IPPROTO_TCP, TCP_NODELAY, 1},
                /* A peer that is gone is noticed within two minutes, idle or not. */
                {SOL_SOCKET, SO_KEEPALIVE, 1},
                {IPPROTO_TCP, TCP_KEEPIDLE, 60},
                {IPPROTO_TCP, TCP_KEEPINTVL, 10},
                {IPPROTO_TCP, TCP_KEEPCNT, 6},
                {IPPROTO_TCP, TCP_USER_TIMEOUT, 120000},
        };

        for (size_t i = 0; i < ARRAY_SIZE(options); i++)
                if (setsockopt(fd, options[i].level, options[i].name, &options[i].value,
                               sizeof(options[i].value)) < 0)
                        return -errno;
        if (family == AF_INET6 && setsockopt(fd, IPPROTO_IPV6, IPV6_V6ONLY, &(int){1}, 4) < 0)
                return -errno;
        return 0;
}

/* Connections that are accepted have the options of their listener. */
int listen_tcp(const char *address, struct err **e)
{
        const struct addrinfo hints = {.ai_flags = AI_NUMERICHOST | AI_NUMERICSERV,
                                       .ai_socktype = SOCK_STREAM};
        struct addrinfo *a;
        _cleanup_close_ int fd = -1;
        char host[INET6_ADDRSTRLEN + IF_NAMESIZE + 1];
        const char *port;
        int r;

        if (split(address, host, sizeof(host), &port) < 0 ||
            getaddrinfo(host, port, &hints, &a) != 0)
                return err_set(e, -EINVAL,
                               "listen on '%s': it is not ADDRESS, ADDRESS:PORT or "
                               "[ADDRESS]:PORT in numbers",
                               address);
        fd = socket(a->ai_family, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
        r = fd < 0 ? -errno : set_options(fd, a->ai_family);
        if (r == 0 && (bind(fd, a->ai_addr, a->ai_addrlen) < 0 || listen(fd, 128) < 0))
                r = -errno;
        freeaddrinfo(a);
        return r < 0 ? err_errno(e, r, "listen on '%s'", address) : TAKE_FD(fd);
}
