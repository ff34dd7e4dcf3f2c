/* The board of an instance: what of a flavor goes together, what is plugged in and what comes back,
 * the password of its screen, its figures. */
#include "rig.h"

#include <sys/stat.h>

#include "control/hosts.h"
#include "control/kinds/instance.h"
#include "control/metrics-ring.h"
#include "control/metrics.h"

static uint64_t flavor(const char *name)
{
        uint64_t no;

        assert_int_equal(control_create(fake.c, &root, OBJECT_CLOUD, &kind_flavor, name, &no, NULL),
                         0);
        return no;
}

/* An image that is there, as if it had been uploaded. */
static uint64_t image(const char *name, const char *format)
{
        uint64_t no = make(&kind_image, name);
        struct object *o;
        struct txn t;

        txn_begin(&t, fake.c, NULL);
        o = model_by_no(fake.c, no);
        txn_set_str(&t, o, "format", format);
        txn_set_state(&t, o, IMAGE_ACTIVE);
        assert_int_equal(txn_commit(&t, NULL), 0);
        return no;
}

static uint64_t running(const char *name)
{
        uint64_t i = make(&kind_instance, name);

        volume("root");
        assert_int_equal(set(i, &kind_instance, "flavor", "board"), 0);
        assert_int_equal(link_to(i, &kind_instance, "volumes", "vda", "volumes/root"), 0);
        assert_int_equal(verb(i, "start"), 0);
        assert_int_equal(wait_for(i, "active"), 0);
        settle(i);
        return i;
}

/* What the drive of the instance is to hold, by the image's name, and the id of the link. */
static void cdrom(uint64_t i, char name[NAME_SIZE], char id[ID_TEXT_SIZE])
{
        struct link *l;

        control_rdlock(fake.c);
        l = object_link(model_by_no(fake.c, i), kind_link(&kind_instance, "cdrom"), NULL);
        snprintf(name, NAME_SIZE, "%s", l ? l->target->name : "");
        snprintf(id, ID_TEXT_SIZE, "%s", l ? l->id : "");
        control_unlock(fake.c);
}

static int eject(uint64_t i)
{
        return control_unlink(fake.c, &root, i, kind_link(&kind_instance, "cdrom"), "cdrom", NULL);
}

static void test_flavor(void **state)
{
        uint64_t f = flavor("board"), i = make(&kind_instance, "web");
        char text[NAME_SIZE];

        assert_int_equal(set(f, &kind_flavor, "vcpus", "6"), 0);
        assert_int_equal(set(f, &kind_flavor, "cores", "4"), 0);
        assert_int_equal(set(i, &kind_instance, "flavor", "board"), -EINVAL);
        assert_words("do not fill sockets of 4");
        assert_int_equal(set(f, &kind_flavor, "cores", "3"), 0);
        assert_int_equal(set(f, &kind_flavor, "threads", "2"), 0);
        assert_int_equal(set(f, &kind_flavor, "numa", "7"), 0);
        assert_int_equal(set(i, &kind_instance, "flavor", "board"), -EINVAL);
        assert_int_equal(set(f, &kind_flavor, "numa", "0"), 0);
        assert_int_equal(set(f, &kind_flavor, "memory_max", "64M"), 0);
        assert_int_equal(set(i, &kind_instance, "flavor", "board"), -EINVAL);
        assert_words("memory_max");
        assert_int_equal(set(f, &kind_flavor, "memory_max", "1G"), 0);
        assert_int_equal(set(f, &kind_flavor, "huge_pages", "2M"), 0);
        assert_int_equal(set(f, &kind_flavor, "cpu", "Nehalem"), 0);
        assert_int_equal(set(i, &kind_instance, "flavor", "board"), 0);
        control_rdlock(fake.c);
        assert_string_equal(object_str(model_by_no(fake.c, i), "hardware"),
                            "cores=3 threads=2 cpu=Nehalem huge_pages=2M");
        assert_true(instance_hardware(model_by_no(fake.c, i), "threads", text, sizeof(text)));
        assert_string_equal(text, "2");
        assert_false(instance_hardware(model_by_no(fake.c, i), "numa", text, sizeof(text)));
        assert_false(instance_hardware(model_by_no(fake.c, i), "hreads", text, sizeof(text)));
        control_unlock(fake.c);
        /* A change of the flavor touches no instance. */
        assert_int_equal(set(f, &kind_flavor, "cpu", ""), 0);
        control_rdlock(fake.c);
        assert_non_null(strstr(object_str(model_by_no(fake.c, i), "hardware"), "Nehalem"));
        control_unlock(fake.c);
        assert_int_equal(set(i, &kind_instance, "boot", "cdrom disk cdrom"), -EINVAL);
        assert_int_equal(set(i, &kind_instance, "boot", "tape"), -EINVAL);
        assert_int_equal(set(i, &kind_instance, "boot", "network  disk"), 0);
        assert_int_equal(set(i, &kind_instance, "watchdog", "explode"), -EINVAL);
}

