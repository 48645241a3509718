// SPDX-License-Identifier: GPL-2.0
/*
 * How events get to the guest: one whose delivery an exit cuts short is
 * delivered again, with the right return address, error code and CR2, and once;
 * double and triple faults; what STI, MOV SS and NMIs block, and for how long.
 * The same with virtual NMIs and without (vnmi=0).
 */
#include <signal.h>

#include "kselftest_harness.h"
#include "irq.h"
#include "vm.h"

#define IF		0x200
#define HANDLERS_GPA	0x30000UL	/* 16 bytes for each vector */
#define COUNT_GPA	0x100000UL	/* what the handlers count */
#define VECTOR		0x40
/* A stack in a page of its own, which the host takes away before each event. */
#define FAR_STACK_GPA	0x181000UL

FIXTURE(injection) {
	struct vm vm;
	struct vcpu vcpu;
};

/* Any vector's: the frame stays on the stack, for the client to look at. */
GUEST_CODE(handler, 64,
	"	lock incq 0x100000\n"
	"	outb %al, $" STR(PORT_SYNC) "\n");

FIXTURE_SETUP(injection)
{
	struct kvm_sregs sregs;
	unsigned int i;

	if (!guests_can_page())
		SKIP(return, "guests must not page");
	vm_create(&self->vm, VM_MEMORY);
	vcpu_start(&self->vcpu, &self->vm, MODE_LONG);
	sregs = vcpu_sregs(&self->vcpu);
	sregs.idt.limit = 0xfff;
	vcpu_set_sregs(&self->vcpu, &sregs);
	for (i = 0; i < 32; i++) {
		irq_set_gate(&self->vm, i, HANDLERS_GPA + i * 16);
		vm_load(&self->vm, HANDLERS_GPA + i * 16, handler);
	}
	irq_set_gate(&self->vm, VECTOR, HANDLERS_GPA + VECTOR * 16);
	vm_load(&self->vm, HANDLERS_GPA + VECTOR * 16, handler);
}

FIXTURE_TEARDOWN(injection)
{
	vcpu_destroy(&self->vcpu);
	vm_destroy(&self->vm);
}

static void start_at(struct vcpu *vcpu, uint64_t rip, uint64_t rsp, uint64_t rflags)
{
	struct kvm_regs regs = { .rip = rip, .rsp = rsp, .rflags = 2 | rflags };

	vcpu_set_regs(vcpu, &regs);
}

static uint64_t count(struct vm *vm)
{
	return *vm_u64(vm, COUNT_GPA);
}

GUEST_CODE(by_int, 64, "	int $0x40\n" "	nop\n");
GUEST_CODE(by_int3, 64, "	int3\n" "	nop\n");
GUEST_CODE(by_int1, 64, "	.byte 0xf1\n" "	nop\n");
GUEST_CODE(by_ud2, 64, "	ud2\n");
GUEST_CODE(by_gp, 64, "	movw %bx, %ds\n");
GUEST_CODE(by_pf, 64, "	movq %rbx, (%rax)\n");
GUEST_CODE(by_nothing, 64, "1:	jmp 1b\n");

/*
 * The stack is away when each event is delivered: the exit for it comes in the
 * middle of delivery. Software interrupts go on behind their instruction, which
 * is not executed again.
 */
