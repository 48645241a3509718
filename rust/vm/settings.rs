// SPDX-License-Identifier: GPL-2.0

//! What a client may change of a VM while its vCPUs run.

use super::{
    destinations,
    msr_filter::MsrFilter, //
};
use crate::{
    bindings,
    lapic::DirectedEoi,
    vcpu::disabled_exits::DisabledExits, //
};
use core::num::NonZeroU64;
use kernel::{
    new_spinlock,
    prelude::*,
    sync::{
        atomic::{
            Atomic,
            Full,
            Relaxed, //
        },
        Arc,
        SpinLock, //
    }, //
};

/// A behaviour of KVM that is not the architecture's, which a client can turn off.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Quirk {
    /// LINT0 of the vCPU that boots passes the PIC's interrupts on after RESET and INIT.
    Lint0Open,
    /// On AMD's CPUs, CR0.CD and CR0.NW are kept clear; here it is of no effect.
    CdNwCleared,
    /// Where the local APIC's page is not the APIC's, it reads as ones, and the client does not see it.
    LapicHole,
    /// OUT to port 0x7e is over before the client sees it.
    Out7eOver,
    /// MISC_ENABLE does not decide about CPUID's MWAIT bit.
    MiscEnableNoMwait,
    /// Another maker's hypercall instruction is replaced by VMCALL.
    FixHypercall,
    /// MONITOR and MWAIT do nothing, even in a guest that does not have them.
    MwaitNeverFaults,
    /// MSRs that tell features start with all that there are.
    StuffFeatureMsrs,
    /// All memory is write-back, whatever the guest's PAT says.
    IgnoreGuestPat,
}

impl Quirk {
    const fn bit(self) -> u32 {
        match self {
            Self::Lint0Open => bindings::KVM_X86_QUIRK_LINT0_REENABLED,
            Self::CdNwCleared => bindings::KVM_X86_QUIRK_CD_NW_CLEARED,
            Self::LapicHole => bindings::KVM_X86_QUIRK_LAPIC_MMIO_HOLE,
            Self::Out7eOver => bindings::KVM_X86_QUIRK_OUT_7E_INC_RIP,
            Self::MiscEnableNoMwait => bindings::KVM_X86_QUIRK_MISC_ENABLE_NO_MWAIT,
            Self::FixHypercall => bindings::KVM_X86_QUIRK_FIX_HYPERCALL_INSN,
            Self::MwaitNeverFaults => bindings::KVM_X86_QUIRK_MWAIT_NEVER_UD_FAULTS,
            Self::StuffFeatureMsrs => bindings::KVM_X86_QUIRK_STUFF_FEATURE_MSRS,
            Self::IgnoreGuestPat => bindings::KVM_X86_QUIRK_IGNORE_GUEST_PAT,
        }
    }
}

/// Returns the quirks that a client can turn off, as bits.
///
/// `self_snoop` tells whether the CPU keeps its caches coherent when types of memory are mixed.
pub(crate) const fn quirks(self_snoop: bool) -> u32 {
    // Deleting a slot takes out only what is its own, as where SLOT_ZAP_ALL is turned off; what more
    // it may take out, a guest cannot tell.
    let always = bindings::KVM_X86_QUIRK_SLOT_ZAP_ALL
        | Quirk::Lint0Open.bit()
        | Quirk::CdNwCleared.bit()
        | Quirk::LapicHole.bit()
        | Quirk::Out7eOver.bit()
        | Quirk::MiscEnableNoMwait.bit()
        | Quirk::FixHypercall.bit()
        | Quirk::MwaitNeverFaults.bit()
        | Quirk::StuffFeatureMsrs.bit();
    if self_snoop {
        always | Quirk::IgnoreGuestPat.bit()
    } else {
        always
    }
}

pub(super) const X2APIC_API_SUPPRESS: u32 = bindings::KVM_RS_X2APIC_ENABLE_SUPPRESS_EOI_BROADCAST;
pub(super) const X2APIC_API_NO_SUPPRESS: u32 =
    bindings::KVM_RS_X2APIC_DISABLE_SUPPRESS_EOI_BROADCAST;

/// The two flags that are about the suppression of EOI broadcasts.
const SUPPRESSION: u32 = X2APIC_API_SUPPRESS | X2APIC_API_NO_SUPPRESS;

/// The flags of KVM_CAP_X2APIC_API.
pub(crate) const X2APIC_API: u32 = destinations::FORMATS | SUPPRESSION;

/// No time that a client can set.
const NOT_SET: u64 = u64::MAX;

/// What a client may change of a VM while its vCPUs run.
#[pin_data]
pub(crate) struct Settings {
    disabled_quirks: Atomic<u32>,
    /// Failed accesses to MSRs that go to the client, by KVM_MSR_EXIT_REASON_*.
    user_msr_reasons: Atomic<u32>,
    platform_info_hidden: Atomic<u32>,
    exit_on_emulation_failure: Atomic<u32>,
    /// What the client chose of the suppression of EOI broadcasts, as flags of KVM_CAP_X2APIC_API.
    suppression: Atomic<u32>,
    /// Nanoseconds of an undivided count of the local APICs' timers; not 0.
    bus_cycle_ns: Atomic<u64>,
    /// The longest time that halted vCPUs poll, in nanoseconds, or [`NOT_SET`].
    halt_poll_ns: Atomic<u64>,
    /// Exits that the client does without, as KVM_X86_DISABLE_EXITS_*.
    disabled_exits: Atomic<u32>,
    /// Hypercalls that go to the client, a bit for each number.
    user_hypercalls: Atomic<u32>,
    #[pin]
    msr_filter: SpinLock<Option<Arc<MsrFilter>>>,
}

