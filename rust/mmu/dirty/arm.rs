// SPDX-License-Identifier: GPL-2.0

//! Arming a page, by its entry, and letting the guest write it again.

use crate::{
    memory::GfnRange,
    mmu::{
        direct::{
            DirectMmu,
            Outcome, //
        },
        entry::{
            Access,
            EntryFormat,
            Leaf, //
        },
        level::Level,
        table::{
            Content,
            EntryRef,
            Exclusive,
            Locked,
            Raced,
            TableRef, //
        },
        walk::Walk, //
    },
    x86::addr::Gfn, //
};

/// By what the first write of an armed page is noticed.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(in crate::mmu) enum Tracking {
    /// The page may not be written: the write faults.
    WriteProtection,
    /// The dirty bit is clear: the processor logs that it sets it. Large pages, of which a part would be
    /// dirty, are protected all the same.
    ProcessorLog,
    /// The dirty bit is clear: the processor sets it, and who asks for the log looks for it. Likewise.
    DirtyBits,
}

impl Tracking {
    /// Returns whether pages of size `level` are armed by their dirty bit.
    fn is_by_bit(self, level: Level) -> bool {
        self != Self::WriteProtection && level == Level::Page4K
    }

    /// Returns whether `leaf` of size `level` is armed.
    fn is_armed(self, leaf: &Leaf, level: Level) -> bool {
        if self.is_by_bit(level) {
            !leaf.dirty
        } else {
            !leaf.access.write
        }
    }

    /// Returns `leaf` of size `level`, armed.
    fn arm(self, leaf: &Leaf, level: Level) -> Leaf {
        if self.is_by_bit(level) {
            return Leaf {
                dirty: false,
                ..*leaf
            };
        }
        Leaf {
            access: Access {
                write: false,
                ..leaf.access
            },
            ..*leaf
        }
    }

    /// Returns whether a page may be mapped writable that is not written yet.
    pub(in crate::mmu) fn lets_write(self) -> bool {
        self != Self::WriteProtection
    }
}

impl<F: EntryFormat> DirectMmu<F> {
    /// Arms the pages `first + n` for all `n` whose bit is set in `mask`. `place` is where that was last
    /// done.
    pub(super) fn arm_masked<'g, 'x>(
        &self,
        locked: &'g Exclusive<'x, F>,
        place: &mut Place<'g, F, Exclusive<'x, F>>,
        first: Gfn,
        mask: u64,
        by: Tracking,
    ) where
        F: 'g,
    {
        let mut rest = mask;
        while rest != 0 {
            let n = u64::from(rest.trailing_zeros());
            self.arm_page(locked, place, Gfn::new(first.value().wrapping_add(n)), by);
            rest &= rest.wrapping_sub(1);
        }
    }

    /// Arms the page of `gfn`, or the larger one that it is of. `place` is where that was last done.
    pub(super) fn arm_page<'g, 'x>(
        &self,
        locked: &'g Exclusive<'x, F>,
        place: &mut Place<'g, F, Exclusive<'x, F>>,
        gfn: Gfn,
        by: Tracking,
    ) where
        F: 'g,
    {
        if gfn < place.start || gfn >= place.end {
            let Some(step) = Walk::new(locked, gfn).last(Level::Page2M) else {
                return;
            };
            let level = step.entry.level();
            place.start = level.align(gfn);
            place.end = Gfn::new(place.start.value().saturating_add(level.pages()));
            place.table = match step.content {
                Content::Table(table) => Some(table),
                Content::Leaf(_) => {
                    arm(&step.entry, by);
                    None
                }
                Content::Empty | Content::Mmio => None,
            };
        }
        if let Some(entry) = place.table.as_ref().and_then(|table| table.entry(gfn)) {
            arm(&entry, by);
        }
    }

    /// Calls `f` for each page in `range`, and larger ones that share a frame with it, with its first frame
    /// in `range` and its entry as it was seen.
    pub(super) fn for_each_leaf<'x>(
        &self,
        locked: &Exclusive<'x, F>,
        range: GfnRange,
        mut f: impl FnMut(Gfn, &Leaf, &EntryRef<'_, F, Exclusive<'x, F>>),
    ) {
        let mut gfn = range.start;
        while gfn < range.end {
            let Some(step) = Walk::new(locked, gfn).last(Level::Page2M) else {
                return;
            };
            let level = step.entry.level();
            let end = level.align(gfn).value().saturating_add(level.pages());
            match step.content {
                Content::Empty | Content::Mmio => {}
                Content::Leaf(leaf) => f(gfn, &leaf, &step.entry),
                Content::Table(table) => {
                    for frame in (gfn.value()..end.min(range.end.value())).map(Gfn::new) {
                        let Some(entry) = table.entry(frame) else {
                            break;
                        };
                        if let (_, Content::Leaf(leaf)) = entry.load() {
                            f(frame, &leaf, &entry);
                        }
                    }
                }
            }
            gfn = Gfn::new(end);
        }
    }

    /// Calls `f` as [`Self::for_each_leaf`] for the pages of 4 KiB that the guest can write: larger ones are
    /// protected where writes are logged.
    pub(super) fn for_each_writable<'x>(
        &self,
        locked: &Exclusive<'x, F>,
        range: GfnRange,
        mut f: impl FnMut(Gfn, &Leaf, &EntryRef<'_, F, Exclusive<'x, F>>),
    ) {
        self.for_each_leaf(locked, range, |gfn, leaf, entry| {
            if leaf.access.write && entry.level() == Level::Page4K {
                f(gfn, leaf, entry);
            }
        });
    }

    /// Lets the guest write `gfn` if the client could, as far as the tables tell; `None` if they do not.
    pub(super) fn disarm<G: Locked<F>>(
        &self,
        locked: &G,
        gfn: Gfn,
        need: Access,
    ) -> Option<Outcome> {
        let step = Walk::new(locked, gfn).last(Level::Page4K)?;
        let Content::Leaf(old) = step.content else {
            return None;
        };
        let leaf = Leaf {
            access: Access {
                write: true,
                ..old.access
            },
            accessed: true,
            dirty: true,
            ..old
        };
        if step.entry.level() != Level::Page4K || !old.host_writable || !leaf.access.includes(need)
        {
            return None;
        }
        if old.access.write && old.accessed {
            return Some(Outcome::Spurious);
        }
        Some(match step.entry.install(step.seen, &leaf) {
            Ok(()) => Outcome::Mapped,
            Err(Raced) => Outcome::Raced,
        })
    }
}

/// The frames from `start` to below `end`, which have the same last table, or none.
pub(super) struct Place<'g, F: EntryFormat, G: Locked<F>> {
    table: Option<TableRef<'g, F, G>>,
    start: Gfn,
    end: Gfn,
}

impl<F: EntryFormat, G: Locked<F>> Place<'_, F, G> {
    /// Returns the place of no frame.
    pub(super) const fn nowhere() -> Self {
        Self {
            table: None,
            start: Gfn::new(0),
            end: Gfn::new(0),
        }
    }
}

/// Has the next write by way of `entry` noticed.
pub(super) fn arm<F: EntryFormat>(entry: &EntryRef<'_, F, Exclusive<'_, F>>, by: Tracking) {
    loop {
        let (seen, Content::Leaf(old)) = entry.load() else {
            return;
        };
        let level = entry.level();
        if by.is_armed(&old, level) {
            return;
        }
        let leaf = by.arm(&old, level);
        // Only the processor interferes, by setting a bit.
        if entry.restrict(seen, &leaf).is_ok() {
            return;
        }
    }
}
