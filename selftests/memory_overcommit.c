// SPDX-License-Identifier: GPL-2.0
/*
 * Guests that have more than twice the memory that the host has left, while the host
 * swaps, migrates pages to compact its memory, merges equal pages and separates them,
 * makes large pages and breaks them, and pages out: each guest sums up all of its
 * memory and changes it, and nothing may be lost.
 */
#include <pthread.h>

#include "kselftest_harness.h"
#include "swap.h"
#include "vm.h"

#define SLOT_GPA	0x40000000UL
#define GUESTS		4
#define SMALL		2		/* so many of them are on small pages, which merge */
#define ROUNDS		3
#define MOST_ROUNDS	5		/* if the host is slow to disturb the guests */
#define EVEN		1		/* the round in which even pages change */
#define LEFT_KIB	(24 * 1024L)	/* what the host keeps for the guests */
#define ROOM_KIB	(64 * 1024L)	/* and, at first, for what goes to swap before */
#define HOG_BYTES	(2048UL << 20)
#define MIN_KIB		(8 * 1024L)
#define RESERVE		"/proc/sys/vm/min_free_kbytes"
#define PER_CPU		"/proc/sys/vm/percpu_pagelist_high_fraction"
#define TRACING		"/sys/kernel/tracing/"
#define MERGED		"/sys/kernel/mm/ksm/pages_sharing"

/*
 * A page is 16 words, the first of each 256 bytes. Even pages are all equal,
 * for KSM, and odd ones all different. The words of odd pages grow by one in
 * each round, those of even ones in the round EVEN only.
 */
#define WORDS		16
#define STRIDE		(PAGE / WORDS)
#define SEED		0x5eed0000UL

static struct guest {
	struct vm vm;
	struct vcpu vcpu;
	char *mem;
	uint64_t sum;			/* the guest's own, after a round */
	int ret;
} guests[GUESTS];
static uint64_t pages;			/* of each guest */
static volatile bool stop;
static struct {
	unsigned long turns;
	unsigned long merges;		/* times that pages are merged after none was */
	unsigned long collapsed;	/* times that small pages become a large one */
	long merged;			/* most pages that were merged at a time */
} seen;
static unsigned long hogged;
static char *hog;
static long reserve;

/*
 * For each of %rcx pages from %rbx: sums up its words in %rax, and adds one to
 * them if it is an odd page or %r8 is 1.
 */
GUEST_CODE(sum_and_change, 64,
	"	xorl %eax, %eax\n"
	"	movl %r8d, %esi\n"
	"1:	movl $16, %edx\n"
	"	movq %rbx, %rdi\n"
	"2:	addq (%rdi), %rax\n"
	"	testl $1, %esi\n"
	"	jz 3f\n"
	"	incq (%rdi)\n"
	"3:	addq $256, %rdi\n"
	"	decl %edx\n"
	"	jnz 2b\n"
	"	addq $0x1000, %rbx\n"
	"	xorl $1, %esi\n"
	"	orl %r8d, %esi\n"
	"	decq %rcx\n"
	"	jnz 1b\n"
	"	outb %al, $" STR(PORT_DONE) "\n");

static volatile uint64_t *word(struct guest *guest, uint64_t page, unsigned int i)
{
	return (uint64_t *)(guest->mem + page * PAGE + i * STRIDE);
}

/* What word @i of @page is after @rounds rounds. */
static uint64_t value(unsigned int guest, uint64_t page, unsigned int i, uint64_t rounds)
{
	if (page & 1)
		return SEED + i + guest * 1000003 + page * 31 + rounds;
	return SEED + i + (rounds > EVEN);
}

static long read_number(const char *path)
{
	char text[32] = "";
	int fd = open(path, O_RDONLY);

	if (fd < 0)
		return -1;
	if (read(fd, text, sizeof(text) - 1) < 0)
		text[0] = 0;
	close(fd);
	return atol(text);
}

/* KiB of memory that nobody has, those on lists of a CPU included. */
static long free_memory(void)
{
	FILE *f = fopen("/proc/zoneinfo", "r");
	long total = 0, count;
	char line[256];

	if (!f)
		die("/proc/zoneinfo: %s", strerror(errno));
	while (fgets(line, sizeof(line), f)) {
		if (sscanf(line, " pages free %ld", &count) == 1 ||
		    sscanf(line, " count: %ld", &count) == 1)
			total += count;
	}
	fclose(f);
	return total * (PAGE / 1024);
}

/* Has what others have in memory and do not use go to swap, as far as @kib take its place. */
static void press(long kib)
{
	char *mem = memory_alloc(kib * 1024, PAGE);
	long at;

	madvise(mem, kib * 1024, MADV_NOHUGEPAGE);
	for (at = 0; at < kib * 1024; at += PAGE)
		*(long *)(mem + at) = at;
	munmap(mem, kib * 1024);
}

