/* What the daemon and stratofs-watch, its helper for inotify, agree on.  See fs/watch.c. */
#pragma once

enum { WATCHED_MAX = 4096 }; /* inodes of the mount that are watched; more are not told */
