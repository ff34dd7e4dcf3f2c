#include "backend/backup/store.h"

#include <dirent.h>
#include <fcntl.h>
#include <openssl/evp.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <zstd.h>

#include "common/fault.h"
#include "common/fileio.h"
#include "common/name.h"

enum { LEVEL = 3 };

static const char marker[] = "{\"format\": \"stratofs-backup\", \"version\": 1}\n";

/* --- checksums ----------------------------------------------------------------------------- */

bool all_zeros(const void *p, size_t n)
{
        const char *c = p;

        return n == 0 || (c[0] == 0 && memcmp(c, c + 1, n - 1) == 0);
}

bool hash_zero(const struct hash *h)
{
        return all_zeros(h->v, HASH_SIZE);
}

char *hash_text(char out[HASH_TEXT], const struct hash *h)
{
        for (int i = 0; i < HASH_SIZE; i++)
                snprintf(out + 2 * i, 3, "%02x", h->v[i]);
        return out;
}

static int digit(char c)
{
        return c >= '0' && c <= '9' ? c - '0' : c >= 'a' && c <= 'f' ? c - 'a' + 10 : -1;
}

bool hash_parse(const char *text, struct hash *ret)
{
        for (int i = 0; i < HASH_SIZE; i++) {
                int hi = digit(text[2 * i]), lo = hi < 0 ? -1 : digit(text[2 * i + 1]);

                if (lo < 0)
                        return false;
                ret->v[i] = hi << 4 | lo;
        }
        return text[HASH_TEXT - 1] == '\0';
}

int hash_bytes(const void *p, size_t n, struct hash *ret)
{
        return EVP_Digest(p, n, ret->v, NULL, EVP_sha256(), NULL) ? 0 : -ENOMEM;
}

/* --- the folder ---------------------------------------------------------------------------- */

static bool folder_empty(const char *dir)
{
        DIR *d = opendir(dir);
        bool empty = d != NULL;

        for (struct dirent *x; d && (x = readdir(d));)
                if (!streq(x->d_name, ".") && !streq(x->d_name, "..") &&
                    !streq(x->d_name, "lost+found"))
                        empty = false;
        if (d)
                closedir(d);
        return empty;
}

static int make_store(const char *dir, const char *mark, struct err **e)
{
        static const char *const folders[] = {"chunks", "manifests", "tmp"};
        int r;

        if (mkdir(dir, 0700) < 0 && errno != EEXIST)
                return err_errno(e, -errno, "target '%s'", dir);
        for (size_t i = 0; i < ARRAY_SIZE(folders); i++) {
                _cleanup_free_ char *path = path_printf("%s/%s", dir, folders[i]);

                if (!path || (mkdir(path, 0700) < 0 && errno != EEXIST))
                        return err_errno(e, path ? -errno : -ENOMEM, "target '%s'", dir);
        }
        /* Who finds the marker relies on the folder; one whose parent is closed to us was there. */
        r = fsync_parent(dir);
        if (r < 0 && r != -EACCES)
                return err_errno(e, r, "sync the folder of target '%s'", dir);
        r = file_replace(mark, marker, sizeof(marker) - 1, 0600, e);
        if (r == -ENOENT && access(mark, F_OK) == 0) { /* another first backup was faster */
                if (e)
                        *e = err_free(*e);
                r = 0;
        }
        return r;
}

/* One that was begun by a process that died before it had its marker. */
static bool half_made(const char *dir)
{
        _cleanup_free_ char *chunks = path_printf("%s/chunks", dir);
        _cleanup_free_ char *manifests = path_printf("%s/manifests", dir);

        return chunks && access(chunks, F_OK) == 0 &&
               (access(manifests, F_OK) < 0 || folder_empty(manifests));
}

int store_check(const char *dir, bool make, struct err **e)
{
        _cleanup_free_ char *mark = path_printf("%s/stratofs-backup", dir);
        _cleanup_free_ char *text = NULL;
        int r = mark ? file_read(mark, 4096, &text, NULL, NULL) : -ENOMEM;

        if (r == 0)
                return streq(text, marker)
                               ? 0
                               : err_set(e, -EPROTO, "the store in '%s' is of another release",
                                         dir);
        if (r != -ENOENT)
                return err_errno(e, r, "target '%s'", dir);
        if (!make)
                return err_set(e, -ENOENT, "there is no backup store in '%s': is it mounted", dir);
        if (access(dir, F_OK) == 0 && !folder_empty(dir) && !half_made(dir))
                return err_set(e, -ENOTEMPTY, "'%s' is neither a backup store nor empty", dir);
        return make_store(dir, mark, e);
}