TEST_F(injection, cut_short)
{
	static const struct {
		const char *name, *start, *end;
		unsigned int vector, after;
		int64_t error;	/* -1: none */
	} events[] = {
#define E(code, ...) { #code, code, code##_end, __VA_ARGS__ }
		E(by_int, VECTOR, 2, -1),
		E(by_int3, 3, 1, -1),
		E(by_int1, 1, 1, -1),
		E(by_ud2, 6, 0, -1),
		E(by_gp, 13, 0, 0xff8),
		E(by_pf, 14, 0, 2),
		/* An NMI, and an interrupt. */
		E(by_nothing, 2, 0, -1),
		E(by_nothing, VECTOR, 0, -1),
	};
	struct kvm_interrupt irq = { .irq = VECTOR };
	long faults, violations;
	unsigned int i;

	for (i = 0; i < ARRAY_SIZE(events); i++) {
		struct kvm_regs regs;
		uint64_t *frame;

		__vm_load(&self->vm, CODE_GPA, events[i].start, events[i].end);
		*vm_u64(&self->vm, COUNT_GPA) = 0;
		start_at(&self->vcpu, CODE_GPA, FAR_STACK_GPA, IF);
		regs = vcpu_regs(&self->vcpu);
		regs.rax = 0x7f1234567000;
		regs.rbx = 0xff8;
		vcpu_set_regs(&self->vcpu, &regs);
		if (events[i].start == by_nothing && events[i].vector == 2)
			xioctl(self->vcpu.fd, KVM_NMI, 0);
		else if (events[i].start == by_nothing)
			xioctl(self->vcpu.fd, KVM_INTERRUPT, &irq);
		ASSERT_EQ(madvise(self->vm.mem + FAR_STACK_GPA - PAGE, PAGE, MADV_DONTNEED), 0);
		faults = module_stat("exits_ept violation");
		vcpu_run_to_port(&self->vcpu, PORT_SYNC);
		violations = module_stat("exits_ept violation") - faults;
		if (faults >= 0)
			EXPECT_GE(violations, 1) TH_LOG("%s", events[i].name);

		regs = vcpu_regs(&self->vcpu);
		EXPECT_EQ(count(&self->vm), 1) TH_LOG("%s", events[i].name);
		EXPECT_EQ(regs.rip & ~15UL, HANDLERS_GPA + events[i].vector * 16)
			TH_LOG("%s: %#llx", events[i].name, regs.rip);
		frame = (uint64_t *)(self->vm.mem + regs.rsp);
		if (events[i].error >= 0)
			EXPECT_EQ(*frame++, events[i].error) TH_LOG("%s", events[i].name);
		EXPECT_EQ(frame[0], CODE_GPA + events[i].after) TH_LOG("%s", events[i].name);
		EXPECT_EQ(frame[1], SEL_CODE64);
		EXPECT_EQ(frame[3], FAR_STACK_GPA) TH_LOG("%s", events[i].name);
		if (events[i].vector == 14)
			EXPECT_EQ(vcpu_sregs(&self->vcpu).cr2, 0x7f1234567000);
		vcpu_complete(&self->vcpu);
		/* Nothing is left that would be delivered once more. */
		if (events[i].vector == 2) {
			struct kvm_vcpu_events e;

			xioctl(self->vcpu.fd, KVM_GET_VCPU_EVENTS, &e);
			EXPECT_EQ(e.nmi.injected, 0);
			EXPECT_EQ(e.nmi.pending, 0);
			EXPECT_EQ(e.nmi.masked, 1);
			e.nmi.masked = 0;
			xioctl(self->vcpu.fd, KVM_SET_VCPU_EVENTS, &e);
		}
	}
}

/* A #GP of the module's making, whose own delivery is one: a double fault. */
GUEST_CODE(bad_msr, 64,
	"	movl $0x12345678, %ecx\n"
	"	rdmsr\n");

TEST_F(injection, double_and_triple_fault)
{
	struct kvm_regs regs;
	uint64_t *frame;

	vm_load(&self->vm, CODE_GPA, bad_msr);
	/* The gate of #GP is not present: #NP, which is contributory as well. */
	*vm_u64(&self->vm, IDT_GPA + 13 * 16) &= ~(0x8000UL << 32);
	start_at(&self->vcpu, CODE_GPA, STACK_GPA, 0);
	vcpu_run_to_port(&self->vcpu, PORT_SYNC);
	vcpu_complete(&self->vcpu);
	regs = vcpu_regs(&self->vcpu);
	EXPECT_EQ(regs.rip & ~15UL, HANDLERS_GPA + 8 * 16);
	frame = (uint64_t *)(self->vm.mem + regs.rsp);
	EXPECT_EQ(frame[0], 0);
	EXPECT_EQ(frame[1], CODE_GPA + 5);
	EXPECT_EQ(count(&self->vm), 1);

	/* Nor is that of #DF. */
	*vm_u64(&self->vm, IDT_GPA + 8 * 16) &= ~(0x8000UL << 32);
	start_at(&self->vcpu, CODE_GPA, STACK_GPA, 0);
	vcpu_run_to(&self->vcpu, KVM_EXIT_SHUTDOWN);
	EXPECT_EQ(count(&self->vm), 1);
}

