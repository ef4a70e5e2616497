/* Gives a process a clock of its own, whose rate and time of day a file sets while the process runs.
 * Preloaded into kvd by the chaos program; the file is named by QUORUMKV_CHAOS_CLOCK. */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <fcntl.h>
#include <linux/futex.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <sys/time.h>
#include <time.h>
#include <unistd.h>

/* Times in nanoseconds. `turn` is odd while the file is written. Since `real`, which the clock then called `shown`, it
 * has gained `ppm` millionths. */
struct setting {
    volatile long turn, offset, real, shown, ppm;
};

static const struct setting none;
static const struct setting *shared = &none;
static int (*real_gettime)(clockid_t, struct timespec *);
static long (*real_syscall)(long, ...);

__attribute__((constructor)) static void begin(void) {
    const char *path = getenv("QUORUMKV_CHAOS_CLOCK");
    int file = path ? open(path, O_RDONLY | O_CLOEXEC) : -1;
    if (file < 0) return;
    void *map = mmap(NULL, sizeof(struct setting), PROT_READ, MAP_SHARED, file, 0);
    close(file);
    if (map != MAP_FAILED) shared = map;
}

static struct setting read_setting(void) {
    struct setting copy;
    do {
        copy.turn = shared->turn;
        __sync_synchronize();
        copy.offset = shared->offset, copy.real = shared->real, copy.shown = shared->shown, copy.ppm = shared->ppm;
        __sync_synchronize();
    } while (copy.turn % 2 || copy.turn != shared->turn);
    return copy;
}

static long nanos(const struct timespec *time) { return time->tv_sec * 1000000000L + time->tv_nsec; }

static void set(struct timespec *time, long nanos) {
    time->tv_sec = nanos / 1000000000L, time->tv_nsec = nanos % 1000000000L;
}

int clock_gettime(clockid_t clock, struct timespec *time) {
    if (!real_gettime) real_gettime = dlsym(RTLD_NEXT, "clock_gettime");
    int result = real_gettime(clock, time);
    if (result) return result;
    struct setting now = read_setting();
    if (clock == CLOCK_REALTIME || clock == CLOCK_REALTIME_COARSE) {
        set(time, nanos(time) + now.offset);
    } else if (now.real && (clock == CLOCK_MONOTONIC || clock == CLOCK_MONOTONIC_COARSE ||
                            clock == CLOCK_MONOTONIC_RAW || clock == CLOCK_BOOTTIME)) {
        long passed = nanos(time) - now.real;
        set(time, now.shown + passed + (long)((__int128)passed * now.ppm / 1000000));
    }
    return 0;
}

int gettimeofday(struct timeval *restrict time, void *restrict zone) {
    struct timespec now;
    (void)zone;
    clock_gettime(CLOCK_REALTIME, &now);
    time->tv_sec = now.tv_sec, time->tv_usec = now.tv_nsec / 1000;
    return 0;
}

time_t time(time_t *where) {
    struct timespec now;
    clock_gettime(CLOCK_REALTIME, &now);
    if (where) *where = now.tv_sec;
    return now.tv_sec;
}

/* Rust's standard library waits until a moment of the monotonic clock: the kernel has to be told it by its own clock. */
long with_own_clock(long, long, long, long, long, long, long) __asm__("syscall");

long with_own_clock(long number, long a, long b, long c, long d, long e, long f) {
    if (!real_syscall) real_syscall = dlsym(RTLD_NEXT, "syscall");
    struct timespec until;
    if (number == SYS_futex && (b & FUTEX_CMD_MASK) == FUTEX_WAIT_BITSET && !(b & FUTEX_CLOCK_REALTIME) && d) {
        struct setting now = read_setting();
        if (now.real) {
            long left = nanos((const struct timespec *)d) - now.shown;
            set(&until, now.real + (long)((__int128)left * 1000000 / (1000000 + now.ppm)));
            d = (long)&until;
        }
    }
    return real_syscall(number, a, b, c, d, e, f);
}
