// SPDX-License-Identifier: GPL-2.0

//! The way from the root of a tree to the entry of a frame.

use super::{
    entry::EntryFormat,
    level::Level,
    table::{
        Content,
        EntryRef,
        Locked,
        Seen,
        TableRef, //
    },
};
use crate::{
    memory::GfnRange,
    x86::addr::Gfn, //
};

impl<'g, F: EntryFormat, G: Locked<F>> TableRef<'g, F, G> {
    /// Returns the entries for any frame of `range` in order, each with its first frame.
    ///
    /// `base` is the table's first frame.
    pub(crate) fn entries_of(
        self,
        base: Gfn,
        range: GfnRange,
    ) -> impl Iterator<Item = (Gfn, EntryRef<'g, F, G>)> {
        let level = self.level();
        let limit = base.value().saturating_add(level.table_pages());
        let start = core::cmp::max(range.start, base);
        let end = core::cmp::min(range.end, Gfn::new(limit));
        let mut next = if start < end { level.align(start) } else { end };
        core::iter::from_fn(move || {
            let first = next;
            if first >= end {
                return None;
            }
            next = Gfn::new(first.value().saturating_add(level.pages()));
            Some((first, self.entry(first)?))
        })
    }
}

/// One entry on the way, and what it held.
pub(crate) struct Step<'g, F: EntryFormat, G: Locked<F>> {
    /// The entry.
    pub(crate) entry: EntryRef<'g, F, G>,
    /// The bits that were read.
    pub(crate) seen: Seen,
    /// What the bits say.
    pub(crate) content: Content<'g, F, G>,
}

/// The entries for a frame from the root down, one of each level.
///
/// The owner of the loop goes on with [`Walk::enter`]; a step into no table is the last one.
pub(crate) struct Walk<'g, F: EntryFormat, G: Locked<F>> {
    next: Option<TableRef<'g, F, G>>,
    gfn: Gfn,
}

impl<'g, F: EntryFormat, G: Locked<F>> Walk<'g, F, G> {
    /// Returns the walk to `gfn` in the tree that is locked by `guard`.
    pub(crate) fn new(guard: &'g G, gfn: Gfn) -> Self {
        Self {
            next: Some(guard.root()),
            gfn,
        }
    }

    /// Goes on in `table`.
    pub(crate) fn enter(&mut self, table: TableRef<'g, F, G>) {
        self.next = Some(table);
    }

    /// Returns the entry that ends the walk: a leaf, an empty one, or one of level `lowest`.
    pub(crate) fn last(mut self, lowest: Level) -> Option<Step<'g, F, G>> {
        while let Some(table) = self.next.take() {
            let entry = table.descend(self.gfn, lowest)?;
            let (seen, content) = entry.load();
            match content {
                // It was put there just now.
                Content::Table(table) if entry.level() > lowest => self.enter(table),
                content => {
                    return Some(Step {
                        entry,
                        seen,
                        content,
                    });
                }
            }
        }
        None
    }
}

impl<'g, F: EntryFormat, G: Locked<F>> Iterator for Walk<'g, F, G> {
    type Item = Step<'g, F, G>;

    fn next(&mut self) -> Option<Self::Item> {
        let entry = self.next.take()?.entry(self.gfn)?;
        let (seen, content) = entry.load();
        Some(Step {
            entry,
            seen,
            content,
        })
    }
}
