// SPDX-License-Identifier: GPL-2.0

//! The opcode tables: which operation an opcode is, and how its operands are encoded.

use super::{
    alu::{
        Binary,
        Unary, //
    },
    bits::BitOperation,
    decode::DecodeError,
    instruction::Operation,
    operand::Size,
    prefix::{
        Prefixes,
        Reader, //
    },
    string::StringOperation, //
};

/// Where the operands of an instruction are, destination first.
#[derive(Clone, Copy)]
pub(super) enum Form {
    /// ModRM.rm and ModRM.reg.
    RmReg,
    /// ModRM.reg and ModRM.rm.
    RegRm,
    /// ModRM.rm, in memory only, and ModRM.reg.
    MemReg,
    /// ModRM.reg and ModRM.rm, in memory only.
    RegMem,
    /// ModRM.rm, and an immediate of the operand size but at most 4 bytes.
    RmImm,
    /// ModRM.rm and a sign-extended byte.
    RmImm8,
    /// ModRM.rm is the destination.
    Rm,
    /// ModRM.rm, in memory only, is the destination.
    Mem,
    /// ModRM.rm is the source.
    RmSource,
    /// The accumulator and an immediate.
    AccImm,
    /// The accumulator, and memory at an offset in the instruction.
    AccOffset,
    /// Memory at an offset in the instruction, and the accumulator.
    OffsetAcc,
    /// The accumulator and a port in the instruction.
    AccPort,
    /// A port in the instruction and the accumulator.
    PortAcc,
    /// The accumulator and the port in DX.
    AccDx,
    /// The port in DX and the accumulator.
    DxAcc,
    /// As the string operation has them.
    String(StringOperation),
}

/// The rule for the operand size.
#[derive(Clone, Copy)]
pub(super) enum Width {
    /// One byte.
    Byte,
    /// By mode and prefixes.
    Full,
    /// The same, where 64-bit mode has no 4 bytes.
    Stack,
    /// The same, where 64-bit mode has 8 bytes only.
    Branch,
    /// The same, but at most 4 bytes.
    Port,
    /// 4 bytes, or 8 with REX.W.
    Wide,
}

impl Width {
    /// Returns the operand size.
    pub(super) fn size(self, prefixes: &Prefixes) -> Size {
        match self {
            Self::Byte => Size::Byte,
            Self::Full => prefixes.operand(),
            Self::Stack => prefixes.stack_operand(),
            Self::Branch => prefixes.branch_operand(),
            Self::Port => prefixes.port_operand(),
            Self::Wide => prefixes.wide_operand(),
        }
    }

    /// Returns the byte rule if the low bit of `opcode` is 0, as most opcodes have it, else `full`.
    const fn by_low_bit(opcode: u8, full: Self) -> Self {
        if opcode & 1 == 0 {
            Self::Byte
        } else {
            full
        }
    }
}

/// What the tables have for an opcode.
#[derive(Clone, Copy)]
pub(super) struct Entry {
    pub(super) operation: Operation,
    pub(super) form: Form,
    pub(super) width: Width,
}

/// Returns an entry, in the order in which manuals list an instruction.
const fn entry(operation: Operation, form: Form, width: Width) -> Result<Entry, DecodeError> {
    Ok(Entry {
        operation,
        form,
        width,
    })
}

/// Reads the rest of the opcode that starts with `first` and returns its entry.
pub(super) fn lookup(
    prefixes: &Prefixes,
    first: u8,
    reader: &mut Reader<'_>,
) -> Result<Entry, DecodeError> {
    match first {
        0x0f => match reader.byte()? {
            0x38 => three_byte(prefixes, reader.byte()?),
            second => two_byte(prefixes, second, reader),
        },
        _ => one_byte(prefixes, first, reader),
    }
}

/// Returns ModRM.reg, which is part of the opcode in groups.
fn group(reader: &Reader<'_>) -> Result<u8, DecodeError> {
    Ok((reader.peek()? >> 3) & 7)
}

