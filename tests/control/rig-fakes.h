/* The drivers of rig.c. */
#ifndef TESTS_CONTROL_RIG_FAKES_H
#define TESTS_CONTROL_RIG_FAKES_H

#include "rig.h"

extern const struct volume_service_ops fake_volume_ops;
extern const struct image_service_ops fake_image_ops;
extern const struct compute_ops fake_compute_ops;
extern const struct store_ops refusing_ops;

/* The control plane's way to its one host. */
int open_fake_compute(void *arg, struct compute **ret, struct err **e);

/* What rig_setup() begins with: drivers that remember nothing yet. */
void rig_drivers(void);

#endif
