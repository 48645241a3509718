// SPDX-License-Identifier: GPL-2.0

//! The APIC base MSR: where the registers lie, and in which mode the APIC is.

use super::access::GeneralProtection;

/// Address of the registers after reset.
pub(crate) const DEFAULT_ADDRESS: u64 = 0xfee0_0000;
/// The bootstrap processor.
pub(crate) const BOOTSTRAP: u64 = 1 << 8;
/// x2APIC mode, if enabled too.
pub(crate) const X2APIC: u64 = 1 << 10;
/// Enabled.
pub(crate) const ENABLED: u64 = 1 << 11;
/// Bits that are reserved whatever the processor supports: 7:0 and 9.
const RESERVED: u64 = 0x2ff;
/// The address of the registers, before the processor's address width limits it.
const ADDRESS: u64 = !0xfff;

/// The mode of a local APIC.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Mode {
    /// Disabled by the base MSR: as if there was none.
    Disabled,
    /// Registers in memory, IDs of 8 bits.
    Xapic,
    /// Registers as MSRs, IDs of 32 bits.
    X2apic,
}

impl Mode {
    /// Returns the mode that the value of the MSR names; `None` for the invalid combination.
    #[inline]
    pub(crate) const fn of(base: u64) -> Option<Self> {
        match (base & ENABLED != 0, base & X2APIC != 0) {
            (false, false) => Some(Self::Disabled),
            (true, false) => Some(Self::Xapic),
            (true, true) => Some(Self::X2apic),
            (false, true) => None,
        }
    }
}

/// What a write to the base MSR changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[must_use]
pub(crate) struct BaseChange {
    /// The mode before.
    pub(crate) from: Mode,
    /// The mode now: if different, the way accesses are virtualised and the destination map are to
    /// be set up again, and CPUID's APIC bit follows whether it is enabled.
    pub(crate) to: Mode,
    /// The registers lie at another address now.
    pub(crate) moved: bool,
}

impl BaseChange {
    /// Returns whether the mode changed.
    pub(crate) fn mode_changed(self) -> bool {
        self.from != self.to
    }
}

/// Returns the address of the registers that the value of the MSR names.
pub(crate) const fn address(base: u64) -> u64 {
    base & ADDRESS
}

/// Returns the value of the MSR after reset.
pub(crate) const fn after_reset(bootstrap: bool) -> u64 {
    let role = if bootstrap { BOOTSTRAP } else { 0 };
    DEFAULT_ADDRESS | ENABLED | role
}

/// Returns what a change of the MSR from `old` to `new` does, or the fault that it raises.
///
/// A guest goes from disabled to xAPIC to x2APIC and back to disabled only; `from_host`, which
/// restores state, may set any valid mode. `physical_bits` is the guest's address width.
pub(crate) fn change(
    old: u64,
    new: u64,
    x2apic: bool,
    physical_bits: u8,
    from_host: bool,
) -> Result<BaseChange, GeneralProtection> {
    let from = Mode::of(old).unwrap_or(Mode::Disabled);
    let to = Mode::of(new).ok_or(GeneralProtection)?;
    if old != new {
        let beyond = u64::MAX.checked_shl(u32::from(physical_bits)).unwrap_or(0);
        let mode = if x2apic { 0 } else { X2APIC };
        if new & (RESERVED | beyond | mode) != 0 {
            return Err(GeneralProtection);
        }
        let forbidden = matches!(
            (from, to),
            (Mode::X2apic, Mode::Xapic) | (Mode::Disabled, Mode::X2apic)
        );
        if forbidden && !from_host {
            return Err(GeneralProtection);
        }
    }
    Ok(BaseChange {
        from,
        to,
        moved: address(old) != address(new),
    })
}
