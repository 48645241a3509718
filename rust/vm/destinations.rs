// SPDX-License-Identifier: GPL-2.0

//! The VM's table of destinations: which vCPUs a message concerns, found without a lock.
//!
//! The table is built from the vCPUs' local APICs. Whatever changes an APIC's mode or IDs counts that in
//! `changes`, and has a vCPU's thread make a new table before it enters its guest. A table that is older
//! than the last change is not used: messages are then shown to each APIC, which is slower and as right.

use super::Vcpus;
use crate::{
    bindings,
    lapic::{
        DestinationMap,
        Found,
        Message,
        Receivers,
        MIN_IDS, //
    },
    linux::rcu_cell::{
        RcuCell,
        Retired, //
    },
    vcpu::Vcpu, //
};
use kernel::{
    new_mutex,
    prelude::*,
    sync::{
        atomic::{
            Acquire,
            Atomic,
            Full,
            Relaxed, //
        },
        rcu,
        Arc,
        Mutex, //
    }, //
};

/// How many tables that were replaced may wait for their readers before somebody waits for them.
const MAX_RETIRED: usize = 4;

const WIDE: u32 = bindings::KVM_RS_X2APIC_API_USE_32BIT_IDS;
const NO_BROADCAST_QUIRK: u32 = bindings::KVM_RS_X2APIC_API_DISABLE_BROADCAST_QUIRK;

/// The flags of KVM_CAP_X2APIC_API that are about destinations.
pub(super) const FORMATS: u32 = WIDE | NO_BROADCAST_QUIRK;

/// A table, and the vCPUs that its numbers stand for.
struct Table {
    map: DestinationMap<KVVec<u16>>,
    vcpus: KVVec<Arc<Vcpu>>,
    /// The number of changes that it knows of.
    changes: u64,
}

/// The VM's table of destinations.
#[pin_data]
pub(crate) struct Destinations {
    table: RcuCell<Table>,
    /// How often an APIC's mode or IDs changed, or a vCPU came or went.
    changes: Atomic<u64>,
    /// Which of [`FORMATS`] the client asked for.
    formats: Atomic<u32>,
    /// Held by who makes a new table.
    #[pin]
    retired: Mutex<KVec<Retired<Table>>>,
}

/// The vCPUs that a message concerns.
pub(crate) struct Concerned<'a> {
    receivers: Receivers<'a>,
    vcpus: &'a [Arc<Vcpu>],
}

impl Concerned<'_> {
    /// Iterates over the vCPUs, in the order of their IDs.
    #[inline]
    pub(crate) fn iter(&self) -> impl Iterator<Item = &Vcpu> {
        self.receivers
            .iter()
            .filter_map(|number| self.vcpus.get(number))
            .map(|vcpu| &**vcpu)
    }
}

/// The vCPUs by physical APIC ID.
pub(crate) struct ById<'a>(&'a Table);

impl ById<'_> {
    /// Returns the vCPU with this ID; `None` if there is none, or more than one.
    pub(crate) fn find(&self, id: u32) -> Option<&Vcpu> {
        let number = self.0.map.number_of(id)?;
        self.0.vcpus.get(number).map(|vcpu| &**vcpu)
    }
}

impl Destinations {
    /// Returns an initialiser of the table of a VM without vCPUs.
    pub(super) fn new() -> impl PinInit<Self, Error> {
        try_pin_init!(Self {
            table: RcuCell::new(KBox::new(
                Table {
                    map: DestinationMap::new(KVVec::new()),
                    vcpus: KVVec::new(),
                    changes: 0,
                },
                GFP_KERNEL_ACCOUNT,
            )?),
            // The empty table has no room for the IDs that a message may name: it is not to be used.
            changes: Atomic::new(1),
            formats: Atomic::new(0),
            retired <- new_mutex!(KVec::new()),
        })
    }

    /// Turns on what KVM_CAP_X2APIC_API says of destinations, for good.
    pub(super) fn enable_formats(&self, flags: u32) {
        let mut old = self.formats.load(Relaxed);
        while let Err(now) = self.formats.cmpxchg(old, old | flags & FORMATS, Full) {
            old = now;
        }
    }

