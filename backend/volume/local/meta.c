#include "backend/volume/local/meta.h"

#include <fcntl.h>
#include <jansson.h>

#include "common/jsonl.h"

#include "backend/volume/local/maplog.h"
#include "common/fault.h"
#include "common/fileio.h"
#include "common/log.h"
#include "common/name.h"

/* A volume is written in the lowest format that can say it. */
enum { FORMAT_FIRST = 1, FORMAT_SNAPSHOT, FORMAT_TREE, FORMAT = FORMAT_TREE };

static bool id_copy(char out[VOLUME_ID_SIZE], const char *text)
{
        char canonical[ID_TEXT_SIZE];
        sd_id128_t id;

        if (!text || id_parse(text, &id) < 0 || !streq(id_text(canonical, id), text))
                return false;
        strcpy(out, text);
        return true;
}

static int below_default(const struct meta *m, unsigned i)
{
        if (i > 0)
                return m->layers[i - 1].n;
        return m->origin[0] ? META_ORIGIN : META_GROUND;
}

int meta_push(struct meta *m, unsigned n, uint64_t size)
{
        struct meta_layer *p;

        if (m->nlayers >= META_LAYERS_MAX)
                return -EMLINK;
        p = reallocarray(m->layers, m->nlayers + 1, sizeof(*p));
        if (!p)
                return -ENOMEM;
        m->layers = p;
        p[m->nlayers] = (struct meta_layer){.n = n,
                                            .data = n,
                                            .map = n,
                                            .below = below_default(m, m->nlayers),
                                            .size = size,
                                            .overlap = UINT64_MAX};
        m->nlayers++;
        return 0;
}

void meta_take(struct meta *m, unsigned i)
{
        memmove(m->layers + i, m->layers + i + 1, (m->nlayers - i - 1) * sizeof(*m->layers));
        m->nlayers--;
}

unsigned meta_next(const struct meta *m)
{
        unsigned most = 0;

        for (unsigned i = 0; i < m->nlayers; i++) {
                const struct meta_layer *l = &m->layers[i];

                most = MAX(most, MAX(l->n, MAX(l->data, l->map)));
        }
        return most + 1;
}

bool meta_on_origin(const struct meta *m)
{
        for (unsigned i = 0; i < m->nlayers; i++)
                if (m->layers[i].below == META_ORIGIN)
                        return true;
        return false;
}

/* What only format 3 says of a layer. */
static int parse_tree(json_t *item, struct meta *m, struct meta_layer *l)
{
        json_int_t data = l->n, map = l->n, overlap = -1;
        json_t *below = NULL;

        if (json_unpack(item, "{s?I, s?I, s?I, s?o}", "data", &data, "map", &map, "overlap",
                        &overlap, "below", &below) < 0 ||
            data < 0 || data > INT32_MAX || map < 0 || map > INT32_MAX || overlap < -1 ||
            overlap > (json_int_t)VOLUME_SIZE_MAX || overlap % VOLUME_SECTOR > 0)
                return -EUCLEAN;
        l->data = data;
        l->map = map;
        if (overlap >= 0)
                l->overlap = overlap;
        if (!below)
                return 0;
        if (json_is_integer(below)) {
                json_int_t n = json_integer_value(below);

                if (n < 0 || n >= (json_int_t)l->n || meta_find(m, n) < 0)
                        return -EUCLEAN;
                l->below = n;
        } else if (json_is_true(below)) {
                l->below = META_ORIGIN;
        } else if (json_is_false(below)) {
                l->below = META_GROUND;
        } else {
                return -EUCLEAN;
        }
        return 0;
}

