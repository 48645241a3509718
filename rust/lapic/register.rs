// SPDX-License-Identifier: GPL-2.0

//! The registers by name: where each lies, which mode has it, and which of its bits a guest sets.

use super::base::Mode;

/// A register, or one 32-bit part of a larger one, named by its slot (offset / 16).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Register(u8);

impl Register {
    /// APIC ID; in bits 31:24 unless in x2APIC mode.
    pub(crate) const ID: Self = Self::at(0x020);
    /// Version, number of LVT entries, and whether EOI broadcasts can be suppressed.
    pub(crate) const VERSION: Self = Self::at(0x030);
    /// Task priority.
    pub(crate) const TPR: Self = Self::at(0x080);
    /// Arbitration priority; reads as zero.
    pub(crate) const APR: Self = Self::at(0x090);
    /// Processor priority; computed from TPR and ISR when it is read.
    pub(crate) const PPR: Self = Self::at(0x0a0);
    /// End of interrupt.
    pub(crate) const EOI: Self = Self::at(0x0b0);
    /// Logical destination; derived from the ID in x2APIC mode.
    pub(crate) const LDR: Self = Self::at(0x0d0);
    /// Destination format: flat or cluster.
    pub(crate) const DFR: Self = Self::at(0x0e0);
    /// Spurious-interrupt vector and software enable.
    pub(crate) const SVR: Self = Self::at(0x0f0);
    /// First of eight registers of vectors in service.
    pub(crate) const ISR: Self = Self::at(0x100);
    /// First of eight registers of trigger modes (set: level).
    pub(crate) const TMR: Self = Self::at(0x180);
    /// First of eight registers of requested vectors.
    pub(crate) const IRR: Self = Self::at(0x200);
    /// Error status.
    pub(crate) const ESR: Self = Self::at(0x280);
    /// LVT: corrected machine check.
    pub(crate) const LVT_CMCI: Self = Self::at(0x2f0);
    /// Interrupt command, lower half; all 64 bits in x2APIC mode.
    pub(crate) const ICR: Self = Self::at(0x300);
    /// Interrupt command, upper half, in xAPIC mode.
    pub(crate) const ICR2: Self = Self::at(0x310);
    /// LVT: timer.
    pub(crate) const LVT_TIMER: Self = Self::at(0x320);
    /// LVT: thermal sensor.
    pub(crate) const LVT_THERMAL: Self = Self::at(0x330);
    /// LVT: performance-monitoring counters.
    pub(crate) const LVT_PERFORMANCE: Self = Self::at(0x340);
    /// LVT: pin LINT0.
    pub(crate) const LVT_LINT0: Self = Self::at(0x350);
    /// LVT: pin LINT1.
    pub(crate) const LVT_LINT1: Self = Self::at(0x360);
    /// LVT: error.
    pub(crate) const LVT_ERROR: Self = Self::at(0x370);
    /// Timer: initial count.
    pub(crate) const TIMER_INITIAL: Self = Self::at(0x380);
    /// Timer: current count; computed from the time when it is read.
    pub(crate) const TIMER_CURRENT: Self = Self::at(0x390);
    /// Timer: divide configuration.
    pub(crate) const TIMER_DIVIDE: Self = Self::at(0x3e0);
    /// Self-IPI, in x2APIC mode only.
    pub(crate) const SELF_IPI: Self = Self::at(0x3f0);

    /// Returns the register at byte `offset` of the page.
    const fn at(offset: u16) -> Self {
        // CAST: offsets are below 0x1000.
        Self((offset >> 4) as u8)
    }

    /// Returns the register in slot `number`.
    pub(crate) const fn from_number(number: u8) -> Self {
        Self(number)
    }

    /// Returns the number of the slot, which is also the distance of the MSR from 0x800.
    #[inline]
    pub(crate) const fn number(self) -> u8 {
        self.0
    }

