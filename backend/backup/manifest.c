/* Manifests, line by line: doc/backup-store.md. */
#include "backend/backup/manifest.h"

#include <ctype.h>
#include <fcntl.h>
#include <inttypes.h>
#include <jansson.h>

#include "common/jsonl.h"
#include <openssl/evp.h>

#include "common/clock.h"
#include "common/fault.h"
#include "common/fileio.h"
#include "common/name.h"

DEFINE_CLEANUP(EVP_MD_CTX *, EVP_MD_CTX_free)

enum { PATH_SIZE = 64, HEAD_MAX = 64 << 10, VERSION = 1 };

static int manifest_path(const char *id, char out[PATH_SIZE], struct err **e)
{
        sd_id128_t parsed;

        if (id_parse(id, &parsed) < 0)
                return err_set(e, -EINVAL, "a backup's id is not valid");
        snprintf(out, PATH_SIZE, "manifests/%s.jsonl", id);
        return 0;
}

void manifest_done(struct manifest *m)
{
        free(m->name);
        free(m->tenant);
        free(m->volume);
        free(m->volume_name);
        free(m->chunks);
        *m = (struct manifest){};
}

static uint64_t chunks_of(uint64_t size, uint64_t chunk_size)
{
        return size / chunk_size + (size % chunk_size != 0);
}

int manifest_shape(struct manifest *m, uint64_t size, struct err **e)
{
        uint64_t chunk = CHUNK_MIN;

        while (chunks_of(size, chunk) > CHUNKS_MAX && chunk < CHUNK_MAX)
                chunk *= 2;
        if (chunks_of(size, chunk) > CHUNKS_MAX)
                return err_set(e, -EFBIG, "a volume of %" PRIu64 " bytes is too large", size);
        m->size = size;
        m->chunk_size = chunk;
        m->nchunks = chunks_of(size, chunk);
        free(m->chunks);
        m->chunks = calloc(m->nchunks + 1, sizeof(*m->chunks));
        return m->chunks ? 0 : err_errno(e, -ENOMEM, "list of chunks");
}

size_t manifest_chunk_len(const struct manifest *m, size_t i)
{
        return MIN(m->chunk_size, m->size - i * m->chunk_size);
}

/* --- writing -------------------------------------------------------------------------------- */

/* One line, counted in the checksum. */
static int put_line(FILE *f, EVP_MD_CTX *ctx, const char *line)
{
        size_t n = strlen(line);

        if (ctx && (!EVP_DigestUpdate(ctx, line, n) || !EVP_DigestUpdate(ctx, "\n", 1)))
                return -ENOMEM;
        return fwrite(line, 1, n, f) == n && fputc('\n', f) != EOF ? 0 : -EIO;
}

static char *head_line(const struct manifest *m)
{
        json_auto_t *head = json_pack(
                "{s:s, s:i, s:s, s:s*, s:s*, s:s*, s:s*, s:s, s:s, s:I, s:I, s:I, s:I}", "format",
                "stratofs-backup", "version", VERSION, "id", m->id, "name", m->name, "tenant",
                m->tenant, "volume", m->volume, "volume_name", m->volume_name, "parent", m->parent,
                "created", m->created, "size", (json_int_t)m->size, "chunk_size",
                (json_int_t)m->chunk_size, "read_bytes", (json_int_t)m->read_bytes, "new_bytes",
                (json_int_t)m->new_bytes);

        return head ? json_text(head, JSON_COMPACT | JSON_PRESERVE_ORDER) : NULL;
}

/* A chunk is its checksum in quotes, n chunks of zeros are the number n. */
static int put_chunks(FILE *f, EVP_MD_CTX *ctx, const struct manifest *m)
{
        int r = 0;

        for (size_t i = 0, n; i < m->nchunks && r == 0; i += n) {
                char line[HASH_TEXT + 2], text[HASH_TEXT];

                for (n = 0; i + n < m->nchunks && hash_zero(&m->chunks[i + n]);)
                        n++;
                if (n > 0) {
                        snprintf(line, sizeof(line), "%zu", n);
                } else {
                        snprintf(line, sizeof(line), "\"%s\"", hash_text(text, &m->chunks[i]));
                        n = 1;
                }
                r = put_line(f, ctx, line);
        }
        return r;
}