static void test_memory(void **state)
{
        uint64_t f = flavor("board"), i;

        assert_int_equal(set(f, &kind_flavor, "memory_max", "1G"), 0);
        i = running("web");
        assert_int_equal(set(i, &kind_instance, "memory", "640M"), 0);
        settle(i);
        assert_int_equal(fake.memory, 640 << 20);
        assert_int_equal(used("memory "), 640 << 20);
        assert_int_equal(set(i, &kind_instance, "memory", "512M"), -EINVAL);
        assert_int_equal(set(i, &kind_instance, "memory", "700M"), -EINVAL);
        assert_words("pieces of 128M");
        assert_int_equal(set(i, &kind_instance, "memory", "2G"), -EINVAL);
        fake.memory_error = -EIO;
        assert_int_equal(set(i, &kind_instance, "memory", "768M"), 0);
        settle(i);
        assert_int_equal(stored(i, "memory"), 640 << 20);
        assert_int_equal(quota(fake.owner, "memory limit=700M"), 0);
        assert_int_equal(set(i, &kind_instance, "memory", "768M"), -EDQUOT);
}

static void host_has_only(uint64_t memory, uint64_t cpus)
{
        struct object *o;
        struct txn t;

        txn_begin(&t, fake.c, NULL);
        o = host_find(fake.c, fake.c->cfg.host);
        txn_set_num(&t, o, "memory", memory);
        txn_set_num(&t, o, "memory_percent", 100);
        txn_set_num(&t, o, "cpus", cpus);
        txn_set_num(&t, o, "vcpus_percent", 100);
        assert_int_equal(txn_commit(&t, NULL), 0);
}

/* Growth that the host has no room for is refused before anything is done. */
static void test_room(void **state)
{
        uint64_t f = flavor("board"), large = flavor("broad"), i;

        assert_int_equal(set(f, &kind_flavor, "memory_max", "4G"), 0);
        assert_int_equal(set(f, &kind_flavor, "vcpus_max", "4"), 0);
        assert_int_equal(set(large, &kind_flavor, "memory", "2G"), 0);
        i = running("web");
        host_has_only(1 << 30, 2);
        assert_int_equal(set(i, &kind_instance, "memory", "1536M"), -ENOSPC);
        assert_words("has no room for it: memory: 1G more wanted, 512M left");
        assert_int_equal(stored(i, "memory"), 512 << 20);
        assert_int_equal(set(i, &kind_instance, "vcpus", "4"), -ENOSPC);
        assert_words("has no room for it: vcpus: 3 more wanted, 1 left");
        assert_int_equal(verb(i, "resize broad"), -ENOSPC);
        assert_words("no host may have it");
        assert_string_equal(state_of(i), "active");
        assert_int_equal(stored(i, "memory"), 512 << 20);
        assert_int_equal(set(i, &kind_instance, "memory", "1G"), 0);
        settle(i);
        assert_int_equal(stored(i, "memory"), 1 << 30);
        assert_true(host_sums_right(fake.c));
        assert_int_equal(set(i, &kind_instance, "memory", "1152M"), -ENOSPC);
        host_has_only(2ULL << 30, 2);
        assert_int_equal(set(i, &kind_instance, "memory", "1152M"), 0);
        settle(i);
}

