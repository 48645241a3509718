// SPDX-License-Identifier: GPL-2.0

//! The ioctls that save and restore a vCPU: events, debug registers, extended state, special registers
//! with the PDPTEs; and that debug its guest.

use super::super::{
    command::command,
    convert,
    device_attr, //
};
use crate::{
    bindings::*,
    linux::uaccess::{
        self,
        zeroed, //
    },
    vcpu::{
        debug::DebugRegisterValues,
        event_state::{
            EventParts,
            EventState,
            ExceptionState, //
        },
        Owned,
        Vcpu, //
    },
    vm::Vm,
    x86::control_regs::Xcr0, //
};
use kernel::prelude::*;

/// The flags of KVM_SET_VCPU_EVENTS.
const EVENT_FLAGS: u32 = KVM_VCPUEVENT_VALID_NMI_PENDING
    | KVM_VCPUEVENT_VALID_SIPI_VECTOR
    | KVM_VCPUEVENT_VALID_SHADOW
    | KVM_VCPUEVENT_VALID_SMM
    | KVM_VCPUEVENT_VALID_PAYLOAD
    | KVM_VCPUEVENT_VALID_TRIPLE_FAULT;

/// The components that are part of every image, whether the guest has XSAVE or not.
const LEGACY: u64 = Xcr0::FP.with(Xcr0::SSE).value();

/// Does one of these ioctls; `EINVAL` if it is none.
pub(super) fn dispatch(
    vm: &Vm,
    vcpu: &Vcpu,
    owned: &mut Owned,
    command: u32,
    argument: usize,
) -> Result<isize> {
    match command {
        KVM_RS_IOCTL_GET_VCPU_EVENTS => {
            let events = get_events(vm, vcpu, owned);
            command!(KVM_RS_IOCTL_GET_VCPU_EVENTS: kvm_vcpu_events).write(argument, &events)?;
        }
        KVM_RS_IOCTL_SET_VCPU_EVENTS => {
            let events = command!(KVM_RS_IOCTL_SET_VCPU_EVENTS: kvm_vcpu_events).read(argument)?;
            set_events(vm, vcpu, owned, &events)?;
        }
        KVM_RS_IOCTL_GET_DEBUGREGS => {
            let values = owned.debug_registers(vm);
            let mut registers: kvm_debugregs = zeroed();
            registers.db = values.address;
            registers.dr6 = values.dr6;
            registers.dr7 = values.dr7;
            command!(KVM_RS_IOCTL_GET_DEBUGREGS: kvm_debugregs).write(argument, &registers)?;
        }
        KVM_RS_IOCTL_SET_DEBUGREGS => {
            let registers = command!(KVM_RS_IOCTL_SET_DEBUGREGS: kvm_debugregs).read(argument)?;
            if registers.flags != 0 {
                return Err(EINVAL);
            }
            owned.set_debug_registers(&DebugRegisterValues {
                address: registers.db,
                dr6: registers.dr6,
                dr7: registers.dr7,
            })?;
        }
        KVM_RS_IOCTL_GET_XSAVE => {
            if owned.state.fpu.image_size() > size_of::<kvm_xsave>() {
                return Err(EINVAL);
            }
            get_xsave(owned, argument, size_of::<kvm_xsave>())?;
        }
        KVM_RS_IOCTL_GET_XSAVE2 => get_xsave(owned, argument, owned.state.fpu.image_size())?,
        KVM_RS_IOCTL_SET_XSAVE => {
            let mut image = KVVec::from_elem(0, owned.state.fpu.image_size(), GFP_KERNEL)?;
            uaccess::read_bytes(argument, &mut image)?;
            let supported = vm.hypervisor().model.supported.xcr0();
            let state = &mut owned.state;
            state
                .fpu
                .set_image(&image, supported, &mut state.protection_keys.pkru)?;
        }
        KVM_RS_IOCTL_GET_SREGS2 => {
            let sregs = convert::to_sregs2(&owned.system_registers(vm, vcpu));
            command!(KVM_RS_IOCTL_GET_SREGS2: kvm_sregs2).write(argument, &sregs)?;
        }
        KVM_RS_IOCTL_SET_SREGS2 => {
            let sregs = command!(KVM_RS_IOCTL_SET_SREGS2: kvm_sregs2).read(argument)?;
            let registers = convert::from_sregs2(&sregs).ok_or(EINVAL)?;
            owned.set_system_registers(vm, vcpu, &registers)?;
        }
        KVM_RS_IOCTL_SET_GUEST_DEBUG => {
            let debug = command!(KVM_RS_IOCTL_SET_GUEST_DEBUG: kvm_guest_debug).read(argument)?;
            owned.set_guest_debug(debug.control, &debug.arch.debugreg)?;
            vcpu.recheck_apicv(&owned.state);
        }
        KVM_RS_IOCTL_HAS_DEVICE_ATTR
        | KVM_RS_IOCTL_GET_DEVICE_ATTR
        | KVM_RS_IOCTL_SET_DEVICE_ATTR => {
            return device_attr::of_vcpu(vm, vcpu, owned, command, argument);
        }
        _ => return Err(EINVAL),
    }
    Ok(0)
}

