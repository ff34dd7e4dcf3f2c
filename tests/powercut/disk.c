/* The simulated disk.  Nothing is durable before it is synced, and until then hardly anything is in
 * order: of each sector and of a file's size any value since the last sync may be what is found.
 * The names in one folder come in order, as journals keep them, but in none with what is in other
 * folders or in files.  A file that became shorter has lost what was behind its new end if that is
 * its size, and else nothing of it.  A sector is never torn. */
#include "powercut.h"

#include <dirent.h>
#include <fcntl.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "common/fileio.h"

/* One value: p bytes of a sector (NULL: zeros), n a size or a node. */
struct value {
        const uint8_t *p;
        uint64_t n;
        uint32_t at; /* the event */
        bool gone;   /* of a sector: the file became shorter then */
};

/* The values since the last sync; [0] is durable, the last is now. */
struct hist {
        struct value *v;
        uint32_t n, room;
};

struct name {
        char text[80];
        struct hist hist;
};

struct dnode {
        bool folder;
        struct hist size, *sectors;
        size_t nsectors;
        uint32_t *dirty; /* sectors with more than one value */
        size_t ndirty, adirty;
        struct name *names;
        size_t nnames;
};

struct block {
        struct block *next;
        uint8_t bytes[SECTOR];
};

struct disk {
        struct dnode *node;
        uint32_t n;
        uint32_t last_sync;
        struct block *blocks; /* copies */
};

static void *more(void *p, size_t n, size_t size)
{
        p = reallocarray(p, n, size);
        CHECK(p, "no memory");
        return p;
}

static void push(struct hist *h, struct value v)
{
        if (h->n == h->room)
                h->v = more(h->v, h->room = h->room ? h->room * 2 : 1, sizeof(*h->v));
        h->v[h->n++] = v;
}

static struct value *last(const struct hist *h)
{
        return &h->v[h->n - 1];
}

static void settle(struct hist *h)
{
        if (h->n > 1) {
                h->v[0] = *last(h);
                h->n = 1;
        }
}

static struct dnode *node_get(struct disk *d, uint32_t i)
{
        while (d->n <= i) {
                d->node = more(d->node, d->n + 1, sizeof(*d->node));
                d->node[d->n] = (struct dnode){};
                push(&d->node[d->n].size, (struct value){});
                d->n++;
        }
        return &d->node[i];
}

struct disk *disk_new(void)
{
        struct disk *d = calloc(1, sizeof(*d));

        CHECK(d, "no memory");
        return d;
}

void disk_free(struct disk *d)
{
        for (uint32_t i = 0; i < d->n; i++) {
                struct dnode *n = &d->node[i];

                for (size_t k = 0; k < n->nsectors; k++)
                        free(n->sectors[k].v);
                for (size_t k = 0; k < n->nnames; k++)
                        free(n->names[k].hist.v);
                free(n->size.v);
                free(n->sectors);
                free(n->dirty);
                free(n->names);
        }
        while (d->blocks) {
                struct block *b = d->blocks;

                d->blocks = b->next;
                free(b);
        }
        free(d->node);
        free(d);
}

/* ---- changes ---- */

static struct block *copy(struct disk *d)
{
        struct block *b = calloc(1, sizeof(*b));

        CHECK(b, "no memory");
        b->next = d->blocks;
        d->blocks = b;
        return b;
}

static bool all_zeros(const uint8_t *p)
{
        return !p[0] && memcmp(p, p + 1, SECTOR - 1) == 0;
}

static void sector_push(struct dnode *n, size_t s, const uint8_t *p, uint32_t at, bool gone)
{
        struct hist *h = &n->sectors[s];

        if (!p && !last(h)->p)
                return; /* zeros for zeros */
        if (h->n == 1) {
                if (n->ndirty == n->adirty)
                        n->dirty =
                                more(n->dirty, n->adirty = n->adirty * 2 + 16, sizeof(*n->dirty));
                n->dirty[n->ndirty++] = s;
        }
        push(h, (struct value){.p = p, .at = at, .gone = gone});
}

