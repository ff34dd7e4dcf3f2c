/* The image driver that keeps files in a folder: DIR/ID/upload are the uploaded bytes, DIR/ID/raw
 * is the raw view of a converted image.
 *
 * Nothing in it trusts an upload: our own bounded parsers see the file first (detect.h), qemu-img
 * sees it second, confined (qemu-img.h), and a guest sees only the raw view. */
#pragma once

#include "control/driver/image.h"

/* Opens (making it if need be, 0711) the folder dir.  The caller ends it with ops->close_service().
 * Calls about different images may run at once; publish, unpublish, create and remove of one image
 * are the caller's to serialise.  -errno of the folder, -ENOMEM. */
int image_files_open(const char *dir, struct image_service **ret, struct err **e);
/* Where stratofs-unpack is, which reads tar archives; NULL, and before: such images are refused, by
 * -ENOTSUP.  Before any other call.  Copied. */
void image_files_unpacker(struct image_service *s, const char *program);
/* With fault points before and behind each operation, for a process that is armed; it takes `to`
 * over.  Without memory: `to` itself. */
struct image_service *image_faulty(struct image_service *to);
