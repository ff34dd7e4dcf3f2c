/* A snapshot read over NBD into chunks.
 *
 * It goes in windows of the volume: blockd tells what is allocated and what has changed in it, then
 * only that is read, some chunks ahead of the one that is being stored.  Of a chunk in which little
 * has changed the rest comes from the base's chunk. */
#include "backend/backup/copy.h"
#include "backend/backup/nbd.h"

#include "common/log.h"

enum { WINDOW = 64 << 20, BLOCKS = WINDOW / BLOCK };

struct copy {
        struct peer peer;
        struct store *store;
        struct manifest *m;
        const struct manifest *base;
        uint64_t window;                /* offset of the window */
        uint8_t data[BLOCKS];           /* 1: may hold other bytes than zeros */
        uint8_t dirty[BLOCKS];          /* 1: may differ from the base */
        uint64_t told_data, told_dirty; /* so far: ends of what the answers covered */
};

/* --- what is there, and what has changed ------------------------------------------------------ */

static void mark(struct copy *c, uint8_t *map, uint64_t off, uint64_t len, uint8_t value)
{
        uint64_t first = (off - c->window) / BLOCK;
        uint64_t last = (off + len - c->window + BLOCK - 1) / BLOCK;

        for (uint64_t i = first; i < MIN(last, (uint64_t)BLOCKS); i++)
                map[i] |= value;
}

static int extents(void *arg, const char *context, uint64_t off, uint32_t *entries, size_t n,
                   int *error _unused_)
{
        struct copy *c = arg;
        bool alloc = streq(context, LIBNBD_CONTEXT_BASE_ALLOCATION);

        for (size_t i = 0; i + 1 < n; i += 2) {
                if (alloc)
                        mark(c, c->data, off, entries[i], !(entries[i + 1] & LIBNBD_STATE_ZERO));
                else
                        mark(c, c->dirty, off, entries[i], entries[i + 1] & 1);
                off += entries[i];
        }
        if (alloc)
                c->told_data = off;
        else
                c->told_dirty = off;
        return 0;
}

static int look(struct copy *c, uint64_t len, struct err **e)
{
        uint64_t end = c->window + len;
        bool can = nbd_can_meta_context(c->peer.h, LIBNBD_CONTEXT_BASE_ALLOCATION) > 0;

        memset(c->data, !can, sizeof(c->data));
        memset(c->dirty, !c->base, sizeof(c->dirty));
        for (uint64_t off = c->window, told; off < end && (can || c->base); off = told) {
                nbd_extent_callback cb = {.callback = extents, .user_data = c};

                c->told_data = can ? 0 : UINT64_MAX;
                c->told_dirty = c->base ? 0 : UINT64_MAX;
                if (nbd_block_status(c->peer.h, end - off, off, cb, 0) < 0)
                        return peer_error(&c->peer, "block status", e);
                told = MIN(c->told_data, c->told_dirty);
                if (told <= off)
                        return err_set(e, -EPROTO, "blockd's block status makes no sense");
        }
        return 0;
}

/* --- chunks ------------------------------------------------------------------------------------
 */

/* The oldest chunk that is on its way: waits for its bytes and stores them. */
static int finish(struct copy *c, struct err **e)
{
        struct slot *s = peer_oldest(&c->peer);
        size_t len = manifest_chunk_len(c->m, s->chunk);
        uint64_t off = s->chunk * c->m->chunk_size;
        int r = peer_wait(&c->peer, s, e);

        if (r == 0)
                r = store_put(c->store, s->buf, len, &c->m->chunks[s->chunk], e);
        if (r == 0)
                r = peer_report(&c->peer, off + len, c->m->size, e);
        peer_free(&c->peer);
        return r;
}

static int get_slot(struct copy *c, size_t chunk, struct slot **ret, struct err **e)
{
        while (!(*ret = peer_slot(&c->peer))) {
                int r = finish(c, e);

                if (r < 0)
                        return r;
        }
        (*ret)->chunk = chunk;
        return 0;
}

/* Requests for the chunk's blocks that are wanted and there; zeros for those that are not there.
 * want NULL: all. */
static int request(struct copy *c, struct slot *s, const uint8_t *data, const uint8_t *want,
                   struct err **e)
{
        size_t len = manifest_chunk_len(c->m, s->chunk), n = (len + BLOCK - 1) / BLOCK;
        uint64_t off = s->chunk * c->m->chunk_size;

