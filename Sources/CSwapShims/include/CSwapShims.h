/*
 * The kernel's interfaces that a swap device is made of: the FUSE protocol (linux/fuse.h), loop devices.
 * Calls return -1 with errno set on failure.
 */
#pragma once

#include <linux/fuse.h>
#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>
#include <sys/uio.h>

/* Opens /dev/fuse and mounts a file system of ours at target. Returns the descriptor. */
int fm_fuse_mount(const char *target, const char *name);

/* Requests are read with read(2) and answered with writev(2) on that descriptor. */
ssize_t fm_fuse_read(int fd, void *buffer, size_t capacity);
ssize_t fm_fuse_reply(int fd, const struct iovec *vectors, int count);

/*
 * Binds backing_fd to a free loop device with direct I/O, 4 KiB blocks, and autoclear; writes its path.
 * Returns a descriptor of the loop device: the device goes away when the last user closes it.
 */
int fm_loop_bind(int backing_fd, const char *label, char *path, size_t path_capacity);
/* 0 when path is a bound loop device, whose backing label is written; -1 otherwise. */
int fm_loop_label(const char *path, char *label, size_t label_capacity);
int fm_loop_clear(const char *path);
/* Discards bytes of an open block device (BLKDISCARD). */
int fm_block_discard(int fd, uint64_t offset, uint64_t length);

/* Takes a copy of another process's descriptor (pidfd_getfd). */
int fm_pidfd_getfd(int pidfd, int fd);

/* Little helpers for what Swift cannot spell. */
static inline uint64_t fm_fuse_unique(const void *request)
{
	return __atomic_load_n(&((const struct fuse_in_header *)request)->unique, __ATOMIC_ACQUIRE);
}

static inline void fm_fuse_clear_unique(void *request)
{
	__atomic_store_n(&((struct fuse_in_header *)request)->unique, 0, __ATOMIC_RELEASE);
}

static inline void fm_store_release(uint64_t *word, uint64_t value)
{
	__atomic_store_n(word, value, __ATOMIC_RELEASE);
}

static inline uint64_t fm_load_acquire(const uint64_t *word)
{
	return __atomic_load_n(word, __ATOMIC_ACQUIRE);
}

static inline void fm_add_relaxed(uint64_t *word, uint64_t value)
{
	__atomic_fetch_add(word, value, __ATOMIC_RELAXED);
}

/* Sets bits first .. first+count-1 of a bitmap of 64-bit words, each word atomically. */
static inline void fm_bits_set(uint64_t *words, uint64_t first, uint64_t count)
{
	for (uint64_t i = first; i < first + count; i++)
		__atomic_fetch_or(&words[i >> 6], 1ull << (i & 63), __ATOMIC_RELEASE);
}

static inline void fm_bits_clear(uint64_t *words, uint64_t first, uint64_t count)
{
	for (uint64_t i = first; i < first + count; i++) {
		uint64_t bit = 1ull << (i & 63);

		if (__atomic_load_n(&words[i >> 6], __ATOMIC_RELAXED) & bit)
			__atomic_fetch_and(&words[i >> 6], ~bit, __ATOMIC_RELEASE);
	}
}

static inline bool fm_bit_test(const uint64_t *words, uint64_t index)
{
	return __atomic_load_n(&words[index >> 6], __ATOMIC_ACQUIRE) >> (index & 63) & 1;
}
