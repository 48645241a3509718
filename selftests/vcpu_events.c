// SPDX-License-Identifier: GPL-2.0
/*
 * Events as a client saves, restores and makes them: exceptions with payload
 * and without, triple faults, blocking; and the registers that debug a guest.
 */
#include "kselftest_harness.h"
#include "vm.h"

#define TF		0x100
#define DR6_RESET	0xffff0ff0UL

FIXTURE(vcpu_events) {
	struct vm vm;
	struct vcpu vcpu;
	struct exception_record *record;
	struct kvm_vcpu_events events;
};

FIXTURE_SETUP(vcpu_events)
{
	memset(&self->events, 0, sizeof(self->events));
	vm_create(&self->vm, VM_MEMORY);
	vcpu_start(&self->vcpu, &self->vm, MODE_LONG);
	self->record = vm_record(&self->vm);
}

FIXTURE_TEARDOWN(vcpu_events)
{
	vcpu_destroy(&self->vcpu);
	vm_destroy(&self->vm);
}

static long enable(struct vm *vm, unsigned int cap, uint64_t on)
{
	struct kvm_enable_cap enable = { .cap = cap, .args = { on } };

	return try_ioctl(vm->fd, KVM_ENABLE_CAP, (unsigned long)&enable);
}

static long set_events(struct vcpu *vcpu, struct kvm_vcpu_events *events)
{
	return try_ioctl(vcpu->fd, KVM_SET_VCPU_EVENTS, (unsigned long)events);
}

GUEST_CODE(done, 64,
	"1:	outb %al, $" STR(PORT_DONE) "\n"
	"	jmp 1b\n");

/* A pending #PF's payload gets into CR2 when it is delivered, not before. */
TEST_F(vcpu_events, payload)
{
	struct kvm_vcpu_events *e = &self->events;

	vm_load(&self->vm, CODE_GPA, done);
	ASSERT_EQ(enable(&self->vm, KVM_CAP_EXCEPTION_PAYLOAD, 1), 0);
	e->flags = KVM_VCPUEVENT_VALID_PAYLOAD;
	e->exception.pending = 1;
	e->exception.nr = 14;
	e->exception.has_error_code = 1;
	e->exception.error_code = 6;
	e->exception_has_payload = 1;
	e->exception_payload = 0xdead000;
	ASSERT_EQ(set_events(&self->vcpu, e), 0);
	memset(e, 0, sizeof(*e));
	xioctl(self->vcpu.fd, KVM_GET_VCPU_EVENTS, e);
	EXPECT_EQ(e->exception.pending, 1);
	EXPECT_EQ(e->exception.injected, 0);
	EXPECT_EQ(e->exception_has_payload, 1);
	EXPECT_EQ(e->exception_payload, 0xdead000);
	EXPECT_TRUE(e->flags & KVM_VCPUEVENT_VALID_PAYLOAD);
	EXPECT_EQ(vcpu_sregs(&self->vcpu).cr2, 0);
	vcpu_run_to_port(&self->vcpu, PORT_EXCEPTION);
	EXPECT_EQ(self->record->vector, 14);
	EXPECT_EQ(self->record->error, 6);
	EXPECT_EQ(self->record->cr2, 0xdead000);
	EXPECT_EQ(self->record->rip, CODE_GPA);
}

