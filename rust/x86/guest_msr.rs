// SPDX-License-Identifier: GPL-2.0

//! The MSRs of a guest that no hardware holds.
//!
//! What the CPU or the VMCS keeps for the guest (EFER, SYSCALL and SYSENTER registers, segment
//! bases, TSC, debug control) and what belongs to the local APIC is handled elsewhere; the check of
//! their values is in [`msr_value`](super::msr_value).

mod legacy;
mod machine_check;
mod mtrr;

pub(crate) use self::machine_check::{
    Effect,
    MachineCheck,
    Reported,
    MAX_BANKS,
    SUPPORTED_MCG_CAP, //
};

use self::{
    legacy::Write,
    mtrr::Mtrrs, //
};
use super::{
    control_regs::rules::GpFault,
    cpuid::{
        Feature,
        GuestFeatures, //
    },
    msr_index,
    msr_value, //
};

/// Why an access to an MSR did not happen. Either is #GP(0) in a guest, unless user space wants to
/// handle it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum MsrError {
    /// The value, or the access by this party, is not allowed.
    Invalid,
    /// This guest has no such MSR.
    Unknown,
}

impl From<GpFault> for MsrError {
    fn from(_: GpFault) -> Self {
        Self::Invalid
    }
}

/// Who accesses an MSR, and what decides about it.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Access<'a> {
    /// The guest's features.
    pub(crate) features: &'a GuestFeatures,
    /// User space does, with KVM_GET_MSRS or KVM_SET_MSRS.
    pub(crate) from_user: bool,
    /// The guest may read PLATFORM_INFO (KVM_CAP_MSR_PLATFORM_INFO; it may unless told not to).
    pub(crate) platform_info_readable: bool,
    /// MISC_ENABLE decides about MWAIT: KVM_X86_QUIRK_MISC_ENABLE_NO_MWAIT is off.
    pub(crate) misc_enable_mwait: bool,
}

/// MISC_ENABLE: performance-monitor interrupts are available; writes are ignored.
const MISC_ENABLE_EMON: u64 = 1 << 7;
/// MISC_ENABLE: branch trace store and precise event sampling are not available; read-only.
const MISC_ENABLE_NO_TRACE: u64 = 3 << 11;
/// MISC_ENABLE: MONITOR and MWAIT exist.
const MISC_ENABLE_MWAIT: u64 = 1 << 18;
/// PLATFORM_INFO: CPUID can be made to fault.
const PLATFORM_INFO_CPUID_FAULT: u64 = 1 << 31;
/// MISC_FEATURES_ENABLES: CPUID faults outside privilege level 0.
const CPUID_FAULT: u64 = 1 << 0;
/// UMWAIT_CONTROL: no C0.2, and the longest wait.
const UMWAIT_KNOWN: u64 = 0xffff_fffd;
/// FEAT_CTL: no bit can be changed any more.
const FEAT_CTL_LOCKED: u64 = 1 << 0;
/// FEAT_CTL: errors may be told to one processor only.
const FEAT_CTL_LMCE: u64 = 1 << 20;
/// FEAT_CTL: what user space may set: besides, VMX and SGX, which guests do not have.
const FEAT_CTL_KNOWN: u64 = FEAT_CTL_LOCKED | FEAT_CTL_LMCE | (3 << 1) | (3 << 17);
/// Microcode revision of a new vCPU.
const UCODE_REV: u64 = 1 << 32;

/// The MSRs of one vCPU that no hardware holds.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct GuestMsrs {
    pat: u64,
    misc_enable: u64,
    misc_features_enables: u64,
    platform_info: u64,
    arch_capabilities: u64,
    ucode_rev: u64,
    feat_ctl: u64,
    power_ctl: u64,
    smi_count: u64,
    hwcr: u64,
    umwait_control: u64,
    sgx_key_hash: [u64; 4],
    mtrrs: Mtrrs,
    machine_check: MachineCheck,
}

impl GuestMsrs {
    /// Returns the MSRs of a vCPU after RESET.
    ///
    /// `arch_capabilities` is what the host can promise. The registers that tell features start
    /// with all there is; `zeroed` makes them start with none
    /// (KVM_X86_QUIRK_STUFF_FEATURE_MSRS is off).
    #[must_use]
    pub(crate) const fn new(arch_capabilities: u64, zeroed: bool) -> Self {
        let (arch_capabilities, platform_info, ucode_rev) = if zeroed {
            (0, 0, 0)
        } else {
            (arch_capabilities, PLATFORM_INFO_CPUID_FAULT, UCODE_REV)
        };
        Self {
            pat: msr_value::PAT_RESET,
            misc_enable: MISC_ENABLE_NO_TRACE,
            misc_features_enables: 0,
            platform_info,
            arch_capabilities,
            ucode_rev,
            feat_ctl: 0,
            power_ctl: 0,
            smi_count: 0,
            hwcr: 0,
            umwait_control: 0,
            sgx_key_hash: [0; 4],
            mtrrs: Mtrrs::new(),
            machine_check: MachineCheck::new(),
        }
    }

