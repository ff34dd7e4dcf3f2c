/* blockd over TCP: what is listened on, and clients without TLS that are worth a warning. */
#include <net/if.h>
#include <netdb.h>
#include <sys/socket.h>

#include "blockd/clients.h"
#include "blockd/handover.h"
#include "blockd/server.h"
#include "common/log.h"

/* "127.0.0.1 port 10809", also where the kernel chose the port. */
static char *address_text(const struct sockaddr_storage *sa, char *out, size_t n)
{
        char host[INET6_ADDRSTRLEN + IF_NAMESIZE], port[8];

        if (getnameinfo((const struct sockaddr *)sa, sizeof(*sa), host, sizeof(host), port,
                        sizeof(port), NI_NUMERICHOST | NI_NUMERICSERV) != 0)
                snprintf(out, n, "?");
        else
                snprintf(out, n, "%s port %s", host, port);
        return out;
}

/* One address; the same one at the next start finds what was held meanwhile. */
static int listen_held(struct server *s, const char *address, char held[HELD_NAME_SIZE],
                       struct err **e)
{
        int fd;

        snprintf(held, HELD_NAME_SIZE, "tcp.%s", address);
        for (char *c = held; *c; c++)
                if (*c == ':') /* what separates names */
                        *c = '_';
        fd = held_adopt(&s->held, held);
        if (fd >= 0)
                return fd;
        fd = listen_tcp(address, e);
        if (fd >= 0)
                held_keep(held, fd);
        return fd;
}

static int listen_all(struct server *s, const struct tcp_config *config, struct err **e)
{
        for (unsigned i = 0; i < config->n; i++) {
                int r, fd = listen_held(s, config->listen[i], s->tcp.held[i], e);
                struct sockaddr_storage sa = {};
                socklen_t n = sizeof(sa);
                char text[128];

                if (fd < 0)
                        return fd;
                s->tcp.fds[s->tcp.n++] = fd;
                r = server_watch(s, fd, LISTEN_TCP + i);
                if (r < 0)
                        return err_errno(e, r, "watch '%s'", config->listen[i]);
                getsockname(fd, (struct sockaddr *)&sa, &n);
                log_info("listens on %s, %s", address_text(&sa, text, sizeof(text)),
                         !s->tcp.tls    ? "without TLS"
                         : s->tcp.plain ? "with TLS and without"
                                        : "TLS only");
        }
        return 0;
}

int tcp_start(struct server *s, const struct tcp_config *config, struct err **e)
{
        int r = 0;

        if (config->n == 0)
                return 0;
        if (!config->tls_dir && !config->plain)
                return err_set(e, -EINVAL,
                               "--listen wants --tls-dir, or --plain-tcp: without TLS anyone on "
                               "the way can read and change what guests read and write");
        if (config->tls_dir)
                r = tls_config_open(config->tls_dir, &s->tcp.tls, e);
        if (r < 0)
                return r;
        s->tcp.plain = config->plain;
        if (config->plain)
                log_warning("--plain-tcp: anyone on the way can read and change what clients "
                            "without TLS read and write");
        return listen_all(s, config, e);
}

void tcp_stop(struct server *s)
{
        while (s->tcp.n > 0)
                close(s->tcp.fds[--s->tcp.n]);
        s->tcp.tls = tls_config_free(s->tcp.tls);
}

static bool peer(int fd, struct sockaddr_storage *ret)
{
        socklen_t n = sizeof(*ret);

        return getpeername(fd, (struct sockaddr *)ret, &n) == 0 &&
               (ret->ss_family == AF_INET || ret->ss_family == AF_INET6);
}

/* IPv4 as IPv6 writes it. */
static struct in6_addr address(const struct sockaddr_storage *sa)
{
        struct in6_addr a = {.s6_addr = {[10] = 0xff, [11] = 0xff}};

        if (sa->ss_family == AF_INET6)
                return ((const struct sockaddr_in6 *)sa)->sin6_addr;
        memcpy(a.s6_addr + 12, &((const struct sockaddr_in *)sa)->sin_addr, 4);
        return a;
}

