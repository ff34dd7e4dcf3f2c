#include "fs/node.h"
#include "fs/ephemeral.h"

static const struct {
        enum node_type type;
        const char *name;
} standard[] = {
        [SLOT_OBJECT] = {NODE_OBJECT, NULL},
        [SLOT_ID] = {NODE_ID, "id"},
        [SLOT_STATE] = {NODE_STATE, "state"},
        [SLOT_CREATED] = {NODE_CREATED, "created"},
        [SLOT_UPDATED] = {NODE_UPDATED, "updated"},
        [SLOT_CTL] = {NODE_CTL, "ctl"},
        [SLOT_SPEC] = {NODE_SPEC, "spec"},
        [SLOT_ERROR] = {NODE_ERROR, "error"},
        [SLOT_EVENTS] = {NODE_EVENTS, "events"},
        [SLOT_JSON] = {NODE_JSON, ".json"},
        [SLOT_ERRORS] = {NODE_ERRORS, "errors"},
        [SLOT_TENANT_INDEX] = {NODE_TENANT_INDEX, "index"},
        [SLOT_METADATA] = {NODE_METADATA, "metadata"},
        [SLOT_WAITS] = {NODE_WAITS, ".wait"},
        [SLOT_JOB] = {NODE_JOB, "job"},
        [SLOT_IDLINK] = {NODE_IDLINK, NULL},
        [SLOT_FOLLOW] = {NODE_FOLLOW, ".follow"},
        [SLOT_TENANT_HELP] = {NODE_TENANT_HELP, "help"},
        [SLOT_HELP] = {NODE_HELP, "help"},
        [SLOT_VERSION] = {NODE_VERSION, "version"},
        [SLOT_LOGLEVEL] = {NODE_LOGLEVEL, "loglevel"},
        [SLOT_SELF] = {NODE_SELF, "self"},
        [SLOT_ADMIN] = {NODE_ADMIN, "admin"},
        [SLOT_USERS] = {NODE_USERS, ".users"},
        [SLOT_BYTES] = {NODE_BYTES, ".data"},
        [SLOT_ADMIN_HELP] = {NODE_ADMIN_HELP, "help"},
};

static const struct {
        enum node_type type;
        const char *name;
} parts[] =
        {
                [PART_DIR] = {NODE_COLLECTION, NULL},   [PART_NEW] = {NODE_NEW, "new"},
                [PART_HELP] = {NODE_KIND_HELP, "help"}, [PART_INDEX] = {NODE_INDEX, "index"},
                [PART_IDS] = {NODE_IDS, ".id"},
},
  user_files[] = {
          [USER_DIR] = {NODE_USER, NULL},
          [USER_ERROR] = {NODE_USER_ERROR, "error"},
          [USER_ERRORS] = {NODE_USER_ERRORS, "errors"},
          [USER_TENANT] = {NODE_USER_TENANT, "default_tenant"},
};

const char *node_standard_name(enum node_type t)
{
        for (size_t i = 0; i < ARRAY_SIZE(standard); i++)
                if (standard[i].type == t)
                        return standard[i].name;
        for (size_t i = 0; i < ARRAY_SIZE(parts); i++)
                if (parts[i].type == t)
                        return parts[i].name;
        for (size_t i = 0; i < ARRAY_SIZE(user_files); i++)
                if (user_files[i].type == t)
                        return user_files[i].name;
        return NULL;
}

fuse_ino_t ino_object(uint64_t no)
{
        return no == OBJECT_CLOUD ? FUSE_ROOT_ID : INO_OF(no, SLOT_OBJECT);
}

fuse_ino_t ino_collection(uint64_t owner, const struct kind *k, unsigned part)
{
        return INO_OF(owner, SLOT_COLLECTIONS + (unsigned)kind_index(k) * 8 + part);
}

fuse_ino_t ino_user(uid_t uid, unsigned which)
{
        return INO_USER | (fuse_ino_t)uid << 8 | which;
}

