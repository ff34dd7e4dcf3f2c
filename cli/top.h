/* What `strato top` shows: tables made from the tree's own files, for a screen, as text, as JSON.
 */
#pragma once

#include <jansson.h>

#include "cli/cli.h"
#include "common/buf.h"
#include "common/name.h"

enum top_panel { TOP_HOSTS, TOP_TENANTS, TOP_GUESTS, TOP_VOLUMES, TOP_JOBS, TOP_PANELS };
enum column_type { COLUMN_TEXT, COLUMN_COUNT, COLUMN_BYTES, COLUMN_USEC };
enum { TOP_COLUMNS_MAX = 8, CELL_TEXT_MAX = 512 };

struct column {
        const char *title; /* NULL: no more */
        const char *key;   /* its name in JSON */
        int width;
        enum column_type type;
};

struct panel {
        const char *name;
        struct column columns[TOP_COLUMNS_MAX + 1];
};
extern const struct panel top_panels[TOP_PANELS];

struct cell {
        char *text; /* of a COLUMN_TEXT */
        double n;   /* of the others; NAN: not known */
};

struct table {
        const struct panel *panel;
        struct cell *cells; /* row by row */
        size_t rows, room;
        unsigned columns;
};

/* Zeroed but for the panel is an empty table.  table_add() makes a row with nothing known in it,
 * valid until the next; NULL: no memory. */
struct cell *table_add(struct table *t);
void cell_text(struct cell *c, const char *text); /* copied; "" is "-" */
void table_clear(struct table *t);
void table_done(struct table *t);
/* Rows with equal cells keep their order.  Numbers begin with the largest unless reverse. */
void table_sort(struct table *t, unsigned column, bool reverse);
/* A cell as people read it, in out. */
const char *table_cell(const struct table *t, size_t row, unsigned column, char out[CELL_TEXT_MAX]);
/* A line of titles, or of a row, into out: columns as wide as the panel has them, wider for what is
 * longer unless it is to be cut. */
void table_titles(const struct table *t, struct buf *out);
void table_row(const struct table *t, size_t row, bool cut, struct buf *out);
json_t *table_json(const struct table *t); /* an array of objects; NULL: no memory */

/* The guests, vCPUs and memory that the hosts bear, by name: filled from the guests. */
struct host_load;
struct io_seen;

struct top {
        struct cloud *cloud;
        struct table tables[TOP_PANELS];
        struct host_load *loads;
        struct io_seen *seen; /* of each volume before: rates are what happened since */
        unsigned volumes;     /* that were looked at the last time */
        double reads, writes, read_bytes, write_bytes; /* a second, of all volumes */
        unsigned guests, running;                      /* guests; those with a QEMU */
};

void top_init(struct top *top, struct cloud *c);
/* Looks at the cloud and fills all tables.  0 or -errno with words. */
int top_look(struct top *top, struct err **e);
void top_done(struct top *top);

/* The volumes' table: those that a guest has or that moved, of all tenants. */
int top_volumes(struct top *top, struct err **e);
void top_volumes_done(struct top *top);

/* Draws on the terminal until the user ends it.  0 or -errno with words. */
int top_screen(struct top *top, struct err **e);
