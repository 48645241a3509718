// SPDX-License-Identifier: GPL-2.0

//! A table of destinations: whom a message concerns, without asking each APIC.
//!
//! The table names APICs by numbers that its maker gives them. It answers exactly as
//! [`Lapic::receives`] of each APIC would, or says that it cannot tell: where two APICs share an ID,
//! or differ in the model of their logical IDs.

use core::ops::DerefMut;

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

/// The fewest physical IDs that a table has room for: all of xAPIC mode.
pub(crate) const MIN_IDS: usize = 256;
/// The number of APICs that a table can name.
pub(crate) const MAX_APICS: usize = 0x4000;

/// An entry for no APIC.
const NOBODY: u16 = 0xffff;
/// An entry for several APICs.
const SEVERAL: u16 = 0xfffe;
/// Flag of an entry: the APIC is in x2APIC mode.
const X2APIC: u16 = 0x8000;

/// Logical IDs in the cluster model: clusters, and bits of each. The flat model has eight bits.
const CLUSTERS: usize = 16;
const CLUSTER_BITS: usize = 4;
/// Bits of a cluster in x2APIC mode.
const X2APIC_CLUSTER_BITS: usize = 16;

/// What of an APIC decides whether a message concerns it, at one moment.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Identity {
    mode: Mode,
    id: u32,
    xapic_id: u8,
    logical_id: u8,
    destination_format: u32,
}

impl<P: Page> Lapic<P> {
    /// Returns what decides whether a message concerns the APIC. Any thread.
    pub(crate) fn identity(&self) -> Identity {
        Identity {
            mode: self.mode(),
            id: self.id(),
            xapic_id: self.xapic_id(),
            // CAST: Eight bits are left.
            logical_id: (self.page().get(Register::LDR) >> 24) as u8,
            destination_format: self.page().get(Register::DFR),
        }
    }
}

/// The model of logical IDs that all APICs with one share.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Model {
    /// No APIC has a logical ID.
    None,
    /// One bit for each APIC.
    Flat,
    /// Four bits in each cluster.
    Cluster,
    /// 16 bits in each cluster, derived from the physical ID.
    X2apic,
    /// The APICs differ, or share logical IDs.
    Unclear,
}

/// A table of destinations. `S` is the list by physical ID, which is the caller's to allocate.
pub(crate) struct DestinationMap<S> {
    physical: S,
    logical: [u16; CLUSTERS * CLUSTER_BITS],
    model: Model,
    any_xapic: bool,
    any_x2apic: bool,
    incomplete: bool,
}

/// The answer of a table.
pub(crate) enum Found<'a> {
    /// The APICs have to be asked.
    Unclear,
    /// These APICs, in the order of their IDs.
    Receivers(Receivers<'a>),
}

/// The APICs that a message concerns.
#[derive(Clone, Copy)]
pub(crate) struct Receivers<'a> {
    entries: &'a [u16],
    mask: u16,
    only_x2apic: bool,
}

impl Receivers<'_> {
    /// Iterates over the APICs' numbers.
    #[inline]
    pub(crate) fn iter(&self) -> impl Iterator<Item = usize> + '_ {
        let mut left = self.mask;
        core::iter::from_fn(move || {
            let bit = left.trailing_zeros();
            left &= left.wrapping_sub(1);
            // CAST: At most 16, which is past the end.
            (bit < 16).then(|| self.entries.get(bit as usize).copied())
        })
        .flatten()
        .filter(|&entry| entry < SEVERAL && (!self.only_x2apic || entry & X2APIC != 0))
        .map(|entry| usize::from(entry & !X2APIC))
    }
}

impl<S: DerefMut<Target = [u16]>> DestinationMap<S> {
    /// Returns a table of no APIC, with room for as many physical IDs as `physical` is long.
    pub(crate) fn new(mut physical: S) -> Self {
        physical.fill(NOBODY);
        Self {
            physical,
            logical: [NOBODY; CLUSTERS * CLUSTER_BITS],
            model: Model::None,
            any_xapic: false,
            any_x2apic: false,
            incomplete: false,
        }
    }

    /// Adds the APIC with this number.
    pub(crate) fn add(&mut self, number: usize, identity: &Identity) {
        let Some(number) = u16::try_from(number)
            .ok()
            .filter(|&number| usize::from(number) < MAX_APICS)
        else {
            self.incomplete = true;
            return;
        };
        match identity.mode {
            Mode::Disabled => {}
            Mode::Xapic => {
                self.any_xapic = true;
                self.enter(u32::from(identity.xapic_id), number);
                // See `Lapic::matches`.
                if identity.id > u32::from(u8::MAX) {
                    self.enter(identity.id, number);
                }
                self.enter_logical(identity, number);
            }
            Mode::X2apic => {
                self.any_x2apic = true;
                self.enter(identity.id, number | X2APIC);
                self.join(Model::X2apic);
            }
        }
    }

