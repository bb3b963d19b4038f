/*
 * Counts heap allocations per thread by interposing malloc, calloc, realloc and the aligned variants in the test
 * process. Tests assert on the difference around the code under test.
 */
#pragma once

#include <stdint.h>

/* Allocations by the calling thread since it started. Never allocates. */
uint64_t fm_allocations_of_thread(void);

/* Allocations by all threads since the process started. Never allocates. */
uint64_t fm_allocations_of_process(void);

/* 0 under a sanitizer, which needs the interposed functions itself: the counts stay 0 then. */
int fm_allocations_are_counted(void);
