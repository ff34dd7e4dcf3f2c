/* What goes into libvirt: the domain's XML, and what is refused. */
#include "backend/compute/libvirt/driver.h"

#include <setjmp.h>
#include <stdarg.h>
#include <cmocka.h>
#include <libxml/parser.h>
#include <libxml/xpath.h>
#include <libxml/xpathInternals.h>

static const struct guest_disk disks[] = {
        {.target = "vda", .socket = "/run/s/1/a.sock", .export = "vol/1", .serial = "vol-0001"},
        {.target = "vdb",
         .socket = "/run/s/1/b,c.sock",
         .export = "",
         .readonly = true,
         .shared = true},
};

static struct guest full(void)
{
        return (struct guest){.uuid = "01234567-89ab-4cde-8f01-23456789abcd",
                              .name = "web-1a2b3c4d",
                              .title = "tenant/web",
                              .vcpus = 2,
                              .memory = (512 << 20) + 1,
                              .uid = 70001,
                              .gid = 70002,
                              .disks = disks,
                              .ndisks = 2,
                              .console_log = "/var/lib/s/console.log",
                              .console_sock = "/run/s/console",
                              .agent_sock = "/run/s/agent.sock"};
}

static struct guest direct(void)
{
        struct guest g = full();

        g.kernel = "/boot/vmlinuz";
        g.initrd = "/boot/initrd";
        g.cmdline = "console=ttyS0 root=/dev/vda1";
        return g;
}

/* The value of an XPath expression in the XML, as text. */
static char *look(const char *xml, const char *path)
{
        xmlDocPtr doc = xmlReadMemory(xml, (int)strlen(xml), "x", NULL, XML_PARSE_NONET);
        xmlXPathContextPtr ctx;
        xmlXPathObjectPtr o;
        xmlChar *s;
        char *copy;

        assert_non_null(doc);
        ctx = xmlXPathNewContext(doc);
        xmlXPathRegisterNs(ctx, (const xmlChar *)"s", (const xmlChar *)METADATA_URI);
        o = xmlXPathEvalExpression((const xmlChar *)path, ctx);
        assert_non_null(o);
        s = xmlXPathCastToString(o);
        copy = strdup((const char *)s);
        xmlFree(s);
        xmlXPathFreeObject(o);
        xmlXPathFreeContext(ctx);
        xmlFreeDoc(doc);
        return copy;
}

static void is(const char *xml, const char *path, const char *want)
{
        _cleanup_free_ char *got = look(xml, path);

        if (!streq(got, want))
                fail_msg("%s is '%s', not '%s', in %s", path, got, want, xml);
}

static char *make(const struct guest *g, bool dac)
{
        _cleanup_err_ struct err *e = NULL;
        char *xml = NULL;

        if (xml_domain(g, "cloud-1", dac, &xml, &e) < 0)
                fail_msg("%s", err_msg(e));
        return xml;
}

