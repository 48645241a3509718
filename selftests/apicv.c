// SPDX-License-Identifier: GPL-2.0
/*
 * APICv: the processor has the local APIC. What the guest does with it makes no
 * exit, an interrupt reaches a vCPU that runs without one, ends exit that
 * somebody waits for, and all that is as without it for the guest and the
 * client; also where a vCPU has to do without it for a while.
 *
 * Without APICv these tests hold too, but for the exits.
 */
#include <sched.h>

#include "irq.h"
#include "kselftest_harness.h"

#define VECTOR		0x41
#define LOWER		0x38
#define COUNT		"0x100208"	/* of VECTOR, where irq_count() looks */
#define COUNT_LOWER	"0x1001c0"
#define FLAG		"0x100900"
#define SCRATCH		"0x100908"
#define FLAG_GPA	0x100900UL
#define SCRATCH_GPA	0x100908UL
#define X2APIC_HANDLERS	0x30000UL
#define STACKS_GPA	0x180000UL
#define TURNS		500
/* Exits for the end of the loop, and some for the host. */
#define FEW		20

#define ENABLE_MMIO							\
	"	movl $0xfee00000, %edi\n"				\
	"	movl $0x1ff, 0xf0(%rdi)\n"
#define WRMSR(index, value)						\
	"	movl $" index ", %ecx\n"				\
	"	movl $" value ", %eax\n"				\
	"	xorl %edx, %edx\n"					\
	"	wrmsr\n"
#define RDMSR(index)							\
	"	movl $" index ", %ecx\n"				\
	"	rdmsr\n"
#define OUT(port)	"	outb %al, $" STR(port) "\n"

/* Handlers of x2APIC mode. */
#define X2APIC_HANDLER(name, count)					\
	GUEST_CODE(name, 64,						\
		"	incq " count "\n"				\
		"	pushq %rax\n	pushq %rcx\n	pushq %rdx\n"	\
		WRMSR("0x80b", "0")					\
		"	popq %rdx\n	popq %rcx\n	popq %rax\n"	\
		"	iretq\n")
X2APIC_HANDLER(on_vector, COUNT);
X2APIC_HANDLER(on_lower, COUNT_LOWER);

/* Counts, and leaves the interrupt in service. */
GUEST_CODE(on_vector_without_end, 64,
	"	incq " COUNT "\n"
	"	iretq\n");

/* %r12 interrupts of its own, and task priorities. */
GUEST_CODE(storm_x2apic, 64,
	WRMSR("0x80f", "0x1ff")
	"	sti\n"
	"1:\n"
	WRMSR("0x83f", "0x41")
	RDMSR("0x830")
	WRMSR("0x808", "0x20")
	"	xorl %eax, %eax\n"
	"	movq %rax, %cr8\n"
	RDMSR("0x80a")
	"	decq %r12\n"
	"	jnz 1b\n"
	"	cli\n"
	OUT(PORT_DONE));
GUEST_CODE(storm_xapic, 64,
	ENABLE_MMIO
	"	sti\n"
	"1:	movl $0x44041, 0x300(%rdi)\n"
	"	movl 0x300(%rdi), %eax\n"
	"	movl $0x20, 0x80(%rdi)\n"
	"	movl $0, 0x80(%rdi)\n"
	"	movl 0x20(%rdi), %eax\n"
	"	decq %r12\n"
	"	jnz 1b\n"
	"	cli\n"
	OUT(PORT_DONE));

/* Runs with interrupts on until it is told to stop. */
GUEST_CODE(spin, 64,
	ENABLE_MMIO
	OUT(PORT_SYNC)
	"	sti\n"
	"1:	cmpq $0, " FLAG "\n"
	"	je 1b\n"
	"	cli\n"
	OUT(PORT_DONE));
/* The same with interrupts off until then, and on for an instruction. */
GUEST_CODE(spin_deaf, 64,
	ENABLE_MMIO
	OUT(PORT_SYNC)
	"1:	cmpq $0, " FLAG "\n"
	"	je 1b\n"
	"	sti\n"
	"	nop\n"
	"	cli\n"
	OUT(PORT_DONE));

