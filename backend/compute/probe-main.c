/* stratofs-probe --kvm|--tcg: whether this host boots a guest that way.  Prints "ok" or why not;
 * exit status 0 or 1.  For `strato doctor`, which may not know QEMU itself. */
#include <stdio.h>
#include <string.h>

#include "backend/compute/compute.h"
#include "common/fileio.h"

enum { PROBE_MS = 30000 };

static int probe(const char *how, const char *dir, struct err **e)
{
        bool works = false;
        int r;

        if (streq(how, "--tcg"))
                return compute_probe_tcg(dir, PROBE_MS, e);
        r = compute_probe_kvm(dir, PROBE_MS, &works, e);
        if (r == 0 && !works)
                return err_set(e, -ENODEV, "a guest under KVM does not run");
        return r;
}

int main(int argc, char **argv)
{
        _cleanup_err_ struct err *err = NULL;
        char dir[] = "/tmp/stratofs-probe.XXXXXX";
        int r;

        if (argc != 2 || (!streq(argv[1], "--kvm") && !streq(argv[1], "--tcg"))) {
                fputs("usage: stratofs-probe --kvm|--tcg\n", stderr);
                return 2;
        }
        if (!mkdtemp(dir)) {
                perror(dir);
                return 1;
        }
        r = probe(argv[1], dir, &err);
        remove_tree(dir, NULL);
        puts(r < 0 ? (err ? err_msg(err) : strerror(-r)) : "ok");
        return r < 0;
}
