// SPDX-License-Identifier: GPL-2.0

//! Remembering where there is no memory.
//!
//! A guest that finds no memory at an address talks to a device there, and will again. So the fault
//! leaves an entry that the processor takes for misconfigured, in formats that have such: the next
//! access makes an exit of its own kind, which says that there is no slot before anyone looks.
//!
//! Such an entry is right as long as it is there: it is installed after the check that the slots are
//! still those in which none was found, and whoever creates a slot takes out what is in its range,
//! in the critical section that publishes it. Processors cache nothing of it.

use super::{
    direct::{
        DirectMmu,
        TableStock, //
    },
    entry::EntryFormat,
    invalidation::Sample,
    table::{
        Content,
        Locked, //
    },
    tlb::RemoteFlush,
    walk::Walk,
    Core, //
};
use crate::x86::addr::{
    Gfn,
    Hva, //
};
use kernel::prelude::*;

/// What came of an attempt to remember.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Outcome {
    /// It is remembered, or somebody else changed the entry: the guest tells on its next access.
    Done,
    /// This many tables are missing.
    NeedTables(usize),
}

impl<F: EntryFormat> DirectMmu<F> {
    /// Leaves an entry for a frame without memory, if there is nothing yet. Runs beside faults.
    pub(super) fn mark_mmio<G: Locked<F>>(
        &self,
        locked: &G,
        gfn: Gfn,
        stock: &mut TableStock<F>,
    ) -> Outcome {
        let mut walk = Walk::new(locked, gfn);
        while let Some(step) = walk.next() {
            match (step.content, step.entry.level().below()) {
                (Content::Table(table), _) => walk.enter(table),
                (Content::Empty, None) => {
                    step.entry.install_mmio(step.seen);
                    return Outcome::Done;
                }
                (Content::Empty, Some(below)) => {
                    let Some(table) = stock.take() else {
                        return Outcome::NeedTables(usize::from(below.number()));
                    };
                    match step.entry.link(step.seen, table, false) {
                        Ok(table) => walk.enter(table),
                        Err(table) => {
                            stock.give_back(table);
                            return Outcome::Done;
                        }
                    }
                }
                (Content::Mmio | Content::Leaf(_), _) => return Outcome::Done,
            }
        }
        Outcome::Done
    }
}

impl<F: EntryFormat, R: RemoteFlush> Core<F, R> {
    /// Remembers that there was no slot for `gfn` after `sample`. It does not matter if that fails.
    pub(super) fn remember_mmio(&self, gfn: Gfn, sample: Sample, stock: &mut TableStock<F>) {
        if F::MMIO.is_none() {
            return;
        }
        let nowhere = Hva::new(0);
        for _ in 0..2 {
            let outcome = {
                let locked = self.direct.share();
                // Of all that the check is for, only changes of the slots matter here.
                if self.invalidation.must_retry(sample, nowhere, nowhere) {
                    return;
                }
                self.direct.mark_mmio(&locked, gfn, stock)
            };
            match outcome {
                Outcome::Done => return,
                Outcome::NeedTables(n) => {
                    if stock.fill(n).is_err() {
                        return;
                    }
                }
            }
        }
    }
}

#[kunit_tests(kvm_rs_mmio)]
mod tests {
    use super::*;
    use crate::{
        memory::GfnRange,
        mmu::{
            ept::{
                Ept,
                EptVariant, //
            },
            level::Level, //
        },
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

    fn is_mmio(mmu: &DirectMmu<Ept>, gfn: u64) -> bool {
        let shared = mmu.share();
        let step = Walk::new(&shared, Gfn::new(gfn)).last(Level::Page4K);
        matches!(step.unwrap().content, Content::Mmio)
    }

    #[test]
    fn what_is_no_memory_is_remembered_until_zapped() {
        let variant = EptVariant { a_d: true };
        let init = DirectMmu::<Ept>::new(Level::Level4, variant);
        let mmu = KBox::pin_init(init, GFP_KERNEL).unwrap();
        let (a, b) = (0xfee00, 0xfee01);
        let mut stock = TableStock::new();
        let mark = |gfn, stock: &mut _| mmu.mark_mmio(&mmu.share(), Gfn::new(gfn), stock);
        assert_eq!(mark(a, &mut stock), Outcome::NeedTables(3));
        stock.fill(3).unwrap();
        assert_eq!(mark(a, &mut stock), Outcome::Done);
        assert_eq!(mark(b, &mut stock), Outcome::Done);
        assert_eq!(mark(b, &mut stock), Outcome::Done);
        assert!(is_mmio(&mmu, a) && is_mmio(&mmu, b) && !is_mmio(&mmu, b + 1));

        // A page of it becomes memory: no processor has to forget anything.
        let flushes = Flushes(Atomic::new(0));
        let locked = mmu.exclude();
        let range = GfnRange {
            start: Gfn::new(a),
            end: Gfn::new(b),
        };
        mmu.zap_range(&locked, range);
        mmu.settle(locked, &flushes, true);
        assert_eq!(flushes.0.load(Relaxed), 0);
        assert!(!is_mmio(&mmu, a) && is_mmio(&mmu, b));
    }
}