/* Interrupts on between two stops, again and again. */
GUEST_CODE(listen, 64,
	ENABLE_MMIO
	"1:\n"
	OUT(PORT_SYNC)
	"	sti\n"
	"	nop\n"
	"	cli\n"
	"	jmp 1b\n");

/* An interrupt of its own between two stops, on another stack each time. */
GUEST_CODE(other_stacks, 64,
	ENABLE_MMIO
	"1:\n"
	OUT(PORT_SYNC)
	"	movl $0x44041, 0x300(%rdi)\n"
	"	sti\n"
	"	nop\n"
	"	cli\n"
	"	jmp 1b\n");

/*
 * Takes another ID and an interrupt, which stays in service; then goes to
 * x2APIC mode, sends itself one of lower priority, and ends the first.
 */
GUEST_CODE(change_id, 64,
	ENABLE_MMIO
	"	movl $0x01000000, 0x20(%rdi)\n"
	"	movl $0x44041, 0x300(%rdi)\n"
	"	movl 0x20(%rdi), %ebx\n"
	"	sti\n"
	"	nop\n"
	"	cli\n"
	OUT(PORT_SYNC)
	RDMSR("0x1b")
	"	orl $0xc00, %eax\n"
	"	wrmsr\n"
	RDMSR("0x812")
	"	movl %eax, %ebx\n"
	"	sti\n"
	WRMSR("0x83f", "0x38")
	"	nop\n"
	"	movq " COUNT_LOWER ", %rsi\n"
	WRMSR("0x80b", "0")
	"	nop\n"
	"	movq " COUNT_LOWER ", %rbp\n"
	"	cli\n"
	RDMSR("0x812")
	"	movl %eax, %r8d\n"
	OUT(PORT_SYNC)
	/* What is left of it in xAPIC mode is the ID that it started with. */
	"	jmp 1f\n"
	"1:	movl $0x1b, %ecx\n"
	"	rdmsr\n"
	"	andl $~0xc00, %eax\n"
	"	wrmsr\n"
	"	orl $0x800, %eax\n"
	"	wrmsr\n"
	"	movl 0x20(%rdi), %ebx\n"
	OUT(PORT_DONE));

/* Writes what does not stay as it is written, and reads it. */
GUEST_CODE(registers, 64,
	ENABLE_MMIO
	"	movl $-1, 0x370(%rdi)\n"	/* LVT error */
	"	movl 0x370(%rdi), %ebx\n"
	"	movl $0x12345678, 0xe0(%rdi)\n"	/* DFR */
	"	movl 0xe0(%rdi), %esi\n"
	"	movl $0x12345678, 0x310(%rdi)\n"	/* ICR2 */
	"	movl 0x310(%rdi), %ebp\n"
	"	movl $-1, 0x3e0(%rdi)\n"	/* divide configuration */
	"	movl 0x3e0(%rdi), %r8d\n"
	"	movl $0x51, 0x370(%rdi)\n"
	"	movl $0xff, 0xf0(%rdi)\n"	/* disabled by software: entries are masked */
	"	movl 0x370(%rdi), %r9d\n"
	"	movl $0x1ff, 0xf0(%rdi)\n"
	"	movl $0x44005, 0x300(%rdi)\n"	/* an illegal vector */
	"	movl $0, 0x280(%rdi)\n"
	"	movl 0x280(%rdi), %r10d\n"
	"	movl $0xb, 0x3e0(%rdi)\n"	/* the timer, one shot */
	"	movl $0x41, 0x320(%rdi)\n"
	"	movl $50000000, 0x380(%rdi)\n"
	"	movl 0x380(%rdi), %r13d\n"
	"	movl 0x390(%rdi), %r14d\n"
	"	sti\n"
	"1:	cmpq $0, " COUNT "\n"
	"	je 1b\n"
	"	cli\n"
	"	movl $0x40041, 0x320(%rdi)\n"	/* by deadline: there is no count */
	"	movl $1234, 0x380(%rdi)\n"
	"	movl 0x380(%rdi), %r15d\n"
	OUT(PORT_DONE));

