/* One thread a connection that talks: receive what came, feed the session, which sends. */
#include <poll.h>
#include <signal.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <utlist.h>

#include "blockd/handover.h"
#include "blockd/meter.h"
#include "blockd/server.h"
#include "common/clock.h"
#include "common/log.h"

static int conn_open(void *arg, const char *name, struct session_export *ret, struct err **e)
{
        struct conn *c = arg;
        struct export *x = c->export;
        _cleanup_err_ struct err *why = NULL;
        int r;

        if (x && name[0] && !streq(name, x->volume))
                return err_set(e, -ENOENT, "this socket does not serve '%.64s'", name);
        if (x)
                name = x->volume;
        r = takeover_await(c->server, name, &why);
        if (r == 0)
                r = volume_open(c->server->pool, name, x && x->readonly, &ret->volume, &why);
        if (r < 0 && r != -ENOENT)
                log_warning("a client is refused: %s", err_msg(why));
        if (r < 0)
                return err_move(e, TAKE_PTR(why));
        strcpy(ret->name, volume_id(ret->volume));
        return 0;
}

struct list {
        int (*each)(void *session, const char *name);
        void *session;
};

static int list_volume(void *arg, const struct volume_info *info)
{
        struct list *l = arg;

        return l->each(l->session, info->id);
}

static int conn_list(void *arg, int (*each)(void *session, const char *name), void *session)
{
        struct list l = {.each = each, .session = session};
        struct conn *c = arg;

        if (c->export)
                return each(session, c->export->volume);
        return volume_list(c->server->pool, "", list_volume, &l, NULL);
}

/* Whether it is a snapshot of v, what v was cloned from, or, v being a snapshot, another of the
 * same volume. */
static bool is_past(const struct volume_info *since, const struct volume_info *v)
{
        if (!since->immutable || streq(since->id, v->id))
                return false;
        return streq(since->parent, v->id) || streq(v->parent, since->id) ||
               (v->immutable && v->parent[0] && streq(v->parent, since->parent));
}

/* A guest compares its volume with what that was, never with what others have. */
static bool may_compare(const struct conn *c, const struct volume *v, const char *since)
{
        struct volume_info info, past;

        return !c->export ||
               (volume_stat(c->server->pool, volume_id(v), &info, NULL) == 0 &&
                volume_stat(c->server->pool, since, &past, NULL) == 0 && is_past(&past, &info));
}

static int conn_changes(void *arg, struct volume *v, const char *since, struct volume_changes **ret)
{
        int r = takeover_await(((struct conn *)arg)->server, since, NULL);

        if (r < 0)
                return r;
        return may_compare(arg, v, since) ? volume_changes_open(v, since, ret, NULL) : -ENOENT;
}

struct snapshots {
        struct volume_info of;
        int (*each)(void *query, const char *since);
        void *query;
};

static int list_snapshot(void *arg, const struct volume_info *info)
{
        const struct snapshots *l = arg;

        return is_past(info, &l->of) ? l->each(l->query, info->id) : 0;
}

static int conn_snapshots(void *arg, struct volume *v, int (*each)(void *query, const char *since),
                          void *query)
{
        struct snapshots l = {.each = each, .query = query};
        struct conn *c = arg;
        int r = volume_stat(c->server->pool, volume_id(v), &l.of, NULL);

        return r < 0 ? r : volume_list(c->server->pool, "", list_snapshot, &l, NULL);
}

static int conn_begin(void *arg, const char *volume, struct limit **ret, struct stats **ret_stats)
{
        struct conn *c = arg;
        int r = meter_join(c->server, volume, &c->stats, &c->meter);

        if (r < 0)
                return r;
        *ret = &c->meter->limit;
        *ret_stats = &c->stats;
        return 0;
}

/* The client has closed, or we have (conn_disconnect()), or its handshake takes too long. */
static bool conn_gone(void *arg)
{
        struct conn *c = arg;
        struct pollfd p = {.fd = c->wire.fd};

        if (c->wire.deadline && clock_mono() > c->wire.deadline)
                return true;
        return poll(&p, 1, 0) > 0 && p.revents & (POLLHUP | POLLERR);
}

static bool conn_pause(void *arg)
{
        return atomic_load_explicit(&((struct conn *)arg)->park, memory_order_relaxed);
}

