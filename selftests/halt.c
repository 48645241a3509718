// SPDX-License-Identifier: GPL-2.0
/*
 * A vCPU in HLT: each thing that is to wake it does, nothing else does, and the
 * timer of the local APIC is neither early nor late. Two vCPUs of a guest that
 * knows of KVM kick one another, and send IPIs by hypercall; one ends interrupts
 * without an exit, and is told when it was preempted.
 */
#include <linux/kvm_para.h>
#include <pthread.h>
#include <signal.h>
#include <time.h>

#include "kselftest_harness.h"
#include "vm.h"

#define APIC		0xfee00000
#define VECTOR		0x60
#define PIC_VECTOR	0x61

/* What the guest leaves in memory. */
#define COUNT_GPA(v)	(0x100000UL + (v) * 8)	/* interrupts by vector */
#define NMIS		0x100800UL
#define WOKEN		0x100808UL	/* how often HLT ended */
#define STARTED		0x100810UL	/* a reading of the TSC before the timer is set */
#define ENDED		0x100818UL	/* and one by the handler */

/* Counts the interrupt and ends it; without an EOI for one of the PIC. */
GUEST_CODE(on_interrupt, 64,
	"	pushq %rax\n"
	"	pushq %rdx\n"
	"	rdtsc\n"
	"	shlq $32, %rdx\n"
	"	orq %rdx, %rax\n"
	"	movq %rax, 0x100818\n"
	"	incq 0x100300\n"
	"	movl $0xfee000b0, %eax\n"
	"	movl $0, (%rax)\n"
	"	popq %rdx\n"
	"	popq %rax\n"
	"	iretq\n");
GUEST_CODE(on_pic_interrupt, 64,
	"	incq 0x100308\n"
	"	iretq\n");
GUEST_CODE(on_nmi, 64,
	"	incq 0x100800\n"
	"	iretq\n");

/* Enables the local APIC, tells the client, and halts for ever. */
#define ENABLE_APIC							\
	"	movl $0xfee000f0, %eax\n"				\
	"	movl $0x1ff, (%rax)\n"
GUEST_CODE(halt, 64,
	ENABLE_APIC
	"	outb %al, $" STR(PORT_SYNC) "\n"
	"1:	sti\n"
	"	hlt\n"
	"	incq 0x100808\n"
	"	jmp 1b\n");
GUEST_CODE(halt_deaf, 64,
	ENABLE_APIC
	"	outb %al, $" STR(PORT_SYNC) "\n"
	"	cli\n"
	"1:	hlt\n"
	"	incq 0x100808\n"
	"	jmp 1b\n");

/* Sets the timer %r9 times as %esi, %edi and the divisor say, and halts for each. */
GUEST_CODE(halt_for_timer, 64,
	ENABLE_APIC
	"	movl $0xfee003e0, %eax\n"
	"	movl $0xb, (%rax)\n"		/* the counter is not divided */
	"	movl $0xfee00320, %eax\n"
	"	movl %esi, (%rax)\n"
	"1:	cli\n"
	"	rdtsc\n"
	"	shlq $32, %rdx\n"
	"	orq %rdx, %rax\n"
	"	movq %rax, 0x100810\n"
	"	testl $0x40000, %esi\n"
	"	jnz 2f\n"
	"	movl $0xfee00380, %ecx\n"
	"	movl %edi, (%rcx)\n"
	"	jmp 3f\n"
	"2:	addq %rdi, %rax\n"
	"	movq %rax, %rdx\n"
	"	shrq $32, %rdx\n"
	"	movl $0x6e0, %ecx\n"
	"	wrmsr\n"
	"3:	sti\n"
	"	hlt\n"
	"	outb %al, $" STR(PORT_SYNC) "\n"
	"	testl $0x20000, %esi\n"
	"	jz 1b\n"
	"	jmp 3b\n");

/* As on_interrupt, but ends the interrupt by the bit at PV_EOI if that is set. */
GUEST_CODE(on_interrupt_pv, 64,
	"	incq 0x100300\n"
	"	btrl $0, 0x100900\n"
	"	jnc 1f\n"
	"	incq 0x100908\n"
	"	iretq\n"
	"1:	pushq %rax\n"
	"	movl $0xfee000b0, %eax\n"
	"	movl $0, (%rax)\n"
	"	popq %rax\n"
	"	iretq\n");
