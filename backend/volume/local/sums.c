#include "backend/volume/local/sums.h"

#include <endian.h>
#include <fcntl.h>
#include <inttypes.h>
#include <sys/stat.h>

#include "backend/volume/local/ring.h"
#include "common/fileio.h"
#include "common/log.h"

/* The file: a page of header, then pages of sums. */
struct header {
        char magic[8]; /* "STRASUM1" */
        uint32_t version, block;
        uint8_t volume[16];
        uint32_t layer, zero;
        uint64_t bytes;
        uint32_t zeros[3];
        uint32_t crc; /* of what is before */
};
_Static_assert(sizeof(struct header) == 64, "as on disk");

char *sums_path(const struct layer *l)
{
        return path_printf("%s/sum.%u", l->dir, l->id.layer);
}

static void header_fill(const struct layer *l, uint64_t bytes, struct header *h)
{
        *h = (struct header){.version = htole32(1),
                             .block = htole32(MAP_BLOCK),
                             .layer = htole32(l->id.layer),
                             .bytes = htole64(bytes)};
        memcpy(h->magic, "STRASUM1", 8);
        memcpy(h->volume, l->id.volume.bytes, 16);
        h->crc = htole32(crc32c(0, h, sizeof(*h) - 4));
}

static struct sums *sums_new(int fd, uint64_t bytes)
{
        struct sums *s = calloc(1, sizeof(*s));

        if (!s)
                return NULL;
        s->fd = fd;
        s->bytes = bytes;
        pthread_mutex_init(&s->lock, NULL);
        return s;
}

void sums_free(struct sums *s)
{
        if (!s)
                return;
        sums_free(s->older);
        close(s->fd);
        pthread_mutex_destroy(&s->lock);
        free(s);
}

int sums_open(struct layer *l, struct err **e)
{
        _cleanup_free_ char *path = sums_path(l);
        _cleanup_close_ int fd = -1;
        struct header got, want;

        if (!path)
                return err_errno(e, -ENOMEM, "layer");
        fd = open(path, O_RDWR | O_CLOEXEC);
        if (fd < 0)
                return errno == ENOENT ? 0 : err_errno(e, -errno, "open '%s'", path);
        if (pread_full(fd, &got, sizeof(got), 0) == 0) {
                header_fill(l, le64toh(got.bytes), &want);
                if (memcmp(&got, &want, sizeof(got)) == 0) {
                        l->sums = sums_new(fd, le64toh(got.bytes));
                        if (!l->sums)
                                return err_errno(e, -ENOMEM, "layer");
                        TAKE_FD(fd);
                        return 0;
                }
        }
        log_error("'%s' is damaged: reads of the layer are not checked until a scrub", path);
        return 0;
}

int sums_drop(const char *dir, unsigned n)
{
        _cleanup_free_ char *path = path_printf("%s/sum.%u", dir, n);

        if (!path)
                return -ENOMEM;
        if (unlink(path) < 0)
                return errno == ENOENT ? 0 : -errno;
        return fsync_parent(path);
}

uint32_t sums_of(const void *block)
{
        uint32_t c = crc32c(0, block, MAP_BLOCK);

        return c ? c : UINT32_MAX;
}

uint32_t sums_unset(const struct layer *l)
{
        static const char zeros[MAP_BLOCK];

        return l->mapped ? 0 : sums_of(zeros);
}

int sums_page_read(const struct sums *s, uint64_t page, struct sums_page *ret)
{
        uint32_t raw[SUMS_PAGE / 4];
        struct ring_io io = {
                .fd = s->fd, .p = (char *)raw, .n = SUMS_PAGE, .off = (page + 1) * SUMS_PAGE};
        int r = ring_plain(&io);

        *ret = (struct sums_page){};
        if (r < 0)
                return r;
        for (size_t i = 0; i < ARRAY_SIZE(raw) && !ret->there; i++)
                ret->there = raw[i] != 0;
        if (!ret->there)
                return 0;
        ret->damaged = le32toh(raw[SUMS_PER_PAGE]) != crc32c(0, raw, sizeof(raw) - sizeof(raw[0]));
        for (size_t i = 0; i < SUMS_PER_PAGE && !ret->damaged; i++)
                ret->sum[i] = le32toh(raw[i]);
        return 0;
}

