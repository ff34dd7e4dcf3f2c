/* The guests: random operations on a pool, noted in the model before they are begun and after they
 * returned.  Another operation is another row of the table at the end. */
#include "volume.h"

#include <fcntl.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "common/fault.h"
#include "common/fileio.h"

enum {
        BLOCK = 4096,
        WHOLE = BLOCK / SECTOR,
        LIVE_MAX = 7,      /* volumes at once */
        LARGE = (1 << 20), /* across two lines of the map */
        BYTES_MAX = SECTORS * SECTOR,
};

/* One member of each family. */
struct locked {
        char id[VOLS][VOLUME_ID_SIZE];
        unsigned n;
};

static void each_locked(void *arg, const char *family, const char *id)
{
        struct locked *l = arg;

        CHECK(l->n < VOLS, "%u locked families", l->n);
        strcpy(l->id[l->n++], id);
}

struct volume_pool *pool_up(const char *state, const char *run, bool direct)
{
        const struct volume_pool_config c = {.state = state, .run = run, .direct = direct};
        _cleanup_err_ struct err *e = NULL;
        struct volume_pool *p = NULL;
        struct locked l = {.n = 0};

        CHECK(volume_pool_open(&volume_driver_local, &c, &p, &e) == 0, "open the pool: %s",
              err_msg(e));
        volume_locked(p, each_locked, &l);
        while (l.n-- > 0)
                CHECK(volume_key(p, l.id[l.n], passphrase, &e) == 0, "key of volume %s: %s",
                      l.id[l.n], err_msg(e));
        return p;
}

/* A call may fail for want of room only, and only when that is on.  libcryptsetup calls it EIO. */
static bool good(struct work *w, const char *what, int r, const struct err *e)
{
        bool room = r == -ENOSPC || (r == -EIO && e && strstr(err_msg(e), "LUKS header"));

        CHECK(r == 0 || (w->nospace && room), "%s: %s %s", what, strerror(-r), e ? err_msg(e) : "");
        return r == 0;
}

/* ---- notes ---- */

static struct vol *vol(struct work *w, unsigned i)
{
        return &w->m->v[i];
}

static void note_state(struct work *w, unsigned i, enum there there)
{
        note(w->m, &(struct event){.kind = EV_STATE, .vol = i, .child = there});
}

static void note_facts(struct work *w, unsigned i, bool immutable, uint64_t size, uint64_t or)
{
        note(w->m,
             &(struct event){
                     .kind = EV_FACTS, .vol = i, .child = immutable, .off = size, .len = or });
}

static void note_range(struct work *w, enum volume_event kind, unsigned i, uint32_t from,
                       uint32_t n, uint32_t id)
{
        note(w->m, &(struct event){.kind = kind, .vol = i, .off = from, .len = n, .child = id});
}

static void busy(struct work *w, unsigned i, uint32_t from, uint32_t end)
{
        w->m->busy = i;
        w->m->busy_from = from;
        w->m->busy_end = end;
}

static void idle(struct work *w)
{
        w->m->busy = NONE;
}

/* ---- finding out ---- */

size_t read_ids(struct volume *v, uint32_t *ids)
{
        static uint8_t bytes[BYTES_MAX];
        uint64_t size = volume_size(v);

        CHECK(size <= BYTES_MAX, "volume %s has %llu bytes", volume_id(v),
              (unsigned long long)size);
        CHECK(volume_pread(v, bytes, size, 0) == 0, "read volume %s", volume_id(v));
        for (size_t i = 0; i < size / SECTOR; i++)
                ids[i] = sector_id(bytes + i * SECTOR, i);
        return size / SECTOR;
}

static struct volume *handle(struct work *w, unsigned i)
{
        _cleanup_err_ struct err *e = NULL;

        if (!w->open[i])
                good(w, "open",
                     volume_open(w->pool, vol(w, i)->id, vol(w, i)->immutable, &w->open[i], &e), e);
        return w->open[i];
}

static bool was(const struct sector *s, uint32_t id)
{
        for (uint32_t i = 0; i < s->n; i++)
                if (s->was[i] == id)
                        return true;
        return false;
}

