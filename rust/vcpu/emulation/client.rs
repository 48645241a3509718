// SPDX-License-Identifier: GPL-2.0

//! Accesses of an instruction to devices that the client has.

use super::{
    super::{
        context::{
            Context,
            MAX_INSTRUCTION, //
        },
        pending::{
            Asked,
            Done,
            Known,
            Pending, //
        },
        run::Next,
        stats::Event,
        tracing,
        Owned,
        Vcpu, //
    },
    failure::cannot_emulate,
    machine::DeviceExit,
    run, //
};
use crate::{
    emulate::{
        Instruction,
        Remainder, //
    },
    trace::{
        MMIO_READ,
        MMIO_READ_UNSATISFIED,
        MMIO_WRITE, //
    },
    vm::Vm,
    x86::addr::Gpa, //
};
use kernel::prelude::*;

/// Returns what there is to finish once the client has done `exit`, if that is all that the instruction
/// accesses and nothing needs to be computed again.
pub(super) fn remainder(
    context: &Context,
    instruction: &Instruction,
    rip: u64,
    accesses: usize,
    exit: &DeviceExit,
) -> Option<Pending> {
    let (len, read) = match exit {
        DeviceExit::Read(gpa, len) => (*len, Some((*gpa, *len))),
        DeviceExit::Write(_, len, _) => (*len, None),
        _ => return None,
    };
    if accesses != 1 {
        return None;
    }
    Some(Pending::Remainder {
        remainder: instruction.remainder(len)?,
        read,
        rip: [rip, context.next_rip(rip, instruction.length())],
    })
}

/// Asks the client to do an access to a device; `None` for what is none.
pub(super) fn ask(vcpu: &Vcpu, exit: DeviceExit) -> Option<Asked> {
    let page = vcpu.run_page();
    match exit {
        DeviceExit::Read(gpa, len) => {
            vcpu.count_event(Event::MmioExit);
            // CAST: At most 8.
            page.set_mmio(gpa.value(), len as u32, None);
            let none = [0; 8];
            let nothing = none.get(..len).unwrap_or(&none);
            tracing::mmio(MMIO_READ_UNSATISFIED, gpa.value(), nothing);
            Some(Asked::MmioRead(gpa, len))
        }
        DeviceExit::Write(gpa, len, data) => {
            vcpu.count_event(Event::MmioExit);
            // CAST: At most 8.
            page.set_mmio(gpa.value(), len as u32, Some(data));
            tracing::mmio(MMIO_WRITE, gpa.value(), data.get(..len).unwrap_or(&data));
            Some(Asked::Write)
        }
        DeviceExit::PortRead(port, len) => {
            // CAST: At most 4, as below.
            page.set_io(true, len as u8, port, 1);
            Some(Asked::PortRead)
        }
        DeviceExit::PortWrite(port, len) => {
            page.set_io(false, len as u8, port, 1);
            Some(Asked::Write)
        }
        DeviceExit::Prepared(_) | DeviceExit::Error(_) => None,
    }
}

/// Finishes a load or store after the client has done its access.
pub(crate) fn complete_remainder(
    vcpu: &Vcpu,
    owned: &mut Owned,
    remainder: Remainder,
    read: Option<(Gpa, usize)>,
    [rip, next_rip]: [u64; 2],
) {
    let mut data = [0; 8];
    if let Some((gpa, len)) = read {
        data = vcpu.run_page().mmio_data();
        tracing::mmio(MMIO_READ, gpa.value(), data.get(..len).unwrap_or(&data));
    }
    owned.with_vmcs(|vmcs, state| {
        // The client may have moved the guest elsewhere; then the instruction is abandoned.
        if state.rip(vmcs) != rip {
            return;
        }
        if let Remainder::Load(load) = remainder {
            let register = usize::from(load.register());
            let old = state.gpr_with(vmcs, register);
            state.set_gpr(register, load.apply(old, data));
        }
        state.set_rip(next_rip);
        state.finish_instruction(vmcs);
    });
}

/// Finishes an access to a device after the client has done it.
pub(crate) fn complete(
    vm: &Vm,
    vcpu: &Vcpu,
    owned: &mut Owned,
    instruction: Instruction,
    rip: u64,
    known: Option<Known>,
    asked: Asked,
) -> Result<Next> {
    let mut data = [0; 8];
    match asked {
        Asked::MmioRead(gpa, len) => {
            data = vcpu.run_page().mmio_data();
            tracing::mmio(MMIO_READ, gpa.value(), data.get(..len).unwrap_or(&data));
        }
        Asked::PortRead => vcpu.run_page().read_data(&mut data),
        Asked::Write => {}
    }
    // The client may have moved the guest elsewhere; then the instruction is abandoned.
    let current = owned.with_vmcs(|vmcs, state| state.rip(vmcs));
    if current != rip {
        return Ok(Next::Resume);
    }
    if !owned.state.access_log.push(Done { data }) {
        return Ok(cannot_emulate(vcpu, owned, &([0; MAX_INSTRUCTION], 0)));
    }
    let mut context = owned.with_vmcs(|vmcs, state| Context::read(state, vmcs));
    run(vm, vcpu, owned, &mut context, &instruction, known)
}
