/* The driver: the host as the plan says. */
#include "backend/network/linux/linux.h"

#include <sys/stat.h>

#include "backend/network/linux/netlink.h"
#include "backend/network/linux/network-linux.h"
#include "common/fileio.h"
#include "common/log.h"

static struct linux_net *self(struct network_service *s)
{
        return (struct linux_net *)s;
}

static void inner_free(struct inner *i)
{
        nft_done(&i->rules);
        answers_free(&i->told);
        free(i->rates);
        free(i->failure);
        free(i);
}

struct inner *inner_get(struct linux_net *s, const char *id)
{
        struct inner *i;

        for (i = s->inner; i; i = i->next)
                if (streq(i->id, id))
                        return i;
        i = calloc(1, sizeof(*i));
        if (!i)
                return NULL;
        snprintf(i->id, sizeof(i->id), "%s", id);
        i->next = s->inner;
        s->inner = i;
        return i;
}

struct known_tap *tap_get(struct linux_net *s, const char *name)
{
        struct known_tap *v;

        for (size_t i = 0; i < s->ntaps; i++)
                if (streq(s->taps[i].name, name))
                        return &s->taps[i];
        v = reallocarray(s->taps, s->ntaps + 1, sizeof(*v));
        if (!v)
                return NULL;
        s->taps = v;
        v = &v[s->ntaps++];
        *v = (struct known_tap){};
        snprintf(v->name, sizeof(v->name), "%s", name);
        return v;
}

static int host_rules(struct linux_net *s, const struct net_plan *p, struct err **e)
{
        _cleanup_buf_ struct buf text = {};

        ruleset_host(s->table, p, &text);
        return nft_apply(&s->rules, &text, e);
}

/* --- all of it ------------------------------------------------------------------------------- */

/* What was known of namespaces that are gone. */
static void forget(struct linux_net *s)
{
        for (struct inner **i = &s->inner; *i;) {
                struct inner *x = *i;

                if (x->wanted) {
                        x->wanted = false;
                        i = &x->next;
                        continue;
                }
                *i = x->next;
                inner_free(x);
        }
        for (size_t i = 0; i < s->ntaps;)
                if (s->taps[i].seen)
                        s->taps[i++].seen = false;
                else
                        s->taps[i] = s->taps[--s->ntaps];
}

/* <run>/net/owner holds the alias of our devices, for who looks for what was left behind. */
static int mark(struct linux_net *s, struct err **e)
{
        _cleanup_free_ char *path = path_printf("%s/owner", s->dir);
        int r = path ? mkdir_parents(s->dir, 0711, e) : err_errno(e, -ENOMEM, "network");

        if (r < 0 || access(path, F_OK) == 0)
                return r;
        return file_replace(path, s->alias, strlen(s->alias), 0644, e);
}

/* The namespace of a network or router, made if need be. */
static int place_open(struct linux_net *s, const char *id, struct place *at, struct err **e)
{
        _cleanup_free_ char *file = path_printf("%s/%s/ns", s->dir, id);
        struct stat st;
        int home, r;

        *at = (struct place){.ns = -1, .known = inner_get(s, id)};
        at->dir = path_printf("%s/%s", s->dir, id);
        if (!at->dir || !file || !at->known)
                return err_errno(e, -ENOMEM, "network");
        at->known->wanted = true;
        r = mkdir_parents(at->dir, 0711, e);
        if (r < 0)
                return r;
        at->ns = netns_open(file, e);
        if (at->ns < 0)
                return at->ns;
        if (fstat(at->ns, &st) == 0 && st.st_ino != at->known->ns) { /* made anew */
                nft_done(&at->known->rules);
                at->known->ns = st.st_ino;
        }
        r = netns_enter(at->ns, &home, e);
        if (r < 0)
                return r;
        at->in = nl_open(e); /* a socket stays in the namespace it was made in */
        netns_leave(home);
        return at->in ? 0 : -EIO;
}

static void place_close(struct place *at)
{
        nl_close(at->in);
        if (at->ns >= 0)
                close(at->ns);
        free(at->dir);
}

/* The first failure is the one that is told. */
static int one(int r, int failure)
{
        return r < 0 ? r : failure;
}

static int apply_networks(struct linux_net *s, struct nl *n, const struct net_plan *p,
                          struct place *at, struct err **e)
{
        int r = 0, x;

