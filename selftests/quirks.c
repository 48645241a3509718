// SPDX-License-Identifier: GPL-2.0
/*
 * The quirks of KVM_CAP_DISABLE_QUIRKS2, each as it is and turned off: the
 * replacement of VMMCALL, OUT to port 0x7e, LINT0 after reset, and the page of
 * a local APIC that is disabled. And of the first: that the write is the
 * guest's own.
 */
#include "kselftest_harness.h"
#include "vm.h"

#define APIC_PAGE	0xfee00000UL
#define APIC_ENABLED	0x800
#define LVT_LINT0	0x350
#define VECTOR_UD	6
#define VECTOR_PF	14
#define PF_PRESENT	1
#define PF_WRITE	2
/* A second view of the first 2 MiB. */
#define VIEW		0x40000000UL
#define PTE_WRITABLE	2UL

static const uint8_t vmcall[] = { 0x0f, 0x01, 0xc1 };
static const uint8_t vmmcall[] = { 0x0f, 0x01, 0xd9 };

FIXTURE(quirks) {
	struct vm vm;
	struct vcpu vcpu;
	struct exception_record *record;
};

FIXTURE_VARIANT(quirks) {
	bool disabled;
};

FIXTURE_VARIANT_ADD(quirks, as_they_are) { .disabled = false };
FIXTURE_VARIANT_ADD(quirks, disabled) { .disabled = true };

FIXTURE_SETUP(quirks)
{
	struct kvm_enable_cap cap = { .cap = KVM_CAP_SPLIT_IRQCHIP, .args = { 24 } };

	vm_create(&self->vm, VM_MEMORY);
	xioctl(self->vm.fd, KVM_ENABLE_CAP, &cap);
	if (variant->disabled) {
		cap.cap = KVM_CAP_DISABLE_QUIRKS2;
		cap.args[0] = KVM_X86_QUIRK_LINT0_REENABLED | KVM_X86_QUIRK_LAPIC_MMIO_HOLE |
			      KVM_X86_QUIRK_OUT_7E_INC_RIP | KVM_X86_QUIRK_FIX_HYPERCALL_INSN;
		xioctl(self->vm.fd, KVM_ENABLE_CAP, &cap);
	}
	vcpu_start(&self->vcpu, &self->vm, MODE_LONG);
	self->record = vm_record(&self->vm);
}

FIXTURE_TEARDOWN(quirks)
{
	vcpu_destroy(&self->vcpu);
	vm_destroy(&self->vm);
}

/* The next exception goes on at local label 9. */
#define CATCH	"	leaq 9f(%rip), %r11; movq %r11, " REC_RESUME "\n"

GUEST_CODE(foreign_call, 64,
	CATCH
	"	movl $-1, %eax\n"
	"	.globl foreign_call_at\n"
	"foreign_call_at: .byte 0x0f, 0x01, 0xd9\n"
	"9:	outb %al, $" STR(PORT_SYNC) "\n");
extern const char foreign_call_at[];

static uint64_t call_offset(void)
{
	return foreign_call_at - foreign_call;
}

/* Whether the instruction at @gpa is @bytes. */
static bool is_at(struct vm *vm, uint64_t gpa, const uint8_t *bytes)
{
	return !memcmp(vm->mem + gpa, bytes, sizeof(vmcall));
}

/* Loads the call so that it lies at @gpa, and runs it as seen @view further up. */
static void run_call(struct vm *vm, struct vcpu *vcpu, uint64_t gpa, uint64_t view)
{
	struct kvm_regs regs = {
		.rip = view + gpa - call_offset(), .rsp = STACK_GPA, .rflags = 2,
	};

	vm_load(vm, gpa - call_offset(), foreign_call);
	vcpu_set_regs(vcpu, &regs);
	vcpu_run_to_port(vcpu, PORT_SYNC);
}

TEST_F(quirks, foreign_hypercall)
{
	/* Alone in a page, and its last byte or two in the next one. */
	static const uint64_t places[] = {
		CODE_GPA + 0x800, CODE_GPA + PAGE - 2, CODE_GPA + 3 * PAGE - 1,
	};
	unsigned int i;

	for (i = 0; i < ARRAY_SIZE(places); i++) {
		uint64_t gpa = places[i];

		self->record->count = 0;
		run_call(&self->vm, &self->vcpu, gpa, 0);
		if (variant->disabled) {
			EXPECT_EQ(self->record->count, 1);
			EXPECT_EQ(self->record->vector, VECTOR_UD);
			EXPECT_EQ(self->record->rip, gpa);
			EXPECT_TRUE(is_at(&self->vm, gpa, vmmcall));
		} else {
			EXPECT_EQ(self->record->count, 0);
			/* KVM_ENOSYS: there is no such hypercall. */
			EXPECT_EQ(vcpu_regs(&self->vcpu).rax, (uint64_t)-1000);
			EXPECT_TRUE(is_at(&self->vm, gpa, vmcall));
		}
		vcpu_complete(&self->vcpu);
	}
}

