// SPDX-License-Identifier: GPL-2.0

//! Page-table pages: the only place of the MMU that handles raw memory.
//!
//! A [`PageTable`] is a tree of pages under one reader-writer lock. Whoever follows or changes entries
//! holds the lock: for reading as [`Shared`], where several threads install entries at once by
//! compare-and-exchange, or for writing as [`Exclusive`], which alone takes entries out. So a table
//! that was reached under a guard stays in the tree as long as the guard is held.
//!
//! ```text
//! Table ──link()──> in the tree ──take_out()──> Detached ──TLB flush──> freed
//!   └── dropped, if never linked
//! ```

use super::{
    entry::{
        Entry,
        EntryFormat,
        Leaf,
        FOR_EXECUTION, //
    },
    level::Level,
    stats::{
        PageCounts,
        Removed, //
    },
    tlb::{
        FlushOwed,
        RestrictionOwed, //
    },
};
use crate::{
    linux::rwlock::{
        ReadGuard,
        RwLock,
        WriteGuard, //
    },
    x86::addr::{
        Gfn,
        Hpa,
        Pfn, //
    },
};
use kernel::{
    prelude::*,
    sync::atomic::{
        Acquire,
        Atomic,
        Full,
        Relaxed, //
    },
};

use core::{
    cell::Cell,
    marker::PhantomData, //
};

mod detached;
mod page;

pub(super) use self::detached::Detached;
pub(crate) use self::page::Table;
use self::page::{
    table_at,
    Entries, //
};

/// A tree of tables, with an empty root at first.
///
/// # Invariants
///
/// `root` is a table that this object owns. An entry of level `l` decodes as a table only if
/// [`EntryRef::link`] put the address of a [`Table`] of level `l.below()` there, and then that table
/// belongs to the tree until [`EntryRef::take_out`] removed the entry.
#[pin_data(PinnedDrop)]
pub(crate) struct PageTable<F: EntryFormat> {
    root: Table<F>,
    levels: Level,
    variant: F::Variant,
    /// Number of tables in the tree, and of those that are not freed yet; not the root.
    tables: Atomic<u64>,
    /// Number of them that were made for execution.
    for_execution: Atomic<u64>,
    #[pin]
    lock: RwLock,
}

impl<F: EntryFormat> PageTable<F> {
    /// Returns an initialiser of a tree of `levels` levels with nothing mapped.
    pub(crate) fn new(levels: Level, variant: F::Variant) -> impl PinInit<Self, Error> {
        try_pin_init!(Self {
            root: Table::new_root()?,
            levels: levels,
            variant: variant,
            tables: Atomic::new(0),
            for_execution: Atomic::new(0),
            lock <- RwLock::new(),
        })
    }

    /// Returns the physical address of the root, which never changes.
    pub(crate) fn root(&self) -> Hpa {
        self.root.hpa()
    }

    /// Returns the level of the root.
    pub(crate) fn levels(&self) -> Level {
        self.levels
    }

    /// Returns how many tables there are, apart from the root.
    pub(crate) fn tables(&self) -> u64 {
        self.tables.load(Relaxed)
    }

    /// Returns how many tables there are that were made for execution.
    pub(crate) fn for_execution(&self) -> u64 {
        self.for_execution.load(Relaxed)
    }

    /// Forgets about tables that were freed.
    pub(super) fn forget_tables(&self, removed: &Removed) {
        self.tables.add(0_u64.wrapping_sub(removed.tables), Relaxed);
        if removed.for_execution != 0 {
            self.for_execution
                .add(0_u64.wrapping_sub(removed.for_execution), Relaxed);
        }
    }

    /// Returns the format's variant.
    pub(crate) fn variant(&self) -> F::Variant {
        self.variant
    }

    /// Returns whether `gfn` can be mapped at all.
    pub(crate) fn covers(&self, gfn: Gfn) -> bool {
        gfn.value() < F::frames(self.levels)
    }

    /// Locks the tree together with others that install entries.
    pub(crate) fn share(&self) -> Shared<'_, F> {
        Shared {
            _guard: self.lock.read(),
            tree: self,
        }
    }

    /// Locks the tree against everyone else.
    pub(crate) fn exclude(&self) -> Exclusive<'_, F> {
        Exclusive {
            owed: Cell::new(false),
            restricted: Cell::new(false),
            counts: Cell::new(PageCounts::default()),
            detached: Cell::new(Detached::new()),
            _guard: self.lock.write(),
            tree: self,
        }
    }
}

#[pinned_drop]
impl<F: EntryFormat> PinnedDrop for PageTable<F> {
    fn drop(self: Pin<&mut Self>) {
        // No vCPU has this tree any more, so what its processors cached is never used again.
        let mut exclusive = self.exclude();
        for entry in exclusive.root().entries() {
            entry.take_out();
        }
        let flushed = exclusive.owed().forgive();
        drop(exclusive);
        // The counts were of use to the owner, who has emptied the tree before.
        flushed.release(true);
    }
}

