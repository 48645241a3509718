// SPDX-License-Identifier: GPL-2.0

//! What `iced-x86` says of an instruction, in the terms of the emulator.

use iced_x86::{
    Code,
    Mnemonic,
    OpKind,
    Register as IcedRegister, //
};

use super::super::{
    alu::{
        Binary,
        Unary, //
    },
    bits::BitOperation,
    bus::{
        Mode,
        Segment, //
    },
    instruction::{
        Instruction,
        Operation,
        Repeat, //
    },
    operand::{
        Operand,
        Register,
        Size, //
    },
    string::StringOperation, //
};

/// Returns the bits of code in `mode`, as `iced-x86` counts modes.
pub(super) fn bitness(mode: Mode) -> u32 {
    match mode {
        Mode::Real | Mode::Virtual8086 | Mode::Protected16 => 16,
        Mode::Protected32 => 32,
        Mode::Long64 => 64,
    }
}

/// Returns the operation of an instruction, or `None` if the emulator does not claim to have it.
pub(super) fn operation(reference: &iced_x86::Instruction) -> Option<Operation> {
    if encoded_without_modrm(reference.code()) {
        return None;
    }
    if let Some(operation) = string_operation(reference.code()) {
        return Some(Operation::String(operation));
    }
    Some(match reference.mnemonic() {
        Mnemonic::Mov | Mnemonic::Movnti => Operation::Move,
        Mnemonic::Movbe => Operation::MoveSwapped,
        Mnemonic::Movzx => extend(reference, false),
        Mnemonic::Movsx | Mnemonic::Movsxd => extend(reference, true),
        Mnemonic::Add => Operation::Binary(Binary::Add),
        Mnemonic::Or => Operation::Binary(Binary::Or),
        Mnemonic::Adc => Operation::Binary(Binary::Adc),
        Mnemonic::Sbb => Operation::Binary(Binary::Sbb),
        Mnemonic::And => Operation::Binary(Binary::And),
        Mnemonic::Sub => Operation::Binary(Binary::Sub),
        Mnemonic::Xor => Operation::Binary(Binary::Xor),
        Mnemonic::Cmp => Operation::Binary(Binary::Compare),
        Mnemonic::Test => Operation::Binary(Binary::Test),
        Mnemonic::Inc => Operation::Unary(Unary::Increment),
        Mnemonic::Dec => Operation::Unary(Unary::Decrement),
        Mnemonic::Not => Operation::Unary(Unary::Not),
        Mnemonic::Neg => Operation::Unary(Unary::Negate),
        Mnemonic::Xchg => Operation::Exchange,
        Mnemonic::Xadd => Operation::ExchangeAdd,
        Mnemonic::Cmpxchg => Operation::CompareExchange,
        Mnemonic::Cmpxchg8b | Mnemonic::Cmpxchg16b => Operation::CompareExchangePair,
        Mnemonic::Bt => Operation::Bit(BitOperation::Test),
        Mnemonic::Bts => Operation::Bit(BitOperation::Set),
        Mnemonic::Btr => Operation::Bit(BitOperation::Reset),
        Mnemonic::Btc => Operation::Bit(BitOperation::Complement),
        Mnemonic::Push => Operation::Push,
        Mnemonic::Pop => Operation::Pop,
        Mnemonic::Call => Operation::Call,
        Mnemonic::Jmp => Operation::Jump,
        Mnemonic::In => Operation::In,
        Mnemonic::Out => Operation::Out,
        _ => return None,
    })
}

/// Returns an extension from the size that the source has.
fn extend(reference: &iced_x86::Instruction, signed: bool) -> Operation {
    let bytes = match reference.op1_kind() {
        OpKind::Register => reference.op1_register().size(),
        _ => reference.memory_size().size(),
    };
    let from = size(bytes);
    Operation::Extend { from, signed }
}

/// Returns the size that has `bytes`.
fn size(bytes: usize) -> Size {
    match bytes {
        1 => Size::Byte,
        2 => Size::Word,
        4 => Size::Dword,
        8 => Size::Qword,
        _ => panic!("a size of {bytes} bytes"),
    }
}

