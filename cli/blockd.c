#include "cli/blockd.h"

#include <string.h>

#include "common/fileio.h"
#include "common/jsonl.h"
#include "common/macro.h"
#include "common/name.h"

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

/* One page of the list; its last id goes to after.  The number of volumes in it. */
static int list_page(const struct cloud *c, char after[ID_TEXT_SIZE],
                     int (*each)(void *arg, const char *id, const char *parent), void *arg,
                     struct err **e)
{
        json_auto_t *answer = NULL;
        json_t *list, *v;
        size_t i;
        int r;

        r = call(c, json_pack("{s:s s:s}", "op", "list", "after", after), &answer, e);
        if (r < 0)
                return r;
        list = json_object_get(answer, "volumes");
        json_array_foreach (list, i, v) {
                const char *id = json_string_value(json_object_get(v, "id"));
                const char *parent = json_string_value(json_object_get(v, "parent"));

                if (!id)
                        return err_set(e, -EPROTO, "blockd: a volume without an id");
                r = each(arg, id, parent ? parent : "");
                if (r < 0)
                        return r;
                snprintf(after, ID_TEXT_SIZE, "%s", id);
        }
        return (int)json_array_size(list);
}

int blockd_list(const struct cloud *c, int (*each)(void *arg, const char *id, const char *parent),
                void *arg, struct err **e)
{
        char after[ID_TEXT_SIZE] = "";
        int r;

        do
                r = list_page(c, after, each, arg, e);
        while (r > 0);
        return r;
}

char *blockd_shared_socket(const struct cloud *c)
{
        return path_printf("%s/nbd.sock", c->run);
}
