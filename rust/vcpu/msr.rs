// SPDX-License-Identifier: GPL-2.0

//! RDMSR and WRMSR, and KVM_GET_MSRS and KVM_SET_MSRS, on all MSRs of a vCPU.
//!
//! Each MSR has one home: the VMCS, the state that is switched lazily, the local APIC, or
//! [`GuestMsrs`](crate::x86::guest_msr::GuestMsrs) for those that no hardware holds.

use super::{
    pending::Pending,
    request::Request,
    state::{
        State,
        RCX, //
    },
    Owned,
    Vcpu, //
};
use crate::{
    bindings,
    lapic::{
        self,
        Lvt, //
    },
    linux::speculation::{
        self,
        Command, //
    },
    trace,
    vm::{
        msr_filter::Direction,
        settings::Quirk,
        Vm, //
    },
    vmx::{
        field::{
            self,
            Natural, //
        },
        flexpriority::Accesses,
        msr_bitmap::{
            Direct,
            MsrBitmap, //
        },
        vmcs::CurrentVmcs, //
    },
    x86::{
        control_regs::{
            rules,
            Cr4,
            Efer, //
        },
        cpuid::{
            Feature,
            GuestFeatures, //
        },
        exception::{
            Exception,
            Vector, //
        },
        guest_msr::{
            Access,
            Effect,
            MsrError,
            Reported, //
        },
        msr_index,
        msr_value,
        segment_register::SegmentRegister, //
    }, //
};

use kernel::prelude::*;

/// First and last MSR of the x2APIC.
const X2APIC: core::ops::RangeInclusive<u32> = 0x800..=0x8ff;

/// Its TPR.
const X2APIC_TPR: u32 = 0x808;

/// Returns what decides about accesses to MSRs.
fn access<'a>(vm: &Vm, features: &'a GuestFeatures, from_user: bool) -> Access<'a> {
    let settings = vm.settings();
    Access {
        features,
        from_user,
        platform_info_readable: settings.platform_info_readable(),
        misc_enable_mwait: !settings.has(Quirk::MiscEnableNoMwait),
    }
}

/// Returns KVM_MSR_EXIT_REASON_* of a failed access.
fn exit_reason(error: MsrError) -> u32 {
    match error {
        MsrError::Invalid => bindings::KVM_MSR_EXIT_REASON_INVAL,
        MsrError::Unknown => bindings::KVM_MSR_EXIT_REASON_UNKNOWN,
    }
}

/// Returns whether the guest has IA32_SPEC_CTRL.
fn has_spec_ctrl(features: &GuestFeatures) -> bool {
    features.has(Feature::SPEC_CTRL)
        || features.has(Feature::AMD_STIBP)
        || features.has(Feature::AMD_IBRS)
        || features.has(Feature::AMD_SSBD)
}

/// Returns whether the guest has a command.
fn has_command(features: &GuestFeatures, command: Command) -> bool {
    match command {
        Command::PredictionBarrier => {
            features.has(Feature::SPEC_CTRL) || features.has(Feature::AMD_IBPB)
        }
        Command::FlushL1d => features.has(Feature::FLUSH_L1D),
    }
}

