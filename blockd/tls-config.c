/* The server's credentials: a folder of files to an SSL_CTX and a table of keys. */
#include <openssl/err.h>
#include <sys/stat.h>

#include "blockd/tls-private.h"
#include "common/fileio.h"
#include "common/log.h"
#include "common/name.h"

enum {
        PSK_FILE_MAX = 1 << 20,
        PSK_USERS = 4096,
        PSK_MIN = 16,           /* bytes; a shorter key could be guessed */
        READ_BUFFER = 96 << 10, /* some records in one recv, and below malloc's mmap threshold */
};

/* Only with forward secrecy and authenticated encryption.  A client that offers PSK means it, so
 * these are first; a client with a certificate offers none. */
static const char suites12[] = "DHE-PSK-AES128-GCM-SHA256:DHE-PSK-AES256-GCM-SHA384:"
                               "ECDHE-PSK-CHACHA20-POLY1305:DHE-PSK-CHACHA20-POLY1305:"
                               "ECDHE+AESGCM+AES128:ECDHE+AESGCM:ECDHE+CHACHA20:DHE+AESGCM";
/* The hash of external keys is SHA-256, so that suite is first. */
static const char suites13[] =
        "TLS_AES_128_GCM_SHA256:TLS_AES_256_GCM_SHA384:TLS_CHACHA20_POLY1305_SHA256";

void tls_words(char *out, size_t n)
{
        unsigned long code = ERR_get_error();
        const char *words = code ? ERR_reason_error_string(code) : NULL;

        snprintf(out, n, "%s", words ? words : "");
        ERR_clear_error();
}

static int fail(struct err **e, int code, const char *path)
{
        char words[256];

        tls_words(words, sizeof(words));
        return err_set(e, code, "'%s': %s", path, words[0] ? words : strerror(-code));
}

static struct credentials *credentials_free(struct credentials *k)
{
        struct psk *p, *tmp;

        if (!k)
                return NULL;
        HASH_ITER (hh, k->keys, p, tmp) {
                HASH_DEL(k->keys, p);
                OPENSSL_clear_free(p, sizeof(*p));
        }
        SSL_CTX_free(k->ctx);
        free(k);
        return NULL;
}
DEFINE_CLEANUP(struct credentials *, credentials_free)

struct credentials *credentials_ref(struct tls_config *c)
{
        WITH_LOCK(&c->lock);
        c->now->users++;
        return c->now;
}

void credentials_unref(struct tls_config *c, struct credentials *k)
{
        bool last;

        pthread_mutex_lock(&c->lock);
        last = --k->users == 0;
        pthread_mutex_unlock(&c->lock);
        if (last)
                credentials_free(k);
}

/* The path of a file of the folder: 1 it is there, 0 it is not, -errno. */
static int find(const char *dir, const char *name, char **ret, struct err **e)
{
        *ret = path_printf("%s/%s", dir, name);
        if (!*ret)
                return err_errno(e, -ENOMEM, "TLS");
        if (access(*ret, R_OK) == 0)
                return 1;
        return errno == ENOENT ? 0 : err_errno(e, -errno, "'%s'", *ret);
}

static int need(const char *dir, const char *name, char **ret, struct err **e)
{
        int r = find(dir, name, ret, e);

        return r == 0 ? err_errno(e, -ENOENT, "'%s'", *ret) : r;
}

static void warn_readable(const char *path)
{
        struct stat st;

        if (stat(path, &st) == 0 && st.st_mode & (S_IRGRP | S_IROTH))
                log_warning("TLS: '%s' holds a secret, and others than its owner may read it",
                            path);
}

/* A key with a password would be asked for on a terminal that is not there. */
static int no_password(char *buf _unused_, int size _unused_, int rw _unused_, void *arg _unused_)
{
        return -1;
}

static int load_ca(SSL_CTX *ctx, const char *dir, struct err **e)
{
        _cleanup_free_ char *ca = NULL, *crl = NULL;
        STACK_OF(X509_NAME) * names;
        int r = need(dir, "ca-cert.pem", &ca, e);

        if (r < 0)
                return r;
        if (SSL_CTX_load_verify_file(ctx, ca) != 1)
                return fail(e, -EINVAL, ca);
        names = SSL_load_client_CA_file(ca);
        if (!names)
                return fail(e, -EINVAL, ca);
        SSL_CTX_set_client_CA_list(ctx, names);
        r = find(dir, "ca-crl.pem", &crl, e);
        if (r <= 0)
                return r;
        if (X509_load_crl_file(
                    X509_STORE_add_lookup(SSL_CTX_get_cert_store(ctx), X509_LOOKUP_file()), crl,
                    X509_FILETYPE_PEM) <= 0)
                return fail(e, -EINVAL, crl);
        X509_STORE_set_flags(SSL_CTX_get_cert_store(ctx),
                             X509_V_FLAG_CRL_CHECK | X509_V_FLAG_CRL_CHECK_ALL);
        return 0;
}

