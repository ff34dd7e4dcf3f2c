/* Clients of a mount, for the tests of load.
 *
 *     load work TENANT CLIENTS SECONDS       every client makes, changes, reads, waits for and
 * removes load cycle TENANT OBJECTS THREADS      makes so many objects, and removes them load stat
 * TENANT SECONDS               latency of stat(2), answered by the daemon each time load probe
 * TENANT SECONDS              latency of a tenant's looks and changes, twenty of each a second load
 * flood TENANT CLIENTS SECONDS WHAT mkdir, write, wait, events, fail: as fast as it goes
 *
 * Prints a line of figures a kind of call: its number, how many were refused, microseconds of the
 * median and of p99, and the longest.  What a client may not be refused ends the program with 1. */
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <limits.h>
#include <pthread.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

enum { CALLS = 1 << 22, CLIENTS = 2048, TEXT = 64 << 10, PACE_US = 25000 };

enum call { STAT, LIST, READ, MAKE, CHANGE, LINK, WAIT, REMOVE, NCALLS };
static const char *const names[] = {"stat",   "list", "read", "make",
                                    "change", "link", "wait", "remove"};

struct figures {
        pthread_mutex_t lock;
        uint32_t *us;
        size_t n, refused;
};

struct client {
        struct work *work;
        unsigned no, seed;
        pthread_t thread;
};

struct work {
        const char *tenant, *what;
        unsigned clients;
        double end;
        atomic_uint next;
        unsigned objects;
        struct figures figures[NCALLS];
        atomic_bool wrong;
        void (*run)(struct client *c);
        struct client client[CLIENTS];
};

static double now(void)
{
        struct timespec t;

        clock_gettime(CLOCK_MONOTONIC, &t);
        return (double)t.tv_sec + (double)t.tv_nsec / 1e9;
}

static char *path(struct client *c, char *out, const char *fmt, ...)
        __attribute__((format(printf, 3, 4)));

static char *path(struct client *c, char *out, const char *fmt, ...)
{
        int n = snprintf(out, PATH_MAX, "%s/", c->work->tenant);
        va_list ap;

        va_start(ap, fmt);
        vsnprintf(out + n, (size_t)(PATH_MAX - n), fmt, ap);
        va_end(ap);
        return out;
}

static void note(struct client *c, enum call call, double began, bool refused)
{
        struct figures *f = &c->work->figures[call];
        double us = (now() - began) * 1e6;

        pthread_mutex_lock(&f->lock);
        if (f->n < CALLS)
                f->us[f->n++] = us < UINT32_MAX ? (uint32_t)us : UINT32_MAX;
        f->refused += refused;
        pthread_mutex_unlock(&f->lock);
}

/* What was done must succeed, but where a flood is to be refused. */
static bool done(struct client *c, enum call call, double began, bool good, const char *where)
{
        const int error = errno;

        note(c, call, began, !good);
        if (good || c->work->what)
                return good;
        fprintf(stderr, "load: %s: %s: %s\n", names[call], where, strerror(error));
        atomic_store(&c->work->wrong, true);
        return false;
}

static bool over(const struct work *w)
{
        return now() > w->end || atomic_load(&w->wrong);
}

static void make(struct client *c, const char *where)
{
        double t = now();

        done(c, MAKE, t, mkdir(where, 0777) == 0, where);
}

static void drop(struct client *c, const char *where)
{
        double t = now();

        done(c, REMOVE, t, rmdir(where) == 0, where);
}

static void change(struct client *c, const char *where, const char *text)
{
        double t = now();
        int fd = open(where, O_WRONLY | O_CLOEXEC);
        bool good = fd >= 0 && write(fd, text, strlen(text)) == (ssize_t)strlen(text);

        if (fd >= 0)
                good &= close(fd) == 0;
        done(c, CHANGE, t, good, where);
}

static bool look(struct client *c, enum call call, const char *where)
{
        char text[TEXT];
        double t = now();
        int fd = open(where, O_RDONLY | O_CLOEXEC);
        ssize_t n = fd < 0 ? -1 : read(fd, text, sizeof(text));

        if (fd >= 0)
                close(fd);
        return done(c, call, t, n >= 0, where);
}

static void list(struct client *c, const char *where)
{
        double t = now();
        DIR *d = opendir(where);

        while (d && readdir(d))
                ;
        done(c, LIST, t, d != NULL, where);
        if (d)
                closedir(d);
}

/* The kernel knows the attributes; the daemon is asked nevertheless. */
static void ask(struct client *c, const char *where)
{
        double t = now();
        struct statx s;

        done(c, STAT, t, statx(AT_FDCWD, where, AT_STATX_FORCE_SYNC, STATX_BASIC_STATS, &s) == 0,
             where);
}

/* --- all operations ----------------------------------------------------------------------------
 */

