/* Load balancers: an HAProxy each, in the network's namespace. */
#include "backend/network/linux/linux.h"

#include <dirent.h>
#include <signal.h>
#include <sys/socket.h>
#include <sys/time.h>
#include <sys/un.h>

#include "common/child.h"
#include "common/clock.h"
#include "common/fileio.h"

#define HAPROXY "/usr/sbin/haproxy"
enum {
        STEM_SIZE = 20,
        PEM_NAME_SIZE = NAME_SIZE + 32,
        STATS_MAX = 1 << 20,
        FIELDS = 32,
        ANSWER_MS = 2000,
        START_US = 5000000
};

/* "lb-" and the id's first digits: what its files are called. */
static struct server server_of(const char *id, char stem[STEM_SIZE])
{
        char device[DEVICE_SIZE];

        snprintf(stem, STEM_SIZE, "lb-%s", network_device(device, NET_TAP, id) + 3);
        return (struct server){stem, "haproxy"};
}

/* --- configuration --------------------------------------------------------------------------- */

/* The file of a listener's certificate: STEM-NAME.pem. */
static void pem_name(char out[PEM_NAME_SIZE], const char *stem, const struct net_listener *l)
{
        snprintf(out, PEM_NAME_SIZE, "%s-%s.pem", stem, l->name);
}

/* So that another certificate is another configuration. */
static uint64_t digest(const char *s)
{
        uint64_t h = 0xcbf29ce484222325;

        while (*s)
                h = (h ^ (unsigned char)*s++) * 0x100000001b3;
        return h;
}

static void listener_text(const char *dir, const char *stem, const struct net_balancer *b,
                          const struct net_listener *l, struct buf *out)
{
        char a[ADDRESS_TEXT_SIZE], pem[PEM_NAME_SIZE];

        network_address(a, b->address);
        buf_printf(out, "listen %s\n  bind %s:%u", l->name, a, l->port);
        pem_name(pem, stem, l);
        if (l->pem)
                buf_printf(out, " ssl crt %s/%s ssl-min-ver TLSv1.2 # %" PRIx64, dir, pem,
                           digest(l->pem));
        buf_printf(out, "\n  mode %s\n  balance %s\n  source %s\n", l->http ? "http" : "tcp",
                   l->balance, a);
        if (l->pem)
                buf_addstr(out, "  http-request set-header X-Forwarded-Proto https\n");
        if (l->http)
                buf_addstr(out, "  option forwardfor\n");
        if (l->check == NET_CHECK_HTTP)
                buf_printf(out, "  option httpchk GET %s\n", l->path);
        for (unsigned i = 0; i < l->nmembers; i++) {
                buf_printf(out, "  server %s %s:%u", l->members[i].name,
                           network_address(a, l->members[i].address), l->member_port);
                if (l->check != NET_CHECK_NONE)
                        buf_printf(out, " check inter %us fall 3 rise 2", l->interval);
                buf_addc(out, '\n');
        }
}

static void configuration(const char *dir, const char *stem, const struct net_network *n,
                          const struct net_balancer *b, struct buf *out)
{
        buf_printf(out,
                   "global\n  uid %u\n  gid %u\n  chroot %s/empty\n  nbthread 1\n"
                   "  maxconn 2000\n  hard-stop-after 1h\n"
                   "  stats socket %s/%s.sock mode 600 level user\n"
                   "defaults\n  timeout connect 5s\n  timeout client 300s\n  timeout server 300s\n"
                   "  timeout http-request 30s\n  timeout check 5s\n  retries 2\n"
                   "  option redispatch\n",
                   (unsigned)n->uid, (unsigned)n->uid, dir, dir, stem);
        for (unsigned i = 0; i < b->nlisteners; i++)
                listener_text(dir, stem, b, &b->listeners[i], out);
}

/* HAProxy's answer to a question, which is a line. */
static int ask(const char *path, const char *question, struct buf *out)
{
        const struct timeval wait = {.tv_sec = ANSWER_MS / 1000};
        struct sockaddr_un a = {.sun_family = AF_UNIX};
        _cleanup_close_ int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
        char data[4096];
        ssize_t n;

        if (fd < 0 || strlen(path) >= sizeof(a.sun_path))
                return -ENAMETOOLONG;
        memcpy(a.sun_path, path, strlen(path) + 1);
        setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &wait, sizeof(wait));
        setsockopt(fd, SOL_SOCKET, SO_SNDTIMEO, &wait, sizeof(wait));
        if (connect(fd, (struct sockaddr *)&a, sizeof(a)) < 0 ||
            write_full(fd, question, strlen(question)) < 0)
                return -errno;
        while ((n = recv(fd, data, sizeof(data), 0)) > 0 && out->len < STATS_MAX)
                buf_add(out, data, n);
        return n < 0 || out->failed ? -EIO : 0;
}