/* Reads the volume: it is as the model says, but for what was being written. */
static void settle_sectors(struct work *w, unsigned i, bool cut)
{
        static uint32_t ids[SECTORS];
        const struct model *m = w->m;
        struct volume *v = handle(w, i);
        size_t n;

        if (!v)
                return;
        n = read_ids(v, ids);
        for (size_t k = 0; k < n; k++) {
                const struct sector *s = &m->v[i].s[k];
                bool open = cut || (m->busy == i && k >= m->busy_from && k < m->busy_end);

                if (ids[k] == s->now)
                        continue;
                CHECK(open && was(s, ids[k]),
                      "volume %u (%s, family '%s') sector %zu is %u, not %u%s", i, m->v[i].id,
                      m->v[i].family, k, ids[k], s->now, open ? " or what it was" : "");
                note_range(w, EV_SETTLED, i, k, 1, ids[k]);
        }
        if (cut)
                note_range(w, EV_FLUSHED, i, 0, SECTORS, 0);
}

static int make(struct work *w, unsigned i, struct err **e)
{
        const struct vol *v = vol(w, i);
        _cleanup_free_ char *src = path_printf("%s/src", w->dir);

        switch (v->how) {
        case IMPORT:
                return volume_import(w->pool, v->id, src, e);
        case CLONE:
                return volume_clone(w->pool, v->id, v->parent, v->size, e);
        case SNAPSHOT:
                return volume_snapshot(w->pool, v->id, v->parent, e);
        case CREATE:
                break;
        }
        return v->family[0] ? volume_create_encrypted(w->pool, v->id, v->size, passphrase, e)
                            : volume_create(w->pool, v->id, v->size, e);
}

static bool is_there(struct work *w, unsigned i, struct volume_info *ret)
{
        return volume_stat(w->pool, vol(w, i)->id, ret, NULL) == 0;
}

/* What was under way is asked for again, as who asked for it would. */
static void settle(struct work *w, unsigned i, bool cut)
{
        struct vol *v = vol(w, i);
        struct volume_info info;
        bool there = is_there(w, i, &info);
        _cleanup_err_ struct err *e = NULL;

        CHECK(there == (v->there == YES) || v->there == MAKING || v->there == REMOVING,
              "volume %u is%s there", i, there ? "" : " not");
        if (v->there == REMOVING || (v->there == MAKING && !there)) {
                note_state(w, i, REMOVING);
                if (good(w, "remove", volume_remove(w->pool, v->id, &e), e))
                        note_state(w, i, GONE);
        } else if (v->there == MAKING && good(w, "make again", make(w, i, &e), e)) {
                note_state(w, i, YES);
        }
        if (v->there != YES)
                return;
        CHECK(info.size == v->size || info.size == v->or_size, "volume %u has %llu bytes", i,
              (unsigned long long)info.size);
        note_facts(w, i, v->immutable, info.size, info.size);
        settle_sectors(w, i, cut);
}

static void settle_all(struct work *w, bool cut)
{
        for (unsigned i = 0; i < w->m->nvols; i++)
                settle(w, i, cut);
        idle(w);
}

/* ---- choosing ---- */

static bool writable(const struct vol *v)
{
        return v->there == YES && !v->immutable;
}

static bool any(const struct vol *v)
{
        return v->there == YES;
}

static unsigned count(struct work *w, bool (*is)(const struct vol *v))
{
        unsigned n = 0;

        for (unsigned i = 0; i < w->m->nvols; i++)
                n += is(vol(w, i));
        return n;
}

/* NONE when there is none. */
static unsigned pick(struct work *w, bool (*is)(const struct vol *v))
{
        unsigned n = count(w, is), k = n ? rnd_below(&w->r, n) : 0;

        for (unsigned i = 0; n && i < w->m->nvols; i++)
                if (is(vol(w, i)) && k-- == 0)
                        return i;
        return NONE;
}

/* As the volume can have it. */
static uint64_t whole(const struct vol *v, uint64_t size)
{
        return v->family[0] ? (size + BLOCK - 1) / BLOCK * BLOCK : size;
}

static uint64_t pick_larger(struct work *w, const struct vol *v)
{
        return whole(v, MIN(v->size + rnd_below(&w->r, 40) * SECTOR, (uint64_t)BYTES_MAX));
}

