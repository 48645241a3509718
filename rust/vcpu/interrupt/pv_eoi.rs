// SPDX-License-Identifier: GPL-2.0

//! Ends of interrupts without an exit, for a guest that knows of KVM (KVM_FEATURE_PV_EOI).
//!
//! A byte in guest memory has a bit that says: the next end of an interrupt may be told by clearing it.
//! It is set before the guest is entered, if nobody needs to hear of that end at once: no other request
//! waits for it, and no I/O APIC. After the exit, a bit that is clear was the end of the highest
//! interrupt in service; one that is still set is taken back, so that it never stands without a vCPU
//! that runs. See Documentation/virt/kvm/x86/msr.rst in the kernel's source.

use crate::{
    memory::{
        Area,
        Place, //
    },
    vcpu::{
        state::State,
        Vcpu, //
    },
    vm::Vm,
    x86::{
        addr::Gpa,
        guest_msr::MsrError, //
    }, //
};
use kernel::prelude::*;

/// Bit 0 of the MSR: the rest is an address in use.
const ENABLED: u64 = 1;
/// What of the MSR must be 0: the address is a multiple of 4.
const RESERVED: u64 = 2;
/// The bit of the byte.
const PENDING: u8 = 1;

/// Where a guest ends interrupts, which is nowhere at first.
#[derive(Clone, Copy, Default)]
pub(crate) struct PvEoi {
    msr: u64,
    place: Place,
    /// The bit is set in guest memory.
    offered: bool,
}

impl PvEoi {
    /// Returns whether the bit is set in guest memory, so that it has to be looked at after an exit.
    #[inline]
    pub(crate) fn is_offered(&self) -> bool {
        self.offered
    }

    /// Returns the MSR.
    pub(crate) fn msr(&self) -> u64 {
        self.msr
    }

    /// Sets the MSR; `Invalid` for an address where nothing can be written.
    pub(crate) fn set_msr(&mut self, vm: &Vm, value: u64) -> Result<(), MsrError> {
        if value & RESERVED != 0 {
            return Err(MsrError::Invalid);
        }
        if value & ENABLED != 0 && !vm.memory().is_writable(Gpa::new(value & !ENABLED)) {
            return Err(MsrError::Invalid);
        }
        self.msr = value;
        Ok(())
    }

    /// Forgets where the guest ends interrupts.
    pub(super) fn reset(&mut self) {
        *self = Self::default();
    }

    /// Returns whether the guest uses the byte.
    #[inline]
    pub(crate) fn is_used(&self) -> bool {
        self.msr & ENABLED != 0
    }

    /// Opens the byte.
    fn open<'a>(&mut self, vm: &'a Vm) -> Area<'a> {
        self.place
            .open(vm.memory(), Gpa::new(self.msr & !ENABLED), 1)
    }
}

impl Vcpu {
    /// Lets the guest, which is about to be entered, end an interrupt without an exit if nobody needs to
    /// hear of that at once. Sleeps.
    #[inline]
    pub(crate) fn offer_eoi(&self, vm: &Vm, state: &mut State) {
        if state.pv_eoi.is_used() {
            self.offer_eoi_in_use(vm, state);
        }
    }

    fn offer_eoi_in_use(&self, vm: &Vm, state: &mut State) {
        if state.apicv.is_active() {
            // They do not exit anyway.
            return;
        }
        self.take_posted();
        let is_wanted = |vector| vm.irqs().is_some_and(|irqs| irqs.may_want_end(vector));
        let can_wait = self
            .controller()
            .is_some_and(|controller| controller.lapic().end_can_wait(is_wanted));
        if can_wait && !state.pv_eoi.offered {
            state.pv_eoi.offered = state.pv_eoi.open(vm).write(0, PENDING).is_ok();
        }
    }

    /// Ends the interrupt that the guest ended without an exit, if it did; the guest has exited. Sleeps.
    #[inline]
    pub(crate) fn take_back_eoi(&self, vm: &Vm, state: &mut State) {
        if state.pv_eoi.offered {
            self.take_back_offered_eoi(vm, state);
        }
    }

    fn take_back_offered_eoi(&self, vm: &Vm, state: &mut State) {
        state.pv_eoi.offered = false;
        if !state.pv_eoi.is_used() {
            return;
        }
        let area = state.pv_eoi.open(vm);
        // As in KVM, where memory went away the interrupt counts as ended.
        let untouched =
            area.read::<u8>(0).is_ok_and(|byte| byte & PENDING != 0) && area.write(0, 0_u8).is_ok();
        if untouched {
            return;
        }
        let ended = match (self.controller(), state.lapic.as_ref()) {
            (Some(controller), Some(owned)) => controller.lapic().end_of_interrupt(owned),
            _ => return,
        };
        self.perform(vm, state, ended);
    }
}