fuse_ino_t ino_wait(const struct object *o, const char *name)
{
        const char *at = strchrnul(name, '@');
        char state[NAME_SIZE];
        unsigned long seconds = 0;
        char *end;
        int i;

        if ((size_t)(at - name) >= sizeof(state))
                return 0;
        memcpy(state, name, (size_t)(at - name));
        state[at - name] = 0;
        if (*at) {
                seconds = strtoul(at + 1, &end, 10);
                if (at[1] < '0' || at[1] > '9' || *end || !seconds || seconds > WAIT_SECONDS_MAX)
                        return 0;
        }
        i = streq(state, "gone")     ? WAIT_GONE
            : streq(state, "change") ? WAIT_CHANGE
                                     : kind_state(o->kind, state);
        return i < 0 ? 0 : INO_WAIT | o->no << 28 | (fuse_ino_t)i << 20 | seconds;
}

const char *wait_state(const struct node *n)
{
        return n->index == WAIT_GONE     ? "gone"
               : n->index == WAIT_CHANGE ? "change"
                                         : n->kind->states[n->index].name;
}

static int get_wait(struct fs *fs, fuse_ino_t ino, struct node *n)
{
        n->type = NODE_WAIT;
        n->no = (ino & ~INO_WAIT) >> 28;
        n->index = ino >> 20 & 0xff;
        n->seconds = ino & 0xfffff;
        n->o = model_by_no(fs->control, n->no);
        n->kind = n->o ? n->o->kind : NULL;
        if (!n->o) /* an open .wait/gone outlives the object */
                return n->index == WAIT_GONE ? 0 : -ENOENT;
        return n->index >= WAIT_GONE || n->index < n->kind->nstates ? 0 : -ENOENT;
}

bool node_is_dir(enum node_type t)
{
        return t >= NODE_ROOT && t <= NODE_WAITS;
}

bool node_is_link(enum node_type t)
{
        return t >= NODE_SELF && t <= NODE_TEMPLINK;
}

bool node_is_text(enum node_type t)
{
        return t >= NODE_HELP && t <= NODE_META;
}

mode_t node_ifmt(enum node_type t)
{
        return node_is_dir(t) ? S_IFDIR : node_is_link(t) ? S_IFLNK : S_IFREG;
}

bool kind_lives_in(const struct kind *k, const char *parent)
{
        if (!k->plural || k == &kind_cloud)
                return false;
        if (!parent)
                return !k->global && !k->inside;
        return k->global && k->parent && streq(k->parent, parent);
}

bool node_has_collections(const struct object *o)
{
        return o->kind == &kind_tenant;
}

struct link *node_link(const struct object *o, unsigned def, const char *name)
{
        if (o->kind->links[def].many)
                return object_link(o, def, name);
        object_foreach_link (l, o)
                if (l->def == def)
                        return l;
        return NULL;
}

/* Slots that stand for a table's entry, or for one of the object's own lists. */
static int get_indexed(unsigned slot, struct node *n)
{
        const struct kind *k = n->kind;
        static const enum node_type file_nodes[] = {[FILE_TEXT] = NODE_FILE,
                                                    [FILE_LINES] = NODE_FILE,
                                                    [FILE_LOG] = NODE_LOG,
                                                    [FILE_DATA] = NODE_DATALINK};

        if (slot >= SLOT_DYNAMIC) {
                slot -= SLOT_DYNAMIC;
                object_foreach_link (l, n->o)
                        if (l->slot == slot) {
                                n->link = l;
                                n->index = l->def;
                                n->type = NODE_LINK;
                                return 0;
                        }
                for (struct meta *m = n->o->meta; m < n->o->meta + n->o->nmeta; m++)
                        if (m->slot == slot) {
                                n->meta = m;
                                n->type = NODE_META;
                                return 0;
                        }
                return -ENOENT;
        }
        if (slot >= SLOT_FOLDERS && slot - SLOT_FOLDERS < k->nfiles) {
                n->index = slot - SLOT_FOLDERS;
                n->type = NODE_FOLDER;
                return kind_folder(k, n->index) ? 0 : -ENOENT;
        }
        if (slot >= SLOT_DATA && slot - SLOT_DATA < k->nfiles) {
                n->index = slot - SLOT_DATA;
                n->type = NODE_DATA;
                return k->files[n->index].type == FILE_DATA ? 0 : -ENOENT;
        }
        if (slot >= SLOT_FILES && slot - SLOT_FILES < k->nfiles) {
                n->index = slot - SLOT_FILES;
                n->type = file_nodes[k->files[n->index].type];
                return 0;
        }
        if (slot >= SLOT_LINKS && slot - SLOT_LINKS < k->nlinks) {
                n->index = slot - SLOT_LINKS;
                n->type = k->links[n->index].many ? NODE_LINKS : NODE_LINK1;
                if (n->type == NODE_LINKS)
                        return 0;
                n->link = node_link(n->o, n->index, NULL);
                return n->link ? 0 : -ENOENT;
        }
        if (slot >= SLOT_ATTRS && slot - SLOT_ATTRS < k->nattrs) {
                n->index = slot - SLOT_ATTRS;
                n->type = NODE_ATTR;
                return k->attrs[n->index].hidden ? -ENOENT : 0;
        }
        return -ENOENT;
}

