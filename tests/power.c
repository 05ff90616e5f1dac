/* What a process does to the files under one directory, in order, as records of a log: tests/power.py reads it.

   Preloaded. KEYWRIGHT_POWER_UNDER names the directory, KEYWRIGHT_POWER_LOG the log, which lies elsewhere. Every call is made
   and recorded under one lock, so that the order of the log is the order of the calls; a sync is recorded and not made,
   since no power is cut really. What is stored into a shared mapping is found by comparing, at each sync and mark. A way
   to change a file that is not recorded ends the process, so that nothing is overlooked. One process, of many threads. */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <unistd.h>

#define FDS 4096
#define FILES 65536
#define MAPS 256
#define PATH 4096
#define PAGE 4096

struct head { uint32_t what, id, a, b; uint64_t at; };

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static const char *under;
static size_t under_length;
static int journal = -1;
static struct { int kind; uint32_t id; char *path; } open_files[FDS]; /* kind: 1 a file, 2 a directory */
static ino_t inodes[FILES]; /* id -> inode; 0 where it is of no use any more */
static uint32_t files = 1;
static struct { char *at, *shadow; size_t length; off_t offset; uint32_t id; } maps[MAPS];

static void record(char what, uint32_t id, uint64_t at, const void *a, size_t a_length, const void *b, size_t b_length)
{
    struct head head = {(uint32_t)what, id, (uint32_t)a_length, (uint32_t)b_length, at};
    struct iovec parts[3] = {{&head, sizeof head}, {(void *)a, a_length}, {(void *)b, b_length}};
    if (syscall(SYS_writev, journal, parts, 3) != (long)(sizeof head + a_length + b_length))
        abort();
}

static void named(char what, uint32_t id, const char *path) { record(what, id, 0, path, strlen(path), 0, 0); }

__attribute__((constructor)) static void begin(void)
{
    under = getenv("KEYWRIGHT_POWER_UNDER");
    const char *log = getenv("KEYWRIGHT_POWER_LOG");
    if (!under || !log)
        return;
    under_length = strlen(under);
    int low = syscall(SYS_openat, AT_FDCWD, log, O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0600);
    journal = fcntl(low, F_DUPFD_CLOEXEC, 900);
    syscall(SYS_close, low);
    if (journal < 0)
        abort();
}

/* The whole path, where it lies under the directory. */
static int watched(int directory, const char *path, char *whole)
{
    if (journal < 0 || !path)
        return 0;
    if (path[0] == '/')
        snprintf(whole, PATH, "%s", path);
    else {
        char link[64];
        snprintf(link, sizeof link, directory == AT_FDCWD ? "/proc/self/cwd" : "/proc/self/fd/%d", directory);
        ssize_t n = readlink(link, whole, PATH - 1);
        if (n < 0)
            return 0;
        snprintf(whole + n, PATH - n, "/%s", path);
    }
    return !strncmp(whole, under, under_length) && (whole[under_length] == '/' || !whole[under_length]);
}

static uint32_t id_of(ino_t inode)
{
    for (uint32_t id = files - 1; id; id--)
        if (inodes[id] == inode)
            return id;
    return 0;
}

static uint32_t new_id(ino_t inode)
{
    uint32_t former = id_of(inode);
    if (former)
        inodes[former] = 0;
    if (files == FILES)
        abort();
    inodes[files] = inode;
    return files++;
}

static int file(int fd) { return fd >= 0 && fd < FDS && open_files[fd].kind == 1; }

/* What was stored into mappings since it was last compared. */
static void compare(void)
{
    for (int n = 0; n < MAPS; n++)
        for (size_t at = 0; maps[n].at && at < maps[n].length; at += PAGE) {
            size_t size = maps[n].length - at < PAGE ? maps[n].length - at : PAGE;
            if (memcmp(maps[n].at + at, maps[n].shadow + at, size)) {
                memcpy(maps[n].shadow + at, maps[n].at + at, size);
                record('P', maps[n].id, maps[n].offset + at, maps[n].shadow + at, size, 0, 0);
            }
        }
}

/* For the child: say what was acknowledged. */
void power_mark(const char *said, size_t length)
{
    if (journal < 0)
        return;
    pthread_mutex_lock(&lock);
    compare();
    record('A', 0, 0, said, length, 0, 0);
    pthread_mutex_unlock(&lock);
}

