// SPDX-License-Identifier: GPL-2.0
/*
 * Exits that the client does without: HLT, PAUSE, MONITOR and MWAIT, and reads of
 * some MSRs do what they do without an exit, and the guest still takes interrupts.
 */
#include <linux/kvm_para.h>

#include "irq.h"
#include "kselftest_harness.h"
#include "vm.h"

#define TIMER_VECTOR	0x60
#define OTHER_VECTOR	0x61
#define DEADLINE	0x40000
#define ROUNDS		20

#define COUNT		(IRQ_COUNTERS_GPA + TIMER_VECTOR * 8)
#define PROGRESS	0x102000UL
#define RESULT		0x102008UL

#define ENABLE_APIC							\
	"	movl $0xfee000f0, %eax\n"				\
	"	movl $0x1ff, (%rax)\n"
/* Sets a TSC deadline that is %rdi ticks away. */
#define SET_DEADLINE							\
	"	movl $0xfee00320, %eax\n"				\
	"	movl $0x40060, (%rax)\n"				\
	"	rdtsc\n"						\
	"	shlq $32, %rdx\n"					\
	"	orq %rdx, %rax\n"					\
	"	addq %rdi, %rax\n"					\
	"	movq %rax, %rdx\n"					\
	"	shrq $32, %rdx\n"					\
	"	movl $0x6e0, %ecx\n"					\
	"	wrmsr\n"

/* Waits %r9 times for the timer, by HLT or by MWAIT; 0x100300 counts the interrupts. */
GUEST_CODE(halts, 64,
	ENABLE_APIC
	"1:	cli\n"
	"	movq 0x100300, %r8\n"
	SET_DEADLINE
	"2:	sti\n"
	"	hlt\n"
	"	cli\n"
	"	cmpq 0x100300, %r8\n"
	"	je 2b\n"
	"	decq %r9\n"
	"	jnz 1b\n"
	"	outb %al, $" STR(PORT_DONE) "\n");
GUEST_CODE(waits, 64,
	ENABLE_APIC
	"1:	sti\n"
	"	movq 0x100300, %r8\n"
	SET_DEADLINE
	"2:	movl $0x102000, %eax\n"
	"	xorl %ecx, %ecx\n"
	"	xorl %edx, %edx\n"
	"	monitor\n"
	"	cmpq 0x100300, %r8\n"
	"	jne 3f\n"
	"	xorl %eax, %eax\n"
	"	mwait\n"
	"	cmpq 0x100300, %r8\n"
	"	je 2b\n"
	"3:	decq %r9\n"
	"	jnz 1b\n"
	"	outb %al, $" STR(PORT_DONE) "\n");
/* %rcx times PAUSE. */
GUEST_CODE(pauses, 64,
	"1:	pause\n"
	"	dec %rcx\n"
	"	jnz 1b\n"
	"	outb %al, $" STR(PORT_DONE) "\n");
/* Reads MSR %ecx %r9 times. */
GUEST_CODE(reads, 64,
	"1:	rdmsr\n"
	"2:	decq %r9\n"
	"	leaq 2b(%rip), %rax\n"
	"	movq %rax, " REC_RESUME "\n"
	"	jnz 1b\n"
	"	outb %al, $" STR(PORT_DONE) "\n");
/* Halts for ever, and tells how often it goes on. */
GUEST_CODE(halts_for_ever, 64,
	ENABLE_APIC
	"	outb %al, $" STR(PORT_SYNC) "\n"
	"1:	sti\n"
	"	hlt\n"
	"	incq 0x102000\n"
	"	jmp 1b\n");
GUEST_CODE(done, 64,
	"	outb %al, $" STR(PORT_DONE) "\n");
/* The same without a local APIC. */
GUEST_CODE(halts_once, 64,
	"	sti\n"
	"	hlt\n"
	"	outb %al, $" STR(PORT_DONE) "\n");