/* Without the capability, pending is injected, and there are no payloads. */
TEST_F(vcpu_events, no_payload)
{
	struct kvm_guest_debug debug = {
		.control = KVM_GUESTDBG_ENABLE | KVM_GUESTDBG_INJECT_DB,
	};
	struct kvm_vcpu_events *e = &self->events;

	vm_load(&self->vm, CODE_GPA, done);
	e->flags = KVM_VCPUEVENT_VALID_PAYLOAD;
	EXPECT_EQ(set_events(&self->vcpu, e), -EINVAL);
	xioctl(self->vcpu.fd, KVM_SET_GUEST_DEBUG, &debug);
	EXPECT_EQ(try_ioctl(self->vcpu.fd, KVM_SET_GUEST_DEBUG, (unsigned long)&debug),
		  -EBUSY);
	xioctl(self->vcpu.fd, KVM_GET_VCPU_EVENTS, e);
	EXPECT_EQ(e->exception.pending, 1);
	EXPECT_EQ(e->exception.injected, 1);
	EXPECT_EQ(e->exception.nr, 1);
	EXPECT_FALSE(e->flags & KVM_VCPUEVENT_VALID_PAYLOAD);
	ASSERT_EQ(set_events(&self->vcpu, e), 0);
	xioctl(self->vcpu.fd, KVM_GET_VCPU_EVENTS, e);
	EXPECT_EQ(e->exception.pending, 0);
	EXPECT_EQ(e->exception.injected, 1);
	vcpu_run_to_port(&self->vcpu, PORT_EXCEPTION);
	EXPECT_EQ(self->record->vector, 1);
}

TEST_F(vcpu_events, triple_fault)
{
	struct kvm_vcpu_events *e = &self->events;

	vm_load(&self->vm, CODE_GPA, done);
	e->flags = KVM_VCPUEVENT_VALID_TRIPLE_FAULT;
	e->triple_fault.pending = 1;
	EXPECT_EQ(set_events(&self->vcpu, e), -EINVAL);
	ASSERT_EQ(enable(&self->vm, KVM_CAP_X86_TRIPLE_FAULT_EVENT, 1), 0);
	ASSERT_EQ(set_events(&self->vcpu, e), 0);
	memset(e, 0, sizeof(*e));
	xioctl(self->vcpu.fd, KVM_GET_VCPU_EVENTS, e);
	EXPECT_TRUE(e->flags & KVM_VCPUEVENT_VALID_TRIPLE_FAULT);
	EXPECT_EQ(e->triple_fault.pending, 1);
	vcpu_run_to(&self->vcpu, KVM_EXIT_SHUTDOWN);
	vcpu_run_to_port(&self->vcpu, PORT_DONE);
}

TEST_F(vcpu_events, refused)
{
	struct kvm_vcpu_events *e = &self->events;
	struct kvm_debugregs debug = {};

	e->flags = 0x40;
	EXPECT_EQ(set_events(&self->vcpu, e), -EINVAL);
	e->flags = 0;
	e->exception.injected = 1;
	e->exception.nr = 32;
	EXPECT_EQ(set_events(&self->vcpu, e), -EINVAL);
	e->exception.nr = 2;
	EXPECT_EQ(set_events(&self->vcpu, e), -EINVAL);
	e->exception.injected = 0;
	EXPECT_EQ(set_events(&self->vcpu, e), 0);

	xioctl(self->vcpu.fd, KVM_GET_DEBUGREGS, &debug);
	EXPECT_EQ(debug.dr6, DR6_RESET);
	EXPECT_EQ(debug.dr7, 0x400);
	debug.flags = 1;
	EXPECT_EQ(try_ioctl(self->vcpu.fd, KVM_SET_DEBUGREGS, (unsigned long)&debug), -EINVAL);
	debug.flags = 0;
	debug.dr7 |= 1UL << 32;
	EXPECT_EQ(try_ioctl(self->vcpu.fd, KVM_SET_DEBUGREGS, (unsigned long)&debug), -EINVAL);
	debug.dr7 = 0x400;
	debug.dr6 |= 1UL << 32;
	EXPECT_EQ(try_ioctl(self->vcpu.fd, KVM_SET_DEBUGREGS, (unsigned long)&debug), -EINVAL);
}

/* The blocking of a saved guest is that of the instruction after STI. */
GUEST_CODE(shadow, 64,
	"	sti\n"
	"	outb %al, $" STR(PORT_SYNC) "\n"
	"	cli\n"
	"	outb %al, $" STR(PORT_DONE) "\n");

