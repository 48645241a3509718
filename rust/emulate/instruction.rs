// SPDX-License-Identifier: GPL-2.0

//! A decoded instruction.

use super::{
    alu::{
        Binary,
        Unary, //
    },
    bits::BitOperation,
    branch::Counted,
    bus::Segment,
    control::SystemOperation,
    decimal::Decimal,
    flags::FlagOperation,
    operand::{
        Operand,
        Size, //
    },
    shift::Shift,
    string::StringOperation,
    vector::VectorMove, //
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
    /// Nothing; a destination is not accessed.
    Nothing,
    /// destination = offset of source.
    LoadAddress,
    /// destination = destination shifted by source.
    Shift(Shift),
    /// destination = destination shifted, with bits of source shifted in: by CL or the immediate.
    DoubleShift { right: bool, by_cl: bool },
    /// rDX:rAX = rAX * source.
    Multiply { signed: bool },
    /// destination = (destination or immediate) * source.
    MultiplyInto,
    /// rAX = rDX:rAX / source; rDX is the remainder.
    Divide { signed: bool },
    /// destination = number of the lowest, or with `reverse` highest, bit of source.
    BitScan { reverse: bool },
    /// The bytes of destination in reverse order.
    SwapBytes,
    /// Adjust AL or AX, with the immediate as base.
    Decimal(Decimal),
    /// destination = source, if the condition is met.
    ConditionalMove(u8),
    /// destination = 1 if the condition is met, else 0.
    Set(u8),
    /// Extend half of the accumulator to all of it.
    ExtendAccumulator,
    /// rDX = the sign of rAX.
    SignAccumulator,
    /// AL = all bits CF.
    CarryToAl,
    /// AL = source, AL bytes further.
    Translate,
    /// Check that destination is between the two numbers in source.
    Bound,
    /// A flag.
    Flag(FlagOperation),
    /// AH = flags.
    LoadAh,
    /// Flags = AH.
    StoreAh,
    /// Push RFLAGS.
    PushFlags,
    /// Pop RFLAGS.
    PopFlags,
    /// Push the eight general registers.
    PushAll,
    /// Pop them.
    PopAll,
    /// Make a stack frame of as many bytes as source, nested as deep as the immediate.
    Enter,
    /// Drop it.
    Leave,
    /// Push source.
    Push,
    /// Push source, a segment register.
    PushSegment,
    /// Pop to destination, a segment register.
    PopSegment,
    /// destination, a segment register, = source.
    LoadSegment,
    /// destination = source, a segment register.
    StoreSegment,
    /// This segment and destination = the far pointer in source.
    LoadFarPointer(Segment),
    /// Pop to destination.
    Pop,
    /// Push the next RIP; RIP = source.
    Call,
    /// RIP = source.
    Jump,
    /// RIP = source, if the condition is met.
    Branch(u8),
    /// RIP = source, if rCX says so.
    CountedBranch(Counted),
    /// Pop RIP, and drop as many bytes as source.
    Return,
    /// Push CS and the next RIP; CS and RIP = source.
    FarCall,
    /// CS and RIP = source.
    FarJump,
    /// Pop RIP and CS, and drop as many bytes as source.
    FarReturn,
    /// Pop RIP, CS and RFLAGS.
    InterruptReturn,
    /// The interrupt with the number in source.
    Interrupt,
    /// Interrupt 3.
    Breakpoint,
    /// Interrupt 4, if OF is set.
    Overflow,
    /// About system registers.
    System(SystemOperation),
    /// destination = source, of which one at least is a vector register.
    MoveVector(VectorMove),
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
    /// A third operand, sign-extended, where there is one.
    pub(super) immediate: Option<u64>,
    /// Whether there is a LOCK prefix. Then the destination is in memory.
    pub(super) lock: bool,
    /// The repeat prefix of a string instruction; of no meaning elsewhere.
    pub(super) repeat: Option<Repeat>,
}

impl Instruction {
    /// Returns the number of bytes of the encoding, 1 to 15.
    pub(crate) const fn length(&self) -> u8 {
        self.length
    }

    /// Returns whether it is MOVBE.
    pub(crate) const fn is_movbe(&self) -> bool {
        matches!(self.operation, Operation::MoveSwapped)
    }

    /// Returns whether the instruction accesses one place in memory and no other, as far as data are
    /// concerned: the address that an exit tells is that of this place.
    pub(crate) const fn accesses_one_place(&self) -> bool {
        // None of these has two operands in memory.
        matches!(
            self.operation,
            Operation::Move
                | Operation::Extend { .. }
                | Operation::MoveSwapped
                | Operation::Binary(_)
                | Operation::Unary(_)
                | Operation::Bit(_)
                | Operation::Exchange
                | Operation::ExchangeAdd
                | Operation::CompareExchange
                | Operation::CompareExchangePair
                | Operation::ConditionalMove(_)
                | Operation::Set(_)
                | Operation::MoveVector(_)
                | Operation::String(
                    StringOperation::Store | StringOperation::Load | StringOperation::Scan,
                )
        )
    }
}
