// SPDX-License-Identifier: GPL-2.0

//! Large pages where writes are logged: split when the log begins, rejoined when it is over.
//!
//! A log is kept of small pages. So the large ones of a slot are split before their first write is
//! noticed, as far as there is memory for tables and unless the administrator wants it otherwise; those
//! that are left are split by the fault of that write. Splitting runs beside faults: what a leaf says and
//! what the table in its place says is the same.

use super::{
    direct::{
        DirectMmu,
        TableStock,
        STOCK, //
    },
    dirty::chunks,
    entry::EntryFormat,
    level::Level,
    table::{
        Content,
        Exclusive,
        Shared, //
    },
    tlb::RemoteFlush,
    walk::Walk,
    Core, //
};
use crate::{
    linux::{
        parameter,
        user_page, //
    },
    memory::{
        GfnRange,
        Slot, //
    },
    x86::addr::Gfn, //
};
use kernel::prelude::*;

/// How far a range was split.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Split {
    /// There is no large page in it any more.
    Done,
    /// There is none before this frame, and no table for the one there.
    NeedsTable(Gfn),
}

impl<F: EntryFormat> DirectMmu<F> {
    /// Splits the large pages that share a frame with `range` as long as there are tables in `stock`. Those
    /// larger than 2 MiB are split further only where `range` is.
    fn split_range(
        &self,
        locked: &Shared<'_, F>,
        range: GfnRange,
        stock: &mut TableStock<F>,
    ) -> Split {
        let mut gfn = range.start;
        while gfn < range.end {
            let Some(step) = Walk::new(locked, gfn).last(Level::Page2M) else {
                return Split::Done;
            };
            let level = step.entry.level();
            if let Content::Leaf(leaf) = step.content {
                let Some(table) = stock.take() else {
                    return Split::NeedsTable(gfn);
                };
                // In either case there is something else now.
                if let Err(table) = self.split(&step.entry, step.seen, &leaf, table, false) {
                    stock.give_back(table);
                }
                continue;
            }
            let end = level.align(gfn).value().saturating_add(level.pages());
            gfn = Gfn::new(end);
        }
        Split::Done
    }

    /// Takes out the tables of `range` in whose place `could_be_larger` expects a larger page.
    fn zap_small(
        &self,
        locked: &Exclusive<'_, F>,
        range: GfnRange,
        could_be_larger: impl Fn(Gfn, Level) -> bool,
    ) {
        let mut gfn = range.start;
        while gfn < range.end {
            let mut walk = Walk::new(locked, gfn);
            let mut pages = 1;
            while let Some(step) = walk.next() {
                let level = step.entry.level();
                pages = level.pages();
                if let Content::Table(table) = step.content {
                    if could_be_larger(gfn, level) {
                        step.entry.take_out();
                    } else if level > Level::Page2M {
                        walk.enter(table);
                    }
                }
            }
            let end = (gfn.value() | pages.wrapping_sub(1)).saturating_add(1);
            gfn = Gfn::new(end);
        }
    }
}

impl<F: EntryFormat, R: RemoteFlush> Core<F, R> {
    /// Splits the large pages of `range` if they are to be split early. Those for which there is no memory
    /// stay. Sleeps.
    pub(super) fn split_early(&self, range: GfnRange) {
        let mapped = self.direct.stats().mapped();
        if mapped.pages_2m | mapped.pages_1g == 0 || !parameter::eager_page_split() {
            return;
        }
        let mut stock = TableStock::new();
        let mut rest = range;
        loop {
            let locked = self.direct.share();
            let split = self.direct.split_range(&locked, rest, &mut stock);
            drop(locked);
            match split {
                Split::Done => return,
                Split::NeedsTable(gfn) => rest.start = gfn,
            }
            if stock.fill(STOCK).is_err() {
                return;
            }
            user_page::cond_resched();
        }
    }

