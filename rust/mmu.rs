// SPDX-License-Identifier: GPL-2.0

//! The memory MMU: from guest-physical to host-physical memory.
//!
//! # What is where
//!
//! | file | what |
//! |---|---|
//! | [`direct`] | the map that nonpaging shadow and EPT share, generic over the entry format |
//! | [`entry`] | what an entry says, and the trait for how it is written |
//! | [`ept`], [`long_mode`], [`pae`] | the formats |
//! | [`memory_type`] | how a page is cached |
//! | [`table`], [`walk`] | table pages, and the way through them |
//! | [`zap`], [`tlb`] | taking entries out, and making processors forget them |
//! | [`apic_access`] | the page that stands for the registers of local APICs |
//! | [`mmio`] | remembering where there is no memory |
//! | [`nx`] | large pages that cannot be executed |
//! | [`shrink`] | giving tables back when the host is short of memory |
//! | [`age`] | telling the host which pages are used |
//! | [`dirty`] | which pages were written |
//! | [`large`] | large pages where that is logged |
//! | [`fault`] | from a guest's fault to a mapping |
//! | [`around`] | mapping what follows the page of a fault |
//! | [`invalidation`] | what a fault must check because the host changes its own tables |
//! | [`guest_walk`], [`guest_format`] | how the guest's own tables translate |
//!
//! # Words
//!
//! A **leaf** entry maps a page, of 4 KiB, 2 MiB or 1 GiB. To **zap** is to take entries out. What was
//! taken out is **owed** until all processors that might use it have flushed. A translation is
//! **stale** when the host has changed what it was made from.
//!
//! # Who owns what
//!
//! [`Mmu`] is a VM's: its slots, its tables, and its registration for changes of the client's address
//! space. Tables belong to the tree; a table that leaves it belongs to the debt, and is freed after the
//! flush.
//!
//! # Lock order
//!
//! 1. the mutex of slot changes (`memory`); memory management's own locks, in notifier callbacks
//! 2. the tables' reader-writer lock
//! 3. the invalidation's spinlock; whatever [`RemoteFlush::flush_remote`] takes
//!
//! Nothing that sleeps, and no user memory, under 2 and 3. Neither is ever taken with interrupts off.

mod age;
mod apic_access;
mod around;
mod direct;
mod dirty;
mod entry;
mod ept;
mod fault;
pub(crate) mod guest_format;
pub(crate) mod guest_walk;
mod invalidation;
mod large;
mod level;
mod long_mode;
mod memory_type;
mod mmio;
mod nx;
mod pae;
mod shrink;
mod stats;
mod table;
mod tlb;
mod walk;
mod zap;

pub(crate) use apic_access::{
    ApicAccessPage,
    APIC_ACCESS, //
};
pub(crate) use fault::{
    AtOnce,
    FaultAccess,
    Resolved, //
};
pub(crate) use level::Level;
pub(crate) use stats::{
    PageCounts,
    ALL_VMS, //
};
pub(crate) use tlb::RemoteFlush;

use crate::{
    linux::{
        mmu_notifier,
        parameter,
        periodic,
        shrinker,
        timer,
        user_page::Wait, //
    },
    memory::{
        Change,
        DirtyRing,
        GfnRange,
        GuestMemory,
        Owner,
        Region, //
    },
    x86::addr::{
        Gpa,
        Hva, //
    }, //
};
use age::Age;
use apic_access::Inhibits;
use direct::DirectMmu;
use dirty::Tracking;
use entry::EntryFormat;
use ept::{
    Ept,
    EptVariant, //
};
use invalidation::Invalidation;
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
use pae::Pae;

/// What the tables of a VM are for the processor.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Tables {
    /// Extended page tables, on which every guest runs.
    Ept {
        /// Level of the root: [`Level::Level4`] or [`Level::Level5`].
        levels: Level,
        /// The processor maintains accessed and dirty bits.
        a_d: bool,
        /// The processor logs the pages whose dirty bit it sets.
        pml: bool,
        /// Pages that were written are found by that bit, where the processor does not log them.
        dirty_bits: bool,
        /// Pages of 2 MiB.
        huge_2m: bool,
        /// Pages of 1 GiB.
        huge_1g: bool,
    },
    /// Ordinary ones, on which guests without paging run: what these take for physical addresses are
    /// linear ones.
    Shadow,
}

