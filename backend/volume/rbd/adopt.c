/* Images that are there become volumes, and volumes ordinary images again.  An image stays in its
 * namespace; it gets a volume's name, and the features that a volume needs.  Clones that others
 * have of it stay theirs: Ceph knows them by the image's id. */
#include "backend/volume/rbd/rbd.h"

static const uint64_t needed =
        RBD_FEATURE_EXCLUSIVE_LOCK | RBD_FEATURE_OBJECT_MAP | RBD_FEATURE_FAST_DIFF;

/* ---- what stands in the way ---- */

static int refuse_lock(rbd_image_t image, struct err **e)
{
        char tag[256], clients[1024], cookies[1024], addrs[1024];
        size_t ntag = sizeof(tag), nc = sizeof(clients), nk = sizeof(cookies), na = sizeof(addrs);
        int exclusive;
        ssize_t n = rbd_list_lockers(image, &exclusive, tag, &ntag, clients, &nc, cookies, &nk,
                                     addrs, &na);

        if (n == -ERANGE)
                return err_set(e, -EBUSY, "many have locked it");
        if (n < 0)
                return err_errno(e, (int)n, "its locks");
        if (n == 0)
                return 0;
        err_set(e, -EBUSY, "%s at %s has locked it", clients, addrs);
        err_hint(e, -EBUSY, "end who uses it; what a dead one left: 'rbd lock rm'");
        return -EBUSY;
}

/* We have it open read-only, which leaves no watch. */
static int refuse_watcher(rbd_image_t image, struct err **e)
{
        rbd_image_watcher_t list[16];
        size_t n = ARRAY_SIZE(list);
        int r = rbd_watchers_list(image, list, &n);

        if (r < 0 && r != -ERANGE)
                return err_errno(e, r, "who has it open");
        if (r == -ERANGE)
                return err_set(e, -EBUSY, "%zu clients have it open", n);
        if (n == 0)
                return 0;
        r = err_set(e, -EBUSY, "client.%lld at %s has it open", (long long)list[0].id,
                    list[0].addr);
        err_hint(e, -EBUSY, "end it; one that died is forgotten after half a minute");
        rbd_watchers_list_cleanup(list, n);
        return r;
}

static int refuse_sort(rbd_image_t image, struct err **e)
{
        uint64_t features, size;
        uint8_t old;
        int r = rbd_get_old_format(image, &old);

        if (r == 0 && old)
                return err_set(e, -ENOTSUP,
                               "it is of RBD's format 1: 'rbd migration' makes it new");
        if (r == 0)
                r = rbd_get_features(image, &features);
        if (r == 0)
                r = rbd_get_size(image, &size);
        if (r < 0)
                return err_errno(e, r, "what it is");
        if (features & RBD_FEATURE_MIGRATING)
                return err_set(e, -EBUSY, "it is being migrated");
        if (features & RBD_FEATURE_NON_PRIMARY)
                return err_set(e, -EBUSY, "it is a mirror of another cluster's");
        if (size == 0 || size % VOLUME_SECTOR || size > VOLUME_SIZE_MAX)
                return err_set(e, -EINVAL, "its size, %llu, is no positive multiple of %d",
                               (unsigned long long)size, VOLUME_SECTOR);
        return 0;
}

/* ---- adopt ---- */

/* [NAMESPACE/]IMAGE. */
static int parse(struct pool *p, const char *name, struct record *rec, struct err **e)
{
        const char *slash = strrchr(name, '/'), *image = slash ? slash + 1 : name;
        const size_t n = slash ? (size_t)(slash - name) : 0;

        if (!*image || strlen(image) >= RBD_NAME_SIZE || strchr(image, '@') ||
            n >= RBD_SPACE_SIZE || memchr(name, '/', n) || (slash && n == 0))
                return err_set(e, -EINVAL, "'%.200s' is not [NAMESPACE/]IMAGE", name);
        snprintf(rec->space, sizeof(rec->space), "%.*s", (int)n, name);
        if (streq(rec->space, p->base))
                rec->space[0] = '\0';
        else if (n == 0)
                strcpy(rec->space, "/");
        strcpy(rec->was, image);
        return space_io(p, rec->space, &rec->io, &rec->data, e);
}

/* An image of ours has the id of its volume in its name. */
static int refuse_ours(struct pool *p, const struct record *rec, struct err **e)
{
        struct record have;
        const char *id = strchr(rec->was, '-');

        if (id && index_find(p, id + 1, &have, NULL) > 0 && streq(have.image, rec->image))
                return err_set(e, -EBUSY, "it is volume %s already", id + 1);
        return 0;
}

static int inspect(struct pool *p, struct record *rec, struct err **e)
{
        rbd_image_t image;
        int r = image_open_name(rec->io, rec->was, true, &image);

        if (r == -ENOENT)
                return err_set(e, r, "Ceph pool '%s' has no image '%s'%s%s", p->name, rec->was,
                               rec->space[0] ? " in namespace " : "",
                               rec->space[0] == '/' ? "\"\"" : rec->space);
        if (r < 0)
                return err_errno(e, r, "open RBD image '%s'", rec->was);
        r = rbd_get_id(image, rec->image, sizeof(rec->image));
        r = r < 0 ? err_errno(e, r, "its id") : refuse_ours(p, rec, e);
        if (r == 0)
                r = refuse_sort(image, e);
        if (r == 0)
                r = refuse_lock(image, e);
        if (r == 0)
                r = refuse_watcher(image, e);
        if (r == 0)
                rbd_get_size(image, &rec->size);
        image_close(image);
        return r;
}