/* MSRs that are not there, or do not take this value; counts the faults. */
#define FAULTS(access)							\
	"	leaq 9f(%rip), %r11\n"					\
	"	movq %r11, " REC_RESUME "\n"				\
	access								\
	"	incl %ebx\n"						\
	"9:\n"
GUEST_CODE(reserved, 64,
	"	xorl %ebx, %ebx\n"
	FAULTS(RDMSR("0x80e"))		/* DFR */
	FAULTS(RDMSR("0x831"))		/* ICR2 */
	FAULTS(RDMSR("0x80b"))		/* EOI */
	FAULTS(RDMSR("0x83f"))		/* self-IPI */
	FAULTS(RDMSR("0x800"))
	FAULTS(RDMSR("0x840"))
	FAULTS(WRMSR("0x80b", "1"))
	FAULTS(WRMSR("0x83f", "0x141"))
	FAULTS(WRMSR("0x808", "0x100"))
	FAULTS(WRMSR("0x802", "1"))	/* ID */
	/* These are there. */
	"	xorl %esi, %esi\n"
	"	leaq 9f(%rip), %r11\n"
	"	movq %r11, " REC_RESUME "\n"
	RDMSR("0x802")
	RDMSR("0x803")
	RDMSR("0x80d")
	RDMSR("0x80f")
	RDMSR("0x828")
	RDMSR("0x832")
	RDMSR("0x837")
	RDMSR("0x838")
	RDMSR("0x839")
	RDMSR("0x83e")
	"	incl %esi\n"
	"9:\n"
	OUT(PORT_DONE));

static bool has_apicv(bool x2apic)
{
	return device_is_kvm_rs() && module_parameter("enable_apicv") == 'Y' &&
	       (x2apic || module_parameter("flexpriority") == 'Y');
}

static long stat(const char *name)
{
	long value = module_stat(name);

	return value < 0 ? 0 : value;
}

static void load_handlers(struct vm *vm, bool x2apic)
{
	irq_install_handlers(vm);
	if (!x2apic)
		return;
	vm_load(vm, X2APIC_HANDLERS, on_vector);
	vm_load(vm, X2APIC_HANDLERS + 0x100, on_lower);
	irq_set_gate(vm, VECTOR, X2APIC_HANDLERS);
	irq_set_gate(vm, LOWER, X2APIC_HANDLERS + 0x100);
}

static void create(struct vm *vm, struct vcpu *vcpu, bool x2apic)
{
	vm_create(vm, SZ_2M);
	if (vm_split_irqchip(vm, 24))
		die("no split irqchip");
	vcpu_start(vcpu, vm, MODE_LONG);
	load_handlers(vm, x2apic);
	irq_load_idt(vcpu);
	if (x2apic)
		vcpu_set_msr(vcpu, 0x1b, vcpu_msr(vcpu, 0x1b) | 0xc00);
}
#define CREATE(vm, vcpu, x2apic)					\
	do {								\
		if (!guests_can_page())					\
			SKIP(return, "the guest would page");		\
		create(vm, vcpu, x2apic);				\
	} while (0)

static void destroy(struct vm *vm, struct vcpu *vcpu)
{
	vcpu_destroy(vcpu);
	vm_destroy(vm);
}

static void run_storm(struct vcpu *vcpu, unsigned int turns)
{
	struct kvm_regs regs = {
		.rip = CODE_GPA, .rsp = STACK_GPA, .rflags = 2, .r12 = turns,
	};

	vcpu_set_regs(vcpu, &regs);
	vcpu_run_to_port(vcpu, PORT_DONE);
}

/* A storm without exits, after one turn that brings in all pages. */
static void expect_quiet_storm(struct __test_metadata *_metadata, struct vcpu *vcpu,
			       bool x2apic)
{
	uint64_t count;
	long exits;

	run_storm(vcpu, 1);
	count = irq_count(vcpu->vm, VECTOR);
	exits = stat("exits");
	run_storm(vcpu, TURNS);
	exits = stat("exits") - exits;
	EXPECT_EQ(irq_count(vcpu->vm, VECTOR) - count, TURNS);
	if (has_apicv(x2apic))
		EXPECT_LE(exits, FEW);
}

