#include "cli/lock.h"

#include <fcntl.h>
#include <sys/file.h>

#include "common/fileio.h"
#include "common/macro.h"

int cloud_lock(const struct cloud *c, struct err **e)
{
        _cleanup_free_ char *path = path_printf("%s/up.lock", c->state);
        _cleanup_close_ int fd = -1;

        if (!path)
                return -ENOMEM;
        fd = open(path, O_RDWR | O_CREAT | O_CLOEXEC, 0600);
        if (fd < 0)
                return err_errno(e, -errno, "open '%s'", path);
        while (flock(fd, LOCK_EX) < 0)
                if (errno != EINTR)
                        return err_errno(e, -errno, "lock '%s'", path);
        return TAKE_FD(fd);
}
