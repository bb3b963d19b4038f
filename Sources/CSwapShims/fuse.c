#include "CSwapShims.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <sys/mount.h>
#include <sys/syscall.h>
#include <unistd.h>

int fm_fuse_mount(const char *target, const char *name)
{
	char options[128], source[96];
	int fd = open("/dev/fuse", O_RDWR | O_CLOEXEC);

	if (fd < 0)
		return -1;
	snprintf(options, sizeof(options), "fd=%d,rootmode=40000,user_id=0,group_id=0", fd);
	snprintf(source, sizeof(source), "farmem:%s", name);
	if (mount(source, target, "fuse.farmem", MS_NOSUID | MS_NODEV | MS_NOEXEC, options) < 0) {
		int error = errno;

		close(fd);
		errno = error;
		return -1;
	}
	return fd;
}

ssize_t fm_fuse_read(int fd, void *buffer, size_t capacity)
{
	return read(fd, buffer, capacity);
}

ssize_t fm_fuse_reply(int fd, const struct iovec *vectors, int count)
{
	return writev(fd, vectors, count);
}

int fm_pidfd_getfd(int pidfd, int fd)
{
	return (int)syscall(SYS_pidfd_getfd, pidfd, fd, 0);
}
