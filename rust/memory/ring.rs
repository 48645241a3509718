// SPDX-License-Identifier: GPL-2.0

//! Dirty rings: the pages that each vCPU wrote, in order, as an alternative to a bitmap for each slot.
//!
//! A ring belongs to a vCPU and is shared with the client, an array of `struct kvm_dirty_gfn`. The vCPU's
//! thread **pushes** pages; the client **harvests** them, by setting a flag in each; and
//! `KVM_RESET_DIRTY_RINGS` takes harvested ones out again and arms their pages:
//!
//! ```text
//!   empty --push()--> dirty --client--> harvested --take()--> empty
//! ```
//!
//! The client can change all of it at any time. So where the ring begins and ends is known here only, and
//! what comes back in an entry is a wish: a slot and a page, which need not exist.
//!
//! A vCPU whose ring is **soft full** does not enter its guest, and the rest of the ring is for what one
//! stay in the guest can still write. What the kernel writes in the guest's place looks for room first.

use crate::linux::page::{
    KernelPage,
    PAGE_BYTES, //
};
use kernel::{
    new_spinlock,
    prelude::*,
    sync::{
        atomic::{
            Acquire,
            Atomic,
            Relaxed,
            Release, //
        },
        Arc,
        SpinLock, //
    },
};

/// Bytes of an entry, `struct kvm_dirty_gfn`.
const ENTRY_BYTES: u32 = 16;

/// Words of an entry: flags, slot, and both halves of the page's number in the slot.
const ENTRY_WORDS: usize = 4;

/// Entries of a page.
const PAGE_ENTRIES: usize = KernelPage::WORDS / ENTRY_WORDS;

/// The most entries of a ring.
const MAX_ENTRIES: u32 = 65536;

/// The most bytes of a ring, which is what the capability tells.
pub(crate) const MAX_RING_BYTES: u32 = MAX_ENTRIES * ENTRY_BYTES;

/// Entries that a ring which is soft full has left at least, without those of the processor's own log.
const RESERVED: u32 = 64;

/// Entries of the processor's own log of a vCPU.
const LOGGED: u32 = 512;

/// `KVM_DIRTY_GFN_F_DIRTY`
const DIRTY: u32 = 1 << 0;

/// `KVM_DIRTY_GFN_F_RESET`
const HARVESTED: u32 = 1 << 1;

/// A page that was written, as a client names it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct DirtyPage {
    /// Number of the slot.
    pub(crate) slot: u32,
    /// Number of the page in the slot.
    pub(crate) page: u64,
}

/// The ring of one vCPU.
pub(crate) struct DirtyRing {
    pages: KVVec<KernelPage>,
    entries: u32,
    soft_limit: u32,
    /// How many pages were ever pushed, modulo 2^32.
    pushed: Atomic<u32>,
    /// How many were ever taken, modulo 2^32; never more.
    taken: Atomic<u32>,
    /// The thread that acts for the vCPU, or 0.
    writer: Atomic<i32>,
}

impl DirtyRing {
    /// Returns an empty ring of `entries` entries, a power of two of at least a page's, that is soft full
    /// with `reserved` left. Sleeps; fails with `ENOMEM`.
    fn new(entries: u32, reserved: u32) -> Result<Self> {
        let count = usize::try_from(entries)? / PAGE_ENTRIES;
        let mut pages = KVVec::with_capacity(count, GFP_KERNEL_ACCOUNT)?;
        for _ in 0..count {
            pages.push(KernelPage::new()?, GFP_KERNEL_ACCOUNT)?;
        }
        Ok(Self {
            pages,
            entries,
            soft_limit: entries.saturating_sub(reserved),
            pushed: Atomic::new(0),
            taken: Atomic::new(0),
            writer: Atomic::new(0),
        })
    }

    /// Returns the page at `index` of the ring, for the client to map.
    pub(crate) fn page(&self, index: usize) -> Option<&KernelPage> {
        self.pages.get(index)
    }

    /// Returns the number of pages that the client maps.
    pub(crate) fn page_count(&self) -> usize {
        self.pages.len()
    }

    /// Returns how many entries are not empty.
    fn used(&self) -> u32 {
        // Not the other way round: what is taken was pushed before.
        let taken = self.taken.load(Acquire);
        self.pushed.load(Relaxed).wrapping_sub(taken)
    }

    /// Returns whether the vCPU has to wait for its client before it goes on.
    pub(crate) fn is_soft_full(&self) -> bool {
        self.used() >= self.soft_limit
    }

    /// Returns whether no page can be pushed.
    pub(super) fn is_full(&self) -> bool {
        self.used() >= self.entries
    }

