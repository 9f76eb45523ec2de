/* Makes time pass more slowly for a process. Loaded with LD_PRELOAD.
 *
 * Under valgrind a process is some fifty times slower. What it does quickly takes long by the clock, and
 * code that looks at the clock takes another way than it does in earnest. This clock is slower, too.
 */

#define _GNU_SOURCE
#include <dlfcn.h>
#include <time.h>

enum { TIMES = 100, SECOND = 1000000000 };

int clock_gettime(clockid_t clock, struct timespec *now)
{
    static int (*system_clock)(clockid_t, struct timespec *);
    if (!system_clock)
        system_clock = (int (*)(clockid_t, struct timespec *))dlsym(RTLD_NEXT, "clock_gettime");
    int failed = system_clock(clock, now);
    if (!failed && (clock == CLOCK_MONOTONIC || clock == CLOCK_MONOTONIC_COARSE)) {
        long long passed = ((long long)now->tv_sec * SECOND + now->tv_nsec) / TIMES;
        now->tv_sec = passed / SECOND;
        now->tv_nsec = passed % SECOND;
    }
    return failed;
}
