// SPDX-License-Identifier: GPL-2.0

//! Ageing: telling the host which pages the guest uses.
//!
//! An entry is young if its page was used since the host last made it old. Where entries have an
//! accessed bit the processor makes them young. Where they have none, an old entry is one that the
//! processor does not find present but that remembers all it says, so that a fault can make it young
//! again: see [`super::ept`].
//!
//! Nothing is flushed, as in KVM: what a processor has cached of an old entry lets it use the page
//! unnoticed until it forgets it, which is soon enough for what the host decides by it. So an old
//! entry owes a flush when it is taken out, like any other.

use super::{
    direct::DirectMmu,
    entry::{
        EntryFormat,
        Leaf, //
    },
    table::{
        Content,
        Locked,
        Shared,
        TableRef, //
    },
};
use crate::{
    memory::GfnRange,
    x86::addr::Gfn, //
};
use kernel::prelude::*;

/// What is done with young entries.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Age {
    /// They stay as they are.
    Look,
    /// They become old.
    MakeOld,
}

impl<F: EntryFormat> DirectMmu<F> {
    /// Returns whether an entry of `range` is young. Runs beside faults.
    pub(crate) fn age(&self, locked: &Shared<'_, F>, range: GfnRange, what: Age) -> bool {
        age_table(locked.root(), Gfn::new(0), range, what)
    }
}

/// Ages `range` in the tree at `table`, whose first frame is `base`; returns whether an entry is young.
///
/// Recurses once per level.
fn age_table<F: EntryFormat>(
    table: TableRef<'_, F, Shared<'_, F>>,
    base: Gfn,
    range: GfnRange,
    what: Age,
) -> bool {
    let mut young = false;
    for (first, entry) in table.entries_of(base, range) {
        let (seen, content) = entry.load();
        match content {
            Content::Empty | Content::Mmio => {}
            Content::Table(below) => young |= age_table(below, first, range, what),
            Content::Leaf(leaf) if leaf.accessed => {
                young = true;
                if what == Age::MakeOld {
                    let old = Leaf {
                        accessed: false,
                        ..leaf
                    };
                    // Who changes the entry meanwhile uses the page: it may stay young.
                    let _ = entry.install(seen, &old);
                }
            }
            Content::Leaf(_) => {}
        }
        if young && what == Age::Look {
            break;
        }
    }
    young
}

