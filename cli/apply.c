/* strato apply FILE... and strato diff FILE...: a tenant becomes what files describe.
 *
 * The steps, in this order: links that go; objects that go and have links (so what they held is
 * free); objects that come or change, each behind what it links to; the other objects that go. */
#include <string.h>
#include <sys/stat.h>

#include "cli/describe.h"
#include "cli/item.h"
#include "cli/tree.h"
#include "common/fileio.h"
#include "common/macro.h"

enum { TIMEOUT_S = 300 };

struct plan {
        const struct cloud *c;
        char *tenant; /* its folder */
        struct item *v;
        size_t n;
        json_t *doc;
        bool dry;
        int timeout;
        unsigned changes, failures;
};

static void plan_done(struct plan *p)
{
        for (size_t i = 0; i < p->n; i++)
                item_done(&p->v[i]);
        free(p->v);
        free(p->tenant);
        json_decref(p->doc);
}

static struct item *find(struct plan *p, const char *key)
{
        for (size_t i = 0; i < p->n; i++)
                if (streq(p->v[i].key, key))
                        return &p->v[i];
        return NULL;
}

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
        place = json_string_value(json_object_get(json_object_get(p->doc, "places"), it->key));
        fprintf(stderr, "strato apply: %s%s%s: %s\n", place ?: "", place ? ": " : "", it->key,
                e ? err_msg(e) : strerror(-r));
        err_free(e);
}

/* --- what there is --------------------------------------------------------------------------- */

static int add_item(struct plan *p, const char *key, json_t *want, struct err **e)
{
        struct item *v = realloc(p->v, (p->n + 1) * sizeof(*v));

        if (!v)
                return -ENOMEM;
        p->v = v;
        v[p->n] = (struct item){.key = strdup(key), .want = json_incref(want)};
        if (!v[p->n].key)
                return -ENOMEM;
        return item_load(&v[p->n++], p->tenant, e);
}

static int check_collection(struct plan *p, const char *key, struct err **e)
{
        int n = (int)strcspn(key, "/");
        _cleanup_free_ char *file = path_printf("%s/%.*s/new", p->tenant, n, key);
        const char *place =
                json_string_value(json_object_get(json_object_get(p->doc, "places"), key));

        if (!file || access(file, F_OK) == 0 || access(p->tenant, F_OK) < 0 ||
            strncmp(key, "flavors/", 8) == 0)
                return file ? 0 : -ENOMEM;
        err_set(e, -EINVAL, "a tenant has no %.*s to describe", n, key);
        return place ? err_prepend(e, -EINVAL, "%s", place) : -EINVAL;
}

static int add_described(struct plan *p, struct err **e)
{
        /* What there is no link to tell the order of goes in this one. */
        static const char *const order[] = {"flavors", "images",    "volumes",
                                            "backups", "instances", ""};
        json_t *objects = json_object_get(p->doc, "objects"), *want;
        const char *key;
        int r;

        for (size_t i = 0; i < ARRAY_SIZE(order); i++) {
                json_object_foreach (objects, key, want) {
                        bool here = strncmp(key, order[i], strlen(order[i])) == 0;

                        if (!here || find(p, key))
                                continue;
                        r = check_collection(p, key, e) ?: add_item(p, key, want, e);
                        if (r < 0)
                                return r;
                }
        }
        return 0;
}

struct missing {
        struct plan *p;
        const char *collection;
};

static int add_missing(void *arg, const struct row *row)
{
        struct missing *m = arg;
        _cleanup_free_ char *key = path_printf("%s/%s", m->collection, row->name);

        if (!key)
                return -ENOMEM;
        return find(m->p, key) ? 0 : add_item(m->p, key, NULL, NULL);
}

/* With --prune: what is there and not described. */
static int add_undescribed(struct plan *p, struct err **e)
{
        static const char *const collections[] = {"images", "volumes", "backups", "instances"};
        int r = 0;

        for (size_t i = 0; r == 0 && i < ARRAY_SIZE(collections); i++) {
                struct missing m = {p, collections[i]};

                r = tree_each(p->c, strrchr(p->tenant, '/') + 1, collections[i], add_missing, &m,
                              e);
        }
        return r;
}

struct root {
        struct plan *p;
        struct item *of;
};

static int keep_one(void *arg, const char *target)
{
        struct root *root = arg;
        struct item *it = find(root->p, target);
        const char *source = it ? json_string_value(json_object_get(it->have, "source")) : NULL;
        const char *image = json_string_value(json_object_get(root->of->have, "image"));

        if (!it || it->want || !source || !streq(source, image))
                return 0;
        if (!root->of->keep)
                root->of->keep = json_object();
        json_object_set_new(root->of->keep, target, json_true());
        it->kept = true;
        return 0;
}

/* An instance with an image made its root volume itself, and takes it along: neither the volume nor
 * its link is described. */
static void keep_roots(struct plan *p)
{
        for (size_t i = 0; i < p->n; i++) {
                struct root root = {p, &p->v[i]};

                if (item_is(root.of, "instances") &&
                    json_is_string(json_object_get(root.of->have, "image")))
                        links_each(json_object_get(root.of->have, "volumes"), keep_one, &root);
        }
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
        struct item *it = find(n->p, target);

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

static int tenant_there(struct plan *p, struct err **e)
{
        int r;

        if (access(p->tenant, F_OK) == 0)
                return 0;
        if (p->dry) {
                printf("+ tenants/%s\n", strrchr(p->tenant, '/') + 1);
                p->changes++;
                return 0;
        }
        if (mkdir(p->tenant, 0755) < 0)
                return cloud_words(p->tenant, -errno, e);
        r = wait_for(p->tenant, "active", p->timeout);
        if (r < 0)
                return err_errno(e, r, "make the tenant");
        printf("+ tenants/%s\n", strrchr(p->tenant, '/') + 1);
        p->changes++;
        return 0;
}

static int plan_read(struct plan *p, struct err **e)
{
        _cleanup_free_ char *up = path_printf("%s/version", p->c->mount);
        _cleanup_free_ char *mine = path_printf("%s/self/default_tenant", p->c->mount);
        _cleanup_free_ char *usual = NULL;
        const char *name;
        int r;

        p->doc = json_pack("{s:{}}", "objects");
        if (!up || !mine || !p->doc)
                return -ENOMEM;
        if (access(up, R_OK) < 0)
                return err_set(e, -ENOTCONN, "no cloud answers at %s: strato up", p->c->mount);
        for (int i = 0; i < p->c->nwords; i++) {
                r = describe_file(p->c->words[i], p->doc, e);
                if (r < 0)
                        return r;
        }
        name = json_string_value(json_object_get(p->doc, "tenant"));
        if (!name)
                name = usual = tree_line(mine);
        p->tenant = path_printf("%s/tenants/%s", p->c->mount, name ?: "default");
        r = p->tenant ? tenant_there(p, e) : -ENOMEM;
        if (r == 0)
                r = add_described(p, e);
        if (r == 0 && p->c->prune && access(p->tenant, F_OK) == 0)
                r = add_undescribed(p, e);
        return r;
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
        keep_roots(&p);
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
