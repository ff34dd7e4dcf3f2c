/* Opening the stack of a volume, sharing frozen layers, pushing a new one. */
#include "backend/volume/local/pool.h"

#include <fcntl.h>
#include <sys/stat.h>

#include "backend/volume/local/index.h"
#include "common/fault.h"
#include "common/fileio.h"
#include "common/log.h"

/* A layer on the way from a volume's top to the ground. */
struct step {
        struct entry *en;
        unsigned i;
};

/* One layer down; false at the ground. */
static int step_down(struct pool *p, struct step *s, struct err **e)
{
        const struct meta *m = &s->en->meta;
        struct entry *origin;
        int i;

        if (m->layers[s->i].below >= 0) {
                s->i = meta_find(m, m->layers[s->i].below);
                return 1;
        }
        if (m->layers[s->i].below == META_GROUND)
                return 0;
        pthread_mutex_lock(&p->lock);
        origin = pool_find(p, m->origin);
        pthread_mutex_unlock(&p->lock);
        i = origin ? meta_find(&origin->meta, m->origin_layer) : -1;
        if (i < 0)
                return err_set(e, -EUCLEAN, "layer %u of volume %s, under volume %s, is missing",
                               m->origin_layer, m->origin, m->id);
        *s = (struct step){.en = origin, .i = i};
        return 1;
}

bool pool_unsettled(const struct pool *p, const struct meta *m, unsigned i)
{
        _cleanup_free_ char *live = NULL;

        if (i >= m->nlayers || !meta_mapped(m, i))
                return false;
        live = layer_live_path(p->run, m->id, m->layers[i].map);
        return live && access(live, F_OK) == 0;
}

/* With layers_lock.  Whether a power cut may have come between freezing layer i and making it
 * durable: then nothing is durable in the top, and nobody grew from the layer. */
static bool may_be_torn(struct pool *p, const struct entry *en, const char *dir, unsigned i)
{
        const struct meta *m = &en->meta;
        _cleanup_free_ char *log = NULL;
        struct entry *o, *tmp;
        struct stat st;

        if (i + 2 != m->nlayers || m->removed || m->layers[i + 1].below != (int)m->layers[i].n)
                return false;
        log = layer_log_path(dir, m->layers[i + 1].map);
        if (!log || stat(log, &st) < 0 || st.st_size > 0)
                return false;
        WITH_LOCK(&p->lock);
        HASH_ITER (hh, p->entries, o, tmp)
                if (streq(o->meta.origin, m->id) && o->meta.origin_layer == m->layers[i].n)
                        return false;
        return true;
}

static int load_one(struct pool *p, struct step s, bool writable, struct layer *parent,
                    struct err **e)
{
        const struct meta *m = &s.en->meta;
        _cleanup_free_ char *dir = pool_path(p, m->id);
        struct layer_open o = {
                .dir = dir,
                .run = p->run,
                .volume = m->id,
                .data = m->layers[s.i].data,
                .map = m->layers[s.i].map,
                .size = m->layers[s.i].size,
                .overlap = m->layers[s.i].overlap,
                .mapped = meta_mapped(m, s.i),
                .writable = writable || pool_unsettled(p, m, s.i),
                .direct = p->direct,
                .may_be_torn = dir && may_be_torn(p, s.en, dir, s.i),
                .parent = parent,
        };

        return dir ? layer_open(&o, &s.en->loaded[s.i], e) : err_errno(e, -ENOMEM, "layer");
}

/* With layers_lock.  Drops one reference and, when it was the last, those below. */
static void layer_unref(struct layer *l)
{
        while (l && --l->refs == 0) {
                struct layer *below = l->parent;
                struct entry *en = l->owner;

                for (unsigned i = 0; i < en->meta.nlayers; i++)
                        if (en->loaded[i] == l)
                                en->loaded[i] = NULL;
                layer_free(l);
                l = below;
        }
}

/* The steps from the top down to the first layer that is open already (*ret_base, NULL if none),
 * which gets a reference. */
static int walk(struct pool *p, struct step s, struct step **ret, size_t *ret_n,
                struct layer **ret_base, struct err **e)
{
        _cleanup_free_ struct step *chain = NULL;
        size_t n = 0;

