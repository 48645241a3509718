// SPDX-License-Identifier: GPL-2.0

//! Exits for accesses to guest-physical memory: pages that are to be mapped, devices, the local APIC.

use super::{
    Later,
    Step, //
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
    vcpu::{
        emulation::{
            self,
            Start, //
        },
        interrupt::EOI_OFFSET,
        run::Next,
        state::State,
        stats::Event,
        Owned,
        Vcpu, //
    },
    vm::Vm,
    vmx::{
        exit::{
            ApicAccess,
            ApicAccessKind, //
        },
        field,
        vmcs::CurrentVmcs, //
    },
    x86::addr::Gpa, //
};
use kernel::prelude::*;

/// Signals the eventfd that is for all accesses to an address without memory, or leaves the access to
/// what may sleep.
pub(super) fn ept_misconfiguration(
    vm: &Vm,
    vmcs: &CurrentVmcs<'_>,
    state: &mut State,
    gpa: Gpa,
) -> Step {
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
pub(super) fn apic_access(
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
pub(super) fn start_fault(vm: &Vm, vcpu: &Vcpu, gpa: Gpa, access: FaultAccess) -> Step {
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

/// Brings in the page, or emulates the instruction if there is no memory.
pub(super) fn fault(
    vm: &Vm,
    vcpu: &Vcpu,
    owned: &mut Owned,
    gpa: Gpa,
    access: FaultAccess,
) -> Result<Next> {
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
pub(super) fn emulate_mmio(
    vm: &Vm,
    vcpu: &Vcpu,
    owned: &mut Owned,
    gpa: Gpa,
    start: Start,
) -> Result<Next> {
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
