// SPDX-License-Identifier: GPL-2.0

//! What is done at each VM exit.
//!
//! [`handle`] runs with the VMCS current and preemption off, so nothing in it may sleep. It ends an exit
//! by going on, by going to the client, or by leaving the rest to [`finish`], which may sleep.

use super::{
    emulation::{
        self,
        Start, //
    },
    hypercall,
    io,
    pending::StringIo,
    restricted::real_mode,
    run::Next,
    state::{
        MpState,
        State,
        RAX,
        RCX,
        RDX, //
    },
    stats::Event,
    tracing,
    yielding,
    Owned,
    Vcpu, //
};
use crate::{
    bindings,
    mmu::FaultAccess,
    vm::{
        settings::Quirk,
        Vm, //
    },
    vmx::{
        exit::Exit,
        field,
        inject::{
            EventInfo,
            EventKind, //
        },
        vmcs::CurrentVmcs, //
    },
    x86::{
        addr::Gpa,
        cpuid::Feature,
        exception::{
            Exception,
            Vector, //
        }, //
    }, //
};
use kernel::prelude::*;

mod memory;
mod register;

/// How an exit goes on.
pub(crate) enum Step {
    /// The guest goes on.
    Resume,
    /// The client is to do something; the shared page says what.
    ToUser,
    /// The rest needs to sleep.
    Later(Later),
}

/// The part of an exit that may sleep.
#[derive(Clone, Copy)]
pub(crate) enum Later {
    /// The MMU's tables refused an access.
    Fault(Gpa, FaultAccess),
    /// The instruction at RIP is to be executed in software.
    Emulate,
    /// An EPT entry that tells there is no memory.
    EptMisconfiguration(Gpa),
    /// An instruction accessed the local APIC's page; whether it is known to write.
    ApicAccess(Gpa, bool),
    /// INS or OUTS.
    StringIo(StringIo),
    /// CR0 is to be written, once the PDPTEs that the CR3 points to are there.
    LoadCr0(u64, u64),
    /// Likewise CR3.
    LoadCr3(u64, u64),
    /// Likewise CR4.
    LoadCr4(u64, u64),
    /// A hypercall that needs an up-to-date table of destinations.
    Hypercall,
    /// Another vCPU is to run in this one's place, the one with this APIC ID.
    YieldTo(u32),
    /// The guest waits for another vCPU in a loop.
    Spin,
    /// An instruction that this CPU does not have.
    InvalidOpcode,
    /// Nothing: an interrupt waits whose end the guest may tell without an exit.
    OfferEoi,
}

