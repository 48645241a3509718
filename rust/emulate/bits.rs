// SPDX-License-Identifier: GPL-2.0

//! Bit tests.

use super::{
    bus::{
        Bus,
        Stop, //
    },
    execute::{
        Execution,
        Outcome, //
    },
    flags::{
        CF,
        ZF, //
    },
    operand::{
        Memory,
        Operand,
        Size, //
    },
};

/// What happens to a bit after it went to CF. The order is that of the encoding.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum BitOperation {
    Test,
    Set,
    Reset,
    Complement,
}

impl BitOperation {
    /// Returns the operation with the number `code`, of which two bits count.
    pub(super) const fn encoded(code: u8) -> Self {
        match code & 3 {
            0 => Self::Test,
            1 => Self::Set,
            2 => Self::Reset,
            _ => Self::Complement,
        }
    }

    /// Returns whether the bit may change.
    pub(super) const fn writes(self) -> bool {
        !matches!(self, Self::Test)
    }

    /// Returns `value` after the operation on the bits of `bit`.
    const fn apply(self, value: u64, bit: u64) -> u64 {
        match self {
            Self::Test => value,
            Self::Set => value | bit,
            Self::Reset => value & !bit,
            Self::Complement => value ^ bit,
        }
    }
}

/// Returns `memory` moved to the operand of `size` that has the bit `number`.
///
/// A bit number in a register is signed and may point far outside of the operand.
fn operand_of_bit(memory: &Memory, number: u64, size: Size) -> Memory {
    // CAST: the shift has to keep the sign.
    let bytes = ((size.sign_extend(number) as i64) >> 3) as u64;
    let aligned = bytes & !u64::from(size.bytes()).wrapping_sub(1);
    Memory {
        displacement: memory.displacement.wrapping_add(aligned),
        ..*memory
    }
}

impl<B: Bus> Execution<'_, B> {
    /// Executes a bit test.
    pub(super) fn bit(&mut self, operation: BitOperation) -> Result<Outcome, Stop> {
        let size = self.insn.size;
        let source = self.source()?;
        let number = self.read(source)?;
        let destination = match (self.insn.destination, self.insn.source) {
            (Operand::Memory(memory), Operand::Register(_)) => {
                Operand::Memory(operand_of_bit(&memory, number, size))
            }
            (destination, _) => destination,
        };
        let write = operation.writes();
        let place = if write {
            self.writable(&destination)?
        } else {
            self.locate(&destination, size, false)?
        };
        let old = self.read(place)?;
        let bit = 1 << (number & u64::from(size.bits()).wrapping_sub(1));
        if write && !self.replace(place, old, operation.apply(old, bit))? {
            return Ok(Outcome::Again);
        }
        let rflags = self.bus.rflags();
        let rflags = if old & bit == 0 {
            rflags & !CF
        } else {
            rflags | CF
        };
        self.bus.set_rflags(rflags);
        self.done()
    }

    /// Executes `bsf`, or with `reverse` `bsr`.
    ///
    /// Without a bit in the source the destination is undefined by Intel; its CPUs leave all of it
    /// alone, as AMD documents. Flags but ZF are undefined: they stay.
    pub(super) fn bit_scan(&mut self, reverse: bool) -> Result<Outcome, Stop> {
        let source = self.source()?;
        let destination = self.destination(true)?;
        let value = self.read(source)?;
        let rflags = self.bus.rflags();
        if value == 0 {
            self.bus.set_rflags(rflags | ZF);
            return self.done();
        }
        let number = if reverse {
            63_u32.wrapping_sub(value.leading_zeros())
        } else {
            value.trailing_zeros()
        };
        self.write(destination, u64::from(number))?;
        self.bus.set_rflags(rflags & !ZF);
        self.done()
    }
}
