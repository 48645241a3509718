// SPDX-License-Identifier: GPL-2.0
/*
 * Pages that are away when the guest accesses them, as userfaultfd makes them: a
 * guest that knows of KVM gets a #PF with a token and runs something else, until
 * an interrupt tells that the page is there; another one waits, and takes
 * interrupts. What is under way may outlive the vCPU, the VM and the process.
 */
#include <linux/kvm_para.h>
#include <linux/userfaultfd.h>
#include <poll.h>
#include <signal.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <time.h>

#include "irq.h"
#include "kselftest_harness.h"
#include "state.h"
#include "vm.h"

#define VECTOR		0x40		/* a page is there */
#define OTHER_VECTOR	0x50
#define SLOT_GPA	0x40000000UL
#define PAGES		72		/* more than a vCPU may be without */
#define MOST		64

#define FAULT_GPA	0x30000UL
#define READY_GPA	0x31000UL
#define ELSE_GPA	0x32000UL

/* What guest and client share. */
#define AREA		0x102000UL	/* struct kvm_vcpu_pv_apf_data */
#define N_TOKENS	0x103000UL	/* tokens of pages that are away, so far */
#define N_READY		0x103008UL	/* and of pages that are there */
#define RESUME		0x103010UL	/* where the guest goes when a page is away, or 0 */
#define PROGRESS	0x103018UL
#define RESULT		0x103020UL
#define TOKENS		0x104000UL
#define READY		0x105000UL

#define SEL_USER_CODE	0x40
#define SEL_USER_DATA	0x48
#define RSP0_GPA	"0x1804"	/* in the TSS */

#define EVERY_PAGE	0xffffffffUL
#define ENABLED		(KVM_ASYNC_PF_ENABLED | KVM_ASYNC_PF_DELIVERY_AS_INT)

/* #PF: notes the token, and goes on at RESUME if that is set. */
GUEST_CODE(on_fault, 64,
	"	pushq %rax\n"
	"	pushq %rdx\n"
	"	cmpl $1, 0x102000\n"
	"	jne 1f\n"
	"	movl $0, 0x102000\n"
	"	cmpq $0, 16(%rsp)\n"		/* the error code */
	"	jne 1f\n"
	"	movq %cr2, %rax\n"
	"	movq 0x103000, %rdx\n"
	"	movq %rax, 0x104000(,%rdx,8)\n"
	"	incq 0x103000\n"
	"	movq 0x103010, %rax\n"
	"	testq %rax, %rax\n"
	"	jz 2f\n"
	"	movq %rax, 24(%rsp)\n"
	"2:	popq %rdx\n"
	"	popq %rax\n"
	"	addq $8, %rsp\n"
	"	iretq\n"
	"1:	outb %al, $" STR(PORT_EXCEPTION) "\n"
	"	jmp 1b\n");

/* The interrupt: notes the token, ends the interrupt, and asks for the next. */
GUEST_CODE(on_ready, 64,
	"	pushq %rax\n"
	"	pushq %rcx\n"
	"	pushq %rdx\n"
	"	movl 0x102004, %eax\n"
	"	movq 0x103008, %rdx\n"
	"	movq %rax, 0x105000(,%rdx,8)\n"
	"	movl $0, 0x102004\n"
	"	movl $0xfee000b0, %ecx\n"
	"	movl $0, (%rcx)\n"
	"	incq 0x103008\n"
	"	movl $0x4b564d07, %ecx\n"	/* MSR_KVM_ASYNC_PF_ACK */
	"	movl $1, %eax\n"
	"	xorl %edx, %edx\n"
	"	wrmsr\n"
	"	popq %rdx\n"
	"	popq %rcx\n"
	"	popq %rax\n"
	"	iretq\n");

/* Waits to be told of every page, if %rdi is 1, and accesses the one at %rbx. */
#define TAKE_BROADCAST							\
	"	sti\n"							\
	"	testq %rdi, %rdi\n"					\
	"	jz 2f\n"						\
	"1:	cmpq $0, 0x103008\n"					\
	"	je 1b\n"						\
	"	movq $0, 0x103008\n"					\
	"2:\n"
#define FINISH								\
	"	movq (%rbx), %rax\n"					\
	"	movq %rax, 0x103020\n"					\
	"	outb %al, $" STR(PORT_DONE) "\n"
GUEST_CODE(touch, 64,
	TAKE_BROADCAST
	FINISH);
/* The same with interrupts off. */
GUEST_CODE(touch_deaf, 64,
	TAKE_BROADCAST
	"	cli\n"
	"	incq 0x103018\n"
	FINISH);
