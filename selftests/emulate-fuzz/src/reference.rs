// SPDX-License-Identifier: GPL-2.0

//! What `iced-x86` says of an instruction, in the terms of the emulator.

use iced_x86::{
    Code,
    ConditionCode,
    EncodingKind,
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
    branch::Counted,
    bus::{
        Mode,
        Segment, //
    },
    control::SystemOperation,
    decimal::Decimal,
    flags::FlagOperation,
    instruction::{
        Instruction,
        Operation,
        Repeat, //
    },
    operand::{
        Operand,
        Register,
        Size,
        RCX, //
    },
    shift::Shift,
    string::StringOperation,
    system::{
        SystemSegment,
        Table, //
    },
    vector::VectorMove, //
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
    let code = reference.code();
    if let Some(operation) = string_operation(code) {
        return Some(Operation::String(operation));
    }
    if let Some(operation) = vector_move(reference) {
        return Some(Operation::MoveVector(operation));
    }
    computation(reference)
        .or_else(|| transfer(reference))
        .or_else(|| system(reference.mnemonic()).map(Operation::System))
        .or_else(|| conditional(reference))
}

/// Returns the operation of an instruction that computes.
fn computation(reference: &iced_x86::Instruction) -> Option<Operation> {
    Some(match reference.mnemonic() {
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
        Mnemonic::Rol => Operation::Shift(Shift::RotateLeft),
        Mnemonic::Ror => Operation::Shift(Shift::RotateRight),
        Mnemonic::Rcl => Operation::Shift(Shift::RotateCarryLeft),
        Mnemonic::Rcr => Operation::Shift(Shift::RotateCarryRight),
        Mnemonic::Shl | Mnemonic::Sal => Operation::Shift(Shift::Left),
        Mnemonic::Shr => Operation::Shift(Shift::Right),
        Mnemonic::Sar => Operation::Shift(Shift::ArithmeticRight),
        Mnemonic::Shld => double_shift(reference, false),
        Mnemonic::Shrd => double_shift(reference, true),
        Mnemonic::Mul => Operation::Multiply { signed: false },
        Mnemonic::Imul if reference.op_count() == 1 => Operation::Multiply { signed: true },
        Mnemonic::Imul => Operation::MultiplyInto,
        Mnemonic::Div => Operation::Divide { signed: false },
        Mnemonic::Idiv => Operation::Divide { signed: true },
        Mnemonic::Bsf => Operation::BitScan { reverse: false },
        Mnemonic::Bsr => Operation::BitScan { reverse: true },
        Mnemonic::Bt => Operation::Bit(BitOperation::Test),
        Mnemonic::Bts => Operation::Bit(BitOperation::Set),
        Mnemonic::Btr => Operation::Bit(BitOperation::Reset),
        Mnemonic::Btc => Operation::Bit(BitOperation::Complement),
        Mnemonic::Bswap => Operation::SwapBytes,
        Mnemonic::Daa => Operation::Decimal(Decimal::AfterAdd),
        Mnemonic::Das => Operation::Decimal(Decimal::AfterSubtract),
        Mnemonic::Aaa => Operation::Decimal(Decimal::UnpackedAfterAdd),
        Mnemonic::Aas => Operation::Decimal(Decimal::UnpackedAfterSubtract),
        Mnemonic::Aam => Operation::Decimal(Decimal::AfterMultiply),
        Mnemonic::Aad => Operation::Decimal(Decimal::BeforeDivide),
        Mnemonic::Cbw | Mnemonic::Cwde | Mnemonic::Cdqe => Operation::ExtendAccumulator,
        Mnemonic::Cwd | Mnemonic::Cdq | Mnemonic::Cqo => Operation::SignAccumulator,
        Mnemonic::Salc => Operation::CarryToAl,
        Mnemonic::Cmc => Operation::Flag(FlagOperation::ComplementCarry),
        Mnemonic::Clc => Operation::Flag(FlagOperation::ClearCarry),
        Mnemonic::Stc => Operation::Flag(FlagOperation::SetCarry),
        Mnemonic::Cli => Operation::Flag(FlagOperation::ClearInterrupt),
        Mnemonic::Sti => Operation::Flag(FlagOperation::SetInterrupt),
        Mnemonic::Cld => Operation::Flag(FlagOperation::ClearDirection),
        Mnemonic::Std => Operation::Flag(FlagOperation::SetDirection),
        Mnemonic::Lahf => Operation::LoadAh,
        Mnemonic::Sahf => Operation::StoreAh,
        _ => return None,
    })
}