int store_open(const char *dir, bool alone, struct store *ret, struct err **e)
{
        _cleanup_store_ struct store s = STORE_NONE;
        char id[ID_TEXT_SIZE];
        int r = store_check(dir, false, e);

        if (r < 0)
                return r;
        s.dir = strdup(dir);
        snprintf(s.tag, sizeof(s.tag), "%s", id_text(id, id_new()));
        s.fd = open(dir, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
        if (!s.dir || s.fd < 0)
                return err_errno(e, s.dir ? -errno : -ENOMEM, "target '%s'", dir);
        s.lock = openat(s.fd, "lock", O_RDWR | O_CREAT | O_CLOEXEC, 0600);
        if (s.lock < 0)
                return err_errno(e, -errno, "lock of target '%s'", dir);
        while (flock(s.lock, alone ? LOCK_EX | LOCK_NB : LOCK_SH) < 0) {
                if (errno == EWOULDBLOCK)
                        return err_set(e, -EBUSY, "others work in target '%s'", dir);
                if (errno != EINTR)
                        return err_errno(e, -errno, "lock of target '%s'", dir);
        }
        *ret = s;
        s = (struct store)STORE_NONE;
        return 0;
}

void store_done(struct store *s)
{
        while (s->npending > 0) {
                struct pending *p = &s->pending[--s->npending];

                unlinkat(s->fd, p->temp, 0);
                close(p->fd);
        }
        cleanup_close_(&s->lock);
        cleanup_close_(&s->fd);
        free(s->dir);
        free(s->packed);
        *s = (struct store)STORE_NONE;
}

int store_temp(struct store *s, char out[64], int *ret_fd, struct err **e)
{
        snprintf(out, 64, "tmp/%s.%u", s->tag, s->serial++);
        *ret_fd = openat(s->fd, out, O_RDWR | O_CREAT | O_EXCL | O_CLOEXEC | O_NOFOLLOW, 0600);
        return *ret_fd < 0 ? err_errno(e, -errno, "create in target '%s'", s->dir) : 0;
}

/* --- chunks --------------------------------------------------------------------------------- */

char *store_chunk_path(char out[CHUNK_PATH], const struct hash *h)
{
        char text[HASH_TEXT];

        snprintf(out, CHUNK_PATH, "chunks/%.2s/%s", hash_text(text, h), text);
        return out;
}

bool store_has(struct store *s, const struct hash *h)
{
        char path[CHUNK_PATH];
        struct stat st;

        return fstatat(s->fd, store_chunk_path(path, h), &st, 0) == 0 && st.st_size > 0;
}

/* Room for the compressed form of n bytes. */
static int pack_room(struct store *s, size_t n)
{
        size_t need = ZSTD_compressBound(n);
        void *p;

        if (s->packed_size >= need)
                return 0;
        p = realloc(s->packed, need);
        if (!p)
                return -ENOMEM;
        s->packed = p;
        s->packed_size = need;
        return 0;
}

/* Its folder is made with the first chunk. */
static int give_name(struct store *s, const struct pending *p)
{
        char path[CHUNK_PATH], folder[] = "chunks/xx";
        int r = FAULT("backup.chunk.rename");

        store_chunk_path(path, &p->hash);
        if (r < 0 || renameat(s->fd, p->temp, s->fd, path) == 0)
                return r;
        if (errno != ENOENT)
                return -errno;
        memcpy(folder + 7, path + 7, 2);
        if (mkdirat(s->fd, folder, 0700) < 0 && errno != EEXIST)
                return -errno;
        return renameat(s->fd, p->temp, s->fd, path) < 0 ? -errno : 0;
}

/* The names come after the bytes are durable: what has its name is whole. */
static int name_pending(struct store *s, struct err **e)
{
        int r = 0;

        for (unsigned i = 0; r == 0 && i < s->npending; i++)
                if (fdatasync(s->pending[i].fd) < 0)
                        r = -errno;
        while (r == 0 && s->npending > 0) {
                struct pending *p = &s->pending[s->npending - 1];

                r = give_name(s, p);
                if (r == 0) {
                        s->npending--;
                        close(p->fd);
                }
        }
        return r < 0 ? err_errno(e, r, "write to target '%s'", s->dir) : 0;
}

static bool is_pending(const struct store *s, const struct hash *h)
{
        for (unsigned i = 0; i < s->npending; i++)
                if (memcmp(s->pending[i].hash.v, h->v, HASH_SIZE) == 0)
                        return true;
        return false;
}

static int write_chunk(struct store *s, const struct hash *h, size_t n, struct err **e)
{
        struct pending *p = &s->pending[s->npending];
        int r = store_temp(s, p->temp, &p->fd, e);

        if (r < 0)
                return r;
        s->npending++; /* from here on store_done() removes it */
        p->hash = *h;
        r = FAULT("backup.chunk.write");
        if (r == 0)
                r = write_full(p->fd, s->packed, n);
        if (r < 0)
                return err_errno(e, r, "write to target '%s'", s->dir);
        sync_file_range(p->fd, 0, 0, SYNC_FILE_RANGE_WRITE); /* begins it */
        s->touched[h->v[0]] = true;
        s->new_bytes += n;
        return s->npending == PENDING_MAX ? name_pending(s, e) : 0;
}

int store_put(struct store *s, const void *p, size_t n, struct hash *ret, struct err **e)
{
        size_t packed;
        int r;

        if (all_zeros(p, n)) {
                *ret = (struct hash){};
                return 0;
        }
        r = hash_bytes(p, n, ret);
        if (r < 0)
                return err_set(e, r, "SHA-256 failed");
        if (is_pending(s, ret))
                return 0;
        if (store_has(s, ret)) {
                s->touched[ret->v[0]] = true; /* perhaps another backup's, and not durable yet */
                return 0;
        }
        if (pack_room(s, n) < 0)
                return err_errno(e, -ENOMEM, "compress");
        packed = ZSTD_compress(s->packed, s->packed_size, p, n, LEVEL);
        if (ZSTD_isError(packed))
                return err_set(e, -EIO, "compress: %s", ZSTD_getErrorName(packed));
        return write_chunk(s, ret, packed, e);
}

static int bad_chunk(const struct hash *h, const char *why, struct err **e)
{
        char text[HASH_TEXT];

        return err_set(e, -EBADMSG, "chunk %s %s", hash_text(text, h), why);
}

int store_get(struct store *s, const struct hash *h, void *p, size_t n, struct err **e)
{
        char path[CHUNK_PATH];
        _cleanup_close_ int fd = -1;
        struct hash got;
        struct stat st;
        size_t size;
        int r;

        if (hash_zero(h)) {
                memset(p, 0, n);
                return 0;
        }
        fd = openat(s->fd, store_chunk_path(path, h), O_RDONLY | O_CLOEXEC);
        if (fd < 0 && errno == ENOENT)
                return bad_chunk(h, "is missing", e);
        if (fd < 0 || fstat(fd, &st) < 0)
                return err_errno(e, -errno, "open '%s/%s'", s->dir, path);
        if (pack_room(s, n) < 0)
                return err_errno(e, -ENOMEM, "decompress");
        if (st.st_size <= 0 || (uint64_t)st.st_size > s->packed_size)
                return bad_chunk(h, "has a length that none of ours has", e);
        r = pread_full(fd, s->packed, st.st_size, 0);
        if (r == -EIO)
                return bad_chunk(h, "cannot be read: Input/output error", e);
        if (r < 0)
                return err_errno(e, r, "read '%s/%s'", s->dir, path);
        size = ZSTD_decompress(p, n, s->packed, st.st_size);
        if (ZSTD_isError(size))
                return bad_chunk(h, ZSTD_getErrorName(size), e);
        r = hash_bytes(p, size, &got);
        if (r < 0)
                return err_set(e, r, "SHA-256 failed");
        if (size != n || memcmp(got.v, h->v, HASH_SIZE) != 0)
                return bad_chunk(h, "has other bytes than its name says", e);
        return 0;
}

int store_sync(struct store *s, struct err **e)
{
        int r = name_pending(s, e);

        if (r < 0)
                return r;
        if (fsync(s->fd) < 0)
                r = -errno;
        for (int i = -1; r == 0 && i < 256; i++) {
                _cleanup_close_ int fd = -1;
                char folder[16] = "chunks";

                if (i >= 0 && !s->touched[i])
                        continue;
                if (i >= 0)
                        snprintf(folder, sizeof(folder), "chunks/%02x", i);
                fd = openat(s->fd, folder, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
                if (fd < 0 || fsync(fd) < 0)
                        r = -errno;
        }
        return r < 0 ? err_errno(e, r, "sync of target '%s'", s->dir) : 0;
}

void store_spoil(struct store *s, const struct hash *h)
{
        char path[CHUNK_PATH], aside[CHUNK_PATH + 8];

        snprintf(aside, sizeof(aside), "%s.bad", store_chunk_path(path, h));
        renameat(s->fd, path, s->fd, aside);
}
