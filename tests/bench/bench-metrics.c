/* bench-metrics [GUESTS [ROUNDS]]: what the figures of many guests cost a host each ten seconds:
 * the one call of libvirt's, on its test driver, and a sample for each into its history. */
#include "backend/compute/libvirt/driver.h"

#include <stdio.h>
#include <stdlib.h>
#include <sys/resource.h>

#include "common/clock.h"
#include "control/metrics-ring.h"

static virConnectPtr conn;

/* What stats.c needs of the driver. */
void reaper_busy(struct reaper *r, int change)
{
}

virConnectPtr link_get(struct driver *d, struct err **e)
{
        virConnectRef(conn);
        return conn;
}

int virt_error(virConnectPtr c, struct err **e)
{
        return err_set(e, -EIO, "%s", virGetLastErrorMessage());
}

struct round {
        struct ring_file **rings;
        unsigned n;
        int64_t at;
};

static void note(void *arg, const char *uuid, const struct guest_stats *s)
{
        struct round *r = arg;
        struct sample sample = {.at = r->at};

        memcpy(sample.v, s->all, sizeof(sample.v));
        ring_write(r->rings[r->n++], &sample);
}

static void make_guests(unsigned guests)
{
        for (unsigned i = 1; i < guests; i++) { /* one is there */
                virDomainPtr dom;
                char xml[200];

                snprintf(xml, sizeof(xml),
                         "<domain type='test'><name>g%u</name><memory>65536</memory>"
                         "<os><type>hvm</type></os></domain>",
                         i);
                dom = virDomainCreateXML(conn, xml, 0);
                if (!dom)
                        abort();
                virDomainFree(dom);
        }
}

static double cpu_ms(void)
{
        struct rusage u;

        getrusage(RUSAGE_SELF, &u);
        return (u.ru_utime.tv_sec + u.ru_stime.tv_sec) * 1e3 +
               (u.ru_utime.tv_usec + u.ru_stime.tv_usec) / 1e3;
}

int main(int argc, char **argv)
{
        unsigned guests = argc > 1 ? atoi(argv[1]) : 200, rounds = argc > 2 ? atoi(argv[2]) : 50;
        struct ring_file **rings = calloc(guests, sizeof(*rings));
        char dir[] = "/tmp/bench-metrics.XXXXXX", path[64];
        double before;
        int64_t from;

        conn = virConnectOpen("test:///default");
        if (!conn || !rings || !mkdtemp(dir))
                return 1;
        make_guests(guests);
        for (unsigned i = 0; i < guests; i++) {
                snprintf(path, sizeof(path), "%s/%u", dir, i);
                rings[i] = ring_open(path, true);
                unlink(path);
                if (!rings[i])
                        return 1;
        }
        rmdir(dir);
        from = clock_mono();
        before = cpu_ms();
        for (unsigned i = 0; i < rounds; i++) {
                struct round r = {.rings = rings, .at = clock_now()};

                if (op_stats(NULL, note, &r, NULL) < 0 || r.n != guests)
                        return 1;
        }
        printf("%u guests: %.2f ms a round, %.2f ms of processor\n", guests,
               (clock_mono() - from) / 1e3 / rounds, (cpu_ms() - before) / rounds);
        for (unsigned i = 0; i < guests; i++)
                ring_close(rings[i]);
        free(rings);
        virConnectClose(conn);
        return 0;
}
