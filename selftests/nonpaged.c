// SPDX-License-Identifier: GPL-2.0
/*
 * Guests without paging, in real and in protected mode. They run in different
 * ways: with unrestricted guest as they are; without it real mode is run as
 * virtual-8086 mode, or in software, and paging is on without the guest's
 * knowledge, on a map of EPT's or on tables of the module's own. Each test
 * holds for all of them, and for kvm_intel.
 */
#include <pthread.h>

#include "kselftest_harness.h"
#include "vm.h"

#define SLOT_GPA	0x40000000UL
#define COUNTS		0x600		/* a word for each vector, at DS 0 */
#define RESULTS		0x900

#define CR0_PE		1U
#define CR0_WP		(1U << 16)
#define CR0_PG		(1U << 31)
#define CR4_PSE		(1U << 4)
#define CR4_PAE		(1U << 5)
#define CR4_PGE		(1U << 7)

FIXTURE(nonpaged) {
	struct vm vm;
	struct vcpu vcpu;
};

FIXTURE_SETUP(nonpaged)
{
	vm_create(&self->vm, VM_MEMORY);
}

FIXTURE_TEARDOWN(nonpaged)
{
	vcpu_destroy(&self->vcpu);
	vm_destroy(&self->vm);
}

static uint16_t *word(FIXTURE_DATA(nonpaged) *self, unsigned int gpa)
{
	return (uint16_t *)(self->vm.mem + gpa);
}

static uint32_t dword(FIXTURE_DATA(nonpaged) *self, unsigned int gpa)
{
	uint32_t value;

	memcpy(&value, self->vm.mem + gpa, sizeof(value));
	return value;
}

/*
 * Handlers of real mode, 32 bytes apart: each counts its vector at DS 0. Those
 * for #DE and #UD skip the instruction, of 2 bytes. That for 0x80 also keeps
 * the flags it runs with and those that it returns to.
 */
GUEST_CODE(real_handlers, 16,
	".macro count vector\n"
	"	incw " STR(COUNTS) " + 2 * \\vector\n"
	".endm\n"
	".macro skip\n"
	"	pushw %bp\n"
	"	movw %sp, %bp\n"
	"	addw $2, 2(%bp)\n"
	"	popw %bp\n"
	".endm\n"
	"	skip\n	count 0\n	iretw\n	.balign 32\n"
	"	count 2\n	iretw\n	.balign 32\n"
	"	count 3\n	iretw\n	.balign 32\n"
	"	count 4\n	iretw\n	.balign 32\n"
	"	skip\n	count 6\n	iretw\n	.balign 32\n"
	"	count 0x20\n	iretw\n	.balign 32\n"
	"	pushw %bp\n"
	"	movw %sp, %bp\n"
	"	pushfw\n"
	"	popw " STR(RESULTS) "\n"
	"	movw 6(%bp), %bp\n"
	"	movw %bp, " STR(RESULTS) " + 2\n"
	"	popw %bp\n"
	"	count 0x80\n"
	"	iretw\n");

static const unsigned char handled[] = { 0, 2, 3, 4, 6, 0x20, 0x80 };
#define HANDLERS	0x9000		/* of real mode: segment 0x900, offset 0 */

static void set_vectors(FIXTURE_DATA(nonpaged) *self, unsigned int table)
{
	unsigned int i;

	vm_load(&self->vm, HANDLERS, real_handlers);
	for (i = 0; i < sizeof(handled); i++) {
		word(self, table + 4 * handled[i])[0] = 32 * i;
		word(self, table + 4 * handled[i])[1] = HANDLERS >> 4;
	}
}

GUEST_CODE(real_events, 16,
	"	xorw %bx, %bx\n"
	"	movw $7, %ax\n"
	"	divb %bl\n"
	"	ud2\n"
	"	int3\n"
	"	movb $0x7f, %al\n"
	"	addb $1, %al\n"
	"	into\n"
	"	sti\n"
	"	int $0x80\n"
	"	cli\n"
	"	pushfw\n"
	"	popw " STR(RESULTS) " + 4\n"
	/* What only the CPU does. */
	"	fninit\n"
	"	fldpi\n"
	"	fistpl " STR(RESULTS) " + 8\n"
	"	sti\n"
	"	hlt\n"
	"	hlt\n"
	"	outb %al, $" STR(PORT_DONE) "\n");

