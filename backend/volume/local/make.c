/* Making volumes: empty, from a file, from another volume as its clone or snapshot.
 *
 * The folder is filled first and the metadata written last: a folder without metadata is a volume
 * that never was, and is collected at the next start. */
#include "backend/volume/local/pool.h"

#include <fcntl.h>
#include <linux/fs.h>
#include <sys/ioctl.h>
#include <sys/stat.h>

#include "common/fault.h"
#include "common/fileio.h"

/* What fills data.0: from a descriptor, or nothing (-1). */
struct source {
        int fd;
        uint64_t len;
};

/* Where the kernel does not copy between these two file systems. */
static int copy_bytes(int from, int to, off_t off, off_t end)
{
        enum { PIECE = 256 << 10 };
        _cleanup_free_ char *p = malloc(PIECE);

        if (!p)
                return -ENOMEM;
        while (off < end) {
                size_t n = MIN((size_t)(end - off), (size_t)PIECE);
                int r = pread_full(from, p, n, off);

                if (r == 0)
                        r = pwrite_full(to, p, n, off);
                if (r < 0)
                        return r;
                off += n;
        }
        return 0;
}

static int copy_piece(int from, int to, off_t off, off_t end)
{
        static const size_t most = 64 << 20;

        while (off < end) {
                loff_t in = off, out = off;
                ssize_t n = copy_file_range(from, &in, to, &out, MIN((size_t)(end - off), most), 0);

                if (n < 0 && errno == EINTR)
                        continue;
                if (n < 0 && (errno == EXDEV || errno == EOPNOTSUPP || errno == EINVAL))
                        return copy_bytes(from, to, off, end);
                if (n <= 0)
                        return n < 0 ? -errno : -ENODATA;
                off += n;
        }
        return 0;
}

/* A sparse copy: shared blocks where the file system can, else bytes. */
static int copy_file(int from, int to, uint64_t len)
{
        off_t off = 0;

        if (ioctl(to, FICLONE, from) == 0)
                return 0;
        while ((uint64_t)off < len) {
                off_t data = lseek(from, off, SEEK_DATA), hole;
                int r;

                if (data < 0)
                        return errno == ENXIO ? 0 : -errno;
                hole = lseek(from, data, SEEK_HOLE);
                r = copy_piece(from, to, data, hole < 0 ? (off_t)len : hole);
                if (r < 0)
                        return r;
                off = hole < 0 ? (off_t)len : hole;
        }
        return 0;
}

static int import_file(const char *path, const struct source *src, struct err **e)
{
        _cleanup_close_ int fd = -1;
        char self[64];
        int r;

        snprintf(self, sizeof(self), "/proc/self/fd/%d", src->fd);
        if (linkat(AT_FDCWD, self, AT_FDCWD, path, AT_SYMLINK_FOLLOW) == 0) {
                if (fdatasync(src->fd) < 0)
                        return err_errno(e, -errno, "sync");
                return 0;
        }
        fd = open(path, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0600);
        if (fd < 0)
                return err_errno(e, -errno, "create '%s'", path);
        r = copy_file(src->fd, fd, src->len);
        if (r == 0 && (ftruncate(fd, src->len) < 0 || fdatasync(fd) < 0))
                r = -errno;
        return r < 0 ? err_errno(e, r, "copy to '%s'", path) : 0;
}

static int empty_file(const char *path, uint64_t size, struct err **e)
{
        _cleanup_close_ int fd = open(path, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0600);

        if (fd < 0 || ftruncate(fd, size) < 0)
                return err_errno(e, -errno, "create '%s'", path);
        return 0;
}

static int fill(struct pool *p, const char *dir, const struct meta *m, const struct source *src,
                struct err **e)
{
        _cleanup_free_ char *data = layer_data_path(dir, 0);
        _cleanup_free_ char *live = layer_live_path(p->run, m->id, 0);
        int r;

