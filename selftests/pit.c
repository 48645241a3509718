// SPDX-License-Identifier: GPL-2.0
/*
 * The interval timer in the kernel: its interrupts come never early and at most a
 * tick of the host late, those that a guest missed come later or not, as the client
 * wants; its counters and port 0x61 as the guest sees them; its state saved in one
 * VM and restored in another.
 */
#include <time.h>

#include "kselftest_harness.h"
#include "irq.h"

#define VECTOR		0x60
#define CLOCK		1193181
#define TIMES		(DATA_GPA + 0x10000)	/* of interrupts, then of the start */
#define MAX_TIMES	1000
#define HOST_TICK_NS	10000000		/* of a kernel with HZ=100 */

/*
 * Programs channel 0 by the control word in BL and the count in CX, notes when,
 * and halts with interrupts on.
 */
GUEST_CODE(program, 64,
	"	movl $0xfee000f0, %edi\n"
	"	movl $0x1ff, (%rdi)\n"
	"	movb %bl, %al; outb %al, $0x43\n"
	"	movb %cl, %al; outb %al, $0x40\n"
	"	rdtsc; shlq $32, %rdx; orq %rax, %rdx\n"
	"	movq %rdx, 0x111f40\n"
	"	movb %ch, %al; outb %al, $0x40\n"
	"	outb %al, $" STR(PORT_SYNC) "\n"
	"1:	sti; hlt; jmp 1b\n");

/* Halts with interrupts on: a guest whose timer runs. */
GUEST_CODE(only_halt, 64,
	"	movl $0xfee000f0, %edi\n"
	"	movl $0x1ff, (%rdi)\n"
	"	outb %al, $" STR(PORT_SYNC) "\n"
	"1:	sti; hlt; jmp 1b\n");

/* Counts the interrupt, and notes when it came. */
GUEST_CODE(handler, 64,
	"	pushq %rax; pushq %rcx; pushq %rdx\n"
	"	rdtsc; shlq $32, %rdx; orq %rax, %rdx\n"
	"	movq 0x100300, %rcx\n"
	"	cmpq $1000, %rcx; jae 1f\n"
	"	movq %rdx, 0x110000(, %rcx, 8)\n"
	"1:	incq 0x100300\n"
	"	movl $0xfee000b0, %eax; movl $0, (%rax)\n"
	"	popq %rdx; popq %rcx; popq %rax\n"
	"	iretq\n");

static int create_pit(struct vm *vm, unsigned int flags)
{
	struct kvm_pit_config config = { .flags = flags };

	return try_ioctl(vm->fd, KVM_CREATE_PIT2, (unsigned long)&config);
}

static void set_reinject(struct vm *vm, bool on)
{
	struct kvm_reinject_control control = { .pit_reinject = on };

	xioctl(vm->fd, KVM_REINJECT_CONTROL, &control);
}

static void start(struct vm *vm, struct vcpu *vcpu)
{
	struct kvm_irq_routing_entry route = irq_pin_route(0, KVM_IRQCHIP_IOAPIC, 2);

	vm_create(vm, SZ_2M);
	if (vm_create_irqchip(vm))
		die("no irqchip");
	if (create_pit(vm, KVM_PIT_SPEAKER_DUMMY))
		die("no timer");
	vcpu_start(vcpu, vm, MODE_LONG);
	vm_load(vm, CODE_GPA + PAGE, handler);
	irq_set_gate(vm, VECTOR, CODE_GPA + PAGE);
	irq_load_idt(vcpu);
	/* As on a PC; and not to the PICs, which nobody initialises. */
	if (irq_set_routes(vm, &route, 1))
		die("no route");
	irq_set_entry(vm, 2, VECTOR);
}

/* Has the guest program channel 0. */
static void program_pit(struct vcpu *vcpu, unsigned int control, unsigned int count)
{
	struct kvm_regs regs = {
		.rip = CODE_GPA, .rsp = STACK_GPA, .rflags = 2,
		.rbx = control, .rcx = count,
	};

	vm_load(vcpu->vm, CODE_GPA, program);
	vcpu_set_regs(vcpu, &regs);
	vcpu_run_to_port(vcpu, PORT_SYNC);
}

static void sleep_ms(unsigned int ms)
{
	nanosleep(&(struct timespec){ .tv_nsec = ms * 1000000L }, NULL);
}

