// SPDX-License-Identifier: GPL-2.0

//! Instructions that cannot be executed in software.

use super::super::{
    context::MAX_INSTRUCTION,
    run::Next,
    stats::Event,
    Owned,
    Vcpu, //
};
use crate::{
    bindings,
    vm::Vm,
    vmx::{
        field,
        inject::EventInfo, //
    },
    x86::exception::Exception, //
};

/// Gives up an instruction that cannot be emulated: the guest gets #UD, and the client is told if it was
/// the guest's kernel, or wants to know in any case (KVM_CAP_EXIT_ON_EMULATION_FAILURE: instead of #UD).
pub(super) fn give_up(
    vm: &Vm,
    vcpu: &Vcpu,
    owned: &mut Owned,
    bytes: &([u8; MAX_INSTRUCTION], usize),
) -> Next {
    vcpu.count_event(Event::EmulationFailed);
    if vm.settings().exits_on_emulation_failure() {
        return cannot_emulate(vcpu, owned, bytes);
    }
    owned.state.raise(Exception::invalid_opcode());
    if owned.with_vmcs(|vmcs, state| state.cpl(vmcs)) == 0 {
        cannot_emulate(vcpu, owned, bytes)
    } else {
        Next::Resume
    }
}

/// Reports an instruction that cannot be emulated, with its bytes if there are any, and the exit that led
/// to it.
pub(super) fn cannot_emulate(
    vcpu: &Vcpu,
    owned: &mut Owned,
    &(bytes, len): &([u8; MAX_INSTRUCTION], usize),
) -> Next {
    // The layout of kvm_run's emulation_failure: flags, then the size and the bytes, no-operations
    // behind them.
    let mut packed = [0x90; 16];
    if let Some((size, rest)) = packed.split_first_mut() {
        // CAST: At most 15.
        *size = len as u8;
        for (target, source) in rest.iter_mut().zip(bytes.into_iter().take(len)) {
            *target = source;
        }
    }
    let [mut first, mut second] = [0; 2];
    for (word, chunk) in [&mut first, &mut second]
        .into_iter()
        .zip(packed.chunks_exact(8))
    {
        *word = chunk.try_into().map_or(0, u64::from_le_bytes);
    }
    let reason = u64::from(owned.state.regs.exit_reason);
    let [qualification, vectoring, info, code] = owned.with_vmcs(|vmcs, _| {
        let info = vmcs.read(field::VM_EXIT_INTERRUPTION_INFO);
        let event = EventInfo::of_exit(vmcs);
        [
            vmcs.read(field::EXIT_QUALIFICATION).0,
            u64::from(vmcs.read(field::IDT_VECTORING_INFO)),
            u64::from(info),
            event.error_code.map_or(0, u64::from),
        ]
    });
    let flag = u64::from(bindings::KVM_INTERNAL_ERROR_EMULATION_FLAG_INSTRUCTION_BYTES);
    let details = if len == 0 {
        [0, reason, qualification, vectoring, info, code, 0, 0]
    } else {
        [
            flag,
            first,
            second,
            reason,
            qualification,
            vectoring,
            info,
            code,
        ]
    };
    let count = if len == 0 { 6 } else { 8 };
    vcpu.run_page().set_internal_error(
        bindings::KVM_INTERNAL_ERROR_EMULATION,
        details.get(..count).unwrap_or(&[]),
    );
    Next::ToUser
}
