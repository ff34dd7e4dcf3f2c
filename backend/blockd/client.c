#include "backend/blockd/client.h"

#include "common/buf.h"
#include "common/fault.h"
#include "common/fileio.h"
#include "common/jsonl.h"

enum {
        QUICK_MS = 10000,      /* a few syncs on a busy disk */
        LONG_MS = 120000,      /* import may sync or copy a whole image, remove may free one */
        REPORT_MAX = 24 << 10, /* bytes of findings worth keeping */
};

struct client {
        struct volume_service service;
        char *control, *shared;
};

/* Takes request (NULL: without memory). */
static int call(struct volume_service *s, json_t *request, int timeout_ms, json_t **ret,
                struct err **e)
{
        struct client *c = (struct client *)s;
        json_auto_t *q = request;
        const char *op = q ? json_string_value(json_object_get(q, "op")) : "";
        int r = q ? FAULT_OF("ask", op) : -ENOMEM;

        if (r < 0)
                return err_errno(e, r, "ask blockd");
        r = jsonl_call(c->control, q, timeout_ms, ret, e);
        return r < 0 ? r : FAULT_OF("asked", op);
}

static int client_ping(struct volume_service *s, struct err **e)
{
        return call(s, json_pack("{s:s}", "op", "ping"), QUICK_MS, NULL, e);
}

static int client_place(struct volume_service *s, const char *id, const char *pool,
                        const char *space, struct err **e)
{
        return call(s,
                    json_pack("{s:s, s:s, s:s, s:s}", "op", "place", "id", id, "pool", pool,
                              "space", space),
                    LONG_MS, NULL, e);
}

static int client_move(struct volume_service *s, const struct volume_journey *m, uint64_t *ret_next,
                       uint64_t *ret_size, struct err **e)
{
        json_auto_t *a = NULL;
        json_int_t next, size;
        int r = call(s,
                     json_pack("{s:s, s:s, s:s, s:s, s:s, s:s, s:I}", "op", "move", "id", m->id,
                               "from", m->from, "to", m->to, "space", m->space, "passphrase",
                               m->passphrase, "offset", (json_int_t)m->off),
                     LONG_MS, &a, e);

        if (r < 0)
                return r;
        if (json_unpack(a, "{s:I, s:I}", "next", &next, "size", &size) < 0)
                return err_set(e, -EPROTO, "blockd's answer makes no sense");
        *ret_next = next;
        *ret_size = size;
        return 0;
}

static int client_move_end(struct volume_service *s, const struct volume_journey *m, bool moved,
                           struct err **e)
{
        return call(s,
                    json_pack("{s:s, s:s, s:s, s:s, s:s}", "op", "move", "id", m->id, "from",
                              m->from, "to", m->to, "end", moved ? "moved" : "forget"),
                    LONG_MS, NULL, e);
}

static int client_adopt(struct volume_service *s, const char *id, const char *pool,
                        const char *name, struct volume_named **ret, size_t *ret_n, struct err **e)
{
        json_auto_t *a = NULL;
        struct volume_named *v;
        const json_t *list;
        size_t n;
        int r = call(s,
                     json_pack("{s:s, s:s, s:s, s:s}", "op", "adopt", "id", id, "pool", pool,
                               "name", name),
                     LONG_MS, &a, e);

        if (r < 0)
                return r;
        list = json_object_get(a, "snapshots");
        n = json_array_size(list);
        v = calloc(n + 1, sizeof(*v));
        for (size_t i = 0; v && i < n; i++) {
                const char *snap, *called;
                json_int_t size;

                if (json_unpack(json_array_get(list, i), "{s:s, s:s, s:I}", "id", &snap, "name",
                                &called, "size", &size) < 0 ||
                    strlen(snap) >= sizeof(v[i].id) || strlen(called) >= sizeof(v[i].name)) {
                        free(v);
                        return err_set(e, -EPROTO, "blockd's answer makes no sense");
                }
                strcpy(v[i].id, snap);
                strcpy(v[i].name, called);
                v[i].size = (uint64_t)size;
        }
        *ret = v;
        *ret_n = n;
        return v ? 0 : err_errno(e, -ENOMEM, "adopt");
}

