// SPDX-License-Identifier: GPL-2.0
/*
 * The guest's debug registers: who accesses all of them exits once; they are the
 * guest's own over exits, entries and what a client sets; they debug; and a client
 * that debugs the guest has its own in their place.
 */
#include <signal.h>
#include <sys/time.h>

#include "kselftest_harness.h"
#include "vm.h"

#define DR6_RESET	0xffff0ff0UL
#define DR7_RESET	0x400UL
#define DR6_BD		(1UL << 13)
#define CR4_DE		(1UL << 3)
#define VECTOR_DB	1
#define VECTOR_UD	6
#define VECTOR_GP	13

/* What the guest leaves in memory: DR0 to DR3, DR6 and DR7. */
#define FOUND_GPA	0x100000UL

#define READ_ALL							\
	"	movq %db0, %rax; movq %rax, 0x100000\n"			\
	"	movq %db1, %rax; movq %rax, 0x100008\n"			\
	"	movq %db2, %rax; movq %rax, 0x100010\n"			\
	"	movq %db3, %rax; movq %rax, 0x100018\n"			\
	"	movq %db6, %rax; movq %rax, 0x100020\n"			\
	"	movq %db7, %rax; movq %rax, 0x100028\n"
/* RBX and the three numbers after it, to DR0 to DR3. */
#define WRITE_ADDRESSES							\
	"	movq %rbx, %db0; incq %rbx\n"				\
	"	movq %rbx, %db1; incq %rbx\n"				\
	"	movq %rbx, %db2; incq %rbx\n"				\
	"	movq %rbx, %db3; incq %rbx\n"
#define SYNC		"	outb %al, $" STR(PORT_SYNC) "\n"
#define DONE		"	outb %al, $" STR(PORT_DONE) "\n"
#define RESUME_AT_9	"	lea 9f(%rip), %rax; mov %rax, " REC_RESUME "\n"

/* As a kernel does that switches from a task that is debugged to another: many times. */
GUEST_CODE(switches, 64,
	SYNC
	"	movl $100, %ecx\n"
	"1:\n"
	WRITE_ADDRESSES
	READ_ALL
	"	movl $0xffff0ff0, %eax; movq %rax, %db6\n"
	"	movl $0x400, %eax; movq %rax, %db7\n"
	"	decl %ecx\n"
	"	jnz 1b\n"
	SYNC);
/* Writes, exits for something else, and reads. */
GUEST_CODE(between, 64,
	WRITE_ADDRESSES
	"	movl $0xffff4ff1, %eax; movq %rax, %db6\n"
	"	movl $0x700, %eax; movq %rax, %db7\n"
	"	xorl %eax, %eax; cpuid\n"
	READ_ALL
	SYNC
	".globl between_again\n"
	"between_again:\n"
	READ_ALL
	DONE);
extern const char between_again[];
/* A breakpoint at label 7, which DR7 at RBP enables. */
GUEST_CODE(breakpoint, 64,
	RESUME_AT_9
	"	lea 7f(%rip), %rax; movq %rax, %db0\n"
	"	movl $0xffff0ff0, %eax; movq %rax, %db6\n"
	"	movq %rbp, %db7\n"
	"	xorl %esi, %esi\n"
	"7:	incl %esi\n"
	"9:	movq %db6, %rdi\n"
	"	movl $0x400, %eax; movq %rax, %db7\n"
	DONE);
/* The same for a write of memory at RBX: a trap after it. */
GUEST_CODE(watchpoint, 64,
	RESUME_AT_9
	"	movq %rbx, %db2\n"
	"	movl $0xffff0ff0, %eax; movq %rax, %db6\n"
	"	movq %rbp, %db7\n"
	"	movq %rbp, (%rbx)\n"
	"	movl $0xbad, %esi\n"
	"9:	movq %db6, %rdi\n"
	"	movl $0x400, %eax; movq %rax, %db7\n"
	DONE);
/* Each access is detected once, and is not done. */
GUEST_CODE(detected, 64,
	RESUME_AT_9
	"	movl $0x5000, %ebx; movq %rbx, %db1\n"
	"	movl $0xffff0ff0, %eax; movq %rax, %db6\n"
	"	movl $0x2400, %eax; movq %rax, %db7\n"
	"	testl %ebp, %ebp; jz 1f\n"
	"	xorl %eax, %eax; cpuid\n"
	"1:	movl $0xbad, %eax; movq %rax, %db1\n"
	"9:	movq %db1, %rsi\n"
	"	movq %db6, %rdi\n"
	"	movq %db7, %rdx\n"
	DONE);
