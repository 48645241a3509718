// SPDX-License-Identifier: GPL-2.0

//! Guest-physical memory as the client made it of its own address space.
//!
//! A **slot** says: these frames of the guest are that range of the client's address space. All
//! slots together are an immutable **snapshot**, read under SRCU by whoever translates an address
//! and replaced as a whole by `KVM_SET_USER_MEMORY_REGION`. A snapshot shares most of its memory with
//! the one that it replaces, so that a change of one of many slots costs little.
//!
//! The memory of some slots comes from files of guest memory instead: see [`guest_memfd`].
//!
//! Who replaces it is the `mmu`: publishing a snapshot and forgetting the translations that it makes
//! wrong is one step under the lock of its tables. So this module only tells what an [`Update`]
//! needs: the planned change and the new snapshot.
//!
//! Lock order: the mutex of [`GuestMemory::update`], then the tables' lock of `mmu`. A holder of a
//! [`Snapshot`] may sleep and touch user memory, but takes neither the mutex nor waits for its holder.

mod access;
mod dirty;
pub(crate) mod guest_memfd;
mod place;
mod region;
mod ring;
mod slot;
mod slots;
mod tree;

pub(crate) use access::Word;
pub(crate) use dirty::{
    LogWord,
    Logging,
    PIECE_WORDS,
    WORD_PAGES, //
};
pub(crate) use place::{
    Area,
    Place, //
};
pub(crate) use region::{
    Change,
    FilePiece,
    Owner,
    Region,
    APIC_ACCESS_SLOT,
    USER_SLOTS, //
};
pub(crate) use ring::{
    DirtyRing,
    Rings,
    MAX_RING_BYTES, //
};
pub(crate) use slot::{
    GfnRange,
    Slot, //
};
pub(crate) use slots::Slots;

use guest_memfd::Backing;

use crate::{
    linux::srcu_cell::{
        Reader,
        Retired,
        SrcuCell, //
    },
    x86::addr::{
        Gfn,
        PAGE_SHIFT, //
    },
};
use kernel::{
    new_mutex,
    prelude::*,
    sync::{
        atomic::{
            Atomic,
            Relaxed, //
        },
        lock::mutex::MutexBackend,
        lock::Guard,
        Arc,
        Mutex, //
    },
};

/// The slots as they are, kept while somebody looks at them.
pub(crate) type Snapshot<'a> = Reader<'a, Slots>;

/// The memory of one VM.
#[pin_data]
pub(crate) struct GuestMemory {
    #[pin]
    slots: SrcuCell<Slots>,
    #[pin]
    updating: Mutex<()>,
    /// First frame that no slot may have.
    gfn_limit: Gfn,
    logging: Atomic<u32>,
    #[pin]
    rings: Rings,
}

impl GuestMemory {
    /// Returns an initialiser of memory without slots, for guest-physical addresses of at most
    /// `address_bits` bits (above 12 and at most 52).
    pub(crate) fn new(address_bits: u32) -> impl PinInit<Self, Error> {
        let frame_bits = address_bits.saturating_sub(PAGE_SHIFT);
        let gfn_limit = Gfn::new(1_u64.checked_shl(frame_bits).unwrap_or(u64::MAX));
        try_pin_init!(Self {
            slots <- SrcuCell::new(KBox::new(Slots::new(), GFP_KERNEL_ACCOUNT)?),
            updating <- new_mutex!((), "GuestMemory::updating"),
            gfn_limit: gfn_limit,
            logging: Atomic::new(Logging::default().to_bits()),
            rings <- Rings::new(),
        })
    }

    /// Returns the slots as they are now.
    pub(crate) fn snapshot(&self) -> Snapshot<'_> {
        self.slots.read()
    }

    /// Returns how the client wants writes to be logged.
    pub(crate) fn logging(&self) -> Logging {
        Logging::from_bits(self.logging.load(Relaxed))
    }

    /// Sets how the client wants writes to be logged. Slots that log already go on as they began.
    pub(crate) fn set_logging(&self, logging: Logging) {
        self.logging.store(logging.to_bits(), Relaxed);
    }

    /// Returns the vCPUs' rings of written pages.
    pub(crate) fn rings(&self) -> &Rings {
        &self.rings
    }

    /// Returns the right to change the slots, once no one else has it.
    pub(crate) fn update(&self) -> Update<'_> {
        Update {
            memory: self,
            _guard: self.updating.lock(),
        }
    }
}

/// The right to change the slots of a VM.
#[must_use = "the right is given up when this goes"]
pub(crate) struct Update<'a> {
    memory: &'a GuestMemory,
    _guard: Guard<'a, (), MutexBackend>,
}

impl<'a> Update<'a> {
    /// Returns what `region` amounts to, and the snapshot that it leads to where it changes anything.
    ///
    /// Fails with KVM's errors, in KVM's order.
    pub(crate) fn plan(&self, region: &Region, owner: Owner) -> Result<(Change, Option<Next>)> {
        let slots = self.memory.snapshot();
        let limit = self.memory.gfn_limit;
        let bitmaps = !self.memory.rings.are_used();
        let logging = bitmaps.then(|| self.memory.logging());
        let change = region.plan(
            &slots,
            owner,
            limit,
            logging,
            access::user_range_ok,
            |file, pages| Backing::open(self.memory, file.fd, file.offset, pages),
        )?;
        let Some((id, new)) = change.outcome() else {
            return Ok((change, None));
        };
        let slots = KBox::new(slots.with_change(id, new)?, GFP_KERNEL_ACCOUNT)?;
        Ok((change, Some(Next(slots))))
    }

    /// Returns the client's slot `id`, upper half included, that logs writes.
    ///
    /// `ENXIO` where rings are used instead, `EINVAL` for what no slot's number can be, `ENOENT` for a slot
    /// that is not there or does not log.
    pub(crate) fn logging_slot(&self, id: u32) -> Result<Arc<Slot>> {
        self.logging_slot_from(id, 0)
    }

    /// As [`Self::logging_slot`], for the pages from `first` on: `EINVAL` also if that is not the first of
    /// a word.
    pub(crate) fn logging_slot_from(&self, id: u32, first: u64) -> Result<Arc<Slot>> {
        if self.memory.rings.are_used() {
            return Err(ENXIO);
        }
        let id = u16::try_from(id).map_err(|_| EINVAL)?;
        if id >= USER_SLOTS || first % WORD_PAGES != 0 {
            return Err(EINVAL);
        }
        let slots = self.memory.snapshot();
        let slot = slots.by_id(slot::SlotId(id)).ok_or(ENOENT)?;
        slot.log().ok_or(ENOENT)?;
        Ok(slot.clone())
    }

    /// Makes `next` what everyone sees from now on. Does not sleep.
    ///
    /// Readers of the old snapshot are waited for when the result is dropped.
    pub(crate) fn publish(&self, next: Next) -> Retired<'a, Slots> {
        self.memory.slots.replace(next.0)
    }
}

/// A snapshot that is ready to be published.
#[must_use = "a change that is not published did not happen"]
pub(crate) struct Next(KBox<Slots>);
