// SPDX-License-Identifier: GPL-2.0
/*
 * The local APIC's timer while the guest runs: whatever the guest does meanwhile,
 * in each mode it is never early and rarely more than a tick of the host late. Where
 * the CPU's VMX-preemption timer serves for that, it is what ends the stay.
 */
#include <linux/kvm_para.h>
#include <sched.h>

#include "irq.h"
#include "kselftest_harness.h"
#include "state.h"
#include "vm.h"

#define VECTOR		0x60
#define HANDLER		0x30000UL

#define ENDED		0x102000UL	/* the time-stamp counter in the handler */
#define COUNT		0x102008UL	/* interrupts */
#define EARLY		0x102010UL	/* how often one was early */
#define LATE		0x102018UL	/* how often one was more than %r11 late */
#define WORST		0x102020UL	/* how late one was at most */
#define PV_EOI		0x102040UL	/* where an end may be told without an exit */
#define PV_ENDS		0x102048UL	/* how often it was */

#define MODE_ONE_SHOT	0
#define MODE_PERIODIC	0x20000
#define MODE_DEADLINE	0x40000

#define MSR_TSC		0x10
#define MSR_TSC_DEADLINE 0x6e0

/* What the guest does until the timer goes off. */
enum meanwhile {
	SPIN,
	EXIT,			/* executes CPUID */
	ASK,			/* asks the client */
};

/* What a handler does first, with %rax and %rdx on the stack. */
#define NOTE_TIME			\
	"	pushq %rax\n"	\
	"	pushq %rdx\n"	\
	"	rdtsc\n"	\
	"	shlq $32, %rdx\n"	\
	"	orq %rdx, %rax\n"	\
	"	movq %rax, 0x102000\n"	\
	"	incq 0x102008\n"

GUEST_CODE(on_timer, 64,
	NOTE_TIME
	"	movl $0xfee000b0, %eax\n"
	"	movl $0, (%rax)\n"
	"	popq %rdx\n"
	"	popq %rax\n"
	"	iretq\n");

/* The same, for a guest that knows of KVM. */
GUEST_CODE(on_timer_pv, 64,
	NOTE_TIME
	"	btrl $0, 0x102040\n"
	"	jnc 1f\n"
	"	incq 0x102048\n"
	"	jmp 2f\n"
	"1:	movl $0xfee000b0, %eax\n"
	"	movl $0, (%rax)\n"
	"2:	popq %rdx\n"
	"	popq %rax\n"
	"	iretq\n");

/*
 * %r9 times: sets the timer, in mode %esi, for %rdi counts, which take %r10 ticks
 * of the time-stamp counter, and does %r8 until it goes off. A periodic timer is
 * set only once, and each round is to take that long.
 */
GUEST_CODE(use_timer, 64,
	"	movl $0xfee000f0, %eax\n"
	"	movl $0x1ff, (%rax)\n"
	"	movl $0xfee003e0, %eax\n"
	"	movl $0xb, (%rax)\n"
	"	movl $0xfee00320, %eax\n"
	"	movl %esi, (%rax)\n"
	"1:	cli\n"
	"	movq 0x102008, %r13\n"
	"	rdtsc\n"
	"	shlq $32, %rdx\n"
	"	orq %rdx, %rax\n"
	"	leaq (%rax,%r10), %r12\n"	/* when it is to go off */
	"	testl $0x40000, %esi\n"
	"	jnz 2f\n"
	"	movl $0xfee00380, %ecx\n"
	"	movl %edi, (%rcx)\n"
	"	jmp 3f\n"
	"2:	movq %r12, %rax\n"
	"	movq %r12, %rdx\n"
	"	shrq $32, %rdx\n"
	"	movl $0x6e0, %ecx\n"
	"	wrmsr\n"
	"3:	sti\n"
	"4:	cmpq $1, %r8\n"
	"	jb 6f\n"
	"	ja 5f\n"
	"	pushq %rbx\n"
	"	xorl %eax, %eax\n"
	"	cpuid\n"
	"	popq %rbx\n"
	"	jmp 6f\n"
	"5:	outb %al, $" STR(PORT_SYNC) "\n"
	"6:	cmpq 0x102008, %r13\n"
	"	je 4b\n"
	"	movq 0x102000, %rax\n"
	"	subq %r12, %rax\n"
	"	jge 7f\n"
	"	incq 0x102010\n"
	"	jmp 8f\n"
	"7:	cmpq %r11, %rax\n"
	"	jle 8f\n"
	"	incq 0x102018\n"
	"8:	cmpq 0x102020, %rax\n"
	"	jle 9f\n"
	"	movq %rax, 0x102020\n"
	"9:	decq %r9\n"
	"	jz 10f\n"
	"	testl $0x20000, %esi\n"
	"	jz 1b\n"
	"	addq %r10, %r12\n"
	"	incq %r13\n"
	"	jmp 4b\n"
	"10:	outb %al, $" STR(PORT_DONE) "\n"
	"	jmp 10b\n");

