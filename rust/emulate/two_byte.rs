// SPDX-License-Identifier: GPL-2.0

//! The opcodes of two bytes, of which the first is 0F, and those of three that start with 0F 38.

use super::{
    bits::BitOperation,
    bus::Segment,
    control::SystemOperation,
    decode::DecodeError,
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
    system::{
        SystemSegment,
        Table, //
    },
    vex, //
};

/// Returns the entry of the opcode 0F `opcode`.
pub(super) fn lookup(
    prefixes: &Prefixes,
    opcode: u8,
    reader: &Reader<'_>,
) -> Result<Entry, DecodeError> {
    match opcode {
        0x00..=0x0f => system(opcode, reader),
        0x10 | 0x11 | 0x28 | 0x29 | 0x2b | 0x6f | 0x7f | 0xe7 => {
            vex::vector_move(0x0f, opcode, prefixes.vector_prefix(), None)
        }
        0x1f => entry(Operation::Nothing, Form::Rm, Width::Full),
        0x20..=0x23 => {
            let form = match opcode {
                0x20 => Form::RegControl,
                0x21 => Form::RegDebug,
                0x22 => Form::ControlReg,
                _ => Form::DebugReg,
            };
            let operation = if opcode & 1 == 0 {
                SystemOperation::MoveControl
            } else {
                SystemOperation::MoveDebug
            };
            entry(Operation::System(operation), form, Width::Native)
        }
        0x30 => plain(Operation::System(SystemOperation::WriteMsr)),
        0x31 => plain(Operation::System(SystemOperation::ReadTimeStamp)),
        0x32 => plain(Operation::System(SystemOperation::ReadMsr)),
        0x40..=0x4f => entry(
            Operation::ConditionalMove(opcode & 15),
            Form::RegRm,
            Width::Full,
        ),
        0x80..=0x8f => entry(
            Operation::Branch(opcode & 15),
            Form::Relative,
            Width::Branch,
        ),
        0x90..=0x9f => entry(Operation::Set(opcode & 15), Form::Rm, Width::Byte),
        0xa0..=0xbf => stack_and_bits(prefixes, opcode, reader),
        0xc0..=0xcf => exchanges(prefixes, opcode, reader),
        _ => Err(DecodeError::Unsupported),
    }
}

/// Returns the entry of an opcode from 0F 00 to 0F 0F.
fn system(opcode: u8, reader: &Reader<'_>) -> Result<Entry, DecodeError> {
    use SystemOperation::*;
    let plain = |operation| plain(Operation::System(operation));
    let with = |operation, form, width| entry(Operation::System(operation), form, width);
    match opcode {
        0x00 => match group(reader)? {
            0 => with(
                StoreSystemSegment(SystemSegment::Ldt),
                Form::Rm,
                Width::Full,
            ),
            1 => with(
                StoreSystemSegment(SystemSegment::Task),
                Form::Rm,
                Width::Full,
            ),
            2 => with(
                LoadSystemSegment(SystemSegment::Ldt),
                Form::RmSource,
                Width::Full,
            ),
            3 => with(
                LoadSystemSegment(SystemSegment::Task),
                Form::RmSource,
                Width::Full,
            ),
            _ => Err(DecodeError::Unsupported),
        },
        0x01 => {
            let in_memory = reader.peek()? < 0xc0;
            match group(reader)? {
                0 if in_memory => with(StoreTable(Table::Global), Form::Mem, Width::Branch),
                1 if in_memory => with(StoreTable(Table::Interrupt), Form::Mem, Width::Branch),
                2 if in_memory => with(LoadTable(Table::Global), Form::MemSource, Width::Branch),
                3 if in_memory => with(LoadTable(Table::Interrupt), Form::MemSource, Width::Branch),
                4 => with(StoreMachineStatus, Form::Rm, Width::Full),
                6 => with(LoadMachineStatus, Form::RmSource, Width::Full),
                7 if in_memory => with(Invalidate, Form::Mem, Width::Byte),
                _ => Err(DecodeError::Unsupported),
            }
        }
        0x06 => plain(ClearTaskSwitched),
        0x08 | 0x09 => plain(Caches),
        0x0b => Err(DecodeError::Invalid),
        _ => Err(DecodeError::Unsupported),
    }
}

