// SPDX-License-Identifier: GPL-2.0

//! Access to guest memory from the kernel, through the client's address space.
//!
//! The calling thread must run in the address space that the slots are of: what `hva` means depends
//! on it. The slot snapshot is held while data is copied, so that once a slot is deleted no access
//! through it is under way.

use super::{
    DirtyRing,
    GuestMemory,
    Slot,
    Snapshot, //
};
use crate::{
    bindings,
    x86::addr::{
        Gpa,
        Hva,
        PAGE_SIZE, //
    },
};
use core::ffi::c_void;
use kernel::{
    prelude::*,
    uaccess::{
        UserPtr,
        UserSlice, //
    },
};

/// An unsigned integer that [`GuestMemory::compare_exchange`] can exchange.
pub(crate) trait Word: Copy + Into<u64> {
    /// Size in bytes.
    const SIZE: u32;

    /// Returns the low bits of `value`.
    fn truncate(value: u64) -> Self;
}

macro_rules! word {
    ($($ty:ty),*) => {
        $(
            impl Word for $ty {
                const SIZE: u32 = <$ty>::BITS / 8;

                fn truncate(value: u64) -> Self {
                    // CAST: Dropping the upper bits is what is asked for.
                    value as $ty
                }
            }
        )*
    };
}

word!(u8, u16, u32, u64);

/// What a copy is for.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Direction {
    Read,
    Write,
}

impl GuestMemory {
    /// Copies guest memory from `gpa` on to `data`.
    ///
    /// Fails with `EFAULT` where there is no slot or the client has nothing mapped; part of `data`
    /// may have been written then. Sleeps.
    pub(crate) fn read(&self, gpa: Gpa, data: &mut [u8]) -> Result {
        let slots = self.snapshot();
        let mut gpa = gpa;
        let mut rest = data;
        while !rest.is_empty() {
            let len = segment(gpa, rest.len());
            let (part, tail) = rest.split_at_mut_checked(len).ok_or(EFAULT)?;
            let (_, hva) = locate(&slots, gpa, Direction::Read)?;
            user_slice(hva, len).reader().read_slice(part)?;
            gpa = advance(gpa, len, tail.is_empty())?;
            rest = tail;
        }
        Ok(())
    }

    /// Copies `data` to guest memory from `gpa` on.
    ///
    /// Fails with `EFAULT` where there is no slot or one that is read-only, or the client has nothing
    /// writable mapped; part of the data may have been written then. So it does if the vCPU for which
    /// this is done has no room to record it. Sleeps.
    pub(crate) fn write(&self, gpa: Gpa, data: &[u8]) -> Result {
        let ring = self.rings().of_writer();
        let slots = self.snapshot();
        let mut gpa = gpa;
        let mut rest = data;
        while !rest.is_empty() {
            let len = segment(gpa, rest.len());
            let (part, tail) = rest.split_at_checked(len).ok_or(EFAULT)?;
            let (slot, hva) = locate(&slots, gpa, Direction::Write)?;
            check_room(slot, ring.as_deref())?;
            let result = user_slice(hva, len).writer().write_slice(part);
            // Also of what failed, a part may have been written.
            slot.mark_dirty(gpa.gfn(), ring.as_deref());
            result?;
            gpa = advance(gpa, len, tail.is_empty())?;
            rest = tail;
        }
        Ok(())
    }

    /// Writes a byte without sleeping, on behalf of a vCPU that may have a ring.
    ///
    /// Fails as [`Self::write`], and where the client's memory is not there right now.
    pub(crate) fn try_write_byte(&self, gpa: Gpa, byte: u8, ring: Option<&DirtyRing>) -> Result {
        let slots = self.snapshot();
        let (slot, hva) = locate(&slots, gpa, Direction::Write)?;
        check_room(slot, ring)?;
        let result = try_write_user(hva, byte);
        slot.mark_dirty(gpa.gfn(), ring);
        result
    }

    /// Returns the word at `gpa`, by way of `slots`, for several words one after the other. Fails as
    /// [`Self::read`].
    pub(crate) fn read_word_in<W: Word>(&self, slots: &Snapshot<'_>, gpa: Gpa) -> Result<W> {
        let size = usize::try_from(W::SIZE)?;
        if segment(gpa, size) != size {
            let mut bytes = [0; 8];
            let (word, _) = bytes.split_at_mut_checked(size).ok_or(EFAULT)?;
            self.read(gpa, word)?;
            return Ok(W::truncate(u64::from_le_bytes(bytes)));
        }
        let (_, hva) = locate(slots, gpa, Direction::Read)?;
        read_user(hva)
    }

    /// Replaces the word at `gpa` by `new` if it is `old`, as one atomic access of the guest's memory.
    ///
    /// Returns the word found if that was not `old`. `gpa` must be a multiple of the word's size,
    /// else `EINVAL`. Fails as [`Self::write`]. Sleeps.
    pub(crate) fn compare_exchange<W: Word>(
        &self,
        gpa: Gpa,
        old: W,
        new: W,
    ) -> Result<core::result::Result<(), W>> {
        let ring = self.rings().of_writer();
        let slots = self.snapshot();
        let (slot, hva) = locate(&slots, gpa, Direction::Write)?;
        check_room(slot, ring.as_deref())?;
        let result = compare_exchange_user(hva, old, new);
        slot.mark_dirty(gpa.gfn(), ring.as_deref());
        result
    }