TEST_F(nonpaged, real_mode_events)
{
	struct kvm_interrupt irq = { .irq = 0x20 };
	unsigned int i;

	set_vectors(self, 0);
	vcpu_start(&self->vcpu, &self->vm, MODE_REAL);
	vm_load(&self->vm, CODE_GPA, real_events);
	vcpu_run_to(&self->vcpu, KVM_EXIT_HLT);
	for (i = 0; i < sizeof(handled); i++) {
		bool expected = handled[i] != 2 && handled[i] != 0x20;

		EXPECT_EQ(word(self, COUNTS)[handled[i]], expected)
			TH_LOG("vector %#x", handled[i]);
	}
	EXPECT_EQ(word(self, RESULTS)[0] & 0x300, 0);
	EXPECT_EQ(word(self, RESULTS)[1] & 0x200, 0x200);
	EXPECT_EQ(word(self, RESULTS)[2] & 0x200, 0);
	EXPECT_EQ(dword(self, RESULTS + 8), 3);

	xioctl(self->vcpu.fd, KVM_INTERRUPT, &irq);
	vcpu_run_to(&self->vcpu, KVM_EXIT_HLT);
	EXPECT_EQ(word(self, COUNTS)[0x20], 1);
	EXPECT_EQ(word(self, COUNTS)[2], 0);
	xioctl(self->vcpu.fd, KVM_NMI, 0);
	vcpu_run_to_port(&self->vcpu, PORT_DONE);
	EXPECT_EQ(word(self, COUNTS)[2], 1);
	EXPECT_EQ(vcpu_regs(&self->vcpu).rsp, 0x8000);
	EXPECT_EQ(vcpu_regs(&self->vcpu).rflags & 0x20200, 0x200);
}

/* The same, with the vectors elsewhere. */
GUEST_CODE(real_lidt, 16,
	"	lidtw %cs:2f - real_lidt\n"
	"	int $0x80\n"
	"	int3\n"
	"	outb %al, $" STR(PORT_DONE) "\n"
	"2:	.word 0x3ff\n"
	"	.long 0x7000\n");

TEST_F(nonpaged, real_mode_vectors_elsewhere)
{
	set_vectors(self, 0x7000);
	vcpu_start(&self->vcpu, &self->vm, MODE_REAL);
	vm_load(&self->vm, CODE_GPA, real_lidt);
	vcpu_run_to_port(&self->vcpu, PORT_DONE);
	EXPECT_EQ(word(self, COUNTS)[0x80], 1);
	EXPECT_EQ(word(self, COUNTS)[3], 1);
	EXPECT_EQ(vcpu_sregs(&self->vcpu).idt.base, 0x7000);
}

/* Instructions of privilege level 0, which real mode has. */
GUEST_CODE(real_privileged, 16,
	"	movl $0x12345000, %eax\n"
	"	movl %eax, %cr3\n"
	"	movl %cr3, %ebx\n"
	"	movl %ebx, " STR(RESULTS) "\n"
	"	movl %cr0, %eax\n"
	"	movl %eax, " STR(RESULTS) " + 4\n"
	"	movl %cr4, %eax\n"
	"	orl $0x80, %eax\n"
	"	movl %eax, %cr4\n"
	"	movl %cr4, %eax\n"
	"	movl %eax, " STR(RESULTS) " + 8\n"
	"	sgdtl " STR(RESULTS) " + 16\n"
	"	lgdtl %cs:2f - real_privileged\n"
	"	sgdtl " STR(RESULTS) " + 24\n"
	"	wbinvd\n"
	"	clts\n"
	"	smsw %ax\n"
	"	movw %ax, " STR(RESULTS) " + 12\n"
	"	movl $0x174, %ecx\n"
	"	movl $0x1238, %eax\n"
	"	xorl %edx, %edx\n"
	"	wrmsr\n"
	"	xorl %eax, %eax\n"
	"	rdmsr\n"
	"	movl %eax, " STR(RESULTS) " + 32\n"
	"	movl $0xabcd, %eax\n"
	"	movl %eax, %dr1\n"
	"	movl %dr1, %edx\n"
	"	movl %edx, " STR(RESULTS) " + 36\n"
	"	outb %al, $" STR(PORT_DONE) "\n"
	"2:	.word 0x1f\n"
	"	.long 0x5678\n");

