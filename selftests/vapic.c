// SPDX-License-Identifier: GPL-2.0
/*
 * What clients had before there was FlexPriority: they hear of the accesses to
 * the task priority that exit, and let the guest have it in its memory.
 */
#include "kselftest_harness.h"
#include "vm.h"

#define APIC_BASE	0xfee00000UL
#define VAPIC_GPA	0x100800UL
#define VECTOR		0x91
#define HANDLER_AT	0x20000UL
#define COUNTER		0x100000UL
#define POLL_IRQ	1

#define TPR_WRITE_AT	5	/* offset of the instruction in access_tpr */
#define TPR_READ_AT	(TPR_WRITE_AT + 6)

/* Writes and reads the TPR by memory. */
GUEST_CODE(access_tpr, 64,
	"	movl $0xfee00000, %edi\n"
	"	movl %eax, 0x80(%rdi)\n"
	"	movl 0x80(%rdi), %ebx\n"
	"	outb %al, $" STR(PORT_DONE) "\n");

/* The same by MSR. */
GUEST_CODE(access_msr, 64,
	"	movl $0x808, %ecx\n"
	"	xorl %edx, %edx\n"
	"	wrmsr\n"
	"	rdmsr\n"
	"	outb %al, $" STR(PORT_DONE) "\n");

/* The guest's own TPR, as its patches have it. */
GUEST_CODE(patched, 64,
	"	movb $0xa7, 0x100800\n"
	"	outb %al, $" STR(PORT_SYNC) "\n"
	"	movl 0x100800, %ebx\n"
	"	outb %al, $" STR(PORT_SYNC) "\n"
	"	sti\n"
	"	nop\n"
	"	movb $0x80, 0x100800\n"
	"	movq 0x100000, %rbx\n"
	"	movl $" STR(POLL_IRQ) ", %eax\n"
	"	vmcall\n"
	"	nop\n"
	"	outb %al, $" STR(PORT_SYNC) "\n"
	"	cli\n"
	"	movl 0x100800, %ebx\n"
	"	outb %al, $" STR(PORT_DONE) "\n");

/* Counts, and shows what the word says while the interrupt is in service. */
GUEST_CODE(handler, 64,
	"	incq 0x100000\n"
	"	outb %al, $" STR(PORT_SYNC) "\n"
	"	movl 0x100800, %ecx\n"
	"	pushq %rdi\n"
	"	movl $0xfee000b0, %edi\n"
	"	movl $0, (%rdi)\n"
	"	popq %rdi\n"
	"	iretq\n");

static bool create(struct vm *vm, struct vcpu *vcpu)
{
	struct kvm_enable_cap split = {
		.cap = KVM_CAP_SPLIT_IRQCHIP,
		.args = { 24 },
	};

	if (!guests_can_page())
		return false;
	vm_create(vm, SZ_2M);
	xioctl(vm->fd, KVM_ENABLE_CAP, &split);
	vcpu_start(vcpu, vm, MODE_LONG);
	return true;
}

static void destroy(struct vm *vm, struct vcpu *vcpu)
{
	vcpu_destroy(vcpu);
	vm_destroy(vm);
}

/* kvm_intel's does nothing while it is without APICv. */
static bool has_flexpriority(void)
{
	return device_is_kvm_rs() && module_parameter("flexpriority") == 'Y';
}

static void report_accesses(struct vcpu *vcpu, bool on)
{
	struct kvm_tpr_access_ctl control = { .enabled = on };

	xioctl(vcpu->fd, KVM_TPR_ACCESS_REPORTING, &control);
}

