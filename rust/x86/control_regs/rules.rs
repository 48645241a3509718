// SPDX-License-Identifier: GPL-2.0

//! Which values and changes of the control registers the architecture allows.
//!
//! Each function takes the state that its rule depends on and returns the value that the register
//! takes, or [`GpFault`] where the instruction raises #GP(0). None changes anything.

use super::{
    Cr0,
    Cr4,
    Dr6,
    Dr7,
    Efer,
    Xcr0, //
};

/// A general-protection fault with error code 0.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct GpFault;

/// How a guest translates linear addresses.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Paging {
    /// Linear addresses are guest-physical addresses.
    Off,
    /// 32-bit paging: two levels of 4-byte entries.
    Bits32,
    /// PAE paging: the four PDPTEs and two levels of 8-byte entries.
    Pae,
    /// Four levels of 8-byte entries.
    Level4,
    /// Five levels of 8-byte entries.
    Level5,
}

impl Paging {
    /// Returns the paging mode that these registers select.
    #[must_use]
    pub(crate) const fn of(cr0: Cr0, cr4: Cr4, efer: Efer) -> Self {
        if !cr0.contains(Cr0::PG) {
            Self::Off
        } else if efer.contains(Efer::LMA) {
            if cr4.contains(Cr4::LA57) {
                Self::Level5
            } else {
                Self::Level4
            }
        } else if cr4.contains(Cr4::PAE) {
            Self::Pae
        } else {
            Self::Bits32
        }
    }
}

/// Returns whether CR0 may hold `value` at all, whatever it held before.
///
/// Reserved bits below bit 32 do not count: writes to them are ignored.
#[must_use]
pub(crate) const fn is_valid_cr0(value: Cr0) -> bool {
    value.value() >> 32 == 0
        && (!value.contains(Cr0::NW) || value.contains(Cr0::CD))
        && (!value.contains(Cr0::PG) || value.contains(Cr0::PE))
}

/// Returns the value that a write of `new` gives to CR0, which holds `old`.
///
/// `cs_l` is the L bit of CS. When the result turns on or keeps PAE paging and
/// [`cr0_loads_pdptes`] says so, the caller must still load the PDPTEs, which may fault too.
pub(crate) const fn check_cr0(
    old: Cr0,
    new: Cr0,
    cr4: Cr4,
    efer: Efer,
    cs_l: bool,
) -> Result<Cr0, GpFault> {
    if !is_valid_cr0(new) {
        return Err(GpFault);
    }
    let new = new.common(Cr0::DEFINED).with(Cr0::ET);
    let pg = new.contains(Cr0::PG);

    if pg && !old.contains(Cr0::PG) && efer.contains(Efer::LME) {
        // This write activates long mode.
        if !cr4.contains(Cr4::PAE) || cs_l {
            return Err(GpFault);
        }
    }
    if !pg && (cr4.contains(Cr4::PCIDE) || (efer.contains(Efer::LMA) && cs_l)) {
        return Err(GpFault);
    }
    if !new.contains(Cr0::WP) && cr4.contains(Cr4::CET) {
        return Err(GpFault);
    }
    Ok(new)
}

/// Returns whether the change of CR0 from `old` to `new` loads the four PDPTEs.
#[must_use]
pub(crate) const fn cr0_loads_pdptes(old: Cr0, new: Cr0, cr4: Cr4, efer: Efer) -> bool {
    new.contains(Cr0::PG)
        && cr4.contains(Cr4::PAE)
        && !efer.contains(Efer::LME)
        && old.difference(new).intersects(Cr0::PDPTE)
}

/// Returns what EFER becomes through a change of CR0: LMA follows LME and CR0.PG.
#[must_use]
pub(crate) const fn efer_after_cr0(efer: Efer, new: Cr0) -> Efer {
    efer.assign(Efer::LMA, efer.contains(Efer::LME) && new.contains(Cr0::PG))
}

/// Returns the value that a write of `new` gives to CR4, which holds `old`.
///
/// `reserved` are the bits that this guest must leave 0. As for CR0, the caller must still load the
/// PDPTEs where [`cr4_loads_pdptes`] says so.
pub(crate) const fn check_cr4(
    old: Cr4,
    new: Cr4,
    cr0: Cr0,
    cr3: u64,
    efer: Efer,
    reserved: Cr4,
) -> Result<Cr4, GpFault> {
    if new.intersects(reserved) {
        return Err(GpFault);
    }
    let long_mode = efer.contains(Efer::LMA);
    if long_mode && (!new.contains(Cr4::PAE) || old.difference(new).contains(Cr4::LA57)) {
        return Err(GpFault);
    }
    if new.contains(Cr4::PCIDE) && !old.contains(Cr4::PCIDE) {
        // The current CR3 must hold PCID 0.
        if !long_mode || cr3 & CR3_PCID != 0 {
            return Err(GpFault);
        }
    }
    if new.contains(Cr4::CET) && !cr0.contains(Cr0::WP) {
        return Err(GpFault);
    }
    Ok(new)
}