static int client_release(struct volume_service *s, const char *id, const char *name,
                          const struct volume_named *v, size_t n, struct err **e)
{
        json_t *list = json_array();

        for (size_t i = 0; i < n; i++)
                json_array_append_new(list,
                                      json_pack("{s:s, s:s}", "id", v[i].id, "name", v[i].name));
        return call(s,
                    json_pack("{s:s, s:s, s:s, s:o}", "op", "release", "id", id, "name", name,
                              "snapshots", list),
                    LONG_MS, NULL, e);
}

static int client_grant(struct volume_service *s, const char *pool, const char *space, bool revoke,
                        char **ret, struct err **e)
{
        json_auto_t *a = NULL;
        const char *key;
        int r = call(s,
                     json_pack("{s:s, s:s, s:s, s:b}", "op", "grant", "pool", pool, "space", space,
                               "revoke", (int)revoke),
                     LONG_MS, &a, e);

        *ret = NULL;
        if (r < 0 || revoke)
                return r;
        key = json_string_value(json_object_get(a, "key"));
        if (!key)
                return err_set(e, -EPROTO, "blockd's answer makes no sense");
        *ret = strdup(key);
        return *ret ? 0 : err_errno(e, -ENOMEM, "key");
}

/* A successor connects by itself. */
static int client_renew(struct volume_service *s, struct err **e)
{
        return call(s, json_pack("{s:s}", "op", "replace"), LONG_MS, NULL, e);
}

static int client_create(struct volume_service *s, const char *id, uint64_t size, struct err **e)
{
        return call(
                s, json_pack("{s:s, s:s, s:I}", "op", "create", "id", id, "size", (json_int_t)size),
                QUICK_MS, NULL, e);
}

static int client_import(struct volume_service *s, const char *id, const char *path, struct err **e)
{
        return call(s, json_pack("{s:s, s:s, s:s}", "op", "import", "id", id, "path", path),
                    LONG_MS, NULL, e);
}

static int client_clone(struct volume_service *s, const char *id, const char *parent, uint64_t size,
                        struct err **e)
{
        return call(s,
                    json_pack("{s:s, s:s, s:s, s:I}", "op", "clone", "id", id, "parent", parent,
                              "size", (json_int_t)size),
                    QUICK_MS, NULL, e);
}

static int client_snapshot(struct volume_service *s, const char *id, const char *volume,
                           struct err **e)
{
        return call(s, json_pack("{s:s, s:s, s:s}", "op", "snapshot", "id", id, "volume", volume),
                    LONG_MS, NULL, e);
}

static int client_create_encrypted(struct volume_service *s, const char *id, uint64_t size,
                                   const char *passphrase, struct err **e)
{
        return call(s,
                    json_pack("{s:s, s:s, s:I, s:s}", "op", "create", "id", id, "size",
                              (json_int_t)size, "passphrase", passphrase),
                    QUICK_MS, NULL, e);
}

static int client_key(struct volume_service *s, const char *id, const char *passphrase,
                      struct err **e)
{
        return call(s,
                    json_pack("{s:s, s:s, s:s}", "op", "key", "id", id, "passphrase", passphrase),
                    QUICK_MS, NULL, e);
}

static int client_rekey(struct volume_service *s, const char *id, const char *passphrase,
                        const char *next, struct err **e)
{
        return call(s,
                    json_pack("{s:s, s:s, s:s, s:s}", "op", "rekey", "id", id, "passphrase",
                              passphrase, "next", next),
                    QUICK_MS, NULL, e);
}

static int client_locked(struct volume_service *s,
                         int (*each)(void *arg, const char *id, const char *family), void *arg,
                         struct err **e)
{
        json_auto_t *a = NULL;
        json_t *item;
        size_t i;
        int r = call(s, json_pack("{s:s}", "op", "locked"), QUICK_MS, &a, e);

        json_array_foreach (json_object_get(a, "volumes"), i, item) {
                const char *id, *family;

                if (r == 0 && json_unpack(item, "{s:s, s:s}", "id", &id, "family", &family) < 0)
                        return err_set(e, -EPROTO, "blockd's answer makes no sense");
                if (r == 0)
                        r = each(arg, id, family);
        }
        return r;
}

static int client_copy(struct volume_service *s, const char *id, const char *from, uint64_t off,
                       uint64_t *ret_next, struct err **e)
{
        json_auto_t *a = NULL;
        json_int_t next;
        int r = call(s,
                     json_pack("{s:s, s:s, s:s, s:I}", "op", "copy", "id", id, "from", from,
                               "offset", (json_int_t)off),
                     LONG_MS, &a, e);

        if (r < 0)
                return r;
        if (json_unpack(a, "{s:I}", "next", &next) < 0)
                return err_set(e, -EPROTO, "blockd's answer makes no sense");
        *ret_next = next;
        return 0;
}

