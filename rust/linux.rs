// SPDX-License-Identifier: GPL-2.0

//! What the kernel crate lacks, written as if to be sent there.
//!
//! Each file wraps one part of the kernel in types that cannot be misused, and each symbol that the
//! kernel exports to KVM's own modules only is used in exactly one of them (or in its C shim).

pub(crate) mod anon_inode;
pub(crate) mod clock;
pub(crate) mod cpu_call;
pub(crate) mod debugfs;
pub(crate) mod eventfd;
pub(crate) mod fetch;
pub(crate) mod fpu;
pub(crate) mod guest;
pub(crate) mod guest_memfd;
pub(crate) mod host;
pub(crate) mod log;
pub(crate) mod mmu_notifier;
pub(crate) mod mutex;
pub(crate) mod page;
pub(crate) mod parameter;
pub(crate) mod per_cpu;
pub(crate) mod periodic;
pub(crate) mod preempt;
pub(crate) mod rcu_cell;
pub(crate) mod rwlock;
pub(crate) mod shrinker;
pub(crate) mod signal_mask;
pub(crate) mod speculation;
pub(crate) mod srcu_cell;
pub(crate) mod task;
pub(crate) mod timer;
pub(crate) mod tracepoint;
pub(crate) mod uaccess;
pub(crate) mod user_map;
pub(crate) mod user_page;
pub(crate) mod virt;
pub(crate) mod wait;
pub(crate) mod work;
