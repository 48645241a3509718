// SPDX-License-Identifier: GPL-2.0

//! What is done at each VM exit.
//!
//! [`handle`] runs with the VMCS current and preemption off, so nothing in it may sleep. It ends an exit
//! by going on, by going to the client, or by leaving the rest to [`finish`], which may sleep.

use super::{
    control::{
        self,
        Written, //
    },
    emulation::{
        self,
        Start, //
    },
    hypercall,
    interrupt::EOI_OFFSET,
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
    linux::{
        speculation,
        user_page::Wait, //
    },
    mmu::{
        AtOnce,
        FaultAccess,
        Resolved,
        Root,
        APIC_ACCESS, //
    },
    trace,
    vm::{
        settings::Quirk,
        Vm, //
    },
    vmx::{
        exit::{
            ApicAccess,
            ApicAccessKind,
            ControlAccess,
            DebugAccess,
            Exit, //
        },
        field,
        inject::{
            EventInfo,
            EventKind, //
        },
        vmcs::CurrentVmcs, //
    },
    x86::{
        addr::Gpa,
        control_regs::{
            rules,
            Cr0,
            Cr4,
            Xcr0, //
        },
        cpuid::Feature,
        exception::{
            Exception,
            Vector, //
        }, //
    }, //
};
use kernel::prelude::*;

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
            start_fault(vm, vcpu, violation.gpa, access)
        }
        // The log has been emptied directly after the exit.
        Exit::LogFull { nmi_unblocked } => {
            if nmi_unblocked && state.events.interrupted.is_none() {
                state.block_nmis_again(vmcs);
            }
            Step::Resume
        }
        Exit::ApicAccess(access) => apic_access(vm, vcpu, vmcs, state, access),
        Exit::VirtualizedEoi(vector) => {
            vcpu.virtual_interrupt_ended(vm, state, vector);
            Step::Resume
        }
        Exit::ApicWrite(offset) => {
            vcpu.apic_written(vm, state, offset);
            Step::Resume
        }
        Exit::EptMisconfiguration(gpa) => ept_misconfiguration(vm, vmcs, state, gpa),
        // The end of the timer's interrupt may be offered before the guest takes it.
        Exit::PreemptionTimer if vcpu.on_timer(state) && state.pv_eoi.is_used() => {
            Step::Later(Later::OfferEoi)
        }
        Exit::PreemptionTimer => Step::Resume,
        // Handled directly after the exit, as NMIs are.
        Exit::ExternalInterrupt(_) => Step::Resume,
        Exit::Rdmsr => resume_if(state.rdmsr(vm, vcpu, vmcs)),
        Exit::Wrmsr => resume_if(state.wrmsr(vm, vcpu, vmcs)),
        Exit::Control(access) => control(vcpu, vmcs, state, access),
        Exit::Debug(access) => debug(vcpu, vmcs, state, access),
        Exit::Hlt => hlt(vcpu, vmcs, state),
        Exit::InterruptWindow => {
            // The next entry injects, or the client is told.
            Step::Resume
        }
        // So does it when the TPR let an interrupt through.
        Exit::NmiWindow | Exit::TprBelowThreshold => Step::Resume,
        Exit::Exception(event) => exception(vm, vcpu, vmcs, state, event),
        Exit::Xsetbv => xsetbv(vmcs, state),
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
        Exit::Init | Exit::Unknown(_) => {
            let details = [u64::from(state.regs.exit_reason), u64::from(vcpu.cpu())];
            vcpu.run_page().set_internal_error(
                bindings::KVM_INTERNAL_ERROR_UNEXPECTED_EXIT_REASON,
                &details,
            );
            Step::ToUser
        }
    }
}

/// Signals the eventfd that is for all accesses to an address without memory, or leaves the access to
/// what may sleep.
fn ept_misconfiguration(vm: &Vm, vmcs: &CurrentVmcs<'_>, state: &mut State, gpa: Gpa) -> Step {
    // The manuals do not promise the length of an instruction here. Processors give it, hypervisors
    // may not.
    if vm.hypervisor().virtualized
        || state.events.interrupted.is_some()
        || !vm.ioeventfds().write_any(gpa.value())
    {
        return Step::Later(Later::EptMisconfiguration(gpa));
    }
    state.skip_instruction(vmcs);
    Step::Resume
}

