// SPDX-License-Identifier: GPL-2.0

//! Zapping: taking translations out of the tables.
//!
//! A table whose frames all go is taken out as a whole, whatever it holds: the cost under the lock is
//! that of the few tables at the range's edges. What was taken out is a debt of the guard, paid with
//! one flush for all of it.

use super::{
    direct::DirectMmu,
    entry::EntryFormat,
    table::{
        Content,
        Exclusive,
        Locked,
        TableRef, //
    },
};
use crate::{
    memory::GfnRange,
    x86::addr::Gfn, //
};
use kernel::prelude::*;

impl<F: EntryFormat> DirectMmu<F> {
    /// Takes out every translation of `range`, and those of larger pages that share a frame with it.
    pub(crate) fn zap_range(&self, locked: &Exclusive<'_, F>, range: GfnRange) {
        zap_table(locked.root(), Gfn::new(0), range);
    }

    /// Takes out every translation.
    pub(crate) fn zap_all(&self, locked: &Exclusive<'_, F>) {
        for entry in locked.root().entries() {
            entry.take_out();
        }
    }
}

/// Takes `range` out of the tree at `table`, whose first frame is `base`.
///
/// Recurses once per level.
fn zap_table<F: EntryFormat>(table: TableRef<'_, F, Exclusive<'_, F>>, base: Gfn, range: GfnRange) {
    let pages = table.level().pages();
    for (first, entry) in table.entries_of(base, range) {
        let next = first.value().saturating_add(pages);
        let whole = range.start <= first && next <= range.end.value();
        match entry.load() {
            (_, Content::Empty) => {}
            (_, Content::Table(below)) if !whole => zap_table(below, first, range),
            (_, Content::Leaf(_) | Content::Table(_) | Content::Mmio) => entry.take_out(),
        }
    }
}

#[kunit_tests(kvm_rs_direct_mmu)]
mod tests {
    use crate::{
        memory::GfnRange,
        mmu::{
            direct::{
                DirectMmu,
                Mapping,
                Outcome,
                TableStock, //
            },
            entry::{
                Access,
                EntryFormat,
                Leaf,
                MemoryType, //
            },
            ept::{
                Ept,
                EptVariant, //
            },
            level::Level,
            long_mode::LongMode,
            pae::Pae,
            stats::PageCounts,
            table::Content,
            tlb::RemoteFlush,
            walk::Walk, //
        },
        x86::addr::{
            Gfn,
            Pfn, //
        },
    };
    use kernel::{
        prelude::*,
        sync::atomic::{
            Atomic,
            Relaxed, //
        },
    };

    /// Counts flushes.
    struct Flushes(Atomic<u64>);

    impl RemoteFlush for Flushes {
        fn flush_remote(&self) {
            self.0.add(1, Relaxed);
        }
    }

    fn flushes() -> Flushes {
        Flushes(Atomic::new(0))
    }

    fn mapping(gfn: u64, level: Level, pfn: u64, access: Access) -> Mapping {
        Mapping {
            without_execution: None,
            gfn: Gfn::new(gfn),
            level,
            leaf: Leaf {
                pfn: Pfn::new(pfn & !(level.pages() - 1)),
                access,
                host_writable: access.write,
                memory_type: MemoryType::WriteBack,
                accessed: true,
                dirty: false,
            },
            need: access,
        }
    }

    fn map<F: EntryFormat>(mmu: &DirectMmu<F>, mapping: &Mapping) -> Outcome {
        let mut stock = TableStock::new();
        loop {
            let outcome = mmu.map(&mmu.share(), mapping, &mut stock);
            match outcome {
                Outcome::NeedTables(n) => stock.fill(n).unwrap(),
                other => return other,
            }
        }
    }

    /// The host frame, size and right to write that the tables have for a frame.
    fn look<F: EntryFormat>(mmu: &DirectMmu<F>, gfn: u64) -> Option<(u64, Level, bool)> {
        let shared = mmu.share();
        let step = Walk::new(&shared, Gfn::new(gfn)).last(Level::Page4K)?;
        match step.content {
            Content::Leaf(leaf) => Some((
                leaf.pfn.value() | step.entry.level().offset(gfn),
                step.entry.level(),
                leaf.access.write,
            )),
            _ => None,
        }
    }

