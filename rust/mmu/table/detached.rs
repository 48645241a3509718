// SPDX-License-Identifier: GPL-2.0

//! Tables that were taken out of a tree, until they are freed.

use super::page::{
    free_tree,
    table_at,
    Entries, //
};
use crate::{
    bindings,
    mmu::{
        entry::EntryFormat,
        level::Level,
        stats::Removed, //
    },
    x86::addr::Hpa, //
};
use core::{
    marker::PhantomData,
    ptr::NonNull, //
};
/// Bits of the word beside a table that hold its level; the rest is the next table in a list.
const LINK_LEVEL: usize = 7;

/// Trees of tables that were taken out, in a list that needs no memory.
///
/// Dropping a list that is not empty leaks the tables, since processors may still use them.
///
/// # Invariants
///
/// `first` is 0, or the kernel address of a table with its level in the low three bits. The word
/// beside each table is of the same kind. The list owns the tables.
pub(in crate::mmu) struct Detached<F: EntryFormat> {
    first: usize,
    _format: PhantomData<F>,
}

// SAFETY: The list owns its tables, which any thread may free.
unsafe impl<F: EntryFormat> Send for Detached<F> {}

impl<F: EntryFormat> Detached<F> {
    pub(super) const fn new() -> Self {
        // INVARIANT: The list is empty.
        Self {
            first: 0,
            _format: PhantomData,
        }
    }

    /// Puts a table in front.
    ///
    /// # Safety
    ///
    /// `hpa` must be of a table of level `level`, whose ownership goes to the list.
    pub(super) unsafe fn push(&mut self, hpa: Hpa, level: Level) {
        // SAFETY: By this function's contract.
        let table = unsafe { table_at(hpa) };
        // SAFETY: The page is of the allocator, and nobody else uses the word beside it.
        unsafe { bindings::kvm_rs_table_set_link(table.as_ptr().cast(), self.first) };
        // INVARIANT: The address is page-aligned, so its low bits have room for the level.
        self.first = table.as_ptr().expose_provenance() | usize::from(level.number());
    }

    /// Frees all tables and adds what goes with them to `removed`.
    ///
    /// Only for lists whose translations are flushed: this is [`crate::mmu::tlb`]'s to see to.
    pub(in crate::mmu) fn free(mut self, removed: &mut Removed, may_sleep: bool) {
        while self.first != 0 {
            let table = core::ptr::with_exposed_provenance_mut::<Entries>(self.first & !LINK_LEVEL);
            // CAST: The value is at most 7.
            let level = Level::from_number((self.first & LINK_LEVEL) as u8);
            let (Some(table), Some(level)) = (NonNull::new(table), level) else {
                // By the type invariant, this does not happen.
                return;
            };
            // SAFETY: By the type invariant, this is a table of the list.
            self.first = unsafe { bindings::kvm_rs_table_link(table.as_ptr().cast()) };
            // SAFETY: The list owned the table, whose level this is, and has let go of it. It was
            // taken out under an exclusive guard that was borrowed exclusively since, so no thread
            // looks at it, and flushed, so no processor does.
            unsafe { free_tree::<F>(table, level, removed, may_sleep) };
        }
    }
}

impl<F: EntryFormat> Drop for Detached<F> {
    fn drop(&mut self) {
        kernel::warn_on!(self.first != 0);
    }
}
