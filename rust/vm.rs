// SPDX-License-Identifier: GPL-2.0

//! A virtual machine: guest memory, its MMU, and its vCPUs.
//!
//! # Lock order
//!
//! 1. [`Vm::config`], the mutex of what is set up before vCPUs run
//! 2. a vCPU's mutex (`vcpu`)
//! 3. the mutex of slot changes (`memory`), then those of a file of guest memory; memory management's
//!    own locks; that of the table of destinations (`destinations`)
//! 4. the tables' reader-writer lock, then the locks below it (`mmu`)
//! 5. the spinlock of the PICs; that of the I/O APIC, then that of [`Vcpus`]
//! 6. a vCPU's doorbell (`vcpu/request`)
//!
//! The mutex of what debugfs shows is taken with none of these held; who reads there takes the spinlock of
//! [`Vcpus`].
//!
//! A VM lives as long as one of its files: its own, each vCPU's and those of its memory hold a count. It
//! belongs to the address space of the process that made it; all but closing is refused to others.

pub(crate) mod bus;
pub(crate) mod clock;
pub(crate) mod coalesced;
pub(crate) mod debugfs;
pub(crate) mod destinations;
mod guest_memfd;
mod internal_memory;
pub(crate) mod ioeventfd;
pub(crate) mod irq;
pub(crate) mod irqfd;
pub(crate) mod msr_filter;
pub(crate) mod pit;
pub(crate) mod settings;
pub(crate) mod tsc;

use self::{
    bus::Bus,
    clock::Clock,
    coalesced::Coalesced,
    debugfs::{
        Counters,
        Shown,
        Source, //
    },
    destinations::Destinations,
    internal_memory::{
        InternalMemory,
        NO_TSS, //
    },
    ioeventfd::IoEventFds,
    irq::{
        Irqs,
        Kind, //
    },
    irqfd::IrqFds,
    msr_filter::MsrFilter,
    pit::VmPit,
    settings::{
        Quirk,
        Settings, //
    },
    tsc::TscSync, //
};
use crate::{
    hypervisor::Hypervisor,
    irqchip::routing::MAX_ROUTES,
    linux::{
        cpu_call::{
            tsc_khz,
            CpuSet, //
        },
        host::HostConstants,
        preempt::{
            full_barrier,
            PreemptGuard, //
        },
        task::PreemptNotifiers, //
    },
    memory::{
        DirtyRing,
        GuestMemory, //
    },
    mmu::{
        self,
        Level,
        Mmu,
        RemoteFlush,
        Tables, //
    },
    vcpu::{
        request::Request,
        restricted::Nonpaged,
        Outfit,
        Vcpu, //
    },
    vmx::capability::Capabilities, //
};
use core::num::NonZeroU64;
use kernel::{
    new_mutex,
    new_spinlock,
    prelude::*,
    sync::{
        atomic::{
            Atomic,
            Relaxed, //
        },
        Arc,
        Mutex,
        SetOnce,
        SpinLock, //
    }, //
};

/// The most vCPUs of a VM.
pub(crate) const MAX_VCPUS: u32 = 1024;

/// vCPU numbers are below this.
pub(crate) const MAX_VCPU_IDS: u32 = 4096;

/// The vCPUs of a VM, and how to make them all forget translations.
#[pin_data]
pub(crate) struct Vcpus {
    #[pin]
    list: SpinLock<KVVec<Arc<Vcpu>>>,
    #[pin]
    destinations: Destinations,
    /// Which vCPU was given the CPU of one that waits for others.
    boosted: Atomic<usize>,
    flushes: Atomic<u64>,
    flush_kicks: Atomic<u64>,
}

/// How often all vCPUs of a VM were made to forget translations.
#[derive(Clone, Copy)]
pub(crate) struct RemoteFlushes {
    /// All times.
    pub(crate) requested: u64,
    /// Those when one of them was in its guest.
    pub(crate) kicked: u64,
}

impl Vcpus {
    /// Returns how often all vCPUs were made to forget translations.
    pub(crate) fn flushes(&self) -> RemoteFlushes {
        RemoteFlushes {
            requested: self.flushes.load(Relaxed),
            kicked: self.flush_kicks.load(Relaxed),
        }
    }

