/* The text descriptor inside a VMDK. */
#pragma once

#include "common/err.h"

/* Whether the NUL-terminated descriptor says that this file is the whole disk: createType is
 * monolithicSparse or streamOptimized, one SPARSE extent, no parent.  -EINVAL with words. */
int vmdk_descriptor_check(char *text, struct err **e);