/// Returns whether the change of CR4 from `old` to `new` loads the four PDPTEs.
#[must_use]
pub(crate) const fn cr4_loads_pdptes(old: Cr4, new: Cr4, cr0: Cr0, efer: Efer) -> bool {
    matches!(Paging::of(cr0, new, efer), Paging::Pae) && old.difference(new).intersects(Cr4::PDPTE)
}

/// The process-context identifier in CR3 while CR4.PCIDE is set.
const CR3_PCID: u64 = 0xfff;

/// With CR4.PCIDE set, bit 63 of a written CR3 asks to keep the PCID's translations.
const CR3_KEEP: u64 = 1 << 63;

/// A write to CR3 that the architecture allows.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Cr3Write {
    /// The value that CR3 takes.
    pub(crate) value: u64,
    /// Whether the written PCID's translations (PCID 0 without CR4.PCIDE) are dropped.
    pub(crate) flush: bool,
}

/// Returns what a write of `new` to CR3 does.
///
/// `reserved` are the address bits above the guest's physical-address width.
pub(crate) const fn check_cr3(new: u64, cr4: Cr4, reserved: u64) -> Result<Cr3Write, GpFault> {
    let keep = cr4.contains(Cr4::PCIDE) && new & CR3_KEEP != 0;
    let value = if keep { new & !CR3_KEEP } else { new };
    if value & reserved != 0 {
        return Err(GpFault);
    }
    Ok(Cr3Write {
        value,
        flush: !keep,
    })
}

/// Returns the task priority that a write of `new` to CR8 sets, 0 to 15.
pub(crate) const fn check_cr8(new: u64) -> Result<u8, GpFault> {
    if new > 0xf {
        return Err(GpFault);
    }
    // CAST: the value is below 16.
    Ok(new as u8)
}

/// Returns the value that a guest's write of `new` gives to EFER, which holds `old`.
///
/// `allowed` are the bits that this guest may set. LMA is read-only: it stays as it is.
pub(crate) const fn check_efer(
    old: Efer,
    new: Efer,
    cr0: Cr0,
    allowed: Efer,
) -> Result<Efer, GpFault> {
    if !allowed.contains(new) {
        return Err(GpFault);
    }
    if cr0.contains(Cr0::PG) && old.difference(new).contains(Efer::LME) {
        return Err(GpFault);
    }
    Ok(keep_lma(old, new))
}

/// Returns the value that EFER, which holds `old`, takes when user space writes `new` as an MSR.
///
/// User space may set every bit of `supported`, also one that the guest's CPUID does not offer.
pub(crate) const fn check_efer_from_user(
    old: Efer,
    new: Efer,
    supported: Efer,
) -> Result<Efer, GpFault> {
    if !supported.contains(new) {
        return Err(GpFault);
    }
    Ok(keep_lma(old, new))
}

/// Returns `new` with the LMA bit of `old`.
const fn keep_lma(old: Efer, new: Efer) -> Efer {
    new.assign(Efer::LMA, old.contains(Efer::LMA))
}

/// Returns the value that XSETBV gives to XCR0 when it writes `new`.
///
/// `supported` are the components that this guest's CPUID offers.
pub(crate) const fn check_xcr0(new: Xcr0, supported: Xcr0) -> Result<Xcr0, GpFault> {
    let ok = new.contains(Xcr0::FP)
        && supported.with(Xcr0::FP).contains(new)
        && (!new.contains(Xcr0::YMM) || new.contains(Xcr0::SSE))
        && all_or_none(new, Xcr0::MPX)
        && all_or_none(new, Xcr0::AVX512)
        && (!new.contains(Xcr0::AVX512) || new.contains(Xcr0::YMM))
        && all_or_none(new, Xcr0::XTILE);
    if ok {
        Ok(new)
    } else {
        Err(GpFault)
    }
}

/// Returns whether `value` has all of `bits` or none.
const fn all_or_none(value: Xcr0, bits: Xcr0) -> bool {
    value.contains(bits) || !value.intersects(bits)
}

/// Returns the value that a write of `new` gives to DR6.
///
/// `active_low` are the optional active-low bits (RTM, BUS_LOCK) whose feature this guest has; the
/// others read 1 always.
pub(crate) const fn check_dr6(new: Dr6, active_low: Dr6) -> Result<Dr6, GpFault> {
    if new.value() >> 32 != 0 {
        return Err(GpFault);
    }
    let fixed = Dr6::ACTIVE_LOW
        .without(Dr6::WRITABLE)
        .with(Dr6::RTM.with(Dr6::BUS_LOCK).without(active_low));
    Ok(new.common(Dr6::WRITABLE).with(fixed))
}

/// Returns the value that a write of `new` gives to DR7.
pub(crate) const fn check_dr7(new: Dr7) -> Result<Dr7, GpFault> {
    if new.value() >> 32 != 0 {
        return Err(GpFault);
    }
    Ok(new.common(Dr7::WRITABLE).with(Dr7::FIXED))
}