#define PV_EOI		0x100900UL
#define PV_ENDS		0x100908UL	/* how often the bit was set */

/* A hypercall: its number in RAX, the arguments in RBX, RCX, RDX and RSI. */
GUEST_CODE(hypercall, 64,
	ENABLE_APIC
	"	movq %r8, %rax\n"
	"	vmcall\n"
	"	outb %al, $" STR(PORT_DONE) "\n");

static void set_gate(struct vm *vm, unsigned int vector, uint64_t target)
{
	volatile uint64_t *gate = vm_u64(vm, IDT_GPA + vector * 16);

	gate[0] = (target & 0xffff) | (uint64_t)SEL_CODE64 << 16 | 0x8e00ULL << 32 |
		  (target & 0xffff0000) << 32;
	gate[1] = target >> 32;
}

static bool create(struct vm *vm)
{
	struct kvm_enable_cap split = {
		.cap = KVM_CAP_SPLIT_IRQCHIP,
		.args = { 24 },
	};

	vm_create(vm, SZ_2M);
	if (try_ioctl(vm->fd, KVM_ENABLE_CAP, (unsigned long)&split))
		return false;
	vm_load(vm, 0x20000, on_interrupt);
	vm_load(vm, 0x21000, on_pic_interrupt);
	vm_load(vm, 0x22000, on_nmi);
	set_gate(vm, VECTOR, 0x20000);
	set_gate(vm, PIC_VECTOR, 0x21000);
	set_gate(vm, 2, 0x22000);
	return true;
}

/* A vCPU that is to run code at @gpa, with interrupts off and its own stack. */
static void add_vcpu(struct vcpu *vcpu, struct vm *vm, unsigned int id, uint64_t gpa)
{
	struct kvm_mp_state runnable = { .mp_state = KVM_MP_STATE_RUNNABLE };
	struct kvm_sregs sregs;
	struct kvm_regs regs;

	vcpu_create(vcpu, vm, id);
	vcpu_set_supported_cpuid(vcpu);
	vcpu_set_mode(vcpu, MODE_LONG);
	sregs = vcpu_sregs(vcpu);
	sregs.idt.base = IDT_GPA;
	sregs.idt.limit = 0xfff;
	vcpu_set_sregs(vcpu, &sregs);
	regs = vcpu_regs(vcpu);
	regs.rip = gpa;
	regs.rsp = STACK_GPA - id * PAGE;
	vcpu_set_regs(vcpu, &regs);
	xioctl(vcpu->fd, KVM_SET_MP_STATE, &runnable);
}

static void ignore(int signal)
{
}

struct runner {
	struct vcpu *vcpu;
	pthread_t thread;
	int result;
};

static void *run(void *arg)
{
	struct runner *runner = arg;

	runner->result = vcpu_run(runner->vcpu);
	return NULL;
}

static void start(struct runner *runner, struct vcpu *vcpu)
{
	runner->vcpu = vcpu;
	pthread_create(&runner->thread, NULL, run, runner);
}

/* Ends KVM_RUN by a signal. */
static void stop(struct runner *runner)
{
	runner->vcpu->run->immediate_exit = 1;
	pthread_kill(runner->thread, SIGUSR1);
	pthread_join(runner->thread, NULL);
	runner->vcpu->run->immediate_exit = 0;
}

/* Waits until a word of the guest has a value. */
static bool becomes(struct vm *vm, uint64_t gpa, uint64_t value)
{
	unsigned int spins;

	for (spins = 0; *vm_u64(vm, gpa) != value && spins < 5000; spins++)
		usleep(200);
	return *vm_u64(vm, gpa) == value;
}

static int send(struct vm *vm, unsigned int data)
{
	struct kvm_msi msi = { .address_lo = APIC, .data = data };

	return try_ioctl(vm->fd, KVM_SIGNAL_MSI, (unsigned long)&msi);
}

FIXTURE(halted)
{
	struct vm vm;
	struct vcpu vcpu;
	struct runner runner;
};

FIXTURE_VARIANT(halted)
{
	bool deaf;	/* interrupts are off */
};

