// SPDX-License-Identifier: GPL-2.0
/*
 * What it costs the vCPUs that translations go: one flush for a range, a slot
 * or all memory, however many pages are mapped there, and an interrupt only for
 * a vCPU that is in the guest. Needs two CPUs.
 */
#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/wait.h>

#include "irq.h"
#include "kselftest_harness.h"
#include "vm.h"

#define SLOT_GPA	0x40000000UL
#define PAGES		2048UL
#define SIZE		(PAGES * PAGE)

/* Writes to each of %rcx pages from %rbx. */
GUEST_CODE(all_pages, 64,
	"1:	movq %rcx, (%rbx)\n"
	"	addq $0x1000, %rbx\n"
	"	decq %rcx\n"
	"	jnz 1b\n"
	"	outb %al, $" STR(PORT_DONE) "\n");

/* Tells what is in the first word of the slot, for ever. */
GUEST_CODE(look, 64,
	"	sti\n"
	"1:	movq 0x40000000, %rax\n"
	"	movq %rax, 0x100000\n"
	"	jmp 1b\n");

/* Looks at the slot, software-enables the local APIC, and halts. */
GUEST_CODE(halt, 64,
	"	movl $0xfee000f0, %edi\n"
	"	movl $0x1ff, (%rdi)\n"
	"	movq 0x40000000, %rax\n"
	"	sti\n"
	"	hlt\n"
	"	outb %al, $" STR(PORT_DONE) "\n");

FIXTURE(memory_flush) {
	struct vm vm;
	struct vcpu vcpu;
	char *mem;
};

static long requests(FIXTURE_DATA(memory_flush) *self)
{
	return vm_stat(&self->vm, "remote_tlb_flush_requests");
}

static long kicks(FIXTURE_DATA(memory_flush) *self)
{
	return vm_stat(&self->vm, "remote_tlb_flush");
}

static void pin(pthread_t thread, int cpu)
{
	cpu_set_t set;

	CPU_ZERO(&set);
	CPU_SET(cpu, &set);
	if (pthread_setaffinity_np(thread, sizeof(set), &set))
		die("affinity");
}

FIXTURE_SETUP(memory_flush)
{
	struct kvm_enable_cap split = { .cap = KVM_CAP_SPLIT_IRQCHIP, .args = { 24 } };

	if (!guests_can_page())
		SKIP(return, "the guest would page");
	vm_create(&self->vm, VM_MEMORY);
	xioctl(self->vm.fd, KVM_ENABLE_CAP, &split);
	vcpu_start(&self->vcpu, &self->vm, MODE_LONG);
	self->mem = memory_alloc(SIZE, SZ_2M);
	madvise(self->mem, SIZE, MADV_NOHUGEPAGE);
	memset(self->mem, 1, SIZE);
	ASSERT_EQ(vm_set_slot(&self->vm, 1, 0, SLOT_GPA, SIZE, self->mem), 0);
}

FIXTURE_TEARDOWN(memory_flush)
{
	if (!self->mem)
		return;
	vcpu_destroy(&self->vcpu);
	vm_destroy(&self->vm);
	munmap(self->mem, SIZE);
}

/* Has the guest write all pages of the slot. */
static void map_all(FIXTURE_DATA(memory_flush) *self)
{
	struct kvm_regs regs = {
		.rip = CODE_GPA, .rsp = STACK_GPA, .rflags = 2, .rbx = SLOT_GPA, .rcx = PAGES,
	};

	vm_load(&self->vm, CODE_GPA, all_pages);
	vcpu_set_regs(&self->vcpu, &regs);
	vcpu_run_to_port(&self->vcpu, PORT_DONE);
}

#define EXPECT_ALL_MAPPED()	EXPECT_GE(vm_stat(&self->vm, "pages_4k"), PAGES)
#define EXPECT_NONE_MAPPED()	EXPECT_LT(vm_stat(&self->vm, "pages_4k"), 64)

