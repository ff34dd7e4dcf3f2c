/* Listeners: a port of a load balancer, and where what comes there goes. */
#include "control/balancer.h"
#include "control/network.h"

#include <openssl/err.h>
#include <openssl/pem.h>
#include <openssl/x509.h>

static int create(struct txn *t, struct object *o, struct err **e)
{
        struct collection *l = model_collection(t->c, o->holder, &kind_listener);

        if (l && l->n > LISTENERS_MAX)
                return err_set(e, -EDQUOT,
                               "listeners of a load balancer: limit=%d used=%zu wanted=1",
                               LISTENERS_MAX, l->n - 1);
        return 0;
}

static int set_port(struct txn *t, struct object *o, union value v, struct err **e)
{
        struct collection *l = model_collection(t->c, o->holder, &kind_listener);

        for (size_t i = 0; i < l->n; i++)
                if (l->v[i] != o && object_num(l->v[i], "port") == v.u)
                        return err_set(e, -EEXIST, "listener '%s' has port %" PRIu64, l->v[i]->name,
                                       v.u);
        txn_set_num(t, o, "port", v.u);
        txn_set_state(t, o, LISTENER_ACTIVE);
        return 0;
}

static int set_protocol(struct txn *t, struct object *o, union value v, struct err **e)
{
        if (v.s && streq(v.s, "https") && !*object_str(o, "certificate")) {
                err_set(e, -EINVAL, "TLS ends here with a certificate, and there is none");
                return err_hint(e, -EINVAL,
                                "cat chain.pem key.pem > certificate; or tcp, which "
                                "passes TLS through to the members");
        }
        txn_set_str(t, o, "protocol", v.s);
        return 0;
}

/* --- its certificate, and the key to it ------------------------------------------------------ */

/* The first certificate is of the key. */
static int check_pem(const char *pem, struct err **e)
{
        BIO *in[] = {BIO_new_mem_buf(pem, -1), BIO_new_mem_buf(pem, -1)};
        X509 *x = in[0] ? PEM_read_bio_X509(in[0], NULL, NULL, NULL) : NULL;
        /* Nobody is asked for a passphrase: the empty one. */
        EVP_PKEY *k = in[1] ? PEM_read_bio_PrivateKey(in[1], NULL, NULL, (void *)"") : NULL;
        int r = 0;

        if (!x)
                r = err_set(e, -EINVAL, "there is no certificate in it, in PEM");
        else if (!k)
                r = err_set(e, -EINVAL, "there is no private key in it, in PEM without passphrase");
        else if (!X509_check_private_key(x, k))
                r = err_set(e, -EINVAL, "the key is not that of the first certificate");
        while (r == 0 && x) { /* the rest of the chain */
                X509_free(x);
                x = PEM_read_bio_X509(in[0], NULL, NULL, NULL);
                if (!x && ERR_GET_REASON(ERR_peek_last_error()) != PEM_R_NO_START_LINE)
                        r = err_set(e, -EINVAL, "a certificate of its chain is damaged");
        }
        ERR_clear_error();
        X509_free(x);
        EVP_PKEY_free(k);
        BIO_free(in[0]);
        BIO_free(in[1]);
        return r;
}

/* `cat chain.pem key.pem > certificate` comes in two pieces, the second with the first before it.
 */
static bool more_to_come(const char *pem)
{
        static const char of_key[] = "PRIVATE KEY-----";
        const char *key = strstr(pem, of_key);

        return strstr(pem, "-----BEGIN ") &&
               !(strstr(pem, "-----END CERTIFICATE-----") && key && strstr(key + 1, of_key));
}

static int set_certificate(struct txn *t, struct object *o, union value v, struct err **e)
{
        const char *pem = v.s ?: "";
        int r = 0;

        if (more_to_come(pem))
                return 0;
        if (*pem)
                r = check_pem(pem, e);
        else if (streq(object_str(o, "protocol"), "https"))
                r = err_set(e, -EBUSY, "protocol is https, which needs it");
        if (r == 0)
                txn_set_str(t, o, "certificate", pem);
        return r;
}

/* Without the key: nobody reads that again. */
static void render_certificate(struct control *c, const struct object *o, struct buf *out)
{
        static const char begin[] = "-----BEGIN CERTIFICATE-----";
        static const char end[] = "-----END CERTIFICATE-----";
        unsigned count = 0;

        for (const char *p = object_str(o, "certificate"), *q; (p = strstr(p, begin)); p = q) {
                q = strstr(p, end);
                if (!q)
                        return;
                q += strlen(end);
                if (count++)
                        buf_addc(out, '\n');
                buf_add(out, p, q - p);
        }
}

