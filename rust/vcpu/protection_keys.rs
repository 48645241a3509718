// SPDX-License-Identifier: GPL-2.0

//! Protection keys for user pages: the guest's PKRU.
//!
//! The kernel switches PKRU with tasks, apart from the rest of the extended state, and its own accesses to
//! user space obey it. So the guest's is in the register from entry to exit only, with interrupts off, and
//! only if the guest can get at it.

use super::state::State;
use crate::{
    linux::host,
    x86::control_regs::{
        Cr4,
        Xcr0, //
    }, //
};

/// The guest's PKRU, and what the guest can do with it.
#[derive(Default)]
pub(crate) struct ProtectionKeys {
    /// PKRU while the guest is not entered.
    pub(crate) pkru: u32,
    /// The host's while the guest is entered.
    host: u32,
    /// By which registers the guest can get at it.
    reach: u8,
}

/// CR4.PKE: its instructions work, and pages are protected.
const BY_CR4: u8 = 1 << 0;
/// XCR0.PKRU: XSAVE and XRSTOR have it.
const BY_XCR0: u8 = 1 << 1;

impl ProtectionKeys {
    /// Returns whether the guest can get at it.
    #[inline]
    pub(super) fn are_used(&self) -> bool {
        self.reach != 0
    }

    /// Loads the guest's PKRU, if they are used. Interrupts must be off until [`ProtectionKeys::save`].
    #[cold]
    pub(super) fn load(&mut self) {
        self.host = host::swap_pkru(self.pkru);
    }

    /// Takes the guest's PKRU back, and loads the host's.
    #[cold]
    pub(super) fn save(&mut self) {
        self.pkru = host::swap_pkru(self.host);
    }

    /// Follows a new CR4.
    pub(super) fn follow_cr4(&mut self, cr4: Cr4) {
        self.set_reach(BY_CR4, cr4.contains(Cr4::PKE));
    }

    fn set_reach(&mut self, by: u8, on: bool) {
        self.reach = if on {
            self.reach | by
        } else {
            self.reach & !by
        };
    }

    /// Returns the PKRU that accesses to user pages obey: 0, which forbids nothing, without CR4.PKE.
    pub(super) fn rights(&self) -> u32 {
        if self.reach & BY_CR4 != 0 {
            self.pkru
        } else {
            0
        }
    }
}

impl State {
    /// Loads XCR0 as the guest sees it.
    pub(super) fn load_xcr0(&mut self, value: Xcr0) {
        self.xcr0 = value;
        self.protection_keys
            .set_reach(BY_XCR0, value.contains(Xcr0::PKRU));
        self.cpuid_stale = true;
    }
}
