/* The checked front door: see volume.h. */
#include "backend/volume/pools.h"

#include <assert.h>

#include "common/fault.h"
#include "common/module.h"
#include "common/name.h"

struct volume_changes {
        struct volume *volume;
        void *state;
};

struct volume {
        const struct volume_driver *driver; /* the pool's, or the layer above it */
        void *handle;
        bool readonly;
        char id[VOLUME_ID_SIZE];
};

int volume_check_id(const char *id, struct err **e)
{
        char canonical[ID_TEXT_SIZE];
        sd_id128_t parsed;

        if (id_parse(id, &parsed) < 0 || !streq(id_text(canonical, parsed), id))
                return err_set(e, -EINVAL, "'%.64s' is no volume id (a lower-case UUID)", id);
        return 0;
}

static int check_size(uint64_t size, struct err **e)
{
        if (size == 0 || size % VOLUME_SECTOR != 0)
                return err_set(e, -EINVAL, "size %llu is no positive multiple of %d",
                               (unsigned long long)size, VOLUME_SECTOR);
        if (size > VOLUME_SIZE_MAX)
                return err_set(e, -EINVAL, "size %llu is over the largest, %llu",
                               (unsigned long long)size, (unsigned long long)VOLUME_SIZE_MAX);
        return 0;
}

/* What a driver returned: never a positive number, and words whenever it failed. */
static int checked(int r, struct err **e, const char *what, const char *id)
{
        assert(r <= 0);
        if (r < 0)
                err_prepend(e, r, "%s volume '%s'", what, id);
        return r;
}

int volume_driver_find(const char *name, const struct volume_driver **ret, struct err **e)
{
        static const struct volume_driver *const known[] = {&volume_driver_local,
                                                            &volume_driver_null};
        char file[64];

        for (size_t i = 0; i < ARRAY_SIZE(known); i++)
                if (streq(known[i]->name, name)) {
                        *ret = known[i];
                        return 0;
                }
        if (!name_valid(name) || strlen(name) > 16)
                return err_set(e, -ENOTSUP, "there is no volume driver '%.64s'", name);
        snprintf(file, sizeof(file), "stratofs-volume-%s.so", name);
        return module_load("backend/volume", file, "stratofs_volume_driver", name, ret, e);
}

static bool encrypted(struct side *p, const char *id)
{
        return p->vault && vault_has(p->vault, id);
}

/* A volume of a pool that other hosts have, too, may be new to us. */
static int meet(struct side *p, const char *id, struct err **e)
{
        return p->vault ? vault_meet(p->vault, id, e) : 0;
}

/* Where the volume is, and nobody is taking it elsewhere. */
static int find(struct volume_pool *pool, const char *id, struct side **ret, struct err **e)
{
        int r = volume_check_id(id, e);

        if (r == 0)
                r = pool_check_still(pool, id, e);
        if (r == 0) {
                *ret = pool_side(pool, id, NULL);
                r = meet(*ret, id, e);
        }
        return r;
}

/* Where what is to be made belongs. */
static int find_new(struct volume_pool *pool, const char *id, struct side **ret, struct err **e)
{
        int r = volume_check_id(id, e);

        if (r == 0) {
                *ret = pool_side(pool, id, &pool->sides[0]);
                r = meet(*ret, id, e);
        }
        return r;
}

/* For what makes a plain volume. */
static int find_plain(struct volume_pool *pool, const char *id, struct side **ret, struct err **e)
{
        int r = find_new(pool, id, ret, e);

        if (r == 0 && encrypted(*ret, id))
                return err_set(e, -EEXIST, "volume '%s' is there, encrypted", id);
        return r;
}

/* What grows from another is in the same pool. */
static int find_child(struct volume_pool *pool, const char *id, const char *of, struct side **ret,
                      struct err **e)
{
        struct side *p = NULL;
        int r = volume_check_id(id, e);

        if (r == 0)
                r = find(pool, of, ret, e);
        if (r < 0)
                return r;
        p = pool_side(pool, id, *ret);
        if (p != *ret)
                return err_set(e, -EXDEV, "volume '%s' is in pool '%s', and '%s' is to be in '%s'",
                               of, (*ret)->label, id, p->label);
        return 0;
}