static int opening(int directory, const char *path, int flags, mode_t mode)
{
    char whole[PATH];
    if (!watched(directory, path, whole))
        return syscall(SYS_openat, directory, path, flags, mode);
    pthread_mutex_lock(&lock);
    struct stat found;
    int there = !stat(whole, &found);
    int fd = syscall(SYS_openat, directory, path, flags, mode), why = errno;
    if (fd >= FDS || (flags & O_TMPFILE) == O_TMPFILE)
        abort();
    if (fd >= 0 && !fstat(fd, &found)) {
        open_files[fd].kind = S_ISDIR(found.st_mode) ? 2 : S_ISREG(found.st_mode);
        if (S_ISDIR(found.st_mode))
            open_files[fd].path = strdup(whole);
        else if (S_ISREG(found.st_mode)) {
            uint32_t id = there ? id_of(found.st_ino) : 0;
            if (!id)
                named(there ? 'K' : 'N', id = new_id(found.st_ino), whole);
            open_files[fd].id = id;
            if (there && flags & O_TRUNC)
                record('T', id, 0, 0, 0, 0, 0);
        }
    }
    pthread_mutex_unlock(&lock);
    errno = why;
    return fd;
}

#define MODE mode_t mode = 0; if (flags & (O_CREAT | O_TMPFILE)) { va_list more; va_start(more, flags); mode = va_arg(more, mode_t); va_end(more); }
int open(const char *path, int flags, ...) { MODE return opening(AT_FDCWD, path, flags, mode); }
int open64(const char *path, int flags, ...) { MODE return opening(AT_FDCWD, path, flags, mode); }
int openat(int directory, const char *path, int flags, ...) { MODE return opening(directory, path, flags, mode); }
int openat64(int directory, const char *path, int flags, ...) { MODE return opening(directory, path, flags, mode); }
int __open_2(const char *path, int flags) { return opening(AT_FDCWD, path, flags, 0); }
int __open64_2(const char *path, int flags) { return opening(AT_FDCWD, path, flags, 0); }
int creat(const char *path, mode_t mode) { return opening(AT_FDCWD, path, O_WRONLY | O_CREAT | O_TRUNC, mode); }

int close(int fd)
{
    if (fd < 0 || fd >= FDS || !open_files[fd].kind)
        return syscall(SYS_close, fd);
    pthread_mutex_lock(&lock);
    free(open_files[fd].path);
    memset(&open_files[fd], 0, sizeof open_files[fd]);
    int done = syscall(SYS_close, fd);
    pthread_mutex_unlock(&lock);
    return done;
}

static ssize_t writing(int fd, const void *content, size_t length, off_t at, int here)
{
    if (!file(fd))
        return here ? syscall(SYS_write, fd, content, length) : syscall(SYS_pwrite64, fd, content, length, at);
    pthread_mutex_lock(&lock);
    struct stat found;
    if (here && fcntl(fd, F_GETFL) & O_APPEND && !fstat(fd, &found))
        at = found.st_size;
    else if (here)
        at = lseek(fd, 0, SEEK_CUR);
    ssize_t done = here ? syscall(SYS_write, fd, content, length) : syscall(SYS_pwrite64, fd, content, length, at);
    int why = errno;
    if (done > 0)
        record('W', open_files[fd].id, at, content, done, 0, 0);
    pthread_mutex_unlock(&lock);
    errno = why;
    return done;
}

ssize_t write(int fd, const void *content, size_t length) { return writing(fd, content, length, 0, 1); }
ssize_t pwrite(int fd, const void *content, size_t length, off_t at) { return writing(fd, content, length, at, 0); }
ssize_t pwrite64(int fd, const void *content, size_t length, off64_t at) { return writing(fd, content, length, at, 0); }

static int cutting(int fd, off_t size)
{
    if (!file(fd))
        return syscall(SYS_ftruncate, fd, size);
    pthread_mutex_lock(&lock);
    int done = syscall(SYS_ftruncate, fd, size), why = errno;
    if (!done)
        record('T', open_files[fd].id, size, 0, 0, 0, 0);
    pthread_mutex_unlock(&lock);
    errno = why;
    return done;
}

int ftruncate(int fd, off_t size) { return cutting(fd, size); }
int ftruncate64(int fd, off64_t size) { return cutting(fd, size); }

static int syncing(int fd, long call)
{
    if (fd < 0 || fd >= FDS || !open_files[fd].kind)
        return syscall(call, fd);
    pthread_mutex_lock(&lock);
    compare();
    if (open_files[fd].kind == 2)
        named('D', 0, open_files[fd].path);
    else
        record('S', open_files[fd].id, 0, 0, 0, 0, 0);
    pthread_mutex_unlock(&lock);
    return 0;
}

int fsync(int fd) { return syncing(fd, SYS_fsync); }
int fdatasync(int fd) { return syncing(fd, SYS_fdatasync); }