static int put_manifest(FILE *f, const struct manifest *m)
{
        _cleanup_(EVP_MD_CTX_freep) EVP_MD_CTX *ctx = EVP_MD_CTX_new();
        _cleanup_free_ char *head = head_line(m);
        char last[HASH_TEXT + 16], text[HASH_TEXT];
        struct hash sum;
        int r = -ENOMEM;

        if (head && ctx && EVP_DigestInit_ex(ctx, EVP_sha256(), NULL))
                r = put_line(f, ctx, head);
        if (r == 0)
                r = put_chunks(f, ctx, m);
        if (r == 0 && !EVP_DigestFinal_ex(ctx, sum.v, NULL))
                r = -ENOMEM;
        if (r < 0)
                return r;
        snprintf(last, sizeof(last), "{\"sha256\":\"%s\"}", hash_text(text, &sum));
        return put_line(f, NULL, last);
}

static int sync_folder(struct store *s)
{
        _cleanup_close_ int fd = openat(s->fd, "manifests", O_RDONLY | O_DIRECTORY | O_CLOEXEC);

        return fd < 0 || fsync(fd) < 0 ? -errno : 0;
}

int manifest_sync(struct store *s, struct err **e)
{
        int r = sync_folder(s);

        return r < 0 ? err_errno(e, r, "sync of target '%s'", s->dir) : 0;
}

int manifest_write(struct store *s, const struct manifest *m, struct err **e)
{
        _cleanup_file_ FILE *f = NULL;
        char path[PATH_SIZE], temp[64];
        int fd, r = manifest_path(m->id, path, e);

        if (r == 0)
                r = store_temp(s, temp, &fd, e);
        if (r < 0)
                return r;
        f = fdopen(fd, "w");
        if (!f)
                close(fd);
        r = f ? put_manifest(f, m) : -ENOMEM;
        if (r == 0 && (fflush(f) != 0 || fsync(fileno(f)) < 0))
                r = -errno;
        if (r == 0)
                r = FAULT("backup.manifest.rename");
        if (r == 0 && renameat(s->fd, temp, s->fd, path) < 0)
                r = -errno;
        if (r == 0)
                r = FAULT("backup.manifest.sync");
        if (r == 0)
                r = sync_folder(s);
        if (r < 0) {
                unlinkat(s->fd, temp, 0);
                return err_errno(e, r, "write a manifest to target '%s'", s->dir);
        }
        return 0;
}

int manifest_remove(struct store *s, const char *id, struct err **e)
{
        char path[PATH_SIZE];
        int r = manifest_path(id, path, e);

        if (r < 0)
                return r;
        if (unlinkat(s->fd, path, 0) < 0 && errno != ENOENT)
                r = -errno;
        if (r == 0) /* also when it was gone: by a process that died before this */
                r = sync_folder(s);
        return r < 0 ? err_errno(e, r, "remove from target '%s'", s->dir) : 0;
}

/* --- reading -------------------------------------------------------------------------------- */

static int copy_text(json_t *head, const char *key, char **ret)
{
        const char *s = json_string_value(json_object_get(head, key));

        *ret = strdup(s ? s : "");
        return *ret ? 0 : -ENOMEM;
}

static int read_head(const char *line, const char *id, struct manifest *m)
{
        json_auto_t *head = json_loads(line, 0, NULL);
        const char *format = "", *got = "", *parent = "", *created = "";
        json_int_t size, chunk, reads, news;
        int version = 0, r;

        if (json_unpack(head, "{s:s, s:i, s:s, s:s, s:s, s:I, s:I, s:I, s:I}", "format", &format,
                        "version", &version, "id", &got, "parent", &parent, "created", &created,
                        "size", &size, "chunk_size", &chunk, "read_bytes", &reads, "new_bytes",
                        &news) < 0 ||
            !streq(format, "stratofs-backup") || version < 1 || !streq(got, id) ||
            strlen(parent) >= sizeof(m->parent) || strlen(created) >= sizeof(m->created) ||
            size <= 0 || chunk < 512 || chunk > CHUNK_MAX || (uint64_t)size > 1ULL << 50 ||
            chunks_of(size, chunk) > CHUNKS_MAX)
                return -EBADMSG;
        if (version > VERSION)
                return -ENOTSUP;
        strcpy(m->id, got);
        strcpy(m->parent, parent);
        strcpy(m->created, created);
        m->size = size;
        m->chunk_size = chunk;
        m->read_bytes = reads;
        m->new_bytes = news;
        m->nchunks = chunks_of(size, chunk);
        m->chunks = calloc(m->nchunks + 1, sizeof(*m->chunks));
        r = m->chunks ? copy_text(head, "name", &m->name) : -ENOMEM;
        if (r == 0)
                r = copy_text(head, "tenant", &m->tenant);
        if (r == 0)
                r = copy_text(head, "volume", &m->volume);
        return r < 0 ? r : copy_text(head, "volume_name", &m->volume_name);
}

