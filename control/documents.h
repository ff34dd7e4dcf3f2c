/* What a guest is told of itself, on its config drive and by its network's metadata service: one
 * place makes both.
 *
 * It is a bundle (common/bundle.h) whose names are the paths that cloud-init asks for, below
 * "openstack/latest" (OpenStack's form) and "latest" (EC2's); metadata/metadata.h has the rest. */
#pragma once

#include "control/jobs/jobs.h"

/* The files of the config drive of o, an instance: OpenStack's, and what of EC2's layout is looked
 * for there.  Model held, memory only. */
void documents_drive(struct control *c, const struct object *o, struct buf *out);
/* All that the metadata service says to o; false: nothing, as its owner wants it.  Likewise. */
bool documents(struct control *c, const struct object *o, struct buf *out);
