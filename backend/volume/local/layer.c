#include "backend/volume/local/layer.h"

#include <fcntl.h>
#include <sys/stat.h>

#include "backend/volume/local/livemap.h"
#include "backend/volume/local/sums.h"
#include "common/fault.h"
#include "common/fileio.h"
#include "common/log.h"
#include "common/name.h"

enum { COMPACT_MIN = 1 << 20 };

char *layer_data_path(const char *dir, unsigned n)
{
        return path_printf("%s/data.%u", dir, n);
}

char *layer_log_path(const char *dir, unsigned n)
{
        return path_printf("%s/map.%u", dir, n);
}

char *layer_live_path(const char *run, const char *volume, unsigned n)
{
        return path_printf("%s/map/%s.%u", run, volume, n);
}

ssize_t layer_log_read(void *arg, void *p, size_t n, uint64_t off)
{
        size_t done = 0;

        while (done < n) {
                ssize_t r = pread(*(int *)arg, (char *)p + done, n - done, off + done);

                if (r < 0 && errno == EINTR)
                        continue;
                if (r < 0)
                        return -errno;
                if (r == 0)
                        break;
                done += r;
        }
        return done;
}

static int open_map(struct layer *l, const struct layer_open *o, struct err **e)
{
        _cleanup_free_ char *path = layer_log_path(o->dir, o->map);
        int fd;

        if (!path)
                return err_errno(e, -ENOMEM, "layer");
        fd = open(path, (o->writable ? O_RDWR | O_CREAT : O_RDONLY) | O_CLOEXEC, 0600);
        if (fd < 0)
                return err_errno(e, -errno, "open '%s'", path);
        if (!o->writable) {
                int r = livemap_load(l, fd, o->may_be_torn, e);

                close(fd);
                return r;
        }
        l->log_fd = fd;
        l->live_path = layer_live_path(o->run, o->volume, o->map);
        if (!l->live_path)
                return err_errno(e, -ENOMEM, "layer");
        return livemap_open(l, e);
}

/* -1 where it cannot be, or not with blocks of ours. */
static int open_direct(const char *path, bool writable)
{
        int fd = open(path, (writable ? O_RDWR : O_RDONLY) | O_DIRECT | O_CLOEXEC);
        struct statx sx;

        if (fd >= 0 && statx(fd, "", AT_EMPTY_PATH, STATX_DIOALIGN, &sx) == 0 &&
            sx.stx_mask & STATX_DIOALIGN &&
            (sx.stx_dio_offset_align == 0 || sx.stx_dio_offset_align > MAP_BLOCK ||
             sx.stx_dio_mem_align > MAP_BLOCK)) {
                close(fd);
                return -1;
        }
        return fd;
}

static int open_files(struct layer *l, const struct layer_open *o, struct err **e)
{
        _cleanup_free_ char *path = layer_data_path(o->dir, o->data);
        struct stat st;
        int r;

        l->dir = strdup(o->dir);
        if (!path || !l->dir)
                return err_errno(e, -ENOMEM, "layer");
        l->fd = open(path, (o->writable ? O_RDWR : O_RDONLY) | O_CLOEXEC);
        if (l->fd < 0 || fstat(l->fd, &st) < 0)
                return err_errno(e, -errno, "open '%s'", path);
        if (o->writable && (uint64_t)st.st_size < o->size && ftruncate(l->fd, o->size) < 0)
                return err_errno(e, -errno, "grow '%s'", path);
        l->bytes = o->writable ? MAX((uint64_t)st.st_size, o->size) : (uint64_t)st.st_size;
        r = id_parse(o->volume, &l->id.volume);
        if (r < 0)
                return err_errno(e, r, "layer");
        /* A frozen one stays so; a writable one may get holes, and that is only a hint less good.
         */
        l->dense = (uint64_t)st.st_blocks * 512 >= o->size;
        if (o->direct)
                l->direct_fd = open_direct(path, o->writable);
        if (o->writable && l->direct_fd < 0)
                folios_init(&l->folios, l->fd, o->size);
        if (!o->writable && (r = sums_open(l, e)) < 0)
                return r;
        return o->mapped ? open_map(l, o, e) : 0;
}

int layer_open(const struct layer_open *o, struct layer **ret, struct err **e)
{
        struct layer *l = calloc(1, sizeof(*l));
        pthread_rwlockattr_t attr;
        int r;

        if (!l)
                return err_errno(e, -ENOMEM, "layer");
        *l = (struct layer){.refs = 1,
                            .fd = -1,
                            .direct_fd = -1,
                            .durable_fd = -1,
                            .log_fd = -1,
                            .live_fd = -1,
                            .lent = 1,
                            .size = o->size,
                            .overlap = o->overlap,
                            .mapped = o->mapped,
                            .id.layer = o->map,
                            .data = o->data};
        pthread_rwlockattr_init(&attr);
        pthread_rwlockattr_setkind_np(&attr, PTHREAD_RWLOCK_PREFER_WRITER_NONRECURSIVE_NP);
        pthread_rwlock_init(&l->alloc, &attr);
        pthread_rwlockattr_destroy(&attr);
        r = open_files(l, o, e);
        if (r < 0) {
                layer_free(l);
                return r;
        }
        l->parent = o->parent;
        *ret = l;
        return 0;
}

