/* "END-SIGNATURE": seconds of the monotonic clock, and an HMAC over them and the guest's address.
 */
#include "metadata/metadata.h"

#include <inttypes.h>
#include <openssl/crypto.h>
#include <openssl/evp.h>
#include <openssl/hmac.h>

static void sign(const struct service *s, uint64_t address, int64_t end, char out[TOKEN_SIZE])
{
        unsigned char mac[EVP_MAX_MD_SIZE];
        unsigned n = 0;
        struct {
                int64_t end;
                uint64_t address;
        } what = {end, address};
        int at = snprintf(out, TOKEN_SIZE, "%" PRId64 "-", end);

        if (!HMAC(EVP_sha256(), s->secret, sizeof(s->secret), (const unsigned char *)&what,
                  sizeof(what), mac, &n))
                abort();
        for (unsigned i = 0; i < n && at < TOKEN_SIZE - 2; i++, at += 2)
                snprintf(out + at, 3, "%02x", mac[i]);
}

void token_make(const struct service *s, uint64_t address, int64_t end, char out[TOKEN_SIZE])
{
        sign(s, address, end, out);
}

bool token_valid(const struct service *s, uint64_t address, int64_t now, const char *token)
{
        char own[TOKEN_SIZE], *rest;
        int64_t end = strtoll(token, &rest, 10);
        size_t n = strlen(token);

        if (*rest != '-' || end <= now || end > now + TOKEN_TTL_MAX)
                return false;
        sign(s, address, end, own);
        return n == strlen(own) && CRYPTO_memcmp(own, token, n) == 0;
}
