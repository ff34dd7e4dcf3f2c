/* The predecessor's part of a replacement: see handover.h.
 *
 * A connection is handed over parked: between two inputs, its thread given up.  One volume at a
 * time is parked, closed without a flush (its live map and the page cache carry what was not
 * flushed, as they do over a kill -9) and sent, so that its clients wait for that only. */
#include <signal.h>
#include <spawn.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <linux/sockios.h>
#include <systemd/sd-daemon.h>
#include <utlist.h>

#include "blockd/handover.h"
#include "blockd/meter.h"
#include "blockd/server.h"
#include "common/clock.h"
#include "common/log.h"

enum {
        ANSWER_S = 60,       /* the successor opens the pool */
        READER_MS = 1000,    /* a client that does not read its replies, or negotiates without a
                              * pause (a handshake of TLS), for so long is closed */
        PATIENCE_MS = 30000, /* one volume's requests take so long: not now */
        KICK_USEC = 1000,
        TAKEOVER_FD = 3,
};

/* ---- parking ---- */

/* Wait for `gone` or a moment. */
static void wait_a_moment(struct server *s)
{
        const struct timespec until = clock_timespec(clock_now() + KICK_USEC);

        pthread_cond_timedwait(&s->gone, &s->lock, &until);
}

static bool has_unread_replies(const struct conn *c)
{
        int n = 0;

        return ioctl(c->wire.fd, SIOCOUTQ, &n) == 0 && n > 0;
}

/* Parks what has that volume open, and what has none: it negotiates, or ends and is perhaps just
 * closing the volume. */
static int park(struct server *s, const char *volume, struct err **e)
{
        const int64_t began = clock_mono();

        WITH_LOCK(&s->lock);
        for (;;) {
                const int64_t ms = (clock_mono() - began) / 1000;
                unsigned busy = 0;
                struct conn *c;

                DL_FOREACH (s->conns, c) {
                        if (c->parked || (c->meter && !streq(c->meter->volume, volume)))
                                continue;
                        conn_park(c);
                        if (!c->parked)
                                busy++;
                        if (!c->parked && ms > READER_MS && (!c->meter || has_unread_replies(c)))
                                conn_disconnect(c);
                }
                if (busy == 0)
                        return 0;
                if (ms > PATIENCE_MS)
                        return err_set(e, -ETIMEDOUT, "%u connections do not come to rest", busy);
                wait_a_moment(s);
        }
}

static void revive_all(struct server *s)
{
        struct conn *c;

        WITH_LOCK(&s->lock);
        DL_FOREACH (s->conns, c) {
                c->park = false;
                if (c->parked)
                        conn_revive(c);
        }
}

/* ---- sending ---- */

static int send_conn(int sock, const struct conn *c)
{
        json_t *o = handover_pack(&c->session);

        if (!o)
                return -ENOMEM;
        json_object_set_new(o, "op", json_string("conn"));
        json_object_set_new(o, "resume", json_string(c->resume));
        json_object_set_new(o, "tcp", json_boolean(c->tcp));
        json_object_set_new(o, "deadline", json_integer(c->wire.deadline));
        if (c->export && !c->tcp) /* over TCP it opens its export again */
                json_object_set_new(o, "export", json_string(c->export->id));
        return handover_send(sock, o, c->in, c->have, c->wire.fd);
}

/* The parked ones of that volume ("": of none), ended by NULL; the caller frees. */
static struct conn **parked(struct server *s, const char *volume)
{
        struct conn **list, *c;
        unsigned n = 0;

        WITH_LOCK(&s->lock);
        list = calloc(s->nconns + 1, sizeof(struct conn *));
        DL_FOREACH (s->conns, c) {
                if (list && c->parked && streq(c->meter ? c->meter->volume : "", volume))
                        list[n++] = c;
        }
        return list;
}

/* What is not sent stays parked, and can be revived. */
static int send_parked(struct server *s, int sock, const char *volume)
{
        _cleanup_free_ struct conn **list = parked(s, volume);
        int r = 0;

        if (!list)
                return -ENOMEM;
        for (struct conn **c = list; *c && volume[0]; c++) {
                strcpy((*c)->resume, (*c)->tcp ? (*c)->export->id : volume);
                meter_leave(s, &(*c)->meter, &(*c)->stats);
                session_detach(&(*c)->session);
        }
        for (struct conn **c = list; *c && r == 0; c++) {
                /* With TLS it was served up to here, and connects again. */
                r = (*c)->wire.tls ? 0 : send_conn(sock, *c);
                if (r == 0)
                        conn_free(*c);
        }
        return r;
}

