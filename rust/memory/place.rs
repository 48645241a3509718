// SPDX-License-Identifier: GPL-2.0

//! Areas of guest memory that are accessed again and again, and looked up once.
//!
//! The guest's clock, its stolen time, the byte for ends of interrupts and the word for the task priority
//! stay where the guest or the client once put them. A [`Place`] remembers where in the client's address
//! space that is. It is right as long as the slots are those of the look-up, which each snapshot's
//! generation tells; so nobody has to be told of a slot that moves or goes.

use super::{
    access::{
        self,
        Word, //
    },
    DirtyRing,
    GuestMemory,
    Slots,
    Snapshot, //
};
use crate::x86::addr::{
    Gpa,
    Hva, //
};
use kernel::{
    prelude::*,
    sync::Arc, //
};

/// Where an area was when it was last opened.
#[derive(Clone, Copy, Default)]
pub(crate) struct Place(Option<Known>);

/// The outcome of a look-up.
#[derive(Clone, Copy)]
struct Known {
    generation: u64,
    gpa: Gpa,
    len: u64,
    found: Option<Found>,
}

/// An area that is in one slot.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
struct Found {
    hva: Hva,
    writable: bool,
    log_dirty: bool,
}

impl Place {
    /// Opens `len` bytes from `gpa` on. Whether there is memory, the accesses tell.
    #[inline]
    pub(crate) fn open<'a>(&mut self, memory: &'a GuestMemory, gpa: Gpa, len: u64) -> Area<'a> {
        let slots = memory.snapshot();
        let found = match self.0 {
            Some(known)
                if known.generation == slots.generation()
                    && known.gpa == gpa
                    && known.len == len =>
            {
                known.found
            }
            _ => self.find(&slots, gpa, len),
        };
        Area {
            memory,
            gpa,
            len,
            found,
            slots,
        }
    }

    #[cold]
    fn find(&mut self, slots: &Slots, gpa: Gpa, len: u64) -> Option<Found> {
        let found = find(slots, gpa, len);
        self.0 = Some(Known {
            generation: slots.generation(),
            gpa,
            len,
            found,
        });
        found
    }
}

/// Returns where `len` bytes from `gpa` on are, if all are memory in one slot.
fn find(slots: &Slots, gpa: Gpa, len: u64) -> Option<Found> {
    let last = gpa.checked_add(len.checked_sub(1)?)?;
    let slot = slots.find(gpa.gfn())?;
    if slot.is_apic_access() || !slot.contains(last.gfn()) {
        return None;
    }
    let flags = slot.flags();
    Some(Found {
        hva: slot.gpa_to_hva(gpa)?,
        writable: !flags.read_only,
        log_dirty: flags.log_dirty,
    })
}

/// An area of guest memory, where the slots have it as long as this is held.
///
/// Accesses are by the calling thread's address space, which must be that of the slots, and fail as those
/// of [`GuestMemory`] do. An area that is not in one slot is looked up at each.
pub(crate) struct Area<'a> {
    memory: &'a GuestMemory,
    gpa: Gpa,
    len: u64,
    found: Option<Found>,
    slots: Snapshot<'a>,
}