static int conn_send(void *arg, struct iovec *iov, int n)
{
        struct conn *c = arg;

        return wire_send(&c->wire, iov, n);
}

static ssize_t conn_send_some(void *arg, struct iovec *iov, int n)
{
        struct conn *c = arg;

        return wire_send_some(&c->wire, iov, n);
}

static int conn_send_file(void *arg, int fd, uint64_t off, uint64_t n)
{
        struct conn *c = arg;

        return wire_send_file(&c->wire, fd, off, n);
}

static bool conn_more(void *arg)
{
        struct conn *c = arg;
        int n;

        return !c->wire.tls && ioctl(c->wire.fd, FIONREAD, &n) == 0 && n > 0;
}

/* In transmission a silent client is noticed by the receive's own time-out, which costs nothing. */
static void set_patience(struct conn *c)
{
        const struct timeval t = {.tv_sec = SERVER_REST_MS / 1000};

        c->wire.deadline = 0;
        setsockopt(c->wire.fd, SOL_SOCKET, SO_RCVTIMEO, &t, sizeof(t));
}

/* Feeds what is there.  0 go on, negative: the connection is over. */
static int feed(struct conn *c)
{
        const bool talking = c->session.phase != SESSION_TRANSMISSION;
        ssize_t n = session_input(&c->session, c->in, c->have);

        if (n < 0)
                return n;
        c->have -= n;
        if (c->have && n)
                memmove(c->in, c->in + n, c->have);
        if (talking && c->session.phase == SESSION_TRANSMISSION)
                set_patience(c);
        return 0;
}

/* While something is in flight, until there is input.  0, or as wire_recv(). */
static int await_input(struct conn *c)
{
        struct pollfd p[] = {{.fd = c->wire.fd, .events = POLLIN}, {.events = POLLIN}};
        eventfd_t v;
        int r = 0;
        int64_t us;

        while (r == 0 && !p[0].revents && !wire_pending(&c->wire) &&
               (p[1].fd = session_flying(&c->session, &us)) >= 0) {
                if (us < 0)
                        us = SERVER_REST_MS * 1000;
                if (ppoll(p, ARRAY_SIZE(p), &(struct timespec){us / 1000000, us % 1000000 * 1000},
                          NULL) < 0)
                        return -errno;
                if (p[1].revents)
                        eventfd_read(p[1].fd, &v);
                if (!p[0].revents)
                        r = session_landed(&c->session);
        }
        return r;
}

/* Takes what comes next, a large payload to where it is to stay.  0 go on, negative as wire_recv(),
 * or the connection is over. */
static int receive(struct conn *c)
{
        size_t room = SESSION_IN - c->have;
        uint8_t *sink = c->have == 0 ? session_sink(&c->session, &room) : NULL;
        int r = await_input(c);
        ssize_t n;

        if (r < 0)
                return r;
        n = wire_recv(&c->wire, sink ? sink : c->in + c->have, room);

        if (n <= 0)
                return n < 0 ? n : -ESHUTDOWN;
        if (sink)
                return session_sunk(&c->session, n);
        c->have += n;
        return feed(c);
}

/* 0 when it has said nothing for a while or is to be parked, negative when it is over. */
static int serve(struct conn *c)
{
        int r = session_send(&c->session); /* the greeting */

        while ((r == 0 || r == -EINTR) && !conn_pause(c))
                r = c->session.paused ? feed(c) : receive(c);
        return r == 0 || r == -EINTR || r == -EAGAIN ? session_settle(&c->session) : r;
}

void conn_free(struct conn *c)
{
        struct server *s = c->server;

        session_land(&c->session);
        meter_leave(s, &c->meter, &c->stats);
        session_done(&c->session);
        free(c->in);
        tls_free(c->wire.tls);
        pthread_mutex_lock(&s->lock);
        DL_DELETE(s->conns, c);
        s->nconns--;
        s->tcp.connections -= c->tcp;
        if (c->export)
                c->export->connections--;
        close(c->wire.fd); /* under the lock: exports_disconnect() shuts descriptors of the list
                              down */
        pthread_cond_broadcast(&s->gone);
        pthread_mutex_unlock(&s->lock);
        free(c);
}

