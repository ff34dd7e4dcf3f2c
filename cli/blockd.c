#include "cli/blockd.h"

#include <string.h>

#include "common/fileio.h"
#include "common/jsonl.h"
#include "common/macro.h"

enum { CALL_MS = 20000 };

/* Takes the reference of request. */
static int call(const struct cloud *c, json_t *request, json_t **ret, struct err **e)
{
        _cleanup_free_ char *path = path_printf("%s/blockd.sock", c->run);
        int r = -ENOMEM;

        if (path && request)
                r = jsonl_call(path, request, CALL_MS, ret, e);
        json_decref(request);
        return r;
}

int blockd_create(const struct cloud *c, const char *id, uint64_t size, struct err **e)
{
        return call(c,
                    json_pack("{s:s s:s s:I}", "op", "create", "id", id, "size", (json_int_t)size),
                    NULL, e);
}

int blockd_remove(const struct cloud *c, const char *id, struct err **e)
{
        return call(c, json_pack("{s:s s:s}", "op", "remove", "id", id), NULL, e);
}

int blockd_list(const struct cloud *c, int (*each)(void *arg, const char *id, const char *parent),
                void *arg, struct err **e)
{
        json_t *answer = NULL, *v;
        size_t i;
        int r;

        r = call(c, json_pack("{s:s}", "op", "list"), &answer, e);
        json_array_foreach (json_object_get(answer, "volumes"), i, v) {
                const char *id = json_string_value(json_object_get(v, "id"));
                const char *parent = json_string_value(json_object_get(v, "parent"));

                if (r == 0 && id)
                        r = each(arg, id, parent ? parent : "");
        }
        json_decref(answer);
        return r;
}

char *blockd_shared_socket(const struct cloud *c)
{
        return path_printf("%s/nbd.sock", c->run);
}
