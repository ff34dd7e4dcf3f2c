#include <fcntl.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>

#include "blockd/server.h"
#include "common/fileio.h"

/* Bound under another name and renamed into place: there is no moment without a socket, and the
 * mode is set before anyone can see it (fchmod on an unbound socket is what bind(2) gives the
 * name).  path's folder must be ours. */
int listen_unix(const char *path, mode_t mode, struct err **e)
{
        struct sockaddr_un sa = {.sun_family = AF_UNIX};
        _cleanup_free_ char *tmp = path_printf("%s.new", path);
        _cleanup_close_ int fd = -1;

        if (!tmp)
                return err_errno(e, -ENOMEM, "listen");
        if (strlen(tmp) >= sizeof(sa.sun_path))
                return err_set(e, -ENAMETOOLONG, "'%s' is too long for a socket's name", path);
        strcpy(sa.sun_path, tmp);
        fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
        if (fd < 0 || fchmod(fd, mode) < 0)
                return err_errno(e, -errno, "socket");
        if (unlink(tmp) < 0 && errno != ENOENT)
                return err_errno(e, -errno, "remove '%s'", tmp);
        if (bind(fd, (struct sockaddr *)&sa, sizeof(sa)) < 0)
                return err_errno(e, -errno, "bind '%s'", tmp);
        if (listen(fd, 128) < 0 || rename(tmp, path) < 0)
                return err_errno(e, -errno, "listen on '%s'", path);
        return TAKE_FD(fd);
}
