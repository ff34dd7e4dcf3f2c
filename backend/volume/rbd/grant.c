/* Keys of tenants, on request only: our own work all goes with the host's.
 *
 * client.stratofs.SPACE may do with the images of its namespace what it likes, and nothing else:
 * not even read the cloud's images, which are all tenants'.  It may ask the monitors, not tell
 * them: RBD's usual profile lets who has it bar any client from the cluster, this host too. */
#include <jansson.h>

#include "common/jsonl.h"

#include "backend/volume/rbd/rbd.h"

static int command(struct pool *p, json_t *words, json_t **ret, struct err **e)
{
        json_auto_t *q = words;
        char *text = q ? json_text(q, JSON_COMPACT) : NULL;
        char *out = NULL, *status = NULL;
        const char *cmd[] = {text};
        size_t n = 0, nstatus = 0;
        int r = text ? rados_mon_command(p->cluster, cmd, 1, "", 0, &out, &n, &status, &nstatus)
                     : -ENOMEM;

        free(text);
        if (r < 0)
                err_errno(e, r, "ask the monitors%s%.*s", nstatus ? ": " : "", (int)nstatus,
                          status ? status : "");
        else if (ret)
                *ret = json_loadb(out, n, 0, NULL);
        if (out)
                rados_buffer_free(out);
        if (status)
                rados_buffer_free(status);
        return r;
}

static int make_key(struct pool *p, const char *who, const char *space, char **ret, struct err **e)
{
        char caps[RBD_NAME_SIZE + RBD_SPACE_SIZE + 64];
        json_auto_t *a = NULL;
        const char *key;
        int r;

        snprintf(caps, sizeof(caps), "profile rbd pool=%s namespace=%s", p->name, space);
        r = command(p,
                    json_pack("{s:s, s:s, s:[s, s, s, s], s:s}", "prefix", "auth get-or-create",
                              "entity", who, "caps", "mon", "allow r", "osd", caps, "format",
                              "json"),
                    &a, e);
        if (r < 0)
                return r;
        key = json_string_value(json_object_get(json_array_get(a, 0), "key"));
        if (!key)
                return err_set(e, -EPROTO, "the monitors' answer makes no sense");
        return asprintf(ret, "[%s]\n\tkey = %s\n", who, key) < 0 ? err_errno(e, -ENOMEM, "key") : 0;
}

int grant(struct pool *p, const char *tenant, bool revoke, char **ret, struct err **e)
{
        char space[RBD_SPACE_SIZE], who[RBD_SPACE_SIZE + 32];
        int r = space_make(p, tenant, space, e);

        if (r < 0)
                return r;
        snprintf(who, sizeof(who), "client.stratofs.%s", space);
        if (!revoke)
                return make_key(p, who, space, ret, e);
        r = command(p, json_pack("{s:s, s:s}", "prefix", "auth rm", "entity", who), NULL, e);
        return r == -ENOENT ? 0 : r;
}
