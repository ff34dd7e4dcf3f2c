/* Addresses as text. */
#include "control/network.h"

#include <arpa/inet.h>

bool address_parse(const char *text, size_t n, uint32_t *ret)
{
        char copy[ADDRESS_TEXT_SIZE];
        struct in_addr a;

        if (n >= sizeof(copy))
                return false;
        memcpy(copy, text, n);
        copy[n] = '\0';
        if (inet_pton(AF_INET, copy, &a) != 1)
                return false;
        *ret = ntohl(a.s_addr);
        return true;
}

int cidr_parse(const char *text, size_t n, uint32_t *ret, unsigned *prefix, struct err **e)
{
        const char *slash = memchr(text, '/', n);
        size_t at = slash ? (size_t)(slash - text) : n, digits = n - at - 1;
        unsigned p = 0;

        if (!slash || digits < 1 || digits > 2 || !address_parse(text, at, ret))
                return err_at(e, -EINVAL, text, n, 0, n,
                              "expected an IPv4 network, like 10.0.0.0/24");
        for (size_t i = at + 1; i < n; i++) {
                if (text[i] < '0' || text[i] > '9')
                        return err_at(e, -EINVAL, text, n, i, 1, "a prefix is 0 to 32");
                p = p * 10 + (text[i] - '0');
        }
        if (p > 32)
                return err_at(e, -EINVAL, text, n, at + 1, digits, "a prefix is 0 to 32");
        if (*ret & ~network_mask(p)) {
                char a[ADDRESS_TEXT_SIZE];

                return err_at(e, -EINVAL, text, n, 0, at, "the network of /%u there is %s", p,
                              network_address(a, *ret & network_mask(p)));
        }
        *prefix = p;
        return 0;
}

bool address6_parse(const char *text, size_t n, struct in6_addr *ret)
{
        char copy[ADDRESS6_TEXT_SIZE];

        if (n >= sizeof(copy))
                return false;
        memcpy(copy, text, n);
        copy[n] = '\0';
        return inet_pton(AF_INET6, copy, ret) == 1;
}

bool cidr6_parse(const char *text, size_t n, struct in6_addr *ret, unsigned *prefix)
{
        const char *slash = memchr(text, '/', n);
        unsigned p = 0, bits;

        if (!slash || text + n - slash > 4 || text + n - slash < 2 ||
            !address6_parse(text, slash - text, ret))
                return false;
        for (const char *d = slash + 1; d < text + n; d++) {
                if (*d < '0' || *d > '9')
                        return false;
                p = p * 10 + (*d - '0');
        }
        for (unsigned i = 0; i < 16; i++) {
                bits = p >= 8 * i + 8 ? 8 : p <= 8 * i ? 0 : p - 8 * i;
                if (ret->s6_addr[i] & (0xff >> bits))
                        return false;
        }
        *prefix = p;
        return p <= 128;
}

const char *word_next(const char **p, size_t *n)
{
        const char *word = *p + strspn(*p, " \t,");

        *n = strcspn(word, " \t,");
        *p = word + *n;
        return *n ? word : NULL;
}
