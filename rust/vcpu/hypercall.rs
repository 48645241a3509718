// SPDX-License-Identifier: GPL-2.0

//! Hypercalls: VMCALL, and the instruction that other makers' CPUs have in its place. See
//! Documentation/virt/kvm/x86/hypercalls.rst in the kernel's source.

use super::{
    context::Context,
    pv::Feature,
    run::Next,
    state::{
        State,
        RAX,
        RBX,
        RCX,
        RDX,
        RSI, //
    },
    Owned, //
};
use crate::{
    emulate::Mode,
    trace,
    vm::Vm,
    vmx::vmcs::CurrentVmcs,
    x86::exception::Exception, //
};
use kernel::prelude::*;

/// Returned by hypercalls, as KVM defines it.
const KVM_ENOSYS: i64 = -1000;
const KVM_EPERM: i64 = -1;
const KVM_EOPNOTSUPP: i64 = -95;

/// Hypercalls.
const HC_VAPIC_POLL_IRQ: u64 = 1;
const HC_CLOCK_PAIRING: u64 = 9;
const HC_SCHED_YIELD: u64 = 11;

/// Last bytes of VMCALL, and of AMD's VMMCALL, which is no instruction of this CPU; the others are the
/// same.
const VMCALL: u8 = 0xc1;
const VMMCALL: u8 = 0xd9;

impl State {
    /// Does a hypercall.
    pub(crate) fn hypercall(&mut self, vmcs: &CurrentVmcs<'_>) {
        let long = self.is_64bit(vmcs);
        let width = if long { u64::MAX } else { 0xffff_ffff };
        let number = self.gpr(RAX) & width;
        let state = &*self;
        trace::kvm_hypercall(|| {
            let argument = |register| state.gpr(register) & width;
            let (a0, a1) = (argument(RBX), argument(RCX));
            (number, a0, a1, argument(RDX), argument(RSI))
        });
        let result = if self.cpl(vmcs) != 0 {
            KVM_EPERM
        } else {
            match number {
                HC_VAPIC_POLL_IRQ => 0,
                // It is a hint: the vCPU goes on.
                HC_SCHED_YIELD if self.has_pv(Feature::SchedYield) => 0,
                HC_CLOCK_PAIRING => KVM_EOPNOTSUPP,
                _ => KVM_ENOSYS,
            }
        };
        // CAST: The two's complement of the error.
        self.set_gpr(RAX, result as u64 & width);
        self.skip_instruction(vmcs);
    }
}

/// Goes on after an instruction that this CPU does not have: VMMCALL is replaced by VMCALL, so that a
/// guest which takes this CPU for AMD's can make hypercalls; all others raise #UD.
///
/// The guest executes what is there then, and pays for this once.
pub(crate) fn fix(vm: &Vm, owned: &mut Owned) -> Result<Next> {
    let context = owned.with_vmcs(|vmcs, state| Context::read(state, vmcs));
    let fixed = replace(vm, &context, owned.state.fetched_rip());
    if let Err(exception) = fixed.and_then(|fixed| fixed.ok_or(Exception::invalid_opcode())) {
        owned.state.raise(exception);
    }
    Ok(Next::Resume)
}

/// Makes VMCALL of VMMCALL at `rip`, as a write of the guest's own; `None` if there is no such
/// instruction, or its last byte is in no memory that can be written.
fn replace(vm: &Vm, context: &Context, rip: u64) -> Result<Option<()>, Exception> {
    // Elsewhere VMMCALL is invalid.
    if matches!(context.mode, Mode::Real | Mode::Virtual8086) {
        return Ok(None);
    }
    match context.fetch(vm, rip)? {
        ([0x0f, 0x01, VMMCALL], 3) => {}
        // Another vCPU was faster.
        ([0x0f, 0x01, VMCALL], 3) => return Ok(Some(())),
        _ => return Ok(None),
    }
    // Only this byte changes, so that a vCPU which fetches meanwhile gets one of them whole.
    let last = context.linear_rip(rip.wrapping_add(2));
    let gpa = context.translate(vm, last, true, false)?;
    // Who finds another byte there lets the guest execute that.
    let exchanged = vm.memory().compare_exchange(gpa, VMMCALL, VMCALL);
    Ok(exchanged.ok().map(|_| ()))
}
