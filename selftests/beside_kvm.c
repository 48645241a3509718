// SPDX-License-Identifier: GPL-2.0
/*
 * Guests of kvm_rs and of kvm_intel run on the same CPUs at the same time, and
 * VMs of both come and go meanwhile: each guest's registers and memory stay its
 * own. Either module keeps VMCSs current on a CPU while the other one runs.
 */
#include <sched.h>
#include <sys/wait.h>

#include "kselftest_harness.h"
#include "vm.h"

#define CLIENTS		3	/* of each module */
#define ROUNDS		300
#define VMS		8	/* one after another, in the client that makes many */

/* Mixes rbx into a running sum that depends on every round, with exits in between. */
GUEST_CODE(mix, 64,
	"1:	movq %rbx, %rsi\n"
	"	movl $0x40000000, %eax\n"
	"	cpuid\n"
	"	movq %rsi, %rbx\n"
	"	imulq $31, %rbx\n"
	"	addq $7, %rbx\n"
	"	movq %rbx, (0x100000)\n"
	"	outb %al, $" STR(PORT_SYNC) "\n"
	"	jmp 1b\n");

static void run_vm(uint64_t seed)
{
	uint64_t sum = seed;
	struct kvm_regs regs;
	struct vcpu vcpu;
	struct vm vm;
	int i;

	vm_create(&vm, SZ_2M);
	vcpu_start(&vcpu, &vm, MODE_LONG);
	vm_load(&vm, CODE_GPA, mix);
	regs = vcpu_regs(&vcpu);
	regs.rbx = seed;
	vcpu_set_regs(&vcpu, &regs);
	for (i = 0; i < ROUNDS; i++) {
		vcpu_run_to_port(&vcpu, PORT_SYNC);
		sum = sum * 31 + 7;
		regs = vcpu_regs(&vcpu);
		if (regs.rbx != sum || *vm_u64(&vm, 0x100000) != sum)
			die("round %d: %#llx in RBX, %#lx in memory, %#lx expected", i,
			    regs.rbx, *vm_u64(&vm, 0x100000), sum);
		sched_yield();
	}
	vcpu_destroy(&vcpu);
	vm_destroy(&vm);
}

static void client(const char *device, unsigned int number)
{
	unsigned int i, count = number ? 1 : VMS;

	setenv("KVM_RS_DEVICE", device, 1);
	for (i = 0; i < count; i++)
		run_vm(number * 1000 + i);
	exit(0);
}

TEST(at_the_same_time)
{
	static const char *const devices[] = { "/dev/kvm-rs", "/dev/kvm" };
	unsigned int i;
	int status;

	for (i = 0; i < 2; i++)
		if (access(devices[i], F_OK))
			SKIP(return, "needs %s", devices[i]);
	for (i = 0; i < 2 * CLIENTS; i++)
		if (fork() == 0)
			client(devices[i % 2], i / 2);
	for (i = 0; i < 2 * CLIENTS; i++) {
		ASSERT_LE(0, wait(&status));
		EXPECT_EQ(status, 0);
	}
}

TEST_HARNESS_MAIN
