// SPDX-License-Identifier: GPL-2.0
/*
 * The task-priority register: by memory, CR8 and MSR it is one register, the
 * client sees what the guest wrote and the other way round, an interrupt that
 * it holds back comes with the very write that lets it through, and only such
 * writes exit where the CPU has FlexPriority.
 */
#include <pthread.h>
#include <sched.h>

#include "kselftest_harness.h"
#include "vm.h"

#define APIC_BASE	0xfee00000UL
#define APIC_MSR	0x1b
#define X2APIC_TPR	0x808
#define HANDLER		0x20000UL
#define IDT32		0x30000UL

/* What guest and client tell each other. */
#define VECTOR		"0x100000"	/* to be sent */
#define CURRENT		"0x100008"	/* the TPR's class that is being written */
#define SEEN		"0x100010"	/* that class when the handler ran, plus 1 */
#define COUNT		"0x100018"	/* runs of the handler */
#define word(vm, name)	vm_u64(vm, strtoul(name, NULL, 0))

/* The three ways to the TPR in 64-bit mode, for the value in %eax. */
#define SET_MMIO	"	movl %eax, 0x80(%rdi)\n"
#define GET_MMIO	"	movl 0x80(%rdi), %eax\n"
#define SET_CR8		"	shrl $4, %eax\n	movq %rax, %cr8\n"
#define GET_CR8		"	movq %cr8, %rax\n	shll $4, %eax\n"
#define SET_MSR		"	movl $0x808, %ecx\n	xorl %edx, %edx\n	wrmsr\n"
#define GET_MSR		"	movl $0x808, %ecx\n	rdmsr\n"

/* Enables the APIC by software, and sends itself the vector in %eax. */
#define ENABLE_MMIO	"	movl $0xfee00000, %edi\n"		\
			"	movl $0x1ff, 0xf0(%rdi)\n"
#define SEND_MMIO	"	orl $0x44000, %eax\n"			\
			"	movl %eax, 0x300(%rdi)\n"
#define ENABLE_MSR	"	movl $0x80f, %ecx\n"			\
			"	movl $0x1ff, %eax\n"			\
			"	xorl %edx, %edx\n"			\
			"	wrmsr\n"
#define SEND_MSR	"	movl $0x83f, %ecx\n"			\
			"	xorl %edx, %edx\n"			\
			"	wrmsr\n"

/*
 * Turns %r12 times through all classes, up and down, and reads each back. Ends
 * with PORT_EXCEPTION if it reads another.
 */
#define STORM(name, enable, set, get)					\
	GUEST_CODE(name, 64, enable					\
		"1:	xorl %ebx, %ebx\n"				\
		"2:	movl %ebx, %eax\n" set get			\
		"	cmpl %ebx, %eax\n"				\
		"	jne 4f\n"					\
		"	addl $0x10, %ebx\n"				\
		"	cmpl $0x100, %ebx\n"				\
		"	jb 2b\n"					\
		"3:	subl $0x10, %ebx\n"				\
		"	movl %ebx, %eax\n" set get			\
		"	cmpl %ebx, %eax\n"				\
		"	jne 4f\n"					\
		"	testl %ebx, %ebx\n"				\
		"	jnz 3b\n"					\
		"	decq %r12\n"					\
		"	jnz 1b\n"					\
		"	outb %al, $" STR(PORT_DONE) "\n"		\
		"4:	outb %al, $" STR(PORT_EXCEPTION) "\n")
STORM(storm_mmio, ENABLE_MMIO, SET_MMIO, GET_MMIO);
STORM(storm_cr8, ENABLE_MMIO, SET_CR8, GET_CR8);
STORM(storm_msr, ENABLE_MSR, SET_MSR, GET_MSR);

/* The same by memory without paging. */
GUEST_CODE(storm_32, 32,
	"	movl $0xfee00000, %edi\n"
	"	movl $0x1ff, 0xf0(%edi)\n"
	"1:	xorl %ebx, %ebx\n"
	"2:	movl %ebx, 0x80(%edi)\n"
	"	cmpl %ebx, 0x80(%edi)\n"
	"	jne 4f\n"
	"	addl $0x10, %ebx\n"
	"	cmpl $0x100, %ebx\n"
	"	jb 2b\n"
	"3:	subl $0x10, %ebx\n"
	"	movl %ebx, 0x80(%edi)\n"
	"	cmpl %ebx, 0x80(%edi)\n"
	"	jne 4f\n"
	"	testl %ebx, %ebx\n"
	"	jnz 3b\n"
	"	decl %ecx\n"
	"	jnz 1b\n"
	"	outb %al, $" STR(PORT_DONE) "\n"
	"4:	outb %al, $" STR(PORT_EXCEPTION) "\n");

