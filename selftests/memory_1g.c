// SPDX-License-Identifier: GPL-2.0
/*
 * Guest memory on a page of 1 GiB of the host: it is mapped as one where the
 * guest's and the host's addresses allow it, split where writes are logged, and
 * whole again after. Needs hugepagesz=1G hugepages=1 on the kernel's command line.
 */
#include <linux/memfd.h>
#include <sys/syscall.h>

#include "kselftest_harness.h"
#include "vm.h"

#define SZ_1G		0x40000000UL
#define SLOT_GPA	SZ_1G
#define PAGES		(SZ_1G / PAGE)

FIXTURE(memory_1g) {
	struct vm vm;
	struct vcpu vcpu;
	char *mem;
};

/* Adds 1 to the word at %rbx, which goes to %rax. */
GUEST_CODE(count, 64,
	"	incq (%rbx)\n"
	"	movq (%rbx), %rax\n"
	"	outb %al, $" STR(PORT_DONE) "\n");

FIXTURE_SETUP(memory_1g)
{
	int fd = memfd_create("guest", MFD_HUGETLB | MFD_HUGE_1GB);

	if (fd < 0 || ftruncate(fd, SZ_1G))
		SKIP(return, "the host has no pages of 1 GiB");
	/* Virtual addresses that allow it. */
	self->mem = memory_alloc(SZ_1G, SZ_1G);
	if (mmap(self->mem, SZ_1G, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_FIXED, fd, 0) ==
	    MAP_FAILED) {
		self->mem = NULL;
		SKIP(return, "no page of 1 GiB is free");
	}
	close(fd);
	vm_create(&self->vm, VM_MEMORY);
	vcpu_start(&self->vcpu, &self->vm, MODE_LONG);
	vm_load(&self->vm, CODE_GPA, count);
}

FIXTURE_TEARDOWN(memory_1g)
{
	if (!self->mem)
		return;
	vcpu_destroy(&self->vcpu);
	vm_destroy(&self->vm);
	munmap(self->mem, SZ_1G);
}

static uint64_t count_at(FIXTURE_DATA(memory_1g) *self, uint64_t gpa)
{
	struct kvm_regs regs = { .rip = CODE_GPA, .rsp = STACK_GPA, .rflags = 2, .rbx = gpa };

	vcpu_set_regs(&self->vcpu, &regs);
	vcpu_run_to_port(&self->vcpu, PORT_DONE);
	return vcpu_regs(&self->vcpu).rax;
}

static const uint64_t places[] = { 0, SZ_2M + 8, SZ_1G / 2 + PAGE, SZ_1G - 8 };

#define COUNT_EVERYWHERE(value)							\
	for (i = 0; i < sizeof(places) / sizeof(places[0]); i++) {		\
		EXPECT_EQ(count_at(self, SLOT_GPA + places[i]), value);		\
		EXPECT_EQ(*(uint64_t *)(self->mem + places[i]), value);		\
	}

TEST_F(memory_1g, one_entry_maps_it)
{
	long faults, small;
	unsigned int i;

	ASSERT_EQ(vm_set_slot(&self->vm, 1, 0, SLOT_GPA, SZ_1G, self->mem), 0);
	count_at(self, DATA_GPA);
	faults = vm_stat(&self->vm, "pf_fixed");
	small = vm_stat(&self->vm, "pages_2m");
	COUNT_EVERYWHERE(1);
	EXPECT_EQ(vm_stat(&self->vm, "pages_1g"), 1);
	EXPECT_EQ(vm_stat(&self->vm, "pages_2m"), small);
	EXPECT_EQ(vm_stat(&self->vm, "pf_fixed"), faults + 1);

	/* It goes, and comes again. */
	ASSERT_EQ(mprotect(self->mem, SZ_1G, PROT_READ), 0);
	EXPECT_EQ(vm_stat(&self->vm, "pages_1g"), 0);
	ASSERT_EQ(mprotect(self->mem, SZ_1G, PROT_READ | PROT_WRITE), 0);
	COUNT_EVERYWHERE(2);
	EXPECT_EQ(vm_stat(&self->vm, "pages_1g"), 1);
}

TEST_F(memory_1g, logged_and_rejoined)
{
	uint64_t *bitmap = memory_alloc(PAGES / 8, PAGE), dirty;
	struct kvm_dirty_log log = { .slot = 1, .dirty_bitmap = bitmap };
	unsigned int i;

	ASSERT_EQ(vm_set_slot(&self->vm, 1, 0, SLOT_GPA, SZ_1G, self->mem), 0);
	COUNT_EVERYWHERE(1);
	EXPECT_EQ(vm_stat(&self->vm, "pages_1g"), 1);
	ASSERT_EQ(vm_set_slot(&self->vm, 1, KVM_MEM_LOG_DIRTY_PAGES, SLOT_GPA, SZ_1G,
			      self->mem), 0);
	EXPECT_EQ(vm_stat(&self->vm, "pages_1g"), 0);
	xioctl(self->vm.fd, KVM_GET_DIRTY_LOG, &log);
	COUNT_EVERYWHERE(2);
	xioctl(self->vm.fd, KVM_GET_DIRTY_LOG, &log);
	for (i = 0, dirty = 0; i < PAGES / 64; i++)
		dirty += __builtin_popcountl(bitmap[i]);
	EXPECT_EQ(dirty, sizeof(places) / sizeof(places[0]));
	for (i = 0; i < sizeof(places) / sizeof(places[0]); i++) {
		EXPECT_TRUE(bitmap[places[i] / PAGE / 64] >> places[i] / PAGE % 64 & 1);
	}
	ASSERT_EQ(vm_set_slot(&self->vm, 1, 0, SLOT_GPA, SZ_1G, self->mem), 0);
	COUNT_EVERYWHERE(3);
	EXPECT_EQ(vm_stat(&self->vm, "pages_1g"), 1);
	munmap(bitmap, PAGES / 8);
}

TEST_F(memory_1g, addresses_not_congruent)
{
	long small;

	/* All but the first 2 MiB, elsewhere by as much. */
	count_at(self, DATA_GPA);
	small = vm_stat(&self->vm, "pages_2m");
	ASSERT_EQ(vm_set_slot(&self->vm, 1, 0, SLOT_GPA, SZ_1G - SZ_2M, self->mem + SZ_2M), 0);
	EXPECT_EQ(count_at(self, SLOT_GPA + 8), 1);
	EXPECT_EQ(*(uint64_t *)(self->mem + SZ_2M + 8), 1);
	EXPECT_EQ(vm_stat(&self->vm, "pages_1g"), 0);
	EXPECT_EQ(vm_stat(&self->vm, "pages_2m"), small + 1);
}

TEST_F(memory_1g, slot_smaller_than_page)
{
	long small;

	count_at(self, DATA_GPA);
	small = vm_stat(&self->vm, "pages_2m");
	ASSERT_EQ(vm_set_slot(&self->vm, 1, 0, SLOT_GPA, SZ_1G - PAGE, self->mem), 0);
	EXPECT_EQ(count_at(self, SLOT_GPA + 16), 1);
	EXPECT_EQ(vm_stat(&self->vm, "pages_1g"), 0);
	EXPECT_EQ(vm_stat(&self->vm, "pages_2m"), small + 1);
}

TEST_HARNESS_MAIN
