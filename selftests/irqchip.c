// SPDX-License-Identifier: GPL-2.0
/*
 * The interrupt controllers in the kernel, KVM_CREATE_IRQCHIP: the PICs in virtual
 * wire mode, edges and levels at the I/O APIC, what its registers say to a guest,
 * and their state, saved and restored while interrupts are on their way.
 */
#include "kselftest_harness.h"
#include "irq.h"

#define LEVEL_VECTOR	0x61
#define EDGE_VECTOR	0x72
#define ROUNDS		100

/* Initialises the PICs, with vectors from 0x20 on; then halts for ever. */
GUEST_CODE(with_pic, 64,
	"	movb $0x11, %al; outb %al, $0x20; outb %al, $0xa0\n"
	"	movb $0x20, %al; outb %al, $0x21\n"
	"	movb $0x28, %al; outb %al, $0xa1\n"
	"	movb $0x04, %al; outb %al, $0x21\n"
	"	movb $0x02, %al; outb %al, $0xa1\n"
	"	movb $0x01, %al; outb %al, $0x21; outb %al, $0xa1\n"
	"	xorl %eax, %eax; outb %al, $0x21; outb %al, $0xa1\n"
	/* Pins 5 and 10 are level-triggered. */
	"	movw $0x4d0, %dx; movb $0x20, %al; outb %al, %dx\n"
	"	incw %dx; movb $0x04, %al; outb %al, %dx\n"
	"	outb %al, $" STR(PORT_SYNC) "\n"
	"1:	sti\n"
	"	hlt\n"
	"	jmp 1b\n");

/* Gives pin 8 another vector, ends the interrupt that is in service, tells, and takes others. */
GUEST_CODE(end_and_halt, 64,
	"	movl $0xfec00000, %edi\n"
	"	movl $0x20, (%rdi)\n"
	"	movl $" STR(LEVEL_VECTOR) ", 0x10(%rdi)\n"
	"	movl $0xfee000b0, %edi\n"
	"	movl $0, (%rdi)\n"
	"	outb %al, $" STR(PORT_DONE) "\n"
	"1:	sti\n"
	"	hlt\n"
	"	jmp 1b\n");

static void start(struct vm *vm, struct vcpu *vcpu)
{
	vm_create(vm, SZ_2M);
	if (vm_create_irqchip(vm))
		die("no irqchip");
	vcpu_start(vcpu, vm, MODE_LONG);
	irq_install_handlers(vm);
	irq_load_idt(vcpu);
}

/* The line to lower when its handler has told so often. */
struct line {
	unsigned int gsi;
	uint64_t vector;
	uint64_t until;
};

static bool lower(struct runner *runner)
{
	struct line *line = runner->data;
	struct vm *vm = runner->vcpu->vm;

	if (irq_count(vm, line->vector) == line->until)
		irq_line(vm, line->gsi, 0);
	return true;
}

static void raise_and_lower(struct vm *vm, unsigned int gsi)
{
	irq_line(vm, gsi, 1);
	irq_line(vm, gsi, 0);
}

TEST(pic_in_virtual_wire)
{
	struct runner runner = { 0 };
	struct vcpu vcpu;
	struct vm vm;
	uint64_t i;

	start(&vm, &vcpu);
	irq_install_pic_handlers(&vm);
	vm_load(&vm, CODE_GPA, with_pic);
	vcpu_run_to_port(&vcpu, PORT_SYNC);
	runner.vcpu = &vcpu;
	runner_start(&runner);
	for (i = 1; i <= ROUNDS; i++) {
		/* One at each PIC, which wakes the vCPU. */
		EXPECT_EQ(irq_line(&vm, 3, 1), 1);
		EXPECT_TRUE(irq_wait_count(&vm, 0x23, i));
		irq_line(&vm, 3, 0);
		EXPECT_EQ(irq_line(&vm, 12, 1), 1);
		EXPECT_TRUE(irq_wait_count(&vm, 0x2c, i));
		irq_line(&vm, 12, 0);
	}
	/* Three at once, of which none is lost. */
	runner_stop(&runner);
	raise_and_lower(&vm, 1);
	raise_and_lower(&vm, 14);
	raise_and_lower(&vm, 15);
	/* The I/O APIC, whose pins are masked, does not count. */
	EXPECT_EQ(irq_line(&vm, 1, 1), 0);
	irq_line(&vm, 1, 0);
	runner_start(&runner);
	EXPECT_TRUE(irq_wait_count(&vm, 0x21, 1));
	EXPECT_TRUE(irq_wait_count(&vm, 0x2e, 1));
	EXPECT_TRUE(irq_wait_count(&vm, 0x2f, 1));
	runner_stop(&runner);
	EXPECT_EQ(irq_count(&vm, 0x23), ROUNDS);
	EXPECT_EQ(irq_count(&vm, 0x2c), ROUNDS);
	EXPECT_EQ(irq_count(&vm, 0x27), 0);
	vcpu_destroy(&vcpu);
	vm_destroy(&vm);
}

