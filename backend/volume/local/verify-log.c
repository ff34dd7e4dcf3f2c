/* A map log, read again from disk, against the map in memory.
 *
 * Guests go on writing, and nothing of theirs is held: the log is read up to where it ended after a
 * flush, through a descriptor of our own (a log written anew meanwhile is another file).  What is
 * dirty is not in the log yet.  A line that differs may have been written and flushed while we
 * read, so only one that differs in two rounds, with the same content in memory, is a finding: the
 * second round's flush would have logged it. */
#include "backend/volume/local/verify.h"

#include <fcntl.h>

enum { SUSPECTS = 64 };

struct suspect {
        uint64_t line;
        uint8_t bytes[MAP_LINE_BYTES];
};

struct round {
        struct suspect v[SUSPECTS];
        size_t n;
};

struct log {
        int fd;
        uint64_t end;
};

static ssize_t read_to_end(void *arg, void *p, size_t n, uint64_t off)
{
        const struct log *log = arg;
        int fd = log->fd;

        if (off >= log->end)
                return 0;
        return layer_log_read(&fd, p, MIN(n, log->end - off), off);
}

/* The log as it is now.  Past what `end` says may be what is just being written. */
static int log_open(struct verify *v, struct layer *l, struct log *ret)
{
        _cleanup_free_ char *path = layer_log_path(l->dir, l->id.layer);

        if (!path)
                return -ENOMEM;
        WITH_LOCK(&v->stack->flush);
        ret->end = l->log_fd >= 0 ? l->log_end : UINT64_MAX;
        ret->fd = open(path, O_RDONLY | O_CLOEXEC);
        return ret->fd < 0 ? -errno : 0;
}

/* The line in memory, unless it is dirty. */
static bool settled_line(struct map *m, uint64_t line, uint8_t out[MAP_LINE_BYTES])
{
        WITH_LOCK(&m->lock);
        map_get_line(m, line, out);
        return !(m->dirty[line / 64] >> line % 64 & 1);
}

/* The first line from there on that either has. */
static uint64_t next_of_both(struct verify *v, const struct layer *l, const struct map *logged,
                             uint64_t line)
{
        uint64_t in_live = verify_next_line(v, l, line), in_log = map_next_line(logged, line);

        return MIN(in_live, in_log);
}

static void compare(struct verify *v, struct layer *l, const struct map *logged, struct round *ret)
{
        uint8_t a[MAP_LINE_BYTES], b[MAP_LINE_BYTES];

        for (uint64_t line = next_of_both(v, l, logged, 0); line != UINT64_MAX && ret->n < SUSPECTS;
             line = next_of_both(v, l, logged, line + 1)) {
                bool settled;

                map_get_line(logged, line, b);
                verify_hold(v);
                settled = settled_line(&l->map, line, a);
                verify_release(v);
                if (!settled || memcmp(a, b, sizeof(a)) == 0)
                        continue;
                ret->v[ret->n].line = line;
                memcpy(ret->v[ret->n++].bytes, a, sizeof(a));
        }
}

/* -EUCLEAN with words: the log is damaged. */
static int read_round(struct verify *v, struct layer *l, struct round *ret, struct maplog_end *end,
                      struct err **e)
{
        struct log log = {.fd = -1};
        const struct maplog_source src = {.read = read_to_end, .arg = &log};
        bool comparable = l->log_fd < 0 || stack_flush(v->stack) == 0;
        struct map logged;
        uint64_t blocks;
        int r = log_open(v, l, &log);

        if (r < 0)
                return r == -ENOENT ? err_set(e, -EUCLEAN, "the map log is missing") : r;
        posix_fadvise(log.fd, 0, 0, POSIX_FADV_DONTNEED); /* from the disk, not from memory */
        verify_hold(v);
        blocks = l->map.blocks; /* now, not before the log's end was looked at */
        verify_release(v);
        r = map_init(&logged, blocks, -1, 0);
        if (r == 0)
                r = maplog_replay(&src, &l->id, &logged, end, e);
        if (r == 0 && comparable)
                compare(v, l, &logged, ret);
        map_done(&logged);
        close(log.fd);
        return r;
}

static size_t in_both(const struct round *a, const struct round *b)
{
        size_t n = 0;

        for (size_t i = 0; i < a->n; i++)
                for (size_t k = 0; k < b->n; k++)
                        n += a->v[i].line == b->v[k].line &&
                             memcmp(a->v[i].bytes, b->v[k].bytes, MAP_LINE_BYTES) == 0;
        return n;
}

/* The map in memory is what the log said when it was read, with all that was done since. */
static bool mend(struct verify *v, struct layer *l)
{
        uint64_t end = 0;
        int fd = -1, r;
        bool top;

        if (l->log_fd >= 0) {
                r = stack_relog(v->stack);
                verify_hold(v);
                top = v->stack->top == l; /* it was frozen meanwhile: the next check sees to it */
                verify_release(v);
                return r == 0 && top;
        }
        r = layer_relog(l, &end, &fd);
        if (fd >= 0)
                close(fd);
        return r == 0;
}

int verify_log(struct verify *v, struct layer *l)
{
        _cleanup_free_ struct round *first = calloc(1, sizeof(*first));
        _cleanup_free_ struct round *second = calloc(1, sizeof(*second));
        _cleanup_err_ struct err *e = NULL;
        struct maplog_end end = {};
        int r = first && second ? read_round(v, l, first, &end, &e) : -ENOMEM;

        if (r == 0 && first->n > 0)
                r = read_round(v, l, second, &end, &e);
        if (r == 0 && end.header)
                verify_finding(v, mend(v, l), l, "the header of map.%u is damaged", l->id.layer);
        else if (r == 0 && in_both(first, second) > 0)
                verify_finding(v, mend(v, l), l,
                               "map.%u says other than memory about byte %llu and what follows",
                               l->id.layer,
                               (unsigned long long)first->v[0].line * MAP_LINE_BLOCKS * MAP_BLOCK);
        if (r != -EUCLEAN && r != -ENOTSUP)
                return r;
        verify_finding(v, mend(v, l), l, "map.%u: %s: it could not be read at the next start",
                       l->id.layer, err_msg(e));
        return 0;
}
