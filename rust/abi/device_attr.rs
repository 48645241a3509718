// SPDX-License-Identifier: GPL-2.0

//! KVM_{HAS,GET,SET}_DEVICE_ATTR on `/dev/kvm-rs` and on vCPUs: 64-bit values, by group and number.
//!
//! `ENXIO` for an attribute that is not there.

use super::command::command;
use crate::{
    bindings::*,
    hypervisor::Hypervisor,
    linux::uaccess,
    vcpu::{
        Owned,
        Vcpu, //
    },
    vm::Vm, //
};
use kernel::prelude::*;

/// An attribute of the device: it has one group, 0, and can only be read.
pub(super) fn of_system(hypervisor: &Hypervisor, command: u32, argument: usize) -> Result<isize> {
    let attribute = command!(KVM_RS_IOCTL_GET_DEVICE_ATTR: kvm_device_attr).read(argument)?;
    if attribute.group != 0 || attribute.attr != u64::from(KVM_X86_XCOMP_GUEST_SUPP) {
        return Err(ENXIO);
    }
    if command == KVM_RS_IOCTL_GET_DEVICE_ATTR {
        let xcr0 = hypervisor.model.supported.xcr0();
        uaccess::write(address(&attribute), &xcr0)?;
    }
    Ok(0)
}

/// An attribute of a vCPU: the offset of its time-stamp counter from the host's.
pub(super) fn of_vcpu(
    vm: &Vm,
    vcpu: &Vcpu,
    owned: &mut Owned,
    command: u32,
    argument: usize,
) -> Result<isize> {
    let attribute = command!(KVM_RS_IOCTL_SET_DEVICE_ATTR: kvm_device_attr).read(argument)?;
    if attribute.group != KVM_VCPU_TSC_CTRL || attribute.attr != u64::from(KVM_VCPU_TSC_OFFSET) {
        return Err(ENXIO);
    }
    match command {
        KVM_RS_IOCTL_GET_DEVICE_ATTR => {
            uaccess::write(address(&attribute), &owned.state.tsc.offset)?;
        }
        KVM_RS_IOCTL_SET_DEVICE_ATTR => {
            let offset = uaccess::read(address(&attribute))?;
            owned.with_vmcs(|vmcs, state| state.give_tsc_offset(vm, vcpu, vmcs, offset));
        }
        _ => {}
    }
    Ok(0)
}

/// Returns where the value is, or is to be put.
fn address(attribute: &kvm_device_attr) -> usize {
    // CAST: The kernel runs in 64-bit mode only.
    attribute.addr as usize
}
