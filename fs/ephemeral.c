#include <ctype.h>
#include "fs/ephemeral.h"
#include "fs/ops.h"

struct ephemerals {
        pthread_mutex_t lock;
        struct ephemeral *by_ino;
        uint64_t next;
};

int ephemerals_new(unsigned life, struct ephemerals **ret)
{
        struct ephemerals *t = calloc(1, sizeof(*t));

        if (!t)
                return -ENOMEM;
        pthread_mutex_init(&t->lock, NULL);
        t->next = (uint64_t)life << 32;
        *ret = t;
        return 0;
}

static void drop(struct ephemerals *t, struct ephemeral *e)
{
        HASH_DEL(t->by_ino, e);
        upload_free(e->upload);
        free(e->name);
        free(e->text);
        free(e);
}

/* Frees it when nobody can come back for it. */
static void settle(struct ephemerals *t, struct ephemeral *e)
{
        if (!e->lookups && !e->opens && !e->named)
                drop(t, e);
}

void ephemerals_free(struct ephemerals *t)
{
        struct ephemeral *e, *next;

        if (!t)
                return;
        HASH_ITER (hh, t->by_ino, e, next)
                drop(t, e);
        pthread_mutex_destroy(&t->lock);
        free(t);
}

static void sweep(struct ephemerals *t)
{
        struct ephemeral *e, *next;
        int64_t now = clock_mono();

        HASH_ITER (hh, t->by_ino, e, next) {
                if (e->opens || e->expires > now)
                        continue;
                e->named = false;
                settle(t, e);
        }
}

struct ephemeral *ephemeral_get(struct ephemerals *t, fuse_ino_t ino)
{
        struct ephemeral *e;

        WITH_LOCK(&t->lock);
        HASH_FIND(hh, t->by_ino, &ino, sizeof(ino), e);
        return e;
}

struct ephemeral *ephemeral_find(struct ephemerals *t, fuse_ino_t parent, const char *name,
                                 uid_t uid)
{
        WITH_LOCK(&t->lock);
        if (!t->by_ino)
                return NULL;
        sweep(t);
        for (struct ephemeral *e = t->by_ino; e; e = e->hh.next) {
                bool personal = e->type == NODE_SCRATCH || e->type == NODE_TEMPLINK;

                if (!e->named || e->parent != parent || !streq(e->name, name) ||
                    (personal && e->uid != uid))
                        continue;
                e->lookups++;
                return e;
        }
        return NULL;
}

static int check_room(struct ephemerals *t, const struct ephemeral *like, struct err **e)
{
        unsigned mine = 0;

        for (const struct ephemeral *x = t->by_ino; x; x = x->hh.next)
                if (x->named && x->uid == like->uid && x->type != NODE_UPLOAD &&
                    like->type != NODE_UPLOAD)
                        mine++;
        if (mine >= SCRATCH_MAX)
                return err_set(e, -EDQUOT, "uid %u has %u temporary files here already",
                               (unsigned)like->uid, mine);
        if (HASH_COUNT(t->by_ino) >= EPHEMERAL_MAX)
                return err_set(e, -ENOSPC, "too many temporary files on this mount");
        return 0;
}

/* Lock held. */
static int add(struct ephemerals *t, const struct ephemeral *like, fuse_ino_t ino, const char *name,
               struct ephemeral **ret)
{
        struct ephemeral *n = malloc(sizeof(*n));

        if (!n)
                return -ENOMEM;
        *n = *like;
        n->name = strdup(name);
        if (!n->name) {
                free(n);
                return -ENOMEM;
        }
        n->ino = ino;
        n->named = true;
        n->lookups = 1;
        n->opens = 0;
        n->expires = clock_mono() + EPHEMERAL_LIFE * INT64_C(1000000);
        n->changed = clock_now();
        HASH_ADD(hh, t->by_ino, ino, sizeof(n->ino), n);
        *ret = n;
        return 0;
}

int ephemeral_add(struct ephemerals *t, const struct ephemeral *like, const char *name,
                  struct ephemeral **ret, struct err **e)
{
        int r;

        WITH_LOCK(&t->lock);
        sweep(t);
        r = check_room(t, like, e);
        return r < 0 ? r : add(t, like, INO_EPHEMERAL | ++t->next, name, ret);
}

int ephemeral_again(struct ephemerals *t, const struct ephemeral *like, fuse_ino_t ino,
                    const char *name)
{
        struct ephemeral *x;

        WITH_LOCK(&t->lock);
        return add(t, like, ino, name, &x);
}