/// Does what an access to the APIC-access page asks for.
fn apic_access(
    vm: &Vm,
    vcpu: &Vcpu,
    vmcs: &CurrentVmcs<'_>,
    state: &mut State,
    access: ApicAccess,
) -> Step {
    let gpa = Gpa::new(APIC_ACCESS.value() | u64::from(access.offset));
    match access.kind {
        // What is written does not matter, so the instruction need not be looked at.
        ApicAccessKind::Write if access.offset == EOI_OFFSET => {
            vcpu.end_of_interrupt(vm, state);
            state.skip_instruction(vmcs);
            Step::Resume
        }
        ApicAccessKind::Write => Step::Later(Later::ApicAccess(gpa, true)),
        ApicAccessKind::Read | ApicAccessKind::Delivery => {
            Step::Later(Later::ApicAccess(gpa, false))
        }
        ApicAccessKind::Fetch | ApicAccessKind::Physical => Step::Later(Later::Emulate),
    }
}

/// Lets the guest go on after a fault, or leaves that to what may sleep.
fn start_fault(vm: &Vm, vcpu: &Vcpu, gpa: Gpa, access: FaultAccess) -> Step {
    let Some(done) = vm.mmu().fault_at_once(gpa, access, vcpu.ring()) else {
        return Step::Later(Later::Fault(gpa, access));
    };
    vcpu.check_ring();
    vcpu.count_event(match done {
        AtOnce::Mapped | AtOnce::Disarmed => Event::FaultFixed,
        AtOnce::Spurious => Event::FaultSpurious,
    });
    if done == AtOnce::Disarmed {
        vcpu.count_event(Event::FaultFast);
    } else {
        // The host's own tables were looked at.
        speculation::host_data_touched();
    }
    Step::Resume
}

/// Raises an exception in the guest instead of finishing the instruction.
fn raise(state: &mut State, exception: Exception) -> Step {
    state.raise(exception);
    Step::Resume
}

