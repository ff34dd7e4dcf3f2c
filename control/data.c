/* Bulk bytes: uploads, image files, volumes. */
#include "control/jobs/jobs.h"

#include <fcntl.h>

static struct data *data_new(enum data_type type, uint64_t no, bool writable)
{
        struct data *d = xcalloc(1, sizeof(*d));

        *d = (struct data){.type = type, .no = no, .writable = writable, .in_order = true};
        return d;
}

static struct data *open_nbd(struct control *c, const struct object *o, uint64_t size,
                             bool writable)
{
        struct data *d = data_new(DATA_NBD, o->no, writable);
        char id[ID_TEXT_SIZE];

        d->socket = xstrdup(c->cfg.volumes->shared_socket);
        d->export = xstrdup(id_text(id, o->id));
        d->size = size;
        return d;
}

static int open_volume(struct control *c, struct object *o, bool writable, struct data **ret,
                       struct err **e)
{
        char label[NAME_SIZE + 32];

        if (o->nameless || !object_in(o, STATE(VOLUME_AVAILABLE)))
                return err_set(e, -EBUSY, "data: %s is %s", object_label(o, label),
                               object_state(o));
        if (writable && object_num(o, "readonly"))
                return err_set(e, -EACCES, "data: %s is read-only", object_label(o, label));
        *ret = open_nbd(c, o, object_num(o, "size"), writable);
        if (writable)
                __atomic_fetch_add(&o->writers, 1, __ATOMIC_RELAXED); /* the lock is shared */
        return 0;
}

static int open_snapshot(struct control *c, struct object *o, struct data **ret, struct err **e)
{
        char label[NAME_SIZE + 32];

        if (o->nameless || !object_in(o, STATE(SNAPSHOT_AVAILABLE)))
                return err_set(e, -EBUSY, "data: %s is %s", object_label(o, label),
                               object_state(o));
        *ret = open_nbd(c, o, object_num(o, "size"), false);
        return 0;
}

static int open_image_bytes(struct control *c, const char *id, uint64_t no, bool writable,
                            struct data **ret, struct err **e)
{
        struct image_service *s = c->cfg.images;
        struct data *d = data_new(DATA_IMAGE, no, writable);
        int r = s->ops->open(s, id, writable, &d->blob, e);

        if (r < 0) {
                free(d);
                return r;
        }
        d->images = s;
        d->size = s->ops->size(d->blob);
        *ret = d;
        return 0;
}

/* Uploads stay on the host where they came in. */
static int image_is_here(struct control *c, const struct object *o, struct err **e)
{
        const char *host = object_str(o, "host");

        if (!*host || streq(host, c->cfg.host))
                return 0;
        err_set(e, -EREMOTE, "data: the bytes uploaded are on host '%s'", host);
        err_hint(e, -EREMOTE, "read `disk`, or read `data` there");
        return -EREMOTE;
}

/* It could not even begin: it waits for its bytes as before. */
static void forget_upload(struct control *c, uint64_t no)
{
        struct object *o;
        struct txn t;

        txn_begin(&t, c, NULL);
        o = model_by_no(c, no);
        if (o && o->state == IMAGE_SAVING)
                txn_set_state(&t, o, IMAGE_QUEUED);
        txn_commit(&t, NULL);
}

/* An upload begins: the image is `saving` from here until its bytes are looked at.  The store has
 * it before the first byte, so a crash leaves an image that says it was cut off. */
static int begin_upload(struct control *c, const struct caller *who, uint64_t no, struct data **ret,
                        struct err **e)
{
        struct image_service *s = c->cfg.images;
        char id[ID_TEXT_SIZE], label[NAME_SIZE + 32];
        struct object *o;
        struct txn t;
        int r;

        txn_begin(&t, c, who);
        r = find_object(c, no, &o, e);
        if (r == 0)
                r = authorise(c, who, o, ROLE_MEMBER, "data", e);
        if (r == 0 && !object_in(o, STATE(IMAGE_QUEUED)))
                r = err_set(e, -EBUSY, "data: %s is %s: an image is written once",
                            object_label(o, label), object_state(o));
        if (r == 0) {
                txn_set_state(&t, o, IMAGE_SAVING);
                txn_set_str(&t, o, "host", c->cfg.host);
                o->done = o->total = 0;
                id_text(id, o->id);
        }
        r = txn_end(&t, r, e);
        if (r < 0)
                return r;
        r = s->ops->create(s, id, e);
        if (r == 0)
                r = open_image_bytes(c, id, no, true, ret, e);
        if (r < 0)
                forget_upload(c, no);
        else
                (*ret)->upload = true;
        return r;
}

