// SPDX-License-Identifier: GPL-2.0

//! The set of a VM's slots, and how each of its users finds one.

use super::{
    region::USER_SLOTS,
    ring::DirtyPage,
    slot::{
        GfnRange,
        Slot,
        SlotId, //
    },
    tree::{
        Order,
        Tree, //
    },
};
use crate::x86::addr::{
    Gfn,
    Hva, //
};
use kernel::{
    prelude::*,
    sync::Arc, //
};

use core::ops::Range;

/// By frames, for faults and accesses.
struct ByGfn;

impl Order for ByGfn {
    fn interval(slot: &Slot) -> Range<u64> {
        let gfns = slot.gfns();
        gfns.start.value()..gfns.end.value()
    }
}

/// By addresses of the client, for changes of its address space. Slots may share them.
struct ByHva;

impl Order for ByHva {
    fn interval(slot: &Slot) -> Range<u64> {
        slot.hva().value()..slot.hva_end()
    }
}

/// By number, for changes of the slots.
struct ById;

impl Order for ById {
    fn interval(slot: &Slot) -> Range<u64> {
        let id = u64::from(slot.id().0);
        id..id.wrapping_add(1)
    }
}

/// An immutable set of slots that do not overlap.
///
/// A look-up, and a change, which is a new set that shares most with the old, take time and memory
/// that grow with the logarithm of the number of slots.
///
/// # Invariants
///
/// The three trees hold the same slots, of which no two share a frame or have the same number.
pub(crate) struct Slots {
    /// Number of changes that led here from the empty set.
    generation: u64,
    by_gfn: Tree<ByGfn>,
    by_hva: Tree<ByHva>,
    by_id: Tree<ById>,
}

impl Slots {
    /// Returns the empty set.
    pub(crate) const fn new() -> Self {
        // INVARIANT: No slot is in any tree.
        Self {
            generation: 0,
            by_gfn: Tree::new(),
            by_hva: Tree::new(),
            by_id: Tree::new(),
        }
    }

    /// Returns a number that no other set of the same VM has that was ever current.
    #[inline]
    pub(crate) fn generation(&self) -> u64 {
        self.generation
    }

    /// Returns the slot that holds `gfn`.
    #[inline]
    pub(crate) fn find(&self, gfn: Gfn) -> Option<&Arc<Slot>> {
        self.by_gfn.at(gfn.value())
    }

    /// Returns the slot with number `id`.
    pub(crate) fn by_id(&self, id: SlotId) -> Option<&Arc<Slot>> {
        self.by_id.at(id.0.into())
    }

    /// Returns the frame of a page that a client names, if it is one of a slot that logs writes.
    pub(crate) fn gfn_of(&self, dirty: DirtyPage) -> Option<Gfn> {
        let id = u16::try_from(dirty.slot).ok()?;
        let slot = self.by_id(SlotId(id)).filter(|_| id < USER_SLOTS)?;
        let logs = slot.flags().log_dirty && dirty.page < slot.pages();
        logs.then(|| Gfn::new(slot.base().value().wrapping_add(dirty.page)))
    }

    /// Returns the frames backed by `start..end` of the client's address space, a range per slot.
    pub(crate) fn gfns_at(&self, start: Hva, end: Hva) -> impl Iterator<Item = GfnRange> + '_ {
        self.by_hva
            .overlapping(start.value()..end.value())
            .filter_map(move |slot| slot.gfns_at(start, end))
    }

    /// Returns the slots that have a frame of `range`.
    pub(crate) fn of_range(&self, range: GfnRange) -> impl Iterator<Item = &Arc<Slot>> {
        self.by_gfn
            .overlapping(range.start.value()..range.end.value())
    }

    /// Returns whether a slot other than number `except` shares a frame with `range`.
    pub(crate) fn overlaps(&self, range: GfnRange, except: SlotId) -> bool {
        self.by_gfn
            .overlapping(range.start.value()..range.end.value())
            .any(|slot| slot.id() != except)
    }

    /// Returns this set without slot `id`, and with `new`, where there is one.
    ///
    /// Fails with `EEXIST` if `new` overlaps another slot than `id`, or has the number of one, and
    /// with `ENOMEM`.
    pub(crate) fn with_change(&self, id: SlotId, new: Option<&Arc<Slot>>) -> Result<Self> {
        if let Some(new) = new {
            let taken = new.id() != id && self.by_id(new.id()).is_some();
            if taken || self.overlaps(new.gfns(), id) {
                return Err(EEXIST);
            }
        }
        let old = self.by_id(id).map(|old| &**old);
        // INVARIANT: What goes from one tree and comes into it goes from and comes into all; `new`
        // overlaps nothing that remains and has a number that nothing that remains has.
        Ok(Self {
            generation: self.generation.wrapping_add(1),
            by_gfn: self.by_gfn.replaced(old, new)?,
            by_hva: self.by_hva.replaced(old, new)?,
            by_id: self.by_id.replaced(old, new)?,
        })
    }
}

