// SPDX-License-Identifier: GPL-2.0
/*
 * Every allocation that an ioctl makes may fail: the answer is then an errno,
 * and nothing is left behind that keeps the next try from succeeding.
 *
 * Needs a kernel with FAILSLAB. /proc/thread-self/fail-nth makes the n-th
 * allocation of the next system calls fail; the loop ends when an ioctl got
 * through without meeting it.
 */
#include "kselftest_harness.h"
#include "vm.h"

#define ATTRIBUTES	"/sys/kernel/debug/failslab/"
#define MOST		400	/* allocations of one ioctl */

GUEST_CODE(touch, 64,
	"	movq $7, (0x100000)\n"
	"	outb %al, $" STR(PORT_DONE) "\n");

static bool set_attribute(const char *name, const char *value)
{
	char path[128];
	int fd;
	bool ok;

	snprintf(path, sizeof(path), ATTRIBUTES "%s", name);
	fd = open(path, O_WRONLY);
	if (fd < 0)
		return false;
	ok = write(fd, value, strlen(value)) > 0;
	close(fd);
	return ok;
}

/* Open throughout: opening it would allocate, and so meet the failure itself. */
static int fail_nth = -1;

static void set_nth(int n)
{
	char text[16];

	if (pwrite(fail_nth, text, sprintf(text, "%d", n), 0) < 0)
		die("fail-nth: %d", errno);
}

/* Returns whether the failure that was asked for has not been met. */
static bool not_met(void)
{
	char text[16] = {};

	if (pread(fail_nth, text, sizeof(text) - 1, 0) < 0)
		die("fail-nth: %d", errno);
	set_nth(0);
	return atoi(text) > 0;
}

/*
 * Repeats an ioctl with each of its allocations failing in turn; its value at the
 * end. @failures counts those, some of which the kernel makes up for by vmalloc.
 */
static long until_it_works(int fd, unsigned long request, unsigned long arg,
			   unsigned int *failures)
{
	long value;
	int n;

	for (n = 1; n < MOST; n++) {
		set_nth(n);
		value = try_ioctl(fd, request, arg);
		if (not_met())
			return value;
		if (value < 0 && value != -ENOMEM && value != -EFAULT && value != -EINTR)
			die("allocation %d: %ld", n, value);
		*failures += 1;
		/* That one may fail without harm: undo what was made, and go on. */
		if (value >= 0 && (request == KVM_CREATE_VM || request == KVM_CREATE_VCPU))
			close(value);
		if (value >= 0 && request == KVM_CREATE_VCPU)
			arg++;
	}
	die("more than %d allocations", MOST);
}

FIXTURE(failslab) {
	unsigned int failures;
};

FIXTURE_SETUP(failslab)
{
	if (!set_attribute("ignore-gfp-wait", "N"))
		SKIP(return, "no failslab");
	set_attribute("verbose", "0");
	fail_nth = open("/proc/thread-self/fail-nth", O_RDWR);
	if (fail_nth < 0)
		SKIP(return, "no fail-nth");
}

FIXTURE_TEARDOWN(failslab)
{
	close(fail_nth);
}

TEST_F(failslab, create)
{
	unsigned int failures = 0;
	int device = device_open();
	long vm, vcpu;

	vm = until_it_works(device, KVM_CREATE_VM, 0, &failures);
	ASSERT_GE(vm, 0);
	vcpu = until_it_works(vm, KVM_CREATE_VCPU, 0, &failures);
	ASSERT_GE(vcpu, 0);
	TH_LOG("%u failures", failures);
	EXPECT_GT(failures, 0);
	close(vcpu);
	close(vm);
	close(device);
}

TEST_F(failslab, run)
{
	unsigned int failures = 0;
	struct kvm_userspace_memory_region region = {
		.slot = 1,
		.guest_phys_addr = 0x40000000,
		.memory_size = SZ_2M,
	};
	struct vcpu vcpu;
	struct vm vm;

	vm_create(&vm, SZ_2M);
	vcpu_start(&vcpu, &vm, MODE_LONG);
	vm_load(&vm, CODE_GPA, touch);
	region.userspace_addr = (uintptr_t)memory_alloc(SZ_2M, PAGE);
	EXPECT_EQ(until_it_works(vm.fd, KVM_SET_USER_MEMORY_REGION, (unsigned long)&region,
				 &failures), 0);
	EXPECT_GT(failures, 0);
	EXPECT_EQ(until_it_works(vcpu.fd, KVM_RUN, 0, &failures), 0);
	EXPECT_EQ(vcpu.run->exit_reason, KVM_EXIT_IO);
	EXPECT_EQ(*vm_u64(&vm, 0x100000), 7);
	TH_LOG("%u failures", failures);
	vcpu_destroy(&vcpu);
	vm_destroy(&vm);
}

TEST_HARNESS_MAIN