        for (unsigned i = 0; i < p->nnetworks; i++) {
                struct err **words = r < 0 ? NULL : e;

                x = place_open(s, p->networks[i].id, &at[i], words);
                if (x == 0)
                        x = network_devices(s, n, p, &p->networks[i], &at[i], words);
                at[i].failed = x < 0;
                r = one(r, x);
        }
        for (unsigned i = 0; i < p->nrouters; i++) {
                struct err **words = r < 0 ? NULL : e;
                struct place router;

                x = place_open(s, p->routers[i].id, &router, words);
                if (x == 0)
                        x = router_apply(s, p, i, at, &router, words);
                place_close(&router);
                r = one(r, x);
        }
        for (unsigned i = 0; i < p->nnetworks; i++) {
                struct err **words = r < 0 ? NULL : e;

                x = at[i].failed ? 0 : network_inside(s, p, &p->networks[i], &at[i], words);
                if (x == 0 && !at[i].failed)
                        x = network_taps(s, n, &p->networks[i], words);
                r = one(r, x);
        }
        return r;
}

static int apply(struct network_service *base, const struct net_plan *p, struct err **e)
{
        struct linux_net *s = self(base);
        _cleanup_nl_ struct nl *n = NULL;
        struct place *at;
        int r;

        if (p->nnetworks == 0 && access(s->dir, F_OK) < 0) /* nor was there anything */
                return 0;
        r = mark(s, e);
        if (r < 0)
                return r;
        n = nl_open(e);
        r = n ? host_rules(s, p, e) : -EIO;
        if (r < 0)
                return r;
        at = calloc(p->nnetworks + 1, sizeof(*at));
        if (!at)
                return err_errno(e, -ENOMEM, "networks");
        r = apply_networks(s, n, p, at, e);
        for (unsigned i = 0; i < p->nnetworks; i++)
                place_close(&at[i]);
        free(at);
        /* The plan says what is wanted, also of what failed. */
        r = one(r, sweep_links(s, n, p, r < 0 ? NULL : e));
        r = one(r, announce_host(s, n, p, r < 0 ? NULL : e));
        sweep_namespaces(s, p);
        forget(s);
        if (r == 0 && p->nnetworks == 0)
                r = remove_tree(s->dir, e);
        return r;
}

static bool count(struct network_service *base, const char *port, struct net_count *ret)
{
        struct linux_net *s = self(base);
        char name[DEVICE_SIZE];

        network_device(name, NET_TAP, port);
        for (size_t i = 0; i < s->ntaps; i++)
                if (streq(s->taps[i].name, name)) {
                        *ret = s->taps[i].count;
                        return true;
                }
        return false;
}

static unsigned types(struct network_service *base)
{
        return tunnel_types();
}

static void passwords(struct network_service *base, const struct net_plan *p,
                      int (*posted)(void *arg, const struct net_port *port, const char *text),
                      void *arg)
{
        for (unsigned i = 0; i < p->nnetworks; i++) {
                _cleanup_free_ char *dir = path_printf("%s/%s", self(base)->dir, p->networks[i].id);

                if (dir)
                        metadata_passwords(dir, &p->networks[i], posted, arg);
        }
}

static void balancer(struct network_service *base, const struct net_network *n,
                     const struct net_balancer *b, struct buf *out)
{
        struct inner *known = inner_get(self(base), n->id);
        _cleanup_free_ char *dir = path_printf("%s/%s", self(base)->dir, n->id);
        int r = dir ? balancer_text(dir, b, out) : -ENOMEM;

        if (r < 0)
                buf_printf(out, "it does not answer: %s\n",
                           known && known->failure ? known->failure : strerror(-r));
}

static void close_service(struct network_service *base)
{
        struct linux_net *s = self(base);

        while (s->inner) {
                struct inner *i = s->inner;

                s->inner = i->next;
                inner_free(i);
        }
        free(s->taps);
        answers_free(&s->answers);
        nft_done(&s->rules);
        free(s->alias);
        free(s->metadata);
        free(s->dir);
        free(s);
}

static const struct network_ops ops = {.name = "linux",
                                       .apply = apply,
                                       .types = types,
                                       .count = count,
                                       .passwords = passwords,
                                       .balancer = balancer,
                                       .close = close_service};

struct network_service *network_linux_new(const char *run, const char *cloud)
{
        struct linux_net *s = calloc(1, sizeof(*s));

        if (!s)
                return NULL;
        s->base.ops = &ops;
        s->dir = path_printf("%s/net", run);
        s->alias = path_printf("stratofs %s", cloud);
        snprintf(s->table, sizeof(s->table), "stratofs_%.8s", cloud);
        if (!s->dir || !s->alias) {
                close_service(&s->base);
                return NULL;
        }
        return &s->base;
}

void network_linux_metadata(struct network_service *s, const char *program)
{
        free(self(s)->metadata);
        self(s)->metadata = program ? strdup(program) : NULL;
}
