// SPDX-License-Identifier: GPL-2.0

//! Translations that processors may still hold, and who can make them forget.

use super::{
    entry::EntryFormat,
    stats::{
        PageCounts,
        Removed, //
    },
    table::{
        Detached,
        Exclusive, //
    },
};

/// Who can make all vCPUs of a VM forget the translations of its tables.
pub(crate) trait RemoteFlush: Send + Sync + 'static {
    /// Returns when no vCPU can use a translation that was in the tables before the call and is not
    /// now: each vCPU flushes before it next enters the guest, and those that were in it have left.
    ///
    /// Called with the tables' lock held. Must not sleep, and may wait for other CPUs to answer an
    /// interrupt.
    fn flush_remote(&self);

    /// Returns when all pages are marked that vCPUs wrote before the call, where the processor logs
    /// them. As [`Self::flush_remote`] otherwise.
    fn gather_writes(&self) {}

    /// Returns when each vCPU looks, before it next enters the guest, at whether the processor is to log
    /// the pages that it writes, and those that were in it have left. As [`Self::flush_remote`]
    /// otherwise.
    fn logging_changed(&self) {}

    /// Returns when each vCPU looks for the APIC-access page before it next enters the guest, and those
    /// that were in it have left. As [`Self::flush_remote`], but without the tables' lock.
    fn apic_access_changed(&self) {}
}

/// The debt of having taken entries out of tables: processors may still use them.
///
/// The tables that went with them stay allocated until it is paid.
#[must_use = "processors may still use what was taken out of the tables"]
pub(crate) struct FlushOwed<F: EntryFormat> {
    owed: bool,
    counts: PageCounts,
    tables: Detached<F>,
}

impl<F: EntryFormat> FlushOwed<F> {
    /// Returns the debt for `counts` leaf entries and the trees of `tables`.
    pub(super) fn new(owed: bool, counts: PageCounts, tables: Detached<F>) -> Self {
        Self {
            owed,
            counts,
            tables,
        }
    }

    /// Pays the debt, while the lock under which it was made is held: who finds the entries gone
    /// may rely on nobody using them.
    pub(crate) fn flush(self, _locked: &Exclusive<'_, F>, remote: &impl RemoteFlush) -> Flushed<F> {
        if self.owed {
            remote.flush_remote();
        }
        Flushed {
            counts: self.counts,
            tables: self.tables,
        }
    }

    /// Pays the debt of tables that no processor uses any more.
    pub(super) fn forgive(self) -> Flushed<F> {
        Flushed {
            counts: self.counts,
            tables: self.tables,
        }
    }
}

/// The debt of having made entries allow less, or having cleared what they told: processors may still
/// write without our knowing.
///
/// It may be paid after the lock is released. Until then nobody may rely on a page not being written
/// because its entry forbids it; whoever takes the entry out flushes anyway.
#[must_use = "processors may still write by the entries as they were"]
pub(crate) struct RestrictionOwed(bool);

impl RestrictionOwed {
    /// No debt.
    pub(crate) const NONE: Self = Self(false);

    /// Returns a debt, if there is one.
    pub(super) fn new(owed: bool) -> Self {
        Self(owed)
    }

    /// Adds another debt to this one.
    pub(crate) fn add(&mut self, other: Self) {
        self.0 |= other.0;
    }

    /// Pays the debt.
    pub(crate) fn pay(self, remote: &impl RemoteFlush) {
        if self.0 {
            remote.flush_remote();
        }
    }
}

/// What is left of a paid debt: tables to free, best done without a lock.
#[must_use = "the tables are freed by `release`"]
pub(crate) struct Flushed<F: EntryFormat> {
    counts: PageCounts,
    tables: Detached<F>,
}

impl<F: EntryFormat> Flushed<F> {
    /// Frees the tables and returns what was taken out in all.
    ///
    /// With `may_sleep`, other tasks get their turn between tables.
    pub(crate) fn release(self, may_sleep: bool) -> Removed {
        let mut removed = Removed {
            leaves: self.counts,
            ..Removed::default()
        };
        self.tables.free(&mut removed, may_sleep);
        removed
    }
}