static void test_cdrom(void **state)
{
        char name[NAME_SIZE], id[ID_TEXT_SIZE], before[ID_TEXT_SIZE];
        uint64_t i;

        flavor("board");
        image("one", "iso");
        image("two", "iso");
        image("disk", "raw");
        i = running("web");
        assert_string_equal(fake.cd, "");
        assert_int_equal(link_to(i, &kind_instance, "cdrom", "cdrom", "images/disk"), -EINVAL);
        assert_words("cdrom takes an iso");
        assert_int_equal(link_to(i, &kind_instance, "cdrom", "cdrom", "images/one"), 0);
        settle(i);
        assert_string_not_equal(fake.cd, "");
        cdrom(i, name, before);
        /* The guest keeps its drive shut: the link is back, and it is the same one. */
        fake.media_error = -EBUSY;
        assert_int_equal(eject(i), 0);
        settle(i);
        cdrom(i, name, id);
        assert_string_equal(name, "one");
        assert_string_equal(id, before);
        assert_int_equal(control_relink(fake.c, &root, i, kind_link(&kind_instance, "cdrom"),
                                        "cdrom", "images/two", NULL),
                         0);
        settle(i);
        cdrom(i, name, id);
        assert_string_equal(name, "one");
        assert_string_equal(id, before);
        /* It does not any more. */
        fake.media_error = 0;
        assert_int_equal(control_relink(fake.c, &root, i, kind_link(&kind_instance, "cdrom"),
                                        "cdrom", "images/two", NULL),
                         0);
        settle(i);
        cdrom(i, name, id);
        assert_string_equal(name, "two");
        assert_int_equal(eject(i), 0);
        settle(i);
        assert_string_equal(fake.cd, "");
        cdrom(i, name, id);
        assert_string_equal(name, "");
}

static void shown_vnc(uint64_t i, struct buf *out)
{
        buf_clear(out);
        control_rdlock(fake.c);
        instance_render_vnc(fake.c, model_by_no(fake.c, i), out);
        control_unlock(fake.c);
}

static void test_screen(void **state)
{
        _cleanup_buf_ struct buf b = {};
        uint64_t i;

        flavor("board");
        i = running("web");
        assert_int_equal(verb(i, "vnc"), -EINVAL);
        assert_int_equal(verb(i, "stop now"), 0);
        assert_int_equal(wait_for(i, "stopped"), 0);
        assert_int_equal(set(i, &kind_instance, "screen", "vnc"), 0);
        assert_int_equal(verb(i, "start"), 0);
        assert_int_equal(wait_for(i, "active"), 0);
        assert_int_equal(verb(i, "vnc 0"), -EINVAL);
        assert_int_equal(verb(i, "vnc 100000"), -EINVAL);
        fake.screen_error = -EIO;
        assert_int_equal(verb(i, "vnc"), 0);
        settle(i);
        shown_vnc(i, &b);
        assert_null(strstr(buf_str(&b), "password"));
        fake.screen_error = 0;
        assert_int_equal(verb(i, "vnc 60"), 0);
        settle(i);
        shown_vnc(i, &b);
        assert_int_equal(strlen(fake.told), 8);
        assert_non_null(strstr(buf_str(&b), fake.told));
        /* Another QEMU does not know it. */
        assert_int_equal(verb(i, "stop now"), 0);
        assert_int_equal(wait_for(i, "stopped"), 0);
        assert_int_equal(verb(i, "start"), 0);
        assert_int_equal(wait_for(i, "active"), 0);
        shown_vnc(i, &b);
        assert_null(strstr(buf_str(&b), "password"));
}

/* A guest gives a disk up after its detach has failed: the link that was back goes. */
static void test_left(void **state)
{
        uint64_t i, v;
        char id[ID_TEXT_SIZE];

        flavor("board");
        i = running("web");
        v = volume("more");
        assert_int_equal(link_to(i, &kind_instance, "volumes", "vdb", "volumes/more"), 0);
        assert_int_equal(wait_for(v, "in-use"), 0);
        settle(i);
        fake.detach_error = -ETIMEDOUT;
        assert_int_equal(control_unlink(fake.c, &root, i, 0, "vdb", NULL), 0);
        settle(i);
        assert_int_equal(wait_for(v, "in-use"), 0);
        fake.detach_error = 0;
        control_rdlock(fake.c);
        id_text(id, model_by_no(fake.c, i)->id);
        assert_non_null(object_link(model_by_no(fake.c, i), 0, "vdb"));
        control_unlock(fake.c);
        control_guest_left(fake.c, id, "vdc");
        control_guest_left(fake.c, id, "vdb");
        assert_int_equal(wait_for(v, "available"), 0);
        control_rdlock(fake.c);
        assert_null(object_link(model_by_no(fake.c, i), 0, "vdb"));
        assert_non_null(object_link(model_by_no(fake.c, i), 0, "vda"));
        control_unlock(fake.c);
}

