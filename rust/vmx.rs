// SPDX-License-Identifier: GPL-2.0

//! Intel VMX: the mechanism, and no decision about a guest.
//!
//! Vocabulary, as in the Software Developer's Manual:
//!
//! * **VMX operation**: what VMXON enters, per CPU. *Root* operation is the host's, *non-root* the
//!   guest's. (`linux/virt`: core x86 owns VMXON.)
//! * **VM entry**, **VM exit**: the transitions between them ([`entry.S`], [`run`]).
//! * **VMCS**: the structure that says what both load and save, and what makes the guest exit ([`vmcs`],
//!   [`field`], [`controls`], [`capability`], [`guest_state`], [`host_state`]).
//! * **Exit**: a reason and information fields ([`exit`]); **event**: an interrupt or exception that
//!   entry injects or exit reports ([`inject`]).
//! * **PML**: the processor's own log of written pages ([`pml`]).
//! * **VMX-preemption timer**: what ends a stay in the guest when its time has come ([`preemption_timer`]).
//! * **TPR shadow**, **APIC-access page**: the guest's task priority in hardware ([`flexpriority`]).
//! * **APICv**: the whole local APIC in hardware, with posted interrupts ([`apicv`]).
//! * **VPID**, **EPTP**: the tags of cached translations ([`vpid`], [`tlb`]).
//!
//! A vCPU owns its [`Vmcs`](vmcs::Vmcs); a CPU has at most one of them current. `vmx` never names a
//! vCPU: it yields an [`Exit`](exit::Exit) and `vcpu` decides.
//!
//! [`entry.S`]: ./vmx/entry.S

pub(crate) mod apicv;
pub(crate) mod capability;
pub(crate) mod controls;
pub(crate) mod exit;
pub(crate) mod field;
pub(crate) mod flexpriority;
pub(crate) mod guest_state;
pub(crate) mod host_state;
pub(crate) mod inject;
mod instruction;
pub(crate) mod msr_bitmap;
pub(crate) mod perf;
pub(crate) mod pml;
pub(crate) mod preemption_timer;
pub(crate) mod run;
pub(crate) mod tlb;
pub(crate) mod vmcs;
pub(crate) mod vpid;