/// How many ranges of frames are zapped under the tables' lock without a break.
const RANGES_AT_ONCE: usize = 64;

/// What a VM's memory MMU is made for.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Config {
    /// The kind of tables.
    pub(crate) tables: Tables,
    /// Bits of a guest-physical address.
    pub(crate) max_phys_bits: u32,
}

/// Where the processor finds the tables of a VM.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Root {
    /// This is the EPT pointer.
    Ept(u64),
    /// This is CR3, of PAE paging, whose entries may forbid execution.
    Shadow(u64),
}

/// The sizes of pages that may be used.
#[derive(Clone, Copy, Debug)]
struct Sizes {
    huge_2m: bool,
    huge_1g: bool,
}

impl Sizes {
    /// Returns whether pages of size `level` may be used.
    fn allow(self, level: Level) -> bool {
        match level {
            Level::Page4K => true,
            Level::Page2M => self.huge_2m,
            Level::Page1G => self.huge_1g,
            Level::Level4 | Level::Level5 => false,
        }
    }
}

/// The memory MMU of a VM.
pub(crate) struct Mmu<R: RemoteFlush>(Formats<R>);

/// The MMU in the format of the VM's tables.
///
/// Which it is, is asked once a call from outside; all that follows is compiled for the format.
enum Formats<R: RemoteFlush> {
    Ept(Pin<KBox<Registered<Ept, R>>>),
    Shadow(Pin<KBox<Registered<Pae, R>>>),
}

/// Evaluates an expression with the core of whichever format it is.
macro_rules! with_core {
    ($mmu:expr, $core:ident => $value:expr) => {
        match &$mmu.0 {
            Formats::Ept(registered) => {
                let $core = &registered.core;
                $value
            }
            Formats::Shadow(registered) => {
                let $core = &registered.core;
                $value
            }
        }
    };
}

/// What is told about changes of the client's address space.
#[pin_data]
struct Registered<F: EntryFormat, R: RemoteFlush> {
    // First, so that these are dropped first: no callback comes while the rest goes.
    _shrinker: shrinker::Registration<Core<F, R>>,
    _recovery: Option<periodic::Registration<Core<F, R>>>,
    #[pin]
    notifier: mmu_notifier::Registration<Core<F, R>>,
    core: Arc<Core<F, R>>,
}

/// What faults and the callbacks of the notifier share.
#[pin_data]
struct Core<F: EntryFormat, R: RemoteFlush> {
    #[pin]
    memory: GuestMemory,
    #[pin]
    direct: DirectMmu<F>,
    #[pin]
    invalidation: Invalidation,
    inhibits: Inhibits,
    sizes: Sizes,
    honor_guest_pat: Atomic<bool>,
    tracking: Tracking,
    /// Number of slots that log writes.
    logging_slots: Atomic<u32>,
    /// The frame from which on the next tables are given back.
    shrink_from: Atomic<u64>,
    /// Large pages cannot be executed.
    small_execution: Atomic<bool>,
    /// The frame from which on large pages are rejoined next that were split for execution.
    recover_from: Atomic<u64>,
    /// When that was last done, in nanoseconds of the monotonic clock.
    recovered_at: Atomic<u64>,
    remote: Arc<R>,
}

/// What can be counted of the entries in a VM's tables.
pub(crate) trait Entries: Send + Sync {
    /// Returns how many there are now.
    fn mapped(&self) -> PageCounts;

    /// Returns how many tables there are where larger pages could be, but for an execution.
    fn splits_for_execution(&self) -> u64;
}

impl<F: EntryFormat, R: RemoteFlush> Entries for Core<F, R> {
    fn mapped(&self) -> PageCounts {
        self.direct.stats().mapped()
    }

    fn splits_for_execution(&self) -> u64 {
        self.direct.for_execution()
    }
}