/* The same on another stack. */
GUEST_CODE(touch_on_stack, 64,
	TAKE_BROADCAST
	"	movq %rsi, " RSP0_GPA "\n"
	FINISH);
/* Something else: counts, or halts, until a page is there. */
GUEST_CODE(count, 64,
	"1:	incq 0x103018\n"
	"	cmpq $0, 0x103008\n"
	"	je 1b\n"
	FINISH);
GUEST_CODE(halt, 64,
	"1:	cli\n"
	"	incq 0x103018\n"
	"	cmpq $0, 0x103008\n"
	"	jne 2f\n"
	"	sti\n"
	"	hlt\n"
	"	jmp 1b\n"
	"2:	sti\n"
	FINISH);
/* Touches %rcx pages without waiting for any, then sums up their first words. */
GUEST_CODE(touch_many, 64,
	TAKE_BROADCAST
	"	movq %rcx, %r9\n"
	"	movq %rbx, %r8\n"
	"	leaq 4f(%rip), %rax\n"
	"	movq %rax, 0x103010\n"
	"3:	movq (%rbx), %rax\n"
	"4:	addq $0x1000, %rbx\n"
	"	decq %rcx\n"
	"	jnz 3b\n"
	"	incq 0x103018\n"
	"5:	movq 0x103000, %rax\n"
	"	cmpq %rax, 0x103008\n"
	"	jne 5b\n"
	"	xorl %eax, %eax\n"
	"6:	addq (%r8), %rax\n"
	"	addq $0x1000, %r8\n"
	"	decq %r9\n"
	"	jnz 6b\n"
	"	movq %rax, 0x103020\n"
	"	outb %al, $" STR(PORT_DONE) "\n");

FIXTURE(async_pf) {
	struct vm vm;
	struct vcpu vcpu;
	struct runner runner;
	int uffd;
	char *mem;
};

/* A client's memory whose pages come only when it gives them; -1 if there is no such. */
static int missing(char **mem)
{
	struct uffdio_register range = { .mode = UFFDIO_REGISTER_MODE_MISSING };
	struct uffdio_api api = { .api = UFFD_API };
	int fd = syscall(SYS_userfaultfd, O_CLOEXEC | O_NONBLOCK);

	if (fd < 0)
		return -1;
	*mem = memory_alloc(PAGES * PAGE, SZ_2M);
	madvise(*mem, PAGES * PAGE, MADV_NOHUGEPAGE);
	range.range.start = (uintptr_t)*mem;
	range.range.len = PAGES * PAGE;
	if (ioctl(fd, UFFDIO_API, &api) || ioctl(fd, UFFDIO_REGISTER, &range)) {
		close(fd);
		return -1;
	}
	return fd;
}

static uint64_t first_word(unsigned int page)
{
	return 0x1234567 + page;
}

/* Gives a page. */
static void fill(int uffd, char *mem, unsigned int page)
{
	static uint64_t data[PAGE / 8] __attribute__((aligned(PAGE)));
	struct uffdio_copy copy = {
		.dst = (uintptr_t)mem + page * PAGE,
		.src = (uintptr_t)data,
		.len = PAGE,
	};

	data[0] = first_word(page);
	if (ioctl(uffd, UFFDIO_COPY, &copy))
		die("UFFDIO_COPY: %s", strerror(errno));
}

/* Waits until somebody asks for a page. */
static bool wait_asked(int uffd, char *mem, unsigned int page)
{
	struct pollfd p = { .fd = uffd, .events = POLLIN };
	struct uffd_msg msg;

	while (poll(&p, 1, 20000) == 1) {
		if (read(uffd, &msg, sizeof(msg)) != sizeof(msg))
			continue;
		if (msg.event == UFFD_EVENT_PAGEFAULT &&
		    (msg.arg.pagefault.address & -PAGE) == (uintptr_t)mem + page * PAGE)
			return true;
	}
	return false;
}

static bool wait_nonzero(volatile uint64_t *word)
{
	unsigned int tries;

	for (tries = 0; tries < 20000 && !*word; tries++)
		usleep(1000);
	return *word;
}

static long set_msr(struct vcpu *vcpu, uint32_t index, uint64_t value)
{
	struct {
		struct kvm_msrs head;
		struct kvm_msr_entry entry;
	} msrs = { { .nmsrs = 1 }, { .index = index, .data = value } };

	return try_ioctl(vcpu->fd, KVM_SET_MSRS, (unsigned long)&msrs);
}