FIXTURE_VARIANT_ADD(halted, listening) { .deaf = false };
FIXTURE_VARIANT_ADD(halted, deaf) { .deaf = true };

FIXTURE_SETUP(halted)
{
	struct sigaction action = { .sa_handler = ignore };

	sigaction(SIGUSR1, &action, NULL);
	if (!guests_can_page())
		SKIP(return, "guests cannot page");
	ASSERT_TRUE(create(&self->vm));
	vm_load(&self->vm, CODE_GPA, halt);
	vm_load(&self->vm, 0x18000, halt_deaf);
	add_vcpu(&self->vcpu, &self->vm, 0, variant->deaf ? 0x18000 : CODE_GPA);
	vcpu_run_to_port(&self->vcpu, PORT_SYNC);
	start(&self->runner, &self->vcpu);
	/* Until it is there. */
	usleep(20000);
}

FIXTURE_TEARDOWN(halted)
{
	vcpu_destroy(&self->vcpu);
	vm_destroy(&self->vm);
}

/* Whether it woke as often as expected, and is halted again or still. */
static void expect_woken(struct __test_metadata *_metadata, FIXTURE_DATA(halted) *self,
			 unsigned int times)
{
	struct kvm_mp_state state;

	EXPECT_TRUE(becomes(&self->vm, WOKEN, times));
	usleep(2000);
	EXPECT_EQ(*vm_u64(&self->vm, WOKEN), times);
	stop(&self->runner);
	EXPECT_EQ(self->runner.result, -EINTR);
	EXPECT_EQ(self->vcpu.run->exit_reason, KVM_EXIT_INTR);
	xioctl(self->vcpu.fd, KVM_GET_MP_STATE, &state);
	EXPECT_EQ(state.mp_state, KVM_MP_STATE_HALTED);
}

TEST_F(halted, signal)
{
	usleep(2000);
	expect_woken(_metadata, self, 0);
}

TEST_F(halted, message)
{
	EXPECT_EQ(send(&self->vm, VECTOR), 1);
	expect_woken(_metadata, self, !variant->deaf);
	EXPECT_EQ(*vm_u64(&self->vm, COUNT_GPA(VECTOR)), !variant->deaf);
}

TEST_F(halted, nmi_by_message)
{
	EXPECT_EQ(send(&self->vm, 4 << 8), 1);
	expect_woken(_metadata, self, 1);
	EXPECT_EQ(*vm_u64(&self->vm, NMIS), 1);
}

TEST_F(halted, kick_by_message)
{
	/* The paravirtual wake-up: no interrupt comes with it. */
	EXPECT_EQ(send(&self->vm, 3 << 8), 1);
	expect_woken(_metadata, self, 1);
	EXPECT_EQ(*vm_u64(&self->vm, COUNT_GPA(VECTOR)), 0);
	EXPECT_EQ(*vm_u64(&self->vm, NMIS), 0);
}

TEST_F(halted, interrupt_of_the_client)
{
	struct kvm_interrupt irq = { .irq = PIC_VECTOR };

	stop(&self->runner);
	xioctl(self->vcpu.fd, KVM_INTERRUPT, &irq);
	start(&self->runner, &self->vcpu);
	expect_woken(_metadata, self, !variant->deaf);
	EXPECT_EQ(*vm_u64(&self->vm, COUNT_GPA(PIC_VECTOR)), !variant->deaf);
}

TEST_F(halted, nmi_of_the_client)
{
	stop(&self->runner);
	xioctl(self->vcpu.fd, KVM_NMI, 0);
	start(&self->runner, &self->vcpu);
	expect_woken(_metadata, self, 1);
	EXPECT_EQ(*vm_u64(&self->vm, NMIS), 1);
}

TEST_F(halted, init)
{
	struct kvm_mp_state state;

	/* The vCPU that boots starts over at the reset vector, where nothing is. */
	EXPECT_EQ(send(&self->vm, 5 << 8), 1);
	pthread_join(self->runner.thread, NULL);
	EXPECT_EQ(*vm_u64(&self->vm, WOKEN), 0);
	EXPECT_EQ(vcpu_sregs(&self->vcpu).cs.base, 0xffff0000);
	xioctl(self->vcpu.fd, KVM_GET_MP_STATE, &state);
	EXPECT_EQ(state.mp_state, KVM_MP_STATE_RUNNABLE);
}

