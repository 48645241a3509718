// SPDX-License-Identifier: GPL-2.0
/*
 * Guest memory on large pages of the host: what happens to a part of one, or
 * to the whole, is what the guest sees, and a large page is mapped as such
 * only where the guest's and the host's addresses allow it.
 */
#include <sys/socket.h>

#include "kselftest_harness.h"
#include "swap.h"
#include "vm.h"

#define SLOT_GPA	0x40000000UL
#define SLOT_SIZE	(2 * SZ_2M)
#define PER_HUGE	(SZ_2M / PAGE)

FIXTURE(memory_huge) {
	struct vm vm;
	struct vcpu vcpu;
	char *mem;
	uint64_t turns;
};

/*
 * For each of %rcx pages from %rbx: word 0 is added to word 2, and word 1
 * counts the turns.
 */
GUEST_CODE(all_pages, 64,
	"1:	movq (%rbx), %rax\n"
	"	addq %rax, 16(%rbx)\n"
	"	incq 8(%rbx)\n"
	"	addq $0x1000, %rbx\n"
	"	decq %rcx\n"
	"	jnz 1b\n"
	"	outb %al, $" STR(PORT_DONE) "\n");

static volatile uint64_t *page(FIXTURE_DATA(memory_huge) *self, unsigned int i)
{
	return (uint64_t *)(self->mem + i * PAGE);
}

static void fill(FIXTURE_DATA(memory_huge) *self)
{
	unsigned int i;

	for (i = 0; i < 2 * PER_HUGE; i++) {
		page(self, i)[0] = 0x10000 + i;
		page(self, i)[1] = 0;
		page(self, i)[2] = 0;
	}
	self->turns = 0;
}

FIXTURE_SETUP(memory_huge)
{
	vm_create(&self->vm, VM_MEMORY);
	vcpu_start(&self->vcpu, &self->vm, MODE_LONG);
	vm_load(&self->vm, CODE_GPA, all_pages);
	write_file("/sys/kernel/mm/transparent_hugepage/enabled", "madvise");
	self->mem = memory_alloc(SLOT_SIZE, SZ_2M);
	madvise(self->mem, SLOT_SIZE, MADV_HUGEPAGE);
	fill(self);
	if (!memory_is_huge(self->mem))
		SKIP(return, "the host gives no large pages");
	ASSERT_EQ(vm_set_slot(&self->vm, 1, 0, SLOT_GPA, SLOT_SIZE, self->mem), 0);
}

FIXTURE_TEARDOWN(memory_huge)
{
	vcpu_destroy(&self->vcpu);
	vm_destroy(&self->vm);
}

/* Lets the guest go over @count pages from @first; returns KVM_RUN's value. */
static int run_pages(FIXTURE_DATA(memory_huge) *self, uint64_t gpa, unsigned int count)
{
	struct kvm_regs regs = vcpu_regs(&self->vcpu);
	int ret;

	regs.rip = CODE_GPA;
	regs.rbx = gpa;
	regs.rcx = count;
	vcpu_set_regs(&self->vcpu, &regs);
	ret = vcpu_run(&self->vcpu);
	if (!ret && (self->vcpu.run->exit_reason != KVM_EXIT_IO ||
		     self->vcpu.run->io.port != PORT_DONE)) {
		vcpu_dump(&self->vcpu, ret);
		return -ENXIO;
	}
	return ret;
}

/* A turn over everything, of which [@zero, @zero + @zeroes) was lost before. */
static void turn(struct __test_metadata *_metadata, FIXTURE_DATA(memory_huge) *self,
		 unsigned int zero, unsigned int zeroes)
{
	unsigned int i;

	ASSERT_EQ(run_pages(self, SLOT_GPA, 2 * PER_HUGE), 0);
	self->turns++;
	for (i = 0; i < 2 * PER_HUGE; i++) {
		bool lost = i - zero < zeroes;
		uint64_t value = lost ? 0 : 0x10000 + i;
		uint64_t turns = lost ? 1 : self->turns;

		ASSERT_EQ(page(self, i)[0], value) TH_LOG("page %u", i);
		ASSERT_EQ(page(self, i)[1], turns) TH_LOG("page %u", i);
		ASSERT_EQ(page(self, i)[2], value * turns) TH_LOG("page %u", i);
	}
}

TEST_F(memory_huge, plain)
{
	turn(_metadata, self, 0, 0);
	turn(_metadata, self, 0, 0);
	page(self, 700)[2] += 5;
	ASSERT_EQ(run_pages(self, SLOT_GPA + 700 * PAGE, 1), 0);
	EXPECT_EQ(page(self, 700)[2], 3 * (0x10000 + 700) + 5);
}