static void whole_guest(void **state)
{
        struct guest g = full();
        _cleanup_free_ char *x = make(&g, true);

        is(x, "/domain/@type", "qemu");
        is(x, "/domain/name", "web-1a2b3c4d");
        is(x, "/domain/uuid", "01234567-89ab-4cde-8f01-23456789abcd");
        is(x, "/domain/title", "tenant/web");
        is(x, "/domain/metadata/s:guest/@owner", "cloud-1");
        is(x, "/domain/memory[@unit='KiB']", "524288");
        is(x, "/domain/vcpu", "2");
        is(x, "count(/domain/vcpu/@current)", "0");
        is(x, "count(//disk[@type='file'][@device='disk'])", "0");
        is(x,
           "count(//disk[@type='file'][@device='cdrom'][not(source)]/"
           "target[@dev='sda'][@bus='sata'])",
           "1");
        is(x, "/domain/os/type[@arch='x86_64'][@machine='q35']", "hvm");
        is(x, "count(/domain/os/kernel)", "0");
        is(x, "/domain/on_poweroff", "destroy");
        is(x, "/domain/on_reboot", "restart");
        is(x, "/domain/on_crash", "destroy");
        is(x, "/domain/clock/@offset", "utc");
        is(x, "/domain/seclabel[@type='static'][@model='dac'][@relabel='yes']/label",
           "+70001:+70002");
        is(x, "count(//controller[@type='pci'][@model='pcie-root'][@index='0'])", "1");
        is(x, "count(//controller[@model='pcie-root-port'][@index > 0])", "13");
        is(x, "//serial[@type='unix']/source[@mode='bind']/@path", "/run/s/console");
        is(x, "//channel[@type='unix']/source[@mode='bind']/@path", "/run/s/agent.sock");
        is(x, "//channel/target[@type='virtio']/@name", "org.qemu.guest_agent.0");
        is(x, "//serial/log[@append='on']/@file", "/var/lib/s/console.log");
        is(x, "//memballoon[@model='virtio']/stats/@period", "10");
        is(x, "count(//os/loader) + count(//tpm) + count(//watchdog) + count(//numa)", "0");
        is(x, "count(//topology) + count(//memoryBacking) + count(//maxMemory)", "0");
        is(x, "//controller[@type='usb']/@model", "none");

        free(x);
        g.vcpus_max = 4;
        g.vnc_sock = "/d/vnc.sock";
        g.config_drive = "/d/config.iso";
        x = make(&g, true);
        is(x, "/domain/vcpu", "4");
        is(x, "/domain/vcpu/@current", "2");
        is(x, "//graphics[@type='vnc']/@socket", "/d/vnc.sock");
        is(x, "string-length(//graphics/@passwd)", "8"); /* nobody's, and over */
        is(x, "//graphics/@passwdValidTo", "1970-01-01T00:00:01");
        is(x, "count(//video)", "1");
        is(x, "//disk[@type='file'][source]/target/@dev", "vdz");
        is(x, "//disk[@type='file']/source/@file", "/d/config.iso");
        is(x, "count(//disk[@type='file'][source]/readonly)", "1");
}

static void its_disks(void **state)
{
        struct guest g = full();
        _cleanup_free_ char *x = make(&g, true);

        is(x, "count(//disk[@type='network'][@device='disk'])", "2");
        /* On every disk: the guest stops, it gets no error. */
        is(x, "count(//disk/driver[@error_policy='stop'][@rerror_policy='stop'])", "2");
        is(x, "count(//disk/driver[@name='qemu'][@type='raw'][@cache='none'][@discard='unmap'])",
           "2");
        is(x, "//disk[1]/source[@protocol='nbd']/@name", "vol/1");
        is(x, "//disk[1]/source/host[@transport='unix']/@socket", "/run/s/1/a.sock");
        is(x, "//disk[1]/target[@bus='virtio']/@dev", "vda");
        is(x, "//disk[1]/serial", "vol-0001");
        is(x, "//disk[1]/boot/@order", "1");
        is(x, "count(//disk[1]/readonly)", "0");
        is(x, "//disk[2]/source/host/@socket", "/run/s/1/b,c.sock");
        is(x, "count(//disk[2]/readonly)", "1");
        is(x, "count(//disk[1]/shareable)", "0");
        is(x, "count(//disk[2]/shareable)", "1");
        is(x, "count(//disk[2]/serial)", "0");
        is(x, "//disk[2]/boot/@order", "2");
}

static void direct_boot(void **state)
{
        struct guest g = direct();
        _cleanup_free_ char *x = NULL;

        g.kvm = true;
        g.uid = (uid_t)-1;
        x = make(&g, true);
        is(x, "/domain/@type", "kvm");
        is(x, "/domain/cpu/@mode", "host-passthrough");
        is(x, "/domain/os/kernel", "/boot/vmlinuz");
        is(x, "/domain/os/initrd", "/boot/initrd");
        is(x, "/domain/os/cmdline", "console=ttyS0 root=/dev/vda1");
        is(x, "count(//boot)", "0");
        is(x, "count(//seclabel)", "0"); /* the engine's own user */
}