/* Sets a deadline %rdi ticks away, tells, and spins. */
GUEST_CODE(set_deadline, 64,
	"	movl $0xfee000f0, %eax\n"
	"	movl $0x1ff, (%rax)\n"
	"	movl $0xfee00320, %eax\n"
	"	movl %esi, (%rax)\n"
	"	rdtsc\n"
	"	shlq $32, %rdx\n"
	"	orq %rdx, %rax\n"
	"	addq %rdi, %rax\n"
	"	movq %rax, %rdx\n"
	"	shrq $32, %rdx\n"
	"	movl $0x6e0, %ecx\n"
	"	wrmsr\n"
	"	sti\n"
	"	outb %al, $" STR(PORT_SYNC) "\n"
	"1:	cmpq $0, 0x102008\n"
	"	je 1b\n"
	"	outb %al, $" STR(PORT_DONE) "\n");

FIXTURE(apic_timer) {
	struct vm vm;
	struct vcpu vcpu;
	uint64_t khz;
};

static bool make(struct vm *vm)
{
	vm_create(vm, VM_MEMORY);
	if (vm_split_irqchip(vm, 24))
		return false;
	vm_load(vm, HANDLER, on_timer);
	irq_set_gate(vm, VECTOR, HANDLER);
	return true;
}

FIXTURE_SETUP(apic_timer)
{
	ASSERT_TRUE(make(&self->vm));
	vcpu_start(&self->vcpu, &self->vm, MODE_LONG);
	irq_load_idt(&self->vcpu);
	self->khz = xioctl(self->vcpu.fd, KVM_GET_TSC_KHZ, 0);
}

FIXTURE_TEARDOWN(apic_timer)
{
	vcpu_destroy(&self->vcpu);
	vm_destroy(&self->vm);
}

static void prepare(struct vcpu *vcpu, uint64_t mode, enum meanwhile meanwhile, uint64_t us)
{
	uint64_t khz = xioctl(vcpu->fd, KVM_GET_TSC_KHZ, 0);
	struct kvm_regs regs = vcpu_regs(vcpu);

	regs.rip = CODE_GPA;
	regs.rsi = mode | VECTOR;
	regs.r8 = meanwhile;
	regs.r9 = 20;
	regs.r10 = us * khz / 1000;
	/* A count takes a nanosecond. */
	regs.rdi = mode == MODE_DEADLINE ? regs.r10 : us * 1000;
	/* The host's tick is at most 10 ms. */
	regs.r11 = 10 * khz;
	vcpu_set_regs(vcpu, &regs);
}

/* Runs as prepared; returns how often the CPU's timer ended the stay, or -1. */
static long run_guest(struct vcpu *vcpu)
{
	long before = module_stat("exits_preemption_timer"), after;
	bool tells = device_is_kvm_rs() && module_stat("vpid_in_use") >= 0;

	for (;;) {
		if (vcpu_run(vcpu))
			die("KVM_RUN: %s", strerror(errno));
		if (vcpu->run->exit_reason != KVM_EXIT_IO || vcpu->run->io.port != PORT_SYNC)
			break;
	}
	after = module_stat("exits_preemption_timer");
	if (!tells)
		return -1;
	/* A reason without an exit is not shown. */
	return (after < 0 ? 0 : after) - (before < 0 ? 0 : before);
}

#define word(self, gpa)	(*vm_u64(&(self)->vm, gpa))

/*
 * Whatever else the host does may make a few of them late. A periodic timer's are late
 * after that, too, until it has caught up.
 */
static uint64_t may_be_late(struct vcpu *vcpu, uint64_t worst)
{
	struct kvm_regs regs = vcpu_regs(vcpu);
	bool catches_up = (regs.rsi & MODE_PERIODIC) && worst > regs.r11;

	return 4 + (catches_up ? (worst - regs.r11) / regs.r10 : 0);
}