static void test_user_data(void **state)
{
        uint64_t i = make(&kind_instance, "web"), v = make(&kind_volume, "v");
        _cleanup_free_ char *text = calloc(1, 65 << 10);

        memset(text, 'x', 64 << 10);
        assert_int_equal(control_set_meta(fake.c, &root, i, "user_data", text, 64 << 10, NULL), 0);
        assert_int_equal(
                control_set_meta(fake.c, &root, i, "user_data", text, (64 << 10) + 1, NULL),
                -EFBIG);
        assert_int_equal(control_set_meta(fake.c, &root, i, "other", text, 4097, NULL), -EFBIG);
        assert_int_equal(control_set_meta(fake.c, &root, v, "user_data", text, 4097, NULL), -EFBIG);
        assert_int_equal(set(i, &kind_instance, "extra.xml", "<domain>\n</domain>"), 0);
        assert_int_equal(set(i, &kind_instance, "description", "a\nb"), -EINVAL);
}

struct rows {
        unsigned n;
        int64_t first, last;
};

static void count(void *arg, const struct sample *s)
{
        struct rows *r = arg;

        if (!r->n++)
                r->first = s->at;
        assert_true(s->at > r->last);
        assert_int_equal(s->v[GUEST_CPU], (uint64_t)s->at / 2);
        r->last = s->at;
}

/* Fixed in size, oldest first, over a close and a foreign content. */
static void test_ring(void **state)
{
        _cleanup_free_ char *path = path_printf("%s/ring", fake.c->cfg.state);
        struct ring_file *f = ring_open(path, false);
        struct rows hour = {}, day = {};
        const int64_t step = 10000000;
        struct stat st;

        assert_null(f);
        f = ring_open(path, true);
        assert_non_null(f);
        for (int64_t i = 1; i <= 1000; i++) {
                struct sample s = {.at = i * step};

                s.v[GUEST_CPU] = s.at / 2;
                ring_write(f, &s);
                if (i == 500) {
                        ring_close(f);
                        f = ring_open(path, false);
                        assert_non_null(f);
                }
        }
        ring_read(f, RING_HOUR, count, &hour);
        assert_int_equal(hour.n, HOUR_SAMPLES);
        assert_int_equal(hour.first, (1000 - HOUR_SAMPLES + 1) * step);
        assert_int_equal(hour.last, 1000 * step);
        ring_read(f, RING_DAY, count, &day);
        assert_int_equal(day.n, 34);
        ring_close(f);
        assert_int_equal(stat(path, &st), 0);
        assert_true(st.st_size < 100 << 10);
        assert_int_equal(file_replace(path, "foreign", 7, 0600, NULL), 0);
        assert_null(ring_open(path, false));
        f = ring_open(path, true);
        hour = (struct rows){};
        ring_read(f, RING_HOUR, count, &hour);
        assert_int_equal(hour.n, 0);
        ring_close(f);
}

static void metric(uint64_t i, size_t which, struct buf *out)
{
        buf_clear(out);
        control_rdlock(fake.c);
        metrics_render(fake.c, model_by_no(fake.c, i), which, out);
        control_unlock(fake.c);
}

static void test_metrics(void **state)
{
        _cleanup_buf_ struct buf b = {};
        int64_t until = clock_mono() + 10000000;
        uint64_t i;

        flavor("board");
        i = running("web");
        while (!b.len && clock_mono() < until) { /* fetched as it starts, and at the next tick */
                metric(i, METRICS_CPU, &b);
                usleep(20000);
        }
        assert_string_equal(buf_str(&b), "cpu_nsec 1234\nvcpus 2\n");
        metric(i, METRICS_DISK, &b);
        assert_string_equal(buf_str(&b), "vda rd_ops=1 rd_bytes=0 wr_ops=0 wr_bytes=0 flushes=0\n");
        metric(i, METRICS_HOUR, &b);
        assert_non_null(strstr(buf_str(&b), "time cpu_nsec vcpus"));
        assert_non_null(strstr(buf_str(&b), "Z 1234 2 "));
        assert_int_equal(verb(i, "stop now"), 0);
        assert_int_equal(wait_for(i, "stopped"), 0);
        metric(i, METRICS_CPU, &b);
        assert_int_equal(b.len, 0);
}

int main(void)
{
        const struct CMUnitTest tests[] = {
                RIG_TEST(test_flavor),    RIG_TEST(test_memory), RIG_TEST(test_room),
                RIG_TEST(test_cdrom),     RIG_TEST(test_screen), RIG_TEST(test_left),
                RIG_TEST(test_user_data), RIG_TEST(test_ring),   RIG_TEST(test_metrics),
        };

        return rig_run(tests);
}