    fn new() -> impl PinInit<Self, Error> {
        try_pin_init!(Self {
            list <- new_spinlock!(KVVec::new()),
            destinations <- Destinations::new(),
            boosted: Atomic::new(0),
            flushes: Atomic::new(0),
            flush_kicks: Atomic::new(0),
        })
    }

    /// Returns the table of destinations.
    #[inline]
    pub(crate) fn destinations(&self) -> &Destinations {
        &self.destinations
    }

    /// Adds a vCPU; the caller holds the VM's configuration lock.
    fn push(&self, vcpu: Arc<Vcpu>) -> Result {
        // Room is made outside the spinlock; only this function adds.
        let len = self.list.lock().len();
        if len == self.list.lock().capacity() {
            let mut larger = KVVec::with_capacity(len.max(4) * 2, GFP_KERNEL_ACCOUNT)?;
            let old = {
                let mut list = self.list.lock();
                for vcpu in &*list {
                    // There is room.
                    let _ = larger.push_within_capacity(vcpu.clone());
                }
                core::mem::replace(&mut *list, larger)
            };
            drop(old);
        }
        self.list
            .lock()
            .push_within_capacity(vcpu)
            .map_err(|_| ENOMEM)
    }

    /// Returns all vCPUs as they are now.
    pub(crate) fn all(&self) -> Result<KVVec<Arc<Vcpu>>> {
        let len = self.list.lock().len();
        let mut all = KVVec::with_capacity(len, GFP_KERNEL_ACCOUNT)?;
        for vcpu in &*self.list.lock() {
            // One that came meanwhile is left out; that counts as a change.
            let _ = all.push_within_capacity(vcpu.clone());
        }
        Ok(all)
    }

    /// Removes a vCPU; returns whether it was there.
    fn remove(&self, vcpu: &Arc<Vcpu>) -> bool {
        let removed = {
            let mut list = self.list.lock();
            let index = list.iter().position(|other| Arc::ptr_eq(other, vcpu));
            index.map(|index| list.remove(index))
        };
        // Dropped outside the spinlock.
        matches!(removed, Some(Ok(_)))
    }

    /// Calls `f` for each vCPU; it must not sleep.
    pub(crate) fn for_each(&self, mut f: impl FnMut(&Vcpu)) {
        for vcpu in &*self.list.lock() {
            f(vcpu);
        }
    }

    /// Calls `f` with all vCPUs; it must not sleep.
    pub(crate) fn with_list<R>(&self, f: impl FnOnce(&[Arc<Vcpu>]) -> R) -> R {
        f(&self.list.lock())
    }

    /// Returns what `f` finds in one vCPU, which are asked from the one behind that which it last found
    /// something in; it must not sleep.
    pub(crate) fn find_next<R>(&self, f: impl Fn(&Vcpu) -> Option<R>) -> Option<R> {
        let list = self.list.lock();
        let start = self.boosted.load(Relaxed).wrapping_add(1);
        let (before, behind) = list.split_at(start.min(list.len()));
        for (index, vcpu) in Iterator::chain((start..).zip(behind), (0..).zip(before)) {
            if let Some(found) = f(vcpu) {
                self.boosted.store(index, Relaxed);
                return Some(found);
            }
        }
        None
    }

    /// As [`Vcpus::with_list`], but in any context save an NMI; `None` if somebody else looks at them.
    ///
    /// That may be who was interrupted on this CPU, so there is no waiting.
    pub(crate) fn try_with_list<R>(&self, f: impl FnOnce(&[Arc<Vcpu>]) -> R) -> Option<R> {
        Some(f(&self.list.try_lock()?))
    }
}

impl Vcpus {
    /// Sets a request of all vCPUs, if one is given, and returns when none of them is in its guest that
    /// was; returns whether there was any.
    fn kick_all(&self, request: Option<Request>) -> bool {
        let preempt = PreemptGuard::new();
        let mut running = CpuSet::new();
        let mut any = false;
        // As setting a request does: a vCPU that is not seen in its guest sees what was done before.
        full_barrier();
        self.for_each(|vcpu| {
            if let Some(request) = request {
                vcpu.doorbell().set(request);
            }
            if let Some(cpu) = vcpu.doorbell().guest_cpu() {
                running.insert(cpu);
                any = true;
            }
        });
        // Not under the spinlock: who waits for it may have interrupts off.
        if any {
            running.kick_and_wait(&preempt);
        }
        any
    }
}

