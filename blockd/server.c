#include "blockd/server.h"

#include <dirent.h>
#include <fcntl.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <sys/stat.h>

#include "blockd/handover.h"
#include "blockd/meter.h"
#include "blockd/owner.h"
#include "blockd/state.h"
#include "common/fileio.h"
#include "common/log.h"

int server_thread(void *(*run)(void *), void *arg)
{
        pthread_attr_t attr;
        pthread_t t;
        int r;

        pthread_attr_init(&attr);
        pthread_attr_setstacksize(&attr, SERVER_STACK);
        pthread_attr_setdetachstate(&attr, PTHREAD_CREATE_DETACHED);
        r = pthread_create(&t, &attr, run, arg);
        pthread_attr_destroy(&attr);
        return -r;
}

int server_watch(struct server *s, int fd, uint64_t serial)
{
        struct epoll_event ev = {.events = EPOLLIN, .data.u64 = serial};

        return epoll_ctl(s->epfd, EPOLL_CTL_ADD, fd, &ev) < 0 ? -errno : 0;
}

static int listen_own(struct server *s, const char *name, char held[HELD_NAME_SIZE], int *ret,
                      struct err **e)
{
        _cleanup_free_ char *path = path_printf("%s/%s", s->run, name);

        if (!path)
                return err_errno(e, -ENOMEM, "listen");
        *ret = held_name(held, name, path) == 0 ? held_adopt(&s->held, held) : -1;
        if (*ret < 0) {
                *ret = listen_unix(path, 0600, e);
                if (*ret < 0)
                        return *ret;
                if (held_name(held, name, path) == 0)
                        held_keep(held, *ret);
        }
        return 0;
}

static int watch(struct server *s, int fd, uint64_t serial, bool on)
{
        if (fd < 0)
                return 0;
        if (on)
                return server_watch(s, fd, serial);
        return epoll_ctl(s->epfd, EPOLL_CTL_DEL, fd, NULL) < 0 && errno != ENOENT ? -errno : 0;
}

int server_freeze(struct server *s, bool frozen)
{
        struct export *x, *tmp;
        int r = watch(s, s->shared_fd, LISTEN_SHARED, !frozen);

        s->frozen = frozen;
        if (r == 0)
                r = watch(s, s->control_fd, LISTEN_CONTROL, !frozen);
        for (unsigned i = 0; r == 0 && i < s->tcp.n; i++)
                r = watch(s, s->tcp.fds[i], LISTEN_TCP + i, !frozen);
        HASH_ITER (hh, s->exports, x, tmp) {
                if (r == 0)
                        r = watch(s, x->fd, x->serial, !frozen);
        }
        return r;
}

/* Volumes in files would be out of sight. */
static int refuse_files(const char *state, struct err **e)
{
        _cleanup_free_ char *dir = path_printf("%s/pool", state);
        DIR *d = dir ? opendir(dir) : NULL;
        struct dirent *de;
        bool some = false;

        while (d && (de = readdir(d)))
                some |= de->d_name[0] != '.' && strlen(de->d_name) == VOLUME_ID_SIZE - 1;
        if (d)
                closedir(d);
        return some ? err_set(e, -EEXIST, "there are volumes in files already, in '%s'", dir) : 0;
}

static int find_driver(const char *pool, const struct volume_driver **ret, struct err **e)
{
        char name[32];

        snprintf(name, sizeof(name), "%.*s", (int)strcspn(pool, ":"), pool);
        return volume_driver_find(name, ret, e);
}

/* A pool's own folder: files are where they always were, all else beside them if it is not alone.
 */
static char *pool_folder(const char *top, const char *label, bool own)
{
        char *path = own ? path_printf("%s", top) : path_printf("%s/pools/%s", top, label);

        for (char *p = path ? path + strlen(path) - strlen(label) : NULL; !own && p && *p; p++)
                if (*p == '/')
                        *p = '+';
        return path;
}

static int open_one(struct server *s, const struct server_config *c, const char *pool, bool own,
                    bool shared, struct err **e)
{
        _cleanup_free_ char *label = strndup(pool, strcspn(pool, ","));
        _cleanup_free_ char *state = NULL, *run = NULL;
        struct volume_pool_config config = {.label = label, .direct = c->direct, .shared = shared};
        const struct volume_driver *driver;
        const char *colon = strchr(pool, ':');
        int r;

        if (!label)
                return err_errno(e, -ENOMEM, "pool");
        state = pool_folder(c->state, label, own);
        run = pool_folder(c->run, label, own);
        if (!state || !run)
                return err_errno(e, -ENOMEM, "pool");
        config.target = colon ? colon + 1 : NULL;
        config.state = state;
        config.run = run;
        r = find_driver(pool, &driver, e);
        if (r == 0 && !own)
                r = mkdir_parents(state, 0700, e);
        if (r == 0 && !own)
                r = mkdir_parents(run, 0700, e);
        if (r < 0)
                return r;
        return s->pool ? volume_pool_add(s->pool, driver, &config, e)
                       : volume_pool_open(driver, &config, &s->pool, e);
}

static int open_pool(struct server *s, const struct server_config *c, bool shared, struct err **e)
{
        bool files = false;
        int r = 0;

        for (unsigned i = 0; c->pools[i]; i++)
                files |= streq(c->pools[i], "local");
        if (!files)
                r = refuse_files(c->state, e);
        for (unsigned i = 0; r == 0 && c->pools[i]; i++)
                r = open_one(s, c, c->pools[i], files ? streq(c->pools[i], "local") : i == 0,
                             shared, e);
        return r;
}

/* Those that have a name or number for all to see; nobody is accepted before the event loop runs.
 */