/* What became of a making. */
static int made(struct volume_pool *pool, const char *id, int r, struct err **e, const char *what)
{
        if (r == 0)
                pool_made(pool, id);
        return checked(r, e, what, id);
}

static int check_sectors(uint64_t size, struct err **e)
{
        int r = check_size(size, e);

        if (r == 0 && size % VOLUME_CRYPT_SECTOR != 0)
                return err_set(e, -EINVAL, "size %llu of an encrypted volume is no multiple of %d",
                               (unsigned long long)size, VOLUME_CRYPT_SECTOR);
        return r;
}

int volume_create_encrypted(struct volume_pool *pool, const char *id, uint64_t size,
                            const char *passphrase, struct err **e)
{
        struct side *p = NULL;
        int r = find_new(pool, id, &p, e);

        if (r == 0)
                r = check_sectors(size, e);
        if (r < 0)
                return r;
        if (!p->vault)
                return err_set(e, -ENOTSUP, "%s pools cannot encrypt", p->driver->name);
        return made(pool, id, vault_create(p->vault, id, size, passphrase, e), e,
                    "create encrypted");
}

int volume_key(struct volume_pool *pool, const char *id, const char *passphrase, struct err **e)
{
        struct volume_info info;
        struct side *p = NULL;
        int r = volume_stat(pool, id, &info, e);

        if (r < 0)
                return r;
        if (!info.family[0])
                return err_set(e, -EINVAL, "volume '%s' is not encrypted", id);
        p = pool_side(pool, id, NULL);
        return checked(vault_key(p->vault, id, passphrase, e), e, "unlock", id);
}

int volume_rekey(struct volume_pool *pool, const char *id, const char *passphrase, const char *next,
                 struct err **e)
{
        struct volume_info info;
        struct side *p = NULL;
        int r = volume_stat(pool, id, &info, e);

        if (r < 0)
                return r;
        if (!info.family[0])
                return err_set(e, -EINVAL, "volume '%s' is not encrypted", id);
        p = pool_side(pool, id, NULL);
        return checked(vault_rekey(p->vault, id, passphrase, next, e), e, "rekey", id);
}

void volume_locked(struct volume_pool *p,
                   void (*each)(void *arg, const char *family, const char *id), void *arg)
{
        for (unsigned i = 0; i < p->n; i++)
                if (p->sides[i].vault)
                        vault_locked(p->sides[i].vault, each, arg);
}

int volume_create(struct volume_pool *pool, const char *id, uint64_t size, struct err **e)
{
        struct side *p = NULL;
        int r = find_plain(pool, id, &p, e);

        if (r == 0)
                r = check_size(size, e);
        return r < 0 ? r : made(pool, id, p->driver->create(p->state, id, size, e), e, "create");
}

int volume_import(struct volume_pool *pool, const char *id, const char *path, struct err **e)
{
        struct side *p = NULL;
        int r = find_plain(pool, id, &p, e);

        if (r < 0)
                return r;
        if (!p->driver->import)
                return err_set(e, -ENOTSUP, "%s pools cannot import", p->driver->name);
        if (path[0] != '/')
                return err_set(e, -EINVAL, "import: '%.200s' is not absolute", path);
        return made(pool, id, p->driver->import(p->state, id, path, e), e, "import");
}

int volume_clone(struct volume_pool *pool, const char *id, const char *parent, uint64_t size,
                 struct err **e)
{
        struct side *p = NULL;
        int r = find_child(pool, id, parent, &p, e);

        if (r == 0)
                r = check_size(size, e);
        if (r < 0)
                return r;
        if (streq(id, parent))
                return err_set(e, -EINVAL, "volume '%s' cannot be cloned from itself", id);
        if (!p->driver->clone)
                return err_set(e, -ENOTSUP, "%s pools cannot clone", p->driver->name);
        if (encrypted(p, parent)) {
                r = check_sectors(size, e);
                return r < 0 ? r
                             : made(pool, id, vault_clone(p->vault, id, parent, size, e), e,
                                    "clone");
        }
        return made(pool, id, p->driver->clone(p->state, id, parent, size, e), e, "clone");
}

