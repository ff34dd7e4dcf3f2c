/* Every legal verb from every state that an instance can come to, and where it ends: the table
 * below is that of OpenStack's servers, as test_transitions in test-verbs.c reads it, with its
 * results.  A long walk at random, with the table as its model. */
#include "rig.h"

#include <limits.h>

#include "control/jobs/jobs.h"

enum { STEPS = 600, SEED = 7 };

/* What decides where a verb leads. */
struct where {
        unsigned state;
        bool rescue, resize; /* it has a rescue disk; a resize is on probation */
        bool guest;          /* one is there, though the state is error */
};

static unsigned up(const struct where *w)
{
        return w->rescue ? INSTANCE_RESCUED : w->resize ? INSTANCE_RESIZED : INSTANCE_ACTIVE;
}

#define IN(w, set) (STATE((w)->state) & (set))
#define S(x) STATE(INSTANCE_##x)

typedef bool next_fn(struct where *w);

/* Where each verb leads, and whether it is taken there: false, it is refused. */
static bool to_up(struct where *w)
{
        w->state = up(w);
        return true;
}

static bool to_off(struct where *w)
{
        w->state = INSTANCE_STOPPED;
        return true;
}

static bool to_paused(struct where *w)
{
        w->state = INSTANCE_PAUSED;
        return true;
}

static bool to_active(struct where *w)
{
        w->state = INSTANCE_ACTIVE;
        return true;
}

static bool to_suspended(struct where *w)
{
        w->state = INSTANCE_SUSPENDED;
        return true;
}

static bool stays(struct where *w)
{
        return true;
}

static bool refused(struct where *w)
{
        return false;
}

static bool rescue(struct where *w)
{
        if (w->rescue)
                return false;
        w->rescue = true;
        return to_up(w);
}

static bool unrescue(struct where *w)
{
        if (!w->rescue)
                return false;
        w->rescue = false;
        return to_up(w);
}

static bool rebuild(struct where *w)
{
        if (w->rescue)
                return false;
        return w->state == INSTANCE_ACTIVE ? to_up(w) : to_off(w);
}

static bool shelve(struct where *w)
{
        if (w->rescue)
                return false;
        w->state = INSTANCE_SHELVED;
        return true;
}

static bool resize(struct where *w)
{
        if (w->rescue || w->resize)
                return false;
        w->resize = true;
        return w->state == INSTANCE_ACTIVE ? to_up(w) : true;
}

static bool settled(struct where *w)
{
        if (!w->resize)
                return false;
        w->resize = false;
        return w->state == INSTANCE_RESIZED ? to_up(w) : true;
}

static bool deleted(struct where *w)
{
        w->state = INSTANCE_DELETED;
        return true;
}

static bool reset(struct where *w)
{
        return w->guest ? to_up(w) : to_off(w);
}

static const struct rule {
        const char *verb;
        next_fn *next;
        const char *args;
        bool fresh; /* its argument is a name that nothing has yet */
} rules[] = {
        {"start", to_up},
        {"stop", to_off, "now"},
        {"reboot", to_up, "hard"},
        {"pause", to_paused},
        {"resume", to_active},
        {"suspend", to_suspended},
        {"snapshot", stays, .fresh = true},
        {"image", stays, .fresh = true},
        {"backup", stays, .fresh = true}, /* which fails: the rig keeps none */
        {"lock", stays},
        {"unlock", stays},
        {"send-key", stays, "ctrl alt delete"},
        {"crash-dump", stays},
        {"set-password", stays, "root $6$x$y"},
        {"rescue", rescue, "debian"},
        {"unrescue", unrescue},
        {"rebuild", rebuild, "debian"},
        {"shelve", shelve},
        {"unshelve", to_up},
        {"resize", resize},
        {"confirm", settled},
        {"revert", settled},
        {"delete", deleted},
        {"restore", to_up},
        {"reset", reset},
        {"vnc", stays},
        {"migrate", refused},  /* there is one host */
        {"evacuate", refused}, /* which is up */
};

