#include "blockd/meter.h"

#include <dirent.h>
#include <utlist.h>

#include "common/jsonl.h"
#include "blockd/server.h"
#include "common/clock.h"
#include "common/fileio.h"
#include "common/log.h"

enum { FORMAT = 1, FILE_MAX = 4096 };

/* With lock held. */
static struct meter *find(struct server *s, const char *volume)
{
        struct meter *m;

        HASH_FIND_STR(s->meters, volume, m);
        return m;
}

/* With lock held; NULL without memory. */
static struct meter *get(struct server *s, const char *volume)
{
        struct meter *m = find(s, volume);

        if (m || !(m = calloc(1, sizeof(*m))))
                return m;
        snprintf(m->volume, sizeof(m->volume), "%s", volume);
        limit_init(&m->limit);
        m->since = clock_now();
        HASH_ADD_STR(s->meters, volume, m);
        return m;
}

static void drop(struct server *s, struct meter *m)
{
        HASH_DEL(s->meters, m);
        limit_done(&m->limit);
        free(m);
}

int meter_join(struct server *server, const char *volume, struct stats *s, struct meter **ret)
{
        WITH_LOCK(&server->lock);
        *ret = get(server, volume);
        if (!*ret)
                return -ENOMEM;
        DL_APPEND((*ret)->live, s);
        return 0;
}

void meter_leave(struct server *server, struct meter **m, struct stats *s)
{
        WITH_LOCK(&server->lock);
        if (!*m)
                return;
        s->sum.in_flight = 0; /* what was not answered is not counted */
        stats_add(&(*m)->past, &s->sum);
        DL_DELETE((*m)->live, s);
        *s = (struct stats){}; /* it may join again */
        *m = NULL;
}

/* --- limits on disk ------------------------------------------------------------------------- */

static char *file_of(struct server *s, const char *volume)
{
        return path_printf("%s/limits/%s.json", s->state, volume);
}

static int write_file(struct server *s, const char *volume, const struct limit_config *c,
                      struct err **e)
{
        _cleanup_free_ char *path = file_of(s, volume);
        _cleanup_free_ char *text = NULL;
        json_auto_t *o = json_pack(
                "{s:i, s:s, s:I, s:I, s:I, s:I, s:I}", "format", FORMAT, "volume", volume, "iops",
                (json_int_t)c->iops, "bandwidth", (json_int_t)c->bandwidth, "iops_burst",
                (json_int_t)c->iops_burst, "bandwidth_burst", (json_int_t)c->bandwidth_burst,
                "burst_seconds", (json_int_t)c->burst_seconds);

        text = o ? json_text(o, JSON_COMPACT) : NULL;
        if (!path || !text)
                return err_errno(e, -ENOMEM, "limit");
        return file_replace(path, text, strlen(text), 0600, e);
}

static int remove_file(struct server *s, const char *volume, struct err **e)
{
        _cleanup_free_ char *path = file_of(s, volume);
        int r;

        if (!path)
                return err_errno(e, -ENOMEM, "limit");
        if (unlink(path) < 0)
                return errno == ENOENT ? 0 : err_errno(e, -errno, "remove '%s'", path);
        r = fsync_parent(path);
        return r < 0 ? err_errno(e, r, "sync '%s'", path) : 0;
}

static int parse(const char *text, size_t n, char volume[VOLUME_ID_SIZE], struct limit_config *ret,
                 struct err **e)
{
        json_auto_t *o = json_loadb(text, n, JSON_REJECT_DUPLICATES, NULL);
        json_int_t iops, bandwidth, iops_burst, bandwidth_burst, seconds;
        const char *id;
        int format = 0;

        if (json_unpack(o, "{s:i}", "format", &format) == 0 && format > FORMAT)
                return err_set(e, -ENOTSUP, "it has format %d, this program knows %d", format,
                               FORMAT);
        if (!o || format != FORMAT ||
            json_unpack(o, "{s:s, s:I, s:I, s:I, s:I, s:I}", "volume", &id, "iops", &iops,
                        "bandwidth", &bandwidth, "iops_burst", &iops_burst, "bandwidth_burst",
                        &bandwidth_burst, "burst_seconds", &seconds) < 0 ||
            strlen(id) >= VOLUME_ID_SIZE)
                return err_set(e, -EUCLEAN, "it makes no sense");
        *ret = (struct limit_config){iops, bandwidth, iops_burst, bandwidth_burst, seconds};
        strcpy(volume, id);
        return limit_check(ret) < 0 ? err_set(e, -EUCLEAN, "a figure is out of range") : 0;
}

static int restore_one(struct server *s, const char *path, struct err **e)
{
        _cleanup_free_ char *text = NULL;
        char volume[VOLUME_ID_SIZE];
        struct limit_config c;
        struct meter *m;
        size_t n;
        int r = file_read(path, FILE_MAX, &text, &n, e);

        if (r == 0)
                r = parse(text, n, volume, &c, e);
        if (r < 0)
                return r;
        r = volume_exists(s->pool, volume, e);
        if (r == -ENOENT && unlink(path) == 0)
                return r; /* removed, and we were killed before its limits were */
        if (r < 0)
                return r;
        WITH_LOCK(&s->lock);
        m = get(s, volume);
        if (!m)
                return err_errno(e, -ENOMEM, "limit");
        limit_set(&m->limit, &c);
        return 0;
}