    /// Returns what a feature MSR can be at most (KVM_GET_MSRS on the system file), or `None` if it
    /// is not one.
    ///
    /// `arch_capabilities` and `ucode_rev` are the host's.
    #[must_use]
    pub(crate) const fn feature_msr(
        index: u32,
        arch_capabilities: u64,
        ucode_rev: u64,
    ) -> Option<u64> {
        match index {
            msr_index::ARCH_CAPABILITIES => Some(arch_capabilities),
            msr_index::PLATFORM_INFO => Some(PLATFORM_INFO_CPUID_FAULT),
            msr_index::UCODE_REV => Some(ucode_rev),
            _ => None,
        }
    }

    /// Returns the page-attribute table.
    #[must_use]
    #[allow(dead_code, reason = "for memory types of shadow paging")]
    pub(crate) const fn pat(&self) -> u64 {
        self.pat
    }

    /// Gives UMWAIT_CONTROL the value that INIT leaves.
    pub(crate) const fn reset_umwait_control(&mut self) {
        self.umwait_control = 0;
    }

    /// Returns whether MISC_ENABLE offers MONITOR and MWAIT.
    #[must_use]
    pub(crate) const fn has_mwait(&self) -> bool {
        self.misc_enable & MISC_ENABLE_MWAIT != 0
    }

    /// Returns whether CPUID raises #GP(0) outside privilege level 0.
    #[must_use]
    pub(crate) const fn cpuid_faults(&self) -> bool {
        self.misc_features_enables & CPUID_FAULT != 0
    }

    /// Returns the machine-check registers, to be changed.
    #[must_use]
    pub(crate) fn machine_check_mut(&mut self) -> &mut MachineCheck {
        &mut self.machine_check
    }

    /// Returns the value of MSR `index`.
    ///
    /// # Errors
    ///
    /// [`MsrError::Unknown`] also for what the CPU or the VMCS holds.
    pub(crate) fn read(&self, index: u32, access: &Access<'_>) -> Result<u64, MsrError> {
        match index {
            msr_index::PAT => Ok(self.pat),
            msr_index::MISC_ENABLE => Ok(self.misc_enable),
            msr_index::MISC_FEATURES_ENABLES => Ok(self.misc_features_enables),
            msr_index::PLATFORM_INFO if access.from_user || access.platform_info_readable => {
                Ok(self.platform_info)
            }
            msr_index::PLATFORM_INFO => Err(MsrError::Invalid),
            msr_index::ARCH_CAPABILITIES if access.features.has(Feature::ARCH_CAPABILITIES) => {
                Ok(self.arch_capabilities)
            }
            msr_index::UCODE_REV => Ok(self.ucode_rev),
            msr_index::FEAT_CTL => Ok(self.feat_ctl),
            msr_index::POWER_CTL => Ok(self.power_ctl),
            msr_index::SMI_COUNT => Ok(self.smi_count),
            msr_index::HWCR => Ok(self.hwcr),
            msr_index::MCG_EXT_CTL => {
                check(access.from_user || self.feat_ctl & FEAT_CTL_LMCE != 0)?;
                Ok(self.machine_check.ext_ctl())
            }
            msr_index::UMWAIT_CONTROL => {
                check(access.from_user || access.features.has(Feature::WAITPKG))?;
                Ok(self.umwait_control)
            }
            msr_index::SGX_KEY_HASH0..=msr_index::SGX_KEY_HASH3 => {
                check(access.from_user)?;
                // CAST: At most 3.
                let word = (index - msr_index::SGX_KEY_HASH0) as usize;
                self.sgx_key_hash
                    .get(word)
                    .copied()
                    .ok_or(MsrError::Unknown)
            }
            msr_index::XSS => {
                check(access.from_user || access.features.has(Feature::XSAVES))?;
                Ok(0)
            }
            msr_index::XFD | msr_index::XFD_ERR => xfd(access),
            _ if Mtrrs::owns(index) => self.mtrrs.read(index),
            _ if MachineCheck::owns(index) => self.machine_check.read(index, access.from_user),
            _ => legacy::find(index)
                .and_then(|msr| msr.read)
                .ok_or(MsrError::Unknown),
        }
    }

