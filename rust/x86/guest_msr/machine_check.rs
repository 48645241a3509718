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
/// MCG_CAP: an error may be told to one processor only.
const CAP_LMCE: u64 = 1 << 27;
/// MCG_EXT_CTL: that may be.
const EXT_CTL_LMCE: u64 = 1 << 0;

/// Bits of MCG_CAP that user space may choose, besides the number of banks (bits 7:0) and the
/// number of extended state registers (bits 23:16).
pub(crate) const SUPPORTED_MCG_CAP: u64 = CAP_CTL | CAP_CMCI | CAP_SER | CAP_LMCE;

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

/// Status of a bank: the processor's context is corrupt; recovery needs action; signalled as an
/// exception.
const STATUS_CONTEXT_CORRUPT: u64 = 1 << 57;
const STATUS_SIGNALLED: u64 = 1 << 56;
const STATUS_ACTION_REQUIRED: u64 = 1 << 55;
/// Status of a bank: it is valid; an earlier error was lost; the error was not corrected.
const STATUS_VALID: u64 = 1 << 63;
const STATUS_OVERFLOW: u64 = 1 << 62;
const STATUS_UNCORRECTED: u64 = 1 << 61;
/// Control of a bank's interrupts: they are enabled.
const CTL2_ENABLED: u64 = 1 << 30;
/// MCG_STATUS: a machine check is in progress.
const GLOBAL_IN_PROGRESS: u64 = 1 << 2;

/// An error that user space reports to a bank.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Reported {
    /// The bank's status.
    pub(crate) status: u64,
    /// The bank's address.
    pub(crate) address: u64,
    /// The bank's miscellaneous information.
    pub(crate) misc: u64,
    /// MCG_STATUS.
    pub(crate) global_status: u64,
}

/// What the guest gets of a reported error besides its registers.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Effect {
    /// Nothing.
    None,
    /// #MC.
    Exception,
    /// A shutdown: it cannot take #MC now.
    Shutdown,
    /// The interrupt of the local APIC's entry for corrected errors.
    Interrupt,
}

/// The machine-check registers of one vCPU.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct MachineCheck {
    cap: u64,
    status: u64,
    ctl: u64,
    ext_ctl: u64,
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
            ext_ctl: 0,
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
        if self.has_interrupts() {
            for (ctl2, _) in self.ctl2.iter_mut().zip(0..banks) {
                *ctl2 = 0;
            }
        }
        Ok(())
    }

    /// Returns whether the vCPU has interrupts for corrected errors.
    pub(crate) const fn has_interrupts(&self) -> bool {
        self.cap & CAP_CMCI != 0
    }

    /// Reports an error to a bank: KVM_X86_SET_MCE. `enabled` is CR4.MCE.
    ///
    /// # Errors
    ///
    /// [`MsrError::Invalid`] (EINVAL) if there is no such bank or the status is not valid.
    pub(crate) fn report(
        &mut self,
        bank: u8,
        error: &Reported,
        enabled: bool,
    ) -> Result<Effect, MsrError> {
        check(u32::from(bank) < self.banks() && error.status & STATUS_VALID != 0)?;
        // CAST: to a wider type.
        let first = usize::from(bank) * REGISTERS as usize;
        let Some([ctl, status, address, misc]) = self
            .banks
            .get_mut(first..)
            .and_then(<[u64]>::first_chunk_mut)
        else {
            return Err(MsrError::Invalid);
        };
        let mut new = error.status;
        let uncorrected = new & STATUS_UNCORRECTED != 0;
        let needs_action = STATUS_CONTEXT_CORRUPT | STATUS_SIGNALLED | STATUS_ACTION_REQUIRED;
        let no_action = error.global_status == 0 && new & needs_action == 0 && uncorrected;
        let interrupts = self.cap & CAP_CMCI != 0
            && self
                .ctl2
                .get(usize::from(bank))
                .is_some_and(|ctl2| ctl2 & CTL2_ENABLED != 0);
        let mut effect = if no_action && interrupts {
            Effect::Interrupt
        } else {
            Effect::None
        };
        if uncorrected && !no_action {
            let all = self.cap & CAP_CTL == 0 || self.ctl == u64::MAX;
            if !all || *ctl != u64::MAX {
                // Uncorrected errors are not reported.
                return Ok(Effect::None);
            }
            if self.status & GLOBAL_IN_PROGRESS != 0 || !enabled {
                return Ok(Effect::Shutdown);
            }
            effect = Effect::Exception;
        }
        if !uncorrected
            && *status & (STATUS_VALID | STATUS_UNCORRECTED) == STATUS_VALID | STATUS_UNCORRECTED
        {
            // What is there weighs more.
            *status |= STATUS_OVERFLOW;
            return Ok(Effect::None);
        }
        if !no_action && *status & STATUS_VALID != 0 {
            new |= STATUS_OVERFLOW;
        }
        if uncorrected {
            self.status = error.global_status;
        }
        [*status, *address, *misc] = [new, error.address, error.misc];
        Ok(effect)
    }

    /// Returns whether FEAT_CTL of a guest may enable local machine checks.
    pub(super) const fn has_local(&self) -> bool {
        self.cap & CAP_LMCE != 0
    }

    /// Returns MCG_EXT_CTL.
    pub(super) const fn ext_ctl(&self) -> u64 {
        self.ext_ctl
    }

    /// Writes MCG_EXT_CTL.
    pub(super) fn set_ext_ctl(&mut self, value: u64) -> Result<(), MsrError> {
        check(value & !EXT_CTL_LMCE == 0)?;
        self.ext_ctl = value;
        Ok(())
    }

    /// Returns whether an MSR is handled here; MCG_EXT_CTL depends on FEAT_CTL besides.
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
                const WRITABLE: u64 = CTL2_ENABLED | 0x7fff;
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
