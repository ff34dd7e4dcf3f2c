/* The config drive: what a guest's cloud-init reads at its first boot, in OpenStack's layout, as an
 * ISO 9660 volume named config-2.  Written anew before each start, from the instance's record. */
#include "control/jobs/plan.h"

#include <jansson.h>

#include "common/child.h"
#include "common/fileio.h"

static const char *const versions[] = {"latest", "2018-08-27"};

struct config {
        bool wanted;
        json_t *meta;
        char *user_data; /* NULL: none */
};

static void config_done(struct config *c)
{
        json_decref(c->meta);
        free(c->user_data);
}

/* Metadata as the guest is to have it: without the newline that echo wrote. */
static json_t *meta_value(const char *text)
{
        size_t n = strlen(text);

        return json_stringn(text, n && text[n - 1] == '\n' ? n - 1 : n);
}

static json_t *meta_data(const struct object *o)
{
        const char *host = object_str(o, "hostname"), *key = object_str(o, "ssh_key");
        json_t *root = json_object(), *meta = json_object();
        char id[ID_TEXT_SIZE];

        json_object_set_new(root, "uuid", json_string(id_text(id, o->id)));
        json_object_set_new(root, "name", json_string(o->name));
        json_object_set_new(root, "hostname", json_string(*host ? host : o->name));
        json_object_set_new(root, "project_id", json_string(o->tenant->name));
        json_object_set_new(root, "launch_index", json_integer(0));
        if (*key) {
                json_object_set_new(root, "public_keys", json_pack("{s:s}", "default", key));
                json_object_set_new(root, "keys",
                                    json_pack("[{s:s, s:s, s:s}]", "name", "default", "type", "ssh",
                                              "data", key));
        }
        for (unsigned i = 0; i < o->nmeta; i++)
                if (!streq(o->meta[i].key, "user_data"))
                        json_object_set_new(meta, o->meta[i].key, meta_value(o->meta[i].value));
        json_object_set_new(root, "meta", meta);
        return root;
}

static void config_get(struct job *j, struct config *ret)
{
        const struct meta *user;
        struct object *o;

        control_rdlock(j->c);
        o = model_by_no(j->c, j->target);
        ret->wanted = o && object_num(o, "config_drive");
        if (ret->wanted) {
                ret->meta = meta_data(o);
                user = object_meta(o, "user_data");
                ret->user_data = user ? xstrdup(user->value) : NULL;
        }
        control_unlock(j->c);
}

static int put(const char *dir, const char *name, const char *text, struct err **e)
{
        _cleanup_free_ char *path = xcheck(path_printf("%s/%s", dir, name));

        return file_replace(path, text, strlen(text), 0600, e);
}

static int put_json(const char *dir, const char *name, json_t *v, struct err **e)
{
        _cleanup_free_ char *text = xcheck(json_dumps(v, JSON_INDENT(1) | JSON_SORT_KEYS));

        return put(dir, name, text, e);
}

static int write_tree(const char *tree, const struct config *c, struct err **e)
{
        json_t *networks = json_pack("{s:[], s:[], s:[]}", "links", "networks", "services");
        json_t *vendor = json_object();
        int r = remove_tree(tree, e);

        for (size_t i = 0; r == 0 && i < ARRAY_SIZE(versions); i++) {
                _cleanup_free_ char *dir =
                        xcheck(path_printf("%s/openstack/%s", tree, versions[i]));

                r = mkdir_parents(dir, 0700, e);
                if (r == 0)
                        r = put_json(dir, "meta_data.json", c->meta, e);
                if (r == 0)
                        r = put_json(dir, "network_data.json", networks, e);
                if (r == 0)
                        r = put_json(dir, "vendor_data.json", vendor, e);
                if (r == 0 && c->user_data)
                        r = put(dir, "user_data", c->user_data, e);
        }
        json_decref(networks);
        json_decref(vendor);
        return r;
}

int plan_config(struct job *j, struct plan *p, struct err **e)
{
        _cleanup_(config_done) struct config c = {};
        _cleanup_free_ char *tree = NULL, *made = NULL, *path = NULL;
        int r;

        config_get(j, &c);
        if (!c.wanted)
                return 0;
        tree = xcheck(path_printf("%s/config", p->dir));
        made = xcheck(path_printf("%s/config.made", p->dir));
        path = xcheck(path_printf("%s/config.iso", p->dir));
        r = write_tree(tree, &c, e);
        if (r == 0) {
                r = child_check(
                        &(struct child){.argv = (const char *const[]){"genisoimage", "-quiet",
                                                                      "-joliet", "-rock",
                                                                      "-input-charset", "utf-8",
                                                                      "-volid", "config-2",
                                                                      "-output", made, tree, NULL}},
                        e);
                if (r < 0)
                        err_prepend(e, r, "config drive");
        }
        if (r == 0)
                r = file_copy(made, path, p->g.uid, p->g.gid, 0400, e);
        remove_tree(tree, NULL);
        unlink(made);
        if (r < 0)
                return r;
        p->config = TAKE_PTR(path);
        p->g.config_drive = p->config;
        return 0;
}
