// SPDX-License-Identifier: GPL-2.0

//! Executing one instruction of the guest in software, because what it accesses is no memory, or
//! because the CPU does not enter the guest in the state that it is in.

pub(super) mod client;
mod failure;
mod machine;
mod port;
mod system;

use self::{
    client::{
        ask,
        remainder, //
    },
    failure::give_up,
    machine::{
        fault,
        After,
        DeviceExit,
        Machine, //
    }, //
};
use super::{
    context::{
        Context,
        MAX_INSTRUCTION, //
    },
    events::Interrupted,
    pending::{
        Known,
        Pending, //
    },
    run::Next,
    state::{
        MpState,
        State, //
    },
    stats::Event,
    Owned,
    Vcpu, //
};
use crate::{
    bindings,
    emulate::{
        self,
        DecodeError,
        Instruction,
        InterruptKind,
        Outcome,
        Shadow,
        Stop, //
    },
    linux::task,
    vm::Vm,
    vmx::{
        field,
        guest_state::{
            BLOCKING_BY_MOV_SS,
            BLOCKING_BY_STI, //
        },
        inject::{
            EventInfo,
            EventKind, //
        }, //
    },
    x86::{
        addr::Gpa,
        control_regs::Rflags,
        exception::{
            Exception,
            Vector, //
        }, //
    }, //
};
use kernel::prelude::*;

/// How the emulation of an instruction ended, before the VMCS is told.
enum End {
    /// RIP is behind the instruction.
    Done(Option<After>, Option<Shadow>),
    /// An iteration of a string instruction is done.
    Iterated,
    /// The guest goes on with this exception.
    Fault(Exception),
    /// The guest goes on with the event that the instruction raises, once it has been injected.
    Inject(EventInfo),
    /// To the client.
    ToUser,
    /// It cannot be emulated.
    Unsupported,
    /// KVM_RUN fails.
    Failed(Error),
}

/// Where emulation starts.
#[derive(Clone, Copy)]
pub(crate) enum Start {
    /// With the instruction at RIP.
    Fetch,
    /// With that, which exited because it accessed this address; whether it is known to write there.
    Access(Gpa, bool),
}

/// Emulates the instruction at RIP.
///
/// The instruction is complete, or has raised an exception, or the client is asked, on return; it
/// was executed in the mode that the guest was in, and the guest may be in another one after. A
/// repeated string instruction goes on until something else wants the vCPU.
pub(crate) fn emulate(vm: &Vm, vcpu: &Vcpu, owned: &mut Owned, start: Start) -> Result<Next> {
    vcpu.count_event(Event::Emulated);
    let mut context = owned.with_vmcs(|vmcs, state| Context::read(state, vmcs));
    match decode(vm, &owned.state, &context) {
        Ok(instruction) => {
            let known = match start {
                Start::Access(gpa, write) if instruction.accesses_one_place() => {
                    Some(Known::by_exit(gpa, write))
                }
                _ => None,
            };
            owned.state.access_log.clear();
            run(vm, vcpu, owned, &mut context, &instruction, known)
        }
        Err(Refused::Fault(exception)) => {
            owned.state.raise(exception);
            Ok(Next::Resume)
        }
        Err(Refused::Unsupported(bytes)) => Ok(give_up(vm, vcpu, owned, &bytes)),
    }
}

/// Executes an instruction that has made the accesses noted so far, with the translation that it needed
/// last.
fn run(
    vm: &Vm,
    vcpu: &Vcpu,
    owned: &mut Owned,
    context: &mut Context,
    instruction: &Instruction,
    mut known: Option<Known>,
) -> Result<Next> {
    if !instruction.accesses_one_place() {
        owned.with_vmcs(|vmcs, state| context.complete(state, vmcs));
    }
    loop {
        // What a POPF or IRET puts there counts for the instruction after it.
        let trap = owned.state.fetched_rflags() & Rflags::TF.value() != 0;
        match step(vm, vcpu, owned, context, instruction, known.take()) {
            End::Done(after, shadow) => {
                finish(owned, trap, shadow);
                return Ok(after.map_or(Next::Resume, |after| do_after(vcpu, owned, after)));
            }
            End::Iterated => {
                vcpu.check_ring();
                if trap || task::work_pending() || vcpu.doorbell().is_pending() {
                    if trap {
                        finish(owned, trap, None);
                    }
                    return Ok(Next::Resume);
                }
                owned.state.access_log.clear();
            }
            End::Fault(exception) => {
                owned.state.raise(exception);
                return Ok(Next::Resume);
            }
            End::Inject(event) => {
                owned.state.events.interrupted = Some(Interrupted {
                    event,
                    instruction_length: u32::from(instruction.length()),
                });
                return Ok(Next::Resume);
            }
            End::ToUser => return Ok(Next::ToUser),
            End::Failed(error) => return Err(error),
            End::Unsupported => {
                let bytes = context
                    .fetch(vm, owned.state.fetched_rip())
                    .unwrap_or(([0; MAX_INSTRUCTION], 0));
                return Ok(give_up(vm, vcpu, owned, &bytes));
            }
        }
    }
}

