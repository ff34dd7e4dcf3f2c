/* What the files of strato apply describe, and what there is of it. */
#include "cli/plan.h"

#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "cli/describe.h"
#include "cli/tree.h"
#include "common/fileio.h"
#include "common/macro.h"

void plan_done(struct plan *p)
{
        for (size_t i = 0; i < p->n; i++)
                item_done(&p->v[i]);
        free(p->v);
        free(p->tenant);
        json_decref(p->doc);
}

struct item *plan_find(struct plan *p, const char *key)
{
        for (size_t i = 0; i < p->n; i++)
                if (streq(p->v[i].key, key))
                        return &p->v[i];
        return NULL;
}

const char *plan_place(const struct plan *p, const char *key)
{
        return json_string_value(json_object_get(json_object_get(p->doc, "places"), key));
}

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

                        if (!here || plan_find(p, key))
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
        return plan_find(m->p, key) ? 0 : add_item(m->p, key, NULL, NULL);
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
        struct item *it = plan_find(root->p, target);
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

int plan_read(struct plan *p, struct err **e)
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
        if (r == 0)
                keep_roots(p);
        return r;
}
