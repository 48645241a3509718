// SPDX-License-Identifier: GPL-2.0

//! From a fault of the guest to a translation.

use super::{
    direct::{
        Mapping,
        Outcome,
        TableStock, //
    },
    entry::{
        Access,
        EntryFormat,
        Leaf,
        MemoryType, //
    },
    invalidation::Sample,
    level::Level,
    table::Locked,
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
        },
    },
    memory::{
        DirtyRing,
        GfnRange,
        Slot, //
    },
    x86::addr::{
        Gfn,
        Gpa,
        Hva, //
    },
};
use kernel::prelude::*;

/// What the guest did when it faulted.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct FaultAccess {
    /// It read.
    pub(crate) read: bool,
    /// It wrote. Set both for an atomic read and write.
    pub(crate) write: bool,
    /// It fetched an instruction.
    pub(crate) execute: bool,
}

impl FaultAccess {
    /// Returns what the guest did when it took #PF with error code `code`.
    pub(crate) const fn of_page_fault(code: u32) -> Self {
        const WRITE: u32 = 1 << 1;
        const FETCH: u32 = 1 << 4;
        let (write, execute) = (code & WRITE != 0, code & FETCH != 0);
        Self {
            read: !write && !execute,
            write,
            execute,
        }
    }

    /// Returns what an entry must allow for this.
    pub(super) fn needs(self) -> Access {
        Access {
            read: self.read,
            write: self.write,
            execute: self.execute,
        }
    }
}

/// What became of a fault.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[must_use = "a fault without memory behind it is for someone else to handle"]
pub(crate) enum Resolved {
    /// There is a translation now.
    Mapped,
    /// There was a translation already.
    Spurious,
    /// There is no memory: it is memory-mapped I/O.
    NoSlot,
    /// The guest wrote memory that it can only read: it is memory-mapped I/O.
    ReadOnlySlot,
    /// The page, at this address of the client's, would have to be waited for, and was not to be.
    Away(Hva),
}

/// What became of a fault that needed nothing that is not at hand.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[must_use = "the guest can go on at once"]
pub(crate) enum AtOnce {
    /// There is a translation now.
    Mapped,
    /// There is, and only a log of writes had kept the guest from it.
    Disarmed,
    /// There was a translation already.
    Spurious,
}

/// A page that the host gave, with what is needed to tell whether it still does.
pub(super) struct Found<'a> {
    page: UserPage,
    /// The slot.
    pub(super) slot: &'a Slot,
    /// The frame.
    pub(super) gfn: Gfn,
    /// Where it is in the client's address space.
    pub(super) hva: Hva,
    /// From before all of this was looked up.
    pub(super) sample: Sample,
}

/// Returns the host page of frame `gfn` of `slot`, which is at `hva` if it is the client's; or what there is
/// instead: device memory that cannot be written, or a page that is away.
fn host_page(
    slot: &Slot,
    gfn: Gfn,
    hva: Hva,
    attempt: Attempt<'_>,
) -> Result<core::result::Result<UserPage, Resolved>> {
    if let Some(file) = slot.file() {
        return file.page(gfn).map(Ok);
    }
    let may_write = !slot.flags().read_only;
    match UserPage::lookup(hva, attempt.access.write, may_write, attempt.wait) {
        Ok(page) => Ok(Ok(page)),
        Err(LookupError::Fault) => Err(EFAULT),
        Err(LookupError::Interrupted) => Err(EINTR),
        Err(LookupError::HwPoison) => Err(EHWPOISON),
        Err(LookupError::ReadOnly) => Ok(Err(Resolved::ReadOnlySlot)),
        Err(LookupError::Away) => Ok(Err(Resolved::Away(hva))),
    }
}

/// What a vCPU tried to do, where it notes what it writes if not in the slot's log, and whether it waits
/// for the page.
#[derive(Clone, Copy)]
struct Attempt<'a> {
    access: FaultAccess,
    ring: Option<&'a DirtyRing>,
    wait: Wait,
}