impl Area<'_> {
    /// Returns where `size` bytes at `offset` are, `EINVAL` if they are not the area's.
    #[inline]
    fn at(&self, offset: u64, size: u64) -> Result<(Gpa, Option<(Found, Hva)>)> {
        if offset.checked_add(size).is_none_or(|end| end > self.len) {
            return Err(EINVAL);
        }
        let gpa = self.gpa.checked_add(offset).ok_or(EFAULT)?;
        let Some(found) = self.found else {
            return Ok((gpa, None));
        };
        let hva = found.hva.checked_add(offset).ok_or(EFAULT)?;
        Ok((gpa, Some((found, hva))))
    }

    /// Returns the word at `offset`. Sleeps.
    #[inline]
    pub(crate) fn read<W: Word>(&self, offset: u64) -> Result<W> {
        match self.at(offset, W::SIZE.into())? {
            (_, Some((_, hva))) => access::read_user(hva),
            (gpa, None) => self.memory.read_word_in(&self.slots, gpa),
        }
    }

    /// Puts `value` at `offset`. Sleeps.
    #[inline]
    pub(crate) fn write<W: Word>(&self, offset: u64, value: W) -> Result {
        let size = u64::from(W::SIZE);
        match self.at(offset, size)? {
            (gpa, Some((found, hva))) => {
                self.record(gpa, size, found, None, || access::write_user(hva, value))
            }
            (gpa, None) => {
                let bytes = value.into().to_le_bytes();
                let bytes = usize::try_from(size)
                    .ok()
                    .and_then(|size| bytes.get(..size));
                self.memory.write(gpa, bytes.ok_or(EINVAL)?)
            }
        }
    }

    /// Puts `data` at `offset`. Sleeps.
    pub(crate) fn write_bytes(&self, offset: u64, data: &[u8]) -> Result {
        // CAST: A length in memory.
        let size = data.len() as u64;
        match self.at(offset, size)? {
            (gpa, Some((found, hva))) => self.record(gpa, size, found, None, || {
                access::user_slice(hva, data.len())
                    .writer()
                    .write_slice(data)
            }),
            (gpa, None) => self.memory.write(gpa, data),
        }
    }

    /// Puts a byte at `offset` without sleeping, on behalf of a vCPU that may have a ring.
    pub(crate) fn try_write_byte(&self, offset: u64, byte: u8, ring: Option<&DirtyRing>) -> Result {
        match self.at(offset, 1)? {
            (gpa, Some((found, hva))) => self.record(gpa, 1, found, Some(ring), || {
                access::try_write_user(hva, byte)
            }),
            (gpa, None) => self.memory.try_write_byte(gpa, byte, ring),
        }
    }

    /// Replaces the word at `offset` by `new` if it is `old`; see [`GuestMemory::compare_exchange`].
    pub(crate) fn compare_exchange<W: Word>(
        &self,
        offset: u64,
        old: W,
        new: W,
    ) -> Result<core::result::Result<(), W>> {
        let size = u64::from(W::SIZE);
        match self.at(offset, size)? {
            (gpa, Some((found, hva))) => self.record(gpa, size, found, None, || {
                access::compare_exchange_user(hva, old, new)
            }),
            (gpa, None) => self.memory.compare_exchange(gpa, old, new),
        }
    }

    /// Does what writes `size` bytes at `gpa`, and records it where that is wanted: for the vCPU that the
    /// thread acts for, or the one that has `ring`.
    #[inline]
    fn record<T>(
        &self,
        gpa: Gpa,
        size: u64,
        found: Found,
        ring: Option<Option<&DirtyRing>>,
        write: impl FnOnce() -> Result<T>,
    ) -> Result<T> {
        if !found.writable {
            return Err(EFAULT);
        }
        if !found.log_dirty {
            return write();
        }
        let own: Option<Arc<DirtyRing>> = match ring {
            Some(_) => None,
            None => self.memory.rings().of_writer(),
        };
        let ring = ring.unwrap_or(own.as_deref());
        if ring.is_some_and(DirtyRing::is_full) {
            return Err(EFAULT);
        }
        let result = write();
        // Also of what failed, a part may have been written.
        let last = gpa.checked_add(size.saturating_sub(1)).unwrap_or(gpa);
        for gfn in [gpa.gfn(), last.gfn()] {
            if let Some(slot) = self.slots.find(gfn) {
                slot.mark_dirty(gfn, ring);
            }
            if gpa.gfn() == last.gfn() {
                break;
            }
        }
        result
    }
}

#[kunit_tests(kvm_rs_place)]
mod tests {
    use super::*;
    use crate::memory::{
        FilePiece,
        Owner,
        Region,
        APIC_ACCESS_SLOT, //
    };

    const READONLY: u32 = 1 << 1;

    fn set(memory: &GuestMemory, slot: u32, gpa: u64, size: u64, hva: u64, flags: u32) {
        let owner = if slot >= u32::from(APIC_ACCESS_SLOT) {
            Owner::Internal
        } else {
            Owner::User
        };
        let region = Region {
            slot,
            flags,
            gpa: Gpa::new(gpa),
            size,
            hva: Hva::new(hva),
            file: FilePiece::default(),
        };
        let update = memory.update();
        let (_, next) = update.plan(&region, owner).unwrap();
        drop(update.publish(next.unwrap()));
    }