static void session_has_no_label(void **state)
{
        struct guest g = full();
        _cleanup_free_ char *x = make(&g, false);

        is(x, "count(//seclabel)", "0");
}

/* Text stays text. */
static void hostile_text(void **state)
{
        static const char evil[] = "</title><on_crash>preserve</on_crash><x a='\"&amp;&lt; ]]>";
        struct guest g = direct();
        struct guest_disk d = disks[0];
        _cleanup_free_ char *x = NULL, *y = NULL;

        g.title = evil;
        g.cmdline = evil;
        d.export = evil;
        d.socket = "/run/<&'\">/%s";
        g.disks = &d;
        g.ndisks = 1;
        x = make(&g, true);
        is(x, "/domain/title", evil);
        is(x, "/domain/os/cmdline", evil);
        is(x, "//disk/source/@name", evil);
        is(x, "//disk/source/host/@socket", "/run/<&'\">/%s");
        is(x, "count(//x)", "0");
        is(x, "count(//on_crash)", "1");
        assert_int_equal(xml_disk(&d, false, &y, NULL), 0);
        is(y, "/disk/source/@name", evil);
}

static struct guest board(void)
{
        static const struct guest_nic nic = {.mac = "06:00:00:12:34:56", .device = "tap1"};
        struct guest g = full();

        g.vcpus = 3;
        g.vcpus_max = 8;
        g.cores = 2;
        g.threads = 2;
        g.cpu = "Nehalem";
        g.numa = 2;
        g.memory = 1 << 30;
        g.memory_max = 2ULL << 30;
        g.huge_page = 2 << 20;
        g.scsi = true;
        g.tpm_sock = "/d/tpm/socket";
        g.watchdog = "inject-nmi";
        g.boot = "cdrom network disk";
        g.nics = &nic;
        g.nnics = 1;
        g.cdrom = (struct guest_disk){
                .target = "sda", .socket = "/run/s/cd.sock", .export = "iso-1", .readonly = true};
        return g;
}

static void its_board(void **state)
{
        struct guest g = board();
        _cleanup_free_ char *x = make(&g, true);

        is(x, "/domain/vcpu[@current='3']", "8");
        is(x, "count(/domain/cpu/topology[@sockets='2'][@dies='1'][@cores='2'][@threads='2'])",
           "1");
        is(x, "/domain/cpu[@mode='custom'][@match='exact']/model[@fallback='forbid']", "Nehalem");
        is(x, "/domain/cpu/numa/cell[1][@id='0'][@cpus='0-3'][@unit='KiB']/@memory", "524288");
        is(x, "/domain/cpu/numa/cell[2][@id='1'][@cpus='4-7'][@unit='KiB']/@memory", "524288");
        is(x, "/domain/maxMemory[@slots='16'][@unit='KiB']", "2097152");
        is(x, "/domain/memoryBacking/hugepages/page[@unit='KiB']/@size", "2048");
        is(x, "count(//controller[@type='scsi'][@index='0'][@model='virtio-scsi'])", "1");
        is(x, "count(//disk/target[@bus='scsi'])", "3");
        is(x, "//disk[target/@dev='vdb']/address[@type='drive']/@target", "1");
        is(x, "//disk[@device='cdrom']/source[@protocol='nbd']/host/@socket", "/run/s/cd.sock");
        is(x, "count(//disk[@device='cdrom']/readonly)", "1");
        is(x, "//disk[@device='cdrom']/boot/@order", "1");
        is(x, "//interface/boot/@order", "2");
        is(x, "count(//interface/rom)", "0");
        is(x, "//disk[target/@dev='vda']/boot/@order", "3");
        is(x, "//disk[target/@dev='vdb']/boot/@order", "4");
        is(x, "//tpm[@model='tpm-crb']/backend[@type='external']/source/@path", "/d/tpm/socket");
        is(x, "//watchdog[@model='i6300esb']/@action", "inject-nmi");
}