/* Software-enables the local APIC. */
static void enable_apic(struct vcpu *vcpu)
{
	struct kvm_lapic_state lapic;

	xioctl(vcpu->fd, KVM_GET_LAPIC, &lapic);
	lapic.regs[0xf0] = 0xff;
	lapic.regs[0xf1] = 1;
	xioctl(vcpu->fd, KVM_SET_LAPIC, &lapic);
}

static bool make_vm(struct vm *vm, char *mem)
{
	vm_create(vm, VM_MEMORY);
	if (vm_split_irqchip(vm, 24) || vm_set_slot(vm, 1, 0, SLOT_GPA, PAGES * PAGE, mem))
		return false;
	irq_install_handlers(vm);
	vm_load(vm, FAULT_GPA, on_fault);
	vm_load(vm, READY_GPA, on_ready);
	irq_set_gate(vm, 14, FAULT_GPA);
	irq_set_gate(vm, VECTOR, READY_GPA);
	*vm_u64(vm, GDT_GPA + SEL_USER_CODE) = 0x00affb000000ffff;
	*vm_u64(vm, GDT_GPA + SEL_USER_DATA) = 0x00cff3000000ffff;
	*(uint64_t *)(vm->mem + TSS_GPA + 4) = STACK_GPA - PAGE;
	return true;
}

static bool make(struct vm *vm, struct vcpu *vcpu, char *mem)
{
	if (!make_vm(vm, mem))
		return false;
	vcpu_start(vcpu, vm, MODE_LONG);
	irq_load_idt(vcpu);
	enable_apic(vcpu);
	return true;
}

FIXTURE_SETUP(async_pf)
{
	self->vcpu.run = NULL;
	self->uffd = missing(&self->mem);
	if (self->uffd < 0)
		SKIP(return, "no userfaultfd");
	ASSERT_TRUE(make(&self->vm, &self->vcpu, self->mem));
	self->runner = (struct runner) { .vcpu = &self->vcpu };
}

FIXTURE_TEARDOWN(async_pf)
{
	if (!self->vcpu.run)
		return;
	/* What is away will not come. */
	close(self->uffd);
	vcpu_destroy(&self->vcpu);
	vm_destroy(&self->vm);
	munmap(self->mem, PAGES * PAGE);
}

/* Has the guest told of pages as @flags say. */
static void enable(struct vcpu *vcpu, uint64_t flags)
{
	vcpu_set_msr(vcpu, MSR_KVM_ASYNC_PF_INT, VECTOR);
	vcpu_set_msr(vcpu, MSR_KVM_ASYNC_PF_EN, AREA | flags);
}

/* Has the guest run at privilege level 3, where it may use ports and interrupts. */
static void make_user(struct vcpu *vcpu)
{
	struct kvm_sregs sregs = vcpu_sregs(vcpu);
	struct kvm_regs regs = vcpu_regs(vcpu);

	sregs.gdt.limit = SEL_USER_DATA + 7;
	sregs.cs.selector = SEL_USER_CODE | 3;
	sregs.ss.selector = SEL_USER_DATA | 3;
	sregs.cs.dpl = sregs.ss.dpl = 3;
	vcpu_set_sregs(vcpu, &sregs);
	regs.rflags |= 0x3000;
	vcpu_set_regs(vcpu, &regs);
}

/* Has the guest access page @page, and do something else at @resume if it can. */
static void prepare(struct vcpu *vcpu, unsigned int page, uint64_t resume, bool broadcast)
{
	struct kvm_regs regs = vcpu_regs(vcpu);

	regs.rip = CODE_GPA;
	regs.rbx = SLOT_GPA + page * PAGE;
	regs.rcx = PAGES;
	regs.rsi = SLOT_GPA + 2 * PAGE;
	regs.rdi = broadcast;
	vcpu_set_regs(vcpu, &regs);
	*vm_u64(vcpu->vm, RESUME) = resume;
}

#define start(self)	runner_start(&(self)->runner)

#define EXPECT_DONE(self, page)							\
	do {									\
		runner_join(&(self)->runner);					\
		EXPECT_EQ((self)->runner.error, 0);				\
		EXPECT_EQ((self)->vcpu.run->exit_reason, KVM_EXIT_IO);		\
		EXPECT_EQ((self)->vcpu.run->io.port, PORT_DONE);		\
		EXPECT_EQ(*vm_u64(&(self)->vm, RESULT), first_word(page));	\
	} while (0)

#define n_tokens(self)	(*vm_u64(&(self)->vm, N_TOKENS))
#define n_ready(self)	(*vm_u64(&(self)->vm, N_READY))
#define token(self, i)	(*vm_u64(&(self)->vm, TOKENS + (i) * 8))
#define ready(self, i)	(*vm_u64(&(self)->vm, READY + (i) * 8))

