// SPDX-License-Identifier: GPL-2.0

//! From bytes to an [`Instruction`].

use super::{
    bus::{
        Mode,
        Segment, //
    },
    instruction::{
        Instruction,
        Operation, //
    },
    modrm::ModRm,
    opcode::{
        self,
        Entry,
        Form, //
    },
    operand::{
        Base,
        Memory,
        Operand,
        Register,
        Size,
        RAX,
        RBX,
        RCX,
        RDI,
        RDX,
        RSI, //
    },
    prefix::{
        Prefixes,
        Reader, //
    },
    string::StringOperation, //
};

/// Why bytes are not an instruction to execute.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum DecodeError {
    /// The instruction goes on after the last byte given.
    Truncated,
    /// The instruction is none of those emulated.
    Unsupported,
    /// The CPU has no such instruction: it would raise #UD.
    Invalid,
    /// The instruction is longer than 15 bytes: the CPU would raise #GP.
    TooLong,
}

/// Decodes the instruction at the start of `bytes`, as code of `mode`.
///
/// No more than 15 bytes are read. Fewer can be given if the rest could not be fetched: the result
/// is [`DecodeError::Truncated`] only if the instruction needs them.
pub(crate) fn decode(mode: Mode, bytes: &[u8]) -> Result<Instruction, DecodeError> {
    let mut reader = Reader::new(bytes);
    let (mut prefixes, first) = Prefixes::read(mode, &mut reader)?;
    let entry = opcode::lookup(&mut prefixes, first, &mut reader)?;
    let size = entry.width.size(&prefixes);
    let operation = match entry.operation {
        // movsxd from 4 bytes to 2 reads 2 only.
        Operation::Extend { from, signed } if from == Size::Dword && size == Size::Word => {
            Operation::Extend { from: size, signed }
        }
        operation => operation,
    };
    let operands = operands(&prefixes, entry, operation, size, &mut reader)?;

    let in_memory = matches!(operands.destination, Operand::Memory(_));
    if prefixes.lock && !(in_memory && operation.lockable()) {
        return Err(DecodeError::Invalid);
    }
    Ok(Instruction {
        length: reader.position(),
        operation,
        size,
        address_size: prefixes.address(),
        destination: operands.destination,
        source: operands.source,
        immediate: operands.immediate,
        lock: prefixes.lock,
        repeat: prefixes.repeat,
    })
}

/// The operands of an instruction.
struct Operands {
    destination: Operand,
    source: Operand,
    immediate: Option<u64>,
}

impl Operands {
    /// Returns two operands.
    const fn two(destination: Operand, source: Operand) -> Self {
        Self {
            destination,
            source,
            immediate: None,
        }
    }

    /// Returns a destination alone.
    const fn destination(destination: Operand) -> Self {
        Self::two(destination, Operand::None)
    }

    /// Returns a source alone.
    const fn source(source: Operand) -> Self {
        Self::two(Operand::None, source)
    }

    /// Returns the operands with a third one.
    const fn and(self, immediate: u64) -> Self {
        Self {
            immediate: Some(immediate),
            ..self
        }
    }
}