static int load_x509(SSL_CTX *ctx, const char *dir, struct err **e)
{
        _cleanup_free_ char *cert = NULL, *key = NULL;
        int r = need(dir, "server-cert.pem", &cert, e);

        if (r > 0)
                r = need(dir, "server-key.pem", &key, e);
        if (r > 0)
                r = load_ca(ctx, dir, e);
        if (r < 0)
                return r;
        warn_readable(key);
        if (SSL_CTX_use_certificate_chain_file(ctx, cert) != 1)
                return fail(e, -EINVAL, cert);
        if (X509_cmp_current_time(X509_get0_notAfter(SSL_CTX_get0_certificate(ctx))) < 0)
                log_warning("TLS: '%s' has expired, clients will not trust it", cert);
        if (SSL_CTX_use_PrivateKey_file(ctx, key, SSL_FILETYPE_PEM) != 1) {
                const unsigned long code = ERR_peek_last_error();

                if (ERR_GET_REASON(code) == X509_R_KEY_VALUES_MISMATCH ||
                    ERR_GET_REASON(code) == X509_R_KEY_TYPE_MISMATCH)
                        r = err_set(e, -EINVAL, "'%s' is not the key of '%s'", key, cert);
                else
                        r = fail(e, -EINVAL, key);
                ERR_clear_error();
                return r;
        }
        SSL_CTX_set_verify(ctx, SSL_VERIFY_PEER | SSL_VERIFY_FAIL_IF_NO_PEER_CERT, NULL);
        return 0;
}

/* user:hexkey, without the newline. */
static const char *parse_psk(const char *line, size_t n, struct psk *p)
{
        const char *colon = memchr(line, ':', n);
        size_t user = colon ? (size_t)(colon - line) : 0;
        size_t digits = n - user - 1;

        if (user == 0 || line[0] == '#')
                return "it is not user:hexkey";
        if (user > TLS_NAME_MAX - strlen("psk:") || !text_clean(line, user, false))
                return "the user's name is too long or holds strange characters";
        if (digits < PSK_MIN * 2 || digits > sizeof(p->key) * 2 || digits % 2)
                return "the key is too short, too long or of odd length";
        memcpy(p->user, line, user);
        for (p->n = 0; p->n < digits / 2; p->n++) {
                int high = OPENSSL_hexchar2int(colon[1 + 2 * p->n]);
                int low = OPENSSL_hexchar2int(colon[2 + 2 * p->n]);

                if (high < 0 || low < 0)
                        return "the key is not hexadecimal";
                p->key[p->n] = high << 4 | low;
        }
        return NULL;
}

static const char *add_psk(struct credentials *k, const char *line, size_t n)
{
        struct psk *p = OPENSSL_zalloc(sizeof(*p)), *old;
        const char *wrong = p ? parse_psk(line, n, p) : "out of memory";

        if (!wrong) {
                HASH_FIND_STR(k->keys, p->user, old);
                wrong = old                                ? "this user was there before"
                        : HASH_COUNT(k->keys) >= PSK_USERS ? "too many users"
                                                           : NULL;
        }
        if (wrong)
                OPENSSL_clear_free(p, sizeof(*p));
        else
                HASH_ADD_STR(k->keys, user, p);
        return wrong;
}

static int load_psk(struct credentials *k, const char *path, struct err **e)
{
        const char *wrong = NULL;
        unsigned number = 0;
        size_t n, len;
        char *text;
        int r = file_read(path, PSK_FILE_MAX, &text, &n, e);

        if (r < 0)
                return r;
        warn_readable(path);
        for (char *p = text; p < text + n && !wrong; p += len + 1) {
                len = strcspn(p, "\n");
                number++;
                if (len > 0)
                        wrong = add_psk(k, p, p[len - 1] == '\r' ? len - 1 : len);
        }
        if (wrong)
                r = err_set(e, -EINVAL, "'%s', line %u: %s", path, number, wrong);
        else if (!k->keys)
                r = err_set(e, -EINVAL, "'%s' holds no key", path);
        OPENSSL_cleanse(text, n);
        free(text);
        return r;
}

/* The key of a user, for both versions.  Which of several offered ones was taken is seen after the
 * handshake: the last that was found here, if any was taken at all. */
