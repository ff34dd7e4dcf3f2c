/* Requests and answers, on libmicrohttpd, in one thread. */
#include "metadata/metadata.h"

#include <arpa/inet.h>
#include <fcntl.h>
#include <microhttpd.h>
#include <netinet/ip.h>
#include <poll.h>
#include <sys/socket.h>

#include "common/bundle.h"
#include "common/clock.h"
#include "common/fileio.h"

static const char password_name[] = "openstack/latest/password";
static const char token_header[] = "X-aws-ec2-metadata-token";
static const char ttl_header[] = "X-aws-ec2-metadata-token-ttl-seconds";

/* A request whose body is being collected. */
struct post {
        size_t n;
        bool large;
        char data[PASSWORD_MAX];
};

/* What is known of who asks. */
struct guest {
        uint64_t address;            /* for tokens */
        char text[INET6_ADDRSTRLEN]; /* and for files */
        bool six;
        char *bundle; /* NULL: no guest of ours */
        size_t n;
        char *posted; /* a password that stratod has not collected */
        size_t nposted;
};

static void guest_done(struct guest *g)
{
        free(g->bundle);
        free(g->posted);
}

static void guest_get(struct MHD_Connection *c, struct guest *ret)
{
        const union MHD_ConnectionInfo *i =
                MHD_get_connection_info(c, MHD_CONNECTION_INFO_CLIENT_ADDRESS);
        const struct sockaddr *a = i ? i->client_addr : NULL;
        const struct sockaddr_in *four = (const struct sockaddr_in *)a;
        const struct sockaddr_in6 *six = (const struct sockaddr_in6 *)a;
        char path[64];

        *ret = (struct guest){};
        if (!a || (a->sa_family != AF_INET && a->sa_family != AF_INET6))
                return;
        ret->six = a->sa_family == AF_INET6;
        if (ret->six)
                memcpy(&ret->address, six->sin6_addr.s6_addr + 8, 8);
        else
                ret->address = ntohl(four->sin_addr.s_addr);
        inet_ntop(a->sa_family, ret->six ? (void *)&six->sin6_addr : (void *)&four->sin_addr,
                  ret->text, sizeof(ret->text));
        file_read(ret->text, BUNDLE_MAX, &ret->bundle, &ret->n, NULL);
        snprintf(path, sizeof(path), "posted/%s", ret->text);
        file_read(path, PASSWORD_MAX, &ret->posted, &ret->nposted, NULL);
}

static enum MHD_Result answer(struct MHD_Connection *c, unsigned status, const char *type,
                              const void *p, size_t n, const char *const header[2])
{
        struct MHD_Response *r =
                MHD_create_response_from_buffer(n, (void *)p, MHD_RESPMEM_MUST_COPY);
        enum MHD_Result ok;

        if (!r)
                return MHD_NO;
        MHD_add_response_header(r, "Content-Type", type);
        if (header)
                MHD_add_response_header(r, header[0], header[1]);
        ok = MHD_queue_response(c, status, r);
        MHD_destroy_response(r);
        return ok;
}

static enum MHD_Result says(struct MHD_Connection *c, unsigned status, const char *words)
{
        return answer(c, status, "text/plain", words, strlen(words), NULL);
}

/* --- tokens ---------------------------------------------------------------------------------- */

/* How many routers an answer may pass: one that is to go no further than the guest itself does not
 * get through to what the guest forwards for. */
static void set_hops(struct MHD_Connection *c, const struct guest *g)
{
        const union MHD_ConnectionInfo *i =
                MHD_get_connection_info(c, MHD_CONNECTION_INFO_CONNECTION_FD);
        struct bundle_item x;
        int hops = bundle_find(g->bundle, g->n, ".hops", &x) ? atoi(x.data) : 1;

        hops = MIN(MAX(hops, 1), 64);
        if (i)
                (void)setsockopt(i->connect_fd, g->six ? IPPROTO_IPV6 : IPPROTO_IP,
                                 g->six ? IPV6_UNICAST_HOPS : IP_TTL, &hops, sizeof(hops));
}

