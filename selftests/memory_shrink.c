// SPDX-License-Identifier: GPL-2.0
/*
 * A host that is short of memory gets tables back: guests lose no memory by it,
 * find all again by faults, and come and go meanwhile.
 */
#include <pthread.h>

#include "kselftest_harness.h"
#include "swap.h"
#include "vm.h"

#define SLOT_GPA	0x40000000UL
#define SIZE		(48UL << 20)
#define PAGES		(SIZE / PAGE)

FIXTURE(memory_shrink) {
	struct vm vm;
	struct vcpu vcpu;
	char *mem;
};

/* Adds 1 to the first word of %rcx pages from %rbx. */
GUEST_CODE(touch_pages, 64,
	"1:	incq (%rbx)\n"
	"	addq $0x1000, %rbx\n"
	"	decq %rcx\n"
	"	jnz 1b\n"
	"	outb %al, $" STR(PORT_DONE) "\n");

static void touch(struct vcpu *vcpu)
{
	struct kvm_regs regs = vcpu_regs(vcpu);

	regs.rip = CODE_GPA;
	regs.rbx = SLOT_GPA;
	regs.rcx = PAGES;
	vcpu_set_regs(vcpu, &regs);
	vcpu_run_to_port(vcpu, PORT_DONE);
}

FIXTURE_SETUP(memory_shrink)
{
	if (access("/proc/sys/vm/drop_caches", W_OK))
		SKIP(return, "no drop_caches");
	vm_create(&self->vm, VM_MEMORY);
	vcpu_start(&self->vcpu, &self->vm, MODE_LONG);
	vm_load(&self->vm, CODE_GPA, touch_pages);
	self->mem = memory_alloc(SIZE, SZ_2M);
	madvise(self->mem, SIZE, MADV_NOHUGEPAGE);
	ASSERT_EQ(vm_set_slot(&self->vm, 1, 0, SLOT_GPA, SIZE, self->mem), 0);
}

FIXTURE_TEARDOWN(memory_shrink)
{
	vcpu_destroy(&self->vcpu);
	vm_destroy(&self->vm);
	munmap(self->mem, SIZE);
}

/* How many 4 KiB entries the VM's tables hold; -1 if it does not tell. */
static long entries(struct vm *vm)
{
	int fd = try_ioctl(vm->fd, KVM_GET_STATS_FD, 0);
	struct kvm_stats_header header;
	long ret = -1;
	char buffer[256];
	uint32_t i;

	if (fd < 0 || pread(fd, &header, sizeof(header), 0) != sizeof(header))
		return -1;
	for (i = 0; i < header.num_desc; i++) {
		struct kvm_stats_desc *desc = (void *)buffer;
		size_t size = sizeof(*desc) + header.name_size;
		uint64_t value;

		if (size > sizeof(buffer) ||
		    pread(fd, buffer, size, header.desc_offset + i * size) != (ssize_t)size)
			break;
		if (strcmp(desc->name, "pages_4k"))
			continue;
		if (pread(fd, &value, 8, header.data_offset + desc->offset) == 8)
			ret = value;
	}
	close(fd);
	return ret;
}

static void drop(void)
{
	write_file("/proc/sys/vm/drop_caches", "2");
}

TEST_F(memory_shrink, tables_go_and_come_back)
{
	unsigned int round, tries;
	unsigned long i;
	long before, after = 0;

	for (round = 1; round <= 3; round++) {
		touch(&self->vcpu);
		before = entries(&self->vm);
		for (tries = 0; tries < 20; tries++) {
			drop();
			after = entries(&self->vm);
			if (after < before - 2 * 512)
				break;
		}
		/* KVM keeps its tables. */
		if (device_is_kvm_rs()) {
			EXPECT_GE(before, PAGES);
			EXPECT_LT(after, before - 2 * 512);
		}
		for (i = 0; i < PAGES; i++) {
			ASSERT_EQ(*(uint64_t *)(self->mem + i * PAGE), round);
		}
	}
}

static volatile bool stop;

static void *keep_dropping(void *arg)
{
	while (!stop)
		drop();
	return NULL;
}

TEST_F(memory_shrink, guests_go_on_meanwhile)
{
	unsigned int round;
	unsigned long i;
	pthread_t thread;

	stop = false;
	pthread_create(&thread, NULL, keep_dropping, NULL);
	for (round = 1; round <= 6; round++) {
		struct vcpu vcpu;
		struct vm vm;

		vm_create(&vm, VM_MEMORY);
		vcpu_start(&vcpu, &vm, MODE_LONG);
		touch(&self->vcpu);
		vcpu_destroy(&vcpu);
		vm_destroy(&vm);
	}
	stop = true;
	pthread_join(thread, NULL);
	for (i = 0; i < PAGES; i++) {
		ASSERT_EQ(*(uint64_t *)(self->mem + i * PAGE), 6);
	}
}

TEST_HARNESS_MAIN