impl<R: RemoteFlush> Mmu<R> {
    /// Returns an MMU without memory, for guests of the calling process.
    ///
    /// `remote` flushes the vCPUs of the VM. Sleeps; fails with `ENOMEM`, `EINTR` or `ESRCH`.
    pub(crate) fn new(config: Config, remote: Arc<R>) -> Result<Self> {
        let bits = config.max_phys_bits;
        Ok(Self(match config.tables {
            Tables::Ept {
                levels,
                a_d,
                pml,
                dirty_bits,
                huge_2m,
                huge_1g,
            } => {
                let sizes = Sizes { huge_2m, huge_1g };
                let tracking = if a_d && pml {
                    Tracking::ProcessorLog
                } else if a_d && dirty_bits {
                    Tracking::DirtyBits
                } else {
                    Tracking::WriteProtection
                };
                let direct = DirectMmu::new(levels, EptVariant { a_d });
                Formats::Ept(Registered::new(direct, sizes, tracking, bits, remote)?)
            }
            Tables::Shadow => {
                let sizes = Sizes {
                    huge_2m: true,
                    huge_1g: false,
                };
                let direct = DirectMmu::new(Pae::ROOT, ());
                let tracking = Tracking::WriteProtection;
                Formats::Shadow(Registered::new(direct, sizes, tracking, bits, remote)?)
            }
        }))
    }

    /// Returns the guest's memory.
    pub(crate) fn memory(&self) -> &GuestMemory {
        with_core!(self, core => &core.memory)
    }

    /// Returns whether the calling thread runs in the address space of the guest's memory.
    pub(crate) fn is_of_current(&self) -> bool {
        match &self.0 {
            Formats::Ept(registered) => registered.notifier.is_of_current(),
            Formats::Shadow(registered) => registered.notifier.is_of_current(),
        }
    }

    /// Returns where the processor finds the tables, for the VMCS. It never changes.
    pub(crate) fn root(&self) -> Root {
        match &self.0 {
            Formats::Ept(registered) => {
                let direct = &registered.core.direct;
                let (root, levels) = (direct.root(), direct.levels());
                Root::Ept(Ept::pointer(root, levels, direct.variant()))
            }
            Formats::Shadow(registered) => Root::Shadow(registered.core.direct.root().value()),
        }
    }

    /// Lets the guest execute large pages, whatever that can do to the host.
    pub(crate) fn allow_large_execution(&self) {
        with_core!(self, core => core.small_execution.store(false, Relaxed));
    }

    /// Returns what can be counted of the entries, without keeping the VM.
    pub(crate) fn entries(&self) -> Arc<dyn Entries> {
        match &self.0 {
            Formats::Ept(registered) => registered.core.clone(),
            Formats::Shadow(registered) => registered.core.clone(),
        }
    }

    /// Lets the guest's PAT decide about the types of memory that is mapped from now on.
    pub(crate) fn honor_guest_pat(&self) {
        with_core!(self, core => core.honor_guest_pat.store(true, Relaxed));
    }

    /// Returns once the guest can go on after a fault at `gpa`, or tells what it met instead of memory.
    ///
    /// The calling thread must run in the address space of the guest's memory. `ring` is that of the
    /// vCPU, if it has one. Sleeps, but with [`Wait::No`] not for a page that is away, as in swap. Fails with
    /// `EFAULT` if the client has no page there or not with that access, `EINTR` if a signal is pending,
    /// `EHWPOISON` if the page is broken, and `ENOMEM`.
    pub(crate) fn fault(
        &self,
        gpa: Gpa,
        access: FaultAccess,
        ring: Option<&DirtyRing>,
        wait: Wait,
    ) -> Result<Resolved> {
        with_core!(self, core => core.fault(gpa, access, ring, wait))
    }

    /// Makes a translation for reading at `gpa`, and returns the bytes from `gpa` to the end of the page
    /// that it is of, which may be a large one.
    ///
    /// Fails as [`Self::fault`] does, with `ENOENT` where there is no memory, and with `EOPNOTSUPP`
    /// where the tables are not EPT: those of a guest without paging are of no use to one with.
    pub(crate) fn populate(&self, gpa: Gpa) -> Result<u64> {
        let Formats::Ept(registered) = &self.0 else {
            return Err(EOPNOTSUPP);
        };
        let size = registered.core.populate(gpa)?.bytes();
        Ok(size.wrapping_sub(gpa.value() & size.wrapping_sub(1)))
    }

    /// Returns where the APIC-access page is, for the VMCS of the calling vCPU.
    pub(crate) fn apic_access_page(&self) -> ApicAccessPage {
        with_core!(self, core => core.apic_access_page())
    }

    /// Adds a reason not to use the APIC-access page, or takes one away.
    pub(crate) fn inhibit_apic_access(&self, add: bool) {
        with_core!(self, core => core.inhibit_apic_access(add))
    }

