// SPDX-License-Identifier: GPL-2.0

//! Hypercalls: VMCALL, and the instruction that other makers' CPUs have in its place. See
//! Documentation/virt/kvm/x86/hypercalls.rst in the kernel's source. And the other instructions that a
//! CPU refuses with #UD and the guest has nevertheless.

use super::{
    context::{
        Context,
        MAX_INSTRUCTION, //
    },
    emulation::{
        self,
        Start, //
    },
    exits::{
        Later,
        Step, //
    },
    interrupt::deliver::{
        kick,
        send_ipis,
        IpiRequest, //
    },
    pending::Pending,
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
    Owned,
    Vcpu, //
};
use crate::{
    bindings,
    emulate::{
        self,
        Mode, //
    },
    trace,
    vm::{
        settings::Quirk,
        Vm, //
    },
    vmx::{
        field,
        vmcs::CurrentVmcs, //
    },
    x86::{
        addr::PAGE_SIZE,
        cpuid::{
            self,
            Feature as CpuFeature,
            Reg, //
        },
        exception::Exception, //
    }, //
};
use kernel::prelude::*;

/// Returned by hypercalls, as KVM defines it.
const KVM_ENOSYS: i64 = -1000;
const KVM_EPERM: i64 = -1;
const KVM_EINVAL: i64 = -22;
const KVM_EOPNOTSUPP: i64 = -95;

/// Hypercalls.
const HC_VAPIC_POLL_IRQ: u64 = 1;
const HC_KICK_CPU: u64 = 5;
const HC_CLOCK_PAIRING: u64 = 9;
const HC_SEND_IPI: u64 = 10;
const HC_SCHED_YIELD: u64 = 11;
const HC_MAP_GPA_RANGE: u64 = 12;

/// Hypercalls that a client can ask for (KVM_CAP_EXIT_HYPERCALL), a bit for each number.
pub(crate) const FOR_CLIENT: u32 = 1 << HC_MAP_GPA_RANGE;

/// Last bytes of VMCALL, and of AMD's VMMCALL, which is no instruction of this CPU; the others are the
/// same.
const VMCALL: u8 = 0xc1;
const VMMCALL: u8 = 0xd9;

