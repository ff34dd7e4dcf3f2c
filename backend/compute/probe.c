/* Boots a boot sector and looks at what it says. */
#include "backend/compute/compute.h"

#include <fcntl.h>
#include <sys/wait.h>

#include "common/child.h"
#include "common/fileio.h"

static const char magic[] = "STRATOFS-GUEST-BOOTED";

enum {
        SECTOR = 512,
        MESSAGE_AT = 0x40,
        EXIT_VALUE = 0x10,    /* isa-debug-exit makes exit status 2 * value + 1 of it */
        IMAGE_SIZE = 2 << 20, /* SeaBIOS reads no disk of less than one cylinder */
};

/* Real mode at 0x7c00: the message to COM1, byte by byte, then the value to isa-debug-exit. */
static const unsigned char code[] = {
        0xfa,                   /*        cli                        */
        0x31, 0xc0,             /*        xor ax, ax                 */
        0x8e, 0xd8,             /*        mov ds, ax                 */
        0xbe, MESSAGE_AT, 0x7c, /*        mov si, 0x7c00 + message   */
        0xfc,                   /*        cld                        */
        0xac,                   /* next:  lodsb                      */
        0x84, 0xc0,             /*        test al, al                */
        0x74, 0x12,             /*        jz done                    */
        0x88, 0xc4,             /*        mov ah, al                 */
        0xba, 0xfd,       0x03, /*        mov dx, 0x3fd              */
        0xec,                   /* wait:  in al, dx                  */
        0xa8, 0x20,             /*        test al, 0x20              */
        0x74, 0xfb,             /*        jz wait                    */
        0x88, 0xe0,             /*        mov al, ah                 */
        0xba, 0xf8,       0x03, /*        mov dx, 0x3f8              */
        0xee,                   /*        out dx, al                 */
        0xeb, 0xe9,             /*        jmp next                   */
        0xba, 0xf4,       0x00, /* done:  mov dx, 0xf4               */
        0xb0, EXIT_VALUE,       /*        mov al, EXIT_VALUE         */
        0xee,                   /*        out dx, al                 */
        0xf4,                   /* stop:  hlt                        */
        0xeb, 0xfd,             /*        jmp stop                   */
};
_Static_assert(sizeof(code) <= MESSAGE_AT, "the message lies behind the code");

static int write_image(const char *path, struct err **e)
{
        unsigned char sector[SECTOR] = {0};
        _cleanup_close_ int fd = open(path, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
        int r;

        if (fd < 0)
                return err_errno(e, -errno, "create '%s'", path);
        memcpy(sector, code, sizeof(code));
        memcpy(sector + MESSAGE_AT, magic, sizeof(magic));
        sector[510] = 0x55;
        sector[511] = 0xaa;
        r = write_full(fd, sector, sizeof(sector));
        if (r == 0 && ftruncate(fd, IMAGE_SIZE) < 0)
                r = -errno;
        return r < 0 ? err_errno(e, r, "write '%s'", path) : 0;
}

/* 0 booted; -ETIMEDOUT; -EIO with what QEMU said; other failures of child_run(). */
static int boot(const char *image, bool kvm, int timeout_ms, struct err **e)
{
        _cleanup_free_ char *drive = path_printf("file=%s,format=raw,if=virtio,readonly=on", image);
        /* The same machine and disk that guests get. */
        const char *argv[] = {"qemu-system-x86_64",
                              "-no-user-config",
                              "-nodefaults",
                              "-machine",
                              "q35",
                              "-accel",
                              kvm ? "kvm" : "tcg",
                              "-cpu",
                              kvm ? "host" : "max",
                              "-m",
                              "64",
                              "-display",
                              "none",
                              "-monitor",
                              "none",
                              "-no-reboot",
                              "-serial",
                              "stdio",
                              "-device",
                              "isa-debug-exit,iobase=0xf4,iosize=1",
                              "-drive",
                              drive,
                              NULL};
        struct child c = {.argv = argv, .timeout_ms = timeout_ms, .max_output = 64 << 10};
        struct child_result res = {0};
        int r;

        if (!drive)
                return err_errno(e, -ENOMEM, "probe");
        r = child_run(&c, &res, e);
        if (r == 0 && !(strstr(buf_str(&res.out), magic) && WIFEXITED(res.status) &&
                        WEXITSTATUS(res.status) == 2 * EXIT_VALUE + 1)) {
                char *line = res.err.data ? res.err.data : NULL;

                if (line)
                        line[strcspn(line, "\n")] = '\0';
                r = err_set(e, -EIO, "%s", line && *line ? line : "QEMU ended without booting");
        }
        child_result_done(&res);
        return r;
}

static int probe(const char *workdir, bool kvm, int timeout_ms, struct err **e)
{
        _cleanup_free_ char *image = path_printf("%s/probe-%d.img", workdir, (int)getpid());
        int r;

        if (!image)
                return err_errno(e, -ENOMEM, "probe");
        if (strchr(image, ',')) /* QEMU's -drive would split there */
                return err_set(e, -EINVAL, "folder '%s' has a comma in its name", workdir);
        r = write_image(image, e);
        if (r == 0)
                r = boot(image, kvm, timeout_ms, e);
        unlink(image);
        return r;
}

int compute_probe_kvm(const char *workdir, int timeout_ms, bool *ret, struct err **e)
{
        _cleanup_err_ struct err *why = NULL;
        _cleanup_close_ int fd = open("/dev/kvm", O_RDWR | O_CLOEXEC);
        int r;

        *ret = false;
        if (fd < 0)
                return 0; /* not here, or not ours */
        r = probe(workdir, true, timeout_ms, &why);
        *ret = r == 0;
        if (r == 0 || r == -ETIMEDOUT || r == -EIO)
                return 0;
        err_move(e, TAKE_PTR(why));
        return err_prepend(e, r, "probe KVM");
}

int compute_probe_tcg(const char *workdir, int timeout_ms, struct err **e)
{
        int r = probe(workdir, false, timeout_ms, e);

        return r < 0 ? err_prepend(e, r, "boot a test guest") : 0;
}
