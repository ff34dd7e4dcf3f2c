#include "backend/volume/local/verify.h"

#include <inttypes.h>
#include <stdarg.h>
#include <sys/stat.h>
#include <time.h>

#include "backend/volume/local/sums.h"
#include "common/clock.h"
#include "common/fileio.h"

void verify_finding(struct verify *v, bool mended, const struct layer *l, const char *fmt, ...)
{
        _cleanup_free_ char *words = NULL;
        const char *slash = l ? strrchr(l->dir, '/') : NULL;
        char line[640];
        va_list ap;
        int n = 0;

        va_start(ap, fmt);
        if (vasprintf(&words, fmt, ap) < 0)
                words = NULL;
        va_end(ap);
        if (l)
                n = snprintf(line, sizeof(line), "layer %u of %s: ", l->id.layer,
                             slash ? slash + 1 : l->dir);
        snprintf(line + n, sizeof(line) - n, "%.480s: %s", words ? words : "no memory for words",
                 mended ? "repaired" : "not repaired");
        v->how->finding(v->how->arg, mended, line);
}

int verify_step(struct verify *v, uint64_t n)
{
        const uint64_t rate = v->how->rate;

        v->done += n;
        for (;;) {
                int64_t due = rate ? v->began + (int64_t)((double)v->done / rate * 1e6) : 0;
                int64_t left = due - clock_mono();
                struct timespec ts = {.tv_nsec = MIN(left, (int64_t)50000) * 1000};

                if (v->how->progress(v->how->arg, MIN(v->done, v->total), v->total) != 0)
                        return -ECANCELED;
                if (left <= 0)
                        return 0;
                nanosleep(&ts, NULL);
        }
}

/* The owner's metadata: what is in memory is what was read and checked at start, and written since.
 * Busy, so that nobody writes it meanwhile. */
static void check_meta(struct verify *v, const struct layer *l)
{
        struct entry *en = l->owner;
        _cleanup_free_ char *dir = pool_path(v->pool, en->meta.id);
        struct pool *p = v->pool;
        unsigned bad;
        bool mended;

        pthread_mutex_lock(&p->lock);
        while (en->busy)
                pthread_cond_wait(&p->idle, &p->lock);
        en->busy = true;
        pthread_mutex_unlock(&p->lock);
        bad = dir ? meta_bad(dir, &en->meta) : 0;
        mended = bad && meta_write(dir, &en->meta, NULL) == 0 && meta_bad(dir, &en->meta) == 0;
        pthread_mutex_lock(&p->lock);
        pool_release(p, en);
        pthread_mutex_unlock(&p->lock);
        if (bad & META_BAD_FIRST)
                verify_finding(v, mended, l,
                               "meta on disk is not the volume's: it would not be found, or be "
                               "another, at the next start");
        if (bad & META_BAD_COPY)
                verify_finding(v, mended, l, "meta.bak on disk is not the volume's metadata");
}

uint64_t verify_next_line(struct verify *v, const struct layer *l, uint64_t line)
{
        uint64_t next;

        verify_hold(v);
        next = map_next_line(&l->map, line);
        verify_release(v);
        return next;
}

/* The last block that the map calls data. */
static bool last_data(struct verify *v, const struct layer *l, uint64_t *ret)
{
        uint64_t line = UINT64_MAX;
        bool found = false;

        for (uint64_t at = verify_next_line(v, l, 0); at != UINT64_MAX;
             at = verify_next_line(v, l, at + 1))
                line = at;
        verify_hold(v);
        for (unsigned i = 0; line != UINT64_MAX && i < MAP_LINE_BLOCKS; i++)
                if (map_get(&l->map, line * MAP_LINE_BLOCKS + i) == MAP_DATA) {
                        *ret = line * MAP_LINE_BLOCKS + i;
                        found = true;
                }
        verify_release(v);
        return found;
}

