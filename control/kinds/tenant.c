/* Tenants: whose things are whose.  A tenant is a Unix group, made by us; its gid is stored here
 * and is the same on every host. */
#include <jansson.h>

#include "control/jobs/jobs.h"
#include "control/network.h"

enum { GID_BASE = 200000 };

/* quota: "volumes limit=10 used=3", one line a quota; what is written may leave used= out. */
static void render_quota(struct control *c, const struct object *o, struct buf *out)
{
        struct room *room = model_room(c, o);

        for (int q = 0; q < NQUOTAS; q++) {
                uint64_t limit = quota_limit(o, q);

                buf_printf(out, "%s limit=", quota_name(q));
                if (limit == VALUE_MAX)
                        buf_addstr(out, "max");
                else
                        buf_printf(out, "%" PRIu64, limit);
                buf_printf(out, " used=%" PRIu64 "\n", room->use.v[q]);
        }
}

static int write_quota(struct txn *t, struct object *o, const char *line, struct err **e)
{
        size_t n = strlen(line), name = strcspn(line, " \t"), at, len;
        char attr[64];
        int i;

        snprintf(attr, sizeof(attr), "quota_%.*s", (int)MIN(name, (size_t)40), line);
        i = kind_attr(o->kind, attr);
        if (i < 0)
                return err_at(e, -EINVAL, line, n, 0, name, "no quota of that name");
        at = name + strspn(line + name, " \t");
        if (strncmp(line + at, "limit=", 6) != 0)
                return err_at(e, -EINVAL, line, n, at, strcspn(line + at, " \t"),
                              "expected limit=NUMBER or limit=max");
        at += 6;
        len = strcspn(line + at, " \t");
        return action_set(t, o, i, line + at, len, e);
}

static void render_usage(struct control *c, const struct object *o, struct buf *out)
{
        struct room *room = model_room(c, o);

        for (int q = 0; q < NQUOTAS; q++)
                buf_printf(out, "%s %" PRIu64 "\n", quota_name(q), room->use.v[q]);
}

/* The lines of every volume's snapshots/index, each with its way from the tenant before it. */
static void render_snapshots(struct control *c, const struct object *o, struct buf *out)
{
        struct collection *volumes = model_collection(c, o, &kind_volume);

        for (size_t i = 0; volumes && i < volumes->n; i++) {
                const struct object *v = volumes->v[i];
                struct collection *l = v->nameless ? NULL : model_collection(c, v, &kind_snapshot);
                _cleanup_buf_ struct buf lines = {};

                if (l)
                        render_index(c, l, &lines);
                for (const char *p = buf_str(&lines), *nl; (nl = strchr(p, '\n')); p = nl + 1) {
                        buf_printf(out, "volumes/%s/snapshots/", v->name);
                        buf_add(out, p, (size_t)(nl - p) + 1);
                }
        }
}

static int create(struct txn *t, struct object *o, struct err **e)
{
        struct control *c = t->c;
        int r = network_seed(t, o, e);

        if (r < 0)
                return r;
        if (c->cfg.uid != 0) { /* a plain user's cloud: everything is theirs */
                txn_set_num(t, o, "gid", c->cfg.gid);
                txn_set_state(t, o, TENANT_ACTIVE);
                return 0;
        }
        txn_set_num(t, o, "gid", GID_BASE + o->no);
        job_start(t, o, &job_tenant_create, NULL);
        return 0;
}

static int remove_tenant(struct txn *t, struct object *o, struct err **e)
{
        struct room *room = model_room(t->c, o);

        for (int i = 0; kinds[i]; i++) {
                struct collection *l = &room->lists[i];

                if (kinds[i] != &kind_job && l->n &&
                    !network_only_seeds(t->c, o, kinds[i]))
                        return err_set(e, -EBUSY, "it still holds %s/%s%s", l->kind->plural,
                                       l->v[0]->name, l->n > 1 ? " and more" : "");
        }
        network_drop_seeds(t, o);
        txn_release_name(t, o);
        txn_set_state(t, o, TENANT_DELETING);
        job_start(t, o, &job_tenant_delete, NULL);
        return 0;
}

static int rename_tenant(struct txn *t, struct object *o, const char *name, struct err **e)
{
        return err_set(e, -EPERM, "a tenant keeps its name: its group is named after it");
}

static int set_vendor_data(struct txn *t, struct object *o, union value v, struct err **e)
{
        const char *s = v.s ?: "";
        json_error_t why;
        json_t *doc = *s == '{' ? json_loads(s, JSON_REJECT_DUPLICATES, &why) : NULL;

        if (*s == '{' && !doc)
                return err_set(e, -EINVAL, "vendor_data, line %d: %s", why.line, why.text);
        json_decref(doc);
        txn_set_str(t, o, "vendor_data", v.s);
        return 0;
}

#define QUOTA(q, t)                                                                                \
        {"quota_" q, t, ROLE_ADMIN, .max_word = true, .def = "max", .hidden = true,                \
         .help = "limit"}