static enum MHD_Result give_token(const struct service *s, struct MHD_Connection *c,
                                  const struct guest *g)
{
        const char *ttl = MHD_lookup_connection_value(c, MHD_HEADER_KIND, ttl_header);
        char token[TOKEN_SIZE], text[16], *end;
        long seconds;

        if (MHD_lookup_connection_value(c, MHD_HEADER_KIND, "X-Forwarded-For"))
                return says(c, MHD_HTTP_FORBIDDEN, "no proxies\n");
        seconds = ttl && *ttl ? strtol(ttl, &end, 10) : 0;
        if (seconds < 1 || seconds > TOKEN_TTL_MAX || *end)
                return says(c, MHD_HTTP_BAD_REQUEST,
                            "X-aws-ec2-metadata-token-ttl-seconds is 1 to 21600\n");
        token_make(s, g->address, clock_mono() / 1000000 + seconds, token);
        snprintf(text, sizeof(text), "%ld", seconds);
        set_hops(c, g);
        return answer(c, MHD_HTTP_OK, "text/plain", token, strlen(token),
                      (const char *const[]){ttl_header, text});
}

/* Whether the request may be answered: with a good token, or without one where none is needed. */
static bool admitted(const struct service *s, struct MHD_Connection *c, const struct guest *g)
{
        const char *token = MHD_lookup_connection_value(c, MHD_HEADER_KIND, token_header);
        struct bundle_item x;

        if (token)
                return token_valid(s, g->address, clock_mono() / 1000000, token);
        return !bundle_find(g->bundle, g->n, ".tokens", &x);
}

/* --- the password ---------------------------------------------------------------------------- */

static bool has_password(const struct guest *g, struct bundle_item *ret)
{
        if (bundle_find(g->bundle, g->n, password_name, ret) && ret->len)
                return true;
        *ret = (struct bundle_item){.data = g->posted, .len = g->nposted};
        return g->posted != NULL;
}

static int keep(const struct guest *g, const struct post *p)
{
        char temp[64], path[64];
        _cleanup_close_ int fd = -1;
        int r = 0;

        snprintf(temp, sizeof(temp), "posted/.%s", g->text);
        snprintf(path, sizeof(path), "posted/%s", g->text);
        unlink(temp);
        fd = open(temp, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC | O_NOFOLLOW, 0600);
        if (fd < 0 || write_full(fd, p->data, p->n) < 0 || link(temp, path) < 0)
                r = -errno;
        unlink(temp);
        return r;
}

static enum MHD_Result take_password(struct MHD_Connection *c, const struct guest *g,
                                     const struct post *p)
{
        struct bundle_item x;
        int r;

        if (has_password(g, &x))
                return says(c, MHD_HTTP_CONFLICT, "it was given already\n");
        if (p->large)
                return says(c, MHD_HTTP_CONTENT_TOO_LARGE, "too long\n");
        if (p->n == 0)
                return says(c, MHD_HTTP_BAD_REQUEST, "empty\n");
        r = keep(g, p);
        return r == 0 ? says(c, MHD_HTTP_OK, "")
                      : says(c, r == -EEXIST ? MHD_HTTP_CONFLICT : MHD_HTTP_INTERNAL_SERVER_ERROR,
                             "not taken\n");
}

/* --- requests -------------------------------------------------------------------------------- */

static enum MHD_Result look(struct MHD_Connection *c, const struct guest *g, const char *name)
{
        const char *type = "text/plain";
        _cleanup_buf_ struct buf list = {};
        struct bundle_item x;
        size_t n = strlen(name);

        if (streq(name, password_name)) {
                if (!has_password(g, &x))
                        x = (struct bundle_item){.data = ""};
                return answer(c, MHD_HTTP_OK, type, x.data, x.len, NULL);
        }
        if (!path_look(g->bundle, g->n, name, &list, &x))
                return says(c, MHD_HTTP_NOT_FOUND, "not found\n");
        if ((n > 5 && streq(name + n - 5, ".json")) ||
            streq(name, "latest/dynamic/instance-identity/document"))
                type = "application/json";
        return answer(c, MHD_HTTP_OK, type, x.data, x.len, NULL);
}

