/* Makes chosen system calls fail, for tests: preloaded into a process (LD_PRELOAD), steered through shared memory.
 *
 * FAULT_CONTROL names a file that holds a `struct control`. The test writes there which calls are to fail, and reads how
 * many there were; all processes that map the file count together. Only calls about files under given folders count,
 * and new threads where there is such a folder.
 */
#define _GNU_SOURCE
#undef _FORTIFY_SOURCE
#include <dirent.h>
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <pthread.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/mman.h>
#include <sys/sendfile.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/time.h>
#include <sys/uio.h>
#include <time.h>
#include <unistd.h>

enum { FOLDERS = 4, NAME = 512 };
enum kind { OPEN, READ, WRITE, FSYNC, RENAME, MKDIR, MMAP, UNLINK, LOCK, STAT, LIST, TRUNCATE, CLOSE, THREAD, KINDS };
static const char *const names[KINDS] = {"open", "read", "write",  "fsync", "rename",   "mkdir", "mmap",
                                         "unlink", "lock", "stat", "list",  "truncate", "close",
                                         "thread"};
enum { SHORT = -1 }; /* in place of an errno: less is read or written than was asked for */

struct control {
    int64_t mask;           /* bit k: calls of kind k fail */
    int64_t at;             /* the how-manieth of these, from 1; 0: none */
    int64_t error;          /* errno, or SHORT */
    int64_t sticky;         /* whether all after it fail, too */
    int64_t clock_ns;       /* added to the clock of the day */
    int64_t matching;       /* calls of the kinds in mask */
    int64_t injected;       /* that failed */
    int64_t counts[KINDS];  /* all calls, by kind */
    char folders[FOLDERS][NAME];
    char what[NAME];        /* the first that failed: its kind and its path */
};

static struct control *control;

__attribute__((constructor)) static void map_control(void) {
    const char *file = getenv("FAULT_CONTROL");
    int descriptor = file ? (int)syscall(SYS_openat, AT_FDCWD, file, O_RDWR | O_CLOEXEC, 0) : -1;
    if (descriptor < 0) return;
    void *(*map)(void *, size_t, int, int, int, off_t) = dlsym(RTLD_NEXT, "mmap");
    void *found = map(NULL, sizeof *control, PROT_READ | PROT_WRITE, MAP_SHARED, descriptor, 0);
    if (found != MAP_FAILED) control = found;
    syscall(SYS_close, descriptor);
}

static int is_under(const char *path) {
    for (int i = 0; i < FOLDERS; i++) {
        size_t length = strlen(control->folders[i]);
        if (length && !strncmp(path, control->folders[i], length) && (!path[length] || path[length] == '/')) return 1;
    }
    return 0;
}

static void name_descriptor(int descriptor, char *path) {
    char link[64];
    snprintf(link, sizeof link, "/proc/self/fd/%d", descriptor);
    ssize_t length = readlink(link, path, PATH_MAX - 1);
    path[length < 0 ? 0 : length] = 0;
}

/* Whether this call is to fail; errno is set then, unless it is to be short (2). */
static int fails(enum kind kind, const char *path) {
    if (!control || !is_under(path)) return 0;
    __atomic_add_fetch(&control->counts[kind], 1, __ATOMIC_SEQ_CST);
    if (!(control->mask >> kind & 1)) return 0;
    int64_t number = __atomic_add_fetch(&control->matching, 1, __ATOMIC_SEQ_CST);
    if (!control->at || number < control->at || (number > control->at && !control->sticky)) return 0;
    if (!__atomic_fetch_add(&control->injected, 1, __ATOMIC_SEQ_CST))
        snprintf(control->what, NAME, "%s %s", names[kind], path);
    if (control->error == SHORT) return 2;
    errno = (int)control->error;
    return 1;
}

static int fails_at(enum kind kind, int folder, const char *path) {
    char whole[2 * PATH_MAX];
    int saved = errno;
    if (!control || !path) return 0;
    if (path[0] == '/') {
        snprintf(whole, sizeof whole, "%s", path);
    } else {
        char start[PATH_MAX];
        if (folder != AT_FDCWD) name_descriptor(folder, start);
        else if (!getcwd(start, sizeof start)) start[0] = 0;
        snprintf(whole, sizeof whole, path[0] ? "%s/%s" : "%s", start, path);
    }
    errno = saved;
    return fails(kind, whole);
}

static int fails_on(enum kind kind, int descriptor) {
    char path[PATH_MAX];
    int saved = errno;
    if (!control || descriptor < 0) return 0;
    name_descriptor(descriptor, path);
    errno = saved;
    return fails(kind, path);
}

static size_t shorten(int how, size_t size) { return how == 2 && size > 1 ? size / 2 : size; }

#define REAL(type, name, ...)                   \
    static type (*real)(__VA_ARGS__);           \
    if (!real) real = dlsym(RTLD_NEXT, name)