/// Evidence that nothing leaves a tree.
pub(crate) trait Locked<F: EntryFormat> {
    /// Returns the tree.
    fn tree(&self) -> &PageTable<F>;

    /// Returns the tree's root table.
    fn root(&self) -> TableRef<'_, F, Self>
    where
        Self: Sized,
    {
        let tree = self.tree();
        TableRef {
            entries: tree.root.entries(),
            level: tree.levels,
            guard: self,
            _format: PhantomData,
        }
    }
}

/// The tree is locked together with others that install entries.
pub(crate) struct Shared<'a, F: EntryFormat> {
    _guard: ReadGuard<'a>,
    tree: &'a PageTable<F>,
}

impl<F: EntryFormat> Locked<F> for Shared<'_, F> {
    fn tree(&self) -> &PageTable<F> {
        self.tree
    }
}

/// The tree is locked against everyone else.
///
/// Collects what is taken out, until [`Exclusive::owed`] asks for it.
pub(crate) struct Exclusive<'a, F: EntryFormat> {
    owed: Cell<bool>,
    restricted: Cell<bool>,
    counts: Cell<PageCounts>,
    detached: Cell<Detached<F>>,
    _guard: WriteGuard<'a>,
    tree: &'a PageTable<F>,
}

impl<F: EntryFormat> Exclusive<'_, F> {
    /// Returns the debt for all that was taken out or restricted since this was last asked.
    ///
    /// The exclusive reference means that nobody looks at a table that was taken out.
    pub(crate) fn owed(&mut self) -> FlushOwed<F> {
        FlushOwed::new(
            self.owed.replace(false) | self.restricted.replace(false),
            self.counts.take(),
            self.detached.replace(Detached::new()),
        )
    }

    /// Returns the debt for what was only restricted since this or [`Self::owed`] was last asked. It
    /// may be paid without the lock.
    pub(crate) fn restricted(&self) -> RestrictionOwed {
        RestrictionOwed::new(self.restricted.replace(false))
    }
}

impl<F: EntryFormat> Drop for Exclusive<'_, F> {
    fn drop(&mut self) {
        // Someone took entries out and did not ask for the debt.
        kernel::warn_on!(self.owed.get() || self.restricted.get());
    }
}

impl<F: EntryFormat> Locked<F> for Exclusive<'_, F> {
    fn tree(&self) -> &PageTable<F> {
        self.tree
    }
}

/// A table in a tree that is locked by `guard`.
///
/// # Invariants
///
/// The table was reached from the root of the guard's tree under the guard, and is of level `level`.
pub(crate) struct TableRef<'g, F: EntryFormat, G: Locked<F>> {
    entries: &'g Entries,
    level: Level,
    guard: &'g G,
    _format: PhantomData<F>,
}

impl<'g, F: EntryFormat, G: Locked<F>> TableRef<'g, F, G> {
    /// Returns the table's level.
    pub(crate) fn level(&self) -> Level {
        self.level
    }

    /// Returns the entry for `gfn`, whose upper bits are ignored.
    pub(crate) fn entry(&self, gfn: Gfn) -> Option<EntryRef<'g, F, G>> {
        self.entries
            .get(self.level.index(gfn))
            .map(|bits| self.entry_ref(bits))
    }

    /// Returns the entry for `gfn` in the lowest table there is on the way to it, but not below `lowest`.
    pub(crate) fn descend(self, gfn: Gfn, lowest: Level) -> Option<EntryRef<'g, F, G>> {
        let mut table = self;
        loop {
            let entry = table.entry(gfn)?;
            if entry.level <= lowest {
                return Some(entry);
            }
            // Pairs with the exchange in `link`.
            let bits = entry.bits.load(Acquire);
            let next = F::next_table(bits, entry.level).zip(entry.level.below());
            let Some((hpa, below)) = next else {
                return Some(entry);
            };
            table = entry.child(hpa, below);
        }
    }

    /// Returns all entries in order.
    pub(crate) fn entries(self) -> impl Iterator<Item = EntryRef<'g, F, G>> {
        let entries = self.entries;
        entries.iter().map(move |bits| self.entry_ref(bits))
    }

    fn entry_ref(&self, bits: &'g Atomic<u64>) -> EntryRef<'g, F, G> {
        // INVARIANT: The entry is of this table.
        EntryRef {
            bits,
            level: self.level,
            guard: self.guard,
            _format: PhantomData,
        }
    }
}

/// What an entry held when it was read.
pub(crate) enum Content<'g, F: EntryFormat, G: Locked<F>> {
    /// Nothing.
    Empty,
    /// A page.
    Leaf(Leaf),
    /// A table.
    Table(TableRef<'g, F, G>),
    /// The knowledge that there is no memory.
    Mmio,
}

