#include "backend/volume/local/livemap.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <systemd/sd-id128.h>

#include "common/fileio.h"
#include "common/log.h"

enum { HEADER = 4096 };

struct header {
        char magic[8];
        sd_id128_t boot;
        sd_id128_t volume;
        uint32_t layer;
        uint32_t zero;
};

static int header_make(const struct layer *l, struct header *h)
{
        *h = (struct header){.magic = "STRALIV1", .volume = l->id.volume, .layer = l->id.layer};
        return sd_id128_get_boot(&h->boot);
}

static uint64_t blocks_of(const struct layer *l)
{
        return (l->size + MAP_BLOCK - 1) / MAP_BLOCK;
}

static int mend_header(struct layer *l, struct err **e)
{
        uint8_t h[MAPLOG_HEADER];
        int r;

        maplog_header(h, &l->id);
        r = pwrite_full(l->log_fd, h, sizeof(h), 0);
        if (r == 0 && fdatasync(l->log_fd) < 0)
                r = -errno;
        return r < 0 ? err_errno(e, r, "mend map log") : 0;
}

static int replay(struct layer *l, int log_fd, struct map *m, bool *ret_torn, struct err **e)
{
        const struct maplog_source src = {.read = layer_log_read, .arg = &log_fd};
        struct maplog_end end;
        int r = maplog_replay(&src, &l->id, m, &end, e);

        if (r < 0)
                return err_prepend(e, r, "map of layer %u", l->id.layer);
        l->log_end = end.end;
        l->log_next = end.next;
        *ret_torn = end.torn;
        if (!end.header)
                return 0;
        log_error("layer %u in '%s': the header of its map log is damaged", l->id.layer, l->dir);
        return log_fd == l->log_fd ? mend_header(l, e) : 0;
}

int livemap_load(struct layer *l, int log_fd, struct err **e)
{
        int r = map_init(&l->map, blocks_of(l), -1, 0);
        bool torn;

        if (r < 0)
                return err_errno(e, r, "map");
        r = replay(l, log_fd, &l->map, &torn, e);
        if (r == 0 && torn)
                r = err_set(e, -EUCLEAN, "the end of the map log of frozen layer %u is damaged",
                            l->id.layer);
        return r;
}

/* What differs from the log is not on disk yet. */
static int mark_unlogged(struct map *live, const struct map *logged)
{
        uint8_t a[MAP_LINE_BYTES], b[MAP_LINE_BYTES];
        uint64_t line = 0;

        for (;;) {
                uint64_t in_live = map_next_line(live, line), in_log = map_next_line(logged, line);

                line = MIN(in_live, in_log);
                if (line == UINT64_MAX)
                        return 0;
                map_get_line(live, line, a);
                map_get_line(logged, line, b);
                if (memcmp(a, b, sizeof(a)) != 0) {
                        int r = map_put_dirty(live, &line, 1);

                        if (r < 0)
                                return r;
                }
                line++;
        }
}

/* 1 when a live map of this boot was there and is now l->map, 0 when there is none. */
static int attach(struct layer *l, bool *ret_torn, struct err **e)
{
        struct header want, got;
        struct map logged;
        struct stat st;
        int r;

        l->live_fd = open(l->live_path, O_RDWR | O_CLOEXEC);
        if (l->live_fd < 0)
                return errno == ENOENT ? 0 : err_errno(e, -errno, "open '%s'", l->live_path);
        r = header_make(l, &want);
        if (r < 0)
                return err_errno(e, r, "boot id");
        if (pread_full(l->live_fd, &got, sizeof(got), 0) < 0 ||
            memcmp(&got, &want, sizeof(got)) != 0 || fstat(l->live_fd, &st) < 0) {
                close(TAKE_FD(l->live_fd));
                return 0;
        }
        if ((uint64_t)st.st_size < HEADER + map_bytes(blocks_of(l)) &&
            ftruncate(l->live_fd, HEADER + map_bytes(blocks_of(l))) < 0)
                return err_errno(e, -errno, "grow '%s'", l->live_path);
        r = map_init(&l->map, blocks_of(l), l->live_fd, HEADER);
        if (r == 0)
                r = map_adopt(&l->map);
        if (r < 0)
                return err_errno(e, r, "map '%s'", l->live_path);
        r = map_init(&logged, blocks_of(l), -1, 0);
        if (r == 0)
                r = replay(l, l->log_fd, &logged, ret_torn, e);
        if (r == 0)
                r = mark_unlogged(&l->map, &logged);
        map_done(&logged);
        return r < 0 ? r : 1;
}

/* A new one, filled from the log, complete before it gets its name. */
static int make(struct layer *l, bool *ret_torn, struct err **e)
{
        _cleanup_free_ char *tmp = path_printf("%s.new", l->live_path);
        struct header h;
        int r;

        if (!tmp)
                return err_errno(e, -ENOMEM, "map");
        l->live_fd = open(tmp, O_RDWR | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
        if (l->live_fd < 0)
                return err_errno(e, -errno, "create '%s'", tmp);
        r = header_make(l, &h);
        if (r == 0)
                r = pwrite_full(l->live_fd, &h, sizeof(h), 0);
        if (r == 0 && ftruncate(l->live_fd, HEADER + map_bytes(blocks_of(l))) < 0)
                r = -errno;
        if (r == 0)
                r = map_init(&l->map, blocks_of(l), l->live_fd, HEADER);
        if (r < 0)
                return err_errno(e, r, "create '%s'", tmp);
        r = replay(l, l->log_fd, &l->map, ret_torn, e);
        if (r < 0)
                return r;
        if (rename(tmp, l->live_path) < 0)
                return err_errno(e, -errno, "rename '%s'", tmp);
        return 0;
}

int livemap_open(struct layer *l, struct err **e)
{
        bool torn = false;
        int r = attach(l, &torn, e);

        if (r == 0)
                r = make(l, &torn, e);
        if (r < 0)
                return r;
        /* Drops a torn tail, so that what is appended follows what is good. */
        if (ftruncate(l->log_fd, l->log_end) < 0)
                return err_errno(e, -errno, "truncate map log");
        l->log_unsynced = l->log_end > 0 || torn;
        return 0;
}

int livemap_grow(struct layer *l, uint64_t blocks)
{
        if (l->live_fd >= 0 && ftruncate(l->live_fd, HEADER + map_bytes(blocks)) < 0)
                return -errno;
        return map_grow(&l->map, blocks);
}
