#include "CLinuxShims.h"

#include <errno.h>
#include <unistd.h>

ssize_t fm_touch_pages(int mem, uint64_t address, size_t pages)
{
	char byte;
	size_t done;

	for (done = 0; done < pages; done++, address += 4096) {
		ssize_t got;

		do
			got = pread(mem, &byte, 1, (off_t)address);
		while (got < 0 && errno == EINTR);
		if (got != 1)
			break;
	}
	return done > 0 || pages == 0 ? (ssize_t)done : -1;
}
