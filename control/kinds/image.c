/* Images: disks, kernels and ramdisks that were uploaded, looked at, and never change again. */
#include "control/jobs/jobs.h"

#include <ctype.h>

static uint64_t load(const uint64_t *p)
{
        return __atomic_load_n(p, __ATOMIC_RELAXED);
}

/* While bytes arrive, what has arrived. */
static void render_size(struct control *c, const struct object *o, struct buf *out)
{
        uint64_t size = object_num(o, "size");

        if (!size)
                size = o->state == IMAGE_SAVING ? load(&o->done) : object_num(o, "expect_size");
        buf_printf(out, "%" PRIu64, size);
}

static void render_progress(struct control *c, const struct object *o, struct buf *out)
{
        render_done(o, out);
        if (!load(&o->total) && load(&o->done)) /* an upload: nobody knows its end */
                buf_printf(out, "%" PRIu64, load(&o->done));
}

static int set_size(struct txn *t, struct object *o, union value v, struct err **e)
{
        txn_set_num(t, o, "expect_size", v.u);
        return 0;
}

static int set_checksum(struct txn *t, struct object *o, union value v, struct err **e)
{
        size_t n = v.s ? strlen(v.s) : 0;

        for (size_t i = 0; i < n; i++)
                if (!isxdigit((unsigned char)v.s[i]))
                        return err_at(e, -EINVAL, v.s, n, i, 1, "not a hexadecimal digit");
        if (n && n != 64)
                return err_at(e, -EINVAL, v.s, n, 0, n, "a SHA-256 has 64 hexadecimal digits");
        for (size_t i = 0; i < n; i++)
                v.s[i] = tolower((unsigned char)v.s[i]);
        txn_set_str(t, o, "checksum", v.s);
        txn_set_str(t, o, "expect_checksum", v.s);
        return 0;
}

static int remove_image(struct txn *t, struct object *o, struct err **e)
{
        int r;

        if (object_num(o, "protected"))
                return err_set(e, -EPERM, "it is protected: echo 0 > protected first");
        if (o->state == IMAGE_SAVING && object_num(o, "taken_by"))
                return err_set(e, -EBUSY, "it is being taken of an instance");
        r = volume_let_clones_go(t, o, e);
        if (r < 0)
                return r;
        txn_release_name(t, o);
        txn_set_state(t, o, IMAGE_DELETING);
        job_start(t, o, &job_image_delete, NULL);
        return 0;
}

static int verb_activate(struct txn *t, struct object *o, const char *args, struct err **e)
{
        if (object_num(o, "taken_of"))
                return err_set(e, -EINVAL, "it was to be taken of an instance: rmdir it");
        txn_set_state(t, o, IMAGE_SAVING);
        job_start(t, o, &job_image_publish, NULL);
        return 0;
}

static const struct attr_def attrs[] = {
        {"format", ATTR_WORD, ROLE_MEMBER, STATE(IMAGE_QUEUED),
         .words = "raw qcow2 vmdk vdi vhd iso aki ari ami tar", .index = true,
         .help = "what the bytes are; written before the upload it is a claim that is checked"},
        {"size", ATTR_SIZE, ROLE_MEMBER, STATE(IMAGE_QUEUED), .max = 1ULL << 46, .index = true,
         .no_spec = true, .render = render_size, .set = set_size, .changes = true,
         .help = "bytes uploaded; written before the upload it is a claim that is checked"},
        {"virtual_size", ATTR_SIZE, ROLE_NOBODY, .index = true,
         .help = "bytes of the disk that a guest would see"},
        {"checksum", ATTR_TEXT, ROLE_MEMBER, STATE(IMAGE_QUEUED), .index = true, .max = 64,
         .no_spec = true, .set = set_checksum,
         .help = "SHA-256 of the bytes uploaded; written before, a claim that is checked; empty of one "
                 "taken of an instance"},
        {"min_disk", ATTR_SIZE, ROLE_MEMBER, .max = 1ULL << 46,
         .help = "least size of a volume made from it"},
        {"visibility", ATTR_WORD, ROLE_MEMBER, .words = "private", .def = "private",
         .help = "who may use it"},
        {"protected", ATTR_BOOL, ROLE_MEMBER, .help = "1: rmdir is refused"},
        {"description", ATTR_TEXT, ROLE_MEMBER, .max = 255, .help = "words for people"},
        {"progress", ATTR_TEXT, ROLE_NOBODY, .render = render_progress, .changes = true,
         .help = "bytes received, or of the job at work on it"},
        {"host", ATTR_TEXT, ROLE_NOBODY, .help = "where the bytes uploaded are; disk is everywhere"},
        {"hint", ATTR_TEXT, ROLE_NOBODY, .hidden = true, .help = "the file name's extension"},
        {"frozen", ATTR_BOOL, ROLE_NOBODY,
         .help = "of one taken of an instance: 1: its guest's agent held its file systems still"},
        {"taken_of", ATTR_NUMBER, ROLE_NOBODY, .hidden = true,
         .help = "volume that it was taken of: it has no uploaded bytes"},
        {"taken_by", ATTR_NUMBER, ROLE_NOBODY, .hidden = true, .help = "job that takes it"},
        {"expect_size", ATTR_SIZE, ROLE_NOBODY, .hidden = true, .help = "claim"},
        {"expect_checksum", ATTR_TEXT, ROLE_NOBODY, .hidden = true, .help = "claim"},
        {"firmware", ATTR_WORD, ROLE_MEMBER, .words = "bios uefi", .def = "bios",
         .help = "what boots it, where the instance says auto"},
        {"disk_bus", ATTR_WORD, ROLE_MEMBER, .words = "virtio scsi", .def = "virtio",
         .help = "where it looks for its disks, where the instance says auto"},
};

static const struct file_def files[] = {
        {"data", FILE_DATA, ROLE_MEMBER, .suffix = "",
         .help = "the bytes as they were uploaded; writable while queued"},
        {"disk", FILE_DATA, ROLE_NOBODY, .suffix = ".disk",
         .help = "the raw disk that a guest would see"},
};

static const struct verb_def verbs[] = {
        {"activate", "", ROLE_MEMBER, STATE(IMAGE_QUEUED) | STATE(IMAGE_ERROR),
         "look at the bytes that are there, and publish them", verb_activate},
};

static const struct state_def states[] = {
        {"queued", .help = "waits for its bytes: cp FILE data"},
        {"saving", .transient = true,
         .help = "bytes arrive, are looked at, hashed and unpacked"},
        {"active", .help = "may be used"},
        {"deleting", .transient = true, .help = "going away"},
        {"error", .terminal = true, .help = "refused, or cut off: read error"},
};

const struct kind kind_image = {
        .name = "image",
        .plural = "images",
        .help = "Disks, kernels and ramdisks to start from; cp FILE images/ uploads one.",
        .schema = 1,
        .creator = ROLE_MEMBER,
        .attrs = attrs,
        .nattrs = ARRAY_SIZE(attrs),
        .verbs = verbs,
        .nverbs = ARRAY_SIZE(verbs),
        .states = states,
        .nstates = ARRAY_SIZE(states),
        .files = files,
        .nfiles = ARRAY_SIZE(files),
        .remove = remove_image,
};