/* Locks memory until only about @kib are left. */
static void take(long kib)
{
	size_t step;
	long left;

	while ((left = free_memory()) > kib) {
		step = left > kib + 64 * 1024 ? 8 * SZ_2M : SZ_2M;
		if (hogged + step > HOG_BYTES || mlock(hog + hogged, step))
			break;
		hogged += step;
	}
}

/* Takes memory until the host has about @kib left, of which it can use all, and little else in use. */
static void leave(long kib)
{
	reserve = read_number(RESERVE);
	write_file(RESERVE, "4096");
	write_file(PER_CPU, "1000");
	hog = memory_alloc(HOG_BYTES, SZ_2M);
	madvise(hog, HOG_BYTES, MADV_HUGEPAGE);
	take(kib + ROOM_KIB);
	press(2 * (kib + ROOM_KIB));
	take(kib);
}

/* Returns how many pages of all guests are in swap. */
static unsigned long swapped(void)
{
	int fd = open("/proc/self/pagemap", O_RDONLY);
	uint64_t entries[512];
	unsigned long n, page, ret = 0;
	off_t at;

	for (n = 0; n < GUESTS; n++) {
		for (page = 0; page < pages; page++) {
			at = ((uintptr_t)guests[n].mem / PAGE + page) * 8;
			if (page % 512 == 0 && pread(fd, entries, sizeof(entries), at) < 8)
				die("pagemap: %s", strerror(errno));
			ret += !!(entries[page % 512] & PAGEMAP_SWAPPED);
		}
	}
	close(fd);
	return ret;
}

/* Counts what the swap disk has read and written so far, in requests; false if nobody knows. */
static bool swap_traffic(unsigned long *in, unsigned long *out)
{
	FILE *f = fopen("/sys/block/zram0/stat", "r");
	bool known = f && fscanf(f, "%lu %*u %*u %*u %lu", in, out) == 2;

	if (f)
		fclose(f);
	return known;
}

/* Sums up what the trace tells of migrated pages, or begins a new trace. */
static unsigned long migrated(bool begin)
{
	FILE *trace = fopen(TRACING "trace", begin ? "w" : "r");
	unsigned long ret = 0;
	char line[512], *p;

	if (!trace)
		return 0;
	while (!begin && fgets(line, sizeof(line), trace)) {
		p = strstr(line, "nr_succeeded=");
		if (p)
			ret += strtoul(p + strlen("nr_succeeded="), NULL, 10);
	}
	fclose(trace);
	write_file(TRACING "events/migrate/mm_migrate_pages/enable", begin ? "1" : "0");
	return ret;
}

/* Notes how many pages are merged, after @before. */
static long look_at_merged(long before)
{
	long merged = read_number(MERGED);

	if (merged > 0 && before <= 0)
		seen.merges++;
	if (merged > seen.merged)
		seen.merged = merged;
	return merged;
}

/* Moves, merges, separates and pages out what the guests use, as long as they run. */
static void *disturb(void *arg)
{
	long merged = 0;
	unsigned long n;

	for (n = 0; !stop; seen.turns = ++n) {
		struct guest *guest = &guests[n % GUESTS];
		uint64_t at = n * 257 % pages;
		uint64_t count = pages - at < 64 ? pages - at : 64;

		madvise(guest->mem + at * PAGE, count * PAGE, MADV_PAGEOUT);
		if (n % 8 == 0)
			write_file("/proc/sys/vm/compact_memory", "1");
		if (n % 4 == 1) {
			guest = &guests[SMALL + n / 4 % (GUESTS - SMALL)];
			seen.collapsed += !madvise(guest->mem, SZ_2M, MADV_COLLAPSE);
		}
		merged = look_at_merged(merged);
		/* All that is merged is separated, and merging begins anew. */
		if (n % 16 == 15) {
			write_file("/sys/kernel/mm/ksm/run", "2");
			merged = look_at_merged(merged);
			write_file("/sys/kernel/mm/ksm/run", "1");
		}
		usleep(10000);
	}
	return NULL;
}

static void *run_guest(void *arg)
{
	struct guest *guest = arg;

	guest->ret = vcpu_run(&guest->vcpu);
	guest->sum = vcpu_regs(&guest->vcpu).rax;
	return NULL;
}

/* Whether it went on for some time, and small pages became a large one. */
static bool enough(void)
{
	return seen.turns >= 16 && seen.merged > 0 && seen.collapsed > 0;
}