    /// Returns the words of entry `index`, counted from the first ever.
    fn entry(&self, index: u32) -> Option<&[Atomic<u32>]> {
        // CAST: The remainder is small.
        let index = (index & self.entries.wrapping_sub(1)) as usize;
        let first = index % PAGE_ENTRIES * ENTRY_WORDS;
        let page = self.pages.get(index / PAGE_ENTRIES)?;
        page.words().get(first..first + ENTRY_WORDS)
    }

    /// Tells the client of a page that the vCPU wrote, or is about to.
    ///
    /// For the thread that acts for the vCPU. A full ring, which only a client can see that goes on
    /// with a vCPU which is to wait, keeps what it has.
    pub(super) fn push(&self, page: DirtyPage) {
        let index = self.pushed.load(Relaxed);
        if self.is_full() {
            return;
        }
        let Some([flags, slot, low, high]) = self.entry(index) else {
            return;
        };
        slot.store(page.slot, Relaxed);
        // CAST: The halves of the number.
        low.store(page.page as u32, Relaxed);
        high.store((page.page >> 32) as u32, Relaxed);
        flags.store(DIRTY, Release);
        self.pushed.store(index.wrapping_add(1), Release);
    }

    /// Takes the oldest page out if it is harvested. For one caller at a time.
    pub(crate) fn take(&self) -> Option<DirtyPage> {
        let index = self.taken.load(Relaxed);
        if index == self.pushed.load(Acquire) {
            return None;
        }
        let [flags, slot, low, high] = self.entry(index)? else {
            return None;
        };
        if flags.load(Acquire) & HARVESTED == 0 {
            return None;
        }
        let page = DirtyPage {
            slot: slot.load(Relaxed),
            page: u64::from(high.load(Relaxed)) << 32 | u64::from(low.load(Relaxed)),
        };
        flags.store(0, Release);
        self.taken.store(index.wrapping_add(1), Release);
        Some(page)
    }

    /// Has what the calling thread writes in the guest's place be in this ring, as long as the result
    /// is there. For the thread that holds the vCPU.
    pub(crate) fn write_as(&self) -> Writing<'_> {
        self.writer.store(current_thread(), Relaxed);
        Writing(self)
    }
}

/// The calling thread acts for the vCPU of a ring.
#[must_use = "the thread acts for the vCPU as long as this is there"]
pub(crate) struct Writing<'a>(&'a DirtyRing);

impl Drop for Writing<'_> {
    fn drop(&mut self) {
        self.0.writer.store(0, Relaxed);
    }
}

/// Returns the number of the calling thread, which is not 0.
fn current_thread() -> i32 {
    kernel::current!().pid()
}

/// Returns how many entries a ring has left when it is soft full.
const fn reserved(processor_logs: bool) -> u32 {
    RESERVED + if processor_logs { LOGGED } else { 0 }
}

/// The rings of a VM.
#[pin_data]
pub(crate) struct Rings {
    /// Entries of each ring, 0 for a VM that has bitmaps instead.
    entries: Atomic<u32>,
    reserved: Atomic<u32>,
    #[pin]
    list: SpinLock<KVVec<Arc<DirtyRing>>>,
}

impl Rings {
    /// Returns an initialiser of no rings.
    pub(super) fn new() -> impl PinInit<Self> {
        pin_init!(Self {
            entries: Atomic::new(0),
            reserved: Atomic::new(0),
            list <- new_spinlock!(KVVec::new()),
        })
    }

    /// Returns whether written pages are in rings and not in bitmaps.
    pub(crate) fn are_used(&self) -> bool {
        self.entries.load(Relaxed) != 0
    }

    /// Has each vCPU get a ring of `bytes` bytes. The caller makes sure that there is no vCPU.
    ///
    /// `processor_logs` says that the processor has a log of its own, which a ring must have room for.
    /// Fails with `EINVAL` for a size that is no power of two, or too small, and if this was done
    /// before; with `E2BIG` for one that is too large.
    pub(crate) fn enable(&self, bytes: u32, processor_logs: bool) -> Result {
        self.check_size(bytes, processor_logs)?;
        if self.are_used() {
            return Err(EINVAL);
        }
        self.reserved.store(reserved(processor_logs), Relaxed);
        self.entries.store(bytes / ENTRY_BYTES, Relaxed);
        Ok(())
    }

    /// Fails as [`Self::enable`] does for a size that rings cannot have.
    pub(crate) fn check_size(&self, bytes: u32, processor_logs: bool) -> Result {
        let smallest = reserved(processor_logs) * ENTRY_BYTES;
        if !bytes.is_power_of_two() || bytes < smallest || u64::from(bytes) < PAGE_BYTES {
            return Err(EINVAL);
        }
        if bytes > MAX_RING_BYTES {
            return Err(E2BIG);
        }
        Ok(())
    }