TEST_F(nonpaged, real_mode_privileged)
{
	struct kvm_sregs sregs;

	vcpu_start(&self->vcpu, &self->vm, MODE_REAL);
	vm_load(&self->vm, CODE_GPA, real_privileged);
	vcpu_run_to_port(&self->vcpu, PORT_DONE);
	sregs = vcpu_sregs(&self->vcpu);
	EXPECT_EQ(dword(self, RESULTS), 0x12345000);
	EXPECT_EQ(sregs.cr3, 0x12345000);
	EXPECT_EQ(dword(self, RESULTS + 4) & (CR0_PE | CR0_PG), 0);
	EXPECT_EQ(dword(self, RESULTS + 4), sregs.cr0);
	EXPECT_EQ(dword(self, RESULTS + 8), sregs.cr4);
	EXPECT_EQ(sregs.cr4 & CR4_PGE, CR4_PGE);
	EXPECT_EQ(*word(self, RESULTS + 12) & CR0_PE, 0);
	EXPECT_EQ(*word(self, RESULTS + 24), 0x1f);
	EXPECT_EQ(dword(self, RESULTS + 26), 0x5678);
	EXPECT_EQ(sregs.gdt.base, 0x5678);
	EXPECT_EQ(dword(self, RESULTS + 32), 0x1238);
	EXPECT_EQ(dword(self, RESULTS + 36), 0xabcd);
}

/* To protected mode for data segments of 4 GiB, and back with them. */
GUEST_CODE(big_real, 16,
	"	lgdtl %cs:2f - big_real\n"
	"	cli\n"
	"	movl %cr0, %eax\n"
	"	orb $1, %al\n"
	"	movl %eax, %cr0\n"
	"	movw $" STR(SEL_DATA) ", %bx\n"
	"	movw %bx, %ds\n"
	"	movw %bx, %es\n"
	"	andb $0xfe, %al\n"
	"	movl %eax, %cr0\n"
	"	xorw %bx, %bx\n"
	"	movw %bx, %ds\n"
	"	movw %bx, %es\n"
	"	movl $0x120000, %edi\n"
	"	movl $0x1badcafe, %eax\n"
	"	movl $64, %ecx\n"
	"	cld\n"
	"	addr32 rep stosl\n"
	"	movl 0x120080(,%ecx,1), %edx\n"
	"	movl %edx, " STR(RESULTS) "\n"
	"	int $0x80\n"
	/* Limits of 64 KiB again. */
	"	movl %cr0, %eax\n"
	"	orb $1, %al\n"
	"	movl %eax, %cr0\n"
	"	movw $" STR(SEL_DATA16) ", %bx\n"
	"	movw %bx, %ds\n"
	"	movw %bx, %es\n"
	"	andb $0xfe, %al\n"
	"	movl %eax, %cr0\n"
	"	xorw %bx, %bx\n"
	"	movw %bx, %ds\n"
	"	movw %bx, %es\n"
	"	fninit\n"
	"	fldpi\n"
	"	fistpl " STR(RESULTS) " + 8\n"
	"	outb %al, $" STR(PORT_DONE) "\n"
	"2:	.word " STR(SEL_TSS) " + 15\n"
	"	.long 0x1000\n");

TEST_F(nonpaged, big_real_mode)
{
	unsigned int i;

	set_vectors(self, 0);
	vcpu_start(&self->vcpu, &self->vm, MODE_REAL);
	vm_load(&self->vm, CODE_GPA, big_real);
	vcpu_run_to_port(&self->vcpu, PORT_DONE);
	for (i = 0; i < 64; i++) {
		ASSERT_EQ(dword(self, 0x120000 + 4 * i), 0x1badcafe);
	}
	EXPECT_EQ(dword(self, 0x120100), 0);
	EXPECT_EQ(dword(self, RESULTS + 8), 3);
	EXPECT_EQ(word(self, COUNTS)[0x80], 1);
}

/* Counts in a byte and a word, which another one does, too. */
GUEST_CODE(count_together, 16,
	"	movw $2000, %cx\n"
	"1:	lock incb " STR(RESULTS) "\n"
	"	lock incw " STR(RESULTS) " + 2\n"
	"	decw %cx\n"
	"	jnz 1b\n"
	"	outb %al, $" STR(PORT_DONE) "\n");

static void start_big_real(struct vcpu *vcpu)
{
	struct kvm_sregs sregs;

	vcpu_set_supported_cpuid(vcpu);
	vcpu_set_mode(vcpu, MODE_REAL);
	sregs = vcpu_sregs(vcpu);
	sregs.ds.limit = 0xffffffff;
	sregs.ds.g = 1;
	vcpu_set_sregs(vcpu, &sregs);
}

