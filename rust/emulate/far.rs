// SPDX-License-Identifier: GPL-2.0

//! Far branches, and the instructions that move segment registers.

use super::{
    bus::{
        Bus,
        Segment,
        Stop, //
    },
    execute::{
        Execution,
        Outcome, //
    },
    operand::{
        read,
        Operand,
        Place,
        Register,
        Size,
        RSP, //
    },
    segment::{
        Load,
        Transfer, //
    },
    stack,
    system::Shadow, //
};

impl<B: Bus> Execution<'_, B> {
    /// Returns the selector and the offset that the source has.
    fn far_pointer(&mut self) -> Result<(u16, u64), Stop> {
        let size = self.insn.size;
        match &self.insn.source {
            Operand::Far { selector, offset } => Ok((*selector, *offset)),
            Operand::Memory(memory) => {
                let offset = memory.offset(self.next_rip, |register| self.bus.gpr(register));
                let bytes = size.bytes().saturating_add(2);
                let linear = self.bus.linear(memory.segment, offset, bytes, false)?;
                let target = read(self.bus, linear, size)?;
                let at = linear.wrapping_add(u64::from(size.bytes()));
                // CAST: a value of two bytes.
                let selector = read(self.bus, at, Size::Word)? as u16;
                Ok((selector, target))
            }
            _ => Err(Stop::Unsupported),
        }
    }

    /// Executes a far `jmp`.
    pub(super) fn far_jump(&mut self) -> Result<Outcome, Stop> {
        let (selector, target) = self.far_pointer()?;
        let code = self.code_segment(selector, target, Transfer::Branch)?;
        code.commit(self.bus)?;
        self.bus.set_rip(target);
        Ok(Outcome::Done)
    }

    /// Executes a far `call`.
    pub(super) fn far_call(&mut self) -> Result<Outcome, Stop> {
        let (selector, target) = self.far_pointer()?;
        let code = self.code_segment(selector, target, Transfer::Branch)?;
        let size = self.insn.size;
        let old = self.bus.segment(Segment::Cs).selector;
        let mut rsp = self.bus.gpr(RSP);
        stack::check_pushes(self.bus, rsp, size, 2)?;
        code.mark(self.bus)?;
        stack::push(self.bus, &mut rsp, size, u64::from(old))?;
        stack::push(self.bus, &mut rsp, size, self.next_rip)?;
        code.set(self.bus);
        self.bus.set_gpr(RSP, rsp);
        self.bus.set_rip(target);
        Ok(Outcome::Done)
    }

    /// Executes a far `ret`, to the same privilege level.
    pub(super) fn far_return(&mut self) -> Result<Outcome, Stop> {
        let size = self.insn.size;
        let mut rsp = self.bus.gpr(RSP);
        let target = stack::pop(self.bus, &mut rsp, size)?;
        // CAST: the rest of the slot is ignored.
        let selector = stack::pop(self.bus, &mut rsp, size)? as u16;
        let code = self.code_segment(selector, target, Transfer::Return)?;
        code.commit(self.bus)?;
        let rsp = stack::move_pointer(self.bus, rsp, self.bytes_to_drop());
        self.bus.set_gpr(RSP, rsp);
        self.bus.set_rip(target);
        Ok(Outcome::Done)
    }

    /// Executes `lds`, `les`, `lfs`, `lgs` or `lss`, which loads the segment `name`.
    pub(super) fn load_far_pointer(&mut self, name: Segment) -> Result<Outcome, Stop> {
        let (selector, offset) = self.far_pointer()?;
        let destination = self.destination(true)?;
        let load = self.data_segment(name, selector)?;
        load.commit(self.bus)?;
        self.write(destination, offset)?;
        self.done()
    }

    /// Executes `mov` to a segment register.
    pub(super) fn load_segment(&mut self) -> Result<Outcome, Stop> {
        let Operand::Segment(name) = self.insn.destination else {
            return Err(Stop::Unsupported);
        };
        let source = self.locate(&self.insn.source, Size::Word, false)?;
        // CAST: a value of two bytes.
        let selector = source.read(self.bus, Size::Word)? as u16;
        self.data_segment(name, selector)?.commit(self.bus)?;
        self.shadow_of(name);
        self.done()
    }

    /// Executes `pop` of a segment register.
    pub(super) fn pop_segment(&mut self) -> Result<Outcome, Stop> {
        let Operand::Segment(name) = self.insn.destination else {
            return Err(Stop::Unsupported);
        };
        let size = self.insn.size;
        let mut rsp = self.bus.gpr(RSP);
        // CAST: the rest of the slot is ignored.
        let selector = stack::pop(self.bus, &mut rsp, size)? as u16;
        let load: Load = self.data_segment(name, selector)?;
        load.mark(self.bus)?;
        // SS decides which part of RSP counts, and it is the old one that was popped from.
        self.bus.set_gpr(RSP, rsp);
        load.set(self.bus);
        self.shadow_of(name);
        self.done()
    }

    /// Keeps interrupts away from between the loads of SS and of RSP.
    fn shadow_of(&mut self, name: Segment) {
        if name == Segment::Ss {
            self.bus.shadow(Shadow::MovSs);
        }
    }

    /// Executes `mov` from a segment register.
    pub(super) fn store_segment(&mut self) -> Result<Outcome, Stop> {
        let Operand::Segment(name) = self.insn.source else {
            return Err(Stop::Unsupported);
        };
        let selector = self.bus.segment(name).selector;
        self.store_selector(selector)
    }

    /// Writes `selector` to the destination: a register of the operand size, or 2 bytes of memory.
    pub(super) fn store_selector(&mut self, selector: u16) -> Result<Outcome, Stop> {
        self.store_word(u64::from(selector))
    }

    /// Writes `value` to a register of the operand size, or its low 2 bytes to memory.
    pub(super) fn store_word(&mut self, value: u64) -> Result<Outcome, Stop> {
        match self.insn.destination {
            Operand::Register(Register { index, .. }) => {
                Register::low(index).write(self.bus, self.insn.size, value);
            }
            _ => {
                let place: Place = self.locate(&self.insn.destination, Size::Word, true)?;
                place.write(self.bus, Size::Word, value)?;
            }
        }
        self.done()
    }
}