/* Plugging memory in needs a node, though nobody asked for one. */
static void memory_grows(void **state)
{
        struct guest g = full();
        _cleanup_free_ char *x = NULL, *dimm = NULL;
        uint64_t size = 0;

        g.memory = 256 << 20;
        g.memory_max = 1 << 30;
        x = make(&g, true);
        is(x, "/domain/cpu/numa/cell[@cpus='0-1']/@memory", "262144");
        assert_int_equal(xml_memory_size(x, &size, NULL), 0);
        assert_int_equal(size, 256 << 20);
        assert_int_equal(xml_dimm(128 << 20, &dimm, NULL), 0);
        is(dimm, "/memory[@model='dimm']/target/size[@unit='KiB']", "131072");
        is(dimm, "/memory/target/node", "0");
}

static void its_firmware(void **state)
{
        struct guest g = full();
        _cleanup_free_ char *x = NULL, *screen = NULL, *media = NULL;

        g.nvram = "/d/nvram.fd";
        x = make(&g, true);
        is(x, "/domain/os/loader[@readonly='yes'][@type='pflash']", GUEST_FIRMWARE);
        is(x, "/domain/os/nvram", "/d/nvram.fd");
        assert_int_equal(xml_screen_device("/d/vnc", "secret12", 86400, &screen, NULL), 0);
        is(screen, "/graphics[@type='vnc'][@socket='/d/vnc'][@passwd='secret12']/@passwdValidTo",
           "1970-01-02T00:00:00");
        assert_int_equal(xml_media(NULL, false, &media, NULL), 0);
        is(media, "count(/disk[@device='cdrom'][not(source)]/readonly)", "1");
}

static void merges(void **state)
{
        static const char extra[] =
                "<domain xmlns:qemu='http://libvirt.org/schemas/domain/qemu/1.0'>"
                "<iothreads>2</iothreads><memoryBacking><locked/></memoryBacking>"
                "<features><pae/></features><cpu><feature policy='require' name='aes'/></cpu>"
                "<devices><controller type='usb' model='qemu-xhci'/>"
                "<disk type='file' device='disk'><source file='/x'/><target dev='sdb'/></disk>"
                "<interface type='user'/><sound model='ich9'/></devices>"
                "<qemu:commandline><qemu:arg value='-no-hpet'/></qemu:commandline></domain>";
        struct guest g = board();
        _cleanup_free_ char *x = NULL;

        g.extra = extra;
        x = make(&g, true);
        is(x, "/domain/iothreads", "2");
        is(x, "count(/domain/features)", "1");
        is(x, "count(/domain/features[acpi][pae])", "1");
        is(x, "count(/domain/memoryBacking[hugepages][locked])", "1");
        is(x, "count(/domain/cpu[model='Nehalem']/feature[@name='aes'])", "1");
        is(x, "count(/domain/devices)", "1");
        is(x, "count(/domain/devices/sound)", "1");
        is(x, "count(//controller[@type='usb'])", "1");
        is(x, "//controller[@type='usb']/@model", "qemu-xhci");
        is(x, "//disk[target/@dev='sdb']/source/@file", "/x");
        is(x, "count(/domain/*[local-name()='commandline']/*)", "1");
}

