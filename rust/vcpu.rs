// SPDX-License-Identifier: GPL-2.0

//! A virtual CPU: its run loop, its exits, and the registers that its client sees.
//!
//! # Who may touch what
//!
//! * [`Owned`], the VMCS and the [`State`], is behind the vCPU's mutex, which KVM_RUN and every vCPU
//!   ioctl hold throughout. Waiting for it can be killed.
//! * The VMCS is accessed only while it is current, with preemption off ([`Owned::load`]).
//! * The host's half of the lazily switched state ([`HostSwitch`]) is brought back by the scheduler when
//!   the thread leaves its CPU, so it is outside the mutex and used by the holder's thread only.
//! * Everything else is atomic: the [`Doorbell`], the local APIC's shared half, counters.
//!
//! Lock order: the vCPU's mutex is outermost but for the VM's configuration lock; see `vm`.

mod async_page;
mod context;
pub(crate) mod control;
pub(crate) mod debug;
pub(crate) mod disabled_exits;
mod emulation;
mod entry_work;
pub(crate) mod event_state;
mod events;
mod exits;
pub(crate) mod guest_debug;
mod halt;
pub(crate) mod hypercall;
pub(crate) mod interrupt;
mod io;
mod msr;
mod nmi;
mod pending;
pub(crate) mod protection_keys;
pub(crate) mod pv;
pub(crate) mod registers;
pub(crate) mod request;
mod reset;
pub(crate) mod restricted;
mod run;
mod run_page;
pub(crate) mod state;
pub(crate) mod stats;
mod tracing;
pub(crate) mod tsc;
pub(crate) mod view;
mod yielding;

pub(crate) use self::{
    run_page::{
        RunPage,
        COALESCED_PAGE,
        MAPPING_SIZE, //
    },
    state::MpState, //
};

use self::{
    interrupt::InterruptController,
    request::Doorbell,
    restricted::Nonpaged,
    state::State,
    stats::Registered,
    view::View,
    yielding::{
        Runner,
        Scheduling, //
    }, //
};
use crate::{
    hypervisor::Hypervisor,
    lapic::Reset,
    linux::{
        mutex::{
            KillableGuard,
            KillableMutex, //
        },
        preempt::PreemptGuard,
        signal_mask::SignalMask,
        task::{
            PreemptNotifier,
            ThreadId, //
        }, //
    },
    memory::DirtyRing,
    mmu::Root,
    vm::{
        irq::Irqs,
        settings::{
            Quirk,
            Settings, //
        },
        Vm, //
    },
    vmx::{
        host_state::{
            self,
            GuestMsrValues,
            HostSwitch, //
        },
        tlb::Owed,
        vmcs::{
            CurrentVmcs,
            Load,
            Vmcs, //
        },
        vpid::Vpid, //
    }, //
};
use kernel::{
    prelude::*,
    sync::{
        atomic::{
            Atomic,
            Full,
            Relaxed, //
        },
        Arc, //
    }, //
};

/// What the vCPU's mutex protects.
pub(crate) struct Owned {
    vmcs: Vmcs,
    /// The state beside the VMCS.
    pub(crate) state: State,
    /// The signals to block during KVM_RUN.
    pub(crate) signal_mask: Option<SignalMask>,
    /// The thread that ran the vCPU last.
    runner: Option<ThreadId>,
}

impl Owned {
    /// Makes the VMCS current on this CPU, with what of it belongs to the CPU.
    #[inline(always)]
    pub(crate) fn load<'a>(
        &'a mut self,
        preempt: &'a PreemptGuard,
    ) -> (CurrentVmcs<'a>, &'a mut State) {
        let Self { vmcs, state, .. } = self;
        let (current, load) = vmcs.make_current(preempt);
        if load == Load::Moved {
            host_state::write_per_cpu(&current, preempt);
            state.owed = Owed::ALL;
            // Another CPU's time-stamp counter, or this one's after the system slept, says something else.
            state.recheck_timer();
        }
        (current, state)
    }

    /// Calls `f` with the VMCS current and preemption off; it must not sleep.
    #[inline]
    pub(crate) fn with_vmcs<R>(&mut self, f: impl FnOnce(&CurrentVmcs<'_>, &mut State) -> R) -> R {
        let preempt = PreemptGuard::new();
        let (vmcs, state) = self.load(&preempt);
        f(&vmcs, state)
    }
}

/// What a VM gives a new vCPU.
pub(crate) struct Outfit {
    /// Its number.
    pub(crate) id: u32,
    /// Where the processor finds the tables of guest memory.
    pub(crate) root: Root,
    /// It is the one that boots.
    pub(crate) bootstrap: bool,
    /// The VM's interrupt lines, if it has a local APIC in the kernel.
    pub(crate) irqs: Option<Arc<Irqs>>,
    /// What it runs on without paging, where that is not its own.
    pub(crate) nonpaged: Option<Nonpaged>,
    /// Its ring of written pages.
    pub(crate) ring: Option<Arc<DirtyRing>>,
}