/* As long as the line is up, each end of the interrupt leads to the next one. */
TEST(pic_level)
{
	struct line line = { .gsi = 10, .vector = 0x2a, .until = 5 };
	struct vcpu vcpu;
	struct vm vm;
	int i;

	start(&vm, &vcpu);
	irq_install_pic_handlers(&vm);
	vm_load(&vm, CODE_GPA, with_pic);
	vcpu_run_to_port(&vcpu, PORT_SYNC);
	/* Vector 0x2a: counts, tells, ends the interrupt at both PICs. */
	memcpy(vm.mem + IRQ_STUBS_GPA + 0x2a * 32 + 8,
	       "\x50\xe6\xd1\xb0\x20\xe6\xa0\xe6\x20\x58\x48\xcf", 12);
	irq_line(&vm, line.gsi, 1);
	for (i = 0; i < line.until; i++) {
		vcpu_run_to_port(&vcpu, PORT_SYNC);
		EXPECT_EQ(irq_count(&vm, 0x2a), i + 1);
	}
	irq_line(&vm, line.gsi, 0);
	vcpu.run->immediate_exit = 0;
	struct runner runner = { .vcpu = &vcpu };

	runner_start(&runner);
	usleep(20000);
	runner_stop(&runner);
	EXPECT_EQ(runner.error, -EINTR);
	EXPECT_EQ(irq_count(&vm, 0x2a), line.until);
	EXPECT_EQ(irq_count(&vm, 0x2f), 0);
	vcpu_destroy(&vcpu);
	vm_destroy(&vm);
}

TEST(ioapic_edges_and_levels)
{
	struct line line = { .gsi = 21, .vector = LEVEL_VECTOR, .until = 3 };
	struct runner runner = { .on_exit = lower, .data = &line };
	struct vcpu vcpu;
	struct vm vm;

	start(&vm, &vcpu);
	runner.vcpu = &vcpu;
	irq_install_telling_handler(&vm, LEVEL_VECTOR);
	vm_load(&vm, CODE_GPA, irq_guest_halt);
	vcpu_run_to_port(&vcpu, PORT_SYNC);
	runner_start(&runner);

	/* Lines that the PICs do not have: a guest that has not initialised them gets those. */
	irq_set_entry(&vm, 21, LEVEL_VECTOR | ENTRY_LEVEL);
	irq_set_entry(&vm, 17, EDGE_VECTOR);
	EXPECT_EQ(irq_line(&vm, 18, 1), -1);
	EXPECT_EQ(irq_line(&vm, 18, 0), 1);

	EXPECT_EQ(irq_line(&vm, 17, 1), 1);
	EXPECT_TRUE(irq_wait_count(&vm, EDGE_VECTOR, 1));
	/* No edge without a level in between. */
	EXPECT_EQ(irq_line(&vm, 17, 1), 0);
	EXPECT_EQ(irq_line(&vm, 17, 0), 1);
	EXPECT_EQ(irq_line(&vm, 17, 1), 1);
	EXPECT_TRUE(irq_wait_count(&vm, EDGE_VECTOR, 2));
	EXPECT_EQ(irq_line(&vm, 17, 0), 1);

	/* Delivered again at each end until the third handler's exit lowers it. */
	irq_line(&vm, 21, 1);
	EXPECT_TRUE(irq_wait_count(&vm, LEVEL_VECTOR, 3));
	usleep(20000);
	EXPECT_EQ(irq_count(&vm, LEVEL_VECTOR), 3);
	EXPECT_EQ(irq_get_entry(&vm, 21), LEVEL_VECTOR | ENTRY_LEVEL);

	runner_stop(&runner);
	/* Remote IRR holds the next one back until the end. */
	irq_line(&vm, 21, 1);
	EXPECT_EQ(irq_get_entry(&vm, 21), LEVEL_VECTOR | ENTRY_LEVEL | ENTRY_REMOTE_IRR);
	line.until = 4;
	runner_start(&runner);
	EXPECT_TRUE(irq_wait_count(&vm, LEVEL_VECTOR, 4));
	usleep(20000);
	runner_stop(&runner);
	EXPECT_EQ(irq_count(&vm, LEVEL_VECTOR), 4);
	EXPECT_EQ(irq_count(&vm, EDGE_VECTOR), 2);
	vcpu_destroy(&vcpu);
	vm_destroy(&vm);
}