static uint64_t now_ns(void)
{
	struct timespec time;

	clock_gettime(CLOCK_MONOTONIC, &time);
	return time.tv_sec * 1000000000ULL + time.tv_nsec;
}

#define ROUNDS		20
#define DELAY_NS	3000000ULL
#define TICK_NS		10000000ULL	/* of a kernel with HZ=100 */

/* The three modes of the timer, by bits 18:17 of its entry. */
static void check_timer(struct __test_metadata *_metadata, uint32_t entry, bool polls)
{
	struct kvm_enable_cap polling = { .cap = KVM_CAP_HALT_POLL };
	uint64_t khz, delay, before, after, taken, counted, late = 0;
	struct kvm_regs regs;
	struct vcpu vcpu;
	struct vm vm;
	unsigned int i;

	ASSERT_TRUE(create(&vm));
	polling.args[0] = polls ? 5000000 : 0;
	ASSERT_EQ(try_ioctl(vm.fd, KVM_ENABLE_CAP, (unsigned long)&polling), 0);
	vm_load(&vm, CODE_GPA, halt_for_timer);
	add_vcpu(&vcpu, &vm, 0, CODE_GPA);
	khz = xioctl(vcpu.fd, KVM_GET_TSC_KHZ, 0);
	regs = vcpu_regs(&vcpu);
	regs.rsi = entry | VECTOR;
	/* A count of the other modes is a nanosecond. */
	delay = DELAY_NS / 1000 * khz / 1000;
	regs.rdi = entry & 0x40000 ? delay : DELAY_NS;
	vcpu_set_regs(&vcpu, &regs);
	before = now_ns();
	for (i = 1; i <= ROUNDS; i++) {
		vcpu_run_to_port(&vcpu, PORT_SYNC);
		taken = *vm_u64(&vm, COUNT_GPA(VECTOR));
		counted = *vm_u64(&vm, ENDED) - *vm_u64(&vm, STARTED);
		if (entry & 0x20000) {
			/*
			 * The first round of all is when the timer was set. A period that
			 * ends while the client has the vCPU is made up for.
			 */
			ASSERT_GE(taken, i);
			EXPECT_GE(counted, delay * taken);
			after = now_ns() - before;
			EXPECT_GE(after, DELAY_NS * taken);
			continue;
		}
		ASSERT_EQ(taken, i);
		EXPECT_GE(counted, delay);
		if (counted - delay > late)
			late = counted - delay;
	}
	after = now_ns() - before;
	EXPECT_GE(after, DELAY_NS * ROUNDS);
	/* Late by less than a tick each; a machine with other work is forgiven one. */
	EXPECT_LT(after, (DELAY_NS + TICK_NS) * ROUNDS);
	EXPECT_LT(late * 1000 / khz * 1000, 2 * TICK_NS);
	vcpu_destroy(&vcpu);
	vm_destroy(&vm);
}

TEST(timer_one_shot)
{
	check_timer(_metadata, 0, false);
}

TEST(timer_periodic)
{
	check_timer(_metadata, 0x20000, false);
}

TEST(timer_deadline)
{
	check_timer(_metadata, 0x40000, false);
}

TEST(timer_deadline_polling)
{
	check_timer(_metadata, 0x40000, true);
}

/* Runs one hypercall of vCPU 1, and returns what it gives. */
static long call(struct vm *vm, struct vcpu *vcpu, uint64_t number, uint64_t a, uint64_t b,
		 uint64_t c, uint64_t d)
{
	struct kvm_regs regs = {
		.rip = 0x19000, .rsp = STACK_GPA - PAGE, .rflags = 2,
		.r8 = number, .rbx = a, .rcx = b, .rdx = c, .rsi = d,
	};

	vm_load(vm, 0x19000, hypercall);
	vcpu_set_regs(vcpu, &regs);
	vcpu_run_to_port(vcpu, PORT_DONE);
	return vcpu_regs(vcpu).rax;
}

#define CALL(...)	call(&self->vm, &caller, __VA_ARGS__)