int sums_page_write(const struct sums *s, uint64_t page, const struct sums_page *p)
{
        uint32_t raw[SUMS_PAGE / 4];

        for (size_t i = 0; i < SUMS_PER_PAGE; i++)
                raw[i] = htole32(p->sum[i]);
        raw[SUMS_PER_PAGE] = htole32(crc32c(0, raw, sizeof(raw) - sizeof(raw[0])));
        return pwrite_full(s->fd, raw, sizeof(raw), (page + 1) * SUMS_PAGE);
}

int sums_make(const struct layer *l, uint64_t bytes, struct sums **ret)
{
        _cleanup_free_ char *path = sums_path(l);
        _cleanup_free_ char *tmp = path ? path_printf("%s.new", path) : NULL;
        _cleanup_close_ int fd = -1;
        struct header h;
        int r;

        if (!tmp)
                return -ENOMEM;
        fd = open(tmp, O_RDWR | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
        if (fd < 0)
                return -errno;
        header_fill(l, bytes, &h);
        r = pwrite_full(fd, &h, sizeof(h), 0);
        if (r < 0)
                return r;
        *ret = sums_new(fd, bytes);
        if (!*ret)
                return -ENOMEM;
        TAKE_FD(fd);
        return 0;
}

int sums_commit(struct layer *l, struct sums *s, bool fresh)
{
        _cleanup_free_ char *path = sums_path(l);
        _cleanup_free_ char *tmp = path ? path_printf("%s.new", path) : NULL;

        if (!tmp)
                return -ENOMEM;
        if (fdatasync(s->fd) < 0)
                return -errno;
        if (!fresh)
                return 0;
        if (rename(tmp, path) < 0)
                return -errno;
        s->older = l->sums;
        l->sums = s;
        return fsync_parent(path);
}

static int refuse(struct layer *l, struct sums *s, uint64_t block)
{
        bool known = false;
        uint64_t before;

        WITH_LOCK(&s->lock);
        before = s->bad++;
        for (unsigned i = 0; i < s->nnamed; i++)
                known |= s->named[i] == block;
        if (!known && s->nnamed < SUMS_NAMED)
                s->named[s->nnamed++] = block;
        /* A guest that tries for ever must not fill the log. */
        if ((before & (before - 1)) == 0)
                log_error("layer %u in '%s': byte %" PRIu64
                          " does not match its checksum: not served (%" PRIu64 " reads so far)",
                          l->id.layer, l->dir, block * MAP_BLOCK, s->bad);
        return -EIO;
}

/* Its first sums may be written anew just now: a second look decides. */
static int load(struct sums *s, uint64_t page, struct sums_page *p)
{
        int r = sums_page_read(s, page, p);

        if (r == 0 && p->damaged)
                r = sums_page_read(s, page, p);
        if (r == 0 && p->damaged && !s->damaged) {
                s->damaged = true;
                log_error("checksums are damaged: a scrub makes them anew");
        }
        return r;
}

static int check_blocks(struct layer *l, const char *p, size_t n, uint64_t off)
{
        const uint32_t unset = sums_unset(l);
        struct sums *s = l->sums;
        uint64_t page = UINT64_MAX;
        struct sums_page sums;

        for (uint64_t block = off / MAP_BLOCK; n > 0; block++, n -= MAP_BLOCK, p += MAP_BLOCK) {
                uint32_t want;
                int r;

                if (block / SUMS_PER_PAGE != page) {
                        page = block / SUMS_PER_PAGE;
                        r = load(s, page, &sums);
                        if (r < 0)
                                return r;
                }
                want = sums.sum[block % SUMS_PER_PAGE];
                if (!want && !sums.damaged)
                        want = unset;
                if (want && want != sums_of(p) && !s->off)
                        return refuse(l, s, block);
        }
        return 0;
}

int sums_read(struct layer *l, void *p, size_t n, uint64_t off)
{
        char block[MAP_BLOCK];

        while (n > 0) {
                size_t in = off % MAP_BLOCK, k = MIN(n, MAP_BLOCK - in);
                bool whole = n >= MAP_BLOCK && in == 0;
                const size_t len = whole ? n / MAP_BLOCK * MAP_BLOCK : MAP_BLOCK;
                struct ring_io io = {
                        .fd = l->fd, .p = whole ? p : block, .n = len, .off = off - in};
                int r = ring_plain(&io);

                if (whole)
                        k = len;
                if (r == 0)
                        r = check_blocks(l, whole ? p : block, len, off - in);
                if (r < 0)
                        return r;
                if (!whole)
                        memcpy(p, block + in, k);
                p = (char *)p + k;
                off += k;
                n -= k;
        }
        return 0;
}