TEST_F(memory_huge, dontneed_a_part)
{
	unsigned int at;

	for (at = 0; at < PER_HUGE; at += 137) {
		fill(self);
		turn(_metadata, self, 0, 0);
		ASSERT_EQ(madvise(self->mem + at * PAGE, 3 * PAGE, MADV_DONTNEED), 0);
		turn(_metadata, self, at, 3);
		fill(self);
		/* Large again, with the guest's small mappings in place. */
		madvise(self->mem, SLOT_SIZE, MADV_COLLAPSE);
		turn(_metadata, self, 0, 0);
	}
}

TEST_F(memory_huge, dontneed_the_whole)
{
	turn(_metadata, self, 0, 0);
	ASSERT_EQ(madvise(self->mem, SZ_2M, MADV_DONTNEED), 0);
	turn(_metadata, self, 0, PER_HUGE);
	ASSERT_EQ(madvise(self->mem, SLOT_SIZE, MADV_DONTNEED), 0);
	fill(self);
	turn(_metadata, self, 0, 0);
}

TEST_F(memory_huge, munmap_and_mmap_anew)
{
	turn(_metadata, self, 0, 0);
	ASSERT_EQ(munmap(self->mem, SLOT_SIZE), 0);
	ASSERT_EQ(run_pages(self, SLOT_GPA, 1), -EFAULT);
	ASSERT_EQ(run_pages(self, SLOT_GPA + SZ_2M, 1), -EFAULT);
	ASSERT_EQ(mmap(self->mem, SLOT_SIZE, PROT_READ | PROT_WRITE,
		       MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED, -1, 0), self->mem);
	madvise(self->mem, SLOT_SIZE, MADV_HUGEPAGE);
	/* This time the guest's access is the first. */
	ASSERT_EQ(run_pages(self, SLOT_GPA + 5 * PAGE, 1), 0);
	EXPECT_EQ(memory_is_huge(self->mem), true);
	fill(self);
	turn(_metadata, self, 0, 0);
}

TEST_F(memory_huge, mprotect_a_part)
{
	turn(_metadata, self, 0, 0);
	ASSERT_EQ(mprotect(self->mem + 100 * PAGE, PAGE, PROT_READ), 0);
	ASSERT_EQ(run_pages(self, SLOT_GPA + 100 * PAGE, 1), -EFAULT);
	EXPECT_EQ(vcpu_fault_is_at(&self->vcpu, SLOT_GPA + 100 * PAGE), true);
	EXPECT_EQ(page(self, 100)[1], 1);
	/* Its neighbours are as they were. */
	ASSERT_EQ(run_pages(self, SLOT_GPA + 99 * PAGE, 1), 0);
	ASSERT_EQ(run_pages(self, SLOT_GPA + 101 * PAGE, 1), 0);
	EXPECT_EQ(page(self, 99)[1], 2);
	EXPECT_EQ(page(self, 101)[1], 2);
	ASSERT_EQ(mprotect(self->mem + 100 * PAGE, PAGE, PROT_READ | PROT_WRITE), 0);
	ASSERT_EQ(run_pages(self, SLOT_GPA + 100 * PAGE, 1), 0);
	EXPECT_EQ(page(self, 100)[1], 2);
}

TEST_F(memory_huge, fork_and_write)
{
	int pair[2], status;
	unsigned int i;
	pid_t child;
	char c;

	ASSERT_EQ(socketpair(AF_UNIX, SOCK_STREAM, 0, pair), 0);
	turn(_metadata, self, 0, 0);
	child = fork();
	ASSERT_GE(child, 0);
	if (!child) {
		if (read(pair[1], &c, 1) != 1)
			_exit(1);
		for (i = 0; i < 2 * PER_HUGE; i++) {
			if (page(self, i)[0] != 0x10000 + i || page(self, i)[1] != 1)
				_exit(2);
		}
		for (i = 0; i < 2 * PER_HUGE; i++)
			page(self, i)[0] = 0xc411d;
		if (write(pair[1], "x", 1) != 1 || read(pair[1], &c, 1) != 1)
			_exit(3);
		_exit(0);
	}
	/* Breaks some of the sharing by the client, the rest by the guest. */
	page(self, 3)[2] += 0;
	page(self, 600)[2] += 0;
	turn(_metadata, self, 0, 0);
	ASSERT_EQ(write(pair[0], "x", 1), 1);
	ASSERT_EQ(read(pair[0], &c, 1), 1);
	turn(_metadata, self, 0, 0);
	ASSERT_EQ(write(pair[0], "x", 1), 1);
	ASSERT_EQ(waitpid(child, &status, 0), child);
	EXPECT_EQ(status, 0);
}