static void *run_to_done(void *vcpu)
{
	vcpu_run_to_port((struct vcpu *)vcpu, PORT_DONE);
	return NULL;
}

/* Instructions that lock do so where they are executed in software, in any size. */
TEST_F(nonpaged, big_real_mode_together)
{
	struct vcpu other;
	pthread_t thread;

	vcpu_create(&self->vcpu, &self->vm, 0);
	vcpu_create(&other, &self->vm, 1);
	start_big_real(&self->vcpu);
	start_big_real(&other);
	vm_load(&self->vm, CODE_GPA, count_together);
	ASSERT_EQ(pthread_create(&thread, NULL, run_to_done, &other), 0);
	vcpu_run_to_port(&self->vcpu, PORT_DONE);
	pthread_join(thread, NULL);
	EXPECT_EQ(*(uint8_t *)(self->vm.mem + RESULTS), 4000 % 256);
	EXPECT_EQ(*(uint16_t *)(self->vm.mem + RESULTS + 2), 4000);
	vcpu_destroy(&other);
}

/* For each of %ecx pages from %ebx: word 0 is added to word 1. */
GUEST_CODE(pages32, 32,
	"1:	movl (%ebx), %eax\n"
	"	addl %eax, 4(%ebx)\n"
	"	addl $0x1000, %ebx\n"
	"	decl %ecx\n"
	"	jnz 1b\n"
	"	outb %al, $" STR(PORT_DONE) "\n");

static int run_pages(FIXTURE_DATA(nonpaged) *self, uint32_t gpa, unsigned int count)
{
	struct kvm_regs regs = vcpu_regs(&self->vcpu);

	regs.rip = CODE_GPA;
	regs.rbx = gpa;
	regs.rcx = count;
	vcpu_set_regs(&self->vcpu, &regs);
	return vcpu_run(&self->vcpu);
}

TEST_F(nonpaged, memory)
{
	const unsigned int pages = 2 * SZ_2M / PAGE;
	char *mem = memory_alloc(2 * SZ_2M, SZ_2M);
	unsigned int i, turn;

	vcpu_start(&self->vcpu, &self->vm, MODE_PROTECTED);
	vm_load(&self->vm, CODE_GPA, pages32);
	madvise(mem, 2 * SZ_2M, MADV_NOHUGEPAGE);
	for (i = 0; i < pages; i++)
		*(uint32_t *)(mem + i * PAGE) = 3 * i + 1;
	ASSERT_EQ(vm_set_slot(&self->vm, 1, 0, SLOT_GPA, 2 * SZ_2M, mem), 0);
	for (turn = 1; turn <= 2; turn++) {
		ASSERT_EQ(run_pages(self, SLOT_GPA, pages), 0);
		for (i = 0; i < pages; i++) {
			ASSERT_EQ(((uint32_t *)(mem + i * PAGE))[1], turn * (3 * i + 1));
		}
	}
	/* At another place, and nothing at the old one. */
	ASSERT_EQ(vm_set_slot(&self->vm, 1, 0, 0xb0000000, 2 * SZ_2M, mem), 0);
	ASSERT_EQ(run_pages(self, 0xb0000000, pages), 0);
	EXPECT_EQ(((uint32_t *)(mem + 5 * PAGE))[1], 3 * 16);
	ASSERT_EQ(run_pages(self, SLOT_GPA, 1), 0);
	EXPECT_EQ(self->vcpu.run->exit_reason, KVM_EXIT_MMIO);
	EXPECT_EQ(self->vcpu.run->mmio.phys_addr, SLOT_GPA);
}

/*
 * On our own tables, a fault brings in what follows in its group of eight pages,
 * as far as the host has it at hand for writing, and no log wants to know.
 */