/// Returns the entry of an opcode of one byte.
fn one_byte(prefixes: &Prefixes, opcode: u8, reader: &Reader<'_>) -> Result<Entry, DecodeError> {
    let full = Width::by_low_bit(opcode, Width::Full);
    let port = Width::by_low_bit(opcode, Width::Port);
    match opcode {
        0x00..=0x3f => arithmetic(opcode, full),
        0x63 if prefixes.long64() => {
            let operation = Operation::Extend {
                from: Size::Dword,
                signed: true,
            };
            entry(operation, Form::RegRm, Width::Full)
        }
        0x6c | 0x6d => string(StringOperation::Input, port),
        0x6e | 0x6f => string(StringOperation::Output, port),
        0x82 if prefixes.long64() => Err(DecodeError::Invalid),
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
        0x8f => match group(reader)? {
            0 => entry(Operation::Pop, Form::Rm, Width::Stack),
            _ => Err(DecodeError::Unsupported),
        },
        0xa0 | 0xa1 => entry(Operation::Move, Form::AccOffset, full),
        0xa2 | 0xa3 => entry(Operation::Move, Form::OffsetAcc, full),
        0xa4 | 0xa5 => string(StringOperation::Move, full),
        0xa6 | 0xa7 => string(StringOperation::Compare, full),
        0xa8 | 0xa9 => entry(Operation::Binary(Binary::Test), Form::AccImm, full),
        0xaa | 0xab => string(StringOperation::Store, full),
        0xac | 0xad => string(StringOperation::Load, full),
        0xae | 0xaf => string(StringOperation::Scan, full),
        0xc6 | 0xc7 => match group(reader)? {
            0 => entry(Operation::Move, Form::RmImm, full),
            // With register operands of 0: xabort and xbegin.
            7 => Err(DecodeError::Unsupported),
            _ => Err(DecodeError::Invalid),
        },
        0xe4 | 0xe5 => entry(Operation::In, Form::AccPort, port),
        0xe6 | 0xe7 => entry(Operation::Out, Form::PortAcc, port),
        0xec | 0xed => entry(Operation::In, Form::AccDx, port),
        0xee | 0xef => entry(Operation::Out, Form::DxAcc, port),
        0xf6 | 0xf7 => match group(reader)? {
            0 | 1 => entry(Operation::Binary(Binary::Test), Form::RmImm, full),
            2 => entry(Operation::Unary(Unary::Not), Form::Rm, full),
            3 => entry(Operation::Unary(Unary::Negate), Form::Rm, full),
            _ => Err(DecodeError::Unsupported),
        },
        0xfe | 0xff => match group(reader)? {
            0 => entry(Operation::Unary(Unary::Increment), Form::Rm, full),
            1 => entry(Operation::Unary(Unary::Decrement), Form::Rm, full),
            _ if opcode == 0xfe => Err(DecodeError::Invalid),
            2 => entry(Operation::Call, Form::RmSource, Width::Branch),
            4 => entry(Operation::Jump, Form::RmSource, Width::Branch),
            6 => entry(Operation::Push, Form::RmSource, Width::Stack),
            7 => Err(DecodeError::Invalid),
            _ => Err(DecodeError::Unsupported),
        },
        _ => Err(DecodeError::Unsupported),
    }
}

/// Returns the entry of an opcode below 40, of which six of eight are arithmetic.
fn arithmetic(opcode: u8, full: Width) -> Result<Entry, DecodeError> {
    let form = match opcode & 7 {
        0 | 1 => Form::RmReg,
        2 | 3 => Form::RegRm,
        4 | 5 => Form::AccImm,
        _ => return Err(DecodeError::Unsupported),
    };
    entry(Operation::Binary(Binary::encoded(opcode >> 3)), form, full)
}

/// Returns the entry of a string instruction.
const fn string(operation: StringOperation, width: Width) -> Result<Entry, DecodeError> {
    entry(Operation::String(operation), Form::String(operation), width)
}

/// Returns the entry of the opcode 0F `opcode`.
fn two_byte(prefixes: &Prefixes, opcode: u8, reader: &Reader<'_>) -> Result<Entry, DecodeError> {
    let full = Width::by_low_bit(opcode, Width::Full);
    match opcode {
        0xa3 | 0xab | 0xb3 | 0xbb => {
            let operation = Operation::Bit(BitOperation::encoded(opcode >> 3));
            entry(operation, Form::RmReg, Width::Full)
        }
        0xb0 | 0xb1 => entry(Operation::CompareExchange, Form::RmReg, full),
        0xb6 | 0xb7 | 0xbe | 0xbf => {
            let from = if opcode & 1 == 0 {
                Size::Byte
            } else {
                Size::Word
            };
            let signed = opcode & 8 != 0;
            entry(Operation::Extend { from, signed }, Form::RegRm, Width::Full)
        }
        0xba => match group(reader)? {
            operation @ 4..=7 => {
                let operation = Operation::Bit(BitOperation::encoded(operation));
                entry(operation, Form::RmImm8, Width::Full)
            }
            _ => Err(DecodeError::Invalid),
        },
        0xc0 | 0xc1 => entry(Operation::ExchangeAdd, Form::RmReg, full),
        0xc3 if !prefixes.operand_size && prefixes.repeat.is_none() => {
            entry(Operation::Move, Form::MemReg, Width::Wide)
        }
        0xc7 => match group(reader)? {
            1 => entry(Operation::CompareExchangePair, Form::Mem, Width::Wide),
            _ => Err(DecodeError::Unsupported),
        },
        _ => Err(DecodeError::Unsupported),
    }
}

/// Returns the entry of the opcode 0F 38 `opcode`.
fn three_byte(prefixes: &Prefixes, opcode: u8) -> Result<Entry, DecodeError> {
    if prefixes.repeat.is_some() {
        // F2 makes the same opcodes crc32.
        return Err(DecodeError::Unsupported);
    }
    match opcode {
        0xf0 => entry(Operation::MoveSwapped, Form::RegMem, Width::Full),
        0xf1 => entry(Operation::MoveSwapped, Form::MemReg, Width::Full),
        _ => Err(DecodeError::Unsupported),
    }
}
