// SPDX-License-Identifier: GPL-2.0

//! Large pages that cannot be executed, against a bug of processors.
//!
//! Some processors hang the host (iTLB multihit) when a guest fetches an instruction by way of a
//! translation whose size it has just changed. A guest that can execute small pages only cannot do that.
//! So where the administrator wants it ([`parameter::nx_huge_pages`]), entries of large pages forbid to
//! execute, and a fetch from one splits it, or has small ones mapped at once.
//!
//! The entry that leads to a table made for this is marked. Faults do not put a large page in its place
//! again as they do elsewhere; but after a while some of these tables are taken out, in case the guest
//! does not execute there any more. So a page that it does execute is split anew from time to time.

use super::{
    direct::DirectMmu,
    entry::EntryFormat,
    level::Level,
    table::{
        Content,
        Exclusive,
        Locked,
        TableRef, //
    },
    tlb::RemoteFlush,
    Core, //
};
use crate::{
    linux::{
        parameter,
        periodic::{
            Periodic,
            Registration, //
        },
        timer,
        user_page, //
    },
    memory::GfnRange,
    x86::addr::Gfn, //
};
use kernel::{
    prelude::*,
    sync::{
        atomic::Relaxed,
        Arc, //
    }, //
};

/// The most tables that are taken out under the lock at once.
const MOST: u64 = 64;

const NS_PER_MS: u64 = 1_000_000;

/// Returns the work that rejoins pages from time to time, if `core` splits any for execution.
pub(super) fn recovery<F: EntryFormat, R: RemoteFlush>(
    core: &Arc<Core<F, R>>,
) -> Result<Option<Registration<Core<F, R>>>> {
    if !core.executes_small_pages() {
        return Ok(None);
    }
    Registration::new(core.clone(), parameter::nx_recovery().period_ms).map(Some)
}

impl<F: EntryFormat> DirectMmu<F> {
    /// Takes out up to `wanted` tables from frame `start` on that were made for an execution; those for
    /// which `keep` holds are only forgotten to be such, as they have another reason.
    ///
    /// Returns where to go on, `None` after the last.
    fn rejoin_executed(
        &self,
        locked: &Exclusive<'_, F>,
        start: Gfn,
        wanted: &mut u64,
        keep: &impl Fn(Gfn) -> bool,
    ) -> Option<Gfn> {
        let range = GfnRange {
            start,
            end: Gfn::new(u64::MAX),
        };
        rejoin_table(locked.root(), Gfn::new(0), range, wanted, keep)
    }
}

/// As [`DirectMmu::rejoin_executed`] below `table`, whose first frame is `base`.
///
/// Recurses once per level.
fn rejoin_table<F: EntryFormat>(
    table: TableRef<'_, F, Exclusive<'_, F>>,
    base: Gfn,
    range: GfnRange,
    wanted: &mut u64,
    keep: &impl Fn(Gfn) -> bool,
) -> Option<Gfn> {
    let lowest = table.level() == Level::Page2M;
    for (first, entry) in table.entries_of(base, range) {
        if *wanted == 0 {
            return Some(first);
        }
        let (seen, Content::Table(below)) = entry.load() else {
            continue;
        };
        if seen.is_for_execution() {
            *wanted = wanted.saturating_sub(1);
            if !keep(first) {
                entry.take_out();
                continue;
            }
            entry.forget_execution(seen);
        }
        if !lowest {
            let left = rejoin_table(below, first, range, wanted, keep);
            if left.is_some() {
                return left;
            }
        }
    }
    None
}

impl<F: EntryFormat, R: RemoteFlush> Core<F, R> {
    /// Returns whether the guest executes small pages only.
    #[inline]
    pub(super) fn executes_small_pages(&self) -> bool {
        self.small_execution.load(Relaxed)
    }

    /// Takes out one in `ratio` of the tables that were made for an execution, at least one.
    fn rejoin_executed(&self, ratio: u32) {
        let mut left = self.direct.for_execution().div_ceil(u64::from(ratio));
        let mut next = Gfn::new(self.recover_from.load(Relaxed));
        let mut turns = 0;
        while left > 0 && turns < 2 {
            let slots = self.memory.snapshot();
            // Where writes are logged, pages are small anyway, and are rejoined when that ends.
            let logged = |gfn| slots.find(gfn).is_some_and(|slot| slot.flags().log_dirty);
            let mut now = left.min(MOST);
            left = left.saturating_sub(now);
            let locked = self.direct.exclude();
            let stopped = self
                .direct
                .rejoin_executed(&locked, next, &mut now, &logged);
            self.direct.settle(locked, &*self.remote, true);
            left = left.saturating_add(now);
            next = stopped.unwrap_or_else(|| {
                turns += 1;
                Gfn::new(0)
            });
            user_page::cond_resched();
        }
        self.recover_from.store(next.value(), Relaxed);
    }
}

impl<F: EntryFormat, R: RemoteFlush> Periodic for Core<F, R> {
    /// A change of the parameters has this called, too.
    fn run(&self) -> u32 {
        let how = parameter::nx_recovery();
        let now = timer::now_ns();
        let since_ms = now.wrapping_sub(self.recovered_at.load(Relaxed)) / NS_PER_MS;
        let left = u64::from(how.period_ms).saturating_sub(since_ms);
        if left != 0 {
            return u32::try_from(left).unwrap_or(how.period_ms);
        }
        if how.ratio != 0 {
            self.rejoin_executed(how.ratio);
        }
        self.recovered_at.store(now, Relaxed);
        how.period_ms.max(1)
    }
}