TEST_F(nonpaged, pages_around)
{
	const unsigned int pages = 64;
	char *mem = memory_alloc(pages * PAGE, PAGE);
	long faults, mapped;
	unsigned int i;

	vcpu_start(&self->vcpu, &self->vm, MODE_PROTECTED);
	if (module_parameter("ept") != 'N')
		SKIP(return, "for guests on our own tables");
	vm_load(&self->vm, CODE_GPA, pages32);
	madvise(mem, pages * PAGE, MADV_NOHUGEPAGE);
	for (i = 0; i < pages; i++)
		*(uint32_t *)(mem + i * PAGE) = i + 1;
	/* One that the host does not have, and one that may not be written. */
	ASSERT_EQ(madvise(mem + 18 * PAGE, PAGE, MADV_DONTNEED), 0);
	ASSERT_EQ(mprotect(mem + 26 * PAGE, PAGE, PROT_READ), 0);
	ASSERT_EQ(vm_set_slot(&self->vm, 1, 0, SLOT_GPA, (pages - 3) * PAGE, mem), 0);
	ASSERT_EQ(run_pages(self, SLOT_GPA, 1), 0);

#define EXPECT_FAULTS_AND_PAGES(first, count, new_faults, new_pages) do {	\
	faults = vm_stat(&self->vm, "pf_fixed");					\
	mapped = vm_stat(&self->vm, "pages_4k");					\
	ASSERT_EQ(run_pages(self, SLOT_GPA + (first) * PAGE, count), 0);	\
	EXPECT_EQ(vm_stat(&self->vm, "pf_fixed") - faults, new_faults);		\
	EXPECT_EQ(vm_stat(&self->vm, "pages_4k") - mapped, new_pages);		\
} while (0)
	/* The rest of the first group is there. */
	EXPECT_FAULTS_AND_PAGES(1, 7, 0, 0);
	/* In the middle of a group, from there on; then what is in front. */
	EXPECT_FAULTS_AND_PAGES(11, 5, 1, 5);
	EXPECT_FAULTS_AND_PAGES(8, 3, 1, 3);
	/* What follows one that is not there is not brought in; to be written, it faults again. */
	EXPECT_FAULTS_AND_PAGES(16, 2, 1, 2);
	EXPECT_FAULTS_AND_PAGES(18, 1, 2, 6);
	EXPECT_EQ(*(uint32_t *)(mem + 18 * PAGE), 0);
	/* The client may write none from 26 on, in one go. */
	EXPECT_FAULTS_AND_PAGES(24, 2, 1, 2);
	/* No further than the slot. */
	EXPECT_FAULTS_AND_PAGES(56, 5, 1, 5);
	for (i = 0; i < 17; i++) {
		EXPECT_EQ(((uint32_t *)(mem + i * PAGE))[1], i + 1);
	}

	/* Where writes are logged, each page has faults of its own, to be read and written. */
	ASSERT_EQ(mprotect(mem + 26 * PAGE, PAGE, PROT_READ | PROT_WRITE), 0);
	ASSERT_EQ(vm_set_slot(&self->vm, 1, KVM_MEM_LOG_DIRTY_PAGES, SLOT_GPA,
			      (pages - 3) * PAGE, mem), 0);
	EXPECT_FAULTS_AND_PAGES(40, 4, 8, 4);
}

TEST_F(nonpaged, large_pages)
{
	const unsigned int pages = SZ_2M / PAGE;
	char *mem = memory_alloc(SZ_2M, SZ_2M);
	long before;
	unsigned int i;

	vcpu_start(&self->vcpu, &self->vm, MODE_PROTECTED);
	vm_load(&self->vm, CODE_GPA, pages32);
	madvise(mem, SZ_2M, MADV_HUGEPAGE);
	memset(mem, 0, SZ_2M);
	if (!memory_is_huge(mem))
		SKIP(return, "the host gives no large pages");
	ASSERT_EQ(vm_set_slot(&self->vm, 1, 0, SLOT_GPA, SZ_2M, mem), 0);
	before = module_stat("ept_2m_mapped");
	for (i = 0; i < pages; i++)
		*(uint32_t *)(mem + i * PAGE) = i + 1;
	ASSERT_EQ(run_pages(self, SLOT_GPA, pages), 0);
	if (device_is_kvm_rs())
		EXPECT_GT(module_stat("ept_2m_mapped"), before);
	/* A hole in it: the guest finds zeroes there and the rest as it was. */
	ASSERT_EQ(madvise(mem + 7 * PAGE, 2 * PAGE, MADV_DONTNEED), 0);
	ASSERT_EQ(run_pages(self, SLOT_GPA, pages), 0);
	for (i = 0; i < pages; i++) {
		uint32_t expected = i == 7 || i == 8 ? 0 : 2 * (i + 1);

		ASSERT_EQ(((uint32_t *)(mem + i * PAGE))[1], expected);
	}
}

/* Counts in the page at %ebx until its second word is not 0. */
GUEST_CODE(count_until, 32,
	"	sti\n"
	"1:	incl (%ebx)\n"
	"	cmpl $0, (%edx)\n"
	"	je 1b\n"
	"	outb %al, $" STR(PORT_DONE) "\n");