/* No more memory than what it is needs. */
static int shrink(struct conn *c)
{
        uint8_t *kept = NULL;

        session_rest(&c->session);
        if (c->have > 0) {
                kept = malloc(c->have);
                if (!kept)
                        return -ENOMEM;
                memcpy(kept, c->in, c->have);
        }
        free(c->in);
        c->in = kept;
        return 0;
}

/* With the lock. */
static int watch_at_rest(struct conn *c)
{
        struct epoll_event ev = {.events = EPOLLIN | EPOLLONESHOT,
                                 .data.u64 = WATCH_CONN | (uintptr_t)c >> 1};
        int epfd = c->server->epfd, r = 0;

        if (epoll_ctl(epfd, EPOLL_CTL_ADD, c->wire.fd, &ev) < 0)
                r = errno == EEXIST && epoll_ctl(epfd, EPOLL_CTL_MOD, c->wire.fd, &ev) == 0
                            ? 0
                            : -errno;
        c->resting = r == 0;
        return r;
}

/* Waits in the event loop's set from here on, or is parked.  The moment it is there c may be
 * another thread's.  1: it was to be parked, and is to go on. */
static int rest(struct conn *c)
{
        int r = shrink(c);

        if (r < 0)
                return r;
        WITH_LOCK(&c->server->lock);
        if (c->park) {
                c->threaded = false;
                c->parked = true;
                pthread_cond_broadcast(&c->server->gone);
                return 0;
        }
        if (c->session.paused)
                return 1;
        r = watch_at_rest(c);
        c->threaded = r < 0;
        return r;
}

static int rise(struct conn *c)
{
        uint8_t *in = malloc(SESSION_IN);

        if (!in)
                return -ENOMEM;
        if (c->have > 0)
                memcpy(in, c->in, c->have);
        free(c->in);
        c->in = in;
        return 0;
}

static void *conn_thread(void *arg)
{
        struct conn *c = arg;
        char peer[TLS_NAME_MAX + 128];
        int r;

        pthread_mutex_lock(&c->server->lock);
        c->thread = pthread_self();
        c->threaded = true;
        pthread_mutex_unlock(&c->server->lock);
        c->session.paused = c->have > 0; /* perhaps that was not all looked at */
        do {
                r = rise(c);
                if (r == 0 && c->resume[0]) {
                        r = session_resume(&c->session, c->resume);
                        pthread_mutex_lock(&c->server->lock);
                        c->resume[0] = '\0';
                        pthread_mutex_unlock(&c->server->lock);
                }
                if (r == 0)
                        r = serve(c);
                if (r == 0)
                        r = rest(c);
        } while (r > 0);
        if (r == 0)
                return NULL;
        if (r != -ESHUTDOWN && r != -EPIPE && r != -ECONNRESET)
                log_info("connection %s %s: closed: %s", c->tcp ? "of" : "to",
                         c->tcp      ? tcp_peer(c, peer, sizeof(peer))
                         : c->export ? c->export->id
                                     : "shared socket",
                         strerror(-r));
        conn_free(c);
        return NULL;
}

void conn_wake(struct server *s, const struct conn *which)
{
        struct conn *c;
        int r = 0;

        pthread_mutex_lock(&s->lock);
        /* It may have been woken by another, and be gone. */
        DL_FOREACH (s->conns, c) {
                if (c == which && c->resting)
                        break;
        }
        if (c) {
                c->resting = false;
                r = server_thread(conn_thread, c);
        }
        pthread_mutex_unlock(&s->lock);
        if (r < 0) {
                log_error("no thread for a connection");
                conn_free(c);
        }
}

void conn_disconnect(struct conn *c)
{
        shutdown(c->wire.fd, SHUT_RDWR);
        if (c->meter)
                limit_kick(&c->meter->limit); /* perhaps it waits there */
        if (c->resting) {
                c->resting = false;
                if (server_thread(conn_thread, c) < 0)
                        c->resting = true; /* the caller tries again, the event loop sees it, too */
        }
}

/* The shared socket is for us and for root, whatever its mode became. */
static bool shared_allowed(int fd)
{
        struct ucred peer;
        socklen_t n = sizeof(peer);

        return getsockopt(fd, SOL_SOCKET, SO_PEERCRED, &peer, &n) == 0 &&
               (peer.uid == 0 || peer.uid == geteuid());
}

