/* A guest put together from what the model knows: what the compute driver is given. */
#pragma once

#include "control/network.h"

enum { DISKS_MAX = 32, GUEST_UID_BASE = 1000000000 };

/* Zero-initialised is valid; its strings are borrowed by g. */
struct plan {
        struct guest g;
        struct guest_disk disks[DISKS_MAX];
        struct guest_nic nics[NICS_MAX];
        char cd_image[ID_TEXT_SIZE], cd_export[ID_TEXT_SIZE], cpu[NAME_SIZE], watchdog[16], boot[40];
        char *cd_socket, *nvram, *tpm, *extra;
        /* Of a container: its folders, the image its root comes of, and how large that may be. */
        bool container, rooted; /* it has its root */
        char *tree, *root;
        char root_image[ID_TEXT_SIZE];
        uint64_t root_max;
        gid_t members; /* of its tenant */
        char volume[DISKS_MAX][ID_TEXT_SIZE], export[DISKS_MAX][ID_TEXT_SIZE];
        char *socket[DISKS_MAX];
        char serial[DISKS_MAX][21];
        char kernel_id[ID_TEXT_SIZE], initrd_id[ID_TEXT_SIZE];
        char *name, *title, *dir, *log, *console, *agent, *kernel, *initrd, *cmdline, *config, *vnc;
};

void plan_done(struct plan *p);
/* The guest's device for a port.  Model held. */
void plan_nic(const struct object *port, struct guest_nic *ret);

/* Fills everything but kernel and sockets.  -EAGAIN while the host's accelerator is unknown. */
int plan_guest(struct job *j, struct plan *p, struct err **e);
/* Copies the kernel and ramdisk, if it has them, to where its QEMU may read them. */
int plan_kernel(struct job *j, struct plan *p, struct err **e);
/* The uploaded bytes of an image that another host has, in a file of that name in the instance's
 * folder; NULL when they are here. */
int plan_fetch(struct job *j, const struct plan *p, const char *id, const char *name, char **ret,
               struct err **e);
/* container.c: what is not as with other guests.  Model held. */
void plan_container(struct plan *p, const struct object *o);
/* Makes its root, unless it has one, and starts it; repeatable. */
int container_boot(struct job *j, struct plan *p, struct err **e);
/* config-drive.c: makes its config drive, if it wants one; the folder is there. */
int plan_config(struct job *j, struct plan *p, struct err **e);
/* The folder of its screen's socket, which its QEMU makes, if it has a screen. */
int plan_screen(struct plan *p, struct err **e);
/* Its UEFI's variables, made at the first start that needs them. */
int plan_firmware(struct plan *p, struct err **e);
/* tpm.c: starts its TPM, if it has one, which waits for its QEMU; and ends one that waits in vain. */
int plan_tpm(struct plan *p, struct err **e);
void plan_tpm_dismiss(const struct plan *p);
/* Exports what is in its CD drive. */
int plan_cdrom(struct job *j, struct plan *p, struct err **e);
/* Exports each disk of the plan on a socket of its own that only this guest may enter. */
int plan_exports(struct job *j, struct plan *p, struct err **e);
/* Whether what a link points at may go into a guest: 0 ready; 1 not yet (watch, and label for
 * words); -errno it never will.  Model held. */
int link_ready(const struct object *o, const struct link *l, uint64_t *watch,
               char label[NAME_SIZE + 32], struct err **e);
