/* The connection: one, with the host's key. */
#include "backend/volume/rbd/rbd.h"

#include <malloc.h>

#include "common/fileio.h"

struct target {
        char pool[RBD_NAME_SIZE], space[RBD_NAME_SIZE], conf[4096], user[RBD_NAME_SIZE];
};

static int take(char *out, size_t size, const char *p, size_t n)
{
        if (n == 0 || n >= size)
                return -EINVAL;
        memcpy(out, p, n);
        out[n] = '\0';
        return 0;
}

static int parse(const char *text, struct target *ret, struct err **e)
{
        size_t n = strcspn(text, ",/");
        int r = take(ret->pool, sizeof(ret->pool), text, n);

        text += n;
        if (r == 0 && *text == '/') {
                n = strcspn(++text, ",");
                r = take(ret->space, sizeof(ret->space), text, n);
                text += n;
        }
        while (r == 0 && *text == ',') {
                n = strcspn(++text, ",");
                if (strncmp(text, "conf=", 5) == 0)
                        r = take(ret->conf, sizeof(ret->conf), text + 5, n - 5);
                else if (strncmp(text, "id=", 3) == 0)
                        r = take(ret->user, sizeof(ret->user), text + 3, n - 3);
                else
                        r = -EINVAL;
                text += n;
        }
        if (r == 0)
                return 0;
        err_set(e, r, "'%s' names no Ceph pool", text);
        err_hint(e, r, "POOL[/NAMESPACE][,conf=FILE][,id=USER]");
        return r;
}

/* Before connecting: nothing of what asks a monitor waits for ever.  I/O does: a guest's write that
 * was given up could still land later. */
static int configure(struct pool *p, const struct target *t, struct err **e)
{
        static const struct {
                const char *name, *value;
        } settings[] = {
                {"client_mount_timeout", "10"},
                {"rados_mon_op_timeout", "30"},
                {"rbd_cache", "false"},
                /* What is written stays where it is until it is answered. */
                {"rbd_disable_zero_copy_writes", "false"},
                /* Neighbouring writes are as they came: none waits for another to be joined to. */
                {"rbd_io_scheduler", "none"},
                /* Who asks for I/O begins it: no other thread between. */
                {"rbd_non_blocking_aio", "false"},
                /* With two, 16.2 may end badly when an image is closed soon after it was opened:
                 * the thread that told of the opening has still to take a lock of the image's. */
                {"librados_thread_count", "1"},
                /* Trimmed blocks read as zeros, as small as ours are. */
                {"rbd_skip_partial_discard", "false"},
                {"rbd_discard_granularity_bytes", "4096"},
                {"rbd_default_format", "2"},
                {"rbd_validate_pool", "false"}, /* costs a snapshot's round of the monitors */
                {"log_to_stderr", "false"},
                {"err_to_stderr", "false"},
        };
        int r = rados_conf_read_file(p->cluster, t->conf[0] ? t->conf : NULL);

        if (r < 0)
                return err_errno(e, r, "Ceph's configuration%s%s%s", t->conf[0] ? " '" : "",
                                 t->conf, t->conf[0] ? "'" : " (CEPH_CONF, /etc/ceph/ceph.conf)");
        r = rados_conf_parse_env(p->cluster, NULL);
        for (size_t i = 0; i < ARRAY_SIZE(settings) && r == 0; i++)
                r = rados_conf_set(p->cluster, settings[i].name, settings[i].value);
        return r < 0 ? err_errno(e, r, "Ceph's configuration") : 0;
}

static int enter(struct pool *p, const struct target *t, struct err **e)
{
        bool there = true;
        int r = rados_connect(p->cluster);

        if (r < 0) {
                if (r == -EACCES || r == -EPERM || r == -ENOENT)
                        err_errno(e, r, "the Ceph cluster refuses the key of client.%s",
                                  t->user[0] ? t->user : "admin");
                else
                        err_errno(e, r, "no monitor of the Ceph cluster answers");
                err_hint(e, r, "see 'ceph -s', with the same configuration and key");
                return r;
        }
        p->connected = true;
        r = rados_ioctx_create(p->cluster, t->pool, &p->io);
        if (r == 0)
                r = rados_ioctx_create(p->cluster, t->pool, &p->data);
        if (r == -ENOENT) {
                err_set(e, r, "the Ceph cluster has no pool '%s'", t->pool);
                err_hint(e, r, "ceph osd pool create %s; rbd pool init %s", t->pool, t->pool);
        }
        if (r < 0)
                return r == -ENOENT ? r : err_errno(e, r, "Ceph pool '%s'", t->pool);
        rados_set_pool_full_try(p->io);
        strcpy(p->name, t->pool);
        strcpy(p->base, t->space);
        if (!t->space[0])
                return 0;
        rados_ioctx_set_namespace(p->io, t->space);
        rados_ioctx_set_namespace(p->data, t->space);
        r = rbd_namespace_exists(p->io, t->space, &there);
        if (r == 0 && !there)
                r = rbd_namespace_create(p->io, t->space);
        return r < 0 && r != -EEXIST ? err_errno(e, r, "namespace '%s'", t->space) : 0;
}

int cluster_open(struct pool *p, const char *target, struct err **e)
{
        struct target t = {};
        int r = parse(target, &t, e);

        if (r < 0)
                return r;
        /* Each large read comes in memory that librados allocates anew: from the kernel, page by
         * page, that costs more than the rest of the read. */
        mallopt(M_MMAP_THRESHOLD, 8 << 20);
        mallopt(M_TRIM_THRESHOLD, 64 << 20);
        r = rados_create(&p->cluster, t.user[0] ? t.user : NULL);
        if (r < 0)
                return err_errno(e, r, "Ceph");
        r = configure(p, &t, e);
        return r < 0 ? r : enter(p, &t, e);
}

void cluster_close(struct pool *p)
{
        if (p->io)
                rados_ioctx_destroy(p->io);
        if (p->data)
                rados_ioctx_destroy(p->data);
        if (p->cluster)
                rados_shutdown(p->cluster);
        p->io = p->data = NULL;
        p->cluster = NULL;
}