    /// Returns the byte offset in the page.
    pub(crate) const fn offset(self) -> u16 {
        // CAST: widens; `u16::from` is not const.
        (self.0 as u16) << 4
    }

    /// Returns whether what an access to the register does depends on the time: the timer's counts.
    #[inline]
    pub(crate) const fn depends_on_time(self) -> bool {
        matches!(
            self,
            Self::TIMER_INITIAL | Self::TIMER_CURRENT | Self::TIMER_DIVIDE
        )
    }

    /// Returns what a guest may do with the register in `mode`.
    pub(crate) const fn access(self, mode: Mode, cmci: bool) -> Access {
        let x2apic = matches!(mode, Mode::X2apic);
        match self {
            Self::ID | Self::LDR if x2apic => Access::Read,
            Self::DFR | Self::ICR2 | Self::APR if x2apic => Access::None,
            Self::SELF_IPI if !x2apic => Access::None,
            Self::LVT_CMCI if !cmci => Access::None,
            Self::VERSION | Self::APR | Self::PPR | Self::TIMER_CURRENT => Access::Read,
            // ISR, TMR and IRR are eight slots each and lie side by side.
            Self(0x10..=0x27) => Access::Read,
            Self::EOI | Self::SELF_IPI => Access::Write,
            Self::ID
            | Self::TPR
            | Self::LDR
            | Self::DFR
            | Self::SVR
            | Self::ESR
            | Self::ICR
            | Self::ICR2
            | Self::TIMER_INITIAL
            | Self::TIMER_DIVIDE => Access::ReadWrite,
            _ => match Lvt::of(self) {
                Some(_) => Access::ReadWrite,
                None => Access::None,
            },
        }
    }

    /// Returns the bits that a write changes; other bits keep a fixed value.
    pub(crate) const fn writable(self, options: Options) -> u32 {
        match self {
            Self::ID | Self::LDR | Self::ICR2 => 0xff00_0000,
            Self::DFR => 0xf000_0000,
            Self::TPR | Self::SELF_IPI => 0xff,
            Self::SVR if options.directed_eoi => 0x13ff,
            Self::SVR => 0x3ff,
            // What a guest wrote is what it reads, reserved bits too, except "delivery pending":
            // messages leave at once.
            Self::ICR => !ICR_BUSY,
            Self::TIMER_INITIAL => u32::MAX,
            Self::TIMER_DIVIDE => 0xb,
            _ => match Lvt::of(self) {
                Some(lvt) => lvt.writable(options),
                None => 0,
            },
        }
    }

    /// Returns the bits that must be zero in a write in x2APIC mode.
    pub(crate) const fn reserved_in_x2apic(self, options: Options) -> u32 {
        match Lvt::of(self) {
            // Read-only status bits may be written back.
            Some(_) => !(self.writable(options) | LVT_STATUS),
            None => !self.writable(options),
        }
    }
}

/// What the configuration adds to the registers' bits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Options {
    /// EOI broadcasts can be suppressed (bit 12 of SVR).
    pub(crate) directed_eoi: bool,
    /// The timer has a TSC-deadline mode (bit 18 of its LVT entry).
    pub(crate) tsc_deadline: bool,
}

/// What a guest may do with a register.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Access {
    /// Reserved.
    None,
    /// Read-only.
    Read,
    /// Write-only.
    Write,
    /// Both.
    ReadWrite,
}

impl Access {
    /// Returns whether the register can be read.
    pub(crate) const fn readable(self) -> bool {
        matches!(self, Self::Read | Self::ReadWrite)
    }

    /// Returns whether the register can be written.
    pub(crate) const fn writable(self) -> bool {
        matches!(self, Self::Write | Self::ReadWrite)
    }
}

