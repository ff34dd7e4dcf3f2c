/* The FUSE device as libfuse has it: every request and every answer passes here. */
#include <sys/uio.h>
#include "common/fault.h"
#include "common/log.h"
#include "fs/gate.h"
#include "fs/hold.h"
#include "fs/ops.h"
#include "fs/record.h"

/* What the kernel tells once, or tells us only in passing. */
static void note(struct hold *h, const struct fuse_in_header *in, size_t n)
{
        const struct fuse_poll_in *poll = (const void *)(in + 1);
        struct handle *open;

        if (in->opcode == FUSE_INIT && n <= sizeof(h->m->init)) {
                memcpy(h->m->init, in, n);
                h->m->init_len = n;
        } else if (in->opcode == FUSE_POLL && n >= sizeof(*in) + sizeof(*poll)) {
                open = handle_get(h, poll->fh);
                if (open && (poll->flags & FUSE_POLL_SCHEDULE_NOTIFY))
                        open->held->kh = poll->kh;
        }
}

void device_refuse(struct hold *h, int fd, uint64_t unique, int error)
{
        struct fuse_out_header out = {.len = sizeof(out), .error = error, .unique = unique};

        if (write(fd, &out, sizeof(out)) != sizeof(out))
                log_debug("a refused request: %m");
        if (h->record)
                record_answered(h->record, unique);
}

static ssize_t on_read(int fd, void *buf, size_t len, void *userdata)
{
        struct hold *h = ((struct fs *)userdata)->hold;
        struct worker *w = worker_self(h);
        const struct fuse_in_header *in = buf;
        ssize_t n;
        int r;

        for (;;) {
                worker_end(w);
                gate_leave(h->gate, w);
                if (!h->record)
                        worker_ready(w, buf, len);
                n = h->record ? request_record_read(h->record, w, fd, buf, len)
                              : read(fd, buf, len);
                if (n < (ssize_t)sizeof(*in))
                        return n;
                note(h, in, (size_t)n);
                r = gate_enter(h->gate, w, in, (size_t)n);
                if (r == 1)
                        continue;
                if (r < 0) {
                        device_refuse(h, fd, in->unique, r);
                        continue;
                }
                worker_begin(w, in, in->unique & UNIQUE_RESENT);
                if (!worker_refuses(w))
                        return n;
                device_refuse(h, fd, in->unique, -EIO);
        }
}

/* The answer to INIT: the session begins, or is the one that it was. */
static void on_init(struct hold *h, const char *reply, size_t n)
{
        struct fs *fs = h->fs;

        if (h->swallow) {
                h->refused = n != h->m->reply_len || memcmp(h->m->reply, reply, n) != 0;
                return;
        }
        if (n > sizeof(h->m->reply))
                return;
        memcpy(h->m->reply, reply, n);
        h->m->reply_len = n;
        if (fs->holder.keep)
                fs->holder.keep(fs->arg, fuse_session_fd(fs->se), h->memory);
        if (fs->ready)
                fs->ready(fs->arg);
}

static ssize_t on_writev(int fd, struct iovec *iov, int count, void *userdata)
{
        struct hold *h = ((struct fs *)userdata)->hold;
        const struct fuse_out_header *out = iov[0].iov_base;
        const struct fuse_in_header *init = (const void *)h->m->init;
        bool is_init = out->unique && !h->m->reply_len && out->unique == init->unique;
        char reply[sizeof(h->m->reply)];
        uint64_t unique = out->unique;
        size_t total = 0;
        ssize_t n;

        if (is_init || (h->swallow && unique)) {
                for (int i = 0; i < count; i++) {
                        if (total + iov[i].iov_len <= sizeof(reply))
                                memcpy(reply + total, iov[i].iov_base, iov[i].iov_len);
                        total += iov[i].iov_len;
                }
                n = h->swallow ? (ssize_t)total : writev(fd, iov, count);
                if (n >= 0)
                        on_init(h, reply, total);
                return n;
        }
        if (unique && worker_changed(h))
                (void)FAULT("fs.answer");
        n = writev(fd, iov, count);
        if (h->record && unique)
                record_answered(h->record, unique);
        return n;
}

const struct fuse_custom_io hold_io = {.read = on_read, .writev = on_writev};