/* --- the process ----------------------------------------------------------------------------- */

/* The pid that the master has written, to where it does not empty it with each new worker.  1: it
 * had written one. */
static int adopt(const char *dir, const char *stem, struct err **e)
{
        _cleanup_free_ char *theirs = path_printf("%s/%s.master", dir, stem), *text = NULL;
        struct buf pid = {};
        char name[STEM_SIZE + 4];
        int r = theirs ? 0 : err_errno(e, -ENOMEM, "load balancer");

        if (r < 0 || file_read(theirs, 64, &text, &pid.len, NULL) < 0 || pid.len == 0)
                return r;
        pid.data = text;
        snprintf(name, sizeof(name), "%s.pid", stem);
        r = server_put(dir, name, &pid, 0, e);
        return r < 0 ? r : 1;
}

/* A master, which stays root to take sockets over from worker to worker, and a worker, which is
 * nobody and ends with it.  A session of its own from the first: what is left of a child's is
 * ended. */
static int start(const char *dir, const char *stem, struct err **e)
{
        _cleanup_free_ char *file = path_printf("%s/%s.cfg", dir, stem);
        _cleanup_free_ char *theirs = path_printf("%s/%s.master", dir, stem);
        const char *argv[] = {"setsid", "--wait", HAPROXY, "-W",   "-D", "-q",
                              "-f",     file,     "-p",    theirs, NULL};
        int64_t end = clock_mono() + START_US;
        int r;

        if (!file || !theirs)
                return err_errno(e, -ENOMEM, "load balancer");
        unlink(theirs);
        r = child_check(&(struct child){.argv = argv, .timeout_ms = 10000}, e);
        while (r == 0 && (r = adopt(dir, stem, e)) == 0 && clock_mono() < end)
                usleep(2000); /* it writes its pid after that */
        if (r == 0)
                return err_set(e, -ETIMEDOUT, "'%s' does not say its pid", HAPROXY);
        return r < 0 ? r : 0;
}

/* Whether what runs has another configuration than that: the master may have read the one before
 * when it was told of this one, and a signal that comes while it starts a worker may be lost. */
static bool behind(const char *dir, const char *stem, uint64_t version)
{
        _cleanup_free_ char *path = path_printf("%s/%s.sock", dir, stem);
        _cleanup_buf_ struct buf info = {};
        char own[64];

        snprintf(own, sizeof(own), "\ndescription: %016" PRIx64 "\n", version);
        return path && ask(path, "show info\n", &info) == 0 && !strstr(buf_str(&info), own);
}

/* The certificates, and none of listeners that are gone. */
static int certificates(const char *dir, const char *stem, const struct net_balancer *b,
                        struct err **e)
{
        char name[PEM_NAME_SIZE];
        DIR *d = opendir(dir);
        int r = 0;

        for (struct dirent *x; d && (x = readdir(d));) {
                size_t n = strlen(x->d_name);
                bool keep = n < 4 || !streq(x->d_name + n - 4, ".pem") ||
                            strncmp(x->d_name, stem, strlen(stem)) != 0;

                for (unsigned i = 0; i < b->nlisteners && !keep; i++) {
                        pem_name(name, stem, &b->listeners[i]);
                        keep = b->listeners[i].pem && streq(name, x->d_name);
                }
                if (!keep)
                        unlinkat(dirfd(d), x->d_name, 0);
        }
        if (d)
                closedir(d);
        for (unsigned i = 0; r >= 0 && i < b->nlisteners; i++) {
                const char *pem = b->listeners[i].pem;
                const struct buf text = {.data = (char *)pem, .len = pem ? strlen(pem) : 0};

                pem_name(name, stem, &b->listeners[i]);
                if (pem)
                        r = server_put(dir, name, &text, ROOT_ONLY, e);
        }
        return r < 0 ? r : 0;
}

static int serve(const char *dir, const struct net_network *n, const struct net_balancer *b, int ns,
                 struct err **e)
{
        _cleanup_buf_ struct buf text = {};
        char stem[STEM_SIZE], name[STEM_SIZE + 4];
        struct server server = server_of(b->id, stem);
        uint64_t version;
        int r;
        pid_t pid;