impl Settings {
    /// Returns an initialiser for those of a new VM.
    pub(super) fn new() -> impl PinInit<Self> {
        pin_init!(Self {
            disabled_quirks: Atomic::new(0),
            user_msr_reasons: Atomic::new(0),
            platform_info_hidden: Atomic::new(0),
            exit_on_emulation_failure: Atomic::new(0),
            suppression: Atomic::new(0),
            disabled_exits: Atomic::new(0),
            bus_cycle_ns: Atomic::new(1),
            halt_poll_ns: Atomic::new(NOT_SET),
            user_hypercalls: Atomic::new(0),
            msr_filter <- new_spinlock!(None),
        })
    }

    /// Returns whether the VM has the quirk.
    pub(crate) fn has(&self, quirk: Quirk) -> bool {
        self.disabled_quirks.load(Relaxed) & quirk.bit() == 0
    }

    /// Turns quirks off, for good.
    pub(super) fn disable_quirks(&self, quirks: u32) {
        let mut old = self.disabled_quirks.load(Relaxed);
        while let Err(now) = self.disabled_quirks.cmpxchg(old, old | quirks, Full) {
            old = now;
        }
    }

    /// Returns whether a failed access to an MSR goes to the client for this KVM_MSR_EXIT_REASON_*.
    pub(crate) fn asks_user(&self, reason: u32) -> bool {
        self.user_msr_reasons.load(Relaxed) & reason != 0
    }

    /// Sets which failed accesses to MSRs go to the client.
    pub(crate) fn set_user_msr_reasons(&self, reasons: u32) {
        self.user_msr_reasons.store(reasons, Relaxed);
    }

    /// Returns whether guests may read PLATFORM_INFO.
    pub(crate) fn platform_info_readable(&self) -> bool {
        self.platform_info_hidden.load(Relaxed) == 0
    }

    /// Sets whether guests may read PLATFORM_INFO.
    pub(crate) fn set_platform_info_readable(&self, readable: bool) {
        self.platform_info_hidden
            .store(u32::from(!readable), Relaxed);
    }

    /// Returns whether the client is told of each instruction that cannot be emulated.
    pub(crate) fn exits_on_emulation_failure(&self) -> bool {
        self.exit_on_emulation_failure.load(Relaxed) != 0
    }

    /// Sets whether the client is told of each instruction that cannot be emulated.
    pub(crate) fn set_exit_on_emulation_failure(&self, on: bool) {
        self.exit_on_emulation_failure.store(u32::from(on), Relaxed);
    }

    /// Takes what KVM_CAP_X2APIC_API says of the suppression of EOI broadcasts, if it says something.
    pub(super) fn choose_suppression(&self, flags: u32) {
        if flags & SUPPRESSION != 0 {
            self.suppression.store(flags & SUPPRESSION, Relaxed);
        }
    }

    /// Returns what the client chose of the suppression of EOI broadcasts, if it did.
    pub(crate) fn directed_eoi(&self) -> Option<DirectedEoi> {
        match self.suppression.load(Relaxed) {
            X2APIC_API_SUPPRESS => Some(DirectedEoi::Honoured),
            X2APIC_API_NO_SUPPRESS => Some(DirectedEoi::Hidden),
            _ => None,
        }
    }

    /// Returns the exits that the client does without.
    pub(crate) fn disabled_exits(&self) -> DisabledExits {
        DisabledExits::new(self.disabled_exits.load(Relaxed))
    }

    /// Adds exits that the client does without, for new vCPUs. To be called by one thread at a time.
    pub(super) fn disable_exits(&self, exits: u32) {
        let old = self.disabled_exits.load(Relaxed);
        self.disabled_exits.store(old | exits, Relaxed);
    }

    /// Returns the longest time that halted vCPUs poll, in nanoseconds, if the client set it.
    pub(crate) fn halt_poll_ns(&self) -> Option<u32> {
        u32::try_from(self.halt_poll_ns.load(Relaxed)).ok()
    }

    /// Sets the longest time that halted vCPUs poll, in nanoseconds.
    pub(crate) fn set_halt_poll_ns(&self, ns: u32) {
        self.halt_poll_ns.store(u64::from(ns), Relaxed);
    }

    /// Returns the nanoseconds of an undivided count of the local APICs' timers.
    pub(crate) fn bus_cycle_ns(&self) -> NonZeroU64 {
        NonZeroU64::new(self.bus_cycle_ns.load(Relaxed)).unwrap_or(NonZeroU64::MIN)
    }

    /// Sets the nanoseconds of an undivided count of the local APICs' timers, for new vCPUs.
    pub(super) fn set_bus_cycle_ns(&self, ns: NonZeroU64) {
        self.bus_cycle_ns.store(ns.get(), Relaxed);
    }

    /// Returns whether this hypercall goes to the client.
    pub(crate) fn asks_user_for_hypercall(&self, number: u32) -> bool {
        self.user_hypercalls.load(Relaxed) & 1u32.checked_shl(number).unwrap_or(0) != 0
    }

    /// Sets which hypercalls go to the client, a bit for each number.
    pub(crate) fn set_user_hypercalls(&self, hypercalls: u32) {
        self.user_hypercalls.store(hypercalls, Relaxed);
    }

    /// Returns the MSR filter.
    pub(crate) fn msr_filter(&self) -> Option<Arc<MsrFilter>> {
        self.msr_filter.lock().clone()
    }

    /// Replaces the MSR filter; vCPUs must be told.
    pub(super) fn set_msr_filter(&self, filter: Arc<MsrFilter>) {
        let old = self.msr_filter.lock().replace(filter);
        // Dropped outside the spinlock.
        drop(old);
    }
}