/// Copies the extended state to the client, in the standard form of XSAVE.
fn get_xsave(owned: &mut Owned, argument: usize, size: usize) -> Result {
    let mut image = KVVec::from_elem(0, size, GFP_KERNEL)?;
    let components = owned.state.features.xcr0.value() | LEGACY;
    let pkru = owned.state.protection_keys.pkru;
    owned.state.fpu.image(&mut image, components, pkru);
    uaccess::write_bytes(argument, &image)
}

/// Returns the events as the client sees them.
fn get_events(vm: &Vm, vcpu: &Vcpu, owned: &mut Owned) -> kvm_vcpu_events {
    let state = owned.events(vm, vcpu);
    let mut events: kvm_vcpu_events = zeroed();
    let exception = &state.exception;
    events.exception.injected = u8::from(exception.injected);
    events.exception.pending = u8::from(exception.pending);
    events.exception.nr = exception.vector;
    events.exception.has_error_code = u8::from(exception.error_code.is_some());
    events.exception.error_code = exception.error_code.unwrap_or(0);
    events.exception_has_payload = u8::from(exception.payload.is_some());
    events.exception_payload = exception.payload.unwrap_or(0);
    events.interrupt.injected = u8::from(state.interrupt.is_some());
    events.interrupt.nr = state.interrupt.unwrap_or(0);
    let sti = if state.sti { KVM_X86_SHADOW_INT_STI } else { 0 };
    let mov_ss = if state.mov_ss {
        KVM_X86_SHADOW_INT_MOV_SS
    } else {
        0
    };
    // CAST: Two bits.
    events.interrupt.shadow = (sti | mov_ss) as u8;
    events.nmi.injected = u8::from(state.nmi_injected);
    events.nmi.pending = state.nmis;
    events.nmi.masked = u8::from(state.nmi_masked);
    events.smi.latched_init = u8::from(state.latched_init);
    events.flags =
        KVM_VCPUEVENT_VALID_NMI_PENDING | KVM_VCPUEVENT_VALID_SHADOW | KVM_VCPUEVENT_VALID_SMM;
    if vm.has_exception_payloads() {
        events.flags |= KVM_VCPUEVENT_VALID_PAYLOAD;
    }
    if vm.has_triple_fault_events() {
        events.flags |= KVM_VCPUEVENT_VALID_TRIPLE_FAULT;
        events.triple_fault.pending = u8::from(state.triple_fault);
    }
    events
}

