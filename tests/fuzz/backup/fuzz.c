/* What lies in a backup store: with bit 0 of the first byte a chunk, else a manifest.
 *
 * Chunk: bit 1 has the rest stored as a chunk, which gives it back; else the rest is the chunk's
 * file, two bytes of it how long the chunk should be.  Manifest: bit 1 has it end with the right
 * checksum, so that what lies behind it is reached; what is accepted is written and read again. */
#include <fcntl.h>
#include <inttypes.h>
#include <sys/stat.h>

#include "backend/backup/manifest.h"
#include "common/fileio.h"

int LLVMFuzzerTestOneInput(const uint8_t *p, size_t n);

static const char id[] = "00000000-0000-4000-8000-000000000001";
static char dir[] = "/dev/shm/fuzz-backup.XXXXXX", top[64];
static struct store store;

static void end(void)
{
        store_done(&store);
        remove_tree(dir, NULL);
}

static void begin(void)
{
        struct err *e = NULL;

        if (!mkdtemp(dir))
                abort();
        snprintf(top, sizeof(top), "%s/store", dir);
        if (store_check(top, true, &e) < 0 || store_open(top, false, &store, &e) < 0)
                abort();
        atexit(end);
}

static void write_file(const char *name, const void *p, size_t n, const char *last)
{
        _cleanup_free_ char *path = path_printf("%s/%s", top, name);
        _cleanup_close_ int fd = open(path, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);

        if (fd < 0 || write_full(fd, p, n) < 0 || write_full(fd, last, strlen(last)) < 0)
                abort();
}

static void chunk(bool whole, const uint8_t *p, size_t n)
{
        static uint8_t out[1 << 16], in[1 << 16];
        char path[CHUNK_PATH];
        struct err *e = NULL;
        struct hash h;
        size_t want;
        int r;

        if (whole) {
                n = MIN(n, sizeof(in));
                memcpy(in, p, n);
                if (store_put(&store, in, n, &h, &e) < 0 || store_sync(&store, &e) < 0 ||
                    store_get(&store, &h, out, n, &e) < 0 || memcmp(in, out, n) != 0)
                        abort();
                return;
        }
        if (n < 2)
                return;
        want = p[0] | p[1] << 8;
        hash_bytes(p, n, &h);
        store_chunk_path(path, &h);
        *strrchr(path, '/') = '\0';
        (void)mkdirat(store.fd, path, 0700);
        store_chunk_path(path, &h);
        write_file(path, p + 2, n - 2, "");
        r = store_get(&store, &h, out, want, &e);
        if (r == 0 || !e) /* its name is not what it holds */
                abort();
        err_free(e);
        unlinkat(store.fd, path, 0);
}

static bool same(const struct manifest *a, const struct manifest *b)
{
        return a->size == b->size && a->chunk_size == b->chunk_size && a->nchunks == b->nchunks &&
               memcmp(a->chunks, b->chunks, a->nchunks * sizeof(*a->chunks)) == 0 &&
               streq(a->created, b->created) && streq(a->parent, b->parent) &&
               streq(a->name, b->name) && streq(a->tenant, b->tenant);
}

static void manifest(bool mend, const uint8_t *p, size_t n)
{
        _cleanup_manifest_ struct manifest m = {}, again = {};
        char last[HASH_TEXT + 16] = "", text[HASH_TEXT];
        struct err *e = NULL;
        struct hash sum;
        int r;

        if (mend) {
                hash_bytes(p, n, &sum);
                snprintf(last, sizeof(last), "{\"sha256\":\"%s\"}\n", hash_text(text, &sum));
        }
        snprintf(text, sizeof(text), "manifests/%s.jsonl", id);
        write_file(text, p, n, last);
        r = manifest_read(&store, id, &m, &e);
        if (r < 0) {
                if (!e || !*err_msg(e))
                        abort();
                err_free(e);
                return;
        }
        for (size_t i = 0; i < m.nchunks; i++)
                if (manifest_chunk_len(&m, i) == 0 || manifest_chunk_len(&m, i) > CHUNK_MAX)
                        abort();
        if (manifest_write(&store, &m, &e) < 0 || manifest_read(&store, id, &again, &e) < 0 ||
            !same(&m, &again))
                abort();
}

int LLVMFuzzerTestOneInput(const uint8_t *p, size_t n)
{
        if (!store.dir)
                begin();
        if (n < 1)
                return 0;
        (p[0] & 1 ? chunk : manifest)(p[0] & 2, p + 1, n - 1);
        return 0;
}