        *ret_base = NULL;
        for (int r = 1; r != 0;) {
                struct step *q;

                if (s.en->loaded[s.i]) {
                        *ret_base = s.en->loaded[s.i];
                        (*ret_base)->refs++;
                        break;
                }
                q = reallocarray(chain, n + 1, sizeof(*q));
                if (!q)
                        return err_errno(e, -ENOMEM, "layers");
                chain = q;
                chain[n++] = s;
                r = step_down(p, &s, e);
                if (r < 0)
                        return r;
        }
        *ret = TAKE_PTR(chain);
        *ret_n = n;
        return 0;
}

static int load(struct pool *p, struct step top, bool writable, struct layer **ret, struct err **e)
{
        _cleanup_free_ struct step *chain = NULL;
        struct layer *base;
        size_t n = 0;
        int r;

        WITH_LOCK(&p->layers_lock);
        r = walk(p, top, &chain, &n, &base, e);
        if (r < 0)
                return r;
        while (n-- > 0) {
                r = load_one(p, chain[n], writable && n == 0, base, e);
                if (r < 0) {
                        layer_unref(base);
                        return r;
                }
                base = chain[n].en->loaded[chain[n].i];
                base->owner = chain[n].en;
        }
        *ret = base;
        return 0;
}

int pool_stack_open(struct pool *p, struct entry *en, struct err **e)
{
        _cleanup_free_ char *dir = pool_path(p, en->meta.id);
        struct layer *top;
        int r;

        if (!dir)
                return err_errno(e, -ENOMEM, "open");
        en->rests = false;
        r = load(p, (struct step){.en = en, .i = en->meta.nlayers - 1}, !en->meta.immutable, &top,
                 e);
        if (r < 0)
                return r;
        r = stack_new(top, en->meta.immutable, dir, &en->stack);
        if (r < 0) {
                pthread_mutex_lock(&p->layers_lock);
                layer_unref(top);
                pthread_mutex_unlock(&p->layers_lock);
                return err_errno(e, r, "open");
        }
        return 0;
}

int pool_layer_open(struct pool *p, struct entry *en, unsigned i, struct layer **ret,
                    struct err **e)
{
        return load(p, (struct step){.en = en, .i = i}, false, ret, e);
}

void pool_layer_close(struct pool *p, struct layer *l)
{
        WITH_LOCK(&p->layers_lock);
        layer_unref(l);
}

void pool_stack_close(struct pool *p, struct entry *en)
{
        struct stack *s = TAKE_PTR(en->stack);
        bool abandoned = p->abandoned;
        int r = abandoned ? 0 : stack_flush(s);

        if (r == 0 && !abandoned)
                r = layer_settle(s->top);
        if (r < 0)
                log_error("volume %s: flush at close: %s", en->meta.id, strerror(-r));
        else if (!abandoned)
                layer_freeze(s->top); /* all is in the log: the live map may go */
        en->rests = r == 0 && !abandoned;
        index_free(TAKE_PTR(s->top->index));
        pthread_mutex_lock(&p->layers_lock);
        layer_unref(s->top);
        pthread_mutex_unlock(&p->layers_lock);
        stack_free(s);
}

int pool_layer_files(struct pool *p, const char *id, unsigned n, struct err **e)
{
        _cleanup_free_ char *dir = pool_path(p, id);
        _cleanup_free_ char *data = dir ? layer_data_path(dir, n) : NULL;
        _cleanup_free_ char *log = dir ? layer_log_path(dir, n) : NULL;
        _cleanup_free_ char *live = layer_live_path(p->run, id, n);
        int fd;

        if (!data || !log || !live)
                return err_errno(e, -ENOMEM, "layer");
        if ((unlink(log) < 0 && errno != ENOENT) || (unlink(live) < 0 && errno != ENOENT) ||
            (unlink(data) < 0 && errno != ENOENT))
                return err_errno(e, -errno, "remove old files of layer %u", n);
        fd = open(log, O_RDWR | O_CREAT | O_EXCL | O_CLOEXEC, 0600);
        if (fd >= 0) {
                close(fd);
                fd = open(data, O_RDWR | O_CREAT | O_EXCL | O_CLOEXEC, 0600);
        }
        if (fd < 0)
                return err_errno(e, -errno, "create files of layer %u", n);
        close(fd);
        return 0;
}

