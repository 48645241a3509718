// SPDX-License-Identifier: GPL-2.0
/*
 * The MSRs against speculation, on a CPU that has them: each guest has a
 * SPEC_CTRL of its own, which the host and other guests do not see; it accesses
 * it without an exit once it has used it, as it gives its commands; and what its
 * CPUID does not have is not there.
 */
#include "kselftest_harness.h"
#include "vm.h"

#define SPEC_CTRL	0x48
#define PRED_CMD	0x49
#define FLUSH_CMD	0x10b
#define ARCH_CAPABILITIES 0x10a
#define IBRS		1UL
#define STIBP		2UL

#define EDX_SPEC_CTRL	(1U << 26 | 1U << 27 | 1U << 31)
#define EDX_FLUSH_L1D	(1U << 28)
#define EDX_ARCH_CAPABILITIES (1U << 29)
#define EBX_AMD		(1U << 12 | 1U << 14 | 1U << 15 | 1U << 24)

/* RDI: the MSR; RSI: the value; RAX on return: 1 if it did not fault, RDX: what was read. */
GUEST_CODE(accesses, 64,
	".globl do_read\n"
	"do_read:\n"
	"	lea 9f(%rip), %rbx; mov %rbx, " REC_RESUME "\n"
	"	mov %edi, %ecx\n"
	"	rdmsr\n"
	"	shl $32, %rdx; or %rax, %rdx\n"
	"	mov $1, %eax\n"
	"	jmp 8f\n"
	".globl do_write\n"
	"do_write:\n"
	"	lea 9f(%rip), %rbx; mov %rbx, " REC_RESUME "\n"
	"	mov %edi, %ecx\n"
	"	mov %esi, %eax\n"
	"	mov %rsi, %rdx; shr $32, %rdx\n"
	"	wrmsr\n"
	"	mov $1, %eax\n"
	"	jmp 8f\n"
	"9:	xor %eax, %eax\n"
	"8:	outb %al, $" STR(PORT_DONE) "\n");
extern const char do_read[], do_write[];

struct result {
	bool ok;
	uint64_t value;
};

static struct result call(struct vcpu *vcpu, const char *entry, uint32_t msr, uint64_t value)
{
	struct kvm_regs regs = vcpu_call(vcpu, CODE_GPA + (entry - accesses), msr, value);

	return (struct result){ .ok = regs.rax & 1, .value = regs.rdx };
}

static bool guest_writes(struct vcpu *vcpu, uint32_t msr, uint64_t value)
{
	return call(vcpu, do_write, msr, value).ok;
}

#define EXPECT_GUEST_READS(vcpu, msr, expected)				\
	do {								\
		struct result r = call(vcpu, do_read, msr, 0);		\
		EXPECT_EQ(r.ok, true);					\
		EXPECT_EQ(r.value, expected);				\
	} while (0)

/* Gives a vCPU the supported CPUID but for these features. */
static void set_cpuid_without(struct vcpu *vcpu, uint32_t edx, uint32_t amd)
{
	struct kvm_cpuid_entry2 leaves[] = {
		{ .function = 7, .edx = edx },
		{ .function = 0x80000008, .ebx = amd },
	};

	vcpu_set_cpuid_without(vcpu, leaves, 2);
}

FIXTURE(spec_ctrl) {
	struct vm vm, other_vm;
	struct vcpu vcpu, other;
};

static void start(struct vm *vm, struct vcpu *vcpu)
{
	vm_create(vm, VM_MEMORY);
	vcpu_start(vcpu, vm, MODE_LONG);
	vm_load(vm, CODE_GPA, accesses);
}

FIXTURE_SETUP(spec_ctrl)
{
	start(&self->vm, &self->vcpu);
	start(&self->other_vm, &self->other);
	if (!(vcpu_cpuid(&self->vcpu, 7).edx & EDX_SPEC_CTRL))
		SKIP(return, "no SPEC_CTRL");
}

FIXTURE_TEARDOWN(spec_ctrl)
{
	vcpu_destroy(&self->vcpu);
	vcpu_destroy(&self->other);
	vm_destroy(&self->vm);
	vm_destroy(&self->other_vm);
}

TEST_F(spec_ctrl, each_guest_has_its_own)
{
	unsigned int i;

	EXPECT_GUEST_READS(&self->vcpu, SPEC_CTRL, 0);
	ASSERT_EQ(guest_writes(&self->vcpu, SPEC_CTRL, IBRS), true);
	ASSERT_EQ(guest_writes(&self->other, SPEC_CTRL, STIBP), true);
	for (i = 0; i < 10; i++) {
		EXPECT_GUEST_READS(&self->vcpu, SPEC_CTRL, IBRS);
		EXPECT_GUEST_READS(&self->other, SPEC_CTRL, STIBP);
	}
	/* One that has the host's value, and whose own is in the CPU, sees it there. */
	ASSERT_EQ(guest_writes(&self->other, SPEC_CTRL, 0), true);
	for (i = 0; i < 10; i++) {
		EXPECT_GUEST_READS(&self->vcpu, SPEC_CTRL, IBRS);
		EXPECT_GUEST_READS(&self->other, SPEC_CTRL, 0);
	}
	/* What was written without an exit is what the client saves, and what it restores comes. */
	ASSERT_EQ(guest_writes(&self->vcpu, SPEC_CTRL, IBRS | STIBP), true);
	EXPECT_EQ(vcpu_msr(&self->vcpu, SPEC_CTRL), IBRS | STIBP);
	vcpu_set_msr(&self->vcpu, SPEC_CTRL, STIBP);
	EXPECT_GUEST_READS(&self->vcpu, SPEC_CTRL, STIBP);
}