    fn range(start: u64, end: u64) -> GfnRange {
        GfnRange {
            start: Gfn::new(start),
            end: Gfn::new(end),
        }
    }

    fn zap<F: EntryFormat>(mmu: &DirectMmu<F>, range: GfnRange, flushes: &Flushes) {
        let locked = mmu.exclude();
        mmu.zap_range(&locked, range);
        mmu.settle(locked, flushes, true);
    }

    fn counts(pages_4k: u64, pages_2m: u64, pages_1g: u64) -> PageCounts {
        PageCounts {
            pages_4k,
            pages_2m,
            pages_1g,
        }
    }

    /// Maps and zaps pages of all sizes in one format.
    /// Runs the same on a tree of each format; the root of one level has no leaf entries.
    fn exercise<F: EntryFormat>(variant: F::Variant, root: Level) {
        let mmu = KBox::pin_init(DirectMmu::<F>::new(root, variant), GFP_KERNEL).unwrap();
        let huge_1g = u64::from(root > Level::Page1G);
        let all = Access::ALL;
        let flushes = flushes();
        let m4k = mapping(0x12345, Level::Page4K, 0x777, all);
        assert_eq!(map(&mmu, &m4k), Outcome::Mapped);
        assert_eq!(map(&mmu, &m4k), Outcome::Spurious);
        assert_eq!(look(&mmu, 0x12345), Some((0x777, Level::Page4K, true)));
        assert_eq!(look(&mmu, 0x12346), None);
        let m2m = mapping(0x40123, Level::Page2M, 0x80123, all);
        assert_eq!(map(&mmu, &m2m), Outcome::Mapped);
        assert_eq!(look(&mmu, 0x401ff), Some((0x801ff, Level::Page2M, true)));
        if huge_1g == 1 {
            let m1g = mapping(0x8_0001, Level::Page1G, 0x4_0001, all);
            assert_eq!(map(&mmu, &m1g), Outcome::Mapped);
            assert_eq!(look(&mmu, 0xb_ffff), Some((0x7_ffff, Level::Page1G, true)));
        }
        assert_eq!(mmu.stats().mapped(), counts(1, 1, huge_1g));

        // A hole costs no flush, a whole range one.
        zap(&mmu, range(0x12346, 0x40000), &flushes);
        assert_eq!(flushes.0.load(Relaxed), 0);
        zap(&mmu, range(0x12345, 0x40001), &flushes);
        assert_eq!(flushes.0.load(Relaxed), 1);
        assert_eq!(look(&mmu, 0x12345), None);
        assert_eq!(look(&mmu, 0x401ff), None);
        assert_eq!(mmu.stats().mapped(), counts(0, 0, huge_1g));
        zap(&mmu, range(0, u64::MAX), &flushes);
        assert_eq!(mmu.stats().mapped(), counts(0, 0, 0));
        assert_eq!(mmu.stats().ever_mapped(), counts(1, 1, huge_1g));
    }

    #[test]
    fn all_formats_share_the_path() {
        exercise::<Ept>(EptVariant { a_d: true }, Level::Level4);
        exercise::<Ept>(EptVariant { a_d: false }, Level::Level4);
        exercise::<LongMode>((), Level::Level4);
        exercise::<Pae>((), Pae::ROOT);
    }

    #[test]
    fn access_grows_in_place() {
        let variant = EptVariant { a_d: false };
        let init = DirectMmu::<Ept>::new(Level::Level4, variant);
        let mmu = KBox::pin_init(init, GFP_KERNEL).unwrap();
        let read = mapping(5, Level::Page4K, 9, Access::READ_EXECUTE);
        let write = mapping(5, Level::Page4K, 9, Access::ALL);
        assert_eq!(map(&mmu, &read), Outcome::Mapped);
        assert_eq!(map(&mmu, &write), Outcome::Mapped);
        assert_eq!(look(&mmu, 5), Some((9, Level::Page4K, true)));
        // A late reader takes nothing away.
        assert_eq!(map(&mmu, &read), Outcome::Spurious);
        assert_eq!(look(&mmu, 5), Some((9, Level::Page4K, true)));
        assert_eq!(mmu.stats().mapped(), counts(1, 0, 0));
    }

