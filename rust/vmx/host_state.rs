// SPDX-License-Identifier: GPL-2.0

//! The host state of a VMCS, and the host's registers that VMX does not swap.
//!
//! There are four kinds, by how often they change:
//!
//! | kind                                            | written to the VMCS or the CPU           |
//! |-------------------------------------------------|------------------------------------------|
//! | constants of the boot ([`HostConstants`])       | once per VMCS                            |
//! | TSS, GDT, GS base of a CPU                      | when the VMCS moves to another CPU       |
//! | FS base and selectors, SYSCALL MSRs, kernel GS  | when the thread comes to or leaves a CPU |
//! | CR3, CR4                                        | when they differ from the last entry's   |
//!
//! The third kind is lazy: [`HostSwitch::to_guest`] saves the host's values before the first entry, and
//! [`HostSwitch::to_host`] restores them when the thread is scheduled out or goes back to user space,
//! not at each exit.
//!
//! The SYSCALL MSRs could stay the guest's until the CPU returns to user space, with the kernel's
//! user-return notifier. kvm_intel does so, and believes that nobody else does: it keeps for each CPU
//! what it last wrote to each MSR, and does not write that again. After a thread of ours, one of its
//! vCPUs would then run with our guest's MSRs; and loaded while ours are in the CPU, it would take them
//! for the host's. So what is found in an MSR is put back before another thread runs, whosesoever it
//! is: that keeps both what kvm_intel believes and what its notifier restores right.

use super::{
    field::{
        self,
        Natural, //
    },
    vmcs::CurrentVmcs, //
};
use crate::{
    linux::{
        host::{
            self,
            HostConstants,
            HostSegments, //
        },
        preempt::PreemptGuard,
        speculation::PredictionDomain,
        task::SchedOut, //
    },
    x86::msr::{
        rdmsr,
        wrmsr, //
    }, //
};
use core::cell::Cell;
use kernel::sync::atomic::{
    Atomic,
    Relaxed, //
};

/// IA32_STAR.
const STAR: u32 = 0xc000_0081;
/// IA32_LSTAR.
const LSTAR: u32 = 0xc000_0082;
/// IA32_FMASK.
const FMASK: u32 = 0xc000_0084;
/// IA32_KERNEL_GS_BASE.
const KERNEL_GS_BASE: u32 = 0xc000_0102;
/// IA32_TSC_AUX.
const TSC_AUX: u32 = 0xc000_0103;

/// IA32_PEBS_ENABLE.
const PEBS_ENABLE: u32 = 0x3f1;

/// RPL and TI of a selector, which the host's fields of a VMCS must not have.
const SELECTOR_RPL_TI: u16 = 7;

/// Writes what stays the same for the VMCS's life.
///
/// `swaps_msrs` says whether exits load IA32_EFER and IA32_PAT; else they stay as they are.
pub(crate) fn write_constants(vmcs: &CurrentVmcs<'_>, host: &HostConstants, swaps_msrs: bool) {
    vmcs.write(field::HOST_CR0, Natural(host.cr0 as u64));
    if swaps_msrs {
        vmcs.write(field::HOST_EFER, host.efer);
        vmcs.write(field::HOST_PAT, host.pat);
    }
    vmcs.write(field::HOST_IDTR_BASE, Natural(host.idt_base as u64));
    vmcs.write(field::HOST_SYSENTER_CS, host.sysenter_cs);
    vmcs.write(field::HOST_SYSENTER_EIP, Natural(host.sysenter_eip as u64));
    vmcs.write(field::HOST_RIP, Natural(host.exit_rip as u64));
    vmcs.write(field::HOST_CS_SELECTOR, host.cs);
    vmcs.write(field::HOST_SS_SELECTOR, host.ss);
    vmcs.write(field::HOST_TR_SELECTOR, host.tr);
    // The kernel runs with null DS and ES, and brings user space's back itself if they are not null.
    vmcs.write(field::HOST_DS_SELECTOR, 0);
    vmcs.write(field::HOST_ES_SELECTOR, 0);
    vmcs.write(field::HOST_FS_SELECTOR, 0);
    vmcs.write(field::HOST_GS_SELECTOR, 0);
    vmcs.write(field::HOST_FS_BASE, Natural(0));
}