int meters_restore(struct server *s, struct err **e)
{
        _cleanup_free_ char *dir = path_printf("%s/limits", s->state);
        struct dirent *de;
        DIR *d;
        int r;

        if (!dir)
                return err_errno(e, -ENOMEM, "limits");
        r = mkdir_parents(dir, 0700, e);
        if (r < 0)
                return r;
        d = opendir(dir);
        if (!d)
                return err_errno(e, -errno, "open '%s'", dir);
        while ((de = readdir(d))) {
                _cleanup_free_ char *path = path_printf("%s/%s", dir, de->d_name);
                _cleanup_err_ struct err *why = NULL;
                size_t n = strlen(de->d_name);

                if (n < 6 || !streq(de->d_name + n - 5, ".json") || de->d_name[0] == '.' || !path)
                        continue;
                if (restore_one(s, path, &why) < 0)
                        log_error("limits '%s' left out: %s", de->d_name, err_msg(why));
        }
        closedir(d);
        return 0;
}

int meter_set_limit(struct server *s, const char *volume, const struct limit_config *c,
                    struct err **e)
{
        bool any = c->iops || c->bandwidth;
        struct meter *m;
        int r = volume_exists(s->pool, volume, e);

        if (r < 0)
                return r;
        if (limit_check(c) < 0)
                return err_set(e, -EINVAL, "limit '%s': a figure is out of range", volume);
        r = any ? write_file(s, volume, c, e) : remove_file(s, volume, e);
        if (r < 0)
                return r;
        WITH_LOCK(&s->lock);
        m = any ? get(s, volume) : find(s, volume);
        if (m)
                limit_set(&m->limit, c);
        return any && !m ? err_errno(e, -ENOMEM, "limit '%s'", volume) : 0;
}

int meter_remove(struct server *s, const char *volume, struct err **e)
{
        struct meter *m;
        int r = remove_file(s, volume, e);

        WITH_LOCK(&s->lock);
        m = find(s, volume);
        if (m && !m->live)
                drop(s, m);
        return r;
}

void meters_free(struct server *s)
{
        struct meter *m, *tmp;

        HASH_ITER (hh, s->meters, m, tmp)
                drop(s, m);
}

/* --- reading -------------------------------------------------------------------------------- */

static void read_one(struct meter *m, struct meter_facts *ret)
{
        struct stats *s;

        *ret = (struct meter_facts){.volume = m->volume, .since = m->since, .sum = m->past};
        limit_get(&m->limit, &ret->limit);
        DL_FOREACH (m->live, s)
                stats_add(&ret->sum, &s->sum);
}

void meter_read(struct server *s, const char *volume, struct meter_facts *ret)
{
        struct meter *m;

        WITH_LOCK(&s->lock);
        m = find(s, volume);
        if (m)
                read_one(m, ret);
        else
                *ret = (struct meter_facts){};
        ret->volume = volume;
}

static int by_volume(const struct meter *a, const struct meter *b)
{
        return strcmp(a->volume, b->volume);
}

void meters_list(struct server *s, const char *after,
                 int (*each)(void *arg, const struct meter_facts *f), void *arg)
{
        struct meter *m, *tmp;
        struct meter_facts f;

        WITH_LOCK(&s->lock);
        HASH_SORT(s->meters, by_volume);
        HASH_ITER (hh, s->meters, m, tmp) {
                if (strcmp(m->volume, after) <= 0)
                        continue;
                read_one(m, &f);
                if (each(arg, &f) != 0)
                        return;
        }
}

static json_t *count_json(const struct stats_count *n)
{
        json_t *latency = json_array();
        unsigned last = STATS_BUCKETS;

        while (last > 0 && n->latency[last - 1] == 0)
                last--;
        for (unsigned i = 0; i < last; i++)
                json_array_append_new(latency, json_integer((json_int_t)n->latency[i]));
        return json_pack("{s:I, s:I, s:I, s:I, s:o}", "ops", (json_int_t)n->ops, "bytes",
                         (json_int_t)n->bytes, "errors", (json_int_t)n->errors, "usec",
                         (json_int_t)n->usec, "latency", latency);
}

json_t *meter_json(const struct meter_facts *f)
{
        const struct limit_config *l = &f->limit;
        json_t *o = json_pack("{s:s, s:I, s:I, s:I, s:I, s:I, s:I, s:I}", "id", f->volume, "since",
                              (json_int_t)f->since, "in_flight", (json_int_t)f->sum.in_flight,
                              "iops", (json_int_t)l->iops, "bandwidth", (json_int_t)l->bandwidth,
                              "iops_burst", (json_int_t)l->iops_burst, "bandwidth_burst",
                              (json_int_t)l->bandwidth_burst, "burst_seconds",
                              (json_int_t)l->burst_seconds);

        for (unsigned i = 0; i < STATS_OPS; i++)
                json_object_set_new(o, stats_names[i], count_json(&f->sum.op[i]));
        return o;
}