TEST_F(halted, hypercalls)
{
	struct kvm_enable_cap enforce = {
		.cap = KVM_CAP_ENFORCE_PV_FEATURE_CPUID,
		.args = { 1 },
	};
	struct vcpu caller;
	unsigned int woken = 0;

	add_vcpu(&caller, &self->vm, 1, 0x19000);
	EXPECT_EQ(CALL(KVM_HC_KICK_CPU, 0, 0, 0, 0), 0);
	EXPECT_TRUE(becomes(&self->vm, WOKEN, ++woken));
	/* Nobody has this ID, and a hint is not refused. */
	EXPECT_EQ(CALL(KVM_HC_KICK_CPU, 0, 7, 0, 0), 0);
	EXPECT_EQ(CALL(KVM_HC_SCHED_YIELD, 0, 0, 0, 0), 0);
	EXPECT_EQ(CALL(KVM_HC_SCHED_YIELD, 1, 0, 0, 0), 0);
	/* To vCPU 0 in the first half; in the second, whose IDs wrap; and to none. */
	EXPECT_EQ(CALL(KVM_HC_SEND_IPI, 1, 0, 0, VECTOR), 1);
	if (!variant->deaf) {
		EXPECT_TRUE(becomes(&self->vm, WOKEN, ++woken));
		EXPECT_TRUE(becomes(&self->vm, COUNT_GPA(VECTOR), 1));
	}
	EXPECT_EQ(CALL(KVM_HC_SEND_IPI, 0, 1, -64, VECTOR), 1);
	if (!variant->deaf)
		EXPECT_TRUE(becomes(&self->vm, WOKEN, ++woken));
	EXPECT_EQ(CALL(KVM_HC_SEND_IPI, 6, 0, 1, VECTOR), 0);
	EXPECT_EQ(CALL(KVM_HC_SEND_IPI, 1, 0, 0, 4 << 8), 1);
	EXPECT_TRUE(becomes(&self->vm, WOKEN, ++woken));
	/* A logical destination, and a shorthand. */
	EXPECT_EQ(CALL(KVM_HC_SEND_IPI, 1, 0, 0, 1 << 11 | VECTOR), -22);
	EXPECT_EQ(CALL(KVM_HC_SEND_IPI, 1, 0, 0, 1 << 18 | VECTOR), -22);
	/* Without the features, once they count. */
	xioctl(caller.fd, KVM_ENABLE_CAP, &enforce);
	EXPECT_EQ(CALL(KVM_HC_KICK_CPU, 0, 0, 0, 0), 0);
	EXPECT_TRUE(becomes(&self->vm, WOKEN, ++woken));
	expect_woken(_metadata, self, woken);
	vcpu_destroy(&caller);
}

/*
 * Interrupts end without an exit, but for those whose end somebody waits for;
 * each is taken once, and the next one comes.
 */