int volume_snapshot(struct volume_pool *pool, const char *id, const char *of, struct err **e)
{
        struct side *p = NULL;
        int r = find_child(pool, id, of, &p, e);

        if (r < 0)
                return r;
        if (streq(id, of))
                return err_set(e, -EINVAL, "volume '%s' cannot be a snapshot of itself", id);
        if (!p->driver->snapshot)
                return err_set(e, -ENOTSUP, "%s pools have no snapshots", p->driver->name);
        if (encrypted(p, of))
                return checked(vault_snapshot(p->vault, id, of, e), e, "snapshot", id);
        return checked(p->driver->snapshot(p->state, id, of, e), e, "snapshot", id);
}

int volume_resize(struct volume_pool *pool, const char *id, uint64_t size, struct err **e)
{
        struct side *p = NULL;
        int r = find(pool, id, &p, e);

        if (r == 0)
                r = encrypted(p, id) ? check_sectors(size, e) : check_size(size, e);
        return r < 0 ? r : checked(p->driver->resize(p->state, id, size, e), e, "resize", id);
}

int volume_shrink(struct volume_pool *pool, const char *id, uint64_t size, struct err **e)
{
        struct side *p = NULL;
        int r = find(pool, id, &p, e);

        if (r == 0)
                r = encrypted(p, id) ? check_sectors(size, e) : check_size(size, e);
        if (r == 0 && !p->driver->shrink)
                r = err_set(e, -ENOTSUP, "%s pools cannot shrink volumes", p->driver->name);
        return r < 0 ? r : checked(p->driver->shrink(p->state, id, size, e), e, "shrink", id);
}

static bool same_family(struct side *p, const char *a, const char *b)
{
        struct volume_info x = {}, y = {};

        strcpy(x.id, a);
        strcpy(y.id, b);
        if (p->vault) {
                vault_facts(p->vault, &x);
                vault_facts(p->vault, &y);
        }
        return streq(x.family, y.family);
}

int volume_revert(struct volume_pool *pool, const char *id, const char *to, struct err **e)
{
        struct side *p = NULL;
        int r = find(pool, id, &p, e);

        if (r == 0)
                r = volume_check_id(to, e);
        if (r < 0)
                return r;
        if (streq(id, to))
                return err_set(e, -EINVAL, "volume '%s' is no snapshot of itself", id);
        if (!p->driver->revert)
                return err_set(e, -ENOTSUP, "%s pools cannot revert volumes", p->driver->name);
        if (!same_family(p, id, to))
                return err_set(e, -EINVAL, "'%s' has another key than volume '%s'", to, id);
        return checked(p->driver->revert(p->state, id, to, e), e, "revert", id);
}

int volume_flatten(struct volume_pool *pool, const char *id, bool cancel, struct err **e)
{
        struct side *p = NULL;
        int r = find(pool, id, &p, e);

        if (r == 0 && !p->driver->flatten)
                r = err_set(e, -ENOTSUP, "%s pools cannot flatten volumes", p->driver->name);
        return r < 0 ? r : checked(p->driver->flatten(p->state, id, cancel, e), e, "flatten", id);
}

/* What a move that was cut off has left of it goes, too. */
int volume_remove(struct volume_pool *pool, const char *id, struct err **e)
{
        int r = volume_check_id(id, e);

        for (unsigned i = 0; i < pool->n && r == 0; i++)
                r = side_drop(&pool->sides[i], id, e); /* none there is success */
        if (r == 0 && pool->n > 1)
                r = moves_forget(pool, id, e);
        return checked(r, e, "remove", id);
}

int volume_stat(struct volume_pool *pool, const char *id, struct volume_info *ret, struct err **e)
{
        int r = volume_check_id(id, e);
        struct side *p = NULL;

        if (r < 0)
                return r;
        p = pool_side(pool, id, NULL);
        r = checked(p->driver->stat(p->state, id, ret, e), e, "stat", id);
        if (r == 0)
                r = meet(p, id, e);
        if (r == 0 && p->vault)
                vault_facts(p->vault, ret);
        return r;
}

int volume_exists(struct volume_pool *pool, const char *id, struct err **e)
{
        struct volume_info info;
        struct side *p;
        int r = volume_check_id(id, e);

        if (r < 0)
                return r;
        p = pool_side(pool, id, NULL);
        if (!p->driver->exists)
                return volume_stat(pool, id, &info, e);
        return checked(p->driver->exists(p->state, id, e), e, "stat", id);
}

