// SPDX-License-Identifier: GPL-2.0

//! The direct MMU: guest-physical to host-physical, in whatever format the processor walks.
//!
//! This is the heart of the module. A guest without paging has linear addresses that are physical
//! ones, so the tables that the processor walks for it map guest-physical to host-physical memory.
//! EPT maps guest-physical to host-physical memory for every guest. One fault-and-map path serves
//! both: `DirectMmu<Ept>`, entered by an EPT violation, and `DirectMmu<Pae>`, entered by #PF. They
//! differ in how an entry is written, in the number of levels, and in the trap that starts it.

use super::{
    entry::{
        Access,
        EntryFormat,
        Leaf, //
    },
    level::Level,
    stats::{
        PageCounts,
        PageStats,
        ALL_VMS, //
    },
    table::{
        Content,
        EntryRef,
        Exclusive,
        Locked,
        PageTable,
        Raced,
        Seen,
        Shared,
        Table,
        TableRef, //
    },
    tlb::{
        Flushed,
        RemoteFlush, //
    },
    walk::Walk, //
};
use crate::x86::addr::{
    Gfn,
    Hpa,
    Pfn, //
};
use kernel::prelude::*;

/// What came of an attempt to map a page.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Outcome {
    /// The page is mapped.
    Mapped,
    /// The page was mapped already; the processor had not noticed.
    Spurious,
    /// Someone changed an entry on the way: try again.
    Raced,
    /// This many tables are missing and were not in the stock: fill it and try again.
    NeedTables(usize),
    /// There are smaller pages, as the guest fetches instructions there: map one of these.
    Smaller,
    /// Something is in the way that only [`DirectMmu::clear_way`] may remove.
    NeedExclusive,
}

/// A page that is to be mapped.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Mapping {
    /// The guest's frame that it is about.
    pub(crate) gfn: Gfn,
    /// The size of the page.
    pub(crate) level: Level,
    /// The host page, aligned to the size.
    pub(crate) leaf: Leaf,
    /// What the guest tried to do.
    pub(crate) need: Access,
    /// The size that the page would have if the guest did not fetch an instruction there, where that
    /// makes a difference: see [`super::nx`].
    pub(crate) without_execution: Option<Level>,
}

impl Mapping {
    /// Returns the host frame that `leaf` of size `level` has for the guest's frame.
    fn pfn_in(&self, leaf: &Leaf, level: Level) -> Pfn {
        Pfn::new(leaf.pfn.value() | level.offset(self.gfn.value()))
    }

    /// Returns the mapping of the smaller page that holds the guest's frame.
    pub(crate) fn smaller(&self) -> Self {
        let Some(level) = self.level.below() else {
            return *self;
        };
        let pfn = self.pfn_in(&self.leaf, self.level).value();
        let leaf = Leaf {
            pfn: Pfn::new(pfn.wrapping_sub(level.offset(pfn))),
            ..executable_if_small(&self.leaf, level)
        };
        Self {
            level,
            leaf,
            ..*self
        }
    }

    /// Returns whether a table in an entry of `level` is only needed for an execution.
    fn is_for_execution(&self, level: Level) -> bool {
        self.without_execution.is_some_and(|size| level <= size)
    }

    /// Returns how many tables there are between an entry of `level` and the mapping's.
    fn tables_below(&self, level: Level) -> usize {
        usize::from(level.number().saturating_sub(self.level.number()))
    }

    /// Returns whether `leaf` of size `level` maps the guest's frame to the same host frame.
    fn agrees(&self, leaf: &Leaf, level: Level) -> bool {
        self.pfn_in(leaf, level) == self.pfn_in(&self.leaf, self.level)
    }
}

/// Returns `leaf`, as a page of size `level` says it: a small page can be executed where a large one
/// cannot only because of its size.
fn executable_if_small(leaf: &Leaf, level: Level) -> Leaf {
    let access = Access {
        execute: leaf.access.execute || level == Level::Page4K,
        ..leaf.access
    };
    Leaf { access, ..*leaf }
}

/// The most tables of a stock.
pub(super) const STOCK: usize = 4;

/// Tables allocated before the lock is taken, for a fault that may need some.
///
/// "It needs an allocation" is an [`Outcome`], answered with [`TableStock::fill`] outside the lock.
pub(crate) struct TableStock<F: EntryFormat> {
    tables: [Option<Table<F>>; STOCK],
}

