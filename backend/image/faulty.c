/* The images behind fault points: see control/driver/faulty.h. */
#include "backend/image/image-files.h"

#include "control/driver/faulty.h"

struct faulty {
        struct image_service driver;
        struct image_service_ops ops;
        struct image_service *real;
};

static struct image_service *real(struct image_service *s)
{
        return ((struct faulty *)s)->real;
}

static int op_create(struct image_service *faulty, const char *id, struct err **e)
{
        FAULTY(faulty, "image", create, id, e);
}

static int op_open(struct image_service *faulty, const char *id, bool writable,
                   struct image_blob **ret, struct err **e)
{
        FAULTY_GET(faulty, "image", open, id, writable, ret, e);
}

static int op_inspect(struct image_service *faulty, const char *id, const char *hint,
                      uint64_t max_virtual, struct image_facts *ret, struct err **e)
{
        FAULTY_GET(faulty, "image", inspect, id, hint, max_virtual, ret, e);
}

static int op_checksum(struct image_service *faulty, const char *id, char ret[65],
                       const struct image_progress *p, struct err **e)
{
        FAULTY_GET(faulty, "image", checksum, id, ret, p, e);
}

static int op_publish(struct image_service *faulty, const char *id, const struct image_facts *f,
                      const struct image_progress *p, char **ret_path, struct err **e)
{
        FAULTY_GET(faulty, "image", publish, id, f, p, ret_path, e);
}

static int op_unpublish(struct image_service *faulty, const char *id, struct err **e)
{
        FAULTY(faulty, "image", unpublish, id, e);
}

static int op_path(struct image_service *faulty, const char *id, char **ret, struct err **e)
{
        FAULTY_GET(faulty, "image", path, id, ret, e);
}

static int op_unpack(struct image_service *faulty, const char *id, const char *path,
                     const char *dir, uint32_t base, uint64_t max, struct err **e)
{
        FAULTY(faulty, "image", unpack, id, path, dir, base, max, e);
}

static int op_remove(struct image_service *faulty, const char *id, struct err **e)
{
        FAULTY(faulty, "image", remove, id, e);
}

static int op_list(struct image_service *faulty, int (*each)(void *arg, const char *id), void *arg,
                   struct err **e)
{
        FAULTY_GET(faulty, "image", list, each, arg, e);
}

static void op_close_service(struct image_service *faulty)
{
        real(faulty)->ops->close_service(real(faulty));
        free(faulty);
}

struct image_service *image_faulty(struct image_service *to)
{
        struct faulty *f = calloc(1, sizeof(*f));

        if (!f)
                return to;
        f->driver.ops = &f->ops;
        f->ops = (struct image_service_ops){
                .name = to->ops->name, /* what is forgotten below is missing, not another driver's
                                        */
                .pread = to->ops->pread,
                .pwrite = to->ops->pwrite,
                .truncate = to->ops->truncate,
                .seek = to->ops->seek,
                .size = to->ops->size,
                .sync = to->ops->sync,
                .close = to->ops->close,
        };
        f->real = to;
        FAULTY_PUT(f, create);
        FAULTY_PUT(f, open);
        FAULTY_PUT(f, inspect);
        FAULTY_PUT(f, checksum);
        FAULTY_PUT(f, publish);
        FAULTY_PUT(f, unpublish);
        FAULTY_PUT(f, path);
        FAULTY_PUT(f, remove);
        FAULTY_PUT(f, list);
        FAULTY_PUT(f, unpack);
        f->ops.close_service = op_close_service;
        return &f->driver;
}