        for (size_t i = 0, k; i < n; i = k) {
                size_t at = i * BLOCK, bytes;

                for (k = i + 1; k < n && data[k] == data[i] && (!want || want[k] == want[i]);)
                        k++;
                if (want && !want[i])
                        continue;
                bytes = MIN(k * BLOCK, len) - at;
                if (!data[i]) {
                        memset(s->buf + at, 0, bytes);
                        continue;
                }
                if (nbd_aio_pread(c->peer.h, s->buf + at, bytes, off + at, slot_callback(s), 0) < 0)
                        return peer_error(&c->peer, "read", e);
                c->m->read_bytes += bytes;
        }
        return 0;
}

static size_t count(const uint8_t *map, size_t n)
{
        size_t sum = 0;

        for (size_t i = 0; i < n; i++)
                sum += map[i];
        return sum;
}

/* The base's chunk, if it is as long and still there. */
static const struct hash *base_chunk(struct copy *c, size_t i)
{
        const struct hash *h;

        if (!c->base || i >= c->base->nchunks ||
            manifest_chunk_len(c->base, i) != manifest_chunk_len(c->m, i))
                return NULL;
        h = &c->base->chunks[i];
        return hash_zero(h) || store_has(c->store, h) ? h : NULL;
}

static int one_chunk(struct copy *c, size_t i, struct err **e)
{
        size_t len = manifest_chunk_len(c->m, i), n = (len + BLOCK - 1) / BLOCK;
        size_t at = (i * c->m->chunk_size - c->window) / BLOCK;
        const uint8_t *data = c->data + at, *dirty = c->dirty + at;
        const struct hash *base = base_chunk(c, i);
        size_t changed = base ? count(dirty, n) : n;
        struct slot *s;
        int r;

        if (changed == 0) {
                c->m->chunks[i] = *base;
                return 0;
        }
        if (changed == n && count(data, n) == 0)
                return 0; /* a hole */
        r = get_slot(c, i, &s, e);
        if (r < 0)
                return r;
        if (base && changed <= n / 2) {
                _cleanup_err_ struct err *bad = NULL;

                if (store_get(c->store, base, s->buf, len, &bad) == 0)
                        return request(c, s, data, dirty, e);
                log_warning("backup: %s; read from the volume", err_msg(bad));
        }
        return request(c, s, data, NULL, e);
}

static int one_window(struct copy *c, uint64_t off, struct err **e)
{
        size_t first = off / c->m->chunk_size, n = WINDOW / c->m->chunk_size;
        int r;

        c->window = off;
        r = look(c, MIN((uint64_t)WINDOW, c->m->size - off), e);
        for (size_t i = first; r == 0 && i < MIN(first + n, c->m->nchunks); i++)
                r = one_chunk(c, i, e);
        return r < 0 ? r : peer_report(&c->peer, off, c->m->size, e);
}

static void copy_free(struct copy *c)
{
        peer_done(&c->peer);
        free(c);
}
DEFINE_CLEANUP(struct copy *, copy_free)

int volume_copy(struct store *s, const struct backup_request *q, const struct manifest *base,
                const struct backup_progress *p, struct manifest *m, bool *ret_based,
                struct err **e)
{
        _cleanup_(copy_freep) struct copy *c = calloc(1, sizeof(*c));
        char context[64];
        int r;

        if (!c)
                return err_errno(e, -ENOMEM, "backup");
        snprintf(context, sizeof(context), "stratofs:dirty/%s", base ? base->id : "");
        c->store = s;
        c->m = m;
        r = peer_open(&c->peer, q->socket, q->id, base ? context : NULL, p, e);
        if (r < 0)
                return r;
        r = manifest_shape(m, nbd_get_size(c->peer.h), e);
        if (r == 0)
                r = peer_buffers(&c->peer, m->chunk_size, e);
        if (r < 0)
                return r;
        if (base && base->chunk_size == m->chunk_size &&
            nbd_can_meta_context(c->peer.h, context) > 0)
                c->base = base;
        for (uint64_t off = 0; r == 0 && off < m->size; off += WINDOW)
                r = one_window(c, off, e);
        while (r == 0 && peer_oldest(&c->peer))
                r = finish(c, e);
        m->new_bytes = s->new_bytes;
        *ret_based = c->base != NULL;
        return r;
}
