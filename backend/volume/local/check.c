/* Checks a pool at rest. */
#include <dirent.h>
#include <fcntl.h>
#include <sys/stat.h>

#include "backend/volume/local/local.h"
#include "backend/volume/local/pool.h"
#include "common/fileio.h"
#include "common/name.h"

struct check {
        const char *pool;
        bool repair;
        FILE *out;
        int findings;
};

static void finding(struct check *c, bool mended, const char *id, const char *words)
{
        fprintf(c->out, "volume %s: %s%s\n", id, words, mended ? " (mended)" : "");
        c->findings += !mended;
}

static bool mend_header(int fd, const struct maplog_id *id)
{
        uint8_t h[MAPLOG_HEADER];

        maplog_header(h, id);
        return pwrite_full(fd, h, sizeof(h), 0) == 0 && fdatasync(fd) == 0;
}

static void check_log(struct check *c, const struct meta *m, const char *dir, unsigned i)
{
        _cleanup_free_ char *path = layer_log_path(dir, m->layers[i].map);
        struct maplog_source src = {.read = layer_log_read};
        struct maplog_id id = {.layer = m->layers[i].map};
        _cleanup_err_ struct err *e = NULL;
        _cleanup_close_ int fd = -1;
        struct maplog_end end;
        struct map map;

        fd = path ? open(path, (c->repair ? O_RDWR : O_RDONLY) | O_CLOEXEC) : -1;
        if (fd < 0) {
                finding(c, false, m->id, "a map log cannot be opened");
                return;
        }
        src.arg = &fd;
        id_parse(m->id, &id.volume);
        if (map_init(&map, (m->layers[i].size + MAP_BLOCK - 1) / MAP_BLOCK, -1, 0) < 0 ||
            maplog_replay(&src, &id, &map, &end, &e) < 0)
                finding(c, false, m->id, err_msg(e));
        else if (end.header)
                finding(c, c->repair && mend_header(fd, &id), m->id,
                        "the header of a map log is damaged; what follows it is good");
        else if (end.torn && (m->immutable || i + 1 < m->nlayers))
                finding(c, false, m->id, "the end of a frozen layer's map log is damaged");
        else if (end.torn)
                finding(c, c->repair && ftruncate(fd, end.end) == 0, m->id,
                        "a map log has a torn tail; nobody was told that it is durable");
        map_done(&map);
}

/* One of the two was good: m. */
static void check_copies(struct check *c, const struct meta *m, const char *dir)
{
        static const char *const names[] = {META_NAME, META_COPY};
        bool bad[ARRAY_SIZE(names)], any = false, mended;

        for (size_t i = 0; i < ARRAY_SIZE(names); i++)
                any |= bad[i] = meta_damaged(dir, names[i]);
        mended = any && c->repair && meta_write(dir, m, NULL) == 0;
        for (size_t i = 0; i < ARRAY_SIZE(names); i++)
                if (bad[i])
                        finding(c, mended, m->id,
                                i == 0 ? "meta is damaged; meta.bak is good"
                                       : "meta.bak is damaged; meta is good");
}

static void check_origin(struct check *c, const struct meta *m)
{
        _cleanup_free_ char *dir = path_printf("%s/%s", c->pool, m->origin);
        struct meta o = {};

        if (!dir || meta_read(dir, &o, NULL) < 0)
                finding(c, false, m->id, "the volume it grew from is missing or unreadable");
        else if (meta_find(&o, m->origin_layer) < 0)
                finding(c, false, m->id, "the layer it grew from is missing");
        meta_done(&o);
}

static void check_failed(struct check *c, const struct meta *m, const char *dir, int before)
{
        _cleanup_free_ char *path = path_printf("%s/failed", dir);

        if (!path || access(path, F_OK) < 0)
                return;
        finding(c,
                c->repair && c->findings == before && unlink(path) == 0 && fsync_parent(path) == 0,
                m->id, "a sync has failed; writes since the flush before it may be lost");
}

static void check_volume(struct check *c, const char *name)
{
        _cleanup_free_ char *dir = path_printf("%s/%s", c->pool, name);
        _cleanup_free_ char *file = path_printf("%s/%s/meta", c->pool, name);
        _cleanup_err_ struct err *e = NULL;
        int before = c->findings;
        struct meta m = {};

        if (!dir || !file)
                return;
        if (access(file, F_OK) < 0 && errno == ENOENT) {
                finding(c, c->repair && remove_tree(dir, NULL) == 0, name, "half made or removed");
                return;
        }
        if (meta_read(dir, &m, &e) < 0 || !streq(m.id, name)) {
                finding(c, false, name, e ? err_msg(e) : "has another's metadata");
                meta_done(&m);
                return;
        }
        check_copies(c, &m, dir);
        for (unsigned i = 0; i < m.nlayers; i++) {
                _cleanup_free_ char *data = layer_data_path(dir, m.layers[i].data);
                struct stat st;

                if (!data || stat(data, &st) < 0 || !S_ISREG(st.st_mode))
                        finding(c, false, name, "a data file is missing");
                if (meta_mapped(&m, i))
                        check_log(c, &m, dir, i);
        }
        if (m.origin[0])
                check_origin(c, &m);
        check_failed(c, &m, dir, before);
        meta_done(&m);
}

int local_check(const char *state, bool repair, FILE *out, struct err **e)
{
        _cleanup_free_ char *pool = path_printf("%s/pool", state);
        struct check c = {.pool = pool, .repair = repair, .out = out};
        struct dirent *de;
        sd_id128_t id;
        DIR *d;

        if (!pool)
                return err_errno(e, -ENOMEM, "check");
        d = opendir(pool);
        if (!d)
                return errno == ENOENT ? 0 : err_errno(e, -errno, "open '%s'", pool);
        while ((de = readdir(d)))
                if (id_parse(de->d_name, &id) == 0)
                        check_volume(&c, de->d_name);
        closedir(d);
        return c.findings;
}