impl<F: EntryFormat> TableStock<F> {
    /// Returns an empty stock.
    pub(crate) const fn new() -> Self {
        Self {
            tables: [const { None }; STOCK],
        }
    }

    /// Fills the stock up to `n` tables (at most [`STOCK`]). Sleeps; fails with `ENOMEM`.
    pub(crate) fn fill(&mut self, n: usize) -> Result {
        for place in self.tables.iter_mut().take(n) {
            if place.is_none() {
                *place = Some(Table::new()?);
            }
        }
        Ok(())
    }

    /// Takes a table out.
    pub(super) fn take(&mut self) -> Option<Table<F>> {
        self.tables.iter_mut().find_map(Option::take)
    }

    /// Puts a table back.
    pub(super) fn give_back(&mut self, table: Table<F>) {
        if let Some(place) = self.tables.iter_mut().find(|place| place.is_none()) {
            *place = Some(table);
        }
    }
}

/// The tables of a VM that map its physical memory.
#[pin_data]
pub(crate) struct DirectMmu<F: EntryFormat> {
    #[pin]
    tree: PageTable<F>,
    stats: PageStats,
}

impl<F: EntryFormat> DirectMmu<F> {
    /// Returns an initialiser of empty tables of `levels` levels.
    pub(crate) fn new(levels: Level, variant: F::Variant) -> impl PinInit<Self, Error> {
        try_pin_init!(Self {
            tree <- PageTable::new(levels, variant),
            stats: PageStats::new(),
        })
    }

    /// Returns the physical address of the root table, which never changes.
    pub(crate) fn root(&self) -> Hpa {
        self.tree.root()
    }

    /// Returns the level of the root table.
    pub(crate) fn levels(&self) -> Level {
        self.tree.levels()
    }

    /// Returns how many tables there are, apart from the root.
    pub(crate) fn tables(&self) -> u64 {
        self.tree.tables()
    }

    /// Returns how many tables there are where larger pages could be, but for an execution.
    pub(crate) fn for_execution(&self) -> u64 {
        self.tree.for_execution()
    }

    /// Returns the format's variant.
    pub(crate) fn variant(&self) -> F::Variant {
        self.tree.variant()
    }

    /// Returns whether `gfn` can be mapped at all.
    pub(crate) fn covers(&self, gfn: Gfn) -> bool {
        self.tree.covers(gfn)
    }

    /// Returns the counters.
    pub(crate) fn stats(&self) -> &PageStats {
        &self.stats
    }

