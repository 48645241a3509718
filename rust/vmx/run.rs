// SPDX-License-Identifier: GPL-2.0

//! VM entry, up to the next VM exit.

use super::{
    capability::Capabilities,
    field,
    tlb::Owed,
    vmcs::CurrentVmcs, //
};
use crate::{
    linux::{
        guest::{
            self,
            GuestRegs, //
        },
        preempt::IrqGuard, //
    },
    mmu::Root, //
};

/// VM entry that failed before the guest's state was looked at; the VM-instruction error.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct EntryError(pub(crate) u32);

/// The tags under which the CPU caches a vCPU's translations.
#[derive(Clone, Copy)]
pub(crate) struct Tags {
    /// The root of its tables; only an EPT pointer is a tag.
    pub(crate) root: Root,
    /// The VPID, if the vCPU has one.
    pub(crate) vpid: Option<u16>,
}

/// Enters the guest and returns the reason of the VM exit that followed.
///
/// The flushes that the vCPU owes are paid first. An NMI that caused the exit has been handled on
/// return.
///
/// # Safety
///
/// The VMCS must hold the complete host state of this CPU and task, and controls that keep the host
/// safe from the guest; `regs` must be the VMCS's own.
#[inline(always)]
pub(crate) unsafe fn run(
    vmcs: &CurrentVmcs<'_>,
    _irqs_off: &IrqGuard,
    regs: &mut GuestRegs,
    owed: &mut Owed,
    capabilities: &Capabilities,
    tags: Tags,
) -> Result<u32, EntryError> {
    if !owed.is_none() {
        owed.pay(capabilities, tags.root, tags.vpid);
    }
    kernel::warn_on!(cfg!(CONFIG_RUST_DEBUG_ASSERTIONS) && !owed.is_none());
    let launched = vmcs.launched();
    // SAFETY: Interrupts are off, the VMCS is current, and the rest by the function's requirement.
    if !unsafe { guest::enter(regs, launched) } {
        return Err(EntryError(vmcs.read(field::VM_INSTRUCTION_ERROR)));
    }
    if !launched && regs.exit_reason & super::exit::ENTRY_FAILURE == 0 {
        vmcs.set_launched();
    }
    Ok(regs.exit_reason)
}
