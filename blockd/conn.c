/* One thread a connection: receive what came, feed the session, which sends. */
#include <poll.h>
#include <sys/socket.h>
#include <utlist.h>

#include "blockd/server.h"
#include "blockd/session.h"
#include "common/clock.h"
#include "common/log.h"

static int conn_open(void *arg, const char *name, struct session_export *ret, struct err **e)
{
        struct conn *c = arg;
        struct export *x = c->export;
        int r;

        if (x && name[0] && !streq(name, x->volume))
                return err_set(e, -ENOENT, "this socket does not serve '%.64s'", name);
        if (x)
                name = x->volume;
        r = volume_open(c->server->pool, name, x && x->readonly, &ret->volume, e);
        if (r < 0)
                return r;
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

static int conn_send(void *arg, const void *p, size_t n)
{
        struct conn *c = arg;

        while (n > 0) {
                ssize_t r = send(c->fd, p, n, MSG_NOSIGNAL);

                if (r < 0 && errno == EINTR)
                        continue;
                if (r < 0)
                        return -errno;
                p = (const char *)p + r;
                n -= r;
        }
        return 0;
}

/* Waits for input until the deadline; a client that only talks about talking is sent away. */
static int wait_handshake(int fd, int64_t deadline)
{
        struct pollfd p = {.fd = fd, .events = POLLIN};
        int64_t left = (deadline - clock_mono()) / 1000;
        int r;

        if (left <= 0)
                return -ETIMEDOUT;
        r = poll(&p, 1, left);
        return r < 0 ? -errno : r == 0 ? -ETIMEDOUT : 0;
}

static int serve(struct conn *c, struct session *s, uint8_t *in)
{
        int64_t deadline = clock_mono() + SERVER_HANDSHAKE_MS * 1000;
        size_t have = 0;
        int r = conn_send(c, s->out, s->out_len); /* the greeting */

        s->out_len = 0;
        while (r == 0) {
                ssize_t n;

                if (s->phase != SESSION_TRANSMISSION)
                        r = wait_handshake(c->fd, deadline);
                if (r < 0)
                        return r == -EINTR ? 0 : r;
                n = recv(c->fd, in + have, SESSION_IN - have, 0);
                if (n < 0 && errno == EINTR)
                        continue;
                if (n <= 0)
                        return n < 0 ? -errno : 0;
                have += n;
                n = session_input(s, in, have);
                if (n < 0)
                        return n;
                have -= n;
                if (have && n)
                        memmove(in, in + n, have);
        }
        return r;
}

static void conn_free(struct conn *c)
{
        struct server *s = c->server;

        pthread_mutex_lock(&s->lock);
        DL_DELETE(s->conns, c);
        s->nconns--;
        if (c->export)
                c->export->connections--;
        close(c->fd); /* under the lock: exports_disconnect() shuts descriptors of the list down */
        pthread_cond_broadcast(&s->gone);
        pthread_mutex_unlock(&s->lock);
        free(c);
}

static void *conn_thread(void *arg)
{
        struct conn *c = arg;
        const struct session_owner owner = {
                .open = conn_open, .list = conn_list, .send = conn_send, .arg = c};
        uint8_t *in = malloc(SESSION_IN);
        struct session s;
        int r = session_init(&s, &owner);

        if (r == 0 && in)
                r = serve(c, &s, in);
        if (r < 0 && r != -ESHUTDOWN && r != -EPIPE && r != -ECONNRESET)
                log_info("connection to %s: closed: %s",
                         c->export ? c->export->id : "shared socket", strerror(-r));
        session_done(&s);
        free(in);
        conn_free(c);
        return NULL;
}

/* The shared socket is for us and for root, whatever its mode became. */
static bool shared_allowed(int fd)
{
        struct ucred peer;
        socklen_t n = sizeof(peer);

        return getsockopt(fd, SOL_SOCKET, SO_PEERCRED, &peer, &n) == 0 &&
               (peer.uid == 0 || peer.uid == geteuid());
}

void conn_start(struct server *s, struct export *x, int fd)
{
        struct conn *c = NULL;

        if (x || shared_allowed(fd))
                c = calloc(1, sizeof(*c));
        if (!c) {
                close(fd);
                return;
        }
        *c = (struct conn){.server = s, .export = x, .fd = fd};
        /* The caller holds the lock. */
        if (s->stopping || s->nconns >= SERVER_CONNECTIONS ||
            (x && (x->closing || x->connections >= SERVER_PER_EXPORT))) {
                log_warning("connection refused: too many, or closing");
                close(fd);
                free(c);
                return;
        }
        DL_APPEND(s->conns, c);
        s->nconns++;
        if (x)
                x->connections++;
        if (server_thread(conn_thread, c) < 0) {
                log_error("no thread for a connection");
                DL_DELETE(s->conns, c);
                s->nconns--;
                if (x)
                        x->connections--;
                close(fd);
                free(c);
        }
}