/// Software enable in SVR.
pub(crate) const SVR_ENABLED: u32 = 1 << 8;
/// "Suppress EOI broadcasts" in SVR.
pub(crate) const SVR_DIRECTED_EOI: u32 = 1 << 12;
/// "EOI broadcasts can be suppressed" in the version register.
pub(crate) const VERSION_DIRECTED_EOI: u32 = 1 << 24;
/// The version itself: an integrated xAPIC.
pub(crate) const VERSION_NUMBER: u32 = 0x14;
/// "Delivery pending" in ICR.
pub(crate) const ICR_BUSY: u32 = 1 << 12;
/// Reserved bits of ICR in x2APIC mode; bit 12 is ignored rather than reserved.
pub(crate) const ICR_RESERVED_IN_X2APIC: u32 = 0xfff3_2000;
/// DFR of the flat logical model.
pub(crate) const DFR_FLAT: u32 = 0xffff_ffff;
/// DFR of the cluster logical model.
pub(crate) const DFR_CLUSTER: u32 = 0x0fff_ffff;
/// The mask bit of an LVT entry.
pub(crate) const LVT_MASKED: u32 = 1 << 16;
/// "Level" in LVT_LINT0 and LVT_LINT1.
pub(crate) const LVT_LEVEL: u32 = 1 << 15;
/// Read-only status of an LVT entry: delivery status and remote IRR.
const LVT_STATUS: u32 = 1 << 12 | 1 << 14;

/// An entry of the local vector table.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Lvt {
    /// The timer.
    Timer,
    /// The thermal sensor.
    Thermal,
    /// Performance-monitoring counters.
    Performance,
    /// Pin LINT0, where a PIC is wired to.
    Lint0,
    /// Pin LINT1, usually NMI.
    Lint1,
    /// An error that ESR logs.
    Error,
    /// Corrected machine checks; present only if the configuration says so.
    Cmci,
}

impl Lvt {
    /// Lists the entries in the order in which the version register counts them.
    pub(crate) const ALL: [Self; 7] = [
        Self::Timer,
        Self::Thermal,
        Self::Performance,
        Self::Lint0,
        Self::Lint1,
        Self::Error,
        Self::Cmci,
    ];

    /// Returns the entry that `register` holds.
    pub(crate) const fn of(register: Register) -> Option<Self> {
        Some(match register {
            Register::LVT_TIMER => Self::Timer,
            Register::LVT_THERMAL => Self::Thermal,
            Register::LVT_PERFORMANCE => Self::Performance,
            Register::LVT_LINT0 => Self::Lint0,
            Register::LVT_LINT1 => Self::Lint1,
            Register::LVT_ERROR => Self::Error,
            Register::LVT_CMCI => Self::Cmci,
            _ => return None,
        })
    }

    /// Returns the register that holds the entry.
    pub(crate) const fn register(self) -> Register {
        match self {
            Self::Timer => Register::LVT_TIMER,
            Self::Thermal => Register::LVT_THERMAL,
            Self::Performance => Register::LVT_PERFORMANCE,
            Self::Lint0 => Register::LVT_LINT0,
            Self::Lint1 => Register::LVT_LINT1,
            Self::Error => Register::LVT_ERROR,
            Self::Cmci => Register::LVT_CMCI,
        }
    }

    /// Returns the bits of the entry that a guest sets.
    const fn writable(self, options: Options) -> u32 {
        const VECTOR_AND_MASK: u32 = 0xff | LVT_MASKED;
        const DELIVERY_MODE: u32 = 0x700;
        const POLARITY: u32 = 1 << 13;
        match self {
            Self::Timer if options.tsc_deadline => VECTOR_AND_MASK | 3 << 17,
            Self::Timer => VECTOR_AND_MASK | 1 << 17,
            Self::Error => VECTOR_AND_MASK,
            Self::Lint0 | Self::Lint1 => VECTOR_AND_MASK | DELIVERY_MODE | POLARITY | LVT_LEVEL,
            Self::Thermal | Self::Performance | Self::Cmci => VECTOR_AND_MASK | DELIVERY_MODE,
        }
    }
}
