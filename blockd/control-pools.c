/* Requests about pools: where volumes are, and what becomes of them when they change theirs. */
#include "blockd/call.h"
#include "blockd/meter.h"

int op_place(struct call *c, struct err **e)
{
        const char *id, *pool = "", *space = "";
        int r = call_args(c, e, "{s:s, s?s, s?s}", "id", &id, "pool", &pool, "space", &space);

        return r < 0 ? r : volume_place(c->server->pool, id, pool, space, e);
}

static int move_piece(struct call *c, const struct volume_move *m, struct err **e)
{
        uint64_t next = 0, size = 0;
        int r = volume_move(c->server->pool, m, &next, &size, e);

        if (r < 0)
                return r;
        json_object_set_new(c->answer, "next", json_integer(next));
        json_object_set_new(c->answer, "size", json_integer(size));
        return 0;
}

/* end: "moved" or "forget"; else a piece. */
int op_move(struct call *c, struct err **e)
{
        struct volume_move m = {.space = "", .passphrase = ""};
        const char *end = "";
        json_int_t off = 0;
        int r = call_args(c, e, "{s:s, s:s, s:s, s?s, s?s, s?I, s?s}", "id", &m.id, "from", &m.from,
                          "to", &m.to, "space", &m.space, "passphrase", &m.passphrase, "offset",
                          &off, "end", &end);

        if (r == 0)
                r = call_size(off, &m.off, e);
        if (r < 0)
                return r;
        if (*end && !streq(end, "moved") && !streq(end, "forget"))
                return err_set(e, -EINVAL, "request: end is 'moved' or 'forget'");
        pthread_mutex_lock(&c->server->change);
        r = call_not_exported(c->server, "move", m.id, e);
        pthread_mutex_unlock(&c->server->change);
        if (r < 0)
                return r;
        return *end ? volume_move_end(c->server->pool, &m, streq(end, "moved"), e)
                    : move_piece(c, &m, e);
}

int op_adopt(struct call *c, struct err **e)
{
        const char *id, *pool, *name;
        _cleanup_free_ struct volume_snap *v = NULL;
        json_t *list = json_array();
        size_t n = 0;
        int r = call_args(c, e, "{s:s, s:s, s:s}", "id", &id, "pool", &pool, "name", &name);

        json_object_set_new(c->answer, "snapshots", list);
        if (r == 0)
                r = volume_adopt(c->server->pool, id, pool, name, &v, &n, e);
        for (size_t i = 0; i < n; i++)
                json_array_append_new(list, json_pack("{s:s, s:s, s:I}", "id", v[i].id, "name",
                                                      v[i].name, "size", (json_int_t)v[i].size));
        return r;
}

/* [{id, name}]. */
static int snaps_from(const json_t *list, struct volume_snap **ret, size_t *ret_n, struct err **e)
{
        struct volume_snap *v = calloc(json_array_size(list) + 1, sizeof(*v));

        *ret = v;
        if (!v)
                return err_errno(e, -ENOMEM, "request");
        for (size_t i = 0; i < json_array_size(list); i++) {
                const char *id, *name;

                if (json_unpack(json_array_get(list, i), "{s:s, s:s}", "id", &id, "name", &name) <
                            0 ||
                    volume_check_id(id, NULL) < 0 || !*name || strlen(name) >= sizeof(v[i].name))
                        return err_set(e, -EINVAL, "request: snapshots are {id, name}");
                strcpy(v[i].id, id);
                strcpy(v[i].name, name);
        }
        *ret_n = json_array_size(list);
        return 0;
}

int op_release(struct call *c, struct err **e)
{
        _cleanup_free_ struct volume_snap *v = NULL;
        const char *id, *name;
        json_t *list = NULL;
        size_t n = 0;
        int r = call_args(c, e, "{s:s, s:s, s?o}", "id", &id, "name", &name, "snapshots", &list);

        if (r == 0)
                r = snaps_from(list, &v, &n, e);
        if (r < 0)
                return r;
        WITH_LOCK(&c->server->change);
        r = call_not_exported(c->server, "release", id, e);
        if (r == 0)
                r = volume_release(c->server->pool, id, name, v, n, e);
        return r < 0 ? r : meter_remove(c->server, id, e);
}

int op_grant(struct call *c, struct err **e)
{
        const char *pool, *space;
        _cleanup_free_ char *key = NULL;
        int revoke = 0;
        int r = call_args(c, e, "{s:s, s:s, s?b}", "pool", &pool, "space", &space, "revoke",
                          &revoke);

        if (r == 0)
                r = volume_grant(c->server->pool, pool, space, revoke, &key, e);
        if (r < 0)
                return r;
        if (key)
                json_object_set_new(c->answer, "key", json_string(key));
        return 0;
}