FIXTURE(disable_exits) {
	struct vm vm;
	struct vcpu vcpu;
	int possible;
};

FIXTURE_SETUP(disable_exits)
{
	self->vcpu.run = NULL;
	vm_create(&self->vm, VM_MEMORY);
	self->possible = xioctl(self->vm.fd, KVM_CHECK_EXTENSION, KVM_CAP_X86_DISABLE_EXITS);
}

FIXTURE_TEARDOWN(disable_exits)
{
	if (self->vcpu.run)
		vcpu_destroy(&self->vcpu);
	vm_destroy(&self->vm);
}

static long disable(struct vm *vm, uint64_t exits)
{
	struct kvm_enable_cap enable = { .cap = KVM_CAP_X86_DISABLE_EXITS, .args = { exits } };

	return try_ioctl(vm->fd, KVM_ENABLE_CAP, (unsigned long)&enable);
}

/* How often something exited, so far; 0 where nobody tells. */
static long exits(const char *name)
{
	long n = device_is_kvm_rs() ? module_stat(name) : 0;

	return n < 0 ? 0 : n;
}

#define NEED(self, bits)							\
	do {									\
		if (((self)->possible & (bits)) != (bits))			\
			SKIP(return, "not on this CPU");			\
	} while (0)

static void start(FIXTURE_DATA(disable_exits) *self, bool apic)
{
	if (apic && vm_split_irqchip(&self->vm, 24))
		die("no local APIC");
	irq_install_handlers(&self->vm);
	vcpu_start(&self->vcpu, &self->vm, MODE_LONG);
	irq_load_idt(&self->vcpu);
}

static void prepare(FIXTURE_DATA(disable_exits) *self, uint64_t rcx)
{
	struct kvm_regs regs = vcpu_regs(&self->vcpu);

	regs.rcx = rcx;
	regs.r9 = ROUNDS;
	/* Half a millisecond. */
	regs.rdi = xioctl(self->vcpu.fd, KVM_GET_TSC_KHZ, 0) / 2;
	vcpu_set_regs(&self->vcpu, &regs);
}

TEST_F(disable_exits, arguments)
{
	uint64_t all = KVM_X86_DISABLE_EXITS_MWAIT | KVM_X86_DISABLE_EXITS_HLT |
		       KVM_X86_DISABLE_EXITS_PAUSE | KVM_X86_DISABLE_EXITS_CSTATE |
		       KVM_X86_DISABLE_EXITS_APERFMPERF;
	unsigned int i;

	EXPECT_EQ(self->possible & ~all, 0);
	EXPECT_TRUE(self->possible & KVM_X86_DISABLE_EXITS_HLT);
	EXPECT_TRUE(self->possible & KVM_X86_DISABLE_EXITS_PAUSE);
	for (i = 0; i < 64; i++) {
		EXPECT_EQ(disable(&self->vm, 1UL << i),
			  i < 32 && self->possible & (1U << i) ? 0 : -EINVAL);
	}
	EXPECT_EQ(disable(&self->vm, 0), 0);
	EXPECT_EQ(disable(&self->vm, self->possible), 0);
	vcpu_create(&self->vcpu, &self->vm, 0);
	EXPECT_EQ(disable(&self->vm, 0), -EINVAL);
}

#define EXPECT_ROUNDS(self, code, name, exit)					\
	do {									\
		long before;							\
										\
		start(self, true);						\
		vm_load(&(self)->vm, CODE_GPA, code);				\
		prepare(self, 0);						\
		before = exits(name);						\
		vcpu_run_to_port(&(self)->vcpu, PORT_DONE);			\
		EXPECT_EQ(*vm_u64(&(self)->vm, COUNT), ROUNDS);			\
		if (device_is_kvm_rs() && module_stat("vpid_in_use") >= 0) {	\
			if (exit) {						\
				EXPECT_GE(exits(name) - before, ROUNDS / 2);	\
			} else {						\
				EXPECT_EQ(exits(name), before);			\
			}							\
		}								\
	} while (0)

