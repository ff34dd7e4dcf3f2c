/* Containers: libvirt's LXC driver.
 *
 * It has no button to press: a container's first process is asked to end by the signal that it
 * knows.  It has no bulk statistics (virConnectGetAllDomainStats) either: each container is asked.
 */
#include "backend/compute/libvirt/driver.h"

#include "common/fault.h"
#include "common/fileio.h"

static int lxc_start(struct compute *c, const struct guest *g, struct err **e)
{
        struct driver *d = driver(c);
        _cleanup_conn_ virConnectPtr conn = link_get(d, e);
        _cleanup_dom_ virDomainPtr dom = NULL;
        _cleanup_free_ char *xml = NULL;
        int r;

        if (!conn)
                return -ECONNREFUSED;
        r = xml_container(g, d->owner, &xml, e);
        if (r < 0)
                return r;
        if (guest_is_active(conn, g->uuid))
                return 0;
        r = FAULT("compute.start");
        if (r < 0)
                return err_errno(e, r, "start guest");
        dom = guest_create(conn, xml, 0);
        if (!dom)
                return virt_error(conn, e);
        console_ensure(d, dom);
        return 0;
}

/* --- ending ---------------------------------------------------------------------------------- */

/* The first process of the container, on this host; 0: nobody knows.  A domain's id is the process
 * of libvirt_lxc, whose one child it is. */
static pid_t first_process(virDomainPtr dom)
{
        const unsigned id = virDomainGetID(dom);
        _cleanup_free_ char *text = NULL;
        char path[64];

        snprintf(path, sizeof(path), "/proc/%u/task/%u/children", id, id);
        if (id == (unsigned)-1 || file_read(path, 256, &text, NULL, NULL) < 0)
                return 0;
        return (pid_t)strtol(text, NULL, 10);
}

/* What asks it to power off.  systemd and busybox have signals of their own for it, and take
 * SIGTERM for something else; any other program is asked as service managers do. */
static unsigned off_signal(virDomainPtr dom)
{
        char path[64], exe[256], words[64] = "";
        pid_t pid = first_process(dom);
        _cleanup_free_ char *text = NULL;
        const char *name;
        size_t len;
        ssize_t n;

        snprintf(path, sizeof(path), "/proc/%d/exe", (int)pid);
        n = pid > 0 ? readlink(path, exe, sizeof(exe) - 1) : -1;
        if (n <= 0)
                return VIR_DOMAIN_PROCESS_SIGNAL_TERM;
        exe[n] = '\0';
        name = strrchr(exe, '/') ? strrchr(exe, '/') + 1 : exe;
        if (streq(name, "systemd"))
                return VIR_DOMAIN_PROCESS_SIGNAL_RT4;
        snprintf(path, sizeof(path), "/proc/%d/cmdline", (int)pid);
        if (file_read(path, 4096, &text, &len, NULL) == 0)
                snprintf(words, sizeof(words), "%s", text);
        len = strlen(words);
        if (streq(name, "busybox") && len >= 4 && streq(words + len - 4, "init"))
                return VIR_DOMAIN_PROCESS_SIGNAL_USR2;
        return VIR_DOMAIN_PROCESS_SIGNAL_TERM;
}

static int lxc_shutdown(struct compute *c, const char *uuid, struct err **e)
{
        _cleanup_conn_ virConnectPtr conn = NULL;
        _cleanup_dom_ virDomainPtr dom = NULL;
        int r = guest_find(c, uuid, &conn, &dom, e);

        if (r == 0 && virDomainSendProcessSignal(dom, 1, off_signal(dom), 0) < 0)
                r = guest_failed(conn, dom, uuid, e);
        return r;
}

/* --- looking --------------------------------------------------------------------------------- */

/* One that has restarted itself has another terminal. */
static int lxc_state(struct compute *c, const char *uuid, enum guest_state *ret, struct err **e)
{
        int r = op_state(c, uuid, ret, e);

        if (r == 0 && (*ret == GUEST_RUNNING || *ret == GUEST_PAUSED)) {
                _cleanup_conn_ virConnectPtr conn = NULL;
                _cleanup_dom_ virDomainPtr dom = NULL;

                if (guest_find(c, uuid, &conn, &dom, NULL) == 0)
                        console_ensure(driver(c), dom);
        }
        return r;
}