/* The quotas stand in the order of enum quota. */
static const struct attr_def attrs[] = {
        {"gid", ATTR_NUMBER, ROLE_NOBODY, .index = true, .help = "its Unix group's number"},
        {"group", ATTR_TEXT, ROLE_NOBODY, .index = true, .help = "its Unix group's name"},
        {"description", ATTR_TEXT, ROLE_ADMIN, .max = 255, .help = "words for people"},
        {"backup_targets", ATTR_TEXT, ROLE_ADMIN, .max = 4000,
         .help = "folders on the host that its backups may go to, absolute, with colons between"},
        {"placement", ATTR_WORD, ROLE_ADMIN, .words = "spread pack", .def = "spread",
         .help = "its guests start on the host with most room, or where least is left"},
        {"ceph_key", ATTR_BOOL, ROLE_NOBODY, .hidden = true, .help = "it was given one"},
        {"key", ATTR_TEXT, ROLE_NOBODY, .hidden = true, .help = "its key, wrapped by the cloud's"},
        {"keeper", ATTR_TEXT, ROLE_NOBODY, .hidden = true, .help = "host that runs its jobs"},
        QUOTA("instances", ATTR_NUMBER),
        QUOTA("vcpus", ATTR_NUMBER),
        QUOTA("memory", ATTR_SIZE),
        QUOTA("volumes", ATTR_NUMBER),
        QUOTA("volume_size", ATTR_SIZE),
        QUOTA("images", ATTR_NUMBER),
        QUOTA("image_size", ATTR_SIZE),
        QUOTA("snapshots", ATTR_NUMBER),
        QUOTA("backups", ATTR_NUMBER),
        QUOTA("backup_size", ATTR_SIZE),
        QUOTA("networks", ATTR_NUMBER),
        QUOTA("ports", ATTR_NUMBER),
        QUOTA("routers", ATTR_NUMBER),
        QUOTA("floating_ips", ATTR_NUMBER),
        QUOTA("security_groups", ATTR_NUMBER),
        {"reclaim", ATTR_NUMBER, ROLE_MEMBER, .max = 10 * 366 * 86400, .def = "0",
         .help = "seconds for which an instance that is deleted can be restored; 0: it goes at once"},
        {"vendor_data", ATTR_TEXT, ROLE_ADMIN, .max = 32 << 10, .lines = true,
         .set = set_vendor_data,
         .help = "what its operator tells the cloud-init of all its guests: a JSON object, which is "
                 "vendor_data.json, or text for cloud-init"},
};

/* 2: quotas of networks and what is in them. */
static int upgrade(void *record, unsigned from, struct err **e)
{
        static const char *const quotas[] = {"quota_networks", "quota_ports", "quota_routers",
                                             "quota_floating_ips", "quota_security_groups"};
        json_t *values = json_object_get(record, "attrs");

        for (unsigned i = 0; i < ARRAY_SIZE(quotas); i++)
                if (json_object_set_new(values, quotas[i], json_string("max")) < 0)
                        return err_set(e, -EPROTO, "a tenant without attributes");
        return 0;
}

static const struct file_def files[] = {
        {"quota", FILE_LINES, ROLE_ADMIN, .render = render_quota, .write = write_quota,
         .help = "limits and use, a line each; write `volumes limit=10` or `limit=max`"},
        {"usage", FILE_TEXT, ROLE_NOBODY, .render = render_usage,
         .help = "what it uses, counted from its objects"},
        {"snapshots", FILE_TEXT, ROLE_NOBODY, .render = render_snapshots,
         .help = "those of all its volumes, a line each, as in their index"},
};

static const struct verb_def verbs[] = {
        {"adopt", "DOMAIN [NAME]", ROLE_ADMIN, STATE(TENANT_ACTIVE),
         "bring in a guest that libvirt has on this host, as it is; rmdir lets it go again",
         tenant_adopt},
        {"ceph-key", "[revoke]", ROLE_ADMIN, STATE(TENANT_ACTIVE),
         "a key to its own Ceph namespace, for `rbd`, into a file on the host that events names; or "
         "none any more",
         tenant_ceph_key},
};

static const struct state_def states[] = {
        {"creating", .transient = true, .help = "its group is being made"},
        {"active", .help = "may be used"},
        {"deleting", .transient = true, .help = "going away"},
        {"error", .terminal = true, .help = "its group could not be made: read error"},
};

const struct kind kind_tenant = {
        .name = "tenant",
        .plural = "tenants",
        .help = "Who owns what; each is a Unix group whose members may work in it.",
        .schema = 2,
        .global = true,
        .parent = "",
        .creator = ROLE_ADMIN,
        .attrs = attrs,
        .nattrs = ARRAY_SIZE(attrs),
        .verbs = verbs,
        .nverbs = ARRAY_SIZE(verbs),
        .states = states,
        .nstates = ARRAY_SIZE(states),
        .files = files,
        .nfiles = ARRAY_SIZE(files),
        .create = create,
        .remove = remove_tenant,
        .rename = rename_tenant,
        .upgrade = upgrade,
};