/* Makes m the entry's metadata, on disk and here, and loads top as its top layer. */
static int push_commit(struct pool *p, struct entry *en, struct layer *top, struct meta *m,
                       struct err **e)
{
        _cleanup_free_ char *dir = pool_path(p, en->meta.id);
        int r = dir ? FAULT("volume.push") : -ENOMEM;

        if (r < 0)
                return err_errno(e, r, "layer");
        r = meta_write(dir, m, e);
        if (r == 0) {
                pthread_mutex_lock(&p->layers_lock);
                pthread_mutex_lock(&p->lock);
                r = pool_take_meta(en, m);
                if (r == 0) {
                        en->loaded[en->meta.nlayers - 1] = top;
                        top->owner = en;
                }
                pthread_mutex_unlock(&p->lock);
                pthread_mutex_unlock(&p->layers_lock);
                if (r < 0)
                        err_errno(e, r, "layer");
        }
        /* Should it speak of a layer that we do not write nevertheless, the next start finds that
         * one empty, and what lies below it unsettled. */
        if (r < 0 && pool_meta_restore(p, en) < 0)
                log_error("volume %s: its metadata speaks of a layer too many", en->meta.id);
        return r;
}

/* A new layer on the entry's top, empty, durable with the metadata that says that it is the top;
 * the stack still writes to the old one. */
static int push(struct pool *p, struct entry *en, struct layer **ret, struct err **e)
{
        const struct stack *s = en->stack;
        unsigned n = meta_next(&en->meta);
        _cleanup_free_ char *dir = pool_path(p, en->meta.id);
        struct layer_open o = {.dir = dir,
                               .run = p->run,
                               .volume = en->meta.id,
                               .data = n,
                               .map = n,
                               .size = s->size,
                               .overlap = UINT64_MAX,
                               .mapped = true,
                               .writable = true,
                               .direct = p->direct,
                               .parent = s->top};
        struct layer *top = NULL;
        struct meta m = {};
        int r;

        if (!dir || meta_copy(&en->meta, &m) < 0)
                return err_errno(e, -ENOMEM, "layer");
        if (meta_push(&m, n, s->size) < 0) {
                meta_done(&m);
                return err_errno(e, -EMLINK, "layer");
        }
        r = pool_layer_files(p, en->meta.id, n, e);
        if (r == 0)
                r = layer_open(&o, &top, e);
        if (r == 0)
                r = push_commit(p, en, top, &m, e);
        meta_done(&m);
        if (r == 0) {
                *ret = top;
        } else if (top) {
                layer_freeze(top);
                layer_free(top);
        }
        return r;
}

int pool_push_layer(struct pool *p, struct entry *en, struct err **e)
{
        struct stack *s = en->stack;
        struct layer *top = NULL;
        int r;

        /* All that waits for the disk is done while I/O goes on: before it is stopped, and after,
         * when flushes wait for it. */
        s->hurry = true;
        r = stack_flush(s);
        if (r < 0)
                err_errno(e, r, "flush");
        else
                r = push(p, en, &top, e);
        if (r == 0) {
                stack_switch(s, top);
                r = stack_settle(s);
                if (r < 0)
                        err_errno(e, r, "flush");
        }
        s->hurry = false;
        return r < 0 ? err_prepend(e, r, "freeze volume %s", en->meta.id) : 0;
}

struct grow {
        struct pool *p;
        struct entry *en;
        struct err **e;
        uint64_t size;
};

static int grow(struct stack *s, void *arg)
{
        struct grow *x = arg;
        _cleanup_free_ char *dir = pool_path(x->p, x->en->meta.id);
        struct meta m = {};
        int r;

        if (!dir || meta_copy(&x->en->meta, &m) < 0)
                return err_errno(x->e, -ENOMEM, "resize");
        m.layers[m.nlayers - 1].size = x->size;
        r = layer_grow(s->top, x->size);
        if (r < 0)
                err_errno(x->e, r, "grow data file");
        if (r == 0)
                r = meta_write(dir, &m, x->e);
        if (r == 0) {
                pthread_mutex_lock(&x->p->lock);
                x->en->meta.layers[m.nlayers - 1].size = x->size;
                pthread_mutex_unlock(&x->p->lock);
                s->size = x->size;
        }
        meta_done(&m);
        return r;
}

int pool_grow(struct pool *p, struct entry *en, uint64_t size, struct err **e)
{
        struct grow x = {.p = p, .en = en, .e = e, .size = size};

        return stack_change(en->stack, grow, &x);
}
