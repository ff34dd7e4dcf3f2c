/* What changes between two rulesets of ours, as nftables' own text: one transaction that touches
 * only the chains and sets that differ, so that a port that comes costs no more where there are a
 * thousand.  Read from the texts themselves: tables of "chain NAME {" and "set NAME {", a line a
 * statement, "}" alone at the end of each. */
#include "backend/network/linux/linux.h"

/* A piece of the text. */
struct span {
        const char *s;
        size_t n;
};

/* A chain or set. */
struct block {
        struct span table; /* "ip NAME" */
        struct span name;  /* "chain NAME" */
        struct span body;  /* its lines */
        const struct block *other;
};
struct blocks {
        struct block *v;
        size_t n;
};

static bool begins(const struct span *s, const char *with)
{
        size_t n = strlen(with);

        return s->n >= n && memcmp(s->s, with, n) == 0;
}

static int compare(const struct span *a, const struct span *b)
{
        int r = memcmp(a->s, b->s, MIN(a->n, b->n));

        return r ? r : a->n < b->n ? -1 : a->n > b->n;
}

static int by_name(const void *a, const void *b)
{
        const struct block *x = a, *y = b;
        int r = compare(&x->table, &y->table);

        return r ?: compare(&x->name, &y->name);
}

static struct span line_of(const char **p)
{
        size_t n = strcspn(*p, "\n");
        struct span l = {*p, n};

        *p += n + ((*p)[n] == '\n');
        return l;
}

/* Without the blank and brace at its end. */
static struct span headline(struct span l, size_t skip)
{
        return (struct span){l.s + skip, l.n - skip - 2};
}

static bool add(struct blocks *b, const struct block *x)
{
        struct block *v = b->n % 256 ? b->v : reallocarray(b->v, b->n + 256, sizeof(*v));

        if (!v)
                return false;
        b->v = v;
        v[b->n++] = *x;
        return true;
}

/* In order of names; *tables: how many.  Frees with b->v. */
static bool take_apart(const char *text, struct blocks *b, unsigned *tables)
{
        struct block x = {};
        bool inside = false;

        *tables = 0;
        while (*text) {
                struct span l = line_of(&text);

                if (!inside && begins(&l, "table ") && l.n > 8) {
                        x.table = headline(l, 6);
                        ++*tables;
                } else if (!inside && (begins(&l, "chain ") || begins(&l, "set "))) {
                        x.name = headline(l, 0);
                        x.body = (struct span){text, 0};
                        inside = true;
                } else if (inside && l.n == 1 && *l.s == '}') {
                        x.body.n = l.s - x.body.s;
                        if (!add(b, &x))
                                return false;
                        inside = false;
                }
        }
        qsort(b->v, b->n, sizeof(*b->v), by_name);
        return !inside;
}

/* --- members of sets ------------------------------------------------------------------------- */

static int by_text(const void *a, const void *b)
{
        return compare(a, b);
}

/* What is between "elements = { " and " }", sorted; to be freed. */
static struct span *members(const struct block *b, size_t *ret)
{
        static const char head[] = "elements = { ";
        const char *p = memmem(b->body.s, b->body.n, head, strlen(head)), *end;
        size_t n = 1, k = 0;
        struct span *v;

        end = p ? memchr(p, '}', b->body.s + b->body.n - p) : NULL;
        for (const char *c = p; c && c < end; c++)
                n += *c == ',';
        v = calloc(n, sizeof(*v));
        *ret = 0;
        if (!v || !end)
                return v;
        for (const char *c = p + strlen(head); c < end; c += v[k - 1].n + 2) {
                v[k].s = c;
                v[k++].n = strcspn(c, ", ");
        }
        qsort(v, k, sizeof(*v), by_text);
        *ret = k;
        return v;
}

/* Of a those that b lacks, each once. */
static void lacking(const struct block *x, const char *verb, const struct span *a, size_t na,
                    const struct span *b, size_t nb, struct buf *out)
{
        unsigned count = 0;

        for (size_t i = 0, k = 0; i < na; i++) {
                if (i && compare(&a[i], &a[i - 1]) == 0)
                        continue;
                while (k < nb && compare(&b[k], &a[i]) < 0)
                        k++;
                if (k < nb && compare(&b[k], &a[i]) == 0)
                        continue;
                if (count++ == 0)
                        buf_printf(out, "%s element %.*s %.*s { ", verb, (int)x->table.n,
                                   x->table.s, (int)x->name.n - 4, x->name.s + 4);
                else
                        buf_addstr(out, ", ");
                buf_add(out, a[i].s, a[i].n);
        }
        if (count)
                buf_addstr(out, " }\n");
}

