/* One TLS connection: the socket below OpenSSL, the handshake, names, receiving and sending. */
#include <openssl/err.h>
#include <openssl/x509v3.h>
#include <poll.h>
#include <sys/socket.h>

#include "blockd/tls-private.h"
#include "blockd/wire.h"
#include "common/clock.h"
#include "common/name.h"

enum { RECORD = 16384 }; /* the most plain bytes of one record */

static int bio_read(BIO *b, char *p, int n)
{
        struct tls *t = BIO_get_data(b);
        ssize_t r;

        BIO_clear_retry_flags(b);
        if (t->buffered) {
                BIO_set_retry_read(b);
                return -1;
        }
        r = recv(t->fd, p, n, t->deadline ? MSG_DONTWAIT : 0);
        while (r < 0 && t->deadline && (errno == EAGAIN || errno == EINTR)) {
                t->error = wire_wait(t->fd, POLLIN, t->deadline);
                if (t->error < 0)
                        return -1;
                r = recv(t->fd, p, n, MSG_DONTWAIT);
        }
        if (r < 0 && (errno == EAGAIN || errno == EINTR)) {
                t->again = -errno;
                BIO_set_retry_read(b);
        } else if (r <= 0) {
                t->error = r < 0 ? -errno : -ECONNRESET;
        }
        return r;
}

static int bio_write(BIO *b, const char *p, int n)
{
        struct tls *t = BIO_get_data(b);
        int done = 0;

        BIO_clear_retry_flags(b);
        while (done < n) {
                const int flags =
                        MSG_NOSIGNAL | (t->deadline ? MSG_DONTWAIT : 0) | (t->more ? MSG_MORE : 0);
                ssize_t r = send(t->fd, p + done, n - done, flags);

                if (r >= 0)
                        done += r;
                else if (errno == EAGAIN)
                        t->error = wire_wait(t->fd, POLLOUT, t->deadline);
                else if (errno != EINTR)
                        t->error = -errno;
                if (t->error < 0)
                        return -1;
        }
        return n;
}

static long bio_ctrl(BIO *b _unused_, int what, long n _unused_, void *p _unused_)
{
        return what == BIO_CTRL_FLUSH;
}

BIO_METHOD *tls_bio_method(void)
{
        BIO_METHOD *m = BIO_meth_new(BIO_get_new_index() | BIO_TYPE_SOURCE_SINK, "connection");

        if (m) {
                BIO_meth_set_read(m, bio_read);
                BIO_meth_set_write(m, bio_write);
                BIO_meth_set_ctrl(m, bio_ctrl);
        }
        return m;
}

/* What OpenSSL's refusal means.  Nothing but an end that was said is 0. */
static int result(struct tls *t, int r)
{
        const int why = SSL_get_error(t->ssl, r);

        if (why == SSL_ERROR_ZERO_RETURN)
                return 0;
        if (why == SSL_ERROR_WANT_READ)
                return t->again;
        return t->error < 0 ? t->error : -EPROTO;
}

/* n bytes that the client's certificate says, which may be anything; dropped if they could be
 * taken for something else. */
static void add_name(struct tls *t, const char *prefix, const unsigned char *p, int n)
{
        char *name;

        if (t->n == TLS_NAMES || n <= 0 || n + strlen(prefix) > TLS_NAME_MAX ||
            !text_clean((const char *)p, n, false))
                return;
        if (asprintf(&name, "%s%.*s", prefix, n, (const char *)p) >= 0)
                t->names[t->n++] = name;
}

static void add_common_name(struct tls *t, X509 *x)
{
        X509_NAME *subject = X509_get_subject_name(x);
        int at = X509_NAME_get_index_by_NID(subject, NID_commonName, -1);
        unsigned char *utf8 = NULL;
        int n;

        if (at < 0 || X509_NAME_get_index_by_NID(subject, NID_commonName, at) >= 0)
                return; /* none, or no telling which */
        n = ASN1_STRING_to_UTF8(&utf8, X509_NAME_ENTRY_get_data(X509_NAME_get_entry(subject, at)));
        add_name(t, "cn:", utf8, n);
        OPENSSL_free(utf8);
}

static void add_dns_names(struct tls *t, X509 *x)
{
        GENERAL_NAMES *names = X509_get_ext_d2i(x, NID_subject_alt_name, NULL, NULL);

        for (int i = 0; i < sk_GENERAL_NAME_num(names); i++) {
                const GENERAL_NAME *g = sk_GENERAL_NAME_value(names, i);
                unsigned before = t->n;

                if (g->type != GEN_DNS)
                        continue;
                add_name(t, "dns:", ASN1_STRING_get0_data(g->d.dNSName),
                         ASN1_STRING_length(g->d.dNSName));
                for (char *c = t->n > before ? t->names[before] : NULL; c && *c; c++)
                        if (*c >= 'A' && *c <= 'Z')
                                *c += 'a' - 'A';
        }
        GENERAL_NAMES_free(names);
}

/* Whether the key was taken, or only looked for. */
static bool psk_used(struct tls *t)
{
        if (!t->psk[0])
                return false;
        if (SSL_version(t->ssl) >= TLS1_3_VERSION)
                return SSL_session_reused(t->ssl); /* nothing else can be resumed here */
        return SSL_CIPHER_get_auth_nid(SSL_get_current_cipher(t->ssl)) == NID_auth_psk;
}