void layer_free(struct layer *l)
{
        if (!l || atomic_fetch_sub(&l->lent, 1) > 1)
                return;
        map_done(&l->map);
        sums_free(l->sums);
        if (l->fd >= 0)
                close(l->fd);
        if (l->direct_fd >= 0)
                close(l->direct_fd);
        if (l->durable_fd >= 0)
                close(l->durable_fd);
        if (l->log_fd >= 0)
                close(l->log_fd);
        folios_done(&l->folios);
        if (l->live_fd >= 0)
                close(l->live_fd);
        pthread_rwlock_destroy(&l->alloc);
        free(l->live_path);
        free(l->dir);
        free(l);
}

bool layer_unsettled(const struct layer *l)
{
        return l && l->live_path;
}

void layer_freeze(struct layer *l)
{
        if (l->durable_fd >= 0)
                close(atomic_exchange(&l->durable_fd, -1));
        if (!l->live_path)
                return;
        unlink(l->live_path);
        free(TAKE_PTR(l->live_path));
        close(TAKE_FD(l->log_fd));
}

int layer_grow(struct layer *l, uint64_t size)
{
        int r = 0;

        if (ftruncate(l->fd, size) < 0)
                return -errno;
        l->bytes = size;
        folios_grow(&l->folios, size);
        if (l->mapped)
                r = livemap_grow(l, (size + MAP_BLOCK - 1) / MAP_BLOCK);
        if (r == 0)
                l->size = size;
        return r;
}

/* Appends one group of lines to fd at *end.  Not synced. */
static int append(int fd, uint64_t *end, uint64_t group, const uint64_t *lines,
                  const uint8_t *bytes, size_t n, bool last)
{
        _cleanup_free_ uint8_t *buf =
                malloc(MAPLOG_BATCH + MIN(n, (size_t)MAPLOG_COUNT_MAX) * MAPLOG_RECORD);

        if (!buf)
                return -ENOMEM;
        for (size_t i = 0; i < n;) {
                size_t k = MIN(n - i, (size_t)MAPLOG_COUNT_MAX), len;
                int r;

                len = maplog_batch(buf, group, last && i + k == n, lines + i,
                                   bytes + i * MAP_LINE_BYTES, k);
                r = pwrite_full(fd, buf, len, *end);
                if (r < 0)
                        return r;
                *end += len;
                i += k;
        }
        return 0;
}

static int append_header(int fd, const struct maplog_id *id, uint64_t *end)
{
        uint8_t h[MAPLOG_HEADER];
        int r;

        maplog_header(h, id);
        r = pwrite_full(fd, h, sizeof(h), 0);
        if (r == 0)
                *end = sizeof(h);
        return r;
}

/* Behind a group that was synced: the next group, which says a line of it again and is overwritten
 * by the next flush.  With it behind, a group that is bad was damaged and is no torn tail.  It is
 * not waited for until the layer is frozen. */
static void append_mark(struct layer *l, uint64_t line, const uint8_t *bytes)
{
        uint64_t at = l->log_end;

        if (append(l->log_fd, &at, l->log_next, &line, bytes, 1, true) < 0 &&
            ftruncate(l->log_fd, l->log_end) < 0)
                log_debug("a map log has half a mark: %m");
        l->mark_unsynced = true;
}

/* What the system says is for the log: who asked is told that nothing is sure any more. */
static int broken(const struct layer *l, const char *what, int r)
{
        log_error("layer %u in '%s': %s: %s", l->id.layer, l->dir, what, strerror(-r));
        return -EIO;
}

int layer_settle(struct layer *l)
{
        int r = l->mark_unsynced ? FAULT("volume.maplog.sync") : 0;

        if (r == 0 && l->mark_unsynced && fdatasync(l->log_fd) < 0)
                r = -errno;
        if (r == 0)
                l->mark_unsynced = false;
        return r < 0 ? broken(l, "sync of the map log", r) : 0;
}

static int log_lines(struct layer *l, const uint64_t *lines, const uint8_t *bytes, size_t n)
{
        uint64_t end = l->log_end;
        int r = FAULT("volume.maplog");

        if (r == 0 && end == 0)
                r = append_header(l->log_fd, &l->id, &end);
        if (r == 0)
                r = append(l->log_fd, &end, l->log_next, lines, bytes, n, true);
        if (r < 0) {
                /* Nothing was promised: the log goes back to where it was. */
                if (ftruncate(l->log_fd, l->log_end) < 0 || map_put_dirty(&l->map, lines, n) < 0)
                        return broken(l, "cut the map log", -errno);
                return r == -EDQUOT || r == -ENOMEM ? -ENOSPC : r;
        }
        r = FAULT("volume.maplog.sync");
        if (r == 0 && fdatasync(l->log_fd) < 0)
                r = -errno;
        if (r < 0)
                return broken(l, "sync of the map log", r);
        l->log_end = end;
        l->log_next++;
        append_mark(l, lines[n - 1], bytes + (n - 1) * MAP_LINE_BYTES);
        return 0;
}