/* Puts the layer between v and its driver, or closes what the driver opened. */
static int encrypt(struct side *p, struct volume *v, struct err **e)
{
        void *layer;
        int r = vault_wrap(p->vault, p->driver, v->handle, v->id, &layer, e);

        if (r < 0) {
                p->driver->close(v->handle);
                return r;
        }
        v->driver = &volume_layer_crypt;
        v->handle = layer;
        return 0;
}

int side_open(struct side *p, const char *id, bool readonly, struct volume **ret, struct err **e)
{
        struct volume *v = calloc(1, sizeof(*v));
        int r;

        if (!v)
                return err_errno(e, -ENOMEM, "open volume '%s'", id);
        v->driver = p->driver;
        strcpy(v->id, id);
        r = v->driver->open(p->state, id, &v->handle, e);
        if (r == 0 && encrypted(p, id))
                r = encrypt(p, v, e);
        r = checked(r, e, "open", id);
        if (r < 0) {
                free(v);
                return r;
        }
        v->readonly = readonly || (v->driver->immutable && v->driver->immutable(v->handle));
        *ret = v;
        return 0;
}

int volume_open(struct volume_pool *pool, const char *id, bool readonly, struct volume **ret,
                struct err **e)
{
        struct side *p = NULL;
        int r = find(pool, id, &p, e);

        return r < 0 ? r : side_open(p, id, readonly, ret, e);
}

int volume_adopt(struct volume_pool *pool, const char *id, const char *label, const char *name,
                 struct volume_snap **ret, size_t *ret_n, struct err **e)
{
        struct side *p = NULL;
        int r = volume_place(pool, id, label, "", e);

        *ret = NULL;
        *ret_n = 0;
        if (r == 0)
                r = pool_side_find(pool, label, &p, e);
        if (r < 0)
                return r;
        if (!p->driver->adopt)
                r = err_set(e, -ENOTSUP, "what is in %s pools cannot be adopted", p->driver->name);
        else
                r = p->driver->adopt(p->state, id, name, ret, ret_n, e);
        pool_made(pool, id);
        return checked(r, e, "adopt", id);
}

int volume_release(struct volume_pool *pool, const char *id, const char *name,
                   const struct volume_snap *v, size_t n, struct err **e)
{
        struct side *p = NULL;
        int r = find(pool, id, &p, e);

        if (r < 0)
                return r;
        if (encrypted(p, id))
                return err_set(e, -ENOTSUP, "volume '%s' is encrypted, and its key is not Ceph's",
                               id);
        if (!p->driver->release)
                return err_set(e, -ENOTSUP, "volumes of %s pools cannot be released as they are",
                               p->driver->name);
        return checked(p->driver->release(p->state, id, name, v, n, e), e, "release", id);
}

int volume_grant(struct volume_pool *pool, const char *label, const char *space, bool revoke,
                 char **ret, struct err **e)
{
        struct side *p = NULL;
        int r = pool_side_find(pool, label, &p, e);

        if (r == 0 && !p->driver->grant)
                r = err_set(e, -ENOTSUP, "%s pools have no keys", p->driver->name);
        return r < 0 ? r : p->driver->grant(p->state, space, revoke, ret, e);
}

struct volume *volume_close(struct volume *v)
{
        if (v) {
                v->driver->close(v->handle);
                free(v);
        }
        return NULL;
}

int volume_activate(struct volume *v, struct err **e)
{
        int r = v->driver->activate ? v->driver->activate(v->handle, e) : 0;

        return checked(r, e, "activate", v->id);
}

int volume_deactivate(struct volume *v, struct err **e)
{
        int r = v->driver->deactivate ? v->driver->deactivate(v->handle, e) : 0;

        return checked(r, e, "deactivate", v->id);
}

const char *volume_id(const struct volume *v)
{
        return v->id;
}

uint64_t volume_size(const struct volume *v)
{
        return v->driver->size(v->handle);
}

bool volume_readonly(const struct volume *v)
{
        return v->readonly;
}

