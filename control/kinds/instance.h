/* What the files of the kind instance share: sets of states, and the hooks of its table. */
#pragma once

#include "control/jobs/jobs.h"

#define RESTING (STATE(INSTANCE_DRAFT) | STATE(INSTANCE_STOPPED) | STATE(INSTANCE_ERROR))
/* Its disks and networks may come and go. */
#define LINKABLE (STATE(INSTANCE_DRAFT) | STATE(INSTANCE_STOPPED) | LIVE)
/* What its devices change in at once, by a job. */
#define PLUGGED (LIVE | STATE(INSTANCE_RESIZED))
#define EVERY_STATE (STATE(INSTANCE_LAST + 1) - 1)
#define TRANSIENT                                                                                  \
        (STATE(INSTANCE_STARTING) | STATE(INSTANCE_STOPPING) | STATE(INSTANCE_REBOOTING) |         \
         STATE(INSTANCE_DELETING) | STATE(INSTANCE_SUSPENDING) | STATE(INSTANCE_RESUMING) |        \
         STATE(INSTANCE_RESCUING) | STATE(INSTANCE_UNRESCUING) | STATE(INSTANCE_REBUILDING) |      \
         STATE(INSTANCE_SHELVING) | STATE(INSTANCE_RESIZING) | STATE(INSTANCE_REVERTING) |         \
         STATE(INSTANCE_MIGRATING))
#define LIVE (STATE(INSTANCE_ACTIVE) | STATE(INSTANCE_PAUSED))

/* instance-links.c: see struct link_def */
int instance_bind_volume(struct txn *t, struct object *o, char *name, struct object *volume,
                         struct err **e);
int instance_bound_volume(struct txn *t, struct object *o, struct link *l, struct err **e);
int instance_unbind_volume(struct txn *t, struct object *o, struct link *l, struct err **e);
int instance_bind_image(struct txn *t, struct object *o, char *name, struct object *image,
                        struct err **e);

int instance_unbind_cdrom(struct txn *t, struct object *o, struct link *l, struct err **e);
int instance_bound_cdrom(struct txn *t, struct object *o, struct link *l, struct err **e);

/* instance-hardware.c */
int instance_set_memory(struct txn *t, struct object *o, union value v, struct err **e);
int instance_set_boot(struct txn *t, struct object *o, union value v, struct err **e);
int instance_set_extra(struct txn *t, struct object *o, union value v, struct err **e);
int instance_vnc_verb(struct txn *t, struct object *o, const char *args, struct err **e);
void instance_render_vnc(struct control *c, const struct object *o, struct buf *out);

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

/* instance-container.c */
/* See struct kind: verbs that mean nothing to a container. */
int instance_suits(const struct object *o, const char *verb, struct err **e);

/* See struct kind: a locked instance is changed by admins only. */
int instance_guard(const struct object *o, const char *what, struct err **e);
