// SPDX-License-Identifier: GPL-2.0

//! Hypercalls: VMCALL, and the instruction that other makers' CPUs have in its place. See
//! Documentation/virt/kvm/x86/hypercalls.rst in the kernel's source.

use super::{
    context::Context,
    exits::{
        Later,
        Step, //
    },
    interrupt::deliver::{
        kick,
        send_ipis,
        IpiRequest, //
    },
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
const HC_KICK_CPU: u64 = 5;
const HC_CLOCK_PAIRING: u64 = 9;
const HC_SEND_IPI: u64 = 10;
const HC_SCHED_YIELD: u64 = 11;

/// Last bytes of VMCALL, and of AMD's VMMCALL, which is no instruction of this CPU; the others are the
/// same.
const VMCALL: u8 = 0xc1;
const VMMCALL: u8 = 0xd9;

impl State {
    /// Does a hypercall.
    ///
    /// `again` tells that this is the second time, after the VM's table of destinations was brought up to
    /// date.
    pub(crate) fn hypercall(&mut self, vm: &Vm, vmcs: &CurrentVmcs<'_>, again: bool) -> Step {
        let long = self.is_64bit(vmcs);
        let width = if long { u64::MAX } else { 0xffff_ffff };
        let number = self.gpr(RAX) & width;
        let state = &*self;
        trace::kvm_hypercall(|| {
            let argument = |register| state.gpr(register) & width;
            let (a0, a1) = (argument(RBX), argument(RCX));
            (number, a0, a1, argument(RDX), argument(RSI))
        });
        let mut yield_to = None;
        let result = if self.cpl(vmcs) != 0 {
            KVM_EPERM
        } else {
            match number {
                HC_VAPIC_POLL_IRQ => 0,
                HC_SCHED_YIELD if self.has_pv(Feature::SchedYield) => {
                    // CAST: An APIC ID.
                    yield_to = Some(self.gpr(RBX) as u32);
                    0
                }
                HC_KICK_CPU if self.has_pv(Feature::Unhalt) => {
                    // CAST: An APIC ID.
                    let id = self.gpr(RCX) as u32;
                    kick(vm.vcpus(), id);
                    yield_to = Some(id);
                    0
                }
                HC_SEND_IPI if self.has_pv(Feature::SendIpi) => {
                    let request = IpiRequest {
                        low: self.gpr(RBX) & width,
                        high: self.gpr(RCX) & width,
                        // CAST: An APIC ID.
                        first: self.gpr(RDX) as u32,
                        // CAST: An interrupt command has 32 bits without its destination.
                        command: self.gpr(RSI) as u32,
                        width: if long { 64 } else { 32 },
                    };
                    match send_ipis(vm.vcpus(), &request) {
                        Some(result) => result,
                        None if !again => return Step::Later(Later::Hypercall),
                        None => KVM_EOPNOTSUPP,
                    }
                }
                HC_CLOCK_PAIRING => KVM_EOPNOTSUPP,
                _ => KVM_ENOSYS,
            }
        };
        // CAST: The two's complement of the error.
        self.set_gpr(RAX, result as u64 & width);
        self.skip_instruction(vmcs);
        match yield_to {
            Some(id) => Step::Later(Later::YieldTo(id)),
            None => Step::Resume,
        }
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
