// SPDX-License-Identifier: GPL-2.0
/*
 * Module parameters. The kernel crate's are not shown in sysfs, where users look for what is in use.
 */

#define pr_fmt(fmt) KBUILD_MODNAME ": " fmt

#include <linux/capability.h>
#include <linux/cpu.h>
#include <linux/kstrtox.h>
#include <linux/module.h>
#include <linux/moduleparam.h>
#include <linux/ratelimit.h>
#include <linux/string.h>
#include <linux/sysfs.h>

#include <asm/cpufeature.h>
#include <asm/virt.h>

#include "helpers.h"
#include "periodic.h"

struct kvm_rs_parameters kvm_rs_parameters = {
	.ept = true,
	.vpid = true,
	.vnmi = true,
	.flexpriority = true,
	.unrestricted_guest = true,
	.eptad = true,
	.pml = true,
	.dirty_bits = false,
	.preemption_timer = true,
	.apicv = false,
};

module_param_named(ept, kvm_rs_parameters.ept, bool, 0444);
MODULE_PARM_DESC(ept, "Translate guest-physical addresses by extended page tables");
module_param_named(vpid, kvm_rs_parameters.vpid, bool, 0444);
MODULE_PARM_DESC(vpid, "Tag translations with virtual-processor identifiers");
module_param_named(vnmi, kvm_rs_parameters.vnmi, bool, 0444);
MODULE_PARM_DESC(vnmi, "Have the processor track whether the guest blocks NMIs");
module_param_named(flexpriority, kvm_rs_parameters.flexpriority, bool, 0444);
MODULE_PARM_DESC(flexpriority, "Virtualise the task-priority register in hardware");
module_param_named(unrestricted_guest, kvm_rs_parameters.unrestricted_guest, bool, 0444);
MODULE_PARM_DESC(unrestricted_guest, "Run real mode and nonpaged guests in hardware");
module_param_named(eptad, kvm_rs_parameters.eptad, bool, 0444);
MODULE_PARM_DESC(eptad, "Use accessed and dirty bits of extended page tables");
module_param_named(pml, kvm_rs_parameters.pml, bool, 0444);
MODULE_PARM_DESC(pml, "Log dirty pages in hardware");
module_param_named(dirty_bits, kvm_rs_parameters.dirty_bits, bool, 0444);
MODULE_PARM_DESC(dirty_bits, "Find dirty pages by dirty bits of extended page tables, where hardware keeps no log");
module_param_named(preemption_timer, kvm_rs_parameters.preemption_timer, bool, 0444);
MODULE_PARM_DESC(preemption_timer, "Use the VMX-preemption timer for local APICs' timers");
module_param_named(enable_apicv, kvm_rs_parameters.apicv, bool, 0444);
MODULE_PARM_DESC(enable_apicv, "Virtualise local APICs in hardware, with posted interrupts");

/* How long halted vCPUs poll; as KVM's parameters of these names. */
static unsigned int halt_poll_ns = 200000;
module_param(halt_poll_ns, uint, 0644);
MODULE_PARM_DESC(halt_poll_ns, "Longest time that a halted vCPU polls before it sleeps, in nanoseconds");
static unsigned int halt_poll_ns_grow = 2;
module_param(halt_poll_ns_grow, uint, 0644);
MODULE_PARM_DESC(halt_poll_ns_grow, "Factor by which a vCPU polls longer when that would have helped");
static unsigned int halt_poll_ns_grow_start = 10000;
module_param(halt_poll_ns_grow_start, uint, 0644);
MODULE_PARM_DESC(halt_poll_ns_grow_start, "Time that a vCPU polls at first, in nanoseconds");
static unsigned int halt_poll_ns_shrink = 2;
module_param(halt_poll_ns_shrink, uint, 0644);
MODULE_PARM_DESC(halt_poll_ns_shrink, "Divisor by which a vCPU polls shorter when that was in vain");

/**
 * kvm_rs_halt_polling() - Reads the parameters of halt polling, which can be written at any time
 * @polling:	Where to put them
 */
void kvm_rs_halt_polling(struct kvm_rs_halt_polling *polling)
{
	polling->ns = READ_ONCE(halt_poll_ns);
	polling->grow = READ_ONCE(halt_poll_ns_grow);
	polling->grow_start = READ_ONCE(halt_poll_ns_grow_start);
	polling->shrink = READ_ONCE(halt_poll_ns_shrink);
}

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

/* What nx_huge_pages is: on or off, left to what the CPU is like, or off for ever. */
enum {
	NX_AUTO = -1,
	NX_OFF,
	NX_ON,
	NX_NEVER,
};