    fn memory() -> Pin<KBox<GuestMemory>> {
        KBox::pin_init(GuestMemory::new(40), GFP_KERNEL).unwrap()
    }

    fn hva(place: &mut Place, memory: &GuestMemory, gpa: u64, len: u64) -> Option<u64> {
        let area = place.open(memory, Gpa::new(gpa), len);
        area.found.map(|found| found.hva.value())
    }

    #[test]
    fn a_place_follows_the_slots() {
        let memory = memory();
        let mut place = Place::default();
        assert_eq!(hva(&mut place, &memory, 0x3010, 8), None);
        set(&memory, 1, 0x2000, 0x3000, 0x70_0000, 0);
        assert_eq!(hva(&mut place, &memory, 0x3010, 8), Some(0x70_1010));
        assert_eq!(hva(&mut place, &memory, 0x3010, 8), Some(0x70_1010));
        // Another slot does not matter, nor does another area by the same place.
        set(&memory, 2, 0x8000, 0x1000, 0x90_0000, 0);
        assert_eq!(hva(&mut place, &memory, 0x3010, 8), Some(0x70_1010));
        assert_eq!(hva(&mut place, &memory, 0x8ff8, 8), Some(0x90_0ff8));
        assert_eq!(hva(&mut place, &memory, 0x8ff8, 9), None);
        // The slot moves away, and is put elsewhere in the client's memory.
        set(&memory, 1, 0x10_2000, 0x3000, 0x70_0000, 0);
        assert_eq!(hva(&mut place, &memory, 0x3010, 8), None);
        set(&memory, 1, 0, 0, 0, 0);
        set(&memory, 1, 0x2000, 0x3000, 0x50_0000, 0);
        assert_eq!(hva(&mut place, &memory, 0x3010, 8), Some(0x50_1010));
        set(&memory, 1, 0, 0, 0, 0);
        assert_eq!(hva(&mut place, &memory, 0x3010, 8), None);
    }

    #[test]
    fn only_memory_of_one_slot_is_found() {
        let memory = memory();
        let apic = u32::from(APIC_ACCESS_SLOT);
        set(&memory, 0, 0x1000, 0x1000, 0x10_0000, 0);
        set(&memory, 1, 0x2000, 0x1000, 0x20_0000, READONLY);
        set(&memory, apic, 0xfee0_0000, 0x1000, 0x30_0000, 0);
        let found = |gpa, len| find(&memory.snapshot(), Gpa::new(gpa), len);
        assert_eq!(found(0x1ffc, 4).map(|found| found.writable), Some(true));
        assert_eq!(found(0x1ffc, 5), None);
        assert_eq!(found(0x2000, 1).map(|found| found.writable), Some(false));
        assert_eq!(found(0x2fff, 2), None);
        assert_eq!(found(0xfee0_0080, 4), None);
        assert_eq!(found(0x1000, 0), None);
        assert_eq!(found(u64::MAX, 2), None);
    }

    #[test]
    fn accesses_stay_in_the_area() {
        let memory = memory();
        set(&memory, 0, 0, 0x1000, 0x10_0000, READONLY);
        let area = Place::default().open(&memory, Gpa::new(0x800), 8);
        assert_eq!(area.read::<u64>(1), Err(EINVAL));
        assert_eq!(area.read::<u8>(8), Err(EINVAL));
        assert_eq!(area.read::<u8>(u64::MAX), Err(EINVAL));
        assert_eq!(area.write::<u32>(5, 0), Err(EINVAL));
        assert_eq!(area.write_bytes(0, &[0; 9]), Err(EINVAL));
        // Nothing is written where the guest itself could not.
        assert_eq!(area.write::<u64>(0, 0), Err(EFAULT));
        assert_eq!(area.try_write_byte(0, 0, None), Err(EFAULT));
        assert_eq!(area.compare_exchange::<u8>(0, 0, 1), Err(EFAULT));
    }
}
