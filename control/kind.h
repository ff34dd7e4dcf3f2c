/* Kinds: what an object of each sort is, as data.
 *
 * A kind is one table in control/kinds/<kind>.c.  From it come the directory, its files and their
 * modes, validation and its words, the verbs of `ctl`, `help`, `spec`, permission checks and the
 * tables of the manual.  All of it is constant; nothing here has state. */
#pragma once

#include <stdbool.h>
#include <stdint.h>
#include "common/buf.h"
#include "common/err.h"

struct control;
struct object;
struct txn;
struct link;
struct job_def;

/* Who may do a thing.  The kernel has checked modes already; control checks again. */
enum role { ROLE_NOBODY, ROLE_MEMBER, ROLE_ADMIN };

enum attr_type {
        ATTR_TEXT,   /* one line of UTF-8 */
        ATTR_NAME,   /* the name of an object of kind `of` (or free when of is NULL) */
        ATTR_SIZE,   /* bytes; written with K M G T P */
        ATTR_NUMBER, /* a count */
        ATTR_BOOL,   /* 0/1; on off true false yes no are understood */
        ATTR_WORD,   /* one of `words` */
};

/* An attribute's value: text for TEXT NAME WORD (NULL: empty), a number for the rest. */
union value {
        char *s;
        uint64_t u;
};
#define VALUE_MAX UINT64_MAX /* "max": no limit */

#define STATE(n) (1u << (n)) /* a set of states, as a mask of their indices */
#define ANY_STATE 0u

struct attr_def {
        const char *name;
        enum attr_type type;
        enum role writer;      /* ROLE_NOBODY: read-only */
        unsigned states;       /* states in which it may be written; ANY_STATE: all */
        const char *words;     /* ATTR_WORD: "a b c" */
        const char *of;        /* ATTR_NAME: kind whose names are legal */
        uint64_t min, max;     /* SIZE, NUMBER; max 0: none */
        bool max_word;         /* "max" is legal and means no limit */
        const char *def;       /* the value of a new object, as text; NULL: empty or 0 */
        bool index;            /* shown in `index` */
        bool lines;            /* TEXT: of more than one line */
        bool no_spec;          /* written, but not part of `spec` (a secret, an action) */
        bool hidden;           /* stored, shown to nobody (an actual value of ours) */
        bool changes;          /* shown value changes without a write: never cached by the kernel */
        const char *help;      /* one line */
        /* Optional: shown value instead of the stored one.  Model is read-locked; memory only. */
        void (*render)(struct control *c, const struct object *o, struct buf *out);
        /* Optional: in place of plain storing.  Value is canonical and in range; the hook may
         * refuse, store with txn_set_value(), change state, start a job. */
        int (*set)(struct txn *t, struct object *o, union value v, struct err **e);
};

struct link_def {
        const char *name;    /* "volumes" (a directory of links) or "source" (one link) */
        const char *targets; /* kinds it may point at: "image volume" */
        bool many;
        unsigned states;     /* of this object, in which it may be made or removed */
        const char *help;
        /* Optional: legal here and now?  May change `name` (NAME_SIZE bytes) to the canonical link
         * name, e.g. the next free device.  The link is added by the caller after 0. */
        int (*bind)(struct txn *t, struct object *o, char *name, struct object *target,
                    struct err **e);
        /* Optional: after the link was added, e.g. to start the attach job. */
        int (*bound)(struct txn *t, struct object *o, struct link *l, struct err **e);
        /* Optional: before it is removed.  LINK_LATER keeps the link: a job removes it. */
        int (*unbind)(struct txn *t, struct object *o, struct link *l, struct err **e);
};
enum { LINK_LATER = 1 };

struct verb_def {
        const char *name;
        const char *args; /* synopsis of arguments, "" if none: "[now|SECONDS]" */
        enum role role;
        unsigned states;  /* legal states */
        const char *help;
        /* args: the rest of the line, trimmed, NUL-terminated. */
        int (*run)(struct txn *t, struct object *o, const char *args, struct err **e);
};

struct state_def {
        const char *name;
        bool transient;    /* only with a live job */
        bool terminal;     /* nothing leaves it by itself: .wait for another state ends with EIO */
        const char *help;
};

