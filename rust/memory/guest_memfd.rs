// SPDX-License-Identifier: GPL-2.0

//! Slots whose memory comes from a file of guest memory (`KVM_CREATE_GUEST_MEMFD`).
//!
//! Such a file is of one VM. Slots are bound to pieces of it that do not overlap. The file keeps the VM,
//! not the other way round: when it is closed, its pages are unmapped from the guest, and the slots
//! that are bound to it have no memory any more.
//!
//! Lock order: the mutex of slot changes, [`Memfd::changing`], [`Memfd::bound`], the tables' lock.

use super::{
    slot::Slot,
    GuestMemory, //
};
use crate::{
    linux::{
        guest_memfd::{
            Flags,
            GuestMemfd,
            Owner,
            WeakMemfd, //
        },
        user_page::UserPage, //
    },
    x86::addr::{
        Hva,
        PAGE_SHIFT, //
    }, //
};
use kernel::{
    new_mutex,
    prelude::*,
    sync::{
        Arc,
        Mutex, //
    }, //
};

use core::ops::Range;

/// A VM, as the files of its memory know it.
pub(crate) trait Translations: Send + Sync {
    /// Returns the VM's memory.
    fn memory(&self) -> &GuestMemory;

    /// Takes out the translations of `start..end` of the client's address space, and lets none be made
    /// until [`Self::finish`].
    fn begin(&self, start: Hva, end: Hva);

    /// Ends what one [`Self::begin`] began.
    fn finish(&self);
}

/// A piece of a file that a slot is bound to.
struct Bound {
    /// Numbers of its pages in the file.
    pages: Range<u64>,
    /// Where the slot is in the client's address space, whether or not its memory is there: it is by
    /// this address that translations are known to go.
    hva: Range<u64>,
}

/// A file of guest memory, as the slots know it.
#[pin_data]
pub(crate) struct Memfd {
    file: WeakMemfd<MemfdFile>,
    flags: Flags,
    /// Held while pages are taken from the file, so that what is bound stays so meanwhile.
    #[pin]
    changing: Mutex<()>,
    #[pin]
    bound: Mutex<KVVec<Bound>>,
}

/// What an open file of guest memory belongs to.
pub(crate) struct MemfdFile {
    memfd: Arc<Memfd>,
    vm: KBox<dyn Translations>,
}

impl MemfdFile {
    /// Opens a file of `size` bytes for memory of `vm` in the current process; returns its descriptor.
    ///
    /// `EINVAL` for a size that no such file has.
    pub(crate) fn create(size: u64, flags: Flags, vm: KBox<dyn Translations>) -> Result<c_int> {
        let memfd = Arc::pin_init(
            pin_init!(Memfd {
                file: WeakMemfd::new(),
                flags,
                changing <- new_mutex!((), "Memfd::changing"),
                bound <- new_mutex!(KVVec::new(), "Memfd::bound"),
            }),
            GFP_KERNEL_ACCOUNT,
        )?;
        GuestMemfd::create(size, flags, Self { memfd, vm })
    }

    /// Calls `f` for each piece that is bound and overlaps `pages`.
    fn for_each_bound(&self, pages: &Range<u64>, mut f: impl FnMut(&Bound)) {
        for bound in &*self.memfd.bound.lock() {
            if bound.pages.start < pages.end && pages.start < bound.pages.end {
                f(bound);
            }
        }
    }

    /// Takes out translations of the pages of `pages` that are of `bound`; see [`Translations::begin`].
    fn begin(&self, bound: &Bound, pages: &Range<u64>) {
        // Both lie in the piece, whose addresses do not wrap.
        let address = |page: u64| {
            let offset = page.wrapping_sub(bound.pages.start) << PAGE_SHIFT;
            Hva::new(bound.hva.start.wrapping_add(offset))
        };
        let first = pages.start.max(bound.pages.start);
        let end = pages.end.min(bound.pages.end);
        self.vm.begin(address(first), address(end));
    }
}

