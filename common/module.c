#include "common/module.h"

#include <dlfcn.h>

#include "common/fileio.h"

/* In the build tree a program is in its room's folder, or one or two below. */
static char *find(const char *room, const char *file)
{
        const char *dir = secure_getenv("STRATOFS_MODULES");
        char exe[4096];
        char *path;
        ssize_t n;

        if (dir)
                return path_printf("%s/%s", dir, file);
        n = readlink("/proc/self/exe", exe, sizeof(exe) - 1);
        exe[MAX(n, 0)] = '\0';
        for (int up = 0; up < 3; up++) {
                char *slash = strrchr(exe, '/');

                if (!slash)
                        break;
                *slash = '\0';
                path = path_printf("%s/%s/%s", exe, room, file);
                if (!path || access(path, R_OK) == 0)
                        return path;
                free(path);
        }
        return path_printf("%s/%s", STRATOFS_MODULE_DIR, file);
}

int module_symbol(const char *room, const char *file, const char *symbol, void **ret,
                  struct err **e)
{
        _cleanup_free_ char *path = find(room, file);
        void *module;

        if (!path)
                return err_errno(e, -ENOMEM, "load %s", file);
        module = dlopen(path, RTLD_NOW | RTLD_LOCAL | RTLD_NODELETE);
        if (!module) {
                err_set(e, -ENOTSUP, "load %s: %s", file, dlerror());
                err_hint(e,
                         "install what it needs, or point STRATOFS_MODULES at the modules' folder");
                return -ENOTSUP;
        }
        *ret = dlsym(module, symbol);
        return *ret ? 0 : err_set(e, -ENOTSUP, "load %s: %s", file, dlerror());
}
