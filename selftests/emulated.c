// SPDX-License-Identifier: GPL-2.0
/*
 * Instructions that the CPU does not do for the guest: those that are executed in
 * software if the guest's CPUID has them, those that cannot be, and hypercalls
 * that are the client's to do.
 */
#include "kselftest_harness.h"
#include "vm.h"

#define VECTOR_UD	6
#define KVM_HC_MAP_GPA_RANGE 12
#define KVM_ENOSYS	1000

#define MOVBE		(1U << 22)	/* leaf 1, ECX */
#define RDPID		(1U << 22)	/* leaf 7, ECX */

FIXTURE(emulated) {
	struct vm vm;
	struct vcpu vcpu;
	struct kvm_run *run;
	struct exception_record *record;
};

FIXTURE_SETUP(emulated)
{
	vm_create(&self->vm, VM_MEMORY);
	vcpu_start(&self->vcpu, &self->vm, MODE_LONG);
	self->run = self->vcpu.run;
	self->record = vm_record(&self->vm);
}

FIXTURE_TEARDOWN(emulated)
{
	vcpu_destroy(&self->vcpu);
	vm_destroy(&self->vm);
}

static void enable(struct vm *vm, uint32_t capability, uint64_t argument)
{
	struct kvm_enable_cap cap = { .cap = capability, .args = { argument } };

	xioctl(vm->fd, KVM_ENABLE_CAP, &cap);
}

static void start(struct vm *vm, struct vcpu *vcpu, const char *code, const char *end)
{
	__vm_load(vm, CODE_GPA, code, end);
	vcpu_set_mode(vcpu, MODE_LONG);
	vm_record(vm)->count = 0;
}
#define START(code)	start(&self->vm, &self->vcpu, code, code##_end)

/* Lets the guest go on at CPL 3, by descriptors that the CPU does not look at. */
static void drop_privilege(struct vcpu *vcpu)
{
	struct kvm_sregs sregs = vcpu_sregs(vcpu);

	sregs.cs.selector |= 3;
	sregs.ss.selector |= 3;
	sregs.cs.dpl = sregs.ss.dpl = 3;
	vcpu_set_sregs(vcpu, &sregs);
}

/* The next exception goes on at local label 9. */
#define CATCH	"	leaq 9f(%rip), %r11; movq %r11, " REC_RESUME "\n"
#define SYNC	"	outb %al, $" STR(PORT_SYNC) "\n"

GUEST_CODE(bytes_swapped, 64,
	CATCH
	"	movl $0x11223344, 0x100000\n"
	"	movl $0x100000, %ebx\n"
	"	xorl %eax, %eax\n"
	"	.byte 0x0f, 0x38, 0xf0, 0x03\n"		/* movbe (%rbx), %eax */
	"	movabs $0x0102030405060708, %rcx\n"
	"	.byte 0x48, 0x0f, 0x38, 0xf1, 0x4b, 0x08\n" /* movbe %rcx, 8(%rbx) */
	"9:\n" SYNC);

GUEST_CODE(processor_id, 64,
	CATCH
	"	xorl %eax, %eax\n"
	"	.byte 0xf3, 0x0f, 0xc7, 0xf8\n"		/* rdpid %rax */
	"	.byte 0xf3, 0x41, 0x0f, 0xc7, 0xf9\n"	/* rdpid %r9 */
	"9:\n" SYNC);

GUEST_CODE(plain_ud, 64, CATCH "	ud2\n9:\n" SYNC);

/* A new guest: a vCPU that has run keeps its CPUID. */
static void again(struct vm *vm, struct vcpu *vcpu)
{
	vcpu_destroy(vcpu);
	vm_destroy(vm);
	vm_create(vm, VM_MEMORY);
	vcpu_start(vcpu, vm, MODE_LONG);
}

static void set_cpuid(struct vcpu *vcpu, uint32_t leaf, uint32_t ecx, bool on)
{
	struct {
		struct kvm_cpuid2 head;
		struct kvm_cpuid_entry2 entries[256];
	} cpuid = { .head.nent = 256 };
	unsigned int i;

	xioctl(vcpu->fd, KVM_GET_CPUID2, &cpuid);
	for (i = 0; i < cpuid.head.nent; i++)
		if (cpuid.entries[i].function == leaf && !cpuid.entries[i].index)
			cpuid.entries[i].ecx = (cpuid.entries[i].ecx & ~ecx) | (on ? ecx : 0);
	xioctl(vcpu->fd, KVM_SET_CPUID2, &cpuid);
}