static int send_volume(struct server *s, int sock, const char *volume, struct err **e)
{
        int r = park(s, volume, e);

        if (r < 0)
                return r;
        r = send_parked(s, sock, volume);
        if (r == 0)
                r = handover_send(sock, json_pack("{s:s, s:s}", "op", "arrived", "volume", volume),
                                  NULL, 0, -1);
        return r < 0 ? err_errno(e, r, "send volume '%s'", volume) : handover_expect(sock, "ok", e);
}

/* Any volume that is in use; false: none is. */
static bool next_volume(struct server *s, char ret[VOLUME_ID_SIZE])
{
        struct conn *c;

        WITH_LOCK(&s->lock);
        DL_FOREACH (s->conns, c) {
                if (c->meter) {
                        strcpy(ret, c->meter->volume);
                        return true;
                }
        }
        return false;
}

static int send_lock(int sock, const char *what, int fd)
{
        return handover_send(sock, json_pack("{s:s, s:s}", "op", "lock", "what", what), NULL, 0,
                             fd);
}

static int send_listener(int sock, const char *name, int fd)
{
        if (fd < 0 || !name[0])
                return 0;
        return handover_send(sock, json_pack("{s:s, s:s}", "op", "listener", "name", name), NULL, 0,
                             fd);
}

/* Nobody changes the table: control is frozen. */
static int send_listeners(struct server *s, int sock)
{
        struct export *x, *tmp;
        int r = send_listener(sock, s->shared_held, s->shared_fd);

        if (r == 0)
                r = send_listener(sock, s->control_held, s->control_fd);
        for (unsigned i = 0; r == 0 && i < s->tcp.n; i++)
                r = send_listener(sock, s->tcp.held[i], s->tcp.fds[i]);
        HASH_ITER (hh, s->exports, x, tmp) {
                if (r == 0)
                        r = send_listener(sock, x->held, x->fd);
        }
        return r;
}

static int send_start(struct server *s, int sock)
{
        json_t *volumes = json_object();
        struct conn *c;

        pthread_mutex_lock(&s->lock);
        DL_FOREACH (s->conns, c) {
                if (c->meter)
                        json_object_set_new(volumes, c->meter->volume, json_true());
        }
        pthread_mutex_unlock(&s->lock);
        return handover_send(sock, json_pack("{s:s, s:o}", "op", "start", "volumes", volumes), NULL,
                             0, -1);
}

/* ---- the whole ---- */

static int freeze(struct server *s, bool frozen)
{
        WITH_LOCK(&s->lock);
        return server_freeze(s, frozen);
}

static int send_base(struct server *s, int sock, struct err **e)
{
        int r = send_lock(sock, "state", s->successor.state_lock);

        if (r == 0)
                r = send_lock(sock, "run", s->successor.run_lock);
        if (r == 0)
                r = send_listeners(s, sock);
        if (r == 0)
                r = send_start(s, sock);
        return r < 0 ? err_errno(e, r, "hand over") : handover_expect(sock, "ok", e);
}

static int send_all(struct server *s, int sock, struct err **e)
{
        char volume[VOLUME_ID_SIZE];
        int r;

        volume_pool_abandon(s->pool, true);
        r = send_parked(s, sock, "");
        if (r < 0)
                return err_errno(e, r, "send connections");
        while (r == 0 && next_volume(s, volume))
                r = send_volume(s, sock, volume, e);
        /* What ended meanwhile is to have closed its volume. */
        if (r == 0)
                r = park(s, "", e);
        if (r < 0)
                return r;
        r = handover_send(sock, json_pack("{s:s}", "op", "done"), NULL, 0, -1);
        return r < 0 ? err_errno(e, r, "hand over") : handover_expect(sock, "ok", e);
}

/* From the successor's first word to its last. */
static int hand_over(struct server *s, int sock, struct err **e)
{
        int r = handover_expect(sock, "hello", e);

        if (r < 0)
                return r;
        r = control_freeze(s);
        if (r < 0)
                return err_errno(e, r, "stop");
        check_cancel(s, NULL); /* who wanted one asks again */
        r = freeze(s, true);
        if (r < 0)
                err_errno(e, r, "stop accepting");
        else
                r = park(s, "", e);
        if (r == 0)
                r = send_base(s, sock, e);
        if (r == 0)
                r = send_all(s, sock, e);
        if (r == 0)
                return 0;
        /* Before anything goes on here there must be nothing of it there. */
        kill(s->successor.pid, SIGKILL);
        waitpid(s->successor.pid, NULL, 0);
        s->successor.pid = 0;
        volume_pool_abandon(s->pool, false);
        if (freeze(s, false) < 0)
                log_error("not all sockets accept connections again: %m");
        revive_all(s);
        sd_notifyf(0, "MAINPID=%d\nREADY=1", getpid());
        control_thaw(s);
        return r;
}