static uint32_t features(void)
{
	struct {
		struct kvm_cpuid2 head;
		struct kvm_cpuid_entry2 entries[256];
	} cpuid = { { .nent = 256 } };
	int dev = device_open();
	unsigned int i;

	xioctl(dev, KVM_GET_SUPPORTED_CPUID, &cpuid);
	close(dev);
	for (i = 0; i < cpuid.head.nent; i++) {
		if (cpuid.entries[i].function == KVM_CPUID_FEATURES)
			return cpuid.entries[i].eax;
	}
	return 0;
}

/* CPUID and the MSRs. */
TEST_F(async_pf, msrs)
{
	uint32_t wanted = 1 << KVM_FEATURE_ASYNC_PF | 1 << KVM_FEATURE_ASYNC_PF_VMEXIT |
			  1 << KVM_FEATURE_ASYNC_PF_INT;
	struct vcpu *vcpu = &self->vcpu;
	struct vcpu bare_vcpu;
	struct vm bare;

	EXPECT_EQ(features() & wanted, wanted);
	EXPECT_EQ(vcpu_msr(vcpu, MSR_KVM_ASYNC_PF_EN), 0);
	EXPECT_EQ(vcpu_msr(vcpu, MSR_KVM_ASYNC_PF_INT), 0);
	EXPECT_EQ(set_msr(vcpu, MSR_KVM_ASYNC_PF_INT, 0x1ff), 0);
	EXPECT_EQ(set_msr(vcpu, MSR_KVM_ASYNC_PF_INT, VECTOR), 1);
	EXPECT_EQ(vcpu_msr(vcpu, MSR_KVM_ASYNC_PF_INT), VECTOR);
	EXPECT_EQ(set_msr(vcpu, MSR_KVM_ASYNC_PF_ACK, 1), 1);
	EXPECT_EQ(vcpu_msr(vcpu, MSR_KVM_ASYNC_PF_ACK), 0);
	/* Bits 4 and 5 are reserved, and what is told needs memory. */
	EXPECT_EQ(set_msr(vcpu, MSR_KVM_ASYNC_PF_EN, AREA | ENABLED | 0x10), 0);
	EXPECT_EQ(set_msr(vcpu, MSR_KVM_ASYNC_PF_EN, AREA | ENABLED | 0x20), 0);
	EXPECT_EQ(set_msr(vcpu, MSR_KVM_ASYNC_PF_EN, MMIO_GPA | ENABLED), 0);
	EXPECT_EQ(vcpu_msr(vcpu, MSR_KVM_ASYNC_PF_EN), 0);
	EXPECT_EQ(set_msr(vcpu, MSR_KVM_ASYNC_PF_EN, MMIO_GPA | KVM_ASYNC_PF_ENABLED), 1);
	EXPECT_EQ(vcpu_msr(vcpu, MSR_KVM_ASYNC_PF_EN), MMIO_GPA | KVM_ASYNC_PF_ENABLED);
	EXPECT_EQ(set_msr(vcpu, MSR_KVM_ASYNC_PF_EN, AREA | 0xf), 1);
	EXPECT_EQ(vcpu_msr(vcpu, MSR_KVM_ASYNC_PF_EN), AREA | 0xf);

	/* Without a local APIC there is nothing to be told. */
	vm_create(&bare, VM_MEMORY);
	vcpu_start(&bare_vcpu, &bare, MODE_LONG);
	EXPECT_EQ(set_msr(&bare_vcpu, MSR_KVM_ASYNC_PF_EN, 0), 1);
	EXPECT_EQ(set_msr(&bare_vcpu, MSR_KVM_ASYNC_PF_EN, AREA | ENABLED), 0);
	EXPECT_EQ(set_msr(&bare_vcpu, MSR_KVM_ASYNC_PF_INT, VECTOR), 0);
	vcpu_destroy(&bare_vcpu);
	vm_destroy(&bare);
}