static enum MHD_Result respond(const struct service *s, struct MHD_Connection *c, const char *url,
                               const char *method, const struct post *p)
{
        _cleanup_(guest_done) struct guest g;
        char name[PATH_SIZE];
        bool legal = path_canonical(url, name);

        guest_get(c, &g);
        if (!g.bundle)
                return says(c, MHD_HTTP_NOT_FOUND, "not found\n");
        if (legal && streq(method, "PUT") && streq(name, "latest/api/token"))
                return give_token(s, c, &g);
        if (!admitted(s, c, &g))
                return says(c, MHD_HTTP_UNAUTHORIZED, "a token is needed\n");
        if (!legal)
                return says(c, MHD_HTTP_NOT_FOUND, "not found\n");
        if (streq(method, "POST") && streq(name, password_name))
                return take_password(c, &g, p);
        if (!streq(method, "GET") && !streq(method, "HEAD"))
                return says(c, MHD_HTTP_METHOD_NOT_ALLOWED, "read it with GET\n");
        return look(c, &g, name);
}

static enum MHD_Result handle(void *arg, struct MHD_Connection *c, const char *url,
                              const char *method, const char *version, const char *body, size_t *n,
                              void **state)
{
        struct post *p = *state;

        if (!p) {
                *state = calloc(1, sizeof(*p));
                return *state ? MHD_YES : MHD_NO;
        }
        if (*n == 0)
                return respond(arg, c, url, method, p);
        if (*n > sizeof(p->data) - p->n) {
                p->large = true;
        } else {
                memcpy(p->data + p->n, body, *n);
                p->n += *n;
        }
        *n = 0;
        return MHD_YES;
}

static void completed(void *arg, struct MHD_Connection *c, void **state,
                      enum MHD_RequestTerminationCode why)
{
        free(*state);
        *state = NULL;
}

static struct MHD_Daemon *listen_on(struct service *s, int fd)
{
        return MHD_start_daemon(MHD_USE_EPOLL, 0, NULL, NULL, handle, s, MHD_OPTION_LISTEN_SOCKET,
                                fd, MHD_OPTION_CONNECTION_LIMIT, (unsigned)CONNECTIONS,
                                MHD_OPTION_PER_IP_CONNECTION_LIMIT, (unsigned)CONNECTIONS_GUEST,
                                MHD_OPTION_CONNECTION_TIMEOUT, (unsigned)IDLE_SECONDS,
                                MHD_OPTION_CONNECTION_MEMORY_LIMIT, (size_t)16384,
                                MHD_OPTION_NOTIFY_COMPLETED, completed, NULL, MHD_OPTION_END);
}

/* Milliseconds until one of them has to look at its connections; -1: none has. */
static int next_look(const struct service *s)
{
        MHD_UNSIGNED_LONG_LONG ms, least = INT32_MAX;

        for (int i = 0; i < 2; i++)
                if (s->http[i] && MHD_get_timeout(s->http[i], &ms) == MHD_YES)
                        least = MIN(least, ms);
        return least == INT32_MAX ? -1 : (int)least;
}

int http_serve(struct service *s, const int fd[2])
{
        struct pollfd p[2] = {{.fd = -1}, {.fd = -1}};
        int r = 0;

        for (int i = 0; i < 2; i++) {
                const union MHD_DaemonInfo *info;

                if (fd[i] < 0)
                        continue;
                s->http[i] = listen_on(s, fd[i]);
                info = s->http[i] ? MHD_get_daemon_info(s->http[i], MHD_DAEMON_INFO_EPOLL_FD)
                                  : NULL;
                if (!info)
                        return -ENOMEM;
                p[i] = (struct pollfd){.fd = info->epoll_fd, .events = POLLIN};
        }
        while (r == 0) {
                if (poll(p, 2, next_look(s)) < 0 && errno != EINTR)
                        r = -errno;
                for (int i = 0; i < 2; i++)
                        if (s->http[i] && MHD_run(s->http[i]) != MHD_YES)
                                r = -EIO;
        }
        return r;
}