impl RemoteFlush for Vcpus {
    fn flush_remote(&self) {
        let kicked = self.kick_all(Some(Request::TlbFlush));
        self.flushes.add(1, Relaxed);
        if kicked {
            self.flush_kicks.add(1, Relaxed);
        }
    }

    fn gather_writes(&self) {
        // An exit empties the vCPU's log.
        self.kick_all(None);
    }

    fn logging_changed(&self) {
        self.kick_all(Some(Request::DirtyLogging));
    }

    fn apic_access_changed(&self) {
        self.kick_all(Some(Request::ApicAccess));
    }
}

/// What is set up before vCPUs run.
pub(crate) struct Config {
    created: u32,
    max_vcpu_ids: Option<u32>,
    boot_cpu_id: u32,
    tsc_khz: u32,
    internal: InternalMemory,
}

/// A virtual machine.
#[pin_data(PinnedDrop)]
pub(crate) struct Vm {
    hypervisor: Arc<Hypervisor>,
    creator: i32,
    mmu: Mmu<Vcpus>,
    vcpus: Arc<Vcpus>,
    #[pin]
    config: Mutex<Config>,
    exception_payloads: Atomic<bool>,
    triple_fault_events: Atomic<bool>,
    #[pin]
    settings: Settings,
    #[pin]
    coalesced: Coalesced,
    #[pin]
    ioeventfds: IoEventFds,
    /// Devices in the kernel, once there is one.
    bus: SetOnce<Pin<KBox<Bus>>>,
    /// Interrupt lines, once there are local APICs in the kernel.
    irqs: SetOnce<Arc<Irqs>>,
    irqfds: IrqFds,
    /// The interval timer in the kernel, once there is one.
    pit: SetOnce<Arc<VmPit>>,
    #[pin]
    tsc: SpinLock<TscSync>,
    #[pin]
    clock: SpinLock<Clock>,
    /// Where the guest last asked for the wall-clock time.
    wall_clock: Atomic<u64>,
    /// Where the TSS of real mode is, or [`NO_TSS`].
    tss_address: Atomic<u64>,
    /// What debugfs has of the VM.
    #[pin]
    shown: Mutex<Option<Shown>>,
    _notifiers: PreemptNotifiers,
}

impl Vm {
    /// Creates a VM that belongs to the current process.
    pub(crate) fn new(hypervisor: Arc<Hypervisor>) -> Result<Arc<Self>> {
        let capabilities = &hypervisor.capabilities;
        let ept = capabilities.ept_vpid();
        let tables = if capabilities.ept() {
            Tables::Ept {
                levels: Level::Level4,
                a_d: capabilities.ept_ad(),
                pml: capabilities.pml(),
                huge_2m: ept.page_2m(),
                huge_1g: ept.page_1g(),
            }
        } else {
            Tables::Shadow
        };
        let config = mmu::Config {
            tables,
            max_phys_bits: u32::from(hypervisor.physical_bits),
        };
        let vcpus = Arc::pin_init(Vcpus::new(), GFP_KERNEL_ACCOUNT)?;
        let mmu = Mmu::new(config, vcpus.clone())?;
        Arc::pin_init(
            try_pin_init!(Self {
                hypervisor,
                creator: kernel::current!().pid(),
                mmu,
                vcpus,
                config <- new_mutex!(Config {
                    created: 0,
                    max_vcpu_ids: None,
                    boot_cpu_id: 0,
                    tsc_khz: tsc_khz(),
                    internal: InternalMemory::default(),
                }),
                exception_payloads: Atomic::new(false),
                triple_fault_events: Atomic::new(false),
                settings <- Settings::new(),
                coalesced <- Coalesced::new(),
                ioeventfds <- IoEventFds::new(),
                irqfds: IrqFds::new()?,
                pit: SetOnce::new(),
                bus: SetOnce::new(),
                irqs: SetOnce::new(),
                tsc <- new_spinlock!(TscSync::new()),
                clock <- new_spinlock!(Clock::new()),
                wall_clock: Atomic::new(0),
                tss_address: Atomic::new(NO_TSS),
                shown <- new_mutex!(None),
                _notifiers: PreemptNotifiers::enable(),
            }? Error),
            GFP_KERNEL_ACCOUNT,
        )
    }

    /// Fails with `EIO` in a process that the VM does not belong to.
    pub(crate) fn check_owner(&self) -> Result {
        if self.mmu.is_of_current() {
            Ok(())
        } else {
            Err(EIO)
        }
    }

