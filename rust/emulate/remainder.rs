// SPDX-License-Identifier: GPL-2.0

//! What is left of a plain load or store once its access is done.
//!
//! Most instructions that access a device move one value between it and a register. When the access has
//! been made elsewhere, nothing needs to be decoded, computed or translated again to finish them.

use super::{
    execute::swap,
    instruction::{
        Instruction,
        Operation, //
    },
    operand::{
        Operand,
        Register,
        Size, //
    },
};

/// What becomes of the value that was read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Change {
    /// It is zero-extended.
    None,
    /// It is sign-extended.
    SignExtend,
    /// Its bytes are reversed.
    Swap,
}

/// What a load or store does after its one access.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Remainder {
    /// Puts what was read into a register.
    Load(Load),
    /// Nothing but to move RIP.
    Nothing,
}

/// A value's way into a register.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Load {
    register: Register,
    size: Size,
    from: Size,
    change: Change,
}

impl Load {
    /// Returns the number of the register.
    pub(crate) const fn register(self) -> u8 {
        self.register.index
    }

    /// Returns the register, which was `old`, with what was read in it.
    pub(crate) const fn apply(self, old: u64, read: [u8; 8]) -> u64 {
        let read = u64::from_le_bytes(read) & self.from.mask();
        let value = match self.change {
            Change::None => read,
            Change::SignExtend => self.from.sign_extend(read),
            Change::Swap => swap(self.size, read),
        };
        self.register.put(old, self.size, value)
    }
}

impl Instruction {
    /// Returns what is left of the instruction when it has made an access of `bytes` bytes, which is its
    /// first: `None` if there may be more to it than a plain load or store of that size.
    pub(crate) fn remainder(&self, bytes: usize) -> Option<Remainder> {
        let (from, change) = match self.operation {
            Operation::Move => (self.size, Change::None),
            Operation::MoveSwapped => (self.size, Change::Swap),
            Operation::Extend { from, signed: true } => (from, Change::SignExtend),
            Operation::Extend { from, .. } => (from, Change::None),
            _ => return None,
        };
        let remainder = match (self.destination, self.source) {
            (Operand::Register(register), Operand::Memory(_)) => Remainder::Load(Load {
                register,
                size: self.size,
                from,
                change,
            }),
            (Operand::Memory(_), Operand::Register(_) | Operand::Immediate(_)) => {
                Remainder::Nothing
            }
            _ => return None,
        };
        (usize::from(from.bytes()) == bytes).then_some(remainder)
    }
}
