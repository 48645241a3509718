// SPDX-License-Identifier: GPL-2.0

//! Giving tables back when the host is short of memory.
//!
//! What a table says can be found anew by faults, so any may be taken out. Those of the lowest level
//! go, one after the other in the order of their frames, from where the last call ended.

use super::{
    direct::DirectMmu,
    entry::EntryFormat,
    level::Level,
    table::{
        Content,
        Exclusive,
        Locked,
        TableRef, //
    },
    tlb::RemoteFlush,
    Core, //
};
use crate::{
    linux::shrinker::Shrink,
    memory::GfnRange,
    x86::addr::Gfn, //
};
use kernel::{
    prelude::*,
    sync::atomic::Relaxed, //
};

/// The most tables that are taken out under the lock at once.
const MOST: usize = 64;

impl<F: EntryFormat> DirectMmu<F> {
    /// Takes out up to `wanted` tables of the lowest level from frame `start` on.
    ///
    /// Returns where to go on, frame 0 after the last.
    fn take_tables(&self, locked: &Exclusive<'_, F>, start: Gfn, wanted: usize) -> Gfn {
        let range = GfnRange {
            start,
            end: Gfn::new(u64::MAX),
        };
        let mut wanted = wanted;
        take_tables(locked.root(), Gfn::new(0), range, &mut wanted).unwrap_or(Gfn::new(0))
    }
}

/// Takes tables out below `table`, whose first frame is `base`; returns the first frame that is left
/// once `wanted` is 0.
///
/// Recurses once per level.
fn take_tables<F: EntryFormat>(
    table: TableRef<'_, F, Exclusive<'_, F>>,
    base: Gfn,
    range: GfnRange,
    wanted: &mut usize,
) -> Option<Gfn> {
    let lowest = table.level() == Level::Page2M;
    for (first, entry) in table.entries_of(base, range) {
        if *wanted == 0 {
            return Some(first);
        }
        match entry.load() {
            (_, Content::Table(_)) if lowest => {
                entry.take_out();
                *wanted = wanted.saturating_sub(1);
            }
            (_, Content::Table(below)) => {
                let left = take_tables(below, first, range, wanted);
                if left.is_some() {
                    return left;
                }
            }
            (_, Content::Empty | Content::Leaf(_) | Content::Mmio) => {}
        }
    }
    None
}

impl<F: EntryFormat, R: RemoteFlush> Shrink for Core<F, R> {
    const NAME: &'static CStr = c"kvm-rs-tables";

    // A table holds up to 512 pages, each a fault away.
    const SEEKS: i32 = 20;

    // Taking one out costs a flush of all vCPUs, as taking out many does.
    const BATCH: isize = 16;

    fn count(&self) -> usize {
        usize::try_from(self.direct.tables()).unwrap_or(usize::MAX)
    }

    fn shrink(&self, wanted: usize) -> usize {
        let before = self.direct.tables();
        let locked = self.direct.exclude();
        let start = Gfn::new(self.shrink_from.load(Relaxed));
        if self.looks_for_writes() {
            // Their dirty bits are the only trace of writes.
            return 0;
        }
        let next = self.direct.take_tables(&locked, start, wanted.min(MOST));
        self.shrink_from.store(next.value(), Relaxed);
        self.direct.settle(locked, &*self.remote, true);
        // Faults may have put others in place meanwhile.
        let freed = before.saturating_sub(self.direct.tables());
        usize::try_from(freed).unwrap_or(usize::MAX)
    }
}
