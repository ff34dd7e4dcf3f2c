#include <stdio.h>
#include <sys/wait.h>

#include "cli/doctor.h"
#include "cli/places.h"
#include "common/child.h"
#include "common/macro.h"

enum { PROBE_MS = 60000 };

/* Runs the probe program, which boots a sector in a QEMU.  true: it spoke.  Its words otherwise. */
static bool probe(const char *how, struct buf *words)
{
        _cleanup_free_ char *program = NULL;
        _cleanup_err_ struct err *err = NULL;
        struct child_result res = {};
        bool ok;
        int r;

        r = program_path("stratofs-probe", &program, &err);
        if (r == 0) {
                const char *argv[] = {program, how, NULL};
                struct child child = {.argv = argv, .timeout_ms = PROBE_MS};

                r = child_run(&child, &res, &err);
        }
        ok = r == 0 && WIFEXITED(res.status) && WEXITSTATUS(res.status) == 0;
        if (r < 0) {
                buf_addstr(words, err_msg(err));
        } else if (!ok) {
                const char *text = res.out.len ? buf_str(&res.out) : buf_str(&res.err);

                buf_printf(words, "%.*s", (int)strcspn(text, "\n"), text);
        }
        child_result_done(&res);
        return ok;
}

enum verdict check_boot(const struct cloud *c _unused_, struct finding *f)
{
        _cleanup_buf_ struct buf kvm = {}, tcg = {};

        if (probe("--kvm", &kvm)) {
                buf_addstr(&f->words, "a guest boots under KVM");
                return CHECK_OK;
        }
        if (probe("--tcg", &tcg)) {
                buf_printf(&f->words, "a guest boots, emulated; KVM: %s", buf_str(&kvm));
                return CHECK_WARN;
        }
        buf_printf(&f->words, "no guest boots: %s", buf_str(&tcg));
        buf_addstr(&f->hint, "apt-get install --no-install-recommends qemu-system-x86");
        return CHECK_FAIL;
}
