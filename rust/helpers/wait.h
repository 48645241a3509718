/* SPDX-License-Identifier: GPL-2.0 */
/* C shim for rust/linux/wait.rs. */
#ifndef KVM_RS_WAIT_H
#define KVM_RS_WAIT_H

#include <linux/types.h>

struct rcuwait;

int kvm_rs_wait_interruptible(struct rcuwait *wait, bool (*ready)(const void *data),
			      const void *data);

#endif