        if (!data || !live)
                return err_errno(e, -ENOMEM, "create");
        if (unlink(live) < 0 && errno != ENOENT)
                return err_errno(e, -errno, "remove '%s'", live);
        r = src->fd >= 0 ? import_file(data, src, e) : empty_file(data, meta_top(m)->size, e);
        if (r == 0 && meta_mapped(m, 0)) {
                _cleanup_free_ char *log = layer_log_path(dir, 0);

                r = log ? empty_file(log, 0, e) : err_errno(e, -ENOMEM, "create");
        }
        if (r == 0 && (r = FAULT("volume.create")) < 0)
                err_errno(e, r, "fault point");
        if (r == 0)
                r = meta_write(dir, m, e);
        if (r == 0 && (r = fsync_parent(dir)) < 0)
                err_errno(e, r, "sync '%s'", p->dir);
        return r;
}

static int build(struct pool *p, const struct meta *m, const struct source *src, struct err **e)
{
        _cleanup_free_ char *dir = pool_path(p, m->id);
        _cleanup_free_ char *meta = path_printf("%s/%s/meta", p->dir, m->id);
        int r;

        if (!dir || !meta)
                return err_errno(e, -ENOMEM, "create");
        if (mkdir(dir, 0700) < 0) {
                r = -errno;
                if (r != -EEXIST)
                        return err_errno(e, r, "mkdir '%s'", dir);
                if (access(meta, F_OK) == 0)
                        return err_set(e, r, "'%s' is there, but could not be read at start", dir);
                r = remove_tree(dir, e); /* half made */
                if (r < 0)
                        return r;
                if (mkdir(dir, 0700) < 0)
                        return err_errno(e, -errno, "mkdir '%s'", dir);
        }
        r = fill(p, dir, m, src, e);
        if (r < 0)
                remove_tree(dir, NULL);
        return r;
}

/* With the lock: puts the volume in the table, makes it, takes it out again if that failed. */
static int add(struct pool *p, struct meta *m, const struct source *src, struct err **e)
{
        struct entry *en = pool_add(p, m);
        int r;

        if (!en) {
                meta_done(m);
                return err_errno(e, -ENOMEM, "create");
        }
        en->busy = true;
        pthread_mutex_unlock(&p->lock);
        r = build(p, &en->meta, src, e);
        pthread_mutex_lock(&p->lock);
        if (r < 0)
                pool_drop(p, en);
        else
                pool_release(p, en);
        return r;
}

/* With the lock: the entry, idle, also a removed one. */
static struct entry *find_idle(struct pool *p, const char *id)
{
        struct entry *en;

        while ((en = pool_find(p, id)) && en->busy)
                pthread_cond_wait(&p->idle, &p->lock);
        return en;
}

/* Success if the volume that is there is what was asked for. */
static int same(const struct entry *en, const char *parent, bool immutable, uint64_t size,
                struct err **e)
{
        const struct meta *m = &en->meta;

        if (m->removed)
                return err_set(e, -EEXIST, "it was removed and its clones live on");
        if (!streq(m->parent, parent) || m->immutable != immutable ||
            (size && meta_top(m)->size != size))
                return err_set(e, -EEXIST, "it is there with %llu bytes, %s%s",
                               (unsigned long long)meta_top(m)->size,
                               m->parent[0]   ? m->immutable ? "a snapshot of " : "a clone of "
                               : m->immutable ? "imported"
                                              : "without parent",
                               m->parent);
        return 0;
}

static int meta_new(struct meta *m, const char *id, uint64_t size, struct err **e)
{
        *m = (struct meta){};
        strcpy(m->id, id);
        return meta_push(m, 0, size) < 0 ? err_errno(e, -ENOMEM, "create") : 0;
}

int pool_create(struct pool *p, const char *id, uint64_t size, struct err **e)
{
        const struct source none = {.fd = -1};
        struct entry *en;
        struct meta m;
        int r;

        WITH_LOCK(&p->lock);
        en = find_idle(p, id);
        if (en)
                return same(en, "", false, size, e);
        r = meta_new(&m, id, size, e);
        return r < 0 ? r : add(p, &m, &none, e);
}

