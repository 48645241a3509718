// SPDX-License-Identifier: GPL-2.0
/*
 * Module parameters. The kernel crate's are not shown in sysfs, where users look for what is in use.
 */

#include <linux/module.h>
#include <linux/moduleparam.h>

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
