// SPDX-License-Identifier: GPL-2.0

//! The ModRM and SIB bytes: two operands, of which one may be in memory.

use super::{
    bus::Segment,
    decode::DecodeError,
    operand::{
        Base,
        Index,
        Memory,
        Operand,
        Register,
        Size,
        RBP,
        RBX,
        RDI,
        RSI,
        RSP, //
    },
    prefix::{
        Prefixes,
        Reader, //
    },
};

/// What a ModRM byte, and the SIB byte and displacement after it, say.
pub(super) struct ModRm {
    /// The register in ModRM.reg, 0 to 15.
    pub(super) reg: u8,
    /// The operand in ModRM.rm.
    pub(super) rm: Operand,
}

impl ModRm {
    /// Reads the bytes. An operand in a register has `size`.
    pub(super) fn read(
        prefixes: &Prefixes,
        size: Size,
        reader: &mut Reader<'_>,
    ) -> Result<Self, DecodeError> {
        let byte = reader.byte()?;
        let (mode, rm) = (byte >> 6, byte & 7);
        let rm = if mode == 3 {
            let number = prefixes.rex.base(rm);
            Operand::Register(Register::encoded(number, size, prefixes.rex.present()))
        } else if prefixes.address() == Size::Word {
            Operand::Memory(memory16(prefixes, mode, rm, reader)?)
        } else {
            Operand::Memory(memory(prefixes, mode, rm, reader)?)
        };
        Ok(Self {
            reg: prefixes.rex.reg((byte >> 3) & 7),
            rm,
        })
    }

    /// Reads the byte where all of it names registers, whatever ModRM.mod has: returns ModRM.reg
    /// and ModRM.rm, 0 to 15.
    pub(super) fn read_registers(
        prefixes: &Prefixes,
        reader: &mut Reader<'_>,
    ) -> Result<(u8, u8), DecodeError> {
        let byte = reader.byte()?;
        Ok((
            prefixes.rex.reg((byte >> 3) & 7),
            prefixes.rex.base(byte & 7),
        ))
    }
}

/// Returns the segment that offsets with this base are in by default.
fn default_segment(base: Base) -> Segment {
    match base {
        Base::Register(RSP | RBP) => Segment::Ss,
        _ => Segment::Ds,
    }
}

/// Reads the displacement that ModRM.mod asks for beside a base; `long` is its size for mod 2.
fn displacement(mode: u8, long: Size, reader: &mut Reader<'_>) -> Result<u64, DecodeError> {
    match mode {
        1 => reader.signed(Size::Byte),
        2 => reader.signed(long),
        _ => Ok(0),
    }
}

/// Reads a memory reference with 16-bit addressing.
fn memory16(
    prefixes: &Prefixes,
    mode: u8,
    rm: u8,
    reader: &mut Reader<'_>,
) -> Result<Memory, DecodeError> {
    let (base, index) = match rm {
        0 => (Base::Register(RBX), Some(RSI)),
        1 => (Base::Register(RBX), Some(RDI)),
        2 => (Base::Register(RBP), Some(RSI)),
        3 => (Base::Register(RBP), Some(RDI)),
        4 => (Base::Register(RSI), None),
        5 => (Base::Register(RDI), None),
        6 if mode == 0 => (Base::None, None),
        6 => (Base::Register(RBP), None),
        _ => (Base::Register(RBX), None),
    };
    let displacement = match base {
        Base::None => reader.signed(Size::Word)?,
        _ => displacement(mode, Size::Word, reader)?,
    };
    Ok(Memory {
        segment: prefixes.segment(default_segment(base)),
        base,
        index: index.map(|register| Index { register, scale: 0 }),
        displacement,
        size: Size::Word,
    })
}

/// Reads a memory reference with 32-bit or 64-bit addressing.
fn memory(
    prefixes: &Prefixes,
    mode: u8,
    rm: u8,
    reader: &mut Reader<'_>,
) -> Result<Memory, DecodeError> {
    let (base, index) = match rm {
        RSP => sib(prefixes, mode, reader)?,
        RBP if mode == 0 && prefixes.long64() => (Base::NextInstruction, None),
        RBP if mode == 0 => (Base::None, None),
        _ => (Base::Register(prefixes.rex.base(rm)), None),
    };
    let displacement = match base {
        Base::None | Base::NextInstruction => reader.signed(Size::Dword)?,
        Base::Register(_) => displacement(mode, Size::Dword, reader)?,
    };
    Ok(Memory {
        segment: prefixes.segment(default_segment(base)),
        base,
        index,
        displacement,
        size: prefixes.address(),
    })
}

/// Reads the SIB byte.
fn sib(
    prefixes: &Prefixes,
    mode: u8,
    reader: &mut Reader<'_>,
) -> Result<(Base, Option<Index>), DecodeError> {
    let byte = reader.byte()?;
    let base = match byte & 7 {
        RBP if mode == 0 => Base::None,
        low => Base::Register(prefixes.rex.base(low)),
    };
    // Only RSP itself cannot be an index: R12 can.
    let index = match prefixes.rex.index((byte >> 3) & 7) {
        RSP => None,
        register => Some(Index {
            register,
            scale: byte >> 6,
        }),
    };
    Ok((base, index))
}
