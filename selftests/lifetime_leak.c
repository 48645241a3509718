// SPDX-License-Identifier: GPL-2.0
/*
 * 200 VMs one after another and 50 at once leave no page behind.
 *
 * Page counts of a whole machine wander by a few dozen pages through caches
 * that are nobody's leak (slab's partial lists, per-CPU lists of other kinds).
 * One lost page per VM would be 200, so the bound is 64.
 */
#include "kselftest_harness.h"
#include "vm.h"

#define ONE_AFTER_ANOTHER	200
#define AT_ONCE			50
#define TOLERANCE		64
#define GUEST_MEMORY		(2 * SZ_2M)
#define TOUCHED			64
#define TOUCHED_FROM		0x100000

/* Touches some of its memory, so that tables are made for it. */
GUEST_CODE(touch, 64,
	"	movl $0x100000, %ebx\n"
	"1:	incq (%rbx)\n"
	"	addl $0x1000, %ebx\n"
	"	cmpl $0x140000, %ebx\n"
	"	jb 1b\n"
	"	outb %al, $" STR(PORT_DONE) "\n");

static void start(struct vm *vm, struct vcpu *vcpu)
{
	vm_create(vm, GUEST_MEMORY);
	vcpu_start(vcpu, vm, MODE_LONG);
	vm_load(vm, CODE_GPA, touch);
	vcpu_run_to_port(vcpu, PORT_DONE);
	if (*vm_u64(vm, TOUCHED_FROM + (TOUCHED - 1) * PAGE) != 1)
		die("the guest did not touch its memory");
}

static void create_in_turn(unsigned int count)
{
	struct vcpu vcpu;
	struct vm vm;

	while (count--) {
		start(&vm, &vcpu);
		vcpu_destroy(&vcpu);
		vm_destroy(&vm);
	}
}

/* Returns the pages that @count VMs took while they were there. */
static long create_at_once(unsigned int count)
{
	static struct vcpu vcpus[AT_ONCE];
	static struct vm vms[AT_ONCE];
	long before = host_pages_used(), during;
	unsigned int i;

	for (i = 0; i < count; i++)
		start(&vms[i], &vcpus[i]);
	during = host_pages_used() - before;
	for (i = 0; i < count; i++) {
		/* Some are closed in the other order. */
		if (i & 1)
			vcpu_destroy(&vcpus[i]);
		vm_destroy(&vms[i]);
		if (!(i & 1))
			vcpu_destroy(&vcpus[i]);
	}
	return during;
}

/* The smallest of a few readings: what is still on its way is freed by then. */
static long settled_pages(long base)
{
	long least = host_pages_used(), now;
	unsigned int i;

	for (i = 0; i < 10 && least - base > TOLERANCE / 2; i++) {
		usleep(50000);
		now = host_pages_used();
		if (now < least)
			least = now;
	}
	return least;
}

/*
 * On a kernel with kmemleak, its own records and KASAN's quarantine grow with
 * every allocation; there the test below asks kmemleak instead.
 */
static bool counts_mean_little(void)
{
	return access("/sys/kernel/debug/kmemleak", F_OK) == 0;
}

TEST(one_after_another)
{
	long before, after;

	if (counts_mean_little())
		SKIP(return, "a debug kernel's own memory grows");

	create_in_turn(30);
	before = settled_pages(0);
	create_in_turn(ONE_AFTER_ANOTHER);
	after = settled_pages(before);
	TH_LOG("%ld pages before, %ld after", before, after);
	EXPECT_LE(after - before, TOLERANCE);
}

TEST(at_once)
{
	long before, after, during;

	if (counts_mean_little())
		SKIP(return, "a debug kernel's own memory grows");

	create_at_once(AT_ONCE);
	before = settled_pages(0);
	during = create_at_once(AT_ONCE);
	/* Without this the test would see nothing: guest memory at the least. */
	EXPECT_GT(during, AT_ONCE * TOUCHED);
	after = settled_pages(before);
	TH_LOG("%ld pages before, %ld after, %ld in use by %u VMs", before, after,
	       during, AT_ONCE);
	EXPECT_LE(after - before, TOLERANCE);
}

/* vCPUs that were never run, VMs that never had one, processes that just go. */
TEST(unused_and_abandoned)
{
	long before = 0, after;
	unsigned int round, i;
	struct vcpu vcpu;
	struct vm vm;

	if (counts_mean_little())
		SKIP(return, "a debug kernel's own memory grows");

	for (round = 0; round < 2; round++) {
		if (round)
			before = settled_pages(0);
		for (i = 0; i < 100; i++) {
			vm_create_empty(&vm);
			if (i & 1) {
				vcpu_create(&vcpu, &vm, 0);
				vcpu_destroy(&vcpu);
			}
			vm_destroy(&vm);
			if (i % 10 == 0) {
				pid_t child = fork();

				if (!child) {
					start(&vm, &vcpu);
					_exit(0);
				}
				waitpid(child, NULL, 0);
			}
		}
	}
	after = settled_pages(before);
	TH_LOG("%ld pages before, %ld after", before, after);
	EXPECT_LE(after - before, TOLERANCE);
}

/* What the kernel's own leak detector has to say, where there is one. */
TEST(kmemleak)
{
	char line[256], path[] = "/sys/kernel/debug/kmemleak";
	unsigned int i, objects = 0;
	FILE *f;

	if (access(path, W_OK))
		SKIP(return, "no kmemleak");
	f = fopen(path, "w");
	ASSERT_NE(f, NULL);
	fputs("clear", f);
	fclose(f);
	create_in_turn(10);
	create_at_once(10);
	/* An object counts after two scans, and when it is five seconds old. */
	for (i = 0; i < 2; i++) {
		sleep(6);
		f = fopen(path, "w");
		fputs("scan", f);
		fclose(f);
	}
	f = fopen(path, "r");
	while (fgets(line, sizeof(line), f)) {
		objects += !strncmp(line, "unreferenced", 12);
		printf("# %s", line);
	}
	fclose(f);
	EXPECT_EQ(objects, 0);
}

TEST_HARNESS_MAIN
