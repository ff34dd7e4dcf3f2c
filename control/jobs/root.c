/* The disk that an instance boots from, made from an image. */
#include "control/jobs/jobs.h"

int instance_make_root(struct txn *t, struct object *o, struct object *image, const char *suffix,
                       const char *device, uint64_t size, struct object **ret, struct err **e)
{
        char name[NAME_SIZE * 2], link[NAME_SIZE];
        struct buf target = {};
        struct object *v;
        int r = -EEXIST;

        for (int i = 1; r == -EEXIST && i < 100; i++) {
                snprintf(name, sizeof(name), i > 1 ? "%.48s-%s-%d" : "%.48s-%s", o->name, suffix,
                         i);
                r = txn_create(t, &kind_volume, o->tenant, name, &v, NULL);
        }
        if (r < 0)
                return err_set(e, r, "no name is free for its %s volume", suffix);
        txn_set_num(t, v, "made_for", o->no);
        txn_set_str(t, v, "host", t->c->cfg.host);
        if (size)
                txn_set_num(t, v, "size", MAX(size, object_num(image, "virtual_size")));
        buf_printf(&target, "images/%s", image->name);
        r = action_link(t, v, kind_link(&kind_volume, "source"), "source", buf_str(&target), false,
                        link, e);
        buf_done(&target);
        if (r == 0)
                r = action_complete(t, v, e);
        if (r == 0)
                txn_link(t, o, kind_link(&kind_instance, "volumes"), device, v);
        *ret = v;
        return r;
}

struct link *instance_boot_link(const struct object *o)
{
        const unsigned def = kind_link(o->kind, "volumes");
        struct link *boot = NULL;

        object_foreach_link (l, o) {
                bool better, bootable;

                if (l->def != def || l->leaving)
                        continue;
                if (l->target->no == object_num(o, "rescue"))
                        return l;
                bootable = object_num(l->target, "bootable");
                better = !boot || (bootable && !object_num(boot->target, "bootable")) ||
                         (bootable == (bool)object_num(boot->target, "bootable") &&
                          strcmp(l->name, boot->name) < 0);
                if (better)
                        boot = l;
        }
        return boot;
}

void instance_drop_volume(struct txn *t, struct object *o, struct link *l)
{
        struct object *v = l->target;

        instance_release_volume(t, o, v);
        txn_unlink(t, o, l);
        if (object_num(v, "made_for") != o->no || v->nameless)
                return;
        if (volume_remove(t, v, NULL) < 0) /* it has snapshots, or is somebody else's now */
                txn_set_num(t, v, "made_for", 0);
}

int instance_image_named(struct txn *t, struct object *o, const char *verb, const char *args,
                         struct object **ret, struct err **e)
{
        const struct link_def *d = &o->kind->links[kind_link(o->kind, "image")];
        char name[NAME_SIZE] = "image";
        int r;

        if (!*args)
                return err_set(e, -EINVAL, "%s takes the name of an image", verb);
        r = resolve_target(t->c, o, d, args, false, ret, NULL);
        if (r < 0) {
                *ret = model_by_name(t->c, o->tenant, &kind_image, args);
                r = *ret ? 0
                         : err_at(e, -ENOENT, args, strlen(args), 0, strlen(args),
                                  "there is no such image");
        }
        if (r == 0 && (*ret)->kind != &kind_image)
                r = err_at(e, -EINVAL, args, strlen(args), 0, strlen(args), "it is no image");
        return r < 0 ? r : d->bind(t, o, name, *ret, e);
}