static int nx_huge_pages = NX_AUTO;
static unsigned int nx_recovery_ratio = IS_ENABLED(CONFIG_PREEMPT_RT) ? 0 : 60;
static unsigned int nx_recovery_period_ms;

/* Is the CPU one that a guest can hang, and does the administrator want to do something about it? */
static bool nx_auto(void)
{
	return boot_cpu_has_bug(X86_BUG_ITLB_MULTIHIT) && !cpu_mitigations_off();
}

static int set_nx_huge_pages(const char *text, const struct kernel_param *param)
{
	bool on;
	int value;

	if (READ_ONCE(nx_huge_pages) == NX_NEVER)
		return -EPERM;
	if (sysfs_streq(text, "off"))
		value = NX_OFF;
	else if (sysfs_streq(text, "force"))
		value = NX_ON;
	else if (sysfs_streq(text, "auto"))
		value = NX_AUTO;
	else if (sysfs_streq(text, "never"))
		value = NX_NEVER;
	else if (!kstrtobool(text, &on))
		value = on ? NX_ON : NX_OFF;
	else
		return -EINVAL;
	WRITE_ONCE(nx_huge_pages, value);
	return 0;
}

static int get_nx_huge_pages(char *buffer, const struct kernel_param *param)
{
	if (READ_ONCE(nx_huge_pages) == NX_NEVER)
		return sysfs_emit(buffer, "never\n");
	return sysfs_emit(buffer, "%c\n", kvm_rs_nx_huge_pages() ? 'Y' : 'N');
}

static const struct kernel_param_ops nx_huge_pages_ops = {
	.set = set_nx_huge_pages,
	.get = get_nx_huge_pages,
};

static int set_nx_recovery(const char *text, const struct kernel_param *param)
{
	int error;

	if (READ_ONCE(nx_huge_pages) == NX_NEVER)
		return -EPERM;
	error = param_set_uint(text, param);
	/* It may be time for it now, or sooner than what waits for its time believes. */
	if (!error)
		kvm_rs_periodic_wake_all();
	return error;
}

static const struct kernel_param_ops nx_recovery_ops = {
	.set = set_nx_recovery,
	.get = param_get_uint,
};

module_param_cb(nx_huge_pages, &nx_huge_pages_ops, NULL, 0644);
__MODULE_PARM_TYPE(nx_huge_pages, "bool");
MODULE_PARM_DESC(nx_huge_pages, "Let guests execute small pages only: auto, force, off or never");
module_param_cb(nx_huge_pages_recovery_ratio, &nx_recovery_ops, &nx_recovery_ratio, 0644);
__MODULE_PARM_TYPE(nx_huge_pages_recovery_ratio, "uint");
MODULE_PARM_DESC(nx_huge_pages_recovery_ratio,
		 "Of the large pages that were split for execution, one in how many is rejoined at a time");
module_param_cb(nx_huge_pages_recovery_period_ms, &nx_recovery_ops, &nx_recovery_period_ms, 0644);
__MODULE_PARM_TYPE(nx_huge_pages_recovery_period_ms, "uint");
MODULE_PARM_DESC(nx_huge_pages_recovery_period_ms,
		 "Milliseconds from one time to the next; 0 has half of them rejoined in an hour");

/**
 * kvm_rs_nx_huge_pages() - Are new VMs to execute small pages only?
 *
 * Return: Whether they are.
 */
bool kvm_rs_nx_huge_pages(void)
{
	int value = READ_ONCE(nx_huge_pages);

	return value == NX_ON || (value == NX_AUTO && nx_auto());
}

/**
 * kvm_rs_nx_recovery() - How are large pages rejoined that were split for execution?
 * @period_ms:	Receives the milliseconds from one time to the next
 *
 * Return: One in how many is rejoined at a time, 0 for none.
 */
unsigned int kvm_rs_nx_recovery(unsigned int *period_ms)
{
	unsigned int ratio = READ_ONCE(nx_recovery_ratio);

	/* Not more often than once a second, unless that is asked for. */
	*period_ms = READ_ONCE(nx_recovery_period_ms) ?: 60 * 60 * 1000 / clamp(ratio, 1, 3600);
	return ratio;
}

/**
 * kvm_rs_may_reboot() - May the calling process reboot the system?
 *
 * Return: Whether it may.
 */
bool kvm_rs_may_reboot(void)
{
	return capable(CAP_SYS_BOOT);
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

	/* After VMXOFF for a reboot, all fail. */
	if (READ_ONCE(virt_rebooting) || kvm_rs_system_is_going_down())
		return false;
	if (!READ_ONCE(dump_invalid_vmcs)) {
		pr_warn_ratelimited("VM entry failed; dump_invalid_vmcs=1 would print the VMCS\n");
		return false;
	}
	return __ratelimit(&dumps);
}
