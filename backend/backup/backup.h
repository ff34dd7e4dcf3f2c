/* The backup driver that keeps chunks and manifests in folders; doc/backup-store.md. */
#pragma once

#include "control/driver/backup.h"

/* dir: the default target, made (0700) when it is first used.  NULL only without memory. */
struct backup_service *backup_files_new(const char *dir);