    /// Locks the tables together with other faults.
    pub(crate) fn share(&self) -> Shared<'_, F> {
        self.tree.share()
    }

    /// Locks the tables against everyone else.
    pub(crate) fn exclude(&self) -> Exclusive<'_, F> {
        self.tree.exclude()
    }

    /// Maps a page.
    ///
    /// Runs beside other faults; what it finds and what it puts in place are one atomic step.
    pub(crate) fn map<G: Locked<F>>(
        &self,
        locked: &G,
        mapping: &Mapping,
        stock: &mut TableStock<F>,
    ) -> Outcome {
        let mut table = locked.root();
        // Each turn is in a table below that of the one before.
        while let Some(entry) = table.descend(mapping.gfn, mapping.level) {
            let (seen, content) = entry.load();
            let level = entry.level();
            table = match content {
                // It was put there just now.
                Content::Table(below) if level > mapping.level => below,
                Content::Table(_) if seen.is_for_execution() => return Outcome::Smaller,
                Content::Table(_) => return Outcome::NeedExclusive,
                Content::Leaf(old) if mapping.agrees(&old, level) => {
                    if old.access.includes(mapping.need) {
                        return Self::make_young(&entry, seen, &old);
                    }
                    if level == mapping.level {
                        return Self::widen(&entry, seen, &old, mapping);
                    }
                    let Some(table) = stock.take() else {
                        return Outcome::NeedTables(mapping.tables_below(level));
                    };
                    let for_execution = mapping.is_for_execution(level);
                    match self.split(&entry, seen, &old, table, for_execution) {
                        Ok(table) => table,
                        Err(table) => {
                            stock.give_back(table);
                            return Outcome::Raced;
                        }
                    }
                }
                Content::Leaf(_) => return Outcome::NeedExclusive,
                Content::Empty | Content::Mmio if level == mapping.level => {
                    return match entry.install(seen, &mapping.leaf) {
                        Ok(()) => {
                            self.stats.count_mapped(level);
                            ALL_VMS.count_mapped(level);
                            Outcome::Mapped
                        }
                        Err(Raced) => Outcome::Raced,
                    };
                }
                // It is only at the lowest level.
                Content::Mmio => return Outcome::NeedExclusive,
                Content::Empty => {
                    let Some(table) = stock.take() else {
                        return Outcome::NeedTables(mapping.tables_below(level));
                    };
                    match entry.link(seen, table, mapping.is_for_execution(level)) {
                        Ok(table) => table,
                        Err(table) => {
                            stock.give_back(table);
                            return Outcome::Raced;
                        }
                    }
                }
            }
        }
        // The walk ends in one of the arms above unless the mapping is below the lowest level.
        Outcome::Raced
    }

    /// Lets an entry allow what `mapping` does, too. Nothing that is known of the page's use gets lost.
    fn widen<G: Locked<F>>(
        entry: &EntryRef<'_, F, G>,
        seen: Seen,
        old: &Leaf,
        mapping: &Mapping,
    ) -> Outcome {
        let leaf = Leaf {
            access: old.access.union(mapping.leaf.access),
            host_writable: old.host_writable || mapping.leaf.host_writable,
            accessed: old.accessed || mapping.leaf.accessed,
            dirty: old.dirty || mapping.leaf.dirty,
            ..mapping.leaf
        };
        match entry.install(seen, &leaf) {
            Ok(()) => Outcome::Mapped,
            Err(Raced) => Outcome::Raced,
        }
    }

    /// Makes an entry young that allows what the guest tried to do.
    fn make_young<G: Locked<F>>(entry: &EntryRef<'_, F, G>, seen: Seen, old: &Leaf) -> Outcome {
        if old.accessed {
            return Outcome::Spurious;
        }
        let young = Leaf {
            accessed: true,
            ..*old
        };
        match entry.install(seen, &young) {
            Ok(()) => Outcome::Mapped,
            Err(Raced) => Outcome::Raced,
        }
    }

    /// Replaces a leaf by a table of smaller ones that say the same, but that small pages can be executed.
    /// Nothing is to be flushed.
    pub(crate) fn split<'g, G: Locked<F>>(
        &self,
        entry: &EntryRef<'g, F, G>,
        seen: Seen,
        leaf: &Leaf,
        table: Table<F>,
        for_execution: bool,
    ) -> Result<TableRef<'g, F, G>, Table<F>> {
        let small = match entry.level().below() {
            Some(below) => executable_if_small(leaf, below),
            None => *leaf,
        };
        let table = entry.split(seen, &small, table, for_execution)?;
        self.stats.count_split(entry.level());
        ALL_VMS.count_split(entry.level());
        Ok(table)
    }

    /// Takes out whatever keeps `mapping` from its place.
    pub(crate) fn clear_way(&self, locked: &Exclusive<'_, F>, mapping: &Mapping) {
        if let Some(step) = Walk::new(locked, mapping.gfn).last(mapping.level) {
            step.entry.take_out();
        }
    }

    /// Flushes what is owed under `locked`, unlocks, and frees tables that were taken out.
    ///
    /// With `may_sleep`, the caller can be put to sleep at the end.
    pub(crate) fn settle(
        &self,
        mut locked: Exclusive<'_, F>,
        remote: &impl RemoteFlush,
        may_sleep: bool,
    ) {
        let owed = locked.owed();
        let flushed = owed.flush(&locked, remote);
        drop(locked);
        self.release(flushed, may_sleep);
    }

    /// Frees tables that were taken out and flushed, and counts.
    pub(crate) fn release(&self, flushed: Flushed<F>, may_sleep: bool) {
        let removed = flushed.release(may_sleep);
        if removed.tables != 0 {
            self.tree.forget_tables(&removed);
        }
        if removed.leaves != PageCounts::default() {
            self.stats.count_unmapped(removed.leaves);
            ALL_VMS.count_unmapped(removed.leaves);
        }
    }
}