static int client_resize(struct volume_service *s, const char *id, uint64_t size, struct err **e)
{
        return call(
                s, json_pack("{s:s, s:s, s:I}", "op", "resize", "id", id, "size", (json_int_t)size),
                QUICK_MS, NULL, e);
}

static int client_shrink(struct volume_service *s, const char *id, uint64_t size, struct err **e)
{
        return call(s,
                    json_pack("{s:s, s:s, s:I, s:b}", "op", "resize", "id", id, "size",
                              (json_int_t)size, "shrink", 1),
                    LONG_MS, NULL, e);
}

static int client_revert(struct volume_service *s, const char *id, const char *to, struct err **e)
{
        return call(s, json_pack("{s:s, s:s, s:s}", "op", "revert", "id", id, "to", to), QUICK_MS,
                    NULL, e);
}

static int client_flatten(struct volume_service *s, const char *id, bool cancel, struct err **e)
{
        return call(s,
                    json_pack("{s:s, s:s, s:b}", "op", "flatten", "id", id, "cancel", (int)cancel),
                    QUICK_MS, NULL, e);
}

static int client_remove(struct volume_service *s, const char *id, struct err **e)
{
        return call(s, json_pack("{s:s, s:s}", "op", "remove", "id", id), LONG_MS, NULL, e);
}

static int facts_from(json_t *o, struct volume_facts *ret, struct err **e)
{
        json_int_t size, used, exports, done = 0, total = 0;
        json_t *flatten = NULL;
        const char *id, *parent, *family = "";
        int failed = 0, locked = 0;

        if (json_unpack(o, "{s:s, s:I, s:I, s:s, s:I, s?s, s?b, s?o}", "id", &id, "size", &size,
                        "used", &used, "parent", &parent, "exports", &exports, "family", &family,
                        "locked", &locked, "flatten", &flatten) < 0 ||
            (flatten && json_unpack(flatten, "{s:I, s:I, s?i}", "done", &done, "total", &total,
                                    "errno", &failed) < 0) ||
            strlen(id) >= sizeof(ret->id) || strlen(parent) >= sizeof(ret->parent) ||
            strlen(family) >= sizeof(ret->family))
                return err_set(e, -EPROTO, "blockd's answer makes no sense");
        *ret = (struct volume_facts){.size = size,
                                     .used = used,
                                     .exports = exports,
                                     .flattening = flatten,
                                     .flatten_done = done,
                                     .flatten_total = total,
                                     .flatten_failed = -failed};
        strcpy(ret->id, id);
        strcpy(ret->parent, parent);
        strcpy(ret->family, family);
        ret->locked = locked;
        return 0;
}

static int client_stat(struct volume_service *s, const char *id, struct volume_facts *ret,
                       struct err **e)
{
        json_auto_t *a = NULL;
        int r = call(s, json_pack("{s:s, s:s}", "op", "stat", "id", id), QUICK_MS, &a, e);

        return r < 0 ? r : facts_from(a, ret, e);
}

/* Calls a listing op page by page; each() gets every item. */
static int pages(struct volume_service *s, const char *op, const char *key,
                 int (*each)(void *arg, json_t *item, struct err **e), void *arg, struct err **e)
{
        char after[256] = "";
        bool more = true;

        while (more) {
                json_auto_t *a = NULL;
                json_t *list, *item;
                size_t i;
                int r = call(s, json_pack("{s:s, s:s}", "op", op, "after", after), QUICK_MS, &a, e);

                if (r < 0)
                        return r;
                list = json_object_get(a, key);
                more = json_is_true(json_object_get(a, "more")) && json_array_size(list) > 0;
                json_array_foreach (list, i, item) {
                        const char *id = json_string_value(json_object_get(item, "id"));

                        if (!id || strlen(id) >= sizeof(after))
                                return err_set(e, -EPROTO, "blockd's answer makes no sense");
                        strcpy(after, id);
                        r = each(arg, item, e);
                        if (r != 0)
                                return r;
                }
        }
        return 0;
}

struct list {
        int (*each)(void *arg, const struct volume_facts *f);
        int (*each_export)(void *arg, const char *id, const char *volume);
        int (*each_stats)(void *arg, const struct volume_stats *v);
        void *arg;
};