GUEST_CODE(reads_db4, 64,
	RESUME_AT_9
	"	movq %db4, %rsi\n"
	DONE
	"9:	movl $1, %esi\n"
	DONE);
GUEST_CODE(reads_from_user, 64,
	"	.balign 16\n"
	"	movq %db7, %rsi\n");
GUEST_CODE(reads, 64,
	READ_ALL
	WRITE_ADDRESSES
	DONE);
/* Goes on until a register is not what was written to it. */
GUEST_CODE(looks_for_ever, 64,
	"1:	incq %r8\n"
	"	movq %r8, %db0\n"
	"	movq %db0, %rdi; cmpq %rdi, %r8; jne 2f\n"
	"	xorl %eax, %eax; cpuid\n"
	"	movq %db0, %rdi; cmpq %rdi, %r8; je 1b\n"
	"2:\n"
	DONE);

FIXTURE(guest) {
	struct vm vm;
	struct vcpu vcpu;
};

FIXTURE_SETUP(guest)
{
	vm_create(&self->vm, VM_MEMORY);
	vcpu_start(&self->vcpu, &self->vm, MODE_LONG);
}

FIXTURE_TEARDOWN(guest)
{
	vcpu_destroy(&self->vcpu);
	vm_destroy(&self->vm);
}

static struct kvm_debugregs debug_registers(struct vcpu *vcpu)
{
	struct kvm_debugregs debug;

	xioctl(vcpu->fd, KVM_GET_DEBUGREGS, &debug);
	return debug;
}

/* Starts code with RBX and RBP; its exception record is empty. */
#define START(code, ...)						\
	do {								\
		struct kvm_regs r = {					\
			.rip = CODE_GPA, .rsp = STACK_GPA, .rflags = 2, __VA_ARGS__ \
		};							\
		vm_load(&self->vm, CODE_GPA, code);			\
		memset(vm_record(&self->vm), 0, sizeof(struct exception_record)); \
		vcpu_set_regs(&self->vcpu, &r);				\
	} while (0)

#define EXPECT_FOUND(first, dr6, dr7)					\
	do {								\
		for (unsigned int i = 0; i < 4; i++) {			\
			EXPECT_EQ(*vm_u64(&self->vm, FOUND_GPA + i * 8), (first) + i); \
		}							\
		EXPECT_EQ(*vm_u64(&self->vm, FOUND_GPA + 0x20), dr6);	\
		EXPECT_EQ(*vm_u64(&self->vm, FOUND_GPA + 0x28), dr7);	\
	} while (0)

#define EXPECT_CLIENT_SEES(first, dr6_, dr7_)				\
	do {								\
		struct kvm_debugregs d = debug_registers(&self->vcpu);	\
		for (unsigned int i = 0; i < 4; i++) {			\
			EXPECT_EQ(d.db[i], (first) + i);		\
		}							\
		EXPECT_EQ(d.dr6, dr6_);					\
		EXPECT_EQ(d.dr7, dr7_);					\
	} while (0)

TEST_F(guest, one_exit)
{
	long before;

	START(switches, .rbx = 0x7000);
	vcpu_run_to_port(&self->vcpu, PORT_SYNC);
	before = vm_stat(&self->vm, "exits");
	vcpu_run_to_port(&self->vcpu, PORT_SYNC);
	/* The first access, the OUT, and an interrupt of the host or two, each with one more. */
	EXPECT_LT(vm_stat(&self->vm, "exits") - before, 10);
	EXPECT_FOUND(0x7000UL + 99 * 4, DR6_RESET, DR7_RESET);
	EXPECT_CLIENT_SEES(0x7000UL + 99 * 4, DR6_RESET, DR7_RESET);
}

TEST_F(guest, kept_over_exits)
{
	struct kvm_debugregs set = {
		.db = { 0x1000, 0x1001, 0x1002, 0x1003 },
		.dr6 = DR6_RESET | 2,
		.dr7 = 0x500,
	};

	START(between, .rbx = 0x123450);
	vcpu_run_to_port(&self->vcpu, PORT_SYNC);
	EXPECT_FOUND(0x123450UL, 0xffff4ff1UL, 0x700UL);
	EXPECT_CLIENT_SEES(0x123450UL, 0xffff4ff1UL, 0x700UL);
	xioctl(self->vcpu.fd, KVM_SET_DEBUGREGS, &set);
	vcpu_run_to_port(&self->vcpu, PORT_DONE);
	EXPECT_FOUND(0x1000UL, DR6_RESET | 2, 0x500UL);
	EXPECT_CLIENT_SEES(0x1000UL, DR6_RESET | 2, 0x500UL);
}

