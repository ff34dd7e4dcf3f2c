/* The layout of the tree: which names are in which directory. */
#include "fs/ephemeral.h"
#include "fs/ops.h"

/* Cookies: where a reader goes on.  They grow in listing order, and names come before what
 * `rm -r` must not reach: attributes, then directories, then links. */
enum {
        COOKIE_FIXED = 0x10, /* cookies 1 and 2 are "." and ".." */
        COOKIE_ATTRS = 0x100,
        COOKIE_FILES = 0x200,
        COOKIE_METADATA = 0x300,
        COOKIE_LINK_DIRS,
        COOKIE_FOLDERS = 0x380, /* + first file_def in it, 64 */
        COOKIE_COLLECTIONS = 0x400,
        COOKIE_JOB = 0x500,
        COOKIE_LINKS,
        COOKIE_DATA = 0x600,
        COOKIE_MEMBERS = 0x1000, /* + object number or slot */
};

struct listing {
        struct fs *fs;
        uint64_t from;
        dir_emit emit;
        void *arg;
        bool full;
};

static void put(struct listing *l, uint64_t cookie, const char *name, fuse_ino_t ino,
                enum node_type type)
{
        if (!l->full && cookie > l->from)
                l->full = l->emit(l->arg, cookie, name, ino, type);
}

static void put_fixed(struct listing *l, uint64_t no, unsigned slot, enum node_type type)
{
        put(l, COOKIE_FIXED + slot, node_standard_name(type), INO_OF(no, slot), type);
}

static void put_collections(struct listing *l, const struct node *dir, const char *parent)
{
        for (unsigned i = 0; kinds[i]; i++)
                if (kind_lives_in(kinds[i], parent))
                        put(l, COOKIE_COLLECTIONS + i, kinds[i]->plural,
                            ino_collection(dir->no, kinds[i], PART_DIR), NODE_COLLECTION);
}

static void list_root(struct listing *l, const struct node *dir)
{
        put_fixed(l, OBJECT_CLOUD, SLOT_HELP, NODE_HELP);
        put_fixed(l, OBJECT_CLOUD, SLOT_VERSION, NODE_VERSION);
        put_collections(l, dir, "");
        put(l, COOKIE_JOB, "admin", INO_OF(OBJECT_CLOUD, SLOT_ADMIN), NODE_ADMIN);
        put(l, COOKIE_JOB + 1, "self", INO_OF(OBJECT_CLOUD, SLOT_SELF), NODE_SELF);
}

static void list_collection(struct listing *l, const struct node *dir)
{
        struct collection *c = model_collection(l->fs->control, dir->o, dir->kind);
        uint64_t first = l->from < COOKIE_MEMBERS ? 0 : l->from - COOKIE_MEMBERS + 1;

        if (dir->kind->creator != ROLE_NOBODY)
                put(l, COOKIE_FIXED + PART_NEW, "new", ino_collection(dir->no, dir->kind, PART_NEW),
                    NODE_NEW);
        put(l, COOKIE_FIXED + PART_HELP, "help", ino_collection(dir->no, dir->kind, PART_HELP),
            NODE_KIND_HELP);
        put(l, COOKIE_FIXED + PART_INDEX, "index", ino_collection(dir->no, dir->kind, PART_INDEX),
            NODE_INDEX);
        for (size_t i = c ? collection_find(c, first) : 0; c && i < c->n && !l->full; i++)
                if (!c->v[i]->nameless)
                        put(l, COOKIE_MEMBERS + c->v[i]->no, c->v[i]->name, ino_object(c->v[i]->no),
                            NODE_OBJECT);
}

static void put_file(struct listing *l, const struct object *o, unsigned i)
{
        const struct file_def *f = &o->kind->files[i];

        put(l, COOKIE_FILES + i, f->name, INO_OF(o->no, SLOT_FILES + i),
            f->type == FILE_LOG ? NODE_LOG : NODE_FILE);
}