/// Does what the exit needs.
#[inline]
pub(crate) fn handle(
    vm: &Vm,
    vcpu: &Vcpu,
    vmcs: &CurrentVmcs<'_>,
    state: &mut State,
    exit: Exit,
) -> Step {
    match exit {
        Exit::Cpuid => cpuid(vm, vcpu, vmcs, state),
        Exit::Io(access) if !access.string => match state.start_io(vm, vcpu, vmcs, access) {
            Next::Resume => Step::Resume,
            Next::ToUser => Step::ToUser,
        },
        Exit::Io(access) => Step::Later(Later::StringIo(io::read_string_io(vmcs, access))),
        Exit::EptViolation(violation) => {
            if violation.nmi_unblocked && state.events.interrupted.is_none() {
                state.block_nmis_again(vmcs);
            }
            tracing::page_fault(vcpu, vmcs, violation.gpa);
            let access = FaultAccess {
                read: violation.read,
                write: violation.write,
                execute: violation.fetch,
            };
            memory::start_fault(vm, vcpu, violation.gpa, access)
        }
        // The log has been emptied directly after the exit.
        Exit::LogFull { nmi_unblocked } => {
            if nmi_unblocked && state.events.interrupted.is_none() {
                state.block_nmis_again(vmcs);
            }
            Step::Resume
        }
        Exit::ApicAccess(access) => memory::apic_access(vm, vcpu, vmcs, state, access),
        Exit::VirtualizedEoi(vector) => {
            vcpu.virtual_interrupt_ended(vm, state, vector);
            Step::Resume
        }
        Exit::ApicWrite(offset) => {
            vcpu.apic_written(vm, state, offset);
            Step::Resume
        }
        Exit::EptMisconfiguration(gpa) => memory::ept_misconfiguration(vm, vmcs, state, gpa),
        // The end of the timer's interrupt may be offered before the guest takes it.
        Exit::PreemptionTimer if vcpu.on_timer(state) && state.pv_eoi.is_used() => {
            Step::Later(Later::OfferEoi)
        }
        Exit::PreemptionTimer => Step::Resume,
        // Handled directly after the exit, as NMIs are.
        Exit::ExternalInterrupt(_) => Step::Resume,
        Exit::Rdmsr => resume_if(state.rdmsr(vm, vcpu, vmcs)),
        Exit::Wrmsr => resume_if(state.wrmsr(vm, vcpu, vmcs)),
        Exit::Control(access) => register::control(vcpu, vmcs, state, access),
        Exit::Debug(access) => register::debug(vcpu, vmcs, state, access),
        Exit::Hlt => hlt(vcpu, vmcs, state),
        Exit::InterruptWindow => {
            // The next entry injects, or the client is told.
            Step::Resume
        }
        // So does it when the TPR let an interrupt through.
        Exit::NmiWindow | Exit::TprBelowThreshold => Step::Resume,
        Exit::Exception(event) => exception(vm, vcpu, vmcs, state, event),
        Exit::Xsetbv => register::xsetbv(vmcs, state),
        Exit::Vmcall => state.hypercall(vm, vcpu, vmcs, false),
        Exit::VmxInstruction(_) | Exit::Foreign => raise(state, Exception::invalid_opcode()),
        // There is no performance monitoring for guests.
        Exit::Rdpmc => raise(state, Exception::general_protection()),
        // Nothing is cached that the guest could flush, and nothing waits for a monitored write.
        Exit::Monitor | Exit::Mwait if !has_mwait(vm, state) => {
            raise(state, Exception::invalid_opcode())
        }
        Exit::Invd | Exit::Wbinvd | Exit::Monitor | Exit::Mwait => {
            state.skip_instruction(vmcs);
            Step::Resume
        }
        Exit::Pause => {
            state.skip_instruction(vmcs);
            Step::Later(Later::Spin)
        }
        Exit::TripleFault => {
            vcpu.run_page().set_plain(bindings::KVM_EXIT_SHUTDOWN);
            Step::ToUser
        }
        // A machine check that was the reason has been handled.
        Exit::EntryFailed(_) => {
            let reason = u64::from(state.regs.exit_reason);
            vcpu.report_failed_entry(vmcs, reason);
            Step::ToUser
        }
        Exit::TaskSwitch => {
            let details = [u64::from(state.regs.exit_reason)];
            vcpu.run_page()
                .set_internal_error(bindings::KVM_INTERNAL_ERROR_EMULATION, &details);
            Step::ToUser
        }
        Exit::Init | Exit::Unknown(_) => unexpected(vcpu, state),
    }
}

/// Raises an exception in the guest instead of finishing the instruction.
fn raise(state: &mut State, exception: Exception) -> Step {
    state.raise(exception);
    Step::Resume
}

/// Ends an instruction, or raises #GP(0).
fn finish_or_fault<T, E>(vmcs: &CurrentVmcs<'_>, state: &mut State, result: Result<T, E>) -> Step {
    match result {
        Ok(_) => state.skip_instruction(vmcs),
        Err(_) => state.raise(Exception::general_protection()),
    }
    Step::Resume
}

fn cpuid(vm: &Vm, vcpu: &Vcpu, vmcs: &CurrentVmcs<'_>, state: &mut State) -> Step {
    if state.msrs.cpuid_faults() && state.cpl(vmcs) > 0 {
        return raise(state, Exception::general_protection());
    }
    // CAST: The instruction takes the lower halves.
    let (leaf, subleaf) = (state.gpr(RAX) as u32, state.gpr(RCX) as u32);
    if state.cpuid_stale {
        state.refresh_cpuid(vm, vcpu, vmcs);
    }
    let [eax, ebx, ecx, edx] = state.cpuid.cpuid(leaf, subleaf);
    state.set_gpr(RAX, u64::from(eax));
    state.set_gpr(super::state::RBX, u64::from(ebx));
    state.set_gpr(RCX, u64::from(ecx));
    state.set_gpr(RDX, u64::from(edx));
    tracing::cpuid(state, leaf, subleaf);
    state.skip_instruction(vmcs);
    Step::Resume
}

/// Goes on, or to the client.
fn resume_if(done: bool) -> Step {
    if done {
        Step::Resume
    } else {
        Step::ToUser
    }
}

/// Returns whether MONITOR and MWAIT are instructions of the guest.
fn has_mwait(vm: &Vm, state: &State) -> bool {
    let settings = vm.settings();
    if settings.has(Quirk::MwaitNeverFaults) {
        true
    } else if settings.has(Quirk::MiscEnableNoMwait) {
        state.features.has(Feature::MWAIT)
    } else {
        state.msrs.has_mwait()
    }
}

/// Reports an exit that this module's controls do not ask for.
fn unexpected(vcpu: &Vcpu, state: &State) -> Step {
    let details = [u64::from(state.regs.exit_reason), u64::from(vcpu.cpu())];
    vcpu.run_page().set_internal_error(
        bindings::KVM_INTERNAL_ERROR_UNEXPECTED_EXIT_REASON,
        &details,
    );
    Step::ToUser
}