/// A virtual CPU.
#[pin_data]
pub(crate) struct Vcpu {
    id: u32,
    bootstrap: bool,
    doorbell: Arc<Doorbell>,
    view: Arc<View>,
    run_page: RunPage,
    controller: Option<Arc<InterruptController>>,
    vpid: Option<Vpid>,
    root: Root,
    ring: Option<Arc<DirtyRing>>,
    nmis: Atomic<u32>,
    /// Another vCPU has woken this one, or will have if it halts.
    unhalted: Atomic<bool>,
    /// The vCPU's thread sleeps, as the vCPU is halted.
    blocking: Atomic<bool>,
    counts: Registered,
    #[pin]
    runner: Runner,
    #[pin]
    scheduling: PreemptNotifier<Scheduling>,
    #[pin]
    owned: KillableMutex<Owned>,
}

impl Vcpu {
    /// Creates a vCPU at reset.
    pub(crate) fn new(
        hypervisor: &Hypervisor,
        settings: &Settings,
        outfit: Outfit,
    ) -> Result<Arc<Self>> {
        let Outfit {
            id,
            root,
            bootstrap,
            irqs,
            nonpaged,
            ring,
        } = outfit;
        let doorbell = Arc::pin_init(Doorbell::new(), GFP_KERNEL_ACCOUNT)?;
        let controller = match &irqs {
            Some(irqs) => {
                let chips = irqs.chips().cloned();
                let posted = hypervisor.capabilities.apicv();
                Some(InterruptController::new(
                    id,
                    doorbell.clone(),
                    chips,
                    posted,
                )?)
            }
            None => None,
        };
        let vpid = if hypervisor.capabilities.vpid() {
            hypervisor.vpids.take()
        } else {
            None
        };
        let mut owned = Owned {
            vmcs: Vmcs::new(hypervisor.capabilities.revision())?,
            state: State::new(
                hypervisor,
                bootstrap,
                !settings.has(Quirk::StuffFeatureMsrs),
                nonpaged,
            )?,
            signal_mask: None,
            runner: None,
        };
        owned.state.disabled_exits = settings.disabled_exits();
        let scheduling = Scheduling::new(doorbell.clone());
        let view = owned.state.view.clone();
        let number = vpid.as_ref().map(Vpid::number);
        let apic = controller.as_ref().map(|controller| controller.addresses());
        owned.with_vmcs(|vmcs, state| {
            reset::set_up(hypervisor, vmcs, state, root, number, apic);
        });
        let counts = Registered::new()?;
        // The vCPU keeps both.
        owned.state.regs.l1d_flush_counter = counts.l1d_flush_counter();
        let vcpu = Arc::pin_init(
            try_pin_init!(Self {
                id,
                bootstrap,
                doorbell,
                view,
                run_page: RunPage::new()?,
                controller,
                vpid,
                root,
                ring,
                nmis: Atomic::new(0),
                unhalted: Atomic::new(false),
                blocking: Atomic::new(false),
                counts,
                runner <- Runner::new(),
                scheduling <- PreemptNotifier::new(Ok::<_, Error>(scheduling)),
                owned <- KillableMutex::new(
                    owned,
                    c"kvm_rs vcpu",
                    kernel::static_lock_class!(),
                ),
            }? Error),
            GFP_KERNEL_ACCOUNT,
        )?;
        {
            let mut owned = vcpu.lock()?;
            vcpu.reset_controller(&mut owned.state, bootstrap, settings);
            vcpu.reset(&mut owned, Reset::PowerUp);
            if !bootstrap && irqs.is_some() {
                owned.state.mp_state = MpState::Uninitialized;
            }
        }
        Ok(vcpu)
    }