static uint64_t pick_size(struct work *w)
{
        uint64_t odd = rnd_below(&w->r, 3) ? 0 : rnd_below(&w->r, 8) * SECTOR;

        if (rnd_one_in(&w->r, 4))
                return LARGE + BLOCK + rnd_below(&w->r, 20) * BLOCK + odd;
        return BLOCK + rnd_below(&w->r, 30) * BLOCK + odd;
}

/* A range of sectors; mostly small, often of whole blocks or at the end. */
static void pick_range(struct work *w, unsigned i, uint32_t *from, uint32_t *n)
{
        const uint32_t size = vol(w, i)->size / SECTOR, block = BLOCK / SECTOR;
        const bool whole = rnd_below(&w->r, 2);

        *n = 1 + rnd_below(&w->r, rnd_one_in(&w->r, 8) ? size : 20);
        if (whole)
                *n = (*n + block - 1) / block * block;
        *n = MIN(*n, size);
        *from = rnd_one_in(&w->r, 6) ? size - *n : rnd_below(&w->r, size - *n + 1);
        if (size > 2048 && rnd_below(&w->r, 2)) /* where two lines of the map meet */
                *from = MIN(2048 - MIN(*n, 2048u) / 2, size - *n);
        if (whole)
                *from = *from / block * block;
}

/* ---- operations ---- */

/* Whether nothing in the range has been written too often without a flush; else flushes. */
static bool ready(struct work *w, unsigned i, uint32_t from, uint32_t n)
{
        uint32_t k = from;

        if (i == NONE || !handle(w, i))
                return false;
        while (k < from + n && vol(w, i)->s[k].n < PENDING - 1)
                k++;
        if (k == from + n)
                return true;
        if (!good(w, "flush", volume_flush(w->open[i]), NULL))
                return false;
        note_range(w, EV_FLUSHED, i, 0, SECTORS, 0);
        return true;
}

/* After a call that changed sectors; those that it did not are what they were. */
static void changed(struct work *w, unsigned i, uint32_t from, uint32_t n, unsigned flags, int r)
{
        if (!good(w, "write", r, NULL))
                settle_sectors(w, i, false);
        else if (flags & VOLUME_FUA)
                note_range(w, EV_FLUSHED, i, from, n, 0);
        idle(w);
}

static void begin(struct work *w, unsigned i, uint32_t from, uint32_t n, uint32_t id)
{
        busy(w, i, from, from + n);
        note_range(w, EV_SECTORS, i, from, n, id);
}

static void fill(uint8_t *p, uint32_t id, uint32_t from, uint32_t n)
{
        for (uint32_t k = 0; k < n; k++)
                sector_fill(p + (size_t)k * SECTOR, id, from + k);
}

static void op_write(struct work *w)
{
        static uint8_t bytes[BYTES_MAX] __attribute__((aligned(4096)));
        unsigned i = pick(w, writable), flags = rnd_one_in(&w->r, 5) ? VOLUME_FUA : 0;
        uint32_t from, n, id = the_log->next_id;

        if (i == NONE)
                return;
        pick_range(w, i, &from, &n);
        if (!ready(w, i, from, n))
                return;
        the_log->next_id++;
        fill(bytes, id, from, n);
        begin(w, i, from, n, id);
        changed(w, i, from, n, flags,
                volume_pwrite(w->open[i], bytes, (size_t)n * SECTOR, (uint64_t)from * SECTOR,
                              flags));
}

/* Several at once, that do not overlap. */
static void op_batch(struct work *w)
{
        enum { N = 4, ROOM = 64 };
        static uint8_t bytes[N][ROOM * SECTOR] __attribute__((aligned(4096)));
        unsigned i = pick(w, writable);
        struct volume_io io[N];
        uint32_t size, part;

        if (i == NONE || !ready(w, i, 0, vol(w, i)->size / SECTOR))
                return;
        size = vol(w, i)->size / SECTOR;
        part = size / N;
        if (part == 0)
                return;
        for (unsigned k = 0; k < N; k++) {
                uint32_t n = 1 + rnd_below(&w->r, MIN(part, (uint32_t)ROOM)), id;
                uint32_t from = k * part + rnd_below(&w->r, part - n + 1);

                id = the_log->next_id++;
                fill(bytes[k], id, from, n);
                io[k] = (struct volume_io){.op = VOLUME_WRITE,
                                           .flags = rnd_one_in(&w->r, 4) ? VOLUME_FUA : 0,
                                           .p = bytes[k],
                                           .n = (size_t)n * SECTOR,
                                           .off = (uint64_t)from * SECTOR};
                note_range(w, EV_SECTORS, i, from, n, id);
        }
        busy(w, i, 0, size);
        volume_run(w->open[i], io, N);
        for (unsigned k = 0; k < N; k++) {
                busy(w, i, 0, size);
                changed(w, i, io[k].off / SECTOR, io[k].n / SECTOR, io[k].flags, io[k].result);
        }
}

