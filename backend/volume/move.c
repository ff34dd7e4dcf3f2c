/* A volume goes from one pool to another.
 *
 * It is copied piece by piece; who asks says where the next piece begins.  A mark, a file in
 * <state>/moving named by its id, says where it is meanwhile: "copying POOL" is where it comes
 * from, and what there is of it elsewhere is nothing; "moved POOL" is where it went, and what is
 * left of it elsewhere goes.  Each call may be repeated. */
#include <dirent.h>
#include <fcntl.h>

#include "backend/volume/pools.h"
#include "common/fileio.h"
#include "common/log.h"
#include "common/name.h"

enum { PIECE = 64 << 20, STEP = 1 << 20, MARK_MAX = VOLUME_LABEL_SIZE + 16 };

static char *mark_path(const struct volume_pool *p, const char *id)
{
        return p->marks ? path_printf("%s/%s", p->marks, id) : NULL;
}

static int mark(struct volume_pool *p, const char *id, struct side *s, bool copying, struct err **e)
{
        _cleanup_free_ char *path = mark_path(p, id);
        char text[MARK_MAX];
        int r = path ? mkdir_parents(p->marks, 0700, e) : err_errno(e, -ENOMEM, "mark");

        if (r < 0)
                return r;
        snprintf(text, sizeof(text), "%s %s", copying ? "copying" : "moved", s->label);
        r = file_replace(path, text, strlen(text), 0600, e);
        return r < 0 ? r : pool_note(p, id, s, true, copying, e);
}

int moves_forget(struct volume_pool *p, const char *id, struct err **e)
{
        _cleanup_free_ char *path = mark_path(p, id);

        if (!path)
                return err_errno(e, -ENOMEM, "mark");
        if (unlink(path) < 0 && errno != ENOENT)
                return err_errno(e, -errno, "remove '%s'", path);
        return pool_note(p, id, NULL, false, false, e);
}

static int load_one(struct volume_pool *p, const char *id)
{
        _cleanup_free_ char *path = mark_path(p, id), *text = NULL;
        _cleanup_err_ struct err *why = NULL;
        const char *label;
        struct side *s;
        int r = path ? file_read(path, MARK_MAX, &text, NULL, &why) : -ENOMEM;

        if (r < 0)
                return r;
        label = strchr(text, ' ');
        if (!label)
                return -EINVAL;
        if (pool_side_find(p, label + 1, &s, NULL) < 0)
                return 0; /* it may be the next that is opened */
        return pool_note(p, id, s, true, strncmp(text, "copying", 7) == 0, NULL);
}

int moves_load(struct volume_pool *p, const char *state, struct err **e)
{
        struct dirent *de;
        DIR *d;

        if (!p->marks) /* the first pool's folder has those of all */
                p->marks = path_printf("%s/moving", state);
        if (!p->marks)
                return err_errno(e, -ENOMEM, "moves");
        d = opendir(p->marks);
        while (d && (de = readdir(d))) {
                sd_id128_t id;
                int r;

                if (strlen(de->d_name) != VOLUME_ID_SIZE - 1 || id_parse(de->d_name, &id) < 0)
                        continue;
                r = load_one(p, de->d_name);
                if (r < 0)
                        log_warning("volume %s was on its way to another pool: %s", de->d_name,
                                    strerror(-r));
        }
        if (d)
                closedir(d);
        return 0;
}

/* ---- the copy ---- */

static int make_target(struct volume_pool *p, const struct volume_move *m, struct side *from,
                       struct side *to, struct err **e)
{
        struct volume_info info;
        int r = from->driver->stat(from->state, m->id, &info, e);

        if (r == 0 && from->vault)
                vault_facts(from->vault, &info);
        if (r < 0)
                return r;
        if (info.immutable)
                return err_set(e, -EROFS, "it is immutable");
        if (info.users > 0)
                return err_set(e, -EBUSY, "it is open");
        if (info.family[0] && !*m->passphrase)
                return err_set(e, -ENOKEY, "it is encrypted");
        r = mark(p, m->id, from, true, e);
        if (r == 0) /* who opened it before the mark */
                r = from->driver->stat(from->state, m->id, &info, e);
        if (r == 0 && info.users > 0) {
                moves_forget(p, m->id, NULL);
                return err_set(e, -EBUSY, "it is open");
        }
        if (r == 0 && from->vault)
                vault_facts(from->vault, &info);
        if (r == 0)
                r = side_drop(to, m->id, e);
        if (r == 0 && *m->space && to->driver->place)
                r = to->driver->place(to->state, m->id, m->space, e);
        if (r < 0)
                return r;
        if (!info.family[0])
                return to->driver->create(to->state, m->id, info.size, e);
        if (!to->vault)
                return err_set(e, -ENOTSUP, "%s pools cannot encrypt", to->driver->name);
        return vault_create(to->vault, m->id, info.size, m->passphrase, e);
}