static int pair(char what, int from, const char *old, int to, const char *new, long call, int flags)
{
    char a[PATH], b[PATH];
    int one = watched(from, old, a), other = watched(to, new, b);
    if (one != other)
        abort();
    pthread_mutex_lock(&lock);
    int done = syscall(call, from, old, to, new, flags), why = errno;
    if (!done && one)
        record(what, 0, 0, a, strlen(a), b, strlen(b));
    pthread_mutex_unlock(&lock);
    errno = why;
    return done;
}

int rename(const char *old, const char *new) { return pair('R', AT_FDCWD, old, AT_FDCWD, new, SYS_renameat2, 0); }
int renameat(int from, const char *old, int to, const char *new) { return pair('R', from, old, to, new, SYS_renameat2, 0); }
int link(const char *old, const char *new) { return pair('L', AT_FDCWD, old, AT_FDCWD, new, SYS_linkat, 0); }
int linkat(int from, const char *old, int to, const char *new, int flags) { return pair('L', from, old, to, new, SYS_linkat, flags); }

static int single(char what, int directory, const char *path, long call, long more)
{
    char whole[PATH];
    int ours = watched(directory, path, whole);
    pthread_mutex_lock(&lock);
    struct stat found;
    uint32_t id = ours && what == 'U' && !lstat(whole, &found) && found.st_nlink == 1 ? id_of(found.st_ino) : 0;
    int done = syscall(call, directory, path, more), why = errno;
    if (!done && ours)
        named(what, 0, whole);
    if (!done && id) /* its inode may be another file's next */
        inodes[id] = 0;
    pthread_mutex_unlock(&lock);
    errno = why;
    return done;
}

int unlink(const char *path) { return single('U', AT_FDCWD, path, SYS_unlinkat, 0); }
int unlinkat(int directory, const char *path, int flags)
{
    return single(flags & AT_REMOVEDIR ? 'X' : 'U', directory, path, SYS_unlinkat, flags);
}
int rmdir(const char *path) { return single('X', AT_FDCWD, path, SYS_unlinkat, AT_REMOVEDIR); }
int mkdir(const char *path, mode_t mode) { return single('M', AT_FDCWD, path, SYS_mkdirat, mode); }
int mkdirat(int directory, const char *path, mode_t mode) { return single('M', directory, path, SYS_mkdirat, mode); }

void *mmap(void *where, size_t length, int protection, int flags, int fd, off_t offset)
{
    if (!file(fd) || !(flags & MAP_SHARED) || !(protection & PROT_WRITE))
        return (void *)syscall(SYS_mmap, where, length, protection, flags, fd, offset);
    pthread_mutex_lock(&lock);
    char *at = (char *)syscall(SYS_mmap, where, length, protection, flags, fd, offset);
    int n = 0;
    while (n < MAPS && maps[n].at)
        n++;
    if (n == MAPS)
        abort();
    if (at != MAP_FAILED) {
        maps[n].shadow = malloc(length);
        memcpy(maps[n].shadow, at, length);
        maps[n].length = length, maps[n].offset = offset, maps[n].id = open_files[fd].id;
        maps[n].at = at;
    }
    pthread_mutex_unlock(&lock);
    return at;
}
void *mmap64(void *where, size_t length, int protection, int flags, int fd, off64_t offset)
{
    return mmap(where, length, protection, flags, fd, offset);
}

int munmap(void *where, size_t length)
{
    if (journal < 0)
        return syscall(SYS_munmap, where, length);
    pthread_mutex_lock(&lock);
    for (int n = 0; n < MAPS; n++)
        if (maps[n].at == where) {
            compare();
            free(maps[n].shadow);
            maps[n].at = 0;
        }
    int done = syscall(SYS_munmap, where, length);
    pthread_mutex_unlock(&lock);
    return done;
}

#define NEVER(fd) if (file(fd)) abort();
ssize_t writev(int fd, const struct iovec *parts, int many) { NEVER(fd) return syscall(SYS_writev, fd, parts, many); }
ssize_t sendfile(int to, int from, off_t *at, size_t many) { NEVER(to) return syscall(SYS_sendfile, to, from, at, many); }
ssize_t sendfile64(int to, int from, off64_t *at, size_t many) { NEVER(to) return syscall(SYS_sendfile, to, from, at, many); }
int posix_fallocate(int fd, off_t at, off_t length) { (void)at; (void)length; NEVER(fd) return EOPNOTSUPP; }
int posix_fallocate64(int fd, off64_t at, off64_t length) { (void)at; (void)length; NEVER(fd) return EOPNOTSUPP; }
ssize_t copy_file_range(int from, off64_t *a, int to, off64_t *b, size_t many, unsigned flags)
{
    NEVER(to) return syscall(SYS_copy_file_range, from, a, to, b, many, flags);
}
