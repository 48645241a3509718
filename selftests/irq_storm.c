// SPDX-License-Identifier: GPL-2.0
/*
 * Four vCPUs on two CPUs storm each other with interrupts, halted in between, while
 * devices interrupt them. Each IPI has a number that its receiver expects: a lost
 * one ends the exchange, one that comes twice does not match.
 */
#include "kselftest_harness.h"
#include "irq.h"

#define VCPUS		4
#define VECTOR		0x80		/* plus the number of the sender */
#define DEVICE_VECTOR	0x60
#define LEVEL_VECTOR	0x91
#define LEVEL_GSI	20
#define IPIS		400

/* Numbers of 8 bytes: sent by [from * 4 + to], received at [to * 4 + from]. */
#define SENT_GPA	0x110000
#define RECEIVED_GPA	0x110100
#define ERRORS_GPA	0x110200

/*
 * Handlers of the four vectors, 16 bytes apart, which leave the sender in RDI; then
 * what they have in common. The guest has no registers of its own.
 */
GUEST_CODE(storm_handlers, 64,
	"	movl $0, %edi; jmp 1f; .balign 16, 0x90\n"
	"	movl $1, %edi; jmp 1f; .balign 16, 0x90\n"
	"	movl $2, %edi; jmp 1f; .balign 16, 0x90\n"
	"	movl $3, %edi; jmp 1f; .balign 16, 0x90\n"
	"1:	movl $0xfee00000, %esi\n"
	"	movl 0x20(%rsi), %eax\n"
	"	shrl $24, %eax\n"			/* own number */
	"	leal (%rax,%rdi,4), %ecx\n"		/* from the sender to this one */
	"	leal (%rdi,%rax,4), %edx\n"		/* and back */
	"	movq " STR(SENT_GPA) "(,%rcx,8), %rbx\n"
	"	incq " STR(RECEIVED_GPA) "(,%rdx,8)\n"
	"	cmpq %rbx, " STR(RECEIVED_GPA) "(,%rdx,8)\n"
	"	je 2f\n"
	"	lock incq " STR(ERRORS_GPA) "\n"
	"2:	movl $0, 0xb0(%rsi)\n"
	"	cmpq $" STR(IPIS) ", %rbx\n"
	"	jae 3f\n"
	"	incq " STR(SENT_GPA) "(,%rdx,8)\n"
	"	shll $24, %edi\n"
	"	movl %edi, 0x310(%rsi)\n"
	"	addl $" STR(VECTOR) ", %eax\n"
	"	movl %eax, 0x300(%rsi)\n"
	"3:	iretq\n");

struct machine {
	struct vm vm;
	struct vcpu vcpus[VCPUS];
	struct runner runners[VCPUS];
};

/* The handler of the level tells: lower it. */
static bool lower(struct runner *runner)
{
	struct kvm_run *run = runner->vcpu->run;

	if (run->exit_reason == KVM_EXIT_IOAPIC_EOI)
		return true;
	if (run->exit_reason != KVM_EXIT_IO || run->io.port != PORT_SYNC)
		return false;
	irq_line(runner->vcpu->vm, LEVEL_GSI, 0);
	return true;
}

static void create(struct machine *m, bool split)
{
	unsigned int i;

	memset(m, 0, sizeof(*m));
	vm_create(&m->vm, SZ_2M);
	if (split ? vm_split_irqchip(&m->vm, 24) : vm_create_irqchip(&m->vm))
		die("no irqchip");
	irq_install_handlers(&m->vm);
	vm_load(&m->vm, 0x40000, storm_handlers);
	for (i = 0; i < VCPUS; i++)
		irq_set_gate(&m->vm, VECTOR + i, 0x40000 + i * 16);
	irq_install_telling_handler(&m->vm, LEVEL_VECTOR);
	vm_load(&m->vm, CODE_GPA, irq_guest_halt);
	for (i = 0; i < VCPUS; i++) {
		struct runner *runner = &m->runners[i];

		irq_add_vcpu(&m->vcpus[i], &m->vm, i, STACK_GPA - i * 0x4000);
		vcpu_run_to_port(&m->vcpus[i], PORT_SYNC);
		runner->vcpu = &m->vcpus[i];
		runner->cpu = i % 2 + 1;
		runner->on_exit = lower;
	}
}

static void storm(struct __test_metadata *_metadata, bool split)
{
	static struct machine m;
	volatile uint64_t *sent, *received;
	unsigned int i, k, rounds = 0;
	struct kvm_irq_routing_entry routes[] = {
		irq_msi_route(40, 0, DEVICE_VECTOR),
		irq_msi_route(41, 1, DEVICE_VECTOR + 1),
		irq_msi_route(42, 2, DEVICE_VECTOR + 2),
		irq_msi_route(43, 3, DEVICE_VECTOR + 3),
		split ? irq_msi_route(LEVEL_GSI, 3, LEVEL_VECTOR | 1 << 15) :
			irq_pin_route(LEVEL_GSI, KVM_IRQCHIP_IOAPIC, 20),
	};

	create(&m, split);
	ASSERT_EQ(irq_set_routes(&m.vm, routes, ARRAY_SIZE(routes)), 0);
	if (!split)
		irq_set_entry(&m.vm, 20, LEVEL_VECTOR | ENTRY_LEVEL | ENTRY_TO(3));
	sent = vm_u64(&m.vm, SENT_GPA);
	received = vm_u64(&m.vm, RECEIVED_GPA);
	for (i = 0; i < VCPUS; i++)
		runner_start(&m.runners[i]);
	/* Each pair has one IPI on its way, back and forth; the first ones are the client's. */
	for (i = 0; i < VCPUS; i++) {
		for (k = i + 1; k < VCPUS; k++) {
			sent[i * VCPUS + k] = 1;
			EXPECT_EQ(irq_send_msi(&m.vm, k, VECTOR + i), 1);
		}
	}
	do {
		/* Each is handled before the next one, so none is coalesced. */
		rounds++;
		for (i = 0; i < VCPUS; i++) {
			EXPECT_EQ(irq_line(&m.vm, 40 + i, 1), 1);
		}
		irq_line(&m.vm, LEVEL_GSI, 1);
		for (i = 0; i < VCPUS; i++) {
			ASSERT_TRUE(irq_wait_count(&m.vm, DEVICE_VECTOR + i, rounds));
		}
		ASSERT_TRUE(irq_wait_count(&m.vm, LEVEL_VECTOR, rounds));
	} while (rounds < 50);
	for (i = 0; i < VCPUS; i++) {
		for (k = i + 1; k < VCPUS; k++) {
			EXPECT_TRUE(irq_wait_for(&received[k * VCPUS + i], IPIS));
			EXPECT_TRUE(irq_wait_for(&received[i * VCPUS + k], IPIS - 1));
		}
	}
	usleep(20000);
	EXPECT_EQ(*vm_u64(&m.vm, ERRORS_GPA), 0);
	EXPECT_EQ(irq_count(&m.vm, LEVEL_VECTOR), rounds);
	for (i = 0; i < VCPUS; i++) {
		runner_stop(&m.runners[i]);
		EXPECT_EQ(m.runners[i].error, -EINTR);
		EXPECT_EQ(irq_count(&m.vm, DEVICE_VECTOR + i), rounds);
		vcpu_destroy(&m.vcpus[i]);
	}
	vm_destroy(&m.vm);
}

TEST(irqchip)
{
	storm(_metadata, false);
}

TEST(split_irqchip)
{
	storm(_metadata, true);
}

TEST_HARNESS_MAIN