    /// Returns a ring for a new vCPU, if it is to have one. Sleeps; fails with `ENOMEM`.
    ///
    /// The caller adds one ring at a time.
    pub(crate) fn add(&self) -> Result<Option<Arc<DirtyRing>>> {
        if !self.are_used() {
            return Ok(None);
        }
        let (entries, reserved) = (self.entries.load(Relaxed), self.reserved.load(Relaxed));
        let ring = Arc::new(DirtyRing::new(entries, reserved)?, GFP_KERNEL_ACCOUNT)?;
        // Room is made outside the spinlock; only this function adds.
        let len = self.list.lock().len();
        let mut larger = KVVec::with_capacity(len + 1, GFP_KERNEL_ACCOUNT)?;
        let old = {
            let mut list = self.list.lock();
            for ring in &*list {
                // There is room.
                let _ = larger.push_within_capacity(ring.clone());
            }
            let _ = larger.push_within_capacity(ring.clone());
            core::mem::replace(&mut *list, larger)
        };
        drop(old);
        Ok(Some(ring))
    }

    /// Forgets the ring of a vCPU that is taken back.
    pub(crate) fn remove(&self, ring: &Arc<DirtyRing>) {
        let removed = {
            let mut list = self.list.lock();
            let index = list.iter().position(|other| Arc::ptr_eq(other, ring));
            index.map(|index| list.remove(index))
        };
        // Dropped outside the spinlock.
        drop(removed);
    }

    /// Returns ring `index` in the order in which they came.
    pub(crate) fn get(&self, index: usize) -> Option<Arc<DirtyRing>> {
        self.list.lock().get(index).cloned()
    }

    /// Returns the ring of the vCPU that the calling thread acts for.
    pub(super) fn of_writer(&self) -> Option<Arc<DirtyRing>> {
        if !self.are_used() {
            return None;
        }
        let current = current_thread();
        let list = self.list.lock();
        let mut rings = list.iter();
        rings
            .find(|ring| ring.writer.load(Relaxed) == current)
            .cloned()
    }
}

#[kunit_tests(kvm_rs_dirty_ring)]
mod tests {
    use super::*;

    fn page(page: u64) -> DirtyPage {
        DirtyPage { slot: 3, page }
    }

    fn harvest(ring: &DirtyRing, index: u32) {
        if let Some([flags, ..]) = ring.entry(index) {
            flags.store(HARVESTED, Relaxed);
        }
    }

    #[test]
    fn pages_come_back_once_they_are_harvested() {
        let ring = DirtyRing::new(256, 64).unwrap();
        // What was not pushed is not taken, whatever the client says.
        harvest(&ring, 0);
        assert_eq!(ring.take(), None);
        for n in 0..600 {
            ring.push(page(n << 31));
            assert_eq!(ring.take(), None);
            harvest(&ring, n as u32);
            assert_eq!(ring.take(), Some(page(n << 31)));
            assert_eq!(ring.used(), 0);
        }
    }

    #[test]
    fn a_full_ring_keeps_what_it_has() {
        let ring = DirtyRing::new(256, 64).unwrap();
        for n in 0..300 {
            assert_eq!(ring.is_soft_full(), n >= 192);
            assert_eq!(ring.is_full(), n >= 256);
            ring.push(page(n));
        }
        // In order, and not beyond one that is not harvested.
        for n in (0..256).filter(|n| *n != 100) {
            harvest(&ring, n);
        }
        for n in 0..100 {
            assert_eq!(ring.take(), Some(page(n)));
        }
        assert_eq!(ring.take(), None);
        assert!(!ring.is_soft_full());
    }

    #[test]
    fn sizes_are_kvms() {
        let rings = KBox::pin_init(Rings::new(), GFP_KERNEL).unwrap();
        for bytes in [0, 1, 2048, 4095, 4097, 12288] {
            assert_eq!(rings.enable(bytes, false), Err(EINVAL));
        }
        assert_eq!(rings.enable(8192, true), Err(EINVAL));
        assert_eq!(rings.enable(MAX_RING_BYTES * 2, false), Err(E2BIG));
        assert!(rings.add().unwrap().is_none());
        assert_eq!(rings.enable(4096, false), Ok(()));
        assert_eq!(rings.enable(4096, false), Err(EINVAL));
        let ring = rings.add().unwrap().unwrap();
        assert!(rings.of_writer().is_none());
        {
            let _writing = ring.write_as();
            assert!(rings.of_writer().is_some());
        }
        assert!(rings.of_writer().is_none());
        rings.remove(&ring);
        assert!(rings.get(0).is_none());
    }
}