/* A round of all guests. */
static void run_round(struct __test_metadata *_metadata, uint64_t round)
{
	pthread_t threads[GUESTS];
	uint64_t page, expected;
	unsigned int i, n;

	for (n = 0; n < GUESTS; n++) {
		struct kvm_regs regs = vcpu_regs(&guests[n].vcpu);

		regs.rip = CODE_GPA;
		/* With interrupts on, so that the machine's come while the guest runs. */
		regs.rflags = 0x202;
		regs.rbx = SLOT_GPA;
		regs.rcx = pages;
		regs.r8 = round == EVEN;
		vcpu_set_regs(&guests[n].vcpu, &regs);
		pthread_create(&threads[n], NULL, run_guest, &guests[n]);
	}
	for (n = 0; n < GUESTS; n++) {
		pthread_join(threads[n], NULL);
		ASSERT_EQ(guests[n].ret, 0);
		ASSERT_EQ(guests[n].vcpu.run->exit_reason, KVM_EXIT_IO);
		expected = 0;
		for (page = 0; page < pages; page++) {
			for (i = 0; i < WORDS; i++)
				expected += value(n, page, i, round);
		}
		EXPECT_EQ(guests[n].sum, expected) TH_LOG("guest %u, round %lu", n, round);
	}
}

static void start_guests(struct __test_metadata *_metadata)
{
	unsigned int n, i;
	uint64_t page;

	for (n = 0; n < GUESTS; n++) {
		struct guest *guest = &guests[n];

		vm_create(&guest->vm, VM_MEMORY);
		vcpu_start(&guest->vcpu, &guest->vm, MODE_LONG);
		vm_load(&guest->vm, CODE_GPA, sum_and_change);
		guest->mem = memory_alloc(pages * PAGE, SZ_2M);
		/* Some on small pages that are merged, some on large ones. */
		madvise(guest->mem, pages * PAGE, n < SMALL ? MADV_NOHUGEPAGE : MADV_HUGEPAGE);
		if (n < SMALL)
			madvise(guest->mem, pages * PAGE, MADV_MERGEABLE);
		ASSERT_EQ(vm_set_slot(&guest->vm, 1, 0, SLOT_GPA, pages * PAGE, guest->mem), 0);
		for (page = 0; page < pages; page++) {
			for (i = 0; i < WORDS; i++)
				*word(guest, page, i) = value(n, page, i, 0);
		}
	}
}

TEST(nothing_is_lost)
{
	unsigned long out = 0, moved, in_before, in, out_before, written;
	uint64_t round, page;
	unsigned int n, i;
	char text[32];
	long left;
	pthread_t thread;

	if (!swap_available())
		SKIP(return, "no swap, zram or ram disk");
	migrated(true);
	leave(LEFT_KIB);
	left = free_memory();
	if (left < MIN_KIB)
		left = MIN_KIB;
	pages = 5 * left / 2 / 4 / GUESTS;
	if (meminfo("SwapFree") < 3 * left)
		SKIP(return, "swap is too small");
	write_file("/sys/kernel/mm/ksm/pages_to_scan", "2000");
	write_file("/sys/kernel/mm/ksm/sleep_millisecs", "20");
	write_file("/sys/kernel/mm/ksm/run", "1");

	start_guests(_metadata);
	for (i = 0; i < 100 && !read_number(MERGED); i++)
		usleep(20000);
	pthread_create(&thread, NULL, disturb, NULL);
	for (round = 0; round < ROUNDS || (round < MOST_ROUNDS && !enough()); round++) {
		bool known = swap_traffic(&in_before, &out_before);

		run_round(_metadata, round);
		out += swapped();
		/* Each round has pages brought in from swap, and others put there. */
		if (known && swap_traffic(&in, &written)) {
			EXPECT_GT(in, in_before);
			EXPECT_GT(written, out_before);
			printf("# round %lu: %lu read from swap, %lu written\n", round,
			       in - in_before, written - out_before);
		}
	}
	stop = true;
	pthread_join(thread, NULL);
	printf("# %ld KiB left for guests of %d * %lu pages: %lu pages in swap after rounds\n",
	       left, GUESTS, pages, out);
	EXPECT_GT(pages * GUESTS * (PAGE / 1024), 2 * left);
	moved = migrated(false);
	printf("# %lu rounds and %lu turns: %lu migrated, %ld merged at most, %lu times anew, %lu large ones made\n",
	       round, seen.turns, moved, seen.merged, seen.merges, seen.collapsed);
	EXPECT_GT(out, 0);
	if (!access(TRACING "trace", R_OK))
		EXPECT_GT(moved, 0);
	EXPECT_GT(seen.merged, 0);

	/* The client finds what the guests left, and what they did not touch. */
	for (n = 0; n < GUESTS; n++) {
		for (page = 0; page < pages; page++) {
			for (i = 0; i < WORDS; i++) {
				ASSERT_EQ(*word(&guests[n], page, i),
					  value(n, page, i, round))
					TH_LOG("guest %u, page %lu, word %u", n, page, i);
			}
		}
		vcpu_destroy(&guests[n].vcpu);
		vm_destroy(&guests[n].vm);
		munmap(guests[n].mem, pages * PAGE);
	}
	write_file("/sys/kernel/mm/ksm/run", "2");
	munmap(hog, HOG_BYTES);
	snprintf(text, sizeof(text), "%ld", reserve);
	write_file(RESERVE, text);
	write_file(PER_CPU, "0");
}

TEST_HARNESS_MAIN