static int sync_log(struct layer *l)
{
        _cleanup_free_ char *path = layer_log_path(l->dir, l->id.layer);
        int r = path ? FAULT("volume.maplog.sync") : -ENOMEM;

        if (r == 0 && fdatasync(l->log_fd) < 0)
                r = -errno;
        if (r == 0)
                r = fsync_parent(path);
        if (r == 0)
                l->log_unsynced = false;
        return r;
}

static int flush(struct layer *l)
{
        _cleanup_free_ uint64_t *lines = NULL;
        _cleanup_free_ uint8_t *bytes = NULL;
        size_t n = 0;
        int r = 0;

        /* First the lines, then the data: a bit that is set has its data written, so the sync
         * covers it. */
        if (l->log_fd >= 0)
                r = map_take_dirty(&l->map, &lines, &bytes, &n);
        if (r < 0)
                return -ENOSPC;
        r = FAULT("volume.sync");
        if (r == 0 && fdatasync(l->fd) < 0)
                r = -errno;
        if (r == 0 && l->log_unsynced)
                r = sync_log(l);
        if (r < 0)
                return broken(l, "sync", r);
        return n > 0 ? log_lines(l, lines, bytes, n) : 0;
}

int layer_flush(struct layer *l)
{
        int r;

        l->flushes++;
        folios_sync(&l->folios);
        r = flush(l);
        folios_sync(&l->folios);
        /* After a failure nothing is settled any more: the lines that were taken are not logged. */
        if (r == 0 || r == -ENOSPC)
                l->flushes++;
        return r;
}

bool layer_wants_compact(const struct layer *l)
{
        return l->log_fd >= 0 && l->log_end > COMPACT_MIN + 2 * l->map.live * MAPLOG_RECORD;
}

/* All lines of the map as group 1 of fd. */
static int write_all(const struct map *m, const struct maplog_id *id, int fd, uint64_t *end)
{
        enum { N = 1024 };
        _cleanup_free_ uint64_t *lines = malloc(N * sizeof(*lines));
        _cleanup_free_ uint8_t *bytes = malloc(N * MAP_LINE_BYTES);
        uint64_t line = map_next_line(m, 0);
        int r = append_header(fd, id, end);

        if (!lines || !bytes)
                return -ENOMEM;
        while (r == 0 && line != UINT64_MAX) {
                size_t n = 0;

                for (; n < N && line != UINT64_MAX; line = map_next_line(m, line + 1)) {
                        lines[n] = line;
                        map_get_line(m, line, bytes + n++ * MAP_LINE_BYTES);
                }
                r = append(fd, end, 1, lines, bytes, n, line == UINT64_MAX);
        }
        return r;
}

/* With a mark behind, as append_mark() makes: here all of the file is synced before it counts. */
static int write_log(const struct map *m, const struct maplog_id *id, int fd, uint64_t *ret_end)
{
        uint64_t line = map_next_line(m, 0), end = 0;
        uint8_t bytes[MAP_LINE_BYTES];
        int r = write_all(m, id, fd, &end);

        *ret_end = end;
        if (r < 0 || line == UINT64_MAX)
                return r;
        map_get_line(m, line, bytes);
        return append(fd, &end, 2, &line, bytes, 1, true);
}

int layer_relog(struct layer *l, uint64_t *ret_end, int *ret_fd)
{
        _cleanup_free_ char *path = layer_log_path(l->dir, l->id.layer);
        _cleanup_free_ char *tmp = path ? path_printf("%s.new", path) : NULL;
        _cleanup_close_ int fd = -1;
        int r;

        if (!tmp)
                return -ENOMEM;
        fd = open(tmp, O_RDWR | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
        if (fd < 0)
                return -errno;
        r = write_log(&l->map, &l->id, fd, ret_end);
        if (r == 0 && fdatasync(fd) < 0)
                r = -errno;
        if (r == 0 && rename(tmp, path) < 0)
                r = -errno;
        if (r < 0) {
                unlink(tmp); /* the old log is as good */
                return r;
        }
        *ret_fd = TAKE_FD(fd);
        /* Were the new name lost, later appends would be too. */
        r = fsync_parent(path);
        return r < 0 ? broken(l, "sync of the folder", r) : 0;
}

int layer_log_write(const struct map *m, const struct maplog_id *id, const char *path)
{
        _cleanup_close_ int fd = open(path, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
        uint64_t end;
        int r = fd < 0 ? -errno : write_log(m, id, fd, &end);

        return r == 0 && fdatasync(fd) < 0 ? -errno : r;
}

int layer_compact(struct layer *l)
{
        uint64_t end = 0;
        int fd = -1, r = layer_relog(l, &end, &fd);

        if (fd < 0)
                return r;
        close(l->log_fd);
        l->log_fd = fd;
        l->log_end = end;
        l->log_next = 2;
        return r;
}
