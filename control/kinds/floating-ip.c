/* Floating IPs: addresses outside that lead to a guest. */
#include "control/network.h"

/* The next range of a pool; *from is 0 when it is none. */
static bool range_next(const char **p, uint32_t *from, uint32_t *to, const char **word, size_t *n)
{
        const char *dash;

        *word = word_next(p, n);
        if (!*word)
                return false;
        dash = memchr(*word, '-', *n);
        if (!address_parse(*word, dash ? (size_t)(dash - *word) : *n, from))
                *from = 0;
        *to = *from;
        if (dash && !address_parse(dash + 1, *n - (dash + 1 - *word), to))
                *from = 0;
        return true;
}

/* The host that gives away one of these already.  Each gives from its own, so that two hosts that
 * do at the same instant never give the same. */
static const struct object *giver_of(struct control *c, const struct object *but, uint32_t from,
                                     uint32_t to)
{
        struct object *o, *tmp;
        uint32_t a, b;
        const char *w;
        size_t n;

        HASH_ITER (hh_no, c->by_no, o, tmp) {
                const char *p = o->kind == &kind_host && o != but ? object_str(o, "floating") : "";

                while (range_next(&p, &a, &b, &w, &n))
                        if (a && a <= to && from <= b)
                                return o;
        }
        return NULL;
}

int floating_set_pool(struct txn *t, struct object *host, union value v, struct err **e)
{
        const char *s = v.s ?: "", *p = s, *w;
        uint32_t from, to;
        size_t n;

        while (range_next(&p, &from, &to, &w, &n)) {
                const struct object *other;

                if (from >> 24 == 0 || from >> 24 == 127 || from >> 28 >= 14 || from > to ||
                    to - from >= 65536)
                        return err_at(e, -EINVAL, s, strlen(s), w - s, n,
                                      "expected FIRST-LAST, or one address");
                other = giver_of(t->c, host, from, to);
                if (other)
                        return err_at(e, -EINVAL, s, strlen(s), w - s, n,
                                      "host '%s' has some of these", other->name);
        }
        txn_set_str(t, host, "floating", s);
        return 0;
}

static int by_number(const void *a, const void *b)
{
        uint32_t x = *(const uint32_t *)a, y = *(const uint32_t *)b;

        return x < y ? -1 : x > y;
}

/* The first address of the pool that no floating IP of the cloud has; 0: there is none. */
static uint32_t free_in(struct control *c, const char *pool)
{
        uint32_t *used = NULL, from, to, found = 0;
        struct object *o, *tmp;
        const char *w;
        size_t count = 0, n;

        HASH_ITER (hh_no, c->by_no, o, tmp) {
                const char *s = o->kind == &kind_floating_ip ? object_str(o, "address") : "";

                if (!*s)
                        continue;
                used = xrealloc(used, count + 1, sizeof(*used));
                if (address_parse(s, strlen(s), &used[count]))
                        count++;
        }
        if (count)
                qsort(used, count, sizeof(*used), by_number);
        while (!found && range_next(&pool, &from, &to, &w, &n)) {
                uint64_t a = from;

                for (size_t i = 0; i < count && a <= to; i++)
                        if (used[i] == a)
                                a++;
                found = a <= to ? a : 0;
        }
        free(used);
        return found;
}

static int create(struct txn *t, struct object *o, struct err **e)
{
        struct object *host = model_by_name(t->c, NULL, &kind_host, t->c->cfg.host);
        struct collection *l = model_collection(t->c, o->tenant, &kind_floating_ip);
        const char *pool = host ? object_str(host, "floating") : "";
        char text[ADDRESS_TEXT_SIZE];
        uint32_t a;
        int r = networks_check(t->c, e);

        if (r < 0)
                return r;
        if (!*pool) {
                err_set(e, -ENOSPC, "this cloud has no addresses outside");
                return err_hint(e, -ENOSPC,
                                "an admin gives it some: echo FIRST-LAST > admin/hosts/%s/floating",
                                t->c->cfg.host);
        }
        if (l && l->n > FLOATING_MAX)
                return err_set(e, -EDQUOT, "floating IPs of a tenant: limit=%d used=%zu wanted=1",
                               FLOATING_MAX, l->n - 1);
        a = free_in(t->c, pool);
        if (!a)
                return err_set(e, -ENOSPC, "no address is free of %s", pool);
        txn_set_str(t, o, "address", network_address(text, a));
        return 0;
}

/* One address a port: whoever has two would not know which it speaks with. */
static int bind_target(struct txn *t, struct object *o, char *name, struct object *target,
                       struct err **e)
{
        char label[NAME_SIZE + 32];

        for (unsigned i = 0; target->kind != &kind_router && i < target->nrefs; i++)
                if (target->refs[i]->kind == &kind_floating_ip)
                        return err_set(e, -EBUSY, "%s has %s", object_label(target, label),
                                       object_str(target->refs[i], "address"));
        if (target->kind == &kind_instance &&
            !object_link(target, kind_link(target->kind, "networks"), NULL))
                return err_set(e, -EINVAL, "%s is in no network", object_label(target, label));
        return 0;
}

static const struct attr_def attrs[] = {
        {"address", ATTR_TEXT, ROLE_NOBODY, .index = true, .help = "outside; the cloud chooses it"},
        {"description", ATTR_TEXT, ROLE_MEMBER, .max = 255, .help = "words for people"},
};

static const struct link_def links[] = {
        {"target", "instance port router", .bind = bind_target,
         .help = "where it leads: a port, or the first one of an instance; or a router, for its "
                 "`forwards`"},
};

static const struct state_def states[] = {
        {"active", .help = "may be used"},
};

const struct kind kind_floating_ip = {
        .name = "floating_ip",
        .plural = "floating_ips",
        .help = "Addresses outside that lead to a guest: mkdir takes one, ln -s instances/web "
                "target.",
        .schema = 1,
        .creator = ROLE_MEMBER,
        .attrs = attrs,
        .nattrs = ARRAY_SIZE(attrs),
        .links = links,
        .nlinks = ARRAY_SIZE(links),
        .states = states,
        .nstates = ARRAY_SIZE(states),
        .create = create,
};