fn hlt(vcpu: &Vcpu, vmcs: &CurrentVmcs<'_>, state: &mut State) -> Step {
    state.skip_instruction(vmcs);
    if vcpu.controller().is_some() {
        // The run loop sleeps until there is something to do.
        state.mp_state = MpState::Halted;
        Step::Resume
    } else {
        vcpu.run_page().set_plain(bindings::KVM_EXIT_HLT);
        Step::ToUser
    }
}

/// Handles an exception that the exception bitmap asks for.
fn exception(
    vm: &Vm,
    vcpu: &Vcpu,
    vmcs: &CurrentVmcs<'_>,
    state: &mut State,
    event: EventInfo,
) -> Step {
    if event.kind == EventKind::Nmi {
        // Handled directly after the exit.
        return Step::Resume;
    }
    if event.nmi_unblocked && event.vector != Vector::DF.number() {
        state.block_nmis_again(vmcs);
    }
    let vector = Vector::new(event.vector);
    match vector {
        // Handled directly after the exit.
        Vector::MC => Step::Resume,
        Vector::DB => {
            let payload = vmcs.read(field::EXIT_QUALIFICATION).0;
            if state.guest_debug.takes_debug_exceptions() {
                vcpu.report_debug(vmcs, state, payload);
                return Step::ToUser;
            }
            if event.kind == EventKind::PrivilegedSoftwareException {
                // INT1 exits before it is done, and traps.
                state.skip_without_trap(vmcs);
            }
            state.raise(Exception {
                vector,
                error_code: None,
                payload: Some(payload),
            });
            Step::Resume
        }
        Vector::UD => Step::Later(Later::InvalidOpcode),
        Vector::PF if state.is_shadow() => {
            let code = event.error_code.unwrap_or(0);
            let access = FaultAccess::of_page_fault(code);
            // Linear addresses are physical ones. They have 32 bits.
            let address = vmcs.read(field::EXIT_QUALIFICATION).0 & 0xffff_ffff;
            memory::start_fault(vm, vcpu, Gpa::new(address), access)
        }
        Vector::BP if state.guest_debug.takes_int3() => {
            vcpu.report_exception(vmcs, state, vector);
            Step::ToUser
        }
        _ if state.real_mode().is_some() && vector != Vector::PF => {
            real_mode::exception(vmcs, state, event)
        }
        Vector::AC => raise(
            state,
            Exception::with_error_code(vector, event.error_code.unwrap_or(0)),
        ),
        _ => unexpected(vcpu, state),
    }
}

/// Does the part of an exit that may sleep.
pub(crate) fn finish(vm: &Vm, vcpu: &Vcpu, owned: &mut Owned, later: Later) -> Result<Next> {
    match later {
        Later::Fault(gpa, access) => memory::fault(vm, vcpu, owned, gpa, access),
        Later::Emulate => emulation::emulate(vm, vcpu, owned, Start::Fetch),
        Later::EptMisconfiguration(gpa) => {
            vcpu.count_event(Event::FaultEmulated);
            // An instruction that writes there exits for no mere read: its translation allowed it.
            memory::emulate_mmio(vm, vcpu, owned, gpa, Start::Access(gpa, true))
        }
        Later::ApicAccess(gpa, write) => {
            memory::emulate_mmio(vm, vcpu, owned, gpa, Start::Access(gpa, write))
        }
        Later::StringIo(io) => io::string_io(vm, vcpu, owned, io),
        Later::LoadCr0(value, cr3) => {
            register::load_control(vm, owned, cr3, |state, vmcs, pdptes| {
                state.write_cr0(vmcs, value, Some(pdptes)).map(|_| ())
            })
        }
        Later::LoadCr3(value, cr3) => {
            register::load_control(vm, owned, cr3, |state, vmcs, pdptes| {
                state.write_cr3(vmcs, value, Some(pdptes)).map(|_| ())
            })
        }
        Later::LoadCr4(value, cr3) => {
            register::load_control(vm, owned, cr3, |state, vmcs, pdptes| {
                state.write_cr4(vmcs, value, Some(pdptes)).map(|_| ())
            })
        }
        Later::Hypercall => {
            vm.update_destinations();
            owned.with_vmcs(|vmcs, state| state.hypercall(vm, vcpu, vmcs, true));
            Ok(Next::Resume)
        }
        Later::Spin => {
            let yielded = vcpu.yield_to_any(vm);
            owned.with_vmcs(|vmcs, _| yielding::adapt_window(vmcs, yielded));
            Ok(Next::Resume)
        }
        Later::YieldTo(id) => {
            vcpu.yield_to(vm, id);
            Ok(Next::Resume)
        }
        Later::InvalidOpcode => hypercall::fix(vm, vcpu, owned),
        Later::OfferEoi => Ok(Next::Resume),
    }
}
