/* What an image is, from its bytes alone.
 *
 * Purpose: the first look at an upload.  Bounded reads and bounded memory, no tool and no guess of
 * a tool: only what passes here is shown to qemu-img, with the format spelled out. */
#pragma once

#include "backend/image/input.h"
#include "control/driver/image.h"

struct image_header {
        enum image_format format;
        uint64_t virtual_size; /* bytes */
        uint64_t chs_size;     /* VHD: the other size that a reader may believe in; 0 if none */
};

/* hint and max_virtual as in image_service_ops.inspect; max_virtual 0 means no limit.
 * -EINVAL with words for all that is refused, -errno of a read, -ENOMEM. */
int image_detect(const struct image_input *in, const char *hint, uint64_t max_virtual,
                 struct image_header *ret, struct err **e);

/* The formats' parsers: the caller has seen the magic.  Each checks that the image stands alone
 * and is whole: every cluster that it refers to lies inside the file. */
int qcow2_parse(const struct image_input *in, struct image_header *ret, struct err **e);
int vmdk_parse(const struct image_input *in, struct image_header *ret, struct err **e);
int vdi_parse(const struct image_input *in, struct image_header *ret, struct err **e);
int vhd_parse(const struct image_input *in, struct image_header *ret, struct err **e);
int iso_parse(const struct image_input *in, struct image_header *ret, struct err **e);
int kernel_parse(const struct image_input *in, struct image_header *ret, struct err **e);

/* MBR and GPT of a raw disk: *ret_found says whether there is a table.  -EINVAL when it goes past
 * the end of the disk. */
int partitions_check(const struct image_input *in, bool *ret_found, struct err **e);
/* A file system that fills the image: its name ("ext4"), NULL if none.  -EINVAL when it is cut. */
int filesystem_check(const struct image_input *in, const char **ret_name, struct err **e);