static bool in_range(const struct volume *v, uint64_t n, uint64_t off)
{
        uint64_t size = volume_size(v);

        return off <= size && n <= size - off;
}

/* What every change of bytes must pass. */
static int check_change(const struct volume *v, uint64_t n, uint64_t off, unsigned flags,
                        unsigned legal)
{
        if (v->readonly)
                return -EROFS;
        if (flags & ~legal)
                return -EINVAL;
        return in_range(v, n, off) ? FAULT("volume.write") : -ENOSPC;
}

int volume_pread(struct volume *v, void *p, size_t n, uint64_t off)
{
        int r;

        if (n > VOLUME_IO_MAX || !in_range(v, n, off))
                return -EINVAL;
        r = FAULT("volume.read");
        if (r < 0 || n == 0)
                return r;
        return v->driver->pread(v->handle, p, n, off);
}

int volume_pwrite(struct volume *v, const void *p, size_t n, uint64_t off, unsigned flags)
{
        int r = n > VOLUME_IO_MAX ? -EINVAL : check_change(v, n, off, flags, VOLUME_FUA);

        return r < 0 || n == 0 ? r : v->driver->pwrite(v->handle, p, n, off, flags);
}

int volume_flush(struct volume *v)
{
        int r = FAULT("volume.flush");

        return r < 0 || v->readonly ? r : v->driver->flush(v->handle);
}

static int check_zero(const struct volume *v, uint64_t n, uint64_t off, unsigned flags)
{
        return check_change(v, n, off, flags, VOLUME_FUA | VOLUME_NO_HOLE | VOLUME_FAST);
}

/* Nothing was to be stored: the range is wrong, not the room. */
static int check_trim(const struct volume *v, uint64_t n, uint64_t off, unsigned flags)
{
        int r = check_change(v, n, off, flags, VOLUME_FUA);

        return r == -ENOSPC && !in_range(v, n, off) ? -EINVAL : r;
}

int volume_zero(struct volume *v, uint64_t n, uint64_t off, unsigned flags)
{
        int r = check_zero(v, n, off, flags);

        return r < 0 || n == 0 ? r : v->driver->zero(v->handle, n, off, flags);
}

int volume_trim(struct volume *v, uint64_t n, uint64_t off, unsigned flags)
{
        int r = check_trim(v, n, off, flags);

        return r < 0 || n == 0 ? r : v->driver->trim(v->handle, n, off, flags);
}

int volume_extents(struct volume *v, uint64_t n, uint64_t off, volume_extent_fn each, void *arg)
{
        int r = in_range(v, n, off) ? FAULT("volume.extents") : -EINVAL;

        return r < 0 || n == 0 ? r : v->driver->extents(v->handle, n, off, each, arg);
}

int volume_cache(struct volume *v, uint64_t n, uint64_t off)
{
        int r = in_range(v, n, off) ? FAULT("volume.cache") : -EINVAL;

        return r < 0 || n == 0 || !v->driver->cache ? r : v->driver->cache(v->handle, n, off);
}

int volume_check(struct volume *v, const struct volume_check *how, struct err **e)
{
        if (!v->driver->check)
                return err_set(e, -ENOTSUP, "%s pools have no checks", v->driver->name);
        return checked(v->driver->check(v->handle, how, e), e, "check", v->id);
}

bool volume_sparse_hint(struct volume *v, uint64_t n, uint64_t off)
{
        return v->driver->sparse_hint && v->driver->sparse_hint(v->handle, n, off);
}

/* size: the volume's, asked for once for all of a batch. */
static int check_io(const struct volume *v, const struct volume_io *io, uint64_t size)
{
        const bool write = io->op == VOLUME_WRITE;
        int r;

        if (write && v->readonly)
                return -EROFS;
        if (io->n > VOLUME_IO_MAX || (write && io->flags & ~(unsigned)VOLUME_FUA))
                return -EINVAL;
        if (io->off > size || io->n > size - io->off)
                return write ? -ENOSPC : -EINVAL;
        r = write ? FAULT("volume.write") : FAULT("volume.read");
        return r < 0 || io->n == 0 ? r : VOLUME_IO_WAITS;
}

