/* The verbs of an instance: what is legal is in the table in instance.c; here is what begins. */
#include "control/hosts.h"
#include "control/kinds/instance.h"

int instance_start(struct txn *t, struct object *o, const char *args, struct err **e)
{
        if (object_num(o, "memory") == 0) {
                err_set(e, -EINVAL, "start '%s': it has no flavor", o->name);
                return err_hint(e, -EINVAL, "echo small > flavor; the flavors are in flavors/");
        }
        if (container_start_fits(o, e) < 0)
                return -EINVAL;
        if (!object_link(o, kind_link(o->kind, "volumes"), NULL) && !object_target(o, "image") &&
            !object_target(o, "kernel") && !object_target(o, "cdrom") &&
            !strstr(object_str(o, "boot"), "network") && !object_num(o, "adopted") &&
            !*object_str(o, "rooted")) {
                err_set(e, -EINVAL, "start '%s': it has no disk to boot from", o->name);
                return err_hint(e, -EINVAL,
                                "ln -s volumes/NAME volumes/vda, or ln -s images/NAME image");
        }
        txn_set_num(t, o, "claim", 0);
        job_start(t, o, &job_instance_start, object_state(o));
        txn_set_state(t, o, INSTANCE_STARTING);
        return 0;
}

int instance_evacuate(struct txn *t, struct object *o, const char *args, struct err **e)
{
        const struct object *host = host_find(t->c, object_str(o, "host"));

        if (host && host->state != HOST_DOWN) {
                err_set(e, -EBUSY, "evacuate '%s': its host '%s' is %s", o->name, host->name,
                        object_state(host));
                if (host->state == HOST_AWAY)
                        err_hint(e, -EBUSY, "echo evacuate > admin/hosts/%s/ctl, if it is dead",
                                 host->name);
                return -EBUSY;
        }
        return instance_start(t, o, "", e);
}

int instance_stop(struct txn *t, struct object *o, const char *args, struct err **e)
{
        uint64_t seconds = 60;
        char text[32];
        union value v = {};
        static const struct attr_def limit = {"SECONDS", ATTR_NUMBER, .max = 3600};

        if (streq(args, "now"))
                seconds = 0;
        else if (*args) {
                int r = value_parse(t->c, &limit, args, strlen(args), &v, e);

                if (r < 0)
                        return err_prepend(e, r, "stop takes `now` or seconds");
                seconds = v.u;
        }
        snprintf(text, sizeof(text), "%" PRId64, clock_now() / 1000000 + (int64_t)seconds);
        job_start(t, o, &job_instance_stop, seconds ? text : "now");
        txn_set_state(t, o, INSTANCE_STOPPING);
        return 0;
}

enum { SOFT_S = 60 }; /* a container that has not ended by then is ended */

int instance_reboot(struct txn *t, struct object *o, const char *args, struct err **e)
{
        char until[48];

        if (*args && !streq(args, "hard") && !streq(args, "soft"))
                return err_at(e, -EINVAL, args, strlen(args), 0, strlen(args),
                              "reboot takes `hard` or `soft`");
        if (o->state != INSTANCE_ACTIVE && !streq(args, "hard"))
                return err_set(e, -EBUSY, "one that is %s hears nothing: reboot hard",
                               object_state(o));
        if (object_in(o, STATE(INSTANCE_STOPPED) | STATE(INSTANCE_ERROR)))
                return instance_start(t, o, "", e);
        if (instance_container(o)) { /* ended, and started anew */
                instance_off_args(until, streq(args, "hard") ? 0 : SOFT_S, "");
                job_start(t, o, &job_container_restart, until);
                txn_set_state(t, o, INSTANCE_REBOOTING);
                return 0;
        }
        job_start(t, o,
                  o->state == INSTANCE_SUSPENDED ? &job_instance_discard : &job_instance_reboot,
                  args);
        txn_set_state(t, o, INSTANCE_REBOOTING);
        return 0;
}

int instance_pause(struct txn *t, struct object *o, const char *args, struct err **e)
{
        if (!job_live(t->c, o->no, &job_instance_pause))
                job_start(t, o, &job_instance_pause, NULL);
        return 0;
}

int instance_resume(struct txn *t, struct object *o, const char *args, struct err **e)
{
        const char *host = object_str(o, "host");

        if (o->state == INSTANCE_SUSPENDED && host_find(t->c, host) && !host_holds(t->c, host)) {
                err_set(e, -EHOSTDOWN, "its memory is on host '%s', which is down", host);
                err_hint(e, -EHOSTDOWN,
                         "echo reboot hard > ctl boots it elsewhere, without its memory");
                return -EHOSTDOWN;
        }
        if (o->state == INSTANCE_SUSPENDED) {
                job_start(t, o, &job_instance_restore, NULL);
                txn_set_state(t, o, INSTANCE_RESUMING);
        } else if (!job_live(t->c, o->no, &job_instance_resume))
                job_start(t, o, &job_instance_resume, NULL);
        return 0;
}