struct invalidator {
	char *page;
	volatile uint32_t *stop;
	bool lost;
};

/* A page that is taken away must come back: the guest writes on. */
static void *invalidate(void *arg)
{
	struct invalidator *i = arg;
	volatile uint32_t *count = (uint32_t *)i->page;
	unsigned int round, wait;

	for (round = 0; round < 100 && !i->lost; round++) {
		madvise(i->page, PAGE, MADV_DONTNEED);
		for (wait = 0; !*count && wait < 2000; wait++)
			usleep(100);
		i->lost = !*count;
	}
	*i->stop = 1;
	return NULL;
}

TEST_F(nonpaged, invalidation_while_running)
{
	char *mem = memory_alloc(SZ_2M, SZ_2M);
	struct invalidator i = { .page = mem };
	struct kvm_regs regs;
	pthread_t thread;

	vcpu_start(&self->vcpu, &self->vm, MODE_PROTECTED);
	vm_load(&self->vm, CODE_GPA, count_until);
	i.stop = (uint32_t *)(self->vm.mem + DATA_GPA);
	ASSERT_EQ(vm_set_slot(&self->vm, 1, 0, SLOT_GPA, SZ_2M, mem), 0);
	regs = vcpu_regs(&self->vcpu);
	regs.rbx = SLOT_GPA;
	regs.rdx = DATA_GPA;
	vcpu_set_regs(&self->vcpu, &regs);
	ASSERT_EQ(pthread_create(&thread, NULL, invalidate, &i), 0);
	vcpu_run_to_port(&self->vcpu, PORT_DONE);
	pthread_join(thread, NULL);
	EXPECT_FALSE(i.lost);
}

TEST_F(nonpaged, client_takes_memory_away)
{
	char *mem = memory_alloc(SZ_2M, SZ_2M);

	vcpu_start(&self->vcpu, &self->vm, MODE_PROTECTED);
	vm_load(&self->vm, CODE_GPA, pages32);
	ASSERT_EQ(vm_set_slot(&self->vm, 1, 0, SLOT_GPA, SZ_2M, mem), 0);
	*(uint32_t *)mem = 5;
	ASSERT_EQ(run_pages(self, SLOT_GPA, 1), 0);
	ASSERT_EQ(mprotect(mem, PAGE, PROT_NONE), 0);
	EXPECT_EQ(run_pages(self, SLOT_GPA, 1), -EFAULT);
	EXPECT_TRUE(vcpu_fault_is_at(&self->vcpu, SLOT_GPA));
	ASSERT_EQ(mprotect(mem, PAGE, PROT_READ), 0);
	EXPECT_EQ(run_pages(self, SLOT_GPA, 1), -EFAULT);
	ASSERT_EQ(mprotect(mem, PAGE, PROT_READ | PROT_WRITE), 0);
	EXPECT_EQ(run_pages(self, SLOT_GPA, 1), 0);
	EXPECT_EQ(((uint32_t *)mem)[1], 10);
}

GUEST_CODE(devices32, 32,
	"	movl 0xc0000010, %eax\n"
	"	addl $1, %eax\n"
	"	movl %eax, 0xc0000020\n"
	"	movl 0x40000000, %eax\n"
	"	movl %eax, 0x40000004\n"
	"	outb %al, $" STR(PORT_DONE) "\n");

TEST_F(nonpaged, devices_and_read_only_memory)
{
	char *mem = memory_alloc(SZ_2M, SZ_2M);
	struct kvm_run *run;
	unsigned int wp;
	uint32_t value;

	*(uint32_t *)mem = 0xfeed;
	vcpu_start(&self->vcpu, &self->vm, MODE_PROTECTED);
	vm_load(&self->vm, CODE_GPA, devices32);
	ASSERT_EQ(vm_set_slot(&self->vm, 1, KVM_MEM_READONLY, SLOT_GPA, SZ_2M, mem), 0);
	run = self->vcpu.run;
	/* A guest's own CR0.WP has no say in it. */
	for (wp = 0; wp < 2; wp++) {
		struct kvm_sregs sregs = vcpu_sregs(&self->vcpu);

		sregs.cr0 = wp ? sregs.cr0 | CR0_WP : sregs.cr0 & ~(uint64_t)CR0_WP;
		vcpu_set_sregs(&self->vcpu, &sregs);
		vcpu_set_rip(&self->vcpu, CODE_GPA);
		vcpu_run_to(&self->vcpu, KVM_EXIT_MMIO);
		EXPECT_EQ(run->mmio.phys_addr, 0xc0000010);
		EXPECT_EQ(run->mmio.len, 4);
		EXPECT_EQ(run->mmio.is_write, 0);
		value = 0x1234 + wp;
		memcpy(run->mmio.data, &value, sizeof(value));
		vcpu_run_to(&self->vcpu, KVM_EXIT_MMIO);
		EXPECT_EQ(run->mmio.phys_addr, 0xc0000020);
		EXPECT_EQ(run->mmio.is_write, 1);
		memcpy(&value, run->mmio.data, sizeof(value));
		EXPECT_EQ(value, 0x1235 + wp);
		vcpu_run_to(&self->vcpu, KVM_EXIT_MMIO);
		EXPECT_EQ(run->mmio.phys_addr, SLOT_GPA + 4);
		EXPECT_EQ(run->mmio.is_write, 1);
		memcpy(&value, run->mmio.data, sizeof(value));
		EXPECT_EQ(value, 0xfeed);
		vcpu_run_to_port(&self->vcpu, PORT_DONE);
		EXPECT_EQ(((uint32_t *)mem)[1], 0);
	}
}