static int set_path(struct txn *t, struct object *o, union value v, struct err **e)
{
        const char *s = v.s ?: "";
        size_t good = strspn(s, "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789"
                                "/._-~=&?:@+,");

        if (s[good] || *s != '/')
                return err_at(e, -EINVAL, s, strlen(s), good, s[good] != '\0',
                              "a path is / and letters, digits, and of /._-~=&?:@+,");
        txn_set_str(t, o, "check_path", s);
        return 0;
}

const struct object *listener_member(const struct object *o, const struct object *target)
{
        const struct object *own = object_target(o->holder, "network");
        int def = kind_link(&kind_instance, "networks");

        if (!own || own->kind != &kind_port)
                return NULL;
        if (target->kind == &kind_port)
                return target->holder == own->holder ? target : NULL;
        object_foreach_link (l, target)
                if ((int)l->def == def && l->target->kind == &kind_port &&
                    l->target->holder == own->holder)
                        return l->target;
        return NULL;
}

static int bind_member(struct txn *t, struct object *o, char *name, struct object *target,
                       struct err **e)
{
        const struct object *own = object_target(o->holder, "network");
        char label[NAME_SIZE + 32];

        if (!own)
                return err_set(e, -EINVAL, "load balancer '%s' is in no network", o->holder->name);
        if (o->nlinks >= MEMBERS_MAX)
                return err_set(e, -EDQUOT, "members of a listener: limit=%d used=%u wanted=1",
                               MEMBERS_MAX, o->nlinks);
        if (target == own)
                return err_set(e, -EINVAL, "it would balance over itself");
        if (!listener_member(o, target))
                return err_set(e, -EINVAL, "%s is not in network '%s'", object_label(target, label),
                               own->holder->name);
        return 0;
}

void listener_drop(struct txn *t, struct object *o)
{
        while (o->nlinks)
                txn_unlink(t, o, &o->links[o->nlinks - 1]);
        txn_delete(t, o);
}

static int remove_listener(struct txn *t, struct object *o, struct err **e)
{
        int r = check_referrers(o, e);

        if (r == 0)
                listener_drop(t, o);
        return r;
}

static const struct attr_def attrs[] = {
        {"protocol", ATTR_WORD, ROLE_MEMBER, .words = "tcp http https", .def = "tcp", .index = true,
         .set = set_protocol,
         .help = "tcp: connections; http: requests, with X-Forwarded-For; https: the same, and TLS "
                 "ends "
                 "here, with `certificate`"},
        {"certificate", ATTR_TEXT, ROLE_MEMBER, .max = 32 << 10, .lines = true, .no_spec = true,
         .set = set_certificate, .render = render_certificate,
         .help = "for https: PEM, of a certificate, those above it, and its private key, which is "
                 "not shown again"},
        {"port", ATTR_NUMBER, ROLE_MEMBER, .min = 1, .max = 65535, .index = true, .set = set_port,
         .help = "where it listens"},
        {"member_port", ATTR_NUMBER, ROLE_MEMBER, .max = 65535, .index = true,
         .help = "where its members listen; 0: on the same one"},
        {"balance", ATTR_WORD, ROLE_MEMBER, .words = "roundrobin leastconn source",
         .def = "roundrobin", .index = true,
         .help = "in turn, to who has fewest connections, or always the same for an address"},
        {"check", ATTR_WORD, ROLE_MEMBER, .words = "none tcp http", .def = "tcp",
         .help = "whether a member is well: it takes connections, or answers check_path with 2xx "
                 "or "
                 "3xx"},
        {"check_path", ATTR_TEXT, ROLE_MEMBER, .max = 120, .def = "/", .set = set_path,
         .help = "what check=http asks for"},
        {"check_interval", ATTR_NUMBER, ROLE_MEMBER, .min = 1, .max = 3600, .def = "5",
         .help = "seconds; a member that failed three checks gets nothing until two were good"},
        {"description", ATTR_TEXT, ROLE_MEMBER, .max = 255, .help = "words for people"},
};

static const struct link_def links[] = {
        {"members", "instance port", .many = true, .bind = bind_member,
         .help = "who gets what comes, of the load balancer's network"},
};

static const struct state_def states[] = {
        {"draft", .help = "without a port"},
        {"active", .help = "listens"},
};

const struct kind kind_listener = {
        .name = "listener",
        .plural = "listeners",
        .inside = "load_balancer",
        .help = "A port of the load balancer: echo 80 > port, ln -s instances/a members/.",
        .schema = 1,
        .creator = ROLE_MEMBER,
        .attrs = attrs,
        .nattrs = ARRAY_SIZE(attrs),
        .links = links,
        .nlinks = ARRAY_SIZE(links),
        .states = states,
        .nstates = ARRAY_SIZE(states),
        .create = create,
        .remove = remove_listener,
};
