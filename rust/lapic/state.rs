// SPDX-License-Identifier: GPL-2.0

//! The state of a local APIC, its configuration and its resets.

use core::num::NonZeroU64;

use super::{
    access::GeneralProtection,
    base::{
        self,
        BaseChange,
        Mode, //
    },
    message::DeliveryMode,
    page::{
        ApicPage,
        Page, //
    },
    posted::PostedInterrupts,
    priority::Priorities,
    register::{
        Lvt,
        Options,
        Register,
        DFR_FLAT,
        LVT_MASKED,
        SVR_ENABLED,
        VERSION_DIRECTED_EOI,
        VERSION_NUMBER, //
    },
    timer::{
        Timer,
        TimerMode, //
    },
    vectors::Vectors,
    word::{
        LongWord,
        Word, //
    },
};

/// Whether the guest can suppress the broadcast of EOIs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum DirectedEoi {
    /// It is not told that it could.
    Hidden,
    /// It is told so, but EOIs are broadcast all the same, as KVM has long done.
    Ignored,
    /// It is told so, and it is done.
    Honoured,
}

/// What CPUID and the VM make of a local APIC.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Config {
    /// The vCPU is the one that boots.
    pub(crate) bootstrap: bool,
    /// CPUID has x2APIC.
    pub(crate) x2apic: bool,
    /// CPUID has TSC-deadline mode.
    pub(crate) tsc_deadline: bool,
    /// MCG_CAP has corrected-machine-check interrupts.
    pub(crate) cmci: bool,
    /// Physical-address width of the guest in bits.
    pub(crate) physical_bits: u8,
    /// Suppression of EOI broadcasts.
    pub(crate) directed_eoi: DirectedEoi,
    /// LINT0 of the bootstrap vCPU passes the PIC's interrupts on after reset, a quirk of KVM.
    pub(crate) lint0_open: bool,
    /// Nanoseconds that one undivided count of the timer takes.
    pub(crate) bus_cycle_ns: NonZeroU64,
}

impl Config {
    /// Returns what the configuration adds to the registers' bits.
    pub(crate) const fn options(&self) -> Options {
        Options {
            directed_eoi: self.x2apic && !matches!(self.directed_eoi, DirectedEoi::Hidden),
            tsc_deadline: self.tsc_deadline,
        }
    }

    /// Returns the entries of the local vector table.
    pub(crate) fn lvt(&self) -> impl Iterator<Item = Lvt> {
        let cmci = self.cmci;
        Lvt::ALL
            .into_iter()
            .filter(move |&entry| cmci || entry != Lvt::Cmci)
    }

    /// Returns the version register.
    fn version(&self) -> u32 {
        let last_entry = if self.cmci { 6 } else { 5 };
        let directed = if self.options().directed_eoi {
            VERSION_DIRECTED_EOI
        } else {
            0
        };
        VERSION_NUMBER | last_entry << 16 | directed
    }
}

impl Default for Config {
    /// Returns what KVM starts with: x2APIC and TSC deadline, a 1 GHz bus, 52-bit addresses.
    fn default() -> Self {
        Self {
            bootstrap: false,
            x2apic: true,
            tsc_deadline: true,
            cmci: false,
            physical_bits: 52,
            directed_eoi: DirectedEoi::Ignored,
            lint0_open: true,
            bus_cycle_ns: NonZeroU64::MIN,
        }
    }
}

/// The part of a local APIC that only the thread which holds the vCPU touches.
#[derive(Debug)]
pub(crate) struct Owned {
    pub(super) config: Config,
    pub(super) timer: Timer,
}

impl Owned {
    /// Returns the owner's part of a local APIC that is to be reset before its first use.
    pub(crate) const fn new(config: Config) -> Self {
        Self {
            config,
            timer: Timer::new(config.bus_cycle_ns),
        }
    }

    /// Returns the configuration.
    pub(crate) const fn config(&self) -> &Config {
        &self.config
    }

    /// Sets [`Config::lint0_open`], which the next reset looks at.
    pub(crate) fn set_lint0_open(&mut self, open: bool) {
        self.config.lint0_open = open;
    }

    /// Returns the timer.
    pub(crate) const fn timer(&self) -> &Timer {
        &self.timer
    }
}

/// What a reset is caused by.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Reset {
    /// Power-up: the base MSR and the ID are reset too.
    PowerUp,
    /// INIT: mode and ID stay.
    Init,
}

