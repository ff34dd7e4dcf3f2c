/* A volume goes to another tenant.
 *
 * The owner offers it and gets a key, of which the store has the SHA-256 only.  Who knows the key
 * makes a volume from it in his tenant; the job of that volume, in the store before anything
 * happens, is the intent record.  A transaction touches one tenant, so it goes in steps that can
 * be repeated:
 *
 *     claim   the offered volume notes who takes it: nobody else can, and its owner is too late
 *     rekey   an encrypted one is opened by the new tenant's key from here on, not by the old one's
 *     move    the new volume becomes its clone, which costs nothing, and says so (`actual`); then
 *             the offered one loses its name and is deleted: the point of no return
 *
 * Before that the old volume is the whole one and a failure gives it back; after it the new one is.
 * As only the job lets go of a claim, a volume that has `actual` and no claim any more is past it.
 */
#include "control/jobs/jobs.h"

#include <openssl/crypto.h>
#include <openssl/evp.h>
#include <sys/random.h>

enum { KEY_BYTES = 20, KEY_SIZE = 2 * KEY_BYTES + 1, HASH_SIZE = 65, OFFER_S = 7 * 24 * 3600 };

static void hex(char *out, const uint8_t *p, size_t n)
{
        for (size_t i = 0; i < n; i++)
                snprintf(out + 2 * i, 3, "%02x", p[i]);
}

static int key_hash(const char *key, char ret[HASH_SIZE], struct err **e)
{
        uint8_t sum[EVP_MAX_MD_SIZE];

        if (!EVP_Digest(key, strlen(key), sum, NULL, EVP_sha256(), NULL))
                return err_set(e, -ENOMEM, "SHA-256 is not to be had");
        hex(ret, sum, 32);
        return 0;
}

/* --- the owner's side ------------------------------------------------------------------------ */

/* Its key would go with it.  What is known here of volumes that share it; blockd knows all, and
 * refuses when it is accepted. */
static int check_relatives(const struct object *o, struct err **e)
{
        const struct object *relative = object_target(o, "source");

        if (relative && (relative->kind == &kind_image || !volume_encrypted(relative)))
                relative = NULL;
        for (unsigned i = 0; i < o->nrefs && !relative; i++)
                if (o->refs[i]->kind == &kind_volume)
                        relative = o->refs[i];
        if (!relative)
                return 0;
        err_set(e, -EBUSY, "volume '%s' is encrypted, and its key is also that of %s '%s'", o->name,
                relative->kind->name, relative->name);
        return err_hint(e, -EBUSY, "copy it to a new encrypted volume, and offer that");
}

int volume_offer(struct txn *t, struct object *o, const char *args, struct err **e)
{
        uint8_t random[KEY_BYTES];
        char key[KEY_SIZE], hash[HASH_SIZE];
        int r = volume_check_snapshots(t, o, e);

        if (r == 0 && volume_encrypted(o))
                r = check_relatives(o, e);
        if (r == 0 && o->writers)
                r = err_set(e, -EBUSY, "volume '%s' is being written through its data", o->name);
        if (r == 0 && getrandom(random, sizeof(random), 0) != sizeof(random))
                r = err_errno(e, -errno, "a key");
        if (r < 0)
                return r;
        hex(key, random, sizeof(random));
        r = key_hash(key, hash, e);
        if (r < 0)
                return r;
        txn_set_str(t, o, "transfer_hash", hash);
        txn_set_num(t, o, "transfer_until", clock_now() / 1000000 + OFFER_S);
        txn_set_num(t, o, "transfer_to", 0);
        txn_set_state(t, o, VOLUME_OFFERED);
        free(o->shown);
        o->shown = xstrdup(key);
        return 0;
}

int volume_offer_claimed(const struct object *o, struct err **e)
{
        if (o->state != VOLUME_OFFERED || object_num(o, "transfer_to") == 0)
                return 0;
        return err_set(e, -EBUSY, "volume '%s' is being accepted by another tenant", o->name);
}

