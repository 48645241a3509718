// SPDX-License-Identifier: GPL-2.0

//! What an opcode is: an operation, where its operands are, and how wide they are.

use super::{
    bus::Segment,
    decode::DecodeError,
    instruction::Operation,
    one_byte,
    operand::Size,
    prefix::{
        Prefixes,
        Reader, //
    },
    string::StringOperation,
    two_byte,
    vex, //
};

/// Where the operands of an instruction are, destination first.
#[derive(Clone, Copy)]
pub(super) enum Form {
    /// Nowhere, or always in the same registers.
    Nothing,
    /// Nowhere, but there is a ModRM byte.
    ModRmOnly,
    /// ModRM.rm and ModRM.reg.
    RmReg,
    /// ModRM.reg and ModRM.rm.
    RegRm,
    /// ModRM.rm, in memory only, and ModRM.reg.
    MemReg,
    /// ModRM.reg and ModRM.rm, in memory only.
    RegMem,
    /// ModRM.rm, ModRM.reg and a byte.
    RmRegImm8,
    /// ModRM.reg, ModRM.rm, and an immediate as for `RmImm`.
    RegRmImm,
    /// ModRM.reg, ModRM.rm and a sign-extended byte.
    RegRmImm8,
    /// ModRM.rm, and an immediate of the operand size but at most 4 bytes.
    RmImm,
    /// ModRM.rm and a sign-extended byte.
    RmImm8,
    /// ModRM.rm and the number 1.
    RmOne,
    /// ModRM.rm and CL.
    RmCl,
    /// ModRM.rm is the destination.
    Rm,
    /// ModRM.rm, in memory only, is the destination.
    Mem,
    /// ModRM.rm is the source.
    RmSource,
    /// ModRM.rm, in memory only, is the source.
    MemSource,
    /// The register in these low bits of the opcode is the destination.
    Register(u8),
    /// The register in these low bits of the opcode is the source.
    RegisterSource(u8),
    /// The register in these low bits of the opcode, and an immediate of the operand size.
    RegisterImm(u8),
    /// The register in these low bits of the opcode, and the accumulator.
    RegisterAcc(u8),
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
    /// An immediate, as for `RmImm`, is the source.
    Imm,
    /// A sign-extended byte is the source.
    Imm8,
    /// Two bytes are the source.
    Imm16,
    /// Two bytes are the source, and a byte follows.
    Imm16Imm8,
    /// A byte that is no source.
    Imm8Only,
    /// A distance as large as the operand size but at most 4 bytes is the source.
    Relative,
    /// A distance of a byte is the source.
    Relative8,
    /// An offset of the operand size and a selector, in the instruction, are the source.
    FarPointer,
    /// The segment register in ModRM.reg, and ModRM.rm.
    SegmentRm,
    /// ModRM.rm, and the segment register in ModRM.reg.
    RmSegment,
    /// This segment register is the destination.
    Segment(Segment),
    /// This segment register is the source.
    SegmentSource(Segment),
    /// The control register in ModRM.reg, and the general one in ModRM.rm.
    ControlReg,
    /// The general register in ModRM.rm, and the control register in ModRM.reg.
    RegControl,
    /// The debug register in ModRM.reg, and the general one in ModRM.rm.
    DebugReg,
    /// The general register in ModRM.rm, and the debug register in ModRM.reg.
    RegDebug,
    /// The vector register in ModRM.reg, and that in ModRM.rm or memory.
    VectorRm,
    /// The vector register in ModRM.rm or memory, and that in ModRM.reg.
    RmVector,
    /// The vector register in ModRM.reg, and ModRM.rm, in memory only.
    VectorMem,
    /// ModRM.rm, in memory only, and the vector register in ModRM.reg.
    MemVector,
    /// What rBX points at, AL bytes further, is the source.
    Table,
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
    /// 4 bytes, or 8 in 64-bit mode.
    Native,
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
            Self::Native if prefixes.long64() => Size::Qword,
            Self::Native => Size::Dword,
        }
    }

    /// Returns the byte rule if the low bit of `opcode` is 0, as most opcodes have it, else `full`.
    pub(super) const fn by_low_bit(opcode: u8, full: Self) -> Self {
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
pub(super) const fn entry(
    operation: Operation,
    form: Form,
    width: Width,
) -> Result<Entry, DecodeError> {
    Ok(Entry {
        operation,
        form,
        width,
    })
}

/// Returns the entry of an instruction without operands.
pub(super) const fn plain(operation: Operation) -> Result<Entry, DecodeError> {
    entry(operation, Form::Nothing, Width::Full)
}

/// Reads the rest of the opcode that starts with `first` and returns its entry.
///
/// A VEX prefix is part of the opcode, and makes `prefixes` what it says.
pub(super) fn lookup(
    prefixes: &mut Prefixes,
    first: u8,
    reader: &mut Reader<'_>,
) -> Result<Entry, DecodeError> {
    match first {
        0x0f => match reader.byte()? {
            0x38 => two_byte::lookup_38(prefixes, reader.byte()?),
            second => two_byte::lookup(prefixes, second, reader),
        },
        // What would be lds and les with a register.
        0xc4 | 0xc5 if prefixes.long64() || reader.peek()? >= 0xc0 => {
            vex::lookup(prefixes, first, reader)
        }
        _ => one_byte::lookup(prefixes, first, reader),
    }
}

/// Returns ModRM.reg, which is part of the opcode in groups.
pub(super) fn group(reader: &Reader<'_>) -> Result<u8, DecodeError> {
    Ok((reader.peek()? >> 3) & 7)
}
