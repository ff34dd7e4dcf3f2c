/* strato apply FILE... and strato diff FILE...: a tenant becomes what files describe.
 *
 * The steps, in this order: links that go; objects that go and have links (so what they held is
 * free); objects that come or change, each behind what it links to; the other objects that go. */
#include <string.h>

#include "cli/plan.h"
#include "common/fileio.h"
#include "common/macro.h"

enum { TIMEOUT_S = 300 };

/* --- what is told ---------------------------------------------------------------------------- */

static void print_change(struct plan *p, char sign, const struct item *it, const char *text)
{
        p->changes++;
        printf("%c %s%s%s\n", sign, it->key, text && *text ? " " : "", text ?: "");
        fflush(stdout);
}

static void print_lines(struct plan *p, const struct item *it, const struct buf *lines)
{
        const char *nl;

        for (const char *s = buf_str(lines); (nl = strchr(s, '\n')); s = nl + 1) {
                _cleanup_free_ char *line = strndup(s, (size_t)(nl - s));

                print_change(p, '~', it, line);
        }
}

static void print_failure(struct plan *p, struct item *it, int r, struct err *e)
{
        const char *place;

        p->failures++;
        it->failed = true;
        place = plan_place(p, it->key);
        fprintf(stderr, "strato apply: %s%s%s: %s\n", place ?: "", place ? ": " : "", it->key,
                e ? err_msg(e) : strerror(-r));
        err_free(e);
}

/* --- the steps ------------------------------------------------------------------------------- */

static bool settle(struct plan *p, struct item *it)
{
        struct err *e = NULL;
        int r = it->failed ? 0 : item_settle(it, p->timeout, &e);

        if (r < 0)
                print_failure(p, it, r, e);
        return !it->failed;
}

static void change(struct plan *p, struct item *it, json_t *patch, const struct buf *lines)
{
        struct err *e = NULL;
        int r = p->dry ? 0 : item_write(it, patch, &e);

        if (r < 0)
                print_failure(p, it, r, e);
        else
                print_lines(p, it, lines);
}

static void unbind(struct plan *p)
{
        for (size_t i = 0; i < p->n; i++) {
                struct item *it = &p->v[i];
                _cleanup_buf_ struct buf lines = {};
                json_auto_t *patch = NULL;
                struct err *e = NULL;
                int r;

                if (!it->want || !it->have)
                        continue;
                patch = item_unbind(it, p->c->prune, &lines);
                if (!patch)
                        continue;
                change(p, it, patch, &lines);
                if (p->dry || !settle(p, it))
                        continue;
                r = item_load(it, p->tenant, &e);
                if (r < 0)
                        print_failure(p, it, r, e);
        }
}

static void remove_one(struct plan *p, struct item *it)
{
        struct err *e = NULL;
        int r = p->dry ? 0 : item_remove(it, p->timeout, &e);

        if (r < 0)
                print_failure(p, it, r, e);
        else
                print_change(p, '-', it, NULL);
}

static int has_link(void *arg, const char *target)
{
        return -EEXIST;
}

/* Instances go before what they link to. */
static void prune(struct plan *p, bool linked)
{
        for (size_t i = p->n; i-- > 0;) {
                struct item *it = &p->v[i];

                if (!it->want && it->have && !it->kept &&
                    (links_each(it->have, has_link, NULL) < 0) == linked)
                        remove_one(p, it);
        }
}

/* "size=10G source=images/debian" */
static void describe(const json_t *want, const char *folder, struct buf *out)
{
        const char *key;
        json_t *v;

        json_object_foreach ((json_t *)want, key, v) {
                _cleanup_free_ char *text = json_dumps(v, JSON_ENCODE_ANY);

                if (json_is_object(v))
                        describe(v, key, out);
                else if (!json_is_null(v))
                        buf_printf(out, "%s%s%s%s=%s", out->len ? " " : "", folder ?: "",
                                   folder ? "." : "", key,
                                   json_is_string(v) ? json_string_value(v) : text ?: "");
        }
}

