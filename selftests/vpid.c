// SPDX-License-Identifier: GPL-2.0
/*
 * When translations are flushed by VPID: once when a vCPU comes to a CPU where
 * it was not last, once for a vCPU that gets a used VPID, and never for exits
 * in place. The emulated CPU hides missing flushes, so the module's counters
 * are looked at: /sys/kernel/debug/kvm-rs/stats. With VPIDs off (vpid=0) all of
 * them stay 0.
 */
#include <sched.h>

#include "kselftest_harness.h"
#include "vm.h"

#define MOVES		50
#define EXITS		10000

static long invvpids(void)
{
	return module_stat("invvpid_single") + module_stat("invvpid_all");
}

static long invepts(void)
{
	return module_stat("invept_single") + module_stat("invept_all");
}

static bool vpid_on(void)
{
	return module_parameter("vpid") == 'Y';
}

static int move_to(int cpu)
{
	cpu_set_t set;

	CPU_ZERO(&set);
	CPU_SET(cpu, &set);
	return sched_setaffinity(0, sizeof(set), &set);
}

/* CPUID %r12 times, then a report; for ever. */
GUEST_CODE(work, 64,
	"1:	movq %r12, %r13\n"
	"2:	xorl %eax, %eax\n"
	"	cpuid\n"
	"	decq %r13\n"
	"	jnz 2b\n"
	"	outb %al, $" STR(PORT_SYNC) "\n"
	"	jmp 1b\n");

FIXTURE(guest) {
	struct vm vm;
	struct vcpu vcpu;
};

static void start(struct vm *vm, struct vcpu *vcpu)
{
	struct kvm_regs regs;

	vm_create(vm, VM_MEMORY);
	vcpu_start(vcpu, vm, MODE_LONG);
	vm_load(vm, CODE_GPA, work);
	regs = vcpu_regs(vcpu);
	regs.r12 = 1;
	vcpu_set_regs(vcpu, &regs);
}

static void set_exits(struct vcpu *vcpu, uint64_t exits)
{
	struct kvm_regs regs = vcpu_regs(vcpu);

	regs.r12 = exits;
	vcpu_set_regs(vcpu, &regs);
}

FIXTURE_SETUP(guest)
{
	if (!device_is_kvm_rs() || module_stat("vpid_in_use") < 0)
		SKIP(return, "not kvm_rs, or no debugfs");
	ASSERT_EQ(move_to(0), 0);
	start(&self->vm, &self->vcpu);
	vcpu_run_to_port(&self->vcpu, PORT_SYNC);
}

FIXTURE_TEARDOWN(guest)
{
	vcpu_destroy(&self->vcpu);
	vm_destroy(&self->vm);
}

TEST_F(guest, moves)
{
	long before, flushes;
	unsigned int i;

	if (sysconf(_SC_NPROCESSORS_ONLN) < 2)
		SKIP(return, "one CPU only");
	for (i = 1; i <= MOVES; i++) {
		before = invvpids();
		ASSERT_EQ(move_to(i & 1), 0);
		vcpu_run_to_port(&self->vcpu, PORT_SYNC);
		/* What follows in place costs nothing more. */
		vcpu_run_to_port(&self->vcpu, PORT_SYNC);
		(void)vcpu_regs(&self->vcpu);
		flushes = invvpids() - before;
		ASSERT_EQ(flushes, vpid_on()) TH_LOG("move %u", i);
	}
}

/* There and back without running there: one flush all the same. */
TEST_F(guest, moves_without_running)
{
	long before;

	if (sysconf(_SC_NPROCESSORS_ONLN) < 2)
		SKIP(return, "one CPU only");
	before = invvpids();
	ASSERT_EQ(move_to(1), 0);
	(void)vcpu_sregs(&self->vcpu);
	ASSERT_EQ(move_to(0), 0);
	(void)vcpu_sregs(&self->vcpu);
	vcpu_run_to_port(&self->vcpu, PORT_SYNC);
	EXPECT_EQ(invvpids() - before, vpid_on());
}

TEST_F(guest, exits_in_place)
{
	long before, before_ept;

	set_exits(&self->vcpu, EXITS);
	before = invvpids();
	before_ept = invepts();
	vcpu_run_to_port(&self->vcpu, PORT_SYNC);
	EXPECT_EQ(invvpids() - before, 0);
	EXPECT_EQ(invepts() - before_ept, 0);
}

/* A second vCPU on the same CPU has a VPID of its own: nothing to flush. */
TEST_F(guest, two_take_turns)
{
	struct vcpu vcpu;
	struct vm vm;
	unsigned int i;
	long before;

	start(&vm, &vcpu);
	vcpu_run_to_port(&vcpu, PORT_SYNC);
	EXPECT_EQ(module_stat("vpid_in_use"), vpid_on() ? 2 : 0);
	before = invvpids();
	for (i = 0; i < 100; i++) {
		vcpu_run_to_port(&self->vcpu, PORT_SYNC);
		vcpu_run_to_port(&vcpu, PORT_SYNC);
	}
	EXPECT_EQ(invvpids() - before, 0);
	vcpu_destroy(&vcpu);
	vm_destroy(&vm);
	EXPECT_EQ(module_stat("vpid_in_use"), vpid_on());
}

/* The lowest free VPID is the next to be given: that of the vCPU that went. */
TEST_F(guest, given_anew)
{
	unsigned int i;
	long before;

	for (i = 0; i < 10; i++) {
		vcpu_destroy(&self->vcpu);
		vm_destroy(&self->vm);
		ASSERT_EQ(module_stat("vpid_in_use"), 0);
		before = invvpids();
		start(&self->vm, &self->vcpu);
		ASSERT_EQ(module_stat("vpid_in_use"), vpid_on());
		vcpu_run_to_port(&self->vcpu, PORT_SYNC);
		vcpu_run_to_port(&self->vcpu, PORT_SYNC);
		EXPECT_EQ(invvpids() - before, vpid_on());
	}
}

TEST_F(guest, off)
{
	if (vpid_on())
		SKIP(return, "VPIDs are on");
	EXPECT_EQ(invvpids(), 0);
	EXPECT_EQ(module_stat("vpid_max_in_use"), 0);
	EXPECT_EQ(module_stat("vpid_refused"), 0);
}

TEST_HARNESS_MAIN
