// SPDX-License-Identifier: GPL-2.0

//! Exits that a client has no use for: KVM_CAP_X86_DISABLE_EXITS.
//!
//! A vCPU with a CPU of its own may as well wait on it. Where HLT does not exit, the CPU is in the activity
//! state HLT for as long as the guest waits, which an exit saves and the next entry restores.

use super::state::State;
use crate::{
    bindings::*,
    vmx::{
        controls::{
            primary,
            secondary, //
        },
        field,
        guest_state::ACTIVITY_HLT,
        vmcs::CurrentVmcs, //
    }, //
};

/// The exits that a VM does without, as KVM_X86_DISABLE_EXITS_*.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub(crate) struct DisabledExits(u32);

impl DisabledExits {
    /// Returns the exits with these bits.
    pub(crate) const fn new(bits: u32) -> Self {
        Self(bits)
    }

    /// Returns whether MONITOR and MWAIT do not exit.
    pub(super) const fn mwait(self) -> bool {
        self.0 & KVM_X86_DISABLE_EXITS_MWAIT != 0
    }

    /// Returns whether HLT does not exit.
    pub(super) const fn hlt(self) -> bool {
        self.0 & KVM_X86_DISABLE_EXITS_HLT != 0
    }

    /// Returns whether reading how long the core was in a C-state does not exit.
    pub(super) const fn cstates(self) -> bool {
        self.0 & KVM_X86_DISABLE_EXITS_CSTATE != 0
    }

    /// Returns whether reading APERF and MPERF does not exit.
    pub(super) const fn aperf_mperf(self) -> bool {
        self.0 & KVM_X86_DISABLE_EXITS_APERFMPERF != 0
    }

    /// Returns primary controls without those of the exits.
    pub(super) fn primary(self, mut controls: u32) -> u32 {
        if self.mwait() {
            controls &= !(primary::MWAIT_EXITING | primary::MONITOR_EXITING);
        }
        if self.hlt() {
            controls &= !primary::HLT_EXITING;
        }
        controls
    }

    /// Returns secondary controls without those of the exits.
    pub(super) fn secondary(self, controls: u32) -> u32 {
        if self.0 & KVM_X86_DISABLE_EXITS_PAUSE != 0 {
            controls & !secondary::PAUSE_LOOP_EXITING
        } else {
            controls
        }
    }
}

impl State {
    /// Takes the guest out of a HLT that did not exit.
    pub(crate) fn end_hlt(&self, vmcs: &CurrentVmcs<'_>) {
        if self.disabled_exits.hlt() && vmcs.read(field::GUEST_ACTIVITY_STATE) == ACTIVITY_HLT {
            vmcs.write(field::GUEST_ACTIVITY_STATE, 0);
        }
    }
}