TEST(no_exits_in_x2apic_mode)
{
	struct vcpu vcpu;
	struct vm vm;

	CREATE(&vm, &vcpu, true);
	vm_load(&vm, CODE_GPA, storm_x2apic);
	expect_quiet_storm(_metadata, &vcpu, true);
	destroy(&vm, &vcpu);
}

TEST(no_exits_in_xapic_mode)
{
	struct vcpu vcpu;
	struct vm vm;

	CREATE(&vm, &vcpu, false);
	vm_load(&vm, CODE_GPA, storm_xapic);
	expect_quiet_storm(_metadata, &vcpu, false);
	destroy(&vm, &vcpu);
}

static void move_to(unsigned int cpu)
{
	cpu_set_t set;

	CPU_ZERO(&set);
	CPU_SET(cpu, &set);
	if (sched_setaffinity(0, sizeof(set), &set))
		die("no CPU %u", cpu);
}

static bool has_two_cpus(void)
{
	return sysconf(_SC_NPROCESSORS_ONLN) > 1;
}

/* Waits for a counter without giving up the CPU for long. */
static bool came(struct vm *vm, unsigned int vector, uint64_t count)
{
	unsigned int i;

	for (i = 0; irq_count(vm, vector) != count && i < 1000000; i++)
		;
	return irq_wait_count(vm, vector, count);
}

/*
 * Interrupts to a vCPU that runs on another CPU. The host interrupts it now and
 * then, so that not each round is without an exit.
 */
TEST(to_a_running_vcpu)
{
	unsigned int round, i, quiet = 0;
	uint64_t sent = 0;
	struct runner runner = { .cpu = 2 };
	struct vcpu vcpu;
	struct vm vm;

	if (!has_two_cpus())
		SKIP(return, "needs two CPUs");
	CREATE(&vm, &vcpu, false);
	vm_load(&vm, CODE_GPA, spin);
	vcpu_run_to_port(&vcpu, PORT_SYNC);
	move_to(0);
	runner.vcpu = &vcpu;
	runner_start(&runner);
	EXPECT_EQ(irq_send_msi(&vm, 0, VECTOR), 1);
	ASSERT_TRUE(came(&vm, VECTOR, ++sent));
	for (round = 0; round < 50; round++) {
		long exits = stat("exits");

		for (i = 0; i < 4; i++) {
			EXPECT_EQ(irq_send_msi(&vm, 0, VECTOR), 1);
			ASSERT_TRUE(came(&vm, VECTOR, ++sent));
		}
		quiet += stat("exits") == exits;
	}
	if (has_apicv(false))
		EXPECT_GT(quiet, 5);
	/* Several at once: each is taken once. */
	for (i = 0; i < 16; i++) {
		EXPECT_EQ(irq_send_msi(&vm, 0, 0x60 + i), 1);
	}
	for (i = 0; i < 16; i++) {
		EXPECT_TRUE(came(&vm, 0x60 + i, 1));
	}
	*vm_u64(&vm, FLAG_GPA) = 1;
	runner_join(&runner);
	EXPECT_EQ(runner.error, 0);
	EXPECT_EQ(irq_count(&vm, VECTOR), sent);
	destroy(&vm, &vcpu);
}

/* One that has interrupts off takes none, though the host interrupts it. */
TEST(to_a_deaf_vcpu)
{
	struct runner runner = { .cpu = 2 };
	unsigned int i;
	struct vcpu vcpu;
	struct vm vm;
	long exits;

	if (!has_two_cpus())
		SKIP(return, "needs two CPUs");
	CREATE(&vm, &vcpu, false);
	vm_load(&vm, CODE_GPA, spin_deaf);
	vcpu_run_to_port(&vcpu, PORT_SYNC);
	move_to(0);
	runner.vcpu = &vcpu;
	runner_start(&runner);
	usleep(1000);
	EXPECT_EQ(irq_send_msi(&vm, 0, VECTOR), 1);
	exits = stat("exits_external_interrupt");
	for (i = 0; i < 200 && stat("exits_external_interrupt") < exits + 5; i++)
		usleep(1000);
	EXPECT_EQ(irq_count(&vm, VECTOR), 0);
	*vm_u64(&vm, FLAG_GPA) = 1;
	runner_join(&runner);
	EXPECT_EQ(irq_count(&vm, VECTOR), 1);
	destroy(&vm, &vcpu);
}