    /// Creates the vCPU `id`.
    ///
    /// `EINVAL` for a number that is too large or one vCPU too many, `EEXIST` for one that is there.
    pub(crate) fn create_vcpu(&self, id: u64) -> Result<Arc<Vcpu>> {
        let mut config = self.config.lock();
        let max = *config.max_vcpu_ids.get_or_insert(MAX_VCPU_IDS);
        if id >= u64::from(max) || config.created >= MAX_VCPUS {
            return Err(EINVAL);
        }
        // CAST: Below MAX_VCPU_IDS.
        let id = id as u32;
        let mut exists = false;
        self.vcpus.for_each(|vcpu| exists |= vcpu.id() == id);
        if exists {
            return Err(EEXIST);
        }
        let nonpaged = self.nonpaged(&mut config.internal)?;
        if self.irqs.as_ref().is_some() {
            self.provide_apic_access(&mut config.internal)?;
        }
        let ring = self.memory().rings().add()?;
        let vcpu = self
            .make_vcpu(&config, id, nonpaged, ring.clone())
            .inspect_err(|_| self.remove_ring(ring.as_ref()))?;
        config.created += 1;
        Ok(vcpu)
    }

    /// Makes the vCPU `id`, which does not exist and may.
    fn make_vcpu(
        &self,
        config: &Config,
        id: u32,
        nonpaged: Option<Nonpaged>,
        ring: Option<Arc<DirtyRing>>,
    ) -> Result<Arc<Vcpu>> {
        let outfit = Outfit {
            id,
            root: self.mmu.root(),
            bootstrap: id == config.boot_cpu_id,
            irqs: self.irqs().cloned(),
            nonpaged,
            ring,
        };
        let vcpu = Vcpu::new(&self.hypervisor, &self.settings, outfit)?;
        vcpu.lock()?.with_vmcs(|vmcs, state| {
            // A frequency that this CPU cannot give is told nevertheless, as in KVM.
            let _ = state.set_tsc_khz(self, vmcs, config.tsc_khz);
            state.synchronize_tsc(self, &vcpu, vmcs, None);
        });
        // It takes the MSR filter.
        vcpu.doorbell().set(Request::Intercepts);
        vcpu.doorbell().set(Request::DirtyLogging);
        vcpu.doorbell().set(Request::ApicAccess);
        self.vcpus.push(vcpu.clone())?;
        self.note_destination(&vcpu);
        Ok(vcpu)
    }

    /// Forgets the ring of a vCPU that is not there.
    fn remove_ring(&self, ring: Option<&Arc<DirtyRing>>) {
        if let Some(ring) = ring {
            self.memory().rings().remove(ring);
        }
    }

    /// Takes back a vCPU that nobody has seen.
    pub(crate) fn remove_vcpu(&self, vcpu: &Arc<Vcpu>) {
        let mut config = self.config.lock();
        if self.vcpus.remove(vcpu) {
            self.remove_ring(vcpu.shared_ring());
            self.vcpus.destinations.note_change();
            config.created = config.created.saturating_sub(1);
        }
    }

    /// Limits vCPU numbers to those below `max`, once and before there is a vCPU.
    pub(crate) fn set_max_vcpu_ids(&self, max: u64) -> Result {
        if max > u64::from(MAX_VCPU_IDS) {
            return Err(EINVAL);
        }
        // CAST: At most MAX_VCPU_IDS.
        let max = max as u32;
        let mut config = self.config.lock();
        if config.boot_cpu_id > max {
            return Err(EINVAL);
        }
        match config.max_vcpu_ids {
            Some(old) if old == max => Ok(()),
            Some(_) => Err(EINVAL),
            None => {
                // Zero is the limit of one that was not set.
                config.max_vcpu_ids = (max != 0).then_some(max);
                Ok(())
            }
        }
    }

    /// Says which vCPU is the bootstrap processor, before there is a vCPU.
    pub(crate) fn set_boot_cpu_id(&self, id: u64) -> Result {
        let mut config = self.config.lock();
        if config.created > 0 {
            return Err(EBUSY);
        }
        let max = config.max_vcpu_ids.unwrap_or(MAX_VCPU_IDS);
        config.boot_cpu_id = u32::try_from(id)
            .ok()
            .filter(|&id| id <= max)
            .ok_or(EINVAL)?;
        Ok(())
    }