char *tcp_peer(const struct conn *c, char *out, size_t n)
{
        struct sockaddr_storage sa;
        char text[128];

        snprintf(out, n, "%s%s%s",
                 peer(c->wire.fd, &sa) ? address_text(&sa, text, sizeof(text)) : "a TCP client",
                 c->wire.tls ? ", " : "", c->wire.tls ? tls_identity(c->wire.tls) : "");
        return out;
}

/* The first connection without TLS from an address is worth a warning.  With lock held. */
static void warn_plain(struct conn *c)
{
        struct tcp *t = &c->server->tcp;
        struct sockaddr_storage sa;
        struct in6_addr a;
        char text[128];

        if (c->wire.tls || !peer(c->wire.fd, &sa))
                return;
        a = address(&sa);
        for (unsigned i = 0; i < MIN(t->nseen, (unsigned)TCP_SEEN); i++)
                if (IN6_ARE_ADDR_EQUAL(&t->seen[i], &a))
                        return;
        t->seen[t->nseen++ % TCP_SEEN] = a;
        if (t->nseen == 2 * TCP_SEEN) /* a full ring stays full */
                t->nseen = TCP_SEEN;
        log_warning("a client without TLS: %s", tcp_peer(c, text, sizeof(text)));
}

static int belong(struct conn *c, struct export *x, struct err **e)
{
        if (x == c->export)
                return 0;
        if (x->connections >= SERVER_PER_EXPORT)
                return err_set(e, -EBUSY, "too many connections to this export");
        if (c->export && --c->export->connections == 0)
                pthread_cond_broadcast(&c->server->gone);
        c->export = x;
        x->connections++;
        return 0;
}

int tcp_open(void *arg, const char *name, struct session_export *ret, struct err **e)
{
        struct conn *c = arg;
        struct server *s = c->server;
        char volume[VOLUME_ID_SIZE];
        bool readonly = true;
        struct export *x;
        int r;

        pthread_mutex_lock(&s->lock);
        warn_plain(c);
        x = export_of_client(s, name, c->wire.tls);
        /* What is forbidden looks as if it were not there. */
        r = x ? belong(c, x, e) : err_set(e, -ENOENT, "there is no such export for this client");
        if (r == 0) {
                strcpy(volume, x->volume);
                readonly = x->readonly;
        }
        pthread_mutex_unlock(&s->lock);
        if (r == 0)
                r = takeover_await(s, volume, e);
        if (r == 0)
                r = volume_open(s->pool, volume, readonly, &ret->volume, e);
        if (r == 0)
                strcpy(ret->name, volume_id(ret->volume));
        return r;
}

/* The names are copied: sending takes as long as the client likes. */
int tcp_list(void *arg, int (*each)(void *session, const char *name), void *session)
{
        struct conn *c = arg;
        struct server *s = c->server;
        _cleanup_free_ char(*names)[EXPORT_ID_SIZE] = NULL;
        struct export *x, *tmp;
        size_t n = 0;
        int r = 0;

        pthread_mutex_lock(&s->lock);
        warn_plain(c);
        names = malloc((HASH_COUNT(s->exports) + 1) * sizeof(*names));
        HASH_ITER (hh, s->exports, x, tmp) {
                if (names && clients_allow(x->clients, c->wire.tls))
                        strcpy(names[n++], x->id);
        }
        pthread_mutex_unlock(&s->lock);
        if (!names)
                return -ENOMEM;
        for (size_t i = 0; i < n && r == 0; i++)
                r = each(session, names[i]);
        return r;
}

int tcp_starttls(void *arg)
{
        struct conn *c = arg;
        _cleanup_err_ struct err *e = NULL;
        char who[TLS_NAME_MAX + 128], how[128];
        struct tls *t;
        int r = tls_accept(c->server->tcp.tls, c->wire.fd, c->wire.deadline, &t, &e);

        if (r < 0) {
                log_info("%s: %s", tcp_peer(c, who, sizeof(who)), err_msg(e));
                return -ESHUTDOWN; /* all is said */
        }
        c->wire.tls = t;
        tls_describe(t, how, sizeof(how));
        log_debug("%s: %s", tcp_peer(c, who, sizeof(who)), how);
        return 0;
}