static void sectors_reach(struct dnode *n, uint64_t end)
{
        size_t want = (end + SECTOR - 1) / SECTOR;

        if (want <= n->nsectors)
                return;
        n->sectors = more(n->sectors, want, sizeof(*n->sectors));
        for (; n->nsectors < want; n->nsectors++) {
                n->sectors[n->nsectors] = (struct hist){};
                push(&n->sectors[n->nsectors], (struct value){});
        }
}

/* data NULL: zeros; gone: as the file became shorter. */
static void change(struct disk *d, struct dnode *n, const uint8_t *data, uint64_t off, uint64_t len,
                   uint32_t at, bool gone)
{
        sectors_reach(n, off + len);
        while (len > 0) {
                size_t s = off / SECTOR, in = off % SECTOR, k = MIN(len, (uint64_t)SECTOR - in);
                const uint8_t *was = last(&n->sectors[s])->p;

                if (k == SECTOR) {
                        sector_push(n, s, data, at, gone);
                } else if (data || was) {
                        struct block *b = copy(d);

                        if (was)
                                memcpy(b->bytes, was, SECTOR);
                        if (data)
                                memcpy(b->bytes + in, data, k);
                        else
                                memset(b->bytes + in, 0, k);
                        sector_push(n, s, b->bytes, at, gone);
                }
                off += k;
                len -= k;
                data = data ? data + k : NULL;
        }
}

static void size_set(struct disk *d, struct dnode *n, uint64_t size, uint32_t at)
{
        uint64_t now = last(&n->size)->n, end = n->nsectors * (uint64_t)SECTOR;

        if (size == now)
                return;
        if (size < now && size < end)
                change(d, n, NULL, size, end - size, at, true);
        push(&n->size, (struct value){.n = size, .at = at});
}

static void name_set(struct dnode *n, const char *text, uint32_t child, uint32_t at)
{
        size_t i = 0;

        while (i < n->nnames && strcmp(n->names[i].text, text) != 0)
                i++;
        if (i == n->nnames) {
                n->names = more(n->names, ++n->nnames, sizeof(*n->names));
                n->names[i] = (struct name){};
                CHECK(strlen(text) < sizeof(n->names[i].text), "name '%s'", text);
                strcpy(n->names[i].text, text);
                push(&n->names[i].hist, (struct value){.n = NONE});
        }
        n->folder = true;
        push(&n->names[i].hist, (struct value){.n = child, .at = at});
}

static void sync_all(struct dnode *n)
{
        for (size_t i = 0; i < n->ndirty; i++)
                settle(&n->sectors[n->dirty[i]]);
        n->ndirty = 0;
        settle(&n->size);
        for (size_t i = 0; i < n->nnames; i++)
                settle(&n->names[i].hist);
}

static void sync_range(struct dnode *n, uint64_t off, uint64_t len)
{
        size_t k = 0;

        for (size_t s = off / SECTOR; s * SECTOR < off + len; s++)
                settle(&n->sectors[s]);
        for (size_t i = 0; i < n->ndirty; i++)
                if (n->sectors[n->dirty[i]].n > 1)
                        n->dirty[k++] = n->dirty[i];
        n->ndirty = k;
        settle(&n->size);
}

void disk_apply(struct disk *d, const struct event *ev, uint32_t at)
{
        struct dnode *n;

        if (ev->kind >= EV_FILES)
                return;
        if (ev->kind == EV_ENTRY && ev->child != NONE)
                node_get(d, ev->child)->folder = the_log->node[ev->child].folder;
        n = node_get(d, ev->node);
        switch (ev->kind) {
        case EV_WRITE:
                change(d, n, the_log->bytes + ev->data, ev->off, ev->len, at, false);
                if (ev->off + ev->len > last(&n->size)->n)
                        push(&n->size, (struct value){.n = ev->off + ev->len, .at = at});
                break;
        case EV_ZERO:
                if (ev->off < last(&n->size)->n)
                        change(d, n, NULL, ev->off, MIN(ev->len, last(&n->size)->n - ev->off), at,
                               false);
                break;
        case EV_SIZE:
                size_set(d, n, ev->off, at);
                break;
        case EV_ENTRY:
                name_set(n, (char *)the_log->bytes + ev->data, ev->child, at);
                break;
        case EV_SYNC:
                sync_all(n);
                d->last_sync = at;
                break;
        case EV_SYNC_RANGE:
                sync_range(n, ev->off, ev->len);
                break;
        default:
                break;
        }
}

