// SPDX-License-Identifier: GPL-2.0

//! A decoded instruction.

use super::{
    alu::{
        Binary,
        Unary, //
    },
    bits::BitOperation,
    operand::{
        Operand,
        Size, //
    },
    string::StringOperation, //
};

/// What an instruction does. Operands are named as in [`Instruction`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Operation {
    /// destination = source.
    Move,
    /// destination = source, which has `from` bytes, extended to the operand size.
    Extend { from: Size, signed: bool },
    /// destination = source with its bytes in reverse order.
    MoveSwapped,
    /// destination = destination op source, or only the flags of it.
    Binary(Binary),
    /// destination = op destination.
    Unary(Unary),
    /// A bit of destination, selected by source, goes to CF and may change.
    Bit(BitOperation),
    /// destination and source swap.
    Exchange,
    /// destination = destination + source; source = old destination.
    ExchangeAdd,
    /// If destination equals the accumulator then destination = source.
    CompareExchange,
    /// If destination equals rDX:rAX then destination = rCX:rBX. The operand size is of one half.
    CompareExchangePair,
    /// Push source.
    Push,
    /// Pop to destination.
    Pop,
    /// Push the next RIP; RIP = source.
    Call,
    /// RIP = source.
    Jump,
    /// destination = port source.
    In,
    /// Port destination = source.
    Out,
    /// One element, then pointers advance. Operands are those of the element.
    String(StringOperation),
}

impl Operation {
    /// Returns whether a LOCK prefix is allowed when the destination is in memory.
    pub(super) const fn lockable(self) -> bool {
        match self {
            Self::Binary(operation) => operation.writes(),
            Self::Bit(operation) => operation.writes(),
            Self::Unary(_)
            | Self::Exchange
            | Self::ExchangeAdd
            | Self::CompareExchange
            | Self::CompareExchangePair => true,
            _ => false,
        }
    }
}

/// Which repeat prefix an instruction has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Repeat {
    /// F3: while rCX is not zero; for comparisons also while equal.
    WhileEqual,
    /// F2: while rCX is not zero; for comparisons also while not equal.
    WhileNotEqual,
}

/// An instruction that [`execute`](super::execute()) can run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Instruction {
    /// Bytes of the encoding, 1 to 15.
    pub(super) length: u8,
    /// What it does.
    pub(super) operation: Operation,
    /// The operand size.
    pub(super) size: Size,
    /// The address size: of offsets, and of rCX, rSI and rDI in string instructions.
    pub(super) address_size: Size,
    /// The first operand: what is written, or compared.
    pub(super) destination: Operand,
    /// The second operand.
    pub(super) source: Operand,
    /// Whether there is a LOCK prefix. Then the destination is in memory.
    pub(super) lock: bool,
    /// The repeat prefix of a string instruction; of no meaning elsewhere.
    pub(super) repeat: Option<Repeat>,
}

impl Instruction {
    /// Returns the number of bytes of the encoding, 1 to 15.
    #[allow(dead_code, reason = "for the tests on the host")]
    pub(crate) const fn length(&self) -> u8 {
        self.length
    }
}