static void op_zero(struct work *w)
{
        unsigned i = pick(w, writable), flags = 0;
        uint32_t from, n;

        if (i == NONE)
                return;
        flags |= rnd_one_in(&w->r, 5) ? VOLUME_FUA : 0;
        flags |= rnd_one_in(&w->r, 3) ? VOLUME_NO_HOLE : 0;
        pick_range(w, i, &from, &n);
        if (!ready(w, i, from, n))
                return;
        begin(w, i, from, n, 0);
        changed(w, i, from, n, flags,
                volume_zero(w->open[i], (uint64_t)n * SECTOR, (uint64_t)from * SECTOR, flags));
}

/* Each sector reads as zeros afterwards, or as before. */
static void op_trim(struct work *w)
{
        unsigned i = pick(w, writable), flags = rnd_one_in(&w->r, 5) ? VOLUME_FUA : 0;
        uint32_t from, n;
        int r;

        if (i == NONE)
                return;
        pick_range(w, i, &from, &n);
        if (!ready(w, i, from, n))
                return;
        begin(w, i, from, n, 0);
        r = volume_trim(w->open[i], (uint64_t)n * SECTOR, (uint64_t)from * SECTOR, flags);
        settle_sectors(w, i, false);
        if (vol(w, i)->family[0]) { /* of a part of an encrypted sector nothing was promised */
                uint32_t end = (from + n) / WHOLE * WHOLE;

                from = (from + WHOLE - 1) / WHOLE * WHOLE;
                n = end > from ? end - from : 0;
        }
        changed(w, i, from, n, flags, r);
}

static void op_flush(struct work *w)
{
        unsigned i = pick(w, writable);

        if (i != NONE && handle(w, i) && good(w, "flush", volume_flush(w->open[i]), NULL))
                note_range(w, EV_FLUSHED, i, 0, SECTORS, 0);
}

/* A new volume's row, NONE when there are enough. */
static unsigned new_vol(struct work *w, enum how how)
{
        unsigned i = w->m->nvols;
        uint64_t a = rnd_next(&w->r), b = rnd_next(&w->r);

        if (i == VOLS || count(w, any) >= LIVE_MAX)
                return NONE;
        *vol(w, i) = (struct vol){.how = how};
        snprintf(vol(w, i)->id, VOLUME_ID_SIZE, "%08x-%04x-4%03x-8%03x-%012llx", (unsigned)a,
                 (unsigned)(a >> 32) & 0xffff, (unsigned)(a >> 48) & 0xfff, (unsigned)b & 0xfff,
                 (unsigned long long)(b >> 16));
        w->m->nvols++;
        return i;
}

/* What it shall be is noted. */
static void make_new(struct work *w, unsigned i)
{
        _cleanup_err_ struct err *e = NULL;
        int r;

        note_state(w, i, MAKING);
        r = make(w, i, &e);
        if (good(w, "make", r, e))
                note_state(w, i, YES);
        else
                settle(w, i, false);
}

static void op_create(struct work *w)
{
        unsigned i = new_vol(w, CREATE);
        uint64_t size = pick_size(w);

        if (i == NONE)
                return;
        note_facts(w, i, false, size, size);
        make_new(w, i);
}

static void op_encrypt(struct work *w)
{
        unsigned i = new_vol(w, CREATE);
        uint64_t size = pick_size(w) / BLOCK * BLOCK;

        if (i == NONE)
                return;
        strcpy(vol(w, i)->family, vol(w, i)->id);
        note_facts(w, i, false, size, size);
        make_new(w, i);
}

