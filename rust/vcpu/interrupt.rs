// SPDX-License-Identifier: GPL-2.0

//! A vCPU's interrupts: its local APIC, and what is done with what that asks for.
//!
//! [`crate::lapic`] says what is to be done and does nothing; here it is done. A VM without interrupt
//! controllers in the kernel has no [`InterruptController`]: then the client has the local APICs, and
//! all that is left is the base MSR, CR8 and the one interrupt that the client wants injected.
//!
//! - `access`: the guest's and the client's accesses to the APIC.
//! - `deliver`: messages from vCPUs and devices to vCPUs.
//! - `timer`: the APIC's timer on the host's.
//! - `pv_eoi`: ends of interrupts without an exit.
//! - `vapic`: the task priority of guests that their clients patch.
//! - `virtualized`: what the processor does of all that by itself.
//! - `apicv`: the same where it does nearly all.
//!
//! # Who looks when
//!
//! The vCPU's thread looks for interrupts before each VM entry, so what it does itself needs no
//! request. Others post to the APIC, then ring with [`Request::Event`]; the timer rings with
//! [`Request::Timer`], and all else is done by the vCPU's thread when it takes that request.
//!
//! Nothing here sleeps, so that exits can be handled with preemption off.
//!
//! [`Request::Event`]: super::request::Request::Event
//! [`Request::Timer`]: super::request::Request::Timer

mod access;
mod apicv;
pub(crate) mod deliver;
pub(crate) mod pv_eoi;
mod timer;
pub(crate) mod vapic;
mod virtualized;

pub(super) use self::virtualized::EOI_OFFSET;