#define OPENER(name)                                              \
    int name(const char *path, int flags, ...) {                  \
        va_list more;                                             \
        va_start(more, flags);                                    \
        mode_t mode = va_arg(more, mode_t);                       \
        va_end(more);                                             \
        REAL(int, #name, const char *, int, ...);                 \
        if (fails_at(OPEN, AT_FDCWD, path) == 1) return -1;       \
        return real(path, flags, mode);                           \
    }
OPENER(open)
OPENER(open64)

#define OPENER_AT(name)                                           \
    int name(int folder, const char *path, int flags, ...) {      \
        va_list more;                                             \
        va_start(more, flags);                                    \
        mode_t mode = va_arg(more, mode_t);                       \
        va_end(more);                                             \
        REAL(int, #name, int, const char *, int, ...);            \
        if (fails_at(OPEN, folder, path) == 1) return -1;         \
        return real(folder, path, flags, mode);                   \
    }
OPENER_AT(openat)
OPENER_AT(openat64)

#define STREAM(name)                                              \
    FILE *name(const char *path, const char *mode) {              \
        REAL(FILE *, #name, const char *, const char *);          \
        if (fails_at(OPEN, AT_FDCWD, path) == 1) return NULL;     \
        return real(path, mode);                                  \
    }
STREAM(fopen)
STREAM(fopen64)

#define MOVER(type, name, kind, memory)                                          \
    type name(int descriptor, memory buffer, size_t size) {                      \
        REAL(type, #name, int, memory, size_t);                                  \
        int how = fails_on(kind, descriptor);                                    \
        return how == 1 ? -1 : real(descriptor, buffer, shorten(how, size));     \
    }
MOVER(ssize_t, read, READ, void *)
MOVER(ssize_t, write, WRITE, const void *)

#define MOVER_AT(name, kind, memory)                                                     \
    ssize_t name(int descriptor, memory buffer, size_t size, off_t place) {              \
        REAL(ssize_t, #name, int, memory, size_t, off_t);                                \
        int how = fails_on(kind, descriptor);                                            \
        return how == 1 ? -1 : real(descriptor, buffer, shorten(how, size), place);      \
    }
MOVER_AT(pread, READ, void *)
MOVER_AT(pread64, READ, void *)
MOVER_AT(pwrite, WRITE, const void *)
MOVER_AT(pwrite64, WRITE, const void *)

#define VECTOR(name, kind)                                                       \
    ssize_t name(int descriptor, const struct iovec *parts, int count) {         \
        REAL(ssize_t, #name, int, const struct iovec *, int);                    \
        int how = fails_on(kind, descriptor);                                    \
        return how == 1 ? -1 : real(descriptor, parts, how == 2 ? 1 : count);    \
    }
VECTOR(readv, READ)
VECTOR(writev, WRITE)

#define SENDER(name, offset)                                                                     \
    ssize_t name(int to, int from, offset *place, size_t size) {                                 \
        REAL(ssize_t, #name, int, int, offset *, size_t);                                        \
        int how = fails_on(WRITE, to);                                                           \
        return how == 1 ? -1 : real(to, from, place, shorten(how, size));                        \
    }
SENDER(sendfile, off_t)
SENDER(sendfile64, off64_t)

/* What a sweep writes need not survive a power cut, so nothing waits for the disk. */
int fsync(int descriptor) { return fails_on(FSYNC, descriptor) == 1 ? -1 : 0; }
int fdatasync(int descriptor) { return fails_on(FSYNC, descriptor) == 1 ? -1 : 0; }

int close(int descriptor) { /* the descriptor is gone also where the file system reports an error */
    REAL(int, "close", int);
    int how = fails_on(CLOSE, descriptor), saved = errno, ended = real(descriptor);
    if (how != 1) return ended;
    errno = saved;
    return -1;
}

int rename(const char *from, const char *to) {
    REAL(int, "rename", const char *, const char *);
    return fails_at(RENAME, AT_FDCWD, to) == 1 ? -1 : real(from, to);
}
int renameat(int a, const char *from, int b, const char *to) {
    REAL(int, "renameat", int, const char *, int, const char *);
    return fails_at(RENAME, b, to) == 1 ? -1 : real(a, from, b, to);
}
int mkdir(const char *path, mode_t mode) {
    REAL(int, "mkdir", const char *, mode_t);
    return fails_at(MKDIR, AT_FDCWD, path) == 1 ? -1 : real(path, mode);
}
int mkdirat(int folder, const char *path, mode_t mode) {
    REAL(int, "mkdirat", int, const char *, mode_t);
    return fails_at(MKDIR, folder, path) == 1 ? -1 : real(folder, path, mode);
}
int unlink(const char *path) {
    REAL(int, "unlink", const char *);
    return fails_at(UNLINK, AT_FDCWD, path) == 1 ? -1 : real(path);
}
int unlinkat(int folder, const char *path, int flags) {
    REAL(int, "unlinkat", int, const char *, int);
    return fails_at(UNLINK, folder, path) == 1 ? -1 : real(folder, path, flags);
}
int rmdir(const char *path) {
    REAL(int, "rmdir", const char *);
    return fails_at(UNLINK, AT_FDCWD, path) == 1 ? -1 : real(path);
}

#define MAPPER(name)                                                                             \
    void *name(void *start, size_t size, int access, int flags, int descriptor, off_t place) {   \
        REAL(void *, #name, void *, size_t, int, int, int, off_t);                               \
        if (descriptor >= 0 && fails_on(MMAP, descriptor) == 1) return MAP_FAILED;               \
        return real(start, size, access, flags, descriptor, place);                              \
    }
MAPPER(mmap)
MAPPER(mmap64)

int flock(int descriptor, int operation) {
    REAL(int, "flock", int, int);
    return fails_on(LOCK, descriptor) == 1 ? -1 : real(descriptor, operation);
}

#define CONTROLLER(name)                                                                         \
    int name(int descriptor, int command, ...) {                                                 \
        va_list more;                                                                            \
        va_start(more, command);                                                                 \
        void *argument = va_arg(more, void *);                                                   \
        va_end(more);                                                                            \
        REAL(int, #name, int, int, ...);                                                         \
        int locks = command == F_SETLK || command == F_SETLKW || command == F_GETLK;             \
        return locks && fails_on(LOCK, descriptor) == 1 ? -1 : real(descriptor, command, argument); \
    }
CONTROLLER(fcntl)
CONTROLLER(fcntl64)

#define ASKER(name, facts)                                                       \
    int name(const char *path, struct facts *found) {                            \
        REAL(int, #name, const char *, struct facts *);                          \
        return fails_at(STAT, AT_FDCWD, path) == 1 ? -1 : real(path, found);     \
    }
ASKER(stat, stat)
ASKER(stat64, stat64)
ASKER(lstat, stat)
ASKER(lstat64, stat64)

#define DESCRIPTOR_ASKER(name, facts)                                            \
    int name(int descriptor, struct facts *found) {                              \
        REAL(int, #name, int, struct facts *);                                   \
        return fails_on(STAT, descriptor) == 1 ? -1 : real(descriptor, found);   \
    }
DESCRIPTOR_ASKER(fstat, stat)
DESCRIPTOR_ASKER(fstat64, stat64)

#define FOLDER_ASKER(name, facts)                                                        \
    int name(int folder, const char *path, struct facts *found, int flags) {             \
        REAL(int, #name, int, const char *, struct facts *, int);                        \
        return fails_at(STAT, folder, path) == 1 ? -1 : real(folder, path, found, flags); \
    }
FOLDER_ASKER(fstatat, stat)
FOLDER_ASKER(fstatat64, stat64)

DIR *opendir(const char *path) {
    REAL(DIR *, "opendir", const char *);
    return fails_at(LIST, AT_FDCWD, path) == 1 ? NULL : real(path);
}
DIR *fdopendir(int descriptor) {
    REAL(DIR *, "fdopendir", int);
    return fails_on(LIST, descriptor) == 1 ? NULL : real(descriptor);
}

#define LISTER(name, entry)                                                      \
    struct entry *name(DIR *folder) {                                            \
        REAL(struct entry *, #name, DIR *);                                      \
        return fails_on(LIST, dirfd(folder)) == 1 ? NULL : real(folder);         \
    }
LISTER(readdir, dirent)
LISTER(readdir64, dirent64)

#define TRUNCATER(name)                                                          \
    int name(int descriptor, off_t size) {                                       \
        REAL(int, #name, int, off_t);                                            \
        return fails_on(TRUNCATE, descriptor) == 1 ? -1 : real(descriptor, size); \
    }
TRUNCATER(ftruncate)
TRUNCATER(ftruncate64)

int pthread_create(pthread_t *thread, const pthread_attr_t *how, void *(*what)(void *), void *with) {
    REAL(int, "pthread_create", pthread_t *, const pthread_attr_t *, void *(*)(void *), void *);
    return control && fails(THREAD, control->folders[0]) == 1 ? errno : real(thread, how, what, with);
}

static void shift(struct timespec *now) {
    int64_t added = control ? control->clock_ns : 0;
    now->tv_sec += added / 1000000000;
}
int clock_gettime(clockid_t clock, struct timespec *now) {
    REAL(int, "clock_gettime", clockid_t, struct timespec *);
    int ended = real(clock, now);
    if (!ended && clock == CLOCK_REALTIME) shift(now);
    return ended;
}
time_t time(time_t *into) {
    struct timespec now;
    clock_gettime(CLOCK_REALTIME, &now);
    if (into) *into = now.tv_sec;
    return now.tv_sec;
}