/* What the guest is told, in the mode that is prepared, while it counts or halts. */
#define TOLD(self, vm, something)						\
	do {									\
		uint64_t progress;						\
										\
		vm_load(vm, CODE_GPA, touch);					\
		vm_load(vm, ELSE_GPA, something);				\
		prepare(&(self)->vcpu, 3, ELSE_GPA, true);			\
		start(self);							\
		ASSERT_TRUE(wait_asked((self)->uffd, (self)->mem, 3));		\
		ASSERT_TRUE(wait_nonzero(vm_u64(vm, PROGRESS)));		\
		progress = *vm_u64(vm, PROGRESS);				\
		EXPECT_EQ(ready(self, 0), EVERY_PAGE);				\
		EXPECT_EQ(n_tokens(self), 1);					\
		EXPECT_NE(token(self, 0) >> 12, 0);				\
		EXPECT_EQ(token(self, 0) & 0xfff, 0);				\
		usleep(20000);							\
		EXPECT_EQ(n_ready(self), 0);					\
		/* It goes on, or goes on when an interrupt comes. */		\
		irq_send_msi(vm, 0, OTHER_VECTOR);				\
		EXPECT_TRUE(irq_wait_count(vm, OTHER_VECTOR, 1));		\
		usleep(20000);							\
		EXPECT_GT(*vm_u64(vm, PROGRESS), progress);			\
		EXPECT_EQ(n_ready(self), 0);					\
		fill((self)->uffd, (self)->mem, 3);				\
		EXPECT_DONE(self, 3);						\
		EXPECT_EQ(n_tokens(self), 1);					\
		EXPECT_EQ(n_ready(self), 1);					\
		EXPECT_EQ(ready(self, 0), token(self, 0));			\
		EXPECT_EQ(*vm_u64(vm, AREA), 0);				\
	} while (0)

TEST_F(async_pf, told_user)
{
	make_user(&self->vcpu);
	enable(&self->vcpu, ENABLED);
	TOLD(self, &self->vm, count);
}

TEST_F(async_pf, told_user_that_halts)
{
	/* Only the kernel halts. */
	enable(&self->vcpu, ENABLED | KVM_ASYNC_PF_SEND_ALWAYS);
	TOLD(self, &self->vm, halt);
}

TEST_F(async_pf, told_kernel)
{
	enable(&self->vcpu, ENABLED | KVM_ASYNC_PF_SEND_ALWAYS |
	       KVM_ASYNC_PF_DELIVERY_AS_PF_VMEXIT);
	TOLD(self, &self->vm, count);
}

/* Not told: the vCPU waits, takes an interrupt, and may be stopped and looked at. */
#define WAITS(self, broadcast)							\
	do {									\
		struct kvm_mp_state mp;						\
										\
		vm_load(&(self)->vm, CODE_GPA, touch);				\
		vm_load(&(self)->vm, ELSE_GPA, count);				\
		prepare(&(self)->vcpu, 5, ELSE_GPA, broadcast);			\
		start(self);							\
		ASSERT_TRUE(wait_asked((self)->uffd, (self)->mem, 5));		\
		usleep(20000);							\
		irq_send_msi(&(self)->vm, 0, OTHER_VECTOR);			\
		EXPECT_TRUE(irq_wait_count(&(self)->vm, OTHER_VECTOR, 1));	\
		irq_send_msi(&(self)->vm, 0, OTHER_VECTOR);			\
		EXPECT_TRUE(irq_wait_count(&(self)->vm, OTHER_VECTOR, 2));	\
		usleep(20000);							\
		runner_stop(&(self)->runner);					\
		EXPECT_EQ((self)->runner.error, -EINTR);			\
		xioctl((self)->vcpu.fd, KVM_GET_MP_STATE, &mp);			\
		EXPECT_EQ(mp.mp_state, KVM_MP_STATE_RUNNABLE);			\
		EXPECT_EQ(vcpu_regs(&(self)->vcpu).rbx, SLOT_GPA + 5 * PAGE);	\
		start(self);							\
		usleep(20000);							\
		fill((self)->uffd, (self)->mem, 5);				\
		EXPECT_DONE(self, 5);						\
		EXPECT_EQ(n_tokens(self), 0);					\
		EXPECT_EQ(n_ready(self), 0);					\
		EXPECT_EQ(*vm_u64(&(self)->vm, PROGRESS), 0);			\
		EXPECT_EQ(*vm_u64(&(self)->vm, AREA), 0);			\
	} while (0)

TEST_F(async_pf, waits_in_kernel)
{
	enable(&self->vcpu, ENABLED);
	WAITS(self, true);
}

TEST_F(async_pf, waits_if_not_enabled)
{
	make_user(&self->vcpu);
	WAITS(self, false);
}

TEST_F(async_pf, waits_without_interrupt_delivery)
{
	make_user(&self->vcpu);
	vcpu_set_msr(&self->vcpu, MSR_KVM_ASYNC_PF_EN, AREA | KVM_ASYNC_PF_ENABLED);
	WAITS(self, false);
}

