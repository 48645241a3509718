// SPDX-License-Identifier: GPL-2.0

//! Coalesced I/O: writes to devices that are put into a ring, for the client to read when it next has
//! control, instead of an exit for each.
//!
//! A client registers **zones** of memory-mapped I/O or of ports. The ring is a page that every vCPU's
//! mapping shows behind its data of port I/O. The hypervisor fills entries and moves `last`; the client
//! empties them and moves `first`. One entry stays free, which tells a full ring from an empty one.

use super::bus::Space;
use crate::{
    bindings::{
        kvm_coalesced_mmio,
        kvm_coalesced_mmio_ring, //
    },
    linux::{
        anon_inode::MappedPage,
        page::KernelPage, //
    },
};
use kernel::{
    new_mutex, new_spinlock,
    prelude::*,
    sync::{
        atomic::{
            Acquire,
            Atomic,
            Relaxed,
            Release, //
        },
        Mutex,
        SpinLock, //
    },
};

/// The most zones of either kind.
const MAX_ZONES: usize = 1000;

/// Words of 32 bits before the first entry, and in each.
const HEAD: usize = size_of::<kvm_coalesced_mmio_ring>() / 4;
const STRIDE: usize = size_of::<kvm_coalesced_mmio>() / 4;

/// Where the words of the ring's head are.
const FIRST: usize = 0;
const LAST: usize = 1;

/// Entries of the ring.
const ENTRIES: u32 = ((KernelPage::WORDS - HEAD) / STRIDE) as u32;

const _: () = assert!(HEAD == 2 && STRIDE == 6);

/// A range of device addresses.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Zone {
    /// What `start` is an address of.
    pub(crate) space: Space,
    /// The first address.
    pub(crate) start: u64,
    /// Number of addresses.
    pub(crate) size: u32,
}

impl Zone {
    /// Returns whether an access of `len` bytes at `start` is in the zone as a whole.
    fn covers(&self, space: Space, start: u64, len: u32) -> bool {
        let end = start.checked_add(len.into());
        let zone_end = self.start.saturating_add(self.size.into());
        space == self.space && start >= self.start && end.is_some_and(|end| end <= zone_end)
    }
}

/// The ring and the zones of a VM.
#[pin_data]
pub(crate) struct Coalesced {
    ring: KernelPage,
    /// There are zones: spares most VMs the lock.
    in_use: Atomic<bool>,
    /// Held to fill the ring, too.
    #[pin]
    zones: SpinLock<KVec<Zone>>,
    /// Held to change the zones.
    #[pin]
    changing: Mutex<()>,
}

impl Coalesced {
    /// Returns an initialiser of an empty ring without zones.
    pub(super) fn new() -> impl PinInit<Self, Error> {
        try_pin_init!(Self {
            ring: KernelPage::new()?,
            in_use: Atomic::new(false),
            zones <- new_spinlock!(KVec::new()),
            changing <- new_mutex!(()),
        })
    }

    /// Returns the ring, to be mapped by the client.
    pub(crate) fn page(&self) -> MappedPage {
        MappedPage(self.ring.as_ptr())
    }

    /// Adds a zone. Fails with `ENOSPC` if there are too many of its kind, and with `ENOMEM`.
    pub(crate) fn register(&self, zone: Zone) -> Result {
        let _changing = self.changing.lock();
        let old = self.zones.lock().len();
        let mut zones = KVec::with_capacity(old + 1, GFP_KERNEL_ACCOUNT)?;
        let mut of_kind = 0;
        for other in &*self.zones.lock() {
            of_kind += usize::from(other.space == zone.space);
            zones.push_within_capacity(*other).map_err(|_| ENOMEM)?;
        }
        if of_kind >= MAX_ZONES {
            return Err(ENOSPC);
        }
        zones.push_within_capacity(zone).map_err(|_| ENOMEM)?;
        let old = core::mem::replace(&mut *self.zones.lock(), zones);
        self.in_use.store(true, Release);
        // Freed outside the spinlock.
        drop(old);
        Ok(())
    }

    /// Removes the zones that hold all of `zone`.
    pub(crate) fn unregister(&self, zone: Zone) {
        let _changing = self.changing.lock();
        let mut zones = self.zones.lock();
        zones.retain(|other| !other.covers(zone.space, zone.start, zone.size));
        self.in_use.store(!zones.is_empty(), Release);
    }

    /// Puts a write of at most 8 bytes into the ring, or returns `false`: then the client is to do it
    /// now, because it is in no zone or the ring is full.
    pub(crate) fn write(&self, space: Space, address: u64, data: &[u8]) -> bool {
        if !self.in_use.load(Acquire) {
            return false;
        }
        let mut bytes = [0; 8];
        let Some(target) = bytes.get_mut(..data.len()) else {
            return false;
        };
        target.copy_from_slice(data);
        // CAST: At most 8.
        let len = data.len() as u32;
        let zones = self.zones.lock();
        zones.iter().any(|zone| zone.covers(space, address, len))
            && self
                .push(space, address, len, u64::from_le_bytes(bytes))
                .is_some()
    }