int pool_import(struct pool *p, const char *id, const char *path, struct err **e)
{
        _cleanup_close_ int fd = file_open_named(path, O_RDONLY);
        int opened = MIN(fd, 0);
        struct source src = {.fd = fd};
        struct stat st = {};
        struct entry *en;
        struct meta m;
        int r;

        if (opened == 0 && fstat(fd, &st) < 0)
                opened = -errno;
        src.len = st.st_size;
        st.st_size = (st.st_size + VOLUME_SECTOR - 1) / VOLUME_SECTOR * VOLUME_SECTOR;
        WITH_LOCK(&p->lock);
        en = find_idle(p, id);
        if (en) /* the caller may have removed its name since */
                return same(en, "", true, opened == 0 ? st.st_size : 0, e);
        if (opened < 0)
                return err_errno(e, opened, "open '%s'", path);
        if (!S_ISREG(st.st_mode))
                return err_set(e, -EINVAL, "'%s' is no regular file", path);
        if (st.st_size == 0 || (uint64_t)st.st_size > VOLUME_SIZE_MAX)
                return err_set(e, -EINVAL, "'%s' is empty or too large", path);
        r = meta_new(&m, id, st.st_size, e);
        m.immutable = true;
        return r < 0 ? r : add(p, &m, &src, e);
}

static void set_origin(struct meta *m, const char *volume, unsigned layer)
{
        strcpy(m->origin, volume);
        m->origin_layer = layer;
        m->layers[0].below = volume[0] ? META_ORIGIN : META_GROUND;
}

/* What freeze_origin() does with a volume at rest. */
static int freeze_at_rest(struct pool *p, struct entry *en, struct err **e)
{
        const struct meta_layer *top = meta_top(&en->meta);
        _cleanup_free_ char *dir = pool_path(p, en->meta.id);
        _cleanup_free_ char *log = dir ? layer_log_path(dir, top->map) : NULL;
        struct stat st;
        struct meta m;
        int r;

        if (!log || stat(log, &st) < 0)
                return err_errno(e, log ? -errno : -ENOMEM, "map log of volume %s", en->meta.id);
        if (st.st_size == 0 && top->overlap == UINT64_MAX)
                return 0;
        if (meta_copy(&en->meta, &m) < 0)
                return err_errno(e, -ENOMEM, "layer");
        if (meta_push(&m, meta_next(&m), top->size) < 0)
                r = err_errno(e, -EMLINK, "layer");
        else
                r = pool_put_top(p, en, &m, "volume.push", e);
        meta_done(&m);
        return r < 0 ? err_prepend(e, r, "freeze volume %s", en->meta.id) : 0;
}

static int freeze_open(struct pool *p, struct entry *en, struct err **e)
{
        const struct layer *top = en->stack->top;
        int r;

        if (!top->mapped || top->map.live > 0 || top->overlap < UINT64_MAX)
                return pool_push_layer(p, en, e);
        r = stack_settle(en->stack); /* clones will rely on what is below it */
        return r < 0 ? err_errno(e, r, "flush") : 0;
}

/* Sets m's origin to the frozen layer that holds what the writable parent has now. */
static int freeze_origin(struct pool *p, struct entry *parent, struct meta *m, struct err **e)
{
        const struct meta *pm = &parent->meta;
        /* At rest nothing of it need be read: its map may be large. */
        bool rests = parent->rests && meta_mapped(pm, pm->nlayers - 1);
        bool opened = !rests && parent->users == 0;
        int r = opened ? pool_stack_open(p, parent, e) : 0;

        if (r < 0)
                return r;
        r = rests ? freeze_at_rest(p, parent, e) : freeze_open(p, parent, e);
        /* The top is empty: what lies below it is the content. */
        if (r == 0 && meta_top(pm)->below >= 0)
                set_origin(m, pm->id, meta_top(pm)->below);
        else if (r == 0)
                set_origin(m, pm->origin, pm->origin_layer);
        if (opened)
                pool_stack_close(p, parent);
        return r;
}