static void op_import(struct work *w)
{
        static uint8_t bytes[BYTES_MAX];
        _cleanup_free_ char *src = path_printf("%s/src", w->dir);
        unsigned i = new_vol(w, IMPORT);
        uint64_t size = pick_size(w), zeros = rnd_below(&w->r, 4) * BLOCK;
        uint32_t id = the_log->next_id++;
        int fd;

        if (i == NONE)
                return;
        unlink(src);
        fd = open(src, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0600);
        fill(bytes, id, 0, size / SECTOR);
        memset(bytes, 0, MIN(size, zeros));
        CHECK(fd >= 0 && ftruncate(fd, size) == 0, "create '%s'", src);
        for (uint64_t o = 0; o < size; o += SECTOR)
                CHECK(!sector_id(bytes + o, o / SECTOR) ||
                              pwrite(fd, bytes + o, SECTOR, o) == SECTOR,
                      "write '%s'", src);
        close(fd);
        note_facts(w, i, true, size, size);
        for (uint32_t k = 0; k < size / SECTOR; k++)
                if (sector_id(bytes + (size_t)k * SECTOR, k))
                        note_range(w, EV_SETTLED, i, k, 1, id);
        make_new(w, i);
}

static void grow_from(struct work *w, enum how how)
{
        unsigned of = pick(w, any), i = of == NONE ? NONE : new_vol(w, how);
        uint64_t size;

        if (i == NONE)
                return;
        size = vol(w, of)->size;
        if (how == CLONE && rnd_one_in(&w->r, 3))
                size = pick_larger(w, vol(w, of));
        strcpy(vol(w, i)->parent, vol(w, of)->id);
        strcpy(vol(w, i)->family, vol(w, of)->family);
        note_facts(w, i, how == SNAPSHOT, size, size);
        note(w->m, &(struct event){.kind = EV_COPY, .vol = i, .child = of});
        make_new(w, i);
        if (vol(w, i)->there == YES)
                note_range(w, EV_FLUSHED, of, 0, SECTORS, 0);
}

static void op_clone(struct work *w)
{
        grow_from(w, CLONE);
}

static void op_snapshot(struct work *w)
{
        grow_from(w, SNAPSHOT);
}

static void op_resize(struct work *w)
{
        _cleanup_err_ struct err *e = NULL;
        unsigned i = pick(w, writable);
        uint64_t had, size;

        if (i == NONE)
                return;
        had = vol(w, i)->size;
        size = pick_larger(w, vol(w, i));
        note_facts(w, i, false, had, size);
        if (good(w, "resize", volume_resize(w->pool, vol(w, i)->id, size, &e), e))
                note_facts(w, i, false, size, size);
        else
                settle(w, i, false);
}

/* Whether it grew from a volume, and another from it. */
static bool in_the_middle(struct work *w, unsigned i)
{
        bool below = false, above = false;

        for (unsigned k = 0; k < w->m->nvols; k++) {
                below |= any(vol(w, k)) && streq(vol(w, k)->id, vol(w, i)->parent);
                above |= any(vol(w, k)) && streq(vol(w, k)->parent, vol(w, i)->id);
        }
        return below && above;
}

static void note_op(struct work *w, uint32_t row)
{
        if (!w->nospace) /* what is done without room counts as that */
                note(w->m, &(struct event){.kind = EV_OP, .vol = NONE, .child = row});
}

static void op_remove(struct work *w)
{
        _cleanup_err_ struct err *e = NULL;
        unsigned i = pick(w, any);

        if (i == NONE || count(w, any) < 2)
                return;
        if (in_the_middle(w, i))
                note_op(w, OP_MIDDLE);
        w->open[i] = volume_close(w->open[i]);
        note_state(w, i, REMOVING);
        if (good(w, "remove", volume_remove(w->pool, vol(w, i)->id, &e), e))
                note_state(w, i, GONE);
        else
                settle(w, i, false);
}

static void close_one(struct work *w, unsigned i)
{
        if (!w->open[i])
                return;
        w->open[i] = volume_close(w->open[i]);
        if (!w->nospace)
                note_range(w, EV_FLUSHED, i, 0, SECTORS, 0);
}

static void op_reopen(struct work *w)
{
        unsigned i = pick(w, any);

        if (i != NONE) {
                close_one(w, i);
                handle(w, i);
        }
}

