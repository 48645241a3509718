// SPDX-License-Identifier: GPL-2.0

//! Slots: pieces of guest-physical memory, each backed by a piece of the client's address space, and
//! some by a piece of a file of guest memory.

use super::{
    dirty::DirtyBitmap,
    guest_memfd::Backing,
    region::APIC_ACCESS_SLOT,
    ring::{
        DirtyPage,
        DirtyRing, //
    }, //
};
use crate::{
    linux::user_page::UserPage,
    x86::addr::{
        Gfn,
        Gpa,
        Hva,
        PAGE_SHIFT, //
    }, //
};
use kernel::prelude::*;

use core::cmp::{
    max,
    min, //
};

/// A half-open range of guest frames.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct GfnRange {
    /// First frame.
    pub(crate) start: Gfn,
    /// First frame past the range, not below `start`.
    pub(crate) end: Gfn,
}

impl GfnRange {
    /// All frames.
    pub(crate) const ALL: Self = Self {
        start: Gfn::new(0),
        end: Gfn::new(u64::MAX),
    };
}

/// A number that names a slot.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct SlotId(pub(crate) u16);

/// What a slot allows and asks for.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub(crate) struct SlotFlags {
    /// Writes by the guest are not to memory but become MMIO exits (`KVM_MEM_READONLY`).
    pub(crate) read_only: bool,
    /// Pages that are written are recorded (`KVM_MEM_LOG_DIRTY_PAGES`).
    pub(crate) log_dirty: bool,
}

/// A piece of guest-physical memory.
///
/// # Invariants
///
/// `pages` is not 0; neither `base + pages` nor `hva + pages * 4096` wraps.
#[derive(PartialEq, Eq, Debug)]
pub(crate) struct Slot {
    id: SlotId,
    flags: SlotFlags,
    base: Gfn,
    pages: u64,
    hva: Hva,
    log: Option<DirtyBitmap>,
    backing: Option<Backing>,
}

impl Slot {
    /// Returns the slot of `pages` pages from `base`, backed by the client's memory from `hva`;
    /// `None` for no page at all and for ranges that wrap.
    pub(crate) fn new(
        id: SlotId,
        flags: SlotFlags,
        base: Gfn,
        pages: u64,
        hva: Hva,
    ) -> Option<Self> {
        let size = pages.checked_mul(1 << PAGE_SHIFT)?;
        base.checked_add(pages)?;
        hva.checked_add(size)?;
        if pages == 0 {
            return None;
        }
        // INVARIANT: All clauses were checked above.
        Some(Self {
            id,
            flags,
            base,
            pages,
            hva,
            log: None,
            backing: None,
        })
    }

    /// Gives the slot a log of as many pages.
    pub(super) fn set_log(&mut self, log: DirtyBitmap) {
        self.log = Some(log);
    }

    /// Ties the slot to a piece of a file, of as many pages.
    pub(super) fn set_backing(&mut self, backing: Backing) {
        self.backing = Some(backing);
    }

    /// Returns the piece of a file that the slot is tied to.
    pub(super) fn backing(&self) -> Option<&Backing> {
        self.backing.as_ref()
    }