/* The ends of level-triggered interrupts of the client's I/O APIC, and no others. */
TEST(ends_that_matter)
{
	struct kvm_irq_routing_entry route = irq_msi_route(3, 0, VECTOR | 3 << 14);
	unsigned int i;
	struct vcpu vcpu;
	struct vm vm;
	long ends;

	CREATE(&vm, &vcpu, false);
	vm_load(&vm, CODE_GPA, listen);
	vcpu_run_to_port(&vcpu, PORT_SYNC);
	ends = stat("exits_eoi_induced");
	for (i = 0; i < 10; i++) {
		EXPECT_EQ(irq_send_msi(&vm, 0, VECTOR), 1);
		vcpu_run_to_port(&vcpu, PORT_SYNC);
	}
	EXPECT_EQ(stat("exits_eoi_induced"), ends);
	EXPECT_EQ(irq_set_routes(&vm, &route, 1), 0);
	for (i = 0; i < 10; i++) {
		EXPECT_EQ(irq_send_msi(&vm, 0, VECTOR | 3 << 14), 1);
		vcpu_run_to(&vcpu, KVM_EXIT_IOAPIC_EOI);
		EXPECT_EQ(vcpu.run->eoi.vector, VECTOR);
		EXPECT_EQ(irq_send_msi(&vm, 0, LOWER), 1);
		vcpu_run_to_port(&vcpu, PORT_SYNC);
	}
	if (has_apicv(false))
		EXPECT_EQ(stat("exits_eoi_induced"), ends + 10);
	/* The route goes. */
	EXPECT_EQ(irq_set_routes(&vm, NULL, 0), 0);
	for (i = 0; i < 10; i++) {
		EXPECT_EQ(irq_send_msi(&vm, 0, VECTOR), 1);
		vcpu_run_to_port(&vcpu, PORT_SYNC);
	}
	if (has_apicv(false))
		EXPECT_EQ(stat("exits_eoi_induced"), ends + 10);
	EXPECT_EQ(irq_count(&vm, VECTOR), 30);
	destroy(&vm, &vcpu);
}

/* The stack that the delivery of an interrupt writes to is not mapped. */
TEST(delivery_is_cut_short)
{
	struct kvm_regs regs;
	struct kvm_lapic_state lapic;
	unsigned int i;
	struct vcpu vcpu;
	struct vm vm;

	CREATE(&vm, &vcpu, false);
	vm_load(&vm, CODE_GPA, other_stacks);
	vcpu_run_to_port(&vcpu, PORT_SYNC);
	for (i = 0; i < 50; i++) {
		char *page = vm.mem + STACKS_GPA + i * PAGE;

		vcpu_complete(&vcpu);
		ASSERT_EQ(madvise(page, PAGE, MADV_DONTNEED), 0);
		regs = vcpu_regs(&vcpu);
		regs.rsp = STACKS_GPA + (i + 1) * PAGE;
		vcpu_set_regs(&vcpu, &regs);
		vcpu_run_to_port(&vcpu, PORT_SYNC);
		EXPECT_EQ(irq_count(&vm, VECTOR), i + 1);
	}
	xioctl(vcpu.fd, KVM_GET_LAPIC, &lapic);
	for (i = 0; i < 8; i++) {
		EXPECT_EQ(*(uint32_t *)(lapic.regs + 0x100 + i * 16), 0);
		EXPECT_EQ(*(uint32_t *)(lapic.regs + 0x200 + i * 16), 0);
	}
	destroy(&vm, &vcpu);
}

/*
 * A guest that gave its APIC another ID does without APICv. In x2APIC mode it
 * has it again, with the interrupt that is in service.
 */