static int parse_layers(const json_t *list, int format, struct meta *m)
{
        json_t *item;
        size_t i;

        json_array_foreach (list, i, item) {
                json_int_t n = -1, size = -1;

                if (json_unpack(item, "{s:I, s:I}", "n", &n, "size", &size) < 0 || n < 0 ||
                    n > INT32_MAX || size <= 0 || (uint64_t)size > VOLUME_SIZE_MAX ||
                    size % VOLUME_SECTOR)
                        return -EUCLEAN;
                if (i > 0 && (n <= meta_top(m)->n ||
                              (format < FORMAT_TREE && (uint64_t)size < meta_top(m)->size)))
                        return -EUCLEAN;
                if (meta_push(m, n, size) < 0 ||
                    (format >= FORMAT_TREE && parse_tree(item, m, &m->layers[i]) < 0))
                        return -EUCLEAN;
        }
        return m->nlayers > 0 ? 0 : -EUCLEAN;
}

/* No two have a file in common, and what says that it lies on the origin has one. */
static int check_layers(const struct meta *m)
{
        for (unsigned i = 0; i < m->nlayers; i++) {
                const struct meta_layer *l = &m->layers[i];

                if (l->below == META_ORIGIN && !m->origin[0])
                        return -EUCLEAN;
                for (unsigned k = 0; k < i; k++)
                        if (m->layers[k].data == l->data ||
                            (meta_mapped(m, i) && meta_mapped(m, k) && m->layers[k].map == l->map))
                                return -EUCLEAN;
        }
        return m->origin[0] && !meta_on_origin(m) ? -EUCLEAN : 0;
}

static int parse_origin(json_t *origin, struct meta *m)
{
        const char *volume = NULL;
        json_int_t layer = -1;

        if (!origin)
                return 0;
        if (json_unpack(origin, "{s:s, s:I}", "volume", &volume, "layer", &layer) < 0 ||
            layer < 0 || layer > INT32_MAX || !id_copy(m->origin, volume))
                return -EUCLEAN;
        m->origin_layer = layer;
        return 0;
}

static int parse_fields(json_t *o, struct meta *m, struct err **e)
{
        const char *id = NULL, *parent = NULL;
        int format = 0, immutable = 0, removed = 0, flatten = 0;
        json_t *layers = NULL, *origin = NULL;

        if (json_unpack(o, "{s:i}", "format", &format) < 0 || format < 1)
                return err_set(e, -EUCLEAN, "metadata has no format number");
        if (format > FORMAT)
                return err_set(e, -ENOTSUP, "metadata has format %d, this program knows %d", format,
                               FORMAT);
        if (json_unpack(o, "{s:s, s?s, s?b, s?b, s?b, s:o, s?o}", "id", &id, "parent", &parent,
                        "immutable", &immutable, "removed", &removed, "flatten", &flatten, "layers",
                        &layers, "origin", &origin) < 0 ||
            !id_copy(m->id, id) || (parent && !id_copy(m->parent, parent)) ||
            !json_is_array(layers) || parse_origin(origin, m) < 0 ||
            parse_layers(layers, format, m) < 0 || check_layers(m) < 0 ||
            (immutable && (m->nlayers != 1 || (m->origin[0] && format < FORMAT_SNAPSHOT))))
                return err_set(e, -EUCLEAN, "metadata makes no sense");
        m->immutable = immutable;
        m->removed = removed;
        m->flatten = flatten;
        return 0;
}

int meta_parse(const char *text, size_t n, struct meta *ret, struct err **e)
{
        json_auto_t *o = json_loadb(text, n, JSON_REJECT_DUPLICATES, NULL);
        struct meta m = {};
        int r;

        if (!o)
                return err_set(e, -EUCLEAN, "metadata is no JSON");
        r = parse_fields(o, &m, e);
        if (r < 0) {
                meta_done(&m);
                return r;
        }
        *ret = m;
        return 0;
}

/* The text ends with its own checksum, as JSON's last member: of all bytes before the comma. */
enum { SEAL = sizeof(",\"crc32c\":\"01234567\"}") - 1 };

static void seal(char out[SEAL + 1], const char *text, size_t n)
{
        snprintf(out, SEAL + 1, ",\"crc32c\":\"%08x\"}", crc32c(0, text, n));
}

/* Text without a checksum is from before there were any. */
static bool seal_broken(const char *text, size_t n)
{
        char want[SEAL + 1];

        if (n <= SEAL || memcmp(text + n - SEAL, ",\"crc32c\":\"", 11) != 0)
                return false;
        seal(want, text, n - SEAL);
        return memcmp(text + n - SEAL, want, SEAL) != 0;
}