static void list_object(struct listing *l, const struct node *dir)
{
        const struct object *o = dir->o;
        const struct kind *k = o->kind;

        for (unsigned s = SLOT_ID; s <= SLOT_EVENTS; s++)
                put_fixed(l, o->no, s, NODE_ID + (s - SLOT_ID));
        if (node_has_collections(o)) {
                put_fixed(l, o->no, SLOT_ERRORS, NODE_ERRORS);
                put_fixed(l, o->no, SLOT_TENANT_INDEX, NODE_TENANT_INDEX);
                put_fixed(l, o->no, SLOT_TENANT_HELP, NODE_TENANT_HELP);
        }
        for (unsigned i = 0; i < k->nattrs; i++)
                if (!k->attrs[i].hidden)
                        put(l, COOKIE_ATTRS + i, k->attrs[i].name, INO_OF(o->no, SLOT_ATTRS + i),
                            NODE_ATTR);
        for (unsigned i = 0; i < k->nfiles; i++)
                if (k->files[i].type != FILE_DATA && !k->files[i].folder)
                        put_file(l, o, i);
        put(l, COOKIE_METADATA, "metadata", INO_OF(o->no, SLOT_METADATA), NODE_METADATA);
        for (unsigned i = 0; i < k->nlinks; i++)
                if (k->links[i].many)
                        put(l, COOKIE_LINK_DIRS + i, k->links[i].name,
                            INO_OF(o->no, SLOT_LINKS + i), NODE_LINKS);
        for (unsigned i = 0; i < k->nfiles; i++)
                if (kind_folder(k, i))
                        put(l, COOKIE_FOLDERS + i, k->files[i].folder,
                            INO_OF(o->no, SLOT_FOLDERS + i), NODE_FOLDER);
        if (node_has_collections(o))
                put_collections(l, dir, NULL);
        for (unsigned i = 0; kinds[i]; i++)
                if (kind_holds(k, kinds[i]))
                        put(l, COOKIE_COLLECTIONS + i, kinds[i]->plural,
                            ino_collection(o->no, kinds[i], PART_DIR), NODE_COLLECTION);
        if (o->job)
                put(l, COOKIE_JOB, "job", INO_OF(o->no, SLOT_JOB), NODE_JOB);
        for (unsigned i = 0; i < k->nlinks; i++)
                if (!k->links[i].many && node_link(o, i, NULL))
                        put(l, COOKIE_LINKS + i, k->links[i].name, INO_OF(o->no, SLOT_LINKS + i),
                            NODE_LINK1);
        for (unsigned i = 0; i < k->nfiles; i++)
                if (k->files[i].type == FILE_DATA)
                        put(l, COOKIE_DATA + i, k->files[i].name, INO_OF(o->no, SLOT_FILES + i),
                            NODE_DATALINK);
}

static void list_folder(struct listing *l, const struct node *dir)
{
        const struct kind *k = dir->kind;

        for (unsigned i = dir->index; i < k->nfiles && k->files[i].folder; i++) {
                if (i > dir->index && kind_folder(k, i))
                        return;
                put_file(l, dir->o, i);
        }
}

/* Links and metadata, by slot, whatever order the object keeps them in. */
static void list_links(struct listing *l, const struct node *dir)
{
        uint64_t at = l->from < COOKIE_MEMBERS ? 0 : l->from - COOKIE_MEMBERS + 1;

        while (!l->full) {
                const struct link *next = NULL;

                object_foreach_link (x, dir->o)
                        if (x->def == dir->index && x->slot >= at &&
                            (!next || x->slot < next->slot))
                                next = x;
                if (!next)
                        return;
                put(l, COOKIE_MEMBERS + next->slot, next->name,
                    INO_OF(dir->no, SLOT_DYNAMIC + next->slot), NODE_LINK);
                at = next->slot + 1;
        }
}

static void list_metadata(struct listing *l, const struct node *dir)
{
        uint64_t at = l->from < COOKIE_MEMBERS ? 0 : l->from - COOKIE_MEMBERS + 1;

        while (!l->full) {
                const struct meta *next = NULL, *end = dir->o->meta + dir->o->nmeta;

                for (const struct meta *m = dir->o->meta; m < end; m++)
                        if (m->slot >= at && (!next || m->slot < next->slot))
                                next = m;
                if (!next)
                        return;
                put(l, COOKIE_MEMBERS + next->slot, next->key,
                    INO_OF(dir->no, SLOT_DYNAMIC + next->slot), NODE_META);
                at = next->slot + 1;
        }
}

void dir_list(struct fs *fs, const struct node *dir, uint64_t from, dir_emit emit, void *arg)
{
        struct listing l = {.fs = fs, .from = from, .emit = emit, .arg = arg};
        static const struct {
                enum node_type type;
                const char *name;
        } user[] = {{NODE_USER_ERROR, "error"},
                    {NODE_USER_ERRORS, "errors"},
                    {NODE_USER_TENANT, "default_tenant"}};

        put(&l, 1, ".", dir->ino, dir->type);
        put(&l, 2, "..", FUSE_ROOT_ID, NODE_ROOT);
        switch (dir->type) {
        case NODE_ROOT:
                list_root(&l, dir);
                break;
        case NODE_ADMIN:
                put_fixed(&l, OBJECT_CLOUD, SLOT_LOGLEVEL, NODE_LOGLEVEL);
                put_fixed(&l, OBJECT_CLOUD, SLOT_ADMIN_HELP, NODE_ADMIN_HELP);
                put_collections(&l, dir, "admin");
                break;
        case NODE_USER:
                for (unsigned i = 0; i < ARRAY_SIZE(user); i++)
                        put(&l, COOKIE_FIXED + i, user[i].name, ino_user(dir->uid, USER_ERROR + i),
                            user[i].type);
                break;
        case NODE_COLLECTION:
                list_collection(&l, dir);
                break;
        case NODE_OBJECT:
                list_object(&l, dir);
                break;
        case NODE_LINKS:
                list_links(&l, dir);
                break;
        case NODE_METADATA:
                list_metadata(&l, dir);
                break;
        case NODE_FOLDER:
                list_folder(&l, dir);
                break;
        default:
                break; /* .users, .data, .id, .wait: lookup only */
        }
}

