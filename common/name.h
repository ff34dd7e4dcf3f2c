/* Names and identities. */
#pragma once

#include <stdbool.h>
#include <stdint.h>
#include <systemd/sd-id128.h>
#include "common/err.h"

enum { NAME_SIZE = 64, ID_TEXT_SIZE = 37 };

/* [A-Za-z0-9][A-Za-z0-9._-]{0,62}; -EINVAL with a caret. */
int name_check(const char *name, size_t n, struct err **e);
bool name_valid(const char *name);

/* 8-4-4-4-12 lower case.  Returns out. */
char *id_text(char out[ID_TEXT_SIZE], sd_id128_t id);
/* -EINVAL when it is no UUID. */
int id_parse(const char *text, sd_id128_t *ret);
/* A fresh random id. */
sd_id128_t id_new(void);
/* Whether n bytes are valid UTF-8 with no control characters but tab (and newline if `lines`). */
bool text_clean(const char *text, size_t n, bool lines);
