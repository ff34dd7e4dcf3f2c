#include "tests/store/linear.h"

enum { SAID_MAX = 10 };

struct reg {
        unsigned no;
        const struct linear_op **ops; /* all of the register, by begin */
        size_t n;
        const struct linear_op **writer; /* of each version up to `last` */
        uint64_t last;
        int bad;
};

static void wrong(struct reg *g, const struct linear_op *op, const char *words)
{
        if (g->bad++ < SAID_MAX)
                fprintf(stderr, "register %u: %s: %s of version %llu, value %llu, %lld..%lld\n",
                        g->no, words, op->type == LINEAR_READ ? "read" : "write",
                        (unsigned long long)op->version, (unsigned long long)op->value,
                        (long long)op->begin, (long long)op->end);
}

static int by_begin(const void *a, const void *b)
{
        const struct linear_op *x = *(const struct linear_op *const *)a;
        const struct linear_op *y = *(const struct linear_op *const *)b;

        return (x->begin > y->begin) - (x->begin < y->begin);
}

static int64_t end_of(const struct linear_op *op)
{
        return op->result == LINEAR_OPEN ? INT64_MAX : op->end;
}

/* Who wrote each version: whoever was told so; else one whose end was not seen, the one that was
 * read if somebody did. */
static void find_writers(struct reg *g)
{
        for (size_t i = 0; i < g->n; i++) {
                const struct linear_op *op = g->ops[i], **w = &g->writer[MIN(op->version, g->last)];

                if (op->type != LINEAR_WRITE || op->result != LINEAR_DONE)
                        continue;
                if (op->version > g->last)
                        wrong(g, op, "committed, and not there at the end");
                else if (*w)
                        wrong(g, op, "a version that is another's, too");
                else
                        *w = op;
        }
        for (size_t i = 0; i < g->n; i++) {
                const struct linear_op *r = g->ops[i];

                if (r->type != LINEAR_READ || r->result != LINEAR_DONE || !r->version ||
                    r->version > g->last || g->writer[r->version])
                        continue;
                for (size_t k = 0; k < g->n; k++) {
                        const struct linear_op *op = g->ops[k];

                        if (op->type == LINEAR_WRITE && op->result == LINEAR_OPEN &&
                            op->version == r->version && op->value == r->value)
                                g->writer[r->version] = op;
                }
        }
        for (size_t i = 0; i < g->n; i++) {
                const struct linear_op *op = g->ops[i];

                if (op->type == LINEAR_WRITE && op->result == LINEAR_OPEN &&
                    op->version <= g->last && !g->writer[op->version])
                        g->writer[op->version] = op;
        }
}

/* Its place in the order of versions; 0: it has none. */
static uint64_t place_of(const struct reg *g, const struct linear_op *op)
{
        if (op->type == LINEAR_READ)
                return op->result == LINEAR_DONE ? 2 * op->version + 1 : 0;
        return op->version <= g->last && g->writer[op->version] == op ? 2 * op->version : 0;
}

static int by_end(const void *a, const void *b)
{
        int64_t x = end_of(*(const struct linear_op *const *)a);
        int64_t y = end_of(*(const struct linear_op *const *)b);

        return (x > y) - (x < y);
}

/* Whatever had ended when it began must not stand behind it. */
static void check_order(struct reg *g)
{
        const struct linear_op **ended = calloc(g->n + 1, sizeof(*ended));
        uint64_t most = 0;
        size_t k = 0;

        memcpy(ended, g->ops, g->n * sizeof(*ended));
        qsort(ended, g->n, sizeof(*ended), by_end);
        for (size_t i = 0; i < g->n; i++) {
                uint64_t place = place_of(g, g->ops[i]);

                for (; k < g->n && end_of(ended[k]) < g->ops[i]->begin; k++)
                        most = MAX(most, place_of(g, ended[k]));
                if (place && place < most)
                        wrong(g, g->ops[i], "something later had ended when it began");
        }
        free(ended);
}

static void check_values(struct reg *g)
{
        for (uint64_t v = 1; v <= g->last; v++)
                if (!g->writer[v])
                        wrong(g, &(struct linear_op){.version = v}, "a version that nobody wrote");
        for (size_t i = 0; i < g->n; i++) {
                const struct linear_op *op = g->ops[i], *w;

                if (op->type != LINEAR_READ || op->result != LINEAR_DONE || !op->version)
                        continue;
                w = op->version <= g->last ? g->writer[op->version] : NULL;
                if (!w || w->value != op->value)
                        wrong(g, op, "a value that was not written");
        }
}

/* A conflict is a lie when what it expected was there from its begin to its end. */
static void check_conflicts(struct reg *g)
{
        for (size_t i = 0; i < g->n; i++) {
                const struct linear_op *op = g->ops[i];
                uint64_t expect = op->version - 1;
                int64_t from, to;

                if (op->type != LINEAR_WRITE || op->result != LINEAR_CONFLICT || expect > g->last)
                        continue;
                from = expect && g->writer[expect] ? end_of(g->writer[expect]) : 0;
                to = expect < g->last && g->writer[expect + 1] ? g->writer[expect + 1]->begin
                                                               : INT64_MAX;
                if (from < op->begin && op->end < to)
                        wrong(g, op, "a conflict with nobody");
        }
}

static int check_register(const struct linear_op *v, size_t n, unsigned no)
{
        struct reg g = {.no = no};

        g.ops = calloc(n + 1, sizeof(*g.ops));
        for (size_t i = 0; i < n; i++)
                if (v[i].type != LINEAR_NONE && v[i].reg == no)
                        g.ops[g.n++] = &v[i];
        qsort(g.ops, g.n, sizeof(*g.ops), by_begin);
        g.last = g.n ? g.ops[g.n - 1]->version : 0;
        g.writer = calloc(g.last + 1, sizeof(*g.writer));
        if (!g.n || g.ops[g.n - 1]->type != LINEAR_READ || g.ops[g.n - 1]->result != LINEAR_DONE)
                abort(); /* no last read */
        find_writers(&g);
        check_values(&g);
        check_order(&g);
        check_conflicts(&g);
        free(g.ops);
        free(g.writer);
        return g.bad;
}

int linear_check(const struct linear_op *v, size_t n, unsigned nregs)
{
        int bad = 0;

        for (unsigned i = 0; i < nregs; i++)
                bad += check_register(v, n, i);
        return bad;
}
