/* SPDX-License-Identifier: GPL-2.0 */
/* C shims for rust/linux/eventfd.rs. */
#ifndef KVM_RS_EVENTFD_H
#define KVM_RS_EVENTFD_H

#include <linux/types.h>
#include <linux/wait.h>

struct eventfd_ctx;
struct file;
struct kvm_rs_eventfd_watch;

/**
 * struct kvm_rs_eventfd_watch_ops - What a watch does
 * @signalled:	The eventfd was written to; its counter is 0 again
 * @closed:	The last file of the eventfd goes
 *
 * Both are called with interrupts off and the eventfd's lock held.
 */
struct kvm_rs_eventfd_watch_ops {
	void (*signalled)(struct kvm_rs_eventfd_watch *watch);
	void (*closed)(struct kvm_rs_eventfd_watch *watch);
};

/**
 * struct kvm_rs_eventfd_watch - Somebody who takes all that is written to an eventfd
 * @entry:	In the eventfd's wait queue
 * @eventfd:	The eventfd
 * @ops:	What to call
 * @pending:	The counter was not 0 when the watch began; it was left so
 */
struct kvm_rs_eventfd_watch {
	wait_queue_entry_t entry;
	struct eventfd_ctx *eventfd;
	const struct kvm_rs_eventfd_watch_ops *ops;
	bool pending;
};

int kvm_rs_eventfd_watch(struct kvm_rs_eventfd_watch *watch, struct file *file,
			 const struct kvm_rs_eventfd_watch_ops *ops);
void kvm_rs_eventfd_unwatch(struct kvm_rs_eventfd_watch *watch);

#endif
