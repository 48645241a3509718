// SPDX-License-Identifier: GPL-2.0

//! States that VM entry refuses: the guest's instructions are executed in software until it is out.
//!
//! A guest passes through them on its way between modes. After it has set CR0.PE, its segment registers
//! are those of real mode up to the first far jump and the loads that follow. Some stay: code in "big"
//! real mode, with limits of 4 GiB, which virtual-8086 mode does not have.

use super::{
    super::{
        emulation,
        run::Next,
        state::{
            MpState,
            State, //
        },
        Owned,
        Vcpu, //
    },
    real_mode, //
};
use crate::{
    bindings,
    linux::{
        log,
        task, //
    },
    vm::Vm,
    vmx::{
        inject::EventKind,
        vmcs::CurrentVmcs, //
    },
    x86::{
        control_regs::Rflags,
        segment_rules, //
    }, //
};
use kernel::prelude::*;

/// How many instructions are executed before the run loop looks around.
const TURN: u32 = 128;

/// What comes before VM entry of a guest that is not unrestricted. `None` if entry can be.
pub(crate) fn before_entry(vm: &Vm, vcpu: &Vcpu, owned: &mut Owned) -> Result<Option<Next>> {
    if owned.state.must_deliver() {
        real_mode::deliver(vm, owned);
        return Ok(Some(Next::Resume));
    }
    if !owned.state.events.entry_unchecked {
        return Ok(None);
    }
    if owned.state.needs_shadow_paging() {
        log::note_paging_without_ept();
        vcpu.run_page()
            .set_internal_error(bindings::KVM_INTERNAL_ERROR_EMULATION, &[]);
        return Ok(Some(Next::ToUser));
    }
    if owned.with_vmcs(|vmcs, state| state.look_at_entry(vm, vmcs)) {
        return Ok(None);
    }
    execute(vm, vcpu, owned).map(Some)
}

/// Executes instructions until VM entry accepts the guest, or something else is to be done.
fn execute(vm: &Vm, vcpu: &Vcpu, owned: &mut Owned) -> Result<Next> {
    for _ in 0..TURN {
        let window = vcpu.accepts_client_interrupt() && vcpu.run_page().wants_interrupt_window();
        let open = owned.with_vmcs(|vmcs, state| {
            if state.real_mode().is_some() && state.inject(vm, vcpu, vmcs, window) {
                return false;
            }
            window && state.takes_client_interrupt(vmcs)
        });
        if owned.state.must_deliver() {
            return Ok(Next::Resume);
        }
        if owned.state.has_stuck_event() {
            vcpu.run_page()
                .set_internal_error(bindings::KVM_INTERNAL_ERROR_EMULATION, &[]);
            return Ok(Next::ToUser);
        }
        if open {
            vcpu.count_event(super::super::stats::Event::WindowToUser);
            vcpu.run_page()
                .set_plain(bindings::KVM_EXIT_IRQ_WINDOW_OPEN);
            return Ok(Next::ToUser);
        }
        vcpu.check_ring();
        if vcpu.doorbell().is_pending() || task::work_pending() {
            return Ok(Next::Resume);
        }
        if emulation::emulate(vm, vcpu, owned, emulation::Start::Fetch)? == Next::ToUser {
            return Ok(Next::ToUser);
        }
        let state = &owned.state;
        if state.mp_state != MpState::Runnable
            || state.events.are_for_client()
            || owned.with_vmcs(|vmcs, state| state.look_at_entry(vm, vmcs))
        {
            return Ok(Next::Resume);
        }
    }
    Ok(Next::Resume)
}

impl State {
    /// Returns whether the guest pages, and there is no EPT.
    fn needs_shadow_paging(&self) -> bool {
        self.restricted
            .as_ref()
            .is_some_and(|restricted| restricted.is_shadow() && restricted.paging)
    }

    /// Returns whether an exception waits that cannot be delivered before VM entry accepts the state,
    /// but that is to be delivered before the next instruction.
    fn has_stuck_event(&self) -> bool {
        let interrupted = self.events.interrupted.is_some_and(|interrupted| {
            !matches!(
                interrupted.event.kind,
                EventKind::ExternalInterrupt | EventKind::Nmi
            )
        });
        self.real_mode().is_none() && (interrupted || self.events.exception.is_some())
    }

    /// Finds out whether VM entry accepts the guest's state, and makes hardware ready if so.
    fn look_at_entry(&mut self, vm: &Vm, vmcs: &CurrentVmcs<'_>) -> bool {
        let rflags = self.rflags(vmcs);
        let segments = self.segments(vmcs);
        let tss = vm.tss_address();
        // INT n of virtual-8086 mode knows of no other place for the table than address 0.
        let table = vmcs.idtr();
        let Some(restricted) = &mut self.restricted else {
            return true;
        };
        let accepted = if restricted.real_mode.is_some() {
            match tss {
                Some(address) if table.base == 0 && segment_rules::are_8086(&segments) => {
                    restricted.load_tss(vmcs, address);
                    true
                }
                _ => false,
            }
        } else if rflags & Rflags::VM.value() != 0 {
            segment_rules::are_8086(&segments)
        } else {
            segment_rules::are_protected(&segments)
        };
        self.events.entry_unchecked = !accepted;
        accepted
    }
}