/* With the shadow of STI or MOV SS, one instruction comes before any event. */
GUEST_CODE(nops, 64,
	"	nop\n"
	"	nop\n"
	"	nop\n"
	"	outb %al, $" STR(PORT_DONE) "\n");

static void check_shadow(struct __test_metadata *_metadata, FIXTURE_DATA(injection) *self,
			 bool nmi, unsigned int shadow)
{
	struct kvm_interrupt irq = { .irq = VECTOR };
	struct kvm_vcpu_events e;
	struct kvm_regs regs;
	uint64_t rip;

	vm_load(&self->vm, CODE_GPA, nops);
	start_at(&self->vcpu, CODE_GPA, STACK_GPA, IF);
	if (nmi)
		xioctl(self->vcpu.fd, KVM_NMI, 0);
	xioctl(self->vcpu.fd, KVM_GET_VCPU_EVENTS, &e);
	e.flags |= KVM_VCPUEVENT_VALID_SHADOW;
	e.interrupt.shadow = shadow;
	e.nmi.masked = 0;
	xioctl(self->vcpu.fd, KVM_SET_VCPU_EVENTS, &e);
	if (!nmi) {
		self->vcpu.run->request_interrupt_window = 1;
		vcpu_run_to(&self->vcpu, KVM_EXIT_IRQ_WINDOW_OPEN);
		self->vcpu.run->request_interrupt_window = 0;
		xioctl(self->vcpu.fd, KVM_INTERRUPT, &irq);
	}
	vcpu_run_to_port(&self->vcpu, PORT_SYNC);
	vcpu_complete(&self->vcpu);
	regs = vcpu_regs(&self->vcpu);
	rip = *vm_u64(&self->vm, regs.rsp);
	EXPECT_EQ(regs.rip & ~15UL, HANDLERS_GPA + (nmi ? 2 : VECTOR) * 16);
	EXPECT_EQ(rip, CODE_GPA + !!shadow) TH_LOG("shadow %u: %#lx", shadow, rip);
}

TEST_F(injection, interrupt_in_the_shadow)
{
	check_shadow(_metadata, self, false, 0);
	check_shadow(_metadata, self, false, KVM_X86_SHADOW_INT_STI);
	check_shadow(_metadata, self, false, KVM_X86_SHADOW_INT_MOV_SS);
}

TEST_F(injection, nmi_in_the_shadow)
{
	check_shadow(_metadata, self, true, 0);
	check_shadow(_metadata, self, true, KVM_X86_SHADOW_INT_STI);
	check_shadow(_metadata, self, true, KVM_X86_SHADOW_INT_MOV_SS);
}

/* The handler of NMIs, which says so twice, and returns. */
GUEST_CODE(nmi_handler, 64,
	"	incq 0x100000\n"
	"	outb %al, $" STR(PORT_SYNC) "\n"
	"	outb %al, $" STR(PORT_SYNC) "\n"
	"	iretq\n");
GUEST_CODE(say, 64,
	"1:	outb %al, $" STR(PORT_DONE) "\n"
	"	jmp 1b\n");
/* Waits for a second NMI with interrupts as they are. */
GUEST_CODE(wait_for_two, 64,
	"1:	cmpq $2, 0x100000\n"
	"	jb 1b\n"
	"	outb %al, $" STR(PORT_DONE) "\n");

static bool nmi_masked(struct vcpu *vcpu)
{
	struct kvm_vcpu_events e;

	xioctl(vcpu->fd, KVM_GET_VCPU_EVENTS, &e);
	return e.nmi.masked;
}

