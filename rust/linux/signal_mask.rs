// SPDX-License-Identifier: GPL-2.0

//! The signals that a client blocks while its guest runs.

use crate::bindings;
use kernel::types::NotThreadSafe;

/// A set of signals, one bit each.
#[derive(Clone, Copy)]
pub(crate) struct SignalMask(pub(crate) u64);

impl SignalMask {
    /// Blocks exactly these signals for the current task until the guard is dropped.
    ///
    /// A signal that arrives in between stays pending with the old mask, which KVM_RUN's caller wants:
    /// it sees the signal as soon as it unblocks it.
    pub(crate) fn block(&self) -> Blocked {
        // SAFETY: It changes the current task's own mask, and the guard restores it.
        unsafe { bindings::kvm_rs_signals_block(self.0) };
        Blocked(NotThreadSafe)
    }
}

/// Proof that a [`SignalMask`] is in force.
#[must_use = "the old mask returns when the guard is dropped"]
pub(crate) struct Blocked(NotThreadSafe);

impl Drop for Blocked {
    fn drop(&mut self) {
        // SAFETY: The guard's existence shows that `block` saved the old mask of this task.
        unsafe { bindings::kvm_rs_signals_unblock() };
    }
}
