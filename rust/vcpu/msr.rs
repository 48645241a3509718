// SPDX-License-Identifier: GPL-2.0

//! RDMSR and WRMSR, and KVM_GET_MSRS and KVM_SET_MSRS, on all MSRs of a vCPU.
//!
//! Each MSR has one home: the VMCS, the state that is switched lazily, the local APIC, or
//! [`GuestMsrs`](crate::x86::guest_msr::GuestMsrs) for those that no hardware holds.

use super::{
    state::State,
    Vcpu, //
};
use crate::{
    linux::cpu_call::rdtsc,
    vm::Vm,
    vmx::{
        field::{
            self,
            Natural, //
        },
        vmcs::CurrentVmcs, //
    },
    x86::{
        control_regs::{
            rules,
            Efer, //
        },
        cpuid::{
            Feature,
            GuestFeatures, //
        },
        guest_msr::{
            Access,
            MsrError, //
        },
        msr_index,
        msr_value, //
    }, //
};

/// First and last MSR of the x2APIC.
const X2APIC: core::ops::RangeInclusive<u32> = 0x800..=0x8ff;

/// Returns what decides about accesses to MSRs.
fn msr_access(features: &GuestFeatures, from_user: bool) -> Access<'_> {
    Access {
        features,
        from_user,
        platform_info_readable: true,
        misc_enable_mwait: false,
    }
}

impl State {
    /// Returns the value of an MSR.
    pub(crate) fn read_msr(
        &mut self,
        vcpu: &Vcpu,
        vmcs: &CurrentVmcs<'_>,
        index: u32,
        from_user: bool,
    ) -> Result<u64, MsrError> {
        Ok(match index {
            msr_index::FS_BASE => vmcs.read(field::GUEST_FS_BASE).0,
            msr_index::GS_BASE => vmcs.read(field::GUEST_GS_BASE).0,
            msr_index::SYSENTER_CS => u64::from(vmcs.read(field::GUEST_SYSENTER_CS)),
            msr_index::SYSENTER_ESP => vmcs.read(field::GUEST_SYSENTER_ESP).0,
            msr_index::SYSENTER_EIP => vmcs.read(field::GUEST_SYSENTER_EIP).0,
            msr_index::DEBUGCTL => vmcs.read(field::GUEST_DEBUGCTL),
            msr_index::EFER => self.efer.value(),
            msr_index::KERNEL_GS_BASE => vcpu.lazy_msrs().kernel_gs_base,
            msr_index::STAR => vcpu.lazy_msrs().star,
            msr_index::LSTAR => vcpu.lazy_msrs().lstar,
            msr_index::CSTAR => vcpu.lazy_msrs().cstar,
            msr_index::SYSCALL_MASK => vcpu.lazy_msrs().fmask,
            msr_index::TSC_AUX => {
                if !msr_value::has_tsc_aux(&self.features, from_user) {
                    return Err(MsrError::Unknown);
                }
                vcpu.lazy_msrs().tsc_aux
            }
            msr_index::TSC => rdtsc().wrapping_add(self.tsc_offset),
            msr_index::APIC_BASE => vcpu.apic_base(self),
            index if X2APIC.contains(&index) => return vcpu.read_x2apic(self, index),
            msr_index::TSC_DEADLINE => return vcpu.read_tsc_deadline(self),
            _ => {
                return self
                    .msrs
                    .read(index, &msr_access(&self.features, from_user))
            }
        })
    }

