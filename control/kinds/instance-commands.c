/* Verbs that a guest carries out itself, and the lock that keeps its own users from the others. */
#include "control/kinds/instance.h"

#include <crypt.h>
#include <sys/random.h>

/* --- lock ------------------------------------------------------------------------------------ */

int instance_guard(const struct object *o, const char *what, struct err **e)
{
        const char *by = object_str(o, "locked");
        char label[NAME_SIZE + 32];

        if (!*by || (what && streq(what, "unlock") && streq(by, "member")))
                return 0;
        err_set(e, -EPERM, "%s%s%s is locked", what ?: "", what ? ": " : "",
                object_label(o, label));
        err_hint(e, -EPERM, streq(by, "member") ? "echo unlock > ctl" : "an admin locked it");
        return -EPERM;
}

int instance_lock(struct txn *t, struct object *o, const char *args, struct err **e)
{
        txn_set_str(t, o, "locked", caller_is_admin(t->c, t->who) ? "admin" : "member");
        txn_event(t, o, "locked");
        return 0;
}

int instance_unlock(struct txn *t, struct object *o, const char *args, struct err **e)
{
        txn_set_str(t, o, "locked", NULL);
        txn_event(t, o, "unlocked");
        return 0;
}

/* --- keys, dump ------------------------------------------------------------------------------ */

/* QEMU's names (QKeyCode in its ui.json) of the keys of a PC. */
static const char key_names[] =
        " ctrl ctrl_r shift shift_r alt alt_r meta_l meta_r menu esc tab caps_lock ret spc "
        "backspace"
        " insert delete home end pgup pgdn up down left right print sysrq pause scroll_lock "
        "num_lock"
        " f1 f2 f3 f4 f5 f6 f7 f8 f9 f10 f11 f12 power sleep wake"
        " 0 1 2 3 4 5 6 7 8 9 a b c d e f g h i j k l m n o p q r s t u v w x y z"
        " minus equal bracket_left bracket_right backslash semicolon apostrophe grave_accent comma"
        " dot slash less asterisk kp_0 kp_1 kp_2 kp_3 kp_4 kp_5 kp_6 kp_7 kp_8 kp_9 kp_add"
        " kp_subtract kp_multiply kp_divide kp_decimal kp_enter ";
enum { KEYS_MAX = 8 }; /* at once */

int instance_send_key(struct txn *t, struct object *o, const char *args, struct err **e)
{
        size_t len = strlen(args), n;
        unsigned count = 0;
        char word[32];

        for (const char *p = args; *(p += strspn(p, " ")); p += n) {
                n = strcspn(p, " ");
                snprintf(word, sizeof(word), " %.*s ", (int)MIN(n, (size_t)20), p);
                if (n > 20 || !strstr(key_names, word)) {
                        err_at(e, -EINVAL, args, len, p - args, n, "there is no such key");
                        err_hint(e, -EINVAL, "keys:%s", key_names);
                        return -EINVAL;
                }
                count++;
        }
        if (count == 0 || count > KEYS_MAX)
                return err_set(e, -EINVAL, "send-key takes 1 to %d keys: ctrl alt delete",
                               KEYS_MAX);
        job_start(t, o, &job_instance_keys, args);
        return 0;
}

int instance_crash_dump(struct txn *t, struct object *o, const char *args, struct err **e)
{
        job_start(t, o, &job_instance_nmi, NULL);
        return 0;
}

/* --- password -------------------------------------------------------------------------------- */

/* What /etc/shadow holds for it.  -EIO: the C library cannot. */
static int shadow_hash(const char *password, char out[CRYPT_OUTPUT_SIZE], struct err **e)
{
        struct crypt_data *d = xcalloc(1, sizeof(*d));
        char salt[CRYPT_GENSALT_OUTPUT_SIZE], random[16];
        const char *hash = NULL;

        if (getrandom(random, sizeof(random), 0) == sizeof(random) &&
            crypt_gensalt_rn("$6$", 0, random, sizeof(random), salt, sizeof(salt)))
                hash = crypt_r(password, salt, d);
        if (hash && hash[0] == '$')
                snprintf(out, CRYPT_OUTPUT_SIZE, "%s", hash);
        else
                hash = NULL;
        explicit_bzero(d, sizeof(*d));
        free(d);
        return hash ? 0 : err_set(e, -EIO, "the password cannot be hashed");
}

static bool user_valid(const char *p, size_t n)
{
        return n > 0 && n <= 32 &&
               strspn(p, "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ"
                         "0123456789_.-") >= n &&
               *p != '-';
}

/* No error here shows the line, and the record of the job has the hash only, until it ends. */
int instance_set_password(struct txn *t, struct object *o, const char *args, struct err **e)
{
        size_t n = strcspn(args, " "), at = n + strspn(args + n, " ");
        char hash[CRYPT_OUTPUT_SIZE], text[CRYPT_OUTPUT_SIZE + 40];
        const char *use = args + at;
        int r = 0;

        if (!user_valid(args, n) || !args[at])
                return err_set(e, -EINVAL, "set-password takes a user's name and the password");
        if (strncmp(use, "$6$", 3) != 0 && strncmp(use, "$y$", 3) != 0) {
                r = shadow_hash(use, hash, e);
                use = hash;
        } else if (strlen(use) >= sizeof(hash) || strpbrk(use, ": ")) {
                r = err_set(e, -EINVAL, "what begins like a hash is none");
        }
        if (r < 0)
                return r;
        snprintf(text, sizeof(text), "%.*s %s", (int)n, args, use);
        job_start(t, o, &job_instance_password, text);
        return 0;
}
