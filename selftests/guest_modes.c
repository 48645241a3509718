// SPDX-License-Identifier: GPL-2.0
/*
 * A guest runs in every mode of the CPU: real, protected without paging,
 * 32-bit paged, PAE and 64-bit, and goes from the first to the last itself.
 *
 * In each mode the guest computes a checksum over memory, does port I/O both
 * ways and halts; its registers and memory then hold what they must.
 */
#include "kselftest_harness.h"
#include "vm.h"

#define WORDS		64
#define PORT_IN		0xe0
#define INPUT		0x5a

/*
 * The same computation for operand size 32: sum = sum * 33 + word, over the
 * words at DATA_GPA (real mode: at DS:0, DS base DATA_GPA), then the byte
 * read from PORT_IN, the result to memory after the words and to %ebx.
 */
#define COMPUTE(index, base)						\
	"	xorl %ebx, %ebx\n"					\
	"	xorl %esi, %esi\n"					\
	"	movl $" STR(WORDS) ", %ecx\n"				\
	"1:	imull $33, %ebx, %ebx\n"				\
	"	addl " base "(" index "), %ebx\n"			\
	"	addl $4, %esi\n"					\
	"	decl %ecx\n"						\
	"	jnz 1b\n"						\
	"	xorl %eax, %eax\n"					\
	"	inb $" STR(PORT_IN) ", %al\n"				\
	"	imull $33, %ebx, %ebx\n"				\
	"	addl %eax, %ebx\n"					\
	"	movl %ebx, " base "(" index ")\n"			\
	"	movl $0x12345678, %edx\n"				\
	"	outb %al, $" STR(PORT_DONE) "\n"			\
	"	hlt\n"							\
	"	movl $0x600d, %edx\n"					\
	"	hlt\n"

GUEST_CODE(compute16, 16, COMPUTE("%si", "0"));
GUEST_CODE(compute32, 32, COMPUTE("%esi", "0x100000"));
/* And a part that only 64-bit code can do: the high halves and r8-r15. */
GUEST_CODE(compute64, 64,
	"	movabsq $0x1111222233334444, %r8\n"
	"	leaq 1(%r8), %r15\n"
	"	pushq %r15\n"
	"	popq %r9\n"
	COMPUTE("%rsi", "0x100000"));

/* What the guest should come to. */
static uint32_t fill(struct vm *vm)
{
	uint32_t *words = (uint32_t *)(vm->mem + DATA_GPA), sum = 0;
	unsigned int i;

	for (i = 0; i < WORDS; i++) {
		words[i] = 0x9e3779b9 * (i + 1);
		sum = sum * 33 + words[i];
	}
	return sum * 33 + INPUT;
}

FIXTURE(guest_modes) {
	struct vm vm;
	struct vcpu vcpu;
	uint32_t sum;
};

FIXTURE_SETUP(guest_modes)
{
	vm_create(&self->vm, VM_MEMORY);
	self->sum = fill(&self->vm);
}

FIXTURE_TEARDOWN(guest_modes)
{
	vcpu_destroy(&self->vcpu);
	vm_destroy(&self->vm);
}

/* Runs the computation from wherever the vCPU stands to its second HLT. */
static void check_compute(struct __test_metadata *_metadata,
			  FIXTURE_DATA(guest_modes) *self)
{
	struct kvm_run *run = self->vcpu.run;
	struct kvm_regs regs;

	vcpu_run_to(&self->vcpu, KVM_EXIT_IO);
	ASSERT_EQ(run->io.direction, KVM_EXIT_IO_IN);
	ASSERT_EQ(run->io.port, PORT_IN);
	ASSERT_EQ(run->io.size, 1);
	ASSERT_EQ(run->io.count, 1);
	*(uint8_t *)vcpu_io_data(&self->vcpu) = INPUT;

	vcpu_run_to_port(&self->vcpu, PORT_DONE);
	EXPECT_EQ(*(uint8_t *)vcpu_io_data(&self->vcpu), INPUT);
	regs = vcpu_regs(&self->vcpu);
	EXPECT_EQ(regs.rbx, self->sum);
	EXPECT_EQ(regs.rax, INPUT);
	EXPECT_EQ(regs.rdx, 0x12345678);
	EXPECT_EQ(regs.rcx, 0);
	EXPECT_EQ(regs.rsi, WORDS * 4);
	EXPECT_EQ(((uint32_t *)(self->vm.mem + DATA_GPA))[WORDS], self->sum);

	vcpu_run_to(&self->vcpu, KVM_EXIT_HLT);
	EXPECT_EQ(vcpu_regs(&self->vcpu).rdx, 0x12345678);
	vcpu_run_to(&self->vcpu, KVM_EXIT_HLT);
	EXPECT_EQ(vcpu_regs(&self->vcpu).rdx, 0x600d);
}