static unsigned find_psk(SSL *ssl, const char *user, unsigned char *key, unsigned max)
{
        struct tls *t = SSL_get_app_data(ssl);
        struct psk *p;

        if (strlen(user) > TLS_NAME_MAX)
                return 0;
        HASH_FIND_STR(t->credentials->keys, user, p);
        if (!p || p->n > max)
                return 0;
        memcpy(key, p->key, p->n);
        strcpy(t->psk, p->user);
        return p->n;
}

static int make_ctx(SSL_CTX **ret, struct err **e)
{
        SSL_CTX *ctx = *ret = SSL_CTX_new(TLS_server_method());

        if (!ctx)
                return err_errno(e, -ENOMEM, "TLS");
        SSL_CTX_set_options(ctx, SSL_OP_NO_RENEGOTIATION | SSL_OP_NO_COMPRESSION |
                                         SSL_OP_NO_TICKET | SSL_OP_CIPHER_SERVER_PREFERENCE);
        SSL_CTX_set_session_cache_mode(ctx, SSL_SESS_CACHE_OFF);
        SSL_CTX_set_num_tickets(ctx, 0);
        SSL_CTX_set_session_id_context(ctx, (const unsigned char *)"blockd", 6); /* PSK wants one */
        SSL_CTX_set_max_early_data(ctx, 0);
        SSL_CTX_set_verify_depth(ctx, 8);
        /* An idle connection holds no record buffers, a busy one receives many records at once. */
        SSL_CTX_set_mode(ctx, SSL_MODE_RELEASE_BUFFERS);
        SSL_CTX_set_read_ahead(ctx, 1);
        SSL_CTX_set_default_read_buffer_len(ctx, READ_BUFFER);
        SSL_CTX_set_default_passwd_cb(ctx, no_password);
        if (SSL_CTX_set_min_proto_version(ctx, TLS1_2_VERSION) != 1 ||
            SSL_CTX_set_dh_auto(ctx, 1) != 1 || SSL_CTX_set_cipher_list(ctx, suites12) != 1 ||
            SSL_CTX_set_ciphersuites(ctx, suites13) != 1)
                return fail(e, -EINVAL, "OpenSSL's configuration");
        return 0;
}

static int load(const char *dir, struct credentials **ret, struct err **e)
{
        _cleanup_(credentials_freep) struct credentials *k = calloc(1, sizeof(*k));
        _cleanup_free_ char *cert = NULL, *psk = NULL;
        int x509, r;

        if (!k)
                return err_errno(e, -ENOMEM, "TLS");
        r = make_ctx(&k->ctx, e);
        if (r < 0)
                return r;
        x509 = r = find(dir, "server-cert.pem", &cert, e);
        if (r > 0)
                r = load_x509(k->ctx, dir, e);
        if (r < 0)
                return r;
        r = find(dir, "keys.psk", &psk, e);
        if (r == 0 && x509 == 0)
                return err_set(e, -ENOENT, "'%s' holds neither server-cert.pem nor keys.psk", dir);
        if (r > 0) {
                r = load_psk(k, psk, e);
                SSL_CTX_set_psk_server_callback(k->ctx, find_psk);
        }
        if (r < 0)
                return r;
        k->users = 1;
        *ret = TAKE_PTR(k);
        return 0;
}

int tls_config_reload(struct tls_config *c, struct err **e)
{
        struct credentials *new = NULL, *old;
        int r = load(c->dir, &new, e);

        if (r < 0)
                return err_prepend(e, r, "TLS");
        pthread_mutex_lock(&c->lock);
        old = c->now;
        c->now = new;
        pthread_mutex_unlock(&c->lock);
        if (old)
                credentials_unref(c, old);
        return 0;
}

int tls_config_open(const char *dir, struct tls_config **ret, struct err **e)
{
        struct tls_config *c = calloc(1, sizeof(*c));
        int r;

        if (!c)
                return err_errno(e, -ENOMEM, "TLS");
        pthread_mutex_init(&c->lock, NULL);
        c->dir = strdup(dir);
        c->bio = tls_bio_method();
        r = c->dir && c->bio ? tls_config_reload(c, e) : err_errno(e, -ENOMEM, "TLS");
        if (r < 0) {
                tls_config_free(c);
                return r;
        }
        *ret = c;
        return 0;
}

struct tls_config *tls_config_free(struct tls_config *c)
{
        if (!c)
                return NULL;
        credentials_free(c->now);
        BIO_meth_free(c->bio);
        pthread_mutex_destroy(&c->lock);
        free(c->dir);
        free(c);
        return NULL;
}
