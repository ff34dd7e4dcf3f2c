/* Mark and sweep: chunks that no manifest names go. */
#include <dirent.h>
#include <fcntl.h>

#include "backend/backup/manifest.h"
#include "common/fault.h"

/* Every chunk that is needed: sorted, each once. */
struct marks {
        struct hash *v;
        size_t n, size;
};

static void marks_done(struct marks *m)
{
        free(m->v);
}

static int compare(const void *a, const void *b)
{
        return memcmp(a, b, HASH_SIZE);
}

static int marks_add(struct marks *m, const struct manifest *b)
{
        size_t kept = 0;

        if (m->n + b->nchunks > m->size) {
                size_t size = MAX(2 * m->size, m->n + b->nchunks);
                struct hash *v = reallocarray(m->v, size, sizeof(*v));

                if (!v)
                        return -ENOMEM;
                m->v = v;
                m->size = size;
        }
        for (size_t i = 0; i < b->nchunks; i++)
                if (!hash_zero(&b->chunks[i]))
                        m->v[m->n++] = b->chunks[i];
        if (m->n)
                qsort(m->v, m->n, sizeof(*m->v), compare);
        for (size_t i = 0; i < m->n; i++)
                if (kept == 0 || compare(&m->v[kept - 1], &m->v[i]) != 0)
                        m->v[kept++] = m->v[i];
        m->n = kept;
        return 0;
}

static DIR *folder_open(struct store *s, const char *name)
{
        int fd = openat(s->fd, name, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
        DIR *d = fd < 0 ? NULL : fdopendir(fd);

        if (fd >= 0 && !d)
                close(fd);
        return d;
}

/* Calls each for every name in the folder but dot and dot-dot; missing is empty. */
static int folder_each(struct store *s, const char *folder,
                       int (*each)(void *arg, int fd, const char *name, struct err **e), void *arg,
                       struct err **e)
{
        DIR *d = folder_open(s, folder);
        int r = 0;

        if (!d)
                return errno == ENOENT ? 0 : err_errno(e, -errno, "open '%s/%s'", s->dir, folder);
        while (r == 0) {
                struct dirent *x;

                errno = 0;
                x = readdir(d);
                if (!x && errno)
                        r = err_errno(e, -errno, "list '%s/%s'", s->dir, folder);
                if (!x)
                        break;
                if (x->d_name[0] != '.')
                        r = each(arg, dirfd(d), x->d_name, e);
        }
        closedir(d);
        return r;
}

struct sweep {
        struct store *s;
        struct marks marks;
};

static int mark_one(void *arg, int fd _unused_, const char *name, struct err **e)
{
        _cleanup_manifest_ struct manifest m = {};
        struct sweep *w = arg;
        size_t n = strlen(name);
        char id[37];
        int r;

        if (n != 36 + 6 || !streq(name + 36, ".jsonl"))
                return 0;
        snprintf(id, sizeof(id), "%.36s", name);
        r = manifest_read(w->s, id, &m, e);
        return r < 0 ? r : marks_add(&w->marks, &m);
}

static int drop_one(void *arg _unused_, int fd, const char *name, struct err **e)
{
        if (unlinkat(fd, name, 0) < 0 && errno != ENOENT)
                return err_errno(e, -errno, "remove '%s'", name);
        return 0;
}

/* Whatever is not the name of a needed chunk goes: others, and those that were put aside. */
static int sweep_one(void *arg, int fd, const char *name, struct err **e)
{
        struct sweep *w = arg;
        struct hash h;
        int r;

        if (strlen(name) == HASH_TEXT - 1 && hash_parse(name, &h) && w->marks.n &&
            bsearch(&h, w->marks.v, w->marks.n, sizeof(h), compare))
                return 0;
        r = FAULT("backup.sweep");
        return r < 0 ? err_errno(e, r, "sweep") : drop_one(NULL, fd, name, e);
}

int store_sweep(struct store *s, struct err **e)
{
        struct sweep w = {.s = s};
        char folder[16];
        /* First what is not there stays away: chunks of a backup that came back would be missed. */
        int r = manifest_sync(s, e);

        if (r == 0)
                r = folder_each(s, "manifests", mark_one, &w, e);
        for (int i = 0; r == 0 && i < 256; i++) {
                snprintf(folder, sizeof(folder), "chunks/%02x", i);
                r = folder_each(s, folder, sweep_one, &w, e);
        }
        if (r == 0)
                r = folder_each(s, "tmp", drop_one, NULL, e);
        marks_done(&w.marks);
        return r;
}
