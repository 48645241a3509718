// SPDX-License-Identifier: GPL-2.0

//! Machine-check registers: what user space injects and the guest reads.

use super::{
    super::{
        msr_index::{
            MC0_CTL,
            MC0_CTL2,
            MCG_CAP,
            MCG_CTL,
            MCG_STATUS, //
        }, //
    },
    check,
    MsrError, //
};

/// The most banks of registers that a vCPU has.
pub(crate) const MAX_BANKS: u32 = 32;

/// MCG_CAP: MCG_CTL exists.
const CAP_CTL: u64 = 1 << 8;
/// MCG_CAP: corrected errors raise interrupts, and the CTL2 registers exist.
const CAP_CMCI: u64 = 1 << 10;
/// MCG_CAP: software error recovery.
const CAP_SER: u64 = 1 << 24;

/// Bits of MCG_CAP that user space may choose, besides the number of banks (bits 7:0) and the
/// number of extended state registers (bits 23:16).
pub(crate) const SUPPORTED_MCG_CAP: u64 = CAP_CTL | CAP_SER;

/// Registers of one bank, in the order of their numbers.
const CTL: u32 = 0;
const STATUS: u32 = 1;
const REGISTERS: u32 = 4;

// CAST: to a wider type.
const BANK_REGISTERS: usize = (MAX_BANKS * REGISTERS) as usize;
const CTL2_REGISTERS: usize = MAX_BANKS as usize;

/// First MSR after all banks, and after all CTL2 registers.
const BANKS_END: u32 = MC0_CTL + MAX_BANKS * REGISTERS;
const CTL2_END: u32 = MC0_CTL2 + MAX_BANKS;

/// The machine-check registers of one vCPU.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct MachineCheck {
    cap: u64,
    status: u64,
    ctl: u64,
    banks: [u64; BANK_REGISTERS],
    ctl2: [u64; CTL2_REGISTERS],
}

impl MachineCheck {
    /// Returns the registers of a vCPU that user space has not set up.
    pub(super) const fn new() -> Self {
        Self {
            cap: MAX_BANKS as u64, // CAST: to a wider type.
            status: 0,
            ctl: 0,
            banks: [0; BANK_REGISTERS],
            ctl2: [0; CTL2_REGISTERS],
        }
    }

    /// Sets MCG_CAP and turns on the reporting of all errors: KVM_X86_SETUP_MCE.
    ///
    /// # Errors
    ///
    /// [`MsrError::Invalid`] (EINVAL) if `cap` tells no bank, more than [`MAX_BANKS`], or a bit that
    /// is not supported.
    #[allow(dead_code, reason = "for KVM_X86_SETUP_MCE")]
    pub(crate) fn set_up(&mut self, cap: u64) -> Result<(), MsrError> {
        const COUNTS: u64 = 0x00ff_00ff;
        let banks = cap & 0xff;
        if banks == 0 || banks > u64::from(MAX_BANKS) || cap & !(SUPPORTED_MCG_CAP | COUNTS) != 0 {
            return Err(MsrError::Invalid);
        }
        self.cap = cap;
        if cap & CAP_CTL != 0 {
            self.ctl = u64::MAX;
        }
        // CAST: to a wider type.
        let controls = self.banks.iter_mut().step_by(REGISTERS as usize);
        for (ctl, _) in controls.zip(0..banks) {
            *ctl = u64::MAX;
        }
        Ok(())
    }

    /// Returns whether an MSR is handled here.
    pub(super) const fn owns(index: u32) -> bool {
        matches!(
            index,
            MCG_CAP | MCG_CTL | MCG_STATUS | MC0_CTL..BANKS_END | MC0_CTL2..CTL2_END
        )
    }

    /// Returns the value of an MSR that is handled here.
    pub(super) fn read(&self, index: u32, from_user: bool) -> Result<u64, MsrError> {
        match index {
            MCG_CAP => Ok(self.cap),
            MCG_STATUS => Ok(self.status),
            MCG_CTL => {
                check(self.cap & CAP_CTL != 0 || from_user)?;
                Ok(self.ctl)
            }
            MC0_CTL..BANKS_END => {
                let slot = self.bank_slot(index)?;
                self.banks.get(slot).copied().ok_or(MsrError::Invalid)
            }
            _ => {
                check(self.cap & CAP_CMCI != 0 || from_user)?;
                let slot = self.ctl2_slot(index)?;
                self.ctl2.get(slot).copied().ok_or(MsrError::Invalid)
            }
        }
    }

    /// Writes an MSR that is handled here.
    pub(super) fn write(
        &mut self,
        index: u32,
        value: u64,
        from_user: bool,
    ) -> Result<(), MsrError> {
        match index {
            MCG_CAP => return Err(MsrError::Unknown),
            MCG_STATUS => self.status = value,
            MCG_CTL => {
                check(self.cap & CAP_CTL != 0 || (from_user && value == 0))?;
                check(value == 0 || value == u64::MAX)?;
                self.ctl = value;
            }
            MC0_CTL..BANKS_END => {
                let slot = self.bank_slot(index)?;
                check(is_valid_bank_value(index, value, from_user))?;
                *self.banks.get_mut(slot).ok_or(MsrError::Invalid)? = value;
            }
            _ => {
                /// Interrupt enable and threshold.
                const WRITABLE: u64 = (1 << 30) | 0x7fff;
                let slot = self.ctl2_slot(index)?;
                check(self.cap & CAP_CMCI != 0 || (from_user && value == 0))?;
                check(value & !WRITABLE == 0)?;
                *self.ctl2.get_mut(slot).ok_or(MsrError::Invalid)? = value;
            }
        }
        Ok(())
    }

    /// Returns the number of banks.
    const fn banks(&self) -> u32 {
        (self.cap & 0xff) as u32 // CAST: eight bits.
    }

    /// Returns the place of a bank's register, if the vCPU has the bank.
    fn bank_slot(&self, index: u32) -> Result<usize, MsrError> {
        let slot = index.wrapping_sub(MC0_CTL);
        check(slot / REGISTERS < self.banks())?;
        Ok(slot as usize) // CAST: to a wider type.
    }

    /// Returns the place of a CTL2 register, if the vCPU has the bank.
    fn ctl2_slot(&self, index: u32) -> Result<usize, MsrError> {
        let slot = index.wrapping_sub(MC0_CTL2);
        check(slot < self.banks())?;
        Ok(slot as usize) // CAST: to a wider type.
    }
}

/// Returns whether a register of a bank may be written with `value`.
fn is_valid_bank_value(index: u32, value: u64, from_user: bool) -> bool {
    match index.wrapping_sub(MC0_CTL) % REGISTERS {
        // All or nothing; but bit 10 (Linux on AMD's K8) and bit 0 (UnixWare) may be 0 alone.
        CTL => value == 0 || value | (1 << 10) | 1 == u64::MAX,
        // A guest can only clear a status.
        STATUS => value == 0 || from_user,
        _ => true,
    }
}