/*
 * With the highest priority, sends itself the vector, and lowers its priority
 * class by class.
 */
#define UNMASK(name, enable, set, send)					\
	GUEST_CODE(name, 64, enable					\
		"	movl $0xf0, %eax\n" set				\
		"	movq " VECTOR ", %rax\n" send			\
		"	sti\n"						\
		"	movl $15, %ebx\n"				\
		"1:	movq %rbx, " CURRENT "\n"			\
		"	movl %ebx, %eax\n"				\
		"	shll $4, %eax\n" set				\
		"	decl %ebx\n"					\
		"	jns 1b\n"					\
		"	cli\n"						\
		"	outb %al, $" STR(PORT_DONE) "\n")
UNMASK(unmask_mmio, ENABLE_MMIO, SET_MMIO, SEND_MMIO);
UNMASK(unmask_cr8, ENABLE_MMIO, SET_CR8, SEND_MMIO);
UNMASK(unmask_msr, ENABLE_MSR, SET_MSR, SEND_MSR);

GUEST_CODE(unmask_32, 32,
	"	movl $0xfee00000, %edi\n"
	"	movl $0x1ff, 0xf0(%edi)\n"
	"	movl $0xf0, 0x80(%edi)\n"
	"	movl " VECTOR ", %eax\n"
	"	orl $0x44000, %eax\n"
	"	movl %eax, 0x300(%edi)\n"
	"	sti\n"
	"	movl $15, %ebx\n"
	"1:	movl %ebx, " CURRENT "\n"
	"	movl %ebx, %eax\n"
	"	shll $4, %eax\n"
	"	movl %eax, 0x80(%edi)\n"
	"	decl %ebx\n"
	"	jns 1b\n"
	"	cli\n"
	"	outb %al, $" STR(PORT_DONE) "\n");

/* Notes when it runs, and ends the interrupt. */
#define NOTE								\
	"	movq " CURRENT ", %rax\n"				\
	"	incq %rax\n"						\
	"	movq %rax, " SEEN "\n"					\
	"	incq " COUNT "\n"
GUEST_CODE(handler_mmio, 64,
	"	pushq %rax\n" NOTE
	"	movl $0xfee000b0, %eax\n"
	"	movl $0, (%rax)\n"
	"	popq %rax\n"
	"	iretq\n");
GUEST_CODE(handler_msr, 64,
	"	pushq %rax\n	pushq %rcx\n	pushq %rdx\n" NOTE
	"	movl $0x80b, %ecx\n"
	"	xorl %eax, %eax\n"
	"	xorl %edx, %edx\n"
	"	wrmsr\n"
	"	popq %rdx\n	popq %rcx\n	popq %rax\n"
	"	iretq\n");
GUEST_CODE(handler_32, 32,
	"	pushl %eax\n"
	"	movl " CURRENT ", %eax\n"
	"	incl %eax\n"
	"	movl %eax, " SEEN "\n"
	"	incl " COUNT "\n"
	"	movl $0, 0xfee000b0\n"
	"	popl %eax\n"
	"	iretl\n");

/* The handler of a vector in whose service another one is sent: see in_service. */
GUEST_CODE(handler_nested, 64,
	"	movl $0xfee00000, %edi\n"
	"	movl $0x44035, 0x300(%rdi)\n"
	"	movl $0xf0, 0x80(%rdi)\n"
	"	movl $0x00, 0x80(%rdi)\n"
	"	outb %al, $" STR(PORT_SYNC) "\n"
	"	sti\n"
	"	movq $1, " CURRENT "\n"
	"	movl $0, 0xb0(%rdi)\n"
	"	nop\n"
	"	cli\n"
	"	iretq\n");