TEST_F(memory_flush, one_flush_for_many_pages)
{
	long before;

	/* A range of the client's memory. */
	map_all(self);
	EXPECT_ALL_MAPPED();
	before = requests(self);
	ASSERT_EQ(madvise(self->mem, SIZE, MADV_DONTNEED), 0);
	EXPECT_EQ(requests(self), before + 1);
	EXPECT_NONE_MAPPED();

	map_all(self);
	EXPECT_ALL_MAPPED();
	before = requests(self);
	ASSERT_EQ(mprotect(self->mem, SIZE, PROT_READ), 0);
	EXPECT_EQ(requests(self), before + 1);
	EXPECT_NONE_MAPPED();
	ASSERT_EQ(mprotect(self->mem, SIZE, PROT_READ | PROT_WRITE), 0);

	/* A slot. */
	map_all(self);
	EXPECT_ALL_MAPPED();
	before = requests(self);
	ASSERT_EQ(vm_set_slot(&self->vm, 1, 0, SLOT_GPA, 0, NULL), 0);
	EXPECT_LE(requests(self), before + 2);
	EXPECT_GT(requests(self), before);
	EXPECT_NONE_MAPPED();

	/* Where nothing was mapped, nothing is flushed. */
	ASSERT_EQ(vm_set_slot(&self->vm, 1, 0, SLOT_GPA, SIZE, self->mem), 0);
	before = requests(self);
	ASSERT_EQ(madvise(self->mem, SIZE, MADV_DONTNEED), 0);
	EXPECT_EQ(requests(self), before);

	/* A log of writes begins and is taken: one for all pages. */
	map_all(self);
	before = requests(self);
	ASSERT_EQ(vm_set_slot(&self->vm, 1, KVM_MEM_LOG_DIRTY_PAGES, SLOT_GPA, SIZE,
			      self->mem), 0);
	if (device_is_kvm_rs())
		EXPECT_EQ(requests(self), before + 1);
	EXPECT_ALL_MAPPED();
	map_all(self);
	before = requests(self);
	{
		uint64_t bitmap[PAGES / 64] = {};
		struct kvm_dirty_log log = { .slot = 1, .dirty_bitmap = bitmap };

		xioctl(self->vm.fd, KVM_GET_DIRTY_LOG, &log);
		EXPECT_EQ(bitmap[0], ~0UL);
		EXPECT_EQ(bitmap[PAGES / 64 - 1], ~0UL);
	}
	EXPECT_EQ(requests(self), before + 1);
}

TEST_F(memory_flush, a_vcpu_outside_of_the_guest_is_left_alone)
{
	long flushes, exits, before, kicked;

	map_all(self);
	flushes = vm_stat(&self->vm, "tlb_flush");
	exits = vm_stat(&self->vm, "exits");
	before = requests(self);
	kicked = kicks(self);
	ASSERT_EQ(madvise(self->mem, SIZE, MADV_DONTNEED), 0);
	ASSERT_EQ(mprotect(self->mem, SIZE, PROT_READ), 0);
	ASSERT_EQ(mprotect(self->mem, SIZE, PROT_READ | PROT_WRITE), 0);
	EXPECT_GT(requests(self), before);
	EXPECT_EQ(kicks(self), kicked);
	EXPECT_EQ(vm_stat(&self->vm, "exits"), exits);
	EXPECT_EQ(vm_stat(&self->vm, "tlb_flush"), flushes);
	/* It flushes once, before it next enters. */
	map_all(self);
	EXPECT_EQ(vm_stat(&self->vm, "tlb_flush"), flushes + 1);
	EXPECT_EQ(kicks(self), kicked);
}

static void *run_vcpu(void *arg)
{
	struct vcpu *vcpu = arg;

	/* Interrupted at the end, or done. */
	vcpu_run(vcpu);
	return NULL;
}

static void no_op(int signal)
{
}

static void set_rip(struct vcpu *vcpu)
{
	struct kvm_regs regs = { .rip = CODE_GPA, .rsp = STACK_GPA, .rflags = 2 };

	vcpu_set_regs(vcpu, &regs);
}

TEST_F(memory_flush, a_halted_vcpu_is_left_alone)
{
	struct kvm_msi nmi = { .address_lo = 0xfee00000, .data = 0x400 };
	long exits, before, kicked;
	pthread_t thread;

	vm_load(&self->vm, CODE_GPA, halt);
	set_rip(&self->vcpu);
	memset(self->mem, 2, PAGE);
	pthread_create(&thread, NULL, run_vcpu, &self->vcpu);
	while (vm_stat(&self->vm, "halt_exits") == 0)
		usleep(1000);
	/* It has stopped to poll, too. */
	usleep(20000);
	exits = vm_stat(&self->vm, "exits");
	before = requests(self);
	kicked = kicks(self);
	ASSERT_EQ(madvise(self->mem, PAGE, MADV_DONTNEED), 0);
	EXPECT_EQ(requests(self), before + 1);
	EXPECT_EQ(kicks(self), kicked);
	usleep(20000);
	EXPECT_EQ(vm_stat(&self->vm, "exits"), exits);
	/* The guest does not expect what wakes it, and says so. */
	ASSERT_EQ(try_ioctl(self->vm.fd, KVM_SIGNAL_MSI, (unsigned long)&nmi), 1);
	pthread_join(thread, NULL);
	EXPECT_GT(vm_stat(&self->vm, "exits"), exits);
}

