#include "CLinuxShims.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/falloc.h>
#include <signal.h>
#include <stdio.h>
#include <sys/file.h>
#include <sys/mman.h>
#include <sys/mount.h>
#include <sys/random.h>
#include <sys/swap.h>
#include <sys/syscall.h>
#include <sys/vfs.h>
#include <unistd.h>

#ifndef MADV_COLD
#define MADV_COLD 20
#define MADV_PAGEOUT 21
#endif
#ifndef MADV_POPULATE_WRITE
#define MADV_POPULATE_WRITE 23
#endif

int fm_memfd(const char *name, bool sealable)
{
	return memfd_create(name, MFD_CLOEXEC | (sealable ? MFD_ALLOW_SEALING : 0));
}

int fm_seal_size(int memfd)
{
	return fcntl(memfd, F_ADD_SEALS, F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_SEAL);
}

int fm_fallocate(int fd, uint64_t offset, uint64_t length)
{
	int rc;

	do
		rc = fallocate(fd, FALLOC_FL_KEEP_SIZE, (off_t)offset, (off_t)length);
	while (rc < 0 && errno == EINTR);
	return rc;
}

int fm_punch_hole(int fd, uint64_t offset, uint64_t length)
{
	return fallocate(fd, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, (off_t)offset,
			 (off_t)length);
}

int fm_populate_write(void *address, size_t length)
{
	return madvise(address, length, MADV_POPULATE_WRITE);
}

int fm_flock(int fd, bool exclusive, bool block)
{
	return flock(fd, (exclusive ? LOCK_EX : LOCK_SH) | (block ? 0 : LOCK_NB));
}

int fm_open_direct(const char *path, bool write)
{
	return open(path, (write ? O_RDWR : O_RDONLY) | O_DIRECT | O_CLOEXEC);
}

int64_t fm_random(void *buffer, size_t length)
{
	return getrandom(buffer, length, 0);
}

int fm_renameat_sync(int directory, const char *from, const char *to)
{
	if (renameat(directory, from, directory, to) < 0)
		return -1;
	return fsync(directory);
}

int fm_statfs(const char *path, struct fm_filesystem_facts *facts)
{
	struct statfs s;

	if (statfs(path, &s) < 0)
		return -1;
	facts->magic = (uint64_t)s.f_type & 0xffffffffu;
	facts->block_bytes = (uint64_t)s.f_bsize;
	facts->blocks = s.f_blocks;
	facts->blocks_available = s.f_bavail;
	return 0;
}

int fm_mount(const char *source, const char *target, const char *type, unsigned long flags,
	     const char *data)
{
	return mount(source, target, type, flags, data);
}

int fm_umount(const char *target, bool detach)
{
	return umount2(target, detach ? MNT_DETACH : 0);
}

static int to_advice(enum fm_advice advice)
{
	switch (advice) {
	case FM_ADVICE_COLD:
		return MADV_COLD;
	case FM_ADVICE_PAGEOUT:
		return MADV_PAGEOUT;
	default:
		return MADV_WILLNEED;
	}
}

ssize_t fm_process_madvise(int pidfd, const struct iovec *ranges, size_t count,
			   enum fm_advice advice)
{
	return syscall(SYS_process_madvise, pidfd, ranges, count, to_advice(advice), 0);
}

int fm_madvise(void *address, size_t length, enum fm_advice advice)
{
	return madvise(address, length, to_advice(advice));
}

#ifndef SWAP_FLAG_DISCARD_PAGES
#define SWAP_FLAG_DISCARD_PAGES 0x40000
#endif

int fm_swapon(const char *path, int priority, bool discard_pages)
{
	int flags = 0;

	if (priority >= 0)
		flags |= SWAP_FLAG_PREFER | (priority & SWAP_FLAG_PRIO_MASK);
	if (discard_pages)
		flags |= SWAP_FLAG_DISCARD | SWAP_FLAG_DISCARD_PAGES;
	return swapon(path, flags);
}

int fm_swapoff(const char *path)
{
	return swapoff(path);
}

static void replace_lost_page(int number, siginfo_t *info, void *context)
{
	(void)context;
	if (info->si_code == BUS_ADRERR) {
		uintptr_t page = (uintptr_t)info->si_addr & ~(uintptr_t)4095;

		if (mmap((void *)page, 4096, PROT_READ | PROT_WRITE,
			 MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED, -1, 0) != MAP_FAILED)
			return;
	}
	signal(number, SIG_DFL);
}

int fm_survive_truncation(void)
{
	struct sigaction action = { .sa_sigaction = replace_lost_page,
				    .sa_flags = SA_SIGINFO | SA_RESTART };

	sigemptyset(&action.sa_mask);
	return sigaction(SIGBUS, &action, NULL);
}