#[kunit_tests(kvm_rs_slots)]
mod tests {
    use super::*;
    use crate::{
        memory::slot::SlotFlags,
        x86::addr::Hva, //
    };

    fn slot(id: u16, base: u64, pages: u64, hva: u64) -> Arc<Slot> {
        let flags = SlotFlags::default();
        let slot = Slot::new(SlotId(id), flags, Gfn::new(base), pages, Hva::new(hva)).unwrap();
        Arc::new(slot, GFP_KERNEL).unwrap()
    }

    fn three() -> Slots {
        let mut slots = Slots::new();
        for new in [
            slot(2, 0x200, 0x100, 0x7000_0000),
            slot(0, 0x000, 0x0a0, 0x1000_0000),
            slot(1, 0x100, 0x100, 0x1000_0000),
        ] {
            slots = slots.with_change(new.id(), Some(&new)).unwrap();
        }
        slots
    }

    #[test]
    fn find_respects_bounds_and_holes() {
        let slots = three();
        let id = |gfn| slots.find(Gfn::new(gfn)).map(|slot| slot.id().0);
        assert_eq!(id(0), Some(0));
        assert_eq!(id(0x9f), Some(0));
        assert_eq!(id(0xa0), None);
        assert_eq!(id(0x100), Some(1));
        assert_eq!(id(0x1ff), Some(1));
        assert_eq!(id(0x2ff), Some(2));
        assert_eq!(id(0x300), None);
        assert_eq!(id(u64::MAX), None);
    }

    #[test]
    fn change_refuses_overlap() {
        let slots = three();
        let add = |new: Arc<Slot>| slots.with_change(new.id(), Some(&new)).err();
        assert_eq!(add(slot(3, 0xa0, 0x60, 0)), None);
        assert_eq!(add(slot(3, 0xa0, 0x61, 0)), Some(EEXIST));
        assert_eq!(add(slot(3, 0x9f, 1, 0)), Some(EEXIST));
        assert_eq!(add(slot(3, 0x2ff, 1, 0)), Some(EEXIST));
        assert_eq!(add(slot(3, 0, 0x1000, 0)), Some(EEXIST));
        // A slot may move over where it was itself.
        assert_eq!(add(slot(0, 0x20, 0x80, 0)), None);
    }

    #[test]
    fn change_removes_and_moves() {
        let slots = three();
        let less = slots.with_change(SlotId(1), None).unwrap();
        assert!(less.find(Gfn::new(0x100)).is_none());
        let moved = slots
            .with_change(SlotId(0), Some(&slot(0, 0x400, 0xa0, 0x1000_0000)))
            .unwrap();
        assert!(moved.find(Gfn::new(0)).is_none());
        assert_eq!(
            moved.find(Gfn::new(0x49f)).map(|slot| slot.id()),
            Some(SlotId(0))
        );
    }

    #[test]
    fn hva_ranges_round_outward_and_clip() {
        let slots = three();
        let range = |start, end| (Gfn::new(start), Gfn::new(end));
        let mut found = slots
            .gfns_at(Hva::new(0x1009_f800), Hva::new(0x100a_0001))
            .map(|r| (r.start, r.end));
        assert_eq!(found.next(), Some(range(0x9f, 0xa0)));
        assert_eq!(found.next(), Some(range(0x19f, 0x1a1)));
        assert_eq!(found.next(), None);
        assert!(slots
            .gfns_at(Hva::new(0), Hva::new(0x1000_0000))
            .next()
            .is_none());
        assert!(slots
            .gfns_at(Hva::new(0x7010_0000), Hva::new(u64::MAX))
            .next()
            .is_none());
    }
}