TEST(another_id)
{
	uint32_t in_service = 1 << (VECTOR & 31);
	struct kvm_regs regs;
	struct vcpu vcpu;
	struct vm vm;

	CREATE(&vm, &vcpu, false);
	load_handlers(&vm, true);
	vm_load(&vm, X2APIC_HANDLERS, on_vector_without_end);
	vm_load(&vm, CODE_GPA, change_id);
	vcpu_run_to_port(&vcpu, PORT_SYNC);
	regs = vcpu_regs(&vcpu);
	EXPECT_EQ(regs.rbx, 0x01000000);
	EXPECT_EQ(irq_count(&vm, VECTOR), 1);
	vcpu_run_to_port(&vcpu, PORT_SYNC);
	regs = vcpu_regs(&vcpu);
	EXPECT_EQ(regs.rbx, in_service);
	/* The other one waited for the end. */
	EXPECT_EQ(regs.rsi, 0);
	EXPECT_EQ(regs.rbp, 1);
	EXPECT_EQ(regs.r8, 0);
	vcpu_run_to_port(&vcpu, PORT_DONE);
	EXPECT_EQ(vcpu_regs(&vcpu).rbx, 0);

	/* It has APICv again. */
	vcpu_complete(&vcpu);
	load_handlers(&vm, false);
	vm_load(&vm, CODE_GPA, storm_xapic);
	expect_quiet_storm(_metadata, &vcpu, false);
	destroy(&vm, &vcpu);
}

/* While the client that debugs the guest wants none, interrupts wait. */
TEST(blocked_by_the_debugger)
{
	struct kvm_guest_debug debug = {
		.control = KVM_GUESTDBG_ENABLE | KVM_GUESTDBG_BLOCKIRQ,
	};
	struct vcpu vcpu;
	struct vm vm;

	CREATE(&vm, &vcpu, false);
	vm_load(&vm, CODE_GPA, listen);
	vcpu_run_to_port(&vcpu, PORT_SYNC);
	xioctl(vcpu.fd, KVM_SET_GUEST_DEBUG, &debug);
	EXPECT_EQ(irq_send_msi(&vm, 0, VECTOR), 1);
	vcpu_run_to_port(&vcpu, PORT_SYNC);
	EXPECT_EQ(irq_count(&vm, VECTOR), 0);
	debug.control = 0;
	xioctl(vcpu.fd, KVM_SET_GUEST_DEBUG, &debug);
	vcpu_run_to_port(&vcpu, PORT_SYNC);
	EXPECT_EQ(irq_count(&vm, VECTOR), 1);
	destroy(&vm, &vcpu);
}

static uint32_t *lapic_word(struct kvm_lapic_state *lapic, unsigned int offset,
			    unsigned int vector)
{
	return (uint32_t *)(lapic->regs + offset + vector / 32 * 16);
}