#[kunit_tests(kvm_rs_age)]
mod tests {
    use super::*;
    use crate::{
        mmu::{
            direct::{
                Mapping,
                Outcome,
                TableStock, //
            },
            entry::{
                Access,
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
            tlb::RemoteFlush,
            walk::Walk, //
        },
        x86::addr::Pfn,
    };
    use kernel::sync::atomic::{
        Atomic,
        Relaxed, //
    };

    struct Flushes(Atomic<u64>);

    impl RemoteFlush for Flushes {
        fn flush_remote(&self) {
            self.0.add(1, Relaxed);
        }
    }

    fn map<F: EntryFormat>(mmu: &DirectMmu<F>, gfn: u64, level: Level, need: Access) -> Outcome {
        let mapping = Mapping {
            without_execution: None,
            gfn: Gfn::new(gfn),
            level,
            leaf: Leaf {
                pfn: Pfn::new((gfn + 0x10_0000) & !(level.pages() - 1)),
                access: need,
                host_writable: need.write,
                memory_type: MemoryType::WriteBack,
                accessed: true,
                dirty: false,
            },
            need,
        };
        let mut stock = TableStock::new();
        stock.fill(4).unwrap();
        mmu.map(&mmu.share(), &mapping, &mut stock)
    }

    fn leaf<F: EntryFormat>(mmu: &DirectMmu<F>, gfn: u64) -> Option<Leaf> {
        let shared = mmu.share();
        match Walk::new(&shared, Gfn::new(gfn))
            .last(Level::Page4K)?
            .content
        {
            Content::Leaf(leaf) => Some(leaf),
            _ => None,
        }
    }

    fn age<F: EntryFormat>(mmu: &DirectMmu<F>, start: u64, end: u64, what: Age) -> bool {
        let range = GfnRange {
            start: Gfn::new(start),
            end: Gfn::new(end),
        };
        mmu.age(&mmu.share(), range, what)
    }

    fn exercise<F: EntryFormat>(variant: F::Variant, root: Level) {
        let mmu = KBox::pin_init(DirectMmu::<F>::new(root, variant), GFP_KERNEL).unwrap();
        let (all, read) = (Access::ALL, Access::READ_EXECUTE);
        assert_eq!(map(&mmu, 0x1ff, Level::Page4K, all), Outcome::Mapped);
        assert_eq!(map(&mmu, 0x200, Level::Page4K, read), Outcome::Mapped);
        assert_eq!(map(&mmu, 0x405, Level::Page2M, all), Outcome::Mapped);
        let before = leaf(&mmu, 0x200);

        // Looking changes nothing; one page is made old and its neighbour is not.
        assert!(!age(&mmu, 0x201, 0x400, Age::MakeOld));
        assert!(age(&mmu, 0x200, 0x201, Age::Look));
        assert!(age(&mmu, 0x200, 0x201, Age::MakeOld));
        assert!(!age(&mmu, 0x200, 0x201, Age::Look));
        assert!(!age(&mmu, 0x200, 0x201, Age::MakeOld));
        assert!(age(&mmu, 0x1ff, 0x201, Age::Look));
        // An old entry remembers all.
        let old = before.map(|leaf| Leaf {
            accessed: false,
            ..leaf
        });
        assert!(old.is_some());
        assert_eq!(leaf(&mmu, 0x200), old);
        // A use makes it what it was, and one that it does not allow more than that.
        assert_eq!(map(&mmu, 0x200, Level::Page4K, read), Outcome::Mapped);
        assert_eq!(leaf(&mmu, 0x200), before);
        assert_eq!(map(&mmu, 0x200, Level::Page4K, read), Outcome::Spurious);
        assert!(age(&mmu, 0x200, 0x201, Age::MakeOld));
        assert_eq!(map(&mmu, 0x200, Level::Page4K, all), Outcome::Mapped);
        assert_eq!(leaf(&mmu, 0x200).map(|leaf| leaf.access), Some(all));

        // A large page is one, and a small mapping is no reason to break it.
        assert!(age(&mmu, 0x5ff, 0x600, Age::MakeOld));
        assert!(!age(&mmu, 0x400, 0x600, Age::Look));
        assert_eq!(map(&mmu, 0x433, Level::Page4K, read), Outcome::Mapped);
        assert!(age(&mmu, 0x400, 0x401, Age::Look));
        assert!(age(&mmu, 0, u64::MAX, Age::MakeOld));
        assert!(!age(&mmu, 0, u64::MAX, Age::Look));

        // Old entries are there to be taken out, with a flush.
        let flushes = Flushes(Atomic::new(0));
        let counts = mmu.stats().mapped();
        assert_eq!((counts.pages_4k, counts.pages_2m), (2, 1));
        let locked = mmu.exclude();
        let range = GfnRange {
            start: Gfn::new(0x200),
            end: Gfn::new(0x201),
        };
        mmu.zap_range(&locked, range);
        mmu.settle(locked, &flushes, true);
        assert_eq!(flushes.0.load(Relaxed), 1);
        assert_eq!(leaf(&mmu, 0x200), None);
        let locked = mmu.exclude();
        mmu.zap_all(&locked);
        mmu.settle(locked, &flushes, true);
        assert_eq!(mmu.stats().mapped(), PageCounts::default());
    }

    #[test]
    fn entries_age_in_every_format() {
        exercise::<Ept>(EptVariant { a_d: true }, Level::Level4);
        exercise::<Ept>(EptVariant { a_d: false }, Level::Level4);
        exercise::<LongMode>((), Level::Level4);
        exercise::<Pae>((), Pae::ROOT);
    }

    #[test]
    fn old_entries_without_accessed_bits_are_not_present() {
        let leaf = Leaf {
            pfn: Pfn::new(0x12345),
            host_writable: true,
            access: Access::READ_EXECUTE,
            memory_type: MemoryType::WriteBack,
            accessed: false,
            dirty: false,
        };
        let bits = Ept::leaf(EptVariant { a_d: true }, &leaf, Level::Page4K);
        assert_eq!(bits & 7, 5);
        let bits = Ept::leaf(EptVariant { a_d: false }, &leaf, Level::Page4K);
        assert_eq!(bits & 7, 0);
    }
}