    /// Waits for the vCPU; `EINTR` if a fatal signal came first.
    pub(crate) fn lock(&self) -> Result<KillableGuard<'_, Owned>> {
        self.owned.lock_killable()
    }

    /// Runs the guest; see [`run::run`].
    pub(crate) fn run(self: &Arc<Self>, vm: &Vm, owned: &mut Owned) -> Result {
        let mask = owned.signal_mask;
        let _blocked = mask.as_ref().map(SignalMask::block);
        self.note_runner(owned);
        self.scheduling.with_registered(|| {
            let result = run::run(vm, self, owned);
            let _preempt = PreemptGuard::new();
            self.host_switch().to_host();
            result
        })
    }

    /// Returns the vCPU's number, which its local APIC starts with as its ID.
    pub(crate) fn id(&self) -> u32 {
        self.id
    }

    /// Returns what debugfs shows of it.
    pub(crate) fn view(&self) -> Arc<View> {
        self.view.clone()
    }

    /// Returns whether this is the vCPU that boots.
    pub(crate) fn is_bootstrap(&self) -> bool {
        self.bootstrap
    }

    /// Returns the pages shared with the client.
    #[inline]
    pub(crate) fn run_page(&self) -> &RunPage {
        &self.run_page
    }

    /// Returns how other threads reach the vCPU.
    #[inline]
    pub(crate) fn doorbell(&self) -> &Arc<Doorbell> {
        &self.doorbell
    }

    /// Returns the local APIC and its timer, if they are in the kernel.
    #[inline]
    pub(crate) fn controller(&self) -> Option<&InterruptController> {
        self.controller.as_deref()
    }

    /// Returns the lazily switched state.
    #[inline]
    pub(crate) fn host_switch(&self) -> &HostSwitch {
        &self.scheduling.inner.host
    }

    /// Returns the root of the tables that the guest runs on.
    #[inline]
    pub(crate) fn root(&self) -> Root {
        self.root
    }

    /// Returns the ring of pages that the vCPU wrote, if it has one.
    #[inline]
    pub(crate) fn ring(&self) -> Option<&DirtyRing> {
        self.ring.as_deref()
    }

    /// As [`Self::ring`], with its count.
    pub(crate) fn shared_ring(&self) -> Option<&Arc<DirtyRing>> {
        self.ring.as_ref()
    }

    /// Has the vCPU look at its ring before it enters its guest again, if that is soft full.
    pub(crate) fn check_ring(&self) {
        if self.ring().is_some_and(DirtyRing::is_soft_full) {
            self.doorbell.set(request::Request::DirtyRing);
        }
    }

    /// Returns the VPID, if the vCPU has one.
    #[inline]
    pub(crate) fn vpid(&self) -> Option<u16> {
        self.vpid.as_ref().map(Vpid::number)
    }

    /// Returns the CPU that this runs on, for reports.
    pub(crate) fn cpu(&self) -> u32 {
        PreemptGuard::new().cpu()
    }

    /// Counts an exit with this basic reason.
    #[inline]
    pub(crate) fn count_exit(&self, reason: usize) {
        self.counts.count(reason);
    }

    /// Counts an event.
    pub(crate) fn count_event(&self, event: stats::Event) {
        self.counts.count_event(event);
    }

    /// Adds to what an event counts.
    pub(crate) fn add_to_event(&self, event: stats::Event, number: u64) {
        self.counts.add_to_event(event, number);
    }

    /// Counts a time.
    pub(crate) fn add_to_histogram(&self, histogram: stats::Histogram, nanoseconds: u64) {
        self.counts.add_to_histogram(histogram, nanoseconds);
    }

    /// Returns a bucket of a histogram.
    pub(crate) fn bucket(&self, histogram: stats::Histogram, bucket: usize) -> u64 {
        self.counts.bucket(histogram, bucket)
    }

    /// Returns how often the L1 data cache was flushed before an entry.
    pub(crate) fn l1d_flushes(&self) -> u64 {
        self.counts.l1d_flushes()
    }

    /// Returns whether the vCPU's thread sleeps, as the vCPU is halted.
    pub(crate) fn is_blocking(&self) -> bool {
        self.blocking.load(Relaxed)
    }

    /// Notes whether the vCPU's thread sleeps.
    fn set_blocking(&self, blocking: bool) {
        self.blocking.store(blocking, Relaxed);
    }

    /// Wakes the vCPU, or has it not halt the next time.
    fn unhalt(&self) {
        self.unhalted.store(true, Relaxed);
        self.doorbell.ring(request::Request::Event);
    }

    /// Returns whether another vCPU has woken this one.
    pub(crate) fn is_unhalted(&self) -> bool {
        self.unhalted.load(Relaxed)
    }

    /// Forgets that another vCPU has woken this one: it runs.
    pub(crate) fn forget_unhalt(&self) {
        self.unhalted.store(false, Relaxed);
    }

    /// Returns how often an event was counted.
    pub(crate) fn events(&self, event: stats::Event) -> u64 {
        self.counts.events(event)
    }

    /// Returns the exits with this basic reason.
    pub(crate) fn exits(&self, reason: u16) -> u64 {
        self.counts.exits(reason)
    }

    /// Returns the exits with any reason.
    pub(crate) fn all_exits(&self) -> u64 {
        self.counts.all_exits()
    }

    /// Sends the vCPU an NMI.
    pub(crate) fn send_nmi(&self) {
        self.nmis.fetch_add(1, Full);
        self.doorbell.ring(request::Request::Event);
    }

    /// Takes the NMIs that were sent.
    fn take_nmis(&self) -> u8 {
        // CAST: At most 2.
        self.nmis.xchg(0, Full).min(2) as u8
    }

    /// Returns the guest's values of lazily switched MSRs, having brought the host's back.
    pub(crate) fn lazy_msrs(&self) -> GuestMsrValues {
        let _preempt = PreemptGuard::new();
        self.host_switch().to_host();
        self.host_switch().guest_msrs()
    }

    /// Changes the guest's values of lazily switched MSRs; the next entry loads them.
    pub(crate) fn update_lazy_msrs(&self, f: impl FnOnce(&mut GuestMsrValues)) {
        let _preempt = PreemptGuard::new();
        self.host_switch().to_host();
        let mut values = self.host_switch().guest_msrs();
        f(&mut values);
        self.host_switch().set_guest_msrs(values);
    }

    /// Reports a VM entry that the CPU refused.
    pub(crate) fn report_failed_entry(&self, vmcs: &CurrentVmcs<'_>, reason: u64) {
        reset::dump(vmcs);
        self.run_page.set_fail_entry(reason, self.cpu());
    }
}