/* A page that is not brought in for writing, as nobody may: the vCPU has to wait for it itself. */
TEST_F(async_pf, waits_where_only_reads_are_allowed)
{
	ASSERT_EQ(mprotect(self->mem, PAGES * PAGE, PROT_READ), 0);
	make_user(&self->vcpu);
	enable(&self->vcpu, ENABLED);
	vm_load(&self->vm, CODE_GPA, touch);
	vm_load(&self->vm, ELSE_GPA, count);
	prepare(&self->vcpu, 5, ELSE_GPA, true);
	start(self);
	ASSERT_TRUE(wait_asked(self->uffd, self->mem, 5));
	usleep(20000);
	fill(self->uffd, self->mem, 5);
	EXPECT_DONE(self, 5);
	EXPECT_LE(n_ready(self), 1);
}

/* Where HLT does not exit, a vCPU that is not told does not wait as if in HLT. */
TEST_F(async_pf, waits_where_hlt_does_not_exit)
{
	struct kvm_enable_cap hlt = {
		.cap = KVM_CAP_X86_DISABLE_EXITS,
		.args = { KVM_X86_DISABLE_EXITS_HLT },
	};

	vcpu_destroy(&self->vcpu);
	vm_destroy(&self->vm);
	ASSERT_TRUE(make_vm(&self->vm, self->mem));
	ASSERT_EQ(try_ioctl(self->vm.fd, KVM_ENABLE_CAP, (unsigned long)&hlt), 0);
	vcpu_start(&self->vcpu, &self->vm, MODE_LONG);
	irq_load_idt(&self->vcpu);
	enable_apic(&self->vcpu);
	enable(&self->vcpu, ENABLED);
	vm_load(&self->vm, CODE_GPA, touch);
	vm_load(&self->vm, ELSE_GPA, count);
	prepare(&self->vcpu, 0, ELSE_GPA, true);
	start(self);
	ASSERT_TRUE(wait_asked(self->uffd, self->mem, 0));
	irq_send_msi(&self->vm, 0, OTHER_VECTOR);
	usleep(20000);
	EXPECT_EQ(irq_count(&self->vm, OTHER_VECTOR), 0);
	fill(self->uffd, self->mem, 0);
	EXPECT_DONE(self, 0);
	EXPECT_EQ(n_tokens(self), 0);
}

/* With interrupts off there is nothing to do but to wait. */
TEST_F(async_pf, waits_with_interrupts_off)
{
	enable(&self->vcpu, ENABLED | KVM_ASYNC_PF_SEND_ALWAYS);
	vm_load(&self->vm, CODE_GPA, touch_deaf);
	vm_load(&self->vm, ELSE_GPA, count);
	prepare(&self->vcpu, 0, ELSE_GPA, true);
	start(self);
	ASSERT_TRUE(wait_asked(self->uffd, self->mem, 0));
	irq_send_msi(&self->vm, 0, OTHER_VECTOR);
	usleep(20000);
	EXPECT_EQ(irq_count(&self->vm, OTHER_VECTOR), 0);
	fill(self->uffd, self->mem, 0);
	EXPECT_DONE(self, 0);
	EXPECT_EQ(n_tokens(self), 0);
	EXPECT_EQ(*vm_u64(&self->vm, PROGRESS), 1);
}

/* Many at a time, which come in another order; for what is too much the vCPU waits. */
TEST_F(async_pf, many)
{
	unsigned int i, k, found;
	uint64_t sum = 0;

	make_user(&self->vcpu);
	enable(&self->vcpu, ENABLED);
	vm_load(&self->vm, CODE_GPA, touch_many);
	prepare(&self->vcpu, 0, 0, true);
	start(self);
	ASSERT_TRUE(wait_asked(self->uffd, self->mem, MOST));
	EXPECT_EQ(n_tokens(self), MOST);
	EXPECT_EQ(*vm_u64(&self->vm, PROGRESS), 0);
	for (i = MOST; i < PAGES; i++)
		fill(self->uffd, self->mem, i);
	EXPECT_TRUE(irq_wait_for(vm_u64(&self->vm, PROGRESS), 1));
	EXPECT_EQ(n_tokens(self), MOST);
	EXPECT_EQ(n_ready(self), 0);
	for (i = 0; i < MOST; i++)
		fill(self->uffd, self->mem, MOST - 1 - i);
	runner_join(&self->runner);
	ASSERT_EQ(self->vcpu.run->io.port, PORT_DONE);
	for (i = 0; i < PAGES; i++)
		sum += first_word(i);
	EXPECT_EQ(*vm_u64(&self->vm, RESULT), sum);
	ASSERT_EQ(n_ready(self), MOST);
	for (i = 0; i < MOST; i++) {
		for (k = 0, found = 0; k < MOST; k++) {
			found += ready(self, k) == token(self, i);
			EXPECT_TRUE(i == k || token(self, k) != token(self, i));
		}
		EXPECT_EQ(found, 1);
	}
}

