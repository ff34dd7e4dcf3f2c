/* blockd: serves volumes over NBD.  See doc/blockd.8.rst. */
#include <fcntl.h>
#include <getopt.h>
#include <limits.h>
#include <malloc.h>
#include <signal.h>
#include <sys/file.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <systemd/sd-daemon.h>
#include <systemd/sd-event.h>

#include "backend/volume/local/local.h"
#include "blockd/handover.h"
#include "blockd/owner.h"
#include "blockd/server.h"
#include "blockd/state.h"
#include "common/fault.h"
#include "common/fileio.h"
#include "common/jsonl.h"
#include "common/log.h"

enum { REPLACE_MS = 180000 };

struct options {
        const char *state, *run, *check, *user;
        const char *pools[VOLUME_POOLS + 1]; /* DRIVER[:TARGET] */
        bool repair, direct, replace;
        int ready_fd, takeover_fd, handshake_ms;
        struct tcp_config tcp;
        char program[PATH_MAX]; /* what a successor is started from */
};

static const char usage[] =
        "usage: blockd --state DIR --run DIR [--listen ADDRESS[:PORT]]... [--tls-dir DIR]\n"
        "              [--plain-tcp] [--handshake-ms N] [--cache buffered|direct]\n"
        "              [--pool local|rbd:POOL[/NAMESPACE][,conf=FILE][,id=USER]]...\n"
        "              [--user NAME] [--ready-fd N] [--loglevel 0-7]\n"
        "       blockd --check DIR [--repair]\n"
        "       blockd --replace --run DIR\n"
        "       blockd --version\n";