/// A local APIC, as all threads see it.
pub(crate) struct Lapic<P: Page> {
    page: P,
    /// The APIC ID given by the VMM; the x2APIC ID.
    id: u32,
    /// The base MSR.
    base: LongWord,
    /// Which registers of IRR hold a vector, see [`Vectors`].
    requested: Word,
    /// Which registers of ISR hold a vector.
    in_service: Word,
    /// Errors that the next write to ESR makes readable.
    pub(super) errors: Word,
    /// INIT and start-up, see [`Self::take_init`].
    pub(super) signals: Word,
    /// See [`Self::take_status_stale`].
    pub(super) status_stale: Word,
}

impl<P: Page> Lapic<P> {
    /// Returns a local APIC over `page`, which is zeroed, to be reset before its first use.
    pub(crate) const fn new(page: P, id: u32) -> Self {
        Self {
            page,
            id,
            base: LongWord::new(base::after_reset(false)),
            requested: Word::new(0),
            in_service: Word::new(0),
            errors: Word::new(0),
            signals: Word::new(0),
            status_stale: Word::new(1),
        }
    }

    /// Returns what backs the registers.
    pub(crate) const fn backing(&self) -> &P {
        &self.page
    }

    /// Returns the registers.
    #[inline]
    pub(super) fn page(&self) -> &ApicPage {
        self.page.page()
    }

    /// Returns where requests are posted, if they are.
    #[inline]
    pub(super) fn posted(&self) -> Option<&PostedInterrupts> {
        self.page.posted()
    }

    /// Forgets what is posted: IRR gets a new content.
    pub(super) fn clear_posted(&self) {
        if let Some(posted) = self.posted() {
            posted.clear();
        }
        self.status_stale.set(1);
    }

    /// Returns the x2APIC ID, which the VMM gave the vCPU.
    pub(crate) const fn id(&self) -> u32 {
        self.id
    }

    /// Returns the ID of 8 bits that xAPIC mode uses; a guest may have changed it.
    pub(crate) fn xapic_id(&self) -> u8 {
        // CAST: eight bits are left.
        (self.page().get(Register::ID) >> 24) as u8
    }

    /// Returns the base MSR.
    #[inline]
    pub(crate) fn base(&self) -> u64 {
        self.base.get()
    }

    /// Returns the guest-physical address of the registers in xAPIC mode.
    pub(crate) fn address(&self) -> u64 {
        base::address(self.base())
    }

    /// Returns the mode.
    #[inline]
    pub(crate) fn mode(&self) -> Mode {
        Mode::of(self.base()).unwrap_or(Mode::Disabled)
    }

    /// Returns whether the base MSR enables the APIC.
    #[inline]
    pub(crate) fn is_enabled(&self) -> bool {
        self.base() & base::ENABLED != 0
    }

    /// Returns whether both the base MSR and software enable the APIC.
    #[inline]
    pub(crate) fn is_software_enabled(&self) -> bool {
        self.is_enabled() && self.page().get(Register::SVR) & SVR_ENABLED != 0
    }

    /// Returns the vector that software chose for spurious interrupts.
    pub(crate) fn spurious_vector(&self) -> u8 {
        // CAST: the vector is the low byte.
        self.page().get(Register::SVR) as u8
    }