/// Returns the operation of an instruction that moves data or branches.
fn transfer(reference: &iced_x86::Instruction) -> Option<Operation> {
    let system_operand = (0..reference.op_count()).find_map(|number| {
        let register = reference.op_register(number);
        (reference.op_kind(number) == OpKind::Register && !register.is_gpr()).then_some(register)
    });
    Some(match reference.mnemonic() {
        Mnemonic::Mov => match system_operand {
            None => Operation::Move,
            Some(register) if register.is_segment_register() => {
                if reference.op0_register() == register {
                    Operation::LoadSegment
                } else {
                    Operation::StoreSegment
                }
            }
            Some(register) if register.is_cr() => Operation::System(SystemOperation::MoveControl),
            Some(register) if register.is_dr() => Operation::System(SystemOperation::MoveDebug),
            Some(_) => return None,
        },
        Mnemonic::Push if system_operand.is_some() => Operation::PushSegment,
        Mnemonic::Pop if system_operand.is_some() => Operation::PopSegment,
        Mnemonic::Push => Operation::Push,
        Mnemonic::Pop => Operation::Pop,
        Mnemonic::Movnti => Operation::Move,
        Mnemonic::Movbe => Operation::MoveSwapped,
        Mnemonic::Movzx => extend(reference, false),
        Mnemonic::Movsx | Mnemonic::Movsxd => extend(reference, true),
        Mnemonic::Xchg => Operation::Exchange,
        Mnemonic::Xadd => Operation::ExchangeAdd,
        Mnemonic::Cmpxchg => Operation::CompareExchange,
        Mnemonic::Cmpxchg8b | Mnemonic::Cmpxchg16b => Operation::CompareExchangePair,
        Mnemonic::Reservednop => match reference.code() {
            Code::Reservednop_rm16_r16_0F1F
            | Code::Reservednop_rm32_r32_0F1F
            | Code::Reservednop_rm64_r64_0F1F => Operation::Nothing,
            _ => return None,
        },
        Mnemonic::Nop
        | Mnemonic::Pause
        | Mnemonic::Lfence
        | Mnemonic::Mfence
        | Mnemonic::Sfence => Operation::Nothing,
        Mnemonic::Lea => Operation::LoadAddress,
        Mnemonic::Xlatb => Operation::Translate,
        Mnemonic::Bound => Operation::Bound,
        Mnemonic::Pushf | Mnemonic::Pushfd | Mnemonic::Pushfq => Operation::PushFlags,
        Mnemonic::Popf | Mnemonic::Popfd | Mnemonic::Popfq => Operation::PopFlags,
        Mnemonic::Pusha | Mnemonic::Pushad => Operation::PushAll,
        Mnemonic::Popa | Mnemonic::Popad => Operation::PopAll,
        Mnemonic::Enter => Operation::Enter,
        Mnemonic::Leave => Operation::Leave,
        Mnemonic::Les => Operation::LoadFarPointer(Segment::Es),
        Mnemonic::Lds => Operation::LoadFarPointer(Segment::Ds),
        Mnemonic::Lss => Operation::LoadFarPointer(Segment::Ss),
        Mnemonic::Lfs => Operation::LoadFarPointer(Segment::Fs),
        Mnemonic::Lgs => Operation::LoadFarPointer(Segment::Gs),
        Mnemonic::Call if is_far(reference) => Operation::FarCall,
        Mnemonic::Jmp if is_far(reference) => Operation::FarJump,
        Mnemonic::Call => Operation::Call,
        Mnemonic::Jmp => Operation::Jump,
        Mnemonic::Ret => Operation::Return,
        Mnemonic::Retf => Operation::FarReturn,
        Mnemonic::Iret | Mnemonic::Iretd | Mnemonic::Iretq => Operation::InterruptReturn,
        Mnemonic::Int => Operation::Interrupt,
        Mnemonic::Int3 => Operation::Breakpoint,
        Mnemonic::Into => Operation::Overflow,
        Mnemonic::Loopne => Operation::CountedBranch(Counted::WhileNotEqual),
        Mnemonic::Loope => Operation::CountedBranch(Counted::WhileEqual),
        Mnemonic::Loop => Operation::CountedBranch(Counted::While),
        Mnemonic::Jcxz | Mnemonic::Jecxz | Mnemonic::Jrcxz => {
            Operation::CountedBranch(Counted::IfZero)
        }
        Mnemonic::In => Operation::In,
        Mnemonic::Out => Operation::Out,
        _ => return None,
    })
}