        snprintf(name, sizeof(name), "%s.cfg", stem);
        configuration(dir, stem, n, b, &text);
        version = digest(buf_str(&text));
        buf_printf(&text, "global\n  description %016" PRIx64 "\n", version);
        r = certificates(dir, stem, b, e);
        if (r == 0)
                r = server_put(dir, name, &text, 0, e);
        if (r < 0)
                return r;
        pid = adopt(dir, stem, e) < 0 ? 0 : server_pid(&server, dir, ns);
        if (pid) {
                /* A new worker; the old one ends with its connections. */
                if (r > 0 || behind(dir, stem, version))
                        kill(pid, SIGUSR2);
                return 0;
        }
        server_end(&server, dir);
        r = start(dir, stem, e);
        if (r < 0) { /* next time it is tried again, changed or not */
                _cleanup_free_ char *path = path_printf("%s/%s", dir, name);

                if (path)
                        unlink(path);
        }
        return r;
}

static bool planned(const struct net_network *n, const char *stem)
{
        char own[STEM_SIZE];

        for (unsigned i = 0; n && i < n->nbalancers; i++) {
                server_of(n->balancers[i].id, own);
                if (streq(stem, own))
                        return true;
        }
        return false;
}

void balancers_end(const char *dir, const struct net_network *n)
{
        DIR *d = opendir(dir);

        for (struct dirent *x; d && (x = readdir(d));) {
                char stem[STEM_SIZE];

                if (strncmp(x->d_name, "lb-", 3) != 0 || strlen(x->d_name) < 15)
                        continue;
                snprintf(stem, sizeof(stem), "%.15s", x->d_name);
                if (planned(n, stem))
                        continue;
                server_end(&(struct server){stem, "haproxy"}, dir);
                unlinkat(dirfd(d), x->d_name, 0);
        }
        if (d)
                closedir(d);
}

int balancers_serve(const char *dir, const struct net_network *n, int ns, struct err **e)
{
        _cleanup_free_ char *empty = path_printf("%s/empty", dir);
        int r = 0;

        balancers_end(dir, n);
        if (n->nbalancers)
                r = empty ? mkdir_parents(empty, 0555, e) : err_errno(e, -ENOMEM, "load balancer");
        for (unsigned i = 0; r == 0 && i < n->nbalancers; i++) {
                int one = serve(dir, n, &n->balancers[i], ns, r < 0 ? NULL : e);

                r = r < 0 ? r : one;
        }
        return r < 0 ? err_prepend(e, r, "load balancer") : 0;
}

/* --- figures --------------------------------------------------------------------------------- */

/* The columns, as HAProxy's management guide numbers them. */
enum {
        PROXY,
        NAME,
        CURRENT = 4,
        SESSIONS = 7,
        IN,
        OUT,
        REQUEST_ERRORS = 12,
        STATUS = 17,
        CHECKS_FAILED = 21,
        DOWNTIME = 24
};

static void line_text(char *line, struct buf *out)
{
        const char *f[FIELDS] = {};
        char *word;
        int n = 0;

        while (n < FIELDS && (word = strsep(&line, ",")))
                f[n++] = word;
        if (n < FIELDS || *f[0] == '#' || streq(f[NAME], "BACKEND"))
                return;
        if (streq(f[NAME], "FRONTEND"))
                buf_printf(out, "%s sessions=%s current=%s bytes_in=%s bytes_out=%s errors=%s\n",
                           f[PROXY], f[SESSIONS], f[CURRENT], f[IN], f[OUT], f[REQUEST_ERRORS]);
        else
                buf_printf(out,
                           "%s/%s state=%s sessions=%s current=%s bytes_in=%s bytes_out=%s "
                           "failed_checks=%s down_seconds=%s\n",
                           f[PROXY], f[NAME],
                           strncmp(f[STATUS], "UP", 2) == 0     ? "up"
                           : streq(f[STATUS], "no check")       ? "unchecked"
                           : strncmp(f[STATUS], "DOWN", 4) == 0 ? "down"
                                                                : f[STATUS],
                           f[SESSIONS], f[CURRENT], f[IN], f[OUT],
                           *f[CHECKS_FAILED] ? f[CHECKS_FAILED] : "0",
                           *f[DOWNTIME] ? f[DOWNTIME] : "0");
}

int balancer_text(const char *dir, const struct net_balancer *b, struct buf *out)
{
        char stem[STEM_SIZE];
        struct server server = server_of(b->id, stem);
        _cleanup_free_ char *path = path_printf("%s/%s.sock", dir, server.name), *text = NULL;
        _cleanup_buf_ struct buf csv = {};
        char *p, *line;
        /* CSV, a line for each listener and member. */
        int r = path ? ask(path, "show stat\n", &csv) : -ENOMEM;

        if (r < 0)
                return r;
        p = text = buf_take(&csv);
        while (p && (line = strsep(&p, "\n")))
                line_text(line, out);
        return 0;
}
