// SPDX-License-Identifier: GPL-2.0

//! RFLAGS: its bits, the conditions of them, and the instructions that are about nothing else.

pub(super) use super::alu::{
    AF,
    CF,
    DF,
    OF,
    PF,
    SF,
    ZF, //
};
use super::{
    bus::{
        Bus,
        Fault,
        Mode,
        Stop, //
    },
    execute::{
        Execution,
        Outcome, //
    },
    operand::{
        Register,
        Size,
        RAX,
        RSP, //
    },
    stack,
    system::Shadow, //
};

/// RFLAGS.TF: single step.
pub(super) const TF: u64 = 1 << 8;
/// RFLAGS.IF: interrupts are enabled.
pub(super) const IF: u64 = 1 << 9;
/// RFLAGS.IOPL: the privilege level of I/O, both bits.
pub(super) const IOPL: u64 = 3 << 12;
/// RFLAGS.NT: nested task.
pub(super) const NT: u64 = 1 << 14;
/// RFLAGS.RF: the next instruction breakpoint is ignored.
pub(super) const RF: u64 = 1 << 16;
/// RFLAGS.VM: virtual-8086 mode.
pub(super) const VM: u64 = 1 << 17;
/// RFLAGS.AC: alignment check.
pub(super) const AC: u64 = 1 << 18;
/// RFLAGS.ID: CPUID exists.
pub(super) const ID: u64 = 1 << 21;

/// CR4.VME and CR4.PVI: interrupts that a task of privilege level 3 keeps off by RFLAGS.VIF.
const VIRTUAL_INTERRUPTS: u64 = 3;

/// Returns whether `rflags` meet the condition `code`, 0 to 15 as encoded.
pub(super) const fn condition(code: u8, rflags: u64) -> bool {
    let less = (rflags & SF != 0) != (rflags & OF != 0);
    let met = match (code >> 1) & 7 {
        0 => rflags & OF != 0,
        1 => rflags & CF != 0,
        2 => rflags & ZF != 0,
        3 => rflags & (CF | ZF) != 0,
        4 => rflags & SF != 0,
        5 => rflags & PF != 0,
        6 => less,
        _ => less || rflags & ZF != 0,
    };
    met != (code & 1 != 0)
}

/// An instruction on one flag.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum FlagOperation {
    ComplementCarry,
    ClearCarry,
    SetCarry,
    ClearInterrupt,
    SetInterrupt,
    ClearDirection,
    SetDirection,
}

impl<B: Bus> Execution<'_, B> {
    /// Executes an instruction on one flag.
    pub(super) fn flag(&mut self, operation: FlagOperation) -> Result<Outcome, Stop> {
        let old = self.bus.rflags();
        let new = match operation {
            FlagOperation::ComplementCarry => old ^ CF,
            FlagOperation::ClearCarry => old & !CF,
            FlagOperation::SetCarry => old | CF,
            FlagOperation::ClearDirection => old & !DF,
            FlagOperation::SetDirection => old | DF,
            FlagOperation::ClearInterrupt => {
                self.check_interrupt_flag()?;
                old & !IF
            }
            FlagOperation::SetInterrupt => {
                self.check_interrupt_flag()?;
                if old & IF == 0 {
                    self.bus.shadow(Shadow::Sti);
                }
                old | IF
            }
        };
        self.bus.set_rflags(new);
        self.done()
    }

    /// Returns whether the I/O privilege level lets the code change RFLAGS.IF and use ports.
    pub(super) fn has_io_privilege(&mut self) -> bool {
        let level = (self.bus.rflags() & IOPL) >> 12;
        u64::from(self.bus.cpl()) <= level
    }

    /// Checks that the code may change RFLAGS.IF.
    fn check_interrupt_flag(&mut self) -> Result<(), Stop> {
        if self.has_io_privilege() {
            return Ok(());
        }
        if self.bus.cpl() == 3 && self.bus.control(4)? & VIRTUAL_INTERRUPTS != 0 {
            return Err(Stop::Unsupported);
        }
        Err(Stop::Fault(Fault::general_protection()))
    }

    /// Checks that the code may have all of RFLAGS on the stack.
    fn check_flags_on_stack(&mut self) -> Result<(), Stop> {
        if self.bus.mode() != Mode::Virtual8086 || self.has_io_privilege() {
            return Ok(());
        }
        if self.insn.size == Size::Word && self.bus.control(4)? & VIRTUAL_INTERRUPTS != 0 {
            return Err(Stop::Unsupported);
        }
        Err(Stop::Fault(Fault::general_protection()))
    }

    /// Returns the flags that `popf` can change, at the current privilege level; RF becomes 0.
    pub(super) fn changeable_flags(&mut self) -> u64 {
        let mut flags = CF | PF | AF | ZF | SF | TF | DF | OF | NT | AC | ID;
        if self.has_io_privilege() {
            flags |= IF;
        }
        if self.bus.cpl() == 0 {
            flags |= IOPL;
        }
        flags
    }

    /// Executes `pushf`.
    pub(super) fn push_flags(&mut self) -> Result<Outcome, Stop> {
        self.check_flags_on_stack()?;
        let mut rsp = self.bus.gpr(RSP);
        let image = self.bus.rflags() & !(RF | VM);
        stack::push(self.bus, &mut rsp, self.insn.size, image)?;
        self.bus.set_gpr(RSP, rsp);
        self.done()
    }

    /// Executes `popf`.
    pub(super) fn pop_flags(&mut self) -> Result<Outcome, Stop> {
        self.check_flags_on_stack()?;
        let mut rsp = self.bus.gpr(RSP);
        let image = stack::pop(self.bus, &mut rsp, self.insn.size)?;
        let changeable = self.changeable_flags() & self.insn.size.mask();
        let old = self.bus.rflags() & !RF;
        self.bus.set_gpr(RSP, rsp);
        self.bus
            .set_rflags((old & !changeable) | (image & changeable));
        self.done()
    }

    /// Executes `lahf`.
    pub(super) fn load_ah(&mut self) -> Result<Outcome, Stop> {
        let flags = self.bus.rflags() & (SF | ZF | AF | PF | CF) | 2;
        self.ah().write(self.bus, Size::Byte, flags);
        self.done()
    }

    /// Executes `sahf`.
    pub(super) fn store_ah(&mut self) -> Result<Outcome, Stop> {
        let flags = SF | ZF | AF | PF | CF;
        let new = self.ah().read(self.bus, Size::Byte) & flags;
        let old = self.bus.rflags();
        self.bus.set_rflags((old & !flags) | new);
        self.done()
    }

    /// Returns the register AH.
    fn ah(&self) -> Register {
        Register {
            index: RAX,
            high: true,
        }
    }
}