/// Does what the end of an instruction does besides moving RIP. A single step traps if RFLAGS.TF was
/// set before, not after MOV SS; other blocking ends, and that of the instruction begins.
fn finish(owned: &mut Owned, trap: bool, shadow: Option<Shadow>) {
    owned.with_vmcs(|vmcs, state| {
        state.end_blocking(vmcs);
        match shadow {
            Some(Shadow::Sti) => vmcs.set_bits(field::GUEST_INTERRUPTIBILITY, BLOCKING_BY_STI),
            Some(Shadow::MovSs) => {
                vmcs.set_bits(field::GUEST_INTERRUPTIBILITY, BLOCKING_BY_MOV_SS);
            }
            None => {}
        }
        if trap && shadow != Some(Shadow::MovSs) {
            state.step_trap();
        }
    });
}

/// Does what an instruction does once it is complete.
fn do_after(vcpu: &Vcpu, owned: &mut Owned, after: After) -> Next {
    match after {
        After::Halt if vcpu.controller().is_some() => {
            // The run loop sleeps until there is something to do.
            owned.state.mp_state = MpState::Halted;
            Next::Resume
        }
        After::Halt => {
            vcpu.run_page().set_plain(bindings::KVM_EXIT_HLT);
            Next::ToUser
        }
        After::LowerPriority => {
            vcpu.run_page().set_plain(bindings::KVM_EXIT_SET_TPR);
            Next::ToUser
        }
    }
}

/// Why an instruction was not decoded.
enum Refused {
    Fault(Exception),
    Unsupported(([u8; MAX_INSTRUCTION], usize)),
}

/// Fetches and decodes the instruction at RIP.
fn decode(vm: &Vm, state: &State, context: &Context) -> Result<Instruction, Refused> {
    // One byte more than needed: two words are copied faster.
    let (fetched, len) = context
        .fetch::<{ MAX_INSTRUCTION + 1 }>(vm, state.fetched_rip())
        .map_err(Refused::Fault)?;
    let bytes = fetched.get(..len.min(MAX_INSTRUCTION)).unwrap_or(&[]);
    match emulate::decode(context.mode, bytes) {
        Ok(instruction) => Ok(instruction),
        Err(DecodeError::Invalid) => Err(Refused::Fault(Exception::invalid_opcode())),
        Err(DecodeError::TooLong) => Err(Refused::Fault(Exception::general_protection())),
        Err(DecodeError::Unsupported | DecodeError::Truncated) => {
            let mut unknown = [0; MAX_INSTRUCTION];
            for (target, source) in unknown.iter_mut().zip(bytes) {
                *target = *source;
            }
            Err(Refused::Unsupported((unknown, bytes.len())))
        }
    }
}

/// Executes an instruction once.
// Inlined into a loop, all that any operation might look at would be computed before.
#[inline(never)]
fn step(
    vm: &Vm,
    vcpu: &Vcpu,
    owned: &mut Owned,
    context: &Context,
    instruction: &Instruction,
    known: Option<Known>,
) -> End {
    let rip = owned.state.fetched_rip();
    let mut machine = Machine {
        vm,
        vcpu,
        owned,
        context,
        length: u32::from(instruction.length()),
        known,
        accesses: 0,
        exit: None,
        after: None,
        shadow: None,
    };
    let result = emulate::execute(instruction, &mut machine);
    let Machine {
        exit,
        known,
        accesses,
        after,
        shadow,
        ..
    } = machine;
    match result {
        Ok(Outcome::Done) => End::Done(after, shadow),
        Ok(Outcome::Again) => End::Iterated,
        Err(Stop::Fault(fault)) => End::Fault(Exception {
            vector: Vector::new(fault.vector),
            error_code: fault.error_code,
            payload: fault.address,
        }),
        Err(Stop::Interrupt { vector, kind }) => End::Inject(EventInfo {
            kind: match kind {
                InterruptKind::Software => EventKind::SoftwareInterrupt,
                InterruptKind::Exception => EventKind::SoftwareException,
            },
            vector,
            error_code: None,
            nmi_unblocked: false,
        }),
        Err(Stop::Unsupported) => End::Unsupported,
        Err(Stop::Pending) => {
            let asked = match exit {
                Some(DeviceExit::Error(error)) => return End::Failed(error),
                Some(DeviceExit::Prepared(pending)) => {
                    owned.state.pending = Some(pending);
                    return End::ToUser;
                }
                Some(exit) => {
                    if let Some(pending) = remainder(context, instruction, rip, accesses, &exit) {
                        owned.state.pending = Some(pending);
                        return match ask(vcpu, exit) {
                            Some(_) => End::ToUser,
                            None => End::Unsupported,
                        };
                    }
                    ask(vcpu, exit)
                }
                None => None,
            };
            let Some(asked) = asked else {
                return End::Unsupported;
            };
            owned.state.pending = Some(Pending::Mmio {
                instruction: *instruction,
                rip,
                known,
                asked,
            });
            End::ToUser
        }
    }
}
