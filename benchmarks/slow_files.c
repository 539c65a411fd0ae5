/* Loaded into a process (LD_PRELOAD): each call that looks for a file below $SLOW_FILES takes a millisecond longer.

   That is what a network file system takes for a look-up, a rename or the listing of a folder; reading and writing open
   files costs nothing more here. */
#define _GNU_SOURCE
#include <dirent.h>
#include <dlfcn.h>
#include <fcntl.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

static void wait_for(int at, const char *path) {
    static const char *root;
    if (!root) {
        root = getenv("SLOW_FILES");
        if (!root) root = "/nowhere";
    }
    char folder[4096], link[64];
    if (path && path[0] != '/') { /* relative to an open folder, or to the current one */
        if (at == AT_FDCWD) {
            if (!getcwd(folder, sizeof folder)) return;
        } else {
            snprintf(link, sizeof link, "/proc/self/fd/%d", at);
            ssize_t length = readlink(link, folder, sizeof folder - 1);
            if (length < 0) return;
            folder[length] = 0;
        }
        path = folder;
    }
    if (path && !strncmp(path, root, strlen(root))) {
        struct timespec millisecond = {0, 1000000};
        nanosleep(&millisecond, NULL);
    }
}

#define REAL(name) \
    static __typeof__(&name) real; \
    if (!real) real = (__typeof__(&name))dlsym(RTLD_NEXT, #name);

#define SLOW(result, name, at, path, parameters, arguments) \
    result name parameters { \
        REAL(name) \
        wait_for(at, path); \
        return real arguments; \
    }

SLOW(int, stat, AT_FDCWD, path, (const char *path, struct stat *s), (path, s))
SLOW(int, lstat, AT_FDCWD, path, (const char *path, struct stat *s), (path, s))
SLOW(int, fstatat, at, path, (int at, const char *path, struct stat *s, int flags), (at, path, s, flags))
SLOW(int, stat64, AT_FDCWD, path, (const char *path, struct stat64 *s), (path, s))
SLOW(int, lstat64, AT_FDCWD, path, (const char *path, struct stat64 *s), (path, s))
SLOW(int, fstatat64, at, path, (int at, const char *path, struct stat64 *s, int flags), (at, path, s, flags))
SLOW(int, access, AT_FDCWD, path, (const char *path, int mode), (path, mode))
SLOW(int, rename, AT_FDCWD, to, (const char *from, const char *to), (from, to))
SLOW(int, renameat, at, to, (int from_at, const char *from, int at, const char *to), (from_at, from, at, to))
SLOW(int, unlink, AT_FDCWD, path, (const char *path), (path))
SLOW(int, unlinkat, at, path, (int at, const char *path, int flags), (at, path, flags))
SLOW(int, rmdir, AT_FDCWD, path, (const char *path), (path))
SLOW(int, mkdir, AT_FDCWD, path, (const char *path, mode_t mode), (path, mode))
SLOW(int, mkdirat, at, path, (int at, const char *path, mode_t mode), (at, path, mode))
SLOW(int, link, AT_FDCWD, to, (const char *from, const char *to), (from, to))
SLOW(int, linkat, at, to, (int from_at, const char *from, int at, const char *to, int flags), (from_at, from, at, to, flags))
SLOW(DIR *, opendir, AT_FDCWD, path, (const char *path), (path))

#define SLOW_OPEN(name) \
    int name(const char *path, int flags, ...) { \
        REAL(name) \
        va_list more; \
        va_start(more, flags); \
        mode_t mode = va_arg(more, mode_t); \
        va_end(more); \
        wait_for(AT_FDCWD, path); \
        return real(path, flags, mode); \
    }
SLOW_OPEN(open)
SLOW_OPEN(open64)