TEST_F(disable_exits, hlt_exits)
{
	ASSERT_EQ(disable(&self->vm, self->possible & ~KVM_X86_DISABLE_EXITS_HLT), 0);
	EXPECT_ROUNDS(self, halts, "exits_hlt", true);
}

TEST_F(disable_exits, hlt)
{
	ASSERT_EQ(disable(&self->vm, KVM_X86_DISABLE_EXITS_HLT), 0);
	EXPECT_ROUNDS(self, halts, "exits_hlt", false);
}

TEST_F(disable_exits, mwait_exits)
{
	ASSERT_EQ(disable(&self->vm, self->possible & ~KVM_X86_DISABLE_EXITS_MWAIT), 0);
	EXPECT_ROUNDS(self, waits, "exits_mwait", true);
}

TEST_F(disable_exits, mwait)
{
	long timers;

	NEED(self, KVM_X86_DISABLE_EXITS_MWAIT);
	ASSERT_EQ(disable(&self->vm, KVM_X86_DISABLE_EXITS_MWAIT), 0);
	timers = exits("exits_preemption_timer");
	EXPECT_ROUNDS(self, waits, "exits_mwait", false);
	/* Where the CPU may sleep, its own timer may stand. */
	EXPECT_EQ(exits("exits_preemption_timer"), timers);
}

TEST_F(disable_exits, pause)
{
	long before = exits("exits_pause");

	ASSERT_EQ(disable(&self->vm, KVM_X86_DISABLE_EXITS_PAUSE), 0);
	start(self, true);
	vm_load(&self->vm, CODE_GPA, pauses);
	prepare(self, 100000);
	vcpu_run_to_port(&self->vcpu, PORT_DONE);
	EXPECT_EQ(exits("exits_pause"), before);
}

#define EXPECT_READS(self, bits, index)						\
	do {									\
		long before;							\
										\
		NEED(self, bits);						\
		ASSERT_EQ(disable(&(self)->vm, bits), 0);			\
		start(self, false);						\
		vm_load(&(self)->vm, CODE_GPA, reads);				\
		/* A CPU may lack the register: then there is #GP. */		\
		vm_record(&(self)->vm)->resume = CODE_GPA + 2;			\
		prepare(self, index);						\
		before = exits("exits_msr_read");				\
		vcpu_run_to_port(&(self)->vcpu, PORT_DONE);			\
		EXPECT_EQ(exits("exits_msr_read"), before);			\
	} while (0)

TEST_F(disable_exits, cstate)
{
	EXPECT_READS(self, KVM_X86_DISABLE_EXITS_CSTATE, 0x3fd);
}

TEST_F(disable_exits, aperf)
{
	EXPECT_READS(self, KVM_X86_DISABLE_EXITS_APERFMPERF, 0xe8);
	EXPECT_EQ(vm_record(&self->vm)->count, 0);
}

TEST_F(disable_exits, mperf)
{
	EXPECT_READS(self, KVM_X86_DISABLE_EXITS_APERFMPERF, 0xe7);
	EXPECT_EQ(vm_record(&self->vm)->count, 0);
}

/* Without being asked, reading APERF raises #GP. */
TEST_F(disable_exits, aperf_exits)
{
	start(self, false);
	vm_load(&self->vm, CODE_GPA, reads);
	vm_record(&self->vm)->resume = CODE_GPA + 2;
	prepare(self, 0xe8);
	vcpu_run_to_port(&self->vcpu, PORT_DONE);
	EXPECT_EQ(vm_record(&self->vm)->count, ROUNDS);
	EXPECT_EQ(vm_record(&self->vm)->vector, 13);
}

