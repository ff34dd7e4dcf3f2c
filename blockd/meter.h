/* Meters: what is limited and counted of each volume, for all its exports and connections together.
 *
 * Limits are durable, one file a volume in <state>/limits, written before they are answered.
 * Counters live as long as the process.  Lock: the server's `lock` guards the table, the lists of
 * connections and the sums; `change` is held while files change. */
#pragma once

#include <jansson.h>
#include <uthash.h>
#include "backend/volume/volume.h"
#include "blockd/limit.h"
#include "blockd/stats.h"

struct server;
struct meter {
        UT_hash_handle hh; /* by volume */
        char volume[VOLUME_ID_SIZE];
        struct limit limit;
        struct stats_sum past; /* of connections that are closed */
        int64_t since;         /* usec, wall clock: counted from here on */
        struct stats *live;    /* of those that are open */
};

/* A connection that has the volume open begins and ends; s is its own, zeroed.  The meter is valid
 * until it leaves, which is before it closes the volume. */
int meter_join(struct server *server, const char *volume, struct stats *s, struct meter **ret);
/* Leaves s zeroed. */
void meter_leave(struct server *server, struct meter **m, struct stats *s);

/* `change` held.  -ENOENT no such volume, -EINVAL a figure out of range, with words. */
int meter_set_limit(struct server *s, const char *volume, const struct limit_config *c,
                    struct err **e);
/* `change` held, after the volume was removed: its limits and counters go. */
int meter_remove(struct server *s, const char *volume, struct err **e);
/* At start: limits as they were.  Those of volumes that are no more are swept. */
int meters_restore(struct server *s, struct err **e);
void meters_free(struct server *s);

struct meter_facts {
        const char *volume;
        int64_t since; /* 0: nobody used it */
        struct limit_config limit;
        struct stats_sum sum;
};
/* One volume; with nothing to tell it is all zeros. */
void meter_read(struct server *s, const char *volume, struct meter_facts *ret);
/* As the control socket tells it; NULL without memory. */
json_t *meter_json(const struct meter_facts *f);
/* In order of id, those after `after`.  A positive return stops. */
void meters_list(struct server *s, const char *after,
                 int (*each)(void *arg, const struct meter_facts *f), void *arg);
