/* Clocks that can be set: the wall clock, and the one that counts the machine's suspension.
 *
 * Loaded with LD_PRELOAD. CLOCK_FILE names a file of two signed 64-bit integers, nanoseconds that the
 * wall clock, and the clock that counts suspension, are ahead of the system's.
 */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <fcntl.h>
#include <stdint.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <time.h>

static volatile int64_t *ahead;

__attribute__((constructor)) static void begin(void)
{
    int file = open(getenv("CLOCK_FILE"), O_RDONLY | O_CLOEXEC);
    ahead = mmap(NULL, 16, PROT_READ, MAP_SHARED, file, 0);
    if (ahead == MAP_FAILED)
        abort();
}

int clock_gettime(clockid_t clock, struct timespec *now)
{
    static int (*real)(clockid_t, struct timespec *);
    if (!real)
        real = dlsym(RTLD_NEXT, "clock_gettime");
    int done = real(clock, now);
    int64_t more = !ahead ? 0 : clock == CLOCK_REALTIME ? ahead[0] : clock == CLOCK_BOOTTIME ? ahead[1] : 0;
    int64_t all = now->tv_sec * 1000000000LL + now->tv_nsec + more;
    now->tv_sec = all / 1000000000;
    now->tv_nsec = all % 1000000000;
    return done;
}
