/* A tenant as a file describes it, for strato apply and diff. */
#pragma once

#include <jansson.h>

#include "common/err.h"

/* The YAML text as jansson would give it from the same data in JSON, but that every scalar is a
 * string, and an empty plain one null.  Anchors, aliases, tags and a second document are refused,
 * so what is made is no larger than the text.  -EINVAL with the line. */
int yaml_load(const char *text, size_t n, json_t **ret, struct err **e);

/* Reads JSON (what begins with a brace) or YAML: a map of collections, each a map of NAME: object,
 * and optionally `tenant`.  "-" is standard input.  What it has is added to *doc: {"tenant": NAME,
 * "objects": {"volumes/v": {...}}}; an object or another tenant that is there already is -EEXIST.
 * An image's `file` becomes absolute: it is relative to the description's folder. */
int describe_file(const char *path, json_t *doc, struct err **e);
