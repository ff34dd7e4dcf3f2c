/* What the files of the kind instance share: sets of states, and the hooks of its table. */
#pragma once

#include "control/jobs/jobs.h"

#define RESTING (STATE(INSTANCE_DRAFT) | STATE(INSTANCE_STOPPED) | STATE(INSTANCE_ERROR))
#define LIVE (STATE(INSTANCE_ACTIVE) | STATE(INSTANCE_PAUSED))

/* instance-links.c: see struct link_def */
int instance_bind_volume(struct txn *t, struct object *o, char *name, struct object *volume,
                         struct err **e);
int instance_bound_volume(struct txn *t, struct object *o, struct link *l, struct err **e);
int instance_unbind_volume(struct txn *t, struct object *o, struct link *l, struct err **e);
int instance_bind_image(struct txn *t, struct object *o, char *name, struct object *image,
                        struct err **e);

/* instance-verbs.c, instance-commands.c: see struct verb_def */
#define VERB(name)                                                                                 \
        int instance_##name(struct txn *t, struct object *o, const char *args, struct err **e)
VERB(start);
VERB(stop);
VERB(reboot);
VERB(pause);
VERB(resume);
VERB(suspend);
VERB(snapshot);
VERB(image);
VERB(backup);
VERB(evacuate);
VERB(reset);
VERB(lock);
VERB(unlock);
VERB(send_key);
VERB(crash_dump);
VERB(set_password);
#undef VERB

/* See struct kind: a locked instance is changed by admins only. */
int instance_guard(const struct object *o, const char *what, struct err **e);