TEST_F(guest_modes, real)
{
	struct kvm_sregs sregs;

	vcpu_start(&self->vcpu, &self->vm, MODE_REAL);
	vm_load(&self->vm, CODE_GPA, compute16);
	/* A DS base that no real-mode selector gives: it must be obeyed. */
	sregs = vcpu_sregs(&self->vcpu);
	sregs.ds.base = DATA_GPA;
	sregs.ds.selector = 0x1234;
	vcpu_set_sregs(&self->vcpu, &sregs);
	check_compute(_metadata, self);
	EXPECT_EQ(vcpu_sregs(&self->vcpu).cr0 & 1, 0);
}

TEST_F(guest_modes, protected)
{
	vcpu_start(&self->vcpu, &self->vm, MODE_PROTECTED);
	vm_load(&self->vm, CODE_GPA, compute32);
	check_compute(_metadata, self);
	EXPECT_EQ(vcpu_sregs(&self->vcpu).cr0 & 0x80000001, 1);
}

TEST_F(guest_modes, paged)
{
	vcpu_start(&self->vcpu, &self->vm, MODE_PAGED);
	vm_load(&self->vm, CODE_GPA, compute32);
	check_compute(_metadata, self);
}

TEST_F(guest_modes, pae)
{
	vcpu_start(&self->vcpu, &self->vm, MODE_PAE);
	vm_load(&self->vm, CODE_GPA, compute32);
	check_compute(_metadata, self);
}

TEST_F(guest_modes, long_mode)
{
	struct kvm_regs regs;

	vcpu_start(&self->vcpu, &self->vm, MODE_LONG);
	vm_load(&self->vm, CODE_GPA, compute64);
	check_compute(_metadata, self);
	regs = vcpu_regs(&self->vcpu);
	EXPECT_EQ(regs.r8, 0x1111222233334444);
	EXPECT_EQ(regs.r9, 0x1111222233334445);
	EXPECT_EQ(regs.r15, 0x1111222233334445);
	EXPECT_EQ(regs.rsp, STACK_GPA);
	EXPECT_EQ(*(uint64_t *)(self->vm.mem + STACK_GPA - 8), 0x1111222233334445);
}

/*
 * Paging that is not the identity shows whether the guest's own tables are
 * used: DATA_GPA's page is reached at 1G + 8K only.
 */
GUEST_CODE(load_high, 64,
	"	movabsq $0x40002000, %rsi\n"
	"	movq (%rsi), %rax\n"
	"	incq (%rsi)\n"
	"	outb %al, $" STR(PORT_DONE) "\n");

TEST_F(guest_modes, long_mode_own_tables)
{
	uint64_t *pd = (uint64_t *)(self->vm.mem + LONG_PT_GPA) + 1024 + 512;
	uint64_t *pt = (uint64_t *)(self->vm.mem + DATA_GPA + 0x1000);
	volatile uint64_t *data = vm_u64(&self->vm, DATA_GPA);

	pd[0] = (DATA_GPA + 0x1000) | 7;
	pt[2] = DATA_GPA | 7;
	*data = 0x123456789abcdef0;
	vcpu_start(&self->vcpu, &self->vm, MODE_LONG);
	vm_load(&self->vm, CODE_GPA, load_high);
	vcpu_run_to_port(&self->vcpu, PORT_DONE);
	EXPECT_EQ(vcpu_regs(&self->vcpu).rax, 0x123456789abcdef0);
	EXPECT_EQ(*data, 0x123456789abcdef1);
	/* The CPU's walk marks the entries as it uses them. */
	EXPECT_EQ(pt[2] & 0x60, 0x60);
	EXPECT_EQ(pd[0] & 0x20, 0x20);
}

