// SPDX-License-Identifier: GPL-2.0

//! Protection keys for user pages: the guest's PKRU.
//!
//! The kernel switches PKRU with tasks, apart from the rest of the extended state, and its own accesses to
//! user space obey it. So the guest's is in the register from entry to exit only, with interrupts off, and
//! only if the guest can get at it.

use super::{
    entry_work::EntryWork,
    state::State, //
};
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
    /// Loads the guest's PKRU. Interrupts must be off until [`ProtectionKeys::save`].
    pub(super) fn load(&mut self) {
        self.host = host::swap_pkru(self.pkru);
    }

    /// Takes the guest's PKRU back, and loads the host's.
    pub(super) fn save(&mut self) {
        self.pkru = host::swap_pkru(self.host);
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
    /// Follows a new CR4.
    pub(super) fn protect_by_cr4(&mut self, cr4: Cr4) {
        self.set_pkru_reach(BY_CR4, cr4.contains(Cr4::PKE));
    }

    fn set_pkru_reach(&mut self, by: u8, on: bool) {
        let reach = &mut self.protection_keys.reach;
        *reach = if on { *reach | by } else { *reach & !by };
        self.entry_work.set(EntryWork::PROTECTION_KEYS, *reach != 0);
    }

    /// Loads XCR0 as the guest sees it.
    pub(super) fn load_xcr0(&mut self, value: Xcr0) {
        self.xcr0 = value;
        self.set_pkru_reach(BY_XCR0, value.contains(Xcr0::PKRU));
        self.cpuid_stale = true;
    }
}
