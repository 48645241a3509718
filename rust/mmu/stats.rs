// SPDX-License-Identifier: GPL-2.0

//! How many entries of each size are, and ever were, in the tables.

use super::level::{
    Level,
    ENTRIES, //
};
use kernel::sync::atomic::{
    Atomic,
    Relaxed, //
};

/// A number of leaf entries of each size.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub(crate) struct PageCounts {
    /// Entries of 4 KiB.
    pub(crate) pages_4k: u64,
    /// Entries of 2 MiB.
    pub(crate) pages_2m: u64,
    /// Entries of 1 GiB.
    pub(crate) pages_1g: u64,
}

impl PageCounts {
    /// Counts `n` more entries of size `level`. Levels without leaf entries are ignored.
    pub(crate) fn add(&mut self, level: Level, n: u64) {
        let count = match level {
            Level::Page4K => &mut self.pages_4k,
            Level::Page2M => &mut self.pages_2m,
            Level::Page1G => &mut self.pages_1g,
            Level::Level4 | Level::Level5 => return,
        };
        *count = count.wrapping_add(n);
    }
}

/// What has left the tables.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub(crate) struct Removed {
    /// Leaf entries.
    pub(crate) leaves: PageCounts,
    /// Tables.
    pub(crate) tables: u64,
    /// Those of them that were made for execution.
    pub(crate) for_execution: u64,
}

/// Counters of leaf entries, changed by several CPUs at once.
pub(crate) struct PageStats {
    mapped: [Atomic<u64>; 3],
    ever: [Atomic<u64>; 3],
}

/// The counters of all VMs together, since the module was loaded.
pub(crate) static ALL_VMS: PageStats = PageStats::new();

impl PageStats {
    /// Returns counters at 0.
    pub(crate) const fn new() -> Self {
        Self {
            mapped: [Atomic::new(0), Atomic::new(0), Atomic::new(0)],
            ever: [Atomic::new(0), Atomic::new(0), Atomic::new(0)],
        }
    }

    /// Returns how many entries are in the tables now.
    pub(crate) fn mapped(&self) -> PageCounts {
        Self::load(&self.mapped)
    }

    /// Returns how many entries were ever put into the tables.
    pub(crate) fn ever_mapped(&self) -> PageCounts {
        Self::load(&self.ever)
    }

    /// Counts an entry of size `level` that was put into a table.
    pub(super) fn count_mapped(&self, level: Level) {
        let index = usize::from(level.number().wrapping_sub(1));
        for counts in [&self.mapped, &self.ever] {
            if let Some(count) = counts.get(index) {
                count.add(1, Relaxed);
            }
        }
    }

    /// Counts an entry of size `level` that was replaced by a table of those of the size below.
    pub(super) fn count_split(&self, level: Level) {
        let (mut one, mut many) = (PageCounts::default(), PageCounts::default());
        one.add(level, 1);
        if let Some(below) = level.below() {
            many.add(below, ENTRIES as u64);
        }
        Self::change(&self.mapped, many, u64::wrapping_add);
        Self::change(&self.ever, many, u64::wrapping_add);
        Self::change(&self.mapped, one, u64::wrapping_sub);
    }

    /// Counts entries that were taken out of tables.
    pub(super) fn count_unmapped(&self, counts: PageCounts) {
        Self::change(&self.mapped, counts, u64::wrapping_sub);
    }

    fn load([a, b, c]: &[Atomic<u64>; 3]) -> PageCounts {
        PageCounts {
            pages_4k: a.load(Relaxed),
            pages_2m: b.load(Relaxed),
            pages_1g: c.load(Relaxed),
        }
    }

    fn change(to: &[Atomic<u64>; 3], by: PageCounts, op: fn(u64, u64) -> u64) {
        for (count, n) in to.iter().zip([by.pages_4k, by.pages_2m, by.pages_1g]) {
            if n != 0 {
                // Adding a negative number modulo 2^64 is subtracting.
                count.add(op(0, n), Relaxed);
            }
        }
    }
}