/* argv and two words more; NULL without memory. */
static char **successor_argv(char *const *argv)
{
        static char option[] = "--takeover", fd[] = "3";
        char **copy;
        size_t n = 0;

        while (argv[n])
                n++;
        copy = calloc(n + 3, sizeof(char *));
        if (!copy)
                return NULL;
        memcpy(copy, argv, n * sizeof(char *));
        copy[n] = option;
        copy[n + 1] = fd;
        return copy;
}

static int spawn(struct server *s, int theirs, struct err **e)
{
        _cleanup_free_ char **argv = successor_argv(s->successor.argv);
        posix_spawn_file_actions_t actions;
        posix_spawnattr_t attr;
        sigset_t none;
        int r;

        if (!argv)
                return err_errno(e, -ENOMEM, "start a successor");
        sigemptyset(&none);
        posix_spawn_file_actions_init(&actions);
        posix_spawn_file_actions_adddup2(&actions, theirs, TAKEOVER_FD);
        posix_spawnattr_init(&attr);
        posix_spawnattr_setflags(&attr, POSIX_SPAWN_SETSIGMASK);
        posix_spawnattr_setsigmask(&attr, &none);
        r = posix_spawn(&s->successor.pid, argv[0], &actions, &attr, argv, environ);
        posix_spawn_file_actions_destroy(&actions);
        posix_spawnattr_destroy(&attr);
        return r ? err_errno(e, -r, "start '%s'", argv[0]) : 0;
}

static int run(struct server *s, struct err **e)
{
        const struct timeval patience = {.tv_sec = ANSWER_S};
        _cleanup_close_ int ours = -1, theirs = -1;
        int pair[2], r;

        if (!s->successor.argv)
                return err_set(e, -EOPNOTSUPP, "this blockd cannot be replaced");
        if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, pair) < 0)
                return err_errno(e, -errno, "socketpair");
        ours = pair[0];
        theirs = pair[1];
        setsockopt(ours, SOL_SOCKET, SO_RCVTIMEO, &patience, sizeof(patience));
        setsockopt(ours, SOL_SOCKET, SO_SNDTIMEO, &patience, sizeof(patience));
        r = spawn(s, theirs, e);
        if (r < 0)
                return r;
        close(TAKE_FD(theirs));
        r = hand_over(s, ours, e);
        if (r < 0 && s->successor.pid > 0) { /* nothing was begun */
                kill(s->successor.pid, SIGKILL);
                waitpid(s->successor.pid, NULL, 0);
                s->successor.pid = 0;
        }
        return r;
}

int replace_run(struct server *s, struct err **e)
{
        int r;

        pthread_mutex_lock(&s->lock);
        if (s->replacing || s->replaced || s->stopping) {
                pthread_mutex_unlock(&s->lock);
                return err_set(e, -EBUSY, "replace: it is being replaced, or ends");
        }
        s->replacing = true;
        pthread_mutex_unlock(&s->lock);
        r = run(s, e);
        if (r < 0)
                err_prepend(e, r, "replace");
        pthread_mutex_lock(&s->lock);
        s->replacing = false;
        s->replaced = r == 0;
        pthread_cond_broadcast(&s->gone);
        pthread_mutex_unlock(&s->lock);
        if (r == 0) {
                log_info("process %d follows", s->successor.pid);
                /* They stay locked by its copies, and no longer than it lives. */
                close(TAKE_FD(s->successor.state_lock));
                close(TAKE_FD(s->successor.run_lock));
                kill(getpid(), SIGUSR2); /* the main loop ends */
        }
        return r;
}

static void *replace_thread(void *arg)
{
        _cleanup_err_ struct err *e = NULL;

        if (replace_run(arg, &e) < 0)
                log_error("%s", err_msg(e));
        return NULL;
}

void replace_start(struct server *s)
{
        if (server_thread(replace_thread, s) < 0)
                log_error("replace: no thread");
}

bool replace_over(struct server *s)
{
        WITH_LOCK(&s->lock);
        s->stopping = true;
        while (s->replacing)
                pthread_cond_wait(&s->gone, &s->lock);
        return s->replaced;
}