    /// Returns the requested vectors.
    #[inline]
    pub(super) fn irr(&self) -> Vectors<'_> {
        Vectors::new(self.page(), Register::IRR, &self.requested)
    }

    /// Returns the vectors in service.
    #[inline]
    pub(super) fn isr(&self) -> Vectors<'_> {
        Vectors::new(self.page(), Register::ISR, &self.in_service)
    }

    /// Returns the task priority.
    #[inline]
    pub(crate) fn tpr(&self) -> u8 {
        // CAST: the priority is the low byte.
        self.page().get(Register::TPR) as u8
    }

    /// Sets the task priority; what that lets through is seen before the next VM entry.
    pub(crate) fn set_tpr(&self, tpr: u8) {
        self.page().set(Register::TPR, u32::from(tpr));
    }

    /// Returns the task priority as CR8 has it, its class.
    #[inline]
    pub(crate) fn cr8(&self) -> u8 {
        self.tpr() >> 4
    }

    /// Returns whether an interrupt can be delivered after `class` was written to CR8.
    #[inline]
    pub(crate) fn set_cr8(&self, class: u8) -> bool {
        self.page().set(Register::TPR, u32::from(class & 0xf) << 4);
        self.next_interrupt().is_some()
    }

    /// Returns task priority, service and requests, on which each decision rests.
    #[inline]
    pub(crate) fn priorities(&self) -> Priorities {
        Priorities {
            tpr: self.tpr(),
            isr: self.isr().highest(),
            irr: self.irr().highest(),
        }
    }

    /// Returns the TPR threshold for the next VM entry.
    pub(crate) fn tpr_threshold(&self) -> u8 {
        if self.is_enabled() {
            self.priorities().tpr_threshold()
        } else {
            0
        }
    }

    /// Returns what a write of `value` to the base MSR did, or the fault it raises.
    ///
    /// An address other than the default is kept, though the caller may not serve it.
    pub(crate) fn set_base(
        &self,
        owned: &mut Owned,
        value: u64,
        from_host: bool,
    ) -> Result<BaseChange, GeneralProtection> {
        let config = &owned.config;
        let change = base::change(
            self.base(),
            value,
            config.x2apic,
            config.physical_bits,
            from_host,
        )?;
        self.apply_base(value, change);
        Ok(change)
    }

    /// Stores the base MSR and the IDs that its mode implies.
    fn apply_base(&self, value: u64, change: BaseChange) {
        self.base.set(value);
        match (change.from, change.to) {
            (from, Mode::X2apic) if from != Mode::X2apic => {
                self.page().set(Register::ID, self.id);
                self.page().set(Register::LDR, x2apic_logical_id(self.id));
                self.page().set_icr_upper(0);
            }
            (from, Mode::Xapic) if from != Mode::Xapic => self.set_xapic_id(),
            _ => {}
        }
    }

    /// Stores the ID of 8 bits.
    fn set_xapic_id(&self) {
        self.page().set(Register::ID, self.id << 24);
    }

    /// Sets the configuration and what follows from it in the registers.
    pub(crate) fn configure(&self, owned: &mut Owned, config: Config) {
        if config.cmci && !owned.config.cmci {
            self.page().set(Register::LVT_CMCI, LVT_MASKED);
        }
        owned.config = config;
        owned.timer.set_bus_cycle(config.bus_cycle_ns);
        self.page().set(Register::VERSION, config.version());
    }

    /// Brings the registers to their state after `cause`; the host timer is to be cancelled.
    pub(crate) fn reset(&self, owned: &mut Owned, cause: Reset) {
        let page = self.page();
        if cause == Reset::PowerUp {
            self.base.set(base::after_reset(owned.config.bootstrap));
            self.set_xapic_id();
            self.signals.set(0);
        }
        page.set(Register::VERSION, owned.config.version());
        for entry in owned.config.lvt() {
            page.set(entry.register(), LVT_MASKED);
        }
        if owned.config.bootstrap && owned.config.lint0_open {
            page.set(Register::LVT_LINT0, 7 << 8);
        }
        page.set(Register::DFR, DFR_FLAT);
        page.set(Register::SVR, 0xff);
        if self.mode() != Mode::X2apic {
            page.set(Register::LDR, 0);
        }
        let zeroed = [
            Register::TPR,
            Register::PPR,
            Register::ESR,
            Register::ICR,
            Register::ICR2,
            Register::TIMER_DIVIDE,
            Register::TIMER_INITIAL,
            Register::TIMER_CURRENT,
        ];
        for register in zeroed {
            page.set(register, 0);
        }
        page.set_icr_upper(0);
        self.errors.set(0);
        self.clear_posted();
        self.irr().clear();
        self.isr().clear();
        for index in 0..8 {
            page.word(Register::TMR.number().wrapping_add(index), 0)
                .set(0);
        }
        owned.timer.stop();
        owned.timer.set_mode(TimerMode::OneShot);
        owned.timer.load_divide(0);
    }

    /// Returns whether LINT0 makes NMIs of what comes there.
    pub(crate) fn lint0_is_nmi(&self) -> bool {
        let entry = self.page().get(Register::LVT_LINT0);
        entry & LVT_MASKED == 0 && DeliveryMode::from_bits_8(entry) == DeliveryMode::Nmi
    }

    /// Returns whether the PIC's interrupts reach the vCPU: LINT0 passes them, or there is no APIC.
    pub(crate) fn accepts_pic(&self) -> bool {
        let entry = self.page().get(Register::LVT_LINT0);
        !self.is_enabled()
            || entry & LVT_MASKED == 0 && DeliveryMode::from_bits_8(entry) == DeliveryMode::ExtInt
    }
}

/// Returns the logical ID that belongs to an x2APIC ID: cluster of 16, and bit within it.
pub(crate) const fn x2apic_logical_id(id: u32) -> u32 {
    (id >> 4) << 16 | 1 << (id & 0xf)
}