TEST_F(memory_huge, pageout)
{
	if (!swap_available())
		SKIP(return, "no swap, zram or ram disk");
	turn(_metadata, self, 0, 0);
	ASSERT_EQ(page_out(self->mem, SZ_2M), true);
	turn(_metadata, self, 0, 0);
	ASSERT_EQ(page_out(self->mem + 7 * PAGE, PAGE), true);
	turn(_metadata, self, 0, 0);
}

/*
 * Guest and host addresses that are not congruent modulo 2M: no large page of
 * the guest is one of the host, and each small one must be the right one.
 */
TEST_F(memory_huge, addresses_not_congruent)
{
	unsigned int i;

	ASSERT_EQ(vm_set_slot(&self->vm, 1, 0, SLOT_GPA, 0, self->mem), 0);
	ASSERT_EQ(vm_set_slot(&self->vm, 1, 0, SLOT_GPA, SZ_2M, self->mem + 9 * PAGE), 0);
	ASSERT_EQ(run_pages(self, SLOT_GPA, PER_HUGE), 0);
	for (i = 0; i < 2 * PER_HUGE; i++) {
		unsigned int in = i >= 9 && i < 9 + PER_HUGE;

		ASSERT_EQ(page(self, i)[1], in) TH_LOG("page %u", i);
		ASSERT_EQ(page(self, i)[2], in * (0x10000 + i)) TH_LOG("page %u", i);
	}
}

/*
 * Slots that begin and end inside a large page of the host: what lies outside
 * the slot is not the guest's.
 */
TEST_F(memory_huge, slot_smaller_than_page)
{
	struct kvm_run *run = self->vcpu.run;
	unsigned int i;

	ASSERT_EQ(vm_set_slot(&self->vm, 1, 0, SLOT_GPA, 0, self->mem), 0);
	ASSERT_EQ(vm_set_slot(&self->vm, 1, 0, SLOT_GPA + 16 * PAGE, SZ_2M,
			      self->mem + 16 * PAGE), 0);
	ASSERT_EQ(run_pages(self, SLOT_GPA + 16 * PAGE, PER_HUGE), 0);
	for (i = 0; i < 2 * PER_HUGE; i++) {
		unsigned int in = i >= 16 && i < 16 + PER_HUGE;

		ASSERT_EQ(page(self, i)[1], in) TH_LOG("page %u", i);
	}
	/* Before and after it there is nothing. */
	for (i = 0; i < 2; i++) {
		ASSERT_EQ(run_pages(self, SLOT_GPA + (i ? 16 + PER_HUGE : 15) * PAGE, 1),
			  -ENXIO);
		EXPECT_EQ(run->exit_reason, KVM_EXIT_MMIO);
		EXPECT_EQ(run->mmio.phys_addr, SLOT_GPA + (i ? 16 + PER_HUGE : 15) * PAGE);
		/* Done with this read: it goes into a register. */
		vcpu_complete(&self->vcpu);
	}
	EXPECT_EQ(page(self, 15)[1], 0);
	EXPECT_EQ(page(self, 16 + PER_HUGE)[1], 0);
}

#define PARAMETERS	"/sys/module/kvm_rs/parameters/"

/* Jumps to %rbx, which jumps back, and leaves %rax there. */
GUEST_CODE(call_there, 64,
	"	call *%rbx\n"
	"	movq %rax, 64(%rbx)\n"
	"	outb %al, $" STR(PORT_DONE) "\n");

static int disable_nx(struct vm *vm, uint64_t arg)
{
	struct kvm_enable_cap cap = { .cap = KVM_CAP_VM_DISABLE_NX_HUGE_PAGES, .args = { arg } };

	return try_ioctl(vm->fd, KVM_ENABLE_CAP, (unsigned long)&cap);
}

static void call(FIXTURE_DATA(memory_huge) *self, uint64_t gpa, uint64_t value)
{
	struct kvm_regs regs = vcpu_regs(&self->vcpu);

	regs.rip = CODE_GPA;
	regs.rbx = gpa;
	regs.rax = value;
	regs.rsp = STACK_GPA;
	vcpu_set_regs(&self->vcpu, &regs);
	vcpu_run_to_port(&self->vcpu, PORT_DONE);
}