/* Writes the TPR by memory, and reads it by CR8, each time the client looks. */
GUEST_CODE(write_and_read, 64,
	ENABLE_MMIO
	"1:	movq 0x100000, %rax\n"
	"	movl %eax, 0x80(%rdi)\n"
	"	outb %al, $" STR(PORT_SYNC) "\n"
	"	movq %cr8, %rax\n"
	"	movl 0x80(%rdi), %ebx\n"
	"	outb %al, $" STR(PORT_SYNC) "\n"
	"	jmp 1b\n");

/* Reads the TPR at %rdi into %rbx. */
GUEST_CODE(read_at, 64,
	"1:	movl 0x80(%rdi), %ebx\n"
	"	outb %al, $" STR(PORT_DONE) "\n"
	"	jmp 1b\n");

static bool create(struct vm *vm, struct vcpu *vcpu, enum mode mode)
{
	struct kvm_enable_cap split = {
		.cap = KVM_CAP_SPLIT_IRQCHIP,
		.args = { 24 },
	};

	if (mode >= MODE_PAGED && !guests_can_page())
		return false;
	vm_create(vm, SZ_2M);
	xioctl(vm->fd, KVM_ENABLE_CAP, &split);
	vcpu_start(vcpu, vm, mode);
	return true;
}
#define CREATE(vm, vcpu, mode)						\
	do {								\
		if (!create(vm, vcpu, mode))				\
			SKIP(return, "the guest would page");		\
	} while (0)

static void destroy(struct vm *vm, struct vcpu *vcpu)
{
	vcpu_destroy(vcpu);
	vm_destroy(vm);
}

static void use_x2apic(struct vcpu *vcpu)
{
	vcpu_set_msr(vcpu, APIC_MSR, vcpu_msr(vcpu, APIC_MSR) | 0xc00);
}

static bool has_flexpriority(void)
{
	return device_is_kvm_rs() && module_parameter("flexpriority") == 'Y';
}

/* The processor delivers what a write lets through. */
static bool has_apicv(void)
{
	return device_is_kvm_rs() && module_parameter("enable_apicv") == 'Y';
}

/* All exits of kvm_rs. */
static long exits(void)
{
	return module_stat("exits");
}

static void set_gate(struct vm *vm, unsigned int vector, uint64_t target)
{
	volatile uint64_t *gate = vm_u64(vm, IDT_GPA + vector * 16);

	gate[0] = (target & 0xffff) | (uint64_t)SEL_CODE64 << 16 | 0x8e00ULL << 32 |
		  (target & 0xffff0000) << 32;
	gate[1] = target >> 32;
}

static void set_idt(struct vcpu *vcpu, uint64_t base)
{
	struct kvm_sregs sregs = vcpu_sregs(vcpu);

	sregs.idt.base = base;
	sregs.idt.limit = 0xfff;
	vcpu_set_sregs(vcpu, &sregs);
}

static void run_storm(struct vcpu *vcpu, unsigned int turns)
{
	struct kvm_regs regs = {
		.rip = CODE_GPA, .rsp = STACK_GPA, .rflags = 2,
		.r12 = turns, .rcx = turns, .rdi = APIC_BASE,
	};

	vcpu_set_regs(vcpu, &regs);
	vcpu_run_to_port(vcpu, PORT_DONE);
}

/* 64 accesses a turn. */
#define TURNS		100
#define ACCESSES	(TURNS * 64)

/* Exits of a storm, after one turn that brings in all pages. */
static long storm_exits(struct vcpu *vcpu)
{
	long before;

	run_storm(vcpu, 1);
	before = exits();
	run_storm(vcpu, TURNS);
	return exits() - before;
}

/* The two exits: OUT, and that for the write to SVR; and some for the host. */
#define FEW	20

TEST(storm_without_paging)
{
	struct vcpu vcpu;
	struct vm vm;
	long count;

	CREATE(&vm, &vcpu, MODE_PROTECTED);
	vm_load(&vm, CODE_GPA, storm_32);
	count = storm_exits(&vcpu);
	if (has_flexpriority()) {
		EXPECT_LE(count, FEW);
	} else if (device_is_kvm_rs()) {
		EXPECT_GE(count, ACCESSES);
	}
	destroy(&vm, &vcpu);
}

TEST(storm_by_memory)
{
	struct vcpu vcpu;
	struct vm vm;
	long count;

	CREATE(&vm, &vcpu, MODE_LONG);
	vm_load(&vm, CODE_GPA, storm_mmio);
	count = storm_exits(&vcpu);
	if (has_flexpriority()) {
		EXPECT_LE(count, FEW);
	} else if (device_is_kvm_rs()) {
		EXPECT_GE(count, ACCESSES);
	}
	destroy(&vm, &vcpu);
}

