/* What a guest's cloud-init is told, as OpenStack's documents: of the config drive, and of whoever
 * serves them otherwise. */
#pragma once

#include <jansson.h>

#include "control/jobs/jobs.h"

/* Zero-initialised is empty. */
struct config_data {
        json_t *meta;     /* meta_data.json */
        json_t *network;  /* network_data.json */
        json_t *vendor;   /* vendor_data.json */
        json_t *ec2;      /* meta-data.json of the other layout */
        char *user_data;  /* NULL: none */
};

/* From the model, which is held. */
void config_data_get(struct control *c, const struct object *instance, struct config_data *ret);
void config_data_done(struct config_data *d);