/*
 * From real mode to 64-bit by the guest alone, with a report after each step:
 * %ebx counts the steps.
 */
#define REPORT	"	incl %ebx\n	outb %al, $" STR(PORT_SYNC) "\n"
GUEST_CODE(ascend, 16,
	"	xorl %ebx, %ebx\n"
	REPORT
	"	lgdtl %cs:(90f - ascend)\n"
	"	movl %cr0, %eax\n"
	"	orl $1, %eax\n"
	"	movl %eax, %cr0\n"
	"	ljmpl $" STR(SEL_CODE32) ", $(20f - ascend + 0x10000)\n"
	".code32\n"
	"20:	movw $" STR(SEL_DATA) ", %ax\n"
	"	movw %ax, %ds\n"
	"	movw %ax, %es\n"
	"	movw %ax, %ss\n"
	"	movl $0x80000, %esp\n"
	REPORT					/* protected */
	"	movl $0x10, %eax\n"
	"	movl %eax, %cr4\n"
	"	movl $0xa000, %eax\n"
	"	movl %eax, %cr3\n"
	"	movl %cr0, %eax\n"
	"	orl $0x80000000, %eax\n"
	"	movl %eax, %cr0\n"
	"	jmp 30f\n"
	"30:	pushl $0x1234\n"
	REPORT					/* paged */
	"	popl %ecx\n"
	"	movl %cr0, %eax\n"
	"	andl $0x7fffffff, %eax\n"
	"	movl %eax, %cr0\n"
	"	movl $0xb000, %eax\n"
	"	movl %eax, %cr3\n"
	"	movl $0x20, %eax\n"
	"	movl %eax, %cr4\n"
	"	movl %cr0, %eax\n"
	"	orl $0x80000000, %eax\n"
	"	movl %eax, %cr0\n"
	REPORT					/* PAE */
	"	movl %cr0, %eax\n"
	"	andl $0x7fffffff, %eax\n"
	"	movl %eax, %cr0\n"
	"	movl $0x4000, %eax\n"
	"	movl %eax, %cr3\n"
	"	movl %ebx, %esi\n"
	"	movl $0xc0000080, %ecx\n"
	"	rdmsr\n"
	"	orl $0x100, %eax\n"
	"	wrmsr\n"
	"	movl %cr0, %eax\n"
	"	orl $0x80000000, %eax\n"
	"	movl %eax, %cr0\n"
	REPORT					/* compatibility mode */
	"	ljmpl $" STR(SEL_CODE64) ", $(40f - ascend + 0x10000)\n"
	".code64\n"
	"40:	movabsq $0xfedcba9876543210, %r10\n"
	REPORT					/* 64-bit */
	"	movq %cr0, %rax\n"
	"	movl $0xc0000080, %ecx\n"
	"	movq %rax, %rdi\n"
	"	rdmsr\n"
	/* And back down: to 32 bits, paging off, long mode off, real mode. */
	"	pushq $" STR(SEL_CODE32) "\n"
	"	pushq $(50f - ascend + 0x10000)\n"
	"	lretq\n"
	".code32\n"
	"50:	movl %cr0, %eax\n"
	"	andl $0x7fffffff, %eax\n"
	"	movl %eax, %cr0\n"
	"	movl $0xc0000080, %ecx\n"
	"	rdmsr\n"
	"	andl $0xfffffeff, %eax\n"
	"	wrmsr\n"
	REPORT					/* protected again */
	"	ljmpl $" STR(SEL_CODE16) ", $(60f - ascend)\n"
	".code16\n"
	"60:	movw $" STR(SEL_DATA16) ", %ax\n"
	"	movw %ax, %ds\n"
	"	movw %ax, %es\n"
	"	movw %ax, %ss\n"
	"	movl %cr0, %eax\n"
	"	andl $0xfffffffe, %eax\n"
	"	movl %eax, %cr0\n"
	"	ljmpw $0x1000, $(70f - ascend)\n"
	"70:	movw $0x2000, %ax\n"
	"	movw %ax, %ds\n"
	"	movl 4, %edx\n"
	REPORT					/* real again */
	"	hlt\n"
	".balign 4\n"
	"90:	.word 63\n"
	"	.long 0x1000\n");