/* ---- a folder as it is ---- */

static void load_file(struct disk *d, const char *path, struct dnode *n)
{
        _cleanup_free_ char *bytes = NULL;
        size_t len;

        CHECK(file_read(path, SIZE_MAX, &bytes, &len, NULL) == 0, "read '%s'", path);
        sectors_reach(n, len);
        for (size_t o = 0; o < len; o += SECTOR) {
                struct block *b = copy(d);

                memcpy(b->bytes, bytes + o, MIN((size_t)SECTOR, len - o));
                sector_push(n, o / SECTOR, all_zeros(b->bytes) ? NULL : b->bytes, 0, false);
        }
        size_set(d, n, len, 0);
}

static void load(struct disk *d, const char *path, uint32_t node, uint32_t *next)
{
        struct dirent **names;
        int n = scandir(path, &names, NULL, alphasort);

        CHECK(n >= 0, "scandir %s", path);
        node_get(d, node)->folder = true;
        for (int i = 0; i < n; i++) {
                _cleanup_free_ char *p = path_printf("%s/%s", path, names[i]->d_name);
                struct stat st;

                if (names[i]->d_name[0] != '.' && lstat(p, &st) == 0) {
                        uint32_t child = (*next)++;

                        node_get(d, child);
                        name_set(node_get(d, node), names[i]->d_name, child, 0);
                        if (S_ISDIR(st.st_mode))
                                load(d, p, child, next);
                        else
                                load_file(d, p, node_get(d, child));
                }
                free(names[i]);
        }
        free(names);
}

void disk_load(struct disk *d, const char *top)
{
        uint32_t next = 1;

        load(d, top, 0, &next);
        for (uint32_t i = 0; i < d->n; i++)
                sync_all(&d->node[i]);
        CHECK(next == the_log->nodes, "the log begins with %u files, the folder has %u",
              the_log->nodes, next);
}

/* ---- what a power cut leaves ---- */

struct writer {
        const struct disk *d;
        struct cut cut;
        struct rnd *r;
        uint32_t moment; /* of what is ordered */
        unsigned open;   /* things that had more than one value */
};

static const struct value *as_of(const struct hist *h, uint32_t moment)
{
        uint32_t i = h->n - 1;

        while (i > 0 && h->v[i].at > moment)
                i--;
        return &h->v[i];
}

/* Of the values from first to last. */
static const struct value *choose(struct writer *w, const struct value *first,
                                  const struct value *newest)
{
        unsigned roll;

        if (first == newest)
                return first;
        w->open++;
        roll = rnd_below(w->r, 256);
        if (roll < w->cut.newest)
                return newest;
        if (roll < w->cut.newest + w->cut.oldest)
                return first;
        return first + rnd_below(w->r, newest - first + 1);
}

static const struct value *choose_size(struct writer *w, const struct hist *h)
{
        if (h->n > 1 && w->cut.ordered) {
                w->open++;
                return as_of(h, w->moment);
        }
        return choose(w, h->v, last(h));
}

static const struct value *choose_sector(struct writer *w, const struct hist *h,
                                         const struct value *size)
{
        const struct value *first = h->v, *newest = last(h);

        for (const struct value *v = first + 1; v <= newest; v++) {
                if (v->gone && v->at > size->at)
                        newest = v - 1;
                else if (v->gone)
                        first = v;
        }
        return choose(w, first, newest);
}

