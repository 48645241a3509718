// SPDX-License-Identifier: GPL-2.0
/*
 * Module parameters. The kernel crate's are not shown in sysfs, where users look for what is in use.
 */

#define pr_fmt(fmt) KBUILD_MODNAME ": " fmt

#include <linux/module.h>
#include <linux/moduleparam.h>
#include <linux/ratelimit.h>

#include "helpers.h"

struct kvm_rs_parameters kvm_rs_parameters = {
	.ept = true,
	.vpid = true,
	.flexpriority = true,
	.unrestricted_guest = true,
	.eptad = true,
	.pml = true,
};

module_param_named(ept, kvm_rs_parameters.ept, bool, 0444);
MODULE_PARM_DESC(ept, "Translate guest-physical addresses by extended page tables");
module_param_named(vpid, kvm_rs_parameters.vpid, bool, 0444);
MODULE_PARM_DESC(vpid, "Tag translations with virtual-processor identifiers");
module_param_named(flexpriority, kvm_rs_parameters.flexpriority, bool, 0444);
MODULE_PARM_DESC(flexpriority, "Virtualise the task-priority register in hardware");
module_param_named(unrestricted_guest, kvm_rs_parameters.unrestricted_guest, bool, 0444);
MODULE_PARM_DESC(unrestricted_guest, "Run real mode and nonpaged guests in hardware");
module_param_named(eptad, kvm_rs_parameters.eptad, bool, 0444);
MODULE_PARM_DESC(eptad, "Use accessed and dirty bits of extended page tables");
module_param_named(pml, kvm_rs_parameters.pml, bool, 0444);
MODULE_PARM_DESC(pml, "Log dirty pages in hardware");

static bool dump_invalid_vmcs;
module_param(dump_invalid_vmcs, bool, 0644);
MODULE_PARM_DESC(dump_invalid_vmcs, "Print the VMCS when a VM entry fails");

static bool eager_page_split = true;
module_param(eager_page_split, bool, 0644);
MODULE_PARM_DESC(eager_page_split, "Split large pages when writes begin to be logged, not at the first write");

/**
 * kvm_rs_eager_page_split() - Are large pages to be split when writes begin to be logged?
 *
 * Return: Whether they are; else each is split by its first write.
 */
bool kvm_rs_eager_page_split(void)
{
	return READ_ONCE(eager_page_split);
}

/**
 * kvm_rs_wants_vmcs_dump() - Asks whether to print the VMCS of an entry that failed
 *
 * Tells how to have it printed if not. A guest and its client can make entries fail as often as they
 * like, so one dump in five seconds is allowed.
 *
 * Return: Whether to print it now.
 */
bool kvm_rs_wants_vmcs_dump(void)
{
	static DEFINE_RATELIMIT_STATE(dumps, DEFAULT_RATELIMIT_INTERVAL, 1);

	if (!READ_ONCE(dump_invalid_vmcs)) {
		pr_warn_ratelimited("VM entry failed; dump_invalid_vmcs=1 would print the VMCS\n");
		return false;
	}
	return __ratelimit(&dumps);
}
