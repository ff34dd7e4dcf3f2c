/* What encryption keeps where all hosts see it: object "stratofs.crypt" has in its omap each
 * encrypted volume's family ("v.VOLUME") and each family's members ("f.FAMILY.VOLUME"); object
 * "stratofs.crypt.FAMILY" is that family's LUKS2 header, its key wrapped by a passphrase. */
#include "backend/volume/rbd/rbd.h"

enum { HEADER_MAX = 4 << 20, MEMBERS = 1000 };

static const char object[] = "stratofs.crypt";

static int failed(int r, struct err **e)
{
        if (r == -ETIMEDOUT)
                return err_set(e, r, "the Ceph cluster does not answer");
        return err_errno(e, r, "keys of encrypted volumes in Ceph");
}

int secrets_header_put(void *pool, const char *family, const void *p, size_t n, struct err **e)
{
        rados_write_op_t op = rados_create_write_op();
        char name[sizeof(object) + VOLUME_ID_SIZE];
        int r;

        snprintf(name, sizeof(name), "%s.%s", object, family);
        if (p)
                rados_write_op_write_full(op, p, n);
        else
                rados_write_op_remove(op);
        r = index_operate(pool, name, op, NULL);
        return r < 0 && !(r == -ENOENT && !p) ? failed(r, e) : 0;
}

int secrets_header_get(void *pool, const char *family, void **ret, size_t *ret_n, struct err **e)
{
        rados_read_op_t op = rados_create_read_op();
        char name[sizeof(object) + VOLUME_ID_SIZE];
        char *p = malloc(HEADER_MAX);
        int rv = 0, r;

        if (!p) {
                rados_release_read_op(op);
                return err_errno(e, -ENOMEM, "header");
        }
        snprintf(name, sizeof(name), "%s.%s", object, family);
        rados_read_op_read(op, 0, HEADER_MAX, p, ret_n, &rv);
        r = index_operate(pool, name, NULL, op);
        r = r < 0 ? r : rv;
        if (r < 0)
                free(p);
        else
                *ret = p;
        return r < 0 ? failed(r, e) : 0;
}

int secrets_member_put(void *pool, const char *id, const char *family, bool in, struct err **e)
{
        rados_write_op_t op = rados_create_write_op();
        char v[2 + VOLUME_ID_SIZE], f[3 + 2 * VOLUME_ID_SIZE];
        const char *keys[] = {v, f}, *values[] = {family, "1"};
        const size_t klens[] = {(size_t)snprintf(v, sizeof(v), "v.%s", id),
                                (size_t)snprintf(f, sizeof(f), "f.%s.%s", family, id)};
        const size_t vlens[] = {strlen(family), 1};
        int r;

        if (in)
                rados_write_op_omap_set2(op, keys, values, klens, vlens, 2);
        else
                rados_write_op_omap_rm_keys2(op, keys, klens, 2);
        r = index_operate(pool, object, op, NULL);
        return r < 0 && !(r == -ENOENT && !in) ? failed(r, e) : 0;
}

int secrets_member_get(void *pool, const char *id, char ret[VOLUME_ID_SIZE], struct err **e)
{
        rados_read_op_t op = rados_create_read_op();
        rados_omap_iter_t it = NULL;
        char *key = NULL, *val = NULL, v[2 + VOLUME_ID_SIZE];
        const size_t klen = (size_t)snprintf(v, sizeof(v), "v.%s", id);
        const char *keys[] = {v};
        size_t n, vlen = 0;
        int rv = 0, r;

        rados_read_op_omap_get_vals_by_keys2(op, keys, 1, &klen, &it, &rv);
        r = index_operate(pool, object, NULL, op);
        r = r < 0 ? r : rv;
        if (r == 0)
                rados_omap_get_next2(it, &key, &val, &n, &vlen);
        if (r == 0 && key && vlen == VOLUME_ID_SIZE - 1) {
                memcpy(ret, val, vlen);
                ret[vlen] = '\0';
                r = 1;
        }
        if (it)
                rados_omap_get_end(it);
        return r == -ENOENT ? 0 : r < 0 ? failed(r, e) : r;
}

int secrets_member_count(void *pool, const char *family, struct err **e)
{
        rados_read_op_t op = rados_create_read_op();
        rados_omap_iter_t it = NULL;
        char prefix[3 + VOLUME_ID_SIZE];
        unsigned char more = 0;
        int rv = 0, n, r;

        snprintf(prefix, sizeof(prefix), "f.%s.", family);
        rados_read_op_omap_get_vals2(op, "", prefix, MEMBERS, &it, &more, &rv);
        r = index_operate(pool, object, NULL, op);
        r = r < 0 ? r : rv;
        n = r == 0 ? (int)rados_omap_iter_size(it) : 0;
        if (it)
                rados_omap_get_end(it);
        return r == -ENOENT ? 0 : r < 0 ? failed(r, e) : n;
}
