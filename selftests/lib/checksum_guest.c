// SPDX-License-Identifier: GPL-2.0
/*
 * The guest of checksum.h.
 */
#include <stddef.h>

#include "checksum_guest.h"

/* Members of struct checksum_shared, for the guest. */
#define SHARED(at)	STR(SHARED_GPA) "+" #at
#define REPORTS		SHARED(0x00)
#define STOP_AT		SHARED(0x08)
#define STEPS		SHARED(0x10)
#define OPTIONS		SHARED(0x18)
#define SCRATCH		SHARED(0x20)
#define SCRATCH2	SHARED(0x28)
#define WHERE		SHARED(0x30)
#define ONE		SHARED(0x38)
#define INTERRUPTS	SHARED(0x40)
#define NMIS		SHARED(0x48)
#define LAST_TSC	SHARED(0x50)
#define LAST_CLOCK	SHARED(0x58)
#define BACKWARDS	SHARED(0x60)
#define MSRS		SHARED(0x80)
_Static_assert(offsetof(struct checksum_shared, msrs) == 0x80, "as the guest has it");
#define CLOCK(at)	STR(CLOCK_GPA) "+" #at


/* Counts if %rax is less than what the guest's word @last holds, and sets that. */
#define NOT_BACKWARDS(last)						\
	"	cmpq " last ", %rax\n"					\
	"	jae 98f\n"						\
	"	incq " BACKWARDS "\n"					\
	"98:	movq %rax, " last "\n"
#define RDTSC64		"rdtsc; shlq $32, %rdx; orq %rdx, %rax\n"

