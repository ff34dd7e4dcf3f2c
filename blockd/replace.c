/* The predecessor's part of a replacement: see handover.h.
 *
 * A connection is handed over parked: between two inputs, its thread given up.  One volume at a
 * time is parked, closed without a flush (its live map and the page cache carry what was not
 * flushed, as they do over a kill -9) and sent, so that its clients wait for that only. */
#include <signal.h>
#include <spawn.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <systemd/sd-daemon.h>
#include <utlist.h>

#include "blockd/handover.h"
#include "blockd/meter.h"
#include "blockd/server.h"
#include "common/log.h"

enum {
        ANSWER_S = 60, /* the successor opens the pool */
        TAKEOVER_FD = 3,
};

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

/* The parked ones of that volume ("": of none, NULL: all), ended by NULL; the caller frees. */
static struct conn **parked(struct server *s, const char *volume)
{
        struct conn **list, *c;
        unsigned n = 0;

        WITH_LOCK(&s->lock);
        list = calloc(s->nconns + 1, sizeof(struct conn *));
        DL_FOREACH (s->conns, c) {
                if (list && c->parked &&
                    (!volume || streq(c->meter ? c->meter->volume : "", volume)))
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
        for (struct conn **c = list; *c; c++) {
                if (!(*c)->meter)
                        continue;
                strcpy((*c)->resume, (*c)->tcp ? (*c)->export->id : (*c)->meter->volume);
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

static int park_at_last(struct server *s, const char *volume, struct err **e)
{
        int r = park(s, volume, e);

        s->successor.sound = r < 0;
        return r;
}

static int send_volume(struct server *s, int sock, const char *volume, struct err **e)
{
        int r = park_at_last(s, volume, e);

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
                r = park_at_last(s, "", e);
        if (r < 0)
                return r;
        r = handover_send(sock, json_pack("{s:s}", "op", "done"), NULL, 0, -1);
        return r < 0 ? err_errno(e, r, "hand over") : handover_expect(sock, "ok", e);
}

int replace_back(struct server *s, int sock)
{
        _cleanup_err_ struct err *e = NULL;
        int r = freeze(s, true);

        volume_pool_abandon(s->pool, true);
        pthread_mutex_lock(&s->lock);
        s->stopping = true; /* nobody waits for what is to come */
        pthread_cond_broadcast(&s->gone);
        pthread_mutex_unlock(&s->lock);
        if (r == 0)
                r = park(s, NULL, &e);
        if (r == 0)
                r = send_parked(s, sock, NULL);
        if (r == 0)
                r = handover_send(sock, json_pack("{s:s}", "op", "back"), NULL, 0, -1);
        return r;
}

/* What the successor has already. */
static void take_back(struct server *s, int sock)
{
        int r = handover_send(sock, json_pack("{s:s}", "op", "back"), NULL, 0, -1);
        bool last = false;

        while (r == 0 && !last) {
                struct message m;

                r = handover_recv(sock, &m);
                if (r < 0)
                        break;
                last = streq(message_op(&m), "back");
                if (streq(message_op(&m), "conn") && takeover_conn(s, &m) < 0)
                        log_error("a connection is lost");
                message_done(&m);
        }
        if (r < 0)
                log_error("the successor gives nothing back: %s", strerror(-r));
}

/* From the successor's first word to its last. */
static int hand_over(struct server *s, int sock, struct err **e)
{
        int r = handover_expect(sock, "hello", e);

        s->successor.sound = false;
        if (r < 0)
                return r;
        r = control_freeze(s);
        if (r < 0)
                return err_set(e, r, "a call of the control socket takes too long: try again");
        check_cancel(s, NULL); /* who wanted one asks again */
        volume_pool_background(s->pool, false); /* the pool's metadata is not to change any more */
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
        sd_notifyf(0, "MAINPID=%d", getpid()); /* while it lives: it is not missed */
        /* Before anything goes on here there must be nothing of it there. */
        volume_pool_abandon(s->pool, false);
        if (s->successor.sound)
                take_back(s, sock);
        kill(s->successor.pid, SIGKILL);
        waitpid(s->successor.pid, NULL, 0);
        s->successor.pid = 0;
        volume_pool_background(s->pool, true);
        if (freeze(s, false) < 0)
                log_error("not all sockets accept connections again: %m");
        park_end(s);
        sd_notify(0, "READY=1");
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

static int begin(struct server *s, struct err **e)
{
        const char *why = NULL;

        WITH_LOCK(&s->lock);
        if (s->coming)
                why = "it takes over itself";
        else if (s->stopping)
                why = "it ends";
        else if (s->replacing || s->replaced)
                why = "it is being replaced";
        if (why)
                return err_set(e, -EBUSY, "replace: %s", why);
        s->replacing = true;
        return 0;
}

static void end(struct server *s, bool replaced)
{
        WITH_LOCK(&s->lock);
        s->replacing = false;
        s->replaced = replaced;
        pthread_cond_broadcast(&s->gone);
}

static int run_begun(struct server *s, struct err **e)
{
        int r = run(s, e);

        end(s, r == 0);
        if (r < 0)
                return err_prepend(e, r, "replace");
        log_info("process %d follows", s->successor.pid);
        /* They stay locked by its copies, and no longer than it lives. */
        close(TAKE_FD(s->successor.state_lock));
        close(TAKE_FD(s->successor.run_lock));
        kill(getpid(), SIGUSR2); /* the main loop ends */
        return 0;
}

int replace_run(struct server *s, struct err **e)
{
        int r = begin(s, e);

        return r < 0 ? r : run_begun(s, e);
}

static void *replace_thread(void *arg)
{
        _cleanup_err_ struct err *e = NULL;

        if (run_begun(arg, &e) < 0)
                log_error("%s", err_msg(e));
        return NULL;
}

/* Begun before the thread runs: whoever stops the server waits for it from here on. */
void replace_start(struct server *s)
{
        _cleanup_err_ struct err *e = NULL;

        if (begin(s, &e) < 0) {
                log_error("%s", err_msg(e));
        } else if (server_thread(replace_thread, s) < 0) {
                log_error("replace: no thread");
                end(s, false);
        }
}

bool replace_over(struct server *s)
{
        WITH_LOCK(&s->lock);
        s->stopping = true;
        pthread_cond_broadcast(&s->gone); /* takeover_await() */
        while (s->replacing)
                pthread_cond_wait(&s->gone, &s->lock);
        return s->replaced;
}
