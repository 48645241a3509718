// SPDX-License-Identifier: GPL-2.0
/*
 * What INIT leaves of a vCPU's state, and what it does not: registers start over,
 * caching and most MSRs stay as they are, and nothing is told any more to a guest that
 * knew of KVM, whose memory may be another's by then.
 */
#include <linux/kvm_para.h>

#include "kselftest_harness.h"
#include "irq.h"

#define CR0_ET		(1UL << 4)
#define CR0_NW		(1UL << 29)
#define CR0_CD		(1UL << 30)
#define INIT		0x500

#define SYSENTER_CS	0x174
#define SYSENTER_ESP	0x175
#define SYSENTER_EIP	0x176
#define PAT		0x277
#define STAR		0xc0000081
#define KERNEL_GS_BASE	0xc0000102

#define CLOCK_GPA	0x100000UL
#define STEAL_GPA	0x101000UL

GUEST_CODE(tell_for_ever, 64,
	"1:	outb %al, $" STR(PORT_SYNC) "\n"
	"	jmp 1b\n");

FIXTURE(guest) {
	struct vm vm;
	struct vcpu vcpu;
};

FIXTURE_SETUP(guest)
{
	struct kvm_lapic_state lapic;

	vm_create(&self->vm, VM_MEMORY);
	ASSERT_EQ(vm_split_irqchip(&self->vm, 24), 0);
	vcpu_start(&self->vcpu, &self->vm, MODE_LONG);
	vm_load(&self->vm, CODE_GPA, tell_for_ever);
	/* kvm_intel finds a local APIC for messages once somebody has set it. */
	xioctl(self->vcpu.fd, KVM_GET_LAPIC, &lapic);
	xioctl(self->vcpu.fd, KVM_SET_LAPIC, &lapic);
}

FIXTURE_TEARDOWN(guest)
{
	vcpu_destroy(&self->vcpu);
	vm_destroy(&self->vm);
}

static void init(struct vcpu *vcpu)
{
	struct kvm_mp_state state;

	if (irq_send_msi(vcpu->vm, 0, INIT) != 1)
		die("INIT");
	/* As a run would, this takes it. */
	xioctl(vcpu->fd, KVM_GET_MP_STATE, &state);
}

TEST_F(guest, registers_start_over)
{
	static const uint64_t caching[] = { 0, CR0_CD, CR0_CD | CR0_NW };
	struct kvm_sregs sregs;
	struct kvm_regs regs;
	unsigned int i;

	for (i = 0; i < 3; i++) {
		vcpu_set_mode(&self->vcpu, MODE_LONG);
		sregs = vcpu_sregs(&self->vcpu);
		sregs.cr0 = (sregs.cr0 & ~(CR0_CD | CR0_NW)) | caching[i];
		vcpu_set_sregs(&self->vcpu, &sregs);
		init(&self->vcpu);
		regs = vcpu_regs(&self->vcpu);
		sregs = vcpu_sregs(&self->vcpu);
		EXPECT_EQ(regs.rip, 0xfff0);
		EXPECT_EQ(regs.rsp, 0);
		EXPECT_EQ(regs.rflags, 2);
		EXPECT_EQ(regs.rdx, vcpu_cpuid(&self->vcpu, 1).eax);
		EXPECT_EQ(sregs.cr0, CR0_ET | caching[i]);
		EXPECT_EQ(sregs.cr3, 0);
		EXPECT_EQ(sregs.cr4, 0);
		EXPECT_EQ(sregs.efer, 0);
		EXPECT_EQ(sregs.cs.base, 0xffff0000);
	}
}

TEST_F(guest, most_msrs_stay)
{
	static const struct {
		uint32_t index;
		uint64_t value;
	} msrs[] = {
		{ SYSENTER_CS, 0x10 },
		{ SYSENTER_ESP, 0xffff800000001000 },
		{ SYSENTER_EIP, 0xffff800000002000 },
		{ PAT, 0x0606060606060606 },
		{ STAR, 0x23001000000000 },
		{ KERNEL_GS_BASE, 0xffff800000003000 },
	};
	unsigned int i;

	for (i = 0; i < ARRAY_SIZE(msrs); i++)
		vcpu_set_msr(&self->vcpu, msrs[i].index, msrs[i].value);
	vcpu_run_to_port(&self->vcpu, PORT_SYNC);
	init(&self->vcpu);
	for (i = 0; i < ARRAY_SIZE(msrs); i++) {
		EXPECT_EQ(vcpu_msr(&self->vcpu, msrs[i].index), msrs[i].value);
	}
}

TEST_F(guest, is_told_no_more)
{
	unsigned int i;

	vcpu_set_msr(&self->vcpu, MSR_KVM_SYSTEM_TIME_NEW, CLOCK_GPA | 1);
	vcpu_set_msr(&self->vcpu, MSR_KVM_STEAL_TIME, STEAL_GPA | 1);
	vcpu_run_to_port(&self->vcpu, PORT_SYNC);
	EXPECT_NE(*(uint32_t *)vm_u64(&self->vm, CLOCK_GPA), 0);
	EXPECT_NE(*(uint32_t *)vm_u64(&self->vm, STEAL_GPA + 8), 0);

	init(&self->vcpu);
	EXPECT_EQ(vcpu_msr(&self->vcpu, MSR_KVM_SYSTEM_TIME_NEW), 0);
	EXPECT_EQ(vcpu_msr(&self->vcpu, MSR_KVM_SYSTEM_TIME), 0);
	EXPECT_EQ(vcpu_msr(&self->vcpu, MSR_KVM_STEAL_TIME), 0);
	memset(self->vm.mem + CLOCK_GPA, 0xaa, PAGE);
	memset(self->vm.mem + STEAL_GPA, 0xaa, PAGE);
	vcpu_set_mode(&self->vcpu, MODE_LONG);
	for (i = 0; i < 20; i++) {
		vcpu_run_to_port(&self->vcpu, PORT_SYNC);
		usleep(1000);
	}
	for (i = 0; i < 2 * PAGE; i++) {
		ASSERT_EQ((uint8_t)self->vm.mem[CLOCK_GPA + i], 0xaa);
	}
}

/* A vector that a client restores is that of the startup IPI which it restores later. */
TEST_F(guest, restored_startup)
{
	struct kvm_mp_state init_received = { .mp_state = KVM_MP_STATE_INIT_RECEIVED };
	struct kvm_mp_state startup = { .mp_state = KVM_MP_STATE_SIPI_RECEIVED };
	struct kvm_vcpu_events events;
	struct kvm_mp_state state;
	struct vcpu second;

	vcpu_create(&second, &self->vm, 1);
	vcpu_set_supported_cpuid(&second);
	xioctl(second.fd, KVM_SET_MP_STATE, &init_received);
	xioctl(second.fd, KVM_GET_VCPU_EVENTS, &events);
	events.flags = KVM_VCPUEVENT_VALID_SIPI_VECTOR;
	events.sipi_vector = 0x9a;
	xioctl(second.fd, KVM_SET_VCPU_EVENTS, &events);
	xioctl(second.fd, KVM_GET_MP_STATE, &state);
	EXPECT_EQ(state.mp_state, KVM_MP_STATE_INIT_RECEIVED);
	xioctl(second.fd, KVM_SET_MP_STATE, &startup);
	xioctl(second.fd, KVM_GET_MP_STATE, &state);
	EXPECT_EQ(state.mp_state, KVM_MP_STATE_RUNNABLE);
	EXPECT_EQ(vcpu_sregs(&second).cs.base, 0x9a000);
	vcpu_destroy(&second);
}

TEST_HARNESS_MAIN
