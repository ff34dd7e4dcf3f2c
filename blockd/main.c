/* blockd: serves volumes over NBD.  See doc/blockd.8.rst. */
#include <fcntl.h>
#include <getopt.h>
#include <malloc.h>
#include <signal.h>
#include <sys/file.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <systemd/sd-daemon.h>
#include <systemd/sd-event.h>

#include "backend/volume/local/local.h"
#include "blockd/server.h"
#include "blockd/state.h"
#include "common/fault.h"
#include "common/log.h"

struct options {
        const char *state, *run, *check;
        bool repair, direct;
        int ready_fd, handshake_ms;
        struct tcp_config tcp;
};

static const char usage[] =
        "usage: blockd --state DIR --run DIR [--listen ADDRESS[:PORT]]... [--tls-dir DIR]\n"
        "              [--plain-tcp] [--handshake-ms N] [--cache buffered|direct]\n"
        "              [--ready-fd N] [--loglevel 0-7]\n"
        "       blockd --check DIR [--repair]\n"
        "       blockd --version\n";

/* 0 go on, 1 all is said, -EINVAL. */
static int parse_options(int argc, char **argv, struct options *o)
{
        static const struct option longs[] = {
                {"state", required_argument, NULL, 's'},
                {"run", required_argument, NULL, 'r'},
                {"ready-fd", required_argument, NULL, 'f'},
                {"loglevel", required_argument, NULL, 'l'},
                {"listen", required_argument, NULL, 'L'},
                {"tls-dir", required_argument, NULL, 'T'},
                {"plain-tcp", no_argument, NULL, 'P'},
                {"handshake-ms", required_argument, NULL, 'H'},
                {"cache", required_argument, NULL, 'C'},
                {"check", required_argument, NULL, 'c'},
                {"repair", no_argument, NULL, 'R'},
                {"foreground", no_argument, NULL, 'F'},
                {"version", no_argument, NULL, 'V'},
                {"help", no_argument, NULL, 'h'},
                {},
        };
        char *end = NULL;
        int c;

        *o = (struct options){.ready_fd = -1, .handshake_ms = SERVER_HANDSHAKE_MS};
        while ((c = getopt_long(argc, argv, "", longs, NULL)) >= 0) {
                if (c == 's')
                        o->state = optarg;
                else if (c == 'r')
                        o->run = optarg;
                else if (c == 'f')
                        o->ready_fd = strtol(optarg, &end, 10);
                else if (c == 'l')
                        log_set_level(strtol(optarg, &end, 10));
                else if (c == 'c')
                        o->check = optarg;
                else if (c == 'C' && streq(optarg, "direct"))
                        o->direct = true;
                else if (c == 'C' && streq(optarg, "buffered"))
                        o->direct = false;
                else if (c == 'R')
                        o->repair = true;
                else if (c == 'L' && o->tcp.n < TCP_LISTENERS)
                        o->tcp.listen[o->tcp.n++] = optarg;
                else if (c == 'T')
                        o->tcp.tls_dir = optarg;
                else if (c == 'P')
                        o->tcp.plain = true;
                else if (c == 'H')
                        o->handshake_ms = strtol(optarg, &end, 10);
                else if (c == 'V')
                        return puts("blockd " STRATOFS_VERSION), 1;
                else if (c == 'h')
                        return fputs(usage, stdout), 1;
                else if (c != 'F')
                        return -EINVAL;
                if (end && *end)
                        return -EINVAL;
        }
        if (optind != argc || o->handshake_ms <= 0 ||
            (o->check ? o->state || o->run : !o->state || !o->run))
                return -EINVAL;
        return 0;
}

/* Small when idle, roomy when busy. */
static void set_limits(void)
{
        struct rlimit rl;

        mallopt(M_ARENA_MAX, 2);
        mallopt(M_MMAP_THRESHOLD, 128 << 10); /* large buffers go back to the kernel when freed */
        mallopt(M_TRIM_THRESHOLD, 256 << 10);
        if (getrlimit(RLIMIT_NOFILE, &rl) == 0) {
                rl.rlim_cur = rl.rlim_max;
                setrlimit(RLIMIT_NOFILE, &rl);
        }
        umask(0); /* every file is made with the mode it is to have; sockets have no other way */
        signal(SIGPIPE, SIG_IGN);
}

static int check(const struct options *o)
{
        _cleanup_err_ struct err *e = NULL;
        _cleanup_close_ int lock = -1;
        int n;

        if (access(o->check, F_OK) < 0)
                n = err_errno(&e, -errno, "open");
        else if ((n = lock = state_lock(o->check, &e)) >= 0)
                n = local_check(o->check, o->repair, stdout, &e);
        if (n < 0) {
                log_error("check '%s': %s", o->check, err_msg(e));
                return 2;
        }
        printf("%d finding%s\n", n, n == 1 ? "" : "s");
        return n > 0;
}

static int on_accept(sd_event_source *source _unused_, int fd _unused_, uint32_t events _unused_,
                     void *arg)
{
        server_accept(arg);
        return 0;
}

static int ready(int fd)
{
        int r = fd >= 0 && write(fd, "1", 1) != 1 ? -errno : 0;

        if (fd >= 0)
                close(fd);
        sd_notify(0, "READY=1\nX_VERSION=" STRATOFS_VERSION);
        return r;
}

static int run(struct server *s, const struct options *o)
{
        sd_event *event = NULL;
        sigset_t set;
        int r;

        sigemptyset(&set);
        sigaddset(&set, SIGTERM);
        sigaddset(&set, SIGINT);
        sigprocmask(SIG_BLOCK, &set, NULL);
        r = sd_event_new(&event);
        if (r >= 0)
                r = sd_event_add_signal(event, NULL, SIGTERM, NULL, NULL);
        if (r >= 0)
                r = sd_event_add_signal(event, NULL, SIGINT, NULL, NULL);
        if (r >= 0)
                r = sd_event_add_io(event, NULL, s->epfd, EPOLLIN, on_accept, s);
        if (r >= 0)
                r = ready(o->ready_fd);
        if (r >= 0) {
                log_info("blockd %s serves '%s' in '%s'", STRATOFS_VERSION, o->state, o->run);
                r = sd_event_loop(event);
        }
        sd_event_unref(event);
        if (r < 0)
                log_error("event loop: %s", strerror(-r));
        return r;
}

static int serve(const struct options *o)
{
        _cleanup_err_ struct err *e = NULL;
        _cleanup_close_ int lock = -1, run_lock = -1;
        struct server *s;
        int r;

        lock = state_lock(o->state, &e);
        r = lock < 0 ? lock : (run_lock = state_lock_run(o->run, &e));
        r = r < 0 ? r : state_claim(o->state, o->run, &e);
        if (r == 0)
                r = server_start(o->state, o->run, o->direct, &o->tcp, &s, &e);
        if (r < 0) {
                log_error("start: %s", err_msg(e));
                return 1;
        }
        r = run(s, o);
        sd_notify(0, "STOPPING=1");
        server_stop(s);
        state_release(o->state);
        log_info("blockd stopped");
        return r < 0;
}

int main(int argc, char **argv)
{
        struct options o;
        int r;

        fault_init();
        r = parse_options(argc, argv, &o);
        if (r != 0) {
                if (r < 0)
                        fputs(usage, stderr);
                return r < 0 ? 2 : 0;
        }
        set_limits();
        return o.check ? check(&o) : serve(&o);
}