/* What is ours, by file or by nature, and what is no XML. */
static void does_not_merge(void **state)
{
        static const struct {
                const char *extra, *words;
        } refused[] = {
                {"<domain>", "line 1"},
                {"", "well-formed"},
                {"<network/>", "not a <domain>"},
                {"<domain type='kvm'/>", "<domain type=>"},
                {"<!DOCTYPE d [<!ENTITY a 'b'>]><domain>&a;</domain>", "DOCTYPE"},
                {"<domain><uuid>1</uuid></domain>", "<uuid>"},
                {"<domain><os/></domain>", "<os>"},
                {"<domain><seclabel type='none'/></domain>", "<seclabel>"},
                {"<domain><cpu mode='custom'/></domain>", "<cpu mode=>"},
                {"<domain><cpu><numa/></cpu></domain>", "<cpu/numa>"},
                {"<domain><devices><emulator>/bin/sh</emulator></devices></domain>", "emulator"},
                {"<domain><devices><disk><target dev='vdc'/></disk></devices></domain>", "disk"},
                {"<domain><devices><disk><target dev='sda'/></disk></devices></domain>", "disk"},
                {"<domain><devices><disk/></devices></domain>", "disk"},
                {"<domain><devices><interface type='ethernet'/></devices></domain>", "interface"},
                {"<domain><devices><controller type='pci'/></devices></domain>", "controller"},
                {"<domain><devices><serial/></devices></domain>", "serial"},
        };

        for (size_t i = 0; i < ARRAY_SIZE(refused); i++) {
                _cleanup_err_ struct err *e = NULL;

                assert_int_equal(xml_check_extra(refused[i].extra, &e), -EINVAL);
                if (!strstr(err_msg(e), refused[i].words))
                        fail_msg("%s: '%s'", refused[i].extra, err_msg(e));
        }
        assert_int_equal(xml_check_extra("<domain/>", NULL), 0);
}

static void refuses(const struct guest *g, int code, const char *words)
{
        _cleanup_err_ struct err *e = NULL;
        char *xml = NULL;

        assert_int_equal(xml_domain(g, "c", true, &xml, &e), code);
        assert_null(xml);
        if (!strstr(err_msg(e), words))
                fail_msg("'%s' does not speak of '%s'", err_msg(e), words);
}

static void refused_text(void **state)
{
        static const char *const bad[] = {"a\nb",         "a\tb",         "a\033[2J",
                                          "a\177",        "\xff\xfe",     "a\xc3",
                                          "\xef\xbf\xbe", "\xed\xa0\x80", "\xc0\x80"};

        for (size_t i = 0; i < ARRAY_SIZE(bad); i++) {
                struct guest g = direct();
                struct guest_disk d = disks[0];

                g.title = bad[i];
                refuses(&g, -EINVAL, "title");
                g = direct();
                g.cmdline = bad[i];
                refuses(&g, -EINVAL, "command line");
                g = direct();
                d.export = bad[i];
                g.disks = &d;
                g.ndisks = 1;
                refuses(&g, -EINVAL, "export");
        }
}

static void refused_rest(void **state)
{
        static const char *const names[] = {"</name><x>", "", "a b", "-a", "a/b", "../a"};
        static const char *const targets[] = {"sda", "vd", "vdA", "vdaa", "", "vda'"};
        char longer[200];
        struct guest g;
        struct guest_disk d = disks[0];

        for (size_t i = 0; i < ARRAY_SIZE(names); i++) {
                g = full();
                g.name = names[i];
                refuses(&g, -EINVAL, "name");
        }
        for (size_t i = 0; i < ARRAY_SIZE(targets); i++) {
                g = full();
                snprintf(d.target, sizeof(d.target), "%s", targets[i]);
                g.disks = &d;
                refuses(&g, -EINVAL, "target");
        }
        memset(longer, 'x', sizeof(longer));
        longer[0] = '/';
        longer[150] = '\0';
        g = full();
        g.console_sock = longer;
        refuses(&g, -ENAMETOOLONG, "console socket");
        g = full();
        g.agent_sock = longer;
        refuses(&g, -ENAMETOOLONG, "agent");
        g = full();
        g.console_log = "relative";
        refuses(&g, -EINVAL, "absolute");
        g = full();
        strcpy(g.uuid, "no-uuid");
        refuses(&g, -EINVAL, "UUID");
        g = full();
        g.cmdline = "quiet";
        refuses(&g, -EINVAL, "kernel");
        g = full();
        g.vcpus = 0;
        refuses(&g, -EINVAL, "processor");
        d = disks[0];
        d.serial = "123456789012345678901";
        g = full();
        g.disks = &d;
        refuses(&g, -EINVAL, "serial");
}