int instance_suspend(struct txn *t, struct object *o, const char *args, struct err **e)
{
        job_start(t, o, &job_instance_suspend, NULL);
        txn_set_state(t, o, INSTANCE_SUSPENDING);
        return 0;
}

/* One job takes all of them, while the guest stands still. */
int instance_snapshot(struct txn *t, struct object *o, const char *args, struct err **e)
{
        char label[NAME_SIZE + 32];
        unsigned n = 0;
        int r = name_check(args, strlen(args), e);

        object_foreach_link (l, o) {
                struct object *s;

                if (r < 0 || l->target->kind != &kind_volume || l->leaving)
                        continue;
                if (!object_in(l->target, STATE(VOLUME_IN_USE)))
                        r = err_set(e, -EBUSY, "%s is %s", object_label(l->target, label),
                                    object_state(l->target));
                if (r == 0)
                        r = txn_create(t, &kind_snapshot, l->target, args, &s, e);
                if (r == 0)
                        txn_set_state(t, s, SNAPSHOT_CREATING);
                n++;
        }
        if (r == 0 && n == 0)
                r = err_set(e, -EINVAL, "it has no volumes");
        if (r == 0)
                job_start(t, o, &job_instance_snapshot, args);
        return r;
}

/* The boot disk becomes image NAME, another one NAME-DEVICE. */
static int new_image(struct txn *t, struct object *o, const struct link *l, const char *name,
                     uint64_t job, struct err **e)
{
        char full[NAME_SIZE * 2], label[NAME_SIZE + 32];
        struct object *v = l->target, *image;
        int r;

        if (!object_in(v, STATE(VOLUME_IN_USE)))
                return err_set(e, -EBUSY, "%s is %s", object_label(v, label), object_state(v));
        if (volume_encrypted(v))
                return err_set(e, -ENOTSUP, "%s is encrypted: an image would not be",
                               object_label(v, label));
        snprintf(full, sizeof(full), l == instance_boot_link(o) ? "%s" : "%s-%s", name, l->name);
        r = action_create(t, o->tenant, &kind_image, full, &image, e);
        if (r < 0)
                return r;
        txn_set_str(t, image, "format", "raw");
        txn_set_num(t, image, "size", object_num(v, "actual"));
        txn_set_num(t, image, "taken_of", v->no);
        txn_set_num(t, image, "taken_by", job);
        txn_set_state(t, image, IMAGE_SAVING);
        return 0;
}

int instance_image(struct txn *t, struct object *o, const char *args, struct err **e)
{
        struct object *job;
        unsigned n = 0;
        int r = name_check(args, strlen(args), e);

        if (r < 0)
                return r;
        job = job_start(t, o, &job_instance_image, args);
        for (unsigned i = 0; i < o->nlinks && r == 0; i++)
                if (o->links[i].target->kind == &kind_volume && !o->links[i].leaving) {
                        r = new_image(t, o, &o->links[i], args, job->no, e);
                        n++;
                }
        return r == 0 && n == 0 ? err_set(e, -EINVAL, "it has no volumes") : r;
}

/* "NAME [RULES]": backups named as images are; the rules go to `keep` of each volume. */
int instance_backup(struct txn *t, struct object *o, const char *args, struct err **e)
{
        const size_t len = strcspn(args, " ");
        const char *rules = args + len + strspn(args + len, " ");
        _cleanup_free_ char *name = xstrndup(args, len);
        char full[NAME_SIZE * 2];
        struct object *job;
        unsigned n = 0;
        int r = name_check(name, len, e);

        if (r == 0 && *rules)
                r = keep_check(rules, e);
        if (r < 0)
                return r;
        job = job_start(t, o, &job_instance_backup, name);
        for (unsigned i = 0; i < o->nlinks && r == 0; i++) {
                const struct link *l = &o->links[i];

                if (l->target->kind != &kind_volume || l->leaving)
                        continue;
                snprintf(full, sizeof(full), l == instance_boot_link(o) ? "%s" : "%s-%s", name,
                         l->name);
                r = backup_of(t, l->target, full, job->no, e);
                if (r == 0 && *rules)
                        txn_set_str(t, l->target, "keep", rules);
                n++;
        }
        return r == 0 && n == 0 ? err_set(e, -EINVAL, "it has no volumes") : r;
}

/* What a job that is cut short leaves behind is put right by its failed(), and by a sync. */
int instance_reset(struct txn *t, struct object *o, const char *args, struct err **e)
{
        txn_event(t, o, "reset, out of %s", object_state(o));
        if (jobs_hurry(t->c, o->no) > 0 || o->nameless)
                return 0;
        txn_set_state(t, o, INSTANCE_ACTIVE); /* sync puts down what it really is */
        job_start(t, o, &job_instance_sync, NULL);
        return 0;
}