/* What is on its way is saved, and what is restored counts. */
TEST(saved_and_restored)
{
	struct kvm_lapic_state lapic;
	struct vcpu vcpu;
	struct vm vm;

	CREATE(&vm, &vcpu, false);
	vm_load(&vm, CODE_GPA, listen);
	vcpu_run_to_port(&vcpu, PORT_SYNC);
	EXPECT_EQ(irq_send_msi(&vm, 0, 0x71), 1);
	xioctl(vcpu.fd, KVM_GET_LAPIC, &lapic);
	EXPECT_EQ(*lapic_word(&lapic, 0x200, 0x71), 1 << (0x71 & 31));
	/* Looking does not change it. */
	vcpu_run_to_port(&vcpu, PORT_SYNC);
	EXPECT_EQ(irq_count(&vm, 0x71), 1);

	/* Others in its place: 0x31 in service, 0x72 above and 0x32 not above it. */
	EXPECT_EQ(irq_send_msi(&vm, 0, 0x71), 1);
	*lapic_word(&lapic, 0x200, 0x71) = 1 << (0x72 & 31);
	*lapic_word(&lapic, 0x100, 0x31) = 1 << (0x31 & 31);
	*lapic_word(&lapic, 0x200, 0x32) = 1 << (0x32 & 31);
	xioctl(vcpu.fd, KVM_SET_LAPIC, &lapic);
	vcpu_run_to_port(&vcpu, PORT_SYNC);
	EXPECT_EQ(irq_count(&vm, 0x71), 1);
	EXPECT_EQ(irq_count(&vm, 0x72), 1);
	EXPECT_EQ(irq_count(&vm, 0x32), 0);
	xioctl(vcpu.fd, KVM_GET_LAPIC, &lapic);
	EXPECT_EQ(*lapic_word(&lapic, 0x100, 0x31), 1 << (0x31 & 31));
	EXPECT_EQ(*lapic_word(&lapic, 0x200, 0x32), 1 << (0x32 & 31));
	EXPECT_EQ(*lapic_word(&lapic, 0x100, 0x72), 0);
	EXPECT_EQ(*(uint32_t *)(lapic.regs + 0xa0), 0x30);
	/* Its end lets the other one through. */
	*lapic_word(&lapic, 0x100, 0x31) = 0;
	xioctl(vcpu.fd, KVM_SET_LAPIC, &lapic);
	vcpu_run_to_port(&vcpu, PORT_SYNC);
	EXPECT_EQ(irq_count(&vm, 0x32), 1);
	/* The task priority of the client holds others back. */
	xioctl(vcpu.fd, KVM_GET_LAPIC, &lapic);
	*(uint32_t *)(lapic.regs + 0x80) = 0x80;
	xioctl(vcpu.fd, KVM_SET_LAPIC, &lapic);
	EXPECT_EQ(irq_send_msi(&vm, 0, 0x71), 1);
	EXPECT_EQ(irq_send_msi(&vm, 0, 0x91), 1);
	vcpu_run_to_port(&vcpu, PORT_SYNC);
	EXPECT_EQ(irq_count(&vm, 0x91), 1);
	EXPECT_EQ(irq_count(&vm, 0x71), 1);
	destroy(&vm, &vcpu);
}

TEST(registers_in_xapic_mode)
{
	struct kvm_lapic_state lapic;
	struct kvm_regs regs;
	struct vcpu vcpu;
	struct vm vm;
	long writes;

	CREATE(&vm, &vcpu, false);
	vm_load(&vm, CODE_GPA, registers);
	writes = stat("exits_apic_write");
	vcpu_run_to_port(&vcpu, PORT_DONE);
	if (has_apicv(false))
		EXPECT_GE(stat("exits_apic_write"), writes + 10);
	regs = vcpu_regs(&vcpu);
	EXPECT_EQ(regs.rbx, 0x100ff);
	EXPECT_EQ(regs.rsi, 0x1fffffff);
	EXPECT_EQ(regs.rbp, 0x12000000);
	EXPECT_EQ(regs.r8, 0xb);
	EXPECT_EQ(regs.r9, 0x10051);
	EXPECT_EQ(regs.r10, 1 << 5);
	EXPECT_EQ(regs.r13, 50000000);
	EXPECT_GT(regs.r14, 0);
	EXPECT_LE(regs.r14, 50000000);
	EXPECT_EQ(irq_count(&vm, VECTOR), 1);
	if (device_is_kvm_rs())
		EXPECT_EQ(regs.r15, 0);
	xioctl(vcpu.fd, KVM_GET_LAPIC, &lapic);
	EXPECT_EQ(*(uint32_t *)(lapic.regs + 0xf0), 0x1ff);
	EXPECT_EQ(*(uint32_t *)(lapic.regs + 0x370), 0x10051);
	destroy(&vm, &vcpu);
}

TEST(registers_in_x2apic_mode)
{
	struct kvm_regs regs;
	struct vcpu vcpu;
	struct vm vm;

	CREATE(&vm, &vcpu, true);
	vm_load(&vm, CODE_GPA, reserved);
	vcpu_run_to_port(&vcpu, PORT_DONE);
	regs = vcpu_regs(&vcpu);
	EXPECT_EQ(regs.rbx, 0);
	EXPECT_EQ(regs.rsi, 1);
	EXPECT_EQ(vm_record(&vm)->count, 10);
	destroy(&vm, &vcpu);
}

TEST_HARNESS_MAIN