/*
 * Where large pages cannot be executed, a call splits the one that it goes to,
 * and no other; what the guest has written there stays. After a while it is
 * whole again. A VM may be excepted by those who could as well reboot.
 */
TEST_F(memory_huge, execution_splits)
{
	unsigned int excepted, i, tries;

	if (!device_is_kvm_rs())
		return;
	for (excepted = 0; excepted < 2; excepted++) {
		/* Not before the splits have been looked at: in an hour. */
		write_file(PARAMETERS "nx_huge_pages_recovery_period_ms", "3600000");
		write_file(PARAMETERS "nx_huge_pages_recovery_ratio", "1");
		vcpu_destroy(&self->vcpu);
		vm_destroy(&self->vm);
		write_file(PARAMETERS "nx_huge_pages", "force");
		vm_create(&self->vm, VM_MEMORY);
		write_file(PARAMETERS "nx_huge_pages", "auto");
		EXPECT_EQ(disable_nx(&self->vm, 1), -EINVAL);
		if (excepted)
			ASSERT_EQ(disable_nx(&self->vm, 0), 0);
		vcpu_start(&self->vcpu, &self->vm, MODE_LONG);
		EXPECT_EQ(disable_nx(&self->vm, 0), -EINVAL);
		ASSERT_EQ(vm_set_slot(&self->vm, 1, 0, SLOT_GPA, SLOT_SIZE, self->mem), 0);
		vm_load(&self->vm, CODE_GPA, all_pages);
		fill(self);
		turn(_metadata, self, 0, 0);
		ASSERT_EQ(module_stat("ept_2m"), 2);

		vm_load(&self->vm, CODE_GPA, call_there);
		for (i = 0; i < 2 * PER_HUGE; i++)
			*(char *)(self->mem + i * PAGE + 128) = 0xc3;
		for (i = 3; i < 6; i++)
			call(self, SLOT_GPA + i * PAGE + 128, i);
		EXPECT_EQ(module_stat("ept_2m"), excepted ? 2 : 1);
		for (i = 3; i < 6; i++) {
			EXPECT_EQ(page(self, i)[24], i);
		}
		/* A write alone splits nothing, and rejoins nothing. */
		vm_load(&self->vm, CODE_GPA, all_pages);
		turn(_metadata, self, 0, 0);
		EXPECT_EQ(module_stat("ept_2m"), excepted ? 2 : 1);

		/* Another period counts at once. */
		write_file(PARAMETERS "nx_huge_pages_recovery_period_ms", "50");
		for (tries = 0; tries < 100 && !excepted && module_stat("ept_4k") > 100; tries++)
			usleep(20000);
		EXPECT_LT(tries, 100);
		turn(_metadata, self, 0, 0);
		EXPECT_EQ(module_stat("ept_2m"), 2);
	}
	write_file(PARAMETERS "nx_huge_pages_recovery_period_ms", "0");
	write_file(PARAMETERS "nx_huge_pages_recovery_ratio", "60");
}

static int as_nobody(void)
{
	struct vm vm;
	int ret;

	vm_create_empty(&vm);
	if (setuid(65534))
		return 1;
	ret = disable_nx(&vm, 0);
	return ret == -EPERM && disable_nx(&vm, 1) == -EPERM ? 0 : 2;
}

TEST(exception_takes_the_right_to_reboot)
{
	int status;
	pid_t child = fork();

	ASSERT_GE(child, 0);
	if (!child)
		_exit(as_nobody());
	ASSERT_EQ(waitpid(child, &status, 0), child);
	EXPECT_EQ(status, 0);
}

TEST(parameter_of_execution)
{
	static const struct {
		const char *text;
		bool error;
		char shown;
	} rows[] = {
		{ "force", false, 'Y' }, { "off", false, 'N' }, { "1", false, 'Y' },
		{ "maybe", true, 'Y' }, { "N", false, 'N' }, { "auto", false, 'N' },
	};
	unsigned int i;

	if (!device_is_kvm_rs())
		return;
	for (i = 0; i < ARRAY_SIZE(rows); i++) {
		int fd = open(PARAMETERS "nx_huge_pages", O_WRONLY);
		ssize_t n = write(fd, rows[i].text, strlen(rows[i].text));

		EXPECT_EQ(n < 0, rows[i].error);
		close(fd);
		EXPECT_EQ(module_parameter("nx_huge_pages"), rows[i].shown);
	}
}

TEST_HARNESS_MAIN
