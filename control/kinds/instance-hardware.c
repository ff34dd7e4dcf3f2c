/* The hardware of instances: what comes of the flavor, what the image says, what is written here.
 */
#include "control/kinds/instance.h"

#include <sys/random.h>

enum { PIECE = 128 << 20 }; /* memory is plugged in by such */

/* --- figures of the flavor ------------------------------------------------------------------- */

/* Those that are numbers: of the flavor, and here; with "old_" before, while a resize is on
 * probation. */
static const char *const figures[] = {"vcpus", "vcpus_max", "memory", "memory_max", "disk"};

/* The rest is one line of words, KEY=VALUE, of what is not as usual. */
static const char *const words[] = {"cores", "threads", "cpu", "numa", "huge_pages",
                                    "hypervisor"};

static char *flavor_words(const struct object *f)
{
        struct buf b = {};

        for (unsigned i = 0; i < ARRAY_SIZE(words); i++) {
                const struct attr_def *a = &kind_flavor.attrs[kind_attr(&kind_flavor, words[i])];

                if (attr_is_text(a)) {
                        const char *s = object_str(f, words[i]);

                        if (*s && !streq(s, a->def ?: ""))
                                buf_printf(&b, "%s%s=%s", b.len ? " " : "", words[i], s);
                } else if (object_num(f, words[i])) {
                        buf_printf(&b, "%s%s=%" PRIu64, b.len ? " " : "", words[i],
                                   object_num(f, words[i]));
                }
        }
        return b.data; /* NULL: nothing */
}

int instance_flavor_fits(const struct object *f, struct err **e)
{
        const uint64_t vcpus = MAX(object_num(f, "vcpus"), object_num(f, "vcpus_max"));
        const uint64_t socket = MAX(object_num(f, "cores"), 1u) * MAX(object_num(f, "threads"), 1u);
        const uint64_t max = object_num(f, "memory_max");

        if (vcpus % socket)
                return err_set(e, -EINVAL,
                               "flavor '%s': %" PRIu64 " processors do not fill sockets of %" PRIu64
                               " (cores times threads)",
                               f->name, vcpus, socket);
        if (object_num(f, "numa") > vcpus)
                return err_set(e, -EINVAL, "flavor '%s': fewer processors than NUMA nodes",
                               f->name);
        if (max && max < object_num(f, "memory"))
                return err_set(e, -EINVAL, "flavor '%s': memory_max is less than its memory",
                               f->name);
        return container_flavor_fits(f, e);
}

void instance_take_flavor(struct txn *t, struct object *o, const struct object *f)
{
        _cleanup_free_ char *hardware = flavor_words(f);

        txn_set_str(t, o, "flavor", f->name);
        for (unsigned i = 0; i < ARRAY_SIZE(figures); i++)
                txn_set_num(t, o, figures[i], object_num(f, figures[i]));
        txn_set_str(t, o, "hardware", hardware);
}

void instance_keep_flavor(struct txn *t, struct object *o)
{
        char old[32];

        txn_set_str(t, o, "resized_from", object_str(o, "flavor"));
        for (unsigned i = 0; i < ARRAY_SIZE(figures); i++) {
                snprintf(old, sizeof(old), "old_%s", figures[i]);
                txn_set_num(t, o, old, object_num(o, figures[i]));
        }
        txn_set_str(t, o, "old_hardware", object_str(o, "hardware"));
}

void instance_forget_flavor(struct txn *t, struct object *o)
{
        char old[32];

        txn_set_str(t, o, "resized_from", NULL);
        for (unsigned i = 0; i < ARRAY_SIZE(figures); i++) {
                snprintf(old, sizeof(old), "old_%s", figures[i]);
                txn_set_num(t, o, old, 0);
        }
        txn_set_str(t, o, "old_hardware", NULL);
}

void instance_restore_flavor(struct txn *t, struct object *o)
{
        char old[32];

        txn_set_str(t, o, "flavor", object_str(o, "resized_from"));
        for (unsigned i = 0; i < ARRAY_SIZE(figures); i++) {
                snprintf(old, sizeof(old), "old_%s", figures[i]);
                txn_set_num(t, o, figures[i], object_num(o, old));
        }
        txn_set_str(t, o, "hardware", object_str(o, "old_hardware"));
        instance_forget_flavor(t, o);
}

bool instance_hardware(const struct object *o, const char *key, char *out, size_t size)
{
        const size_t n = strlen(key);

        for (const char *p = object_str(o, "hardware"); *p; p += strspn(p, " ")) {
                const size_t len = strcspn(p, " ");

                if (len > n && !memcmp(p, key, n) && p[n] == '=') {
                        snprintf(out, size, "%.*s", (int)(len - n - 1), p + n + 1);
                        return true;
                }
                p += len;
        }
        *out = '\0';
        return false;
}

