/* Who may use an export over TCP: a JSON array of strings, each one of
 *     cn:NAME, dns:NAME, psk:NAME   as tls.h calls clients
 *     any                           whoever may connect, also without TLS
 * Any thread, on an array that does not change. */
#pragma once

#include <jansson.h>
#include "blockd/tls.h"

enum { CLIENTS_MAX = 64 };

/* -EINVAL with words.  NULL and an empty array are fine: nobody. */
int clients_check(const json_t *clients, struct err **e);
/* tls is NULL for a client without TLS. */
bool clients_allow(const json_t *clients, const struct tls *tls);
/* The same ones, in the same order. */
bool clients_same(const json_t *a, const json_t *b);
