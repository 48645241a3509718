// SPDX-License-Identifier: GPL-2.0

//! Exits for accesses to control and debug registers.

use super::{
    finish_or_fault,
    raise,
    unexpected,
    Later,
    Step, //
};
use crate::{
    bindings,
    trace,
    vcpu::{
        control::{
            self,
            Written, //
        },
        run::Next,
        state::{
            State,
            RCX, //
        },
        Owned,
        Vcpu, //
    },
    vm::Vm,
    vmx::{
        exit::{
            ControlAccess,
            DebugAccess, //
        },
        vmcs::CurrentVmcs, //
    },
    x86::{
        control_regs::{
            rules,
            Cr0,
            Cr4,
            Xcr0, //
        },
        exception::{
            Exception,
            Vector, //
        }, //
    }, //
};
use kernel::prelude::*;

/// Does a MOV to or from a control register, CLTS or LMSW.
pub(super) fn control(
    vcpu: &Vcpu,
    vmcs: &CurrentVmcs<'_>,
    state: &mut State,
    access: ControlAccess,
) -> Step {
    let write_cr0 = |state: &mut State, value| {
        let result = state.write_cr0(vmcs, value, None);
        written(vmcs, state, result, |cr3| Later::LoadCr0(value, cr3))
    };
    match access {
        ControlAccess::Write(register, gpr) => {
            let value = state.gpr_with(vmcs, usize::from(gpr));
            let value = if state.is_64bit(vmcs) {
                value
            } else {
                value & 0xffff_ffff
            };
            trace::kvm_cr(|| (true, u32::from(register), value));
            match register {
                0 => write_cr0(state, value),
                3 => {
                    let result = state.write_cr3(vmcs, value, None);
                    written(vmcs, state, result, |cr3| Later::LoadCr3(value, cr3))
                }
                4 => {
                    let result = state.write_cr4(vmcs, value, None);
                    written(vmcs, state, result, |cr3| Later::LoadCr4(value, cr3))
                }
                8 => write_cr8(vcpu, vmcs, state, value),
                _ => unexpected(vcpu, state),
            }
        }
        ControlAccess::Read(3, gpr) => {
            let cr3 = state.cr3(vmcs);
            state.set_gpr(usize::from(gpr), cr3);
            state.skip_instruction(vmcs);
            Step::Resume
        }
        ControlAccess::Read(8, gpr) => {
            let cr8 = vcpu.cr8(state);
            trace::kvm_cr(|| (false, 8, u64::from(cr8)));
            state.set_gpr(usize::from(gpr), u64::from(cr8));
            state.skip_instruction(vmcs);
            Step::Resume
        }
        ControlAccess::Read(..) => unexpected(vcpu, state),
        ControlAccess::ClearTaskSwitched => {
            let value = state.cr0(vmcs).without(Cr0::TS).value();
            trace::kvm_cr(|| (true, 0, value));
            write_cr0(state, value)
        }
        ControlAccess::LoadMachineStatus(word) => {
            // LMSW sets PE, MP, EM and TS, and cannot clear PE.
            let old = state.cr0(vmcs).value();
            let value = (old & !0xe) | u64::from(word & 0xf);
            trace::kvm_cr(|| (true, 0, value));
            write_cr0(state, value)
        }
    }
}

/// Ends a write of a control register, or leaves it for when the PDPTEs are there.
fn written(
    vmcs: &CurrentVmcs<'_>,
    state: &mut State,
    result: Result<Written, rules::GpFault>,
    later: impl FnOnce(u64) -> Later,
) -> Step {
    match result {
        Ok(Written::NeedsPdptes(cr3)) => Step::Later(later(cr3)),
        result => finish_or_fault(vmcs, state, result),
    }
}

/// Sets the task priority; a client that has the local APIC is told when it falls.
fn write_cr8(vcpu: &Vcpu, vmcs: &CurrentVmcs<'_>, state: &mut State, value: u64) -> Step {
    let Ok(new) = rules::check_cr8(value) else {
        return raise(state, Exception::general_protection());
    };
    let old = vcpu.cr8(state);
    vcpu.set_cr8(state, new);
    state.skip_instruction(vmcs);
    if vcpu.controller().is_some() || old <= new {
        Step::Resume
    } else {
        vcpu.run_page().set_plain(bindings::KVM_EXIT_SET_TPR);
        Step::ToUser
    }
}

/// Writes a control register once the PDPTEs are read from guest memory.
pub(super) fn load_control(
    vm: &Vm,
    owned: &mut Owned,
    cr3: u64,
    write: impl FnOnce(&mut State, &CurrentVmcs<'_>, [u64; 4]) -> Result<(), rules::GpFault>,
) -> Result<Next> {
    let pdptes = control::read_pdptes(vm.memory(), &owned.state.features, cr3);
    owned.with_vmcs(|vmcs, state| {
        let result = pdptes.and_then(|pdptes| write(state, vmcs, pdptes));
        finish_or_fault(vmcs, state, result);
    });
    Ok(Next::Resume)
}

/// Lets the guest execute a MOV to or from a debug register, or does it.
pub(super) fn debug(
    vcpu: &Vcpu,
    vmcs: &CurrentVmcs<'_>,
    state: &mut State,
    access: DebugAccess,
) -> Step {
    if let Err(exception) = state.check_debug_access(vmcs, access.register) {
        if exception.vector == Vector::DB && state.guest_debug.has_breakpoints() {
            vcpu.report_debug(vmcs, state, exception.payload.unwrap_or(0));
            return Step::ToUser;
        }
        return raise(state, exception);
    }
    if state.lease_debug_registers(vmcs) {
        return Step::Resume;
    }
    let gpr = usize::from(access.gpr);
    if access.read {
        let value = state.read_debug_register(access.register);
        state.set_gpr(gpr, value);
    } else {
        let value = state.gpr_with(vmcs, gpr);
        if let Err(exception) = state.write_debug_register(vmcs, access.register, value) {
            return raise(state, exception);
        }
    }
    state.skip_instruction(vmcs);
    Step::Resume
}

/// Does an XSETBV.
pub(super) fn xsetbv(vmcs: &CurrentVmcs<'_>, state: &mut State) -> Step {
    // CAST: The instruction takes ECX.
    let index = state.gpr(RCX) as u32;
    let value = state.edx_eax();
    if !state.cr4(vmcs).contains(Cr4::OSXSAVE) {
        return raise(state, Exception::invalid_opcode());
    }
    if index != 0 || state.cpl(vmcs) != 0 {
        return raise(state, Exception::general_protection());
    }
    let result =
        rules::check_xcr0(Xcr0::new(value), state.features.xcr0).map(|xcr0| state.load_xcr0(xcr0));
    finish_or_fault(vmcs, state, result)
}