static void check_file(struct verify *v, struct layer *l)
{
        _cleanup_free_ char *path = layer_data_path(l->dir, l->data);
        struct sums *s = l->sums;
        struct stat named, open_;
        uint64_t block = 0, bytes;
        bool mapped =
                l->mapped && last_data(v, l, &block); /* before the file's length is looked at */

        if (!path || fstat(l->fd, &open_) < 0 || stat(path, &named) < 0 ||
            named.st_ino != open_.st_ino || named.st_dev != open_.st_dev) {
                verify_finding(v, false, l,
                               "data.%u is gone or another file: all of it is lost when the volume "
                               "is closed",
                               l->data);
                return;
        }
        bytes = (uint64_t)open_.st_size;
        if (mapped && block * MAP_BLOCK >= bytes)
                verify_finding(v, false, l,
                               "byte %" PRIu64 " is called data, but data.%u ends at byte %" PRIu64
                               ": it reads as zeros",
                               block * MAP_BLOCK, l->data, bytes);
        else if (bytes < l->bytes)
                verify_finding(v, false, l,
                               "data.%u had %" PRIu64 " bytes and has %" PRIu64
                               ": the rest reads as zeros",
                               l->data, l->bytes, bytes);
        else if (s && bytes < s->bytes)
                verify_finding(v, false, l,
                               "data.%u had %" PRIu64 " bytes at its first scrub and has %" PRIu64
                               ": the rest reads as zeros",
                               l->data, s->bytes, bytes);
}

/* What reads have met since the layer was opened. */
static void check_refused(struct verify *v, struct layer *l)
{
        struct sums *s = l->sums;

        if (!s || s->off)
                return;
        WITH_LOCK(&s->lock);
        for (unsigned i = 0; i < s->nnamed; i++)
                verify_finding(v, false, l,
                               "byte %" PRIu64 " did not match its checksum when it was read: "
                               "reads of it fail",
                               s->named[i] * MAP_BLOCK);
        if (s->damaged)
                verify_finding(v, false, l,
                               "checksums in sum.%u are damaged: what they cover is not checked "
                               "until a scrub",
                               l->id.layer);
}

static int check_layer(struct verify *v, struct layer *l, bool frozen, bool owner_done)
{
        _cleanup_free_ char *sum = sums_path(l);
        int r;

        if (!owner_done)
                check_meta(v, l);
        check_file(v, l);
        if (!v->how->scrub) /* it sees for itself */
                check_refused(v, l);
        if (sum && frozen && !l->sums && access(sum, F_OK) == 0 && !(v->how->scrub && v->how->sums))
                verify_finding(v, false, l, "sum.%u is damaged: reads are not checked",
                               l->id.layer);
        r = l->mapped ? verify_log(v, l) : 0;
        if (r == 0 && v->how->scrub)
                r = verify_data(v, l, frozen);
        else if (r == 0)
                r = verify_step(v, 1);
        return r;
}

static int run(struct verify *v, struct layer *top)
{
        int r = 0;

        for (struct layer *l = top; l; l = l->parent)
                v->total += v->how->scrub ? verify_data_bytes(v, l) : 1;
        for (struct layer *l = top, *above = NULL; l && r == 0; above = l, l = l->parent)
                r = check_layer(v, l, l != top || v->stack->readonly,
                                above && above->owner == l->owner);
        return r;
}

int pool_verify(struct pool *p, struct stack *s, const struct volume_check *how, struct err **e)
{
        struct verify v = {.pool = p, .stack = s, .how = how, .began = clock_mono()};
        struct layer *top;
        int r;

        pool_work_suspend(p);
        pthread_mutex_lock(&p->layers_lock);
        top = s->top;
        top->refs++;
        pthread_mutex_unlock(&p->layers_lock);
        if (s->failed)
                verify_finding(&v, false, top,
                               "a sync has failed: writes since the flush before it may be lost, "
                               "nothing more is written until blockd --check --repair");
        r = run(&v, top);
        pool_layer_close(p, top);
        pool_work_resume(p);
        if (r < 0 && r != -ECANCELED)
                return err_errno(e, r, "check");
        return r < 0 ? err_set(e, r, "cancelled") : 0;
}