TEST(storm_by_cr8)
{
	struct vcpu vcpu;
	struct vm vm;

	CREATE(&vm, &vcpu, MODE_LONG);
	vm_load(&vm, CODE_GPA, storm_cr8);
	EXPECT_LE(storm_exits(&vcpu), FEW);
	destroy(&vm, &vcpu);
}

TEST(storm_by_msr)
{
	struct vcpu vcpu;
	struct vm vm;

	CREATE(&vm, &vcpu, MODE_LONG);
	vm_load(&vm, CODE_GPA, storm_msr);
	use_x2apic(&vcpu);
	EXPECT_LE(storm_exits(&vcpu), FEW);
	destroy(&vm, &vcpu);
}

/* A filter that denies everything does not reach the x2APIC. */
TEST(storm_by_msr_under_a_filter)
{
	struct kvm_msr_filter filter = { .flags = KVM_MSR_FILTER_DEFAULT_DENY };
	uint8_t none[8] = {};
	struct vcpu vcpu;
	struct vm vm;

	CREATE(&vm, &vcpu, MODE_LONG);
	vm_load(&vm, CODE_GPA, storm_msr);
	use_x2apic(&vcpu);
	filter.ranges[0] = (struct kvm_msr_filter_range) {
		.flags = KVM_MSR_FILTER_READ | KVM_MSR_FILTER_WRITE,
		.base = 0x10,
		.nmsrs = 1,
		.bitmap = none,
	};
	xioctl(vm.fd, KVM_X86_SET_MSR_FILTER, &filter);
	EXPECT_LE(storm_exits(&vcpu), FEW);
	destroy(&vm, &vcpu);
}

/* Exits for writes that let something through. */
static long below_threshold(void)
{
	long below = module_stat("exits_tpr_below_threshold");

	return below < 0 ? 0 : below;
}

/* For each class: the interrupt comes when the TPR goes to the class below. */
static void unmask(struct __test_metadata *_metadata, struct vm *vm,
		   struct vcpu *vcpu)
{
	unsigned int class;

	for (class = 2; class < 16; class++) {
		struct kvm_regs regs = {
			.rip = CODE_GPA, .rsp = STACK_GPA, .rflags = 2,
		};
		unsigned int vector = class * 16 + (class & 7);
		long below = below_threshold();

		*word(vm, VECTOR) = vector;
		*word(vm, SEEN) = 0;
		*word(vm, COUNT) = 0;
		vcpu_set_regs(vcpu, &regs);
		vcpu_run_to_port(vcpu, PORT_DONE);
		EXPECT_EQ(*word(vm, COUNT), 1);
		EXPECT_EQ(*word(vm, SEEN), class - 1 + 1);
		below = below_threshold() - below;
		if (has_flexpriority())
			EXPECT_EQ(below, has_apicv() ? 0 : 1);
	}
}

TEST(unmasked_without_paging)
{
	struct vcpu vcpu;
	unsigned int i;
	struct vm vm;

	CREATE(&vm, &vcpu, MODE_PROTECTED);
	vm_load(&vm, CODE_GPA, unmask_32);
	vm_load(&vm, HANDLER, handler_32);
	for (i = 0; i < 256; i++)
		*vm_u64(&vm, IDT32 + i * 8) =
			HANDLER % 0x10000 | SEL_CODE32 << 16 | 0x8e00ULL << 32 |
			(HANDLER & 0xffff0000) << 32;
	set_idt(&vcpu, IDT32);
	unmask(_metadata, &vm, &vcpu);
	destroy(&vm, &vcpu);
}

static void prepare(struct vm *vm, struct vcpu *vcpu)
{
	unsigned int vector;

	for (vector = 32; vector < 256; vector++)
		set_gate(vm, vector, HANDLER);
	set_idt(vcpu, IDT_GPA);
}

TEST(unmasked_by_memory)
{
	struct vcpu vcpu;
	struct vm vm;

	CREATE(&vm, &vcpu, MODE_LONG);
	vm_load(&vm, CODE_GPA, unmask_mmio);
	vm_load(&vm, HANDLER, handler_mmio);
	prepare(&vm, &vcpu);
	unmask(_metadata, &vm, &vcpu);
	destroy(&vm, &vcpu);
}