impl State {
    /// Returns the value of an MSR.
    pub(crate) fn read_msr(
        &mut self,
        vm: &Vm,
        vcpu: &Vcpu,
        vmcs: &CurrentVmcs<'_>,
        index: u32,
        from_user: bool,
    ) -> Result<u64, MsrError> {
        Ok(match index {
            msr_index::FS_BASE => self.segment_base(vmcs, SegmentRegister::Fs),
            msr_index::GS_BASE => self.segment_base(vmcs, SegmentRegister::Gs),
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
            msr_index::SPEC_CTRL if from_user || has_spec_ctrl(&self.features) => {
                self.regs.spec_ctrl
            }
            msr_index::SPEC_CTRL => return Err(MsrError::Invalid),
            msr_index::TSC => self.tsc.now(),
            msr_index::TSC_ADJUST => self.tsc_adjust,
            msr_index::APIC_BASE => vcpu.apic_base(self),
            index if X2APIC.contains(&index) => {
                if !from_user {
                    self.report_tpr_access(vcpu, vmcs, index, false);
                }
                return vcpu.read_x2apic(self, index);
            }
            msr_index::TSC_DEADLINE => return vcpu.read_tsc_deadline(self),
            msr_index::KVM_SYSTEM_TIME
            | msr_index::KVM_WALL_CLOCK
            | msr_index::KVM_FIRST..=msr_index::KVM_LAST => return self.read_pv_msr(vm, index),
            _ => {
                return self
                    .msrs
                    .read(index, &access(vm, &self.features, from_user))
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
                self.load_segment_base(vmcs, SegmentRegister::Fs, value);
            }
            msr_index::GS_BASE => {
                let value = msr_value::address(value, &self.features)?;
                self.load_segment_base(vmcs, SegmentRegister::Gs, value);
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
            msr_index::SPEC_CTRL => self.write_spec_ctrl(vcpu, value, from_user)?,
            msr_index::PRED_CMD => {
                self.give_command(Command::PredictionBarrier, value, from_user)?;
            }
            msr_index::FLUSH_CMD => {
                self.give_command(Command::FlushL1d, value, from_user)?;
            }
            msr_index::TSC if from_user => self.synchronize_tsc(vm, vcpu, vmcs, Some(value)),
            msr_index::TSC => self.write_tsc(vcpu, vmcs, value),
            msr_index::TSC_ADJUST => {
                // Without the feature it is ignored, as in KVM.
                if self.features.has(Feature::TSC_ADJUST) {
                    self.write_tsc_adjust(vcpu, vmcs, value, from_user);
                }
            }
            msr_index::APIC_BASE => {
                return vcpu
                    .set_apic_base(vm, self, value, from_user)
                    .map_err(MsrError::from)
            }
            index if X2APIC.contains(&index) => {
                if !from_user {
                    self.report_tpr_access(vcpu, vmcs, index, true);
                }
                return vcpu.write_x2apic(vm, self, index, value);
            }
            msr_index::TSC_DEADLINE => return vcpu.write_tsc_deadline(self, value),
            msr_index::KVM_SYSTEM_TIME
            | msr_index::KVM_WALL_CLOCK
            | msr_index::KVM_FIRST..=msr_index::KVM_LAST => {
                return self.write_pv_msr(vm, vcpu, index, value);
            }
            msr_index::PAT => {
                self.msrs
                    .write(index, value, &access(vm, &self.features, from_user))?;
                self.write_hardware_pat(vmcs, value);
            }
            _ => {
                self.msrs
                    .write(index, value, &access(vm, &self.features, from_user))?;
                // MISC_ENABLE shows in CPUID.
                self.cpuid_stale |= index == msr_index::MISC_ENABLE;
            }
        }
        Ok(())
    }

    /// Has the client hear of an access to MSR `index`, if it is the x2APIC's TPR.
    fn report_tpr_access(&mut self, vcpu: &Vcpu, vmcs: &CurrentVmcs<'_>, index: u32, write: bool) {
        if index == X2APIC_TPR && self.vapic.reports() {
            let rip = self.rip(vmcs);
            vcpu.report_tpr_access(self, rip, write);
        }
    }

    /// Returns the value of an MSR for the guest; KVM_MSR_EXIT_REASON_* if it may not have it.
    #[inline]
    pub(super) fn read_filtered_msr(
        &mut self,
        vm: &Vm,
        vcpu: &Vcpu,
        vmcs: &CurrentVmcs<'_>,
        index: u32,
    ) -> Result<u64, u32> {
        if self.is_filtered(index, Direction::Read) {
            return Err(bindings::KVM_MSR_EXIT_REASON_FILTER);
        }
        self.read_msr(vm, vcpu, vmcs, index, false)
            .map_err(exit_reason)
    }

    /// Writes an MSR for the guest; KVM_MSR_EXIT_REASON_* if it may not.
    #[inline]
    pub(super) fn write_filtered_msr(
        &mut self,
        vm: &Vm,
        vcpu: &Vcpu,
        vmcs: &CurrentVmcs<'_>,
        index: u32,
        value: u64,
    ) -> Result<(), u32> {
        if self.is_filtered(index, Direction::Write) {
            return Err(bindings::KVM_MSR_EXIT_REASON_FILTER);
        }
        self.write_msr(vm, vcpu, vmcs, index, value, false)
            .map_err(exit_reason)
    }

    /// Does RDMSR of the guest; returns whether it is done, and not left to the client.
    pub(crate) fn rdmsr(&mut self, vm: &Vm, vcpu: &Vcpu, vmcs: &CurrentVmcs<'_>) -> bool {
        // CAST: The instruction takes ECX.
        let index = self.gpr(RCX) as u32;
        match self.read_filtered_msr(vm, vcpu, vmcs, index) {
            Ok(value) => {
                trace::kvm_msr(|| (false, index, value, false));
                self.set_edx_eax(value);
                self.skip_instruction(vmcs);
                true
            }
            Err(reason) => self.fail_msr(vm, vcpu, vmcs, reason, (index, None)),
        }
    }

    /// Does WRMSR of the guest; returns whether it is done, and not left to the client.
    pub(crate) fn wrmsr(&mut self, vm: &Vm, vcpu: &Vcpu, vmcs: &CurrentVmcs<'_>) -> bool {
        // CAST: The instruction takes ECX.
        let (index, value) = (self.gpr(RCX) as u32, self.edx_eax());
        match self.write_filtered_msr(vm, vcpu, vmcs, index, value) {
            Ok(()) => {
                trace::kvm_msr(|| (true, index, value, false));
                self.skip_instruction(vmcs);
                true
            }
            Err(reason) => self.fail_msr(vm, vcpu, vmcs, reason, (index, Some(value))),
        }
    }

    /// Returns whether the VM's filter denies the access.
    #[inline]
    fn is_filtered(&self, index: u32, direction: Direction) -> bool {
        self.msr_filter
            .as_ref()
            .is_some_and(|filter| !filter.allows(index, direction))
    }

    /// Asks the client about an access that failed, if it wants that, or raises #GP(0).
    ///
    /// Returns whether the exit is done.
    #[cold]
    fn fail_msr(
        &mut self,
        vm: &Vm,
        vcpu: &Vcpu,
        vmcs: &CurrentVmcs<'_>,
        reason: u32,
        (index, written): (u32, Option<u64>),
    ) -> bool {
        if !vm.settings().asks_user(reason) {
            trace::kvm_msr(|| (written.is_some(), index, written.unwrap_or(0), true));
            self.raise(Exception::general_protection());
            return true;
        }
        let exit = match written {
            None => bindings::KVM_EXIT_X86_RDMSR,
            Some(_) => bindings::KVM_EXIT_X86_WRMSR,
        };
        vcpu.run_page()
            .set_msr(exit, reason, index, written.unwrap_or(0));
        self.pending = Some(Pending::Msr {
            read: written.is_none(),
            length: vmcs.read(field::VM_EXIT_INSTRUCTION_LENGTH),
        });
        false
    }

    /// Finishes an access that the client has done.
    pub(crate) fn complete_msr(
        &mut self,
        vcpu: &Vcpu,
        vmcs: &CurrentVmcs<'_>,
        read: bool,
        length: u32,
    ) {
        let Some(data) = vcpu.run_page().msr_data() else {
            self.raise(Exception::general_protection());
            return;
        };
        if read {
            self.set_edx_eax(data);
        }
        self.advance(vmcs, length);
    }

    /// Writes IA32_SPEC_CTRL, which the guest has to itself from the first value that is not 0.
    fn write_spec_ctrl(
        &mut self,
        vcpu: &Vcpu,
        value: u64,
        from_user: bool,
    ) -> Result<(), MsrError> {
        let has_it = from_user || has_spec_ctrl(&self.features);
        if !has_it || !speculation::accepts_spec_ctrl(value) {
            return Err(MsrError::Invalid);
        }
        self.regs.spec_ctrl = value;
        if value != 0 && self.regs.spec_ctrl_direct == 0 {
            vcpu.doorbell().set(Request::Intercepts);
        }
        Ok(())
    }

    /// Does what a write of PRED_CMD or FLUSH_CMD asks for: bit 0 is the command.
    fn give_command(&self, command: Command, value: u64, from_user: bool) -> Result<(), MsrError> {
        let has_it = from_user || has_command(&self.features, command);
        let known = u64::from(command.is_known());
        // What a CPU without IBPB can be told of PRED_CMD is nothing, and of FLUSH_CMD not even that.
        let exists = known != 0 || command == Command::PredictionBarrier;
        if !has_it || !exists || value & !known != 0 {
            return Err(MsrError::Invalid);
        }
        if value != 0 {
            command.give();
        }
        Ok(())
    }

    /// Returns which MSRs this guest, unlike others, should access without an exit.
    fn direct_msrs(&self) -> Direct {
        let commands =
            |command: Command| command.is_known() && has_command(&self.features, command);
        Direct {
            spec_ctrl: self.regs.spec_ctrl != 0,
            pred_cmd: commands(Command::PredictionBarrier),
            flush_cmd: commands(Command::FlushL1d),
            x2apic_tpr: self.accesses == Accesses::X2apic,
            cstates: self.disabled_exits.cstates(),
            aperf_mperf: self.disabled_exits.aperf_mperf(),
            x2apic_reads: if self.accesses == Accesses::X2apic && self.apicv.is_active() {
                lapic::VIRTUALIZED_READS
            } else {
                0
            },
        }
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
        if !self.direct_msrs().is_none() || self.msr_bitmap.is_some() {
            vcpu.doorbell().set(Request::Intercepts);
        }
    }
}

impl Owned {
    /// Takes the VM's MSR filter as it is now, and lets the guest access directly what it uses.
    pub(crate) fn update_intercepts(&mut self, vm: &Vm) {
        let filter = vm.settings().msr_filter();
        let direct = self.state.direct_msrs();
        let own = if direct.is_none() {
            None
        } else {
            let bitmap = match &filter {
                Some(filter) => filter.bitmap_with(direct),
                None => MsrBitmap::filtered(direct, |_, _| true),
            };
            // Without memory for it, accesses exit and are as right.
            bitmap.ok()
        };
        let shared = filter
            .as_ref()
            .map_or(&vm.hypervisor().msr_bitmap, |filter| &filter.bitmap);
        let bitmap = own.as_ref().unwrap_or(shared);
        let (address, spec_ctrl) = (bitmap.address(), bitmap.passes_spec_ctrl());
        let old = self.with_vmcs(|vmcs, state| {
            vmcs.write(field::MSR_BITMAP, address.value());
            state.regs.spec_ctrl_direct = u32::from(spec_ctrl);
            (
                core::mem::replace(&mut state.msr_filter, filter),
                core::mem::replace(&mut state.msr_bitmap, own),
            )
        });
        // Dropped with preemption on.
        drop(old);
    }

    /// Returns whether KVM_SET_MSRS may write `value`: once the vCPU has run, what makes up its model
    /// stays.
    pub(crate) fn may_set_msr(&mut self, vm: &Vm, vcpu: &Vcpu, index: u32, value: u64) -> bool {
        if !self.state.has_run || !msr_index::is_immutable(index) {
            return true;
        }
        self.with_vmcs(|vmcs, state| state.read_msr(vm, vcpu, vmcs, index, true)) == Ok(value)
    }

    /// Reports a machine check that the client makes up; `EINVAL` if there is no such bank or the
    /// status is not valid.
    pub(crate) fn inject_machine_check(
        &mut self,
        vcpu: &Vcpu,
        bank: u8,
        error: &Reported,
    ) -> Result {
        self.with_vmcs(|vmcs, state| {
            let enabled = state.cr4(vmcs).contains(Cr4::MCE);
            let effect = state.msrs.machine_check_mut().report(bank, error, enabled);
            match effect.map_err(|_| EINVAL)? {
                Effect::None => {}
                Effect::Exception => state.raise(Exception {
                    vector: Vector::MC,
                    error_code: None,
                    payload: None,
                }),
                Effect::Shutdown => state.events.triple_fault = true,
                Effect::Interrupt => vcpu.signal(Lvt::Cmci),
            }
            Ok(())
        })
    }
}