/// Returns whether this is a form of an emulated instruction that is not emulated: those that
/// never have an operand in memory, far branches, and those of system registers.
fn encoded_without_modrm(code: Code) -> bool {
    use Code::*;
    matches!(
        code,
        Mov_r8_imm8
            | Mov_r16_imm16
            | Mov_r32_imm32
            | Mov_r64_imm64
            | Mov_rm16_Sreg
            | Mov_r32m16_Sreg
            | Mov_r64m16_Sreg
            | Mov_Sreg_rm16
            | Mov_Sreg_r32m16
            | Mov_Sreg_r64m16
            | Mov_r32_cr
            | Mov_r64_cr
            | Mov_r32_dr
            | Mov_r64_dr
            | Mov_r32_tr
            | Mov_cr_r32
            | Mov_cr_r64
            | Mov_dr_r32
            | Mov_dr_r64
            | Mov_tr_r32
            | Inc_r16
            | Inc_r32
            | Dec_r16
            | Dec_r32
            | Xchg_r16_AX
            | Xchg_r32_EAX
            | Xchg_r64_RAX
            | Push_r16
            | Push_r32
            | Push_r64
            | Push_imm16
            | Pushd_imm32
            | Pushq_imm32
            | Pushw_imm8
            | Pushd_imm8
            | Pushq_imm8
            | Pushw_ES
            | Pushd_ES
            | Pushw_CS
            | Pushd_CS
            | Pushw_SS
            | Pushd_SS
            | Pushw_DS
            | Pushd_DS
            | Pushw_FS
            | Pushd_FS
            | Pushq_FS
            | Pushw_GS
            | Pushd_GS
            | Pushq_GS
            | Pop_r16
            | Pop_r32
            | Pop_r64
            | Popw_ES
            | Popd_ES
            | Popw_CS
            | Popw_SS
            | Popd_SS
            | Popw_DS
            | Popd_DS
            | Popw_FS
            | Popd_FS
            | Popq_FS
            | Popw_GS
            | Popd_GS
            | Popq_GS
            | Call_ptr1616
            | Call_ptr1632
            | Call_rel16
            | Call_rel32_32
            | Call_rel32_64
            | Call_m1616
            | Call_m1632
            | Call_m1664
            | Jmp_ptr1616
            | Jmp_ptr1632
            | Jmp_rel16
            | Jmp_rel32_32
            | Jmp_rel32_64
            | Jmp_rel8_16
            | Jmp_rel8_32
            | Jmp_rel8_64
            | Jmp_m1616
            | Jmp_m1632
            | Jmp_m1664
    )
}

/// Returns the string operation of an instruction that is one.
fn string_operation(code: Code) -> Option<StringOperation> {
    use Code::*;
    Some(match code {
        Movsb_m8_m8 | Movsw_m16_m16 | Movsd_m32_m32 | Movsq_m64_m64 => StringOperation::Move,
        Cmpsb_m8_m8 | Cmpsw_m16_m16 | Cmpsd_m32_m32 | Cmpsq_m64_m64 => StringOperation::Compare,
        Stosb_m8_AL | Stosw_m16_AX | Stosd_m32_EAX | Stosq_m64_RAX => StringOperation::Store,
        Lodsb_AL_m8 | Lodsw_AX_m16 | Lodsd_EAX_m32 | Lodsq_RAX_m64 => StringOperation::Load,
        Scasb_AL_m8 | Scasw_AX_m16 | Scasd_EAX_m32 | Scasq_RAX_m64 => StringOperation::Scan,
        Insb_m8_DX | Insw_m16_DX | Insd_m32_DX => StringOperation::Input,
        Outsb_DX_m8 | Outsw_DX_m16 | Outsd_DX_m32 => StringOperation::Output,
        _ => return None,
    })
}

/// Values of registers at the start of an instruction.
pub(super) struct Registers {
    pub(super) gpr: [u64; 16],
    pub(super) next_rip: u64,
}

/// Returns how `instruction` differs from `reference`, which is one that it claims to have.
pub(super) fn difference(
    mode: Mode,
    instruction: &Instruction,
    reference: &iced_x86::Instruction,
    registers: &Registers,
) -> Option<String> {
    let operation = operation(reference);
    if operation != Some(instruction.operation) {
        return Some(format!("the operation is {operation:?}"));
    }
    if usize::from(instruction.length) != reference.len() {
        return Some(format!("the length is {}", reference.len()));
    }
    if instruction.lock != reference.has_lock_prefix() {
        return Some("the LOCK prefix differs".into());
    }
    if let Operation::String(_) = instruction.operation {
        let repeat = match (reference.has_repe_prefix(), reference.has_repne_prefix()) {
            (false, false) => None,
            (true, false) => Some(Repeat::WhileEqual),
            (false, true) => Some(Repeat::WhileNotEqual),
            _ => return Some("there are both repeat prefixes".into()),
        };
        if instruction.repeat != repeat {
            return Some(format!("the repeat prefix is {repeat:?}"));
        }
    }
    let both = [instruction.destination, instruction.source];
    let operands = both.iter().filter(|operand| **operand != Operand::None);
    if operands.clone().count() != reference.op_count() as usize {
        return Some(format!("there are {} operands", reference.op_count()));
    }
    operands.zip(0..).find_map(|(operand, number)| {
        let size = operand_size(instruction, operand);
        let difference = match operand {
            Operand::Register(register) => register_difference(*register, size, reference, number),
            Operand::Immediate(value) => immediate_difference(*value, size, reference, number),
            Operand::Memory(memory) => {
                let offset = memory.offset(registers.next_rip, |index| {
                    registers.gpr[usize::from(index)]
                });
                segment_difference(mode, memory.segment, reference, number)
                    .or_else(|| offset_difference(offset, registers, reference, number))
                    .or_else(|| memory_size_difference(instruction, size, reference))
            }
            Operand::None => None,
        };
        difference.map(|text| format!("operand {number}: {text}"))
    })
}