static void volume_life(struct client *c, unsigned n)
{
        char p[PATH_MAX], q[PATH_MAX], text[64];

        make(c, path(c, p, "volumes/c%u-%u", c->no, n));
        ask(c, p);
        change(c, path(c, p, "volumes/c%u-%u/size", c->no, n), "1M\n");
        look(c, WAIT, path(c, p, "volumes/c%u-%u/.wait/available@120", c->no, n));
        snprintf(text, sizeof(text), "of client %u\n", c->no);
        change(c, path(c, p, "volumes/c%u-%u/description", c->no, n), text);
        look(c, READ, path(c, p, "volumes/c%u-%u/spec", c->no, n));
        change(c, path(c, p, "volumes/c%u-%u/data", c->no, n), "bytes of a client");
        look(c, READ, p);
        make(c, path(c, p, "volumes/c%u-%u/snapshots/s", c->no, n));
        look(c, WAIT, path(c, p, "volumes/c%u-%u/snapshots/s/.wait/available@120", c->no, n));
        list(c, path(c, p, "volumes/c%u-%u/snapshots", c->no, n));
        drop(c, path(c, p, "volumes/c%u-%u/snapshots/s", c->no, n));
        path(c, p, "volumes/c%u-%u", c->no, n);
        path(c, q, "volumes/d%u-%u", c->no, n);
        double t = now();

        done(c, CHANGE, t, rename(p, q) == 0, q);
        drop(c, q);
}

static void instance_life(struct client *c, unsigned n)
{
        char p[PATH_MAX], text[PATH_MAX];
        double t;

        make(c, path(c, p, "instances/c%u-%u", c->no, n));
        change(c, path(c, p, "instances/c%u-%u/spec", c->no, n),
               "{\"description\": \"by a spec\", \"flavor\": \"tiny\"}\n");
        make(c, path(c, p, "volumes/i%u-%u", c->no, n));
        change(c, path(c, p, "volumes/i%u-%u/size", c->no, n), "1M\n");
        look(c, WAIT, path(c, p, "volumes/i%u-%u/.wait/available@120", c->no, n));
        snprintf(text, sizeof(text), "volumes/i%u-%u", c->no, n);
        path(c, p, "instances/c%u-%u/volumes/vda", c->no, n);
        t = now();
        done(c, LINK, t, symlink(text, p) == 0, p);
        t = now();
        done(c, LINK, t, readlink(p, text, sizeof(text)) > 0, p);
        list(c, path(c, p, "instances/c%u-%u", c->no, n));
        look(c, READ, path(c, p, "instances/c%u-%u/events", c->no, n));
        change(c, path(c, p, "instances/c%u-%u/ctl", c->no, n), "start\n");
        look(c, WAIT, path(c, p, "instances/c%u-%u/.wait/active@120", c->no, n));
        change(c, path(c, p, "instances/c%u-%u/ctl", c->no, n), "stop now\n");
        look(c, WAIT, path(c, p, "instances/c%u-%u/.wait/stopped@120", c->no, n));
        path(c, p, "instances/c%u-%u/volumes/vda", c->no, n);
        t = now();
        done(c, LINK, t, unlink(p) == 0, p);
        drop(c, path(c, p, "instances/c%u-%u", c->no, n));
        drop(c, path(c, p, "volumes/i%u-%u", c->no, n));
}

static void group_life(struct client *c, unsigned n)
{
        char p[PATH_MAX];

        make(c, path(c, p, "groups/c%u-%u", c->no, n));
        change(c, path(c, p, "groups/c%u-%u/description", c->no, n), "some words\n");
        look(c, READ, path(c, p, "groups/c%u-%u/spec", c->no, n));
        drop(c, path(c, p, "groups/c%u-%u", c->no, n));
}

static void looks(struct client *c)
{
        static const char *const files[] = {"events", "usage",         "quota", "index",
                                            "help",   "volumes/index", "state", "jobs/index"};
        static const char *const folders[] = {"", "volumes", "instances", "jobs", "networks"};
        char p[PATH_MAX];

        for (size_t i = 0; i < sizeof(files) / sizeof(*files); i++)
                look(c, READ, path(c, p, "%s", files[i]));
        for (size_t i = 0; i < sizeof(folders) / sizeof(*folders); i++)
                list(c, path(c, p, "%s", folders[i]));
        ask(c, path(c, p, "state"));
}

static void work_run(struct client *c)
{
        for (unsigned n = 0; !over(c->work); n++) {
                switch (rand_r(&c->seed) % 4) {
                case 0:
                        volume_life(c, n);
                        break;
                case 1:
                        instance_life(c, n);
                        break;
                case 2:
                        group_life(c, n);
                        break;
                default:
                        looks(c);
                }
        }
}

/* --- the rest ----------------------------------------------------------------------------------
 */

static void cycle_run(struct client *c)
{
        static const char *const kinds[] = {"volumes", "instances", "groups", "images"};
        char p[PATH_MAX];
        unsigned n;

        while (!atomic_load(&c->work->wrong) &&
               (n = atomic_fetch_add(&c->work->next, 1)) < 2 * c->work->objects) {
                unsigned o = n % c->work->objects;

                path(c, p, "%s/o%u", kinds[o % 4], o);
                if (n < c->work->objects)
                        make(c, p);
                else
                        drop(c, p);
        }
}