static int read_copy(const char *dir, const char *name, struct meta *ret, struct err **e)
{
        _cleanup_free_ char *path = path_printf("%s/%s", dir, name);
        _cleanup_free_ char *text = NULL;
        size_t n;
        int r;

        if (!path)
                return err_errno(e, -ENOMEM, "metadata");
        r = file_read(path, META_FILE_MAX, &text, &n, e);
        if (r < 0)
                return r;
        r = seal_broken(text, n) ? err_set(e, -EUCLEAN, "metadata does not match its checksum")
                                 : meta_parse(text, n, ret, e);
        return r < 0 ? err_prepend(e, r, "'%s'", path) : 0;
}

bool meta_damaged(const char *dir, const char *name)
{
        struct meta m = {};
        int r = read_copy(dir, name, &m, NULL);

        meta_done(&m);
        return r == -EUCLEAN;
}

int meta_read(const char *dir, struct meta *ret, struct err **e)
{
        _cleanup_err_ struct err *why = NULL;
        int r = read_copy(dir, META_NAME, ret, &why);

        if (r == -EUCLEAN && read_copy(dir, META_COPY, ret, NULL) == 0) {
                log_error("%s: its copy is used", err_msg(why));
                return 0;
        }
        return r < 0 ? err_move(e, TAKE_PTR(why)) : 0;
}

static bool is_default(const struct meta *m, unsigned i)
{
        const struct meta_layer *l = &m->layers[i];

        return l->below == below_default(m, i) && l->data == l->n && l->overlap == UINT64_MAX &&
               (l->map == l->n || !meta_mapped(m, i)) &&
               (i == 0 || l->size >= m->layers[i - 1].size);
}

static int format_of(const struct meta *m)
{
        for (unsigned i = 0; i < m->nlayers; i++)
                if (!is_default(m, i) || m->flatten)
                        return FORMAT_TREE;
        return m->immutable && m->origin[0] ? FORMAT_SNAPSHOT : FORMAT_FIRST;
}

/* Takes v; NULL is no memory. */
static void put(json_t *o, const char *key, json_t *v, bool *failed)
{
        *failed |= json_object_set_new(o, key, v) < 0;
}

static json_t *layer_json(const struct meta *m, unsigned i)
{
        const struct meta_layer *l = &m->layers[i];
        json_auto_t *o =
                json_pack("{s:I, s:I}", "n", (json_int_t)l->n, "size", (json_int_t)l->size);
        bool failed = !o;

        if (l->data != l->n)
                put(o, "data", json_integer(l->data), &failed);
        if (l->map != l->n && meta_mapped(m, i))
                put(o, "map", json_integer(l->map), &failed);
        if (l->overlap != UINT64_MAX)
                put(o, "overlap", json_integer(l->overlap), &failed);
        if (l->below != below_default(m, i))
                put(o, "below",
                    l->below >= 0 ? json_integer(l->below) : json_boolean(l->below == META_ORIGIN),
                    &failed);
        return failed ? NULL : json_incref(o);
}

/* NULL without memory: what is left out reads as if it had never been, a snapshot without its
 * origin as zeros. */
static json_t *meta_json(const struct meta *m)
{
        json_auto_t *o =
                json_pack("{s:i, s:s, s:[]}", "format", format_of(m), "id", m->id, "layers");
        json_t *layers = json_object_get(o, "layers");
        bool failed = !o;

        for (unsigned i = 0; i < m->nlayers; i++)
                failed |= json_array_append_new(layers, layer_json(m, i)) < 0;
        if (m->parent[0])
                put(o, "parent", json_string(m->parent), &failed);
        if (m->origin[0])
                put(o, "origin",
                    json_pack("{s:s, s:I}", "volume", m->origin, "layer",
                              (json_int_t)m->origin_layer),
                    &failed);
        if (m->immutable)
                put(o, "immutable", json_true(), &failed);
        if (m->removed)
                put(o, "removed", json_true(), &failed);
        if (m->flatten)
                put(o, "flatten", json_true(), &failed);
        return failed ? NULL : json_incref(o);
}