/* What the registers say: each value read goes to the client by 4 bytes on PORT_DONE. */
GUEST_CODE(registers, 64,
	"	movl $0xfec00000, %edi\n"
	"	xorl %ecx, %ecx\n"
	"1:	movl %ecx, (%rdi)\n"
	"	movl 0x10(%rdi), %eax\n"
	"	outl %eax, $" STR(PORT_DONE) "\n"
	"	incl %ecx\n"
	"	cmpl $0x48, %ecx\n"
	"	jb 1b\n"
	/* All that can be written, and with what. */
	"	xorl %ecx, %ecx\n"
	"2:	movl %ecx, (%rdi)\n"
	"	movl $0x5a5be7a3, 0x10(%rdi)\n"
	"	movl 0x10(%rdi), %eax\n"
	"	outl %eax, $" STR(PORT_DONE) "\n"
	"	movl $0xffffffff, 0x10(%rdi)\n"
	"	movl 0x10(%rdi), %eax\n"
	"	outl %eax, $" STR(PORT_DONE) "\n"
	"	incl %ecx\n"
	"	cmpl $0x48, %ecx\n"
	"	jb 2b\n"
	/* Other sizes and places. */
	"	movl $1, (%rdi)\n"
	"	xorl %eax, %eax\n"
	"	movb 0x10(%rdi), %al\n"
	"	outl %eax, $" STR(PORT_DONE) "\n"
	"	movw 0x10(%rdi), %ax\n"
	"	outl %eax, $" STR(PORT_DONE) "\n"
	"	movl 0x12(%rdi), %eax\n"
	"	outl %eax, $" STR(PORT_DONE) "\n"
	"	movq 0x10(%rdi), %rax\n"
	"	shrq $32, %rax\n"
	"	outl %eax, $" STR(PORT_DONE) "\n"
	"	movl 0x40(%rdi), %eax\n"
	"	outl %eax, $" STR(PORT_DONE) "\n"
	"	movl $0x12345678, (%rdi)\n"
	"	movl (%rdi), %eax\n"
	"	outl %eax, $" STR(PORT_DONE) "\n"
	"	outb %al, $" STR(PORT_SYNC) "\n");

static uint32_t next_value(struct vcpu *vcpu)
{
	if (vcpu_run(vcpu) || vcpu->run->exit_reason != KVM_EXIT_IO ||
	    vcpu->run->io.port != PORT_DONE)
		die("the guest did something else");
	return *(uint32_t *)vcpu_io_data(vcpu);
}