static bool set_changes(const struct block *old, const struct block *new, struct buf *out)
{
        size_t na, nb;
        _cleanup_free_ struct span *a = members(old, &na), *b = members(new, &nb);

        if (!a || !b)
                return false;
        lacking(new, "add", b, nb, a, na, out);
        lacking(new, "delete", a, na, b, nb, out);
        return true;
}

/* --- all ------------------------------------------------------------------------------------- */

static bool is_set(const struct block *b)
{
        return begins(&b->name, "set ");
}

/* The line that hooks a chain; empty: it is not hooked. */
static struct span hook(const struct block *b)
{
        const char *p = b->body.s;
        struct span l = b->body.n ? line_of(&p) : (struct span){};

        return begins(&l, "type ") ? l : (struct span){l.s, 0};
}

static void pair(struct blocks *a, struct blocks *b)
{
        for (size_t i = 0, k = 0; i < a->n && k < b->n;) {
                int r = by_name(&a->v[i], &b->v[k]);

                if (r == 0) {
                        a->v[i].other = &b->v[k];
                        b->v[k].other = &a->v[i];
                }
                i += r <= 0;
                k += r >= 0;
        }
}

/* Into *in, the table that is open in the text, which is closed by one of another. */
static void block_text(const struct block *b, const struct span *body, struct span *in,
                       struct buf *out)
{
        if (!in->n || compare(in, &b->table) != 0)
                buf_printf(out, "%stable %.*s {\n", in->n ? "}\n" : "", (int)b->table.n,
                           b->table.s);
        *in = b->table;
        buf_printf(out, "%.*s {\n", (int)b->name.n, b->name.s);
        buf_add(out, body->s, body->n);
        buf_addstr(out, "}\n");
}

static void tables_end(struct span *in, struct buf *out)
{
        if (in->n)
                buf_addstr(out, "}\n");
        *in = (struct span){};
}

static void command(const char *verb, const struct block *b, struct buf *out)
{
        buf_printf(out, "%s %.*s %.*s %.*s\n", verb, (int)(is_set(b) ? 3 : 5), b->name.s,
                   (int)b->table.n, b->table.s, (int)b->name.n - (is_set(b) ? 4 : 6),
                   b->name.s + (is_set(b) ? 4 : 6));
}

static bool changed(const struct block *b)
{
        return b->other && compare(&b->body, &b->other->body) != 0;
}

/* What others name. */
static void declare(const struct blocks *new, struct buf *out)
{
        static const struct span nothing = {"", 0};
        struct span in = {};

        for (const struct block *b = new->v; b < new->v + new->n; b++) {
                struct span l = hook(b);

                l.n += l.n > 0; /* the line's end */
                if (!b->other)
                        block_text(b, is_set(b) ? &b->body : l.n ? &l : &nothing, &in, out);
        }
        tables_end(&in, out);
}

static void fill(const struct blocks *new, struct buf *out)
{
        struct span in = {};

        for (const struct block *b = new->v; b < new->v + new->n; b++) {
                struct span l = hook(b), rest = b->body;

                if (l.n) {
                        rest.s += l.n + 1;
                        rest.n -= l.n + 1;
                }
                if (!is_set(b) && (!b->other || changed(b)) && rest.n)
                        block_text(b, &rest, &in, out);
        }
        tables_end(&in, out);
}

static bool write_out(const struct blocks *old, const struct blocks *new, struct buf *out)
{
        const struct block *b;

        declare(new, out);
        for (b = old->v; b < old->v + old->n; b++)
                if (!is_set(b) && (!b->other || changed(b)))
                        command("flush", b, out);
        for (b = new->v; b < new->v + new->n; b++)
                if (is_set(b) && changed(b) && !set_changes(b->other, b, out))
                        return false;
        fill(new, out);
        for (b = old->v; b < old->v + old->n; b++) /* nobody names it any more */
                if (!b->other)
                        command("delete", b, out);
        return !out->failed;
}

bool ruleset_delta(const char *old, const char *new, struct buf *out)
{
        struct blocks a = {}, b = {};
        unsigned ta, tb;
        bool r = take_apart(old, &a, &ta) && take_apart(new, &b, &tb) && ta == tb && ta > 0;

        if (r)
                pair(&a, &b);
        for (size_t i = 0; r && i < b.n; i++) { /* what a table hooks stays */
                struct span x = hook(&b.v[i]),
                            y = b.v[i].other ? hook(b.v[i].other) : (struct span){};

                r = b.v[i].other ? compare(&x, &y) == 0 : true;
        }
        r = r && write_out(&a, &b, out);
        free(a.v);
        free(b.v);
        return r;
}