static int no_progress(uint64_t done _unused_, uint64_t total _unused_, void *arg _unused_)
{
        return 0;
}

static int give_features(const struct record *rec, struct err **e)
{
        uint64_t have = 0;
        rbd_image_t image;
        int r = image_open_id(rec->io, rec->image, "", false, &image);

        if (r < 0)
                return err_errno(e, r, "open RBD image %s", rec->image);
        r = rbd_get_features(image, &have);
        if (r == 0 && needed & ~have)
                r = rbd_update_features(image, needed & ~have, 1);
        if (r == 0 && needed & ~have)
                r = rbd_rebuild_object_map(image, no_progress, NULL);
        image_close(image);
        return r < 0 ? err_errno(e, r, "give it an exclusive lock and an object map") : 0;
}

/* By the image's id, from any name it has; only its own volume's call may. */
static int name_it(const struct record *rec, const char *name, struct err **e)
{
        char now[RBD_NAME_SIZE];
        int r = image_name(rec->io, rec->image, now, e);

        if (r < 0 || streq(now, name))
                return r;
        r = rbd_rename(rec->io, now, name);
        if (r == -EEXIST)
                return err_set(e, r, "there is an image '%s' already", name);
        return r < 0 ? err_errno(e, r, "rename RBD image '%s'", now) : 0;
}

/* From the name that was asked for: of several who adopt one image the first has it. */
static int take_name(const struct record *rec, const char *to, struct err **e)
{
        char now[RBD_NAME_SIZE];
        int r = image_name(rec->io, rec->image, now, e);

        if (r < 0 || streq(now, to))
                return r;
        if (!streq(now, rec->was))
                return err_set(e, -EBUSY, "it is called '%s' now: somebody else has it", now);
        r = rbd_rename(rec->io, now, to);
        return r < 0 ? err_errno(e, r, "rename RBD image '%s'", now) : 0;
}

static int adopt(struct pool *p, const char *id, const char *name, struct record *ret,
                 struct err **e)
{
        struct record rec = {.own = true}, have;
        char to[RBD_NAME_SIZE];
        int r = index_find(p, id, &have, e);

        if (r < 0)
                return r;
        *ret = have;
        if (r > 0 && (have.made || !have.was[0]))
                return have.made ? 0 : err_set(e, -EEXIST, "it is being made");
        if (r > 0) {
                rec = have;
        } else {
                r = parse(p, name, &rec, e);
                if (r == 0)
                        r = inspect(p, &rec, e);
                if (r == 0 && rec.space[0])
                        r = space_list(p, rec.space, e);
                if (r == 0)
                        r = index_put(p, id, &rec, true, e);
                if (r < 0)
                        return r;
        }
        snprintf(to, sizeof(to), "volume-%s", id);
        r = give_features(&rec, e);
        if (r == 0)
                r = take_name(&rec, to, e);
        if (r < 0)
                return r;
        rec.made = true;
        rec.was[0] = '\0';
        *ret = rec;
        return index_put(p, id, &rec, false, e);
}

int adopt_image(struct pool *p, const char *id, const char *name, struct volume_snap **ret,
                size_t *ret_n, struct err **e)
{
        struct entry *en = entry_take(p, id);
        struct record rec;
        int r;

        if (!en)
                return err_errno(e, -ENOMEM, "adopt");
        r = adopt(p, id, name, &rec, e);
        if (r == 0)
                r = snaps_adopt(p, id, &rec, ret, ret_n, e);
        entry_release(en);
        return r;
}

int adopt_undo(struct pool *p, const char *id, const struct record *rec, struct err **e)
{
        char now[RBD_NAME_SIZE], ours[RBD_NAME_SIZE];
        int r = image_name(rec->io, rec->image, now, e);

        snprintf(ours, sizeof(ours), "volume-%s", id);
        if (r == 0 && streq(now, ours)) /* else it is not ours to name */
                r = name_it(rec, rec->was, e);
        return r < 0 && r != -ENOENT ? r : index_drop(p, id, e);
}

/* ---- release ---- */

static int release(struct pool *p, const char *id, const char *name, const struct volume_snap *v,
                   size_t n, struct err **e)
{
        struct record rec;
        rbd_image_t image;
        int r = index_get(p, id, &rec, e);

        if (r == 0 && !rec.made)
                r = err_set(e, -ENOENT, "there is no such volume");
        if (r == 0 && rec.snap[0])
                r = err_set(e, -EROFS, "it is immutable");
        if (r == 0 && (!*name || strlen(name) >= RBD_NAME_SIZE || strpbrk(name, "/@")))
                r = err_set(e, -EINVAL, "'%.64s' is no name of an image", name);
        if (r == 0)
                r = image_open_readonly(rec.io, rec.image, "", &image, e);
        if (r < 0)
                return r;
        r = refuse_lock(image, e);
        if (r == 0)
                r = refuse_watcher(image, e);
        image_close(image);
        if (r == 0)
                r = snaps_refuse(p, id, &rec, v, n, e);
        if (r == 0)
                r = name_it(&rec, name, e);
        if (r == 0)
                r = snaps_release(p, id, &rec, v, n, e);
        return r < 0 ? r : index_drop(p, id, e);
}

int adopt_release(struct pool *p, const char *id, const char *name, const struct volume_snap *v,
                  size_t n, struct err **e)
{
        struct entry *en = entry_take(p, id);
        int r;

        if (!en)
                return err_errno(e, -ENOMEM, "release");
        r = en->users > 0 ? err_set(e, -EBUSY, "it is open") : release(p, id, name, v, n, e);
        entry_release(en);
        return r;
}