static void make_one(struct plan *p, struct item *it)
{
        _cleanup_buf_ struct buf text = {};
        struct err *e = NULL;
        int r = p->dry ? 0 : item_make(it, &e);

        describe(it->want, NULL, &text);
        if (r == 0 && !p->dry && item_uploads(it))
                r = item_upload(it, &e);
        if (r < 0)
                print_failure(p, it, r, e);
        else
                print_change(p, '+', it, buf_str(&text));
}

static void change_one(struct plan *p, struct item *it)
{
        _cleanup_buf_ struct buf lines = {};
        json_auto_t *patch = item_patch(it, &lines);
        struct err *e = NULL;
        int r;

        if (patch)
                change(p, it, patch, &lines);
        if (it->failed || !item_uploads(it))
                return;
        r = p->dry ? 0 : item_upload(it, &e);
        if (r < 0)
                print_failure(p, it, r, e);
        else
                print_change(p, '~', it, "file");
}

static void power(struct plan *p, struct item *it)
{
        const char *verb = it->failed ? NULL : item_power(it);
        struct err *e = NULL;
        int r;

        if (!verb || (!p->dry && !settle(p, it)))
                return;
        r = p->dry ? 0 : item_verb(it, verb, &e);
        if (r < 0)
                print_failure(p, it, r, e);
        else
                print_change(p, '~', it, verb);
}

static void take_snapshots(struct plan *p, struct item *it)
{
        const char *at = NULL;

        while (!it->failed) {
                _cleanup_free_ char *name = item_snapshot_missing(it, &at), *text = NULL;
                struct err *e = NULL;
                int r = 0;

                if (!name || (!p->dry && !settle(p, it)))
                        return;
                text = path_printf("snapshot %s", name);
                if (!p->dry)
                        r = item_snapshot(it, name, p->timeout, &e);
                if (r < 0)
                        print_failure(p, it, r, e);
                else
                        print_change(p, '~', it, text);
        }
}

struct needs {
        struct plan *p;
        struct item *of;
};

static void reach(struct plan *p, struct item *it);

static int need(void *arg, const char *target)
{
        struct needs *n = arg;
        struct item *it = plan_find(n->p, target);

        if (!it || !it->want || it == n->of)
                return 0;
        reach(n->p, it);
        if (n->p->dry || settle(n->p, it))
                return 0;
        if (!n->of->failed) {
                struct err *e = NULL;
                int r = err_set(&e, -ECANCELED, "not done: it needs %s", target);

                print_failure(n->p, n->of, r, e);
        }
        return 0;
}

/* Makes or changes it, behind all that it links to. */
static void reach(struct plan *p, struct item *it)
{
        struct needs n = {p, it};

        if (it->seen)
                return;
        it->seen = true;
        links_each(it->want, need, &n);
        if (it->failed)
                return;
        if (it->have)
                change_one(p, it);
        else
                make_one(p, it);
        take_snapshots(p, it);
        power(p, it);
}

static int run(struct cloud *c, bool dry, struct err **e)
{
        _cleanup_(plan_done) struct plan p = {
                .c = c, .dry = dry, .timeout = c->timeout > 0 ? c->timeout : TIMEOUT_S};
        int r = plan_read(&p, e);

        if (r < 0)
                return r;
        r = quota_apply(p.tenant, json_object_get(p.doc, "quota"), dry, &p.changes, e);
        if (r < 0)
                return r;
        unbind(&p);
        prune(&p, true);
        for (size_t i = 0; i < p.n; i++)
                if (p.v[i].want && !p.v[i].failed)
                        reach(&p, &p.v[i]);
        for (size_t i = 0; !dry && i < p.n; i++)
                if (p.v[i].want)
                        settle(&p, &p.v[i]);
        prune(&p, false);
        if (dry)
                return p.changes ? STATUS_FAILED : STATUS_OK;
        return p.failures ? STATUS_FAILED : STATUS_OK;
}

int verb_apply(struct cloud *c, struct err **e)
{
        return run(c, false, e);
}

int verb_diff(struct cloud *c, struct err **e)
{
        int r = run(c, true, e);

        /* 1 says that there is something to do. */
        return r < 0 && r != -ENOTCONN ? -EINVAL : r;
}
