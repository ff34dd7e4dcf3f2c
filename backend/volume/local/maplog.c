#include "backend/volume/local/maplog.h"

#include <endian.h>

static void put32(uint8_t *p, uint32_t v)
{
        v = htole32(v);
        memcpy(p, &v, 4);
}

static void put64(uint8_t *p, uint64_t v)
{
        v = htole64(v);
        memcpy(p, &v, 8);
}

static uint32_t get32(const uint8_t *p)
{
        uint32_t v;

        memcpy(&v, p, 4);
        return le32toh(v);
}

static uint64_t get64(const uint8_t *p)
{
        uint64_t v;

        memcpy(&v, p, 8);
        return le64toh(v);
}

static const char header_magic[8] = {'S', 'T', 'R', 'A', 'M', 'A', 'P', '1'};
static const char batch_magic[4] = {'S', 'M', 'L', 'B'};

void maplog_header(uint8_t out[MAPLOG_HEADER], const struct maplog_id *id)
{
        memset(out, 0, MAPLOG_HEADER);
        memcpy(out, header_magic, 8);
        put32(out + 8, 1);
        put32(out + 12, MAP_BLOCK);
        memcpy(out + 16, id->volume.bytes, 16);
        put32(out + 32, id->layer);
        put32(out + 60, crc32c(0, out, 60));
}

size_t maplog_batch(uint8_t *out, uint64_t group, bool last, const uint64_t *lines,
                    const uint8_t *bytes, size_t n)
{
        size_t len = MAPLOG_BATCH + n * MAPLOG_RECORD;

        memset(out, 0, MAPLOG_BATCH);
        memcpy(out, batch_magic, 4);
        put64(out + 8, group);
        put32(out + 16, n);
        put32(out + 20, last);
        for (size_t i = 0; i < n; i++) {
                put64(out + MAPLOG_BATCH + i * MAPLOG_RECORD, lines[i]);
                memcpy(out + MAPLOG_BATCH + i * MAPLOG_RECORD + 8, bytes + i * MAP_LINE_BYTES,
                       MAP_LINE_BYTES);
        }
        put32(out + 4, crc32c(0, out + 8, len - 8));
        return len;
}

/* Reads the batch at off into buf.  1 when it is good, 0 when it is not one, -errno. */
static int batch_read(const struct maplog_source *src, uint64_t off, uint8_t *buf, size_t *ret_len)
{
        ssize_t got = src->read(src->arg, buf, MAPLOG_BATCH, off);
        size_t count, rest;

        if (got < 0)
                return got;
        if (got < MAPLOG_BATCH || memcmp(buf, batch_magic, 4) != 0)
                return 0;
        count = get32(buf + 16);
        if (count == 0 || count > MAPLOG_COUNT_MAX)
                return 0;
        rest = count * MAPLOG_RECORD;
        got = src->read(src->arg, buf + MAPLOG_BATCH, rest, off + MAPLOG_BATCH);
        if (got < 0)
                return got;
        *ret_len = MAPLOG_BATCH + rest;
        return (size_t)got == rest && get32(buf + 4) == crc32c(0, buf + 8, *ret_len - 8);
}

/* Whether a good batch of group >= group lies anywhere at or after off. */
static int later_batch(const struct maplog_source *src, uint64_t off, uint64_t group, uint8_t *buf)
{
        uint8_t window[4096];
        size_t len;

        for (;;) {
                ssize_t got = src->read(src->arg, window, sizeof(window), off);

                if (got < MAPLOG_BATCH)
                        return MIN(got, 0);
                for (ssize_t i = 0; i + 4 <= got; i += 4) {
                        int r;

                        if (memcmp(window + i, batch_magic, 4) != 0)
                                continue;
                        r = batch_read(src, off + i, buf, &len);
                        if (r < 0 || (r == 1 && get64(buf + 8) >= group))
                                return r;
                }
                off += got / 4 * 4;
        }
}

static int apply(struct map *m, const uint8_t *batch)
{
        size_t count = get32(batch + 16);

        for (size_t i = 0; i < count; i++) {
                const uint8_t *rec = batch + MAPLOG_BATCH + i * MAPLOG_RECORD;
                int r = map_set_line(m, get64(rec), rec + 8);

                if (r < 0)
                        return r;
        }
        return 0;
}

/* 1 good, 0 torn or empty, -errno. */
static int header_read(const struct maplog_source *src, const struct maplog_id *id, struct err **e)
{
        uint8_t got[MAPLOG_HEADER], want[MAPLOG_HEADER];
        ssize_t n = src->read(src->arg, got, MAPLOG_HEADER, 0);

        if (n < 0)
                return err_errno(e, n, "read map log");
        if (n < MAPLOG_HEADER || memcmp(got, header_magic, 8) != 0 ||
            get32(got + 60) != crc32c(0, got, 60))
                return 0;
        if (get32(got + 8) != 1)
                return err_set(e, -ENOTSUP, "map log has version %u, this program knows 1",
                               get32(got + 8));
        maplog_header(want, id);
        if (memcmp(got, want, MAPLOG_HEADER) != 0)
                return err_set(e, -EUCLEAN, "map log belongs to another layer");
        return 1;
}

/* Whether what is there is that header but for a few bytes, and a first batch is behind it. */
static bool header_damaged(const struct maplog_source *src, const struct maplog_id *id,
                           uint8_t *buf)
{
        uint8_t got[MAPLOG_HEADER], want[MAPLOG_HEADER];
        unsigned bad = 0;
        size_t len;

        if (src->read(src->arg, got, MAPLOG_HEADER, 0) != MAPLOG_HEADER)
                return false;
        maplog_header(want, id);
        for (size_t i = 0; i < MAPLOG_HEADER; i++)
                bad += got[i] != want[i];
        return bad <= 4 && batch_read(src, MAPLOG_HEADER, buf, &len) == 1 && get64(buf + 8) == 1;
}

int maplog_replay(const struct maplog_source *src, const struct maplog_id *id, struct map *m,
                  struct maplog_end *ret, struct err **e)
{
        _cleanup_free_ uint8_t *buf = malloc(MAPLOG_BATCH_MAX);
        bool whole = true; /* the last group read is complete */
        uint64_t group = 0;
        size_t len = 0;
        int r;

        *ret = (struct maplog_end){};
        if (!buf)
                return err_errno(e, -ENOMEM, "read map log");
        r = header_read(src, id, e);
        if (r < 0)
                return r;
        ret->header = r == 0 && header_damaged(src, id, buf);
        if (r == 1 || ret->header) {
                ret->end = MAPLOG_HEADER;
                while ((r = batch_read(src, ret->end, buf, &len)) == 1) {
                        if (get64(buf + 8) != group + whole)
                                break;
                        r = apply(m, buf);
                        if (r == -EINVAL)
                                return err_set(e, -EUCLEAN, "map log: a record makes no sense");
                        if (r < 0)
                                return err_errno(e, r, "map");
                        group += whole;
                        whole = get32(buf + 20) & 1;
                        ret->end += len;
                }
        }
        if (r >= 0)
                r = later_batch(src, ret->end, group + 1 + whole, buf);
        if (r < 0)
                return err_errno(e, r, "read map log");
        if (r == 1)
                return err_set(e, -EUCLEAN, "map log is damaged at byte %llu",
                               (unsigned long long)ret->end);
        ret->torn = src->read(src->arg, buf, 1, ret->end) == 1;
        ret->next = group + whole; /* an unfinished group goes on: none of it was acknowledged */
        return 0;
}