/* Each guest has its own, and finds nothing of another's. */
TEST_F(guest, of_two_vcpus)
{
	struct vcpu other;

	vcpu_create(&other, &self->vm, 1);
	vcpu_set_supported_cpuid(&other);
	vcpu_set_mode(&other, MODE_LONG);
	START(between, .rbx = 0x123450);
	vcpu_run_to_port(&self->vcpu, PORT_SYNC);
	vcpu_set_rip(&other, CODE_GPA + (between_again - between));
	vcpu_run_to_port(&other, PORT_DONE);
	for (unsigned int i = 0; i < 4; i++) {
		EXPECT_EQ(*vm_u64(&self->vm, FOUND_GPA + i * 8), 0);
	}
	EXPECT_EQ(*vm_u64(&self->vm, FOUND_GPA + 0x20), DR6_RESET);
	EXPECT_EQ(*vm_u64(&self->vm, FOUND_GPA + 0x28), DR7_RESET);
	vcpu_run_to_port(&self->vcpu, PORT_DONE);
	EXPECT_FOUND(0x123450UL, 0xffff4ff1UL, 0x700UL);
	vcpu_destroy(&other);
}

TEST_F(guest, breakpoint)
{
	struct exception_record *record = vm_record(&self->vm);

	START(breakpoint, .rbp = 0x402);
	vcpu_run_to_port(&self->vcpu, PORT_DONE);
	EXPECT_EQ(record->count, 1);
	EXPECT_EQ(record->vector, VECTOR_DB);
	EXPECT_EQ(vcpu_regs(&self->vcpu).rsi, 0);
	EXPECT_EQ(vcpu_regs(&self->vcpu).rdi, DR6_RESET | 1);
}

TEST_F(guest, watchpoint)
{
	struct exception_record *record = vm_record(&self->vm);

	/* Eight bytes written, by DR2. */
	START(watchpoint, .rbx = DATA_GPA + 0x800, .rbp = 0x9000420);
	vcpu_run_to_port(&self->vcpu, PORT_DONE);
	EXPECT_EQ(record->count, 1);
	EXPECT_EQ(record->vector, VECTOR_DB);
	EXPECT_NE(vcpu_regs(&self->vcpu).rsi, 0xbad);
	EXPECT_EQ(vcpu_regs(&self->vcpu).rdi, DR6_RESET | 4);
	EXPECT_EQ(*vm_u64(&self->vm, DATA_GPA + 0x800), 0x9000420);
}

TEST_F(guest, general_detect)
{
	struct exception_record *record = vm_record(&self->vm);

	/* By the CPU itself, or by an exit before it. */
	for (unsigned int exits = 0; exits < 2; exits++) {
		START(detected, .rbp = exits);
		vcpu_run_to_port(&self->vcpu, PORT_DONE);
		EXPECT_EQ(record->count, 1);
		EXPECT_EQ(record->vector, VECTOR_DB);
		EXPECT_EQ(vcpu_regs(&self->vcpu).rsi, 0x5000);
		EXPECT_EQ(vcpu_regs(&self->vcpu).rdi, DR6_RESET | DR6_BD);
		/* Else the handler could not look. */
		EXPECT_EQ(vcpu_regs(&self->vcpu).rdx, DR7_RESET);
	}
}

TEST_F(guest, names_of_old)
{
	struct exception_record *record = vm_record(&self->vm);
	struct kvm_sregs sregs = vcpu_sregs(&self->vcpu);

	START(reads_db4);
	vcpu_run_to_port(&self->vcpu, PORT_DONE);
	EXPECT_EQ(record->count, 0);
	EXPECT_EQ(vcpu_regs(&self->vcpu).rsi, DR6_RESET);
	sregs.cr4 |= CR4_DE;
	vcpu_set_sregs(&self->vcpu, &sregs);
	START(reads_db4);
	vcpu_run_to_port(&self->vcpu, PORT_DONE);
	EXPECT_EQ(record->count, 1);
	EXPECT_EQ(record->vector, VECTOR_UD);
	EXPECT_EQ(vcpu_regs(&self->vcpu).rsi, 1);
}