/// Returns the system operation of an instruction that is one.
fn system(mnemonic: Mnemonic) -> Option<SystemOperation> {
    Some(match mnemonic {
        Mnemonic::Lgdt => SystemOperation::LoadTable(Table::Global),
        Mnemonic::Lidt => SystemOperation::LoadTable(Table::Interrupt),
        Mnemonic::Sgdt => SystemOperation::StoreTable(Table::Global),
        Mnemonic::Sidt => SystemOperation::StoreTable(Table::Interrupt),
        Mnemonic::Lldt => SystemOperation::LoadSystemSegment(SystemSegment::Ldt),
        Mnemonic::Ltr => SystemOperation::LoadSystemSegment(SystemSegment::Task),
        Mnemonic::Sldt => SystemOperation::StoreSystemSegment(SystemSegment::Ldt),
        Mnemonic::Str => SystemOperation::StoreSystemSegment(SystemSegment::Task),
        Mnemonic::Lmsw => SystemOperation::LoadMachineStatus,
        Mnemonic::Smsw => SystemOperation::StoreMachineStatus,
        Mnemonic::Clts => SystemOperation::ClearTaskSwitched,
        Mnemonic::Invlpg => SystemOperation::Invalidate,
        Mnemonic::Invd | Mnemonic::Wbinvd | Mnemonic::Wbnoinvd => SystemOperation::Caches,
        Mnemonic::Rdmsr => SystemOperation::ReadMsr,
        Mnemonic::Wrmsr => SystemOperation::WriteMsr,
        Mnemonic::Rdtsc => SystemOperation::ReadTimeStamp,
        Mnemonic::Cpuid => SystemOperation::Identify,
        Mnemonic::Hlt => SystemOperation::Halt,
        _ => return None,
    })
}

/// Returns the operation of an instruction with a condition.
fn conditional(reference: &iced_x86::Instruction) -> Option<Operation> {
    let code = match reference.condition_code() {
        ConditionCode::None => return None,
        ConditionCode::o => 0,
        ConditionCode::no => 1,
        ConditionCode::b => 2,
        ConditionCode::ae => 3,
        ConditionCode::e => 4,
        ConditionCode::ne => 5,
        ConditionCode::be => 6,
        ConditionCode::a => 7,
        ConditionCode::s => 8,
        ConditionCode::ns => 9,
        ConditionCode::p => 10,
        ConditionCode::np => 11,
        ConditionCode::l => 12,
        ConditionCode::ge => 13,
        ConditionCode::le => 14,
        ConditionCode::g => 15,
    };
    match reference.op_count() {
        1 if reference.is_jcc_short_or_near() => Some(Operation::Branch(code)),
        1 => Some(Operation::Set(code)),
        2 => Some(Operation::ConditionalMove(code)),
        _ => None,
    }
}

/// Returns whether a branch is a far one.
fn is_far(reference: &iced_x86::Instruction) -> bool {
    let code = reference.code();
    code.is_jmp_far()
        || code.is_call_far()
        || code.is_jmp_far_indirect()
        || code.is_call_far_indirect()
}

/// Returns a shift of two operands.
fn double_shift(reference: &iced_x86::Instruction, right: bool) -> Operation {
    let by_cl = reference.op2_kind() == OpKind::Register;
    Operation::DoubleShift { right, by_cl }
}

/// Returns the vector move of an instruction that is one.
fn vector_move(reference: &iced_x86::Instruction) -> Option<VectorMove> {
    let vex = match reference.code().encoding() {
        EncodingKind::Legacy => false,
        EncodingKind::VEX => true,
        _ => return None,
    };
    let registers = [reference.op0_register(), reference.op1_register()];
    let wide = registers.iter().any(|register| register.is_ymm());
    if !wide && !registers.iter().any(|register| register.is_xmm()) {
        return None;
    }
    let aligned = match reference.mnemonic() {
        Mnemonic::Movups | Mnemonic::Movupd | Mnemonic::Movdqu => false,
        Mnemonic::Vmovups | Mnemonic::Vmovupd | Mnemonic::Vmovdqu => false,
        Mnemonic::Movaps | Mnemonic::Movapd | Mnemonic::Movdqa => true,
        Mnemonic::Vmovaps | Mnemonic::Vmovapd | Mnemonic::Vmovdqa => true,
        Mnemonic::Movntps | Mnemonic::Movntpd | Mnemonic::Movntdq | Mnemonic::Movntdqa => true,
        Mnemonic::Vmovntps | Mnemonic::Vmovntpd | Mnemonic::Vmovntdq | Mnemonic::Vmovntdqa => true,
        _ => return None,
    };
    Some(VectorMove { wide, aligned, vex })
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
    let mut operands: Vec<_> = both
        .into_iter()
        .filter(|operand| *operand != Operand::None)
        .collect();
    operands.extend(third_operand(instruction));
    // Some names of instructions that do nothing have more operands.
    let nothing = instruction.operation == Operation::Nothing;
    if operands.len() != reference.op_count() as usize && !nothing {
        return Some(format!("there are {} operands", reference.op_count()));
    }
    operands.iter().zip(0..).find_map(|(operand, number)| {
        let size = operand_size(instruction, operand, number);
        let difference = match operand {
            Operand::Register(register) => register_difference(*register, size, reference, number),
            Operand::Immediate(value) => immediate_difference(*value, size, reference, number),
            Operand::Memory(memory) => {
                let mut offset = memory.offset(registers.next_rip, |index| {
                    registers.gpr[usize::from(index)]
                });
                if instruction.operation == Operation::Translate {
                    offset = offset.wrapping_add(registers.gpr[0] & 0xff) & memory.size.mask();
                }
                segment_difference(mode, memory.segment, reference, number)
                    .or_else(|| offset_difference(offset, registers, reference, number))
                    .or_else(|| memory_size_difference(instruction, size, reference))
            }
            Operand::Relative(distance) => {
                let target = registers.next_rip.wrapping_add(*distance) & size.mask();
                let expected = reference.near_branch_target();
                (target != expected).then(|| format!("is {expected:#x}, not {target:#x}"))
            }
            Operand::Far { selector, offset } => {
                let expected = match reference.op_kind(number) {
                    OpKind::FarBranch16 => u64::from(reference.far_branch16()),
                    OpKind::FarBranch32 => u64::from(reference.far_branch32()),
                    _ => return Some(format!("operand {number} is no far pointer")),
                };
                let same = *offset == expected && *selector == reference.far_branch_selector();
                (!same).then(|| format!("is {expected:#x}"))
            }
            Operand::Segment(_) | Operand::Control(_) | Operand::Debug(_) | Operand::Vector(_) => {
                named_register_difference(operand, reference, number)
            }
            Operand::None => None,
        };
        difference.map(|text| format!("operand {number}: {text}"))
    })
}

