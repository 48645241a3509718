// SPDX-License-Identifier: GPL-2.0

//! Dirty logging: which pages were written since the client last asked.
//!
//! A page is **armed** when its next write will be noticed: its entry does not allow to write, or has
//! the dirty bit clear; see [`Tracking`]. The write disarms the page, and it is marked in the log of its
//! slot; asking for the log takes marks out and arms their pages again.
//!
//! # Why no write is lost
//!
//! A fault disarms and marks under the tables' lock, and taking marks and arming pages excludes it. The
//! processor disarms and logs in one step, and its log is emptied after every exit. Where it keeps none
//! but sets dirty bits, these are looked for before marks are taken, and when an entry is taken out. So a
//! page that is not armed is marked, or logged, or its bit is set, or it was marked when its mark was last
//! taken. In the last case processors may still have the old translation: they forget it before the client
//! is answered, so what they wrote until then is there when the client looks at the memory.
//!
//! Pages are armed and watched one by one, so a slot that logs is not mapped in larger pages. Those
//! that it had when it began are split before they are armed ([`super::large`]), or armed as a whole and
//! split by the first write.

mod arm;
mod rings;

pub(super) use arm::Tracking;

use self::arm::{
    arm,
    Place, //
};
use super::{
    direct::Outcome,
    entry::{
        Access,
        EntryFormat, //
    },
    fault::FaultAccess,
    invalidation::Sample,
    level::Level,
    table::{
        Exclusive,
        Locked, //
    },
    tlb::{
        RemoteFlush,
        RestrictionOwed, //
    },
    Core, //
};
use crate::{
    linux::{
        uaccess,
        user_page, //
    },
    memory::{
        DirtyRing,
        GfnRange,
        LogWord,
        Slot,
        PIECE_WORDS,
        WORD_PAGES, //
    },
    x86::addr::{
        Gfn,
        Hva, //
    },
};
use kernel::{
    prelude::*,
    sync::atomic::Relaxed, //
};

/// Pages of a slot that are armed under the lock at once.
const CHUNK_PAGES: u64 = PIECE_WORDS as u64 * WORD_PAGES;

/// A piece of a log without marks.
static CLEAN: [u64; PIECE_WORDS] = [0; PIECE_WORDS];

impl<F: EntryFormat, R: RemoteFlush> Core<F, R> {
    /// Gives the client the log of slot `id` as a bitmap at `to`.
    ///
    /// Unless the client clears the log itself, this takes the marks out. `EINVAL` for a number that no
    /// slot has, `ENOENT` if the slot is not there or does not log, `EFAULT`. Marks that could not be
    /// copied are gone. Sleeps.
    pub(super) fn dirty_log(&self, id: u32, to: usize) -> Result {
        let update = self.memory.update();
        let slot = update.logging_slot(id)?;
        let log = slot.log().ok_or(ENOENT)?;
        let manual = self.memory.logging().manual;
        self.gather_writes();
        self.look_for_writes(&slot);
        // Faults that were under way have marked what they disarmed.
        drop(self.direct.exclude());
        let mut words = KVec::new();
        let mut owed = RestrictionOwed::NONE;
        let mut result = Ok(());
        for first in (0..log.len()).step_by(PIECE_WORDS) {
            let count = PIECE_WORDS.min(log.len().saturating_sub(first));
            let piece = || log.words(first).take(count);
            result = if !log.may_have_bits(first) {
                uaccess::write_list(word_address(to, first), CLEAN.get(..count).unwrap_or(&[]))
            } else {
                words.clear();
                words
                    .reserve(count, GFP_KERNEL_ACCOUNT)
                    .map_err(Error::from)
                    .and_then(|()| {
                        if manual {
                            for word in piece() {
                                // There is room.
                                let _ = words.push_within_capacity(word.get());
                            }
                        } else {
                            log.forget_piece(first);
                            owed.add(self.take_words(&slot, first, piece(), &mut words));
                        }
                        uaccess::write_list(word_address(to, first), &words)
                    })
            };
            if result.is_err() {
                break;
            }
            user_page::cond_resched();
        }
        owed.pay(&*self.remote);
        result
    }