GUEST_CODE(controls32, 32,
	"	movl $0x12345018, %eax\n"
	"	movl %eax, %cr3\n"
	"	movl %cr3, %ebx\n"
	"	movl %cr4, %eax\n"
	"	orl $0xb0, %eax\n"
	"	movl %eax, %cr4\n"
	"	movl %cr4, %ecx\n"
	"	movl %cr0, %edx\n"
	"	xorl $0x10000, %edx\n"
	"	movl %edx, %cr0\n"
	"	movl %cr0, %esi\n"
	"	invlpg (%eax)\n"
	"	outb %al, $" STR(PORT_DONE) "\n"
	"	andl $~0x20, %ecx\n"
	"	movl %ecx, %cr4\n"
	"	movl %cr4, %ecx\n"
	"	movl %cr3, %ebx\n"
	"	outb %al, $" STR(PORT_DONE) "\n");

TEST_F(nonpaged, control_registers)
{
	struct kvm_sregs sregs;
	struct kvm_regs regs;
	uint64_t cr0;

	vcpu_start(&self->vcpu, &self->vm, MODE_PROTECTED);
	cr0 = vcpu_sregs(&self->vcpu).cr0;
	vm_load(&self->vm, CODE_GPA, controls32);
	vcpu_run_to_port(&self->vcpu, PORT_DONE);
	regs = vcpu_regs(&self->vcpu);
	sregs = vcpu_sregs(&self->vcpu);
	EXPECT_EQ(regs.rbx, 0x12345018);
	EXPECT_EQ(sregs.cr3, 0x12345018);
	EXPECT_EQ(regs.rcx & (CR4_PSE | CR4_PAE | CR4_PGE), CR4_PSE | CR4_PAE | CR4_PGE);
	EXPECT_EQ(regs.rcx, sregs.cr4);
	EXPECT_EQ(regs.rsi, cr0 ^ CR0_WP);
	EXPECT_EQ(sregs.cr0, cr0 ^ CR0_WP);
	/* What a client sets is what the guest has. */
	sregs.cr3 = 0x7654000;
	vcpu_set_sregs(&self->vcpu, &sregs);
	vcpu_run_to_port(&self->vcpu, PORT_DONE);
	regs = vcpu_regs(&self->vcpu);
	EXPECT_EQ(regs.rbx, 0x7654000);
	EXPECT_EQ(regs.rcx & CR4_PAE, 0);
	EXPECT_EQ(vcpu_sregs(&self->vcpu).cr4, regs.rcx);
}

/* To 32-bit paging and back. */
GUEST_CODE(page32, 32,
	"	movl $0xa000, %eax\n"
	"	movl %eax, %cr3\n"
	"	movl %cr4, %eax\n"
	"	orl $0x10, %eax\n"
	"	movl %eax, %cr4\n"
	"	movl %cr0, %eax\n"
	"	orl $0x80000000, %eax\n"
	"	movl %eax, %cr0\n"
	"	movl $0x77, 0x100000\n"
	"	movl %cr3, %ebx\n"
	"	andl $0x7fffffff, %eax\n"
	"	movl %eax, %cr0\n"
	"	movl %cr3, %ecx\n"
	"	outb %al, $" STR(PORT_DONE) "\n");

