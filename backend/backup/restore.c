/* Chunks written over NBD to a volume. */
#include "backend/backup/copy.h"
#include "backend/backup/nbd.h"

enum { ZERO_MAX = 1 << 30 };

struct restore {
        struct peer peer;
        struct store *store;
        const struct manifest *m;
        bool blank;
};

static int zero(struct restore *w, uint64_t off, uint64_t len, struct err **e)
{
        while (!w->blank && len > 0) {
                uint64_t n = MIN(len, (uint64_t)ZERO_MAX);
                int r = peer_report(&w->peer, MIN(off, w->m->size), w->m->size, e);

                if (r < 0)
                        return r;
                if (nbd_zero(w->peer.h, n, off, 0) < 0)
                        return peer_error(&w->peer, "zero", e);
                off += n;
                len -= n;
        }
        return 0;
}

/* Blocks of zeros stay holes. */
static int write_chunk(struct restore *w, struct slot *s, struct err **e)
{
        size_t len = manifest_chunk_len(w->m, s->chunk);
        uint64_t off = s->chunk * w->m->chunk_size;
        int r = store_get(w->store, &w->m->chunks[s->chunk], s->buf, len, e);

        if (r < 0)
                return err_prepend(e, r, "at byte %" PRIu64, off);
        for (size_t at = 0, end; at < len; at = end) {
                bool hole = all_zeros(s->buf + at, MIN((size_t)BLOCK, len - at));
                struct nbd_handle *h = w->peer.h;

                for (end = at + BLOCK; end < len; end += BLOCK)
                        if (all_zeros(s->buf + end, MIN((size_t)BLOCK, len - end)) != hole)
                                break;
                end = MIN(end, len);
                if (hole && w->blank)
                        continue;
                if (hole ? nbd_aio_zero(h, end - at, off + at, slot_callback(s), 0) < 0
                         : nbd_aio_pwrite(h, s->buf + at, end - at, off + at, slot_callback(s), 0) <
                                    0)
                        return peer_error(&w->peer, "write", e);
        }
        return 0;
}

static int finish(struct restore *w, struct err **e)
{
        struct slot *s = peer_oldest(&w->peer);
        int r = peer_wait(&w->peer, s, e);

        if (r == 0)
                r = peer_report(&w->peer, MIN((s->chunk + 1) * w->m->chunk_size, w->m->size),
                                w->m->size, e);
        peer_free(&w->peer);
        return r;
}

static int write_all(struct restore *w, struct err **e)
{
        const struct manifest *m = w->m;
        int r = 0;

        for (size_t i = 0, n; r == 0 && i < m->nchunks; i += n) {
                struct slot *s;

                for (n = 0; i + n < m->nchunks && hash_zero(&m->chunks[i + n]);)
                        n++;
                if (n > 0) {
                        uint64_t off = i * m->chunk_size;

                        r = zero(w, off, MIN(n * m->chunk_size, m->size - off), e);
                        continue;
                }
                n = 1;
                while (r == 0 && !(s = peer_slot(&w->peer)))
                        r = finish(w, e);
                if (r < 0)
                        break;
                s->chunk = i;
                r = write_chunk(w, s, e);
        }
        while (r == 0 && peer_oldest(&w->peer))
                r = finish(w, e);
        return r;
}

static void restore_done(struct restore *w)
{
        peer_done(&w->peer);
}

int volume_restore(struct store *s, const struct manifest *m, const char *socket,
                   const char *volume, bool blank, const struct backup_progress *p, struct err **e)
{
        _cleanup_(restore_done) struct restore w = {.store = s, .m = m, .blank = blank};
        int64_t size;
        int r = peer_open(&w.peer, socket, volume, NULL, p, e);

        if (r < 0)
                return r;
        size = nbd_get_size(w.peer.h);
        if (size < 0 || (uint64_t)size < m->size)
                return err_set(e, -EINVAL, "the backup has %" PRIu64 " bytes, the volume %" PRId64,
                               m->size, size);
        r = peer_buffers(&w.peer, m->chunk_size, e);
        if (r == 0)
                r = write_all(&w, e);
        if (r == 0)
                r = zero(&w, m->size, size - m->size, e);
        if (r == 0 && nbd_flush(w.peer.h, 0) < 0)
                r = peer_error(&w.peer, "flush", e);
        return r;
}
