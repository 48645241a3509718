// SPDX-License-Identifier: GPL-2.0
/*
 * KVM_SIGNAL_MSI to the local APICs of a split irqchip: a halted vCPU wakes and
 * takes the interrupt, each message once; who is not there or has no local APIC
 * is told by errno as KVM does.
 */
#include <pthread.h>

#include "kselftest_harness.h"
#include "vm.h"

#define VECTOR		0x60
#define MESSAGES	100
#define APIC_BASE	0xfee00000
#define COUNTER		0x100000

/* Software-enables the local APIC, halts, and counts what wakes it, for ever. */
GUEST_CODE(halt, 64,
	"	movl $0xfee000f0, %edi\n"
	"	movl $0x1ff, (%rdi)\n"
	"	outb %al, $" STR(PORT_SYNC) "\n"
	"1:	sti\n"
	"	hlt\n"
	"	jmp 1b\n");

/* The handler: counts and ends the interrupt. */
GUEST_CODE(handler, 64,
	"	incq (0x100000)\n"
	"	pushq %rdi\n"
	"	movl $0xfee000b0, %edi\n"
	"	movl $0, (%rdi)\n"
	"	popq %rdi\n"
	"	iretq\n");

static int signal_msi(struct vm *vm, unsigned int destination, unsigned int data)
{
	struct kvm_msi msi = {
		.address_lo = APIC_BASE | destination << 12,
		.data = data,
	};

	return try_ioctl(vm->fd, KVM_SIGNAL_MSI, (unsigned long)&msi);
}

static void set_gate(struct vm *vm, unsigned int vector, uint64_t target)
{
	volatile uint64_t *gate = vm_u64(vm, IDT_GPA + vector * 16);

	gate[0] = (target & 0xffff) | (uint64_t)SEL_CODE64 << 16 | 0x8e00ULL << 32 |
		  (target & 0xffff0000) << 32;
	gate[1] = target >> 32;
}

static void ignore(int signal)
{
}

static void *run(void *arg)
{
	vcpu_run(arg);
	return NULL;
}

/* A VM with a split irqchip, which must be there before the first vCPU. */
static bool create(struct vm *vm, struct vcpu *vcpu)
{
	struct kvm_enable_cap split = {
		.cap = KVM_CAP_SPLIT_IRQCHIP,
		.args = { 24 },
	};

	vm_create(vm, SZ_2M);
	if (try_ioctl(vm->fd, KVM_ENABLE_CAP, (unsigned long)&split))
		return false;
	vcpu_start(vcpu, vm, MODE_LONG);
	return true;
}

TEST(wakes_and_counts)
{
	struct sigaction action = { .sa_handler = ignore };
	struct kvm_sregs sregs;
	struct vcpu vcpu;
	pthread_t thread;
	struct vm vm;
	int i, spins;

	ASSERT_TRUE(create(&vm, &vcpu));
	vm_load(&vm, CODE_GPA, halt);
	vm_load(&vm, 0x20000, handler);
	set_gate(&vm, VECTOR, 0x20000);
	sregs = vcpu_sregs(&vcpu);
	sregs.idt.base = IDT_GPA;
	sregs.idt.limit = 0xfff;
	vcpu_set_sregs(&vcpu, &sregs);
	vcpu_run_to_port(&vcpu, PORT_SYNC);

	/* Nobody has APIC ID 5; the APIC's own is 0. */
	EXPECT_EQ(signal_msi(&vm, 5, VECTOR), 0);

	sigaction(SIGUSR1, &action, NULL);
	pthread_create(&thread, NULL, run, &vcpu);
	for (i = 1; i <= MESSAGES; i++) {
		EXPECT_EQ(signal_msi(&vm, 0, VECTOR), 1);
		for (spins = 0; *vm_u64(&vm, COUNTER) != (uint64_t)i && spins < 5000; spins++)
			usleep(200);
		ASSERT_EQ(*vm_u64(&vm, COUNTER), i);
	}
	usleep(20000);
	EXPECT_EQ(*vm_u64(&vm, COUNTER), MESSAGES);
	vcpu.run->immediate_exit = 1;
	pthread_kill(thread, SIGUSR1);
	pthread_join(thread, NULL);
	EXPECT_EQ(vcpu.run->exit_reason, KVM_EXIT_INTR);
	vcpu_destroy(&vcpu);
	vm_destroy(&vm);
}

TEST(errors)
{
	struct kvm_msi msi = { .address_lo = APIC_BASE, .data = VECTOR };
	struct vcpu vcpu;
	struct vm vm;

	/* Without local APICs in the kernel. */
	vm_create(&vm, SZ_2M);
	EXPECT_EQ(try_ioctl(vm.fd, KVM_SIGNAL_MSI, (unsigned long)&msi), -EINVAL);
	vm_destroy(&vm);

	ASSERT_TRUE(create(&vm, &vcpu));
	msi.flags = ~KVM_MSI_VALID_DEVID;
	EXPECT_EQ(try_ioctl(vm.fd, KVM_SIGNAL_MSI, (unsigned long)&msi), -EINVAL);
	EXPECT_EQ(try_ioctl(vm.fd, KVM_SIGNAL_MSI, 8), -EFAULT);
	vcpu_destroy(&vcpu);
	vm_destroy(&vm);
}

TEST_HARNESS_MAIN