    /// Puts an APIC at a physical ID.
    fn enter(&mut self, id: u32, entry: u16) {
        let Some(place) = usize::try_from(id)
            .ok()
            .and_then(|id| self.physical.get_mut(id))
        else {
            self.incomplete = true;
            return;
        };
        if *place == NOBODY {
            *place = entry;
            return;
        }
        // Logical IDs of x2APIC mode are looked up here too.
        if (*place | entry) & X2APIC != 0 {
            self.model = Model::Unclear;
        }
        *place = SEVERAL;
    }

    /// Puts an APIC in xAPIC mode at its logical ID.
    fn enter_logical(&mut self, identity: &Identity, entry: u16) {
        let id = identity.logical_id;
        let (model, first, mask) = match identity.destination_format {
            DFR_FLAT => (Model::Flat, 0, id),
            DFR_CLUSTER => (
                Model::Cluster,
                usize::from(id >> 4) * CLUSTER_BITS,
                id & 0xf,
            ),
            _ => return,
        };
        if mask == 0 {
            return;
        }
        self.join(model);
        let bit = mask.trailing_zeros();
        // CAST: At most 7.
        match self.logical.get_mut(first + bit as usize) {
            Some(place) if *place == NOBODY && mask.is_power_of_two() => *place = entry,
            _ => self.model = Model::Unclear,
        }
    }

    /// Notes that an APIC has a logical ID of this model.
    fn join(&mut self, model: Model) {
        self.model = match self.model {
            Model::None => model,
            old if old == model => model,
            _ => Model::Unclear,
        };
    }

    /// Returns the number of the APIC with this physical ID; `None` if there is none, or more than one.
    pub(crate) fn number_of(&self, id: u32) -> Option<usize> {
        let entry = *self.physical.get(usize::try_from(id).ok()?)?;
        (entry < SEVERAL).then_some(usize::from(entry & !X2APIC))
    }

    /// Returns whom `message` concerns.
    ///
    /// `broadcast_quirk` as in [`Sender::Device`](super::Sender::Device); false for a message of an
    /// APIC.
    #[inline]
    pub(crate) fn find(&self, message: &Message, broadcast_quirk: bool) -> Found<'_> {
        let destination = message.destination;
        let everyone = match destination {
            BROADCAST => self.any_xapic || (broadcast_quirk && self.any_x2apic),
            X2APIC_BROADCAST => self.any_x2apic,
            _ => false,
        };
        if everyone || self.incomplete || !matches!(message.shorthand, Shorthand::None) {
            return Found::Unclear;
        }
        if message.logical {
            self.find_logical(destination)
        } else {
            self.find_physical(destination)
        }
    }

    fn find_physical(&self, destination: u32) -> Found<'_> {
        let entry = usize::try_from(destination)
            .ok()
            .and_then(|id| self.physical.get(id..=id));
        match entry {
            Some(&[SEVERAL]) => Found::Unclear,
            Some(entry) => Found::Receivers(Receivers {
                entries: entry,
                mask: 1,
                only_x2apic: false,
            }),
            None => nobody(),
        }
    }

    fn find_logical(&self, destination: u32) -> Found<'_> {
        // CAST: The low bits are masked below.
        let bits = destination as u16;
        let (entries, first, mask) = match self.model {
            Model::Unclear => return Found::Unclear,
            Model::None => return nobody(),
            Model::Flat => (&self.logical[..], 0, bits & 0xff),
            Model::Cluster => {
                let cluster = (destination >> 4) as usize;
                (&self.logical[..], cluster * CLUSTER_BITS, bits & 0xf)
            }
            Model::X2apic => {
                let cluster = (destination >> 16) as usize;
                (&self.physical[..], cluster * X2APIC_CLUSTER_BITS, bits)
            }
        };
        match entries.get(first..) {
            Some(entries) => Found::Receivers(Receivers {
                entries,
                mask,
                only_x2apic: self.model == Model::X2apic,
            }),
            None => nobody(),
        }
    }
}

/// Returns that a message concerns no APIC.
const fn nobody() -> Found<'static> {
    Found::Receivers(Receivers {
        entries: &[],
        mask: 0,
        only_x2apic: false,
    })
}