TEST(pv_eoi)
{
	static const uint64_t bad[] = { PV_EOI | 3, PV_EOI | 2, (1UL << 40) | 1 };
	struct sigaction action = { .sa_handler = ignore };
	struct kvm_lapic_state lapic;
	struct kvm_msi level = { .address_lo = APIC, .data = 3 << 14 | VECTOR };
	struct {
		struct kvm_msrs head;
		struct kvm_msr_entry entry;
	} msrs = { .head.nmsrs = 1, .entry.index = MSR_KVM_PV_EOI_EN };
	struct runner runner;
	struct vcpu vcpu;
	unsigned int i;
	uint64_t ends;
	struct vm vm;

	if (device_is_kvm_rs() && module_parameter("enable_apicv") == 'Y')
		SKIP(return, "interrupts end without an exit anyway");
	sigaction(SIGUSR1, &action, NULL);
	ASSERT_TRUE(create(&vm));
	vm_load(&vm, 0x20000, on_interrupt_pv);
	vm_load(&vm, CODE_GPA, halt);
	add_vcpu(&vcpu, &vm, 0, CODE_GPA);
	for (i = 0; i < 3; i++) {
		msrs.entry.data = bad[i];
		EXPECT_EQ(try_ioctl(vcpu.fd, KVM_SET_MSRS, (unsigned long)&msrs), 0);
	}
	EXPECT_EQ(vcpu_msr(&vcpu, MSR_KVM_PV_EOI_EN), 0);
	vcpu_set_msr(&vcpu, MSR_KVM_PV_EOI_EN, PV_EOI | 1);
	EXPECT_EQ(vcpu_msr(&vcpu, MSR_KVM_PV_EOI_EN), PV_EOI | 1);
	vcpu_run_to_port(&vcpu, PORT_SYNC);
	start(&runner, &vcpu);
	for (i = 1; i <= 50; i++) {
		usleep(1000);
		EXPECT_EQ(send(&vm, VECTOR), 1);
		ASSERT_TRUE(becomes(&vm, COUNT_GPA(VECTOR), i));
	}
	usleep(2000);
	/* Not each: some interrupts come while the guest runs, just as it halts. */
	EXPECT_GE(*vm_u64(&vm, PV_ENDS), 25);
	/* The end of a level-triggered interrupt is told; KVM looks for an I/O APIC first. */
	ends = *vm_u64(&vm, PV_ENDS);
	for (i = 1; i <= 10; i++) {
		usleep(1000);
		EXPECT_EQ(try_ioctl(vm.fd, KVM_SIGNAL_MSI, (unsigned long)&level), 1);
		ASSERT_TRUE(becomes(&vm, COUNT_GPA(VECTOR), 50 + i));
	}
	stop(&runner);
	if (device_is_kvm_rs())
		EXPECT_EQ(*vm_u64(&vm, PV_ENDS), ends);
	/* Nothing is left in service, and no bit stands. */
	EXPECT_EQ(*vm_u64(&vm, PV_EOI), 0);
	xioctl(vcpu.fd, KVM_GET_LAPIC, &lapic);
	for (i = 0; i < 8; i++) {
		EXPECT_EQ(*(uint32_t *)(lapic.regs + 0x100 + i * 16), 0);
	}
	vcpu_destroy(&vcpu);
	vm_destroy(&vm);
}

#define STEAL		0x101000UL
#define PREEMPTED	(*(volatile uint8_t *)(vm.mem + STEAL + 16))

GUEST_CODE(spin, 64,
	"	sti\n"
	"1:	cmpq $0, 0x100810\n"
	"	je 1b\n"
	"	outb %al, $" STR(PORT_DONE) "\n");

/*
 * A vCPU whose thread lost its CPU is said to be preempted, and forgets its
 * translations before it runs again if another vCPU asked for that.
 */
TEST(preempted)
{
	unsigned int i, spins, seen = 0;
	struct runner runner;
	struct vcpu vcpu;
	long flushes;
	struct vm vm;

	if (sysconf(_SC_NPROCESSORS_ONLN) > 1)
		SKIP(return, "the vCPU would have a CPU of its own");
	ASSERT_TRUE(create(&vm));
	vm_load(&vm, CODE_GPA, spin);
	add_vcpu(&vcpu, &vm, 0, CODE_GPA);
	vcpu_set_msr(&vcpu, MSR_KVM_STEAL_TIME, STEAL | 1);
	start(&runner, &vcpu);
	for (i = 0; i < 200 && seen < 20; i++) {
		usleep(1000);
		flushes = module_stat("invvpid_single");
		/* As a guest asks: only while the vCPU is preempted. */
		if (!__sync_bool_compare_and_swap(&PREEMPTED, KVM_VCPU_PREEMPTED,
						  KVM_VCPU_PREEMPTED | KVM_VCPU_FLUSH_TLB))
			continue;
		seen++;
		for (spins = 0; PREEMPTED & KVM_VCPU_FLUSH_TLB && spins < 1000; spins++)
			usleep(1000);
		EXPECT_EQ(PREEMPTED & KVM_VCPU_FLUSH_TLB, 0);
		/* It is done on the way into the guest, after the guest's word was taken. */
		if (!device_is_kvm_rs() || module_parameter("vpid") != 'Y')
			continue;
		for (spins = 0; module_stat("invvpid_single") <= flushes && spins < 1000; spins++)
			usleep(1000);
		EXPECT_LT(spins, 1000);
	}
	EXPECT_EQ(seen, 20);
	*vm_u64(&vm, STARTED) = 1;
	pthread_join(runner.thread, NULL);
	EXPECT_EQ(runner.result, 0);
	vcpu_destroy(&vcpu);
	vm_destroy(&vm);
}