static uint64_t now_ns(void)
{
	struct timespec now;

	clock_gettime(CLOCK_MONOTONIC, &now);
	return now.tv_sec * 1000000000UL + now.tv_nsec;
}

/* Nanoseconds from the programming to interrupt @i, as the guest noted them. */
static int64_t noted(struct vcpu *vcpu, unsigned int i)
{
	uint64_t khz = xioctl(vcpu->fd, KVM_GET_TSC_KHZ, 0);
	volatile uint64_t *times = vm_u64(vcpu->vm, TIMES);

	return (int64_t)(times[i] - times[MAX_TIMES]) * 1000000 / (int64_t)khz;
}

TEST(periodic_ticks_are_never_early)
{
	static const unsigned int counts[] = { 11932, 1193, 0 };
	struct runner runner = { 0 };
	struct vcpu vcpu;
	struct vm vm;
	unsigned int i, k, mode, ticks;

	for (k = 0; k < 3; k++) {
		int64_t period = (counts[k] ?: 0x10000) * 1000000000L / CLOCK;

		for (mode = 2; mode < 4; mode++) {
			start(&vm, &vcpu);
			program_pit(&vcpu, 0x30 | mode << 1, counts[k]);
			runner.vcpu = &vcpu;
			runner_start(&runner);
			ticks = counts[k] ? 50 : 5;
			for (i = 0; i < 200 && irq_count(&vm, VECTOR) < ticks; i++)
				sleep_ms(10);
			runner_stop(&runner);
			ASSERT_LE(ticks, irq_count(&vm, VECTOR));
			for (i = 0; i < ticks; i++) {
				int64_t late = noted(&vcpu, i) - period * (i + 1);

				/* The two clocks of the host may differ a little. */
				EXPECT_LE(-noted(&vcpu, i) / 5000, late);
				EXPECT_GE(HOST_TICK_NS + noted(&vcpu, i) / 5000, late)
					TH_LOG("count %u, tick %u", counts[k], i);
			}
			vcpu_destroy(&vcpu);
			vm_destroy(&vm);
		}
	}
}

TEST(one_shot_and_none)
{
	static const unsigned int modes[] = { 0, 1, 4, 5 };
	struct runner runner = { 0 };
	struct vcpu vcpu;
	struct vm vm;
	unsigned int i;

	for (i = 0; i < 4; i++) {
		start(&vm, &vcpu);
		program_pit(&vcpu, 0x30 | modes[i] << 1, 5966);
		runner.vcpu = &vcpu;
		runner_start(&runner);
		sleep_ms(50);
		runner_stop(&runner);
		/* The gate of channel 0 never rises, as mode 5 would need. */
		EXPECT_EQ(modes[i] != 5, irq_count(&vm, VECTOR));
		if (modes[i] != 5)
			EXPECT_LE(5000000 - 1000, noted(&vcpu, 0));
		vcpu_destroy(&vcpu);
		vm_destroy(&vm);
	}
}

/* What a guest misses that does not run comes when it runs, or never. */
TEST(missed_ticks_are_reinjected)
{
	struct runner runner = { 0 };
	unsigned int reinject;
	struct vcpu vcpu;
	struct vm vm;
	uint64_t begin, passed;

	for (reinject = 0; reinject < 2; reinject++) {
		start(&vm, &vcpu);
		set_reinject(&vm, reinject);
		begin = now_ns();
		program_pit(&vcpu, 0x34, 5966);
		sleep_ms(200);
		runner.vcpu = &vcpu;
		runner_start(&runner);
		sleep_ms(50);
		runner_stop(&runner);
		passed = (now_ns() - begin) / 5000000;
		if (reinject) {
			EXPECT_GE(passed, irq_count(&vm, VECTOR));
			EXPECT_LE(passed, irq_count(&vm, VECTOR) + 5);
		} else {
			EXPECT_GE(passed - 30, irq_count(&vm, VECTOR));
			EXPECT_LE(5, irq_count(&vm, VECTOR));
		}
		vcpu_destroy(&vcpu);
		vm_destroy(&vm);
	}
}