/// Returns the size of an operand, which is most often the operand size.
fn operand_size(instruction: &Instruction, operand: &Operand) -> Size {
    let is_source = *operand == instruction.source;
    let is_destination = *operand == instruction.destination;
    match instruction.operation {
        Operation::Extend { from, .. } if is_source && !is_destination => from,
        // The same register, as source and as destination.
        Operation::Extend { .. } => instruction.size,
        Operation::In | Operation::String(StringOperation::Input) if is_source => Size::Word,
        Operation::Out | Operation::String(StringOperation::Output) if is_destination => Size::Word,
        _ => instruction.size,
    }
}

/// Compares a register.
fn register_difference(
    register: Register,
    size: Size,
    reference: &iced_x86::Instruction,
    number: u32,
) -> Option<String> {
    if reference.op_kind(number) != OpKind::Register {
        return Some("is no register".into());
    }
    let expected = reference.op_register(number);
    let high = matches!(
        expected,
        IcedRegister::AH | IcedRegister::CH | IcedRegister::DH | IcedRegister::BH
    );
    let index = expected.full_register().number();
    let is_extended = matches!(
        reference.mnemonic(),
        Mnemonic::Movzx | Mnemonic::Movsx | Mnemonic::Movsxd
    );
    let same = register.high == high
        && usize::from(register.index) == index
        // The operands of an extension may be the same register with two sizes.
        && (usize::from(size.bytes()) == expected.size() || is_extended);
    (!same).then(|| format!("is {expected:?}"))
}

/// Compares an immediate.
fn immediate_difference(
    value: u64,
    size: Size,
    reference: &iced_x86::Instruction,
    number: u32,
) -> Option<String> {
    let Ok(expected) = reference.try_immediate(number) else {
        return Some("is no immediate".into());
    };
    let mask = match reference.op_kind(number) {
        // A bit number or a port.
        OpKind::Immediate8 => Size::Byte.mask(),
        _ => size.mask(),
    };
    (value & mask != expected & mask).then(|| format!("is {expected:#x}"))
}

/// Compares the segment of a memory operand.
fn segment_difference(
    mode: Mode,
    segment: Segment,
    reference: &iced_x86::Instruction,
    number: u32,
) -> Option<String> {
    let expected = match reference.op_kind(number) {
        OpKind::MemoryESDI | OpKind::MemoryESEDI | OpKind::MemoryESRDI => IcedRegister::ES,
        _ => reference.memory_segment(),
    };
    let same = match expected {
        IcedRegister::FS => segment == Segment::Fs,
        IcedRegister::GS => segment == Segment::Gs,
        // The others are one in 64-bit mode.
        _ if mode == Mode::Long64 => !matches!(segment, Segment::Fs | Segment::Gs),
        IcedRegister::ES => segment == Segment::Es,
        IcedRegister::CS => segment == Segment::Cs,
        IcedRegister::SS => segment == Segment::Ss,
        _ => segment == Segment::Ds,
    };
    (!same).then(|| format!("is in {expected:?}"))
}

/// Compares the offset of a memory operand, computed from the same registers.
fn offset_difference(
    offset: u64,
    registers: &Registers,
    reference: &iced_x86::Instruction,
    number: u32,
) -> Option<String> {
    let expected = reference.virtual_address(number, 0, |register, _, _| {
        if register.is_segment_register() {
            return Some(0);
        }
        let value = registers.gpr[register.full_register().number()];
        Some(match register.size() {
            2 => value & 0xffff,
            4 => value & 0xffff_ffff,
            _ => value,
        })
    });
    (expected != Some(offset)).then(|| format!("is at {expected:x?}, not at {offset:x}"))
}

/// Compares the bytes that a memory operand has.
fn memory_size_difference(
    instruction: &Instruction,
    size: Size,
    reference: &iced_x86::Instruction,
) -> Option<String> {
    let bytes = match instruction.operation {
        Operation::CompareExchangePair => usize::from(size.bytes()) * 2,
        _ => usize::from(size.bytes()),
    };
    let expected = reference.memory_size().size();
    (bytes != expected).then(|| format!("has {expected} bytes"))
}