    /// Records that a vCPU, which may have a ring, wrote the page of `gpa`, where that is wanted.
    pub(crate) fn mark_dirty(&self, gpa: Gpa, ring: Option<&DirtyRing>) {
        if let Some(slot) = self.snapshot().find(gpa.gfn()) {
            slot.mark_dirty(gpa.gfn(), ring);
        }
    }

    /// Returns whether a write of the guest at `gpa` is a write to memory.
    pub(crate) fn is_writable(&self, gpa: Gpa) -> bool {
        self.snapshot()
            .find(gpa.gfn())
            .is_some_and(|slot| !slot.flags().read_only && !slot.is_apic_access())
    }
}

/// Returns how many of `len` bytes from `gpa` on lie in its page.
fn segment(gpa: Gpa, len: usize) -> usize {
    let room = PAGE_SIZE.wrapping_sub(gpa.offset_in_page());
    // CAST: The room is at most a page.
    core::cmp::min(len, room as usize)
}

/// Returns `gpa + len`, `EFAULT` if that wraps and it is not the last piece.
fn advance(gpa: Gpa, len: usize, last: bool) -> Result<Gpa> {
    match gpa.checked_add(len as u64) {
        Some(next) => Ok(next),
        None if last => Ok(gpa),
        None => Err(EFAULT),
    }
}

/// Returns the slot of `gpa` and where that is in the client's address space, `EFAULT` if there is no
/// such memory: the APIC-access page is none, since what the guest finds there are registers.
fn locate<'a>(slots: &'a Snapshot<'_>, gpa: Gpa, direction: Direction) -> Result<(&'a Slot, Hva)> {
    let slot = slots.find(gpa.gfn()).ok_or(EFAULT)?;
    if direction == Direction::Write && slot.flags().read_only || slot.is_apic_access() {
        return Err(EFAULT);
    }
    Ok((slot, slot.gpa_to_hva(gpa).ok_or(EFAULT)?))
}

/// Fails with `EFAULT` if a write to `slot` could not be recorded in `ring`: it must not be lost.
fn check_room(slot: &Slot, ring: Option<&DirtyRing>) -> Result {
    match ring {
        Some(ring) if slot.flags().log_dirty && ring.is_full() => Err(EFAULT),
        _ => Ok(()),
    }
}

/// Returns the word of the client's memory at `hva`.
#[inline]
pub(super) fn read_user<W: Word>(hva: Hva) -> Result<W> {
    let mut word = 0;
    // CAST: The kernel runs in 64-bit mode only.
    let address = hva.value() as usize;
    // SAFETY: The function takes any address, and `word` is valid for writes.
    let ret = unsafe { bindings::kvm_rs_read_user(address, &mut word, W::SIZE) };
    kernel::error::to_result(ret)?;
    Ok(W::truncate(word))
}

/// Puts `value` into the client's memory at `hva`.
#[inline]
pub(super) fn write_user<W: Word>(hva: Hva, value: W) -> Result {
    // CAST: The kernel runs in 64-bit mode only.
    let address = hva.value() as usize;
    // SAFETY: The function takes any address.
    kernel::error::to_result(unsafe { bindings::kvm_rs_write_user(address, value.into(), W::SIZE) })
}

/// Puts a byte into the client's memory at `hva`, if that is there right now.
pub(super) fn try_write_user(hva: Hva, byte: u8) -> Result {
    // CAST: The kernel runs in 64-bit mode only.
    let address = hva.value() as usize as *mut c_void;
    // SAFETY: The function takes any address, and `byte` is valid for reads.
    let failed =
        unsafe { kernel::bindings::copy_to_user_nofault(address, (&raw const byte).cast(), 1) };
    if failed == 0 {
        Ok(())
    } else {
        Err(EFAULT)
    }
}

/// Replaces the word of the client's memory at `hva` by `new` if it is `old`; returns the word found if
/// that was not so.
pub(super) fn compare_exchange_user<W: Word>(
    hva: Hva,
    old: W,
    new: W,
) -> Result<core::result::Result<(), W>> {
    // CAST: The kernel runs in 64-bit mode only.
    let address = hva.value() as usize;
    let mut found: u64 = old.into();
    // SAFETY: The function takes any address, and `found` is valid for reads and writes.
    match unsafe { bindings::kvm_rs_cmpxchg_user(address, &mut found, new.into(), W::SIZE) } {
        0 => Ok(Ok(())),
        ret if ret > 0 => Ok(Err(W::truncate(found))),
        ret => Err(Error::from_errno(ret)),
    }
}

/// Returns the client's memory of `len` bytes at `hva`.
pub(super) fn user_slice(hva: Hva, len: usize) -> UserSlice {
    // CAST: The kernel runs in 64-bit mode only.
    UserSlice::new(UserPtr::from_addr(hva.value() as usize), len)
}

/// Returns whether the client can own `size` bytes from `start` on.
pub(super) fn user_range_ok(start: Hva, size: u64) -> bool {
    // SAFETY: The function takes any range. CAST: The kernel runs in 64-bit mode only.
    unsafe { bindings::kvm_rs_user_range_ok(start.value() as usize, size as usize) }
}