/* Also sees to their consoles, whose programs may have ended by themselves. */
static int lxc_list(struct compute *c, int (*each)(void *arg, const char *uuid, enum guest_state s),
                    void *arg, struct err **e)
{
        struct driver *d = driver(c);
        _cleanup_conn_ virConnectPtr conn = link_get(d, e);
        virDomainPtr *doms = NULL;
        int n;

        if (!conn)
                return -ECONNREFUSED;
        n = virConnectListAllDomains(conn, &doms, VIR_CONNECT_LIST_DOMAINS_ACTIVE);
        for (int i = 0; i < n; i++) {
                if (guest_is_ours(d, doms[i]))
                        console_ensure(d, doms[i]);
                virDomainFree(doms[i]);
        }
        free(doms);
        virResetLastError();
        return op_list(c, each, arg, e);
}

struct looking {
        virDomainPtr dom;
        struct guest_stats *s;
};

static void add_nic(void *arg, const char *device)
{
        struct looking *l = arg;
        struct guest_device *v = &l->s->nic[l->s->nnics];
        virDomainInterfaceStatsStruct i;

        if (l->s->nnics == ARRAY_SIZE(l->s->nic) ||
            virDomainInterfaceStats(l->dom, device, &i, sizeof(i)) < 0)
                return;
        snprintf(v->name, sizeof(v->name), "%s", device);
        /* -1: not known */
        l->s->all[GUEST_RX_PACKETS] += v->rd_ops = (uint64_t)MAX(i.rx_packets, 0LL);
        l->s->all[GUEST_RX_BYTES] += v->rd_bytes = (uint64_t)MAX(i.rx_bytes, 0LL);
        l->s->all[GUEST_TX_PACKETS] += v->wr_ops = (uint64_t)MAX(i.tx_packets, 0LL);
        l->s->all[GUEST_TX_BYTES] += v->wr_bytes = (uint64_t)MAX(i.tx_bytes, 0LL);
        l->s->nnics++;
}

static bool look(virDomainPtr dom, struct guest_stats *s)
{
        _cleanup_free_ char *xml = virDomainGetXMLDesc(dom, 0);
        struct looking l = {dom, s};
        virDomainInfo info;

        if (!xml || virDomainGetInfo(dom, &info) < 0)
                return false;
        s->all[GUEST_CPU] = info.cpuTime;
        s->all[GUEST_VCPUS] = info.nrVirtCpu;
        s->all[GUEST_MEM_SIZE] = (uint64_t)info.maxMem << 10;
        s->all[GUEST_MEM_RSS] = (uint64_t)info.memory << 10; /* of its cgroup */
        xml_each_nic(xml, add_nic, &l);
        return true;
}

static int lxc_stats(struct compute *c,
                     void (*each)(void *arg, const char *uuid, const struct guest_stats *s),
                     void *arg, struct err **e)
{
        _cleanup_conn_ virConnectPtr conn = link_get(driver(c), e);
        char uuid[VIR_UUID_STRING_BUFLEN];
        virDomainPtr *doms = NULL;
        int n;

        if (!conn)
                return -ECONNREFUSED;
        n = virConnectListAllDomains(conn, &doms, VIR_CONNECT_LIST_DOMAINS_ACTIVE);
        if (n < 0)
                return virt_error(conn, e);
        for (int i = 0; i < n; i++) {
                struct guest_stats s = {0};

                if (look(doms[i], &s) && virDomainGetUUIDString(doms[i], uuid) == 0)
                        each(arg, uuid, &s);
                virDomainFree(doms[i]);
        }
        free(doms);
        virResetLastError();
        return 0;
}

const struct compute_ops lxc_ops = {
        .name = "libvirt-lxc",
        .start = lxc_start,
        .shutdown = lxc_shutdown,
        .destroy = op_destroy,
        .pause = op_pause,
        .resume = op_resume,
        .stats = lxc_stats,
        .describe = op_describe,
        .state = lxc_state,
        .list = lxc_list,
        .close = op_close,
        .warm = op_warm,
};