/// Reads what follows the opcode and returns the operands.
fn operands(
    prefixes: &Prefixes,
    entry: Entry,
    operation: Operation,
    size: Size,
    reader: &mut Reader<'_>,
) -> Result<Operands, DecodeError> {
    let accumulator = Operand::Register(Register::low(RAX));
    let dx = Operand::Register(Register::low(RDX));
    let embedded = |low| {
        let number = prefixes.rex.base(low);
        Operand::Register(Register::encoded(number, size, prefixes.rex.present()))
    };
    Ok(match entry.form {
        Form::Nothing => Operands::source(Operand::None),
        Form::ModRmOnly => {
            reader.byte()?;
            Operands::source(Operand::None)
        }
        Form::RmReg | Form::MemReg | Form::RmRegImm8 => {
            let (reg, rm) = reg_and_rm(prefixes, operation, size, reader)?;
            let operands = Operands::two(rm, reg);
            match entry.form {
                Form::MemReg => in_memory(rm).map(|_| operands)?,
                Form::RmRegImm8 => operands.and(reader.signed(Size::Byte)?),
                _ => operands,
            }
        }
        Form::RegRm | Form::RegMem | Form::RegRmImm | Form::RegRmImm8 => {
            let (reg, rm) = reg_and_rm(prefixes, operation, size, reader)?;
            let operands = Operands::two(reg, rm);
            match entry.form {
                Form::RegMem => in_memory(rm).map(|_| operands)?,
                Form::RegRmImm => operands.and(number(size, reader)?),
                Form::RegRmImm8 => operands.and(reader.signed(Size::Byte)?),
                _ => operands,
            }
        }
        Form::RmImm => {
            let rm = ModRm::read(prefixes, size, reader)?.rm;
            Operands::two(rm, immediate(size, reader)?)
        }
        Form::RmImm8 => {
            let rm = ModRm::read(prefixes, size, reader)?.rm;
            Operands::two(rm, immediate(Size::Byte, reader)?)
        }
        Form::RmOne => Operands::two(
            ModRm::read(prefixes, size, reader)?.rm,
            Operand::Immediate(1),
        ),
        Form::RmCl => Operands::two(
            ModRm::read(prefixes, size, reader)?.rm,
            Operand::Register(Register::low(RCX)),
        ),
        Form::Rm => Operands::destination(ModRm::read(prefixes, size, reader)?.rm),
        Form::Mem => Operands::destination(in_memory(ModRm::read(prefixes, size, reader)?.rm)?),
        Form::RmSource => Operands::source(ModRm::read(prefixes, size, reader)?.rm),
        Form::MemSource => Operands::source(in_memory(ModRm::read(prefixes, size, reader)?.rm)?),
        Form::Register(low) => Operands::destination(embedded(low)),
        Form::RegisterSource(low) => Operands::source(embedded(low)),
        Form::RegisterImm(low) => {
            let value = Operand::Immediate(reader.signed(size)?);
            Operands::two(embedded(low), value)
        }
        Form::RegisterAcc(low) => Operands::two(embedded(low), accumulator),
        Form::AccImm => Operands::two(accumulator, immediate(size, reader)?),
        Form::AccOffset => Operands::two(accumulator, absolute(prefixes, reader)?),
        Form::OffsetAcc => Operands::two(absolute(prefixes, reader)?, accumulator),
        Form::AccPort => Operands::two(accumulator, unsigned(Size::Byte, reader)?),
        Form::PortAcc => Operands::two(unsigned(Size::Byte, reader)?, accumulator),
        Form::AccDx => Operands::two(accumulator, dx),
        Form::DxAcc => Operands::two(dx, accumulator),
        Form::Imm => Operands::source(immediate(size, reader)?),
        Form::Imm8 => Operands::source(immediate(Size::Byte, reader)?),
        Form::Imm16 => Operands::source(unsigned(Size::Word, reader)?),
        Form::Imm16Imm8 => {
            let bytes = unsigned(Size::Word, reader)?;
            Operands::source(bytes).and(reader.unsigned(Size::Byte)?)
        }
        Form::Imm8Only => Operands::source(Operand::None).and(reader.unsigned(Size::Byte)?),
        Form::Relative => Operands::source(Operand::Relative(number(size, reader)?)),
        Form::Relative8 => Operands::source(Operand::Relative(reader.signed(Size::Byte)?)),
        Form::FarPointer => {
            let offset = reader.unsigned(size)?;
            // CAST: a number of two bytes.
            let selector = reader.unsigned(Size::Word)? as u16;
            Operands::source(Operand::Far { selector, offset })
        }
        Form::SegmentRm | Form::RmSegment => segment_and_rm(prefixes, entry.form, size, reader)?,
        Form::Segment(name) => Operands::destination(Operand::Segment(name)),
        Form::SegmentSource(name) => Operands::source(Operand::Segment(name)),
        Form::ControlReg | Form::RegControl | Form::DebugReg | Form::RegDebug => {
            system_register(prefixes, entry.form, reader)?
        }
        Form::VectorRm | Form::RmVector | Form::VectorMem | Form::MemVector => {
            vectors(prefixes, entry.form, reader)?
        }
        Form::Table => {
            let segment = prefixes.segment(Segment::Ds);
            let memory = Memory::at(segment, RBX, prefixes.address());
            Operands::source(Operand::Memory(memory))
        }
        Form::String(operation) => {
            let (destination, source) = element(prefixes, operation);
            Operands::two(destination, source)
        }
    })
}

/// Returns `operand` if it is in memory, where the instruction has no other.
fn in_memory(operand: Operand) -> Result<Operand, DecodeError> {
    match operand {
        Operand::Memory(_) => Ok(operand),
        _ => Err(DecodeError::Invalid),
    }
}