    /// Returns whether APIC IDs of the client, and destinations of devices' messages, have 32 bits.
    #[inline]
    pub(crate) fn are_wide(&self) -> bool {
        self.formats.load(Relaxed) & WIDE != 0
    }

    /// Returns whether devices reach everyone by 0xff, see
    /// [`Sender::Device`](crate::lapic::Sender::Device).
    #[inline]
    pub(crate) fn has_broadcast_quirk(&self) -> bool {
        self.formats.load(Relaxed) & NO_BROADCAST_QUIRK == 0
    }

    /// Notes that an APIC's mode or IDs have changed, or that a vCPU came or went.
    pub(crate) fn note_change(&self) {
        self.changes.fetch_add(1, Full);
    }

    /// Calls `f` with the vCPUs that a message without shorthand concerns; it must not sleep.
    ///
    /// Returns `None` if each vCPU has to be asked instead. `broadcast_quirk` tells that 0xff is
    /// everyone, see [`Sender::Device`](crate::lapic::Sender::Device). Any context.
    #[inline]
    pub(crate) fn find<R>(
        &self,
        message: &Message,
        broadcast_quirk: bool,
        f: impl FnOnce(&Concerned<'_>) -> R,
    ) -> Option<R> {
        let guard = rcu::read_lock();
        let table = self.table.read(&guard);
        if table.changes != self.changes.load(Acquire) {
            return None;
        }
        match table.map.find(message, broadcast_quirk) {
            Found::Unclear => None,
            Found::Receivers(receivers) => Some(f(&Concerned {
                receivers,
                vcpus: &table.vcpus,
            })),
        }
    }

    /// Calls `f` with the vCPUs by physical APIC ID; it must not sleep.
    ///
    /// Returns `None` if the table is out of date. Any context.
    pub(crate) fn with_ids<R>(&self, f: impl FnOnce(&ById<'_>) -> R) -> Option<R> {
        let guard = rcu::read_lock();
        let table = self.table.read(&guard);
        (table.changes == self.changes.load(Acquire)).then(|| f(&ById(table)))
    }

    /// Returns whether there were no changes since the table was made.
    fn is_current(&self) -> bool {
        let guard = rcu::read_lock();
        self.table.read(&guard).changes == self.changes.load(Acquire)
    }

    /// Makes a new table if there were changes. May sleep.
    ///
    /// Without memory for it the old table stays, and is not used.
    pub(crate) fn update(&self, vcpus: &Vcpus) {
        if self.is_current() {
            return;
        }
        let mut retired = self.retired.lock();
        // Before the APICs are looked at: a change meanwhile makes the new table out of date.
        let changes = self.changes.load(Acquire);
        let Ok(table) = Table::build(vcpus, changes) else {
            return;
        };
        if retired.reserve(1, GFP_KERNEL_ACCOUNT).is_err() {
            return;
        }
        retired.retain(|table| !table.is_free());
        if retired.len() >= MAX_RETIRED {
            retired.clear();
        }
        let old = self.table.replace(table);
        // There is room.
        let _ = retired.push_within_capacity(old);
    }
}

impl Table {
    /// Returns the table of the vCPUs as they are now.
    fn build(list: &Vcpus, changes: u64) -> Result<KBox<Self>> {
        let vcpus = list.all()?;
        let last = vcpus.iter().map(|vcpu| vcpu.id()).max().unwrap_or(0) as usize;
        let ids = MIN_IDS.max(last.saturating_add(1));
        let mut map = DestinationMap::new(KVVec::from_elem(0, ids, GFP_KERNEL_ACCOUNT)?);
        for (number, vcpu) in vcpus.iter().enumerate() {
            if let Some(controller) = vcpu.controller() {
                map.add(number, &controller.lapic().identity());
            }
        }
        Ok(KBox::new(
            Self {
                map,
                vcpus,
                changes,
            },
            GFP_KERNEL_ACCOUNT,
        )?)
    }
}