#define EXPECT_IN_TIME(self, mode, meanwhile)					\
	do {									\
		long exits;							\
										\
		vm_load(&(self)->vm, CODE_GPA, use_timer);			\
		prepare(&(self)->vcpu, mode, meanwhile, 500);			\
		exits = run_guest(&(self)->vcpu);				\
		EXPECT_EQ((self)->vcpu.run->io.port, PORT_DONE);		\
		EXPECT_GE(word(self, COUNT), 20);				\
		EXPECT_LE(word(self, COUNT), (mode) == MODE_PERIODIC ? 22 : 20);	\
		EXPECT_EQ(word(self, EARLY), 0);				\
		EXPECT_LE(word(self, LATE),					\
			  may_be_late(&(self)->vcpu, word(self, WORST)));	\
		printf("# at most %lu ticks late\n", word(self, WORST));	\
		if (exits >= 0 && module_parameter("preemption_timer") != 'Y') {	\
			EXPECT_EQ(exits, 0);					\
		} else if (exits >= 0 && (meanwhile) == SPIN) {			\
			EXPECT_GE(exits, 18);					\
		}								\
	} while (0)

TEST_F(apic_timer, deadline)
{
	EXPECT_IN_TIME(self, MODE_DEADLINE, SPIN);
}

/* The end of an interrupt is offered although it is due while the guest runs. */
TEST_F(apic_timer, ends_without_an_exit)
{
	if (module_parameter("enable_apicv") == 'Y')
		SKIP(return, "no end exits");
	vm_load(&self->vm, HANDLER, on_timer_pv);
	vcpu_set_msr(&self->vcpu, MSR_KVM_PV_EOI_EN, PV_EOI | 1);
	EXPECT_IN_TIME(self, MODE_DEADLINE, SPIN);
	EXPECT_GE(word(self, PV_ENDS), 18);
}

TEST_F(apic_timer, one_shot)
{
	EXPECT_IN_TIME(self, MODE_ONE_SHOT, SPIN);
}

TEST_F(apic_timer, periodic)
{
	EXPECT_IN_TIME(self, MODE_PERIODIC, SPIN);
}

TEST_F(apic_timer, deadline_among_exits)
{
	EXPECT_IN_TIME(self, MODE_DEADLINE, EXIT);
}

TEST_F(apic_timer, periodic_among_exits)
{
	EXPECT_IN_TIME(self, MODE_PERIODIC, EXIT);
}

TEST_F(apic_timer, deadline_among_exits_to_user)
{
	EXPECT_IN_TIME(self, MODE_DEADLINE, ASK);
}

/* The time-stamp counter at half of the host's frequency, and at twice that. */
TEST_F(apic_timer, deadline_scaled)
{
	uint64_t khz = self->khz;

	if (xioctl(self->vm.fd, KVM_CHECK_EXTENSION, KVM_CAP_TSC_CONTROL) <= 0)
		SKIP(return, "this CPU does not scale");
	xioctl(self->vcpu.fd, KVM_SET_TSC_KHZ, khz / 2);
	EXPECT_IN_TIME(self, MODE_DEADLINE, SPIN);
	memset(self->vm.mem + ENDED, 0, PAGE);
	xioctl(self->vcpu.fd, KVM_SET_TSC_KHZ, khz * 2);
	EXPECT_IN_TIME(self, MODE_DEADLINE, EXIT);
}

/* Prepares a guest that sets a deadline and tells, and runs it until then. */
static void run_to_deadline(struct vcpu *vcpu, uint64_t ticks)
{
	struct kvm_regs regs = vcpu_regs(vcpu);

	vm_load(vcpu->vm, CODE_GPA, set_deadline);
	regs.rip = CODE_GPA;
	regs.rsi = MODE_DEADLINE | VECTOR;
	regs.rdi = ticks;
	vcpu_set_regs(vcpu, &regs);
	vcpu_run_to_port(vcpu, PORT_SYNC);
	vcpu_complete(vcpu);
}

/* A deadline that passes while the client has the vCPU is met when the guest goes on. */
TEST_F(apic_timer, passes_outside)
{
	run_to_deadline(&self->vcpu, self->khz * 5);
	usleep(20000);
	vcpu_run_to_port(&self->vcpu, PORT_DONE);
	EXPECT_EQ(word(self, COUNT), 1);
	EXPECT_EQ(vcpu_msr(&self->vcpu, MSR_TSC_DEADLINE), 0);
}

