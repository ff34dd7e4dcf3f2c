/* The descriptors that stratofs-hold keeps, as sd_notify(3) has them. */
#pragma once

#include <stdbool.h>
#include <stddef.h>

struct hold_table {
        struct held_fd {
                int fd;
                char *name;
        } * held; /* in the order of coming */
        unsigned n, room;
        size_t names; /* bytes of all names, each with what parts it from the next */
};

/* Printable ASCII without space and colon, 1 to 255 bytes. */
bool hold_name_good(const char *name);
/* Takes fd.  The same file under the same name is held once; what there is no room for is closed,
 * and the log says so. */
void hold_store(struct hold_table *t, const char *name, int fd);
void hold_done(struct hold_table *t);
/* All of that name. */
void hold_drop(struct hold_table *t, const char *name);
