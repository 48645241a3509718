// SPDX-License-Identifier: GPL-2.0

//! Mapping pages that follow the one of a fault, where the host has them at hand.
//!
//! A guest that touches a page is likely to touch the next ones. Where a format asks for it, a fault maps
//! the rest of its group of pages too, as far as nothing is mapped there and the client may write them
//! without a fault of its own. This is what KVM does with its shadow tables, and not with EPT.

use super::{
    entry::{
        Access,
        EntryFormat,
        Leaf,
        MemoryType, //
    },
    fault::Found,
    level::Level,
    stats::ALL_VMS,
    table::Content,
    tlb::RemoteFlush,
    walk::Walk,
    Core, //
};
use crate::{
    linux::user_page::UserPage,
    x86::addr::{
        Gfn,
        Hva,
        PAGE_SIZE, //
    },
};

/// Pages of a group, a power of two.
const GROUP: u64 = 8;

/// The most pages that follow one in its group.
const MOST: usize = GROUP as usize - 1;

impl<F: EntryFormat, R: RemoteFlush> Core<F, R> {
    /// Maps small pages behind the one of `found`, which was just mapped. Does not sleep.
    pub(super) fn map_around(&self, found: &Found<'_>) {
        let flags = found.slot.flags();
        if flags.log_dirty || flags.read_only || found.slot.file().is_some() {
            return;
        }
        let first = found.gfn.value().wrapping_add(1);
        let group_end = (found.gfn.value() | (GROUP - 1)).wrapping_add(1);
        let end = group_end.min(found.slot.gfns().end.value());
        let Some(count) = end.checked_sub(first).filter(|count| *count > 0) else {
            return;
        };
        // By the slot's invariant, this does not wrap.
        let start = Hva::new(found.hva.value().wrapping_add(PAGE_SIZE));
        let stop = Hva::new(start.value().wrapping_add(count.wrapping_mul(PAGE_SIZE)));
        let pages = UserPage::lookup_present::<MOST>(start, usize::try_from(count).unwrap_or(0));
        let locked = self.direct.share();
        // The slot and the pages, both looked up after the sample was taken.
        if self.invalidation.must_retry(found.sample, found.hva, stop) {
            return;
        }
        let Some(step) = Walk::new(&locked, found.gfn).last(Level::Page2M) else {
            return;
        };
        let Content::Table(table) = step.content else {
            return;
        };
        for (page, gfn) in pages.iter().map_while(Option::as_ref).zip(first..end) {
            let Some(entry) = table.entry(Gfn::new(gfn)) else {
                return;
            };
            let (seen, Content::Empty) = entry.load() else {
                continue;
            };
            let leaf = Leaf {
                pfn: page.pfn(),
                access: Access::ALL,
                host_writable: true,
                memory_type: MemoryType::of(page.is_mmio(), self.memory_types()),
                // Nobody has used it yet.
                accessed: false,
                dirty: false,
            };
            if entry.install(seen, &leaf).is_ok() {
                self.direct.stats().count_mapped(Level::Page4K);
                ALL_VMS.count_mapped(Level::Page4K);
                page.mark_used(true);
            }
        }
    }
}