static int identify(struct tls *t, struct err **e)
{
        X509 *x;

        if (psk_used(t)) {
                add_name(t, "psk:", (unsigned char *)t->psk, strlen(t->psk));
                return t->n ? 0 : err_errno(e, -ENOMEM, "TLS");
        }
        x = SSL_get0_peer_certificate(t->ssl);
        if (!x || SSL_get_verify_result(t->ssl) != X509_V_OK)
                return err_set(e, -EPROTO, "TLS: the client did not say who it is");
        add_common_name(t, x);
        add_dns_names(t, x);
        return t->n ? 0 : err_set(e, -EPROTO, "TLS: the client's certificate names nobody");
}

static int handshake(struct tls *t, struct err **e)
{
        char words[256];
        long verify;
        int r;

        ERR_clear_error();
        r = SSL_accept(t->ssl);
        if (r == 1)
                return identify(t, e);
        r = result(t, r);
        verify = SSL_get_verify_result(t->ssl);
        tls_words(words, sizeof(words));
        if (r == 0)
                r = -ECONNRESET;
        if (verify != X509_V_OK)
                return err_set(e, r, "TLS: the client's certificate: %s",
                               X509_verify_cert_error_string(verify));
        return err_set(e, r, "TLS: %s", words[0] && r == -EPROTO ? words : strerror(-r));
}

static int set_up(struct tls *t, struct err **e)
{
        BIO *b = BIO_new(t->config->bio);

        t->ssl = SSL_new(t->credentials->ctx);
        if (!t->ssl || !b || SSL_set_app_data(t->ssl, t) != 1) {
                BIO_free(b);
                return err_errno(e, -ENOMEM, "TLS");
        }
        BIO_set_data(b, t);
        BIO_set_init(b, 1);
        SSL_set_bio(t->ssl, b, b);
        return 0;
}

int tls_accept(struct tls_config *c, int fd, int64_t deadline_us, struct tls **ret, struct err **e)
{
        struct tls *t = calloc(1, sizeof(*t));
        int r;

        if (!t)
                return err_errno(e, -ENOMEM, "TLS");
        *t = (struct tls){.config = c, .fd = fd, .deadline = deadline_us};
        t->credentials = credentials_ref(c);
        r = set_up(t, e);
        if (r == 0)
                r = handshake(t, e);
        if (r < 0) {
                tls_free(t);
                return r;
        }
        *ret = t;
        return 0;
}

bool tls_is(const struct tls *t, const char *name)
{
        for (unsigned i = 0; i < t->n; i++)
                if (streq(t->names[i], name))
                        return true;
        return false;
}

const char *tls_identity(const struct tls *t)
{
        return t->names[0];
}

void tls_describe(const struct tls *t, char *out, size_t n)
{
        snprintf(out, n, "%s %s", SSL_get_version(t->ssl), SSL_get_cipher_name(t->ssl));
}

ssize_t tls_recv(struct tls *t, void *p, size_t n, int64_t deadline_us)
{
        size_t have = 0, k;
        int r;

        ERR_clear_error();
        t->deadline = deadline_us;
        /* One record waits for the socket; the others that came with it are only decrypted. */
        do {
                r = SSL_read_ex(t->ssl, (char *)p + have, n - have, &k);
                if (r == 1)
                        have += k;
                t->buffered = true;
        } while (r == 1 && have < n && SSL_has_pending(t->ssl));
        t->buffered = false;
        return have ? (ssize_t)have : result(t, r);
}

bool tls_pending(const struct tls *t)
{
        return SSL_has_pending(t->ssl);
}

static int put(struct tls *t, const void *p, size_t n, bool more)
{
        size_t k;

        t->more = more;
        return SSL_write_ex(t->ssl, p, n, &k) == 1 ? 0 : result(t, 0) ?: -EPIPE;
}

/* Full records whatever the pieces are: what is less than a record is gathered. */
int tls_send(struct tls *t, const struct iovec *iov, int n, int64_t deadline_us)
{
        uint8_t gather[RECORD];
        size_t have = 0, left = 0;
        int r = 0;

        ERR_clear_error();
        t->deadline = deadline_us;
        for (int i = 0; i < n; i++)
                left += iov[i].iov_len;
        for (int i = 0; i < n && r == 0; i++) {
                const uint8_t *p = iov[i].iov_base, *end = p + iov[i].iov_len;

                while (p < end && r == 0) {
                        const bool whole = have == 0 && end - p >= RECORD;
                        const size_t k = MIN(RECORD - have, (size_t)(end - p));

                        if (!whole)
                                memcpy(gather + have, p, k);
                        have += k;
                        left -= k;
                        if (have == RECORD || left == 0) {
                                r = put(t, whole ? p : gather, have, left > 0);
                                have = 0;
                        }
                        p += k;
                }
        }
        return r;
}

struct tls *tls_free(struct tls *t)
{
        if (!t)
                return NULL;
        if (t->ssl && SSL_is_init_finished(t->ssl) && t->error == 0) {
                t->deadline = clock_mono();
                SSL_shutdown(t->ssl);
                ERR_clear_error();
        }
        SSL_free(t->ssl);
        for (unsigned i = 0; i < t->n; i++)
                free(t->names[i]);
        OPENSSL_cleanse(t->psk, sizeof(t->psk));
        credentials_unref(t->config, t->credentials);
        free(t);
        return NULL;
}