TEST_F(guest, from_user)
{
	struct exception_record *record = vm_record(&self->vm);
	struct kvm_sregs sregs = vcpu_sregs(&self->vcpu);

	START(reads_from_user);
	sregs.cs.selector |= 3;
	sregs.ss.selector |= 3;
	sregs.cs.dpl = sregs.ss.dpl = 3;
	vcpu_set_sregs(&self->vcpu, &sregs);
	/* The stack of level 0. */
	memcpy(self->vm.mem + TSS_GPA + 4, &(uint64_t){ STACK_GPA }, 8);
	vcpu_run_to_port(&self->vcpu, PORT_EXCEPTION);
	EXPECT_EQ(record->vector, VECTOR_GP);
	EXPECT_EQ(record->error, 0);
	EXPECT_EQ(record->rip, CODE_GPA);
}

/*
 * A client that has breakpoints of its own: the guest finds and keeps its own
 * registers all the same, and those of the client hit.
 */
TEST_F(guest, debugger)
{
	struct kvm_guest_debug debug = {
		.control = KVM_GUESTDBG_ENABLE | KVM_GUESTDBG_USE_HW_BP,
		.arch.debugreg = { 0, 0, 0, CODE_GPA + (reads_end - reads) - 2, 0, 0, 0, 0x440 },
	};
	struct kvm_debugregs set = {
		.db = { 0x2000, 0x2001, 0x2002, 0x2003 },
		.dr6 = DR6_RESET,
		.dr7 = 0x600,
	};
	struct kvm_run *run = self->vcpu.run;

	xioctl(self->vcpu.fd, KVM_SET_DEBUGREGS, &set);
	START(between, .rbx = 0x123450);
	vcpu_run_to_port(&self->vcpu, PORT_SYNC);
	xioctl(self->vcpu.fd, KVM_SET_DEBUGREGS, &set);
	xioctl(self->vcpu.fd, KVM_SET_GUEST_DEBUG, &debug);
	START(reads, .rbx = 0x3000);
	vcpu_run_to(&self->vcpu, KVM_EXIT_DEBUG);
	EXPECT_EQ(run->debug.arch.exception, VECTOR_DB);
	EXPECT_EQ(run->debug.arch.pc, CODE_GPA + (reads_end - reads) - 2);
	EXPECT_EQ(run->debug.arch.dr6 & 0xf, 8);
	EXPECT_FOUND(0x2000UL, DR6_RESET, 0x600UL);
	EXPECT_CLIENT_SEES(0x3000UL, DR6_RESET, 0x600UL);
	debug.control = 0;
	xioctl(self->vcpu.fd, KVM_SET_GUEST_DEBUG, &debug);
	vcpu_run_to_port(&self->vcpu, PORT_DONE);
	START(reads, .rbx = 0x4000);
	vcpu_run_to_port(&self->vcpu, PORT_DONE);
	EXPECT_FOUND(0x3000UL, DR6_RESET, 0x600UL);
	EXPECT_CLIENT_SEES(0x4000UL, DR6_RESET, 0x600UL);
}

static void ignore(int signal)
{
}

/*
 * The same while the guest has its registers to itself: between the exit that gives
 * them and the entry with them. KVM loads the client's then, and takes them for the
 * guest's. The timer goes off after another time each round, the guest's first steps
 * and more.
 */
TEST_F(guest, debugger_comes_and_goes)
{
	struct kvm_guest_debug debug = {
		.arch.debugreg = { 0x5000, 0, 0, 0, 0, 0, 0, 0x402 },
	};
	/* Again later, for one that comes before the run. */
	struct itimerval timer = { .it_interval.tv_usec = 20000 };
	unsigned int rounds;
	int error;

	if (!device_is_kvm_rs())
		SKIP(return, "the guest may lose its registers");
	signal(SIGALRM, ignore);
	START(looks_for_ever);
	for (rounds = 0; rounds < 300; rounds++) {
		timer.it_value.tv_usec = 100 + rounds * 7;
		setitimer(ITIMER_REAL, &timer, NULL);
		error = vcpu_run(&self->vcpu);
		ASSERT_EQ(error, -EINTR);
		debug.control = rounds % 2 ? 0 : KVM_GUESTDBG_ENABLE | KVM_GUESTDBG_USE_HW_BP;
		xioctl(self->vcpu.fd, KVM_SET_GUEST_DEBUG, &debug);
	}
	timer = (struct itimerval){};
	setitimer(ITIMER_REAL, &timer, NULL);
	EXPECT_GT(vcpu_regs(&self->vcpu).r8, rounds);
}

TEST_HARNESS_MAIN