static int get_of_object(struct fs *fs, uint64_t no, unsigned slot, struct node *n)
{
        unsigned i = slot - SLOT_COLLECTIONS;

        n->o = model_by_no(fs->control, no);
        if (!n->o)
                return -ENOENT;
        n->no = no;
        if (slot >= SLOT_COLLECTIONS && slot < SLOT_DYNAMIC) {
                unsigned nkinds = 0;

                while (kinds[nkinds])
                        nkinds++;
                if (i / 8 >= nkinds || i % 8 >= ARRAY_SIZE(parts))
                        return -ENOENT;
                n->index = i / 8;
                n->kind = kinds[n->index];
                n->type = parts[i % 8].type;
                return n->kind->inside && !kind_holds(n->o->kind, n->kind) ? -ENOENT : 0;
        }
        n->kind = n->o->kind;
        if (slot < ARRAY_SIZE(standard) && standard[slot].type) {
                n->type = standard[slot].type;
                if (slot >= SLOT_ROOT_FIRST && no != OBJECT_CLOUD)
                        return -ENOENT;
                if (slot == SLOT_TENANT_HELP && !node_has_collections(n->o))
                        return -ENOENT;
                return n->type == NODE_JOB && !n->o->job ? -ENOENT : 0;
        }
        return get_indexed(slot, n);
}

int node_get(struct fs *fs, fuse_ino_t ino, struct node *ret)
{
        *ret = (struct node){.ino = ino};
        if (ino == FUSE_ROOT_ID) {
                ret->type = NODE_ROOT;
                ret->no = OBJECT_CLOUD;
                ret->o = model_by_no(fs->control, OBJECT_CLOUD);
                return 0;
        }
        if (ino & INO_EPHEMERAL) {
                ret->e = ephemeral_get(fs->ephemerals, ino);
                if (!ret->e)
                        return -ENOENT;
                ret->type = ret->e->type;
                ret->no = ret->e->no;
                ret->index = ret->e->index;
                ret->uid = ret->e->uid;
                ret->o = model_by_no(fs->control, ret->no);
                ret->kind = ret->e->kind;
                return 0;
        }
        if (ino & INO_USER) {
                unsigned which = ino & 0xff;

                if (which >= ARRAY_SIZE(user_files))
                        return -ENOENT;
                ret->uid = (uid_t)(ino >> 8);
                ret->type = user_files[which].type;
                return 0;
        }
        if (ino & INO_WAIT)
                return get_wait(fs, ino, ret);
        return get_of_object(fs, ino >> SLOT_BITS, ino & ((1u << SLOT_BITS) - 1), ret);
}

uint64_t node_object(const struct node *n)
{
        if (!n->o || n->no == OBJECT_CLOUD)
                return 0;
        switch (n->type) {
        case NODE_COLLECTION:
        case NODE_IDS:
        case NODE_NEW:
        case NODE_KIND_HELP:
        case NODE_INDEX:
                return 0;
        default:
                return n->no;
        }
}

uint64_t node_tenant(const struct node *n)
{
        if (!n->o)
                return 0;
        if (n->o->tenant)
                return n->o->tenant->no;
        return node_has_collections(n->o) ? n->no : 0;
}

/* The directory of a kind's collection, "tenants/a/volumes". */
static void collection_path(struct fs *fs, const struct object *owner, const struct kind *k,
                            struct buf *out)
{
        if (!k->global) { /* a tenant's, or a holder's */
                render_path(fs->control, owner, out);
                buf_addc(out, '/');
        } else if (k->parent && *k->parent) {
                buf_printf(out, "%s/", k->parent);
        }
        buf_addstr(out, k->plural);
}