static int list_item(void *arg, json_t *item, struct err **e)
{
        struct list *l = arg;
        struct volume_facts f;
        int r = facts_from(item, &f, e);

        return r < 0 ? r : l->each(l->arg, &f);
}

static int client_list(struct volume_service *s,
                       int (*each)(void *arg, const struct volume_facts *f), void *arg,
                       struct err **e)
{
        struct list l = {.each = each, .arg = arg};

        return pages(s, "list", "volumes", list_item, &l, e);
}

static int client_export(struct volume_service *s, const struct volume_export *x, char **ret_socket,
                         struct err **e)
{
        json_auto_t *a = NULL;
        const char *socket;
        int r = call(s,
                     json_pack("{s:s, s:s, s:s, s:I, s:I, s:b}", "op", "export", "id", x->id,
                               "volume", x->volume, "uid", (json_int_t)x->uid, "gid",
                               (json_int_t)x->gid, "readonly", (int)x->readonly),
                     QUICK_MS, &a, e);

        if (r < 0)
                return r;
        socket = json_string_value(json_object_get(a, "socket"));
        if (!socket)
                return err_set(e, -EPROTO, "blockd's answer makes no sense");
        *ret_socket = strdup(socket);
        return *ret_socket ? 0 : err_errno(e, -ENOMEM, "export");
}

static int client_unexport(struct volume_service *s, const char *id, struct err **e)
{
        return call(s, json_pack("{s:s, s:s}", "op", "unexport", "id", id), LONG_MS, NULL, e);
}

static int client_activate(struct volume_service *s, const char *id, bool active, struct err **e)
{
        return call(s,
                    json_pack("{s:s, s:s, s:b}", "op", "activate", "id", id, "active", (int)active),
                    QUICK_MS, NULL, e);
}

static int list_export(void *arg, json_t *item, struct err **e)
{
        struct list *l = arg;
        const char *volume = json_string_value(json_object_get(item, "volume"));

        if (!volume)
                return err_set(e, -EPROTO, "blockd's answer makes no sense");
        return l->each_export(l->arg, json_string_value(json_object_get(item, "id")), volume);
}

static int client_list_exports(struct volume_service *s,
                               int (*each)(void *arg, const char *id, const char *volume),
                               void *arg, struct err **e)
{
        struct list l = {.each_export = each, .arg = arg};

        return pages(s, "list_exports", "exports", list_export, &l, e);
}

static int client_set_limits(struct volume_service *s, const char *id,
                             const struct volume_limits *l, struct err **e)
{
        return call(s,
                    json_pack("{s:s, s:s, s:I, s:I, s:I, s:I, s:I}", "op", "limit", "id", id,
                              "iops", (json_int_t)l->iops, "bandwidth", (json_int_t)l->bandwidth,
                              "iops_burst", (json_int_t)l->iops_burst, "bandwidth_burst",
                              (json_int_t)l->bandwidth_burst, "burst_seconds",
                              (json_int_t)l->burst_seconds),
                    QUICK_MS, NULL, e);
}

static int report_from(json_t *a, struct volume_report *ret)
{
        static const char *const states[] = {"none", "running", "done", "cancelled", "failed"};
        json_int_t done = 0, total = 0, found = 0, repaired = 0;
        const char *state, *words = "";
        json_t *findings = NULL, *line;
        _cleanup_buf_ struct buf text = {};
        size_t i;

        if (json_unpack(a, "{s:s, s?I, s?I, s?I, s?I, s?s, s?o}", "state", &state, "done", &done,
                        "total", &total, "found", &found, "repaired", &repaired, "words", &words,
                        "findings", &findings) < 0)
                return -EPROTO;
        for (i = 0; i < ARRAY_SIZE(states) && !streq(state, states[i]); i++)
                ;
        if (i == ARRAY_SIZE(states))
                return -EPROTO;
        *ret = (struct volume_report){
                .state = i, .done = done, .total = total, .found = found, .repaired = repaired};
        json_array_foreach (findings, i, line)
                if (json_is_string(line) && text.len < REPORT_MAX)
                        buf_printf(&text, "%s\n", json_string_value(line));
        ret->findings = strdup(buf_str(&text));
        ret->words = strdup(words);
        return ret->findings && ret->words ? 0 : -ENOMEM;
}

