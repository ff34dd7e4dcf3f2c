/* strato console NAME: a terminal on a guest's serial console. */
#include <fcntl.h>
#include <poll.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <termios.h>

#include "cli/cli.h"
#include "common/fileio.h"
#include "common/macro.h"

enum {
        ESCAPE = 0x1d,   /* ^] */
        QUIET_MS = 1000, /* after the end of piped input: the answer is over */
};

/* What `console` says of the instance: at a path, or by name in the tenant default. */
static int find_socket(const struct cloud *c, char **ret, struct err **e)
{
        const char *word = c->words[0];
        _cleanup_free_ char *file = path_printf("%s/console", word), *text = NULL;
        int r;

        if (!file)
                return -ENOMEM;
        if (!strchr(word, '/') && access(file, F_OK) < 0) {
                free(file);
                file = path_printf("%s/tenants/default/instances/%s/console", c->mount, word);
        }
        r = file ? file_read(file, 4096, &text, NULL, NULL) : -ENOMEM;
        if (r < 0)
                return err_set(e, r, "'%s' is no instance: %s", word, strerror(-r));
        text[strcspn(text, "\n")] = '\0';
        if (!*text)
                return err_set(e, -ENXIO, "'%s' does not run", word);
        *ret = TAKE_PTR(text);
        return 0;
}

static int dial(const char *path, struct err **e)
{
        struct sockaddr_un sa = {.sun_family = AF_UNIX};
        int fd, r;

        if (strlen(path) >= sizeof(sa.sun_path))
                return err_set(e, -ENAMETOOLONG, "'%s'", path);
        memcpy(sa.sun_path, path, strlen(path));
        fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
        if (fd >= 0 && connect(fd, (struct sockaddr *)&sa, sizeof(sa)) == 0)
                return fd;
        r = -errno;
        if (fd >= 0)
                close(fd);
        return err_errno(e, r, "'%s'", path);
}

/* One direction, once.  1: go on, 0: that side has ended, -errno. */
static int pass(int from, int to, bool keys, bool *escaped)
{
        char p[4096], *end;
        ssize_t n = read(from, p, sizeof(p));

        if (n < 0)
                return errno == EINTR || errno == EAGAIN ? 1 : errno == EIO ? 0 : -errno;
        end = keys ? memchr(p, ESCAPE, (size_t)n) : NULL;
        if (end) {
                *escaped = true;
                n = end - p;
        }
        if (n == 0)
                return 0;
        return write_full(to, p, (size_t)n) < 0 ? 0 : 1;
}

static int talk(int guest, bool terminal)
{
        struct pollfd p[] = {{.fd = guest, .events = POLLIN},
                             {.fd = STDIN_FILENO, .events = POLLIN}};
        bool escaped = false;
        int r = 1;

        while (r > 0 && !escaped) {
                int n = poll(p, ARRAY_SIZE(p), p[1].fd < 0 ? QUIET_MS : -1);

                if (n < 0 && errno != EINTR)
                        return -errno;
                if (n == 0)
                        return 0;
                if (n > 0 && p[1].revents) {
                        r = pass(STDIN_FILENO, guest, terminal, &escaped);
                        if (r == 0 && !terminal) {
                                p[1].fd = -1;
                                r = 1;
                        }
                }
                if (n > 0 && r > 0 && p[0].revents)
                        r = pass(guest, STDOUT_FILENO, false, &escaped);
        }
        return r;
}

int verb_console(struct cloud *c, struct err **e)
{
        _cleanup_free_ char *path = NULL;
        _cleanup_close_ int guest = -1;
        struct termios before, raw;
        bool terminal = tcgetattr(STDIN_FILENO, &before) == 0;
        int r = find_socket(c, &path, e);

        if (r < 0)
                return r;
        guest = dial(path, e);
        if (guest < 0)
                return guest;
        if (terminal) {
                fprintf(stderr, "Connected to %s; ^] leaves.\n", c->words[0]);
                raw = before;
                cfmakeraw(&raw);
                tcsetattr(STDIN_FILENO, TCSADRAIN, &raw);
        }
        r = talk(guest, terminal);
        if (terminal) {
                tcsetattr(STDIN_FILENO, TCSADRAIN, &before);
                fputs("\nLeft.\n", stderr);
        }
        return r < 0 ? err_errno(e, r, "console of '%s'", c->words[0]) : STATUS_OK;
}
