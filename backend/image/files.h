/* Inside of the driver: where the files are, and the calls that have files of their own. */
#pragma once

#include "backend/image/detect.h"

struct image_files {
        struct image_service service; /* first: the ops get this */
        char *dir;                    /* absolute */
        char *unpack;                 /* stratofs-unpack; NULL: not installed */
};
static inline struct image_files *image_files(struct image_service *s)
{
        return (struct image_files *)s;
}

/* DIR/ID, or DIR/ID/name when name is not NULL; the caller frees *ret.  -EINVAL when id is no
 * name, -ENOMEM. */
int image_path(struct image_files *f, const char *id, const char *name, char **ret, struct err **e);
/* Opens the upload; *ret_size may be NULL.  The caller closes *ret_fd.  -ENOENT if there is none.
 */
int image_upload_open(struct image_files *f, const char *id, int flags, int *ret_fd,
                      uint64_t *ret_size, struct err **e);
/* An image_input that preads *fd. */
struct image_input image_input_of(int *fd, uint64_t size);

int image_checksum(struct image_service *s, const char *id, char ret[65],
                   const struct image_progress *p, struct err **e);
int image_inspect(struct image_service *s, const char *id, const char *hint, uint64_t max_virtual,
                  struct image_facts *ret, struct err **e);
int image_publish(struct image_service *s, const char *id, const struct image_facts *facts,
                  const struct image_progress *p, char **ret_path, struct err **e);
int image_unpublish(struct image_service *s, const char *id, struct err **e);
