/* SPDX-License-Identifier: GPL-2.0 */
/* The part of speculation.c that the world switch uses. */
#ifndef KVM_RS_SPECULATION_H
#define KVM_RS_SPECULATION_H

#include <linux/jump_label.h>

#include <asm/cpufeature.h>
#include <asm/msr.h>
#include <asm/nospec-branch.h>

DECLARE_STATIC_KEY_FALSE(kvm_rs_l1d_should_flush);
DECLARE_STATIC_KEY_FALSE(kvm_rs_l1d_flush_cond);

void __kvm_rs_flush_l1d(void);

static __always_inline void kvm_rs_flush_l1d(void)
{
	if (static_branch_unlikely(&kvm_rs_l1d_should_flush))
		__kvm_rs_flush_l1d();
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
