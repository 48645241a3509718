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
    let (prefixes, first) = Prefixes::read(mode, &mut reader)?;
    let entry = opcode::lookup(&prefixes, first, &mut reader)?;
    let size = entry.width.size(&prefixes);
    let operation = match entry.operation {
        // movsxd from 4 bytes to 2 reads 2 only.
        Operation::Extend { from, signed } if from == Size::Dword && size == Size::Word => {
            Operation::Extend { from: size, signed }
        }
        operation => operation,
    };
    let (destination, source) = operands(&prefixes, entry, operation, size, &mut reader)?;

    let in_memory = matches!(destination, Operand::Memory(_));
    if prefixes.lock && !(in_memory && operation.lockable()) {
        return Err(DecodeError::Invalid);
    }
    Ok(Instruction {
        length: reader.position(),
        operation,
        size,
        address_size: prefixes.address(),
        destination,
        source,
        lock: prefixes.lock,
        repeat: prefixes.repeat,
    })
}

/// Reads what follows the opcode and returns destination and source.
fn operands(
    prefixes: &Prefixes,
    entry: Entry,
    operation: Operation,
    size: Size,
    reader: &mut Reader<'_>,
) -> Result<(Operand, Operand), DecodeError> {
    let accumulator = Operand::Register(Register::low(RAX));
    let dx = Operand::Register(Register::low(RDX));
    match entry.form {
        Form::RmReg | Form::RegRm | Form::MemReg | Form::RegMem => {
            let (reg, rm) = reg_and_rm(prefixes, operation, size, reader)?;
            match (entry.form, rm) {
                (Form::MemReg | Form::RegMem, Operand::Register(_)) => Err(DecodeError::Invalid),
                (Form::RmReg | Form::MemReg, _) => Ok((rm, reg)),
                _ => Ok((reg, rm)),
            }
        }
        Form::RmImm => {
            let rm = ModRm::read(prefixes, size, reader)?.rm;
            Ok((rm, immediate(size, reader)?))
        }
        Form::RmImm8 => {
            let rm = ModRm::read(prefixes, size, reader)?.rm;
            Ok((rm, immediate(Size::Byte, reader)?))
        }
        Form::Rm => Ok((ModRm::read(prefixes, size, reader)?.rm, Operand::None)),
        Form::Mem => match ModRm::read(prefixes, size, reader)?.rm {
            Operand::Register(_) => Err(DecodeError::Invalid),
            memory => Ok((memory, Operand::None)),
        },
        Form::RmSource => Ok((Operand::None, ModRm::read(prefixes, size, reader)?.rm)),
        Form::AccImm => Ok((accumulator, immediate(size, reader)?)),
        Form::AccOffset => Ok((accumulator, absolute(prefixes, reader)?)),
        Form::OffsetAcc => Ok((absolute(prefixes, reader)?, accumulator)),
        Form::AccPort => Ok((accumulator, port(reader)?)),
        Form::PortAcc => Ok((port(reader)?, accumulator)),
        Form::AccDx => Ok((accumulator, dx)),
        Form::DxAcc => Ok((dx, accumulator)),
        Form::String(operation) => Ok(element(prefixes, operation)),
    }
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

/// Reads an immediate operand for an instruction of `size`. None has more than 4 bytes.
fn immediate(size: Size, reader: &mut Reader<'_>) -> Result<Operand, DecodeError> {
    let size = match size {
        Size::Qword => Size::Dword,
        size => size,
    };
    Ok(Operand::Immediate(reader.signed(size)?))
}

/// Reads a port number.
fn port(reader: &mut Reader<'_>) -> Result<Operand, DecodeError> {
    Ok(Operand::Immediate(reader.unsigned(Size::Byte)?))
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
