/* A disk that fails on demand and writes down what is done to it. Loaded before libc; see disk.py.
 *
 * DISK_FAULT names a file with one line, "CALL PART ERRNO SKIP TIMES": calls whose path contains PART fail with ERRNO,
 * after SKIP of them went well, TIMES times (-1: for ever). The count begins anew when the line changes.
 * DISK_RECORD names a file that gets a line for each call: CALL INODE OFFSET-OR-MODE LENGTH PATH [TARGET].
 */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/sendfile.h>
#include <sys/stat.h>
#include <sys/uio.h>
#include <sys/xattr.h>
#include <unistd.h>

#define REAL(name) ((__typeof__(&name))dlsym(RTLD_NEXT, #name))

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static char order[512];
static int seen;

static void path_of(int fd, char *out)
{
    char link[64];
    snprintf(link, sizeof link, "/proc/self/fd/%d", fd);
    ssize_t length = readlink(link, out, PATH_MAX - 1);
    out[length > 0 ? length : 0] = 0;
}

/* 1, with errno set: this call is to fail. */
static int fails(const char *call, const char *path)
{
    const char *name = getenv("DISK_FAULT");
    int fd = name ? open(name, O_RDONLY | O_CLOEXEC) : -1, failed = 0;
    if (fd < 0)
        return 0;
    char line[sizeof order] = "", what[32], part[256];
    int number, skip, times;
    ssize_t length = REAL(read)(fd, line, sizeof line - 1);
    close(fd);
    pthread_mutex_lock(&lock);
    if (length > 0 && strcmp(line, order)) {
        strcpy(order, line);
        seen = 0;
    }
    if (length > 0 && sscanf(line, "%31s %255s %d %d %d", what, part, &number, &skip, &times) == 5
        && !strcmp(what, call) && strstr(path, part)) {
        seen++;
        failed = seen > skip && (times < 0 || seen <= skip + times);
    }
    pthread_mutex_unlock(&lock);
    if (failed)
        errno = number;
    return failed;
}

static void note(const char *call, unsigned long inode, long first, long second, const char *path, const char *target)
{
    const char *name = getenv("DISK_RECORD");
    int fd = name ? open(name, O_WRONLY | O_APPEND | O_CREAT | O_CLOEXEC, 0600) : -1, saved = errno;
    if (fd >= 0) {
        dprintf(fd, "%s %lu %ld %ld %s %s\n", call, inode, first, second, path, target);
        close(fd);
    }
    errno = saved;
}

static unsigned long inode_of(int fd)
{
    struct stat facts;
    return fstat(fd, &facts) ? 0 : facts.st_ino;
}

/* A call on a descriptor; `first` and `second` are what it is told. */
#define ON_FD(kind, call, symbol, parameters, arguments, first, second)  \
    kind symbol parameters                                               \
    {                                                                    \
        char path[PATH_MAX];                                             \
        path_of(fd, path);                                               \
        if (fails(call, path))                                           \
            return -1;                                                   \
        kind done = REAL(symbol) arguments;                              \
        if (done >= 0 && strcmp(call, "read") && strcmp(call, "stream")) \
            note(call, inode_of(fd), (long)(first), (long)(second), path, ""); \
        return done;                                                     \
    }

ON_FD(ssize_t, "stream", read, (int fd, void *to, size_t size), (fd, to, size), 0, size)
ON_FD(ssize_t, "read", pread, (int fd, void *to, size_t size, off_t at), (fd, to, size, at), at, size)
ON_FD(ssize_t, "read", pread64, (int fd, void *to, size_t size, off64_t at), (fd, to, size, at), at, size)
ON_FD(ssize_t, "read", preadv2, (int fd, const struct iovec *to, int count, off_t at, int flags),
      (fd, to, count, at, flags), at, count)
ON_FD(ssize_t, "read", preadv64v2, (int fd, const struct iovec *to, int count, off64_t at, int flags),
      (fd, to, count, at, flags), at, count)
ON_FD(ssize_t, "write", pwrite, (int fd, const void *from, size_t size, off_t at), (fd, from, size, at), at, done)
ON_FD(ssize_t, "write", pwrite64, (int fd, const void *from, size_t size, off64_t at), (fd, from, size, at), at, done)
ON_FD(int, "truncate", ftruncate, (int fd, off_t size), (fd, size), size, 0)
ON_FD(int, "truncate", ftruncate64, (int fd, off64_t size), (fd, size), size, 0)
ON_FD(int, "sync", fsync, (int fd), (fd), 0, 0)
ON_FD(int, "sync", fdatasync, (int fd), (fd), 0, 0)
ON_FD(int, "mode", fchmod, (int fd, mode_t mode), (fd, mode), mode, 0)
ON_FD(int, "attribute", fsetxattr, (int fd, const char *name, const void *from, size_t size, int flags),
      (fd, name, from, size, flags), !strcmp(name, "user.replicas"), size)

static ssize_t sent_from(int fd, int out, off_t *at, size_t size)
{
    char path[PATH_MAX];
    path_of(fd, path);
    return fails("send", path) ? -1 : REAL(sendfile)(out, fd, at, size);
}

ssize_t sendfile(int out, int fd, off_t *at, size_t size)
{
    return sent_from(fd, out, at, size);
}

ssize_t sendfile64(int out, int fd, off64_t *at, size_t size)
{
    return sent_from(fd, out, at, size);
}

/* What has no path of its own yet, or none any more. */
static unsigned long inode_at(const char *path)
{
    struct stat facts;
    return lstat(path, &facts) ? 0 : facts.st_ino;
}

int rename(const char *from, const char *to)
{
    unsigned long inode = inode_at(from);
    if (fails("rename", from))
        return -1;
    int done = REAL(rename)(from, to);
    if (!done)
        note("rename", inode, 0, 0, from, to);
    return done;
}

int unlink(const char *path)
{
    unsigned long inode = inode_at(path);
    if (fails("unlink", path))
        return -1;
    int done = REAL(unlink)(path);
    if (!done)
        note("unlink", inode, 0, 0, path, "");
    return done;
}