/* The line as one or more chunks, from *at on. */
static int read_chunk(char *line, struct manifest *m, size_t *at)
{
        size_t n = strlen(line);
        uint64_t zeros;
        char *end;

        if (*line == '"' && n == HASH_TEXT + 1 && line[n - 1] == '"') {
                line[n - 1] = '\0';
                if (*at >= m->nchunks || !hash_parse(line + 1, &m->chunks[*at]) ||
                    hash_zero(&m->chunks[*at]))
                        return -EBADMSG;
                ++*at;
                return 0;
        }
        zeros = isdigit((unsigned char)*line) ? strtoull(line, &end, 10) : 0;
        if (zeros == 0 || *end || zeros > m->nchunks - *at)
                return -EBADMSG;
        *at += zeros;
        return 0;
}

/* With its newline, if it is not longer than ours are; 0 at the end. */
static size_t read_line(FILE *f, char line[HEAD_MAX + 1])
{
        size_t n = 0;
        int c;

        while (n < HEAD_MAX && (c = getc_unlocked(f)) != EOF) {
                line[n++] = c;
                if (c == '\n')
                        break;
        }
        line[n] = '\0';
        return n;
}

static int read_lines(FILE *f, EVP_MD_CTX *ctx, const char *id, struct manifest *m)
{
        _cleanup_free_ char *line = calloc(1, HEAD_MAX + 1);
        char want[HASH_TEXT + 16], text[HASH_TEXT];
        bool head = false;
        size_t n, at = 0;
        struct hash sum;
        int r = line ? 0 : -ENOMEM;

        while (r == 0 && (n = read_line(f, line)) > 0) {
                if (line[n - 1] != '\n' || strlen(line) != n)
                        return -EBADMSG;
                if (head && line[0] == '{')
                        break;
                if (!EVP_DigestUpdate(ctx, line, n))
                        return -ENOMEM;
                line[n - 1] = '\0';
                r = head ? read_chunk(line, m, &at) : read_head(line, id, m);
                head = true;
        }
        if (r == 0 && ferror(f))
                r = -EIO;
        if (r < 0)
                return r;
        if (!EVP_DigestFinal_ex(ctx, sum.v, NULL))
                return -ENOMEM;
        snprintf(want, sizeof(want), "{\"sha256\":\"%s\"}\n", hash_text(text, &sum));
        return head && streq(line, want) && at == m->nchunks && getc(f) == EOF ? 0 : -EBADMSG;
}

int manifest_read(struct store *s, const char *id, struct manifest *ret, struct err **e)
{
        _cleanup_(EVP_MD_CTX_freep) EVP_MD_CTX *ctx = EVP_MD_CTX_new();
        _cleanup_manifest_ struct manifest m = {};
        _cleanup_file_ FILE *f = NULL;
        char path[PATH_SIZE];
        int fd, r = manifest_path(id, path, e);

        if (r < 0)
                return r;
        fd = openat(s->fd, path, O_RDONLY | O_CLOEXEC | O_NOFOLLOW);
        f = fd < 0 ? NULL : fdopen(fd, "r");
        if (fd < 0 && errno == ENOENT)
                return err_set(e, -ENOENT, "target '%s' has no backup %s", s->dir, id);
        if (!f) {
                r = -errno;
                cleanup_close_(&fd);
                return err_errno(e, r, "open '%s/%s'", s->dir, path);
        }
        r = ctx && EVP_DigestInit_ex(ctx, EVP_sha256(), NULL) ? read_lines(f, ctx, id, &m)
                                                              : -ENOMEM;
        if (r == -EBADMSG)
                return err_set(e, r, "manifest '%s/%s' is not as it was written", s->dir, path);
        if (r == -ENOTSUP)
                return err_set(e, r, "manifest '%s/%s' has a version newer than %d", s->dir, path,
                               VERSION);
        if (r < 0)
                return err_errno(e, r, "read '%s/%s'", s->dir, path);
        *ret = m;
        m = (struct manifest){};
        return 0;
}