int control_open_data(struct control *c, const struct caller *who, uint64_t no, unsigned file,
                      int flags, struct data **ret, struct err **e)
{
        bool writable = (flags & O_ACCMODE) != O_RDONLY, disk;
        char id[ID_TEXT_SIZE];
        struct object *o;
        int r;

        control_rdlock(c);
        r = find_object(c, no, &o, e);
        if (r == 0)
                r = authorise(c, who, o, writable ? o->kind->files[file].writer : ROLE_MEMBER,
                              "data", e);
        if (r < 0 || o->kind == &kind_volume || o->kind == &kind_snapshot) {
                if (r == 0)
                        r = o->kind == &kind_volume ? open_volume(c, o, writable, ret, e)
                                                    : open_snapshot(c, o, ret, e);
                control_unlock(c);
                return r;
        }
        /* One that was taken of an instance has no other bytes. */
        disk = streq(o->kind->files[file].name, "disk") || (object_num(o, "taken_of") && !writable);
        id_text(id, o->id);
        if (!disk && !writable)
                r = image_is_here(c, o, e);
        else if (disk && o->state != IMAGE_ACTIVE)
                r = err_set(e, -EBUSY, "disk: the image is %s", object_state(o));
        else if (disk && !image_format_bootable(image_format_parse(object_str(o, "format"))))
                r = err_set(e, -ENOTSUP, "disk: a %s is no disk", object_str(o, "format"));
        else if (disk)
                *ret = open_nbd(c, o, object_num(o, "virtual_size"), false);
        control_unlock(c);
        if (r < 0 || disk)
                return r;
        return writable ? begin_upload(c, who, no, ret, e)
                        : open_image_bytes(c, id, no, false, ret, e);
}

/* "debian.tar.qcow2" is the image "debian.tar" of, perhaps, qcow2. */
static void split_name(const char *file, char name[NAME_SIZE + 1], char hint[32])
{
        const char *dot = strrchr(file, '.');
        size_t n = dot && dot != file ? (size_t)(dot - file) : strlen(file);

        snprintf(name, NAME_SIZE + 1, "%.*s", (int)MIN(n, (size_t)NAME_SIZE), file);
        snprintf(hint, 32, "%s", dot && dot != file && strlen(dot) < 16 ? dot + 1 : "");
}

int control_upload(struct control *c, const struct caller *who, uint64_t tenant,
                   const char *filename, uint64_t *ret_no, struct data **ret, struct err **e)
{
        char name[NAME_SIZE + 1], hint[32];
        struct object *owner, *o = NULL;
        struct txn t;
        int r;

        split_name(filename, name, hint);
        txn_begin(&t, c, who);
        r = find_object(c, tenant, &owner, e);
        if (r == 0)
                r = action_create(&t, owner, &kind_image, name, &o, e);
        if (r == 0 && text_clean(hint, strlen(hint), false))
                txn_set_str(&t, o, "hint", hint);
        if (r == 0)
                *ret_no = o->no;
        r = txn_end(&t, r, e);
        if (r == 0) {
                r = begin_upload(c, who, *ret_no, ret, e);
                if (r < 0)
                        control_delete(c, NULL, *ret_no, NULL);
        }
        return r < 0 ? err_prepend(e, r, "upload '%.*s'", NAME_SIZE, name) : 0;
}

int64_t data_pread(struct data *d, void *p, size_t n, uint64_t off)
{
        return d->images->ops->pread(d->blob, p, n, off);
}

static void show_received(struct control *c, uint64_t no, uint64_t received)
{
        struct object *o;

        control_rdlock(c);
        o = model_by_no(c, no);
        if (o)
                __atomic_store_n(&o->done, received, __ATOMIC_RELAXED);
        control_unlock(c);
}

/* An upload counts when it is whole; while it grows it may not pass what is left. */
static int room_for(struct control *c, uint64_t no, uint64_t end, struct err **e)
{
        uint64_t limit = VALUE_MAX, used = 0;
        struct object *o;

        control_rdlock(c);
        o = model_by_no(c, no);
        if (o) {
                limit = quota_limit(o->tenant, Q_IMAGE_SIZE);
                used = model_room(c, o->tenant)->use.v[Q_IMAGE_SIZE];
        }
        control_unlock(c);
        if (limit == VALUE_MAX || used + end <= limit)
                return 0;
        return err_set(e, -EDQUOT,
                       "quota: image_size limit=%" PRIu64 " used=%" PRIu64 " wanted=%" PRIu64,
                       limit, used, end);
}

int data_pwrite(struct control *c, struct data *d, const void *p, size_t n, uint64_t off,
                struct err **e)
{
        int r = room_for(c, d->no, off + n, e);