static uint32_t host_cpuid_ecx(uint32_t leaf)
{
	uint32_t eax = leaf, ebx, ecx = 0, edx;

	asm volatile("cpuid" : "+a"(eax), "=b"(ebx), "+c"(ecx), "=d"(edx));
	return ecx;
}

static bool emulates(struct vm *vm, uint32_t leaf, uint32_t ecx)
{
	struct {
		struct kvm_cpuid2 head;
		struct kvm_cpuid_entry2 entries[16];
	} cpuid = { .head.nent = 16 };
	unsigned int i;

	xioctl(vm->dev, KVM_GET_EMULATED_CPUID, &cpuid);
	for (i = 0; i < cpuid.head.nent; i++)
		if (cpuid.entries[i].function == leaf)
			return cpuid.entries[i].ecx & ecx;
	return false;
}

TEST_F(emulated, movbe)
{
	unsigned int on;

	ASSERT_EQ(emulates(&self->vm, 1, MOVBE), true);
	if (host_cpuid_ecx(1) & MOVBE)
		SKIP(return, "the CPU has MOVBE");
	for (on = 0; on < 2; on++) {
		again(&self->vm, &self->vcpu);
		set_cpuid(&self->vcpu, 1, MOVBE, on);
		START(bytes_swapped);
		vcpu_run_to_port(&self->vcpu, PORT_SYNC);
		EXPECT_EQ(vm_record(&self->vm)->count, !on);
		EXPECT_EQ(vcpu_regs(&self->vcpu).rax, on ? 0x44332211 : 0);
		EXPECT_EQ(*vm_u64(&self->vm, 0x100008), on ? 0x0807060504030201 : 0);
		vcpu_complete(&self->vcpu);
	}
	START(plain_ud);
	vcpu_run_to_port(&self->vcpu, PORT_SYNC);
	EXPECT_EQ(vm_record(&self->vm)->vector, VECTOR_UD);
}

TEST_F(emulated, rdpid)
{
	unsigned int on;

	if (host_cpuid_ecx(7) & RDPID)
		SKIP(return, "the CPU has RDPID");
	if (!emulates(&self->vm, 7, RDPID))
		SKIP(return, "no RDTSCP");
	for (on = 0; on < 2; on++) {
		again(&self->vm, &self->vcpu);
		set_cpuid(&self->vcpu, 7, RDPID, on);
		vcpu_set_msr(&self->vcpu, 0xc0000103, 0x4711);
		START(processor_id);
		vcpu_run_to_port(&self->vcpu, PORT_SYNC);
		EXPECT_EQ(vm_record(&self->vm)->count, !on);
		EXPECT_EQ(vcpu_regs(&self->vcpu).rax, on ? 0x4711 : 0);
		if (on)
			EXPECT_EQ(vcpu_regs(&self->vcpu).r9, 0x4711);
		vcpu_complete(&self->vcpu);
	}
}

/* An x87 instruction that reads memory where there is none. */
#define FLDS_AT	(CODE_GPA + 5)
GUEST_CODE(flds, 64,
	"	movl $0xc0000000, %eax\n"
	"	.byte 0xd9, 0x00\n"
	"9:	jmp 9b\n");

static void expect_failure(struct __test_metadata *_metadata, struct vcpu *vcpu)
{
	struct kvm_run *run = vcpu->run;

	vcpu_run_to(vcpu, KVM_EXIT_INTERNAL_ERROR);
	EXPECT_EQ(run->emulation_failure.suberror, KVM_INTERNAL_ERROR_EMULATION);
	EXPECT_EQ(run->emulation_failure.ndata, 8);
	EXPECT_EQ(run->emulation_failure.flags,
		  KVM_INTERNAL_ERROR_EMULATION_FLAG_INSTRUCTION_BYTES);
	EXPECT_GE(run->emulation_failure.insn_size, 2);
	EXPECT_EQ(run->emulation_failure.insn_bytes[0], 0xd9);
	EXPECT_EQ(run->emulation_failure.insn_bytes[1], 0);
	EXPECT_EQ(vcpu_regs(vcpu).rip, FLDS_AT);
}

/* The guest's kernel ends there, having got #UD; what else runs in the guest gets only that. */
TEST_F(emulated, failure)
{
	START(flds);
	expect_failure(_metadata, &self->vcpu);
	vcpu_run_to_port(&self->vcpu, PORT_EXCEPTION);
	EXPECT_EQ(self->record->vector, VECTOR_UD);
	EXPECT_EQ(self->record->rip, FLDS_AT);
	vcpu_complete(&self->vcpu);
	START(flds);
	drop_privilege(&self->vcpu);
	/* It comes without a stack for it: what counts is that the client does not see it first. */
	EXPECT_EQ(vcpu_run(&self->vcpu), 0);
	EXPECT_NE(self->run->exit_reason, KVM_EXIT_INTERNAL_ERROR);
}