TEST_F(memory_flush, a_vcpu_in_the_guest_is_interrupted)
{
	struct sigaction action = { .sa_handler = no_op };
	volatile uint64_t *seen = vm_u64(&self->vm, DATA_GPA);
	volatile uint64_t *word = (uint64_t *)self->mem;
	long exits, kicked, before;
	unsigned int i, late = 0;
	pthread_t thread;

	if (sysconf(_SC_NPROCESSORS_ONLN) < 2)
		SKIP(return, "needs two CPUs");
	sigaction(SIGUSR1, &action, NULL);
	pin(pthread_self(), 0);
	vm_load(&self->vm, CODE_GPA, look);
	set_rip(&self->vcpu);
	word[0] = 100;
	pthread_create(&thread, NULL, run_vcpu, &self->vcpu);
	pin(thread, 1);
	while (seen[0] != 100)
		usleep(1000);
	before = requests(self);
	kicked = kicks(self);
	exits = vm_stat(&self->vm, "exits");
	for (i = 0; i < 20; i++) {
		ASSERT_EQ(madvise(self->mem, SIZE, MADV_DONTNEED), 0);
		word[0] = 101 + i;
		while (seen[0] != 101 + i)
			sched_yield();
		/* Once it has seen the new page, it does not see the old. */
		late += seen[0] != 101 + i;
	}
	EXPECT_EQ(late, 0);
	EXPECT_GE(requests(self), before + 20);
	/* It was in the guest nearly always. */
	EXPECT_GE(kicks(self), kicked + 10);
	EXPECT_GE(vm_stat(&self->vm, "exits"), exits + 10);
	while (pthread_tryjoin_np(thread, NULL) == EBUSY) {
		pthread_kill(thread, SIGUSR1);
		usleep(1000);
	}
}

static void send_fd(int socket, int fd)
{
	char control[CMSG_SPACE(sizeof(int))] = {}, byte = 0;
	struct iovec iov = { .iov_base = &byte, .iov_len = 1 };
	struct msghdr msg = {
		.msg_iov = &iov, .msg_iovlen = 1,
		.msg_control = control, .msg_controllen = sizeof(control),
	};
	struct cmsghdr *cmsg = CMSG_FIRSTHDR(&msg);

	cmsg->cmsg_level = SOL_SOCKET;
	cmsg->cmsg_type = SCM_RIGHTS;
	cmsg->cmsg_len = CMSG_LEN(sizeof(int));
	memcpy(CMSG_DATA(cmsg), &fd, sizeof(int));
	if (sendmsg(socket, &msg, 0) != 1)
		die("sendmsg: %s", strerror(errno));
}

static int receive_fd(int socket)
{
	char control[CMSG_SPACE(sizeof(int))], byte;
	struct iovec iov = { .iov_base = &byte, .iov_len = 1 };
	struct msghdr msg = {
		.msg_iov = &iov, .msg_iovlen = 1,
		.msg_control = control, .msg_controllen = sizeof(control),
	};
	int fd;

	if (recvmsg(socket, &msg, 0) != 1)
		die("recvmsg: %s", strerror(errno));
	memcpy(&fd, CMSG_DATA(CMSG_FIRSTHDR(&msg)), sizeof(int));
	return fd;
}

/* The client goes, and its VM stays, with somebody else: nothing of the memory stays mapped. */
TEST(all_goes_with_the_client)
{
	FIXTURE_DATA(memory_flush) data = {}, *self = &data;
	int pair[2], vm, status;
	pid_t child;
	long before = module_stat("ept_4k");

	if (before < 0 || !guests_can_page())
		SKIP(return, "no statistics, or the guest would page");
	ASSERT_EQ(socketpair(AF_UNIX, SOCK_STREAM, 0, pair), 0);
	child = fork();
	if (!child) {
		vm_create(&self->vm, VM_MEMORY);
		vcpu_start(&self->vcpu, &self->vm, MODE_LONG);
		self->mem = memory_alloc(SIZE, SZ_2M);
		madvise(self->mem, SIZE, MADV_NOHUGEPAGE);
		memset(self->mem, 1, SIZE);
		if (vm_set_slot(&self->vm, 1, 0, SLOT_GPA, SIZE, self->mem))
			die("slot");
		map_all(self);
		send_fd(pair[1], self->vm.fd);
		read(pair[1], &status, 1);
		_exit(0);
	}
	vm = receive_fd(pair[0]);
	EXPECT_GE(module_stat("ept_4k"), before + (long)PAGES);
	ASSERT_EQ(write(pair[0], "", 1), 1);
	waitpid(child, &status, 0);
	EXPECT_EQ(status, 0);
	EXPECT_EQ(module_stat("ept_4k"), before);
	EXPECT_EQ(try_ioctl(vm, KVM_CHECK_EXTENSION, KVM_CAP_USER_MEMORY), -EIO);
	close(vm);
	close(pair[0]);
	close(pair[1]);
}

TEST_HARNESS_MAIN
