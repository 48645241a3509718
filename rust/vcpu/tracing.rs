// SPDX-License-Identifier: GPL-2.0

//! What the trace events of a vCPU tell: each function here costs one test unless its event is traced.

use super::{
    state::{
        State,
        RAX,
        RBX,
        RCX,
        RDX, //
    },
    Vcpu, //
};
use crate::{
    trace,
    vmx::{
        exit::ENTRY_FAILURE,
        field,
        inject::{
            EventInfo,
            EventKind, //
        },
        vmcs::CurrentVmcs, //
    },
    x86::addr::Gpa, //
};

/// Bits of interruption information: the event is valid, and delivers an error code.
const VALID_WITH_ERROR_CODE: u32 = 1 << 31 | 1 << 11;

/// Returns an error code, or 0 unless the interruption information says that there is one.
fn error_code(info: u32, read: impl FnOnce() -> u32) -> u32 {
    if info & VALID_WITH_ERROR_CODE == VALID_WITH_ERROR_CODE {
        read()
    } else {
        0
    }
}

/// Traces an entry, all of which is in the VMCS.
#[inline(always)]
pub(super) fn entry(vcpu: &Vcpu, vmcs: &CurrentVmcs<'_>) {
    trace::kvm_entry(|| {
        let info = vmcs.read(field::VM_ENTRY_INTERRUPTION_INFO);
        let code = error_code(info, || vmcs.read(field::VM_ENTRY_EXCEPTION_ERROR_CODE));
        (vcpu.id(), vmcs.read(field::GUEST_RIP).0, info, code)
    });
}

/// Traces an exit.
#[inline(always)]
pub(super) fn exit(vcpu: &Vcpu, vmcs: &CurrentVmcs<'_>, reason: u32) {
    trace::kvm_exit(|| {
        let rip = vmcs.read(field::GUEST_RIP).0;
        let qualification = vmcs.read(field::EXIT_QUALIFICATION).0;
        // A failed entry leaves the rest as it was.
        let (vectoring, info) = if reason & ENTRY_FAILURE != 0 {
            (0, 0)
        } else {
            (
                vmcs.read(field::IDT_VECTORING_INFO),
                vmcs.read(field::VM_EXIT_INTERRUPTION_INFO),
            )
        };
        let code = error_code(info, || vmcs.read(field::VM_EXIT_INTERRUPTION_ERROR_CODE));
        let vectoring = u64::from(vectoring);
        (vcpu.id(), reason, rip, qualification, vectoring, info, code)
    });
}

/// Traces an access that EPT refused. The error code is the exit qualification, as in KVM.
#[inline(always)]
pub(super) fn page_fault(vcpu: &Vcpu, vmcs: &CurrentVmcs<'_>, address: Gpa) {
    trace::kvm_page_fault(|| {
        let rip = vmcs.read(field::GUEST_RIP).0;
        let qualification = vmcs.read(field::EXIT_QUALIFICATION).0;
        (vcpu.id(), rip, address.value(), qualification)
    });
}

/// Traces CPUID of this leaf, whose answer is in the registers.
#[inline(always)]
pub(super) fn cpuid(state: &State, leaf: u32, subleaf: u32) {
    trace::kvm_cpuid(move || {
        // CAST: The instruction wrote the lower halves.
        let [a, b, c, d] = [RAX, RBX, RCX, RDX].map(|index| state.gpr(index) as u32);
        let found = state.cpuid.has(leaf, subleaf);
        (leaf, subleaf, a, b, c, d, found)
    });
}

/// Traces an event that the next entry delivers, perhaps again.
pub(super) fn injection(vcpu: &Vcpu, event: &EventInfo, reinjected: bool) {
    let vector = u32::from(event.vector);
    match event.kind {
        EventKind::ExternalInterrupt => trace::kvm_inj_virq(|| (vector, false, reinjected)),
        EventKind::SoftwareInterrupt => trace::kvm_inj_virq(|| (vector, true, reinjected)),
        EventKind::Nmi => trace::kvm_inj_nmi(|| (vcpu.id(), reinjected)),
        EventKind::HardwareException
        | EventKind::SoftwareException
        | EventKind::PrivilegedSoftwareException => trace::kvm_inj_exception(|| {
            let code = event.error_code;
            (vector, code.is_some(), code.unwrap_or(0), reinjected)
        }),
    }
}

/// Returns the first `size` bytes of port-I/O data as a number, for a trace.
pub(super) fn port_value(data: &[u8], size: u8) -> u32 {
    data.iter()
        .take(usize::from(size).min(4))
        .rev()
        .fold(0, |value, &byte| value << 8 | u32::from(byte))
}

/// Traces a read or write of memory-mapped I/O.
#[inline(always)]
pub(super) fn mmio(kind: u32, gpa: u64, data: &[u8]) {
    trace::kvm_mmio(|| {
        let value = data
            .iter()
            .take(8)
            .rev()
            .fold(0, |value, &byte| value << 8 | u64::from(byte));
        // CAST: At most 8.
        (kind, data.len() as u32, gpa, value)
    });
}
