/* The volume service over blockd's control socket. */
#pragma once

#include "control/driver/volume.h"

/* The client of the blockd whose run folder that is; it need not run yet.  NULL without memory.
 * Close with ->ops->close().  Holds no connection: each call is one of its own, on any thread. */
struct volume_service *blockd_client_new(const char *run_dir);