/// The bits that an entry held when it was read, to be replaced if it still holds them.
#[derive(Clone, Copy)]
pub(crate) struct Seen(u64);

impl Seen {
    /// Returns whether the entry, which leads to a table, does so because of an execution.
    pub(crate) fn is_for_execution(self) -> bool {
        self.0 & FOR_EXECUTION != 0
    }
}

/// The entry had changed since it was read.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Raced;

/// An entry of a table in a tree that is locked by `guard`.
///
/// # Invariants
///
/// The entry is one of level `level` in a table of the guard's tree.
pub(crate) struct EntryRef<'g, F: EntryFormat, G: Locked<F>> {
    bits: &'g Atomic<u64>,
    level: Level,
    guard: &'g G,
    _format: PhantomData<F>,
}

impl<'g, F: EntryFormat, G: Locked<F>> EntryRef<'g, F, G> {
    /// Returns the entry's level.
    pub(crate) fn level(&self) -> Level {
        self.level
    }

    /// Returns what the entry holds.
    pub(crate) fn load(&self) -> (Seen, Content<'g, F, G>) {
        // Pairs with the exchange in `link`: who sees the entry sees an initialised table.
        let bits = self.bits.load(Acquire);
        let content = match F::decode(bits, self.level) {
            Entry::Empty => Content::Empty,
            Entry::Leaf(leaf) => Content::Leaf(leaf),
            Entry::Mmio => Content::Mmio,
            Entry::Table(hpa) => self.level.below().map_or(Content::Empty, |level| {
                Content::Table(self.child(hpa, level))
            }),
        };
        (Seen(bits), content)
    }

    /// Returns the table that the entry was seen to lead to.
    fn child(&self, hpa: Hpa, level: Level) -> TableRef<'g, F, G> {
        // SAFETY: By the invariant of the tree, the entry got the address from a table.
        let entries = unsafe { table_at(hpa) };
        TableRef {
            // SAFETY: The table is in the tree. It is freed only after it was taken out and the
            // exclusive guard was borrowed exclusively, which cannot be while `'g` borrows a guard.
            // All its bytes are initialised.
            entries: unsafe { entries.as_ref() },
            level,
            guard: self.guard,
            _format: PhantomData,
        }
    }

    /// Puts `leaf` into the entry if it still holds what was seen.
    ///
    /// What was there must not be a table. Nothing is flushed: access must not shrink, but for an
    /// entry that becomes old.
    pub(crate) fn install(&self, seen: Seen, leaf: &Leaf) -> Result<(), Raced> {
        let bits = F::leaf(self.guard.tree().variant, leaf, self.level);
        // The tree's invariants rest on these two, whatever a format does.
        let is_leaf = matches!(F::decode(bits, self.level), Entry::Leaf(_));
        let was_table = matches!(F::decode(seen.0, self.level), Entry::Table(_));
        if kernel::warn_on!(!is_leaf || was_table) {
            return Err(Raced);
        }
        self.exchange(seen, bits)
    }

    /// Puts the knowledge into the entry that there is no memory, if it still holds what was seen and
    /// the format can say so.
    ///
    /// What was there must be empty.
    pub(crate) fn install_mmio(&self, seen: Seen) {
        let Some(bits) = F::MMIO else { return };
        // The tree's invariants rest on these two, whatever a format does.
        let is_mmio = matches!(F::decode(bits, self.level), Entry::Mmio);
        let was_empty = matches!(F::decode(seen.0, self.level), Entry::Empty);
        if !kernel::warn_on!(!is_mmio || !was_empty) {
            // Whoever changed the entry knows better.
            let _ = self.exchange(seen, bits);
        }
    }

    /// Puts `table` into the entry if it still holds what was seen, and returns it as part of the
    /// tree; else gives it back.
    ///
    /// What was there must be empty. `for_execution` is remembered of the table.
    pub(crate) fn link(
        &self,
        seen: Seen,
        table: Table<F>,
        for_execution: bool,
    ) -> Result<TableRef<'g, F, G>, Table<F>> {
        let was_empty = matches!(F::decode(seen.0, self.level), Entry::Empty);
        self.put(seen, table, for_execution, was_empty)
    }

    /// Puts `table` in the place of the leaf seen, filled with leaves like `small` for the pages of
    /// which that consisted, and returns it as part of the tree; gives it back if the entry changed.
    ///
    /// The first of the pages is that of `small`, which must not allow less than the leaf seen.
    /// `for_execution` is remembered of the table.
    pub(crate) fn split(
        &self,
        seen: Seen,
        small: &Leaf,
        table: Table<F>,
        for_execution: bool,
    ) -> Result<TableRef<'g, F, G>, Table<F>> {
        let Some(below) = self.level.below() else {
            return Err(table);
        };
        let was_leaf = matches!(F::decode(seen.0, self.level), Entry::Leaf(_));
        let mut frame = small.pfn.value();
        table.fill(|| {
            let pfn = Pfn::new(frame);
            frame = frame.wrapping_add(below.pages());
            F::leaf(self.guard.tree().variant, &Leaf { pfn, ..*small }, below)
        });
        self.put(seen, table, for_execution, was_leaf)
            .inspect_err(|table| table.fill(|| 0))
    }

    /// Puts `table`, whose entries are empty or leaves of the level below, in the place of what was seen,
    /// which `fits`, and leaves it to the tree; gives it back if the entry changed.
    fn put(
        &self,
        seen: Seen,
        table: Table<F>,
        for_execution: bool,
        fits: bool,
    ) -> Result<TableRef<'g, F, G>, Table<F>> {
        let hpa = table.hpa();
        let bits = Self::table_bits(hpa, self.level, for_execution);
        let Some(below) = self.level.below() else {
            return Err(table);
        };
        let is_table = matches!(F::decode(bits, self.level), Entry::Table(to) if to == hpa);
        if kernel::warn_on!(!is_table || !fits) {
            return Err(table);
        }
        // INVARIANT: If the exchange succeeds, the tree owns the table, whose entries, if there are any,
        // are leaves of the level below, and the entry decodes to it.
        if self.exchange(seen, bits).is_err() {
            return Err(table);
        }
        core::mem::forget(table);
        self.guard.tree().tables.add(1, Relaxed);
        if for_execution {
            self.guard.tree().for_execution.add(1, Relaxed);
        }
        Ok(self.child(hpa, below))
    }

    /// Returns the bits of an entry that leads to the table at `hpa`.
    fn table_bits(hpa: Hpa, level: Level, for_execution: bool) -> u64 {
        let mark = if for_execution { FOR_EXECUTION } else { 0 };
        F::table(hpa, level) | mark
    }

    fn exchange(&self, seen: Seen, bits: u64) -> Result<(), Raced> {
        match self.bits.cmpxchg(seen.0, bits, Full) {
            Ok(_) => Ok(()),
            Err(_) => Err(Raced),
        }
    }
}