    /// Creates, moves, changes or deletes a slot for the client.
    ///
    /// On return, no vCPU and nobody in the kernel uses the memory of a slot that is gone. Sleeps. Fails
    /// as KVM does: `EINVAL`, `EEXIST`, `ENOMEM`.
    pub(crate) fn set_region(&self, region: &Region) -> Result {
        with_core!(self, core => core.set_region(region, Owner::User))
    }

    /// Takes out the translations of `start..end` of the client's address space, and lets none be made until
    /// [`Self::finish_invalidation`]. Sleeps.
    pub(crate) fn begin_invalidation(&self, start: Hva, end: Hva) {
        with_core!(self, core => core.begin_invalidation(start, end, true));
    }

    /// Ends what one [`Self::begin_invalidation`] began.
    pub(crate) fn finish_invalidation(&self) {
        with_core!(self, core => core.invalidation.finish());
    }

    /// Returns whether the processor is to log the pages that vCPUs write.
    pub(crate) fn logs_writes(&self) -> bool {
        with_core!(self, core => core.logs_writes())
    }

    /// Makes the translation that a fault at `gpa` asks for, if that takes neither sleep nor memory; `None` leaves
    /// it to [`Self::fault`], under whose conditions this is called.
    #[inline]
    pub(crate) fn fault_at_once(
        &self,
        gpa: Gpa,
        access: FaultAccess,
        ring: Option<&DirtyRing>,
    ) -> Option<AtOnce> {
        with_core!(self, core => core.fault_at_once(gpa, access, ring))
    }

    /// Returns whether the processor can log the pages that vCPUs write.
    pub(crate) fn processor_logs(&self) -> bool {
        with_core!(self, core => core.tracking == Tracking::ProcessorLog)
    }

    /// Takes what the client has harvested out of the vCPUs' rings, and arms the pages; returns how many.
    pub(crate) fn reset_rings(&self) -> usize {
        with_core!(self, core => core.reset_rings())
    }

    /// Gives the client the log of slot `id` as a bitmap at `to`; see [`dirty`].
    pub(crate) fn dirty_log(&self, id: u32, to: usize) -> Result {
        with_core!(self, core => core.dirty_log(id, to))
    }

    /// Takes marks out of the log of slot `id`: those of `pages` pages from `first` on that are set in
    /// the client's bitmap at `from`.
    pub(crate) fn clear_dirty_log(&self, id: u32, first: u64, pages: u32, from: usize) -> Result {
        with_core!(self, core => core.clear_dirty_log(id, first, pages, from))
    }

    /// Creates, moves, changes or deletes a slot that the client does not see in its numbers.
    ///
    /// As [`Self::set_region`], with slot numbers from [`crate::memory::USER_SLOTS`] on.
    pub(crate) fn set_internal_region(&self, region: &Region) -> Result {
        with_core!(self, core => core.set_region(region, Owner::Internal))
    }
}

impl<F: EntryFormat, R: RemoteFlush> Registered<F, R> {
    /// Returns tables and memory with nothing in them, for guests of the calling process.
    fn new(
        direct: impl PinInit<DirectMmu<F>, Error>,
        sizes: Sizes,
        tracking: Tracking,
        max_phys_bits: u32,
        remote: Arc<R>,
    ) -> Result<Pin<KBox<Self>>> {
        let core = Arc::pin_init(
            try_pin_init!(Core {
                memory <- GuestMemory::new(max_phys_bits),
                direct <- direct,
                invalidation <- Invalidation::new(),
                inhibits: Inhibits::none(),
                sizes: sizes,
                honor_guest_pat: Atomic::new(false),
                tracking: tracking,
                logging_slots: Atomic::new(0),
                shrink_from: Atomic::new(0),
                small_execution: Atomic::new(parameter::nx_huge_pages()),
                recover_from: Atomic::new(0),
                recovered_at: Atomic::new(timer::now_ns()),
                remote: remote,
            }),
            GFP_KERNEL_ACCOUNT,
        )?;
        KBox::pin_init(
            try_pin_init!(Self {
                _shrinker: shrinker::Registration::new(core.clone())?,
                _recovery: nx::recovery(&core)?,
                notifier <- mmu_notifier::Registration::new(core.clone()),
                core: core,
            }),
            GFP_KERNEL_ACCOUNT,
        )
    }
}

impl<F: EntryFormat, R: RemoteFlush> Core<F, R> {
    /// Returns what decides about the types of pages that are mapped from now on.
    fn memory_types(&self) -> memory_type::Policy {
        if self.honor_guest_pat.load(Relaxed) {
            memory_type::Policy::HonorGuestPat
        } else {
            memory_type::Policy::IgnoreGuestPat
        }
    }