/* 0 go on, 1 all is said, -EINVAL. */
static int parse_options(int argc, char **argv, struct options *o)
{
        static const struct option longs[] = {
                {"state", required_argument, NULL, 's'},
                {"run", required_argument, NULL, 'r'},
                {"user", required_argument, NULL, 'u'},
                {"ready-fd", required_argument, NULL, 'f'},
                {"loglevel", required_argument, NULL, 'l'},
                {"listen", required_argument, NULL, 'L'},
                {"tls-dir", required_argument, NULL, 'T'},
                {"plain-tcp", no_argument, NULL, 'P'},
                {"handshake-ms", required_argument, NULL, 'H'},
                {"cache", required_argument, NULL, 'C'},
                {"pool", required_argument, NULL, 'p'},
                {"takeover", required_argument, NULL, 'O'},
                {"replace", no_argument, NULL, 'E'},
                {"check", required_argument, NULL, 'c'},
                {"repair", no_argument, NULL, 'R'},
                {"foreground", no_argument, NULL, 'F'},
                {"version", no_argument, NULL, 'V'},
                {"help", no_argument, NULL, 'h'},
                {},
        };
        unsigned npools = 0;
        char *end = NULL;
        int c;

        *o = (struct options){
                .ready_fd = -1, .takeover_fd = -1, .handshake_ms = SERVER_HANDSHAKE_MS};
        while ((c = getopt_long(argc, argv, "", longs, NULL)) >= 0) {
                if (c == 's')
                        o->state = optarg;
                else if (c == 'r')
                        o->run = optarg;
                else if (c == 'u')
                        o->user = optarg;
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
                else if (c == 'p' && npools < VOLUME_POOLS)
                        o->pools[npools++] = optarg;
                else if (c == 'O')
                        o->takeover_fd = strtol(optarg, &end, 10);
                else if (c == 'E')
                        o->replace = true;
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
        if (npools == 0)
                o->pools[0] = "local";
        if (o->replace)
                return optind == argc && o->run && !o->state && !o->check ? 0 : -EINVAL;
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
        else if ((n = owner_of(o->check, &e)) == 0 && (n = lock = state_lock(o->check, &e)) >= 0)
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

static int on_replace(sd_event_source *source _unused_, const struct signalfd_siginfo *si _unused_,
                      void *arg)
{
        replace_start(arg);
        return 0;
}

struct running {
        struct server *server;
        struct takeover *take; /* NULL: none */
        bool told;             /* to end */
};

static int on_end(sd_event_source *source, const struct signalfd_siginfo *si, void *arg)
{
        struct running *run = arg;

        run->told = run->told || si->ssi_signo != SIGUSR2;
        return sd_event_exit(sd_event_source_get_event(source), 0);
}

static int on_takeover(sd_event_source *source, int fd _unused_, uint32_t events _unused_,
                       void *arg)
{
        struct running *run = arg;

        if (takeover_step(run->take, run->server) == 0)
                return 0;
        return sd_event_source_set_enabled(source, SD_EVENT_OFF);
}

static int add_sources(sd_event *event, struct running *run)
{
        static const int ends[] = {SIGTERM, SIGINT, SIGUSR2};
        int r = sd_event_add_signal(event, NULL, SIGHUP, on_replace, run->server);

        for (size_t i = 0; r >= 0 && i < ARRAY_SIZE(ends); i++)
                r = sd_event_add_signal(event, NULL, ends[i], on_end, run);
        if (r >= 0)
                r = sd_event_add_io(event, NULL, run->server->epfd, EPOLLIN, on_accept,
                                    run->server);
        if (r >= 0 && run->take)
                r = sd_event_add_io(event, NULL, run->take->sock, EPOLLIN, on_takeover, run);
        return r;
}

/* 1: a successor has everything. */
static int run(struct server *s, const struct options *o, struct takeover *take)
{
        struct running run = {.server = s, .take = take};
        _cleanup_err_ struct err *e = NULL;
        sd_event *event = NULL;
        int r;

        r = sd_event_new(&event);
        if (r >= 0)
                r = add_sources(event, &run);
        if (r >= 0)
                r = take ? takeover_started(take, &e) : ready(o->ready_fd);
        if (r >= 0) {
                log_info("blockd %s serves '%s' in '%s'", STRATOFS_VERSION, o->state, o->run);
                r = sd_event_loop(event);
        }
        sd_event_unref(event);
        if (r < 0)
                log_error("event loop: %s", strerror(-r));
        if (!replace_over(s))
                return MIN(r, 0);
        if (run.told)
                kill(s->successor.pid, SIGTERM); /* it was meant for us all */
        control_stop(s);
        return 1;
}

static void on_kick(int signal _unused_)
{
}

/* Before any thread: the main loop takes these, but SIGUSR1, which ends a system call of a thread.
 */
static void set_signals(void)
{
        const struct sigaction kick = {.sa_handler = on_kick}; /* no SA_RESTART */
        sigset_t set;

        sigaction(SIGUSR1, &kick, NULL);
        sigemptyset(&set);
        sigaddset(&set, SIGTERM);
        sigaddset(&set, SIGINT);
        sigaddset(&set, SIGHUP);
        sigaddset(&set, SIGUSR2);
        sigprocmask(SIG_BLOCK, &set, NULL);
}

/* The locks are a predecessor's, too, or we take them. */
static int lock(const struct options *o, struct takeover *t, struct err **e)
{
        int r;

        if (t->sock >= 0)
                return takeover_begin(t, e);
        r = t->state_lock = state_lock(o->state, e);
        if (r >= 0)
                r = t->run_lock = state_lock_run(o->run, e);
        return MIN(r, 0);
}

struct successor_words {
        const char *argv[20 + 2 * TCP_LISTENERS + 2 * VOLUME_POOLS];
        char level[16], handshake_ms[16];
};

/* The command line of one that is to follow us: ours, without what was for the start alone. */
static void successor_words(const struct options *o, struct successor_words *ret)
{
        const char **p = ret->argv;

        snprintf(ret->level, sizeof(ret->level), "%d", log_get_level());
        snprintf(ret->handshake_ms, sizeof(ret->handshake_ms), "%d", o->handshake_ms);
        *p++ = o->program;
        *p++ = "--state";
        *p++ = o->state;
        *p++ = "--run";
        *p++ = o->run;
        *p++ = "--cache";
        *p++ = o->direct ? "direct" : "buffered";
        for (unsigned i = 0; o->pools[i]; i++) {
                *p++ = "--pool";
                *p++ = o->pools[i];
        }
        *p++ = "--loglevel";
        *p++ = ret->level;
        *p++ = "--handshake-ms";
        *p++ = ret->handshake_ms;
        for (unsigned i = 0; i < o->tcp.n; i++) {
                *p++ = "--listen";
                *p++ = o->tcp.listen[i];
        }
        if (o->tcp.tls_dir) {
                *p++ = "--tls-dir";
                *p++ = o->tcp.tls_dir;
        }
        if (o->tcp.plain)
                *p++ = "--plain-tcp";
        if (o->user) {
                *p++ = "--user";
                *p++ = o->user;
        }
        *p = NULL;
}

static int start(const struct options *o, struct takeover *take, struct server **ret,
                 struct err **e)
{
        struct server_config c = {.state = o->state, .run = o->run, .direct = o->direct};
        struct owner owner = {.user = o->user,
                              .state = o->state,
                              .run = o->run,
                              .program = o->program,
                              .pools = o->pools,
                              .tls_dir = o->tcp.n > 0 ? o->tcp.tls_dir : NULL,
                              .locks = {take->state_lock, take->run_lock},
                              .succeeds = take->sock >= 0};

        memcpy(c.pools, o->pools, sizeof(c.pools));
        c.owner = &owner;
        return server_start(&c, &o->tcp, take->sock >= 0 ? take : NULL, ret, e);
}

static int serve(struct options *o)
{
        struct successor_words words;
        struct takeover take = {.sock = o->takeover_fd, .state_lock = -1, .run_lock = -1};
        const bool takes = take.sock >= 0;
        _cleanup_err_ struct err *e = NULL;
        struct server *s;
        int r;

        set_signals();
        if (takes)
                fcntl(take.sock, F_SETFD, FD_CLOEXEC);
        r = lock(o, &take, &e);
        if (r == 0)
                r = start(o, &take, &s, &e);
        if (r == 0)
                s->handshake_ms = o->handshake_ms;
        if (r < 0) {
                log_error("start: %s", err_msg(e));
                return 1;
        }
        if (!takes)
                held_done(&s->held, true);
        successor_words(o, &words);
        s->successor = (struct successor){.argv = (char **)words.argv,
                                          .state_lock = take.state_lock,
                                          .run_lock = take.run_lock};
        r = run(s, o, takes ? &take : NULL);
        if (r > 0) {
                log_info("blockd was replaced");
                _exit(0); /* not a byte may be changed */
        }
        sd_notify(0, "STOPPING=1");
        if (!s->coming) /* else a predecessor has some of them yet */
                state_settle(o->run, s->pool);
        server_stop(s);
        state_release(o->state, o->run);
        close(take.run_lock);
        close(take.state_lock);
        log_info("blockd stopped");
        return r < 0;
}

/* Tells the one that runs, and waits. */
static int replace(const struct options *o)
{
        _cleanup_free_ char *path = path_printf("%s/blockd.sock", o->run);
        json_auto_t *request = json_pack("{s:s}", "op", "replace"), *answer = NULL;
        _cleanup_err_ struct err *e = NULL;
        int r = path && request ? jsonl_call(path, request, REPLACE_MS, &answer, &e) : -ENOMEM;

        if (r < 0) {
                log_error("%s", r == -ENOMEM ? strerror(ENOMEM) : err_msg(e));
                return 1;
        }
        printf("%lld\n", (long long)json_integer_value(json_object_get(answer, "pid")));
        return 0;
}

/* Not resolved: what an upgrade puts at the same path is meant. */
static void find_program(struct options *o, const char *argv0)
{
        ssize_t n = -1;

        if (argv0[0] == '/' && strlen(argv0) < sizeof(o->program))
                strcpy(o->program, argv0);
        else
                n = readlink("/proc/self/exe", o->program, sizeof(o->program) - 1);
        if (n > 0)
                o->program[n] = '\0';
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
        if (o.replace)
                return replace(&o);
        find_program(&o, argv[0]);
        return o.check ? check(&o) : serve(&o);
}