static void count_nbd(void *arg, const struct disk_found *f)
{
        *(unsigned *)arg += f->nbd ? 100 : 1;
}

static void reads_back(void **state)
{
        static const char live[] =
                "<domain><devices><disk><target dev='vda'/></disk><disk type='network'>"
                "<source protocol='nbd' name='n&amp;1' index='7'><host transport='unix' "
                "socket='/s'/></source>"
                "<target dev='vdb'/><readonly/><alias "
                "name='virtio-disk1'/></disk></devices></domain>";
        unsigned count = 0;
        struct disk_found f;
        char *owner;

        assert_int_equal(xml_find_disk(live, "vdb", &f, NULL), 0);
        assert_true(f.found);
        assert_string_equal(f.alias, "virtio-disk1");
        assert_string_equal(f.export, "n&1");
        assert_string_equal(f.socket, "/s");
        assert_true(f.nbd && f.readonly);
        assert_int_equal(f.index, 7);
        disk_found_done(&f);
        assert_int_equal(xml_find_disk(live, "vda", &f, NULL), 0);
        assert_true(f.found);
        assert_null(f.alias);
        assert_false(f.nbd || f.readonly);
        assert_int_equal(f.index, 0);
        disk_found_done(&f);
        xml_each_disk(live, count_nbd, &count);
        assert_int_equal(count, 101);
        assert_int_equal(xml_find_disk(live, "vdc", &f, NULL), 0);
        assert_false(f.found);
        assert_int_equal(xml_find_disk("<domain>", "vda", &f, NULL), -EIO);
        owner = xml_owner("<guest xmlns='" METADATA_URI "' owner='me'/>");
        assert_string_equal(owner, "me");
        free(owner);
        assert_null(xml_owner("<guest/>"));
        assert_null(xml_owner("junk"));
}

static void its_networks(void **state)
{
        struct guest_nic nic = {.mac = "06:00:00:00:00:01", .device = "snt012", .mtu = 1400};
        static const char live[] = "<domain><devices><interface type='ethernet'><mac "
                                   "address='06:00:00:00:00:01'/><alias name='net0'/></interface>"
                                   "</devices></domain>";
        _cleanup_free_ char *xml = NULL;
        struct disk_found f;
        struct guest g = full();

        assert_int_equal(xml_nic(&nic, &xml, NULL), 0);
        assert_non_null(strstr(xml, "<target dev=\"snt012\" managed=\"no\"/>"));
        assert_non_null(strstr(xml, "<mtu size=\"1400\"/>"));
        assert_int_equal(xml_find_nic(live, nic.mac, &f, NULL), 0);
        assert_true(f.found);
        assert_string_equal(f.alias, "net0");
        disk_found_done(&f);
        assert_int_equal(xml_find_nic(live, "06:00:00:00:00:02", &f, NULL), 0);
        assert_false(f.found);
        g.nics = &nic;
        g.nnics = 1;
        strcpy(nic.mac, "06:00:00:00:00");
        refuses(&g, -EINVAL, "MAC");
        strcpy(nic.mac, "06:00:00:00:00:01");
        strcpy(nic.device, "../x");
        refuses(&g, -EINVAL, "device");
}

