// SPDX-License-Identifier: GPL-2.0

//! What clients did before there was FlexPriority: they patch the guest's accesses to its task
//! priority.
//!
//! A client that wants it hears of every access to the TPR that exits (KVM_TPR_ACCESS_REPORTING), with
//! the address of the instruction, which it replaces by a call to code of its own in the guest. That
//! code works on a word in guest memory (KVM_SET_VAPIC_ADDR), so that most accesses make no exit; the
//! word is filled from the local APIC before each VM entry, and the TPR taken from it after each exit:
//!
//! ```text
//!   bits  7:0   TPR, written by the guest
//!   bits 15:8   priority class of the highest vector in service, in the upper half
//!   bits 31:24  the highest vector requested, 0 for none
//! ```
//!
//! From these the code sees when lowering the TPR lets a request through, and makes a hypercall
//! (KVM_HC_VAPIC_POLL_IRQ), for no purpose but the exit.

use crate::{
    lapic::Priorities,
    memory::{
        GuestMemory,
        Place, //
    },
    vcpu::{
        request::Request,
        state::State,
        Vcpu, //
    },
    x86::addr::Gpa, //
};
use kernel::prelude::*;

/// Bytes of the word.
const SIZE: u64 = 4;

/// An access to the TPR, as the client is told of it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct TprAccess {
    /// RIP of the instruction.
    pub(crate) rip: u64,
    /// It wrote.
    pub(crate) write: bool,
}

/// What the client asked for of a vCPU, which is nothing at first.
#[derive(Default)]
pub(crate) struct Vapic {
    /// It wants to hear of accesses.
    reports: bool,
    /// One that it has not heard of.
    access: Option<TprAccess>,
    /// Where the word is.
    address: Option<Gpa>,
    place: Place,
}

impl Vapic {
    /// Has the client hear of accesses, or no longer.
    pub(crate) fn set_reports(&mut self, on: bool) {
        self.reports = on;
    }

    /// Returns whether the client wants to hear of accesses.
    #[inline]
    pub(crate) fn reports(&self) -> bool {
        self.reports
    }

    /// Returns whether the guest's TPR is in the word, so that each exit has to be followed by a look.
    #[inline]
    pub(crate) fn is_used(&self) -> bool {
        self.address.is_some()
    }

    /// Returns the access that the client has to hear of, once.
    pub(crate) fn take_access(&mut self) -> Option<TprAccess> {
        self.access.take()
    }

    /// Forgets the word.
    pub(super) fn reset(&mut self) {
        self.address = None;
    }
}

/// Returns the word that tells of these priorities.
fn pack(priorities: Priorities) -> u32 {
    let class = priorities.isr.unwrap_or(0) & 0xf0;
    let request = priorities.irr.unwrap_or(0);
    u32::from_le_bytes([priorities.tpr, class, 0, request])
}

impl Vcpu {
    /// Has the client hear of an access to the TPR that exited, before the guest goes on.
    pub(crate) fn report_tpr_access(&self, state: &mut State, rip: u64, write: bool) {
        if state.vapic.reports {
            state.vapic.access = Some(TprAccess { rip, write });
            // Leaves the loop of exits that are handled at once.
            self.doorbell().set(Request::Event);
        }
    }

    /// Has the guest's TPR in the word at `address`; 0 is none.
    ///
    /// `EINVAL` if there is no memory that can be written, or no local APIC.
    pub(crate) fn set_vapic_address(
        &self,
        memory: &GuestMemory,
        state: &mut State,
        address: u64,
    ) -> Result {
        self.controller().ok_or(EINVAL)?;
        if address == 0 {
            state.vapic.address = None;
            return Ok(());
        }
        let first = Gpa::new(address);
        let last = first.checked_add(SIZE - 1).ok_or(EINVAL)?;
        if !memory.is_writable(first) || !memory.is_writable(last) {
            return Err(EINVAL);
        }
        state.vapic.address = Some(first);
        Ok(())
    }

    /// Fills the word, if there is one; the guest is about to be entered. Sleeps.
    ///
    /// An interrupt that this entry injects is shown as requested still, which costs a hypercall at most.
    #[inline]
    pub(crate) fn fill_vapic(&self, memory: &GuestMemory, state: &mut State) {
        let vapic = &mut state.vapic;
        if let (Some(address), Some(controller)) = (vapic.address, self.controller()) {
            self.take_posted();
            let word = pack(controller.lapic().priorities());
            // As in KVM, memory that went away is the client's affair.
            let _ = vapic.place.open(memory, address, SIZE).write(0, word);
        }
    }

    /// Takes the TPR from the word, if there is one; the guest has exited. Sleeps.
    #[inline]
    pub(crate) fn read_vapic(&self, memory: &GuestMemory, state: &mut State) {
        let vapic = &mut state.vapic;
        if let (Some(address), Some(controller)) = (vapic.address, self.controller()) {
            // The lowest byte.
            if let Ok(tpr) = vapic.place.open(memory, address, SIZE).read::<u8>(0) {
                controller.lapic().set_tpr(tpr);
            }
        }
    }
}

#[kunit_tests(kvm_rs_vapic)]
mod tests {
    use super::*;

    #[test]
    fn the_word_has_the_layout_of_kvm() {
        let word = pack(Priorities {
            tpr: 0x45,
            isr: Some(0x38),
            irr: Some(0x91),
        });
        assert_eq!(word, 0x9100_3045);
        let none = Priorities {
            tpr: 0,
            isr: None,
            irr: None,
        };
        assert_eq!(pack(none), 0);
    }
}