/* A guest in HLT is runnable, takes interrupts and NMIs, and may be put elsewhere. */
TEST_F(disable_exits, hlt_from_outside)
{
	struct runner runner = { .vcpu = &self->vcpu };
	struct kvm_mp_state mp;

	ASSERT_EQ(disable(&self->vm, KVM_X86_DISABLE_EXITS_HLT), 0);
	start(self, true);
	vm_load(&self->vm, CODE_GPA, halts_for_ever);
	vm_load(&self->vm, CODE_GPA + PAGE, done);
	vcpu_run_to_port(&self->vcpu, PORT_SYNC);
	vcpu_complete(&self->vcpu);
	runner_start(&runner);
	usleep(20000);
	irq_send_msi(&self->vm, 0, OTHER_VECTOR);
	EXPECT_TRUE(irq_wait_count(&self->vm, OTHER_VECTOR, 1));
	usleep(20000);
	runner_stop(&runner);
	EXPECT_EQ(runner.error, -EINTR);
	xioctl(self->vcpu.fd, KVM_GET_MP_STATE, &mp);
	EXPECT_EQ(mp.mp_state, KVM_MP_STATE_RUNNABLE);
	/* One that comes meanwhile. */
	irq_send_msi(&self->vm, 0, OTHER_VECTOR);
	runner_start(&runner);
	EXPECT_TRUE(irq_wait_count(&self->vm, OTHER_VECTOR, 2));
	usleep(20000);
	runner_stop(&runner);
	vcpu_set_rip(&self->vcpu, CODE_GPA + PAGE);
	mp.mp_state = KVM_MP_STATE_RUNNABLE;
	xioctl(self->vcpu.fd, KVM_SET_MP_STATE, &mp);
	vcpu_run_to_port(&self->vcpu, PORT_DONE);
}

/* A client with local APICs of its own does not hear of HLT, and ends it by an interrupt. */
TEST_F(disable_exits, hlt_without_apic)
{
	struct runner runner = { .vcpu = &self->vcpu };
	struct kvm_interrupt interrupt = { .irq = OTHER_VECTOR };

	ASSERT_EQ(disable(&self->vm, KVM_X86_DISABLE_EXITS_HLT), 0);
	start(self, false);
	vm_load(&self->vm, CODE_GPA, halts_once);
	/* The handler's EOI would be for the client. */
	memcpy(self->vm.mem + IRQ_STUBS_GPA + OTHER_VECTOR * 32, "\x48\xcf", 2);
	runner_start(&runner);
	usleep(20000);
	/* The emulated machine takes a guest that was interrupted out of HLT. */
	if (self->vcpu.run->exit_reason != KVM_EXIT_IO) {
		runner_stop(&runner);
		EXPECT_NE(self->vcpu.run->exit_reason, KVM_EXIT_HLT);
		xioctl(self->vcpu.fd, KVM_INTERRUPT, &interrupt);
		runner_start(&runner);
	}
	runner_join(&runner);
	EXPECT_EQ(self->vcpu.run->exit_reason, KVM_EXIT_IO);
}

static uint32_t features(struct vcpu *vcpu)
{
	return vcpu_cpuid(vcpu, KVM_CPUID_FEATURES).eax;
}

/* Who waits by HLT in the guest cannot be woken by a hypercall. */
TEST_F(disable_exits, unhalt)
{
	struct vm other;
	struct vcpu vcpu;

	ASSERT_EQ(disable(&self->vm, KVM_X86_DISABLE_EXITS_HLT), 0);
	start(self, true);
	vm_create(&other, VM_MEMORY);
	vcpu_start(&vcpu, &other, MODE_LONG);
	EXPECT_EQ(features(&vcpu) & 1 << KVM_FEATURE_PV_UNHALT, 1 << KVM_FEATURE_PV_UNHALT);
	EXPECT_EQ(features(&self->vcpu), features(&vcpu) & ~(1 << KVM_FEATURE_PV_UNHALT));
	vcpu_destroy(&vcpu);
	vm_destroy(&other);
}

TEST_HARNESS_MAIN
