// SPDX-License-Identifier: GPL-2.0
/*
 * KVM_SET_GSI_ROUTING and KVM_IRQ_LINE with a split irqchip: routes to messages
 * are followed, replaced as a whole while interrupts are on their way, and none
 * is lost.
 */
#include "kselftest_harness.h"
#include "irq.h"

#define VECTOR		0x60
#define OTHER		0x71
#define MESSAGES	200

static bool start(struct vm *vm, struct vcpu *vcpu)
{
	vm_create(vm, SZ_2M);
	if (vm_split_irqchip(vm, 24))
		return false;
	vcpu_start(vcpu, vm, MODE_LONG);
	irq_install_handlers(vm);
	vm_load(vm, CODE_GPA, irq_guest_halt);
	irq_load_idt(vcpu);
	vcpu_run_to_port(vcpu, PORT_SYNC);
	return true;
}

TEST(routes_lead_to_messages)
{
	struct kvm_irq_routing_entry routes[] = {
		irq_msi_route(4095, 0, VECTOR),
		irq_msi_route(0, 0, OTHER),
		irq_msi_route(7, 5, VECTOR),	/* nobody's APIC ID */
	};
	struct runner runner = { 0 };
	struct vcpu vcpu;
	struct vm vm;

	ASSERT_TRUE(start(&vm, &vcpu));
	runner.vcpu = &vcpu;
	EXPECT_EQ(irq_line(&vm, 0, 1), -1);
	ASSERT_EQ(irq_set_routes(&vm, routes, ARRAY_SIZE(routes)), 0);
	runner_start(&runner);

	EXPECT_EQ(irq_line(&vm, 4095, 1), 1);
	EXPECT_TRUE(irq_wait_count(&vm, VECTOR, 1));
	/* A message has no level: lowering sends none, raising again another. */
	EXPECT_EQ(irq_line(&vm, 4095, 0), -1);
	EXPECT_EQ(irq_line(&vm, 4095, -1), 1);
	EXPECT_TRUE(irq_wait_count(&vm, VECTOR, 2));
	EXPECT_EQ(irq_line(&vm, 0, 1), 1);
	EXPECT_TRUE(irq_wait_count(&vm, OTHER, 1));
	EXPECT_EQ(irq_line(&vm, 7, 1), 0);
	EXPECT_EQ(irq_line(&vm, 8, 1), -1);
	EXPECT_EQ(irq_line(&vm, 4096, 1), -1);
	EXPECT_EQ(irq_line(&vm, ~0U, 1), -1);

	/* Refused as a whole: the old routes stay. */
	routes[1].type = KVM_IRQ_ROUTING_IRQCHIP;
	EXPECT_EQ(irq_set_routes(&vm, routes, ARRAY_SIZE(routes)), -EINVAL);
	EXPECT_EQ(irq_line(&vm, 0, 1), 1);
	EXPECT_TRUE(irq_wait_count(&vm, OTHER, 2));
	/* And so it goes with an empty table. */
	EXPECT_EQ(irq_set_routes(&vm, routes, 0), 0);
	EXPECT_EQ(irq_line(&vm, 0, 1), -1);

	runner_stop(&runner);
	EXPECT_EQ(runner.error, -EINTR);
	EXPECT_EQ(irq_count(&vm, VECTOR), 2);
	EXPECT_EQ(irq_count(&vm, OTHER), 2);
	vcpu_destroy(&vcpu);
	vm_destroy(&vm);
}

static bool replacing;

static void *replace(void *arg)
{
	struct vm *vm = arg;
	unsigned int i;

	for (i = 0; __atomic_load_n(&replacing, __ATOMIC_RELAXED); i++) {
		/* GSI 20 leads to one vector or the other, always; the table's size varies. */
		struct kvm_irq_routing_entry routes[] = {
			irq_msi_route(20, 0, i & 1 ? VECTOR : OTHER),
			irq_msi_route(21 + i * 37 % 4075, 5, VECTOR),
		};

		if (irq_set_routes(vm, routes, 2))
			die("no routes");
	}
	return NULL;
}

TEST(none_is_lost_while_routes_are_replaced)
{
	struct kvm_irq_routing_entry first = irq_msi_route(20, 0, VECTOR);
	struct runner runner = { 0 };
	struct vcpu vcpu;
	pthread_t thread;
	struct vm vm;
	int i;

	ASSERT_TRUE(start(&vm, &vcpu));
	runner.vcpu = &vcpu;
	ASSERT_EQ(irq_set_routes(&vm, &first, 1), 0);
	runner_start(&runner);
	replacing = true;
	pthread_create(&thread, NULL, replace, &vm);
	for (i = 1; i <= MESSAGES; i++) {
		int spins;

		ASSERT_EQ(irq_line(&vm, 20, 1), 1);
		for (spins = 0; spins < 20000; spins++) {
			if (irq_count(&vm, VECTOR) + irq_count(&vm, OTHER) == (uint64_t)i)
				break;
			usleep(100);
		}
		ASSERT_EQ(irq_count(&vm, VECTOR) + irq_count(&vm, OTHER), i);
	}
	__atomic_store_n(&replacing, false, __ATOMIC_RELAXED);
	pthread_join(thread, NULL);
	runner_stop(&runner);
	vcpu_destroy(&vcpu);
	vm_destroy(&vm);
}

TEST_HARNESS_MAIN
