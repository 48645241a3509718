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
    ///
    /// `ept` tells whether guests run on EPT.
    pub(crate) fn new(ept: bool) -> Result<Self> {
        // SAFETY: Called in process context, before any guest runs.
        kernel::error::to_result(unsafe { bindings::kvm_rs_speculation_setup(ept) })?;
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

/// Returns IA32_ARCH_CAPABILITIES for guests: what this host can promise. To be called with the measures
/// chosen.
pub(crate) fn arch_capabilities() -> u64 {
    // SAFETY: It has no preconditions.
    unsafe { bindings::kvm_rs_arch_capabilities() }
}

/// Returns the features of SPEC_CTRL and PRED_CMD as bits of CPUID leaf 0x8000_0008, EBX.
pub(crate) fn features() -> u32 {
    // SAFETY: It has no preconditions.
    unsafe { bindings::kvm_rs_speculation_features() }
}

/// Returns whether this CPU's SPEC_CTRL takes `value`.
pub(crate) fn accepts_spec_ctrl(value: u64) -> bool {
    // SAFETY: It has no preconditions.
    unsafe { bindings::kvm_rs_accepts_spec_ctrl(value) }
}

/// Returns the microcode revision as UCODE_REV tells it.
pub(crate) fn microcode_revision() -> u64 {
    // SAFETY: It has no preconditions.
    unsafe { bindings::kvm_rs_microcode_revision() }
}

/// A command that a guest gives by writing bit 0 of an MSR.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Command {
    /// PRED_CMD: forget what the branch predictors have learnt.
    PredictionBarrier,
    /// FLUSH_CMD: write back and invalidate the L1 data cache.
    FlushL1d,
}

impl Command {
    /// Returns whether this CPU knows the command, and the kernel has not turned it off.
    pub(crate) fn is_known(self) -> bool {
        match self {
            // SAFETY: It has no preconditions.
            Self::PredictionBarrier => unsafe { bindings::kvm_rs_has_ibpb() },
            // SAFETY: It has no preconditions.
            Self::FlushL1d => unsafe { bindings::kvm_rs_has_flush_l1d() },
        }
    }

    /// Gives the command to this CPU; one that it does not know is dropped.
    pub(crate) fn give(self) {
        let _preempt = PreemptGuard::new();
        if !self.is_known() {
            return;
        }
        match self {
            // SAFETY: The CPU knows the command, and preemption is off.
            Self::PredictionBarrier => unsafe { bindings::kvm_rs_ibpb() },
            // SAFETY: The CPU knows the command, and preemption is off.
            Self::FlushL1d => unsafe { bindings::kvm_rs_flush_l1d() },
        }
    }
}
