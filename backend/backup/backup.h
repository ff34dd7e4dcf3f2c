/* The backup driver that keeps chunks and manifests in folders; doc/backup-store.md. */
#pragma once

#include "control/driver/backup.h"

/* dir: the default target, made (0700) when it is first used.  NULL only without memory. */
struct backup_service *backup_files_new(const char *dir);
/* With fault points before and behind each operation, for a process that is armed; it takes `to`
 * over.  Without memory: `to` itself. */
struct backup_service *backup_faulty(struct backup_service *to);