    /// Lets guests execute large pages whatever the administrator wants, before there is a vCPU; else
    /// `EINVAL`.
    pub(crate) fn allow_large_execution(&self) -> Result {
        let config = self.config.lock();
        if config.created > 0 {
            return Err(EINVAL);
        }
        self.mmu.allow_large_execution();
        Ok(())
    }

    /// Gives every vCPU a ring of `bytes` bytes for the pages that it writes, instead of a bitmap for each
    /// slot, once and before there is a vCPU.
    ///
    /// Fails with `EINVAL`, and with `E2BIG` if that is too large.
    pub(crate) fn enable_dirty_rings(&self, bytes: u32) -> Result {
        let config = self.config.lock();
        let rings = self.memory().rings();
        let processor_logs = self.mmu.processor_logs();
        if config.created > 0 {
            // Also then a size that is too large is told first.
            rings.check_size(bytes, processor_logs)?;
            return Err(EINVAL);
        }
        rings.enable(bytes, processor_logs)
    }

    /// Gives every vCPU a local APIC in the kernel, and the VM a pair of PICs and an I/O APIC.
    ///
    /// `EEXIST` if it has controllers in the kernel already, `EINVAL` after a vCPU was created.
    pub(crate) fn create_irqchip(&self) -> Result {
        let config = self.config.lock();
        if self.irqs().is_some() {
            return Err(EEXIST);
        }
        if config.created > 0 {
            return Err(EINVAL);
        }
        let irqs = Irqs::new(self.vcpus.clone(), Kind::Full)?;
        irqs.add_devices(self.make_bus(&config)?)?;
        self.irqs.populate(irqs);
        Ok(())
    }

    /// Gives the VM an interval timer, and port 0x61 if `speaker` says so.
    ///
    /// `EEXIST` if it has one, `ENOENT` without a PIC in the kernel, `ENOMEM`.
    pub(crate) fn create_pit(&self, speaker: bool) -> Result {
        let config = self.config.lock();
        if self.pit().is_some() {
            return Err(EEXIST);
        }
        let irqs = self.irqs().filter(|irqs| irqs.kind() == Kind::Full);
        let pit = VmPit::new(irqs.ok_or(ENOENT)?, self.make_bus(&config)?, speaker)?;
        self.pit.populate(pit);
        Ok(())
    }

    /// Returns the interval timer in the kernel.
    pub(crate) fn pit(&self) -> Option<&Arc<VmPit>> {
        self.pit.as_ref()
    }

    /// Gives every vCPU a local APIC in the kernel, with the I/O APIC and the PIC left to the client.
    pub(crate) fn split_irqchip(&self, pins: u64) -> Result {
        let config = self.config.lock();
        if pins > u64::from(MAX_ROUTES) {
            return Err(EINVAL);
        }
        if self.irqs().is_some() || config.created > 0 {
            return Err(EEXIST);
        }
        // CAST: At most MAX_ROUTES.
        let kind = Kind::Split { pins: pins as u32 };
        self.irqs.populate(Irqs::new(self.vcpus.clone(), kind)?);
        Ok(())
    }

    /// Says whether the client tells pending exceptions, which may have payloads, from injected ones.
    pub(crate) fn enable_exception_payloads(&self, on: bool) {
        self.exception_payloads.store(on, Relaxed);
    }

    /// Returns whether the client tells pending exceptions from injected ones.
    pub(crate) fn has_exception_payloads(&self) -> bool {
        self.exception_payloads.load(Relaxed)
    }

    /// Says whether the client saves and restores triple faults.
    pub(crate) fn enable_triple_fault_events(&self, on: bool) {
        self.triple_fault_events.store(on, Relaxed);
    }

    /// Returns whether the client saves and restores triple faults.
    pub(crate) fn has_triple_fault_events(&self) -> bool {
        self.triple_fault_events.load(Relaxed)
    }

    /// Returns the interrupt lines, if the vCPUs have local APICs in the kernel.
    #[inline]
    pub(crate) fn irqs(&self) -> Option<&Arc<Irqs>> {
        self.irqs.as_ref()
    }

    /// Returns the devices in the kernel, to add one or remove it.
    #[allow(dead_code, reason = "not every part has its caller yet")]
    pub(crate) fn bus(&self) -> Result<&Bus> {
        self.make_bus(&self.config.lock())
    }

