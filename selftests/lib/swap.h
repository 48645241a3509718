/* SPDX-License-Identifier: GPL-2.0 */
/*
 * Swap for tests of paged-out memory: whatever is on already, else a zram or
 * ram disk made for it.
 */
#ifndef SELFTESTS_SWAP_H
#define SELFTESTS_SWAP_H

#include <sys/swap.h>

#include "vm.h"

/* What a zram disk is given; it takes memory only for what is swapped out. */
#define SWAP_BYTES	"268435456"

static inline void write_file(const char *path, const char *text)
{
	int fd = open(path, O_WRONLY);

	if (fd < 0)
		return;
	if (write(fd, text, strlen(text)) < 0)
		printf("# cannot write %s to %s\n", text, path);
	close(fd);
}

/* Writes the header that mkswap writes, and turns swap on. */
static inline bool swap_on_device(const char *path)
{
	static uint32_t header[PAGE / 4];
	off_t size;
	int fd = open(path, O_RDWR);

	if (fd < 0)
		return false;
	size = lseek(fd, 0, SEEK_END);
	memset(header, 0, sizeof(header));
	header[256] = 1;			/* version */
	header[257] = size / PAGE - 1;		/* last page */
	memcpy((char *)header + PAGE - 10, "SWAPSPACE2", 10);
	if (size < 16 * (off_t)PAGE || pwrite(fd, header, PAGE, 0) != PAGE) {
		close(fd);
		return false;
	}
	fsync(fd);
	close(fd);
	return !swapon(path, 0);
}

static inline bool swap_available(void)
{
	static const char * const devices[] = { "/dev/zram0", "/dev/ram0" };
	unsigned int i;

	if (meminfo("SwapTotal") > 0)
		return true;
	if (!access("/sys/block/zram0/disksize", W_OK))
		write_file("/sys/block/zram0/disksize", SWAP_BYTES);
	for (i = 0; i < sizeof(devices) / sizeof(devices[0]); i++) {
		if (!access(devices[i], F_OK) && swap_on_device(devices[i]))
			return true;
	}
	return false;
}

/* Returns the /proc/self/pagemap word of a page. */
static inline uint64_t pagemap(const void *p)
{
	uint64_t entry = 0;
	int fd = open("/proc/self/pagemap", O_RDONLY);

	if (fd < 0 || pread(fd, &entry, 8, (uintptr_t)p / PAGE * 8) != 8)
		die("pagemap: %s", strerror(errno));
	close(fd);
	return entry;
}

#define PAGEMAP_SWAPPED	(1UL << 62)
#define PAGEMAP_PRESENT	(1UL << 63)

#ifndef MADV_PAGEOUT
#define MADV_PAGEOUT	21
#endif
#ifndef MADV_COLLAPSE
#define MADV_COLLAPSE	25
#endif

/* Pages out [@p, @p + @size); returns true once nothing of it is present. */
static inline bool page_out(void *p, size_t size)
{
	unsigned int tries;
	size_t at;

	for (tries = 0; tries < 20; tries++) {
		if (madvise(p, size, MADV_PAGEOUT))
			die("MADV_PAGEOUT: %s", strerror(errno));
		for (at = 0; at < size; at += PAGE) {
			if (!(pagemap((char *)p + at) & PAGEMAP_SWAPPED))
				break;
		}
		if (at >= size)
			return true;
		usleep(10000);
	}
	return false;
}

#endif