/* One that the client takes away is not. */
TEST_F(apic_timer, taken_away)
{
	struct runner runner = { .vcpu = &self->vcpu };

	run_to_deadline(&self->vcpu, self->khz * 10);
	EXPECT_NE(vcpu_msr(&self->vcpu, MSR_TSC_DEADLINE), 0);
	vcpu_set_msr(&self->vcpu, MSR_TSC_DEADLINE, 0);
	runner_start(&runner);
	usleep(50000);
	runner_stop(&runner);
	EXPECT_EQ(runner.error, -EINTR);
	EXPECT_EQ(word(self, COUNT), 0);
}

/* One that is far away is met at once when the client sets the counter forward. */
TEST_F(apic_timer, follows_counter)
{
	struct runner runner = { .vcpu = &self->vcpu };

	if (!device_is_kvm_rs())
		SKIP(return, "kvm_intel looks at the counter when the timer is set");
	run_to_deadline(&self->vcpu, self->khz * 60000);
	runner_start(&runner);
	usleep(20000);
	runner_stop(&runner);
	EXPECT_EQ(word(self, COUNT), 0);
	/* By more than what counts as synchronising it with other vCPUs'. */
	vcpu_set_msr(&self->vcpu, MSR_TSC, vcpu_msr(&self->vcpu, MSR_TSC) + self->khz * 60000);
	vcpu_run_to_port(&self->vcpu, PORT_DONE);
	EXPECT_EQ(word(self, COUNT), 1);
}

/* A guest that is moved has its deadline where it comes to. */
TEST_F(apic_timer, moved)
{
	static struct state state;
	struct vcpu other_vcpu;
	struct vm other;

	run_to_deadline(&self->vcpu, self->khz * 10);
	state_save(&self->vcpu, &state, true);
	ASSERT_TRUE(make(&other));
	memcpy(other.mem, self->vm.mem, self->vm.size);
	EXPECT_EQ(state_restore(&other_vcpu, &other, &state, true), 0);
	vcpu_run_to_port(&other_vcpu, PORT_DONE);
	EXPECT_EQ(*vm_u64(&other, COUNT), 1);
	EXPECT_LE(vcpu_msr(&self->vcpu, MSR_TSC_DEADLINE), *vm_u64(&other, ENDED));
	vcpu_destroy(&other_vcpu);
	vm_destroy(&other);
}

static void *run_other(void *arg)
{
	vcpu_run_to_port(arg, PORT_DONE);
	return NULL;
}

/* Two vCPUs take turns on one CPU, and one of them moves to another if there is one. */
TEST_F(apic_timer, switched)
{
	struct vcpu other;
	pthread_t thread;
	cpu_set_t set;
	unsigned int i;

	CPU_ZERO(&set);
	CPU_SET(0, &set);
	ASSERT_EQ(sched_setaffinity(0, sizeof(set), &set), 0);
	vm_load(&self->vm, CODE_GPA, use_timer);
	irq_add_vcpu(&other, &self->vm, 1, STACK_GPA - PAGE);
	vm_load(&self->vm, CODE_GPA + PAGE, set_deadline);
	prepare(&other, MODE_DEADLINE, SPIN, 200000);
	vcpu_set_rip(&other, CODE_GPA + PAGE);
	vcpu_run_to_port(&other, PORT_SYNC);
	ASSERT_EQ(pthread_create(&thread, NULL, run_other, &other), 0);
	for (i = 0; i < 2; i++) {
		CPU_ZERO(&set);
		CPU_SET(i % sysconf(_SC_NPROCESSORS_ONLN), &set);
		ASSERT_EQ(sched_setaffinity(0, sizeof(set), &set), 0);
		prepare(&self->vcpu, i ? MODE_DEADLINE : MODE_PERIODIC, EXIT, 500);
		run_guest(&self->vcpu);
		EXPECT_EQ(self->vcpu.run->io.port, PORT_DONE);
		EXPECT_EQ(word(self, EARLY), 0);
	}
	pthread_join(thread, NULL);
	vcpu_destroy(&other);
	EXPECT_GE(word(self, COUNT), 40);
}

TEST_HARNESS_MAIN
