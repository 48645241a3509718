// SPDX-License-Identifier: GPL-2.0
/*
 * Guests of kvm_rs and of kvm_intel run on the same CPUs at the same time, and
 * VMs of both come and go meanwhile: each guest's registers and memory stay its
 * own. Either module keeps VMCSs current on a CPU while the other one runs, and
 * leaves MSRs of its guest in the CPU while its thread does not return to user
 * space.
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

#define SPINNERS	2	/* of each module */
#define CALLS		1500000
#define MSR_STAR	0xc0000081
#define MSR_LSTAR	0xc0000082
#define MSR_FMASK	0xc0000084
#define MSR_TSC_AUX	0xc0000103
#define EFER_SCE	1
#define RFLAGS_CF	1
/* Where SYSCALL goes to in guest %n. */
#define ENTRY_GPA(n)	(CODE_GPA + 0x100 + (n) * 0x10)

/*
 * Executes SYSCALL and RDTSCP RDI times without an exit of its own, with
 * interrupts on for the host's tick to switch threads. ESI is the number of the
 * entry that SYSCALL must come to, EBX what RDTSCP must give, and R8B whether
 * CF must be left set.
 */
GUEST_CODE(syscalls, 64,
	"	sti\n"
	"1:	rdtscp\n"
	"	cmpl %ebx, %ecx\n"
	"	jne 9f\n"
	"	stc\n"
	"	syscall\n"
	"9:	movl %ecx, %edx\n"
	"	outb %al, $" STR(PORT_SYNC) "\n"
	"2:	cmpl %esi, %eax\n"
	"	jne 9b\n"
	"	cmpb %r8b, %dl\n"
	"	jne 9b\n"
	"	decq %rdi\n"
	"	jnz 1b\n"
	"	outb %al, $" STR(PORT_DONE) "\n"
	"	.org syscalls + 0x100\n"
	"	setc %dl; movl $0, %eax; jmp 2b; .balign 16\n"
	"	setc %dl; movl $1, %eax; jmp 2b; .balign 16\n"
	"	setc %dl; movl $2, %eax; jmp 2b; .balign 16\n"
	"	setc %dl; movl $3, %eax; jmp 2b; .balign 16\n");

static uint32_t tsc_aux(void)
{
	uint32_t aux;

	asm volatile("rdtscp" : "=c" (aux) : : "eax", "edx");
	return aux;
}

static void spinner(const char *device, unsigned int number)
{
	struct {
		struct kvm_msrs head;
		struct kvm_msr_entry entries[4];
	} msrs = {
		.head.nmsrs = 4,
		.entries = {
			{ .index = MSR_STAR, .data = (uint64_t)SEL_CODE64 << 32 },
			{ .index = MSR_LSTAR, .data = ENTRY_GPA(number) },
			{ .index = MSR_FMASK, .data = number & 1 ? RFLAGS_CF : 0 },
			{ .index = MSR_TSC_AUX, .data = 0x1000 + number },
		},
	};
	struct kvm_sregs sregs;
	struct kvm_regs regs;
	struct vcpu vcpu;
	uint32_t aux;
	struct vm vm;

	setenv("KVM_RS_DEVICE", device, 1);
	vm_create(&vm, SZ_2M);
	vcpu_start(&vcpu, &vm, MODE_LONG);
	vm_load(&vm, CODE_GPA, syscalls);
	sregs = vcpu_sregs(&vcpu);
	sregs.efer |= EFER_SCE;
	vcpu_set_sregs(&vcpu, &sregs);
	if (xioctl(vcpu.fd, KVM_SET_MSRS, &msrs) != 4)
		die("KVM_SET_MSRS");
	regs = vcpu_regs(&vcpu);
	regs.rbx = 0x1000 + number;
	regs.rsi = number;
	regs.rdi = CALLS;
	regs.r8 = !(number & 1);
	vcpu_set_regs(&vcpu, &regs);

	aux = tsc_aux();
	vcpu_run_to(&vcpu, KVM_EXIT_IO);
	regs = vcpu_regs(&vcpu);
	if (vcpu.run->io.port != PORT_DONE)
		die("guest %u of %s, %llu calls left: RAX %#llx, RCX %#llx, CF %llu", number,
		    device, regs.rdi, regs.rax, regs.rcx, regs.rdx & 1);
	if (tsc_aux() != aux)
		die("TSC_AUX of the host became %#x, was %#x", tsc_aux(), aux);
	exit(0);
}

/* Threads of both that the host switches between, none of which returns to user space. */
TEST(syscall_registers)
{
	static const char *const devices[] = { "/dev/kvm-rs", "/dev/kvm" };
	cpu_set_t first;
	unsigned int i;
	int status;

	for (i = 0; i < 2; i++)
		if (access(devices[i], F_OK))
			SKIP(return, "needs %s", devices[i]);
	CPU_ZERO(&first);
	CPU_SET(0, &first);
	ASSERT_EQ(sched_setaffinity(0, sizeof(first), &first), 0);
	for (i = 0; i < 2 * SPINNERS; i++)
		if (fork() == 0)
			spinner(devices[i % 2], i);
	for (i = 0; i < 2 * SPINNERS; i++) {
		ASSERT_LE(0, wait(&status));
		EXPECT_EQ(status, 0);
	}
}

TEST_HARNESS_MAIN
