/* blockd's control socket as a volume service: control/driver/volume.h over JSON lines. */
#pragma once

#include "control/driver/volume.h"

/* run_dir: blockd's --run folder.  Nothing is connected here: each call opens a connection of its
 * own, so a blockd that was restarted needs no attention.  Ends with ops->close(). */
int blockd_client_new(const char *run_dir, struct volume_service **ret, struct err **e);