impl State {
    /// Does a hypercall.
    ///
    /// `again` tells that this is the second time, after the VM's table of destinations was brought up to
    /// date.
    pub(crate) fn hypercall(
        &mut self,
        vm: &Vm,
        vcpu: &Vcpu,
        vmcs: &CurrentVmcs<'_>,
        again: bool,
    ) -> Step {
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
                // CAST: It is below 32.
                HC_MAP_GPA_RANGE
                    if vm
                        .settings()
                        .asks_user_for_hypercall(HC_MAP_GPA_RANGE as u32) =>
                {
                    match self.ask_to_map(vcpu, vmcs, long, width) {
                        Ok(()) => return Step::ToUser,
                        Err(error) => error,
                    }
                }
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

    /// Asks the client to change how a range of guest-physical memory is mapped.
    #[cold]
    fn ask_to_map(
        &mut self,
        vcpu: &Vcpu,
        vmcs: &CurrentVmcs<'_>,
        long: bool,
        width: u64,
    ) -> Result<(), i64> {
        let [gpa, pages, attributes] = [RBX, RCX, RDX].map(|register| self.gpr(register) & width);
        let end = (gpa / PAGE_SIZE).checked_add(pages);
        if gpa % PAGE_SIZE != 0 || pages == 0 || end.is_none() {
            return Err(KVM_EINVAL);
        }
        let flags = if long {
            u64::from(bindings::KVM_RS_HYPERCALL_LONG_MODE)
        } else {
            0
        };
        vcpu.run_page()
            .set_hypercall(HC_MAP_GPA_RANGE, [gpa, pages, attributes, 0, 0, 0], flags);
        self.pending = Some(Pending::Hypercall {
            length: vmcs.read(field::VM_EXIT_INSTRUCTION_LENGTH),
        });
        Ok(())
    }

    /// Finishes a hypercall that the client has done.
    pub(super) fn complete_hypercall(&mut self, vcpu: &Vcpu, vmcs: &CurrentVmcs<'_>, length: u32) {
        let width = if self.is_64bit(vmcs) {
            u64::MAX
        } else {
            0xffff_ffff
        };
        self.set_gpr(RAX, vcpu.run_page().hypercall_result() & width);
        self.advance(vmcs, length);
    }
}

/// What became of an instruction that this CPU refused.
enum Found {
    /// RDPID to this register, and its length.
    Rdpid(usize, u64),
    /// MOVBE.
    Movbe,
    /// Another one.
    Other,
}

/// Goes on after an instruction that this CPU does not have.
///
/// MOVBE and RDPID are executed in software if the guest's CPUID has them (KVM_GET_EMULATED_CPUID).
/// VMMCALL is replaced by VMCALL, so that a guest which takes this CPU for AMD's can make hypercalls; the
/// guest executes what is there then, and pays for this once. All others raise #UD.
pub(crate) fn fix(vm: &Vm, vcpu: &Vcpu, owned: &mut Owned) -> Result<Next> {
    let context = owned.with_vmcs(|vmcs, state| Context::read(state, vmcs));
    let rip = owned.state.fetched_rip();
    match find(vm, owned, &context, rip) {
        Ok(Found::Movbe) => return emulation::emulate(vm, vcpu, owned, Start::Fetch),
        Ok(Found::Rdpid(register, length)) => {
            let value = vcpu.lazy_msrs().tsc_aux;
            owned.with_vmcs(|vmcs, state| {
                state.set_gpr(register, value);
                // CAST: A few bytes.
                state.advance(vmcs, length as u32);
            });
            return Ok(Next::Resume);
        }
        Ok(Found::Other) => {}
        Err(exception) => {
            owned.state.raise(exception);
            return Ok(Next::Resume);
        }
    }
    let fixed = if vm.settings().has(Quirk::FixHypercall) {
        replace(vm, &context, rip)
    } else {
        Ok(None)
    };
    if let Err(exception) = fixed.and_then(|fixed| fixed.ok_or(Exception::invalid_opcode())) {
        owned.state.raise(exception);
    }
    Ok(Next::Resume)
}

/// Looks for an instruction at `rip` that is executed in software.
fn find(vm: &Vm, owned: &Owned, context: &Context, rip: u64) -> Result<Found, Exception> {
    let has = |feature: CpuFeature, leaf: u32, reg: Reg| {
        cpuid::find(owned.state.cpuid.entries(), leaf, 0)
            .is_some_and(|entry| entry.get(reg) & feature.mask() != 0)
    };
    let (movbe, rdpid) = (
        has(CpuFeature::MOVBE, 1, Reg::Ecx),
        has(CpuFeature::RDPID, 7, Reg::Ecx) && vm.hypervisor().model.emulates_rdpid(),
    );
    if !movbe && !rdpid {
        return Ok(Found::Other);
    }
    let (bytes, length) = context.fetch::<MAX_INSTRUCTION>(vm, rip)?;
    let bytes = bytes.get(..length).unwrap_or(&[]);
    if rdpid {
        let (rex, rest) = match bytes {
            [0xf3, rex @ 0x40..=0x4f, rest @ ..] if context.mode == Mode::Long64 => (*rex, rest),
            [0xf3, rest @ ..] => (0, rest),
            _ => (0, &[][..]),
        };
        if let [0x0f, 0xc7, modrm @ 0xf8..=0xff, ..] = rest {
            let register = usize::from(modrm & 7 | (rex & 1) << 3);
            return Ok(Found::Rdpid(register, if rex == 0 { 4 } else { 5 }));
        }
    }
    let is_movbe =
        || emulate::decode(context.mode, bytes).is_ok_and(|instruction| instruction.is_movbe());
    Ok(if movbe && is_movbe() {
        Found::Movbe
    } else {
        Found::Other
    })
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