GUEST_CODE(checksum_main, 64,
	"	fninit\n"
	".rept 8\n"
	"	fld1\n"
	".endr\n"
	"	testl $" STR(HAS_APIC) ", " OPTIONS "\n"
	"	jz 1f\n"
	"	movl $" STR(APIC_GPA) ", %ebx\n"
	"	movl $0x1ff, 0xf0(%rbx)\n"
	"1:	sti\n"
	/* Steps: what costs no exit and little time. */
	"	movq " STEPS ", %rcx\n"
	"2:	movq %rax, %rdx\n"
	"	shlq $13, %rdx\n"
	"	xorq %rdx, %rax\n"
	"	movq %rax, %rdx\n"
	"	shrq $7, %rdx\n"
	"	xorq %rdx, %rax\n"
	"	movq %rax, %rdx\n"
	"	shlq $17, %rdx\n"
	"	xorq %rdx, %rax\n"
	"	movq %rcx, %rbx\n"
	"	andl $511, %ebx\n"
	"	addq %rax, %fs:(,%rbx,8)\n"
	"	addq %fs:8, %rax\n"
	"	addq %rax, %r8\n"
	"	xorq %r8, %r15\n"
	"	addq %r15, %r11\n"
	"	movq %rax, %xmm1\n"
	"	paddq %xmm1, %xmm0\n"
	"	decq %rcx\n"
	"	jnz 2b\n"
	"	movq %xmm0, %rdx\n"
	"	xorq %rdx, %rax\n"
	"	addq %r11, %rax\n"
	/* Time. */
	"	movq %rax, %rbx\n"
	"	" RDTSC64
	NOT_BACKWARDS(LAST_TSC)
	"	testl $" STR(HAS_CLOCK) ", " OPTIONS "\n"
	"	jz 3f\n"
	"2:	movl " CLOCK(0) ", %r8d\n"
	"	testl $1, %r8d\n"
	"	jnz 2b\n"
	"	" RDTSC64
	"	subq " CLOCK(8) ", %rax\n"
	"	movsbl " CLOCK(28) ", %ecx\n"
	"	testl %ecx, %ecx\n"
	"	js 4f\n"
	"	shlq %cl, %rax\n"
	"	jmp 5f\n"
	"4:	negl %ecx\n"
	"	shrq %cl, %rax\n"
	"5:	movl " CLOCK(24) ", %edx\n"
	"	mulq %rdx\n"
	"	shrdq $32, %rdx, %rax\n"
	"	addq " CLOCK(16) ", %rax\n"
	"	cmpl " CLOCK(0) ", %r8d\n"
	"	jne 2b\n"
	NOT_BACKWARDS(LAST_CLOCK)
	"3:	movq %rbx, %rax\n"
	/* General registers. */
	"	movq %r11, %r8\n"
	"	addq %rax, %rsi\n"
	"	xorq %rsi, %rdi\n"
	"	addq %rdi, %rbp\n"
	"	xorq %rbp, %r9\n"
	"	addq %r9, %r10\n"
	"	xorq %r10, %r12\n"
	"	addq %r12, %r13\n"
	"	xorq %r13, %r14\n"
	"	addq %r14, %rax\n"
	/* x87: each register in its turn counts. */
	"	fiaddl " ONE "\n"
	"	fistl " SCRATCH "\n"
	"	movl " SCRATCH ", %edx\n"
	"	addq %rdx, %rax\n"
	"	fincstp\n"
	"	fnstcw " SCRATCH "\n"
	"	movzwl " SCRATCH ", %edx\n"
	"	addq %rdx, %rax\n"
	"	movl %eax, %edx\n"
	"	andl $0xc00, %edx\n"
	"	orl $0x37f, %edx\n"
	"	movl %edx, " SCRATCH "\n"
	"	fldcw " SCRATCH "\n"
	/* SSE. */
	"	stmxcsr " SCRATCH "\n"
	"	movl " SCRATCH ", %edx\n"
	"	addq %rdx, %rax\n"
	"	movl %eax, %edx\n"
	"	andl $0x6000, %edx\n"
	"	orl $0x1f80, %edx\n"
	"	movl %edx, " SCRATCH "\n"
	"	ldmxcsr " SCRATCH "\n"
	"	movq %rax, %xmm2\n"
	"	movq %rsi, %xmm1\n"
	"	punpcklqdq %xmm1, %xmm2\n"
	".irp odd, 3, 5, 7, 9, 11, 13\n"
	"	paddq %xmm2, %xmm\\odd\n"
	"	movdqa %xmm\\odd, %xmm2\n"
	".endr\n"
	".irp even, 4, 6, 8, 10, 12, 14, 15\n"
	"	pxor %xmm2, %xmm\\even\n"
	"	movdqa %xmm\\even, %xmm2\n"
	".endr\n"
	"	movq %xmm15, %rdx\n"
	"	addq %rdx, %rax\n"
	"	movhlps %xmm15, %xmm1\n"
	"	movq %xmm1, %rdx\n"
	"	xorq %rdx, %rax\n"
	/* AVX: the upper halves, and XCR0. */
	"	testl $" STR(HAS_AVX) ", " OPTIONS "\n"
	"	jz 3f\n"
	".irp ymm, 0, 15\n"
	"	vextractf128 $1, %ymm\\ymm, %xmm1\n"
	"	movq %rax, %xmm2\n"
	"	paddq %xmm2, %xmm1\n"
	"	vinsertf128 $1, %xmm1, %ymm\\ymm, %ymm\\ymm\n"
	"	movq %xmm1, %rdx\n"
	"	addq %rdx, %rax\n"
	".endr\n"
	"	movq %rax, %rbx\n"
	"	xorl %ecx, %ecx\n"
	"	xgetbv\n"
	"	addq %rbx, %rax\n"
	/* AVX-512: an upper quarter of an upper register, and a mask. */
	"3:	testl $" STR(HAS_AVX512) ", " OPTIONS "\n"
	"	jz 3f\n"
	"	vpbroadcastq %rax, %zmm17\n"
	"	vpaddq %zmm17, %zmm16, %zmm16\n"
	"	vextracti32x4 $3, %zmm16, %xmm17\n"
	"	vmovq %xmm17, %rdx\n"
	"	addq %rdx, %rax\n"
	"	kmovw %k1, %edx\n"
	"	addq %rdx, %rax\n"
	"	kmovw %eax, %k1\n"
	/* Debug registers, with no breakpoint on. */
	"3:\n"
	".irp dr, 0, 1, 2, 3\n"
	"	movq %db\\dr, %rdx\n"
	"	addq %rdx, %rax\n"
	"	movq %rax, %db\\dr\n"
	".endr\n"
	"	movq %db6, %rdx\n"
	"	addq %rdx, %rax\n"
	"	movl %eax, %edx\n"
	"	andl $0xf, %edx\n"
	"	orl $0xffff0ff0, %edx\n"
	"	movq %rdx, %db6\n"
	"	movq %db7, %rdx\n"
	"	addq %rdx, %rax\n"
	"	movl %eax, %edx\n"
	"	andl $0x300, %edx\n"
	"	orl $0x400, %edx\n"
	"	movq %rdx, %db7\n"
	/* Control registers: CR2, CR4.TSD, CR0.AM. */
	"	movq %cr2, %rdx\n"
	"	addq %rdx, %rax\n"
	"	movq %rax, %cr2\n"
	"	movq %cr4, %rdx\n"
	"	addq %rdx, %rax\n"
	"	movl %eax, %ecx\n"
	"	andl $4, %ecx\n"
	"	andq $~4, %rdx\n"
	"	orq %rcx, %rdx\n"
	"	movq %rdx, %cr4\n"
	"	movq %cr0, %rdx\n"
	"	addq %rdx, %rax\n"
	"	movl %eax, %ecx\n"
	"	andl $0x40000, %ecx\n"
	"	andq $~0x40000, %rdx\n"
	"	orq %rcx, %rdx\n"
	"	movq %rdx, %cr0\n"
	/* Selectors: DS and ES are null or not, as is LDTR. */
	"	movl %es, %ecx\n"
	"	addq %rcx, %rax\n"
	"	movl %eax, %edx\n"
	"	andl $" STR(SEL_DATA) ", %edx\n"
	"	movl %edx, %es\n"
	"	movl %ds, %ecx\n"
	"	addq %rcx, %rax\n"
	"	movl %eax, %edx\n"
	"	andl $" STR(SEL_DATA) ", %edx\n"
	"	movl %edx, %ds\n"
	"	str %ecx\n"
	"	addq %rcx, %rax\n"
	"	sldt %ecx\n"
	"	addq %rcx, %rax\n"
	"	movl %eax, %edx\n"
	"	andl $" STR(SEL_LDT) ", %edx\n"
	"	lldt %dx\n"
	/* Descriptor tables: their limits. */
	"	sgdt " SCRATCH "\n"
	"	movzwl " SCRATCH ", %edx\n"
	"	addq %rdx, %rax\n"
	"	movl %eax, %edx\n"
	"	andl $0x80, %edx\n"
	"	orl $" STR(GDT_LIMIT) ", %edx\n"
	"	movw %dx, " SCRATCH "\n"
	"	lgdt " SCRATCH "\n"
	"	sidt " SCRATCH "\n"
	"	movzwl " SCRATCH ", %edx\n"
	"	addq %rdx, %rax\n"
	"	movl %eax, %edx\n"
	"	andl $0x400, %edx\n"
	"	orl $" STR(IDT_LIMIT) ", %edx\n"
	"	movw %dx, " SCRATCH "\n"
	"	lidt " SCRATCH "\n"
	/* MSRs. */
	"	movl $" MSRS ", %ebx\n"
	"4:	movl (%rbx), %ecx\n"
	"	testl %ecx, %ecx\n"
	"	jz 5f\n"
	"	movq %rax, " SCRATCH "\n"
	"	rdmsr\n"
	"	shlq $32, %rdx\n"
	"	orq %rdx, %rax\n"
	"	addq " SCRATCH ", %rax\n"
	"	movq %rax, " SCRATCH "\n"
	"	andq 8(%rbx), %rax\n"
	"	orq 16(%rbx), %rax\n"
	"	movq %rax, %rdx\n"
	"	shrq $32, %rdx\n"
	"	wrmsr\n"
	"	movq " SCRATCH ", %rax\n"
	"	addq $24, %rbx\n"
	"	jmp 4b\n"
	"5:	swapgs\n"
	"	testl $" STR(HAS_RDTSCP) ", " OPTIONS "\n"
	"	jz 3f\n"
	"	movq %rax, %rbx\n"
	"	rdtscp\n"
	"	leaq (%rbx,%rcx), %rax\n"
	/* The local APIC: an IPI to itself waits until CR8 falls again. */
	"3:	testl $" STR(HAS_APIC) ", " OPTIONS "\n"
	"	jz 3f\n"
	"	movl $15, %edx\n"
	"	movq %rdx, %cr8\n"
	"	movl $" STR(APIC_GPA) ", %ebx\n"
	"	movl $0x44000+" STR(VECTOR) ", %edx\n"
	"	movl %edx, 0x300(%rbx)\n"
	"	movl 0x350(%rbx), %edx\n"
	"	addq %rdx, %rax\n"
	"	movl %eax, %edx\n"
	"	andl $0x3f, %edx\n"
	"	orl $0x10040, %edx\n"
	"	movl %edx, 0x350(%rbx)\n"
	"	movl 0xd0(%rbx), %edx\n"
	"	addq %rdx, %rax\n"
	"	movl %eax, %edx\n"
	"	andl $0xff000000, %edx\n"
	"	movl %edx, 0xd0(%rbx)\n"
	"	movl 0x380(%rbx), %edx\n"
	"	addq %rdx, %rax\n"
	"	movl %eax, %edx\n"
	"	movl %edx, 0x380(%rbx)\n"
	"	movl 0x3e0(%rbx), %edx\n"
	"	addq %rdx, %rax\n"
	"	movl %eax, %edx\n"
	"	andl $0xb, %edx\n"
	"	movl %edx, 0x3e0(%rbx)\n"
	/* The report, with flags and stack in use. */
	"3:	pushq %rax\n"
	"	movl %eax, %edx\n"
	"	andl $" STR(FLAGS) ", %edx\n"
	"	orl $0x202, %edx\n"
	"	pushq %rdx\n"
	"	incq " REPORTS "\n"
	"	movq " REPORTS ", %rcx\n"
	"	cmpq " STOP_AT ", %rcx\n"
	"	jb 4f\n"
	"	movq $0, " WHERE "\n"
	"	popfq\n"
	"	outb %al, $" STR(PORT_SYNC) "\n"
	"	jmp 5f\n"
	"4:	popfq\n"
	"5:	pushfq\n"
	"	popq %rdx\n"
	"	cld\n"
	"	andl $" STR(FLAGS) ", %edx\n"
	"	popq %rax\n"
	"	addq %rdx, %rax\n"
	"	addq " NMIS ", %rax\n"
	"	testl $" STR(HAS_APIC) ", " OPTIONS "\n"
	"	jz 1b\n"
	"	movq %cr8, %rdx\n"
	"	addq %rdx, %rax\n"
	"	movl %eax, %edx\n"
	"	andl $1, %edx\n"
	"	movq %rdx, %cr8\n"
	"	addq " INTERRUPTS ", %rax\n"
	"	jmp 1b\n");

#define HANDLER(name, count, where, acknowledge)			\
	GUEST_CODE(name, 64,						\
		"	cld\n"						\
		"	pushq %rdx\n"					\
		"	incq " count "\n"				\
		"	movq " REPORTS ", %rdx\n"			\
		"	cmpq " STOP_AT ", %rdx\n"			\
		"	jb 1f\n"					\
		"	movq $" where ", " WHERE "\n"			\
		"	outb %al, $" STR(PORT_SYNC) "\n"		\
		"1:\n"							\
		acknowledge						\
		"	popq %rdx\n"					\
		"	iretq\n")
HANDLER(checksum_interrupt, INTERRUPTS, "1",
	"	movl $" STR(APIC_GPA) "+0xb0, %edx\n"
	"	movl $0, (%rdx)\n");
HANDLER(checksum_nmi, NMIS, "2", "");