/* --- what is written ------------------------------------------------------------------------- */

const char *instance_or_image(const struct object *o, const char *attr)
{
        const char *own = object_str(o, attr);
        const struct object *image = object_target(o, "image");

        if (!streq(own, "auto"))
                return own;
        return image ? object_str(image, attr) : "";
}

int instance_set_memory(struct txn *t, struct object *o, union value v, struct err **e)
{
        const uint64_t now = object_num(o, "memory"), max = MAX(object_num(o, "memory_max"), now);
        char before[24];

        if (v.u < now)
                return err_set(e, -EINVAL, "a running guest is given memory, not less of it");
        if (v.u > max)
                return err_set(e, -EINVAL, "its flavor allows %" PRIu64, max);
        if ((v.u - now) % PIECE)
                return err_set(e, -EINVAL, "memory is plugged in by pieces of 128M");
        if (instance_may_grow(t->c, o, 0, v.u - now, e) < 0)
                return -ENOSPC;
        snprintf(before, sizeof(before), "%" PRIu64, now);
        txn_set_num(t, o, "memory", v.u);
        job_start(t, o, &job_instance_memory, before);
        return 0;
}

int instance_set_boot(struct txn *t, struct object *o, union value v, struct err **e)
{
        static const char *const sorts[] = {"disk", "cdrom", "network"};
        const char *s = v.s ?: "disk", *p = s;
        unsigned seen = 0;

        while (*(p += strspn(p, " "))) {
                const size_t n = strcspn(p, " ");
                unsigned i = 0;

                while (i < ARRAY_SIZE(sorts) &&
                       (n != strlen(sorts[i]) || memcmp(p, sorts[i], n) != 0))
                        i++;
                if (i == ARRAY_SIZE(sorts) || seen & 1u << i)
                        return err_at(e, -EINVAL, s, strlen(s), p - s, n,
                                      "boot is disk, cdrom and network, each at most once, in the "
                                      "order to try");
                seen |= 1u << i;
                p += n;
        }
        txn_set_str(t, o, "boot", seen ? s : "disk");
        return 0;
}

int instance_set_extra(struct txn *t, struct object *o, union value v, struct err **e)
{
        const struct control_config *cfg = &t->c->cfg;
        int r = v.s && cfg->check_extra ? cfg->check_extra(v.s, e) : 0;

        if (r == 0)
                txn_set_str(t, o, "extra.xml", v.s);
        return r;
}

/* --- screen ---------------------------------------------------------------------------------- */

enum { VNC_S = 600, VNC_MAX_S = 86400, VNC_PASSWORD = 8 }; /* VNC knows no longer passwords */

int instance_vnc_verb(struct txn *t, struct object *o, const char *args, struct err **e)
{
        static const struct attr_def life = {"SECONDS", ATTR_NUMBER, .min = 1, .max = VNC_MAX_S};
        static const char letters[] =
                "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";
        char password[VNC_PASSWORD + 1] = "";
        uint8_t random[VNC_PASSWORD];
        union value v = {.u = VNC_S};
        int r = *args ? value_parse(t->c, &life, args, strlen(args), &v, e) : 0;

        if (r < 0)
                return err_prepend(e, r, "vnc takes the seconds it may be used for");
        if (!streq(object_str(o, "screen"), "vnc")) {
                err_set(e, -EINVAL, "it has no screen");
                return err_hint(e, -EINVAL, "while it is off: echo vnc > screen");
        }
        if (getrandom(random, sizeof(random), 0) != sizeof(random))
                return err_set(e, -EIO, "no random bytes");
        for (unsigned i = 0; i < VNC_PASSWORD; i++)
                password[i] = letters[random[i] % 64];
        txn_set_str(t, o, "vnc_password", password);
        txn_set_num(t, o, "vnc_until", clock_now() / 1000000 + v.u);
        txn_set_num(t, o, "vnc_open", 0);
        job_start(t, o, &job_instance_vnc, NULL);
        return 0;
}

void instance_render_vnc(struct control *c, const struct object *o, struct buf *out)
{
        _cleanup_free_ char *p = instance_vnc(c, o);
        const int64_t until = object_num(o, "vnc_until");
        char when[CLOCK_TEXT_MAX];

        if (!object_in(o, INSTANCE_RUNS) || !streq(object_str(o, "screen"), "vnc"))
                return;
        buf_printf(out, "socket %s\n", p);
        if (object_num(o, "vnc_open") && until > clock_now() / 1000000)
                buf_printf(out, "password %s\nuntil %s\n", object_str(o, "vnc_password"),
                           clock_format(when, until * 1000000));
}
