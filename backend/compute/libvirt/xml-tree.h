/* Building and reading XML by libxml2's tree.  Text is data, never markup; without memory these
 * give NULL, take it, and the document then does not come out whole: dump() says so. */
#pragma once

#include <inttypes.h>
#include <stdio.h>

#include <libxml/parser.h>
#include <libxml/tree.h>

#include "common/macro.h"

#define X(s) ((const xmlChar *)(s))

static inline void doc_freep(xmlDocPtr *doc)
{
        if (*doc)
                xmlFreeDoc(*doc);
}
#define _cleanup_doc_ _cleanup_(doc_freep)

static inline xmlNodePtr add(xmlNodePtr parent, const char *name)
{
        return parent ? xmlNewChild(parent, NULL, X(name), NULL) : NULL;
}

static inline xmlNodePtr attr(xmlNodePtr n, const char *name, const char *value)
{
        if (n)
                xmlNewProp(n, X(name), X(value));
        return n;
}

static inline xmlNodePtr attr_u(xmlNodePtr n, const char *name, uint64_t value)
{
        char text[24];

        snprintf(text, sizeof(text), "%" PRIu64, value);
        return attr(n, name, text);
}

/* <name>value</name>; the text is data, never markup. */
static inline xmlNodePtr text(xmlNodePtr parent, const char *name, const char *value)
{
        return parent ? xmlNewTextChild(parent, NULL, X(name), X(value)) : NULL;
}

static inline xmlNodePtr text_u(xmlNodePtr parent, const char *name, uint64_t value)
{
        char number[24];

        snprintf(number, sizeof(number), "%" PRIu64, value);
        return text(parent, name, number);
}

static inline xmlNodePtr child(xmlNodePtr n, const char *name)
{
        for (n = n ? n->children : NULL; n; n = n->next)
                if (n->type == XML_ELEMENT_NODE && xmlStrEqual(n->name, X(name)))
                        return n;
        return NULL;
}

/* An attribute's value; malloc'd (libxml2's allocator is malloc unless somebody changes it, and
 * strdup keeps it so). */
static inline char *value(xmlNodePtr n, const char *name)
{
        xmlChar *v = n ? xmlGetProp(n, X(name)) : NULL;
        char *copy = v ? strdup((const char *)v) : NULL;

        if (v)
                xmlFree(v);
        return copy;
}
