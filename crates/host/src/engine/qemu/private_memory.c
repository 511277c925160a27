/*
 * Preloaded into QEMU when it restores a snapshot. QEMU can leave RAM out of its migration stream only when it believes that the RAM is shared
 * with a file, and it opens that file for writing; both would let one MicroVM write into the snapshot that all others start from. So QEMU is told
 * "shared", and this library gives it a private (copy on write) mapping of a descriptor that the daemon opened for reading alone.
 *
 *   EMBERBOX_MEMORY      descriptor of the base: guest RAM from offset 0
 *   EMBERBOX_LAYER       optional descriptor of a suspended MicroVM's own pages, at the same offsets as in the base
 *   EMBERBOX_LAYER_RUNS  optional descriptor of an array of little-endian u64 pairs (offset, length): which parts of the layer hold pages
 *
 * Nothing of the guest reaches this code. It runs once, before the guest does.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <unistd.h>

/* The -object memory-backend-file,mem-path= that stands for EMBERBOX_MEMORY. */
static const char memory_path[] = "/emberbox/memory";
static int memory_fd = -1;

static int descriptor(const char *name) {
    const char *text = getenv(name);
    return text ? atoi(text) : -1;
}

static int open_any(int directory, const char *path, int flags, mode_t mode) {
    if (strcmp(path, memory_path) == 0) {
        memory_fd = (int)syscall(SYS_fcntl, descriptor("EMBERBOX_MEMORY"), F_DUPFD_CLOEXEC, 0);
        return memory_fd;
    }
    return (int)syscall(SYS_openat, directory, path, flags, mode);
}

#define WITH_MODE(flags, mode)                         \
    mode_t mode = 0;                                   \
    if ((flags) & (O_CREAT | __O_TMPFILE)) {           \
        va_list arguments;                             \
        va_start(arguments, flags);                    \
        mode = va_arg(arguments, mode_t);              \
        va_end(arguments);                             \
    }

int open(const char *path, int flags, ...) {
    WITH_MODE(flags, mode)
    return open_any(AT_FDCWD, path, flags, mode);
}

int open64(const char *path, int flags, ...) {
    WITH_MODE(flags, mode)
    return open_any(AT_FDCWD, path, flags | O_LARGEFILE, mode);
}

static void *map(void *address, size_t length, int protection, int flags, int fd, off_t offset) {
    return (void *)syscall(SYS_mmap, address, length, protection, flags, fd, offset);
}

/* Maps each run of the layer over the base. Returns -1 with errno when one cannot be: the machine must not start with half its memory. */
static int map_layer(char *base, size_t length, int protection) {
    int layer = descriptor("EMBERBOX_LAYER"), runs = descriptor("EMBERBOX_LAYER_RUNS");
    uint64_t run[512][2];
    off_t at = 0;
    ssize_t got;
    if (layer < 0)
        return 0;
    while ((got = pread(runs, run, sizeof run, at)) > 0) {
        for (size_t i = 0; i < (size_t)got / sizeof run[0]; i++) {
            uint64_t offset = run[i][0], bytes = run[i][1];
            if (offset > length || bytes > length - offset) {
                errno = ERANGE;
                return -1;
            }
            if (map(base + offset, bytes, protection, MAP_PRIVATE | MAP_NORESERVE | MAP_FIXED, layer, (off_t)offset) == MAP_FAILED)
                return -1;
        }
        at += got;
    }
    return (int)got;
}

static void *map_any(void *address, size_t length, int protection, int flags, int fd, off_t offset) {
    if (fd < 0 || fd != memory_fd || !(flags & MAP_SHARED))
        return map(address, length, protection, flags, fd, offset);
    flags = (flags & ~MAP_SHARED_VALIDATE) | MAP_PRIVATE | MAP_NORESERVE;
    char *base = map(address, length, protection, flags, fd, offset);
    if (base != MAP_FAILED && map_layer(base, length, protection) < 0)
        return MAP_FAILED;
    return base;
}

void *mmap(void *address, size_t length, int protection, int flags, int fd, off_t offset) {
    return map_any(address, length, protection, flags, fd, offset);
}

void *mmap64(void *address, size_t length, int protection, int flags, int fd, off_t offset) {
    return map_any(address, length, protection, flags, fd, offset);
}