/* Sets m's origin to the layer that a clone or snapshot of the parent grows from.  The parent is
 * busy, the lock not held. */
static int choose_origin(struct pool *p, struct entry *parent, struct meta *m, struct err **e)
{
        const struct meta *pm = &parent->meta;

        if (!pm->immutable)
                return freeze_origin(p, parent, m, e);
        if (pm->origin[0]) /* a snapshot: its own layer is empty */
                set_origin(m, pm->origin, pm->origin_layer);
        else
                set_origin(m, pm->id, meta_top(pm)->n);
        return 0;
}

/* What a new volume that grows from another shall be. */
struct child {
        const char *id, *parent;
        uint64_t size; /* 0: the parent's */
        bool immutable;
};

/* With the lock: the parent, idle, in *ret.  1 if the child is there already, as it shall be. */
static int find_parent(struct pool *p, const struct child *c, struct entry **ret, struct err **e)
{
        for (;;) {
                struct entry *en = find_idle(p, c->id);
                int r;

                if (en) {
                        r = same(en, c->parent, c->immutable, c->size, e);
                        return r < 0 ? r : 1;
                }
                *ret = pool_find(p, c->parent);
                if (!*ret || (*ret)->meta.removed)
                        return err_set(e, -ENOENT, "there is no parent volume '%s'", c->parent);
                if (!(*ret)->busy)
                        return 0;
                pthread_cond_wait(&p->idle, &p->lock);
        }
}

static int meta_of_child(struct meta *m, const struct child *c, const struct entry *from,
                         struct err **e)
{
        uint64_t least = meta_top(&from->meta)->size;
        int r;

        if (c->size && c->size < least)
                return err_set(e, -EINVAL, "size %llu is less than its parent's, %llu",
                               (unsigned long long)c->size, (unsigned long long)least);
        r = meta_new(m, c->id, c->size ? c->size : least, e);
        strcpy(m->parent, c->parent);
        m->immutable = c->immutable;
        return r;
}

static int grow_child(struct pool *p, const struct child *c, struct err **e)
{
        const struct source none = {.fd = -1};
        struct entry *en, *from, *under;
        struct meta m;
        int r;

        WITH_LOCK(&p->lock);
        r = find_parent(p, c, &from, e);
        if (r != 0)
                return MIN(r, 0);
        r = meta_of_child(&m, c, from, e);
        if (r < 0)
                return r;
        from->busy = true;
        pthread_mutex_unlock(&p->lock);
        r = choose_origin(p, from, &m, e);
        pthread_mutex_lock(&p->lock);
        if (r < 0) {
                meta_done(&m);
                pool_release(p, from);
                return r;
        }
        /* Counted before the parent is let go, so that nobody removes what the child needs. */
        under = pool_find(p, m.origin);
        if (!under || meta_find(&under->meta, m.origin_layer) < 0) {
                r = err_set(e, -EUCLEAN, "layer %u of volume %s, under volume %s, is missing",
                            m.origin_layer, m.origin, c->parent);
                meta_done(&m);
                pool_release(p, from);
                return r;
        }
        under->refs++;
        pool_release(p, from);
        en = find_idle(p, c->id);
        if (en) {
                meta_done(&m);
                r = same(en, c->parent, c->immutable, c->size, e);
                pool_unref(p, under);
                return r;
        }
        r = add(p, &m, &none, e);
        if (r < 0)
                pool_unref(p, under);
        return r;
}

int pool_clone(struct pool *p, const char *id, const char *parent, uint64_t size, struct err **e)
{
        return grow_child(p, &(struct child){.id = id, .parent = parent, .size = size}, e);
}

int pool_snapshot(struct pool *p, const char *id, const char *of, struct err **e)
{
        return grow_child(p, &(struct child){.id = id, .parent = of, .immutable = true}, e);
}