TEST(unmasked_by_cr8)
{
	struct vcpu vcpu;
	struct vm vm;

	CREATE(&vm, &vcpu, MODE_LONG);
	vm_load(&vm, CODE_GPA, unmask_cr8);
	vm_load(&vm, HANDLER, handler_mmio);
	prepare(&vm, &vcpu);
	unmask(_metadata, &vm, &vcpu);
	destroy(&vm, &vcpu);
}

TEST(unmasked_by_msr)
{
	struct vcpu vcpu;
	struct vm vm;

	CREATE(&vm, &vcpu, MODE_LONG);
	vm_load(&vm, CODE_GPA, unmask_msr);
	vm_load(&vm, HANDLER, handler_msr);
	prepare(&vm, &vcpu);
	use_x2apic(&vcpu);
	unmask(_metadata, &vm, &vcpu);
	destroy(&vm, &vcpu);
}

/*
 * In the service of vector 0x88, 0x35 is sent and the TPR goes up and down:
 * nothing comes, and nothing exits for it, before that service ends.
 */
TEST(in_service)
{
	struct vcpu vcpu;
	struct vm vm;
	long below;

	CREATE(&vm, &vcpu, MODE_LONG);
	vm_load(&vm, CODE_GPA, unmask_mmio);
	vm_load(&vm, HANDLER, handler_mmio);
	vm_load(&vm, HANDLER + 0x1000, handler_nested);
	prepare(&vm, &vcpu);
	set_gate(&vm, 0x88, HANDLER + 0x1000);
	*word(&vm, VECTOR) = 0x88;
	below = below_threshold();
	vcpu_run_to_port(&vcpu, PORT_SYNC);
	EXPECT_EQ(*word(&vm, COUNT), 0);
	/* The one for 0x88. */
	if (has_flexpriority())
		EXPECT_EQ(below_threshold(), below + (has_apicv() ? 0 : 1));
	vcpu_run_to_port(&vcpu, PORT_DONE);
	EXPECT_EQ(*word(&vm, COUNT), 1);
	EXPECT_EQ(*word(&vm, SEEN), 2);
	destroy(&vm, &vcpu);
}

static unsigned int lapic_tpr(struct vcpu *vcpu)
{
	struct kvm_lapic_state lapic;
	uint32_t tpr;

	xioctl(vcpu->fd, KVM_GET_LAPIC, &lapic);
	memcpy(&tpr, lapic.regs + 0x80, 4);
	return tpr;
}

static void set_lapic_tpr(struct vcpu *vcpu, uint32_t tpr)
{
	struct kvm_lapic_state lapic;

	xioctl(vcpu->fd, KVM_GET_LAPIC, &lapic);
	memcpy(lapic.regs + 0x80, &tpr, 4);
	xioctl(vcpu->fd, KVM_SET_LAPIC, &lapic);
}

/* What one writes, all others read: guest, CR8, registers, kvm_run. */
TEST(one_register)
{
	struct kvm_sregs sregs;
	unsigned int class;
	struct vcpu vcpu;
	struct vm vm;

	CREATE(&vm, &vcpu, MODE_LONG);
	vm_load(&vm, CODE_GPA, write_and_read);
	for (class = 0; class < 16; class++) {
		*word(&vm, VECTOR) = class * 16 + 5;
		vcpu_run_to_port(&vcpu, PORT_SYNC);
		EXPECT_EQ(lapic_tpr(&vcpu), class * 16 + 5);
		EXPECT_EQ(vcpu_sregs(&vcpu).cr8, class);
		EXPECT_EQ(vcpu.run->cr8, class);

		if (class & 1) {
			set_lapic_tpr(&vcpu, (15 - class) * 16 + 3);
			EXPECT_EQ(vcpu_sregs(&vcpu).cr8, 15 - class);
		} else {
			sregs = vcpu_sregs(&vcpu);
			sregs.cr8 = 15 - class;
			vcpu_set_sregs(&vcpu, &sregs);
			EXPECT_EQ(lapic_tpr(&vcpu), (15 - class) * 16);
		}
		vcpu_run_to_port(&vcpu, PORT_SYNC);
		EXPECT_EQ(vcpu_regs(&vcpu).rax, 15 - class);
		EXPECT_EQ(vcpu_regs(&vcpu).rbx,
			  (15 - class) * 16 + (class & 1 ? 3 : 0));
		vcpu_complete(&vcpu);
	}
	destroy(&vm, &vcpu);
}