impl<F: EntryFormat> EntryRef<'_, F, Exclusive<'_, F>> {
    /// Puts `leaf` in the place of the one seen, of which it allows or tells less. The flush becomes a
    /// debt of the guard.
    pub(crate) fn restrict(&self, seen: Seen, leaf: &Leaf) -> Result<(), Raced> {
        self.install(seen, leaf)?;
        self.guard.restricted.set(true);
        Ok(())
    }

    /// Forgets that the table to which the entry was seen to lead is there because of an execution.
    pub(crate) fn forget_execution(&self, seen: Seen) {
        let is_table = matches!(F::decode(seen.0, self.level), Entry::Table(_));
        let marked = is_table && seen.is_for_execution();
        // Only the processor interferes, by setting a bit; it is forgotten the next time then.
        if marked && self.exchange(seen, seen.0 & !FOR_EXECUTION).is_ok() {
            let count = &self.guard.tree().for_execution;
            count.add(0_u64.wrapping_sub(1), Relaxed);
        }
    }

    /// Empties the entry; what it held becomes a debt of the guard.
    #[inline]
    pub(crate) fn take_out(&self) {
        // Only the processor changes the entry meanwhile, and only its accessed and dirty bits.
        if self.bits.load(Relaxed) != 0 {
            self.take_out_used();
        }
    }

    /// Likewise, of one that is not empty; returns whether it was a page that the guest wrote, as its dirty
    /// bit says.
    pub(super) fn take_out_used(&self) -> bool {
        let mut written = false;
        let bits = self.bits.xchg(0, Full);
        match F::decode(bits, self.level) {
            // Processors cache nothing of these.
            Entry::Empty | Entry::Mmio => return false,
            Entry::Leaf(leaf) => {
                written = leaf.dirty;
                let mut counts = self.guard.counts.take();
                counts.add(self.level, 1);
                self.guard.counts.set(counts);
            }
            Entry::Table(hpa) => {
                if bits & FOR_EXECUTION != 0 {
                    let count = &self.guard.tree().for_execution;
                    count.add(0_u64.wrapping_sub(1), Relaxed);
                }
                if let Some(below) = self.level.below() {
                    let mut detached = self.guard.detached.replace(Detached::new());
                    // SAFETY: By the invariant of the tree, the address is of a table of that level
                    // which the tree owned. It is not in the tree any more: the guard's list owns
                    // it.
                    unsafe { detached.push(hpa, below) };
                    self.guard.detached.set(detached);
                }
            }
        }
        self.guard.owed.set(true);
        written
    }
}
