#include "blockd/clients.h"

#include "common/name.h"

static int check_one(const char *name, size_t n, struct err **e)
{
        static const char *const prefixes[] = {"cn:", "dns:", "psk:"};

        if (!name)
                return err_set(e, -EINVAL, "clients: not a list of strings");
        if (n > TLS_NAME_MAX || !text_clean(name, n, false))
                return err_set(e, -EINVAL, "clients: a name too long or with strange characters");
        if (streq(name, "any"))
                return 0;
        for (size_t i = 0; i < ARRAY_SIZE(prefixes); i++) {
                const size_t k = strlen(prefixes[i]);

                if (strncmp(name, prefixes[i], k) != 0 || n == k)
                        continue;
                if (i == 1 && strcspn(name, "ABCDEFGHIJKLMNOPQRSTUVWXYZ") < n)
                        return err_set(e, -EINVAL, "clients: '%s' is not in lower case", name);
                return 0;
        }
        return err_set(e, -EINVAL, "clients: '%s' is not cn:NAME, dns:NAME, psk:NAME or any", name);
}

int clients_check(const json_t *clients, struct err **e)
{
        const json_t *one;
        size_t i;
        int r = 0;

        if (clients && !json_is_array(clients))
                return err_set(e, -EINVAL, "clients: not a list of strings");
        if (json_array_size(clients) > CLIENTS_MAX)
                return err_set(e, -EINVAL, "clients: more than %d", CLIENTS_MAX);
        json_array_foreach (clients, i, one) {
                r = check_one(json_string_value(one), json_string_length(one), e);
                if (r < 0)
                        break;
        }
        return r;
}

bool clients_allow(const json_t *clients, const struct tls *tls)
{
        const json_t *one;
        size_t i;

        json_array_foreach (clients, i, one) {
                const char *name = json_string_value(one);

                if (streq(name, "any") || (tls && tls_is(tls, name)))
                        return true;
        }
        return false;
}

bool clients_same(const json_t *a, const json_t *b)
{
        if (json_array_size(a) == 0 || json_array_size(b) == 0)
                return json_array_size(a) == json_array_size(b);
        return json_equal(a, b);
}
