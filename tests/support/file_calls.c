/* Tells what a process does to the files below a folder, or kills it in the middle.
 *
 * Loaded with LD_PRELOAD. FILES_BELOW is the folder. If FILES_LOG is set, each call is appended to
 * that file once it has succeeded: "CALL OFFSET SIZE PATH\n", then SIZE bytes (the data of a write,
 * the new path of a rename), then a line feed. After kill_at(n), the n-th call from then on is not
 * made: the process is killed instead.
 */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <fcntl.h>
#include <signal.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/types.h>
#include <sys/uio.h>
#include <unistd.h>

static atomic_long left;

void kill_at(long count) { atomic_store(&left, count); }

static const char *below(const char *path)
{
    const char *folder = getenv("FILES_BELOW");
    return folder && !strncmp(path, folder, strlen(folder)) ? path : NULL;
}

static const char *path_of(int descriptor, char *path, size_t size)
{
    char link[64];
    snprintf(link, sizeof link, "/proc/self/fd/%d", descriptor);
    ssize_t length = readlink(link, path, size - 1);
    if (length < 0)
        return NULL;
    path[length] = 0;
    return strstr(path, " (deleted)") ? NULL : below(path);
}

static void about_to(const char *path)
{
    if (path && atomic_load(&left) > 0 && atomic_fetch_sub(&left, 1) == 1)
        kill(getpid(), SIGKILL);
}

static void tell(const char *call, long long offset, const void *data, size_t size, const char *path)
{
    static int file = -1;
    const char *name = getenv("FILES_LOG");
    if (!name || !path)
        return;
    if (file < 0)
        file = open(name, O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0600);
    char head[4300];
    int length = snprintf(head, sizeof head, "%s %lld %zu %s\n", call, offset, size, path);
    struct iovec parts[] = {{head, length}, {(void *)data, size}, {"\n", 1}};
    /* In one piece: others may be telling something too. */
    if (writev(file, parts, 3) != (ssize_t)(length + size + 1))
        abort();
}

#define REAL(result, name, ...) static result (*real)(__VA_ARGS__); if (!real) real = dlsym(RTLD_NEXT, name)
#define OF_DESCRIPTOR char buffer[4096]; const char *path = path_of(descriptor, buffer, sizeof buffer); about_to(path)

#define WRITES_AT(name, type) \
    ssize_t name(int descriptor, const void *data, size_t size, type offset) \
    { \
        REAL(ssize_t, #name, int, const void *, size_t, type); \
        OF_DESCRIPTOR; \
        ssize_t done = real(descriptor, data, size, offset); \
        if (done > 0) \
            tell("write", offset, data, done, path); \
        return done; \
    }
WRITES_AT(pwrite, off_t)
WRITES_AT(pwrite64, off64_t)

ssize_t write(int descriptor, const void *data, size_t size)
{
    REAL(ssize_t, "write", int, const void *, size_t);
    OF_DESCRIPTOR;
    off_t offset = path ? lseek(descriptor, 0, SEEK_CUR) : 0;
    ssize_t done = real(descriptor, data, size);
    if (done > 0)
        tell("write", offset, data, done, path);
    return done;
}

#define TRUNCATES(name, type) \
    int name(int descriptor, type size) \
    { \
        REAL(int, #name, int, type); \
        OF_DESCRIPTOR; \
        int done = real(descriptor, size); \
        if (!done) \
            tell("truncate", size, "", 0, path); \
        return done; \
    }
TRUNCATES(ftruncate, off_t)
TRUNCATES(ftruncate64, off64_t)

#define SYNCS(name) \
    int name(int descriptor) \
    { \
        REAL(int, #name, int); \
        OF_DESCRIPTOR; \
        int done = real(descriptor); \
        if (!done) \
            tell("sync", 0, "", 0, path); \
        return done; \
    }
SYNCS(fsync)
SYNCS(fdatasync)

#define OPENS(name) \
    int name(const char *called, int flags, ...) \
    { \
        REAL(int, #name, const char *, int, ...); \
        va_list more; \
        va_start(more, flags); \
        mode_t mode = va_arg(more, mode_t); \
        va_end(more); \
        const char *path = flags & O_CREAT ? below(called) : NULL; \
        int is_new = path && access(called, F_OK); \
        if (is_new) \
            about_to(path); \
        int done = real(called, flags, mode); \
        if (done >= 0 && is_new) \
            tell("create", 0, "", 0, path); \
        return done; \
    }
OPENS(open)
OPENS(open64)

int rename(const char *from, const char *to)
{
    REAL(int, "rename", const char *, const char *);
    about_to(below(from));
    int done = real(from, to);
    if (!done)
        tell("rename", 0, to, strlen(to), below(from));
    return done;
}

int unlink(const char *called)
{
    REAL(int, "unlink", const char *);
    about_to(below(called));
    int done = real(called);
    if (!done)
        tell("unlink", 0, "", 0, below(called));
    return done;
}

int mkdir(const char *called, mode_t mode)
{
    REAL(int, "mkdir", const char *, mode_t);
    about_to(below(called));
    int done = real(called, mode);
    if (!done)
        tell("mkdir", 0, "", 0, below(called));
    return done;
}
