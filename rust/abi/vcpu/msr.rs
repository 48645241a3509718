// SPDX-License-Identifier: GPL-2.0

//! MSRs of a vCPU for its client: in bulk, or one by one as registers (KVM_GET_ONE_REG).

use super::super::msr_list;
use crate::{
    bindings::*,
    linux::uaccess,
    vcpu::{
        Owned,
        Vcpu, //
    },
    vm::Vm,
    x86::{
        guest_msr::MsrError,
        msr_index, //
    }, //
};
use kernel::prelude::*;

/// The upper half of the name of a register that is an MSR: the architecture, 64 bits, the type.
const MSR_REGISTER: u32 = (KVM_REG_X86 >> 32) as u32 // CAST: The upper half.
    | (KVM_REG_SIZE_U64 >> 32) as u32
    | KVM_X86_REG_TYPE_MSR;

/// Reads an MSR; `None` if there is no such one, or it cannot be read.
fn read(vm: &Vm, vcpu: &Vcpu, owned: &mut Owned, index: u32) -> Option<u64> {
    let features = &vm.hypervisor().model.features;
    match owned.with_vmcs(|vmcs, state| state.read_msr(vm, vcpu, vmcs, index, true)) {
        Ok(value) => Some(value),
        Err(MsrError::Unknown) if msr_index::is_forgiven(index, 0, features) => Some(0),
        Err(_) => None,
    }
}

/// Writes an MSR; `None` if there is no such one, or it does not take the value.
fn write(vm: &Vm, vcpu: &Vcpu, owned: &mut Owned, index: u32, value: u64) -> Option<()> {
    let features = &vm.hypervisor().model.features;
    if !owned.may_set_msr(vm, vcpu, index, value) {
        return None;
    }
    match owned.with_vmcs(|vmcs, state| state.write_msr(vm, vcpu, vmcs, index, value, true)) {
        Ok(()) => {
            owned.settle_wall_clock(vm);
            Some(())
        }
        Err(MsrError::Unknown) if msr_index::is_forgiven(index, value, features) => Some(()),
        Err(_) => None,
    }
}

/// KVM_GET_MSRS.
pub(super) fn get(vm: &Vm, vcpu: &Vcpu, owned: &mut Owned, argument: usize) -> Result<isize> {
    msr_list::access(argument, true, |entry| {
        entry.data = read(vm, vcpu, owned, entry.index)?;
        Some(())
    })
}

/// KVM_SET_MSRS.
pub(super) fn set(vm: &Vm, vcpu: &Vcpu, owned: &mut Owned, argument: usize) -> Result<isize> {
    msr_list::access(argument, false, |entry| {
        write(vm, vcpu, owned, entry.index, entry.data)
    })
}

/// Returns the MSR that a register's name stands for.
fn index_of(register: &kvm_one_reg) -> Result<u32> {
    // CAST: The two halves.
    if (register.id >> 32) as u32 == MSR_REGISTER {
        Ok(register.id as u32)
    } else {
        Err(EINVAL)
    }
}

/// Returns where the value of a register is, or is to be put.
fn address_of(register: &kvm_one_reg) -> usize {
    // CAST: The kernel runs in 64-bit mode only.
    register.addr as usize
}

/// KVM_GET_ONE_REG.
pub(super) fn get_one(vm: &Vm, vcpu: &Vcpu, owned: &mut Owned, register: &kvm_one_reg) -> Result {
    let value = read(vm, vcpu, owned, index_of(register)?).ok_or(EINVAL)?;
    uaccess::write(address_of(register), &value)
}

/// KVM_SET_ONE_REG.
pub(super) fn set_one(vm: &Vm, vcpu: &Vcpu, owned: &mut Owned, register: &kvm_one_reg) -> Result {
    let index = index_of(register)?;
    let value = uaccess::read(address_of(register))?;
    write(vm, vcpu, owned, index, value).ok_or(EINVAL)
}