TEST(reports)
{
	struct kvm_regs regs = { .rip = CODE_GPA, .rsp = STACK_GPA, .rflags = 2,
				 .rax = 0x30 };
	struct kvm_run *run;
	struct vcpu vcpu;
	struct vm vm;

	if (!create(&vm, &vcpu))
		SKIP(return, "the guest would page");
	run = vcpu.run;
	EXPECT_EQ(try_ioctl(vm.dev, KVM_CHECK_EXTENSION, KVM_CAP_VAPIC), 1);
	vm_load(&vm, CODE_GPA, access_tpr);
	report_accesses(&vcpu, true);
	vcpu_set_regs(&vcpu, &regs);
	if (!has_flexpriority()) {
		vcpu_run_to(&vcpu, KVM_EXIT_TPR_ACCESS);
		EXPECT_EQ(run->tpr_access.rip, CODE_GPA + TPR_WRITE_AT);
		EXPECT_EQ(run->tpr_access.is_write, 1);
		EXPECT_EQ(run->cr8, 3);
		/* It is done. */
		EXPECT_EQ(vcpu_regs(&vcpu).rip, CODE_GPA + TPR_READ_AT);
		vcpu_run_to(&vcpu, KVM_EXIT_TPR_ACCESS);
		EXPECT_EQ(run->tpr_access.rip, CODE_GPA + TPR_READ_AT);
		EXPECT_EQ(run->tpr_access.is_write, 0);
	}
	/* Those that do not exit are not reported. */
	vcpu_run_to_port(&vcpu, PORT_DONE);
	EXPECT_EQ(vcpu_regs(&vcpu).rbx, 0x30);
	vcpu_complete(&vcpu);

	report_accesses(&vcpu, false);
	vcpu_set_regs(&vcpu, &regs);
	vcpu_run_to_port(&vcpu, PORT_DONE);
	vcpu_complete(&vcpu);

	/* The processor does these by itself. */
	report_accesses(&vcpu, true);
	vcpu_set_msr(&vcpu, 0x1b, vcpu_msr(&vcpu, 0x1b) | 0xc00);
	vm_load(&vm, CODE_GPA, access_msr);
	vcpu_set_regs(&vcpu, &regs);
	vcpu_run_to_port(&vcpu, PORT_DONE);
	EXPECT_EQ(vcpu_regs(&vcpu).rax, 0x30);
	destroy(&vm, &vcpu);
}

static uint8_t lapic_tpr(struct vcpu *vcpu)
{
	struct kvm_lapic_state lapic;

	xioctl(vcpu->fd, KVM_GET_LAPIC, &lapic);
	return lapic.regs[0x80];
}

static void set_lapic(struct vcpu *vcpu, unsigned int offset, uint32_t value)
{
	struct kvm_lapic_state lapic;

	xioctl(vcpu->fd, KVM_GET_LAPIC, &lapic);
	memcpy(lapic.regs + offset, &value, 4);
	xioctl(vcpu->fd, KVM_SET_LAPIC, &lapic);
}

static void signal_msi(struct vm *vm, unsigned int vector)
{
	struct kvm_msi msi = { .address_lo = APIC_BASE, .data = vector };

	xioctl(vm->fd, KVM_SIGNAL_MSI, &msi);
}

TEST(priority_in_memory)
{
	struct kvm_vapic_addr vapic = { .vapic_addr = VAPIC_GPA };
	volatile uint64_t *gate;
	struct kvm_sregs sregs;
	struct vcpu vcpu;
	struct vm vm;

	if (!create(&vm, &vcpu))
		SKIP(return, "the guest would page");
	vm_load(&vm, CODE_GPA, patched);
	vm_load(&vm, HANDLER_AT, handler);
	gate = vm_u64(&vm, IDT_GPA + VECTOR * 16);
	gate[0] = HANDLER_AT % 0x10000 | (uint64_t)SEL_CODE64 << 16 | 0x8e00ULL << 32 |
		  (HANDLER_AT & 0xffff0000) << 32;
	gate[1] = 0;
	sregs = vcpu_sregs(&vcpu);
	sregs.idt.limit = 0xfff;
	vcpu_set_sregs(&vcpu, &sregs);
	set_lapic(&vcpu, 0xf0, 0x1ff);
	xioctl(vcpu.fd, KVM_SET_VAPIC_ADDR, &vapic);

	/* What the guest writes is its TPR; what the client sets, it reads. */
	vcpu_run_to_port(&vcpu, PORT_SYNC);
	EXPECT_EQ(lapic_tpr(&vcpu), 0xa7);
	EXPECT_EQ(vcpu.run->cr8, 0xa);
	set_lapic(&vcpu, 0x80, 0x93);
	signal_msi(&vm, VECTOR);
	vcpu_run_to_port(&vcpu, PORT_SYNC);
	EXPECT_EQ(vcpu_regs(&vcpu).rbx, (uint64_t)VECTOR << 24 | 0x93);
	EXPECT_EQ(*vm_u64(&vm, COUNTER), 0);

	/* It is held back until the guest has lowered its TPR, and says so. */
	vcpu_run_to_port(&vcpu, PORT_SYNC);
	EXPECT_EQ(*vm_u64(&vm, COUNTER), 1);
	EXPECT_EQ(vcpu_regs(&vcpu).rbx, 0);
	/* In service now, and no longer requested. */
	vcpu_run_to_port(&vcpu, PORT_SYNC);
	EXPECT_EQ(vcpu_regs(&vcpu).rcx, (VECTOR & 0xf0) << 8 | 0x80);
	EXPECT_EQ(vcpu_regs(&vcpu).rax & 0xffffffff, 0);
	vcpu_run_to_port(&vcpu, PORT_DONE);
	EXPECT_EQ(vcpu_regs(&vcpu).rbx, 0x80);
	EXPECT_EQ(lapic_tpr(&vcpu), 0x80);

	/* Without it, the word is memory like any other. */
	vapic.vapic_addr = 0;
	xioctl(vcpu.fd, KVM_SET_VAPIC_ADDR, &vapic);
	vcpu_complete(&vcpu);
	vcpu_set_rip(&vcpu, CODE_GPA);
	vcpu_run_to_port(&vcpu, PORT_SYNC);
	EXPECT_EQ(lapic_tpr(&vcpu), 0x80);
	destroy(&vm, &vcpu);
}

