// SPDX-License-Identifier: GPL-2.0
/* Shims for the host's clocks and the scheduler's accounts. */

#include <linux/clocksource_ids.h>
#include <linux/sched.h>
#include <linux/timekeeping.h>

#include <asm/msr.h>

#include "helpers.h"

/**
 * kvm_rs_take_clock_snapshot() - Read the host's clocks at one moment
 * @out:	Filled in
 */
void kvm_rs_take_clock_snapshot(struct kvm_rs_clock_snapshot *out)
{
	struct system_time_snapshot now;

	ktime_get_snapshot_id(CLOCK_REALTIME, &now);
	out->base_ns = ktime_to_ns(now.monoraw) +
		       ktime_to_ns(ktime_mono_to_any(0, TK_OFFS_BOOT));
	out->real_ns = ktime_to_ns(now.systime);
	out->tsc_based = now.valid && now.cs_id == CSID_X86_TSC;
	out->tsc = out->tsc_based ? now.cycles : rdtsc();
}

/**
 * kvm_rs_run_delay() - How long the current task was ready and did not run
 *
 * Return: Nanoseconds.
 */
u64 kvm_rs_run_delay(void)
{
#ifdef CONFIG_SCHED_INFO
	return current->sched_info.run_delay;
#else
	return 0;
#endif
}