/* What the guest may not write is not replaced, and its fault says so. */
TEST_F(quirks, foreign_hypercall_in_read_only_code)
{
	uint64_t gpa = CODE_GPA + 0x800;
	volatile uint64_t *entry = vm_u64(&self->vm, LONG_PT_GPA + 0x3000);

	*entry = *vm_u64(&self->vm, LONG_PT_GPA + 0x2000) & ~PTE_WRITABLE;
	run_call(&self->vm, &self->vcpu, gpa, VIEW);
	EXPECT_TRUE(is_at(&self->vm, gpa, vmmcall));
	EXPECT_EQ(self->record->count, 1);
	EXPECT_EQ(self->record->rip, VIEW + gpa);
	if (variant->disabled) {
		EXPECT_EQ(self->record->vector, VECTOR_UD);
	} else {
		EXPECT_EQ(self->record->vector, VECTOR_PF);
		EXPECT_EQ(self->record->error, PF_PRESENT | PF_WRITE);
		EXPECT_EQ(self->record->cr2 & ~(PAGE - 1), (VIEW + gpa) & ~(PAGE - 1));
	}
}

GUEST_CODE(invalid, 64,
	CATCH
	"	ud2\n"
	"9:	outb %al, $" STR(PORT_SYNC) "\n");

TEST_F(quirks, other_invalid_opcodes)
{
	vm_load(&self->vm, CODE_GPA, invalid);
	vcpu_run_to_port(&self->vcpu, PORT_SYNC);
	EXPECT_EQ(self->record->count, 1);
	EXPECT_EQ(self->record->vector, VECTOR_UD);
}

GUEST_CODE(out_7e, 64,
	"	outb %al, $0x7e\n"
	"	outb %al, $" STR(PORT_SYNC) "\n");

TEST_F(quirks, out_7e)
{
	vm_load(&self->vm, CODE_GPA, out_7e);
	vcpu_run_to_port(&self->vcpu, 0x7e);
	EXPECT_EQ(vcpu_regs(&self->vcpu).rip, CODE_GPA + (variant->disabled ? 0 : 2));
	vcpu_run_to_port(&self->vcpu, PORT_SYNC);
	EXPECT_EQ(vcpu_regs(&self->vcpu).rip, CODE_GPA + 2);
}

TEST_F(quirks, lint0)
{
	struct kvm_lapic_state lapic;
	struct vcpu second;

	xioctl(self->vcpu.fd, KVM_GET_LAPIC, &lapic);
	EXPECT_EQ(*(uint32_t *)(lapic.regs + LVT_LINT0), variant->disabled ? 0x10000 : 0x700);
	/* Only the one that boots has it. */
	vcpu_create(&second, &self->vm, 1);
	xioctl(second.fd, KVM_GET_LAPIC, &lapic);
	EXPECT_EQ(*(uint32_t *)(lapic.regs + LVT_LINT0), 0x10000);
	vcpu_destroy(&second);
}

GUEST_CODE(apic_page, 64,
	"	movl $0xfee00030, %edi\n"
	"	movl (%rdi), %eax\n"
	"	outb %al, $" STR(PORT_SYNC) "\n"
	"	movl $1, (%rdi)\n"
	"	outb %al, $" STR(PORT_SYNC) "\n");

TEST_F(quirks, apic_page)
{
	struct vcpu *vcpu = &self->vcpu;
	struct kvm_sregs sregs = vcpu_sregs(vcpu);

	sregs.apic_base &= ~(uint64_t)APIC_ENABLED;
	vcpu_set_sregs(vcpu, &sregs);
	vm_load(&self->vm, CODE_GPA, apic_page);
	if (variant->disabled) {
		vcpu_run_to(vcpu, KVM_EXIT_MMIO);
		EXPECT_EQ(vcpu->run->mmio.phys_addr, APIC_PAGE + 0x30);
		EXPECT_EQ(vcpu->run->mmio.len, 4);
		EXPECT_EQ(vcpu->run->mmio.is_write, 0);
		memcpy(vcpu->run->mmio.data, "\x78\x56\x34\x12", 4);
	}
	vcpu_run_to_port(vcpu, PORT_SYNC);
	EXPECT_EQ(vcpu_regs(vcpu).rax, variant->disabled ? 0x12345678 : 0xffffffff);
	if (variant->disabled) {
		vcpu_run_to(vcpu, KVM_EXIT_MMIO);
		EXPECT_EQ(vcpu->run->mmio.is_write, 1);
	}
	vcpu_run_to_port(vcpu, PORT_SYNC);
}

TEST_HARNESS_MAIN
