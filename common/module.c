#include "common/module.h"

#include <dlfcn.h>

#include "common/fileio.h"

static char *find_module(const char *room, const char *file)
{
        const char *dir = secure_getenv("STRATOFS_MODULES");
        char exe[4096];
        char *path;
        ssize_t n;

        if (dir)
                return path_printf("%s/%s", dir, file);
        n = readlink("/proc/self/exe", exe, sizeof(exe) - 1);
        exe[MAX(n, 0)] = '\0';
        for (int up = 0; up < 4; up++) {
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

int module_load(const char *room, const char *file, const char *entry, const char *what,
                void *ret_function, struct err **e)
{
        _cleanup_free_ char *path = find_module(room, file);
        void *module, *function;

        if (!path)
                return err_errno(e, -ENOMEM, "load %s driver", what);
        module = dlopen(path, RTLD_NOW | RTLD_LOCAL | RTLD_NODELETE);
        if (!module) {
                err_set(e, -ENOTSUP, "load %s driver: %s", what, dlerror());
                err_hint(e, -ENOTSUP,
                         "install %s, or point STRATOFS_MODULES at the modules' folder", what);
                return -ENOTSUP;
        }
        function = dlsym(module, entry);
        if (!function)
                return err_set(e, -ENOTSUP, "load %s driver: %s", what, dlerror());
        memcpy(ret_function, &function, sizeof(function));
        return 0;
}
