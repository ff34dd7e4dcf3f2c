/* Whole-file and whole-buffer I/O. */
#pragma once

#include <stdint.h>
#include <sys/types.h>
#include "common/err.h"

/* Loop over short counts and EINTR.  0 or -errno; a read that meets the end is -ENODATA. */
int read_full(int fd, void *p, size_t n);
int write_full(int fd, const void *p, size_t n);
int pread_full(int fd, void *p, size_t n, uint64_t off);
int pwrite_full(int fd, const void *p, size_t n, uint64_t off);

/* The file's bytes, NUL-terminated, at most max; *ret_len may be NULL.  The caller frees *ret. */
int file_read(const char *path, size_t max, char **ret, size_t *ret_len, struct err **e);

/* Opens a file that somebody named, following no link; "/proc/self/fd/N" is a copy of our own
 * descriptor N, whatever it may read.  The descriptor or -errno. */
int file_open_named(const char *path, int flags);

/* Replaces path by n bytes so that after a crash it is the old or the new file, durable on return:
 * temporary beside it, fsync, rename, fsync of the folder. */
int file_replace(const char *path, const void *p, size_t n, mode_t mode, struct err **e);

/* mkdir -p with that mode for what is made.  An existing folder is fine. */
int mkdir_parents(const char *path, mode_t mode, struct err **e);
/* rm -rf below and including path, not following links, not crossing mounts.  Missing is fine.  Who
 * owns folders in it may move and replace them meanwhile: nothing outside is touched.  -ENOTEMPTY:
 * it is deeper than 64 folders, and the deepest stay. */
int remove_tree(const char *path, struct err **e);
/* fsync of the folder that holds path's last component. */
int fsync_parent(const char *path);

/* Copies the file from to to (replaced), owned by uid:gid (-1 leaves it) with that mode. */
int file_copy(const char *from, const char *to, uid_t uid, gid_t gid, mode_t mode, struct err **e);

/* A path of formatted parts; the caller frees.  NULL only without memory. */
char *path_printf(const char *fmt, ...) _printf_(1, 2);
