/* Encrypted volumes: what of them is beside the pool, and that nothing of theirs is readable in it.
 */
#include "volume.h"

#include <dirent.h>
#include <string.h>

#include "common/fileio.h"

const char passphrase[] = "8d1f0b6e5a4c49d7b3e2918f70615243c4d5e6f708192a3b4c5d6e7f80912a3b";

/* Calls each for all in a folder that is no dot file; missing is empty. */
static void folder_each(const char *path, void (*each)(void *arg, const char *path, const char *),
                        void *arg)
{
        DIR *d = opendir(path);

        for (struct dirent *x; d && (x = readdir(d));) {
                _cleanup_free_ char *p = path_printf("%s/%s", path, x->d_name);

                if (x->d_name[0] != '.')
                        each(arg, p, x->d_name);
        }
        if (d)
                closedir(d);
}

static unsigned find(const struct model *m, const char *id)
{
        for (unsigned i = 0; i < m->nvols; i++)
                if (streq(m->v[i].id, id))
                        return i;
        return NONE;
}

/* ---- before ---- */

static void no_guest_bytes(void *arg, const char *path, const char *name)
{
        _cleanup_free_ char *bytes = NULL;
        uint64_t first, second;
        size_t n;

        if (strncmp(name, "data", 4) != 0)
                return;
        CHECK(file_read(path, SIZE_MAX, &bytes, &n, NULL) == 0, "read '%s'", path);
        for (size_t o = 0; o + SECTOR <= n; o += SECTOR) {
                memcpy(&first, bytes + o, 8);
                memcpy(&second, bytes + o + 8, 8);
                CHECK(!first || first != second || memcmp(bytes + o, bytes + o + 8, SECTOR - 8),
                      "'%s' is of an encrypted volume and has plain bytes at %zu", path, o);
        }
}

struct family {
        unsigned marks;
        bool header;
        struct counter *seen;
};

static void each_file(void *arg, const char *path, const char *name)
{
        struct family *f = arg;

        f->marks += name[1] == '.';
        f->header |= streq(name, "header");
        f->seen[SEEN_MAKING].n += name[0] == 'c' && name[1] == '.';
        f->seen[SEEN_REMOVING].n += name[0] == 'r' && name[1] == '.';
}

static void each_family(void *arg, const char *path, const char *name)
{
        struct family f = {.seen = arg};

        folder_each(path, each_file, &f);
        f.seen[SEEN_ERASING].n += f.header && f.marks == 0;
}

void crypt_before(const struct model *m, const char *state, struct counter *seen)
{
        _cleanup_free_ char *crypt = path_printf("%s/crypt", state);

        for (unsigned i = 0; i < m->nvols; i++) {
                _cleanup_free_ char *pool = path_printf("%s/pool/%s", state, m->v[i].id);

                if (m->v[i].family[0])
                        folder_each(pool, no_guest_bytes, NULL);
        }
        folder_each(crypt, each_family, seen);
}

/* ---- after ---- */

struct after {
        const struct model *m;
        const bool *there;
        const char *family;
        unsigned members, all;
        bool header;
};

static void member(void *arg, const char *path, const char *name)
{
        struct after *a = arg;
        unsigned i;

        a->header |= streq(name, "header");
        if (name[1] != '.')
                return;
        i = find(a->m, name + 2);
        CHECK(name[0] == 'm' && i != NONE && a->there[i] && streq(a->m->v[i].family, a->family),
              "'%s' is of no volume", path);
        a->members++;
}

static void family(void *arg, const char *path, const char *name)
{
        struct after *a = arg;

        a->family = name;
        a->members = a->header = 0;
        folder_each(path, member, a);
        CHECK(a->members > 0 || !a->header, "'%s' is the key of no volume", path);
        CHECK(a->header || a->members == 0, "'%s' has no header", path);
        a->all += a->members;
}

void crypt_after(const struct model *m, const char *state, const bool *there)
{
        _cleanup_free_ char *crypt = path_printf("%s/crypt", state);
        struct after a = {.m = m, .there = there};
        unsigned want = 0;

        for (unsigned i = 0; i < m->nvols; i++)
                want += there[i] && m->v[i].family[0];
        folder_each(crypt, family, &a);
        CHECK(a.all == want, "%u of %u encrypted volumes have a key", a.all, want);
}