/* What the guest reads at offset 0x80 of the page; -1 for a read by the client. */
static long read_page(struct vcpu *vcpu, uint64_t address)
{
	struct kvm_regs regs = {
		.rip = CODE_GPA, .rsp = STACK_GPA, .rflags = 2, .rdi = address,
	};

	vcpu_set_regs(vcpu, &regs);
	if (vcpu_run(vcpu))
		return -2;
	if (vcpu->run->exit_reason == KVM_EXIT_MMIO) {
		vcpu_complete(vcpu);
		return -1;
	}
	return vcpu_regs(vcpu).rbx;
}

/*
 * The page is that of the registers as long as these are there: what the modes
 * and addresses do to it does not depend on FlexPriority.
 */
TEST(modes)
{
	uint64_t base, moved = 0xfec10000;
	struct vcpu vcpu, other;
	struct vm vm;

	CREATE(&vm, &vcpu, MODE_LONG);
	vm_load(&vm, CODE_GPA, read_at);
	base = vcpu_msr(&vcpu, APIC_MSR);
	set_lapic_tpr(&vcpu, 0x47);
	EXPECT_EQ(read_page(&vcpu, APIC_BASE), 0x47);

	/* Elsewhere, and back. */
	vcpu_set_msr(&vcpu, APIC_MSR, (base & 0xfff) | moved);
	EXPECT_EQ(read_page(&vcpu, moved), 0x47);
	EXPECT_EQ(read_page(&vcpu, APIC_BASE), -1);
	vcpu_set_msr(&vcpu, APIC_MSR, base);
	EXPECT_EQ(read_page(&vcpu, APIC_BASE), 0x47);
	EXPECT_EQ(read_page(&vcpu, moved), -1);

	/* Disabled and in x2APIC mode: ones, by the quirk. */
	vcpu_set_msr(&vcpu, APIC_MSR, base & ~0x800UL);
	EXPECT_EQ(read_page(&vcpu, APIC_BASE), 0xffffffff);
	vcpu_set_msr(&vcpu, APIC_MSR, base);
	EXPECT_EQ(read_page(&vcpu, APIC_BASE), 0x47);
	use_x2apic(&vcpu);
	EXPECT_EQ(read_page(&vcpu, APIC_BASE), 0xffffffff);

	/* Another vCPU has its registers there meanwhile. */
	vcpu_create(&other, &vm, 1);
	vcpu_set_supported_cpuid(&other);
	xioctl(other.fd, KVM_SET_MP_STATE,
	       &(struct kvm_mp_state) { KVM_MP_STATE_RUNNABLE });
	vcpu_set_mode(&other, MODE_LONG);
	set_lapic_tpr(&other, 0x59);
	EXPECT_EQ(read_page(&other, APIC_BASE), 0x59);
	EXPECT_EQ(read_page(&vcpu, APIC_BASE), 0xffffffff);
	vcpu_set_msr(&vcpu, APIC_MSR, base);
	EXPECT_EQ(read_page(&vcpu, APIC_BASE), 0x47);
	EXPECT_EQ(read_page(&other, APIC_BASE), 0x59);
	vcpu_destroy(&other);

	/* And the storm does not exit again. */
	if (has_flexpriority()) {
		vm_load(&vm, CODE_GPA, storm_mmio);
		EXPECT_LE(storm_exits(&vcpu), FEW);
	}
	destroy(&vm, &vcpu);
}

