// SPDX-License-Identifier: GPL-2.0

//! What keeps a guest from reading or steering the host by speculation, as far as it is not part of the
//! world switch itself.
//!
//! Which measures are taken is the kernel's choice, from its command line and the CPU's bugs. With
//! mitigations off nothing is done.

use super::preempt::PreemptGuard;
use crate::bindings;
use kernel::{
    prelude::*,
    sync::atomic::{
        Atomic,
        Relaxed, //
    }, //
};

/// The chosen measures, for as long as this exists.
pub(crate) struct Mitigations(());

impl Mitigations {
    /// Chooses the measures. To be called once, before any guest runs.
    pub(crate) fn new() -> Result<Self> {
        // SAFETY: Called in process context, before any guest runs.
        kernel::error::to_result(unsafe { bindings::kvm_rs_speculation_setup() })?;
        Ok(Self(()))
    }
}

impl Drop for Mitigations {
    fn drop(&mut self) {
        // SAFETY: Guests need this value's owner, so none runs any more.
        unsafe { bindings::kvm_rs_speculation_cleanup() };
    }
}

/// A number that tells one vCPU from all others that are or were.
pub(crate) struct PredictionDomain(u64);

impl PredictionDomain {
    /// Returns a new one.
    pub(crate) fn new() -> Self {
        static NEXT: Atomic<u64> = Atomic::new(1);
        Self(NEXT.fetch_add(1, Relaxed))
    }

    /// Makes this CPU ready for the vCPU, which is about to run on it: what another vCPU has left in the
    /// branch predictors is dropped.
    pub(crate) fn enter(&self, _preempt: &PreemptGuard) {
        // SAFETY: Preemption is off.
        unsafe { bindings::kvm_rs_vcpu_arrives(self.0) };
    }
}

/// Notes that code has run which may have brought secrets into the L1 data cache.
///
/// To be called where the run loop was left for anything that may sleep; if the task moves to another CPU
/// after it, [`PredictionDomain::enter`] notes it there.
#[inline]
pub(crate) fn host_data_touched() {
    // SAFETY: It has no preconditions.
    unsafe { bindings::kvm_rs_host_data_touched() };
}