int volume_withdraw(struct txn *t, struct object *o, const char *args, struct err **e)
{
        int r = volume_offer_claimed(o, e);

        if (r < 0)
                return r;
        txn_set_str(t, o, "transfer_hash", NULL);
        txn_set_state(t, o, VOLUME_AVAILABLE);
        return 0;
}

void volume_render_transfer(struct control *c, const struct object *o, struct buf *out)
{
        if (o->state == VOLUME_OFFERED && o->shown)
                buf_addstr(out, o->shown);
}

/* --- the other's side ------------------------------------------------------------------------ */

static struct object *find_offer(struct control *c, const char *hash)
{
        uint64_t now = clock_now() / 1000000;
        struct object *o, *tmp, *found = NULL;

        HASH_ITER (hh_no, c->by_no, o, tmp) {
                const char *have = o->kind == &kind_volume && o->state == VOLUME_OFFERED
                                           ? object_str(o, "transfer_hash")
                                           : "";

                if (strlen(have) == HASH_SIZE - 1 && CRYPTO_memcmp(have, hash, HASH_SIZE) == 0 &&
                    object_num(o, "transfer_until") > now)
                        found = o;
        }
        return found;
}

/* `transfer` of a draft: the key is not repeated in words, which are kept. */
int volume_accept(struct txn *t, struct object *o, union value v, struct err **e)
{
        char hash[HASH_SIZE], args[HASH_SIZE + 24];
        struct object *from;
        int r = key_hash(v.s ? v.s : "", hash, e);

        if (r < 0)
                return r;
        from = find_offer(t->c, hash);
        if (!from)
                return err_set(e, -ENOENT,
                               "no volume is offered with this key: mistyped, or it was "
                               "accepted or withdrawn, or its week is over");
        if (from->tenant == o->tenant)
                return err_set(e, -EINVAL, "volume '%s' is in this tenant already", from->name);
        r = volume_offer_claimed(from, e);
        if (r == 0 && o->nlinks)
                r = err_set(e, -EINVAL, "it has a source already");
        if (r == 0 && volume_encrypted(o) && !volume_encrypted(from))
                r = err_set(e, -EINVAL, "the offered volume is not encrypted");
        if (r < 0)
                return r;
        snprintf(args, sizeof(args), "%" PRIu64 " %s", from->no, hash);
        txn_set_num(t, o, "size", object_num(from, "size"));
        txn_set_num(t, o, "encrypted", object_num(from, "encrypted"));
        txn_set_str(t, o, "pool", object_str(from, "pool"));
        txn_set_str(t, o, "host", object_str(from, "host"));
        txn_set_state(t, o, VOLUME_CREATING);
        job_start(t, o, &job_volume_accept, args);
        return 0;
}

/* The offered volume, if it is the one that the job is for and not another's.  Model held. */
static struct object *offered(struct job *j)
{
        unsigned long long no;
        char hash[HASH_SIZE];
        struct object *o;

        if (sscanf(j->args, "%llu %64s", &no, hash) != 2)
                return NULL;
        o = model_by_no(j->c, no);
        if (!o || o->kind != &kind_volume || !streq(object_str(o, "transfer_hash"), hash))
                return NULL;
        return o;
}

static bool claimed(const struct job *j, const struct object *from)
{
        return from && from->state == VOLUME_OFFERED &&
               object_num(from, "transfer_to") == j->target;
}

static int step_claim(struct job *j, struct err **e)
{
        struct object *from;
        struct txn t;
        int r = 0;

        txn_begin(&t, j->c, NULL);
        from = offered(j);
        if (!from || from->state != VOLUME_OFFERED)
                r = err_set(e, -ENOENT, "the offer was withdrawn");
        else if (!claimed(j, from))
                r = volume_offer_claimed(from, e);
        if (r == 0 && !claimed(j, from))
                txn_set_num(&t, from, "transfer_to", j->target);
        return txn_end(&t, r, e);
}

