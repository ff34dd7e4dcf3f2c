/* What an instance is bound to: its disks, its image, kernel and ramdisk. */
#include "control/kinds/instance.h"

enum { DISKS_MAX = 16 };

static bool is_device(const char *name)
{
        return strlen(name) == 3 && name[0] == 'v' && name[1] == 'd' && name[2] >= 'a' &&
               name[2] <= 'z';
}

/* The name that was asked for if it is a device's, else the next free device. */
static int choose_device(const struct object *o, char *name, struct err **e)
{
        unsigned def = kind_link(o->kind, "volumes");
        unsigned n = 0;

        object_foreach_link (l, o)
                n += l->def == def;
        if (n >= DISKS_MAX)
                return err_set(e, -EDQUOT, "volumes of an instance: limit=%d used=%u wanted=1",
                               DISKS_MAX, n);
        if (is_device(name))
                return 0;
        for (char c = 'a'; c <= 'z'; c++) {
                snprintf(name, NAME_SIZE, "vd%c", c);
                if (!object_link(o, def, name))
                        return 0;
        }
        return err_set(e, -ENOSPC, "no device is free");
}

int instance_bind_volume(struct txn *t, struct object *o, char *name, struct object *volume,
                         struct err **e)
{
        const bool shared = volume_shared(t->c, volume);
        const unsigned fit =
                STATE(VOLUME_CREATING) | STATE(VOLUME_AVAILABLE) | STATE(VOLUME_EXTENDING) |
                (shared ? STATE(VOLUME_IN_USE) | STATE(VOLUME_ATTACHING) | STATE(VOLUME_DETACHING)
                        : 0);
        char label[NAME_SIZE + 32];

        if (instance_not_adopted(o, "attach", e) < 0 || instance_not_container(o, "attach", e) < 0)
                return -ENOTSUP;
        object_foreach_link (l, o)
                if (l->target == volume)
                        return err_set(e, -EEXIST, "volume '%s' is attached here already, as %s",
                                       volume->name, l->name);
        for (unsigned i = 0; i < volume->nrefs && !shared; i++)
                if (volume->refs[i]->kind == &kind_instance)
                        return err_set(e, -EBUSY, "volume '%s' is attached to %s", volume->name,
                                       object_label(volume->refs[i], label));
        if (volume->writers)
                return err_set(e, -EBUSY, "volume '%s' is being written through its data",
                               volume->name);
        if (!object_in(volume, fit)) {
                err_set(e, -EBUSY, "volume '%s' is %s", volume->name, object_state(volume));
                if (volume->state == VOLUME_DRAFT)
                        err_hint(e, -EBUSY, "give it a size (echo 10G > size) or a source first");
                return -EBUSY;
        }
        return choose_device(o, name, e);
}

int instance_bound_volume(struct txn *t, struct object *o, struct link *l, struct err **e)
{
        struct object *v = l->target;
        char id[ID_TEXT_SIZE];

        snprintf(id, sizeof(id), "%s", l->id);
        if (v->state == VOLUME_AVAILABLE)
                txn_set_state(t, v, object_in(o, PLUGGED) ? VOLUME_ATTACHING : VOLUME_IN_USE);
        else if (v->state == VOLUME_IN_USE && object_in(o, PLUGGED))
                txn_set_state(t, v, VOLUME_ATTACHING); /* one more of several */
        if (object_in(o, PLUGGED))
                job_start(t, o, &job_instance_attach, id);
        return 0;
}

unsigned volume_held_state(struct control *c, const struct object *v, const char *done)
{
        unsigned state = VOLUME_IN_USE;

        for (unsigned i = 0; i < v->nrefs; i++)
                object_foreach_link (l, v->refs[i])
                        if (l->target != v || streq(l->id, done))
                                continue;
                        else if (l->leaving)
                                state = VOLUME_DETACHING;
                        else if (state == VOLUME_IN_USE &&
                                 job_live_for(c, v->refs[i]->no, &job_instance_attach, l->id))
                                state = VOLUME_ATTACHING;
        return state;
}

void instance_release_volume(struct txn *t, struct object *o, struct object *v)
{
        struct link *mine = NULL;
        unsigned others = 0;

        if (!object_in(v, STATE(VOLUME_IN_USE) | STATE(VOLUME_ATTACHING) | STATE(VOLUME_DETACHING)))
                return;
        for (unsigned i = 0; i < v->nrefs; i++)
                others += v->refs[i]->kind == &kind_instance && v->refs[i] != o;
        object_foreach_link (l, o)
                if (l->target == v)
                        mine = l;
        txn_set_state(t, v,
                      others ? volume_held_state(t->c, v, mine ? mine->id : "") : VOLUME_AVAILABLE);
}

int instance_unbind_volume(struct txn *t, struct object *o, struct link *l, struct err **e)
{
        char id[ID_TEXT_SIZE];

        if (!object_in(o, PLUGGED)) {
                instance_release_volume(t, o, l->target);
                return 0;
        }
        txn_edit(t, o);
        l->leaving = true;
        snprintf(id, sizeof(id), "%s", l->id);
        if (object_in(l->target, STATE(VOLUME_IN_USE) | STATE(VOLUME_ATTACHING)))
                txn_set_state(t, l->target, VOLUME_DETACHING);
        job_start(t, o, &job_instance_detach, id);
        return LINK_LATER;
}

int instance_bind_image(struct txn *t, struct object *o, char *name, struct object *image,
                        struct err **e)
{
        const unsigned fit = STATE(IMAGE_SAVING) | STATE(IMAGE_ACTIVE);
        enum image_format f = image_format_parse(object_str(image, "format"));
        bool disk = streq(name, "image");

        if (instance_not_adopted(o, name, e) < 0 ||
            (!disk && instance_not_container(o, name, e) < 0))
                return -ENOTSUP;

        if (!object_in(image, fit))
                return err_set(e, -EBUSY, "image '%s' is %s", image->name, object_state(image));
        if (image->state != IMAGE_ACTIVE)
                return 0; /* the start job looks again */
        if (disk && container_image_fits(o, image, e) < 0)
                return -EINVAL;
        if (disk && !image_format_bootable(f) && f != IMAGE_TAR)
                return err_set(e, -EINVAL, "image '%s' is %s: no disk", image->name,
                               image_format_name(f));
        if (streq(name, "kernel") && f != IMAGE_AKI)
                return err_set(e, -EINVAL, "image '%s' is %s: kernel takes an aki", image->name,
                               image_format_name(f));
        if (streq(name, "cdrom") && f != IMAGE_ISO)
                return err_set(e, -EINVAL, "image '%s' is %s: cdrom takes an iso", image->name,
                               image_format_name(f));
        if (streq(name, "ramdisk") && f != IMAGE_ARI)
                return err_set(e, -EINVAL, "image '%s' is %s: ramdisk takes an ari", image->name,
                               image_format_name(f));
        return 0;
}
