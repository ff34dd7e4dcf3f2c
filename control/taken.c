/* What guests take of each host, in running sums: an instance is counted by what it was when it was
 * last changed, and keeps a note of that, so that it is taken out again by the same figures
 * whatever became of it.  Every way in which the model changes comes by here: txn_set_state() and
 * txn_set_value(), object_swap() (undo, and what other hosts did), model_add(), model_remove(). */
#include "control/hosts.h"

#include "control/kinds/instance.h"

struct host_sum {
        UT_hash_handle hh;
        struct host_use all, claimed;
        char name[];
};

/* What is counted of one instance: on its host, and on the one that it moves to. */
struct taken {
        struct host_sum *at[2];
        uint64_t vcpus, memory;
        bool claimed;
};

static void use_add(struct host_use *u, const struct taken *t, int sign)
{
        u->guests += sign;
        u->vcpus += sign * t->vcpus;
        u->memory += sign * t->memory;
}

static struct host_sum *sum_find(struct control *c, const char *name)
{
        struct host_sum *s;

        HASH_FIND_STR(c->host_sums, name, s);
        return s;
}

static struct host_sum *sum_get(struct control *c, const char *name)
{
        struct host_sum *s = sum_find(c, name);

        if (!s) {
                size_t n = strlen(name) + 1;

                s = xcalloc(1, sizeof(*s) + n);
                memcpy(s->name, name, n);
                HASH_ADD_KEYPTR(hh, c->host_sums, s->name, n - 1, s);
        }
        return s;
}

void taken_drop(struct control *c, struct object *o)
{
        struct taken *t = TAKE_PTR(o->taken);

        for (unsigned i = 0; t && i < ARRAY_SIZE(t->at); i++) {
                struct host_sum *s = t->at[i];

                if (!s)
                        continue;
                use_add(&s->all, t, -1);
                if (t->claimed)
                        use_add(&s->claimed, t, -1);
                if (s->all.guests > 0)
                        continue;
                HASH_DEL(c->host_sums, s);
                free(s);
        }
        free(t);
}

static bool is_claimed(const struct object *o)
{
        return o->state != INSTANCE_STARTING || object_num(o, "claim");
}

void taken_count(struct control *c, struct object *o)
{
        const char *host, *to;
        struct taken t = {};

        if (o->kind != &kind_instance)
                return;
        taken_drop(c, o);
        host = object_str(o, "host");
        to = object_str(o, "moving_to");
        if (*host && host_keeps(o, host))
                t.at[0] = sum_get(c, host);
        if (*to && !streq(host, to) && host_expects(o, to))
                t.at[1] = sum_get(c, to);
        if (!t.at[0] && !t.at[1])
                return;
        t.vcpus = object_num(o, "vcpus");
        t.memory = object_num(o, "memory");
        t.claimed = is_claimed(o);
        for (unsigned i = 0; i < ARRAY_SIZE(t.at); i++) {
                if (!t.at[i])
                        continue;
                use_add(&t.at[i]->all, &t, 1);
                if (t.claimed)
                        use_add(&t.at[i]->claimed, &t, 1);
        }
        o->taken = xcalloc(1, sizeof(t));
        *o->taken = t;
}

bool taken_by(const struct attr_def *a)
{
        return streq(a->name, "host") || streq(a->name, "moving_to") || streq(a->name, "vcpus") ||
               streq(a->name, "memory") || streq(a->name, "claim");
}

bool taken_at(const struct object *o, const char *host, bool claimed)
{
        for (unsigned i = 0; o->taken && i < ARRAY_SIZE(o->taken->at); i++)
                if (o->taken->at[i] && streq(o->taken->at[i]->name, host))
                        return !claimed || o->taken->claimed;
        return false;
}

void host_use(struct control *c, const char *host, bool claimed, const struct object *but,
              struct host_use *ret)
{
        const struct host_sum *s = sum_find(c, host);

        *ret = !s ? (struct host_use){} : claimed ? s->claimed : s->all;
        if (but && taken_at(but, host, claimed))
                use_add(ret, but->taken, -1);
}

/* --- the check -------------------------------------------------------------------------------- */

static void walk(struct control *c, const char *host, bool claimed, struct host_use *ret)
{
        struct object *o, *tmp;

        *ret = (struct host_use){};
        HASH_ITER (hh_no, c->by_no, o, tmp) {
                if (o->kind != &kind_instance || !host_keeps(o, host) ||
                    (claimed && !is_claimed(o)))
                        continue;
                ret->guests++;
                ret->vcpus += object_num(o, "vcpus");
                ret->memory += object_num(o, "memory");
        }
}

static bool same(const struct host_use *a, const struct host_use *b)
{
        return a->guests == b->guests && a->vcpus == b->vcpus && a->memory == b->memory;
}

static bool is_right(struct control *c, const char *host)
{
        bool right = true;

        for (int claimed = 0; claimed < 2; claimed++) {
                struct host_use sum, walked;

                host_use(c, host, claimed, NULL, &sum);
                walk(c, host, claimed, &walked);
                right &= same(&sum, &walked);
        }
        return right;
}

bool host_sums_right(struct control *c)
{
        struct object *o, *tmp;
        struct host_sum *s;
        bool right = true;

        control_rdlock(c);
        for (s = c->host_sums; s; s = s->hh.next)
                right &= s->all.guests > 0 && is_right(c, s->name);
        HASH_ITER (hh_no, c->by_no, o, tmp)
                if (o->kind == &kind_host)
                        right &= is_right(c, o->name);
        control_unlock(c);
        return right;
}