static int open_sockets(struct server *s, const struct tcp_config *tcp, bool takes, struct err **e)
{
        int r = listen_own(s, "nbd.sock", s->shared_held, &s->shared_fd, e);

        if (r == 0)
                r = listen_own(s, "blockd.sock", s->control_held, &s->control_fd, e);
        if (r == 0)
                r = server_watch(s, s->shared_fd, LISTEN_SHARED);
        if (r == 0 && !takes) /* one that takes over is not changed before it has everything */
                r = server_watch(s, s->control_fd, LISTEN_CONTROL);
        return r < 0 ? r : tcp_start(s, tcp, e);
}

int server_start(const struct server_config *config, const struct tcp_config *tcp,
                 struct takeover *take, struct server **ret, struct err **e)
{
        struct server *s = calloc(1, sizeof(*s));
        int r;

        if (!s)
                return err_errno(e, -ENOMEM, "start");
        *s = (struct server){.control_fd = -1,
                             .shared_fd = -1,
                             .next_serial = LISTEN_EXPORTS,
                             .handshake_ms = SERVER_HANDSHAKE_MS};
        pthread_mutex_init(&s->change, NULL);
        pthread_mutex_init(&s->lock, NULL);
        pthread_cond_init(&s->gone, NULL);
        s->state = strdup(config->state);
        s->run = strdup(config->run);
        s->spare_fd = open("/dev/null", O_RDONLY | O_CLOEXEC);
        s->epfd = epoll_create1(EPOLL_CLOEXEC);
        r = s->epfd < 0 ? err_errno(e, -errno, "epoll") : 0;
        if (r == 0 && (!s->state || !s->run))
                r = err_errno(e, -ENOMEM, "start");
        if (take) {
                s->held = take->held;
                take->held = (struct held){};
                s->coming = TAKE_PTR(take->volumes);
        } else if (r == 0 && (r = held_take(&s->held)) < 0) {
                err_errno(e, r, "take what was held for us");
        }
        if (r == 0)
                r = open_sockets(s, tcp, take, e);
        if (r == 0) /* from here on nothing is done that needs more than our own files */
                r = owner_become(config->owner, e);
        if (r == 0 && !take)
                r = state_claim(config->state, config->run, e);
        if (r == 0)
                r = open_pool(s, config, take, e);
        if (r == 0)
                r = meters_restore(s, e);
        if (r == 0)
                r = exports_restore(s, e);
        if (r < 0) {
                server_stop(s);
                return r;
        }
        if (!take)
                volume_pool_background(s->pool, true);
        *ret = s;
        return 0;
}

struct server *server_stop(struct server *s)
{
        control_stop(s);
        check_cancel(s, NULL);
        checks_free(s);
        exports_disconnect(s, NULL);
        exports_free(s);
        tcp_stop(s);
        meters_free(s);
        if (s->control_fd >= 0)
                close(s->control_fd);
        if (s->shared_fd >= 0)
                close(s->shared_fd);
        if (s->spare_fd >= 0)
                close(s->spare_fd);
        if (s->epfd >= 0)
                close(s->epfd);
        held_done(&s->held, false); /* one that did not start leaves them to the next */
        volume_pool_close(s->pool);
        json_decref(s->coming);
        pthread_mutex_destroy(&s->change);
        pthread_mutex_destroy(&s->lock);
        pthread_cond_destroy(&s->gone);
        free(s->state);
        free(s->run);
        free(s);
        return NULL;
}

/* Out of descriptors, a waiting connection would wake us for ever: it is taken with the spare one
 * and dropped. */
static int accept_one(struct server *s, int listener)
{
        int fd = accept4(listener, NULL, NULL, SOCK_CLOEXEC);

        if (fd >= 0 || (errno != EMFILE && errno != ENFILE))
                return fd;
        log_error("a connection was dropped: %m");
        close(s->spare_fd);
        fd = accept4(listener, NULL, NULL, SOCK_CLOEXEC);
        if (fd >= 0)
                close(fd);
        s->spare_fd = open("/dev/null", O_RDONLY | O_CLOEXEC);
        return -1;
}

static void accept_serial(struct server *s, uint64_t serial)
{
        struct export *x, *tmp;
        int fd;

        if (serial == LISTEN_CONTROL) {
                fd = accept_one(s, s->control_fd);
                if (fd >= 0)
                        control_start(s, fd);
                return;
        }
        WITH_LOCK(&s->lock);
        if (s->frozen)
                return;
        if (serial == LISTEN_SHARED) {
                fd = accept_one(s, s->shared_fd);
                if (fd >= 0)
                        conn_start(s, NULL, false, fd);
                return;
        }
        if (serial >= LISTEN_TCP && serial - LISTEN_TCP < s->tcp.n) {
                fd = accept_one(s, s->tcp.fds[serial - LISTEN_TCP]);
                if (fd >= 0)
                        conn_start(s, NULL, true, fd);
                return;
        }
        HASH_ITER (hh, s->exports, x, tmp) {
                if (x->serial != serial || x->closing || x->fd < 0)
                        continue;
                fd = accept_one(s, x->fd);
                if (fd >= 0)
                        conn_start(s, x, false, fd);
                return;
        }
}

void server_accept(struct server *s)
{
        struct epoll_event ev[32];
        int n = epoll_wait(s->epfd, ev, ARRAY_SIZE(ev), 0);

        for (int i = 0; i < n; i++) {
                uint64_t what = ev[i].data.u64;

                if (what & WATCH_CONN)
                        conn_wake(s, (struct conn *)(uintptr_t)(what << 1));
                else
                        accept_serial(s, what);
        }
}