static void object_path(struct fs *fs, const struct node *n, const char *name, struct buf *out)
{
        if (n->no != OBJECT_CLOUD) {
                render_path(fs->control, n->o, out);
                if (name && *name)
                        buf_addc(out, '/');
        }
        if (name)
                buf_addstr(out, name);
}

void node_path(struct fs *fs, const struct node *n, struct buf *out)
{
        const struct file_def *f;
        char id[ID_TEXT_SIZE];

        switch (n->type) {
        case NODE_NONE:
        case NODE_ROOT:
                return;
        case NODE_USER:
        case NODE_USER_ERROR:
        case NODE_USER_ERRORS:
        case NODE_USER_TENANT:
                buf_printf(out, ".users/%u", (unsigned)n->uid);
                if (n->type != NODE_USER)
                        buf_printf(out, "/%s", node_standard_name(n->type));
                return;
        case NODE_COLLECTION:
        case NODE_IDS:
        case NODE_NEW:
        case NODE_KIND_HELP:
        case NODE_INDEX:
                collection_path(fs, n->o, n->kind, out);
                if (n->type != NODE_COLLECTION)
                        buf_printf(out, "/%s", node_standard_name(n->type));
                return;
        case NODE_LOGLEVEL:
                buf_addstr(out, "admin/loglevel");
                return;
        case NODE_ADMIN_HELP:
                buf_addstr(out, "admin/help");
                return;
        case NODE_DATA:
                buf_printf(out, ".data/%s%s", id_text(id, n->o->id),
                           n->kind->files[n->index].suffix ?: "");
                return;
        case NODE_IDLINK:
                collection_path(fs, object_owner(fs->control, n->o), n->kind, out);
                buf_printf(out, "/.id/%s", id_text(id, n->o->id));
                return;
        case NODE_ATTR:
                object_path(fs, n, n->kind->attrs[n->index].name, out);
                return;
        case NODE_FILE:
        case NODE_LOG:
        case NODE_DATALINK:
                f = &n->kind->files[n->index];
                object_path(fs, n, f->folder ?: f->name, out);
                if (f->folder)
                        buf_printf(out, "/%s", f->name);
                return;
        case NODE_FOLDER:
                object_path(fs, n, n->kind->files[n->index].folder, out);
                return;
        case NODE_LINKS:
        case NODE_LINK1:
        case NODE_LINK:
                object_path(fs, n, n->kind->links[n->index].name, out);
                if (n->type == NODE_LINK)
                        buf_printf(out, "/%s", n->link->name);
                return;
        case NODE_META:
                object_path(fs, n, "metadata/", out);
                buf_addstr(out, n->meta->key);
                return;
        case NODE_WAIT:
                if (!n->o)
                        return;
                object_path(fs, n, ".wait/", out);
                buf_addstr(out, wait_state(n));
                if (n->seconds)
                        buf_printf(out, "@%u", n->seconds);
                return;
        case NODE_SCRATCH:
        case NODE_TEMPLINK:
        case NODE_UPLOAD: {
                struct node dir;

                if (!node_get(fs, n->e->parent, &dir)) {
                        node_path(fs, &dir, out);
                        buf_printf(out, "/%s", n->e->name);
                }
                return;
        }
        default:
                object_path(fs, n, node_standard_name(n->type), out);
        }
}

void path_relative(const char *from, const char *to, struct buf *out)
{
        size_t common = 0;

        /* common: length of the leading components that both share, with their slash */
        for (size_t i = 0;; i++) {
                char a = from[i], b = to[i];

                if ((a == '/' || !a) && (b == '/' || !b) && i) {
                        common = i;
                        if (!a || !b)
                                break;
                } else if (a != b || !a) {
                        break;
                }
        }
        from += common + (from[common] == '/');
        to += common + (common && to[common] == '/');
        if (*from)
                buf_addstr(out, "../");
        for (; *from; from++)
                if (*from == '/')
                        buf_addstr(out, "../");
        if (*to) {
                buf_addstr(out, to);
        } else if (out->len) {
                out->data[--out->len] = 0; /* "../" to ".." */
        } else {
                buf_addc(out, '.');
        }
}