void ephemeral_forget(struct ephemerals *t, fuse_ino_t ino, uint64_t n)
{
        struct ephemeral *e;

        WITH_LOCK(&t->lock);
        HASH_FIND(hh, t->by_ino, &ino, sizeof(ino), e);
        if (!e)
                return;
        e->lookups -= MIN(n, e->lookups);
        settle(t, e);
}

void ephemeral_lookup(struct ephemerals *t, struct ephemeral *e)
{
        WITH_LOCK(&t->lock);
        e->lookups++;
}

void ephemeral_opened(struct ephemerals *t, struct ephemeral *e)
{
        WITH_LOCK(&t->lock);
        e->opens++;
}

void ephemeral_closed(struct ephemerals *t, struct ephemeral *e)
{
        WITH_LOCK(&t->lock);
        e->opens--;
        e->expires = clock_mono() + EPHEMERAL_LIFE * INT64_C(1000000);
        settle(t, e);
}

void ephemeral_unname(struct ephemerals *t, struct ephemeral *e)
{
        WITH_LOCK(&t->lock);
        e->named = false;
        settle(t, e);
}

int ephemeral_rename(struct ephemerals *t, struct ephemeral *e, fuse_ino_t parent, const char *name)
{
        char *copy = strdup(name);

        if (!copy)
                return -ENOMEM;
        WITH_LOCK(&t->lock);
        for (struct ephemeral *x = t->by_ino; x; x = x->hh.next)
                if (x != e && x->named && x->parent == parent && x->uid == e->uid &&
                    streq(x->name, name))
                        x->named = false; /* replaced; its memory goes with its last lookup */
        free(e->name);
        e->name = copy;
        e->parent = parent;
        return 0;
}

char *ephemeral_text(struct ephemerals *t, struct ephemeral *e, size_t *ret_len)
{
        char *copy;

        WITH_LOCK(&t->lock);
        copy = malloc(e->len + 1);
        if (!copy)
                return NULL;
        if (e->len)
                memcpy(copy, e->text, e->len);
        copy[e->len] = 0;
        if (ret_len)
                *ret_len = e->len;
        return copy;
}

static int resize(struct ephemeral *e, uint64_t size)
{
        char *p;

        if (size > SCRATCH_SIZE)
                return -EFBIG;
        p = realloc(e->text, size + 1);
        if (!p)
                return -ENOMEM;
        if (size > e->len)
                memset(p + e->len, 0, size - e->len);
        e->text = p;
        e->len = size;
        e->changed = clock_now();
        return 0;
}

int ephemeral_write(struct ephemerals *t, struct ephemeral *e, const void *p, size_t n,
                    uint64_t off)
{
        int r = 0;

        if (off > SCRATCH_SIZE || n > SCRATCH_SIZE)
                return -EFBIG;
        WITH_LOCK(&t->lock);
        if (off + n > e->len)
                r = resize(e, off + n);
        if (r < 0)
                return r;
        memcpy(e->text + off, p, n);
        e->changed = clock_now();
        return 0;
}

int ephemeral_truncate(struct ephemerals *t, struct ephemeral *e, uint64_t size)
{
        WITH_LOCK(&t->lock);
        return resize(e, size);
}

static bool six_alnum(const char *s)
{
        for (int i = 0; i < 6; i++)
                if (!isalnum((unsigned char)s[i]))
                        return false;
        return !s[6];
}

bool locklink_name(const char *name)
{
        return name[0] == '.' && name[1] == '#' && name[2];
}

bool templink_name(const char *name)
{
        return name[0] == 'C' && name[1] == 'u' && six_alnum(name + 2);
}

char *rsync_target(const char *name)
{
        const char *dot = strrchr(name, '.');

        if (name[0] != '.' || !dot || dot < name + 2 || !six_alnum(dot + 1))
                return NULL;
        return strndup(name + 1, (size_t)(dot - name - 1));
}

#define TMP_CHARS "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789_"

bool scratch_name(const char *name)
{
        size_t n = strlen(name);
        static const char *const ends[] = {"~", ".tmp", ".swp", ".new"};

        if (!n || n > 200)
                return false;
        if (name[0] == '.' || name[0] == '#')
                return true;
        for (size_t i = 0; i < ARRAY_SIZE(ends); i++)
                if (n > strlen(ends[i]) && streq(name + n - strlen(ends[i]), ends[i]))
                        return true;
        if (!strncmp(name, "sed", 3) && six_alnum(name + 3))
                return true;
        if (!strncmp(name, "XX", 2) && six_alnum(name + 2)) /* perl -i */
                return true;
        if (!strncmp(name, "tmp", 3) && n >= 9) /* emacs, python's tempfile */
                return name[3 + strspn(name + 3, TMP_CHARS)] == '\0';
        return strspn(name, "0123456789") == n; /* vim's probe, 4913 */
}
