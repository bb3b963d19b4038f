#include "CLinuxShims.h"

#include <errno.h>
#include <unistd.h>

/*
 * Of each call the last byte of one page and the first of the next: half the system calls.
 */
ssize_t fm_touch_pages(int mem, uint64_t address, size_t pages)
{
	char bytes[2];
	size_t done;

	for (done = 0; done < pages;) {
		size_t want = pages - done > 1 ? 2 : 1;
		ssize_t got;

		do
			got = pread(mem, bytes, want, (off_t)(address + (done + 1) * 4096 - 1));
		while (got < 0 && errno == EINTR);
		if (got <= 0)
			break;
		done += (size_t)got;
	}
	return done > 0 || pages == 0 ? (ssize_t)done : -1;
}
