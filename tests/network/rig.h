/* Guests that are namespaces: each has a tap of its own, and a process that carries frames between
 * it and the one that it is plugged into. */
#pragma once

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include <sys/types.h>
#include "common/macro.h"

/* A shell's command, and its exit status. */
int sh(const char *fmt, ...) _printf_(1, 2);
#define yes(...)                                                                                   \
        do {                                                                                       \
                if (sh(__VA_ARGS__) != 0)                                                          \
                        fail_msg("failed: " __VA_ARGS__);                                          \
        } while (0)
#define no(...)                                                                                    \
        do {                                                                                       \
                if (sh(__VA_ARGS__) == 0)                                                          \
                        fail_msg("succeeded: " __VA_ARGS__);                                       \
        } while (0)

struct rig_guest {
        char tap[16]; /* in the caller's namespace; it is there */
        char mac[18];
        char address[24]; /* with its prefix; "": none */
        char gateway[16];
        unsigned mtu;
};
/* Ready to speak; the pid of its namespace. */
pid_t rig_guest(const struct rig_guest *g);
/* A namespace behind a cable, whose end here is called so and up; its own is eth0. */
pid_t rig_outside(const char *device);
void gone(pid_t pid);
