#include "CAllocationCounter.h"

#include <errno.h>
#include <stdatomic.h>
#include <stddef.h>

/* glibc's own entry points, which its malloc family are aliases of. */
extern void *__libc_malloc(size_t size);
extern void *__libc_calloc(size_t count, size_t size);
extern void *__libc_realloc(void *old, size_t size);
extern void *__libc_memalign(size_t alignment, size_t size);

/* initial-exec: reading it must not itself allocate the thread's block. */
static _Thread_local uint64_t thread_count __attribute__((tls_model("initial-exec")));
static _Atomic uint64_t process_count;

static void count(void)
{
	thread_count++;
	atomic_fetch_add_explicit(&process_count, 1, memory_order_relaxed);
}

uint64_t fm_allocations_of_thread(void)
{
	return thread_count;
}

uint64_t fm_allocations_of_process(void)
{
	return atomic_load_explicit(&process_count, memory_order_relaxed);
}

#if __has_feature(thread_sanitizer) || __has_feature(address_sanitizer)
/* A sanitizer interposes the same functions for its own work: nothing is counted under one. */
int fm_allocations_are_counted(void)
{
	(void)count;
	return 0;
}
#else
int fm_allocations_are_counted(void)
{
	return 1;
}

#define EXPORT __attribute__((visibility("default")))

EXPORT void *malloc(size_t size)
{
	count();
	return __libc_malloc(size);
}

EXPORT void *calloc(size_t n, size_t size)
{
	count();
	return __libc_calloc(n, size);
}

EXPORT void *realloc(void *old, size_t size)
{
	count();
	return __libc_realloc(old, size);
}

EXPORT void *memalign(size_t alignment, size_t size)
{
	count();
	return __libc_memalign(alignment, size);
}

EXPORT void *aligned_alloc(size_t alignment, size_t size)
{
	count();
	return __libc_memalign(alignment, size);
}

EXPORT int posix_memalign(void **result, size_t alignment, size_t size)
{
	count();
	if (alignment < sizeof(void *) || (alignment & (alignment - 1)) != 0)
		return EINVAL;
	void *memory = __libc_memalign(alignment, size);
	if (memory == NULL)
		return ENOMEM;
	*result = memory;
	return 0;
}
#endif