/// Writes what belongs to the CPU that the VMCS came to.
pub(crate) fn write_per_cpu(vmcs: &CurrentVmcs<'_>, preempt: &PreemptGuard) {
    let cpu = host::per_cpu(preempt);
    vmcs.write(field::HOST_TR_BASE, Natural(cpu.tr_base as u64));
    vmcs.write(field::HOST_GDTR_BASE, Natural(cpu.gdt_base as u64));
    vmcs.write(field::HOST_GS_BASE, Natural(cpu.gs_base as u64));
    vmcs.write(field::HOST_SYSENTER_ESP, Natural(cpu.sysenter_esp as u64));
}

/// The control registers that a VMCS was last given for the host.
#[derive(Default)]
pub(crate) struct HostControlRegisters {
    cr3: u64,
    cr4: u64,
}

impl HostControlRegisters {
    /// Brings the VMCS's host CR3 and CR4 up to date; interrupts are off.
    ///
    /// CR3 may have another PCID whenever the task came back to its address space, CR4 may be changed
    /// by a call from another CPU.
    #[inline]
    pub(crate) fn refresh(&mut self, vmcs: &CurrentVmcs<'_>) {
        let cr3 = host::cr3();
        if cr3 != self.cr3 {
            vmcs.write(field::HOST_CR3, Natural(cr3));
            self.cr3 = cr3;
        }
        let cr4 = host::cr4();
        if cr4 != self.cr4 {
            vmcs.write(field::HOST_CR4, Natural(cr4));
            self.cr4 = cr4;
        }
    }
}

/// Guest values of MSRs that VMX does not swap and that exits do not need swapped.
#[derive(Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct GuestMsrValues {
    /// IA32_KERNEL_GS_BASE.
    pub(crate) kernel_gs_base: u64,
    /// IA32_STAR.
    pub(crate) star: u64,
    /// IA32_LSTAR.
    pub(crate) lstar: u64,
    /// IA32_CSTAR: kept, but used by no instruction of an Intel CPU.
    pub(crate) cstar: u64,
    /// IA32_FMASK.
    pub(crate) fmask: u64,
    /// IA32_TSC_AUX.
    pub(crate) tsc_aux: u64,
    /// Whether the guest can execute SYSCALL, which uses the three MSRs above.
    pub(crate) syscall: bool,
    /// Whether the guest can execute RDTSCP or RDPID, which read `tsc_aux`.
    pub(crate) rdtscp: bool,
}

/// Which half of the lazily switched state the CPU holds, and the other half's values.
///
/// Used by the vCPU's thread only, and by the scheduler on its behalf.
pub(crate) struct HostSwitch {
    predictions: PredictionDomain,
    in_guest: Cell<bool>,
    segments: Cell<HostSegments>,
    guest: Cell<GuestMsrValues>,
    host: Cell<GuestMsrValues>,
    /// How often the host's half was brought back. Only the vCPU's thread counts.
    reloads: Atomic<u64>,
    /// What the VMCS has for FS: base and both selectors.
    written: Cell<(u64, u16, u16)>,
}

// SAFETY: The vCPU's mutex lets one thread at a time use it; see `vcpu`.
unsafe impl Send for HostSwitch {}
// SAFETY: As above; the scheduler's callback runs in that same thread.
unsafe impl Sync for HostSwitch {}

impl HostSwitch {
    /// Returns a switch on the host's side, with all guest MSRs 0.
    pub(crate) fn new() -> Self {
        Self {
            predictions: PredictionDomain::new(),
            in_guest: Cell::new(false),
            segments: Cell::new(HostSegments::default()),
            guest: Cell::new(GuestMsrValues::default()),
            host: Cell::new(GuestMsrValues::default()),
            reloads: Atomic::new(0),
            written: Cell::new((0, 0, 0)),
        }
    }

    /// Loads the guest's half if it is not there; the VMCS is about to be entered.
    #[inline]
    pub(crate) fn to_guest(&self, vmcs: &CurrentVmcs<'_>, preempt: &PreemptGuard) {
        if !self.in_guest.get() {
            self.load(vmcs, preempt);
        }
    }

