#include "cli/top.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "common/macro.h"
#include "common/size.h"

struct order {
        struct cell cells[TOP_COLUMNS_MAX];
        size_t was; /* its row before: equal ones stay in order */
};

struct rule {
        unsigned column;
        bool text, reverse;
};

struct cell *table_add(struct table *t)
{
        struct cell *row;

        if (t->columns == 0)
                while (t->panel->columns[t->columns].title)
                        t->columns++;
        if (t->rows == t->room) {
                size_t room = MAX(t->room * 2, (size_t)64);
                struct cell *more = reallocarray(t->cells, room * t->columns, sizeof(*more));

                if (!more)
                        return NULL;
                t->cells = more;
                t->room = room;
        }
        row = t->cells + t->rows++ * t->columns;
        for (unsigned i = 0; i < t->columns; i++)
                row[i] = (struct cell){.n = NAN};
        return row;
}

void cell_text(struct cell *c, const char *text)
{
        free(c->text);
        c->text = *text ? strdup(text) : NULL;
}

void table_clear(struct table *t)
{
        for (size_t i = 0; i < t->rows * t->columns; i++)
                free(t->cells[i].text);
        t->rows = 0;
}

void table_done(struct table *t)
{
        table_clear(t);
        free(t->cells);
        t->cells = NULL;
        t->room = 0;
}

static int compare(const void *a, const void *b, void *arg)
{
        const struct order *x = a, *y = b;
        const struct rule *rule = arg;
        const struct cell *p = &x->cells[rule->column], *q = &y->cells[rule->column];
        int r;

        if (rule->text)
                r = strcmp(p->text ? p->text : "", q->text ? q->text : "");
        else if (isnan(p->n) || isnan(q->n))
                r = !!isnan(p->n) - !!isnan(q->n);
        else
                r = (p->n < q->n) - (p->n > q->n);
        if (r)
                return rule->reverse ? -r : r;
        return (x->was > y->was) - (x->was < y->was);
}

void table_sort(struct table *t, unsigned column, bool reverse)
{
        struct rule rule = {column, t->panel->columns[column].type == COLUMN_TEXT, reverse};
        _cleanup_free_ struct order *rows = calloc(MAX(t->rows, (size_t)1), sizeof(*rows));

        if (!rows)
                return;
        for (size_t i = 0; i < t->rows; i++) {
                memcpy(rows[i].cells, t->cells + i * t->columns, t->columns * sizeof(*t->cells));
                rows[i].was = i;
        }
        qsort_r(rows, t->rows, sizeof(*rows), compare, &rule);
        for (size_t i = 0; i < t->rows; i++)
                memcpy(t->cells + i * t->columns, rows[i].cells, t->columns * sizeof(*t->cells));
}

const char *table_cell(const struct table *t, size_t row, unsigned column, char out[CELL_TEXT_MAX])
{
        const struct cell *c = &t->cells[row * t->columns + column];
        char size[SIZE_TEXT_MAX];

        switch (t->panel->columns[column].type) {
        case COLUMN_TEXT:
                snprintf(out, CELL_TEXT_MAX, "%s", c->text ? c->text : "-");
                return out;
        case COLUMN_COUNT:
                snprintf(out, CELL_TEXT_MAX, "%.0f", c->n);
                break;
        case COLUMN_BYTES:
                snprintf(out, CELL_TEXT_MAX, "%s",
                         isnan(c->n) ? "" : size_human(size, (uint64_t)c->n));
                break;
        case COLUMN_USEC:
                snprintf(out, CELL_TEXT_MAX, "%.0fus", c->n);
                break;
        }
        return isnan(c->n) ? strcpy(out, "-") : out;
}

/* Text begins at the left, numbers end at the right. */
static void pad(const struct table *t, unsigned column, const char *text, bool cut, struct buf *out)
{
        const struct column *c = &t->panel->columns[column];
        bool left = c->type == COLUMN_TEXT, last = column + 1 == t->columns;

        buf_printf(out, "%*s%s",
                   last && left ? 0
                   : left       ? -c->width
                                : c->width,
                   text, last ? "\n" : " ");
}

void table_titles(const struct table *t, struct buf *out)
{
        for (unsigned i = 0; i < t->columns; i++)
                pad(t, i, t->panel->columns[i].title, false, out);
}

void table_row(const struct table *t, size_t row, bool cut, struct buf *out)
{
        char text[CELL_TEXT_MAX];

        for (unsigned i = 0; i < t->columns; i++)
                pad(t, i, table_cell(t, row, i, text), cut, out);
}

json_t *table_json(const struct table *t)
{
        json_t *list = json_array();

        for (size_t r = 0; list && r < t->rows; r++) {
                json_t *object = json_object();

                for (unsigned i = 0; i < t->columns; i++) {
                        const struct cell *c = &t->cells[r * t->columns + i];
                        const struct column *def = &t->panel->columns[i];
                        json_t *value = def->type == COLUMN_TEXT
                                                ? json_string(c->text ? c->text : "")
                                        : isnan(c->n) ? json_null()
                                                      : json_integer((json_int_t)c->n);

                        json_object_set_new(object, def->key, value);
                }
                json_array_append_new(list, object);
        }
        return list;
}