impl<F: EntryFormat, R: RemoteFlush> Core<F, R> {
    /// Makes the translation that a fault at `gpa` asks for, if all that it takes is at hand: a page that the
    /// host has mapped for writing, and the tables. `None` leaves it to [`Self::fault`].
    ///
    /// Does not sleep.
    pub(super) fn fault_at_once(
        &self,
        gpa: Gpa,
        access: FaultAccess,
        ring: Option<&DirtyRing>,
    ) -> Option<AtOnce> {
        let gfn = gpa.gfn();
        if !self.direct.covers(gfn) {
            return None;
        }
        let sample = self.invalidation.sample();
        let slots = self.memory.snapshot();
        let slot = slots.find(gfn)?;
        let hva = slot.gfn_to_hva(gfn)?;
        let flags = slot.flags();
        if flags.log_dirty && access.write && self.disarm(sample, slot, gfn, hva, access, ring) {
            return Some(AtOnce::Disarmed);
        }
        if flags.read_only || slot.file().is_some() || !self.inhibits.allow(slot) {
            return None;
        }
        let found = Found {
            page: UserPage::lookup_at_hand(hva)?,
            slot,
            gfn,
            hva,
            sample,
        };
        let mapping = self.mapping(&found, access);
        let outcome = {
            let locked = self.direct.share();
            self.map_checked(&locked, &found, &mapping, ring, &mut TableStock::new())?
        };
        match outcome {
            Outcome::Mapped => {
                self.map_more(&found, &mapping);
                Some(AtOnce::Mapped)
            }
            Outcome::Spurious => Some(AtOnce::Spurious),
            _ => None,
        }
    }

    /// Returns once the guest can go on at `gpa`, or must do so otherwise.
    pub(super) fn fault(
        &self,
        gpa: Gpa,
        access: FaultAccess,
        ring: Option<&DirtyRing>,
        wait: Wait,
    ) -> Result<Resolved> {
        let (resolved, _) = self.resolve(gpa, Attempt { access, ring, wait })?;
        Ok(resolved)
    }

    /// Makes a translation for reading at `gpa`, and returns the size of the page that it is of.
    ///
    /// Fails as a fault does, and with `ENOENT` where there is no memory.
    pub(super) fn populate(&self, gpa: Gpa) -> Result<Level> {
        let access = FaultAccess {
            read: true,
            write: false,
            execute: false,
        };
        let attempt = Attempt {
            access,
            ring: None,
            wait: Wait::Yes,
        };
        match self.resolve(gpa, attempt)? {
            (Resolved::Mapped | Resolved::Spurious, level) => Ok(level),
            (Resolved::NoSlot | Resolved::ReadOnlySlot | Resolved::Away(_), _) => Err(ENOENT),
        }
    }

    /// Returns what became of an access to `gpa`, with the size of the page that was mapped.
    fn resolve(&self, gpa: Gpa, attempt: Attempt<'_>) -> Result<(Resolved, Level)> {
        let access = attempt.access;
        let gfn = gpa.gfn();
        if !self.direct.covers(gfn) {
            return Ok((Resolved::NoSlot, Level::Page4K));
        }
        let mut stock = TableStock::new();
        loop {
            let sample = self.invalidation.sample();
            // A count is held on the slot instead of the snapshot, so that a page which takes long to
            // come (from swap, or from a handler in user space) does not hold up changes of the slots.
            let slot = self.memory.snapshot().find(gfn).cloned();
            let slot = slot.filter(|slot| self.inhibits.allow(slot));
            let hva = slot.as_ref().and_then(|slot| slot.gfn_to_hva(gfn));
            let (Some(slot), Some(hva)) = (slot, hva) else {
                self.remember_mmio(gfn, sample, &mut stock);
                return Ok((Resolved::NoSlot, Level::Page4K));
            };
            if access.write && slot.flags().read_only {
                return Ok((Resolved::ReadOnlySlot, Level::Page4K));
            }

            let page = match host_page(&slot, gfn, hva, attempt)? {
                Ok(page) => page,
                Err(instead) => return Ok((instead, Level::Page4K)),
            };
            let found = Found {
                page,
                slot: &slot,
                gfn,
                hva,
                sample,
            };
            if let Some(resolved) = self.install(&found, attempt, &mut stock)? {
                return Ok(resolved);
            }
            // The host is changing the page, or someone else the tables.
            if task::signal_pending() {
                return Err(EINTR);
            }
            user_page::cond_resched();
        }
    }

    /// Maps what was found, `None` if it is not to be relied on any more.
    fn install(
        &self,
        found: &Found<'_>,
        attempt: Attempt<'_>,
        stock: &mut TableStock<F>,
    ) -> Result<Option<(Resolved, Level)>> {
        let mut mapping = self.mapping(found, attempt.access);
        loop {
            let outcome = {
                let locked = self.direct.share();
                self.map_checked(&locked, found, &mapping, attempt.ring, stock)
            };
            match outcome {
                Some(Outcome::Mapped) => {
                    self.map_more(found, &mapping);
                    return Ok(Some((Resolved::Mapped, mapping.level)));
                }
                Some(Outcome::Spurious) => return Ok(Some((Resolved::Spurious, mapping.level))),
                Some(Outcome::Raced) => {}
                Some(Outcome::Smaller) => mapping = mapping.smaller(),
                Some(Outcome::NeedTables(n)) => stock.fill(n)?,
                Some(Outcome::NeedExclusive) => self.clear_way(found, &mapping),
                None => return Ok(None),
            }
        }
    }