TEST(ioapic_registers)
{
	static const uint32_t patterns[] = { 0x5a5be7a3, ~0U };
	struct vcpu vcpu;
	struct vm vm;
	uint32_t i, k;

	start(&vm, &vcpu);
	vm_load(&vm, CODE_GPA, registers);
	for (i = 0; i < 0x48; i++) {
		uint32_t expected = i == 1 ? 0x170011 : i == 0 || i == 2 ? 0 :
			i < 0x10 || i >= 0x40 ? ~0U : i & 1 ? 0 : ENTRY_MASKED;

		EXPECT_EQ(next_value(&vcpu), expected)
			TH_LOG("register %#x", i);
	}
	for (i = 0; i < 0x48; i++) {
		for (k = 0; k < 2; k++) {
			uint32_t pattern = patterns[k], expected = pattern;

			if (i == 1)
				expected = 0x170011;
			else if (i == 0)
				expected = pattern & 0xf000000;
			else if (i == 2)
				/* What the ID was set to last. */
				expected = 0xf000000;
			else if (i < 0x10 || i >= 0x40)
				expected = ~0U;
			else if (!(i & 1))
				expected &= ~(1U << 12 | (uint32_t)ENTRY_REMOTE_IRR);
			EXPECT_EQ(next_value(&vcpu), expected)
				TH_LOG("register %#x, write %u", i, k);
		}
	}
	EXPECT_EQ(next_value(&vcpu), 0x11);
	EXPECT_EQ(next_value(&vcpu), 0x11);
	EXPECT_EQ(next_value(&vcpu), 0);
	EXPECT_EQ(next_value(&vcpu), 0);
	EXPECT_EQ(next_value(&vcpu), 0);
	EXPECT_EQ(next_value(&vcpu), 0x78);
	vcpu_run_to_port(&vcpu, PORT_SYNC);
	vcpu_destroy(&vcpu);
	vm_destroy(&vm);
}

/*
 * Interrupts come in, the vCPU is stopped somewhere, and the state of all
 * controllers goes out, is overwritten, and back in again: none is lost, and none
 * comes twice.
 */
TEST(restored_under_traffic)
{
	static const unsigned int gsis[] = { 17, 18, 19, 20 };
	uint64_t sent[ARRAY_SIZE(gsis)] = { 0 };
	struct kvm_irqchip saved[3], reset[3];
	struct runner runner = { 0 };
	struct kvm_lapic_state lapic;
	unsigned int i, k, chip;
	struct vcpu vcpu;
	struct vm vm;

	start(&vm, &vcpu);
	runner.vcpu = &vcpu;
	for (chip = 0; chip < 3; chip++)
		irq_get_chip(&vm, chip, &reset[chip]);
	for (k = 0; k < ARRAY_SIZE(gsis); k++)
		irq_set_entry(&vm, gsis[k], 0x40 + 0x10 * k);
	vm_load(&vm, CODE_GPA, irq_guest_halt);
	vcpu_run_to_port(&vcpu, PORT_SYNC);
	for (i = 0; i < ROUNDS; i++) {
		runner_start(&runner);
		for (k = 0; k < ARRAY_SIZE(gsis); k++) {
			/* The one before has been handled, or is coalesced. */
			EXPECT_TRUE(irq_wait_count(&vm, 0x40 + 0x10 * k, sent[k]));
			EXPECT_EQ(irq_line(&vm, gsis[k], 1), 1);
			irq_line(&vm, gsis[k], 0);
			sent[k]++;
		}
		runner_stop(&runner);
		for (chip = 0; chip < 3; chip++)
			irq_get_chip(&vm, chip, &saved[chip]);
		xioctl(vcpu.fd, KVM_GET_LAPIC, &lapic);
		for (chip = 0; chip < 3; chip++)
			irq_set_chip(&vm, &reset[chip]);
		EXPECT_EQ(irq_line(&vm, 17, 1), -1);
		irq_line(&vm, 17, 0);
		for (chip = 0; chip < 3; chip++)
			irq_set_chip(&vm, &saved[chip]);
		xioctl(vcpu.fd, KVM_SET_LAPIC, &lapic);
		for (chip = 0; chip < 3; chip++) {
			struct kvm_irqchip now;

			irq_get_chip(&vm, chip, &now);
			EXPECT_EQ(memcmp(&now, &saved[chip], sizeof(now)), 0);
		}
	}
	runner_start(&runner);
	for (k = 0; k < ARRAY_SIZE(gsis); k++) {
		EXPECT_TRUE(irq_wait_count(&vm, 0x40 + 0x10 * k, ROUNDS));
	}
	usleep(20000);
	runner_stop(&runner);
	for (k = 0; k < ARRAY_SIZE(gsis); k++) {
		EXPECT_EQ(irq_count(&vm, 0x40 + 0x10 * k), ROUNDS);
	}
	vcpu_destroy(&vcpu);
	vm_destroy(&vm);
}

