// SPDX-License-Identifier: GPL-2.0
/*
 * TPAUSE in guests: it waits as long as the host lets everybody wait; the guest's
 * own IA32_UMWAIT_CONTROL is kept for it; and without the feature in CPUID neither
 * instruction nor MSR is there.
 */
#include <x86intrin.h>

#include "kselftest_harness.h"
#include "vm.h"

#define UMWAIT_CONTROL	0xe1
#define ECX_WAITPKG	(1U << 5)
#define ONLY_C01	1U

/* RDI: cycles to wait; RAX on return: cycles that passed, or -1 if it faulted. */
GUEST_CODE(code, 64,
	".globl do_tpause\n"
	"do_tpause:\n"
	"	lea 9f(%rip), %rbx; mov %rbx, " REC_RESUME "\n"
	"	rdtsc; shl $32, %rdx; or %rdx, %rax; mov %rax, %rsi\n"
	"	add %rdi, %rax; mov %rax, %rdx; shr $32, %rdx\n"
	"	mov $1, %ecx\n"
	"	tpause %ecx\n"
	"	rdtsc; shl $32, %rdx; or %rdx, %rax; sub %rsi, %rax\n"
	"	jmp 8f\n"
	".globl do_read\n"
	"do_read:\n"
	"	lea 9f(%rip), %rbx; mov %rbx, " REC_RESUME "\n"
	"	mov $" STR(UMWAIT_CONTROL) ", %ecx; rdmsr; shl $32, %rdx; or %rdx, %rax\n"
	"	jmp 8f\n"
	".globl do_write\n"
	"do_write:\n"
	"	lea 9f(%rip), %rbx; mov %rbx, " REC_RESUME "\n"
	"	mov $" STR(UMWAIT_CONTROL) ", %ecx\n"
	"	mov %edi, %eax; mov %rdi, %rdx; shr $32, %rdx; wrmsr\n"
	"	xor %eax, %eax\n"
	"	jmp 8f\n"
	"9:	mov $-1, %rax\n"
	"8:	outb %al, $" STR(PORT_DONE) "\n");
extern const char do_tpause[], do_read[], do_write[];

#define FAULTED	(~0UL)

FIXTURE(guest) {
	struct vm vm;
	struct vcpu vcpu;
};

FIXTURE_SETUP(guest)
{
	vm_create(&self->vm, VM_MEMORY);
	vcpu_start(&self->vcpu, &self->vm, MODE_LONG);
	if (!(vcpu_cpuid(&self->vcpu, 7).ecx & ECX_WAITPKG))
		SKIP(return, "no WAITPKG");
	vm_load(&self->vm, CODE_GPA, code);
}

FIXTURE_TEARDOWN(guest)
{
	vcpu_destroy(&self->vcpu);
	vm_destroy(&self->vm);
}

static uint64_t call(struct vcpu *vcpu, const char *entry, uint64_t rdi)
{
	return vcpu_call(vcpu, CODE_GPA + (entry - code), rdi, 0).rax;
}

/* How long the client's own TPAUSE takes, at most @cycles. */
static uint64_t client_tpause(uint64_t cycles)
{
	uint64_t start = __rdtsc(), end = start + cycles;

	asm volatile("tpause %0" : : "r"(1), "a"((uint32_t)end), "d"((uint32_t)(end >> 32)) : "cc");
	return __rdtsc() - start;
}

/* An interrupt of the host ends a wait or adds to it, so most of some must be right. */
#define MOSTLY(call, low, high)					\
	({							\
		unsigned int n, right = 0;			\
		for (n = 0; n < 16; n++) {			\
			uint64_t took = (call);			\
			right += took >= (low) && took < (high);\
		}						\
		right > 8;					\
	})

/* Whatever the guest's control says, the host's bounds what the CPU does: 100,000 cycles. */
TEST_F(guest, waits_as_long_as_the_host_allows)
{
	static const uint64_t controls[] = { 0, 0x4000, 0x4000 | ONLY_C01, 0xfffffffc };
	struct vcpu *vcpu = &self->vcpu;
	unsigned int i;

	EXPECT_EQ(call(vcpu, do_read, 0), 0);
	for (i = 0; i < sizeof(controls) / sizeof(controls[0]); i++) {
		EXPECT_EQ(call(vcpu, do_write, controls[i]), 0);
		EXPECT_EQ(call(vcpu, do_read, 0), controls[i]);
		EXPECT_TRUE(MOSTLY(call(vcpu, do_tpause, 50000), 50000, 60000));
		EXPECT_TRUE(MOSTLY(call(vcpu, do_tpause, 300000), 90000, 200000));
		EXPECT_TRUE(MOSTLY(client_tpause(300000), 90000, 200000));
	}
}

TEST_F(guest, control_is_saved)
{
	struct vcpu *vcpu = &self->vcpu;
	uint64_t bad;

	EXPECT_EQ(call(vcpu, do_write, 0xfffffffd), 0);
	EXPECT_EQ(vcpu_msr(vcpu, UMWAIT_CONTROL), 0xfffffffd);
	vcpu_set_msr(vcpu, UMWAIT_CONTROL, 0x5000);
	EXPECT_EQ(call(vcpu, do_read, 0), 0x5000);
	for (bad = 2; bad; bad = bad == 2 ? 1UL << 32 : bad << 1) {
		EXPECT_EQ(call(vcpu, do_write, bad), FAULTED);
		EXPECT_EQ(vm_record(&self->vm)->vector, 13);
	}
	EXPECT_EQ(call(vcpu, do_read, 0), 0x5000);
}

TEST(not_without_the_feature)
{
	struct kvm_cpuid_entry2 waitpkg = { .function = 7, .ecx = ECX_WAITPKG };
	struct vcpu vcpu;
	struct vm vm;

	vm_create(&vm, VM_MEMORY);
	vcpu_create(&vcpu, &vm, 0);
	vcpu_set_cpuid_without(&vcpu, &waitpkg, 1);
	vcpu_set_mode(&vcpu, MODE_LONG);
	vm_load(&vm, CODE_GPA, code);

	EXPECT_EQ(call(&vcpu, do_tpause, 1000), FAULTED);
	EXPECT_EQ(vm_record(&vm)->vector, 6);
	EXPECT_EQ(call(&vcpu, do_read, 0), FAULTED);
	EXPECT_EQ(vm_record(&vm)->vector, 13);
	EXPECT_EQ(call(&vcpu, do_write, 0), FAULTED);
	EXPECT_EQ(vm_record(&vm)->vector, 13);

	vcpu_destroy(&vcpu);
	vm_destroy(&vm);
}

TEST_HARNESS_MAIN