/// Replaces the events; `EINVAL` for some that no guest can have, or that the client did not enable.
fn set_events(vm: &Vm, vcpu: &Vcpu, owned: &mut Owned, events: &kvm_vcpu_events) -> Result {
    const NMI: u8 = 2;
    const LAST_EXCEPTION: u8 = 31;
    let has = |flag| events.flags & flag != 0;
    if events.flags & !EVENT_FLAGS != 0 {
        return Err(EINVAL);
    }
    let mut exception = ExceptionState {
        injected: events.exception.injected != 0,
        pending: events.exception.pending != 0,
        vector: events.exception.nr,
        error_code: (events.exception.has_error_code != 0).then_some(events.exception.error_code),
        payload: (events.exception_has_payload != 0).then_some(events.exception_payload),
    };
    if has(KVM_VCPUEVENT_VALID_PAYLOAD) {
        if !vm.has_exception_payloads() {
            return Err(EINVAL);
        }
        if exception.pending {
            exception.injected = false;
        } else {
            exception.payload = None;
        }
    } else {
        exception.pending = false;
        exception.payload = None;
    }
    if (exception.injected || exception.pending)
        && (exception.vector > LAST_EXCEPTION || exception.vector == NMI)
    {
        return Err(EINVAL);
    }
    // There is no system-management mode.
    if has(KVM_VCPUEVENT_VALID_SMM)
        && (events.smi.smm | events.smi.pending | events.smi.smm_inside_nmi) != 0
    {
        return Err(EINVAL);
    }
    if has(KVM_VCPUEVENT_VALID_TRIPLE_FAULT) && !vm.has_triple_fault_events() {
        return Err(EINVAL);
    }
    let shadow = u32::from(events.interrupt.shadow);
    let state = EventState {
        exception,
        interrupt: (events.interrupt.injected != 0).then_some(events.interrupt.nr),
        soft_interrupt: events.interrupt.soft != 0,
        sti: shadow & KVM_X86_SHADOW_INT_STI != 0,
        mov_ss: shadow & KVM_X86_SHADOW_INT_MOV_SS != 0,
        nmi_injected: events.nmi.injected != 0,
        nmis: events.nmi.pending,
        nmi_masked: events.nmi.masked != 0,
        latched_init: events.smi.latched_init != 0,
        triple_fault: events.triple_fault.pending != 0,
    };
    let parts = EventParts {
        nmis: has(KVM_VCPUEVENT_VALID_NMI_PENDING),
        blocking: has(KVM_VCPUEVENT_VALID_SHADOW),
        init: has(KVM_VCPUEVENT_VALID_SMM),
        triple_fault: has(KVM_VCPUEVENT_VALID_TRIPLE_FAULT),
        // CAST: The vector is the low byte.
        startup_vector: has(KVM_VCPUEVENT_VALID_SIPI_VECTOR).then_some(events.sipi_vector as u8),
    };
    owned.set_events(vcpu, &state, &parts);
    Ok(())
}

/// Which registers the shared page can have.
pub(in super::super) const SYNC_FIELDS: u32 =
    KVM_SYNC_X86_REGS | KVM_SYNC_X86_SREGS | KVM_SYNC_X86_EVENTS;

/// Takes the registers that the client changed in the shared page; `EINVAL` if it asks for unknown ones.
pub(super) fn take_page(vm: &Vm, vcpu: &Vcpu, owned: &mut Owned) -> Result {
    let page = vcpu.run_page();
    let dirty = page.dirty_registers();
    if (page.valid_registers() | dirty) & !u64::from(SYNC_FIELDS) != 0 {
        return Err(EINVAL);
    }
    if dirty & u64::from(KVM_SYNC_X86_REGS) != 0 {
        owned.set_general_registers(&convert::from_regs(&page.general_registers()));
        page.take_registers(u64::from(KVM_SYNC_X86_REGS));
    }
    if dirty & u64::from(KVM_SYNC_X86_SREGS) != 0 {
        let registers = convert::from_sregs(&page.special_registers());
        owned.set_system_registers(vm, vcpu, &registers)?;
        page.take_registers(u64::from(KVM_SYNC_X86_SREGS));
    }
    if dirty & u64::from(KVM_SYNC_X86_EVENTS) != 0 {
        set_events(vm, vcpu, owned, &page.events())?;
        page.take_registers(u64::from(KVM_SYNC_X86_EVENTS));
    }
    Ok(())
}

/// Puts the registers that the client asked for into the shared page.
pub(super) fn fill_page(vm: &Vm, vcpu: &Vcpu, owned: &mut Owned) {
    let page = vcpu.run_page();
    let valid = page.valid_registers();
    if valid & u64::from(KVM_SYNC_X86_REGS) != 0 {
        page.set_general_registers(convert::to_regs(&owned.general_registers()));
    }
    if valid & u64::from(KVM_SYNC_X86_SREGS) != 0 {
        page.set_special_registers(convert::to_sregs(&owned.system_registers(vm, vcpu)));
    }
    if valid & u64::from(KVM_SYNC_X86_EVENTS) != 0 {
        page.set_events(get_events(vm, vcpu, owned));
    }
}