    /// Takes small pages out where the host has larger ones, so that the next fault maps these.
    pub(super) fn rejoin(&self, slot: &Slot) {
        for range in chunks(slot.gfns()) {
            let locked = self.direct.exclude();
            self.direct.zap_small(&locked, range, |gfn, level| {
                let host = || {
                    slot.gfn_to_hva(gfn)
                        .map_or(1, user_page::host_mapping_level)
                };
                self.sizes.allow(level)
                    && slot.fits_block(gfn, level.pages())
                    && host() >= level.number()
            });
            self.direct.settle(locked, &*self.remote, true);
        }
    }
}

#[kunit_tests(kvm_rs_large)]
mod tests {
    use super::*;
    use crate::{
        mmu::{
            direct::{
                Mapping,
                Outcome, //
            },
            entry::{
                Access,
                Leaf,
                MemoryType, //
            },
            ept::{
                Ept,
                EptVariant, //
            },
            stats::PageCounts, //
        },
        x86::addr::Pfn,
    };

    struct Nobody;

    impl RemoteFlush for Nobody {
        fn flush_remote(&self) {}
    }

    fn range(start: u64, end: u64) -> GfnRange {
        GfnRange {
            start: Gfn::new(start),
            end: Gfn::new(end),
        }
    }

    fn counts(pages_4k: u64, pages_2m: u64, pages_1g: u64) -> PageCounts {
        PageCounts {
            pages_4k,
            pages_2m,
            pages_1g,
        }
    }

    fn map(mmu: &DirectMmu<Ept>, gfn: u64, level: Level) {
        let mapping = Mapping {
            without_execution: None,
            gfn: Gfn::new(gfn),
            level,
            leaf: Leaf {
                pfn: Pfn::new(gfn + 0x10_0000),
                access: Access::ALL,
                host_writable: true,
                memory_type: MemoryType::WriteBack,
                accessed: true,
                dirty: false,
            },
            need: Access::ALL,
        };
        let mut stock = TableStock::new();
        stock.fill(STOCK).unwrap();
        let outcome = mmu.map(&mmu.share(), &mapping, &mut stock);
        assert_eq!(outcome, Outcome::Mapped);
    }

    #[test]
    fn large_pages_are_split_where_the_range_is() {
        let variant = EptVariant { a_d: true };
        let init = DirectMmu::<Ept>::new(Level::Level4, variant);
        let mmu = KBox::pin_init(init, GFP_KERNEL).unwrap();
        map(&mmu, 0x4_0000, Level::Page1G);
        map(&mmu, 0x8_0000, Level::Page2M);
        let mut stock = TableStock::new();
        let mut split = |start, end, tables| {
            stock.fill(tables).unwrap();
            mmu.split_range(&mmu.share(), range(start, end), &mut stock)
        };
        // The last frame of the one, and the first of the other.
        let at = |gfn| Split::NeedsTable(Gfn::new(gfn));
        assert_eq!(split(0, 0x4_0000, 0), Split::Done);
        assert_eq!(split(0, 0x8_0001, 0), at(0x4_0000));
        assert_eq!(split(0x7_ffff, 0x8_0001, 1), at(0x7_ffff));
        assert_eq!(mmu.stats().mapped(), counts(0, 513, 0));
        assert_eq!(split(0x7_ffff, 0x8_0001, 1), at(0x8_0000));
        assert_eq!(mmu.stats().mapped(), counts(512, 512, 0));
        assert_eq!(split(0x8_0000, 0x8_0001, 1), Split::Done);
        assert_eq!(mmu.stats().mapped(), counts(1024, 511, 0));
        assert_eq!(split(0x7_ffff, 0x8_0200, 0), Split::Done);
        for gfn in [0x4_0000, 0x7_fe00, 0x7_ffff, 0x8_0000, 0x8_01ff] {
            let shared = mmu.share();
            let step = Walk::new(&shared, Gfn::new(gfn))
                .last(Level::Page4K)
                .unwrap();
            let Content::Leaf(leaf) = step.content else {
                panic!("nothing maps {gfn:x}");
            };
            let offset = step.entry.level().offset(gfn);
            assert_eq!(leaf.pfn.value() + offset, gfn + 0x10_0000);
        }
        let locked = mmu.exclude();
        mmu.zap_all(&locked);
        mmu.settle(locked, &Nobody, true);
        assert_eq!(mmu.stats().mapped(), counts(0, 0, 0));
    }
}
