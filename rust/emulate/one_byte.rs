// SPDX-License-Identifier: GPL-2.0

//! The opcodes of one byte.

use super::{
    alu::{
        Binary,
        Unary, //
    },
    branch::Counted,
    bus::Segment,
    control::SystemOperation,
    decimal::Decimal,
    decode::DecodeError,
    flags::FlagOperation,
    instruction::{
        Operation,
        Repeat, //
    },
    opcode::{
        entry,
        group,
        plain,
        Entry,
        Form,
        Width, //
    },
    operand::Size,
    prefix::{
        Prefixes,
        Reader, //
    },
    shift::Shift,
    string::StringOperation, //
};

/// Returns the entry of `opcode`.
pub(super) fn lookup(
    prefixes: &Prefixes,
    opcode: u8,
    reader: &Reader<'_>,
) -> Result<Entry, DecodeError> {
    if prefixes.long64() && is_missing_in_64_bit_mode(opcode) {
        return Err(DecodeError::Invalid);
    }
    match opcode {
        0x00..=0x3f => arithmetic(opcode),
        0x40..=0x6f => middle(prefixes, opcode, reader),
        0x70..=0x7f => entry(
            Operation::Branch(opcode & 15),
            Form::Relative8,
            Width::Branch,
        ),
        0x80..=0x8f => with_modrm(opcode, reader),
        0x90..=0xbf => registers_and_strings(prefixes, opcode),
        0xc0..=0xdf => returns_and_shifts(opcode, reader),
        _ => branches_and_groups(opcode, reader),
    }
}

/// Returns whether 64-bit mode has nothing for `opcode`.
const fn is_missing_in_64_bit_mode(opcode: u8) -> bool {
    matches!(
        opcode,
        0x06 | 0x07
            | 0x0e
            | 0x16
            | 0x17
            | 0x1e
            | 0x1f
            | 0x27
            | 0x2f
            | 0x37
            | 0x3f
            | 0x60
            | 0x61
            | 0x82
            | 0x9a
            | 0xce
            | 0xd4
            | 0xd5
            | 0xd6
            | 0xea
    )
}

/// Returns the width that the low bit of `opcode` selects.
const fn full(opcode: u8) -> Width {
    Width::by_low_bit(opcode, Width::Full)
}

/// Returns the entry of an opcode below 40, of which six of eight are arithmetic.
fn arithmetic(opcode: u8) -> Result<Entry, DecodeError> {
    let form = match opcode & 7 {
        0 | 1 => Form::RmReg,
        2 | 3 => Form::RegRm,
        4 | 5 => Form::AccImm,
        _ => return segments_and_decimals(opcode),
    };
    entry(
        Operation::Binary(Binary::encoded(opcode >> 3)),
        form,
        full(opcode),
    )
}

/// Returns the entry of the other opcodes below 40.
fn segments_and_decimals(opcode: u8) -> Result<Entry, DecodeError> {
    let push = |name| {
        entry(
            Operation::PushSegment,
            Form::SegmentSource(name),
            Width::Stack,
        )
    };
    let pop = |name| entry(Operation::PopSegment, Form::Segment(name), Width::Stack);
    match opcode {
        0x06 => push(Segment::Es),
        0x07 => pop(Segment::Es),
        0x0e => push(Segment::Cs),
        0x16 => push(Segment::Ss),
        0x17 => pop(Segment::Ss),
        0x1e => push(Segment::Ds),
        0x1f => pop(Segment::Ds),
        0x27 => plain(Operation::Decimal(Decimal::AfterAdd)),
        0x2f => plain(Operation::Decimal(Decimal::AfterSubtract)),
        0x37 => plain(Operation::Decimal(Decimal::UnpackedAfterAdd)),
        0x3f => plain(Operation::Decimal(Decimal::UnpackedAfterSubtract)),
        _ => Err(DecodeError::Unsupported),
    }
}

/// Returns the entry of an opcode from 40 to 6F.
fn middle(prefixes: &Prefixes, opcode: u8, reader: &Reader<'_>) -> Result<Entry, DecodeError> {
    let port = Width::by_low_bit(opcode, Width::Port);
    match opcode {
        0x40..=0x47 => {
            let operation = Operation::Unary(Unary::Increment);
            entry(operation, Form::Register(opcode & 7), Width::Full)
        }
        0x48..=0x4f => {
            let operation = Operation::Unary(Unary::Decrement);
            entry(operation, Form::Register(opcode & 7), Width::Full)
        }
        0x50..=0x57 => entry(
            Operation::Push,
            Form::RegisterSource(opcode & 7),
            Width::Stack,
        ),
        0x58..=0x5f => entry(Operation::Pop, Form::Register(opcode & 7), Width::Stack),
        0x60 => plain(Operation::PushAll),
        0x61 => plain(Operation::PopAll),
        // With a register, or in 64-bit mode, this is an EVEX prefix.
        0x62 if !prefixes.long64() && reader.peek()? < 0xc0 => {
            entry(Operation::Bound, Form::RegMem, Width::Full)
        }
        0x63 if prefixes.long64() => {
            let operation = Operation::Extend {
                from: Size::Dword,
                signed: true,
            };
            entry(operation, Form::RegRm, Width::Full)
        }
        0x68 => entry(Operation::Push, Form::Imm, Width::Stack),
        0x69 => entry(Operation::MultiplyInto, Form::RegRmImm, Width::Full),
        0x6a => entry(Operation::Push, Form::Imm8, Width::Stack),
        0x6b => entry(Operation::MultiplyInto, Form::RegRmImm8, Width::Full),
        0x6c | 0x6d => string(StringOperation::Input, port),
        0x6e | 0x6f => string(StringOperation::Output, port),
        _ => Err(DecodeError::Unsupported),
    }
}