TEST_F(nonpaged, paging_and_back)
{
	struct kvm_sregs sregs;

	vcpu_start(&self->vcpu, &self->vm, MODE_PROTECTED);
	vm_load(&self->vm, CODE_GPA, page32);
	if (guests_can_page()) {
		vcpu_run_to_port(&self->vcpu, PORT_DONE);
		EXPECT_EQ(vcpu_regs(&self->vcpu).rbx, PAGED_PT_GPA);
		EXPECT_EQ(vcpu_regs(&self->vcpu).rcx, PAGED_PT_GPA);
		EXPECT_EQ(*(uint32_t *)(self->vm.mem + DATA_GPA), 0x77);
		return;
	}
	/* Told so, and nothing else has happened. */
	vcpu_run_to(&self->vcpu, KVM_EXIT_INTERNAL_ERROR);
	EXPECT_EQ(self->vcpu.run->internal.suberror, KVM_INTERNAL_ERROR_EMULATION);
	sregs = vcpu_sregs(&self->vcpu);
	EXPECT_EQ(sregs.cr0 & CR0_PG, CR0_PG);
	EXPECT_EQ(sregs.cr3, PAGED_PT_GPA);
	vcpu_run_to(&self->vcpu, KVM_EXIT_INTERNAL_ERROR);
	/* Without paging it goes on. */
	sregs.cr0 &= ~(uint64_t)CR0_PG;
	vcpu_set_sregs(&self->vcpu, &sregs);
	vcpu_set_rip(&self->vcpu, CODE_GPA);
	vcpu_run_to(&self->vcpu, KVM_EXIT_INTERNAL_ERROR);
}

GUEST_CODE(shut_down, 32,
	"	lidt 2f - shut_down + 0x10000\n"
	"	ud2\n"
	"2:	.word 0\n"
	"	.long 0\n");

TEST_F(nonpaged, shutdown)
{
	vcpu_start(&self->vcpu, &self->vm, MODE_PROTECTED);
	vm_load(&self->vm, CODE_GPA, shut_down);
	vcpu_run_to(&self->vcpu, KVM_EXIT_SHUTDOWN);
}

GUEST_CODE(real_shut_down, 16,
	"	lidtw %cs:2f - real_shut_down\n"
	"	int3\n"
	"2:	.word 0\n"
	"	.long 0\n");

TEST_F(nonpaged, real_mode_shutdown)
{
	vcpu_start(&self->vcpu, &self->vm, MODE_REAL);
	vm_load(&self->vm, CODE_GPA, real_shut_down);
	vcpu_run_to(&self->vcpu, KVM_EXIT_SHUTDOWN);
}

TEST(addresses)
{
	uint64_t map = 0xfffb0000;
	bool restricted = module_parameter("unrestricted_guest") != 'Y';
	struct vcpu vcpu;
	struct vm vm;

	vm_create_empty(&vm);
	EXPECT_EQ(xioctl(vm.fd, KVM_CHECK_EXTENSION, KVM_CAP_SET_TSS_ADDR), 1);
	EXPECT_EQ(xioctl(vm.fd, KVM_CHECK_EXTENSION, KVM_CAP_SET_IDENTITY_MAP_ADDR), 1);
	EXPECT_EQ(try_ioctl(vm.fd, KVM_SET_TSS_ADDR, 0xffffd001), -EINVAL);
	EXPECT_EQ(try_ioctl(vm.fd, KVM_SET_TSS_ADDR, 1UL << 32), -EINVAL);
	EXPECT_EQ(try_ioctl(vm.fd, KVM_SET_TSS_ADDR, 0xffff0001), restricted ? -EINVAL : 0);
	EXPECT_EQ(try_ioctl(vm.fd, KVM_SET_TSS_ADDR, 0xffff0000), 0);
	EXPECT_EQ(try_ioctl(vm.fd, KVM_SET_TSS_ADDR, 0xfffd0000), restricted ? -EEXIST : 0);
	EXPECT_EQ(try_ioctl(vm.fd, KVM_SET_IDENTITY_MAP_ADDR, 0), -EFAULT);
	EXPECT_EQ(try_ioctl(vm.fd, KVM_SET_IDENTITY_MAP_ADDR, (unsigned long)&map), 0);
	vcpu_create(&vcpu, &vm, 0);
	EXPECT_EQ(try_ioctl(vm.fd, KVM_SET_IDENTITY_MAP_ADDR, (unsigned long)&map), -EINVAL);
	vcpu_destroy(&vcpu);
	vm_destroy(&vm);
}

TEST_HARNESS_MAIN
