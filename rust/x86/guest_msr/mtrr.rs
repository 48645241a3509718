// SPDX-License-Identifier: GPL-2.0

//! Memory-type range registers: kept for the guest to read back.

use super::{
    super::{
        cpuid::GuestFeatures,
        msr_index::{
            MTRR_CAP,
            MTRR_DEF_TYPE,
            MTRR_FIX_16K,
            MTRR_FIX_4K,
            MTRR_FIX_64K,
            MTRR_PHYS_BASE0,
            VARIABLE_MTRRS, //
        },
        msr_value::is_valid_mtrr_type, //
    },
    MsrError, //
};

/// First MSR after the range that the MTRRs lie in.
const RANGE_END: u32 = 0x270;

/// MTRR_CAP: write combining, fixed ranges, and the number of variable ranges.
const CAP: u64 = (1 << 10) | (1 << 8) | VARIABLE_MTRRS as u64; // CAST: to a wider type.

/// The memory-type range registers of one vCPU.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Mtrrs {
    def_type: u64,
    /// Base and mask in turn.
    variable: [u64; 16],
    /// From address 0 up.
    fixed: [u64; 11],
}

/// Which register an MSR is.
enum Register {
    DefType,
    VariableBase(usize),
    VariableMask(usize),
    Fixed(usize),
}

impl Mtrrs {
    /// Returns the registers after RESET: all ranges are off and memory is uncached.
    pub(super) const fn new() -> Self {
        Self {
            def_type: 0,
            variable: [0; 16],
            fixed: [0; 11],
        }
    }

    /// Returns whether an MSR is handled here.
    pub(super) const fn owns(index: u32) -> bool {
        matches!(index, MTRR_CAP | MTRR_DEF_TYPE | MTRR_PHYS_BASE0..RANGE_END)
    }

    /// Returns the value of an MSR that is handled here.
    pub(super) fn read(&self, index: u32) -> Result<u64, MsrError> {
        if index == MTRR_CAP {
            return Ok(CAP);
        }
        let value = match register(index)? {
            Register::DefType => Some(&self.def_type),
            Register::VariableBase(i) | Register::VariableMask(i) => self.variable.get(i),
            Register::Fixed(i) => self.fixed.get(i),
        };
        value.copied().ok_or(MsrError::Invalid)
    }

    /// Writes an MSR that is handled here.
    pub(super) fn write(
        &mut self,
        index: u32,
        value: u64,
        features: &GuestFeatures,
    ) -> Result<(), MsrError> {
        let register = register(index)?;
        if !is_valid(&register, value, features) {
            return Err(MsrError::Invalid);
        }
        let slot = match register {
            Register::DefType => Some(&mut self.def_type),
            Register::VariableBase(i) | Register::VariableMask(i) => self.variable.get_mut(i),
            Register::Fixed(i) => self.fixed.get_mut(i),
        };
        *slot.ok_or(MsrError::Invalid)? = value;
        Ok(())
    }
}

/// Returns which register the MSR is; the range has holes, and MTRR_CAP cannot be written.
fn register(index: u32) -> Result<Register, MsrError> {
    /// Last MSR of the variable ranges.
    const VARIABLE_LAST: u32 = MTRR_PHYS_BASE0 + 2 * VARIABLE_MTRRS - 1;
    const FIX_16K_LAST: u32 = MTRR_FIX_16K + 1;
    const FIX_4K_LAST: u32 = MTRR_FIX_4K + 7;

    // CAST: differences below 16, to a wider type.
    let register = match index {
        MTRR_DEF_TYPE => Register::DefType,
        MTRR_PHYS_BASE0..=VARIABLE_LAST if index & 1 == 0 => {
            Register::VariableBase((index - MTRR_PHYS_BASE0) as usize)
        }
        MTRR_PHYS_BASE0..=VARIABLE_LAST => {
            Register::VariableMask((index - MTRR_PHYS_BASE0) as usize)
        }
        MTRR_FIX_64K => Register::Fixed(0),
        MTRR_FIX_16K..=FIX_16K_LAST => Register::Fixed(1 + (index - MTRR_FIX_16K) as usize),
        MTRR_FIX_4K..=FIX_4K_LAST => Register::Fixed(3 + (index - MTRR_FIX_4K) as usize),
        MTRR_CAP => return Err(MsrError::Unknown),
        _ => return Err(MsrError::Invalid),
    };
    Ok(register)
}

/// Returns whether the register may hold `value`.
fn is_valid(register: &Register, value: u64, features: &GuestFeatures) -> bool {
    let [lowest, ..] = value.to_le_bytes();
    match register {
        Register::DefType => value & !0xcff == 0 && is_valid_mtrr_type(lowest),
        Register::VariableBase(_) => {
            value & (features.reserved_gpa | 0xf00) == 0 && is_valid_mtrr_type(lowest)
        }
        Register::VariableMask(_) => value & (features.reserved_gpa | 0x7ff) == 0,
        Register::Fixed(_) => value.to_le_bytes().into_iter().all(is_valid_mtrr_type),
    }
}