TEST_F(spec_ctrl, wrong_values_fault)
{
	unsigned int i;

	/* At first with an exit, then without. */
	for (i = 0; i < 2; i++) {
		EXPECT_EQ(guest_writes(&self->vcpu, SPEC_CTRL, 1UL << 63), false);
		EXPECT_EQ(guest_writes(&self->vcpu, SPEC_CTRL, IBRS), true);
		EXPECT_EQ(guest_writes(&self->vcpu, PRED_CMD, 2), false);
		EXPECT_EQ(guest_writes(&self->vcpu, PRED_CMD, 1), true);
		EXPECT_EQ(guest_writes(&self->vcpu, PRED_CMD, 0), true);
		EXPECT_EQ(call(&self->vcpu, do_read, PRED_CMD, 0).ok, false);
		if (!(vcpu_cpuid(&self->vcpu, 7).edx & EDX_FLUSH_L1D))
			continue;
		EXPECT_EQ(guest_writes(&self->vcpu, FLUSH_CMD, 2), false);
		EXPECT_EQ(guest_writes(&self->vcpu, FLUSH_CMD, 1), true);
		EXPECT_EQ(call(&self->vcpu, do_read, FLUSH_CMD, 0).ok, false);
	}
}

TEST_F(spec_ctrl, used_ones_do_not_exit)
{
	long reads, writes;

	if (!device_is_kvm_rs())
		SKIP(return, "kvm_rs's statistics");
	ASSERT_EQ(guest_writes(&self->vcpu, SPEC_CTRL, IBRS), true);
	reads = module_stat("exits_msr_read");
	writes = module_stat("exits_msr_write");
	EXPECT_EQ(guest_writes(&self->vcpu, SPEC_CTRL, 0), true);
	EXPECT_EQ(guest_writes(&self->vcpu, SPEC_CTRL, STIBP), true);
	EXPECT_GUEST_READS(&self->vcpu, SPEC_CTRL, STIBP);
	EXPECT_EQ(guest_writes(&self->vcpu, PRED_CMD, 1), true);
	if (vcpu_cpuid(&self->vcpu, 7).edx & EDX_FLUSH_L1D)
		EXPECT_EQ(guest_writes(&self->vcpu, FLUSH_CMD, 1), true);
	EXPECT_EQ(module_stat("exits_msr_read"), reads);
	EXPECT_EQ(module_stat("exits_msr_write"), writes);
}

TEST_F(spec_ctrl, not_there_without_cpuid)
{
	set_cpuid_without(&self->vcpu, EDX_SPEC_CTRL | EDX_FLUSH_L1D | EDX_ARCH_CAPABILITIES,
			  EBX_AMD);
	EXPECT_EQ(call(&self->vcpu, do_read, SPEC_CTRL, 0).ok, false);
	EXPECT_EQ(guest_writes(&self->vcpu, SPEC_CTRL, 0), false);
	EXPECT_EQ(guest_writes(&self->vcpu, PRED_CMD, 1), false);
	EXPECT_EQ(guest_writes(&self->vcpu, FLUSH_CMD, 1), false);
	EXPECT_EQ(call(&self->vcpu, do_read, ARCH_CAPABILITIES, 0).ok, false);
	/* AMD's bits will do. */
	set_cpuid_without(&self->other, EDX_SPEC_CTRL, 0);
	EXPECT_EQ(guest_writes(&self->other, SPEC_CTRL, IBRS), true);
	EXPECT_EQ(guest_writes(&self->other, PRED_CMD, 1), true);
}

TEST_F(spec_ctrl, the_filter_comes_first)
{
	uint8_t bits = 0;
	struct kvm_msr_filter filter = {
		.flags = KVM_MSR_FILTER_DEFAULT_ALLOW,
		.ranges[0] = {
			.flags = KVM_MSR_FILTER_WRITE, .nmsrs = 2, .base = SPEC_CTRL,
			.bitmap = &bits,
		},
	};

	ASSERT_EQ(guest_writes(&self->vcpu, SPEC_CTRL, IBRS), true);
	xioctl(self->vm.fd, KVM_X86_SET_MSR_FILTER, &filter);
	EXPECT_EQ(guest_writes(&self->vcpu, SPEC_CTRL, STIBP), false);
	EXPECT_EQ(guest_writes(&self->vcpu, PRED_CMD, 1), false);
	EXPECT_GUEST_READS(&self->vcpu, SPEC_CTRL, IBRS);
	bits = 3;
	xioctl(self->vm.fd, KVM_X86_SET_MSR_FILTER, &filter);
	EXPECT_EQ(guest_writes(&self->vcpu, SPEC_CTRL, STIBP), true);
	EXPECT_GUEST_READS(&self->vcpu, SPEC_CTRL, STIBP);
}

TEST_HARNESS_MAIN