    /// Changes the slots, and takes out the translations that are wrong then.
    ///
    /// Publishing, making faults start again, zapping and flushing are one critical section: whoever
    /// installs a translation after it knows the new slots, and all those before it are gone.
    fn set_region(&self, region: &Region, owner: Owner) -> Result {
        let update = self.memory.update();
        let (change, next) = update.plan(region, owner)?;
        let Some(next) = next else {
            return Ok(());
        };
        change.bind()?;
        if change.starts_log() {
            self.count_logging_slots(1);
        }
        let mut locked = self.direct.exclude();
        // What the processor has logged so far, or tells by dirty bits, goes into the log as long as the
        // frames have the numbers under which it knows them.
        let moved = change.moves_log().map(|old| {
            self.save_writes(&locked, old);
            self.direct.zap_range(&locked, old);
            locked.owed().flush(&locked, &*self.remote)
        });
        let retired = update.publish(next);
        self.invalidation.advance();
        // Where there is memory now, what remembers that there was none is as stale.
        for stale in [change.stale(), change.made()].into_iter().flatten() {
            self.direct.zap_range(&locked, stale);
        }
        self.direct.settle(locked, &*self.remote, true);
        if let Some(flushed) = moved {
            self.direct.release(flushed, true);
        }
        if let Change::Flags { new } = &change {
            self.logging_changed(new);
        }
        if change.ends_log() {
            self.count_logging_slots(-1);
        }
        // Wait for accesses from the kernel through the old slots, still as the only updater: the
        // client may reuse the memory when this returns.
        drop(retired);
        change.unbind();
        drop(update);
        Ok(())
    }

    /// Returns whether the guest used a page of `start..end` since it was last made old.
    ///
    /// Slots may change meanwhile: what the guest has used in one that goes is lost to the host, as
    /// the answer may be in any case.
    fn age_range(&self, start: Hva, end: Hva, what: Age) -> bool {
        let slots = self.memory.snapshot();
        let mut gfns = slots.gfns_at(start, end).peekable();
        if gfns.peek().is_none() {
            return false;
        }
        let locked = self.direct.share();
        gfns.fold(false, |young, gfns| {
            self.direct.age(&locked, gfns, what) || young
        })
    }

    /// Announces a change of `start..end` of the client's address space, or of what is to be had there, and
    /// takes out the translations that it makes wrong. With `may_yield`, other threads can run in between.
    fn begin_invalidation(&self, start: Hva, end: Hva, may_yield: bool) {
        self.invalidation.begin(start, end);
        // The slots are read after the announcement: see `invalidation`.
        let slots = self.memory.snapshot();
        let mut gfns = slots.gfns_at(start, end).peekable();
        // Many slots can have the same memory: let others have the lock in between. What faults
        // install meanwhile is not of this range, which is announced.
        while gfns.peek().is_some() {
            let locked = self.direct.exclude();
            for gfns in gfns.by_ref().take(RANGES_AT_ONCE) {
                self.save_writes(&locked, gfns);
                self.direct.zap_range(&locked, gfns);
            }
            self.direct.settle(locked, &*self.remote, may_yield);
        }
    }

    /// Takes out every translation.
    fn zap_all(&self) {
        let locked = self.direct.exclude();
        self.invalidation.advance();
        self.save_writes(&locked, GfnRange::ALL);
        self.direct.zap_all(&locked);
        self.direct.settle(locked, &*self.remote, true);
    }
}

impl<F: EntryFormat, R: RemoteFlush> mmu_notifier::Operations for Core<F, R> {
    fn invalidate_range_start(&self, range: &mmu_notifier::Range) -> Result {
        self.begin_invalidation(range.start, range.end, range.blockable);
        self.invalidate_apic_access(range.start, range.end);
        Ok(())
    }

    fn invalidate_range_end(&self, _range: &mmu_notifier::Range) {
        self.invalidation.finish();
    }

    fn age(&self, start: Hva, end: Hva) -> bool {
        self.age_range(start, end, Age::MakeOld)
    }

    fn is_young(&self, address: Hva) -> bool {
        let next = Hva::new(address.value().saturating_add(1));
        self.age_range(address, next, Age::Look)
    }

    fn release(&self) {
        self.zap_all();
    }
}
