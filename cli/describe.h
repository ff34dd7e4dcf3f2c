/* A tenant as a file describes it, for strato apply and diff. */
#pragma once

#include <jansson.h>

#include "common/err.h"

/* The YAML text as jansson would give it from the same data in JSON, but that every scalar is a
 * string, an empty plain one null, and a list of scalars one string with commas between them.
 * Anchors, aliases, tags and a second document are refused, so what is made is no larger than the
 * text.  lines gets the line of each key of the upper two levels, {"volumes": 1, "volumes/v": 2}.
 * -EINVAL with the line. */
int yaml_load(const char *text, size_t n, json_t **ret, json_t *lines, struct err **e);

/* Reads JSON (what begins with a brace) or YAML: a map of collections, each a map of NAME: object,
 * and optionally `tenant` and `quota`.  "-" is standard input.  What it has is added to *doc:
 * {"tenant": NAME, "quota": {...}, "objects": {"volumes/v": {...}}, "places": {"volumes/v":
 * "FILE:LINE"}}; an object or another tenant that is there already is -EEXIST.
 * An image's `file` becomes absolute: it is relative to the description's folder. */
int describe_file(const char *path, json_t *doc, struct err **e);
