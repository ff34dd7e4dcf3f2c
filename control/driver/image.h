/* Image files: the uploaded bytes, what they are, and the raw view made from them.
 * Driver: backend/image (files in a folder; qemu-img as a confined child).
 *
 * An image has an id; its uploaded bytes are one blob.  blob calls may come from FUSE threads:
 * they touch the page cache of a local file and nothing slower.  The rest blocks and is made on
 * job workers. */
#pragma once

#include <stdbool.h>
#include <stdint.h>
#include "common/err.h"

enum image_format {
        IMAGE_UNKNOWN, IMAGE_RAW, IMAGE_QCOW2, IMAGE_VMDK, IMAGE_VDI, IMAGE_VHD, IMAGE_ISO,
        IMAGE_AKI, IMAGE_ARI, IMAGE_AMI,
        IMAGE_TAR, /* a tree that containers have their roots of; also compressed */
};
const char *image_format_name(enum image_format f);      /* "qcow2" */
enum image_format image_format_parse(const char *name);  /* IMAGE_UNKNOWN if none */
/* Whether a volume can be cloned from it (all but aki, ari, tar). */
bool image_format_bootable(enum image_format f);

struct image_facts {
        enum image_format format; /* from the content */
        uint64_t virtual_size;    /* bytes of the raw view */
        uint64_t file_size;       /* bytes uploaded */
};

struct image_progress {
        /* done of total bytes; a negative return cancels and is returned.  NULL: nobody asks. */
        int (*report)(void *arg, uint64_t done, uint64_t total);
        void *arg;
};

struct image_blob; /* an open upload or reader */

struct image_service;
struct image_service_ops {
        const char *name;
        /* The uploaded bytes.  create: make it empty (exists is success, and empties it).
         * open: -ENOENT if there is none.  All I/O is whole or -errno; pread returns the count,
         * short only at the end.  seek is lseek's SEEK_DATA/SEEK_HOLE, -ENXIO past the end. */
        int (*create)(struct image_service *s, const char *id, struct err **e);
        int (*open)(struct image_service *s, const char *id, bool writable,
                    struct image_blob **ret, struct err **e);
        int64_t (*pread)(struct image_blob *b, void *p, size_t n, uint64_t off);
        int (*pwrite)(struct image_blob *b, const void *p, size_t n, uint64_t off);
        int (*truncate)(struct image_blob *b, uint64_t size);
        int64_t (*seek)(struct image_blob *b, uint64_t off, int whence);
        int64_t (*size)(struct image_blob *b);
        int (*sync)(struct image_blob *b);
        void (*close)(struct image_blob *b);

        /* Looks at the bytes and decides what they are.  hint: the file name's extension without
         * the dot, or the format the user declared, or NULL; only a hint, but a hint that the
         * content contradicts (a text file named .qcow2) is -EINVAL.  -EINVAL with words for what
         * must never reach a guest or a tool: a backing file, an external data file, an extent or
         * parent elsewhere, a virtual size over max_virtual or out of proportion, a truncated
         * file, a partition table past the end.  A refusal says which. */
        int (*inspect)(struct image_service *s, const char *id, const char *hint,
                       uint64_t max_virtual, struct image_facts *ret, struct err **e);
        /* Hex SHA-256 of the uploaded bytes. */
        int (*checksum)(struct image_service *s, const char *id, char ret[65],
                        const struct image_progress *p, struct err **e);
        /* Makes the raw view and gives its path (caller frees): for raw-like formats the upload
         * itself, else the file that the confined qemu-img wrote.  Repeatable. */
        int (*publish)(struct image_service *s, const char *id, const struct image_facts *f,
                       const struct image_progress *p, char **ret_path, struct err **e);
        /* Drops the raw view made by publish (the volume service holds its own name for it). */
        int (*unpublish)(struct image_service *s, const char *id, struct err **e);
        /* A path a hypervisor may read: kernels and ramdisks (aki, ari).  Caller frees. */
        int (*path)(struct image_service *s, const char *id, char **ret, struct err **e);
        /* Optional: unpacks an archive (a tar image, or a copy of one at path, if that is not NULL) into
         * dir, an empty folder, as a container's root: its users are base and the 65535 behind it.  max: bytes, 0: the driver's own limit.
         * -EINVAL with words for what leads out of dir, devices, what is too large.  Takes as long as
         * the bytes take. */
        int (*unpack)(struct image_service *s, const char *id, const char *path, const char *dir,
                      uint32_t base, uint64_t max, struct err **e);
        /* All files of the image.  Missing is success. */
        int (*remove)(struct image_service *s, const char *id, struct err **e);
        int (*list)(struct image_service *s, int (*each)(void *arg, const char *id), void *arg,
                    struct err **e);
        void (*close_service)(struct image_service *s);
};
struct image_service {
        const struct image_service_ops *ops;
};