static int client_check(struct volume_service *s, const struct volume_check_request *q,
                        struct volume_report *ret, struct err **e)
{
        json_auto_t *a = NULL;
        int r = call(s,
                     json_pack("{s:s, s:s, s:s, s:b, s:b, s:b, s:b}", "op", "check", "id", q->id,
                               "token", q->token, "start", (int)q->start, "cancel", (int)q->cancel,
                               "scrub", (int)q->scrub, "sums", (int)q->sums),
                     QUICK_MS, &a, e);

        *ret = (struct volume_report){};
        if (r == 0 && (r = report_from(a, ret)) < 0) {
                volume_report_done(ret);
                err_set(e, r, "blockd's answer makes no sense");
        }
        return r;
}

static int op_stats_from(json_t *o, struct volume_req_stats *ret)
{
        json_int_t ops, bytes, errors, usec;
        json_t *latency, *v;
        size_t i;

        if (json_unpack(o, "{s:I, s:I, s:I, s:I, s:o}", "ops", &ops, "bytes", &bytes, "errors",
                        &errors, "usec", &usec, "latency", &latency) < 0 ||
            json_array_size(latency) > VOLUME_LATENCIES)
                return -EPROTO;
        *ret = (struct volume_req_stats){
                .ops = ops, .bytes = bytes, .errors = errors, .usec = usec};
        json_array_foreach (latency, i, v)
                ret->latency[i] = json_integer_value(v);
        return 0;
}

static int list_stats(void *arg, json_t *item, struct err **e)
{
        static const char *const names[VOLUME_REQS] = {
                [VOLUME_REQ_READ] = "read",   [VOLUME_REQ_WRITE] = "write",
                [VOLUME_REQ_FLUSH] = "flush", [VOLUME_REQ_TRIM] = "trim",
                [VOLUME_REQ_ZERO] = "zero",   [VOLUME_REQ_STATUS] = "status",
                [VOLUME_REQ_CACHE] = "cache"};
        json_int_t since, in_flight;
        struct volume_stats v = {};
        struct list *l = arg;
        const char *id;
        int r = json_unpack(item, "{s:s, s:I, s:I}", "id", &id, "since", &since, "in_flight",
                            &in_flight);

        for (unsigned i = 0; r == 0 && i < VOLUME_REQS; i++)
                r = op_stats_from(json_object_get(item, names[i]), &v.op[i]);
        if (r < 0 || strlen(id) >= sizeof(v.id))
                return err_set(e, -EPROTO, "blockd's answer makes no sense");
        strcpy(v.id, id);
        v.since = since;
        v.in_flight = in_flight;
        return l->each_stats(l->arg, &v);
}

static int client_stats(struct volume_service *s,
                        int (*each)(void *arg, const struct volume_stats *v), void *arg,
                        struct err **e)
{
        struct list l = {.each_stats = each, .arg = arg};

        return pages(s, "stats", "volumes", list_stats, &l, e);
}

static void client_close(struct volume_service *s)
{
        struct client *c = (struct client *)s;

        free(c->control);
        free(c->shared);
        free(c);
}

static const struct volume_service_ops client_ops = {
        .name = "blockd",
        .ping = client_ping,
        .place = client_place,
        .move = client_move,
        .move_end = client_move_end,
        .adopt = client_adopt,
        .release = client_release,
        .grant = client_grant,
        .renew = client_renew,
        .create = client_create,
        .import = client_import,
        .clone = client_clone,
        .snapshot = client_snapshot,
        .create_encrypted = client_create_encrypted,
        .key = client_key,
        .rekey = client_rekey,
        .locked = client_locked,
        .copy = client_copy,
        .resize = client_resize,
        .shrink = client_shrink,
        .revert = client_revert,
        .flatten = client_flatten,
        .set_limits = client_set_limits,
        .stats = client_stats,
        .check = client_check,
        .remove = client_remove,
        .stat = client_stat,
        .list = client_list,
        .export = client_export,
        .unexport = client_unexport,
        .activate = client_activate,
        .list_exports = client_list_exports,
        .close = client_close,
};

struct volume_service *blockd_client_new(const char *run_dir)
{
        struct client *c = calloc(1, sizeof(*c));

        if (!c)
                return NULL;
        c->service.ops = &client_ops;
        c->control = path_printf("%s/blockd.sock", run_dir);
        c->shared = path_printf("%s/nbd.sock", run_dir);
        c->service.shared_socket = c->shared;
        if (!c->control || !c->shared) {
                client_close(&c->service);
                return NULL;
        }
        return &c->service;
}