/* A vCPU that was kicked while it ran does not halt the next time. */
TEST(kick_comes_first)
{
	struct kvm_mp_state state = { .mp_state = KVM_MP_STATE_HALTED };
	struct sigaction action = { .sa_handler = ignore };
	struct runner runner;
	struct vcpu vcpu;
	struct vm vm;

	sigaction(SIGUSR1, &action, NULL);
	ASSERT_TRUE(create(&vm));
	vm_load(&vm, CODE_GPA, halt);
	add_vcpu(&vcpu, &vm, 0, CODE_GPA);
	vcpu_run_to_port(&vcpu, PORT_SYNC);
	EXPECT_EQ(send(&vm, 3 << 8), 1);
	start(&runner, &vcpu);
	EXPECT_TRUE(becomes(&vm, WOKEN, 1));
	usleep(2000);
	EXPECT_EQ(*vm_u64(&vm, WOKEN), 1);
	stop(&runner);
	/* One that is halted is said to run once it was kicked; to say so forgets it. */
	EXPECT_EQ(send(&vm, 3 << 8), 1);
	xioctl(vcpu.fd, KVM_GET_MP_STATE, &state);
	EXPECT_EQ(state.mp_state, KVM_MP_STATE_RUNNABLE);
	xioctl(vcpu.fd, KVM_SET_MP_STATE, &state);
	state.mp_state = KVM_MP_STATE_HALTED;
	xioctl(vcpu.fd, KVM_SET_MP_STATE, &state);
	xioctl(vcpu.fd, KVM_GET_MP_STATE, &state);
	EXPECT_EQ(state.mp_state, KVM_MP_STATE_HALTED);
	vcpu_destroy(&vcpu);
	vm_destroy(&vm);
}

#define VCPUS		24

struct creation {
	struct vm vm;
	volatile bool done;
};

static void *send_for_ever(void *arg)
{
	static const unsigned int data[] = { VECTOR, 4 << 8, 5 << 8, 6 << 8 | 0x10, 3 << 8 };
	struct creation *creation = arg;
	struct kvm_msi msi = {};
	unsigned int i;

	for (i = 0; !creation->done; i++) {
		/* To each by its ID, to everybody, and to logical IDs. */
		msi.address_lo = APIC | (i % 40 == 39 ? 0xff : i % (VCPUS + 2)) << 12 | (i % 7 == 6) << 2;
		msi.data = data[i % 5];
		ioctl(creation->vm.fd, KVM_SIGNAL_MSI, &msi);
	}
	return NULL;
}

TEST(messages_to_vcpus_that_are_created)
{
	struct kvm_lapic_state lapic;
	struct vcpu vcpus[VCPUS];
	struct creation creation = {};
	pthread_t threads[2];
	unsigned int round, i;

	for (round = 0; round < 4; round++) {
		ASSERT_TRUE(create(&creation.vm));
		creation.done = false;
		for (i = 0; i < 2; i++)
			pthread_create(&threads[i], NULL, send_for_ever, &creation);
		for (i = 0; i < VCPUS; i++) {
			vcpu_create(&vcpus[i], &creation.vm, i);
			vcpu_set_supported_cpuid(&vcpus[i]);
			/* Its identity changes under the senders. */
			xioctl(vcpus[i].fd, KVM_GET_LAPIC, &lapic);
			*(uint32_t *)(lapic.regs + 0xd0) = 1U << (24 + i % 8);
			*(uint32_t *)(lapic.regs + 0xf0) = 0x1ff;
			xioctl(vcpus[i].fd, KVM_SET_LAPIC, &lapic);
			if (i % 3 == 0) {
				vcpus[i].run->immediate_exit = 1;
				EXPECT_EQ(vcpu_run(&vcpus[i]), -EINTR);
			}
		}
		creation.done = true;
		for (i = 0; i < 2; i++)
			pthread_join(threads[i], NULL);
		for (i = 0; i < VCPUS; i++)
			vcpu_destroy(&vcpus[i]);
		vm_destroy(&creation.vm);
	}
}

TEST_HARNESS_MAIN
