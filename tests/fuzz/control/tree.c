/* What a user can write into the tree, into a control plane on a store in memory with drivers that
 * only remember: names, attributes, `new`, `spec`, `ctl`, lists, links.
 *
 * An input is lines.  Of each the first byte says what is done, the next three which kind, object
 * (or owner) and part of it, by number; the rest is the text.  Bytes 1 and 2 of a text stand for a
 * newline and for a NUL. */
#include "../../control/rig.h"

#include "backend/network/null/network-null.h"
#include "common/buf.h"
#include "common/log.h"

int LLVMFuzzerTestOneInput(const uint8_t *p, size_t n);

enum { LINE_MAX_TEXT = 8192, OBJECTS_MAX = 200, LINES_MAX = 64, USER = 1000 };

static const struct caller user = {.uid = USER, .gid = USER};

struct step {
        const struct kind *kind;
        uint64_t no; /* of an object; 0: of none */
        unsigned part;
        char text[LINE_MAX_TEXT + 1];
        size_t n;
        const struct caller *who;
};

/* The object of that place in the order of all; and of what kind it is. */
static uint64_t pick(unsigned at, const struct kind **ret)
{
        uint64_t no = 0;
        struct object *o;

        control_rdlock(fake.c);
        at %= HASH_CNT(hh_no, fake.c->by_no);
        for (o = fake.c->by_no; at > 0; o = o->hh_no.next)
                at--;
        no = o->no;
        *ret = o->kind;
        control_unlock(fake.c);
        return no;
}

static size_t objects(void)
{
        size_t n;

        control_rdlock(fake.c);
        n = HASH_CNT(hh_no, fake.c->by_no);
        control_unlock(fake.c);
        return n;
}

/* Whatever it is now can be shown. */
static void show(uint64_t no)
{
        struct buf out = {};
        struct object *o;

        control_rdlock(fake.c);
        o = model_by_no(fake.c, no);
        if (o) {
                render_ctl(fake.c, o, &out);
                render_spec(fake.c, o, &out);
                render_json(fake.c, o, &out);
                render_error(fake.c, o, &out);
                render_path(fake.c, o, &out);
                for (unsigned i = 0; i < o->kind->nattrs; i++)
                        render_attr(fake.c, o, i, &out);
        }
        control_unlock(fake.c);
        buf_done(&out);
}

static int new (const struct step *s, uint64_t owner, struct err **e)
{
        char *line = NULL;
        int r = control_new(fake.c, s->who, owner, s->kind, s->text, s->n, &line, e);

        free(line);
        return r;
}

static int apply(const struct step *s, struct err **e)
{
        char *said = NULL;
        int r = control_apply(fake.c, s->who, s->no, s->text, s->n, &said, e);

        free(said);
        return r;
}

/* "NAME TARGET" */
static int link_step(struct step *s, const struct kind *of, struct err **e)
{
        char *space = strchr(s->text, ' '), name[NAME_SIZE];

        if (!of->nlinks || !space)
                return 0;
        *space = '\0';
        return control_link(fake.c, s->who, s->no, s->part % of->nlinks, s->text, space + 1, name,
                            e);
}

static int lines(const struct step *s, const struct kind *of, struct err **e)
{
        unsigned f = of->nfiles ? s->part % of->nfiles : 0;

        if (!of->nfiles || of->files[f].type != FILE_LINES)
                return 0;
        return control_write_line(fake.c, s->who, s->no, f, s->text, s->n, e);
}

static int run(char what, struct step *s, const struct kind *of, struct err **e)
{
        struct control *c = fake.c;
        uint64_t made;

        switch (what) {
        case 'c':
                return objects() > OBJECTS_MAX
                               ? 0
                               : control_create(c, s->who, fake.owner, s->kind, s->text, &made, e);
        case 'C': /* inside another */
                return objects() > OBJECTS_MAX
                               ? 0
                               : control_create(c, s->who, s->no, s->kind, s->text, &made, e);
        case 'n':
                return objects() > OBJECTS_MAX ? 0 : new (s, fake.owner, e);
        case 's':
                return of->nattrs ? control_set(c, s->who, s->no, s->part % of->nattrs, s->text,
                                                s->n, e)
                                  : 0;
        case 'v':
                return control_verb(c, s->who, s->no, s->text, s->n, e);
        case 'a':
                return apply(s, e);
        case 'l':
                return link_step(s, of, e);
        case 'u':
                return of->nlinks
                               ? control_unlink(c, s->who, s->no, s->part % of->nlinks, s->text, e)
                               : 0;
        case 'w':
                return lines(s, of, e);
        case 'm':
                return control_set_meta(c, s->who, s->no, "key", s->text, s->n, e);
        case 'r':
                return control_rename(c, s->who, s->no, s->text, e);
        case 'd':
                return s->no == fake.owner ? 0 : control_delete(c, s->who, s->no, e);
        default:
                return 0;
        }
}

static unsigned nkinds(void)
{
        unsigned n = 0;

        while (kinds[n])
                n++;
        return n;
}

static void line(const uint8_t *p, size_t n)
{
        static struct step s; /* too large for the stack of an instrumented function */
        const struct kind *of;
        struct err *e = NULL;

        if (n < 4)
                return;
        s = (struct step){.kind = kinds[p[1] % nkinds()],
                          .no = pick(p[2], &of),
                          .part = p[3] & 0x7f,
                          .who = p[3] & 0x80 ? &user : &root,
                          .n = MIN(n - 4, (size_t)LINE_MAX_TEXT)};
        for (size_t i = 0; i < s.n; i++)
                s.text[i] = p[4 + i] == 1 ? '\n' : p[4 + i] == 2 ? '\0' : (char)p[4 + i];
        if (run((char)p[0], &s, of, &e) < 0 && (!e || !*err_msg(e)))
                abort(); /* refused without a word */
        err_free(e);
        show(s.no);
}

static struct network_service *null;

static int open_null(void *arg, struct network_service **ret, struct err **e)
{
        *ret = null;
        return 0;
}

int LLVMFuzzerTestOneInput(const uint8_t *p, size_t n)
{
        static bool begun;

        if (!begun) {
                log_set_level(LOG_EMERG);
                rig_make_dir(NULL);
                rig_network = open_null;
                begun = true;
        }
        null = network_null_new();
        rig_setup(NULL);
        for (unsigned i = 0; n > 0 && i < LINES_MAX; i++) {
                const uint8_t *nl = memchr(p, '\n', n);
                size_t k = nl ? (size_t)(nl - p) : n;

                line(p, k);
                k += nl != NULL;
                p += k;
                n -= k;
        }
        rig_teardown(NULL);
        null->ops->close(null);
        return 0;
}
