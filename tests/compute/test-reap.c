/* The reaper takes what was adopted, and nothing else. */
#include "backend/compute/libvirt/driver.h"

#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <cmocka.h>

#include "common/clock.h"
#include "common/fileio.h"

enum { WAIT_US = 20 * 1000 * 1000 };

/* A process that made itself a daemon, and its pid; it ends when hold does. */
static pid_t daemon_start(int *hold)
{
        int tell[2], stop[2], status;
        pid_t pid, middle;

        assert_int_equal(pipe(tell), 0);
        assert_int_equal(pipe(stop), 0);
        middle = fork();
        if (middle == 0) {
                char c;

                setsid();
                pid = fork();
                if (pid == 0) {
                        pid = getpid();
                        close(stop[1]);
                        if (write(tell[1], &pid, sizeof(pid)) != sizeof(pid))
                                _exit(1);
                        _exit((int)read(stop[0], &c, 1));
                }
                _exit(7);
        }
        close(stop[0]);
        assert_int_equal(read(tell[0], &pid, sizeof(pid)), sizeof(pid));
        close(tell[0]);
        close(tell[1]);
        /* The one in between is a child of ours: nobody else may have taken its status. */
        assert_int_equal(waitpid(middle, &status, 0), middle);
        assert_int_equal(WEXITSTATUS(status), 7);
        *hold = stop[1];
        return pid;
}

static void expect_reaped(pid_t pid)
{
        int64_t until = clock_mono() + WAIT_US;

        while (kill(pid, 0) == 0) { /* true of a zombie, too */
                assert_true(clock_mono() < until);
                usleep(1000);
        }
}

static void finds_adopted(void **state)
{
        struct reaper *r = *state;
        int hold, status;
        siginfo_t si;
        pid_t own = fork(), daemon, other;

        if (own == 0)
                _exit(3);
        assert_int_equal(waitid(P_PID, own, &si, WEXITED | WNOWAIT), 0); /* dead, not reaped */
        other = fork();
        if (other == 0) {
                setsid(); /* leads a session, is a child of ours all the same */
                _exit(4);
        }
        assert_int_equal(waitid(P_PID, other, &si, WEXITED | WNOWAIT), 0);
        reaper_busy(r, +1);
        daemon = daemon_start(&hold);
        close(hold);
        expect_reaped(daemon);
        reaper_busy(r, -1);
        assert_int_equal(waitpid(own, &status, WNOHANG), own);
        assert_int_equal(WEXITSTATUS(status), 3);
        assert_int_equal(waitpid(other, &status, WNOHANG), other);
        assert_int_equal(WEXITSTATUS(status), 4);
}

static void watches_guests(void **state)
{
        struct reaper *r = *state;
        char dir[] = "/tmp/sr-XXXXXX", text[16];
        int hold;
        pid_t daemon = daemon_start(&hold);
        char *path;

        assert_non_null(mkdtemp(dir));
        path = path_printf("%s/run/qemu", dir);
        assert_int_equal(mkdir_parents(path, 0700, NULL), 0);
        free(path);
        path = path_printf("%s/run/qemu/web.1.pid", dir);
        snprintf(text, sizeof(text), "%d\n", (int)daemon);
        assert_int_equal(file_replace(path, text, strlen(text), 0600, NULL), 0);
        free(path);
        reaper_watch_all(r, dir);
        reaper_watch_guest(r, dir, "web.1"); /* twice does no harm */
        reaper_watch_guest(r, dir, "none");
        close(hold);
        expect_reaped(daemon);
        remove_tree(dir, NULL);
}

static int set_up(void **state)
{
        return reaper_start((struct reaper **)state, NULL);
}

static int tear_down(void **state)
{
        reaper_stop(*state);
        return 0;
}

int main(void)
{
        const struct CMUnitTest tests[] = {
                cmocka_unit_test_setup_teardown(finds_adopted, set_up, tear_down),
                cmocka_unit_test_setup_teardown(watches_guests, set_up, tear_down)};

        return cmocka_run_group_tests(tests, NULL, NULL);
}