static int run_one(struct volume *v, const struct volume_io *io)
{
        switch (io->op) {
        case VOLUME_READ:
                return v->driver->pread(v->handle, io->p, io->n, io->off);
        case VOLUME_WRITE:
                return v->driver->pwrite(v->handle, io->p, io->n, io->off, io->flags);
        case VOLUME_FLUSH:
                return v->driver->flush(v->handle);
        case VOLUME_ZEROES:
                return v->driver->zero(v->handle, io->n, io->off, io->flags);
        case VOLUME_TRIM:
                return v->driver->trim(v->handle, io->n, io->off, io->flags);
        }
        return -EINVAL;
}

void volume_run(struct volume *v, struct volume_io *io, size_t n)
{
        const uint64_t size = volume_size(v);
        bool waits = false;

        for (size_t i = 0; i < n; i++) {
                io[i].result = check_io(v, &io[i], size);
                waits |= io[i].result == VOLUME_IO_WAITS;
        }
        if (!waits)
                return;
        if (v->driver->run) {
                v->driver->run(v->handle, io, n);
                return;
        }
        for (size_t i = 0; i < n; i++)
                if (io[i].result == VOLUME_IO_WAITS)
                        io[i].result = run_one(v, &io[i]);
}

bool volume_starts(const struct volume *v)
{
        return v->driver->start;
}

static int check_start(const struct volume *v, const struct volume_io *io)
{
        int r;

        switch (io->op) {
        case VOLUME_READ:
        case VOLUME_WRITE:
                return check_io(v, io, volume_size(v));
        case VOLUME_FLUSH:
                r = FAULT("volume.flush");
                return r < 0 ? r : VOLUME_IO_WAITS;
        case VOLUME_ZEROES:
                r = check_zero(v, io->n, io->off, io->flags);
                break;
        default:
                r = check_trim(v, io->n, io->off, io->flags);
        }
        return r < 0 || io->n == 0 ? r : VOLUME_IO_WAITS;
}

void volume_start(struct volume *v, struct volume_io *io)
{
        io->result = check_start(v, io);
        if (io->result == VOLUME_IO_WAITS)
                v->driver->start(v->handle, io);
        else
                io->done(io);
}

void volume_again(struct volume *v, struct volume_io *io)
{
        io->result = run_one(v, io);
}

size_t volume_alignment(const struct volume *v)
{
        return v->driver->alignment ? v->driver->alignment(v->handle) : 1;
}

int volume_lend(struct volume *v, uint64_t n, uint64_t off, struct volume_file *ret)
{
        int r;

        if (!in_range(v, n, off))
                return -EINVAL;
        r = FAULT("volume.read");
        return r < 0 || n == 0 || !v->driver->lend ? r : v->driver->lend(v->handle, n, off, ret);
}

void volume_return(struct volume *v, struct volume_file *f)
{
        if (v->driver->give_back)
                v->driver->give_back(v->handle, f);
        *f = (struct volume_file){.fd = -1};
}

int volume_changes_open(struct volume *v, const char *since, struct volume_changes **ret,
                        struct err **e)
{
        _cleanup_free_ struct volume_changes *c = calloc(1, sizeof(*c));
        int r = volume_check_id(since, e);

        if (r < 0)
                return r;
        if (!c)
                return err_errno(e, -ENOMEM, "changes");
        if (!v->driver->changes_open)
                return err_set(e, -ENOTSUP, "%s pools do not know changes", v->driver->name);
        if (streq(v->id, since))
                return err_set(e, -EINVAL, "volume '%s' has no changes since itself", since);
        r = v->driver->changes_open(v->handle, since, &c->state, e);
        if (r < 0)
                return err_prepend(e, r, "changes of volume '%s' since '%s'", v->id, since);
        c->volume = v;
        *ret = TAKE_PTR(c);
        return 0;
}

int volume_changes_walk(struct volume_changes *c, uint64_t n, uint64_t off, volume_extent_fn each,
                        void *arg)
{
        int r = in_range(c->volume, n, off) ? FAULT("volume.extents") : -EINVAL;

        return r < 0 || n == 0 ? r : c->volume->driver->changes_walk(c->state, n, off, each, arg);
}

struct volume_changes *volume_changes_close(struct volume_changes *c)
{
        if (c) {
                c->volume->driver->changes_close(c->state);
                free(c);
        }
        return NULL;
}
