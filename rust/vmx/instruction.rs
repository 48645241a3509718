// SPDX-License-Identifier: GPL-2.0

//! The VMX instructions, one function each.
//!
//! VMREAD and VMWRITE fail only on a field that the CPU does not have or without a current VMCS. Both
//! would be mistakes of this module, not of a guest or a client, so debug builds check the flags and
//! release builds spend no instruction on them.
//!
//! On the way to a reboot another CPU takes this one out of VMX operation, whatever it is doing. Then
//! each of these faults, and does nothing: what VMREAD gives is meaningless, and no guest is entered
//! any more. Where kvm_intel keeps the CPU in VMX operation meanwhile, they fail for want of a VMCS.

use crate::x86::addr::Hpa;
use core::arch::asm;
use kernel::sync::atomic::{
    Atomic,
    Relaxed, //
};

/// Whether the system goes down.
static MAY_FAIL: Atomic<bool> = Atomic::new(false);

/// Notes that the system goes down, so that it is no mistake if instructions fail.
pub(super) fn let_fail() {
    MAY_FAIL.store(true, Relaxed);
}

/// Returns whether [`let_fail`] was called.
pub(super) fn may_fail() -> bool {
    MAY_FAIL.load(Relaxed)
}

/// An entry of the kernel's exception table: a fault at label 2 goes on at label 3.
macro_rules! on_fault_skip {
    () => {
        concat!(
            ".pushsection \"__ex_table\", \"a\"\n",
            ".balign 4\n",
            ".long 2b - .\n",
            ".long 3b - .\n",
            // EX_TYPE_DEFAULT
            ".long 1\n",
            ".popsection"
        )
    };
}

/// What a VMX instruction reports in RFLAGS.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum VmxError {
    /// CF or ZF was set: there is no current VMCS, or its VM-instruction error field tells more.
    Failed,
}

/// The type of an INVEPT or INVVPID.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Invalidate {
    /// One EPTP's, or one VPID's, translations.
    SingleContext,
    /// All of them.
    AllContext,
}

impl Invalidate {
    /// Returns the type's number, the same for INVEPT and INVVPID.
    const fn code(self) -> u64 {
        match self {
            Self::SingleContext => 1,
            Self::AllContext => 2,
        }
    }
}

/// Returns the raw value of the field `encoding` of the current VMCS.
///
/// # Safety
///
/// A VMCS must be current on this CPU, the caller must not move to another one, and the CPU must have
/// the field.
#[inline(always)]
pub(super) unsafe fn vmread(encoding: u32) -> u64 {
    #[cfg(not(CONFIG_RUST_DEBUG_ASSERTIONS))]
    {
        let value: u64;
        // SAFETY: VMREAD to a register only reads the current VMCS, which exists by the requirement.
        unsafe {
            asm!(
                "2: vmread {value}, {field}",
                "3:",
                on_fault_skip!(),
                value = out(reg) value,
                field = in(reg) u64::from(encoding),
                options(nostack, readonly),
            )
        };
        value
    }
    #[cfg(CONFIG_RUST_DEBUG_ASSERTIONS)]
    {
        // SAFETY: By the function's requirement.
        let value = unsafe { vmread_if_present(encoding) };
        kernel::warn_on!(value.is_none() && !may_fail());
        value.unwrap_or(0)
    }
}

/// Returns the raw value of the field `encoding` of the current VMCS, `None` if the CPU has no such
/// field.
///
/// # Safety
///
/// A VMCS must be current on this CPU, and the caller must not move to another one.
pub(super) unsafe fn vmread_if_present(encoding: u32) -> Option<u64> {
    let value: u64;
    let failed: u8;
    // SAFETY: VMREAD to a register only reads the current VMCS, which exists by the requirement; SETNA
    // looks at the flags that it leaves.
    unsafe {
        asm!(
            "2: vmread {value}, {field}",
            "setna {failed}",
            "3:",
            on_fault_skip!(),
            value = inout(reg) 0u64 => value,
            failed = inout(reg_byte) 0u8 => failed,
            field = in(reg) u64::from(encoding),
            options(nostack, readonly),
        )
    };
    (failed == 0).then_some(value)
}

