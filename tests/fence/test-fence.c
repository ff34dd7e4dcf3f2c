/* Fencing on a real cluster: a client that is barred writes no more, and no other is touched.  Run
 * by tests/ceph-run. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>
#include <rados/librados.h>
#include <stdlib.h>

#include "backend/fence/fence.h"
#include "common/fileio.h"

struct client {
        rados_t cluster;
        rados_ioctx_t io;
        char *address;
};

static void client_open(struct client *c)
{
        assert_int_equal(rados_create2(&c->cluster, "ceph", "client.admin", 0), 0);
        assert_int_equal(rados_conf_read_file(c->cluster, getenv("CEPH_CONF")), 0);
        assert_int_equal(rados_conf_set(c->cluster, "rados_osd_op_timeout", "30"), 0);
        assert_int_equal(rados_connect(c->cluster), 0);
        assert_int_equal(rados_ioctx_create(c->cluster, getenv("STRATOFS_POOL"), &c->io), 0);
        assert_int_equal(rados_getaddrs(c->cluster, &c->address), 0);
}

static void client_close(struct client *c)
{
        rados_buffer_free(c->address);
        rados_ioctx_destroy(c->io);
        rados_shutdown(c->cluster);
}

static int client_write(struct client *c)
{
        return rados_write_full(c->io, "object", "x", 1);
}

static void test_fence(void **state)
{
        char dir[] = "/tmp/test-fence-XXXXXX";
        struct fence_ceph_config cfg = {.conf = getenv("CEPH_CONF"), .state = dir};
        _cleanup_err_ struct err *e = NULL;
        _cleanup_free_ char *folder = NULL, *one = NULL, *two = NULL, *other = NULL,
                            *clients = NULL;
        struct host_fence *f;
        struct client dead, alive;

        assert_non_null(mkdtemp(dir));
        if (fence_ceph_open(&cfg, &f, &e) < 0)
                fail_msg("%s", err_msg(e));
        assert_int_equal(f->ops->clients(f, &clients, &e), 0); /* no blockd was ever there */
        assert_string_equal(clients, "");
        assert_int_equal(f->ops->fence(f, "h", 1, "", &e), 0);
        free(clients);

        client_open(&dead);
        client_open(&alive);
        folder = path_printf("%s/ceph", dir);
        one = path_printf("%s/1", folder);
        two = path_printf("%s/2", folder);
        assert_int_equal(mkdir_parents(folder, 0700, NULL), 0);
        assert_int_equal(file_replace(one, dead.address, strlen(dead.address), 0600, NULL), 0);
        assert_int_equal(file_replace(two, "not one; - x", 12, 0600, NULL), 0);
        assert_int_equal(f->ops->clients(f, &clients, &e), 0);
        assert_string_equal(clients, dead.address);
        /* As that of a pool which is not blockd's first. */
        free(clients);
        free(folder);
        folder = path_printf("%s/pools/rbd:p/ceph", dir);
        other = path_printf("%s/1", folder);
        assert_int_equal(unlink(one), 0);
        assert_int_equal(mkdir_parents(folder, 0700, NULL), 0);
        assert_int_equal(file_replace(other, dead.address, strlen(dead.address), 0600, NULL), 0);
        assert_int_equal(f->ops->clients(f, &clients, &e), 0);
        assert_string_equal(clients, dead.address);

        assert_int_equal(client_write(&dead), 0);
        if (f->ops->fence(f, "h", 1, clients, &e) < 0)
                fail_msg("%s", err_msg(e));
        assert_int_equal(rados_wait_for_latest_osdmap(alive.cluster), 0);
        assert_int_equal(client_write(&alive), 0); /* brings the map to the OSD */
        assert_int_equal(client_write(&dead), -ESHUTDOWN);
        assert_int_equal(client_write(&alive), 0);
        assert_int_equal(f->ops->fence(f, "h", 1, clients, &e), 0); /* repeatable */
        assert_int_equal(f->ops->fence(f, "h", 1, "nonsense", &e), -EINVAL);
        client_close(&dead);
        client_close(&alive);
        f->ops->close(f);
        assert_int_equal(remove_tree(dir, NULL), 0);
}

int main(void)
{
        const struct CMUnitTest tests[] = {cmocka_unit_test(test_fence)};

        return cmocka_run_group_tests(tests, NULL, NULL);
}