/* On another host its folder and its disks' sockets are elsewhere; nothing else changes. */
static void elsewhere(void **state)
{
        static const char here[] =
                "<domain><os><kernel>/srv/a/i/kernel</kernel><cmdline>x=/srv/a/i/kernel</cmdline></"
                "os>"
                "<devices><disk><source name='/srv/a/i'><host socket='/run/x/1'/></source></disk>"
                "<disk><source><host socket='/run/x/11'/></source></disk>"
                "<serial><log file='/srv/a/i/c &amp; d'/></serial></devices></domain>";
        const struct guest_path paths[] = {{"/srv/a/i", "/srv/b & c/i"}, {"/run/x/1", "/run/y"}};
        _cleanup_free_ char *xml = NULL;
        _cleanup_err_ struct err *e = NULL;

        assert_int_equal(xml_move(here, paths, 2, &xml, NULL), 0);
        assert_non_null(strstr(xml, "<kernel>/srv/b &amp; c/i/kernel</kernel>"));
        assert_non_null(strstr(xml, "<cmdline>x=/srv/a/i/kernel</cmdline>"));
        assert_non_null(strstr(xml, "name=\"/srv/b &amp; c/i\""));
        assert_non_null(strstr(xml, "socket=\"/run/y\""));
        assert_non_null(strstr(xml, "socket=\"/run/x/11\""));
        assert_non_null(strstr(xml, "file=\"/srv/b &amp; c/i/c &amp; d\""));
        assert_int_equal(xml_move("<domain", paths, 2, &xml, &e), -EIO);
}

/* A container has users, a network and a share of the processors of its own. */
static void container(void **state)
{
        struct guest_nic nic = {.mac = "52:54:00:00:00:01", .device = "snt0123", .guest = "eth0"};
        struct guest g = {.uuid = "01234567-89ab-4cde-8f01-23456789abcd",
                          .name = "box-1a2b3c4d",
                          .vcpus = 2,
                          .memory = 64 << 20,
                          .root = "/s/tree/root",
                          .init = "/sbin/init",
                          .id_base = 2000065536,
                          .config_dir = "/s/tree/config",
                          .console_log = "/s/console.log",
                          .console_sock = "/s/console.sock",
                          .nics = &nic,
                          .nnics = 1};
        struct container_found f;
        char *xml;

        assert_int_equal(xml_container(&g, "cloud", &xml, NULL), 0);
        is(xml, "/domain/@type", "lxc");
        is(xml, "/domain/idmap/uid/@target", "2000065536");
        is(xml, "/domain/idmap/gid/@count", "65536");
        is(xml, "count(/domain/features/privnet)", "1");
        is(xml, "/domain/cputune/quota", "200000");
        is(xml, "/domain/devices/filesystem[target/@dir='/']/source/@dir", "/s/tree/root");
        is(xml, "count(/domain/devices/filesystem[readonly])", "1");
        is(xml, "/domain/devices/interface/guest/@dev", "eth0");
        assert_int_equal(xml_find_container(xml, &f, NULL), 0);
        assert_string_equal(f.log, "/s/console.log");
        assert_string_equal(f.socket, "/s/console.sock");
        assert_null(f.terminal); /* it does not run */
        container_found_done(&f);
        free(xml);
        g.id_base = 0; /* its root would be ours */
        assert_int_equal(xml_container(&g, "cloud", &xml, NULL), -EINVAL);
        g.id_base = 2000065536;
        g.ndisks = 1;
        assert_int_equal(xml_container(&g, "cloud", &xml, NULL), -EINVAL);
}

int main(void)
{
        const struct CMUnitTest tests[] = {
                cmocka_unit_test(whole_guest),  cmocka_unit_test(its_disks),
                cmocka_unit_test(direct_boot),  cmocka_unit_test(session_has_no_label),
                cmocka_unit_test(hostile_text), cmocka_unit_test(refused_text),
                cmocka_unit_test(refused_rest), cmocka_unit_test(reads_back),
                cmocka_unit_test(its_networks), cmocka_unit_test(its_board),
                cmocka_unit_test(container), cmocka_unit_test(memory_grows), cmocka_unit_test(its_firmware),
                cmocka_unit_test(merges),       cmocka_unit_test(does_not_merge),
                cmocka_unit_test(elsewhere),
        };

        return cmocka_run_group_tests(tests, NULL, NULL);
}