static void up(struct work *w)
{
        _cleanup_free_ char *state = path_printf("%s/disk/state", w->dir);
        _cleanup_free_ char *run = path_printf("%s/run", w->dir);

        w->pool = pool_up(state, run, w->direct);
}

static void down(struct work *w)
{
        for (unsigned i = 0; i < w->m->nvols; i++)
                close_one(w, i);
        w->pool = volume_pool_close(w->pool);
}

/* All sectors become those of another volume, or zeros: before the call. */
static void become(struct work *w, unsigned i, const struct vol *of, uint64_t size)
{
        busy(w, i, 0, SECTORS);
        note_facts(w, i, false, vol(w, i)->size, size);
        for (uint32_t k = 0; k < SECTORS; k++) {
                uint32_t id = k >= size / SECTOR ? 0 : of->s[k].now;

                if (id != vol(w, i)->s[k].now)
                        note_range(w, EV_SECTORS, i, k, 1, id);
        }
}

static void became(struct work *w, unsigned i, uint64_t size, int r)
{
        if (r == 0) {
                note_facts(w, i, false, size, size);
                note_range(w, EV_FLUSHED, i, 0, SECTORS, 0);
        } else {
                settle(w, i, false);
        }
        idle(w);
}

/* With all of it flushed and closed. */
static bool at_rest(struct work *w, unsigned i)
{
        if (i == NONE || w->nospace)
                return false;
        if (handle(w, i))
                close_one(w, i);
        return true;
}

static void op_revert(struct work *w)
{
        _cleanup_err_ struct err *e = NULL;
        unsigned i = pick(w, writable), to = NONE;

        for (unsigned k = 0; i != NONE && k < w->m->nvols; k++)
                if (vol(w, k)->there == YES && vol(w, k)->how == SNAPSHOT &&
                    streq(vol(w, k)->parent, vol(w, i)->id) && (to == NONE || rnd_one_in(&w->r, 2)))
                        to = k;
        if (to == NONE || !at_rest(w, i))
                return;
        become(w, i, vol(w, to), vol(w, to)->size);
        became(w, i, vol(w, to)->size,
               good(w, "revert", volume_revert(w->pool, vol(w, i)->id, vol(w, to)->id, &e), e)
                       ? 0
                       : -ENOSPC);
}

static void op_shrink(struct work *w)
{
        _cleanup_err_ struct err *e = NULL;
        unsigned i = pick(w, writable);
        uint64_t size;

        if (!at_rest(w, i))
                return;
        size = whole(vol(w, i), (1 + rnd_below(&w->r, vol(w, i)->size / SECTOR)) * SECTOR);
        become(w, i, vol(w, i), size);
        became(w, i, size,
               good(w, "shrink", volume_shrink(w->pool, vol(w, i)->id, size, &e), e) ? 0 : -ENOSPC);
}

static void op_flatten(struct work *w)
{
        _cleanup_err_ struct err *e = NULL;
        unsigned i = pick(w, writable);

        if (i != NONE)
                good(w, "flatten", volume_flatten(w->pool, vol(w, i)->id, rnd_one_in(&w->r, 5), &e),
                     e);
}

/* Merges what can be merged, goes on with what is being flattened. */
static void op_work(struct work *w)
{
        for (unsigned n = 1 + rnd_below(&w->r, 8); n > 0; n--)
                if (volume_pool_work(w->pool) <= 0)
                        return;
}

static void op_restart(struct work *w)
{
        down(w);
        up(w);
        settle_all(w, false);
}

/* SIGKILL somewhere in what comes next. */
static void op_kill(struct work *w)
{
        if (the_record.on)
                the_record.kill_in = 1 + rnd_below(&w->r, 12);
}

static void op_any(struct work *w);

/* The disk is full for a while. */
static void op_nospace(struct work *w)
{
        if (w->nospace || !the_record.on)
                return;
        w->nospace = true;
        the_record.nospace_in = 1 + rnd_below(&w->r, 6);
        for (unsigned n = 1 + rnd_below(&w->r, 3); n > 0; n--)
                op_any(w);
        the_record.nospace_in = 0;
        settle_all(w, false);
        w->nospace = false;
}