    /// Writes an MSR.
    pub(crate) fn write_msr(
        &mut self,
        vm: &Vm,
        vcpu: &Vcpu,
        vmcs: &CurrentVmcs<'_>,
        index: u32,
        value: u64,
        from_user: bool,
    ) -> Result<(), MsrError> {
        match index {
            msr_index::FS_BASE => {
                let value = msr_value::address(value, &self.features)?;
                vmcs.write(field::GUEST_FS_BASE, Natural(value));
            }
            msr_index::GS_BASE => {
                let value = msr_value::address(value, &self.features)?;
                vmcs.write(field::GUEST_GS_BASE, Natural(value));
            }
            // CAST: The upper half of the MSR is ignored.
            msr_index::SYSENTER_CS => vmcs.write(field::GUEST_SYSENTER_CS, value as u32),
            msr_index::SYSENTER_ESP => {
                let value = msr_value::sysenter_address(value, &self.features);
                vmcs.write(field::GUEST_SYSENTER_ESP, Natural(value));
            }
            msr_index::SYSENTER_EIP => {
                let value = msr_value::sysenter_address(value, &self.features);
                vmcs.write(field::GUEST_SYSENTER_EIP, Natural(value));
            }
            msr_index::DEBUGCTL => {
                let value = msr_value::debugctl(value)?;
                vmcs.write(field::GUEST_DEBUGCTL, value);
            }
            msr_index::EFER => self.write_efer(vcpu, vmcs, value, from_user)?,
            msr_index::KERNEL_GS_BASE => {
                let value = msr_value::address(value, &self.features)?;
                vcpu.update_lazy_msrs(|msrs| msrs.kernel_gs_base = value);
            }
            msr_index::STAR => vcpu.update_lazy_msrs(|msrs| msrs.star = value),
            msr_index::LSTAR => {
                let value = msr_value::address(value, &self.features)?;
                vcpu.update_lazy_msrs(|msrs| msrs.lstar = value);
            }
            msr_index::CSTAR => {
                let value = msr_value::address(value, &self.features)?;
                vcpu.update_lazy_msrs(|msrs| msrs.cstar = value);
            }
            msr_index::SYSCALL_MASK => {
                // The register has 32 bits; the rest of the MSR is reserved.
                if value >> 32 != 0 {
                    return Err(MsrError::Invalid);
                }
                vcpu.update_lazy_msrs(|msrs| msrs.fmask = value);
            }
            msr_index::TSC_AUX => {
                if !msr_value::has_tsc_aux(&self.features, from_user) {
                    return Err(MsrError::Unknown);
                }
                let value = u64::from(msr_value::tsc_aux(value)?);
                vcpu.update_lazy_msrs(|msrs| msrs.tsc_aux = value);
            }
            msr_index::TSC => {
                self.tsc_offset = value.wrapping_sub(rdtsc());
                vmcs.write(field::TSC_OFFSET, self.tsc_offset);
                // A deadline is in guest time.
                vcpu.on_timer(self);
            }
            msr_index::APIC_BASE => {
                return vcpu
                    .set_apic_base(self, value, from_user)
                    .map_err(MsrError::from)
            }
            index if X2APIC.contains(&index) => {
                return vcpu.write_x2apic(vm, self, index, value);
            }
            msr_index::TSC_DEADLINE => return vcpu.write_tsc_deadline(self, value),
            msr_index::PAT => {
                let access = msr_access(&self.features, from_user);
                self.msrs.write(index, value, &access)?;
                vmcs.write(field::GUEST_PAT, value);
            }
            _ => {
                let access = msr_access(&self.features, from_user);
                self.msrs.write(index, value, &access)?;
            }
        }
        Ok(())
    }

    /// Writes EFER.
    fn write_efer(
        &mut self,
        vcpu: &Vcpu,
        vmcs: &CurrentVmcs<'_>,
        value: u64,
        from_user: bool,
    ) -> Result<(), MsrError> {
        let value = Efer::new(value);
        let new = if from_user {
            rules::check_efer_from_user(self.efer, value, self.features.efer_supported)?
        } else {
            rules::check_efer(self.efer, value, self.cr0(vmcs), self.features.efer_allowed)?
        };
        self.load_efer(vmcs, new);
        vcpu.update_lazy_msrs(|msrs| msrs.syscall = new.contains(Efer::SCE));
        Ok(())
    }

    /// Tells the lazily switched state what the guest's new CPUID lets it use.
    pub(crate) fn follow_cpuid(&self, vcpu: &Vcpu) {
        let rdtscp = self.features.has(Feature::RDTSCP) || self.features.has(Feature::RDPID);
        let syscall = self.efer.contains(Efer::SCE);
        vcpu.update_lazy_msrs(|msrs| {
            msrs.rdtscp = rdtscp;
            msrs.syscall = syscall;
        });
    }
}