/* A client that asked for it gets each, and the guest nothing. */
TEST_F(emulated, failure_for_the_client)
{
	unsigned int user;

	enable(&self->vm, KVM_CAP_EXIT_ON_EMULATION_FAILURE, 1);
	for (user = 0; user < 2; user++) {
		START(flds);
		if (user)
			drop_privilege(&self->vcpu);
		expect_failure(_metadata, &self->vcpu);
		expect_failure(_metadata, &self->vcpu);
		EXPECT_EQ(self->record->count, 0);
	}
}

GUEST_CODE(map_range, 64, "	vmcall\n" SYNC);
GUEST_CODE(map_range32, 32, "	vmcall\n" SYNC);

static void set_call(struct vcpu *vcpu, uint64_t gpa, uint64_t pages, uint64_t attributes)
{
	struct kvm_regs regs = vcpu_regs(vcpu);

	regs.rip = CODE_GPA;
	regs.rax = KVM_HC_MAP_GPA_RANGE;
	regs.rbx = gpa;
	regs.rcx = pages;
	regs.rdx = attributes;
	vcpu_set_regs(vcpu, &regs);
}

TEST_F(emulated, hypercall_for_the_client)
{
	static const struct {
		uint64_t gpa, pages;
	} wrong[] = { { 0x1001, 1 }, { 0x1000, 0 }, { 0x1000, ~0UL }, { ~0xfffUL, 1UL << 63 } };
	unsigned int i;

	START(map_range);
	set_call(&self->vcpu, 0x1000, 1, 0);
	vcpu_run_to_port(&self->vcpu, PORT_SYNC);
	EXPECT_EQ(vcpu_regs(&self->vcpu).rax, -KVM_ENOSYS);
	vcpu_complete(&self->vcpu);

	enable(&self->vm, KVM_CAP_EXIT_HYPERCALL, 1 << KVM_HC_MAP_GPA_RANGE);
	for (i = 0; i < ARRAY_SIZE(wrong); i++) {
		set_call(&self->vcpu, wrong[i].gpa, wrong[i].pages, 0);
		if (i == 3)
			continue;
		vcpu_run_to_port(&self->vcpu, PORT_SYNC);
		EXPECT_EQ(vcpu_regs(&self->vcpu).rax, (uint64_t)-EINVAL);
		vcpu_complete(&self->vcpu);
	}
	set_call(&self->vcpu, 0x12345000, 77, 0x10);
	vcpu_run_to(&self->vcpu, KVM_EXIT_HYPERCALL);
	EXPECT_EQ(self->run->hypercall.nr, KVM_HC_MAP_GPA_RANGE);
	EXPECT_EQ(self->run->hypercall.args[0], 0x12345000);
	EXPECT_EQ(self->run->hypercall.args[1], 77);
	EXPECT_EQ(self->run->hypercall.args[2], 0x10);
	EXPECT_EQ(self->run->hypercall.flags, KVM_EXIT_HYPERCALL_LONG_MODE);
	EXPECT_EQ(self->run->hypercall.ret, 0);
	EXPECT_EQ(vcpu_regs(&self->vcpu).rip, CODE_GPA);
	self->run->hypercall.ret = 0x123456789;
	vcpu_run_to_port(&self->vcpu, PORT_SYNC);
	EXPECT_EQ(vcpu_regs(&self->vcpu).rax, 0x123456789);
	vcpu_complete(&self->vcpu);

	vm_load(&self->vm, CODE_GPA, map_range32);
	vcpu_set_mode(&self->vcpu, MODE_PROTECTED);
	set_call(&self->vcpu, 0xffffffff12345000, 77, 0);
	vcpu_run_to(&self->vcpu, KVM_EXIT_HYPERCALL);
	EXPECT_EQ(self->run->hypercall.args[0], 0x12345000);
	EXPECT_EQ(self->run->hypercall.flags, 0);
	self->run->hypercall.ret = 0x123456789;
	vcpu_run_to_port(&self->vcpu, PORT_SYNC);
	EXPECT_EQ(vcpu_regs(&self->vcpu).rax, 0x23456789);
}

TEST_HARNESS_MAIN
