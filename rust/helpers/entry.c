// SPDX-License-Identifier: GPL-2.0
/*
 * The part of VM entry and exit that must not be instrumented.
 *
 * Between guest_state_enter_irqoff() and guest_state_exit_irqoff() RCU may not be watching and lockdep
 * believes interrupts to be on: no tracing, no sanitizer call and no debug trap may happen there. C has
 * `noinstr` for such code, Rust has not.
 */
#include <linux/context_tracking.h>
#include <linux/export.h>
#include <linux/hw_breakpoint.h>
#include <linux/jump_label.h>
#include <linux/kvm_host.h>
#include <linux/linkage.h>
#include <linux/sched/cputime.h>

#include <asm/debugreg.h>
#include <asm/entry-common.h>
#include <asm/fred.h>
#include <asm/msr.h>
#include <asm/perf_event.h>
#include <asm/special_insns.h>
#include <asm/vmx.h>

#include "../vmx/guest_regs.h"
#include "helpers.h"
#include "speculation.h"

static __always_inline u32 read_current_vmcs32(unsigned long field)
{
	unsigned long value;

	asm volatile("vmread %1, %0" : "=rm" (value) : "r" (field) : "cc");
	return value;
}

static_assert(offsetof(struct kvm_rs_guest_regs, host_rsp) == KVM_RS_REGS_HOST_RSP);
static_assert(offsetof(struct kvm_rs_guest_regs, spec_ctrl_direct) == KVM_RS_REGS_SPEC_CTRL_DIRECT);
static_assert(offsetof(struct kvm_rs_guest_regs, spec_ctrl) == KVM_RS_REGS_SPEC_CTRL);

/**
 * kvm_rs_guest_enter() - Enter the guest and come back at the next VM exit
 * @regs:	The guest's registers; @regs->exit_reason is set on success
 * @launched:	Whether the current VMCS was launched before: chooses VMRESUME
 *
 * An NMI that caused the exit has been handled on return, while NMIs were still blocked; an external
 * interrupt has not.
 *
 * Context: Interrupts off, in VMX root operation, a complete VMCS is current.
 *
 * Return: 0 after a VM exit, 1 if VM entry failed before the guest's state was looked at.
 */
noinstr unsigned long kvm_rs_guest_enter(struct kvm_rs_guest_regs *regs, unsigned long launched)
{
	unsigned long failed;
	u64 debugctl;

	guest_state_enter_irqoff();

	if (regs->cr2 != native_read_cr2())
		native_write_cr2(regs->cr2);

	/*
	 * From here to VM entry there is no return and no indirect branch: the guest's SPEC_CTRL need
	 * not protect the host.
	 */
	kvm_rs_measures_before_entry(regs);

	/* VM exit clears the host's. */
	debugctl = native_rdmsrq(MSR_IA32_DEBUGCTLMSR);

	failed = kvm_rs_vmx_run(regs, launched);

	if (unlikely(debugctl))
		native_wrmsrq(MSR_IA32_DEBUGCTLMSR, debugctl);

	regs->cr2 = native_read_cr2();
	if (likely(!failed)) {
		regs->exit_reason = read_current_vmcs32(KVM_RS_VMCS_EXIT_REASON);
		if (unlikely((u16)regs->exit_reason == EXIT_REASON_EXCEPTION_NMI)) {
			u32 info = read_current_vmcs32(KVM_RS_VMCS_EXIT_INTERRUPTION_INFO);

			if ((info & (INTR_INFO_INTR_TYPE_MASK | INTR_INFO_VALID_MASK)) ==
			    (INTR_TYPE_NMI_INTR | INTR_INFO_VALID_MASK))
				x86_entry_from_kvm(EVENT_TYPE_NMI, NMI_VECTOR);
		}
	}

	guest_state_exit_irqoff();
	return failed;
}

/**
 * kvm_rs_handle_external_interrupt() - Give an acknowledged interrupt to its handler
 * @vector:	Vector from the VM-exit interruption information
 *
 * Context: Interrupts off.
 */
void kvm_rs_handle_external_interrupt(unsigned int vector)
{
	x86_entry_from_kvm(EVENT_TYPE_EXTINT, vector);
}

/* Whether the host's perf drives performance counters. */
static DEFINE_STATIC_KEY_FALSE(perf_counts);

/* What perf is told of a guest's own counters: there are none. */
static struct kvm_pmu no_counters;

/**
 * kvm_rs_perf_setup() - Look whether perf drives performance counters
 *
 * Return: Whether it does, so that there may be something to switch.
 */
bool kvm_rs_perf_setup(void)
{
	unsigned int count;
	bool counts;

	preempt_disable();
	counts = perf_guest_get_msrs(&count, &no_counters);
	preempt_enable();
	if (counts)
		static_branch_enable(&perf_counts);
	return counts;
}

/**
 * kvm_rs_perf_msrs() - Ask perf for the MSRs that differ between host and guest
 * @count:	Where to put their number
 *
 * Some have the same value in both.
 *
 * Context: Interrupts off; what is returned is valid for as long.
 */
const struct perf_guest_switch_msr *kvm_rs_perf_msrs(unsigned int *count)
{
	const struct perf_guest_switch_msr *msrs = perf_guest_get_msrs(count, &no_counters);

	if (!msrs)
		*count = 0;
	return msrs;
}

/**
 * kvm_rs_guest_timing_enter() - Begin guest time, in which no breakpoint of the host's hits
 *
 * Context: Interrupts off.
 *
 * Return: Whether perf has to be asked what to switch (kvm_rs_perf_msrs()).
 */
bool kvm_rs_guest_timing_enter(void)
{
	if (unlikely(hw_breakpoint_active()))
		set_debugreg(DR7_FIXED_1, 7);
	guest_timing_enter_irqoff();
	return static_branch_unlikely(&perf_counts);
}

/**
 * kvm_rs_guest_timing_exit() - Take the interrupts that came in guest time, then end guest time
 *
 * A tick that interrupted the guest must find the task still in guest time to be accounted to it.
 *
 * Context: Interrupts off, on return too.
 */
void kvm_rs_guest_timing_exit(void)
{
	kvm_rs_mark_user_ibpb();
	/* VM exit disarmed all breakpoints, whatever the guest did with its own. */
	if (unlikely(hw_breakpoint_active()))
		hw_breakpoint_restore();
	local_irq_enable();
	/* The instruction after STI does not take interrupts yet. */
	asm volatile("nop");
	local_irq_disable();
	guest_timing_exit_irqoff();
}
