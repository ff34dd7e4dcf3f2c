/* Numbers and layouts: the NBD protocol's doc/proto.md. */
#include "cli/nbdtry.h"

#include <endian.h>
#include <stdint.h>
#include <sys/socket.h>
#include <sys/time.h>
#include <sys/un.h>

#include "common/fileio.h"
#include "common/macro.h"

static const uint64_t MAGIC = 0x4e42444d41474943ULL, OPT_MAGIC = 0x49484156454f5054ULL,
                      REPLY_MAGIC = 0x3e889045565a9ULL;
static const uint32_t REQUEST_MAGIC = 0x25609513, SIMPLE_MAGIC = 0x67446698;

enum {
        FIXED_NEWSTYLE = 1,
        NO_ZEROES = 2,
        OPT_GO = 7,
        REP_ACK = 1,
        CMD_READ = 0,
        CMD_WRITE = 1,
        CMD_DISC = 2,
        CMD_FLUSH = 3,
        BLOCK = 4096,
        SECONDS = 10,
        EXPORT_MAX = 256,
        REPLY_MAX = 4096,
};

struct __attribute__((packed)) option_header {
        uint64_t magic;
        uint32_t option, len;
};
struct __attribute__((packed)) option_reply {
        uint64_t magic;
        uint32_t option, type, len;
};
struct __attribute__((packed)) request {
        uint32_t magic;
        uint16_t flags, type;
        uint64_t cookie, offset;
        uint32_t len;
};
struct __attribute__((packed)) simple_reply {
        uint32_t magic, error;
        uint64_t cookie;
};

static int dial(const char *path, struct err **e)
{
        struct sockaddr_un sa = {.sun_family = AF_UNIX};
        struct timeval tv = {.tv_sec = SECONDS};
        _cleanup_close_ int fd = -1;

        if (strlen(path) >= sizeof(sa.sun_path))
                return err_errno(e, -ENAMETOOLONG, "connect to '%s'", path);
        strcpy(sa.sun_path, path);
        fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
        if (fd < 0 || connect(fd, (struct sockaddr *)&sa, sizeof(sa)) < 0)
                return err_errno(e, -errno, "connect to '%s'", path);
        if (setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &tv, sizeof(tv)) < 0 ||
            setsockopt(fd, SOL_SOCKET, SO_SNDTIMEO, &tv, sizeof(tv)) < 0)
                return err_errno(e, -errno, "connect to '%s'", path);
        return TAKE_FD(fd);
}

/* "handshake-new-style" up to our flags. */
static int greet(int fd, struct err **e)
{
        struct __attribute__((packed)) {
                uint64_t magic, opt_magic;
                uint16_t flags;
        } hello;
        uint32_t flags;
        int r;

        r = read_full(fd, &hello, sizeof(hello));
        if (r < 0)
                return err_errno(e, r, "greeting");
        if (be64toh(hello.magic) != MAGIC || be64toh(hello.opt_magic) != OPT_MAGIC ||
            !(be16toh(hello.flags) & FIXED_NEWSTYLE))
                return err_set(e, -EPROTO, "greeting: not fixed newstyle NBD");
        flags = htobe32(FIXED_NEWSTYLE | (be16toh(hello.flags) & NO_ZEROES));
        r = write_full(fd, &flags, sizeof(flags));
        return r < 0 ? err_errno(e, r, "greeting") : 0;
}

/* NBD_OPT_GO: infos, then an ack. */
static int go(int fd, const char *export, struct err **e)
{
        struct option_header h = {htobe64(OPT_MAGIC), htobe32(OPT_GO), 0};
        uint32_t n = (uint32_t)strlen(export), n_be = htobe32(n);
        uint16_t no_infos = 0;
        char buf[REPLY_MAX];
        int r;

        if (n > EXPORT_MAX)
                return err_errno(e, -ENAMETOOLONG, "export '%s'", export);
        h.len = htobe32(4 + n + 2);
        memcpy(buf, &h, sizeof(h));
        memcpy(buf + sizeof(h), &n_be, 4);
        memcpy(buf + sizeof(h) + 4, export, n);
        memcpy(buf + sizeof(h) + 4 + n, &no_infos, 2);
        r = write_full(fd, buf, sizeof(h) + 4 + n + 2);
        while (r == 0) {
                struct option_reply reply;
                uint32_t len, type;

                r = read_full(fd, &reply, sizeof(reply));
                if (r < 0)
                        break;
                len = be32toh(reply.len);
                type = be32toh(reply.type);
                if (be64toh(reply.magic) != REPLY_MAGIC || len > sizeof(buf))
                        return err_set(e, -EPROTO, "open export '%s': no option reply", export);
                r = read_full(fd, buf, len);
                if (r < 0)
                        break;
                if (type == REP_ACK)
                        return 0;
                if (type >> 31)
                        return err_set(e, -EPROTO, "open export '%s': refused with %#x: %.*s",
                                       export, type, (int)len, buf);
        }
        return err_errno(e, r, "open export '%s'", export);
}

/* One request and its simple reply. */
static int command(int fd, uint16_t type, void *data, uint32_t n, struct err **e)
{
        struct request q = {.magic = htobe32(REQUEST_MAGIC),
                            .type = htobe16(type),
                            .cookie = type,
                            .len = htobe32(n)};
        struct simple_reply reply;
        int r;

        r = write_full(fd, &q, sizeof(q));
        if (r == 0 && type == CMD_WRITE)
                r = write_full(fd, data, n);
        if (r == 0)
                r = read_full(fd, &reply, sizeof(reply));
        if (r < 0)
                return err_errno(e, r, "command %u", type);
        if (be32toh(reply.magic) != SIMPLE_MAGIC || reply.cookie != q.cookie)
                return err_set(e, -EPROTO, "command %u: no simple reply", type);
        if (reply.error)
                return err_set(e, -EIO, "command %u: error %u", type, be32toh(reply.error));
        if (type == CMD_READ)
                r = read_full(fd, data, n);
        return r < 0 ? err_errno(e, r, "command %u", type) : 0;
}

int nbd_try(const char *socket, const char *export, struct err **e)
{
        struct request bye = {.magic = htobe32(REQUEST_MAGIC), .type = htobe16(CMD_DISC)};
        _cleanup_close_ int fd = dial(socket, e);
        char out[BLOCK], in[BLOCK] = {};
        int r;

        if (fd < 0)
                return fd;
        for (size_t i = 0; i < sizeof(out); i++)
                out[i] = (char)(i * 31 + i / 251 + 1);
        r = greet(fd, e);
        if (r == 0)
                r = go(fd, export, e);
        if (r == 0)
                r = command(fd, CMD_WRITE, out, BLOCK, e);
        if (r == 0)
                r = command(fd, CMD_FLUSH, NULL, 0, e);
        if (r == 0)
                r = command(fd, CMD_READ, in, BLOCK, e);
        if (r == 0 && memcmp(in, out, BLOCK) != 0)
                r = err_set(e, -EIO, "what was read is not what was written");
        if (r == 0)
                r = write_full(fd, &bye, sizeof(bye));
        return r;
}
