// SPDX-License-Identifier: GPL-2.0

//! Interrupts through the vectors of real mode, and INT, INT3, INTO and IRET.

use super::{
    bus::{
        Bus,
        Fault,
        InterruptKind,
        Mode,
        Segment,
        Stop, //
    },
    execute::{
        Execution,
        Outcome, //
    },
    flags::{
        AC,
        IF,
        IOPL,
        NT,
        OF,
        RF,
        TF,
        VM, //
    },
    instruction::Operation,
    operand::{
        Operand,
        Size,
        RSP, //
    },
    segment::{
        self,
        Transfer, //
    },
    stack,
    system::Table, //
};

/// Delivers the interrupt `vector` as real mode does; the guest goes on at `return_rip` when it
/// returns.
///
/// Pushes FLAGS, CS and IP and goes to the vector in the table at IDTR, with IF, TF, AC and RF
/// cleared. Error codes do not exist in real mode. On [`Stop`] no register has changed: #GP if the
/// table is too short, #SS if the stack is.
fn deliver_in_real_mode<B: Bus>(bus: &mut B, vector: u8, return_rip: u64) -> Result<(), Stop> {
    let table = bus.table(Table::Interrupt);
    let entry = u16::from(vector).wrapping_mul(4);
    if table.limit < entry.saturating_add(3) {
        return Err(Stop::Fault(Fault::general_protection()));
    }
    let mut data = [0; 4];
    bus.read_table(table.base.wrapping_add(u64::from(entry)), &mut data)?;
    let [ip_low, ip_high, cs_low, cs_high] = data;
    let target = u64::from(u16::from_le_bytes([ip_low, ip_high]));
    let selector = u16::from_le_bytes([cs_low, cs_high]);

    let old = bus.segment(Segment::Cs);
    let rflags = bus.rflags();
    let mut rsp = bus.gpr(RSP);
    stack::check_pushes(bus, rsp, Size::Word, 3)?;
    for value in [rflags, u64::from(old.selector), return_rip] {
        stack::push(bus, &mut rsp, Size::Word, value)?;
    }
    bus.set_gpr(RSP, rsp);
    bus.set_rflags(rflags & !(IF | TF | AC | RF));
    bus.set_segment(Segment::Cs, &segment::real(&old, selector));
    bus.set_rip(target);
    Ok(())
}

impl<B: Bus> Execution<'_, B> {
    /// Executes `int n`, `int3` or `into`.
    pub(super) fn interrupt(&mut self) -> Result<Outcome, Stop> {
        let (vector, kind) = match self.insn.operation {
            Operation::Overflow if self.bus.rflags() & OF == 0 => return self.done(),
            Operation::Overflow => (4, InterruptKind::Exception),
            Operation::Breakpoint => (3, InterruptKind::Exception),
            _ => match self.insn.source {
                // CAST: one byte of the instruction.
                Operand::Immediate(vector) => (vector as u8, InterruptKind::Software),
                _ => return Err(Stop::Unsupported),
            },
        };
        match self.bus.mode() {
            Mode::Real => {
                deliver_in_real_mode(self.bus, vector, self.next_rip)?;
                Ok(Outcome::Done)
            }
            Mode::Virtual8086 if kind == InterruptKind::Software => {
                // With CR4.VME the CPU decides by a bitmap in the TSS: it does so when it injects.
                let vme = self.bus.control(4)? & 1 != 0;
                if self.bus.rflags() & IOPL != IOPL && !vme {
                    return Err(Stop::Fault(Fault::general_protection()));
                }
                Err(Stop::Interrupt { vector, kind })
            }
            _ => Err(Stop::Interrupt { vector, kind }),
        }
    }

    /// Executes `iret`: in real mode, and to the same privilege level in protected mode.
    pub(super) fn interrupt_return(&mut self) -> Result<Outcome, Stop> {
        let size = self.insn.size;
        let mode = self.bus.mode();
        let old = self.bus.rflags();
        match mode {
            Mode::Virtual8086 if old & IOPL != IOPL => {
                return Err(Stop::Fault(Fault::general_protection()));
            }
            // To another task, or with the stack of 64-bit mode.
            Mode::Long64 => return Err(Stop::Unsupported),
            Mode::Protected16 | Mode::Protected32 if old & NT != 0 || self.bus.long_mode() => {
                return Err(Stop::Unsupported);
            }
            _ => {}
        }
        let mut rsp = self.bus.gpr(RSP);
        let target = stack::pop(self.bus, &mut rsp, size)?;
        // CAST: the rest of the slot is ignored.
        let selector = stack::pop(self.bus, &mut rsp, size)? as u16;
        let image = stack::pop(self.bus, &mut rsp, size)?;
        let protected = matches!(mode, Mode::Protected16 | Mode::Protected32);
        if protected && size == Size::Dword && image & VM != 0 && self.bus.cpl() == 0 {
            return Err(Stop::Unsupported);
        }
        let code = self.code_segment(selector, target, Transfer::Return)?;
        let rflags = self.flags_after_return(image, old);

        code.commit(self.bus)?;
        self.bus.set_gpr(RSP, rsp);
        self.bus.set_rflags(rflags);
        self.bus.set_rip(target);
        self.bus.unblock_nmis();
        Ok(Outcome::Done)
    }

    /// Returns RFLAGS after a return that found `image` on the stack, and `old` before.
    fn flags_after_return(&mut self, image: u64, old: u64) -> u64 {
        let changeable = self.changeable_flags() | RF;
        let changeable = changeable & self.insn.size.mask();
        (old & !changeable) | (image & changeable)
    }
}
