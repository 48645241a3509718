// SPDX-License-Identifier: GPL-2.0

//! Which values the MSRs may hold that the CPU itself keeps for the guest.
//!
//! The MSRs that only the module keeps are in [`guest_msr`](super::guest_msr).

use super::{
    control_regs::rules::GpFault,
    cpuid::{
        Feature,
        GuestFeatures, //
    }, //
};

/// The page-attribute table after RESET.
pub(crate) const PAT_RESET: u64 = 0x0007_0406_0007_0406;

/// Returns `address` with the bits from `bits` up made copies of the one below: what a linear
/// address of `bits` bits looks like.
#[must_use]
pub(crate) const fn canonical(address: u64, bits: u8) -> u64 {
    let unused = 64u32.saturating_sub(bits as u32); // CAST: to a wider type.
    match address.checked_shl(unused) {
        // CAST: shift right with the sign.
        Some(high) => ((high as i64) >> unused) as u64,
        None => address,
    }
}

/// Returns whether `address` is a linear address of `bits` bits.
#[must_use]
pub(crate) const fn is_canonical(address: u64, bits: u8) -> bool {
    canonical(address, bits) == address
}

/// Returns the value that FS_BASE, GS_BASE, KERNEL_GS_BASE, LSTAR or CSTAR takes.
pub(crate) const fn address(value: u64, features: &GuestFeatures) -> Result<u64, GpFault> {
    if is_canonical(value, features.msr_linear_bits) {
        Ok(value)
    } else {
        Err(GpFault)
    }
}

/// Returns the value that SYSENTER_ESP or SYSENTER_EIP takes: a canonical one in place of another,
/// as VM entry would refuse that.
#[must_use]
pub(crate) const fn sysenter_address(value: u64, features: &GuestFeatures) -> u64 {
    canonical(value, features.msr_linear_bits)
}

/// Returns whether an access to TSC_AUX succeeds; user space's does if the CPU has the register.
#[must_use]
pub(crate) fn has_tsc_aux(features: &GuestFeatures, from_user: bool) -> bool {
    from_user || features.has(Feature::RDTSCP) || features.has(Feature::RDPID)
}

/// Returns the value that TSC_AUX takes: the upper half is reserved.
pub(crate) const fn tsc_aux(value: u64) -> Result<u32, GpFault> {
    if value >> 32 == 0 {
        Ok(value as u32) // CAST: the upper half is 0.
    } else {
        Err(GpFault)
    }
}

/// Returns the value that DEBUGCTL takes.
///
/// No bit is virtualised. Branch records and single step on branches can be asked for without a
/// fault, and stay off; guests ask without looking.
pub(crate) const fn debugctl(value: u64) -> Result<u64, GpFault> {
    const LBR: u64 = 1 << 0;
    const BTF: u64 = 1 << 1;
    if value & !(LBR | BTF) == 0 {
        Ok(0)
    } else {
        Err(GpFault)
    }
}

/// Returns whether each byte of `value` is a memory type that the page-attribute table may hold.
#[must_use]
pub(crate) const fn is_valid_pat(value: u64) -> bool {
    // 0, 1 and 4 to 7: of types below 8, those with bit 1 need bit 2.
    let high = value & 0xf8f8_f8f8_f8f8_f8f8;
    let bit_1 = value & 0x0202_0202_0202_0202;
    high == 0 && value & (bit_1 << 1) == bit_1 << 1
}

/// Returns whether `kind` is a memory type that an MTRR may hold.
#[must_use]
pub(crate) const fn is_valid_mtrr_type(kind: u8) -> bool {
    matches!(kind, 0 | 1 | 4 | 5 | 6)
}