    /// Fills the next entry, `None` if there is none. To be called with the zones locked.
    ///
    /// The client can write anything into the ring at any time; what is read from it is checked.
    fn push(&self, space: Space, address: u64, len: u32, data: u64) -> Option<()> {
        let words = self.ring.words();
        let last = words.get(LAST)?;
        let index = last.load(Relaxed);
        if index >= ENTRIES {
            return None;
        }
        let next = index.wrapping_add(1) % ENTRIES;
        // The client is done with an entry when it has moved on.
        if words.get(FIRST)?.load(Acquire) == next {
            return None;
        }
        let offset = HEAD.wrapping_add(STRIDE.wrapping_mul(index as usize));
        let entry = words.get(offset..)?.first_chunk::<STRIDE>()?;
        // CAST: The halves of 64-bit words.
        let values = [
            address as u32,
            (address >> 32) as u32,
            len,
            u32::from(space == Space::Pio),
            data as u32,
            (data >> 32) as u32,
        ];
        for (word, value) in entry.iter().zip(values) {
            word.store(value, Relaxed);
        }
        // The client that sees the index sees the entry.
        last.store(next, Release);
        Some(())
    }
}

#[kunit_tests(kvm_rs_coalesced)]
mod tests {
    use super::*;

    const ZONE: Zone = Zone {
        space: Space::Mmio,
        start: 0x1000,
        size: 8,
    };

    fn word(ring: &Coalesced, index: usize) -> &Atomic<u32> {
        ring.ring.words().get(index).unwrap()
    }

    #[test]
    fn zones_cover_whole_accesses_of_their_kind() {
        assert!(ZONE.covers(Space::Mmio, 0x1000, 8));
        assert!(ZONE.covers(Space::Mmio, 0x1007, 1));
        assert!(!ZONE.covers(Space::Mmio, 0x1007, 2));
        assert!(!ZONE.covers(Space::Mmio, 0xfff, 2));
        assert!(!ZONE.covers(Space::Pio, 0x1000, 1));
        assert!(!ZONE.covers(Space::Mmio, u64::MAX, 2));
        let last = Zone {
            start: u64::MAX - 3,
            ..ZONE
        };
        assert!(last.covers(Space::Mmio, u64::MAX - 3, 2));
        assert!(!last.covers(Space::Mmio, u64::MAX, 2));
    }

    #[test]
    fn ring_keeps_one_entry_free() {
        let ring = KBox::pin_init(Coalesced::new(), GFP_KERNEL).unwrap();
        assert!(!ring.write(Space::Mmio, 0x1000, &[1]));
        ring.register(ZONE).unwrap();
        for n in 1..ENTRIES {
            assert!(ring.write(Space::Mmio, 0x1000, &[1, 2, 3, 4, 5]));
            assert_eq!(word(&ring, LAST).load(Relaxed), n);
        }
        assert!(!ring.write(Space::Mmio, 0x1000, &[1]));
        let entry = [0x1000, 0, 5, 0, 0x0403_0201, 5];
        for (index, expected) in entry.into_iter().enumerate() {
            assert_eq!(word(&ring, HEAD + STRIDE + index).load(Relaxed), expected);
        }
        word(&ring, FIRST).store(1, Relaxed);
        assert!(ring.write(Space::Mmio, 0x1004, &[9; 4]));
        assert_eq!(word(&ring, LAST).load(Relaxed), 0);
        assert!(!ring.write(Space::Mmio, 0x1004, &[9; 4]));
    }

    #[test]
    fn nonsense_of_the_client_means_a_full_ring() {
        let ring = KBox::pin_init(Coalesced::new(), GFP_KERNEL).unwrap();
        ring.register(ZONE).unwrap();
        for last in [ENTRIES, u32::MAX] {
            word(&ring, LAST).store(last, Relaxed);
            assert!(!ring.write(Space::Mmio, 0x1000, &[1]));
        }
        word(&ring, LAST).store(0, Relaxed);
        word(&ring, FIRST).store(u32::MAX, Relaxed);
        assert!(ring.write(Space::Mmio, 0x1000, &[1]));
    }

    #[test]
    fn unregistering_takes_the_zones_around() {
        let ring = KBox::pin_init(Coalesced::new(), GFP_KERNEL).unwrap();
        let larger = Zone { size: 16, ..ZONE };
        ring.register(ZONE).unwrap();
        ring.register(larger).unwrap();
        ring.unregister(Zone { size: 9, ..ZONE });
        assert!(ring.write(Space::Mmio, 0x1000, &[1]));
        assert!(!ring.write(Space::Mmio, 0x1008, &[1]));
        ring.unregister(ZONE);
        assert!(!ring.write(Space::Mmio, 0x1000, &[1]));
    }
}
