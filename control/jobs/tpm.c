/* The TPM of a guest: a swtpm(8) of its own, which runs as its user and keeps its secrets in the
 * instance's folder.  It ends by itself when its QEMU lets go of it. */
#include "control/jobs/plan.h"

#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>

#include "common/child.h"
#include "common/fileio.h"

enum { TRIES = 50, TRY_US = 100000 };

/* One that was started for a QEMU which never came waits for the first to come and go. */
static void dismiss(const char *sock)
{
        struct sockaddr_un sa = {.sun_family = AF_UNIX};
        _cleanup_close_ int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);

        if (fd < 0 || strlen(sock) >= sizeof(sa.sun_path))
                return;
        memcpy(sa.sun_path, sock, strlen(sock));
        if (connect(fd, (struct sockaddr *)&sa, sizeof(sa)) < 0)
                return;
}

static int start(const struct plan *p, const char *dir, struct err **e)
{
        char uid[32], gid[32];
        _cleanup_free_ char *state = path_printf("dir=%s,mode=0600", dir);
        _cleanup_free_ char *ctrl = path_printf("type=unixio,path=%s,mode=0600", p->tpm);
        const char *argv[] = {"setpriv",  uid,      gid,      "--clear-groups",
                              "swtpm",    "socket", "--tpm2", "--tpmstate",
                              state,      "--ctrl", ctrl,     "--terminate",
                              "--daemon", NULL};
        const bool own = p->g.uid == (uid_t)-1; /* all is one user's */

        if (!state || !ctrl)
                return err_errno(e, -ENOMEM, "TPM");
        snprintf(uid, sizeof(uid), "--reuid=%u", (unsigned)p->g.uid);
        snprintf(gid, sizeof(gid), "--regid=%u", (unsigned)p->g.gid);
        return child_check(&(struct child){.argv = own ? argv + 4 : argv, .timeout_ms = 20000}, e);
}

int plan_tpm(struct plan *p, struct err **e)
{
        _cleanup_free_ char *dir = p->tpm ? xstrndup(p->tpm, strrchr(p->tpm, '/') - p->tpm) : NULL;
        int r;

        if (!dir)
                return 0;
        r = mkdir_parents(dir, 0700, e);
        if (r == 0 && p->g.uid != (uid_t)-1 && chown(dir, p->g.uid, p->g.gid) < 0)
                r = err_errno(e, -errno, "give '%s' to its guest", dir);
        for (int i = 0; r == 0; i++) {
                _cleanup_err_ struct err *why = NULL;

                dismiss(p->tpm);
                r = start(p, dir, &why);
                if (r != -EIO || i == TRIES) { /* else the one before may hold its state still */
                        err_move(e, TAKE_PTR(why));
                        break;
                }
                usleep(TRY_US);
                r = 0;
        }
        return r < 0 ? err_prepend(e, r, "TPM (swtpm)") : 0;
}

void plan_tpm_dismiss(const struct plan *p)
{
        if (p->tpm)
                dismiss(p->tpm);
}
