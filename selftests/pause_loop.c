// SPDX-License-Identifier: GPL-2.0
/*
 * Loops of PAUSE that last: they exit, where the CPU can look for them, and a
 * vCPU that waits in one gives its CPU to the one that it waits for.
 */
#include <pthread.h>
#include <sched.h>

#include "kselftest_harness.h"
#include "vm.h"

#define FLAG		DATA_GPA
#define CODE_B		(CODE_GPA + PAGE)

/* RCX times PAUSE; then the same with longer between them than a loop has. */
GUEST_CODE(pauses, 64,
	"1:	pause\n"
	"	dec %rcx\n"
	"	jnz 1b\n"
	"	outb %al, $" STR(PORT_SYNC) "\n"
	"2:	pause\n"
	"	mov $500, %rax\n"
	"3:	dec %rax\n"
	"	jnz 3b\n"
	"	dec %rbx\n"
	"	jnz 2b\n"
	"	outb %al, $" STR(PORT_DONE) "\n");

/* Waits for the flag, with interrupts off. */
GUEST_CODE(waits, 64,
	"	cli\n"
	"1:	pause\n"
	"	cmpq $0, " STR(DATA_GPA) "\n"
	"	je 1b\n"
	"	outb %al, $" STR(PORT_DONE) "\n");

/* Works for a while, and sets the flag. */
GUEST_CODE(works, 64,
	"	mov $2000000, %rcx\n"
	"1:	dec %rcx\n"
	"	jnz 1b\n"
	"	movq $1, " STR(DATA_GPA) "\n"
	"	outb %al, $" STR(PORT_DONE) "\n");

/* Returns whether PAUSE in a loop exits in this machine. */
static bool loops_exit(void)
{
	uint64_t controls = 0;
	int fd = open("/dev/cpu/0/msr", O_RDONLY);

	/* IA32_VMX_PROCBASED_CTLS2: what may be 1. */
	if (fd < 0 || pread(fd, &controls, sizeof(controls), 0x48b) != sizeof(controls))
		controls = 0;
	close(fd);
	return controls & (1ULL << (32 + 10));
}

FIXTURE(loop) {
	struct vm vm;
	struct vcpu vcpu;
	long exits;
};

FIXTURE_SETUP(loop)
{
	if (!device_is_kvm_rs() || module_stat("vpid_in_use") < 0)
		SKIP(return, "there are no statistics");
	if (!loops_exit())
		SKIP(return, "this CPU does not look for loops of PAUSE");
	vm_create(&self->vm, VM_MEMORY);
	vcpu_start(&self->vcpu, &self->vm, MODE_LONG);
	self->exits = module_stat("exits_pause");
	if (self->exits < 0)
		self->exits = 0;
}

FIXTURE_TEARDOWN(loop)
{
	if (!self->vcpu.run)
		return;
	vcpu_destroy(&self->vcpu);
	vm_destroy(&self->vm);
}

/* A loop exits ever more rarely as nobody else wants the CPU; single PAUSEs do not. */
TEST_F(loop, exits)
{
	struct kvm_regs regs = vcpu_regs(&self->vcpu);
	long exits;

	vm_load(&self->vm, CODE_GPA, pauses);
	regs.rcx = 100000;
	regs.rbx = 1000;
	vcpu_set_regs(&self->vcpu, &regs);
	vcpu_run_to_port(&self->vcpu, PORT_SYNC);
	exits = module_stat("exits_pause") - self->exits;
	EXPECT_GE(exits, 2);
	EXPECT_LE(exits, 12);
	vcpu_run_to_port(&self->vcpu, PORT_DONE);
	EXPECT_EQ(module_stat("exits_pause") - self->exits, exits);
}

static void *run_other(void *arg)
{
	vcpu_run_to_port(arg, PORT_DONE);
	return NULL;
}

/* The one that waits does not keep the CPU from the one that it waits for. */
TEST_F(loop, gives_way)
{
	struct vcpu other;
	pthread_t thread;
	cpu_set_t set;

	CPU_ZERO(&set);
	CPU_SET(0, &set);
	ASSERT_EQ(sched_setaffinity(0, sizeof(set), &set), 0);
	vm_load(&self->vm, CODE_GPA, waits);
	vm_load(&self->vm, CODE_B, works);
	vcpu_create(&other, &self->vm, 1);
	vcpu_set_supported_cpuid(&other);
	vcpu_set_mode(&other, MODE_LONG);
	vcpu_set_rip(&other, CODE_B);
	ASSERT_EQ(pthread_create(&thread, NULL, run_other, &other), 0);
	vcpu_run_to_port(&self->vcpu, PORT_DONE);
	pthread_join(thread, NULL);
	vcpu_destroy(&other);
	EXPECT_EQ(*vm_u64(&self->vm, FLAG), 1);
	EXPECT_GE(module_stat("exits_pause") - self->exits, 1);
}

TEST_HARNESS_MAIN