/* The client has no slot in the place of the page, before it or after. */
TEST(the_place_is_taken)
{
	struct kvm_enable_cap split = {
		.cap = KVM_CAP_SPLIT_IRQCHIP,
		.args = { 24 },
	};
	void *mem = memory_alloc(SZ_2M, SZ_2M);
	struct vcpu vcpu;
	struct vm vm;

	if (!has_flexpriority())
		SKIP(return, "no FlexPriority");
	vm_create(&vm, SZ_2M);
	xioctl(vm.fd, KVM_ENABLE_CAP, &split);
	EXPECT_EQ(vm_set_slot(&vm, 1, 0, APIC_BASE, SZ_2M, mem), 0);
	EXPECT_EQ(try_ioctl(vm.fd, KVM_CREATE_VCPU, 0), -EEXIST);
	EXPECT_EQ(vm_set_slot(&vm, 1, 0, APIC_BASE, 0, mem), 0);
	vcpu_create(&vcpu, &vm, 0);
	EXPECT_EQ(vm_set_slot(&vm, 1, 0, APIC_BASE, SZ_2M, mem), -EEXIST);
	EXPECT_EQ(vm_set_slot(&vm, 1, 0, APIC_BASE + PAGE, PAGE, mem), 0);
	destroy(&vm, &vcpu);
	munmap(mem, SZ_2M);
}

struct range {
	unsigned long start, end;
};

static unsigned int mappings(struct range *ranges, unsigned int max)
{
	FILE *maps = fopen("/proc/self/maps", "r");
	unsigned int count = 0;
	char line[256];

	while (maps && count < max && fgets(line, sizeof(line), maps))
		if (sscanf(line, "%lx-%lx", &ranges[count].start, &ranges[count].end) == 2)
			count++;
	if (maps)
		fclose(maps);
	return count;
}

static bool is_in(unsigned long page, const struct range *ranges, unsigned int count)
{
	while (count--)
		if (ranges[count].start <= page && page < ranges[count].end)
			return true;
	return false;
}

/* As create(); returns the page of the client's that the first vCPU's creation mapped. */
static unsigned long create_and_find(struct vm *vm, struct vcpu *vcpu)
{
	struct range before[64], after[64];
	unsigned int i, count, old;
	struct kvm_enable_cap split = {
		.cap = KVM_CAP_SPLIT_IRQCHIP,
		.args = { 24 },
	};
	unsigned long page = ~0UL;

	vm_create(vm, SZ_2M);
	xioctl(vm->fd, KVM_ENABLE_CAP, &split);
	old = mappings(before, 64);
	vcpu->fd = xioctl(vm->fd, KVM_CREATE_VCPU, 0);
	count = mappings(after, 64);
	/*
	 * It may have become one with a mapping next to it. Where there is no
	 * unrestricted guest, another page was mapped before it, further up.
	 */
	for (i = 0; i < count; i++) {
		if (!is_in(after[i].end - PAGE, before, old) && after[i].end - PAGE < page)
			page = after[i].end - PAGE;
		if (!is_in(after[i].start, before, old) && after[i].start < page)
			page = after[i].start;
	}
	close(vcpu->fd);
	vcpu_create(vcpu, vm, 1);
	vcpu_set_supported_cpuid(vcpu);
	xioctl(vcpu->fd, KVM_SET_MP_STATE,
	       &(struct kvm_mp_state) { KVM_MP_STATE_RUNNABLE });
	vcpu_set_mode(vcpu, MODE_LONG);
	return page;
}

static volatile bool stop;

static void *take_away(void *page)
{
	unsigned long count = 0;

	while (!stop) {
		madvise(page, PAGE, MADV_DONTNEED);
		count++;
		sched_yield();
	}
	return (void *)count;
}

/* The host takes the page away, again and again, while the guest uses it. */
TEST(the_page_goes)
{
	struct vcpu vcpu;
	unsigned long page;
	pthread_t thread;
	struct vm vm;
	void *count;
	int i;

	if (!has_flexpriority() || !guests_can_page())
		SKIP(return, "no FlexPriority, or the guest would page");
	page = create_and_find(&vm, &vcpu);
	ASSERT_NE(page, ~0UL);
	vm_load(&vm, CODE_GPA, storm_mmio);
	run_storm(&vcpu, 1);
	stop = false;
	pthread_create(&thread, NULL, take_away, (void *)page);
	for (i = 0; i < 20; i++)
		run_storm(&vcpu, 500);
	stop = true;
	pthread_join(thread, &count);
	EXPECT_GT((unsigned long)count, 2);
	EXPECT_LE(storm_exits(&vcpu), FEW);

	/* For good: then accesses are emulated. */
	EXPECT_EQ(munmap((void *)page, PAGE), 0);
	EXPECT_GE(storm_exits(&vcpu), ACCESSES);
	destroy(&vm, &vcpu);
}

TEST_HARNESS_MAIN