/// Returns the entry of an opcode from 0F A0 to 0F BF.
fn stack_and_bits(
    prefixes: &Prefixes,
    opcode: u8,
    reader: &Reader<'_>,
) -> Result<Entry, DecodeError> {
    let full = Width::by_low_bit(opcode, Width::Full);
    let push = |name| {
        entry(
            Operation::PushSegment,
            Form::SegmentSource(name),
            Width::Stack,
        )
    };
    let pop = |name| entry(Operation::PopSegment, Form::Segment(name), Width::Stack);
    let far_pointer = |name| entry(Operation::LoadFarPointer(name), Form::RegMem, Width::Full);
    let double_shift = |right, by_cl| {
        let form = if by_cl { Form::RmReg } else { Form::RmRegImm8 };
        entry(Operation::DoubleShift { right, by_cl }, form, Width::Full)
    };
    match opcode {
        0xa0 => push(Segment::Fs),
        0xa1 => pop(Segment::Fs),
        0xa2 => plain(Operation::System(SystemOperation::Identify)),
        0xa3 | 0xab | 0xb3 | 0xbb => {
            let operation = Operation::Bit(BitOperation::encoded(opcode >> 3));
            entry(operation, Form::RmReg, Width::Full)
        }
        0xa4 | 0xa5 => double_shift(false, opcode & 1 != 0),
        0xa8 => push(Segment::Gs),
        0xa9 => pop(Segment::Gs),
        0xac | 0xad => double_shift(true, opcode & 1 != 0),
        0xae => fence(prefixes, reader),
        0xaf => entry(Operation::MultiplyInto, Form::RegRm, Width::Full),
        0xb0 | 0xb1 => entry(Operation::CompareExchange, Form::RmReg, full),
        0xb2 => far_pointer(Segment::Ss),
        0xb4 => far_pointer(Segment::Fs),
        0xb5 => far_pointer(Segment::Gs),
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
        // F3 makes the same opcodes tzcnt and lzcnt.
        0xbc | 0xbd if prefixes.repeat != Some(Repeat::WhileEqual) => {
            let reverse = opcode & 1 != 0;
            entry(Operation::BitScan { reverse }, Form::RegRm, Width::Full)
        }
        _ => Err(DecodeError::Unsupported),
    }
}

/// Returns the entry of `lfence`, `mfence` and `sfence`.
fn fence(prefixes: &Prefixes, reader: &Reader<'_>) -> Result<Entry, DecodeError> {
    let plain = !prefixes.operand_size && prefixes.repeat.is_none();
    if plain && reader.peek()? >= 0xe8 {
        // Memory is accessed in order here.
        entry(Operation::Nothing, Form::ModRmOnly, Width::Full)
    } else {
        Err(DecodeError::Unsupported)
    }
}

/// Returns the entry of an opcode from 0F C0 to 0F CF.
fn exchanges(prefixes: &Prefixes, opcode: u8, reader: &Reader<'_>) -> Result<Entry, DecodeError> {
    let full = Width::by_low_bit(opcode, Width::Full);
    match opcode {
        0xc0 | 0xc1 => entry(Operation::ExchangeAdd, Form::RmReg, full),
        0xc3 if !prefixes.operand_size && prefixes.repeat.is_none() => {
            entry(Operation::Move, Form::MemReg, Width::Wide)
        }
        0xc7 => match group(reader)? {
            1 => entry(Operation::CompareExchangePair, Form::Mem, Width::Wide),
            _ => Err(DecodeError::Unsupported),
        },
        0xc8..=0xcf => entry(
            Operation::SwapBytes,
            Form::Register(opcode & 7),
            Width::Full,
        ),
        _ => Err(DecodeError::Unsupported),
    }
}

/// Returns the entry of the opcode 0F 38 `opcode`.
pub(super) fn lookup_38(prefixes: &Prefixes, opcode: u8) -> Result<Entry, DecodeError> {
    match opcode {
        0x2a => vex::vector_move(0x38, opcode, prefixes.vector_prefix(), None),
        // F2 makes the same opcodes crc32.
        _ if prefixes.repeat.is_some() => Err(DecodeError::Unsupported),
        0xf0 => entry(Operation::MoveSwapped, Form::RegMem, Width::Full),
        0xf1 => entry(Operation::MoveSwapped, Form::MemReg, Width::Full),
        _ => Err(DecodeError::Unsupported),
    }
}
