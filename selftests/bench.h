/* SPDX-License-Identifier: GPL-2.0 */
/*
 * What programs that measure share: guest code that times itself, and a line
 * for each figure.
 */
#ifndef SELFTESTS_BENCH_H
#define SELFTESTS_BENCH_H

#include "vm.h"

#define RDTSC64		"jmp 99f; 99: rdtsc; shlq $32, %rdx; orq %rdx, %rax\n"

/* The least of %r12 turns of one instruction, into %r15. */
#define TIMED(name, before, text)					\
	GUEST_CODE(name, 64,						\
		"	movq $-1, %r15\n"				\
		"1:	" RDTSC64					\
		"	movq %rax, %r14\n"				\
		before							\
		text "\n"						\
		RDTSC64							\
		"	subq %r14, %rax\n"				\
		"	cmpq %r15, %rax\n"				\
		"	cmovbq %rax, %r15\n"				\
		"	decq %r12\n"					\
		"	jnz 1b\n"					\
		"	outb %al, $" STR(PORT_DONE) "\n")

static inline uint64_t rdtsc(void)
{
	uint32_t low, high;

	asm volatile("jmp 1f; 1: rdtsc" : "=a" (low), "=d" (high) : : "memory");
	return (uint64_t)high << 32 | low;
}

static inline void report(const char *name, const char *unit, double value)
{
	printf("%s\t%s\t%.10g\n", name, unit, value);
	fflush(stdout);
}

static inline uint64_t guest_run(struct vcpu *vcpu, const char *code, const char *end,
			  uint64_t turns, uint64_t rbx, uint64_t rsi)
{
	struct kvm_regs regs = {
		.rip = CODE_GPA, .rsp = STACK_GPA, .rflags = 2,
		.r12 = turns, .rbx = rbx, .rsi = rsi,
	};
	struct kvm_run *run = vcpu->run;
	int fd = vcpu->fd;

	__vm_load(vcpu->vm, CODE_GPA, code, end);
	vcpu_set_regs(vcpu, &regs);
	/* A loop as tight as a client can have it. */
	do {
		if (ioctl(fd, KVM_RUN, 0) ||
		    (run->exit_reason != KVM_EXIT_IO &&
		     run->exit_reason != KVM_EXIT_MMIO)) {
			vcpu_dump(vcpu, errno);
			die("the guest stopped");
		}
	} while (run->exit_reason == KVM_EXIT_MMIO ||
		 run->io.direction == KVM_EXIT_IO_IN);
	return vcpu_regs(vcpu).r15;
}
#define RUN(vcpu, code, turns, rbx, rsi)				\
	guest_run(vcpu, code, code##_end, turns, rbx, rsi)

#endif