/* The offered volume's key is the other tenant's to give, or the first one's again. */
static int rekey(struct job *j, bool back, struct err **e)
{
        char id[ID_TEXT_SIZE], owner[ID_TEXT_SIZE], other[ID_TEXT_SIZE];
        struct object *o, *from;
        bool needed;

        control_rdlock(j->c);
        o = model_by_no(j->c, j->target);
        from = offered(j);
        needed = o && claimed(j, from) && volume_encrypted(from);
        if (needed) {
                id_text(id, from->id);
                id_text(owner, from->tenant->id);
                id_text(other, o->tenant->id);
        }
        control_unlock(j->c);
        if (!needed)
                return 0;
        return volume_rekey_for(j, id, back ? other : owner, back ? owner : other, e);
}

/* Where nothing was changed, or nothing can be, there is nothing to take back. */
static int rekey_back(struct job *j)
{
        int r = rekey(j, true, NULL);

        return r == -ENOKEY || r == -EKEYREJECTED || r == -ENOENT || r == -EINVAL ? 0 : r;
}

static int step_rekey(struct job *j, struct err **e)
{
        int r = rekey(j, false, e);

        if (r == -EBUSY)
                err_hint(e, r, "its owner may copy it to a new encrypted volume, and offer that");
        return r;
}

static void copy_attrs(struct txn *t, struct object *o, const struct object *from)
{
        static const char *const names[] = {"type",        "bootable",        "readonly",
                                            "iops",        "bandwidth",       "iops_burst",
                                            "description", "bandwidth_burst", "burst_seconds"};

        for (unsigned i = 0; i < ARRAY_SIZE(names); i++) {
                int a = kind_attr(o->kind, names[i]);

                if (attr_is_text(&o->kind->attrs[a]))
                        txn_set_str(t, o, names[i], object_str(from, names[i]));
                else
                        txn_set_num(t, o, names[i], object_num(from, names[i]));
        }
}

static bool parted(const struct job *j, const struct object *o, const struct object *from)
{
        return o && object_num(o, "actual") && !claimed(j, from);
}

enum { LOOK_US = 200000 };

/* In Ceph the volume changes its namespace, and nothing of it stays in the other tenant's: the
 * clone takes a copy of all it has. */
static int make_independent(struct job *j, const char *id, struct err **e)
{
        struct volume_service *s = j->c->cfg.volumes;
        struct volume_facts f;
        int r = s->ops->flatten(s, id, false, e);

        if (r == 0)
                r = s->ops->stat(s, id, &f, e);
        if (r < 0)
                return r;
        if (f.flatten_failed < 0)
                return err_errno(e, f.flatten_failed, "copy it");
        if (!f.parent[0])
                return 0;
        job_progress(j, f.flatten_done, f.flatten_total);
        return job_wait(j, 0, LOOK_US, "blocks are copied");
}

/* As a clone, and in Ceph then by itself: which a call before a crash may have come to. */
static int realise(struct job *j, const char *id, const char *parent, bool local, struct err **e)
{
        struct volume_service *s = j->c->cfg.volumes;
        struct volume_facts f;
        _cleanup_err_ struct err *why = NULL;
        int r;

        if (local)
                return s->ops->clone(s, id, parent, j->value, e);
        r = s->ops->stat(s, id, &f, &why);
        if (r == 0 && !f.parent[0])
                return 0;
        if (r == -ENOENT && (r = volume_place_new(j, id, e)) == 0)
                r = s->ops->clone(s, id, parent, j->value, e);
        else if (r < 0)
                err_move(e, TAKE_PTR(why));
        return r < 0 ? r : make_independent(j, id, e);
}

/* The clone is there: from here on the new volume could stand alone. */
static int make_clone(struct job *j, struct err **e)
{
        char id[ID_TEXT_SIZE], parent[ID_TEXT_SIZE];
        struct object *o, *from;
        bool local = true;
        struct txn t;
        int r = 0;

        control_rdlock(j->c);
        o = model_by_no(j->c, j->target);
        from = offered(j);
        if (!o || !claimed(j, from)) {
                r = err_set(e, -ENOENT, "the offer is gone");
        } else {
                j->value = object_num(from, "size");
                id_text(id, o->id);
                id_text(parent, from->id);
                local = volume_local(from);
        }
        control_unlock(j->c);
        if (r == 0)
                r = realise(j, id, parent, local, e);
        if (r != 0)
                return r;
        txn_begin(&t, j->c, NULL);
        o = model_by_no(j->c, j->target);
        from = offered(j);
        if (o && claimed(j, from)) {
                copy_attrs(&t, o, from);
                txn_set_num(&t, o, "actual", j->value);
        }
        return txn_commit(&t, e);
}

