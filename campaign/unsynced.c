/* Remembers what a process wrote to some of its files and has not synced yet, with what stood there before: preloaded,
   it stands before the C library's write, pwrite, fsync and fdatasync. For each file whose path ends like one of
   UNSYNCED_FILES (separated by colons), UNSYNCED_FOLDER holds a file of the same name: records of offset, length,
   length of what was overwritten (three 64-bit numbers) and those old bytes. A sync empties it. */

#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

enum { PATH_MAX_BYTES = 4096, PIECE_BYTES = 65536 };

static pthread_mutex_t one_at_a_time = PTHREAD_MUTEX_INITIALIZER;

static int is_watched(const char *path) {
    const char *ending = getenv("UNSYNCED_FILES");
    size_t path_length = strlen(path);
    while (ending && *ending) {
        size_t length = strcspn(ending, ":");
        if (length && length <= path_length && !strncmp(path + path_length - length, ending, length)) {
            return 1;
        }
        ending += length + (ending[length] == ':');
    }
    return 0;
}

/* The record of a watched file, opened; -1 for all others. */
static int record_of(int file) {
    char link[64], path[PATH_MAX_BYTES], record[2 * PATH_MAX_BYTES];
    const char *folder = getenv("UNSYNCED_FOLDER");
    snprintf(link, sizeof link, "/proc/self/fd/%d", file);
    ssize_t length = folder ? readlink(link, path, sizeof path - 1) : -1;
    if (length <= 0) {
        return -1;
    }
    path[length] = 0;
    const char *name = strrchr(path, '/');
    if (!name || !is_watched(path)) {
        return -1;
    }
    snprintf(record, sizeof record, "%s%s", folder, name);
    return open(record, O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0666);
}

static void remember(int record, int file, int64_t offset, int64_t length) {
    static char piece[PIECE_BYTES];
    struct stat state;
    int64_t old = fstat(file, &state) ? 0 : state.st_size - offset;
    old = old < 0 ? 0 : old > length ? length : old;
    /* Whoever appends may not read: its file is opened once more. */
    char link[64];
    snprintf(link, sizeof link, "/proc/self/fd/%d", file);
    int reading = old ? open(link, O_RDONLY | O_CLOEXEC) : -1;
    int64_t head[3] = {offset, length, reading < 0 ? 0 : old};
    syscall(SYS_write, record, head, sizeof head);
    for (int64_t done = 0; done < head[2];) {
        int64_t wanted = head[2] - done < PIECE_BYTES ? head[2] - done : PIECE_BYTES;
        ssize_t got = pread(reading, piece, wanted, offset + done);
        if (got <= 0) {
            break;
        }
        syscall(SYS_write, record, piece, got);
        done += got;
    }
    if (reading >= 0) {
        close(reading);
    }
}

static ssize_t written(int file, const void *data, size_t length, int64_t offset) {
    int record = record_of(file);
    if (record < 0) {
        return offset < 0 ? syscall(SYS_write, file, data, length) : syscall(SYS_pwrite64, file, data, length, offset);
    }
    pthread_mutex_lock(&one_at_a_time);
    struct stat state;
    int appends = offset < 0 && (fcntl(file, F_GETFL) & O_APPEND) && !fstat(file, &state);
    remember(record, file, offset >= 0 ? offset : appends ? state.st_size : lseek(file, 0, SEEK_CUR), length);
    ssize_t done =
        offset < 0 ? syscall(SYS_write, file, data, length) : syscall(SYS_pwrite64, file, data, length, offset);
    int kept = errno;
    close(record);
    pthread_mutex_unlock(&one_at_a_time);
    errno = kept;
    return done;
}

static int synced(int file, long call) {
    int record = record_of(file);
    if (record < 0) {
        return (int)syscall(call, file);
    }
    pthread_mutex_lock(&one_at_a_time);
    int failed = (int)syscall(call, file);
    int kept = errno;
    if (!failed && ftruncate(record, 0)) {
        failed = -1;
    }
    close(record);
    pthread_mutex_unlock(&one_at_a_time);
    errno = kept;
    return failed;
}

ssize_t write(int file, const void *data, size_t length) { return written(file, data, length, -1); }

ssize_t pwrite(int file, const void *data, size_t length, off_t offset) { return written(file, data, length, offset); }

ssize_t pwrite64(int file, const void *data, size_t length, off64_t offset) {
    return written(file, data, length, offset);
}

int fsync(int file) { return synced(file, SYS_fsync); }

int fdatasync(int file) { return synced(file, SYS_fdatasync); }