static const struct rule *rule_of(const char *verb)
{
        for (size_t i = 0; i < ARRAY_SIZE(rules); i++)
                if (streq(rules[i].verb, verb))
                        return &rules[i];
        fail_msg("nothing is said of the verb %s", verb);
        return NULL;
}

/* --- the instance --------------------------------------------------------------------------------
 */

static uint64_t flavor(const char *name, const char *memory)
{
        uint64_t no;

        assert_int_equal(control_create(fake.c, &root, OBJECT_CLOUD, &kind_flavor, name, &no, NULL),
                         0);
        assert_int_equal(set(no, &kind_flavor, "memory", memory), 0);
        return no;
}

static uint64_t make_it(void)
{
        uint64_t i = make(&kind_instance, "web"), image;
        struct data *d;

        flavor("wide", "1G");
        flavor("wider", "2G");
        assert_int_equal(
                control_upload(fake.c, &root, fake.owner, "debian.qcow2", &image, &d, NULL), 0);
        assert_int_equal(data_pwrite(fake.c, d, "x", 1, 0, NULL), 0);
        control_close_data(fake.c, d, NULL);
        assert_int_equal(wait_for(image, "active"), 0);
        assert_int_equal(set(fake.owner, &kind_tenant, "reclaim", "3600"), 0);
        assert_int_equal(set(i, &kind_instance, "flavor", "wide"), 0);
        assert_int_equal(set(i, &kind_instance, "screen", "vnc"), 0);
        assert_int_equal(link_to(i, &kind_instance, "image", "image", "images/debian"), 0);
        return i;
}

/* Nothing is under way, also of its volumes. */
static void settle_all(void)
{
        for (bool busy = true; busy; sched_yield()) {
                busy = false;
                control_rdlock(fake.c);
                for (struct object *o = fake.c->by_no; o && !busy; o = o->hh_no.next)
                        busy = o->kind == &kind_job && o->kind->states[o->state].transient;
                control_unlock(fake.c);
        }
}

/* Of the model and of the rig: the two agree whenever nothing is under way. */
static void check(uint64_t no, const struct where *w, const char *how)
{
        const struct object *o;
        bool same;

        settle_all();
        control_rdlock(fake.c);
        o = model_by_no(fake.c, no);
        same = o->state == w->state && !object_num(o, "rescue") == !w->rescue &&
               !*object_str(o, "resized_from") == !w->resize;
        if (!same)
                print_error("%s: %s (rescue %d, resize %d), not %s (%d, %d)\n", how,
                            object_state(o), !!object_num(o, "rescue"),
                            !!*object_str(o, "resized_from"), o->kind->states[w->state].name,
                            w->rescue, w->resize);
        control_unlock(fake.c);
        assert_true(same);
        if (w->state != INSTANCE_ERROR)
                assert_int_equal(fake.running, !!IN(w, INSTANCE_RUNS));
}

static int do_verb(uint64_t no, const struct rule *rule)
{
        static unsigned names;
        char text[80], other[16] = "";

        if (streq(rule->verb, "resize")) {
                control_rdlock(fake.c);
                snprintf(other, sizeof(other), "%s",
                         streq(object_str(model_by_no(fake.c, no), "flavor"), "wide") ? "wider"
                                                                                      : "wide");
                control_unlock(fake.c);
        } else if (rule->fresh) {
                snprintf(other, sizeof(other), "n%u", names++);
        }
        snprintf(text, sizeof(text), "%s %s%s", rule->verb, rule->args ?: "", other);
        return verb(no, text);
}

/* What happens to it by itself: its guest powers off; something fails. */
static void power_off(uint64_t no, struct where *w)
{
        char id[ID_TEXT_SIZE];

        control_rdlock(fake.c);
        id_text(id, model_by_no(fake.c, no)->id);
        control_unlock(fake.c);
        guest_off();
        control_guest_changed(fake.c, id);
        w->state = INSTANCE_STOPPED;
        assert_int_equal(wait_for(no, "stopped"), 0);
}

static void break_it(uint64_t no, struct where *w)
{
        struct txn t;

        txn_begin(&t, fake.c, NULL);
        txn_set_state(&t, model_by_no(fake.c, no), INSTANCE_ERROR);
        assert_int_equal(txn_commit(&t, NULL), 0);
        w->guest = IN(w, INSTANCE_RUNS);
        w->state = INSTANCE_ERROR;
}