    /// Writes `value` to MSR `index`.
    ///
    /// # Errors
    ///
    /// [`MsrError::Unknown`] also for what the CPU or the VMCS holds.
    pub(crate) fn write(
        &mut self,
        index: u32,
        value: u64,
        access: &Access<'_>,
    ) -> Result<(), MsrError> {
        match index {
            msr_index::PAT if msr_value::is_valid_pat(value) => self.pat = value,
            msr_index::PAT => return Err(MsrError::Invalid),
            msr_index::MISC_ENABLE => self.misc_enable = self.misc_enable_after(value, access)?,
            msr_index::MISC_FEATURES_ENABLES => {
                let offered = self.platform_info & PLATFORM_INFO_CPUID_FAULT != 0;
                check(value & !CPUID_FAULT == 0 && (value == 0 || offered))?;
                self.misc_features_enables = value;
            }
            msr_index::PLATFORM_INFO => {
                check(access.from_user)?;
                self.platform_info = value;
            }
            msr_index::ARCH_CAPABILITIES
                if access.from_user && access.features.has(Feature::ARCH_CAPABILITIES) =>
            {
                self.arch_capabilities = value;
            }
            // A guest asks for the revision by writing 0 first.
            msr_index::UCODE_REV if access.from_user => self.ucode_rev = value,
            msr_index::UCODE_REV => {}
            msr_index::FEAT_CTL => {
                let locked = self.feat_ctl & FEAT_CTL_LOCKED != 0;
                let known = if access.from_user {
                    FEAT_CTL_KNOWN
                } else if self.machine_check.has_local() {
                    FEAT_CTL_LOCKED | FEAT_CTL_LMCE
                } else {
                    FEAT_CTL_LOCKED
                };
                check((access.from_user || !locked) && value & !known == 0)?;
                self.feat_ctl = value;
            }
            msr_index::POWER_CTL => self.power_ctl = value,
            msr_index::SMI_COUNT => {
                check(access.from_user)?;
                self.smi_count = value;
            }
            msr_index::HWCR => self.hwcr = hwcr_after(value)?,
            msr_index::MCG_EXT_CTL => {
                check(access.from_user || self.feat_ctl & FEAT_CTL_LMCE != 0)?;
                self.machine_check.set_ext_ctl(value)?;
            }
            // Kept, but not loaded: how deep and how long a CPU sleeps is the host's to say.
            msr_index::UMWAIT_CONTROL => {
                check(access.from_user || access.features.has(Feature::WAITPKG))?;
                check(value & !UMWAIT_KNOWN == 0)?;
                self.umwait_control = value;
            }
            // Guests have no enclaves that these are for.
            msr_index::SGX_KEY_HASH0..=msr_index::SGX_KEY_HASH3 => {
                check(access.from_user)?;
                // CAST: At most 3.
                let word = (index - msr_index::SGX_KEY_HASH0) as usize;
                if let Some(word) = self.sgx_key_hash.get_mut(word) {
                    *word = value;
                }
            }
            msr_index::XSS => check(value == xss(access)?)?,
            msr_index::XFD | msr_index::XFD_ERR => check(value == xfd(access)?)?,
            _ if Mtrrs::owns(index) => self.mtrrs.write(index, value, access.features)?,
            _ if MachineCheck::owns(index) => {
                self.machine_check.write(index, value, access.from_user)?;
            }
            _ => match legacy::find(index).map(|msr| msr.write) {
                Some(Write::Ignored) => {}
                Some(Write::Zero) => check(value == 0)?,
                Some(Write::Refused) | None => return Err(MsrError::Unknown),
            },
        }
        Ok(())
    }

    /// Returns what MISC_ENABLE becomes by a write of `value`.
    fn misc_enable_after(&self, value: u64, access: &Access<'_>) -> Result<u64, MsrError> {
        let old = self.misc_enable;
        let new = if access.from_user {
            value
        } else {
            check((old ^ value) & MISC_ENABLE_NO_TRACE == 0)?;
            (value & !MISC_ENABLE_EMON) | (old & MISC_ENABLE_EMON)
        };
        if access.misc_enable_mwait && (old ^ new) & MISC_ENABLE_MWAIT != 0 {
            check(access.features.has(Feature::SSE3))?;
        }
        Ok(new)
    }
}

/// Returns an error unless `allowed`.
const fn check(allowed: bool) -> Result<(), MsrError> {
    if allowed {
        Ok(())
    } else {
        Err(MsrError::Invalid)
    }
}

/// Returns XSS, which is 0: no supervisor component is virtualised.
fn xss(access: &Access<'_>) -> Result<u64, MsrError> {
    if access.features.has(Feature::XSAVES) {
        Ok(0)
    } else {
        Err(MsrError::Unknown)
    }
}

/// Returns XFD or XFD_ERR, which are 0: no component can be disabled, and guests do not have them.
fn xfd(access: &Access<'_>) -> Result<u64, MsrError> {
    check(access.from_user)?;
    Ok(0)
}

/// Returns what HWCR becomes by a write of `value`.
fn hwcr_after(value: u64) -> Result<u64, MsrError> {
    // Controls of caches and TLBs that need no action.
    const IGNORED: u64 = (1 << 3) | (1 << 6) | (1 << 8);
    // McStatusWrEn, and TscFreqSel, which Linux wants to see.
    const KEPT: u64 = (1 << 18) | (1 << 24);
    let value = value & !IGNORED;
    check(value & !KEPT == 0)?;
    Ok(value)
}
