// SPDX-License-Identifier: GPL-2.0

//! Opcodes of vector instructions, with and without VEX prefix.

use super::{
    bus::Mode,
    decode::DecodeError,
    instruction::Operation,
    opcode::{
        entry,
        Entry,
        Form,
        Width, //
    },
    prefix::{
        Prefixes,
        Reader,
        VectorPrefix, //
    },
    vector::VectorMove, //
};

/// What a VEX prefix says besides the numbers of registers.
#[derive(Clone, Copy)]
pub(super) struct Vex {
    /// 32 bytes, not 16.
    wide: bool,
}

/// Reads what follows the first byte, C4 or C5, of a VEX prefix, and the opcode behind it.
pub(super) fn lookup(
    prefixes: &mut Prefixes,
    first: u8,
    reader: &mut Reader<'_>,
) -> Result<Entry, DecodeError> {
    if matches!(prefixes.mode(), Mode::Real | Mode::Virtual8086)
        || prefixes.lock
        || prefixes.operand_size
        || prefixes.repeat.is_some()
        || prefixes.rex.present()
    {
        return Err(DecodeError::Invalid);
    }
    let second = reader.byte()?;
    let (extensions, map, last) = if first == 0xc4 {
        (second, second & 31, reader.byte()?)
    } else {
        (second | 0x60, 1, second)
    };
    let opcode = reader.byte()?;
    let map = match map {
        1 => 0x0f,
        2 => 0x38,
        _ => return Err(DecodeError::Unsupported),
    };
    let prefix = match last & 3 {
        0 => VectorPrefix::None,
        1 => VectorPrefix::OperandSize,
        2 => VectorPrefix::F3,
        _ => VectorPrefix::F2,
    };
    let wide = last & 4 != 0;
    let found = vector_move(map, opcode, prefix, Some(Vex { wide }))?;
    // A second source, which a move does not have; its bits are inverted.
    const UNUSED: u8 = 0x78;
    if last & UNUSED != UNUSED {
        return Err(DecodeError::Invalid);
    }
    if prefixes.long64() {
        prefixes.set_vex_registers(!extensions >> 5);
    }
    Ok(found)
}

/// Returns the entry of the vector move with `opcode` in the opcode map of 0F, or of 0F 38.
pub(super) fn vector_move(
    map: u8,
    opcode: u8,
    prefix: VectorPrefix,
    vex: Option<Vex>,
) -> Result<Entry, DecodeError> {
    use VectorPrefix::{
        None as Plain,
        OperandSize,
        F3, //
    };
    let (form, aligned) = match (map, opcode, prefix) {
        // movups, movupd
        (0x0f, 0x10, Plain | OperandSize) => (Form::VectorRm, false),
        (0x0f, 0x11, Plain | OperandSize) => (Form::RmVector, false),
        // movaps, movapd
        (0x0f, 0x28, Plain | OperandSize) => (Form::VectorRm, true),
        (0x0f, 0x29, Plain | OperandSize) => (Form::RmVector, true),
        // movntps, movntpd
        (0x0f, 0x2b, Plain | OperandSize) => (Form::MemVector, true),
        // movdqa
        (0x0f, 0x6f, OperandSize) => (Form::VectorRm, true),
        (0x0f, 0x7f, OperandSize) => (Form::RmVector, true),
        // movdqu
        (0x0f, 0x6f, F3) => (Form::VectorRm, false),
        (0x0f, 0x7f, F3) => (Form::RmVector, false),
        // movntdq, movntdqa
        (0x0f, 0xe7, OperandSize) => (Form::MemVector, true),
        (0x38, 0x2a, OperandSize) => (Form::VectorMem, true),
        _ => return Err(DecodeError::Unsupported),
    };
    let operation = VectorMove {
        wide: vex.is_some_and(|vex| vex.wide),
        aligned,
        vex: vex.is_some(),
    };
    entry(Operation::MoveVector(operation), form, Width::Full)
}
