// SPDX-License-Identifier: GPL-2.0

//! The pages that tables are.

use crate::{
    bindings,
    mmu::{
        entry::{
            Entry,
            EntryFormat,
            FOR_EXECUTION, //
        },
        level::{
            Level,
            ENTRIES, //
        },
        stats::Removed, //
    },
    x86::addr::Hpa, //
};
use core::{
    marker::PhantomData,
    ptr::NonNull, //
};
use kernel::{
    prelude::*,
    sync::atomic::{
        Atomic,
        Relaxed, //
    }, //
};

/// The entries of a table.
pub(super) type Entries = [Atomic<u64>; ENTRIES];

/// A table that is not in a tree yet, with all entries empty.
///
/// # Invariants
///
/// `entries` is a page of `kvm_rs_table_alloc()` that this object owns.
pub(crate) struct Table<F: EntryFormat> {
    entries: NonNull<Entries>,
    _format: PhantomData<F>,
}

// SAFETY: The table owns its page, which any thread may use.
unsafe impl<F: EntryFormat> Send for Table<F> {}
// SAFETY: Entries are atomic.
unsafe impl<F: EntryFormat> Sync for Table<F> {}

impl<F: EntryFormat> Table<F> {
    /// Returns a new table. Sleeps; fails with `ENOMEM`.
    pub(crate) fn new() -> Result<Self> {
        Self::alloc(false)
    }

    /// Returns a new table that can be a root. Sleeps; fails with `ENOMEM`.
    pub(super) fn new_root() -> Result<Self> {
        Self::alloc(F::LOW_ROOT)
    }

    fn alloc(low: bool) -> Result<Self> {
        // SAFETY: The function has no preconditions but that the caller may sleep.
        let page = unsafe { bindings::kvm_rs_table_alloc(low) };
        let entries = NonNull::new(page.cast::<Entries>()).ok_or(ENOMEM)?;
        // INVARIANT: The page was just allocated for this object.
        Ok(Self {
            entries,
            _format: PhantomData,
        })
    }

    /// Sets the entries in order to what `next` returns, which must not be tables.
    pub(super) fn fill(&self, mut next: impl FnMut() -> u64) {
        for entry in self.entries() {
            entry.store(next(), Relaxed);
        }
    }

    /// Returns the entries.
    pub(super) fn entries(&self) -> &Entries {
        // SAFETY: The table owns its page, and all its bytes are initialised.
        unsafe { self.entries.as_ref() }
    }

    /// Returns the table's physical address.
    pub(super) fn hpa(&self) -> Hpa {
        // SAFETY: By the type invariant, this is a page of the allocator.
        Hpa::new(unsafe { bindings::kvm_rs_table_hpa(self.entries.as_ptr().cast()) })
    }
}

impl<F: EntryFormat> Drop for Table<F> {
    fn drop(&mut self) {
        // SAFETY: By the type invariant, the page is this object's own.
        unsafe { bindings::kvm_rs_table_free(self.entries.as_ptr().cast()) };
    }
}

/// Frees the table at `entries` and all below it; adds what goes with them to `removed`.
///
/// # Safety
///
/// `entries` must be a table of level `level` in format `F` that was linked and taken out, and that
/// neither a processor nor a thread uses or will use.
pub(super) unsafe fn free_tree<F: EntryFormat>(
    entries: NonNull<Entries>,
    level: Level,
    removed: &mut Removed,
    may_sleep: bool,
) {
    // INVARIANT: By this function's contract, the page has no other owner left.
    let table = Table::<F> {
        entries,
        _format: PhantomData,
    };
    for entry in table.entries() {
        let bits = entry.load(Relaxed);
        match F::decode(bits, level) {
            Entry::Empty | Entry::Mmio => {}
            Entry::Leaf(_) => removed.leaves.add(level, 1),
            Entry::Table(hpa) => {
                if bits & FOR_EXECUTION != 0 {
                    removed.for_execution = removed.for_execution.wrapping_add(1);
                }
                if let Some(below) = level.below() {
                    // SAFETY: Entries lead to tables only by `EntryRef::link`, so this is one of the
                    // level below; nobody but the owner of the tree's top reaches it.
                    unsafe { free_tree::<F>(table_at(hpa), below, removed, may_sleep) };
                }
            }
        }
    }
    drop(table);
    removed.tables = removed.tables.wrapping_add(1);
    if may_sleep {
        // SAFETY: The caller said that it may sleep.
        unsafe { bindings::kvm_rs_cond_resched() };
    }
}

/// Returns the kernel address of the table at `hpa`.
///
/// # Safety
///
/// `hpa` must come from [`Table::hpa`].
pub(super) unsafe fn table_at(hpa: Hpa) -> NonNull<Entries> {
    // SAFETY: By this function's contract, the address is of a page in the kernel's direct map.
    let page = unsafe { bindings::kvm_rs_table_at(hpa.value()) };
    // SAFETY: The direct map does not hold the null address.
    unsafe { NonNull::new_unchecked(page.cast()) }
}