/* Counts at DATA_GPA + 0x20000 while it can. */
GUEST_CODE(count_for_ever, 64,
	"	movl $0xfee000f0, %edi\n"
	"	movl $0x1ff, (%rdi)\n"
	"	outb %al, $" STR(PORT_SYNC) "\n"
	"	sti\n"
	"1:	incq (0x120000)\n"
	"	jmp 1b\n");

/*
 * A line that never goes down interrupts the guest again at each end. After very many
 * in a row it gets a moment of its own, and then the next ones.
 */
TEST(stuck_line_leaves_time)
{
	struct runner runner = { 0 };
	struct vcpu vcpu;
	struct vm vm;
	int i;

	start(&vm, &vcpu);
	runner.vcpu = &vcpu;
	vm_load(&vm, CODE_GPA, count_for_ever);
	vcpu_run_to_port(&vcpu, PORT_SYNC);
	irq_set_entry(&vm, 21, LEVEL_VECTOR | ENTRY_LEVEL);
	irq_line(&vm, 21, 1);
	runner_start(&runner);
	for (i = 0; irq_count(&vm, LEVEL_VECTOR) < 10500 && i < 20000; i++)
		usleep(1000);
	runner_stop(&runner);
	EXPECT_EQ(runner.error, -EINTR);
	EXPECT_GE(irq_count(&vm, LEVEL_VECTOR), 10500);
	EXPECT_GE(*vm_u64(&vm, 0x120000), 10000);
	vcpu_destroy(&vcpu);
	vm_destroy(&vm);
}

/*
 * The end of the real-time clock's interrupt is waited for where the client asks
 * whether it was delivered, also if the entry has another vector by then.
 */
TEST(rtc_with_another_vector)
{
	struct kvm_irq_routing_entry route = irq_pin_route(8, KVM_IRQCHIP_IOAPIC, 8);
	struct vcpu vcpu;
	struct vm vm;

	start(&vm, &vcpu);
	ASSERT_EQ(irq_set_routes(&vm, &route, 1), 0);
	irq_install_telling_handler(&vm, EDGE_VECTOR);
	irq_install_telling_handler(&vm, LEVEL_VECTOR);
	vm_load(&vm, CODE_GPA, irq_guest_halt);
	vcpu_run_to_port(&vcpu, PORT_SYNC);
	irq_set_entry(&vm, 8, EDGE_VECTOR);
	EXPECT_EQ(irq_line(&vm, 8, 1), 1);
	vcpu_run_to_port(&vcpu, PORT_SYNC);
	EXPECT_EQ(irq_count(&vm, EDGE_VECTOR), 1);
	/* Not before its end. */
	irq_line(&vm, 8, 0);
	EXPECT_EQ(irq_line(&vm, 8, 1), 0);
	irq_line(&vm, 8, 0);
	vcpu_complete(&vcpu);
	vm_load(&vm, CODE_GPA, end_and_halt);
	vcpu_set_rip(&vcpu, CODE_GPA);
	vcpu_run_to_port(&vcpu, PORT_DONE);
	EXPECT_EQ(irq_line(&vm, 8, 1), 1);
	vcpu_run_to_port(&vcpu, PORT_SYNC);
	EXPECT_EQ(irq_count(&vm, LEVEL_VECTOR), 1);
	vcpu_destroy(&vcpu);
	vm_destroy(&vm);
}

/* Where the I/O APIC is in the kernel, which has no register for ends, they are broadcast. */
TEST(ends_are_broadcast)
{
	struct kvm_lapic_state lapic;
	struct vcpu vcpu;
	struct vm vm;

	start(&vm, &vcpu);
	xioctl(vcpu.fd, KVM_GET_LAPIC, &lapic);
	EXPECT_EQ(*(uint32_t *)(lapic.regs + 0x30) >> 24 & 1, 0);
	vcpu_destroy(&vcpu);
	vm_destroy(&vm);

	vm_create(&vm, SZ_2M);
	ASSERT_EQ(vm_split_irqchip(&vm, 24), 0);
	vcpu_start(&vcpu, &vm, MODE_LONG);
	xioctl(vcpu.fd, KVM_GET_LAPIC, &lapic);
	EXPECT_EQ(*(uint32_t *)(lapic.regs + 0x30) >> 24 & 1, 1);
	vcpu_destroy(&vcpu);
	vm_destroy(&vm);
}

TEST_HARNESS_MAIN
