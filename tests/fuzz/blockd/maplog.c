/* Replays bytes as a map log.  With bit 0 of the first byte set, the checksums are made right
 * first, so that what lies behind them is reached. */
#include <endian.h>

#include "backend/volume/local/maplog.h"
#include "fuzz.h"

struct bytes {
        uint8_t *p;
        size_t n;
};

static ssize_t bytes_read(void *arg, void *p, size_t n, uint64_t off)
{
        struct bytes *b = arg;

        if (off >= b->n)
                return 0;
        n = MIN(n, b->n - off);
        memcpy(p, b->p + off, n);
        return n;
}

static void put_crc(uint8_t *at, uint32_t crc)
{
        crc = htole32(crc);
        memcpy(at, &crc, 4);
}

static void mend(struct bytes *b)
{
        size_t off = MAPLOG_HEADER;

        if (b->n >= MAPLOG_HEADER)
                put_crc(b->p + 60, crc32c(0, b->p, 60));
        while (off + MAPLOG_BATCH <= b->n) {
                uint32_t count;
                size_t len;

                memcpy(&count, b->p + off + 16, 4);
                len = MAPLOG_BATCH + (size_t)(le32toh(count) & 0xffff) * MAPLOG_RECORD;
                if (len > b->n - off)
                        return;
                put_crc(b->p + off + 4, crc32c(0, b->p + off + 8, len - 8));
                off += len;
        }
}

int LLVMFuzzerTestOneInput(const uint8_t *p, size_t n)
{
        const struct maplog_id id = {.layer = 0};
        struct bytes b = {};
        const struct maplog_source src = {.read = bytes_read, .arg = &b};
        struct maplog_end end;
        struct err *e = NULL;
        struct map m;
        int r;

        if (n < 1 || map_init(&m, UINT64_C(1) << 30, -1, 0) < 0)
                return 0;
        b.n = n - 1;
        b.p = malloc(b.n + 1);
        memcpy(b.p, p + 1, b.n);
        if (p[0] & 1)
                mend(&b);
        r = maplog_replay(&src, &id, &m, &end, &e);
        if (r == 0 && (end.end > b.n || end.next == 0))
                abort();
        if (r < 0 && !e)
                abort(); /* a refusal without words */
        err_free(e);
        map_done(&m);
        free(b.p);
        return 0;
}
