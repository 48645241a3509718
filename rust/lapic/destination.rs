// SPDX-License-Identifier: GPL-2.0

//! Destinations: whom a message concerns.

use super::{
    base::Mode,
    message::{
        Message,
        Shorthand,
        BROADCAST,
        X2APIC_BROADCAST, //
    },
    page::Page,
    register::{
        Register,
        DFR_CLUSTER,
        DFR_FLAT, //
    },
    state::Lapic, //
};

/// Where a message comes from, seen from an APIC that may be its receiver.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Sender {
    /// That APIC itself.
    Myself,
    /// Another APIC.
    Other,
    /// A device.
    Device {
        /// 0xff is everyone also to an APIC in x2APIC mode, since there is no interrupt
        /// remapping: so it is unless the VM opted out of that quirk.
        broadcast_quirk: bool,
    },
}

impl<P: Page> Lapic<P> {
    /// Returns whether `message` concerns this APIC. Any thread.
    ///
    /// If [`Message::is_for_one`], the caller chooses among those that it concerns and that are
    /// software-enabled, see [`lowest_priority_index`].
    pub(crate) fn receives(&self, message: &Message, sender: Sender) -> bool {
        let mode = self.mode();
        if mode == Mode::Disabled {
            return false;
        }
        match message.shorthand {
            Shorthand::None => {}
            Shorthand::Myself => return sender == Sender::Myself,
            Shorthand::All => return true,
            Shorthand::Others => return sender != Sender::Myself,
        }
        let quirk = Sender::Device {
            broadcast_quirk: true,
        };
        let everyone = sender == quirk && message.destination == BROADCAST && mode == Mode::X2apic;
        everyone || self.matches(message.destination, message.logical)
    }

    /// Returns whether `destination` names this APIC, which is enabled.
    pub(crate) fn matches(&self, destination: u32, logical: bool) -> bool {
        let x2apic = self.mode() == Mode::X2apic;
        let everyone = if x2apic { X2APIC_BROADCAST } else { BROADCAST };
        if destination == everyone {
            return true;
        }
        match (logical, x2apic) {
            (true, true) => self.matches_x2apic_logical(destination),
            (true, false) => self.matches_xapic_logical(destination),
            (false, true) => destination == self.id(),
            // An ID that xAPIC mode cannot express reaches a vCPU that was plugged in and has not
            // switched to x2APIC mode yet.
            (false, false) if destination > 0xff => destination == self.id(),
            (false, false) => destination == u32::from(self.xapic_id()),
        }
    }

    /// Returns whether cluster and bit in it match the logical ID.
    fn matches_x2apic_logical(&self, destination: u32) -> bool {
        let id = self.page().get(Register::LDR);
        id >> 16 == destination >> 16 && id & destination & 0xffff != 0
    }

    /// Returns whether the logical ID matches in the model that DFR names.
    fn matches_xapic_logical(&self, destination: u32) -> bool {
        let id = self.page().get(Register::LDR) >> 24;
        match self.page().get(Register::DFR) {
            DFR_FLAT => id & destination != 0,
            DFR_CLUSTER => id >> 4 == destination >> 4 && id & destination & 0xf != 0,
            _ => false,
        }
    }
}

/// Returns which of `candidates` software-enabled receivers gets a message to one.
///
/// The vector decides, so that the same interrupt goes to the same vCPU.
pub(crate) const fn lowest_priority_index(vector: u8, candidates: usize) -> Option<usize> {
    // CAST: widens; `usize::from` is not const.
    (vector as usize).checked_rem(candidates)
}
