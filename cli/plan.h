/* The plan of strato apply: what the files describe beside what there is. */
#pragma once

#include "cli/cli.h"
#include "cli/item.h"

struct plan {
        const struct cloud *c;
        char *tenant; /* its folder */
        struct item *v;
        size_t n;
        json_t *doc;
        bool dry;
        int timeout;
        unsigned changes, failures;
};

/* Reads the files and the tenant, which is made if it is missing (and not dry).  plan_done() after it,
 * whatever it returned. */
int plan_read(struct plan *p, struct err **e);
void plan_done(struct plan *p);
/* By "volumes/v"; NULL: neither there nor described, or there and not to be pruned. */
struct item *plan_find(struct plan *p, const char *key);
/* "FILE:LINE" of an object's description, NULL if it has none. */
const char *plan_place(const struct plan *p, const char *key);