/* Files of an object beyond the common ones and the attributes. */
enum file_type {
        FILE_TEXT, /* rendered; read-only */
        FILE_LOG,  /* grows on the host at `path`; its true size; read-only */
        FILE_DATA, /* bulk bytes: a symlink into .data/ */
        FILE_LINES,/* rendered; each line written is one change (`quota`) */
};
struct file_def {
        const char *name;
        enum file_type type;
        enum role writer;
        const char *suffix; /* FILE_DATA: .data/<id><suffix> */
        const char *help;
        void (*render)(struct control *c, const struct object *o, struct buf *out);
        const char *folder; /* FILE_TEXT: it is listed in this folder of the object; those of one
                             * folder stand together in the table */
        /* FILE_TEXT, in place of render, for many that are alike: `at` says which it is. */
        void (*render_at)(struct control *c, const struct object *o, size_t at, struct buf *out);
        size_t at;
        /* FILE_LOG: where it is; NULL when it is not there (yet).  Caller frees. */
        char *(*path)(struct control *c, const struct object *o);
        /* FILE_LOG: a file that is shown before it, and does not grow; NULL, or not there: none.
         * Caller frees. */
        char *(*head)(struct control *c, const struct object *o);
        /* FILE_LINES: one line, trimmed. */
        int (*write)(struct txn *t, struct object *o, const char *line, struct err **e);
};

struct kind {
        const char *name;       /* "volume" */
        const char *plural;     /* "volumes": the collection's directory */
        const char *help;       /* what it is, one or two sentences */
        unsigned schema;        /* version of its records */
        bool global;            /* not inside a tenant */
        const char *parent;     /* global: folder that holds the collection: "" or "admin" */
        const char *inside;     /* kind whose objects hold the collection ("volume"); NULL: tenants do */
        enum role creator;      /* who may mkdir; ROLE_NOBODY: only we make them */
        enum role remover;      /* who may rmdir, where it is not the creator */
        const struct attr_def *attrs;
        unsigned nattrs;
        const struct link_def *links;
        unsigned nlinks;
        const struct verb_def *verbs;
        unsigned nverbs;
        const struct state_def *states;
        unsigned nstates;       /* state 0 is that of a new object */
        const struct file_def *files;
        unsigned nfiles;
        /* Optional hooks, called inside a transaction. */
        int (*create)(struct txn *t, struct object *o, struct err **e);
        /* rmdir: refuse, or start the delete job (object_release + job_start), or drop it at once
         * with txn_delete().  NULL: txn_delete(). */
        int (*remove)(struct txn *t, struct object *o, struct err **e);
        int (*rename)(struct txn *t, struct object *o, const char *name, struct err **e);
        /* Whether it lets itself be changed so by others than admins: `what` is the verb,
         * the link or the call, NULL: the caller says it.  -EPERM with words. */
        int (*guard)(const struct object *o, const char *what, struct err **e);
        /* Optional: whether a verb that is legal in its state means anything to this one: -ENOTSUP with
         * words. */
        int (*suits)(const struct object *o, const char *verb, struct err **e);
        /* After a write that may complete a draft (attribute, link, spec): e.g. start creation. */
        int (*complete)(struct txn *t, struct object *o, struct err **e);
        /* Upgrades a stored record (JSON object) from an older schema in place. */
        int (*upgrade)(void *record, unsigned from, struct err **e);
};

/* Every kind, in the order of the tree; NULL-terminated. */
extern const struct kind *const kinds[];
extern const struct kind kind_cloud, kind_tenant, kind_flavor, kind_host, kind_image, kind_volume,
        kind_snapshot, kind_backup, kind_instance, kind_job;
extern const struct kind kind_group, kind_volume_type;
extern const struct kind kind_network, kind_subnet, kind_port, kind_security_group,
        kind_floating_ip, kind_router;
extern const struct kind kind_load_balancer, kind_listener, kind_vpn;

const struct kind *kind_by_name(const char *name);
const struct kind *kind_by_plural(const char *plural);
/* Index, or -1. */
int kind_index(const struct kind *k);
int kind_attr(const struct kind *k, const char *name);
int kind_link(const struct kind *k, const char *name);
int kind_state(const struct kind *k, const char *name);
int kind_file(const struct kind *k, const char *name);
/* Whether file i is the first of its folder. */
bool kind_folder(const struct kind *k, unsigned i);
bool attr_is_text(const struct attr_def *a);
/* Text to canonical value.  *ret owns a string for text types.  -EINVAL with a caret; -ENOENT for
 * an unknown name. */
int value_parse(struct control *c, const struct attr_def *a, const char *text, size_t n,
                union value *ret, struct err **e);
/* Value as it is read, no newline. */
void value_render(const struct attr_def *a, union value v, struct buf *out);
void value_free(const struct attr_def *a, union value *v);
/* `help` of what holds collections: a folder of the root ("admin"), or a tenant (NULL). */
void kinds_help(const char *folder, struct buf *out);
/* `help` of a collection: attributes, links, verbs, states. */
void kind_help(const struct kind *k, struct buf *out);
