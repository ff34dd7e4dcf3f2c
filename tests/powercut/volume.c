/* Volumes: what a cut left is opened and compared. */
#include "volume.h"

#include <string.h>

#include "backend/volume/local/local.h"
#include "common/fault.h"
#include "common/fileio.h"

enum { OPS = 70, LONG_LOG = 16 /* seeds of which one has a long map log */ };

enum { TORN, HALF, COPIES, CRYPT };
static struct counter counters[] = {
        [TORN] = {"torn map logs"},
        [HALF] = {"half made or removed volumes"},
        [COPIES] = {"torn copies of metadata"},
        [CRYPT + SEEN_MAKING] = {"encrypted volumes half made"},
        [CRYPT + SEEN_REMOVING] = {"encrypted volumes half removed"},
        [CRYPT + SEEN_ERASING] = {"keys of no volume"},
};

/* Findings that a power cut explains are counted, others are failures. */
static void check_before(const char *state)
{
        _cleanup_free_ char *text = NULL;
        size_t size;
        FILE *f = open_memstream(&text, &size);
        int r = local_check(state, false, f, NULL);

        fclose(f);
        CHECK(r >= 0, "check: %d", r);
        for (char *line = strtok(text, "\n"); line; line = strtok(NULL, "\n")) {
                if (strstr(line, "torn tail"))
                        counters[TORN].n++;
                else if (strstr(line, "half made or removed"))
                        counters[HALF].n++;
                else if (strstr(line, "meta.bak is damaged; meta is good"))
                        counters[COPIES].n++; /* it is not synced before meta has its name */
                else
                        broken("check says: %s", line);
        }
}

static void check_after(const char *state)
{
        _cleanup_free_ char *text = NULL;
        size_t size;
        FILE *f = open_memstream(&text, &size);
        int r = local_check(state, false, f, NULL);

        fclose(f);
        CHECK(r == 0, "check says after the start: %s", text);
}

static void check_volume(const struct model *m, struct volume_pool *p, unsigned i)
{
        static uint32_t ids[SECTORS];
        const struct vol *v = &m->v[i];
        _cleanup_err_ struct err *e = NULL;
        struct volume *h;
        size_t n;

        CHECK(volume_open(p, v->id, false, &h, &e) == 0, "open volume %u: %s", i, err_msg(e));
        CHECK(volume_size(h) == v->size || volume_size(h) == v->or_size,
              "volume %u has %llu bytes, not %llu or %llu", i, (unsigned long long)volume_size(h),
              (unsigned long long)v->size, (unsigned long long)v->or_size);
        CHECK(volume_readonly(h) == v->immutable, "volume %u is %simmutable", i,
              v->immutable ? "not " : "");
        n = read_ids(h, ids);
        for (size_t k = 0; k < n; k++) {
                const struct sector *s = &v->s[k];
                bool found = ids[k] == s->now;

                for (uint32_t j = 0; j < s->n && !found; j++)
                        found = ids[k] == s->was[j];
                CHECK(found, "volume %u (%s) sector %zu is %u, not %u or one of %u since a flush",
                      i, v->id, k, ids[k], s->now, s->n);
        }
        volume_close(h);
}

struct found {
        const struct model *m;
        bool seen[VOLS];
};

static int each_volume(void *arg, const struct volume_info *info)
{
        struct found *f = arg;

        for (unsigned i = 0; i < f->m->nvols; i++)
                if (streq(f->m->v[i].id, info->id)) {
                        CHECK(!info->failed, "volume %u is in error", i);
                        CHECK(streq(f->m->v[i].family, info->family),
                              "volume %u is of family '%s', not '%s'", i, info->family,
                              f->m->v[i].family);
                        f->seen[i] = true;
                        return 0;
                }
        broken("there is a volume %s", info->id);
}

static void check(const void *arg, const char *top, const char *run, struct rnd *r)
{
        const struct model *m = arg;
        _cleanup_free_ char *state = path_printf("%s/state", top);
        struct found f = {.m = m};
        struct volume_pool *p;

        check_before(state);
        crypt_before(m, state, counters + CRYPT);
        p = pool_up(state, run, false);
        CHECK(volume_list(p, "", each_volume, &f, NULL) == 0, "list");
        for (unsigned i = 0; i < m->nvols; i++) {
                enum there there = m->v[i].there;

                CHECK(!f.seen[i] || (there != GONE && there != NEVER), "volume %u (%s) is back", i,
                      m->v[i].id);
                CHECK(f.seen[i] || there != YES, "volume %u (%s) is missing", i, m->v[i].id);
                if (f.seen[i])
                        check_volume(m, p, i);
        }
        crypt_after(m, state, f.seen);
        /* Merging and flattening, begun before the cut or due after it, change nothing. */
        if (rnd_one_in(r, 4)) {
                while (volume_pool_work(p) > 0)
                        ;
                for (unsigned i = 0; i < m->nvols; i++)
                        if (f.seen[i])
                                check_volume(m, p, i);
        }
        volume_pool_close(p);
        check_after(state);
}

/* ---- a generation ---- */

static bool has_long_log(uint64_t seed)
{
        return seed % LONG_LOG == 5;
}

static void reset(void *arg)
{
        struct model *m = arg;

        m->nvols = 0;
        m->busy = NONE;
}

/* The volumes of the whole generation are known by name from its begin. */
static void names(void *arg, const void *all)
{
        const struct model *live = all;
        struct model *m = arg;

        for (unsigned i = m->nvols; i < live->nvols; i++) {
                m->v[i] = (struct vol){};
                strcpy(m->v[i].id, live->v[i].id);
                strcpy(m->v[i].family, live->v[i].family);
        }
        m->nvols = live->nvols;
}

static void adopt(void *arg, const void *all)
{
        const struct model *live = all;
        struct model *m = arg;
        unsigned n = 0;

        for (unsigned i = 0; i < m->nvols; i++) {
                if (m->v[i].there == NEVER || m->v[i].there == GONE)
                        continue;
                m->v[n] = m->v[i];
                m->v[n].how = live->v[i].how;
                strcpy(m->v[n].parent, live->v[i].parent);
                n++;
        }
        m->nvols = n;
        m->busy = NONE;
}

static const char *op_name(uint32_t op)
{
        return operations[op].name;
}

static bool op_counts(uint32_t op)
{
        return !operations[op].quiet;
}

static void begin(const char *dir, const char *argument)
{
        setenv("STRATOFS_FAULT", "volume.ring=EIO,volume.keyring=ENOSYS", 1);
        fault_init();
}

static void end(void)
{
}

const struct subject subject = {
        .name = "volume",
        .model = sizeof(struct model),
        .ops = OPS,
        .nops = OPERATIONS,
        .op_name = op_name,
        .op_counts = op_counts,
        .counters = counters,
        .ncounters = ARRAY_SIZE(counters),
        .begin = begin,
        .end = end,
        .reset = reset,
        .large = has_long_log,
        .prepare = work_long_log,
        .life = work_live,
        .apply = volume_apply,
        .names = names,
        .check = check,
        .adopt = adopt,
};