/// Returns the operand beside destination and source.
fn third_operand(instruction: &Instruction) -> Option<Operand> {
    match instruction.operation {
        Operation::DoubleShift { by_cl: true, .. } => Some(Operand::Register(Register::low(RCX))),
        _ => instruction.immediate.map(Operand::Immediate),
    }
}

/// Compares a register that is no general one.
fn named_register_difference(
    operand: &Operand,
    reference: &iced_x86::Instruction,
    number: u32,
) -> Option<String> {
    if reference.op_kind(number) != OpKind::Register {
        return Some("is no register".into());
    }
    let expected = reference.op_register(number);
    let index = expected.number();
    let same = match operand {
        Operand::Segment(name) => expected.is_segment_register() && *name as usize == index,
        Operand::Control(number) => expected.is_cr() && usize::from(*number) == index,
        Operand::Debug(number) => expected.is_dr() && usize::from(*number) == index,
        Operand::Vector(number) => {
            (expected.is_xmm() || expected.is_ymm()) && usize::from(*number) == index
        }
        _ => false,
    };
    (!same).then(|| format!("is {expected:?}"))
}

/// Returns whether an instruction has a register of the operand size, or 2 bytes of memory.
fn stores_word(operation: Operation) -> bool {
    matches!(
        operation,
        Operation::StoreSegment
            | Operation::System(
                SystemOperation::StoreSystemSegment(_) | SystemOperation::StoreMachineStatus
            )
    )
}

/// Returns the size of the operand `number`, which is most often the operand size.
fn operand_size(instruction: &Instruction, operand: &Operand, number: u32) -> Size {
    let is_source = *operand == instruction.source;
    let is_destination = *operand == instruction.destination;
    let in_memory = matches!(operand, Operand::Memory(_));
    match instruction.operation {
        Operation::Extend { from, .. } if is_source && !is_destination => from,
        // The same register, as source and as destination.
        Operation::Extend { .. } => instruction.size,
        Operation::In | Operation::String(StringOperation::Input) if is_source => Size::Word,
        Operation::Out | Operation::String(StringOperation::Output) if is_destination => Size::Word,
        // The count.
        Operation::Shift(_) if number == 1 => Size::Byte,
        Operation::DoubleShift { .. } if number == 2 => Size::Byte,
        operation if stores_word(operation) && in_memory => Size::Word,
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
            1 => value & 0xff,
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
    let size = usize::from(size.bytes());
    let bytes = match instruction.operation {
        Operation::CompareExchangePair | Operation::Bound => size * 2,
        Operation::FarCall | Operation::FarJump | Operation::LoadFarPointer(_) => size + 2,
        Operation::LoadAddress | Operation::System(SystemOperation::Invalidate) => 0,
        Operation::System(SystemOperation::LoadTable(_) | SystemOperation::StoreTable(_)) => {
            // The base has 4 bytes in memory also where 3 of them count.
            size.max(4) + 2
        }
        Operation::System(
            SystemOperation::LoadSystemSegment(_) | SystemOperation::LoadMachineStatus,
        )
        | Operation::LoadSegment => 2,
        Operation::MoveVector(VectorMove { wide, .. }) => {
            if wide {
                32
            } else {
                16
            }
        }
        _ => size,
    };
    let expected = reference.memory_size().size();
    (bytes != expected).then(|| format!("has {expected} bytes"))
}
