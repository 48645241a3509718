// SPDX-License-Identifier: GPL-2.0

//! What an entry loads for some guests only, and their exits undo, so that others pay for one look at it.

use super::state::State;
use crate::{
    linux::cpu_call::rdtsc,
    vmx::vmcs::CurrentVmcs, //
};

/// Pieces of it.
#[derive(Clone, Copy, Default)]
pub(crate) struct EntryWork(u32);

impl EntryWork {
    /// The addresses of breakpoints.
    pub(super) const BREAKPOINTS: u32 = 1 << 0;
    /// What is left until the timer is to go off.
    pub(super) const TIMER: u32 = 1 << 1;
    /// All debug registers, which the guest has to itself until its next exit.
    pub(super) const DEBUG_LEASE: u32 = 1 << 2;
    /// PKRU, until the next exit.
    pub(super) const PROTECTION_KEYS: u32 = 1 << 3;

    /// What the exit undoes.
    const UNTIL_EXIT: u32 = Self::DEBUG_LEASE | Self::PROTECTION_KEYS;

    /// Returns whether there is none.
    #[inline]
    pub(super) const fn is_none(self) -> bool {
        self.0 == 0
    }

    /// Returns whether the exit has something to undo.
    #[inline]
    pub(super) const fn lasts_until_exit(self) -> bool {
        self.has(Self::UNTIL_EXIT)
    }

    /// Adds a piece, or takes it away.
    pub(super) fn set(&mut self, piece: u32, on: bool) {
        self.0 = if on { self.0 | piece } else { self.0 & !piece };
    }

    /// Returns whether any of these pieces is there.
    pub(super) const fn has(self, pieces: u32) -> bool {
        self.0 & pieces != 0
    }
}

impl State {
    /// Does the work; the guest is about to be entered, with interrupts off.
    #[inline(never)]
    pub(super) fn do_entry_work(&mut self, vmcs: &CurrentVmcs<'_>) {
        if self
            .entry_work
            .has(EntryWork::BREAKPOINTS | EntryWork::DEBUG_LEASE)
        {
            self.debug.load();
        }
        if self.entry_work.has(EntryWork::DEBUG_LEASE) {
            self.debug.load_status();
        }
        if self.entry_work.has(EntryWork::PROTECTION_KEYS) {
            self.protection_keys.load();
        }
        if self.entry_work.has(EntryWork::TIMER) {
            let again = self.timer.load(vmcs, rdtsc());
            self.entry_work.set(EntryWork::TIMER, again);
        }
    }

    /// Undoes what lasts until an exit; interrupts are still off.
    #[cold]
    #[inline(never)]
    pub(super) fn undo_entry_work(&mut self, vmcs: &CurrentVmcs<'_>) {
        if self.entry_work.has(EntryWork::PROTECTION_KEYS) {
            self.protection_keys.save();
        }
        if self.entry_work.has(EntryWork::DEBUG_LEASE) {
            self.take_back_debug_registers(vmcs);
        }
    }

    /// Has a timer that is set end the next stay in the guest at once, for its time to be computed anew.
    pub(super) fn recheck_timer(&mut self) {
        if self.timer.is_set() {
            self.set_timer(Some(0));
        }
    }

    /// Has the CPU's timer end the stay in the guest at this time of the host's time-stamp counter, or not
    /// any more.
    pub(super) fn set_timer(&mut self, deadline: Option<u64>) {
        self.timer.set(deadline);
        self.entry_work.set(EntryWork::TIMER, true);
    }
}