/* Reads channel 2 twice with a latch between, then port 0x61, into registers. */
GUEST_CODE(read_channel_2, 64,
	"	movb $0xb4, %al; outb %al, $0x43\n"
	"	movb $0xff, %al; outb %al, $0x42; outb %al, $0x42\n"
	"	movb $0x80, %al; outb %al, $0x43\n"
	"	inb $0x42, %al; movb %al, %bl; inb $0x42, %al; movb %al, %bh\n"
	"	movb $0x80, %al; outb %al, $0x43\n"
	"	inb $0x42, %al; movb %al, %cl; inb $0x42, %al; movb %al, %ch\n"
	"	movb $0xe8, %al; outb %al, $0x43\n"
	"	inb $0x42, %al; movzbl %al, %esi\n"
	"	movb $3, %al; outb %al, $0x61\n"
	"	inb $0x61, %al; movzbl %al, %edi\n"
	"	outb %al, $" STR(PORT_DONE) "\n");

TEST(guest_reads_channel_2)
{
	struct kvm_pit_state2 state;
	struct kvm_regs regs;
	struct vcpu vcpu;
	struct vm vm;

	start(&vm, &vcpu);
	vm_load(&vm, CODE_GPA, read_channel_2);
	vcpu_run_to_port(&vcpu, PORT_DONE);
	regs = vcpu_regs(&vcpu);
	EXPECT_LE(regs.rcx & 0xffff, regs.rbx & 0xffff);
	EXPECT_LT(0x8000, regs.rcx & 0xffff);
	EXPECT_EQ(0x34, regs.rsi);
	EXPECT_EQ(3, regs.rdi & 0x0f);
	xioctl(vm.fd, KVM_GET_PIT2, &state);
	EXPECT_EQ(KVM_PIT_FLAGS_SPEAKER_DATA_ON, state.flags);
	EXPECT_EQ(1, state.channels[2].gate);
	EXPECT_EQ(0xffff, state.channels[2].count);
	vcpu_destroy(&vcpu);
	vm_destroy(&vm);
}

/* Ticks go on in another VM that gets the state. */
TEST(saved_and_restored)
{
	struct kvm_pit_state2 state, again;
	struct runner runner = { 0 };
	struct vcpu vcpu;
	struct vm vm;
	unsigned int i;

	start(&vm, &vcpu);
	program_pit(&vcpu, 0x34, 1193);
	xioctl(vm.fd, KVM_GET_PIT2, &state);
	EXPECT_EQ(1193, state.channels[0].count);
	EXPECT_EQ(2, state.channels[0].mode);
	EXPECT_EQ(3, state.channels[0].rw_mode);
	vcpu_destroy(&vcpu);
	vm_destroy(&vm);

	for (i = 0; i < 2; i++) {
		start(&vm, &vcpu);
		if (i)
			xioctl(vm.fd, KVM_SET_PIT2, &state);
		else
			xioctl(vm.fd, KVM_SET_PIT, &state);
		xioctl(vm.fd, KVM_GET_PIT2, &again);
		EXPECT_EQ(0, memcmp(&state.channels[0], &again.channels[0],
				    sizeof(state.channels[0])));
		vm_load(&vm, CODE_GPA, only_halt);
		vcpu_run_to_port(&vcpu, PORT_SYNC);
		runner.vcpu = &vcpu;
		runner_start(&runner);
		sleep_ms(100);
		runner_stop(&runner);
		EXPECT_LT(50, irq_count(&vm, VECTOR));
		/* An HPET that takes its place stops it. */
		state.flags |= KVM_PIT_FLAGS_HPET_LEGACY;
		xioctl(vm.fd, KVM_SET_PIT2, &state);
		runner_start(&runner);
		sleep_ms(10);
		runner_stop(&runner);
		irq_count(&vm, VECTOR) = 0;
		runner_start(&runner);
		sleep_ms(30);
		runner_stop(&runner);
		EXPECT_EQ(0, irq_count(&vm, VECTOR));
		state.flags &= ~KVM_PIT_FLAGS_HPET_LEGACY;
		vcpu_destroy(&vcpu);
		vm_destroy(&vm);
	}
}

/* A timer that ticks as fast as it may while all goes away. */
TEST(goes_away_while_it_ticks)
{
	struct runner runner = { 0 };
	struct vcpu vcpu;
	struct vm vm;
	unsigned int i;

	for (i = 0; i < 10; i++) {
		start(&vm, &vcpu);
		program_pit(&vcpu, 0x34, 100);
		runner.vcpu = &vcpu;
		runner_start(&runner);
		sleep_ms(5);
		set_reinject(&vm, i & 1);
		runner_stop(&runner);
		vcpu_destroy(&vcpu);
		vm_destroy(&vm);
	}
}

TEST_HARNESS_MAIN