static const struct step {
	uint64_t cr0;		/* PE, PG */
	uint64_t cr4;		/* PSE, PAE */
	uint64_t efer;		/* LME, LMA */
	uint64_t cr3;
	unsigned int l, db;	/* of CS */
} steps[] = {
	{ 0, 0, 0, 0, 0, 0 },
	{ 0x00000001, 0, 0, 0, 0, 1 },
	{ 0x80000001, 0x10, 0, PAGED_PT_GPA, 0, 1 },
	{ 0x80000001, 0x20, 0, PAE_PT_GPA, 0, 1 },
	{ 0x80000001, 0x20, 0x500, LONG_PT_GPA, 0, 1 },
	{ 0x80000001, 0x20, 0x500, LONG_PT_GPA, 1, 0 },
	{ 0x00000001, 0x20, 0, LONG_PT_GPA, 0, 1 },
	{ 0x00000000, 0x20, 0, LONG_PT_GPA, 0, 0 },
};

TEST_F(guest_modes, ascend_by_itself)
{
	struct kvm_sregs sregs;
	struct kvm_regs regs;
	unsigned int i;

	vcpu_start(&self->vcpu, &self->vm, MODE_REAL);
	if (!guests_can_page())
		SKIP(return, "the guest would page, which needs EPT");
	sregs = vcpu_sregs(&self->vcpu);
	sregs.cr4 = 0;
	vcpu_set_sregs(&self->vcpu, &sregs);
	vm_load(&self->vm, CODE_GPA, ascend);
	*(uint32_t *)(self->vm.mem + 0x20004) = 0xcafe;

	for (i = 0; i < ARRAY_SIZE(steps); i++) {
		vcpu_run_to_port(&self->vcpu, PORT_SYNC);
		regs = vcpu_regs(&self->vcpu);
		sregs = vcpu_sregs(&self->vcpu);
		EXPECT_EQ(regs.rbx, i + 1);
		EXPECT_EQ(sregs.cr0 & 0x80000001, steps[i].cr0)
			TH_LOG("step %u: cr0 %#llx", i, sregs.cr0);
		EXPECT_EQ(sregs.cr4, steps[i].cr4)
			TH_LOG("step %u: cr4 %#llx", i, sregs.cr4);
		EXPECT_EQ(sregs.efer, steps[i].efer)
			TH_LOG("step %u: efer %#llx", i, sregs.efer);
		EXPECT_EQ(sregs.cr3, steps[i].cr3)
			TH_LOG("step %u: cr3 %#llx", i, sregs.cr3);
		EXPECT_EQ(sregs.cs.l, steps[i].l) TH_LOG("step %u", i);
		EXPECT_EQ(sregs.cs.db, steps[i].db) TH_LOG("step %u", i);
	}
	EXPECT_EQ(regs.rcx, 0xc0000080);
	EXPECT_EQ(regs.r10, 0xfedcba9876543210);
	EXPECT_EQ(regs.rdx, 0xcafe);
	EXPECT_EQ(sregs.cs.base, 0x10000);
	EXPECT_EQ(sregs.ds.base, 0x20000);
	vcpu_run_to(&self->vcpu, KVM_EXIT_HLT);
}

TEST_HARNESS_MAIN
