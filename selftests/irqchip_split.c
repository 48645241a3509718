// SPDX-License-Identifier: GPL-2.0
/*
 * A split irqchip: the client has the I/O APIC, and is told by KVM_EXIT_IOAPIC_EOI
 * when a level-triggered interrupt of one of its pins ends, and of no other.
 */
#include "kselftest_harness.h"
#include "irq.h"

#define PINS		24
#define LEVEL_VECTOR	0x61
#define OTHER_VECTOR	0x62
#define EDGE_VECTOR	0x72
#define FAR_VECTOR	0x83
#define LEVEL		(1U << 15)

static void start(struct vm *vm, struct vcpu *vcpu)
{
	vm_create(vm, SZ_2M);
	if (vm_split_irqchip(vm, PINS))
		die("no split irqchip");
	vcpu_start(vcpu, vm, MODE_LONG);
	irq_install_handlers(vm);
	irq_load_idt(vcpu);
	vm_load(vm, CODE_GPA, irq_guest_halt);
	vcpu_run_to_port(vcpu, PORT_SYNC);
}

/* Runs until a halt, which only a signal ends; returns the vector of an EOI before, or 0. */
static unsigned int next_eoi(struct vcpu *vcpu)
{
	struct runner runner = { .vcpu = vcpu };
	unsigned int vector;

	runner_start(&runner);
	usleep(20000);
	runner_stop(&runner);
	if (runner.error == -EINTR)
		return 0;
	if (runner.error || vcpu->run->exit_reason != KVM_EXIT_IOAPIC_EOI)
		die("another exit: %d, %u", runner.error, vcpu->run->exit_reason);
	vector = vcpu->run->eoi.vector;
	return vector;
}

TEST(ends_of_levels_exit)
{
	struct kvm_irq_routing_entry routes[] = {
		irq_msi_route(0, 0, LEVEL_VECTOR | LEVEL),
		irq_msi_route(1, 0, EDGE_VECTOR),
		irq_msi_route(2, 5, OTHER_VECTOR | LEVEL),	/* another vCPU's */
		irq_msi_route(PINS, 0, FAR_VECTOR | LEVEL),	/* no pin */
	};
	struct vcpu vcpu;
	struct vm vm;
	int i;

	start(&vm, &vcpu);
	ASSERT_EQ(irq_set_routes(&vm, routes, ARRAY_SIZE(routes)), 0);
	for (i = 1; i <= 10; i++) {
		EXPECT_EQ(irq_line(&vm, 0, 1), 1);
		EXPECT_EQ(next_eoi(&vcpu), LEVEL_VECTOR);
		EXPECT_EQ(irq_count(&vm, LEVEL_VECTOR), i);
		EXPECT_EQ(irq_line(&vm, 1, 1), 1);
		EXPECT_EQ(next_eoi(&vcpu), 0);
		EXPECT_EQ(irq_count(&vm, EDGE_VECTOR), i);
	}
	/* A level, but of no pin of the client's. */
	EXPECT_EQ(irq_line(&vm, PINS, 1), 1);
	EXPECT_EQ(next_eoi(&vcpu), 0);
	EXPECT_EQ(irq_count(&vm, FAR_VECTOR), 1);
	/* The vector of another vCPU's pin, but not from there. */
	EXPECT_EQ(irq_send_msi(&vm, 0, OTHER_VECTOR), 1);
	EXPECT_EQ(next_eoi(&vcpu), 0);
	EXPECT_EQ(irq_count(&vm, OTHER_VECTOR), 1);
	vcpu_destroy(&vcpu);
	vm_destroy(&vm);
}

/* An interrupt that was on its way when its route changed. */
TEST(ends_after_a_route_has_moved)
{
	struct kvm_irq_routing_entry route = irq_msi_route(3, 0, LEVEL_VECTOR | LEVEL);
	struct kvm_irq_routing_entry moved = irq_msi_route(3, 5, LEVEL_VECTOR | LEVEL);
	struct kvm_irq_routing_entry gone = irq_msi_route(3, 0, EDGE_VECTOR);
	struct vcpu vcpu;
	struct vm vm;

	start(&vm, &vcpu);
	ASSERT_EQ(irq_set_routes(&vm, &route, 1), 0);
	EXPECT_EQ(irq_line(&vm, 3, 1), 1);
	ASSERT_EQ(irq_set_routes(&vm, &moved, 1), 0);
	EXPECT_EQ(next_eoi(&vcpu), LEVEL_VECTOR);
	EXPECT_EQ(next_eoi(&vcpu), 0);
	/* With the vector gone from all pins, nobody wants to know. */
	ASSERT_EQ(irq_set_routes(&vm, &route, 1), 0);
	EXPECT_EQ(irq_line(&vm, 3, 1), 1);
	ASSERT_EQ(irq_set_routes(&vm, &gone, 1), 0);
	EXPECT_EQ(next_eoi(&vcpu), 0);
	EXPECT_EQ(irq_count(&vm, LEVEL_VECTOR), 2);
	vcpu_destroy(&vcpu);
	vm_destroy(&vm);
}

TEST_HARNESS_MAIN
