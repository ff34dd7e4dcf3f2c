#include <sys/stat.h>

#include "cli/blockd.h"
#include "cli/daemon.h"
#include "cli/doctor.h"
#include "cli/nbdtry.h"
#include "cli/places.h"
#include "common/clock.h"
#include "common/fileio.h"
#include "common/macro.h"
#include "common/name.h"

enum { START_MS = 20000, END_MS = 10000, VOLUME_SIZE = 1 << 20 };

/* blockd hears of the end of our connection a moment after we made it. */
static int remove_volume(const struct cloud *c, const char *id, struct err **e)
{
        int64_t deadline = clock_mono() + 5000000;
        int r;

        while ((r = blockd_remove(c, id, e)) == -EBUSY && clock_mono() < deadline) {
                if (e)
                        *e = err_free(*e);
                usleep(10000);
        }
        return r;
}

/* blockd runs, in the folders of c: makes a volume and uses it. */
static int use(const struct cloud *c, struct err **e)
{
        _cleanup_free_ char *socket = blockd_shared_socket(c);
        char id[ID_TEXT_SIZE];
        int r;

        if (!socket)
                return -ENOMEM;
        id_text(id, id_new());
        r = blockd_create(c, id, VOLUME_SIZE, e);
        if (r < 0)
                return err_prepend(e, r, "make a volume");
        r = nbd_try(socket, id, e);
        if (r < 0)
                return err_prepend(e, r, "NBD");
        r = remove_volume(c, id, e);
        return r < 0 ? err_prepend(e, r, "remove the volume") : 0;
}

static int try_in(struct cloud *c, struct err **e)
{
        int r, end;

        r = places_make(c, e);
        if (r < 0)
                return r;
        r = daemon_start(c, BLOCKD, START_MS, e);
        if (r < 0)
                return r;
        r = use(c, e);
        end = daemon_stop(c, BLOCKD, END_MS, true, r < 0 ? NULL : e);
        return r < 0 ? r : end;
}

enum verdict check_serve(const struct cloud *c _unused_, struct finding *f)
{
        _cleanup_err_ struct err *err = NULL;
        char dir[] = "/tmp/strato-doctor.XXXXXX";
        struct cloud own = {.timeout = -1};
        int r = -ENOMEM;

        if (!mkdtemp(dir)) {
                buf_printf(&f->words, "no folder in /tmp: %m");
                return CHECK_FAIL;
        }
        own.state = path_printf("%s/state", dir);
        own.run = path_printf("%s/run", dir);
        if (own.state && own.run)
                r = try_in(&own, &err);
        cloud_done(&own);
        remove_tree(dir, NULL);
        if (r < 0) {
                buf_addstr(&f->words, err ? err_msg(err) : strerror(-r));
                return CHECK_FAIL;
        }
        buf_addstr(&f->words, "blockd starts; a volume takes bytes over NBD and gives them back");
        return CHECK_OK;
}
