/* SPDX-License-Identifier: GPL-2.0 */
/*
 * All that there is of a VM with one vCPU, taken out of one and put into
 * another, as a client does that migrates it.
 */
#ifndef SELFTESTS_STATE_H
#define SELFTESTS_STATE_H

#include "vm.h"

#define STATE_MSRS	512
#define STATE_CPUID	128
#define STATE_XSAVE	16384

struct state {
	uint64_t apic;		/* whether there is a local APIC */
	uint64_t tsc_khz;
	struct kvm_clock_data clock;
	struct kvm_regs regs;
	struct kvm_sregs sregs;
	struct kvm_sregs2 sregs2;
	struct kvm_vcpu_events events;
	struct kvm_debugregs debugregs;
	struct kvm_mp_state mp_state;
	struct kvm_xcrs xcrs;
	struct kvm_lapic_state lapic;
	struct {
		struct kvm_cpuid2 header;
		struct kvm_cpuid_entry2 entries[STATE_CPUID];
	} cpuid;
	struct {
		struct kvm_msrs header;
		struct kvm_msr_entry entries[STATE_MSRS];
	} msrs;
	uint64_t xsave_size;
	char xsave[STATE_XSAVE] __attribute__((aligned(64)));
};

/* Gives a VM without vCPUs local APICs; returns false if there are none to have. */
bool vm_enable_apic(struct vm *vm);
/*
 * Takes everything, of a vCPU between two runs with nothing left to complete.
 * Returns how many MSRs of the device's list could not be read.
 */
unsigned int state_save(struct vcpu *vcpu, struct state *s, bool apic);
/*
 * Makes vCPU 0 of @vm, which has none yet, and gives it everything, by
 * KVM_SET_SREGS2 or KVM_SET_SREGS. Returns how many MSRs were refused, but for
 * those that are 0: an MSR may be read as 0 that the vCPU does not have.
 */
unsigned int state_restore(struct vcpu *vcpu, struct vm *vm, const struct state *s,
			   bool sregs2);
/* Whether two states are the same but for what time changes; tells what is not. */
bool state_same(const struct state *a, const struct state *b);

#endif