    /// See [`Vm::bus`]; who calls holds the configuration lock.
    fn make_bus(&self, _config: &Config) -> Result<&Bus> {
        if self.bus.as_ref().is_none() {
            self.bus.populate(Bus::new()?);
        }
        Ok(self.bus.as_ref().ok_or(ENOMEM)?)
    }

    /// Turns on what KVM_CAP_X2APIC_API asks for.
    ///
    /// `EINVAL` for an unknown flag, for two that exclude each other, and for the suppression of EOI
    /// broadcasts where the client does not have the I/O APIC.
    pub(crate) fn enable_x2apic_api(&self, flags: u64) -> Result {
        let flags = u32::try_from(flags).map_err(|_| EINVAL)?;
        let suppress = flags & settings::X2APIC_API_SUPPRESS != 0;
        let both = suppress && flags & settings::X2APIC_API_NO_SUPPRESS != 0;
        if flags & !settings::X2APIC_API != 0 || both || (suppress && !self.has_split_irqchip()) {
            return Err(EINVAL);
        }
        self.vcpus.destinations.enable_formats(flags);
        self.settings.choose_suppression(flags);
        Ok(())
    }

    /// Sets the nanoseconds of an undivided count of the local APICs' timers.
    ///
    /// `EINVAL` if that is 0, or so long that the longest count overflows, or after a vCPU was created;
    /// `ENXIO` without local APICs in the kernel.
    pub(crate) fn set_bus_cycle_ns(&self, ns: u64) -> Result {
        /// The largest divisor.
        const DIVISOR: u64 = 128;
        let longest = ns.checked_mul(u64::from(u32::MAX).wrapping_mul(DIVISOR));
        let ns = NonZeroU64::new(ns)
            .filter(|_| longest.is_some())
            .ok_or(EINVAL)?;
        let config = self.config.lock();
        if self.irqs().is_none() {
            return Err(ENXIO);
        }
        if config.created > 0 {
            return Err(EINVAL);
        }
        self.settings.set_bus_cycle_ns(ns);
        Ok(())
    }

    /// Returns whether the client has the I/O APIC, and the vCPUs have local APICs in the kernel.
    pub(crate) fn has_split_irqchip(&self) -> bool {
        self.irqs()
            .is_some_and(|irqs| matches!(irqs.kind(), Kind::Split { .. }))
    }

    /// Returns what may change while vCPUs run.
    #[inline]
    pub(crate) fn settings(&self) -> &Settings {
        &self.settings
    }

    /// Returns the quirks that a client can turn off, as bits.
    pub(crate) fn quirks(&self) -> u32 {
        settings::quirks(self.hypervisor.self_snoop)
    }

    /// Turns quirks off, for good. Those that cannot be turned off are ignored.
    pub(crate) fn disable_quirks(&self, quirks: u32) {
        self.settings.disable_quirks(quirks & self.quirks());
        if !self.settings.has(Quirk::IgnoreGuestPat) {
            self.mmu.honor_guest_pat();
        }
    }

    /// Notes that the mode or the IDs of the vCPU's local APIC have changed; the vCPU makes a new table
    /// of destinations before it enters its guest.
    pub(crate) fn note_destination(&self, vcpu: &Vcpu) {
        if vcpu.controller().is_some() {
            self.vcpus.destinations.note_change();
            vcpu.doorbell().set(Request::Destinations);
        }
    }

    /// Makes a new table of destinations if the old one is out of date. May sleep.
    pub(crate) fn update_destinations(&self) {
        self.vcpus.destinations.update(&self.vcpus);
    }

    /// Returns the ring of coalesced I/O.
    #[inline]
    pub(crate) fn coalesced(&self) -> &Coalesced {
        &self.coalesced
    }

    /// Returns the eventfds that interrupt the guest.
    pub(crate) fn irqfds(&self) -> &IrqFds {
        &self.irqfds
    }

    /// Returns the eventfds that the guest signals.
    #[inline]
    pub(crate) fn ioeventfds(&self) -> &IoEventFds {
        &self.ioeventfds
    }

    /// Replaces the MSR filter; each vCPU takes it before it enters its guest again.
    pub(crate) fn set_msr_filter(&self, filter: Arc<MsrFilter>) {
        self.settings.set_msr_filter(filter);
        self.for_each_vcpu(|vcpu| vcpu.doorbell().ring(Request::Intercepts));
    }