/// Returns the entry of an opcode from 80 to 8F.
fn with_modrm(opcode: u8, reader: &Reader<'_>) -> Result<Entry, DecodeError> {
    let full = full(opcode);
    match opcode {
        0x80..=0x83 => {
            let operation = Operation::Binary(Binary::encoded(group(reader)?));
            let form = if opcode == 0x83 {
                Form::RmImm8
            } else {
                Form::RmImm
            };
            entry(operation, form, full)
        }
        0x84 | 0x85 => entry(Operation::Binary(Binary::Test), Form::RmReg, full),
        0x86 | 0x87 => entry(Operation::Exchange, Form::RmReg, full),
        0x88 | 0x89 => entry(Operation::Move, Form::RmReg, full),
        0x8a | 0x8b => entry(Operation::Move, Form::RegRm, full),
        0x8c => entry(Operation::StoreSegment, Form::RmSegment, Width::Full),
        0x8d => entry(Operation::LoadAddress, Form::RegMem, Width::Full),
        0x8e => entry(Operation::LoadSegment, Form::SegmentRm, Width::Full),
        _ => match group(reader)? {
            0 => entry(Operation::Pop, Form::Rm, Width::Stack),
            _ => Err(DecodeError::Unsupported),
        },
    }
}

/// Returns the entry of an opcode from 90 to BF.
fn registers_and_strings(prefixes: &Prefixes, opcode: u8) -> Result<Entry, DecodeError> {
    let full = full(opcode);
    match opcode {
        // pause, whatever register REX.B makes of it.
        0x90 if prefixes.repeat == Some(Repeat::WhileEqual) => plain(Operation::Nothing),
        0x90 if prefixes.rex.base(0) == 0 => plain(Operation::Nothing),
        0x90..=0x97 => entry(
            Operation::Exchange,
            Form::RegisterAcc(opcode & 7),
            Width::Full,
        ),
        0x98 => plain(Operation::ExtendAccumulator),
        0x99 => plain(Operation::SignAccumulator),
        0x9a => entry(Operation::FarCall, Form::FarPointer, Width::Full),
        0x9c => entry(Operation::PushFlags, Form::Nothing, Width::Stack),
        0x9d => entry(Operation::PopFlags, Form::Nothing, Width::Stack),
        0x9e => plain(Operation::StoreAh),
        0x9f => plain(Operation::LoadAh),
        0xa0 | 0xa1 => entry(Operation::Move, Form::AccOffset, full),
        0xa2 | 0xa3 => entry(Operation::Move, Form::OffsetAcc, full),
        0xa4 | 0xa5 => string(StringOperation::Move, full),
        0xa6 | 0xa7 => string(StringOperation::Compare, full),
        0xa8 | 0xa9 => entry(Operation::Binary(Binary::Test), Form::AccImm, full),
        0xaa | 0xab => string(StringOperation::Store, full),
        0xac | 0xad => string(StringOperation::Load, full),
        0xae | 0xaf => string(StringOperation::Scan, full),
        0xb0..=0xb7 => entry(Operation::Move, Form::RegisterImm(opcode & 7), Width::Byte),
        0xb8..=0xbf => entry(Operation::Move, Form::RegisterImm(opcode & 7), Width::Full),
        _ => Err(DecodeError::Unsupported),
    }
}

/// Returns the entry of a string instruction.
const fn string(operation: StringOperation, width: Width) -> Result<Entry, DecodeError> {
    entry(Operation::String(operation), Form::String(operation), width)
}