static void stat_run(struct client *c)
{
        static const char *const files[] = {"", "state", "volumes", "usage", "instances", "index"};
        char p[PATH_MAX];

        for (unsigned n = 0; !over(c->work); n++) {
                ask(c, path(c, p, "%s", files[n % 6]));
                usleep(1000);
        }
}

static void probe_run(struct client *c)
{
        char p[PATH_MAX];

        for (unsigned n = 0; !over(c->work); n++) {
                make(c, path(c, p, "groups/probe%u", n));
                usleep(PACE_US);
                ask(c, path(c, p, "groups/probe%u", n));
                look(c, READ, path(c, p, "groups/probe%u/spec", n));
                list(c, path(c, p, "groups"));
                usleep(PACE_US);
                drop(c, path(c, p, "groups/probe%u", n));
        }
}

static void flood_run(struct client *c)
{
        const char *what = c->work->what;
        char p[PATH_MAX];
        int fd;

        for (unsigned n = 0; !over(c->work); n++) {
                if (!strcmp(what, "mkdir")) {
                        make(c, path(c, p, "groups/f%u-%u", c->no, n));
                        drop(c, p);
                } else if (!strcmp(what, "write")) {
                        change(c, path(c, p, "volumes/v/description"),
                               n % 2 ? "one\n" : "another\n");
                } else if (!strcmp(what, "look")) {
                        ask(c, path(c, p, "state"));
                        break;
                } else if (!strcmp(what, "spin")) {
                        look(c, READ, "/dev/null");
                } else if (!strcmp(what, "fail")) {
                        change(c, path(c, p, "ctl"), "nonsense\n");
                } else if (!strcmp(what, "events")) {
                        look(c, READ, path(c, p, "events"));
                        look(c, READ, path(c, p, "index"));
                } else {
                        fd = open(path(c, p, ".wait/change@%u", 1 + n % 2), O_RDONLY | O_CLOEXEC);
                        double t = now();

                        done(c, WAIT, t, fd >= 0 && read(fd, p, 1) > 0, p);
                        if (fd >= 0)
                                close(fd);
                }
        }
}

static int by_size(const void *a, const void *b)
{
        const uint32_t *x = a, *y = b;

        return *x < *y ? -1 : *x > *y;
}

static void print(struct work *w)
{
        for (unsigned i = 0; i < NCALLS; i++) {
                struct figures *f = &w->figures[i];

                if (!f->n)
                        continue;
                qsort(f->us, f->n, sizeof(*f->us), by_size);
                printf("%s calls=%zu refused=%zu p50=%u p99=%u max=%u\n", names[i], f->n,
                       f->refused, f->us[f->n / 2], f->us[f->n - 1 - f->n / 100], f->us[f->n - 1]);
        }
}

static void *client_main(void *arg)
{
        struct client *c = arg;

        c->work->run(c);
        return NULL;
}

static int begin(struct work *w, void (*run)(struct client *c))
{
        w->run = run;
        for (unsigned i = 0; i < NCALLS; i++) {
                pthread_mutex_init(&w->figures[i].lock, NULL);
                w->figures[i].us = malloc(CALLS * sizeof(uint32_t));
                if (!w->figures[i].us)
                        return 1;
        }
        for (unsigned i = 0; i < w->clients; i++) {
                w->client[i] = (struct client){.work = w, .no = i, .seed = i};
                if (pthread_create(&w->client[i].thread, NULL, client_main, &w->client[i]) != 0)
                        return 1;
        }
        for (unsigned i = 0; i < w->clients; i++)
                pthread_join(w->client[i].thread, NULL);
        print(w);
        return atomic_load(&w->wrong);
}

int main(int argc, char **argv)
{
        static struct work w;
        const char *verb = argc > 3 ? argv[1] : "";
        unsigned a = argc > 3 ? (unsigned)atoi(argv[3]) : 0;
        unsigned b = argc > 4 ? (unsigned)atoi(argv[4]) : 0;
        const struct {
                const char *verb;
                int argc;
                void (*run)(struct client *c);
                unsigned clients, seconds;
        } verbs[] = {{"work", 5, work_run, a, b},
                     {"cycle", 5, cycle_run, b, 0},
                     {"stat", 4, stat_run, 1, a},
                     {"probe", 4, probe_run, 1, a},
                     {"flood", 6, flood_run, a, b}};

        for (size_t i = 0; i < sizeof(verbs) / sizeof(*verbs); i++) {
                if (strcmp(verb, verbs[i].verb) != 0 || argc != verbs[i].argc ||
                    verbs[i].clients > CLIENTS)
                        continue;
                w.tenant = argv[2];
                w.what = argc > 5 ? argv[5] : NULL;
                w.objects = a;
                w.clients = verbs[i].clients;
                w.end = now() + verbs[i].seconds;
                return begin(&w, verbs[i].run);
        }
        fputs("usage: load work|cycle|stat|probe|flood TENANT ...\n", stderr);
        return 2;
}