static void write_file(struct writer *w, const struct dnode *n, const char *path)
{
        enum { PAGE = 4096, IN_PAGE = PAGE / SECTOR };
        const struct value *chosen = choose_size(w, &n->size);
        uint64_t size = chosen->n;
        int fd = open(path, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0600);
        uint8_t page[PAGE];

        CHECK(fd >= 0 && ftruncate(fd, size) == 0, "create '%s'", path);
        for (size_t s = 0; s < n->nsectors && s * SECTOR < size; s += IN_PAGE) {
                size_t k = MIN((size_t)IN_PAGE, n->nsectors - s), len;
                bool any = false;

                for (size_t i = 0; i < k; i++) {
                        const uint8_t *p = choose_sector(w, &n->sectors[s + i], chosen)->p;

                        if (p && !any)
                                memset(page, 0, sizeof(page));
                        if (p)
                                memcpy(page + i * SECTOR, p, SECTOR);
                        any |= p != NULL;
                }
                len = MIN(k * SECTOR, size - s * SECTOR);
                CHECK(!any || pwrite(fd, page, len, s * SECTOR) == (ssize_t)len, "write '%s'",
                      path);
        }
        close(fd);
}

/* The last of a folder's changes that happened. */
static uint32_t folder_moment(struct writer *w, const struct dnode *n)
{
        size_t open = 0, k;
        unsigned roll;

        for (size_t i = 0; i < n->nnames; i++)
                open += n->names[i].hist.n - 1;
        if (open == 0 || w->cut.ordered)
                return w->moment;
        w->open += open;
        roll = rnd_below(w->r, 256);
        if (roll < w->cut.newest)
                return UINT32_MAX;
        if (roll < w->cut.newest + w->cut.oldest)
                return 0;
        k = rnd_below(w->r, open);
        for (size_t i = 0;; k -= n->names[i++].hist.n - 1)
                if (k < n->names[i].hist.n - 1)
                        return n->names[i].hist.v[k + 1].at;
}

static void write_folder(struct writer *w, const struct dnode *n, const char *path)
{
        uint32_t moment = folder_moment(w, n);

        for (size_t i = 0; i < n->nnames; i++) {
                uint64_t child = as_of(&n->names[i].hist, moment)->n;
                char p[512];

                if (child == NONE)
                        continue;
                snprintf(p, sizeof(p), "%s/%s", path, n->names[i].text);
                if (w->d->node[child].folder) {
                        CHECK(mkdir(p, 0700) == 0, "mkdir '%s'", p);
                        write_folder(w, &w->d->node[child], p);
                } else {
                        write_file(w, &w->d->node[child], p);
                }
        }
}

unsigned disk_write(const struct disk *d, const char *top, uint32_t at, struct cut cut,
                    struct rnd *r)
{
        struct writer w = {.d = d, .cut = cut, .r = r};

        w.moment = d->last_sync + rnd_below(r, at - MIN(at, d->last_sync) + 1);
        CHECK(mkdir(top, 0700) == 0, "mkdir '%s'", top);
        write_folder(&w, &d->node[0], top);
        return w.open;
}

static void compare(const struct disk *d, const struct dnode *n, const char *path)
{
        for (size_t i = 0; i < n->nnames; i++) {
                uint64_t child = last(&n->names[i].hist)->n;
                _cleanup_free_ char *p = path_printf("%s/%s", path, n->names[i].text);
                const struct dnode *c = child == NONE ? NULL : &d->node[child];
                _cleanup_free_ char *bytes = NULL;
                size_t len;

                CHECK((access(p, F_OK) == 0) == (c != NULL), "'%s': missed that it came or went",
                      p);
                if (c && c->folder)
                        compare(d, c, p);
                if (!c || c->folder)
                        continue;
                CHECK(file_read(p, SIZE_MAX, &bytes, &len, NULL) == 0 && len == last(&c->size)->n,
                      "'%s': missed its size", p);
                for (size_t o = 0; o < len; o++) {
                        size_t s = o / SECTOR;
                        const uint8_t *want = s < c->nsectors ? last(&c->sectors[s])->p : NULL;

                        CHECK((uint8_t)bytes[o] == (want ? want[o % SECTOR] : 0),
                              "'%s': missed a change of byte %zu", p, o);
                }
        }
}

void disk_compare(const struct disk *d, const char *top)
{
        compare(d, &d->node[0], top);
}
