/* The driver against the real thing: libvirt, QEMU, a Debian kernel, an NBD server.
 *
 * test-compute MODE [LIBVIRTD]: embed, session, or system, where LIBVIRTD is the pid file of a
 * libvirtd that the test may kill and start again.
 * test-compute holder, seating: embedded libvirt in a process that is killed.
 * test-compute hold DIR: that process: starts a guest in DIR, says so and waits to be killed.
 * test-compute reopen DIR: the same with the guest that is there. */
#include "rig.h"

#include <fcntl.h>
#include <poll.h>
#include <stdatomic.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <cmocka.h>

#include "common/clock.h"
#include "common/fileio.h"

/* The tests go over one guest's life, in order. */
struct life {
        struct rig *r;
        struct guest_disk root, more;
        struct guest g;
        pid_t root_server, more_server;
        size_t at;   /* how far its console was read */
        bool broken; /* a test ended half-way: the next ones have nothing to stand on */
};

static void ok(int r, struct err *e, const char *what)
{
        if (r < 0)
                fail_msg("%s: %d %s", what, r, err_msg(e));
}

#define OK(call)                                                                                   \
        do {                                                                                       \
                _cleanup_err_ struct err *e = NULL;                                                \
                int64_t t_ = clock_mono();                                                         \
                int r_ = (call);                                                                   \
                ok(r_, e, #call);                                                                  \
                printf("# %s: %d ms\n", #call, (int)((clock_mono() - t_) / 1000));                 \
        } while (0)

/* Fails with that code, and with words that contain these. */
#define FAILS(call, code, words)                                                                   \
        do {                                                                                       \
                _cleanup_err_ struct err *e = NULL;                                                \
                int r_ = (call);                                                                   \
                printf("# %s: %d %s\n", #call, r_, r_ < 0 ? err_msg(e) : "");                      \
                assert_int_equal(r_, code);                                                        \
                assert_non_null(strstr(err_msg(e), words));                                        \
        } while (0)

static void begin(struct life *l)
{
        if (l->broken)
                fail_msg("an earlier test failed");
        l->broken = true;
}

static const struct compute_ops *ops(struct life *l)
{
        return l->r->c->ops;
}

static void settle(struct life *l)
{
        ops(l)->settle(l->r->c, l->g.uuid, NULL);
}

static void is_state(struct life *l, enum guest_state want)
{
        enum guest_state s = GUEST_CRASHED;

        OK(ops(l)->state(l->r->c, l->g.uuid, &s, &e));
        assert_string_equal(guest_state_name(s), guest_state_name(want));
}

struct listing {
        const char *uuid;
        unsigned count;
        enum guest_state state;
};

static int note(void *arg, const char *uuid, enum guest_state s)
{
        struct listing *l = arg;

        if (streq(uuid, l->uuid)) {
                l->count++;
                l->state = s;
        }
        return 0;
}

static void is_listed(struct life *l, unsigned count)
{
        struct listing ls = {.uuid = l->g.uuid};

        OK(ops(l)->list(l->r->c, note, &ls, &e));
        assert_int_equal(ls.count, count);
        if (count)
                assert_int_equal(ls.state, GUEST_RUNNING);
}

static void boots(void **state)
{
        struct life *l = *state;
        struct guest_disk gone = rig_disk(l->r, "vda", "nobody", "x");
        struct guest bad = l->g;
        struct stat st;
        char path[64];

        begin(l);
        OK(ops(l)->warm(l->r->c, &e));
        bad.disks = &gone;
        FAILS(ops(l)->start(l->r->c, &bad, &e), -EIO, "No such file");
        is_state(l, GUEST_GONE);
        is_listed(l, 0);
        FAILS(ops(l)->pause(l->r->c, l->g.uuid, &e), -ENOENT, l->g.uuid);
        forget_events(l->r);

        OK(ops(l)->start(l->r->c, &l->g, &e));
        settle(l);
        expect_event(l->r, l->g.uuid, GUEST_RUNNING, GUEST_REASON_NONE);
        snprintf(path, sizeof(path), "/proc/%d", (int)qemu_pid(l->g.uuid));
        assert_int_equal(stat(path, &st), 0);
        if (l->g.uid != (uid_t)-1)
                assert_int_equal(st.st_uid, l->g.uid);
        is_state(l, GUEST_RUNNING);
        is_listed(l, 1);
        OK(ops(l)->start(l->r->c, &l->g, &e)); /* again: runs already */
        is_listed(l, 1);
        bad = l->g;
        bad.uuid[0] = '6';
        FAILS(ops(l)->start(l->r->c, &bad, &e), -EEXIST, l->g.name);
        l->at = expect_words(l->g.console_log, "GUEST-UP", l->at);
        l->at = expect_words(l->g.console_log, "DISKS vda=vol-root .", l->at);
        l->at = expect_words(l->g.console_log, "WROTE 1", l->at);
        l->broken = false;
}

static void console_speaks(void **state)
{
        struct life *l = *state;
        struct sockaddr_un sa = {.sun_family = AF_UNIX};
        _cleanup_close_ int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
        char c;

        begin(l);
        strncpy(sa.sun_path, l->g.console_sock, sizeof(sa.sun_path) - 1);
        assert_int_equal(connect(fd, (struct sockaddr *)&sa, sizeof(sa)), 0);
        assert_int_equal(read(fd, &c, 1), 1); /* the writer goes on talking */
        l->broken = false;
}

/* The guest has a channel, and nothing that listens there. */
static void has_no_agent(void **state)
{
        struct life *l = *state;

        begin(l);
        FAILS(ops(l)->freeze(l->r->c, l->g.uuid, &e), -ENOTCONN, "agent");
        FAILS(ops(l)->thaw(l->r->c, l->g.uuid, &e), -ENOTCONN, "agent");
        FAILS(ops(l)->freeze(l->r->c, "00000000-0000-4000-8000-000000000000", &e), -ENOENT,
              "no guest");
        is_state(l, GUEST_RUNNING);
        l->broken = false;
}

struct drain {
        int fd;
        atomic_bool asked, end;
};

static bool at_once(void *arg)
{
        struct drain *d = arg;

        atomic_store(&d->asked, true);
        return true;
}

/* QEMU can be told only while its writes get on. */
static void *drain_main(void *arg)
{
        struct drain *d = arg;
        char buf[65536];

        while (!atomic_load(&d->end)) {
                struct pollfd p = {.fd = d->fd, .events = POLLIN};
                bool slow = !atomic_load(&d->asked);

                if (poll(&p, 1, 20) > 0 && read(d->fd, buf, slow ? 4096 : sizeof(buf)) <= 0)
                        break;
                if (slow)
                        usleep(10000);
        }
        return NULL;
}

/* Written into a pipe that is emptied slowly it would last for minutes. */
static void save_is_cancelled(void **state)
{
        struct life *l = *state;
        const char *pipe_path = fmt("%s/memory", l->r->dir);
        struct drain d = {.fd = -1};
        const struct compute_watch w = {.cancelled = at_once, .arg = &d};
        pthread_t thread;

        begin(l);
        assert_int_equal(mkfifo(pipe_path, 0666), 0);
        d.fd = open(pipe_path, O_RDWR | O_NONBLOCK | O_CLOEXEC);
        assert_true(d.fd >= 0);
        assert_int_equal(pthread_create(&thread, NULL, drain_main, &d), 0);
        FAILS(ops(l)->save(l->r->c, l->g.uuid, pipe_path, &w, &e), -ECANCELED, "goes on");
        atomic_store(&d.end, true);
        pthread_join(thread, NULL);
        close(d.fd);
        is_state(l, GUEST_RUNNING);
        l->at = expect_words(l->g.console_log, "WROTE", file_size(l->g.console_log));
        l->broken = false;
}

struct figures {
        const char *uuid;
        unsigned guests;
        struct guest_stats stats;
};

static void note_figures(void *arg, const char *uuid, const struct guest_stats *s)
{
        struct figures *f = arg;

        f->guests++;
        if (streq(uuid, f->uuid))
                f->stats = *s;
}

static void has_figures(void **state)
{
        struct life *l = *state;
        struct figures f = {.uuid = l->g.uuid};

        begin(l);
        OK(ops(l)->stats(l->r->c, note_figures, &f, &e));
        assert_true(f.guests >= 1);
        assert_true(f.stats.all[GUEST_CPU] > 100000000);
        assert_true(f.stats.all[GUEST_VCPUS] == l->g.vcpus);
        assert_true(f.stats.all[GUEST_MEM_SIZE] == l->g.memory);
        assert_true(f.stats.all[GUEST_MEM_RSS] > 1 << 20);
        assert_true(f.stats.all[GUEST_WR_OPS] > 0);
        assert_string_equal(f.stats.disk[0].name, "vda");
        assert_true(f.stats.disk[0].wr_bytes >= 4096);
        l->broken = false;
}

static void hot_plugs(void **state)
{
        struct life *l = *state;
        struct guest_disk other = l->more;

        begin(l);
        other.export = "another";
        OK(ops(l)->attach(l->r->c, l->g.uuid, &l->more, &e));
        l->at = expect_words(l->g.console_log, "DISKS vda=vol-root vdb=vol-more .", l->at);
        OK(ops(l)->attach(l->r->c, l->g.uuid, &l->more, &e)); /* again: is there */
        FAILS(ops(l)->attach(l->r->c, l->g.uuid, &other, &e), -EEXIST, "vdb");
        OK(ops(l)->detach(l->r->c, l->g.uuid, "vdb", WAIT_MS, &e));
        l->at = expect_words(l->g.console_log, "DISKS vda=vol-root .", l->at);
        OK(ops(l)->detach(l->r->c, l->g.uuid, "vdb", WAIT_MS, &e)); /* again: is gone */
        strcpy(other.target, "vdc");
        other.socket = fmt("%s/disk/nobody.sock", l->r->dir);
        FAILS(ops(l)->attach(l->r->c, l->g.uuid, &other, &e), -EIO, "No such file");
        l->broken = false;
}

static void pauses(void **state)
{
        struct life *l = *state;

        begin(l);
        OK(ops(l)->attach(l->r->c, l->g.uuid, &l->more, &e));
        l->at = expect_words(l->g.console_log, "vdb=vol-more .", l->at);
        OK(ops(l)->pause(l->r->c, l->g.uuid, &e));
        expect_event(l->r, l->g.uuid, GUEST_PAUSED, GUEST_REASON_NONE);
        OK(ops(l)->pause(l->r->c, l->g.uuid, &e));
        is_state(l, GUEST_PAUSED);
        /* A guest that stands still lets nothing go: no success may be claimed. */
        FAILS(ops(l)->detach(l->r->c, l->g.uuid, "vdb", 300, &e), -ETIMEDOUT, "vdb");
        OK(ops(l)->resume(l->r->c, l->g.uuid, &e));
        expect_event(l->r, l->g.uuid, GUEST_RUNNING, GUEST_REASON_NONE);
        OK(ops(l)->resume(l->r->c, l->g.uuid, &e));
        OK(ops(l)->detach(l->r->c, l->g.uuid, "vdb", WAIT_MS, &e));
        l->at = expect_words(l->g.console_log, "DISKS vda=vol-root .", l->at);
        l->broken = false;
}

/* As control/ does: QEMU fails what meets a connection that is only coming back, so the first
 * resume may end in the next stall. */
static void resume_if_stalled(void *arg)
{
        struct life *l = arg;

        if (last_event_is(l->r, l->g.uuid, GUEST_STALLED))
                OK(ops(l)->resume(l->r->c, l->g.uuid, &e));
}

/* Both disks' servers die under the writers and come back: the guest saw no error and was never
 * paused, whether a disk was there at the start or came later. */
static void reconnect_now(struct life *l)
{
        size_t from = file_size(l->g.console_log);

        forget_events(l->r);
        disk_kill(l->root_server);
        disk_kill(l->more_server);
        l->root_server = disk_start(l->r, "root", l->g.uid);
        l->more_server = disk_start(l->r, "more", l->g.uid);
        l->at = file_size(l->g.console_log);
        for (unsigned i = 0; i < 3; i++) { /* the first may have been written before */
                size_t both[] = {expect_words(l->g.console_log, "WROTE", l->at),
                                 expect_words(l->g.console_log, "MORE ", l->at)};

                l->at = MAX(both[0], both[1]);
        }
        expect_no_words(l->g.console_log, "WRITE-ERROR", 0);
        expect_no_words(l->g.console_log, "MORE-ERROR", from);
        assert_false(saw_event(l->r, l->g.uuid, GUEST_STALLED));
        is_state(l, GUEST_RUNNING);
}

static void reconnects(void **state)
{
        struct life *l = *state;

        begin(l);
        OK(ops(l)->attach(l->r->c, l->g.uuid, &l->more, &e));
        ops(l)->settle(l->r->c, l->g.uuid, "vdb");
        l->at = expect_words(l->g.console_log, "vdb=vol-more .", l->at);
        l->at = expect_words(l->g.console_log, "MORE ", l->at);
        reconnect_now(l);
        l->broken = false;
}

/* The exports grow, the guest sees it; libvirt's own names are in place behind it. */
static void grows(void **state)
{
        struct life *l = *state;
        struct compute *c = l->r->c;
        struct guest_disk fixed = l->more;

        begin(l);
        strcpy(fixed.target, "vdc");
        fixed.readonly = true;
        disk_file(l->r, "root", 72 << 20);
        OK(ops(l)->grow(c, l->g.uuid, "vda", 72 << 20, &e));
        l->at = expect_words(l->g.console_log, "SIZES vda:147456 vdb:131072 .", l->at);
        disk_file(l->r, "more", 80 << 20);
        OK(ops(l)->grow(c, l->g.uuid, "vdb", 80 << 20, &e));
        l->at = expect_words(l->g.console_log, "SIZES vda:147456 vdb:163840 .", l->at);
        OK(ops(l)->grow(c, l->g.uuid, "vdb", 80 << 20, &e)); /* again */
        FAILS(ops(l)->grow(c, l->g.uuid, "vdb", 88 << 20, &e), -EIO, "Cannot grow");
        FAILS(ops(l)->grow(c, l->g.uuid, "vdc", 88 << 20, &e), -ENOENT, "vdc");

        forget_events(l->r);
        OK(ops(l)->pause(c, l->g.uuid, &e));
        expect_event(l->r, l->g.uuid, GUEST_PAUSED, GUEST_REASON_NONE);
        disk_file(l->r, "more", 96 << 20);
        OK(ops(l)->grow(c, l->g.uuid, "vdb", 96 << 20, &e));
        is_state(l, GUEST_PAUSED);
        OK(ops(l)->resume(c, l->g.uuid, &e));
        expect_event(l->r, l->g.uuid, GUEST_RUNNING, GUEST_REASON_NONE);
        l->at = expect_words(l->g.console_log, "SIZES vda:147456 vdb:196608 .", l->at);
        reconnect_now(l);

        OK(ops(l)->detach(c, l->g.uuid, "vdb", WAIT_MS, &e));
        l->at = expect_words(l->g.console_log, "DISKS vda=vol-root .", l->at);
        OK(ops(l)->attach(c, l->g.uuid, &l->more, &e));
        expect_words(l->g.console_log, "SIZES vda:147456 vdb:196608 .", l->at);
        l->at = expect_words(l->g.console_log, "DISKS vda=vol-root vdb=vol-more .", l->at);
        OK(ops(l)->detach(c, l->g.uuid, "vdb", WAIT_MS, &e));
        l->at = expect_words(l->g.console_log, "DISKS vda=vol-root .", l->at);
        FAILS(ops(l)->grow(c, l->g.uuid, "vdb", 96 << 20, &e), -ENOENT, "vdb");

        /* QEMU resizes nothing that is read only; the guest sees it at its next start. */
        OK(ops(l)->attach(c, l->g.uuid, &fixed, &e));
        l->at = expect_words(l->g.console_log, "DISKS vda=vol-root vdb=vol-more .", l->at);
        FAILS(ops(l)->grow(c, l->g.uuid, "vdc", 96 << 20, &e), -EIO, "read");
        OK(ops(l)->detach(c, l->g.uuid, "vdc", WAIT_MS, &e));
        l->at = expect_words(l->g.console_log, "DISKS vda=vol-root .", l->at);
        forget_events(l->r);
        l->broken = false;
}

/* A connection that was given up comes back only when it is asked for, in a while. */
static void grow_stalled(struct life *l, const char *target, uint64_t size)
{
        int64_t until = clock_mono() + WAIT_MS * INT64_C(1000);
        _cleanup_err_ struct err *e = NULL;
        int r;

        while ((r = ops(l)->grow(l->r->c, l->g.uuid, target, size, &e)) == -ETIMEDOUT &&
               clock_mono() < until) {
                e = err_free(e);
                usleep(20000);
        }
        ok(r, e, "grow a stalled guest's disk");
        is_state(l, GUEST_STALLED);
}

/* The disk's server is away for longer than QEMU waits: the guest waits on, and sees no error
 * afterwards.  While it stands still its disk can grow. */
static void stalls(void **state)
{
        struct life *l = *state;
        size_t from = file_size(l->g.console_log);

        begin(l);
        disk_kill(l->root_server);
        expect_event(l->r, l->g.uuid, GUEST_STALLED, GUEST_REASON_NONE);
        is_state(l, GUEST_STALLED);
        l->at = file_size(l->g.console_log);
        OK(ops(l)->resume(l->r->c, l->g.uuid, &e)); /* too early */
        expect_event(l->r, l->g.uuid, GUEST_RUNNING, GUEST_REASON_NONE);
        expect_event(l->r, l->g.uuid, GUEST_STALLED, GUEST_REASON_NONE);
        l->root_server = disk_start(l->r, "root", l->g.uid);
        disk_file(l->r, "root", 104 << 20);
        grow_stalled(l, "vda", 104 << 20);
        l->at = expect_words_or(l->g.console_log, "WROTE", l->at, 50, resume_if_stalled, l);
        l->at = expect_words(l->g.console_log, "WROTE", l->at);
        is_state(l, GUEST_RUNNING);
        expect_words(l->g.console_log, "SIZES vda:212992 .", from);
        expect_no_words(l->g.console_log, "WRITE-ERROR", 0);
        l->broken = false;
}

/* stratod ends and comes back: the guest went on, and is told of as before. */
static void outlives(void **state)
{
        struct life *l = *state;
        pid_t qemu = qemu_pid(l->g.uuid);

        begin(l);
        rig_close(l->r);
        l->at = expect_words(l->g.console_log, "WROTE", file_size(l->g.console_log));
        rig_open(l->r);
        is_listed(l, 1);
        assert_int_equal(qemu_pid(l->g.uuid), qemu);
        forget_events(l->r);
        OK(ops(l)->pause(l->r->c, l->g.uuid, &e)); /* events come again, too */
        expect_event(l->r, l->g.uuid, GUEST_PAUSED, GUEST_REASON_NONE);
        OK(ops(l)->resume(l->r->c, l->g.uuid, &e));
        expect_event(l->r, l->g.uuid, GUEST_RUNNING, GUEST_REASON_NONE);
        l->broken = false;
}

static void reboots(void **state)
{
        struct life *l = *state;
        pid_t qemu = qemu_pid(l->g.uuid);

        begin(l);
        l->at = file_size(l->g.console_log);
        OK(ops(l)->reboot(l->r->c, l->g.uuid, true, &e));
        l->at = expect_words(l->g.console_log, "GUEST-UP", l->at);
        l->at = expect_words(l->g.console_log, "WROTE 1", l->at);
        OK(ops(l)->reboot(l->r->c, l->g.uuid, false, &e));
        l->at = expect_words(l->g.console_log, "POWER-BUTTON", l->at);
        l->at = expect_words(l->g.console_log, "GUEST-UP", l->at);
        l->at = expect_words(l->g.console_log, "WROTE 1", l->at);
        assert_int_equal(qemu_pid(l->g.uuid), qemu);
        is_state(l, GUEST_RUNNING);
        forget_events(l->r);
        l->broken = false;
}

static void shuts_down(void **state)
{
        struct life *l = *state;

        begin(l);
        OK(ops(l)->shutdown(l->r->c, l->g.uuid, &e));
        expect_event(l->r, l->g.uuid, GUEST_GONE, GUEST_REASON_SHUTDOWN);
        is_state(l, GUEST_GONE);
        is_listed(l, 0);
        FAILS(ops(l)->shutdown(l->r->c, l->g.uuid, &e), -ENOENT, l->g.uuid);
        l->broken = false;
}

/* Starts it once more: the console log grows on. */
static void start_again(struct life *l)
{
        forget_events(l->r);
        l->at = file_size(l->g.console_log);
        assert_true(l->at > 0);
        OK(ops(l)->start(l->r->c, &l->g, &e));
        settle(l);
        expect_event(l->r, l->g.uuid, GUEST_RUNNING, GUEST_REASON_NONE);
}

static void dies(void **state)
{
        struct life *l = *state;
        pid_t qemu;
        int64_t t;

        begin(l);
        start_again(l);
        l->at = expect_words(l->g.console_log, "GUEST-UP", l->at);
        qemu = qemu_pid(l->g.uuid);
        assert_true(qemu > 1);
        t = clock_mono();
        assert_int_equal(kill(qemu, SIGKILL), 0);
        expect_event(l->r, l->g.uuid, GUEST_GONE, GUEST_REASON_FAILED);
        printf("# event %d ms after kill -9\n", (int)((clock_mono() - t) / 1000));
        is_state(l, GUEST_GONE);
        l->broken = false;
}

static void destroys(void **state)
{
        struct life *l = *state;

        begin(l);
        start_again(l);
        OK(ops(l)->destroy(l->r->c, l->g.uuid, &e));
        expect_event(l->r, l->g.uuid, GUEST_GONE, GUEST_REASON_DESTROYED);
        assert_int_equal(qemu_pid(l->g.uuid), 0);
        OK(ops(l)->destroy(l->r->c, l->g.uuid, &e)); /* gone is success */
        is_listed(l, 0);
        l->broken = false;
}

/* The process that holds embedded libvirt is killed with a guest running. */
static void survives_holder(void **state)
{
        struct life *l = *state;
        const char *argv[] = {"/proc/self/exe", "hold", l->r->dir, NULL};
        _cleanup_close_ int out = -1;
        char uuid[37] = "";
        pid_t holder, second;
        int status;

        begin(l);
        holder = spawn(argv, &out, -1);
        assert_int_equal(read(out, uuid, 36), 36);
        /* A second opener is told so. */
        second = spawn(argv, NULL, -1);
        assert_int_equal(waitpid(second, &status, 0), second);
        disk_kill(holder);
        assert_true(WIFEXITED(status));
        assert_int_equal(WEXITSTATUS(status), EBUSY);
        rig_open(l->r);
        strcpy(l->g.uuid, uuid);
        is_listed(l, 1);
        l->at = expect_words(l->g.console_log, "WROTE 2", 0);
        OK(ops(l)->destroy(l->r->c, uuid, &e));
        is_listed(l, 0);
        l->broken = false;
}

/* It is killed between the changes that it makes to QEMU's nodes; who comes next goes on. */
static void dies_while_seating(void **state)
{
        static const char *const when[] = {
                "compute.seat=kill:2", /* our node is there, unused */
                "compute.seat=kill:5", /* it is used, libvirt's is gone */
                "compute.seat=kill:3", /* it is used, a new one is there, unused */
                "compute.seat=kill:6", /* all is done, ours is left over */
        };
        struct life *l = *state;
        const char *argv[] = {"/proc/self/exe", "hold", l->r->dir, NULL};
        int status;

        begin(l);
        for (size_t i = 0; i < ARRAY_SIZE(when); i++) {
                pid_t holder;

                setenv("STRATOFS_FAULT", when[i], 1);
                holder = spawn(argv, NULL, -1);
                unsetenv("STRATOFS_FAULT");
                if (i == 0) { /* as rig_guest() there */
                        snprintf(l->g.uuid, sizeof(l->g.uuid), "5f000000-0000-4000-8000-%06u%06u",
                                 1, (unsigned)holder % 1000000);
                        argv[1] = "reopen";
                }
                assert_int_equal(waitpid(holder, &status, 0), holder);
                assert_true(WIFSIGNALED(status));
                assert_int_equal(WTERMSIG(status), SIGKILL);
        }
        rig_open(l->r);
        is_listed(l, 1);
        OK(ops(l)->attach(l->r->c, l->g.uuid, &l->more, &e));
        settle(l);
        l->at = expect_words(l->g.console_log, "MORE ", 0);
        reconnect_now(l);
        OK(ops(l)->destroy(l->r->c, l->g.uuid, &e));
        rig_close(l->r);
        l->broken = false;
}

/* Opens what is there and waits to be killed. */
static _Noreturn void reopen(const char *dir)
{
        rig_open(rig_new(COMPUTE_EMBED, dir));
        for (;;)
                pause();
}

static int hold(const char *dir)
{
        struct rig *r = rig_new(COMPUTE_EMBED, dir);
        struct guest_disk d = rig_disk(r, "vda", "root", "vol-root");
        struct guest g = rig_guest(r, 1, &d, 1);
        _cleanup_err_ struct err *e = NULL;
        int out = dup(STDOUT_FILENO), code;

        dup2(STDERR_FILENO, STDOUT_FILENO); /* the parent wants the uuid only */
        code = rig_try_open(r, &e);
        if (code == 0)
                code = r->c->ops->start(r->c, &g, &e);
        if (code == 0)
                r->c->ops->settle(r->c, g.uuid, NULL);
        if (code < 0) {
                fprintf(stderr, "# hold: %s\n", err_msg(e));
                _exit(-code); /* libvirt leaks a little on this way out */
        }
        if (write(out, g.uuid, 36) != 36)
                return 1;
        for (;;)
                pause();
}

/* system: libvirtd goes away and comes back; the guest does not notice, we do. */
static const char *libvirtd_pidfile;

static pid_t libvirtd_pid(void)
{
        _cleanup_free_ char *text = NULL;

        assert_int_equal(file_read(libvirtd_pidfile, 64, &text, NULL, NULL), 0);
        return atoi(text);
}

static void restart_engine(struct life *l)
{
        const char *argv[] = {"libvirtd", "-d", "-p", libvirtd_pidfile, NULL};
        pid_t pid = libvirtd_pid(), starter;
        unsigned before = l->r->resyncs;
        enum guest_state s;
        int status;

        assert_true(pid > 1);
        assert_int_equal(kill(pid, SIGKILL), 0);
        /* The call may be the one that meets the end of the connection, or come after it. */
        FAILS(ops(l)->state(l->r->c, l->g.uuid, &s, &e), -ECONNREFUSED, "");
        FAILS(ops(l)->pause(l->r->c, l->g.uuid, &e), -ECONNREFUSED, "");
        l->at = expect_words(l->g.console_log, "WROTE", file_size(l->g.console_log));
        starter = spawn(argv, NULL, -1);
        assert_int_equal(waitpid(starter, &status, 0), starter);
        assert_int_equal(status, 0);
        expect_resync(l->r, before + 1);
        is_listed(l, 1);
        forget_events(l->r);
}

static void engine_restarts(void **state)
{
        struct life *l = *state;

        begin(l);
        start_again(l);
        l->at = expect_words(l->g.console_log, "WROTE 1", l->at);
        restart_engine(l);
        /* Waits until the new libvirtd has its hands on the guest.  A destroy before that ends the
         * guest, but in such a way that no event tells. */
        OK(ops(l)->pause(l->r->c, l->g.uuid, &e));
        expect_event(l->r, l->g.uuid, GUEST_PAUSED, GUEST_REASON_NONE);
        OK(ops(l)->resume(l->r->c, l->g.uuid, &e));
        expect_event(l->r, l->g.uuid, GUEST_RUNNING, GUEST_REASON_NONE);
        OK(ops(l)->attach(l->r->c, l->g.uuid, &l->more, &e));
        settle(l);
        l->at = expect_words(l->g.console_log, "MORE ", l->at);
        restart_engine(l);
        reconnect_now(l);
        disk_file(l->r, "more", 112 << 20);
        OK(ops(l)->grow(l->r->c, l->g.uuid, "vdb", 112 << 20, &e));
        l->at = expect_words(l->g.console_log, "vdb:229376 .", l->at);
        OK(ops(l)->detach(l->r->c, l->g.uuid, "vdb", WAIT_MS, &e));
        forget_events(l->r);
        OK(ops(l)->destroy(l->r->c, l->g.uuid, &e));
        expect_event(l->r, l->g.uuid, GUEST_GONE, GUEST_REASON_DESTROYED);
        l->broken = false;
}

/* A driver opened with no engine there works when there is one. */
static void opens_without_engine(void **state)
{
        struct life *l = *state;
        const char *argv[] = {"libvirtd", "-d", "-p", libvirtd_pidfile, NULL};
        unsigned before = l->r->resyncs;
        pid_t starter;
        int status;

        begin(l);
        rig_close(l->r);
        assert_int_equal(kill(libvirtd_pid(), SIGKILL), 0);
        rig_open(l->r);
        FAILS(ops(l)->start(l->r->c, &l->g, &e), -ECONNREFUSED, "is down");
        assert_int_equal(compute_choose(), COMPUTE_EMBED);
        starter = spawn(argv, NULL, -1);
        assert_int_equal(waitpid(starter, &status, 0), starter);
        expect_resync(l->r, before + 1);
        is_listed(l, 0);
        assert_int_equal(compute_choose(), COMPUTE_SYSTEM);
        l->broken = false;
}

static enum compute_mode mode;

static int set_up_closed(void **state)
{
        struct life *l = calloc(1, sizeof(*l));

        assert_non_null(l);
        l->r = rig_new(mode, NULL);
        l->root = rig_disk(l->r, "vda", "root", "vol-root");
        l->more = rig_disk(l->r, "vdb", "more", "vol-more");
        l->g = rig_guest(l->r, 1, &l->root, 1);
        l->root_server = disk_start(l->r, "root", l->g.uid);
        l->more_server = disk_start(l->r, "more", l->g.uid);
        *state = l;
        return 0;
}

static int set_up(void **state)
{
        struct life *l;

        set_up_closed(state);
        l = *state;
        rig_open(l->r);
        return 0;
}

static int tear_down(void **state)
{
        struct life *l = *state;

        rig_free(l->r);
        disk_kill(l->root_server);
        disk_kill(l->more_server);
        free(l);
        return 0;
}

#define LIFE                                                                                       \
        cmocka_unit_test(boots), cmocka_unit_test(console_speaks), cmocka_unit_test(has_no_agent), \
                cmocka_unit_test(save_is_cancelled), cmocka_unit_test(has_figures),                \
                cmocka_unit_test(hot_plugs), cmocka_unit_test(pauses),                             \
                cmocka_unit_test(reconnects), cmocka_unit_test(grows), cmocka_unit_test(stalls),   \
                cmocka_unit_test(outlives), cmocka_unit_test(reboots),                             \
                cmocka_unit_test(shuts_down), cmocka_unit_test(dies), cmocka_unit_test(destroys)

int main(int argc, char **argv)
{
        const struct CMUnitTest embed[] = {LIFE};
        const struct CMUnitTest system[] = {LIFE, cmocka_unit_test(engine_restarts),
                                            cmocka_unit_test(opens_without_engine)};
        const struct CMUnitTest session[] = {LIFE};
        const struct CMUnitTest holder[] = {cmocka_unit_test(survives_holder)};
        const struct CMUnitTest seating[] = {cmocka_unit_test(dies_while_seating)};

        setvbuf(stdout, NULL, _IOLBF, 0);
        if (argc == 3 && streq(argv[1], "hold"))
                return hold(argv[2]);
        if (argc == 3 && streq(argv[1], "reopen"))
                reopen(argv[2]);
        if (argc == 2 && streq(argv[1], "holder")) {
                mode = COMPUTE_EMBED;
                return cmocka_run_group_tests(holder, set_up_closed, tear_down);
        }
        if (argc == 2 && streq(argv[1], "seating")) {
                mode = COMPUTE_EMBED;
                return cmocka_run_group_tests(seating, set_up_closed, tear_down);
        }
        if (argc < 2 || compute_mode_parse(argv[1], &mode, NULL) < 0)
                return 2;
        libvirtd_pidfile = argc > 2 ? argv[2] : NULL;
        switch (mode) {
        case COMPUTE_EMBED:
                return cmocka_run_group_tests(embed, set_up, tear_down);
        case COMPUTE_SYSTEM:
                return cmocka_run_group_tests(system, set_up, tear_down);
        default:
                return cmocka_run_group_tests(session, set_up, tear_down);
        }
}
