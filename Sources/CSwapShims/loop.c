#include "CSwapShims.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/fs.h>
#include <linux/loop.h>
#include <stdio.h>
#include <string.h>
#include <sys/ioctl.h>
#include <unistd.h>

int fm_loop_bind(int backing_fd, const char *label, char *path, size_t path_capacity)
{
	struct loop_config config = { .fd = (uint32_t)backing_fd, .block_size = 4096 };
	int control = open("/dev/loop-control", O_RDWR | O_CLOEXEC), error;

	if (control < 0)
		return -1;
	config.info.lo_flags = LO_FLAGS_DIRECT_IO | LO_FLAGS_AUTOCLEAR;
	snprintf((char *)config.info.lo_file_name, LO_NAME_SIZE, "%s", label);
	/* Another process may take the free device between the two calls: then ask again. */
	for (int tries = 0; tries < 64; tries++) {
		int number = ioctl(control, LOOP_CTL_GET_FREE);

		if (number < 0)
			break;
		snprintf(path, path_capacity, "/dev/loop%d", number);
		int fd = open(path, O_RDWR | O_CLOEXEC);
		if (fd < 0)
			break;
		if (ioctl(fd, LOOP_CONFIGURE, &config) == 0) {
			close(control);
			return fd;
		}
		error = errno;
		close(fd);
		errno = error;
		if (error != EBUSY)
			break;
	}
	error = errno;
	close(control);
	errno = error;
	return -1;
}

int fm_loop_label(const char *path, char *label, size_t label_capacity)
{
	struct loop_info64 info;
	int fd = open(path, O_RDONLY | O_CLOEXEC);

	if (fd < 0)
		return -1;
	int rc = ioctl(fd, LOOP_GET_STATUS64, &info), error = errno;
	close(fd);
	if (rc < 0) {
		errno = error;
		return -1;
	}
	snprintf(label, label_capacity, "%s", (const char *)info.lo_file_name);
	return 0;
}

int fm_loop_clear(const char *path)
{
	int fd = open(path, O_RDONLY | O_CLOEXEC);

	if (fd < 0)
		return -1;
	int rc = ioctl(fd, LOOP_CLR_FD, 0), error = errno;
	close(fd);
	errno = error;
	return rc;
}

int fm_block_discard(int fd, uint64_t offset, uint64_t length)
{
	uint64_t range[2] = { offset, length };

	return ioctl(fd, BLKDISCARD, range);
}
