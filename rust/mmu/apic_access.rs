// SPDX-License-Identifier: GPL-2.0

//! The APIC-access page: the frame at which guests believe the registers of their local APICs.
//!
//! A processor that virtualises accesses to these registers knows them by the physical address of a
//! page. So there is a slot of one page at that frame, which faults map like any other memory. Nobody
//! ever reads or writes the page: the processor puts the virtual-APIC page in its place or exits, and
//! for the kernel it is no memory (see `memory/access.rs`).
//!
//! Two things take the page away, and each has all vCPUs look for it anew before they enter their
//! guests again ([`RemoteFlush::apic_access_changed`]):
//!
//! - The host moves or swaps it like any page of the client's.
//! - vCPUs share their tables, and not all may have their registers at this frame. As long as one has
//!   not, the frame is as one without memory, and accesses are emulated: the page is *inhibited*.

use super::{
    entry::EntryFormat,
    level::Level,
    tlb::RemoteFlush,
    Core, //
};
use crate::{
    linux::{
        task,
        user_page::{
            self,
            LookupError,
            UserPage,
            Wait, //
        }, //
    },
    memory::{
        GfnRange,
        Slot, //
    },
    x86::addr::{
        Gfn,
        Gpa,
        Hpa,
        Hva, //
    }, //
};
use kernel::{
    prelude::*,
    sync::{
        atomic::{
            Atomic,
            Relaxed, //
        },
        Arc, //
    }, //
};

/// Where the registers of a local APIC are unless its guest moves them.
pub(crate) const APIC_ACCESS: Gpa = Gpa::new(0xfee0_0000);

/// What a vCPU finds that looks for the page.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[must_use = "the vCPU must not enter its guest with another page"]
pub(crate) enum ApicAccessPage {
    /// The page, at this address. All vCPUs are told when that changes.
    At(Hpa),
    /// There is none, or it is inhibited: accesses are emulated.
    Absent,
    /// The client has no memory there any more.
    Lost,
    /// A signal waits: look again before the guest is entered.
    Interrupted,
}

/// How many reasons there are not to use the page. Changes under the tables' exclusive lock.
pub(super) struct Inhibits(Atomic<u32>);

impl Inhibits {
    /// Returns that there is no reason.
    pub(super) const fn none() -> Self {
        Self(Atomic::new(0))
    }

    /// Returns whether a fault may map the memory of `slot`. What holds now may change, which makes the
    /// fault stale.
    pub(super) fn allow(&self, slot: &Slot) -> bool {
        !slot.is_apic_access() || self.0.load(Relaxed) == 0
    }

    /// Adds a reason or takes one away; returns whether that changes whether the page may be used.
    fn change(&self, add: bool) -> bool {
        let old = self.0.load(Relaxed);
        let new = if add {
            old.saturating_add(1)
        } else {
            old.saturating_sub(1)
        };
        self.0.store(new, Relaxed);
        (old == 0) != (new == 0)
    }
}

impl<F: EntryFormat, R: RemoteFlush> Core<F, R> {
    /// Adds a reason not to use the page, or takes one away.
    pub(super) fn inhibit_apic_access(&self, add: bool) {
        let gfn = APIC_ACCESS.gfn();
        let locked = self.direct.exclude();
        let changed = self.inhibits.change(add);
        if changed {
            self.invalidation.advance();
            // A translation, or what remembers that there was no memory.
            let range = GfnRange {
                start: gfn,
                end: Gfn::new(gfn.value().wrapping_add(1)),
            };
            self.direct.zap_range(&locked, range);
        }
        self.direct.settle(locked, &*self.remote, true);
        if changed {
            self.remote.apic_access_changed();
        }
    }

    /// Returns the slot of the page, if it may be used.
    fn apic_access_slot(&self) -> Option<Arc<Slot>> {
        self.memory
            .snapshot()
            .find(APIC_ACCESS.gfn())
            .filter(|slot| slot.is_apic_access() && self.inhibits.allow(slot))
            .cloned()
    }

    /// Returns where the page is now.
    ///
    /// If it goes from there after this has looked, the calling vCPU is told after this has returned,
    /// or while it runs. No count is held on the page, so that the host can move it.
    pub(super) fn apic_access_page(&self) -> ApicAccessPage {
        loop {
            let sample = self.invalidation.sample();
            let Some(slot) = self.apic_access_slot() else {
                return ApicAccessPage::Absent;
            };
            let page = match UserPage::lookup(slot.hva(), true, true, Wait::Yes) {
                Ok(page) => page,
                Err(LookupError::Interrupted) => return ApicAccessPage::Interrupted,
                Err(_) => return ApicAccessPage::Lost,
            };
            {
                let _locked = self.direct.share();
                if !self.is_stale(sample, slot.hva(), Level::Page4K) {
                    return ApicAccessPage::At(page.pfn().to_hpa());
                }
            }
            if task::signal_pending() {
                return ApicAccessPage::Interrupted;
            }
            user_page::cond_resched();
        }
    }

    /// Has all vCPUs look for the page if it is in `start..end`, which the host is about to change.
    pub(super) fn invalidate_apic_access(&self, start: Hva, end: Hva) {
        let hva = self.apic_access_slot().map(|slot| slot.hva());
        if hva.is_some_and(|hva| start <= hva && hva < end) {
            self.remote.apic_access_changed();
        }
    }
}

#[kunit_tests(kvm_rs_apic_access)]
mod tests {
    use super::*;

    #[test]
    fn only_the_first_and_last_reason_change_anything() {
        let inhibits = Inhibits::none();
        assert!(inhibits.change(true));
        assert!(!inhibits.change(true));
        assert!(!inhibits.change(false));
        assert!(inhibits.change(false));
        // More is taken away than was added: nothing changes.
        assert!(!inhibits.change(false));
    }
}