/* Leaves the guest counting, with page 3 away, and the vCPU stopped. */
static bool leave_away(FIXTURE_DATA(async_pf) *self)
{
	make_user(&self->vcpu);
	enable(&self->vcpu, ENABLED);
	vm_load(&self->vm, CODE_GPA, touch);
	vm_load(&self->vm, ELSE_GPA, count);
	prepare(&self->vcpu, 3, ELSE_GPA, true);
	start(self);
	if (!wait_asked(self->uffd, self->mem, 3) || !wait_nonzero(vm_u64(&self->vm, PROGRESS)))
		return false;
	runner_stop(&self->runner);
	return n_tokens(self) == 1 && n_ready(self) == 0;
}

/* A guest that is not to be told any more is not; told again, it hears of all pages. */
TEST_F(async_pf, disabled)
{
	ASSERT_TRUE(leave_away(self));
	/* kvm_intel waits for what is under way. */
	if (!device_is_kvm_rs())
		fill(self->uffd, self->mem, 3);
	vcpu_set_msr(&self->vcpu, MSR_KVM_ASYNC_PF_EN, 0);
	if (device_is_kvm_rs())
		fill(self->uffd, self->mem, 3);
	start(self);
	usleep(50000);
	runner_stop(&self->runner);
	EXPECT_EQ(self->runner.error, -EINTR);
	EXPECT_EQ(n_ready(self), 0);
	enable(&self->vcpu, ENABLED);
	start(self);
	EXPECT_DONE(self, 3);
	EXPECT_EQ(n_ready(self), 1);
	EXPECT_EQ(ready(self, 0), EVERY_PAGE);
}

/* INIT ends all of it. */
TEST_F(async_pf, reset)
{
	struct kvm_mp_state mp;

	ASSERT_TRUE(leave_away(self));
	if (!device_is_kvm_rs())
		fill(self->uffd, self->mem, 3);
	ASSERT_EQ(irq_send_msi(&self->vm, 0, 0x500), 1);
	xioctl(self->vcpu.fd, KVM_GET_MP_STATE, &mp);
	EXPECT_EQ(mp.mp_state, KVM_MP_STATE_RUNNABLE);
	EXPECT_EQ(vcpu_regs(&self->vcpu).rip, 0xfff0);
	EXPECT_EQ(vcpu_msr(&self->vcpu, MSR_KVM_ASYNC_PF_EN), 0);
	EXPECT_EQ(vcpu_msr(&self->vcpu, MSR_KVM_ASYNC_PF_INT), 0);
	if (device_is_kvm_rs())
		fill(self->uffd, self->mem, 3);
	/* The next life has tokens of its own. */
	vcpu_set_mode(&self->vcpu, MODE_LONG);
	irq_load_idt(&self->vcpu);
	enable_apic(&self->vcpu);
	memset(self->vm.mem + N_TOKENS, 0, PAGE);
	make_user(&self->vcpu);
	enable(&self->vcpu, ENABLED);
	prepare(&self->vcpu, 4, ELSE_GPA, true);
	start(self);
	ASSERT_TRUE(wait_asked(self->uffd, self->mem, 4));
	ASSERT_TRUE(wait_nonzero(vm_u64(&self->vm, PROGRESS)));
	usleep(20000);
	EXPECT_EQ(n_tokens(self), 1);
	EXPECT_EQ(n_ready(self), 0);
	fill(self->uffd, self->mem, 4);
	EXPECT_DONE(self, 4);
	EXPECT_EQ(ready(self, 0), token(self, 0));
}