    /// Calls `f` with what is known of the vCPUs' time-stamp counters; it must not sleep.
    pub(crate) fn with_tsc<R>(&self, f: impl FnOnce(&mut TscSync) -> R) -> R {
        f(&mut self.tsc.lock())
    }

    /// Returns the VM's clock as it is set now.
    pub(crate) fn clock(&self) -> Clock {
        *self.clock.lock()
    }

    /// Sets the VM's clock; see [`Clock::set`]. Each vCPU tells its guest.
    pub(crate) fn set_clock(&self, ns: u64, realtime: Option<u64>) {
        self.clock.lock().set(ns, realtime);
        self.for_each_vcpu(|vcpu| vcpu.doorbell().ring(Request::Clock));
    }

    /// Returns where the guest last asked for the wall-clock time.
    pub(crate) fn wall_clock(&self) -> u64 {
        self.wall_clock.load(Relaxed)
    }

    /// Notes where the guest asks for the wall-clock time.
    pub(crate) fn set_wall_clock(&self, address: u64) {
        self.wall_clock.store(address, Relaxed);
    }

    /// Returns the frequency of new vCPUs' time-stamp counters in kHz.
    pub(crate) fn tsc_khz(&self) -> u32 {
        self.config.lock().tsc_khz
    }

    /// Sets the frequency of new vCPUs' time-stamp counters, before there is a vCPU.
    pub(crate) fn set_tsc_khz(&self, khz: u32) -> Result {
        let mut config = self.config.lock();
        if config.created > 0 {
            return Err(EINVAL);
        }
        config.tsc_khz = khz;
        Ok(())
    }

    /// Returns what all VMs share.
    #[inline]
    pub(crate) fn hypervisor(&self) -> &Hypervisor {
        &self.hypervisor
    }

    /// Returns what this CPU's VMX offers.
    #[inline]
    pub(crate) fn capabilities(&self) -> &Capabilities {
        &self.hypervisor.capabilities
    }

    /// Returns the host state that never changes.
    #[inline]
    pub(crate) fn host(&self) -> &HostConstants {
        &self.hypervisor.host
    }

    /// Returns the memory MMU.
    #[inline]
    pub(crate) fn mmu(&self) -> &Mmu<Vcpus> {
        &self.mmu
    }

    /// Returns the number of the thread that created the VM, which names it in statistics.
    pub(crate) fn creator(&self) -> i32 {
        self.creator
    }

    /// Returns what the VM's statistics are made of.
    pub(crate) fn counters(&self) -> Counters {
        Counters {
            vcpus: self.vcpus.clone(),
            entries: self.mmu.entries(),
        }
    }

    /// Shows the VM in debugfs, with these statistics, under the number of its file descriptor.
    ///
    /// Another VM may be there with this number: it lives on by a vCPU's file. Then this one is not
    /// shown, nor is it if there is no memory for that.
    pub(crate) fn show<'a>(&self, fd: u32, statistics: impl Iterator<Item = (&'a str, Source)>) {
        let root = &self.hypervisor.debugfs;
        let shown = Shown::new(root, self.creator, fd, &self.counters(), statistics);
        *self.shown.lock() = shown.ok();
    }

    /// Shows a vCPU in debugfs, if the VM is there.
    pub(crate) fn show_vcpu(&self, vcpu: &Vcpu) {
        if let Some(shown) = &mut *self.shown.lock() {
            // Without memory for it, it is not shown.
            let _ = shown.add_vcpu(vcpu, self.capabilities());
        }
    }

    /// Returns guest memory.
    #[inline]
    pub(crate) fn memory(&self) -> &GuestMemory {
        self.mmu.memory()
    }

    /// Calls `f` for each vCPU; it must not sleep.
    pub(crate) fn for_each_vcpu(&self, f: impl FnMut(&Vcpu)) {
        self.vcpus.for_each(f);
    }

    /// Returns the vCPUs.
    #[inline]
    pub(crate) fn vcpus(&self) -> &Vcpus {
        &self.vcpus
    }
}

#[pinned_drop]
impl PinnedDrop for Vm {
    fn drop(self: Pin<&mut Self>) {
        // Who uses a line may keep the lines alive, and they their users.
        if let Some(irqs) = self.irqs() {
            irqs.remove_all_line_users();
        }
    }
}