impl Owner for MemfdFile {
    fn while_unmapped(&self, pages: Range<u64>, change: impl FnOnce()) {
        let _changing = self.memfd.changing.lock();
        self.for_each_bound(&pages, |bound| self.begin(bound, &pages));
        change();
        self.for_each_bound(&pages, |_| self.vm.finish());
    }

    fn unmap(&self, pages: Range<u64>) {
        // Whoever asks for the page from now on is told that it is broken.
        self.for_each_bound(&pages, |bound| {
            self.begin(bound, &pages);
            self.vm.finish();
        });
    }

    fn close(&self) {
        // Slots are not unbound meanwhile, and none is bound: that takes a reference to the file.
        let _update = self.vm.memory().update();
        let _changing = self.memfd.changing.lock();
        self.memfd.file.clear();
        let all = 0..u64::MAX;
        self.for_each_bound(&all, |bound| {
            self.begin(bound, &all);
            self.vm.finish();
        });
        self.memfd.bound.lock().clear();
    }
}

/// The piece of a file that a slot is tied to.
pub(crate) struct Backing {
    memfd: Arc<Memfd>,
    /// Number in the file of the slot's first page.
    first: u64,
}

impl PartialEq for Backing {
    fn eq(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.memfd, &other.memfd) && self.first == other.first
    }
}

impl Eq for Backing {}

impl core::fmt::Debug for Backing {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        write!(f, "page {} of a file", self.first)
    }
}

impl Backing {
    /// Returns the `pages` pages from `offset` on of the file that descriptor `fd` of the current process
    /// names, for a slot of `memory`.
    ///
    /// Fails with `EBADF` for no descriptor, and with `EINVAL` for a file of another kind or of another
    /// VM, and for what it does not have. `offset` must be a multiple of the page size.
    pub(super) fn open(memory: &GuestMemory, fd: u32, offset: u64, pages: u64) -> Result<Self> {
        let file = GuestMemfd::<MemfdFile>::get(fd)?;
        let owner = file.owner();
        let size = pages.checked_mul(1 << PAGE_SHIFT).ok_or(EINVAL)?;
        let end = offset.checked_add(size).ok_or(EINVAL)?;
        if !core::ptr::eq(owner.vm.memory(), memory) || end > file.size() {
            return Err(EINVAL);
        }
        // The same for each slot.
        owner.memfd.file.set(&file);
        Ok(Self {
            memfd: owner.memfd.clone(),
            first: offset >> PAGE_SHIFT,
        })
    }

    /// Returns whether the client can map the file.
    pub(super) fn is_mappable(&self) -> bool {
        self.memfd.flags.mmap
    }

    /// Returns the file's page for page `index` of the slot; see [`super::slot::FileMemory::page`].
    pub(super) fn page(&self, index: u64) -> Result<UserPage> {
        let file = self.memfd.file.get().ok_or(EFAULT)?;
        file.page(self.first.wrapping_add(index))
    }

    /// Returns the numbers in the file of the pages of `slot`, which is tied to this.
    fn pages_of(&self, slot: &Slot) -> Range<u64> {
        self.first..self.first.wrapping_add(slot.pages())
    }

    /// Has the file take its pages from `slot`, too, which is tied to this and not yet to be seen.
    ///
    /// Fails with `EEXIST` if another slot has some of them, and with `ENOMEM`.
    pub(super) fn bind(&self, slot: &Slot) -> Result {
        let pages = self.pages_of(slot);
        let _changing = self.memfd.changing.lock();
        let mut bound = self.memfd.bound.lock();
        let taken = |other: &Bound| other.pages.start < pages.end && pages.start < other.pages.end;
        if bound.iter().any(taken) {
            return Err(EEXIST);
        }
        let hva = slot.hva().value()..slot.hva_end();
        bound.push(Bound { pages, hva }, GFP_KERNEL_ACCOUNT)?;
        Ok(())
    }

    /// Undoes [`Self::bind`] for a slot that is gone.
    pub(super) fn unbind(&self, slot: &Slot) {
        let pages = self.pages_of(slot);
        let _changing = self.memfd.changing.lock();
        self.memfd.bound.lock().retain(|other| other.pages != pages);
    }
}