use self::timer::Ring;
use super::{
    request::Doorbell,
    state::State,
    Vcpu, //
};
use crate::{
    lapic::{
        self,
        ApicPage,
        Config,
        DirectedEoi,
        Lapic,
        Page,
        PostedInterrupts,
        Reset, //
    },
    linux::{
        page::physical_address,
        timer::HostTimer, //
    },
    vm::{
        irq::Chips,
        settings::{
            Quirk,
            Settings, //
        },
        Vm, //
    },
    x86::{
        addr::Hpa,
        control_regs::Rflags,
        cpuid::{
            Feature,
            GuestFeatures, //
        }, //
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

/// The registers of a local APIC in a page of their own: the virtual-APIC page of the VMCS, in which the
/// processor reads and writes the TPR, or more, while the guest runs.
pub(crate) struct RegisterPage {
    registers: KBox<ApicPage>,
    /// Where requests are posted, if the vCPU can have APICv.
    posted: Option<KBox<PostedInterrupts>>,
}

impl RegisterPage {
    /// Allocates registers that are all zero.
    fn new(posted: bool) -> Result<Self> {
        Ok(Self {
            registers: KBox::new(ApicPage::new(), GFP_KERNEL_ACCOUNT)?,
            posted: if posted {
                Some(KBox::new(PostedInterrupts::new(), GFP_KERNEL_ACCOUNT)?)
            } else {
                None
            },
        })
    }
}

impl Page for RegisterPage {
    #[inline]
    fn page(&self) -> &ApicPage {
        &self.registers
    }

    #[inline]
    fn posted(&self) -> Option<&PostedInterrupts> {
        self.posted.as_deref()
    }
}

/// Where the processor finds a vCPU's local APIC.
#[derive(Clone, Copy)]
pub(crate) struct ApicAddresses {
    /// The virtual-APIC page.
    pub(crate) registers: Hpa,
    /// The posted-interrupt descriptor, if the vCPU can have APICv.
    pub(crate) posted: Option<Hpa>,
}

/// The interrupt controller of a vCPU, as all threads see it.
#[pin_data]
pub(crate) struct InterruptController {
    lapic: Lapic<RegisterPage>,
    #[pin]
    timer: HostTimer<Ring>,
    /// The VM's other controllers, if they are in the kernel too.
    chips: Option<Arc<Chips>>,
    /// The vector of the real-time clock's interrupt that the vCPU has yet to end, plus 1, or 0.
    rtc: Atomic<u32>,
}

impl InterruptController {
    /// Returns the controller of the vCPU with the APIC ID `id`, whose timer rings `doorbell`. With
    /// `posted` it can have APICv.
    ///
    /// [`Vcpu::reset_controller`] makes it ready for use.
    pub(crate) fn new(
        id: u32,
        doorbell: Arc<Doorbell>,
        chips: Option<Arc<Chips>>,
        posted: bool,
    ) -> Result<Arc<Self>> {
        Arc::pin_init(
            try_pin_init!(Self {
                lapic: Lapic::new(RegisterPage::new(posted)?, id),
                timer <- HostTimer::new(Ring::new(doorbell)),
                chips,
                rtc: Atomic::new(0),
            }),
            GFP_KERNEL_ACCOUNT,
        )
    }

    /// Returns where the local APIC's registers and its posted-interrupt descriptor are, for the VMCS.
    pub(crate) fn addresses(&self) -> ApicAddresses {
        let pages = self.lapic.backing();
        ApicAddresses {
            registers: physical_address(&raw const *pages.registers),
            posted: pages
                .posted
                .as_ref()
                .map(|posted| physical_address(&raw const **posted)),
        }
    }

    /// Returns whether interrupts are posted to the vCPU, so that it can have APICv.
    pub(crate) fn posts(&self) -> bool {
        self.lapic.backing().posted.is_some()
    }

    /// Returns the local APIC.
    #[inline]
    pub(crate) fn lapic(&self) -> &Lapic<RegisterPage> {
        &self.lapic
    }

    /// Returns whether the PICs in the kernel have an interrupt.
    #[inline]
    fn pic_asks(&self) -> bool {
        self.chips.as_ref().is_some_and(|chips| chips.pic_asks())
    }

    /// Notes the vector of the real-time clock's interrupt that the vCPU has yet to end, if any.
    pub(crate) fn expect_rtc_end(&self, vector: Option<u8>) {
        let value = vector.map_or(0, |vector| u32::from(vector) + 1);
        self.rtc.store(value, Relaxed);
    }

    /// Returns that vector.
    pub(crate) fn expected_rtc_end(&self) -> Option<u8> {
        // CAST: A vector, as it was noted.
        self.rtc
            .load(Relaxed)
            .checked_sub(1)
            .map(|vector| vector as u8)
    }

    /// Returns whether `vector`, which ended, is that of the real-time clock's interrupt. The I/O APIC
    /// is locked.
    pub(crate) fn ends_rtc(&self, vector: u8) -> bool {
        let ends = self.rtc.load(Relaxed) == u32::from(vector) + 1;
        if ends {
            self.rtc.store(0, Relaxed);
        }
        ends
    }
}

/// INIT and startup IPI, as [`Vcpu::accept_init_and_startup`] found them.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub(crate) struct Signals {
    /// INIT came; it is to be dealt with first.
    pub(crate) init: bool,
    /// A startup IPI with this vector came, after INIT if that came too.
    pub(crate) startup: Option<u8>,
}

impl Vcpu {
    /// Brings the local APIC, or what there is of it, to its state after power-up.
    ///
    /// `bootstrap` tells whether the vCPU is the one that boots. INIT resets less, see
    /// [`Vcpu::accept_init_and_startup`].
    pub(crate) fn reset_controller(&self, state: &mut State, bootstrap: bool, settings: &Settings) {
        let Some(controller) = self.controller() else {
            state.apic_base = lapic::base_after_reset(bootstrap);
            return;
        };
        let config = Config {
            bootstrap,
            lint0_open: settings.has(Quirk::Lint0Open),
            bus_cycle_ns: settings.bus_cycle_ns(),
            // The I/O APIC in the kernel has no register for ends.
            directed_eoi: if self.has_pic() {
                DirectedEoi::Hidden
            } else {
                DirectedEoi::Ignored
            },
            ..Config::default()
        };
        let mut owned = lapic::Owned::new(follow(config, &state.features, settings));
        controller.lapic.reset(&mut owned, Reset::PowerUp);
        controller.timer.cancel();
        state.lapic = Some(owned);
    }

    /// Tells the local APIC what the guest's new CPUID, with these `features`, lets it have.
    pub(crate) fn configure_controller(
        &self,
        state: &mut State,
        features: &GuestFeatures,
        settings: &Settings,
    ) {
        if let (Some(controller), Some(owned)) = (self.controller(), state.lapic.as_mut()) {
            let config = follow(*owned.config(), features, settings);
            controller.lapic.configure(owned, config);
        }
    }

    /// Gives the local APIC an entry for corrected machine checks if the guest's MCG_CAP tells of it.
    pub(crate) fn follow_machine_check(&self, state: &mut State) {
        let cmci = state.msrs.machine_check_mut().has_interrupts();
        if let (Some(controller), Some(owned)) = (self.controller(), state.lapic.as_mut()) {
            let config = Config {
                cmci,
                ..*owned.config()
            };
            controller.lapic.configure(owned, config);
        }
    }

    /// Returns whether an interrupt may be waiting, deliverable or not; but for the client's own.
    ///
    /// If not, and [`Events::interrupt`](super::events::Events::interrupt) holds none,
    /// [`Vcpu::has_interrupt`] is false.
    #[inline]
    pub(crate) fn may_have_interrupt(&self) -> bool {
        self.controller().is_some_and(|controller| {
            controller.lapic.highest_request().is_some() || controller.pic_asks()
        })
    }

    /// Returns whether an interrupt of the PICs, or of the client's own interrupt controller, is to be
    /// delivered as soon as the guest takes interrupts. These come before those of the local APIC.
    pub(crate) fn has_external_interrupt(&self, state: &State) -> bool {
        self.has_client_interrupt(state)
            || self
                .controller()
                .is_some_and(|controller| controller.pic_asks() && controller.lapic.accepts_pic())
    }

    /// Returns the vector of the interrupt that the local APIC is to deliver next.
    pub(crate) fn next_interrupt(&self) -> Option<u8> {
        self.controller()?.lapic.next_interrupt()
    }

    /// Has the vector that [`Self::next_interrupt`] returned count as delivered.
    pub(crate) fn acknowledge(&self, vector: u8) {
        if let Some(controller) = self.controller() {
            controller.lapic.acknowledge(vector);
        }
    }

    /// Returns whether an interrupt is to be delivered as soon as the guest takes interrupts.
    pub(crate) fn has_interrupt(&self, state: &State) -> bool {
        self.has_external_interrupt(state) || self.next_interrupt().is_some()
    }

    /// Returns the vector of the interrupt of which [`Self::has_external_interrupt`] has told, which counts
    /// as delivered then; `None` if it went away.
    pub(crate) fn take_external_interrupt(&self, vm: &Vm, state: &mut State) -> Option<u8> {
        if self.has_client_interrupt(state) {
            state.events.interrupt.take()
        } else {
            vm.irqs().and_then(|irqs| irqs.take_pic_interrupt())
        }
    }

    /// Returns whether the client's own interrupt controller has an interrupt, and the guest's local
    /// APIC lets it through.
    fn has_client_interrupt(&self, state: &State) -> bool {
        state.events.interrupt.is_some() && self.accepts_client_interrupt()
    }

    /// Returns whether interrupts of the client's own interrupt controller, which is wired to LINT0,
    /// get through the local APIC.
    pub(crate) fn accepts_client_interrupt(&self) -> bool {
        self.controller()
            .is_none_or(|controller| controller.chips.is_none() && controller.lapic.accepts_pic())
    }

    /// Returns whether the PICs are in the kernel.
    pub(crate) fn has_pic(&self) -> bool {
        self.controller()
            .is_some_and(|controller| controller.chips.is_some())
    }

    /// Returns the class below which a write to the TPR has to exit, 0 for none.
    ///
    /// Where the guest's TPR is elsewhere, it knows by itself when to exit; see [`vapic`].
    pub(crate) fn tpr_threshold(&self, state: &State) -> u8 {
        self.controller()
            .filter(|_| !state.vapic.is_used())
            .map_or(0, |controller| controller.lapic.tpr_threshold())
    }

    /// Returns the task priority as CR8 has it.
    pub(crate) fn cr8(&self, state: &State) -> u8 {
        match self.controller() {
            Some(controller) => controller.lapic.cr8(),
            None => state.cr8,
        }
    }

    /// Sets the task priority, 0 to 15.
    pub(crate) fn set_cr8(&self, state: &mut State, class: u8) {
        match self.controller() {
            // What that unmasks is seen before the next VM entry.
            Some(controller) => {
                controller.lapic.set_cr8(class);
            }
            None => state.cr8 = class,
        }
    }

    /// Takes INIT and startup IPI, if they came, and resets the local APIC on INIT.
    ///
    /// The rest of what they do is the caller's: the vCPU's reset, and that a startup IPI counts only
    /// while the vCPU waits for it.
    pub(crate) fn accept_init_and_startup(&self, vm: &Vm, state: &mut State) -> Signals {
        let (Some(controller), Some(owned)) = (self.controller(), state.lapic.as_mut()) else {
            return Signals::default();
        };
        let lapic = &controller.lapic;
        if !lapic.is_signalled() {
            return Signals::default();
        }
        let init = lapic.take_init();
        if init {
            owned.set_lint0_open(vm.settings().has(Quirk::Lint0Open));
            lapic.reset(owned, Reset::Init);
            state.vapic.reset();
            self.recheck_apicv(state);
            state.pv_eoi.reset();
            self.stop_timer(state);
        }
        Signals {
            init,
            startup: lapic.take_startup(),
        }
    }

    /// Returns whether a halted vCPU has to go on: for an interrupt that the guest takes, INIT or a
    /// startup IPI. NMIs are the caller's to judge.
    ///
    /// RFLAGS must have been fetched since the last exit.
    pub(crate) fn is_wakeable(&self, state: &State) -> bool {
        self.take_posted();
        let takes_interrupts = state.fetched_rflags() & Rflags::IF.value() != 0;
        takes_interrupts && self.has_interrupt(state)
            || self
                .controller()
                .is_some_and(|controller| controller.lapic.is_signalled())
    }
}

/// Returns `config` with what CPUID and the client have a say in.
fn follow(config: Config, features: &GuestFeatures, settings: &Settings) -> Config {
    Config {
        directed_eoi: settings.directed_eoi().unwrap_or(config.directed_eoi),
        x2apic: features.has(Feature::X2APIC),
        tsc_deadline: features.has(Feature::TSC_DEADLINE),
        physical_bits: features.physical_bits,
        ..config
    }
}