TEST_F(vcpu_events, blocking)
{
	struct kvm_vcpu_events *e = &self->events;

	vm_load(&self->vm, CODE_GPA, shadow);
	vcpu_run_to_port(&self->vcpu, PORT_SYNC);
	vcpu_complete(&self->vcpu);
	xioctl(self->vcpu.fd, KVM_GET_VCPU_EVENTS, e);
	EXPECT_EQ(e->interrupt.shadow, 0);
	e->interrupt.shadow = KVM_X86_SHADOW_INT_STI;
	ASSERT_EQ(set_events(&self->vcpu, e), 0);
	memset(e, 0, sizeof(*e));
	xioctl(self->vcpu.fd, KVM_GET_VCPU_EVENTS, e);
	EXPECT_EQ(e->interrupt.shadow, KVM_X86_SHADOW_INT_STI);
	vcpu_run_to_port(&self->vcpu, PORT_DONE);
}

/* Steps over instructions that the CPU does and ones that the module does. */
GUEST_CODE(steps, 64,
	"	nop\n"				/* +0 */
	"	cpuid\n"			/* +1 */
	"	movl $0xc0000000, %edi\n"	/* +3 */
	"	movq %rbx, (%rdi)\n"		/* +8 */
	"	pushf\n"			/* +11 */
	"	pop %rax\n"			/* +12 */
	"	outb %al, $" STR(PORT_DONE) "\n");

TEST_F(vcpu_events, step)
{
	static const unsigned int ends[] = { 1, 3, 8, 11, 12, 13 };
	struct kvm_guest_debug debug = {
		.control = KVM_GUESTDBG_ENABLE | KVM_GUESTDBG_SINGLESTEP,
	};
	struct kvm_run *run = self->vcpu.run;
	unsigned int i;

	vm_load(&self->vm, CODE_GPA, steps);
	xioctl(self->vcpu.fd, KVM_SET_GUEST_DEBUG, &debug);
	for (i = 0; i < 6; i++) {
		/* kvm_intel forgets the step when the client has done a write. */
		if (i == 3 && !device_is_kvm_rs())
			return;
		if (i == 3)
			vcpu_run_to(&self->vcpu, KVM_EXIT_MMIO);
		vcpu_run_to(&self->vcpu, KVM_EXIT_DEBUG);
		EXPECT_EQ(run->debug.arch.exception, 1);
		EXPECT_EQ(run->debug.arch.dr6, DR6_RESET | 1 << 14);
		EXPECT_EQ(run->debug.arch.pc, CODE_GPA + ends[i]);
		EXPECT_FALSE(vcpu_regs(&self->vcpu).rflags & TF);
		xioctl(self->vcpu.fd, KVM_SET_GUEST_DEBUG, &debug);
	}
	debug.control = 0;
	xioctl(self->vcpu.fd, KVM_SET_GUEST_DEBUG, &debug);
	vcpu_run_to_port(&self->vcpu, PORT_DONE);
	EXPECT_EQ(self->record->count, 0);
}

/* The guest's own single step over CPUID is a #DB of the guest. */
GUEST_CODE(own_step, 64,
	"	pushf\n"
	"	orl $0x100, (%rsp)\n"
	"	popf\n"
	"	cpuid\n"
	"1:	jmp 1b\n");

TEST_F(vcpu_events, own_step)
{
	struct kvm_debugregs debug = {};

	vm_load(&self->vm, CODE_GPA, own_step);
	vcpu_run_to_port(&self->vcpu, PORT_EXCEPTION);
	EXPECT_EQ(self->record->vector, 1);
	EXPECT_EQ(self->record->rip, CODE_GPA + (own_step_end - own_step) - 2);
	xioctl(self->vcpu.fd, KVM_GET_DEBUGREGS, &debug);
	EXPECT_EQ(debug.dr6, DR6_RESET | 1 << 14);
}

/* INT1 traps after itself; the debug registers are left alone. */
GUEST_CODE(icebp, 64,
	"	.byte 0xf1\n"
	"1:	jmp 1b\n");

TEST_F(vcpu_events, int1)
{
	vm_load(&self->vm, CODE_GPA, icebp);
	vcpu_run_to_port(&self->vcpu, PORT_EXCEPTION);
	EXPECT_EQ(self->record->vector, 1);
	EXPECT_EQ(self->record->rip, CODE_GPA + 1);
}

TEST_HARNESS_MAIN