/// Ends an instruction, or raises #GP(0).
fn finish_or_fault<E>(vmcs: &CurrentVmcs<'_>, state: &mut State, result: Result<(), E>) -> Step {
    match result {
        Ok(()) => state.skip_instruction(vmcs),
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

fn control(vcpu: &Vcpu, vmcs: &CurrentVmcs<'_>, state: &mut State, access: ControlAccess) -> Step {
    let cr0_write = |state: &mut State, value| match state.write_cr0(vmcs, value, None) {
        Ok(Written::Done) => finish_or_fault(vmcs, state, Ok::<(), ()>(())),
        Ok(Written::NeedsPdptes(cr3)) => Step::Later(Later::LoadCr0(value, cr3)),
        Err(_) => raise(state, Exception::general_protection()),
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
                0 => cr0_write(state, value),
                4 => match state.write_cr4(vmcs, value, None) {
                    Ok(Written::Done) => finish_or_fault(vmcs, state, Ok::<(), ()>(())),
                    Ok(Written::NeedsPdptes(cr3)) => Step::Later(Later::LoadCr4(value, cr3)),
                    Err(_) => raise(state, Exception::general_protection()),
                },
                3 => match state.write_cr3(vmcs, value, None) {
                    Ok(Written::Done) => finish_or_fault(vmcs, state, Ok::<(), ()>(())),
                    Ok(Written::NeedsPdptes(cr3)) => Step::Later(Later::LoadCr3(value, cr3)),
                    Err(_) => raise(state, Exception::general_protection()),
                },
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
            cr0_write(state, value)
        }
        ControlAccess::LoadMachineStatus(word) => {
            // LMSW sets PE, MP, EM and TS, and cannot clear PE.
            let old = state.cr0(vmcs).value();
            let value = (old & !0xe) | u64::from(word & 0xf);
            trace::kvm_cr(|| (true, 0, value));
            cr0_write(state, value)
        }
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

/// Reports an exit that this module's controls do not ask for.
fn unexpected(vcpu: &Vcpu, state: &State) -> Step {
    let details = [u64::from(state.regs.exit_reason), u64::from(vcpu.cpu())];
    vcpu.run_page().set_internal_error(
        bindings::KVM_INTERNAL_ERROR_UNEXPECTED_EXIT_REASON,
        &details,
    );
    Step::ToUser
}

fn debug(vcpu: &Vcpu, vmcs: &CurrentVmcs<'_>, state: &mut State, access: DebugAccess) -> Step {
    if let Err(exception) = state.check_debug_access(vmcs, access.register) {
        if exception.vector == Vector::DB && state.guest_debug.has_breakpoints() {
            vcpu.report_debug(vmcs, state, exception.payload.unwrap_or(0));
            return Step::ToUser;
        }
        return raise(state, exception);
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
            start_fault(vm, vcpu, Gpa::new(address), access)
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

fn xsetbv(vmcs: &CurrentVmcs<'_>, state: &mut State) -> Step {
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

/// Does the part of an exit that may sleep.
pub(crate) fn finish(vm: &Vm, vcpu: &Vcpu, owned: &mut Owned, later: Later) -> Result<Next> {
    match later {
        Later::Fault(gpa, access) => fault(vm, vcpu, owned, gpa, access),
        Later::Emulate => emulation::emulate(vm, vcpu, owned, Start::Fetch),
        Later::EptMisconfiguration(gpa) => {
            vcpu.count_event(Event::FaultEmulated);
            // An instruction that writes there exits for no mere read: its translation allowed it.
            emulate_mmio(vm, vcpu, owned, gpa, Start::Access(gpa, true))
        }
        Later::ApicAccess(gpa, write) => {
            emulate_mmio(vm, vcpu, owned, gpa, Start::Access(gpa, write))
        }
        Later::StringIo(io) => io::string_io(vm, vcpu, owned, io),
        Later::LoadCr0(value, cr3) => load_control(vm, owned, cr3, |state, vmcs, pdptes| {
            state.write_cr0(vmcs, value, Some(pdptes)).map(|_| ())
        }),
        Later::LoadCr3(value, cr3) => load_control(vm, owned, cr3, |state, vmcs, pdptes| {
            state.write_cr3(vmcs, value, Some(pdptes)).map(|_| ())
        }),
        Later::LoadCr4(value, cr3) => load_control(vm, owned, cr3, |state, vmcs, pdptes| {
            state.write_cr4(vmcs, value, Some(pdptes)).map(|_| ())
        }),
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

/// Writes a control register once the PDPTEs are read from guest memory.
fn load_control(
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

/// Brings in the page, or emulates the instruction if there is no memory.
fn fault(vm: &Vm, vcpu: &Vcpu, owned: &mut Owned, gpa: Gpa, access: FaultAccess) -> Result<Next> {
    let resolved = bring_in(vm, vcpu, owned, gpa, access).inspect_err(|&error| {
        if error == EINTR {
            vcpu.run_page().set_exit_reason(bindings::KVM_EXIT_INTR);
        }
        if error == EFAULT || error == EHWPOISON {
            let page = gpa.gfn().to_gpa();
            vcpu.run_page().set_memory_fault(page.value(), 4096);
        }
    })?;
    if resolved == Resolved::NoSlot && matches!(vcpu.root(), Root::Ept(_)) {
        vcpu.count_event(Event::MmioRemembered);
    }
    vcpu.count_event(match resolved {
        Resolved::Mapped => Event::FaultFixed,
        Resolved::Spurious => Event::FaultSpurious,
        Resolved::NoSlot | Resolved::ReadOnlySlot => Event::FaultEmulated,
        // Somebody else waits for it.
        Resolved::Away(_) => return Ok(Next::Resume),
    });
    match resolved {
        Resolved::Mapped | Resolved::Spurious | Resolved::Away(_) => Ok(Next::Resume),
        Resolved::NoSlot | Resolved::ReadOnlySlot => {
            // What the CPU writes may be an entry of the guest's tables.
            let start = if access.write || access.execute {
                Start::Fetch
            } else {
                Start::Access(gpa, false)
            };
            emulate_mmio(vm, vcpu, owned, gpa, start)
        }
    }
}

/// Brings in the page, unless the guest can do something else while it is away.
fn bring_in(
    vm: &Vm,
    vcpu: &Vcpu,
    owned: &mut Owned,
    gpa: Gpa,
    access: FaultAccess,
) -> Result<Resolved> {
    if vcpu.controller().is_some() {
        let resolved = vm.mmu().fault(gpa, access, vcpu.ring(), Wait::No)?;
        match resolved {
            Resolved::Away(hva) if !owned.defer_page(vm, vcpu, gpa, hva) => {}
            _ => return Ok(resolved),
        }
    }
    vm.mmu().fault(gpa, access, vcpu.ring(), Wait::Yes)
}

/// Emulates the instruction that met no memory at `gpa`.
fn emulate_mmio(vm: &Vm, vcpu: &Vcpu, owned: &mut Owned, gpa: Gpa, start: Start) -> Result<Next> {
    if owned.state.events.interrupted.take().is_some() {
        // Delivery of an event went through memory-mapped I/O: nobody can say how it goes on.
        let (event, qualification) = owned.with_vmcs(|vmcs, _| {
            (
                vmcs.read(field::IDT_VECTORING_INFO),
                vmcs.read(field::EXIT_QUALIFICATION).0,
            )
        });
        let details = [
            u64::from(event),
            u64::from(owned.state.regs.exit_reason),
            qualification,
            gpa.value(),
            u64::from(vcpu.cpu()),
        ];
        vcpu.run_page()
            .set_internal_error(bindings::KVM_INTERNAL_ERROR_DELIVERY_EV, &details);
        return Ok(Next::ToUser);
    }
    emulation::emulate(vm, vcpu, owned, start)
}