    #[test]
    fn execution_alone_can_be_allowed() {
        let variant = EptVariant { a_d: true };
        let init = DirectMmu::<Ept>::new(Level::Level4, variant);
        let mmu = KBox::pin_init(init, GFP_KERNEL).unwrap();
        let only = |read, execute| Access {
            read,
            write: false,
            execute,
        };
        let access = |gfn| {
            let shared = mmu.share();
            let step = Walk::new(&shared, Gfn::new(gfn)).last(Level::Page4K);
            match step.unwrap().content {
                Content::Leaf(leaf) => leaf.access,
                _ => panic!("nothing maps {gfn:x}"),
            }
        };
        for (gfn, level) in [
            (5, Level::Page4K),
            (0x200, Level::Page2M),
            (0x4_0000, Level::Page1G),
        ] {
            let execute = mapping(gfn, level, gfn, only(false, true));
            assert_eq!(map(&mmu, &execute), Outcome::Mapped);
            assert_eq!(map(&mmu, &execute), Outcome::Spurious);
            assert_eq!(access(gfn), only(false, true));
            // Who reads there, too, asks for it.
            let read = mapping(gfn, level, gfn, only(true, false));
            assert_eq!(map(&mmu, &read), Outcome::Mapped);
            assert_eq!(access(gfn), only(true, true));
        }
        let locked = mmu.exclude();
        mmu.zap_all(&locked);
        mmu.settle(locked, &flushes(), true);
    }

    #[test]
    fn what_is_in_the_way_needs_exclusion() {
        let variant = EptVariant { a_d: true };
        let init = DirectMmu::<Ept>::new(Level::Level4, variant);
        let mmu = KBox::pin_init(init, GFP_KERNEL).unwrap();
        let flushes = flushes();
        for gfn in 0x200..0x210 {
            let page = mapping(gfn, Level::Page4K, gfn, Access::ALL);
            assert_eq!(map(&mmu, &page), Outcome::Mapped);
        }
        let huge = mapping(0x205, Level::Page2M, 0x605, Access::ALL);
        assert_eq!(map(&mmu, &huge), Outcome::NeedExclusive);
        let locked = mmu.exclude();
        mmu.clear_way(&locked, &huge);
        mmu.settle(locked, &flushes, true);
        assert_eq!(flushes.0.load(Relaxed), 1);
        assert_eq!(mmu.stats().mapped(), counts(0, 0, 0));
        assert_eq!(map(&mmu, &huge), Outcome::Mapped);
        // Another host page for the same frame.
        let other = mapping(0x205, Level::Page4K, 0x999, Access::ALL);
        assert_eq!(map(&mmu, &other), Outcome::NeedExclusive);
        let locked = mmu.exclude();
        mmu.clear_way(&locked, &other);
        mmu.settle(locked, &flushes, true);
        assert_eq!(map(&mmu, &other), Outcome::Mapped);
        assert_eq!(mmu.stats().mapped(), counts(1, 0, 0));
        let locked = mmu.exclude();
        mmu.zap_all(&locked);
        mmu.settle(locked, &flushes, true);
    }

    #[test]
    fn edges_of_a_range_are_exact() {
        let variant = EptVariant { a_d: true };
        let init = DirectMmu::<Ept>::new(Level::Level4, variant);
        let mmu = KBox::pin_init(init, GFP_KERNEL).unwrap();
        let flushes = flushes();
        let pages = [0x1fe, 0x1ff, 0x200, 0x3ff, 0x400, 0x401];
        for gfn in pages {
            let page = mapping(gfn, Level::Page4K, gfn, Access::ALL);
            assert_eq!(map(&mmu, &page), Outcome::Mapped);
        }
        zap(&mmu, range(0x1ff, 0x401), &flushes);
        assert_eq!(flushes.0.load(Relaxed), 1);
        for gfn in pages {
            let kept = gfn == 0x1fe || gfn == 0x401;
            assert_eq!(look(&mmu, gfn).is_some(), kept);
        }
        zap(&mmu, range(0x300, 0x300), &flushes);
        assert_eq!(flushes.0.load(Relaxed), 1);
        zap(&mmu, range(0, 1 << 36), &flushes);
        assert_eq!(mmu.stats().mapped(), counts(0, 0, 0));
    }
}