/* A guest that is moved hears of all pages where it comes to. */
TEST_F(async_pf, moved)
{
	static struct state state;
	struct vcpu other_vcpu;
	struct vm other;
	char *mem;

	ASSERT_TRUE(leave_away(self));
	state_save(&self->vcpu, &state, true);
	mem = memory_alloc(PAGES * PAGE, SZ_2M);
	*(uint64_t *)(mem + 3 * PAGE) = first_word(3);
	ASSERT_TRUE(make_vm(&other, mem));
	memcpy(other.mem, self->vm.mem, self->vm.size);
	EXPECT_EQ(state_restore(&other_vcpu, &other, &state, true), 0);
	EXPECT_EQ(vcpu_msr(&other_vcpu, MSR_KVM_ASYNC_PF_EN), AREA | ENABLED);
	EXPECT_EQ(vcpu_msr(&other_vcpu, MSR_KVM_ASYNC_PF_INT), VECTOR);
	vcpu_run_to_port(&other_vcpu, PORT_DONE);
	EXPECT_EQ(*vm_u64(&other, RESULT), first_word(3));
	EXPECT_EQ(*vm_u64(&other, N_READY), 1);
	EXPECT_EQ(*vm_u64(&other, READY), EVERY_PAGE);
	vcpu_destroy(&other_vcpu);
	vm_destroy(&other);
	munmap(mem, PAGES * PAGE);
}

/* A #PF whose delivery needs another page that is away is one of the vCPU's events. */
TEST_F(async_pf, events)
{
	struct kvm_vcpu_events events;

	make_user(&self->vcpu);
	enable(&self->vcpu, ENABLED);
	vm_load(&self->vm, CODE_GPA, touch_on_stack);
	vm_load(&self->vm, ELSE_GPA, count);
	prepare(&self->vcpu, 0, ELSE_GPA, true);
	start(self);
	ASSERT_TRUE(wait_asked(self->uffd, self->mem, 1));
	usleep(20000);
	runner_stop(&self->runner);
	EXPECT_EQ(self->runner.error, -EINTR);
	xioctl(self->vcpu.fd, KVM_GET_VCPU_EVENTS, &events);
	EXPECT_EQ(events.exception.injected, 1);
	EXPECT_EQ(events.exception.nr, 14);
	EXPECT_EQ(events.exception.has_error_code, 1);
	EXPECT_EQ(events.exception.error_code, 0);
	EXPECT_NE(vcpu_sregs(&self->vcpu).cr2, 0);
	EXPECT_EQ(n_tokens(self), 0);
	fill(self->uffd, self->mem, 1);
	start(self);
	ASSERT_TRUE(wait_nonzero(vm_u64(&self->vm, PROGRESS)));
	EXPECT_EQ(n_tokens(self), 1);
	fill(self->uffd, self->mem, 0);
	EXPECT_DONE(self, 0);
	EXPECT_EQ(ready(self, 0), token(self, 0));
}

/* A VM that goes does not wait for a page that is away, and the page may come later. */
TEST_F(async_pf, destroyed)
{
	ASSERT_TRUE(leave_away(self));
	if (!device_is_kvm_rs())
		fill(self->uffd, self->mem, 3);
	vcpu_destroy(&self->vcpu);
	vm_destroy(&self->vm);
	if (device_is_kvm_rs())
		fill(self->uffd, self->mem, 3);
	/* Another one finds the page as it is. */
	ASSERT_TRUE(make(&self->vm, &self->vcpu, self->mem));
	vm_load(&self->vm, CODE_GPA, touch);
	prepare(&self->vcpu, 3, 0, false);
	start(self);
	EXPECT_DONE(self, 3);
}

/* A process that is killed is gone, whatever it waited for. */
TEST_F(async_pf, killed)
{
	FIXTURE_DATA(async_pf) child = {};
	int status, pipes[2], i;
	char byte;
	pid_t pid;

	if (!device_is_kvm_rs())
		SKIP(return, "kvm_intel may wait for ever");
	for (i = 0; i < 3; i++) {
		ASSERT_EQ(pipe(pipes), 0);
		pid = fork();
		if (!pid) {
			child.uffd = missing(&child.mem);
			child.runner.vcpu = &child.vcpu;
			if (child.uffd < 0 || !make(&child.vm, &child.vcpu, child.mem))
				_exit(1);
			if (i < 2 && !leave_away(&child))
				_exit(1);
			if (i == 1)
				start(&child);
			if (i == 2) {
				/* This one waits by itself. */
				vm_load(&child.vm, CODE_GPA, touch);
				prepare(&child.vcpu, 3, 0, false);
				start(&child);
				if (!wait_asked(child.uffd, child.mem, 3))
					_exit(1);
			}
			if (write(pipes[1], "x", 1) != 1)
				_exit(1);
			for (;;)
				pause();
		}
		close(pipes[1]);
		EXPECT_EQ(read(pipes[0], &byte, 1), 1);
		usleep(20000);
		kill(pid, SIGKILL);
		ASSERT_EQ(waitpid(pid, &status, 0), pid);
		EXPECT_TRUE(WIFSIGNALED(status));
		close(pipes[0]);
	}
}

TEST_HARNESS_MAIN
