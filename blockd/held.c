#include "blockd/held.h"

#include <sys/socket.h>
#include <sys/stat.h>
#include <systemd/sd-daemon.h>

#include "common/log.h"
#include "common/macro.h"

int held_take(struct held *h)
{
        int n;

        *h = (struct held){};
        n = sd_listen_fds_with_names(1, &h->names);
        if (n <= 0)
                return n;
        h->fds = malloc(n * sizeof(*h->fds));
        if (!h->fds)
                return -ENOMEM;
        for (int i = 0; i < n; i++)
                h->fds[i] = SD_LISTEN_FDS_START + i;
        h->n = n;
        return 0;
}

int held_name(char ret[HELD_NAME_SIZE], const char *what, const char *path)
{
        struct stat st;

        if (lstat(path, &st) < 0)
                return -errno;
        if (!S_ISSOCK(st.st_mode))
                return -ENOTSOCK;
        if (snprintf(ret, HELD_NAME_SIZE, "%s.%llu", what, (unsigned long long)st.st_ino) >=
            HELD_NAME_SIZE)
                return -ENAMETOOLONG;
        return 0;
}

static bool listens(int fd)
{
        int on = 0;
        socklen_t n = sizeof(on);

        return getsockopt(fd, SOL_SOCKET, SO_ACCEPTCONN, &on, &n) == 0 && on;
}

int held_adopt(struct held *h, const char *name)
{
        for (int i = 0; i < h->n; i++)
                if (h->fds[i] >= 0 && streq(h->names[i], name) && listens(h->fds[i]))
                        return TAKE_FD(h->fds[i]);
        return -1;
}

void held_done(struct held *h, bool drop)
{
        for (int i = 0; i < h->n; i++) {
                if (h->fds[i] >= 0) {
                        close(h->fds[i]);
                        if (drop)
                                held_drop(h->names[i]);
                }
                free(h->names[i]);
        }
        free(h->names);
        free(h->fds);
        *h = (struct held){};
}

void held_keep(const char *name, int fd)
{
        char text[HELD_NAME_SIZE + 32];
        int r;

        snprintf(text, sizeof(text), "FDSTORE=1\nFDNAME=%s", name);
        r = sd_pid_notify_with_fds(0, 0, text, &fd, 1);
        if (r < 0)
                log_warning("'%s' is not held for the next start: %s", name, strerror(-r));
}

void held_drop(const char *name)
{
        int r = sd_notifyf(0, "FDSTOREREMOVE=1\nFDNAME=%s", name);

        if (r < 0)
                log_warning("'%s' stays held: %s", name, strerror(-r));
}