struct copying {
        struct volume *from, *to;
        uint8_t *buf;
        uint64_t at, len; /* a stretch of data that was found; len 0: none */
};

static int find_data(void *arg, uint64_t off, uint64_t len, enum volume_kind kind)
{
        struct copying *c = arg;

        if (kind != VOLUME_DATA)
                return 0;
        c->at = off;
        c->len = len;
        return 1;
}

static int copy_range(struct copying *c, uint64_t off, uint64_t end)
{
        int r = 0;

        while (r == 0 && off < end) {
                c->at = end;
                c->len = 0;
                r = volume_extents(c->from, end - off, off, find_data, c);
                for (; r == 0 && c->len > 0;) {
                        size_t n = MIN(c->len, (uint64_t)STEP);

                        r = volume_pread(c->from, c->buf, n, c->at);
                        if (r == 0)
                                r = volume_pwrite(c->to, c->buf, n, c->at, 0);
                        c->at += n;
                        c->len -= n;
                }
                off = c->at;
        }
        return r < 0 ? r : volume_flush(c->to);
}

static int copy_piece(const struct volume_move *m, struct side *from, struct side *to,
                      uint64_t *ret_next, uint64_t *ret_size, struct err **e)
{
        _cleanup_(volume_closep) struct volume *source = NULL, *target = NULL;
        _cleanup_free_ uint8_t *buf = aligned_alloc(4096, STEP);
        int r = buf ? side_open(from, m->id, true, &source, e) : err_errno(e, -ENOMEM, "copy");

        if (r == 0)
                r = side_open(to, m->id, false, &target, e);
        if (r < 0)
                return r;
        *ret_size = volume_size(source);
        if (m->off > *ret_size)
                return err_set(e, -EINVAL, "it has only %llu bytes", (unsigned long long)*ret_size);
        *ret_next = m->off + MIN(*ret_size - m->off, (uint64_t)PIECE);
        r = copy_range(&(struct copying){.from = source, .to = target, .buf = buf}, m->off,
                       *ret_next);
        return r < 0 ? err_errno(e, r, "copy") : 0;
}

static int find_both(struct volume_pool *p, const struct volume_move *m, struct side **from,
                     struct side **to, struct err **e)
{
        int r = volume_check_id(m->id, e);

        if (r == 0)
                r = pool_side_find(p, m->from, from, e);
        if (r == 0)
                r = pool_side_find(p, m->to, to, e);
        if (r == 0 && *from == *to)
                r = err_set(e, -EINVAL, "it is in pool '%s' already", (*to)->label);
        return r;
}

int volume_move(struct volume_pool *p, const struct volume_move *m, uint64_t *ret_next,
                uint64_t *ret_size, struct err **e)
{
        struct side *from, *to;
        int r = find_both(p, m, &from, &to, e);

        if (r == 0 && m->off == 0)
                r = make_target(p, m, from, to, e);
        else if (r == 0 && pool_check_still(p, m->id, NULL) == 0)
                r = err_set(e, -EINVAL, "its move was not begun");
        if (r == 0)
                r = copy_piece(m, from, to, ret_next, ret_size, e);
        return r < 0 ? err_prepend(e, r, "move volume '%s'", m->id) : 0;
}

int volume_move_end(struct volume_pool *p, const struct volume_move *m, bool moved, struct err **e)
{
        struct side *from, *to, *stays;
        struct volume_info info;
        int r = find_both(p, m, &from, &to, e);

        if (r < 0)
                return r;
        if (!moved && pool_moved(p, m->id))
                return err_set(e, -EALREADY, "move volume '%s': it has been moved", m->id);
        stays = moved ? to : from;
        /* Before anything is dropped: what is to stay must be there. */
        r = stays->driver->stat(stays->state, m->id, &info, e);
        if (r == 0 && moved)
                r = mark(p, m->id, to, false, e);
        if (r == 0)
                r = side_drop(moved ? from : to, m->id, e);
        if (r == 0)
                r = moves_forget(p, m->id, e);
        return r < 0 ? err_prepend(e, r, "move volume '%s'", m->id) : 0;
}