/// Writes `value` to the field `encoding` of the current VMCS.
///
/// # Safety
///
/// As [`vmread`]; what is written takes effect on the host's state at the next exit, or on the guest
/// at the next entry, and must leave the host intact.
#[inline(always)]
pub(super) unsafe fn vmwrite(encoding: u32, value: u64) {
    #[cfg(not(CONFIG_RUST_DEBUG_ASSERTIONS))]
    // SAFETY: VMWRITE only changes the current VMCS, which exists by the requirement.
    unsafe {
        asm!(
            "2: vmwrite {field}, {value}",
            "3:",
            on_fault_skip!(),
            value = in(reg) value,
            field = in(reg) u64::from(encoding),
            options(nostack),
        )
    };
    #[cfg(CONFIG_RUST_DEBUG_ASSERTIONS)]
    {
        let failed: u8;
        // SAFETY: As above; SETNA looks at the flags that VMWRITE leaves.
        unsafe {
            asm!(
                "2: vmwrite {field}, {value}",
                "setna {failed}",
                "3:",
                on_fault_skip!(),
                failed = inout(reg_byte) 0u8 => failed,
                value = in(reg) value,
                field = in(reg) u64::from(encoding),
                options(nostack),
            )
        };
        kernel::warn_on!(failed != 0 && !may_fail());
    }
}

/// Returns `Ok` if the flags of a VMX instruction said success.
const fn check(failed: u8) -> Result<(), VmxError> {
    match failed {
        0 => Ok(()),
        _ => Err(VmxError::Failed),
    }
}

/// Makes the VMCS at `region` current and active on this CPU.
///
/// # Safety
///
/// `region` must be a VMCS region with the CPU's revision identifier that is not active on another
/// CPU, the CPU must be in VMX root operation, and preemption must be off.
pub(super) unsafe fn vmptrld(region: Hpa) -> Result<(), VmxError> {
    let pointer = region.value();
    let failed: u8;
    // SAFETY: By the requirement the region is this CPU's to use; the operand is a local.
    unsafe {
        asm!(
            "2: vmptrld qword ptr [{pointer}]",
            "setna {failed}",
            "3:",
            on_fault_skip!(),
            pointer = in(reg) &pointer,
            failed = inout(reg_byte) 0u8 => failed,
            options(nostack),
        )
    };
    check(failed)
}

/// Returns the address of the VMCS that is current on this CPU, all ones if there is none, 0 if the
/// instruction faulted.
///
/// # Safety
///
/// The CPU must be in VMX root operation, and preemption must be off.
#[inline(always)]
pub(super) unsafe fn vmptrst() -> u64 {
    let mut pointer: u64 = 0;
    // SAFETY: By the requirement the instruction is there; it writes eight bytes to a local.
    unsafe {
        asm!(
            "2: vmptrst qword ptr [{pointer}]",
            "3:",
            on_fault_skip!(),
            pointer = in(reg) &raw mut pointer,
            options(nostack),
        )
    };
    pointer
}

/// Writes the VMCS at `region` back to memory, and makes it inactive and "clear".
///
/// # Safety
///
/// As [`vmptrld`], and no entry may be on its way on this VMCS.
pub(super) unsafe fn vmclear(region: Hpa) -> Result<(), VmxError> {
    let pointer = region.value();
    let failed: u8;
    // SAFETY: By the requirement the region is a VMCS that no CPU is using; the operand is a local.
    unsafe {
        asm!(
            "2: vmclear qword ptr [{pointer}]",
            "setna {failed}",
            "3:",
            on_fault_skip!(),
            pointer = in(reg) &pointer,
            failed = inout(reg_byte) 0u8 => failed,
            options(nostack),
        )
    };
    check(failed)
}

/// Invalidates translations that were cached under `eptp` (or under any EPTP) on this CPU.
///
/// # Safety
///
/// The CPU must be in VMX root operation and offer this type of INVEPT.
pub(super) unsafe fn invept(kind: Invalidate, eptp: u64) -> Result<(), VmxError> {
    let descriptor: [u64; 2] = [eptp, 0];
    let failed: u8;
    // SAFETY: Dropping cached translations is always allowed; the descriptor is a local.
    unsafe {
        asm!(
            "2: invept {kind}, xmmword ptr [{descriptor}]",
            "setna {failed}",
            "3:",
            on_fault_skip!(),
            kind = in(reg) kind.code(),
            descriptor = in(reg) &descriptor,
            failed = inout(reg_byte) 0u8 => failed,
            options(nostack),
        )
    };
    check(failed)
}

/// Invalidates translations that are tagged `vpid` (or any VPID but 0) on this CPU.
///
/// # Safety
///
/// The CPU must be in VMX root operation and offer this type of INVVPID.
pub(super) unsafe fn invvpid(kind: Invalidate, vpid: u16) -> Result<(), VmxError> {
    let descriptor: [u64; 2] = [u64::from(vpid), 0];
    let failed: u8;
    // SAFETY: Dropping cached translations is always allowed; the descriptor is a local.
    unsafe {
        asm!(
            "2: invvpid {kind}, xmmword ptr [{descriptor}]",
            "setna {failed}",
            "3:",
            on_fault_skip!(),
            kind = in(reg) kind.code(),
            descriptor = in(reg) &descriptor,
            failed = inout(reg_byte) 0u8 => failed,
            options(nostack),
        )
    };
    check(failed)
}
