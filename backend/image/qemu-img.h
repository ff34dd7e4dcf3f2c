/* qemu-img, confined: a second opinion about an image, and its conversion to raw.
 *
 * The format is always spelled out, the file is the only one that the child may open, and the file
 * has passed image_detect() before. */
#pragma once

#include "backend/image/detect.h"

/* Compares `qemu-img info` (and for qcow2 `check`) of path with what our parser found; *h gets the
 * size that qemu-img will write.  -EINVAL with words when they differ, when another file is named
 * or the image is damaged; -ETIMEDOUT and other failures of the child as they are. */
int qemu_img_verify(const char *path, uint64_t file_size, struct image_header *h, struct err **e);

/* Writes the raw view of the image at from into the existing file to, which has been truncated to
 * h->virtual_size and holds only a hole.  -ENOSPC, -EINVAL for what qemu-img cannot read, or what
 * the report returned. */
int qemu_img_convert(const char *from, uint64_t file_size, const struct image_header *h,
                     const char *to, const struct image_progress *p, struct err **e);
