#include "backend/blockd/client.h"

#include "common/fileio.h"
#include "common/jsonl.h"

enum {
        ID_TEXT_MAX = 37,
        QUICK_MS = 10000,
        SLOW_MS = 60000, /* an import that had to copy, a removal of a large file */
};

struct client {
        struct volume_service service;
        char *control, *shared;
};

static int call(struct volume_service *s, int timeout_ms, json_t *request, json_t **ret,
                struct err **e)
{
        struct client *c = (struct client *)s;
        json_auto_t *req = request;

        if (!req)
                return err_errno(e, -ENOMEM, "blockd");
        return jsonl_call(c->control, req, timeout_ms, ret, e);
}

static int client_ping(struct volume_service *s, struct err **e)
{
        return call(s, QUICK_MS, json_pack("{s:s}", "op", "ping"), NULL, e);
}

static int client_create(struct volume_service *s, const char *id, uint64_t size, struct err **e)
{
        return call(s, QUICK_MS,
                    json_pack("{s:s, s:s, s:I}", "op", "create", "id", id, "size",
                              (json_int_t)size),
                    NULL, e);
}

static int client_import(struct volume_service *s, const char *id, const char *path,
                         struct err **e)
{
        return call(s, SLOW_MS,
                    json_pack("{s:s, s:s, s:s}", "op", "import", "id", id, "path", path), NULL, e);
}

static int client_clone(struct volume_service *s, const char *id, const char *parent,
                        uint64_t size, struct err **e)
{
        return call(s, QUICK_MS,
                    json_pack("{s:s, s:s, s:s, s:I}", "op", "clone", "id", id, "parent", parent,
                              "size", (json_int_t)size),
                    NULL, e);
}

static int client_resize(struct volume_service *s, const char *id, uint64_t size, struct err **e)
{
        return call(s, QUICK_MS,
                    json_pack("{s:s, s:s, s:I}", "op", "resize", "id", id, "size",
                              (json_int_t)size),
                    NULL, e);
}

static int client_remove(struct volume_service *s, const char *id, struct err **e)
{
        return call(s, SLOW_MS, json_pack("{s:s, s:s}", "op", "remove", "id", id), NULL, e);
}

static int read_facts(json_t *j, struct volume_facts *ret, struct err **e)
{
        const char *id, *parent = "";
        json_int_t size, used = 0;
        int exports = 0;

        if (json_unpack(j, "{s:s, s:I, s?I, s?s, s?i}", "id", &id, "size", &size, "used", &used,
                        "parent", &parent, "exports", &exports) < 0)
                return err_set(e, -EPROTO, "blockd: facts of a volume are missing");
        *ret = (struct volume_facts){.size = size, .used = used, .exports = exports};
        snprintf(ret->id, sizeof(ret->id), "%s", id);
        snprintf(ret->parent, sizeof(ret->parent), "%s", parent);
        return 0;
}

static int client_stat(struct volume_service *s, const char *id, struct volume_facts *ret,
                       struct err **e)
{
        json_auto_t *a = NULL;
        int r = call(s, QUICK_MS, json_pack("{s:s, s:s}", "op", "stat", "id", id), &a, e);

        return r < 0 ? r : read_facts(a, ret, e);
}

/* Pages by id: each answer says what comes after the id given. */
static int client_list(struct volume_service *s,
                       int (*each)(void *arg, const struct volume_facts *f), void *arg,
                       struct err **e)
{
        char after[ID_TEXT_MAX] = "";

        for (;;) {
                json_auto_t *a = NULL;
                json_t *list, *j;
                size_t i;
                int r = call(s, QUICK_MS, json_pack("{s:s, s:s}", "op", "list", "after", after),
                             &a, e);

                if (r < 0)
                        return r;
                list = json_object_get(a, "volumes");
                json_array_foreach(list, i, j)
                {
                        struct volume_facts f;

                        r = read_facts(j, &f, e);
                        if (r == 0)
                                r = each(arg, &f);
                        if (r < 0)
                                return r;
                        snprintf(after, sizeof(after), "%s", f.id);
                }
                if (json_array_size(list) == 0)
                        return 0;
        }
}

static int client_export(struct volume_service *s, const struct volume_export *x,
                         char **ret_socket, struct err **e)
{
        json_auto_t *a = NULL;
        const char *socket;
        int r = call(s, QUICK_MS,
                     json_pack("{s:s, s:s, s:s, s:I, s:I, s:b}", "op", "export", "id", x->id,
                               "volume", x->volume, "uid", (json_int_t)x->uid, "gid",
                               (json_int_t)x->gid, "readonly", x->readonly),
                     &a, e);

        if (r < 0)
                return r;
        socket = json_string_value(json_object_get(a, "socket"));
        *ret_socket = socket ? strdup(socket) : NULL;
        return *ret_socket ? 0 : err_set(e, -EPROTO, "blockd: no socket in its answer");
}

static int client_unexport(struct volume_service *s, const char *id, struct err **e)
{
        return call(s, QUICK_MS, json_pack("{s:s, s:s}", "op", "unexport", "id", id), NULL, e);
}

static int client_list_exports(struct volume_service *s,
                               int (*each)(void *arg, const char *id, const char *volume),
                               void *arg, struct err **e)
{
        json_auto_t *a = NULL;
        json_t *list, *j;
        size_t i;
        int r = call(s, QUICK_MS, json_pack("{s:s}", "op", "list_exports"), &a, e);

        list = json_object_get(a, "exports");
        json_array_foreach(list, i, j)
        {
                const char *id = "", *volume = "";

                json_unpack(j, "{s:s, s:s}", "id", &id, "volume", &volume);
                if (r == 0)
                        r = each(arg, id, volume);
        }
        return r;
}

static void client_close(struct volume_service *s)
{
        struct client *c = (struct client *)s;

        free(c->control);
        free(c->shared);
        free(c);
}

static const struct volume_service_ops ops = {
        .name = "blockd",
        .ping = client_ping,
        .create = client_create,
        .import = client_import,
        .clone = client_clone,
        .resize = client_resize,
        .remove = client_remove,
        .stat = client_stat,
        .list = client_list,
        .export = client_export,
        .unexport = client_unexport,
        .list_exports = client_list_exports,
        .close = client_close,
};

int blockd_client_new(const char *run_dir, struct volume_service **ret, struct err **e)
{
        struct client *c = calloc(1, sizeof(*c));

        if (c) {
                c->control = path_printf("%s/blockd.sock", run_dir);
                c->shared = path_printf("%s/nbd.sock", run_dir);
        }
        if (!c || !c->control || !c->shared) {
                if (c)
                        client_close(&c->service);
                return err_errno(e, -ENOMEM, "blockd");
        }
        c->service = (struct volume_service){.ops = &ops, .shared_socket = c->shared};
        *ret = &c->service;
        return 0;
}