/* --- the walk
 * ------------------------------------------------------------------------------------- */

/* A draft would be gone for good, and so would one that is deleted already. */
static bool ends_it(const struct where *w, const char *verb)
{
        return streq(verb, "delete") && IN(w, S(DRAFT) | S(DELETED));
}

static void try_verb(uint64_t no, struct where *w, unsigned v)
{
        const struct verb_def *def = &kind_instance.verbs[v];
        const struct rule *rule = rule_of(def->name);
        const bool legal = !def->states || IN(w, def->states);
        struct where after = *w;
        char how[80];
        bool taken;
        int r;

        if (ends_it(w, def->name))
                return;
        taken = legal && rule->next(&after);
        snprintf(how, sizeof(how), "%s of one that is %s", def->name,
                 kind_instance.states[w->state].name);
        r = do_verb(no, rule);
        if (taken && r != 0)
                fail_msg("%s: refused: %s", how, err_msg(last));
        if (!taken && r == 0)
                fail_msg("%s: taken", how);
        if (!legal)
                assert_int_equal(r, -EBUSY);
        if (taken)
                *w = after;
        if (w->state != INSTANCE_ERROR)
                w->guest = false;
        check(no, w, how);
}

/* All verbs that are refused here, and then one that is not. */
static void stand(uint64_t no, struct where *w)
{
        const struct kind *k = &kind_instance;

        for (unsigned v = 0; v < k->nverbs; v++)
                if (k->verbs[v].states && !IN(w, k->verbs[v].states))
                        try_verb(no, w, v);
}

/* The next one of those that are legal here and were taken least often; of a draft `start`, which
 * leads out of it for ever, is the last. */
static unsigned choose(const struct where *w, unsigned tried[INSTANCE_LAST + 1][32], unsigned *seed)
{
        const struct kind *k = &kind_instance;
        unsigned best = UINT_MAX, from = w->state ? rand_r(seed) % k->nverbs : 1;

        for (unsigned i = 0; i < k->nverbs; i++) {
                unsigned v = (from + i) % k->nverbs;

                if ((k->verbs[v].states && !IN(w, k->verbs[v].states)) ||
                    ends_it(w, k->verbs[v].name))
                        continue;
                if (best == UINT_MAX || tried[w->state][v] < tried[w->state][best])
                        best = v;
        }
        return best;
}

static void test_walk(void **state)
{
        const struct kind *k = &kind_instance;
        static unsigned tried[INSTANCE_LAST + 1][32], stood[INSTANCE_LAST + 1];
        struct where w = {.state = INSTANCE_DRAFT};
        unsigned seed = SEED;
        uint64_t no = make_it();

        assert_true(k->nverbs <= 32);
        for (unsigned i = 0; i < STEPS; i++) {
                unsigned v;

                if (!stood[w.state]++)
                        stand(no, &w);
                if (rand_r(&seed) % 16 == 0 && IN(&w, S(ACTIVE) | S(RESCUED) | S(RESIZED))) {
                        power_off(no, &w);
                        continue;
                }
                if (rand_r(&seed) % 12 == 0 && IN(&w, INSTANCE_RUNS | S(STOPPED))) {
                        break_it(no, &w);
                        continue;
                }
                v = choose(&w, tried, &seed);
                tried[w.state][v]++;
                try_verb(no, &w, v);
        }
        for (unsigned s = 0; s < k->nstates; s++)
                for (unsigned v = 0; v < k->nverbs && !k->states[s].transient; v++)
                        if ((!k->verbs[v].states || (k->verbs[v].states & STATE(s))) &&
                            !ends_it(&(struct where){.state = s}, k->verbs[v].name) && !tried[s][v])
                                fail_msg("the walk did not come to %s of one that is %s",
                                         k->verbs[v].name, k->states[s].name);
}

int main(void)
{
        const struct CMUnitTest tests[] = {RIG_TEST(test_walk)};

        return rig_run(tests);
}