struct search {
        const char *name;
        fuse_ino_t ino;
};

static bool match(void *arg, uint64_t cookie, const char *name, fuse_ino_t ino, enum node_type type)
{
        struct search *s = arg;

        if (cookie > 2 && streq(name, s->name))
                s->ino = ino;
        return s->ino;
}

/* .data/<uuid><suffix> */
static fuse_ino_t find_bytes(struct fs *fs, const char *name)
{
        char id[ID_TEXT_SIZE] = "";
        const struct object *o;
        sd_id128_t uuid;

        if (strlen(name) < ID_TEXT_SIZE - 1)
                return 0;
        memcpy(id, name, ID_TEXT_SIZE - 1);
        o = id_parse(id, &uuid) < 0 ? NULL : model_by_id(fs->control, uuid);
        for (unsigned i = 0; o && i < o->kind->nfiles; i++)
                if (o->kind->files[i].type == FILE_DATA &&
                    streq(name + ID_TEXT_SIZE - 1, o->kind->files[i].suffix ?: ""))
                        return INO_OF(o->no, SLOT_DATA + i);
        return 0;
}

/* .id/<uuid>: a link to the name, or the object itself once it has none */
static fuse_ino_t find_by_id(struct fs *fs, const struct node *dir, const char *name)
{
        const struct object *o;
        sd_id128_t uuid;

        o = id_parse(name, &uuid) < 0 ? NULL : model_by_id(fs->control, uuid);
        if (!o || o->kind != dir->kind || object_owner(fs->control, o)->no != dir->no)
                return 0;
        return o->nameless ? ino_object(o->no) : INO_OF(o->no, SLOT_IDLINK);
}

static fuse_ino_t find_user(const char *name)
{
        char *end;
        unsigned long uid;

        if (*name < '0' || *name > '9')
                return 0;
        errno = 0;
        uid = strtoul(name, &end, 10);
        return errno || *end || uid >= UINT32_MAX ? 0 : ino_user((uid_t)uid, USER_DIR);
}

static fuse_ino_t find_in_collection(struct fs *fs, const struct node *dir, const char *name)
{
        static const struct {
                const char *name;
                unsigned part;
        } fixed[] = {
                {"new", PART_NEW}, {"help", PART_HELP}, {"index", PART_INDEX}, {".id", PART_IDS}};
        const struct object *o;

        for (size_t i = 0; i < ARRAY_SIZE(fixed); i++)
                if (streq(name, fixed[i].name))
                        return ino_collection(dir->no, dir->kind, fixed[i].part);
        o = model_by_name(fs->control, dir->kind->global ? NULL : dir->o, dir->kind, name);
        return o && !o->nameless ? ino_object(o->no) : 0;
}

fuse_ino_t dir_find(struct fs *fs, const struct node *dir, const char *name)
{
        static const struct {
                enum node_type type;
                unsigned slot;
        } hidden[] = {{NODE_WAITS, SLOT_WAITS}, {NODE_JSON, SLOT_JSON}, {NODE_FOLLOW, SLOT_FOLLOW}};
        struct search s = {.name = name};
        struct link *l;
        struct meta *m;

        switch (dir->type) {
        case NODE_COLLECTION:
                return find_in_collection(fs, dir, name);
        case NODE_IDS:
                return find_by_id(fs, dir, name);
        case NODE_BYTES:
                return find_bytes(fs, name);
        case NODE_WAITS:
                return ino_wait(dir->o, name);
        case NODE_USERS:
                return find_user(name);
        case NODE_METADATA:
                m = object_meta(dir->o, name);
                return m ? INO_OF(dir->no, SLOT_DYNAMIC + m->slot) : 0;
        case NODE_LINKS:
                l = object_link(dir->o, dir->index, name);
                return l ? INO_OF(dir->no, SLOT_DYNAMIC + l->slot) : 0;
        case NODE_OBJECT:
                for (size_t i = 0; i < ARRAY_SIZE(hidden); i++)
                        if (streq(name, node_standard_name(hidden[i].type)))
                                return INO_OF(dir->no, hidden[i].slot);
                break;
        case NODE_ROOT:
                if (streq(name, ".users"))
                        return INO_OF(OBJECT_CLOUD, SLOT_USERS);
                if (streq(name, ".data"))
                        return INO_OF(OBJECT_CLOUD, SLOT_BYTES);
                break;
        default:
                break;
        }
        dir_list(fs, dir, 2, match, &s);
        return s.ino;
}
