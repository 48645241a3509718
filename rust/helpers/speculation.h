/* SPDX-License-Identifier: GPL-2.0 */
/* The part of speculation.c that the world switch uses. */
#ifndef KVM_RS_SPECULATION_H
#define KVM_RS_SPECULATION_H

#include <linux/jump_label.h>

#include <asm/cpufeature.h>
#include <asm/msr.h>
#include <asm/nospec-branch.h>

#include "../vmx/guest_regs.h"

DECLARE_STATIC_KEY_FALSE(kvm_rs_entry_measures);
DECLARE_STATIC_KEY_FALSE(kvm_rs_l1d_should_flush);
DECLARE_STATIC_KEY_FALSE(kvm_rs_l1d_flush_cond);

void __kvm_rs_flush_l1d(const struct kvm_rs_guest_regs *regs);

/**
 * kvm_rs_measures_before_entry() - Take the measures that must come directly before VM entry
 * @regs:	The guest's registers
 *
 * A CPU that needs none pays for one branch, which is never taken.
 *
 * Context: Interrupts off, in guest state.
 */
static __always_inline void kvm_rs_measures_before_entry(const struct kvm_rs_guest_regs *regs)
{
	if (!static_branch_unlikely(&kvm_rs_entry_measures))
		return;
	if (static_branch_unlikely(&kvm_rs_l1d_should_flush))
		__kvm_rs_flush_l1d(regs);
	if (cpu_feature_enabled(X86_FEATURE_MSR_SPEC_CTRL) &&
	    regs->spec_ctrl != raw_cpu_read(x86_spec_ctrl_current))
		native_wrmsrq(MSR_IA32_SPEC_CTRL, regs->spec_ctrl);
}

/**
 * kvm_rs_mark_user_ibpb() - Have the guest's branch predictions dropped before user space runs here
 *
 * Context: Preemption off, so that it is noted for the CPU that ran the guest.
 */
static __always_inline void kvm_rs_mark_user_ibpb(void)
{
	if (cpu_feature_enabled(X86_FEATURE_IBPB_EXIT_TO_USER))
		this_cpu_write(x86_ibpb_exit_to_user, true);
}

#endif
