// SPDX-License-Identifier: GPL-2.0

//! The trace events, `events/kvm_rs/` in tracefs. `helpers/kvm_rs_trace.h` says how they are shown.
//!
//! Each function takes a closure that makes the event's arguments, and that is called only while somebody
//! traces the event: else it costs one test.

use crate::linux::tracepoint::tracepoints;

/// How [`kvm_mmio`] calls a read that goes to the client.
pub(crate) const MMIO_READ_UNSATISFIED: u32 = 0;
/// How [`kvm_mmio`] calls a read that is done.
pub(crate) const MMIO_READ: u32 = 1;
/// How [`kvm_mmio`] calls a write.
pub(crate) const MMIO_WRITE: u32 = 2;

tracepoints! {
    /// A VM entry is about to happen.
    kvm_entry(vcpu_id: u32, rip: u64, intr_info: u32, error_code: u32);
    /// The guest exited: `info1` is the exit qualification, `info2` the IDT-vectoring information.
    kvm_exit(
        vcpu_id: u32,
        exit_reason: u32,
        rip: u64,
        info1: u64,
        info2: u64,
        intr_info: u32,
        error_code: u32,
    );
    /// EPT refused an access to a guest-physical address; the error code is the
    /// exit qualification.
    kvm_page_fault(vcpu_id: u32, rip: u64, address: u64, error_code: u64);
    /// The next entry delivers an interrupt.
    kvm_inj_virq(vector: u32, soft: bool, reinjected: bool);
    /// The next entry delivers an NMI.
    kvm_inj_nmi(vcpu_id: u32, reinjected: bool);
    /// The next entry delivers an exception.
    kvm_inj_exception(vector: u32, has_error: bool, error_code: u32, reinjected: bool);
    /// The guest accessed an MSR; with `exception`, it gets #GP.
    kvm_msr(write: bool, index: u32, value: u64, exception: bool);
    /// The guest accessed a control register.
    kvm_cr(write: bool, register: u32, value: u64);
    /// The guest executed CPUID.
    kvm_cpuid(leaf: u32, subleaf: u32, eax: u32, ebx: u32, ecx: u32, edx: u32, found: bool);
    /// The guest made a hypercall.
    kvm_hypercall(number: u64, a0: u64, a1: u64, a2: u64, a3: u64);
    /// Port I/O: a write as it goes to the client, a read as it comes back.
    kvm_pio(write: bool, port: u32, size: u32, count: u32, value: u32);
    /// Memory-mapped I/O of one of the `MMIO_` kinds.
    kvm_mmio(kind: u32, len: u32, gpa: u64, value: u64);
    /// KVM_RUN ends, with an error number that is 0 or negative.
    kvm_userspace_exit(reason: u32, errno: i32);
}
