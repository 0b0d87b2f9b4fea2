/* For LD_PRELOAD: the wall clock is CLOCK_AHEAD seconds ahead. All other clocks are right.

   libfaketime does not fit: with it, clock_nanosleep fails, which Python uses for time.sleep. */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <semaphore.h>
#include <stdlib.h>
#include <sys/syscall.h>
#include <sys/time.h>
#include <time.h>
#include <unistd.h>

static long ahead(void) {
    const char *text = getenv("CLOCK_AHEAD");
    return text ? atol(text) : 0;
}

int clock_gettime(clockid_t clock, struct timespec *found) {
    int result = syscall(SYS_clock_gettime, clock, found);
    if (result == 0 && clock == CLOCK_REALTIME) found->tv_sec += ahead();
    return result;
}

int gettimeofday(struct timeval *found, void *zone) {
    int result = syscall(SYS_gettimeofday, found, zone);
    if (result == 0) found->tv_sec += ahead();
    return result;
}

time_t time(time_t *found) {
    struct timespec now;
    clock_gettime(CLOCK_REALTIME, &now);
    if (found) *found = now.tv_sec;
    return now.tv_sec;
}

/* The kernel waits by the true clock. */
int sem_timedwait(sem_t *semaphore, const struct timespec *until) {
    int (*original)(sem_t *, const struct timespec *) = dlsym(RTLD_NEXT, "sem_timedwait");
    struct timespec truly = *until;
    truly.tv_sec -= ahead();
    return original(semaphore, &truly);
}