        if (r == 0 && (r = d->images->ops->pwrite(d->blob, p, n, off)) < 0)
                err_errno(e, r, "write");
        if (r < 0) {
                d->failed = r;
                return r;
        }
        if (off < d->next)
                d->in_order = false;
        d->next = off + n;
        d->received += n;
        show_received(c, d->no, d->received);
        return 0;
}

int data_truncate(struct control *c, struct data *d, uint64_t size)
{
        return d->images->ops->truncate(d->blob, size);
}

int64_t data_seek(struct data *d, uint64_t off, int whence)
{
        return d->images->ops->seek(d->blob, off, whence);
}

int64_t data_size(struct data *d)
{
        return d->type == DATA_IMAGE ? d->images->ops->size(d->blob) : (int64_t)d->size;
}

/* Written from start to end by one handle: on to the checks.  Nothing written: as if never opened.
 * Out of order (qemu-img, a tool that comes back): its user says when it is whole. */
static void end_upload(struct control *c, struct data *d, const char *cut)
{
        _cleanup_err_ struct err *err = NULL, *cause = NULL;
        struct object *o;
        struct txn t;

        txn_begin(&t, c, NULL);
        o = model_by_no(c, d->no);
        if (!o || o->state != IMAGE_SAVING) { /* removed meanwhile */
                txn_abort(&t);
                return;
        }
        o->done = o->total = 0;
        if (cut) {
                _cleanup_free_ char *rec = NULL;
                struct buf path = {};

                render_path(c, o, &path);
                err_set(&cause, -EIO, "%s after %" PRIu64 " bytes", cut, d->received);
                rec = error_record(c, NULL, "upload", buf_str(&path), -EIO, cause);
                buf_done(&path);
                txn_set_error(&t, o, rec);
                txn_set_state(&t, o, IMAGE_ERROR);
        } else if (d->received == 0 || !d->in_order) {
                txn_set_state(&t, o, IMAGE_QUEUED);
        } else {
                job_start(&t, o, &job_image_publish, NULL);
        }
        if (txn_commit(&t, &err) < 0)
                log_error("end of upload: %s", err_msg(err));
}

void control_upload_forget(struct control *c, const struct caller *who, uint64_t tenant,
                           const char *filename)
{
        char name[NAME_SIZE + 1], hint[32];
        struct object *owner, *o = NULL;
        uint64_t no = 0;

        split_name(filename, name, hint);
        control_rdlock(c);
        owner = model_by_no(c, tenant);
        if (owner)
                o = model_by_name(c, owner, &kind_image, name);
        if (o)
                no = o->no;
        control_unlock(c);
        if (no)
                (void)control_delete(c, who, no, NULL);
}

int control_upload_again(struct control *c, uint64_t no, uint64_t received, uint64_t next,
                         bool in_order, struct data **ret, struct err **e)
{
        char id[ID_TEXT_SIZE];
        struct object *o;
        int r;

        control_rdlock(c);
        r = find_object(c, no, &o, e);
        if (r == 0 && !object_in(o, STATE(IMAGE_SAVING)))
                r = err_set(e, -ESTALE, "the image is %s", object_state(o));
        if (r == 0)
                id_text(id, o->id);
        control_unlock(c);
        if (r == 0)
                r = open_image_bytes(c, id, no, true, ret, e);
        if (r < 0)
                return r;
        (*ret)->upload = true;
        (*ret)->received = received;
        (*ret)->next = next;
        (*ret)->in_order = in_order;
        show_received(c, no, received);
        return 0;
}

void control_upload_lost(struct control *c, uint64_t no, uint64_t received)
{
        struct data d = {.no = no, .received = received};

        end_upload(c, &d, "the cloud was started again while it came in");
}

/* A volume that is open for writing is not attached meanwhile. */
static void drop_writer(struct control *c, uint64_t no)
{
        struct object *o;

        control_rdlock(c);
        o = model_by_no(c, no);
        if (o)
                __atomic_fetch_sub(&o->writers, 1, __ATOMIC_RELAXED);
        control_unlock(c);
}

void control_close_data(struct control *c, struct data *d, const char *cut)
{
        if (d->type == DATA_NBD && d->writable)
                drop_writer(c, d->no);
        if (d->type == DATA_IMAGE) {
                int r = d->upload && !cut ? d->images->ops->sync(d->blob) : 0;

                d->images->ops->close(d->blob);
                if (d->upload)
                        end_upload(c, d,
                                   cut                      ? cut
                                   : d->failed == -ENOSPC   ? "the disk was full"
                                   : d->failed == -EDQUOT   ? "it would have passed the quota"
                                   : d->failed < 0 || r < 0 ? "its bytes did not reach the disk"
                                                            : NULL);
        }
        free(d->socket);
        free(d->export);
        free(d);
}