/// Returns the entry of an opcode from C0 to DF.
fn returns_and_shifts(opcode: u8, reader: &Reader<'_>) -> Result<Entry, DecodeError> {
    let full = full(opcode);
    let far_pointer = |name| entry(Operation::LoadFarPointer(name), Form::RegMem, Width::Full);
    match opcode {
        0xc0 | 0xc1 => shift(reader, Form::RmImm8, full),
        0xc2 => entry(Operation::Return, Form::Imm16, Width::Branch),
        0xc3 => entry(Operation::Return, Form::Nothing, Width::Branch),
        0xc4 => far_pointer(Segment::Es),
        0xc5 => far_pointer(Segment::Ds),
        0xc6 | 0xc7 => match group(reader)? {
            0 => entry(Operation::Move, Form::RmImm, full),
            // With register operands of 0: xabort and xbegin.
            7 => Err(DecodeError::Unsupported),
            _ => Err(DecodeError::Invalid),
        },
        0xc8 => entry(Operation::Enter, Form::Imm16Imm8, Width::Stack),
        0xc9 => entry(Operation::Leave, Form::Nothing, Width::Stack),
        0xca => entry(Operation::FarReturn, Form::Imm16, Width::Full),
        0xcb => plain(Operation::FarReturn),
        0xcc => plain(Operation::Breakpoint),
        0xcd => entry(Operation::Interrupt, Form::Imm8, Width::Full),
        0xce => plain(Operation::Overflow),
        0xcf => plain(Operation::InterruptReturn),
        0xd0 | 0xd1 => shift(reader, Form::RmOne, full),
        0xd2 | 0xd3 => shift(reader, Form::RmCl, full),
        0xd4 => entry(
            Operation::Decimal(Decimal::AfterMultiply),
            Form::Imm8Only,
            Width::Byte,
        ),
        0xd5 => entry(
            Operation::Decimal(Decimal::BeforeDivide),
            Form::Imm8Only,
            Width::Byte,
        ),
        0xd6 => plain(Operation::CarryToAl),
        0xd7 => entry(Operation::Translate, Form::Table, Width::Byte),
        _ => Err(DecodeError::Unsupported),
    }
}

/// Returns the entry of a shift or rotation.
fn shift(reader: &Reader<'_>, form: Form, width: Width) -> Result<Entry, DecodeError> {
    entry(
        Operation::Shift(Shift::encoded(group(reader)?)),
        form,
        width,
    )
}

/// Returns the entry of an opcode from E0 on.
fn branches_and_groups(opcode: u8, reader: &Reader<'_>) -> Result<Entry, DecodeError> {
    let full = full(opcode);
    let port = Width::by_low_bit(opcode, Width::Port);
    let flag = |operation| plain(Operation::Flag(operation));
    match opcode {
        0xe0..=0xe3 => {
            let operation = Operation::CountedBranch(Counted::encoded(opcode));
            entry(operation, Form::Relative8, Width::Branch)
        }
        0xe4 | 0xe5 => entry(Operation::In, Form::AccPort, port),
        0xe6 | 0xe7 => entry(Operation::Out, Form::PortAcc, port),
        0xe8 => entry(Operation::Call, Form::Relative, Width::Branch),
        0xe9 => entry(Operation::Jump, Form::Relative, Width::Branch),
        0xea => entry(Operation::FarJump, Form::FarPointer, Width::Full),
        0xeb => entry(Operation::Jump, Form::Relative8, Width::Branch),
        0xec | 0xed => entry(Operation::In, Form::AccDx, port),
        0xee | 0xef => entry(Operation::Out, Form::DxAcc, port),
        0xf4 => plain(Operation::System(SystemOperation::Halt)),
        0xf5 => flag(FlagOperation::ComplementCarry),
        0xf6 | 0xf7 => match group(reader)? {
            0 | 1 => entry(Operation::Binary(Binary::Test), Form::RmImm, full),
            2 => entry(Operation::Unary(Unary::Not), Form::Rm, full),
            3 => entry(Operation::Unary(Unary::Negate), Form::Rm, full),
            4 => entry(Operation::Multiply { signed: false }, Form::RmSource, full),
            5 => entry(Operation::Multiply { signed: true }, Form::RmSource, full),
            6 => entry(Operation::Divide { signed: false }, Form::RmSource, full),
            _ => entry(Operation::Divide { signed: true }, Form::RmSource, full),
        },
        0xf8 => flag(FlagOperation::ClearCarry),
        0xf9 => flag(FlagOperation::SetCarry),
        0xfa => flag(FlagOperation::ClearInterrupt),
        0xfb => flag(FlagOperation::SetInterrupt),
        0xfc => flag(FlagOperation::ClearDirection),
        0xfd => flag(FlagOperation::SetDirection),
        0xfe | 0xff => match group(reader)? {
            0 => entry(Operation::Unary(Unary::Increment), Form::Rm, full),
            1 => entry(Operation::Unary(Unary::Decrement), Form::Rm, full),
            _ if opcode == 0xfe => Err(DecodeError::Invalid),
            2 => entry(Operation::Call, Form::RmSource, Width::Branch),
            3 => entry(Operation::FarCall, Form::MemSource, Width::Full),
            4 => entry(Operation::Jump, Form::RmSource, Width::Branch),
            5 => entry(Operation::FarJump, Form::MemSource, Width::Full),
            6 => entry(Operation::Push, Form::RmSource, Width::Stack),
            _ => Err(DecodeError::Invalid),
        },
        _ => Err(DecodeError::Unsupported),
    }
}