static int step_move(struct job *j, struct err **e)
{
        struct object *o, *from;
        struct txn t;
        bool over;
        int r;

        control_rdlock(j->c);
        o = model_by_no(j->c, j->target);
        over = parted(j, o, offered(j));
        if (o)
                j->value = object_num(o, "actual");
        control_unlock(j->c);
        if (over) /* before a crash */
                return 0;
        r = make_clone(j, e);
        if (r != 0)
                return r;
        txn_begin(&t, j->c, NULL);
        o = model_by_no(j->c, j->target);
        from = offered(j);
        if (!o || !claimed(j, from))
                return txn_end(&t, err_set(e, -ENOENT, "the offer is gone"), e);
        r = volume_let_clones_go(&t, from, e);
        if (r < 0)
                return txn_end(&t, r, e);
        txn_event(&t, from, "accepted by tenant %s", o->tenant->name);
        txn_release_name(&t, from);
        txn_set_state(&t, from, VOLUME_DELETING);
        job_start(&t, from, &job_volume_delete, NULL);
        return txn_commit(&t, e);
}

static int done(struct job *j, struct txn *t, struct object *o, struct err **e)
{
        if (!o || o->state != VOLUME_CREATING)
                return 0;
        if (object_num(o, "size") > j->value) { /* told to grow meanwhile */
                txn_set_state(t, o, VOLUME_EXTENDING);
                job_start(t, o, &job_volume_extend, NULL);
                return 0;
        }
        txn_set_state(t, o, volume_rest(o));
        volume_limits_due(t, o);
        return 0;
}

/* The new volume is none, in its tenant. */
static int forget(struct job *j, char id[ID_TEXT_SIZE], bool *over)
{
        struct object *o;
        struct txn t;

        txn_begin(&t, j->c, NULL);
        o = model_by_no(j->c, j->target);
        *over = parted(j, o, offered(j));
        *id = '\0';
        if (o && !*over) {
                id_text(id, o->id);
                if (object_num(o, "actual"))
                        txn_set_num(&t, o, "actual", 0);
        }
        return txn_commit(&t, NULL);
}

/* The offer stands again; what was cloned goes.  Nothing when the old volume is given up already.
 */
static int undo(struct job *j)
{
        struct volume_service *s = j->c->cfg.volumes;
        char id[ID_TEXT_SIZE];
        struct object *from;
        struct txn t;
        bool over;
        int r = forget(j, id, &over);

        if (r < 0 || over)
                return r;
        r = *id && j->step > 0 ? s->ops->remove(s, id, NULL) : 0;
        if (r == 0 && j->step > 0)
                r = rekey_back(j);
        if (r < 0)
                return r;
        txn_begin(&t, j->c, NULL);
        from = offered(j);
        if (claimed(j, from))
                txn_set_num(&t, from, "transfer_to", 0);
        return txn_commit(&t, NULL);
}

static void failed(struct job *j, struct txn *t, struct object *o, const struct err *err)
{
        if (o && o->state == VOLUME_CREATING)
                txn_set_state(t, o, parted(j, o, offered(j)) ? VOLUME_AVAILABLE : VOLUME_ERROR);
}

static const struct job_step steps[] = {
        {"claim", step_claim}, {"rekey", step_rekey}, {"move", step_move}};

const struct job_def job_volume_accept = {.op = "volume.accept",
                                          .deadline = 3600,
                                          .patient = true,
                                          .steps = steps,
                                          .nsteps = ARRAY_SIZE(steps),
                                          .done = done,
                                          .failed = failed,
                                          .undo = undo};