/* Runs into the handler's first message, sends two more NMIs there, of which one is kept. */
static void enter_handler(struct __test_metadata *_metadata, FIXTURE_DATA(injection) *self,
			  uint64_t rflags)
{
	irq_set_gate(&self->vm, 2, HANDLERS_GPA + 0x800);
	vm_load(&self->vm, HANDLERS_GPA + 0x800, nmi_handler);
	start_at(&self->vcpu, CODE_GPA, STACK_GPA, rflags);
	xioctl(self->vcpu.fd, KVM_NMI, 0);
	vcpu_run_to_port(&self->vcpu, PORT_SYNC);
	vcpu_complete(&self->vcpu);
	EXPECT_EQ(count(&self->vm), 1);
	EXPECT_TRUE(nmi_masked(&self->vcpu));
	xioctl(self->vcpu.fd, KVM_NMI, 0);
	xioctl(self->vcpu.fd, KVM_NMI, 0);
	/* Still in the first one's handler. Nobody looks at events, which would count them. */
	vcpu_run_to_port(&self->vcpu, PORT_SYNC);
	vcpu_complete(&self->vcpu);
	EXPECT_EQ(count(&self->vm), 1);
}

TEST_F(injection, nmi_waits_for_iret)
{
	struct kvm_regs regs;

	vm_load(&self->vm, CODE_GPA, say);
	enter_handler(_metadata, self, IF);
	/* The second comes directly after IRET, not into the first one's handler. */
	vcpu_run_to_port(&self->vcpu, PORT_SYNC);
	vcpu_complete(&self->vcpu);
	EXPECT_EQ(count(&self->vm), 2);
	regs = vcpu_regs(&self->vcpu);
	EXPECT_EQ(*vm_u64(&self->vm, regs.rsp), CODE_GPA);
	EXPECT_EQ(*vm_u64(&self->vm, regs.rsp + 24), STACK_GPA);
	vcpu_run_to_port(&self->vcpu, PORT_SYNC);
	/* And no third. */
	vcpu_run_to_port(&self->vcpu, PORT_DONE);
	EXPECT_FALSE(nmi_masked(&self->vcpu));
	vcpu_run_to_port(&self->vcpu, PORT_DONE);
	EXPECT_EQ(count(&self->vm), 2);
}

/*
 * Where interrupts are off behind IRET, only a CPU with virtual NMIs knows of
 * it. Software takes the handler to be over when interrupts are on ...
 */
TEST_F(injection, nmi_with_interrupts_off)
{
	bool vnmi = module_parameter("vnmi") != 'N';
	struct kvm_regs regs;

	vm_load(&self->vm, CODE_GPA, say);
	enter_handler(_metadata, self, 0);
	vcpu_run_to_port(&self->vcpu, vnmi ? PORT_SYNC : PORT_DONE);
	EXPECT_EQ(count(&self->vm), vnmi ? 2 : 1);
	if (vnmi)
		return;
	EXPECT_TRUE(nmi_masked(&self->vcpu));
	vcpu_run_to_port(&self->vcpu, PORT_DONE);
	EXPECT_EQ(count(&self->vm), 1);
	vcpu_complete(&self->vcpu);
	regs = vcpu_regs(&self->vcpu);
	regs.rflags |= IF;
	vcpu_set_regs(&self->vcpu, &regs);
	EXPECT_FALSE(nmi_masked(&self->vcpu));
	vcpu_run_to_port(&self->vcpu, PORT_SYNC);
	EXPECT_EQ(count(&self->vm), 2);
}

/* ... or when it has run for a second. */
TEST_F(injection, nmi_after_a_second)
{
	uint64_t start, end;

	vm_load(&self->vm, CODE_GPA, wait_for_two);
	enter_handler(_metadata, self, 0);
	start = __builtin_ia32_rdtsc();
	vcpu_run_to_port(&self->vcpu, PORT_SYNC);
	end = __builtin_ia32_rdtsc();
	EXPECT_EQ(count(&self->vm), 2);
	TH_LOG("%lu cycles", end - start);
	if (module_parameter("vnmi") == 'N') {
		unsigned long khz = xioctl(self->vcpu.fd, KVM_GET_TSC_KHZ, 0);

		EXPECT_GT(end - start, khz * 900);
	}
	vcpu_run_to_port(&self->vcpu, PORT_SYNC);
	vcpu_run_to_port(&self->vcpu, PORT_DONE);
}

TEST_HARNESS_MAIN
