/* Instances that are containers: what they cannot be asked for, said before anything begins. */
#include "control/kinds/instance.h"

bool instance_container(const struct object *o)
{
        char text[NAME_SIZE];

        return instance_hardware(o, "hypervisor", text, sizeof(text)) && streq(text, "lxc");
}

int instance_not_container(const struct object *o, const char *what, struct err **e)
{
        if (!instance_container(o))
                return 0;
        return err_set(e, -ENOTSUP, "%s: '%s' is a container: its root is a folder of its host's",
                       what, o->name);
}

int instance_same_engine(const struct object *o, const struct object *f, struct err **e)
{
        const bool lxc = streq(object_str(f, "hypervisor"), "lxc");

        if (!*object_str(o, "host") || lxc == instance_container(o))
                return 0;
        return lxc ? err_set(e, -EINVAL, "it is no container: '%s' is a flavor of those", f->name)
                   : err_set(e, -EINVAL, "it is a container: '%s' is no flavor of one", f->name);
}

int instance_suits(const struct object *o, const char *verb, struct err **e)
{
        /* Each is about disks, about memory that goes elsewhere, or about hardware. */
        static const char *const unfit[] = {
                "suspend",      "snapshot", "image",    "backup",  "send-key", "crash-dump",
                "set-password", "rescue",   "unrescue", "rebuild", "shelve",   "unshelve",
                "resize",       "confirm",  "revert",   "vnc",     "migrate",  "evacuate"};

        for (size_t i = 0; i < ARRAY_SIZE(unfit); i++)
                if (streq(verb, unfit[i]))
                        return instance_not_container(o, verb, e);
        return 0;
}

int container_flavor_fits(const struct object *f, struct err **e)
{
        static const char *const numbers[] = {"vcpus_max", "memory_max", "cores", "threads",
                                              "numa"};

        if (!streq(object_str(f, "hypervisor"), "lxc"))
                return 0;
        for (size_t i = 0; i < ARRAY_SIZE(numbers); i++)
                if (object_num(f, numbers[i]))
                        return err_set(e, -EINVAL, "flavor '%s': a container has no %s", f->name,
                                       numbers[i]);
        if (*object_str(f, "cpu") || !streq(object_str(f, "huge_pages"), "none"))
                return err_set(e, -EINVAL, "flavor '%s': a container has its host's CPU and pages",
                               f->name);
        return 0;
}

int container_image_fits(const struct object *o, const struct object *image, struct err **e)
{
        enum image_format f = image_format_parse(object_str(image, "format"));

        if (image->state != IMAGE_ACTIVE || object_num(o, "memory") == 0)
                return 0; /* not known yet: looked at again */
        if (instance_container(o) && f != IMAGE_TAR)
                return err_set(e, -EINVAL,
                               "image '%s' is %s: a container's root comes of a tar archive",
                               image->name, image_format_name(f));
        if (!instance_container(o) && f == IMAGE_TAR) {
                err_set(e, -EINVAL, "image '%s' is tar: no disk", image->name);
                return err_hint(e, -EINVAL, "it is for containers: a flavor with hypervisor lxc");
        }
        return 0;
}

/* What it was given that a container has no place for. */
static int without_hardware(const struct object *o, struct err **e)
{
        static const char *const links[] = {"volumes", "kernel", "ramdisk", "cdrom"};
        static const struct {
                const char *attr, *usual;
        } words[] = {{"screen", "none"}, {"watchdog", "off"}, {"extra.xml", ""}};

        for (size_t i = 0; i < ARRAY_SIZE(links); i++)
                if (object_link(o, kind_link(o->kind, links[i]), NULL))
                        return err_set(e, -EINVAL, "start '%s': a container has no %s", o->name,
                                       links[i]);
        for (size_t i = 0; i < ARRAY_SIZE(words); i++)
                if (!streq(object_str(o, words[i].attr), words[i].usual))
                        return err_set(e, -EINVAL, "start '%s': a container has no %s", o->name,
                                       words[i].attr);
        return object_num(o, "tpm")
                       ? err_set(e, -EINVAL, "start '%s': a container has no tpm", o->name)
                       : 0;
}

int container_start_fits(const struct object *o, struct err **e)
{
        const struct object *image = object_target(o, "image");
        int r = instance_container(o) ? without_hardware(o, e) : 0;

        if (r == 0 && instance_container(o) && !image && !*object_str(o, "rooted")) {
                err_set(e, -EINVAL, "start '%s': a container has its root of an image", o->name);
                return err_hint(e, -EINVAL, "ln -s images/NAME image, of a tar archive");
        }
        if (r == 0 && !instance_container(o) && *object_str(o, "rooted"))
                return err_set(e, -EINVAL, "start '%s': it is a container: give it such a flavor",
                               o->name);
        return r == 0 && image ? container_image_fits(o, image, e) : r;
}