static struct session_owner owner_of(struct conn *c)
{
        const struct tcp *tcp = &c->server->tcp;
        struct session_owner owner = {.open = conn_open,
                                      .list = conn_list,
                                      .changes = conn_changes,
                                      .snapshots = conn_snapshots,
                                      .begin = conn_begin,
                                      .gone = conn_gone,
                                      .pause = conn_pause,
                                      .send = conn_send,
                                      .send_some = conn_send_some,
                                      .more = conn_more,
                                      .send_file = conn_send_file,
                                      .arg = c};

        if (c->tcp) {
                owner.open = tcp_open;
                owner.list = tcp_list;
                owner.starttls = tcp->tls ? tcp_starttls : NULL;
                owner.tls_only = tcp->tls && !tcp->plain;
        }
        return owner;
}

/* Takes c in any case. */
static int conn_add(struct server *s, struct conn *c)
{
        int r;

        DL_APPEND(s->conns, c);
        s->nconns++;
        s->tcp.connections += c->tcp;
        if (c->export)
                c->export->connections++;
        r = server_thread(conn_thread, c);
        if (r == 0)
                return 0;
        log_error("no thread for a connection");
        DL_DELETE(s->conns, c);
        s->nconns--;
        s->tcp.connections -= c->tcp;
        if (c->export)
                c->export->connections--;
        session_done(&c->session);
        close(c->wire.fd);
        free(c->in);
        free(c);
        return r;
}

void conn_park(struct conn *c)
{
        c->park = true;
        if (c->resting) {
                epoll_ctl(c->server->epfd, EPOLL_CTL_DEL, c->wire.fd, NULL);
                c->resting = false;
                c->parked = true;
        } else if (c->threaded) {
                pthread_kill(c->thread, SIGUSR1);
                if (c->meter)
                        limit_kick(&c->meter->limit); /* perhaps it waits there */
        }
}

void conn_revive(struct conn *c)
{
        c->park = false;
        c->parked = false;
        if (server_thread(conn_thread, c) < 0 && watch_at_rest(c) < 0) {
                log_error("no thread for a connection");
                c->parked = true;
        }
}

int conn_adopt(struct server *s, const struct conn *from)
{
        struct conn *c = calloc(1, sizeof(*c));

        if (!c || (from->have > 0 && !(c->in = malloc(from->have)))) {
                free(c);
                close(from->wire.fd);
                return -ENOMEM;
        }
        *c = (struct conn){.server = s,
                           .export = from->export,
                           .tcp = from->tcp,
                           .wire = from->wire,
                           .session = from->session,
                           .in = c->in,
                           .have = from->have};
        if (c->have > 0)
                memcpy(c->in, from->in, c->have);
        strcpy(c->resume, from->resume);
        c->session.owner = owner_of(c);
        return conn_add(s, c);
}

/* A large reply goes into the socket at once, not at the pace at which its reader is woken up. */
static void make_room(int fd)
{
        const int room = SERVER_SEND_ROOM;

        if (setsockopt(fd, SOL_SOCKET, SO_SNDBUFFORCE, &room, sizeof(room)) < 0)
                setsockopt(fd, SOL_SOCKET, SO_SNDBUF, &room, sizeof(room));
}

void conn_start(struct server *s, struct export *x, bool tcp, int fd)
{
        struct session_owner owner;
        struct conn *c = NULL;

        if (x || tcp || shared_allowed(fd))
                c = calloc(1, sizeof(*c));
        if (!c) {
                close(fd);
                return;
        }
        *c = (struct conn){.server = s, .export = x, .tcp = tcp, .wire = {.fd = fd}};
        c->wire.deadline = clock_mono() + s->handshake_ms * INT64_C(1000);
        /* The caller holds the lock. */
        if (s->stopping || s->nconns >= SERVER_CONNECTIONS ||
            (tcp && s->tcp.connections >= SERVER_TCP) ||
            (x && (x->closing || x->connections >= SERVER_PER_EXPORT))) {
                log_warning("connection refused: too many, or closing");
                close(fd);
                free(c);
                return;
        }
        if (!tcp)
                make_room(fd);
        owner = owner_of(c);
        if (session_init(&c->session, &owner) < 0) {
                close(fd);
                free(c);
                return;
        }
        conn_add(s, c);
}