    #[cold]
    fn load(&self, vmcs: &CurrentVmcs<'_>, preempt: &PreemptGuard) {
        self.predictions.enter(preempt);
        let segments = host::save_segments(preempt);
        let selector = |selector: u16| {
            if selector & SELECTOR_RPL_TI == 0 {
                selector
            } else {
                0
            }
        };
        let wanted = (
            segments.fs_base as u64,
            selector(segments.fs),
            selector(segments.gs),
        );
        if wanted != self.written.get() {
            vmcs.write(field::HOST_FS_BASE, Natural(wanted.0));
            vmcs.write(field::HOST_FS_SELECTOR, wanted.1);
            vmcs.write(field::HOST_GS_SELECTOR, wanted.2);
            self.written.set(wanted);
        }
        self.segments.set(segments);

        let guest = self.guest.get();
        // SAFETY: The guest's values were checked when they were set. The kernel itself uses none of
        // these MSRs; user space does, and `to_host` comes before it.
        unsafe {
            wrmsr(KERNEL_GS_BASE, guest.kernel_gs_base);
        }
        let mut host = guest;
        if guest.syscall {
            host.star = swap(STAR, guest.star);
            host.lstar = swap(LSTAR, guest.lstar);
            host.fmask = swap(FMASK, guest.fmask);
        }
        if guest.rdtscp {
            host.tsc_aux = swap(TSC_AUX, guest.tsc_aux);
        }
        self.host.set(host);
        self.in_guest.set(true);
    }

    /// Brings the host's half back if the guest's is loaded. Preemption must be off.
    pub(crate) fn to_host(&self) {
        if !self.in_guest.get() {
            return;
        }
        let mut guest = self.guest.get();
        let host = self.host.get();
        // SAFETY: Every 64-bit CPU has this MSR.
        guest.kernel_gs_base = unsafe { rdmsr(KERNEL_GS_BASE) };
        if guest.syscall {
            restore(STAR, guest.star, host.star);
            restore(LSTAR, guest.lstar, host.lstar);
            restore(FMASK, guest.fmask, host.fmask);
        }
        if guest.rdtscp {
            restore(TSC_AUX, guest.tsc_aux, host.tsc_aux);
        }
        host::restore_segments(&self.segments.take());
        self.reloads
            .store(self.reloads.load(Relaxed).wrapping_add(1), Relaxed);
        self.guest.set(guest);
        self.in_guest.set(false);
    }

    /// Returns how often the host's half was brought back.
    pub(crate) fn reloads(&self) -> u64 {
        self.reloads.load(Relaxed)
    }

    /// Returns the guest's values. The host's half must be loaded (see [`HostSwitch::to_host`]).
    pub(crate) fn guest_msrs(&self) -> GuestMsrValues {
        kernel::warn_on!(self.in_guest.get());
        self.guest.get()
    }

    /// Replaces the guest's values. The host's half must be loaded.
    ///
    /// They must be what WRMSR accepts: addresses canonical, reserved bits clear.
    pub(crate) fn set_guest_msrs(&self, values: GuestMsrValues) {
        kernel::warn_on!(self.in_guest.get());
        self.guest.set(values);
    }
}

impl SchedOut for HostSwitch {
    fn sched_out(&self) {
        self.to_host();
    }
}

/// Stops PEBS before a VM exit brings it back, as the list of MSRs that exits load must say.
pub(super) fn stop_pebs() {
    // SAFETY: perf named the MSR, with 0 for the guest, so the CPU has it.
    unsafe { wrmsr(PEBS_ENABLE, 0) };
}

/// Writes `guest` to the MSR if it differs from what is there, and returns what was there.
fn swap(index: u32, guest: u64) -> u64 {
    // SAFETY: Used on MSRs that every 64-bit CPU has, or that come with a feature the guest has.
    let host = unsafe { rdmsr(index) };
    if host != guest {
        // SAFETY: As in `HostSwitch::load`.
        unsafe { wrmsr(index, guest) };
    }
    host
}

/// Undoes [`swap`].
fn restore(index: u32, guest: u64, host: u64) {
    if host != guest {
        // SAFETY: It is the value that `swap` found there.
        unsafe { wrmsr(index, host) };
    }
}