    /// Returns where the slot's memory comes from, if that is not the client's address space.
    ///
    /// A slot that is tied to a file which the client cannot map has its memory there only for what the
    /// guest keeps private, which no VM of this module does.
    pub(crate) fn file(&self) -> Option<FileMemory<'_>> {
        let backing = self.backing().filter(|backing| backing.is_mappable())?;
        Some(FileMemory {
            slot: self,
            backing,
        })
    }

    /// Returns which pages were written, if the slot keeps that.
    pub(crate) fn log(&self) -> Option<&DirtyBitmap> {
        self.log.as_ref()
    }

    /// Records that the page of `gfn` was written, where that is wanted: in the ring of the vCPU that
    /// wrote, if it has one, else in the slot's log.
    pub(crate) fn mark_dirty(&self, gfn: Gfn, ring: Option<&DirtyRing>) {
        let page = gfn.value().wrapping_sub(self.base.value());
        match (ring, &self.log) {
            (Some(ring), _) if self.flags.log_dirty => {
                let slot = u32::from(self.id.0);
                ring.push(DirtyPage { slot, page });
            }
            (None, Some(log)) => log.mark(page),
            _ => {}
        }
    }

    /// Returns the slot's number.
    pub(crate) fn id(&self) -> SlotId {
        self.id
    }

    /// Returns whether it is the slot of the APIC-access page.
    pub(crate) fn is_apic_access(&self) -> bool {
        self.id == SlotId(APIC_ACCESS_SLOT)
    }

    /// Returns what the slot allows and asks for.
    pub(crate) fn flags(&self) -> SlotFlags {
        self.flags
    }

    /// Returns the number of 4 KiB pages.
    pub(crate) fn pages(&self) -> u64 {
        self.pages
    }

    /// Returns the client's address of the first byte.
    pub(crate) fn hva(&self) -> Hva {
        self.hva
    }

    /// Returns the slot's first frame.
    pub(crate) fn base(&self) -> Gfn {
        self.base
    }

    /// Returns the slot's frames.
    pub(crate) fn gfns(&self) -> GfnRange {
        // By the type invariant, neither this nor the sums below wrap.
        GfnRange {
            start: self.base,
            end: Gfn::new(self.base.value().wrapping_add(self.pages)),
        }
    }

    /// Returns the slot's end in the client's address space (exclusive).
    pub(super) fn hva_end(&self) -> u64 {
        self.hva
            .value()
            .wrapping_add(self.pages.wrapping_mul(1 << PAGE_SHIFT))
    }

    /// Returns whether `gfn` is one of the slot's frames.
    pub(crate) fn contains(&self, gfn: Gfn) -> bool {
        gfn >= self.base && gfn.value().wrapping_sub(self.base.value()) < self.pages
    }

    /// Returns the client's address of a frame's first byte, `None` if it is not the slot's.
    pub(crate) fn gfn_to_hva(&self, gfn: Gfn) -> Option<Hva> {
        if !self.contains(gfn) {
            return None;
        }
        let offset = gfn.value().wrapping_sub(self.base.value()) << PAGE_SHIFT;
        self.hva.checked_add(offset)
    }

    /// Returns the client's address of a byte, `None` if it is not the slot's.
    pub(crate) fn gpa_to_hva(&self, gpa: Gpa) -> Option<Hva> {
        self.gfn_to_hva(gpa.gfn())?
            .checked_add(gpa.offset_in_page())
    }

    /// Returns the frames backed by any byte of `start..end` of the client's address space, `None`
    /// if there is none.
    pub(crate) fn gfns_at(&self, start: Hva, end: Hva) -> Option<GfnRange> {
        let first = max(start.value(), self.hva.value());
        let last = min(end.value(), self.hva_end()).checked_sub(1)?;
        if first > last {
            return None;
        }
        let frame = |hva: u64| {
            let offset = hva.wrapping_sub(self.hva.value()) >> PAGE_SHIFT;
            Gfn::new(self.base.value().wrapping_add(offset))
        };
        Some(GfnRange {
            start: frame(first),
            end: frame(last).checked_add(1)?,
        })
    }

    /// Returns whether the naturally aligned block of `pages` frames (a power of two) that holds
    /// `gfn` lies in the slot, and its memory is as aligned in the client's address space.
    pub(crate) fn fits_block(&self, gfn: Gfn, pages: u64) -> bool {
        let mask = pages.wrapping_sub(1);
        let first = gfn.value() & !mask;
        let last = gfn.value() | mask;
        let skew = (self.hva.value() >> PAGE_SHIFT) ^ self.base.value();
        skew & mask == 0 && self.contains(Gfn::new(first)) && self.contains(Gfn::new(last))
    }
}

/// The memory of a slot that comes from a file.
pub(crate) struct FileMemory<'a> {
    slot: &'a Slot,
    backing: &'a Backing,
}

impl FileMemory<'_> {
    /// Returns the host page of a frame of the slot, made if it is not there.
    ///
    /// Fails with `EFAULT` if the file is closed or the frame not the slot's, `EHWPOISON` if the page is
    /// broken, and `ENOMEM`. Sleeps.
    pub(crate) fn page(&self, gfn: Gfn) -> Result<UserPage> {
        if !self.slot.contains(gfn) {
            return Err(EFAULT);
        }
        self.backing
            .page(gfn.value().wrapping_sub(self.slot.base.value()))
    }
}

#[kunit_tests(kvm_rs_slot)]
mod tests {
    use super::*;

    fn slot(id: u16, base: u64, pages: u64, hva: u64) -> Slot {
        let flags = SlotFlags::default();
        Slot::new(SlotId(id), flags, Gfn::new(base), pages, Hva::new(hva)).unwrap()
    }

    #[test]
    fn addresses_translate() {
        let slot = slot(1, 0x100, 0x100, 0x1000_0000);
        let at = |gpa| slot.gpa_to_hva(Gpa::new(gpa)).map(Hva::value);
        assert_eq!(at(0x10_0000), Some(0x1000_0000));
        assert_eq!(at(0x1f_ffff), Some(0x100f_ffff));
        assert_eq!(at(0x20_0000), None);
        assert_eq!(at(0x0f_ffff), None);
    }

    #[test]
    fn blocks_need_room_and_equal_alignment() {
        let aligned = slot(0, 0x200, 0x300, 0x4000_0000);
        assert!(aligned.fits_block(Gfn::new(0x2ff), 0x200));
        assert!(!aligned.fits_block(Gfn::new(0x400), 0x200));
        assert!(aligned.fits_block(Gfn::new(0x4ff), 1));
        let skewed = slot(0, 0x200, 0x400, 0x4000_1000);
        assert!(!skewed.fits_block(Gfn::new(0x200), 0x200));
        assert!(skewed.fits_block(Gfn::new(0x200), 1));
    }

    #[test]
    fn slots_do_not_wrap() {
        let make = |base, pages, hva| {
            Slot::new(
                SlotId(0),
                SlotFlags::default(),
                Gfn::new(base),
                pages,
                Hva::new(hva),
            )
        };
        assert!(make(0, 0, 0).is_none());
        assert!(make(u64::MAX, 1, 0).is_none());
        assert!(make(0, 1 << 52, 0).is_none());
        assert!(make(0, 1, u64::MAX - 0xffe).is_none());
        assert!(make(0, 1, u64::MAX - 0x1000).is_some());
    }
}
