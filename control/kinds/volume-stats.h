/* The files of a volume's `stats` folder, as rows of its kind's table. */
#pragma once

#include "control/internal.h"

/* Renderers for file_def.render_at; at: offset of the figure in struct volume_stats. */
void volume_stats_number(struct control *c, const struct object *o, size_t at, struct buf *out);
/* Whole files: at is which, enum volume_stats_text. */
void volume_stats_text(struct control *c, const struct object *o, size_t at, struct buf *out);
enum volume_stats_text { STATS_ALL, STATS_LATENCY, STATS_SINCE, STATS_AS_OF };

#define STATS_ROW(name_, render_, at_, help_)                                                      \
        {name_, FILE_TEXT, ROLE_NOBODY, .folder = "stats", .render_at = render_, .at = at_,        \
         .help = help_}
#define STATS_NUMBER(op_, index_, field_, help_)                                                   \
        STATS_ROW(#op_ "_" #field_, volume_stats_number,                                           \
                  offsetof(struct volume_stats, op[index_].field_), help_)
#define STATS_OP(op_, index_, what_)                                                               \
        STATS_NUMBER(op_, index_, ops, what_ " answered, failed ones included"),                   \
                STATS_NUMBER(op_, index_, errors, "of these with an error"),                       \
                STATS_NUMBER(op_, index_, usec, "microseconds that they took together")
#define STATS_OP_BYTES(op_, index_, what_)                                                         \
        STATS_OP(op_, index_, what_), STATS_NUMBER(op_, index_, bytes, "bytes of these")

#define VOLUME_STATS_FILES                                                                         \
        STATS_ROW("all", volume_stats_text, STATS_ALL, "every figure, one a line, NAME VALUE"),    \
                STATS_ROW("latency", volume_stats_text, STATS_LATENCY,                             \
                          "how long they took: OP MICROSECONDS COUNT, those of less than "         \
                          "MICROSECONDS and not of a line before"),                                \
                STATS_ROW("as_of", volume_stats_text, STATS_AS_OF,                                 \
                          "when the figures were taken; a look has them taken every second for "   \
                          "the next ten"),                                                         \
                STATS_ROW("since", volume_stats_text, STATS_SINCE,                                 \
                          "counted from then on; 1970 while nobody used it"),                      \
                STATS_ROW("in_flight", volume_stats_number,                                        \
                          offsetof(struct volume_stats, in_flight),                                \
                          "requests not answered yet, waiting for limits included"),               \
                STATS_OP_BYTES(read, VOLUME_REQ_READ, "reads"),                                     \
                STATS_OP_BYTES(write, VOLUME_REQ_WRITE, "writes"),                                  \
                STATS_OP(flush, VOLUME_REQ_FLUSH, "flushes"),                                       \
                STATS_OP_BYTES(trim, VOLUME_REQ_TRIM, "trims"),                                     \
                STATS_OP_BYTES(zero, VOLUME_REQ_ZERO, "zeroings"),                                  \
                STATS_OP(status, VOLUME_REQ_STATUS, "block status requests"),                       \
                STATS_OP_BYTES(cache, VOLUME_REQ_CACHE, "cache requests"),