TEST(errors)
{
	struct kvm_tpr_access_ctl control = { .flags = 1 };
	struct kvm_vapic_addr vapic = {};
	void *mem = memory_alloc(SZ_2M, SZ_2M);
	struct vcpu vcpu;
	struct vm vm;

	/* A client that has the local APIC may ask for reports, and gets none. */
	vm_create(&vm, SZ_2M);
	vcpu_create(&vcpu, &vm, 0);
	EXPECT_EQ(try_ioctl(vcpu.fd, KVM_SET_VAPIC_ADDR, (long)&vapic), -EINVAL);
	EXPECT_EQ(try_ioctl(vcpu.fd, KVM_SET_VAPIC_ADDR, 8), -EINVAL);
	EXPECT_EQ(try_ioctl(vcpu.fd, KVM_TPR_ACCESS_REPORTING, (long)&control), -EINVAL);
	control.flags = 0;
	EXPECT_EQ(try_ioctl(vcpu.fd, KVM_TPR_ACCESS_REPORTING, (long)&control), 0);
	EXPECT_EQ(try_ioctl(vcpu.fd, KVM_TPR_ACCESS_REPORTING, 8), -EFAULT);
	destroy(&vm, &vcpu);

	if (!create(&vm, &vcpu))
		SKIP(return, "the guest would page");
	EXPECT_EQ(try_ioctl(vcpu.fd, KVM_SET_VAPIC_ADDR, 8), -EFAULT);
	EXPECT_EQ(vm_set_slot(&vm, 1, KVM_MEM_READONLY, SZ_4M, SZ_2M, mem), 0);
	vapic.vapic_addr = VAPIC_GPA;
	EXPECT_EQ(try_ioctl(vcpu.fd, KVM_SET_VAPIC_ADDR, (long)&vapic), 0);
	/* No memory, its end, memory that is read-only, and no address. */
	vapic.vapic_addr = MMIO_GPA;
	EXPECT_EQ(try_ioctl(vcpu.fd, KVM_SET_VAPIC_ADDR, (long)&vapic), -EINVAL);
	vapic.vapic_addr = SZ_2M - 2;
	EXPECT_EQ(try_ioctl(vcpu.fd, KVM_SET_VAPIC_ADDR, (long)&vapic), -EINVAL);
	vapic.vapic_addr = SZ_4M;
	EXPECT_EQ(try_ioctl(vcpu.fd, KVM_SET_VAPIC_ADDR, (long)&vapic), -EINVAL);
	vapic.vapic_addr = ~0ULL - 1;
	EXPECT_EQ(try_ioctl(vcpu.fd, KVM_SET_VAPIC_ADDR, (long)&vapic), -EINVAL);
	destroy(&vm, &vcpu);
	munmap(mem, SZ_2M);
}

TEST_HARNESS_MAIN
