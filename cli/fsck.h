/* strato doctor --fsck. */
#pragma once

#include "cli/doctor.h"

/* Compares what the tree records with what is there: a volume without its bytes, bytes without a
 * volume, a guest that should run and does not, a guest nobody knows.  Needs the cloud up. */
enum verdict check_fsck(const struct cloud *c, struct finding *f);
