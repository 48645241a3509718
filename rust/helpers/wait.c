// SPDX-License-Identifier: GPL-2.0
/* Shim for a task that waits for others: the kernel has this as a macro. */

#include <linux/rcuwait.h>
#include <linux/sched.h>

#include "wait.h"

/**
 * kvm_rs_wait_interruptible() - Sleep until a condition holds or a signal comes
 * @wait:	Where wakers find the task; no other task may wait there
 * @ready:	The condition, which must not sleep; looked at after each wake-up
 * @data:	Its argument
 *
 * Return: 0, or -EINTR if a signal waits and the condition does not hold.
 */
int kvm_rs_wait_interruptible(struct rcuwait *wait, bool (*ready)(const void *data),
			      const void *data)
{
	return rcuwait_wait_event(wait, ready(data), TASK_INTERRUPTIBLE);
}
