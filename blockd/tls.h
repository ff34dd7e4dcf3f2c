/* TLS 1.2 and 1.3 of a connection, on OpenSSL: who the client is, and its bytes.
 *
 * A client shows an X.509 certificate or a pre-shared key.  What it is then called:
 *     cn:NAME     the common name of the certificate's subject
 *     dns:NAME    each DNS name among the certificate's alternative names, in lower case
 *     psk:NAME    the user of the key
 * A certificate with neither name is refused.  There is no renegotiation, no compression and no
 * resumption, so each connection shows who it is. */
#pragma once

#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>
#include <sys/uio.h>
#include "common/err.h"

struct tls_config;
struct tls;

enum {
        TLS_NAME_MAX = 255, /* bytes of an identity with its prefix */
        TLS_NAMES = 32,     /* of one certificate; what is more is not looked at */
};

/* The server's credentials, from a folder with the names that QEMU and libvirt use:
 *     ca-cert.pem, server-cert.pem, server-key.pem, ca-crl.pem (optional)   X.509
 *     keys.psk     lines of user:hexkey, as psktool writes them
 * Either of the two, or both.  The folder is read again by each reload; what is wrong in it is
 * -EINVAL or the errno of opening it, with words, and then what was loaded before stays.
 * Connections that there are go on with what they began with.  Any thread. */
int tls_config_open(const char *dir, struct tls_config **ret, struct err **e);
int tls_config_reload(struct tls_config *c, struct err **e);
/* No connection of it may be left.  NULL is fine; returns NULL. */
struct tls_config *tls_config_free(struct tls_config *c);

/* The handshake, on a socket where the client is to speak first, until the deadline at most
 * (clock_mono()).  fd stays the caller's and must outlive *ret.  -ETIMEDOUT, -ECONNRESET, -EPROTO,
 * with words. */
int tls_accept(struct tls_config *c, int fd, int64_t deadline_us, struct tls **ret, struct err **e);
/* Whether the client is called that ("cn:host7"). */
bool tls_is(const struct tls *t, const char *name);
/* The first of its names, for logs. */
const char *tls_identity(const struct tls *t);
/* "TLSv1.3 TLS_AES_128_GCM_SHA256" */
void tls_describe(const struct tls *t, char *out, size_t n);

/* At least one byte, 0 when the client said that it is done, -ECONNRESET when it did not,
 * -ETIMEDOUT, -EPROTO, -errno; -EAGAIN and -EINTR as recv(2), when the
 * deadline is 0: none. */
ssize_t tls_recv(struct tls *t, void *p, size_t n, int64_t deadline_us);
/* Whether bytes that came are not received yet. */
bool tls_pending(const struct tls *t);
/* All of it or -errno; then the connection is of no more use.  No deadline: 0, as above. */
int tls_send(struct tls *t, const struct iovec *iov, int n, int64_t deadline_us);
/* Tells the client, if that needs no waiting.  Returns NULL. */
struct tls *tls_free(struct tls *t);
