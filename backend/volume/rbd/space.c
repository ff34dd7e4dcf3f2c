/* Namespaces of the pool that have images of ours, and the object that lists them. */
#include "backend/volume/rbd/rbd.h"

#include "common/log.h"

struct space {
        struct space *next;
        char name[RBD_SPACE_SIZE];
        rados_ioctx_t io, data;
};

static const char object[] = "stratofs.spaces";

/* With the lock. */
static struct space *find(struct pool *p, const char *name)
{
        struct space *s = p->spaces;

        while (s && !streq(s->name, name))
                s = s->next;
        return s;
}

static struct space *add(struct pool *p, const char *name)
{
        struct space *s = calloc(1, sizeof(*s));

        if (!s)
                return NULL;
        strcpy(s->name, name);
        if (rados_ioctx_create2(p->cluster, rados_ioctx_get_id(p->io), &s->io) < 0 ||
            rados_ioctx_create2(p->cluster, rados_ioctx_get_id(p->io), &s->data) < 0) {
                if (s->io)
                        rados_ioctx_destroy(s->io);
                free(s);
                return NULL;
        }
        rados_set_pool_full_try(s->io);
        rados_ioctx_set_namespace(s->io, streq(name, "/") ? "" : name);
        rados_ioctx_set_namespace(s->data, streq(name, "/") ? "" : name);
        s->next = p->spaces;
        p->spaces = s;
        return s;
}

int space_io(struct pool *p, const char *name, rados_ioctx_t *ret, rados_ioctx_t *ret_data,
             struct err **e)
{
        struct space *s;

        *ret = p->io;
        *ret_data = p->data;
        if (!name[0])
                return 0;
        WITH_LOCK(&p->lock);
        s = find(p, name);
        if (!s)
                s = add(p, name);
        if (!s)
                return err_errno(e, -ENOMEM, "namespace '%s'", name);
        *ret = s->io;
        *ret_data = s->data;
        return 0;
}

int space_list(struct pool *p, const char *name, struct err **e)
{
        rados_write_op_t op = rados_create_write_op();
        const size_t klen = strlen(name), vlen = 1;
        const char *value = "1";
        int r;

        rados_write_op_omap_set2(op, &name, &value, &klen, &vlen, 1);
        r = index_operate(p, object, op, NULL);
        return r < 0 ? err_errno(e, r, "list of namespaces in Ceph") : 0;
}

int space_make(struct pool *p, const char *tenant, char ret[RBD_SPACE_SIZE], struct err **e)
{
        rados_ioctx_t io, data;
        bool known;
        int r;

        if (!*tenant || strlen(tenant) > 64 || strpbrk(tenant, "/@"))
                return err_set(e, -EINVAL, "'%.64s' is no name of a namespace", tenant);
        snprintf(ret, RBD_SPACE_SIZE, "%s%s%s", p->base, p->base[0] ? "." : "", tenant);
        pthread_mutex_lock(&p->lock);
        known = find(p, ret);
        pthread_mutex_unlock(&p->lock);
        if (known)
                return 0;
        r = space_list(p, ret, e); /* first: what is not listed is not swept */
        if (r < 0)
                return r;
        r = rbd_namespace_create(p->io, ret);
        if (r < 0 && r != -EEXIST)
                return err_errno(e, r, "namespace '%s' of Ceph pool '%s'", ret, p->name);
        r = space_io(p, ret, &io, &data, e);
        if (r == 0)
                space_ready(io);
        return r;
}

/* librbd removes an image by way of its trash, whose directory it makes with the first: in a full
 * cluster it could not. */
void space_ready(rados_ioctx_t io)
{
        rados_write_op_t op = rados_create_write_op();

        rados_write_op_create(op, LIBRADOS_CREATE_IDEMPOTENT, NULL);
        rados_write_op_operate(op, io, "rbd_trash", NULL, 0);
        rados_release_write_op(op);
}

/* All that are listed, after it: 1 and the next one's name, 0: none. */
static int next(struct pool *p, char name[RBD_SPACE_SIZE])
{
        rados_read_op_t op = rados_create_read_op();
        rados_omap_iter_t it = NULL;
        char *key = NULL, *val = NULL;
        unsigned char more = 0;
        size_t klen, vlen;
        int rv = 0, r;

        rados_read_op_omap_get_vals2(op, name, "", 1, &it, &more, &rv);
        r = index_operate(p, object, NULL, op);
        r = r < 0 ? r : rv;
        if (r == 0)
                rados_omap_get_next2(it, &key, &val, &klen, &vlen);
        if (r == 0 && key && klen < RBD_SPACE_SIZE) {
                memcpy(name, key, klen);
                name[klen] = '\0';
                r = 1;
        }
        if (it)
                rados_omap_get_end(it);
        return r;
}

bool space_each(struct pool *p, bool (*each)(struct pool *p, rados_ioctx_t io))
{
        char name[RBD_SPACE_SIZE] = "";
        bool some = each(p, p->io);
        rados_ioctx_t io, data;

        while (!p->stop && next(p, name) > 0)
                if (space_io(p, name, &io, &data, NULL) == 0)
                        some |= each(p, io);
        return some;
}

void space_close(struct pool *p)
{
        struct space *s;

        while ((s = p->spaces)) {
                p->spaces = s->next;
                rados_ioctx_destroy(s->io);
                rados_ioctx_destroy(s->data);
                free(s);
        }
}