    /// Maps the pages around a small one, where the format asks for it.
    #[inline]
    fn map_more(&self, found: &Found<'_>, mapping: &Mapping) {
        if F::MAPS_AROUND && mapping.level == Level::Page4K {
            self.map_around(found);
        }
    }

    /// Maps what was found if that is still what the host has; `None` if not.
    fn map_checked<G: Locked<F>>(
        &self,
        locked: &G,
        found: &Found<'_>,
        mapping: &Mapping,
        ring: Option<&DirtyRing>,
        stock: &mut TableStock<F>,
    ) -> Option<Outcome> {
        if self.is_stale(found.sample, found.hva, mapping.level) {
            return None;
        }
        let outcome = self.direct.map(locked, mapping, stock);
        if matches!(outcome, Outcome::Mapped | Outcome::Spurious) {
            // Under the lock, so that no change of the host's tables completes before the page is
            // marked. Write access may come later without a look at the page.
            found.page.mark_used(mapping.leaf.host_writable);
            // Who made the entry writable before has told of it in a ring, or the processor will.
            let logs = found.slot.flags().log_dirty;
            if logs && mapping.need.write && (ring.is_none() || outcome == Outcome::Mapped) {
                found.slot.mark_dirty(mapping.gfn, ring);
            }
        }
        Some(outcome)
    }

    /// Takes out what is in the way of `mapping`: a table where a larger page goes now, or a larger
    /// page of which only a part may stay.
    fn clear_way(&self, found: &Found<'_>, mapping: &Mapping) {
        let locked = self.direct.exclude();
        if !self.is_stale(found.sample, found.hva, mapping.level) {
            let start = mapping.level.align(mapping.gfn);
            let end = Gfn::new(start.value().saturating_add(mapping.level.pages()));
            self.save_writes(&locked, GfnRange { start, end });
            self.direct.clear_way(&locked, mapping);
        }
        self.direct.settle(locked, &*self.remote, true);
    }

    /// Returns whether the host may have changed what was found since `sample` for the page of size
    /// `level` around `hva`. To be asked under the tables' lock.
    pub(super) fn is_stale(&self, sample: Sample, hva: Hva, level: Level) -> bool {
        let size = level.bytes();
        let start = hva.value() & !(size.wrapping_sub(1));
        let end = start.saturating_add(size);
        self.invalidation
            .must_retry(sample, Hva::new(start), Hva::new(end))
    }

    /// Returns how the found page is to be mapped.
    fn mapping(&self, found: &Found<'_>, access: FaultAccess) -> Mapping {
        let largest = self.level(found);
        let small_only = access.execute && largest > Level::Page4K && self.executes_small_pages();
        let level = if small_only { Level::Page4K } else { largest };
        let pfn = found.page.pfn().value();
        let host_writable = found.page.is_writable() && !found.slot.flags().read_only;
        let log = found.slot.flags().log_dirty;
        let write = host_writable && (access.write || !log || self.tracking().lets_write());
        let memory_type = MemoryType::of(found.page.is_mmio(), self.memory_types());
        Mapping {
            gfn: found.gfn,
            level,
            leaf: Leaf {
                pfn: crate::x86::addr::Pfn::new(pfn.wrapping_sub(level.offset(pfn))),
                access: Access {
                    read: true,
                    write,
                    execute: level == Level::Page4K || !self.executes_small_pages(),
                },
                host_writable,
                memory_type,
                // The guest is about to use it, so spare the processor the work.
                accessed: true,
                dirty: write && (access.write || !log),
            },
            need: access.needs(),
            without_execution: small_only.then_some(largest),
        }
    }

    /// Returns the largest size that the slot, the alignment and the host's own tables allow.
    fn level(&self, found: &Found<'_>) -> Level {
        if found.slot.flags().log_dirty || found.slot.file().is_some() {
            return Level::Page4K;
        }
        let fits = |level: Level| {
            level.offset(found.page.pfn().value()) == level.offset(found.gfn.value())
                && self.sizes.allow(level)
                && found.slot.fits_block(found.gfn, level.pages())
        };
        if !fits(Level::Page2M) {
            return Level::Page4K;
        }
        let mut best = if fits(Level::Page1G) {
            Level::Page1G
        } else {
            Level::Page2M
        };
        // The look at the host's tables is only worth something together with the check for a
        // change, which comes later, under the lock.
        let host = user_page::host_mapping_level(found.hva);
        while best.number() > host || !fits(best) {
            match best.below() {
                Some(below) => best = below,
                None => break,
            }
        }
        best
    }
}