/// Reads ModRM and returns the segment register in ModRM.reg, and ModRM.rm, in the order of `form`.
fn segment_and_rm(
    prefixes: &Prefixes,
    form: Form,
    size: Size,
    reader: &mut Reader<'_>,
) -> Result<Operands, DecodeError> {
    let modrm = ModRm::read(prefixes, size, reader)?;
    // REX.R does not count.
    let segment = match modrm.reg & 7 {
        0 => Segment::Es,
        1 => Segment::Cs,
        2 => Segment::Ss,
        3 => Segment::Ds,
        4 => Segment::Fs,
        5 => Segment::Gs,
        _ => return Err(DecodeError::Invalid),
    };
    let load = matches!(form, Form::SegmentRm);
    match (load, segment) {
        (true, Segment::Cs) => Err(DecodeError::Invalid),
        (true, _) => Ok(Operands::two(Operand::Segment(segment), modrm.rm)),
        _ => Ok(Operands::two(modrm.rm, Operand::Segment(segment))),
    }
}

/// Reads ModRM and returns the control or debug register and the general one.
fn system_register(
    prefixes: &Prefixes,
    form: Form,
    reader: &mut Reader<'_>,
) -> Result<Operands, DecodeError> {
    let (number, register) = ModRm::read_registers(prefixes, reader)?;
    let general = Operand::Register(Register::low(register));
    let system = match (form, number) {
        (Form::ControlReg | Form::RegControl, 0 | 2 | 3 | 4 | 8) => Operand::Control(number),
        (Form::DebugReg | Form::RegDebug, 0..=7) => Operand::Debug(number),
        _ => return Err(DecodeError::Invalid),
    };
    Ok(match form {
        Form::ControlReg | Form::DebugReg => Operands::two(system, general),
        _ => Operands::two(general, system),
    })
}

/// Reads ModRM and returns the vector registers in it, or one and memory.
fn vectors(
    prefixes: &Prefixes,
    form: Form,
    reader: &mut Reader<'_>,
) -> Result<Operands, DecodeError> {
    let modrm = ModRm::read(prefixes, Size::Qword, reader)?;
    let rm = match modrm.rm {
        Operand::Register(register) => Operand::Vector(register.index),
        rm => rm,
    };
    let reg = Operand::Vector(modrm.reg);
    if let Form::VectorMem | Form::MemVector = form {
        in_memory(rm)?;
    }
    Ok(match form {
        Form::VectorRm | Form::VectorMem => Operands::two(reg, rm),
        _ => Operands::two(rm, reg),
    })
}

/// Reads ModRM and returns the operands ModRM.reg and ModRM.rm.
fn reg_and_rm(
    prefixes: &Prefixes,
    operation: Operation,
    size: Size,
    reader: &mut Reader<'_>,
) -> Result<(Operand, Operand), DecodeError> {
    let rm_size = match operation {
        Operation::Extend { from, .. } => from,
        _ => size,
    };
    let modrm = ModRm::read(prefixes, rm_size, reader)?;
    let reg = Register::encoded(modrm.reg, size, prefixes.rex.present());
    Ok((Operand::Register(reg), modrm.rm))
}

/// Reads a number for an instruction of `size`, sign-extended. None has more than 4 bytes.
fn number(size: Size, reader: &mut Reader<'_>) -> Result<u64, DecodeError> {
    reader.signed(match size {
        Size::Qword => Size::Dword,
        size => size,
    })
}

/// Reads an immediate operand for an instruction of `size`.
fn immediate(size: Size, reader: &mut Reader<'_>) -> Result<Operand, DecodeError> {
    Ok(Operand::Immediate(number(size, reader)?))
}

/// Reads an immediate operand of `size` that has no sign.
fn unsigned(size: Size, reader: &mut Reader<'_>) -> Result<Operand, DecodeError> {
    Ok(Operand::Immediate(reader.unsigned(size)?))
}

/// Reads an offset of the address size, and returns the memory there.
fn absolute(prefixes: &Prefixes, reader: &mut Reader<'_>) -> Result<Operand, DecodeError> {
    let size = prefixes.address();
    Ok(Operand::Memory(Memory {
        segment: prefixes.segment(Segment::Ds),
        base: Base::None,
        index: None,
        displacement: reader.unsigned(size)?,
        size,
    }))
}

/// Returns the operands of a string instruction, as of the element it is at.
fn element(prefixes: &Prefixes, operation: StringOperation) -> (Operand, Operand) {
    let size = prefixes.address();
    let from = Operand::Memory(Memory::at(prefixes.segment(Segment::Ds), RSI, size));
    let to = Operand::Memory(Memory::at(Segment::Es, RDI, size));
    let accumulator = Operand::Register(Register::low(RAX));
    let dx = Operand::Register(Register::low(RDX));
    match operation {
        StringOperation::Move => (to, from),
        StringOperation::Compare => (from, to),
        StringOperation::Store => (to, accumulator),
        StringOperation::Load => (accumulator, from),
        StringOperation::Scan => (accumulator, to),
        StringOperation::Input => (to, dx),
        StringOperation::Output => (dx, from),
    }
}