/* The caller frees; NULL without memory. */
static char *meta_text(const struct meta *m)
{
        json_auto_t *o = meta_json(m);
        _cleanup_free_ char *text = o ? json_text(o, JSON_COMPACT) : NULL;
        size_t n = text ? strlen(text) - 1 : 0; /* without the last brace */
        char end[SEAL + 1];

        if (!text)
                return NULL;
        seal(end, text, n);
        return path_printf("%.*s%s", (int)n, text, end);
}

/* Under its name, but not synced. */
static int copy_write(const char *path, const char *text)
{
        _cleanup_free_ char *tmp = path_printf("%s.new", path);
        _cleanup_close_ int fd =
                tmp ? open(tmp, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600) : -1;
        int r;

        if (fd < 0)
                return tmp ? -errno : -ENOMEM;
        r = write_full(fd, text, strlen(text));
        return r == 0 && rename(tmp, path) < 0 ? -errno : r;
}

int meta_write(const char *dir, const struct meta *m, struct err **e)
{
        _cleanup_free_ char *path = path_printf("%s/" META_NAME, dir);
        _cleanup_free_ char *copy = path_printf("%s/" META_COPY, dir);
        _cleanup_free_ char *text = meta_text(m);
        int r;

        if (!text || !path || !copy)
                return err_errno(e, -ENOMEM, "metadata");
        /* The copy's new name is in the folder before the other's, so it is never older;
         * whether its bytes got there its checksum tells, and the next start sees to it. */
        r = copy_write(copy, text);
        if (r < 0)
                return err_errno(e, r, "write '%s'", copy);
        r = file_replace(path, text, strlen(text), 0600, e);
        if (r < 0)
                unlink(copy); /* it says what did not happen */
        else if ((r = FAULT("volume.meta")) < 0)
                err_errno(e, r, "sync '%s'", dir);
        return r;
}

unsigned meta_bad(const char *dir, const struct meta *m)
{
        static const char *const names[] = {META_NAME, META_COPY};
        _cleanup_free_ char *want = meta_text(m);
        unsigned bad = 0;

        for (size_t i = 0; want && i < ARRAY_SIZE(names); i++) {
                _cleanup_free_ char *path = path_printf("%s/%s", dir, names[i]);
                _cleanup_free_ char *text = NULL;
                size_t n = 0;

                if (!path || file_read(path, META_FILE_MAX, &text, &n, NULL) < 0 ||
                    n != strlen(want) || memcmp(text, want, n) != 0)
                        bad |= 1U << i;
        }
        return bad;
}

void meta_done(struct meta *m)
{
        free(m->layers);
        *m = (struct meta){};
}

int meta_copy(const struct meta *from, struct meta *ret)
{
        *ret = *from;
        ret->layers = reallocarray(NULL, from->nlayers, sizeof(*ret->layers));
        if (!ret->layers)
                return -ENOMEM;
        memcpy(ret->layers, from->layers, from->nlayers * sizeof(*ret->layers));
        return 0;
}

bool meta_same(const struct meta *a, const struct meta *b)
{
        return streq(a->id, b->id) && streq(a->parent, b->parent) && streq(a->origin, b->origin) &&
               (!a->origin[0] || a->origin_layer == b->origin_layer) &&
               a->immutable == b->immutable && a->removed == b->removed &&
               a->flatten == b->flatten && a->nlayers == b->nlayers &&
               memcmp(a->layers, b->layers, a->nlayers * sizeof(*a->layers)) == 0;
}

int meta_find(const struct meta *m, unsigned n)
{
        unsigned from = 0, to = m->nlayers;

        while (from < to) {
                unsigned i = (from + to) / 2;

                if (m->layers[i].n == n)
                        return i;
                if (m->layers[i].n < n)
                        from = i + 1;
                else
                        to = i;
        }
        return -1;
}