    /// Takes the marks out of `chunk`, the words of the slot's log from number `first` on, and arms their
    /// pages. `words`, which has room, gets the marks.
    fn take_words<'a>(
        &self,
        slot: &Slot,
        first: usize,
        chunk: impl Iterator<Item = LogWord<'a>>,
        words: &mut KVec<u64>,
    ) -> RestrictionOwed {
        let by = self.tracking();
        let locked = self.direct.exclude();
        let (mut place, mut gfn) = (Place::nowhere(), word_gfn(slot, first));
        for word in chunk {
            let mask = word.take();
            if mask != 0 {
                self.direct.arm_masked(&locked, &mut place, gfn, mask, by);
            }
            let _ = words.push_within_capacity(mask);
            gfn = Gfn::new(gfn.value().wrapping_add(WORD_PAGES));
        }
        locked.restricted()
    }

    /// Takes those marks out of the log of slot `id` that are set in the client's bitmap at `from`,
    /// which is about `pages` pages from `first` on.
    ///
    /// Fails as [`Self::dirty_log`], and with `EINVAL` if the range is not of whole words or not in the
    /// slot. Sleeps.
    pub(super) fn clear_dirty_log(&self, id: u32, first: u64, pages: u32, from: usize) -> Result {
        let update = self.memory.update();
        let slot = update.logging_slot_from(id, first)?;
        let log = slot.log().ok_or(ENOENT)?;
        let pages = u64::from(pages);
        let rest = slot.pages().checked_sub(first).ok_or(EINVAL)?;
        if pages > rest || (pages < rest && pages % WORD_PAGES != 0) {
            return Err(EINVAL);
        }
        self.gather_writes();
        let by = self.tracking();
        let start = usize::try_from(first / WORD_PAGES)?;
        let count = usize::try_from(pages.div_ceil(WORD_PAGES))?;
        let mut owed = RestrictionOwed::NONE;
        let mut result = Ok(());
        for done in (0..count).step_by(PIECE_WORDS) {
            let here = PIECE_WORDS.min(count.saturating_sub(done));
            let masks = match uaccess::read_list::<u64>(word_address(from, done), here) {
                Ok(masks) => masks,
                Err(error) => {
                    result = Err(error);
                    break;
                }
            };
            let index = start.saturating_add(done);
            if self.memory.logging().initially_set {
                self.split_words(&slot, index, &masks);
            }
            let locked = self.direct.exclude();
            let (mut place, mut gfn) = (Place::nowhere(), word_gfn(&slot, index));
            for (word, mask) in log.words(index).zip(masks) {
                let mask = word.take_masked(mask);
                if mask != 0 {
                    self.direct.arm_masked(&locked, &mut place, gfn, mask, by);
                }
                gfn = Gfn::new(gfn.value().wrapping_add(WORD_PAGES));
            }
            owed.add(locked.restricted());
            drop(locked);
            user_page::cond_resched();
        }
        owed.pay(&*self.remote);
        result
    }

    /// Splits large pages of which a page is in `masks`, the words of the slot's log from number `first` on.
    fn split_words(&self, slot: &Slot, first: usize, masks: &[u64]) {
        for (n, mask) in masks.iter().enumerate().filter(|(_, mask)| **mask != 0) {
            let word = word_gfn(slot, first.saturating_add(n)).value();
            let end = u64::from(u64::BITS - mask.leading_zeros());
            self.split_early(GfnRange {
                start: Gfn::new(word.wrapping_add(u64::from(mask.trailing_zeros()))),
                end: Gfn::new(word.wrapping_add(end)),
            });
        }
    }

    /// Returns whether the guest can go on that tried to write `gfn` of `slot`, at `hva`, because the page was
    /// armed. The slot was looked up after `sample`.
    ///
    /// Does not sleep.
    pub(super) fn disarm(
        &self,
        sample: Sample,
        slot: &Slot,
        gfn: Gfn,
        hva: Hva,
        access: FaultAccess,
        ring: Option<&DirtyRing>,
    ) -> bool {
        let locked = self.direct.share();
        // The log must be that of the slot as it is now.
        if self.is_stale(sample, hva, Level::Page4K) {
            return false;
        }
        let outcome = self.disarm_locked(&locked, slot, gfn, access.needs(), ring);
        matches!(outcome, Some(Outcome::Mapped | Outcome::Spurious))
    }

    /// Lets the guest go on that wrote an armed page, without asking the host for the page again.
    ///
    /// Sound without a look at the host's tables: a page that the client may not write any more is
    /// taken out of ours before it may not, so the entry could as well have been disarmed before.
    /// `None` if there is no such entry.
    fn disarm_locked<G: Locked<F>>(
        &self,
        locked: &G,
        slot: &Slot,
        gfn: Gfn,
        need: Access,
        ring: Option<&DirtyRing>,
    ) -> Option<Outcome> {
        let outcome = self.direct.disarm(locked, gfn, need)?;
        // Who made the entry writable has told of it in a ring.
        if ring.is_none() || outcome == Outcome::Mapped {
            slot.mark_dirty(gfn, ring);
        }
        Some(outcome)
    }

    /// Returns by what writes are noticed.
    pub(super) fn tracking(&self) -> Tracking {
        match self.tracking {
            // A ring is to tell of a write when it is made.
            Tracking::DirtyBits if self.memory.rings().are_used() => Tracking::WriteProtection,
            tracking => tracking,
        }
    }

    /// Returns whether dirty bits may be the only trace of writes that a log is to tell of.
    pub(super) fn looks_for_writes(&self) -> bool {
        self.logging_slots.load(Relaxed) != 0 && self.tracking() == Tracking::DirtyBits
    }

    /// Has all pages marked that the processor has logged so far.
    fn gather_writes(&self) {
        if self.tracking == Tracking::ProcessorLog {
            self.remote.gather_writes();
        }
    }

    /// Has all pages of `slot`, which logs, marked whose dirty bit is the only trace of a write so far.
    ///
    /// Who takes marks out without that leaves the bits that are not marked yet.
    fn look_for_writes(&self, slot: &Slot) {
        if self.tracking() != Tracking::DirtyBits {
            return;
        }
        for range in chunks(slot.gfns()) {
            let locked = self.direct.exclude();
            self.direct
                .for_each_writable(&locked, range, |gfn, leaf, _| {
                    if leaf.dirty {
                        slot.mark_dirty(gfn, None);
                    }
                });
            drop(locked);
            user_page::cond_resched();
        }
    }

    /// Takes out the pages of `range` that the guest can write, and marks those that it wrote, if their dirty
    /// bits are the only trace of that. To be called before `range` is taken out in another way.
    pub(super) fn save_writes(&self, locked: &Exclusive<'_, F>, range: GfnRange) {
        if !self.looks_for_writes() {
            return;
        }
        for slot in self.memory.snapshot().of_range(range) {
            if slot.log().is_none() {
                continue;
            }
            let range = GfnRange {
                start: range.start.max(slot.gfns().start),
                end: range.end.min(slot.gfns().end),
            };
            self.direct
                .for_each_writable(locked, range, |gfn, _, entry| {
                    // Until it is out, the processor may set the bit.
                    if entry.take_out_used() {
                        slot.mark_dirty(gfn, None);
                    }
                });
        }
    }

    /// Returns whether the processor is to log the pages that vCPUs write.
    pub(super) fn logs_writes(&self) -> bool {
        self.tracking == Tracking::ProcessorLog && self.logging_slots.load(Relaxed) != 0
    }

    /// Counts a slot that begins to log writes (1) or no longer does (-1).
    ///
    /// For the first, the processor logs when this returns. So to be called before the slot is published:
    /// then no page becomes dirty unnoticed. The caller is the only updater of the slots.
    pub(super) fn count_logging_slots(&self, change: i32) {
        let before = self.logging_slots.load(Relaxed);
        let now = before.saturating_add_signed(change);
        self.logging_slots.store(now, Relaxed);
        if self.tracking == Tracking::ProcessorLog && (before == 0) != (now == 0) {
            self.remote.logging_changed();
        }
    }

    /// Does what a change of a slot's flags asks for, which is to begin or end its log, once it is
    /// published. The caller is the only updater of the slots, and runs in their address space.
    pub(super) fn logging_changed(&self, new: &Slot) {
        if new.flags().read_only {
            return;
        }
        if !new.flags().log_dirty {
            self.rejoin(new);
        } else if !self.memory.logging().initially_set {
            self.start_log(new);
        }
    }

    /// Arms all pages of the slot.
    fn start_log(&self, slot: &Slot) {
        let mut owed = RestrictionOwed::NONE;
        let by = self.tracking();
        self.split_early(slot.gfns());
        for range in chunks(slot.gfns()) {
            let locked = self.direct.exclude();
            self.direct
                .for_each_leaf(&locked, range, |_, _, entry| arm(entry, by));
            owed.add(locked.restricted());
            drop(locked);
            user_page::cond_resched();
        }
        owed.pay(&*self.remote);
    }
}

/// Returns the frame of the first page of word `index` of the slot's log.
fn word_gfn(slot: &Slot, index: usize) -> Gfn {
    let pages = (index as u64).wrapping_mul(WORD_PAGES);
    Gfn::new(slot.base().value().wrapping_add(pages))
}

/// Returns the client's address of word `index` of its bitmap at `bitmap`.
fn word_address(bitmap: usize, index: usize) -> usize {
    // An address that wraps is none that the client can have, here or in the copy.
    bitmap.wrapping_add(index.wrapping_mul(size_of::<u64>()))
}

/// Returns the pieces of `range` that are worked on under the lock at once.
pub(super) fn chunks(range: GfnRange) -> impl Iterator<Item = GfnRange> {
    let end = range.end;
    (range.start.value()..end.value())
        .step_by(CHUNK_PAGES as usize)
        .map(move |start| GfnRange {
            start: Gfn::new(start),
            end: end.min(Gfn::new(start.saturating_add(CHUNK_PAGES))),
        })
}
