/* Trees: tar archives that containers have their roots of.
 *
 * Purpose: what runs stratofs-unpack (unpack-main.c), the one program that reads such archives. */
#pragma once

#include "backend/image/files.h"

/* Users that a container has, from 0 on. */
enum { UNPACK_IDS = 65536 };

/* Whether the upload is an archive that may be unpacked, compressed or not.  0 with the bytes it
 * unpacks to; 1: it is no archive; -EINVAL with words for one that is refused; -ENOTSUP: there is
 * no such program here.  Reads all of it: blocks. */
int unpack_check(struct image_files *f, const char *path, uint64_t file_size, uint64_t *ret_bytes,
                 struct err **e);
/* image_service_ops.unpack */
int image_unpack(struct image_service *s, const char *id, const char *path, const char *dir,
                 uint32_t base, uint64_t max, struct err **e);
/* detect.c's look: whether the first block is a tar header of an image that could be a tree;
 * -EINVAL with words when it is none, or an OVA. */
int tar_parse(const struct image_input *in, struct image_header *ret, struct err **e);