/* Makes the map log longer, until it is written anew. */
static void op_churn(struct work *w)
{
        static uint8_t block[BLOCK] __attribute__((aligned(4096)));

        for (unsigned n = 0; n < 24; n++) {
                uint32_t id = n % 2 ? 0 : the_log->next_id++;
                struct volume *v;

                if (!writable(vol(w, 1)) || vol(w, 1)->size < 2 * BLOCK || !(v = handle(w, 1)))
                        return;
                fill(block, id, 8, 8);
                begin(w, 1, 8, 8, id);
                changed(w, 1, 8, 8, 0,
                        id ? volume_pwrite(v, block, BLOCK, BLOCK, 0)
                           : volume_zero(v, BLOCK, BLOCK, 0));
                if (good(w, "flush", volume_flush(v), NULL))
                        note_range(w, EV_FLUSHED, 1, 0, SECTORS, 0);
        }
}

const struct operation operations[OPERATIONS] = {
        {"write", 60, op_write},
        {"batch", 10, op_batch},
        {"zero", 12, op_zero},
        {"trim", 12, op_trim},
        {"flush", 16, op_flush},
        {"create", 5, op_create},
        {"encrypt", 2, op_encrypt},
        {"import", 3, op_import},
        {"clone", 8, op_clone},
        {"snapshot", 10, op_snapshot},
        {"resize", 6, op_resize},
        {"remove", 14, op_remove},
        {"reopen", 5, op_reopen},
        {"restart", 2, op_restart},
        {"revert", 8, op_revert},
        {"shrink", 4, op_shrink},
        {"flatten", 4, op_flatten},
        {"merge or flatten on", 14, op_work},
        {"kill", 4, op_kill, .quiet = true},
        {"no space", 5, op_nospace},
        [OP_LONG] = {"long log", 0, op_churn},
        [OP_MIDDLE] = {"remove in the middle", 0, op_remove},
};

static void do_op(struct work *w, unsigned k)
{
        uint32_t outer = w->m->head.op;

        note_op(w, k);
        operations[k].run(w);
        note(w->m, &(struct event){.kind = EV_OP, .vol = NONE, .child = outer});
}

static void op_any(struct work *w)
{
        unsigned sum = 0, roll, k = 0;

        for (unsigned i = 0; i < OPERATIONS; i++)
                sum += operations[i].weight;
        roll = rnd_below(&w->r, sum);
        while (roll >= operations[k].weight)
                roll -= operations[k++].weight;
        do_op(w, k);
}

static struct work begin_life(struct life *l)
{
        return (struct work){.r = l->r, .m = l->m, .dir = l->dir, .direct = l->seed % 4 == 3};
}

void work_live(struct life *l)
{
        struct work life = begin_life(l), *w = &life;

        note(w->m, &(struct event){.kind = EV_OP, .vol = NONE, .child = NONE});
        if (rnd_one_in(&w->r, 4))
                op_kill(w);
        up(w);
        settle_all(w, l->cut);
        the_record.kill_in = 0;
        w->m->head.settled = true;
        if (w->m->nvols > 1 && streq(vol(w, 1)->parent, vol(w, 0)->id) && rnd_one_in(&w->r, 2))
                do_op(w, OP_LONG);
        while (l->ops-- > 0)
                op_any(w);
        the_record.kill_in = 0;
        if (rnd_below(&w->r, 2))
                down(w);
}

void work_long_log(struct life *l)
{
        struct work life = begin_life(l), *w = &life;
        uint64_t size = LARGE + 8 * BLOCK;
        _cleanup_free_ char *path = NULL;
        struct stat st = {};

        up(w);
        new_vol(w, CREATE);
        note_facts(w, 0, false, size, size);
        make_new(w, 0);
        new_vol(w, CLONE);
        strcpy(vol(w, 1)->parent, vol(w, 0)->id);
        note_facts(w, 1, false, size, size);
        make_new(w, 1);
        path = path_printf("%s/disk/state/pool/%s/map.0", w->dir, vol(w, 1)->id);
        while (st.st_size < (1 << 20) - 2048) {
                the_log->n = 0;
                op_churn(w);
                CHECK(stat(path, &st) == 0, "no '%s'", path);
        }
        down(w);
}
