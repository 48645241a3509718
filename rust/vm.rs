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
mod controllers;
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
mod vcpus;

pub(crate) use self::vcpus::Vcpus;

use self::{
    bus::Bus,
    clock::Clock,
    coalesced::Coalesced,
    debugfs::{
        Counters,
        Shown,
        Source, //
    },
    internal_memory::{
        InternalMemory,
        NO_TSS, //
    },
    ioeventfd::IoEventFds,
    irq::Irqs,
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
    linux::{
        cpu_call::{
            exits_to_disable,
            tsc_khz, //
        },
        host::HostConstants,
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
                dirty_bits: capabilities.dirty_bits(),
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
        vcpu.doorbell().set(Request::EoiExits);
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
            self.vcpus.destinations().note_change();
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

    /// Does without the exits that KVM_X86_DISABLE_EXITS_* names, before there is a vCPU.
    ///
    /// `EINVAL` for one that is not possible on this CPU, and after a vCPU was created.
    pub(crate) fn disable_exits(&self, exits: u64) -> Result {
        let exits = u32::try_from(exits).map_err(|_| EINVAL)?;
        let config = self.config.lock();
        if exits & !exits_to_disable() != 0 || config.created > 0 {
            return Err(EINVAL);
        }
        self.settings.disable_exits(exits);
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
    pub(crate) fn show<'a>(&self, fd: u32, statistics: impl Iterator<Item = (&'a CStr, Source)>) {
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
