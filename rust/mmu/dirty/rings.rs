// SPDX-License-Identifier: GPL-2.0

//! Arming the pages that the client has taken out of the vCPUs' dirty rings.

use super::arm::Place;
use crate::{
    linux::{
        task,
        user_page, //
    },
    memory::DirtyRing,
    mmu::{
        entry::EntryFormat,
        tlb::{
            RemoteFlush,
            RestrictionOwed, //
        },
        Core, //
    }, //
};

/// Entries of a ring that are taken out under the lock at once.
const RESETS_AT_ONCE: usize = 256;

impl<F: EntryFormat, R: RemoteFlush> Core<F, R> {
    /// Takes what the client has harvested out of the vCPUs' rings, and arms the pages.
    ///
    /// Returns how many entries that were. A signal ends it early. Sleeps.
    pub(in crate::mmu) fn reset_rings(&self) -> usize {
        let update = self.memory.update();
        let mut owed = RestrictionOwed::NONE;
        let mut count: usize = 0;
        for index in 0.. {
            let Some(ring) = self.memory.rings().get(index) else {
                break;
            };
            while !task::signal_pending() {
                let taken = self.reset_some(&ring, &mut owed);
                count = count.saturating_add(taken);
                if taken < RESETS_AT_ONCE {
                    break;
                }
                user_page::cond_resched();
            }
        }
        // What is written by way of the entries as they were is in the memory that the client copies.
        owed.pay(&*self.remote);
        drop(update);
        count
    }

    /// Takes up to [`RESETS_AT_ONCE`] harvested entries out of a ring; returns how many.
    fn reset_some(&self, ring: &DirtyRing, owed: &mut RestrictionOwed) -> usize {
        let Some(first) = ring.take() else { return 0 };
        let by = self.tracking();
        let slots = self.memory.snapshot();
        let locked = self.direct.exclude();
        let mut place = Place::nowhere();
        let mut count: usize = 0;
        let mut next = Some(first);
        while let Some(dirty) = next {
            if let Some(gfn) = slots.gfn_of(dirty) {
                self.direct.arm_page(&locked, &mut place, gfn, by);
            }
            count = count.saturating_add(1);
            next = if count < RESETS_AT_ONCE {
                ring.take()
            } else {
                None
            };
        }
        owed.add(locked.restricted());
        count
    }
}
