/* Families of encrypted volumes, for all hosts with this pool.
 *
 *   object "stratofs.crypt"            omap: <volume> -> <family>
 *   object "stratofs.crypt.<family>"   its header; omap: <volume> -> "1", and "seq", another number
 *                                      with each volume that joins
 *
 * The header goes with the last volume, guarded by seq: one that joins meanwhile keeps it. */
#include "backend/volume/rbd/rbd.h"

#include <inttypes.h>
#include <sys/random.h>

#include "common/macro.h"

enum { HEADER_MAX = 4 << 20, MEMBERS_MAX = 1000 };

static const char map[] = "stratofs.crypt", seq_key[] = "seq";

static void object_name(const char *family, char out[64])
{
        snprintf(out, 64, "%s.%s", map, family);
}

static int failed(int r, struct err **e)
{
        if (r == -ETIMEDOUT)
                return err_set(e, r, "the Ceph cluster does not answer (%d s)",
                               RBD_ANSWER_MS / 1000);
        return err_errno(e, r, "keys of volumes in Ceph");
}

static void op_set(rados_write_op_t op, const char *key, const char *value)
{
        const size_t klen = strlen(key), vlen = strlen(value);

        rados_write_op_omap_set2(op, &key, &value, &klen, &vlen, 1);
}

static void op_drop(rados_write_op_t op, const char *key)
{
        const size_t klen = strlen(key);

        rados_write_op_omap_rm_keys2(op, &key, &klen, 1);
}

int family_put(void *pool, const char *family, const void *header, size_t n, struct err **e)
{
        rados_write_op_t op = rados_create_write_op();
        char name[64];
        int r;

        object_name(family, name);
        rados_write_op_write_full(op, header, n);
        r = index_operate(pool, name, op, NULL);
        return r < 0 ? failed(r, e) : 0;
}

/* Counts its volumes, and gives seq. */
static int read_members(struct pool *p, const char *name, unsigned *ret_n, char seq[32])
{
        rados_read_op_t op = rados_create_read_op();
        rados_omap_iter_t it = NULL;
        unsigned char more = 0;
        int rv = 0, r;

        *ret_n = 0;
        *seq = '\0';
        rados_read_op_omap_get_vals2(op, "", "", MEMBERS_MAX, &it, &more, &rv);
        r = index_operate(p, name, NULL, op);
        r = r < 0 ? r : rv;
        while (r == 0 && it) {
                char *key = NULL, *val = NULL;
                size_t klen, vlen;

                rados_omap_get_next2(it, &key, &val, &klen, &vlen);
                if (!key)
                        break;
                if (klen == strlen(seq_key) && memcmp(key, seq_key, klen) == 0)
                        snprintf(seq, 32, "%.*s", (int)vlen, val);
                else
                        ++*ret_n;
        }
        if (it)
                rados_omap_get_end(it);
        return r;
}

int family_get(void *pool, const char *family, void **ret, size_t *ret_n, unsigned *ret_members,
               struct err **e)
{
        rados_read_op_t op = rados_create_read_op();
        _cleanup_free_ char *buf = malloc(HEADER_MAX);
        char name[64], seq[32];
        size_t got = 0;
        int rv = 0, r;

        if (!buf) {
                rados_release_read_op(op);
                return err_errno(e, -ENOMEM, "header");
        }
        object_name(family, name);
        rados_read_op_read(op, 0, HEADER_MAX, buf, &got, &rv);
        r = index_operate(pool, name, NULL, op);
        r = r < 0 ? r : rv;
        if (r == 0)
                r = read_members(pool, name, ret_members, seq);
        if (r < 0)
                return failed(r, e);
        *ret = TAKE_PTR(buf);
        *ret_n = got;
        return 0;
}

int family_join(void *pool, const char *family, const char *id, struct err **e)
{
        rados_write_op_t op = rados_create_write_op();
        char name[64], seq[32];
        uint64_t random = 0;
        int r;

        object_name(family, name);
        if (getrandom(&random, sizeof(random), 0) != sizeof(random)) {
                rados_release_write_op(op);
                return err_errno(e, -EIO, "random number");
        }
        snprintf(seq, sizeof(seq), "%016" PRIx64, random);
        rados_write_op_assert_exists(op);
        op_set(op, id, "1");
        op_set(op, seq_key, seq);
        r = index_operate(pool, name, op, NULL);
        if (r == 0) {
                op = rados_create_write_op();
                op_set(op, id, family);
                r = index_operate(pool, map, op, NULL);
        }
        return r < 0 ? failed(r, e) : 0;
}

static int drop_if_empty(struct pool *p, const char *name)
{
        rados_write_op_t op;
        char seq[32];
        unsigned n;
        int rv, r = read_members(p, name, &n, seq);

        if (r < 0 || n > 0)
                return r;
        op = rados_create_write_op();
        rados_write_op_omap_cmp2(op, seq_key, LIBRADOS_CMPXATTR_OP_EQ, seq, strlen(seq_key),
                                 strlen(seq), &rv);
        rados_write_op_remove(op);
        r = index_operate(p, name, op, NULL);
        return r == -ECANCELED ? 0 : r;
}

int family_leave(void *pool, const char *family, const char *id, struct err **e)
{
        rados_write_op_t op = rados_create_write_op();
        char name[64];
        int r;

        object_name(family, name);
        op_drop(op, id);
        r = index_operate(pool, map, op, NULL);
        if (r == 0 || r == -ENOENT) {
                op = rados_create_write_op();
                rados_write_op_assert_exists(op);
                op_drop(op, id);
                r = index_operate(pool, name, op, NULL);
        }
        if (r == 0)
                r = drop_if_empty(pool, name);
        return r < 0 && r != -ENOENT ? failed(r, e) : 0;
}

int family_of(void *pool, const char *id, char ret[VOLUME_ID_SIZE], struct err **e)
{
        const size_t n = strlen(id);
        rados_read_op_t op = rados_create_read_op();
        rados_omap_iter_t it = NULL;
        char *key = NULL, *val = NULL;
        size_t klen, vlen = 0;
        int rv = 0, r;

        rados_read_op_omap_get_vals_by_keys2(op, &id, 1, &n, &it, &rv);
        r = index_operate(pool, map, NULL, op);
        r = r < 0 ? r : rv;
        if (r == 0)
                rados_omap_get_next2(it, &key, &val, &klen, &vlen);
        if (r == 0)
                r = !key ? -ENOENT : vlen >= VOLUME_ID_SIZE ? -EUCLEAN : 0;
        if (r == 0)
                snprintf(ret, VOLUME_ID_SIZE, "%.*s", (int)vlen, val);
        if (it)
                rados_omap_get_end(it);
        if (r == -ENOENT)
                return r; /* a plain one: nobody wants words */
        return r < 0 ? failed(r, e) : 0;
}
