// SPDX-License-Identifier: GPL-2.0

//! Execution against the CPU that the tests run on.

use std::collections::BTreeMap;

use super::{
    super::{
        alu::{
            Binary,
            AF,
            CF,
            DF,
            OF,
            PF,
            SF,
            ZF, //
        },
        bus::{
            Bus,
            Mode, //
        },
        decimal::Decimal,
        decode::decode,
        execute::{
            execute,
            Outcome, //
        },
        flags::{
            FlagOperation,
            IF, //
        },
        instruction::{
            Instruction,
            Operation, //
        },
        operand::{
            Base,
            Memory,
            Operand,
            Size,
            RAX,
            RBP,
            RCX,
            RDX,
            RSP, //
        },
        shift::Shift,
        string::StringOperation,
        vector::VectorMove, //
    },
    generate,
    machine::{
        Machine,
        Registers, //
    },
    native_cpu::{
        has_avx,
        Cpu,
        PAGE, //
    },
    random::Random,
};

/// The flags that are compared.
const FLAGS: u64 = CF | PF | AF | ZF | SF | DF | OF;

/// Bytes at each end of the window that addresses are not aimed at, so that strings and bits stay
/// inside.
const MARGIN: usize = 512;

/// The CPU and a machine with the same memory.
struct Pair {
    cpu: Cpu,
    machine: Machine,
}

/// What became of an instruction.
enum Verdict {
    /// It cannot be run here, or cannot be aimed at the window.
    Skipped,
    /// Both have done the same, which was this.
    Same(Operation),
}

/// Returns whether the CPU is one of Intel's, which differ from others where manuals leave it open.
fn is_intel() -> bool {
    #[allow(unused_unsafe, reason = "unsafe in older compilers")]
    // SAFETY: Every CPU of 64 bits has CPUID.
    let vendor = unsafe { std::arch::x86_64::__cpuid(0) };
    vendor.ebx.to_le_bytes() == *b"Genu"
}

/// Returns whether the CPU can run `instruction` in user space.
fn runnable(instruction: &Instruction) -> bool {
    match instruction.operation {
        Operation::In
        | Operation::Out
        | Operation::String(StringOperation::Input | StringOperation::Output)
        | Operation::System(_)
        | Operation::Flag(FlagOperation::ClearInterrupt | FlagOperation::SetInterrupt)
        | Operation::Interrupt
        | Operation::Breakpoint
        | Operation::Overflow
        | Operation::InterruptReturn
        | Operation::FarCall
        | Operation::FarJump
        | Operation::FarReturn
        | Operation::LoadFarPointer(_)
        | Operation::LoadSegment
        | Operation::StoreSegment
        | Operation::PushSegment
        | Operation::PopSegment => false,
        Operation::MoveSwapped => std::is_x86_feature_detected!("movbe"),
        Operation::MoveVector(VectorMove { vex, .. }) => !vex || has_avx(),
        Operation::CompareExchangePair => std::is_x86_feature_detected!("cmpxchg16b"),
        Operation::CompareExchange if matches!(instruction.destination, Operand::Register(_)) => {
            is_intel()
        }
        Operation::SwapBytes if instruction.size == Size::Word => is_intel(),
        // Elsewhere, the prefix says what the condition is, and REX.B makes PAUSE an XCHG.
        Operation::CountedBranch(_) | Operation::Nothing if instruction.repeat.is_some() => {
            is_intel()
        }
        Operation::String(_) if instruction.address_size == Size::Dword => is_intel(),
        _ => true,
    }
}

/// Returns the flags that `instruction` leaves defined, with the count `count` if it shifts.
fn defined_flags(instruction: &Instruction, count: u64) -> u64 {
    let bits = u64::from(instruction.size.bits());
    match instruction.operation {
        Operation::Binary(Binary::Or | Binary::And | Binary::Xor | Binary::Test) => FLAGS & !AF,
        Operation::Bit(_) => FLAGS & !(OF | SF | AF | PF),
        Operation::BitScan { .. } => DF | ZF,
        Operation::Multiply { .. } | Operation::MultiplyInto => DF | CF | OF,
        Operation::Divide { .. } => DF,
        Operation::Decimal(operation) => match operation {
            Decimal::AfterAdd | Decimal::AfterSubtract => FLAGS & !OF,
            Decimal::UnpackedAfterAdd | Decimal::UnpackedAfterSubtract => DF | AF | CF,
            Decimal::AfterMultiply | Decimal::BeforeDivide => DF | SF | ZF | PF,
        },
        Operation::Shift(_) | Operation::DoubleShift { .. } if count == 0 => FLAGS,
        Operation::Shift(
            Shift::RotateLeft
            | Shift::RotateRight
            | Shift::RotateCarryLeft
            | Shift::RotateCarryRight,
        ) => {
            if count == 1 {
                FLAGS
            } else {
                FLAGS & !OF
            }
        }
        Operation::Shift(_) | Operation::DoubleShift { .. } => match count {
            1 => FLAGS & !AF,
            _ if count >= bits => FLAGS & !(AF | OF | CF),
            _ => FLAGS & !(AF | OF),
        },
        _ => FLAGS,
    }
}

/// Returns whether the instruction is one of those that may go to LANDING.
fn branches(instruction: &Instruction) -> bool {
    matches!(
        instruction.operation,
        Operation::Call
            | Operation::Jump
            | Operation::Branch(_)
            | Operation::CountedBranch(_)
            | Operation::Return
    )
}

/// Returns whether an operand-size prefix is among the prefixes of an instruction.
///
/// In 64-bit mode, near branches ignore it on Intel's CPUs, and cut RIP to 16 bits on others.
fn narrows(bytes: &[u8]) -> bool {
    let is_prefix = |byte: &&u8| matches!(**byte, 0x26 | 0x2e | 0x36 | 0x3e | 0x40..=0x4f | 0x64..=0x67 | 0xf0 | 0xf2 | 0xf3);
    bytes.iter().take_while(is_prefix).any(|&byte| byte == 0x66)
}

/// Returns whether the instruction uses the stack.
fn uses_stack(instruction: &Instruction) -> bool {
    matches!(
        instruction.operation,
        Operation::Push
            | Operation::Pop
            | Operation::Call
            | Operation::Return
            | Operation::PushFlags
            | Operation::PopFlags
            | Operation::PushAll
            | Operation::PopAll
            | Operation::Enter
            | Operation::Leave
    )
}

impl Pair {
    /// Returns a pair in `mode`, if the host can have it.
    fn new(mode: Mode) -> Option<Self> {
        let cpu = Cpu::new(mode)?;
        let mut machine = Machine::new(mode, cpu.window(), cpu.memory().to_vec());
        machine.landing = Some(cpu.landing());
        // The stack segment is Linux's, which has 32 bits.
        machine.stack_pointer_size = machine.stack_pointer_size.max(4);
        Some(Self { cpu, machine })
    }

    /// Writes `data` to both memories.
    fn put(&mut self, linear: u64, data: &[u8]) {
        let offset = usize::try_from(linear - self.cpu.window()).unwrap();
        self.cpu.set_memory(offset, data);
        self.machine.memory[offset..][..data.len()].copy_from_slice(data);
    }

    /// Returns the mask of the registers that the mode has.
    fn mask(&self) -> u64 {
        match self.machine.mode {
            Mode::Long64 => u64::MAX,
            _ => 0xffff_ffff,
        }
    }

    /// Returns an address in the window.
    fn target(&self, random: &mut Random, instruction: &Instruction) -> u64 {
        let offset = MARGIN + random.below(PAGE - 2 * MARGIN);
        // An atomic access across cache lines is a nuisance to the host.
        let atomic = instruction.lock || instruction.operation == Operation::Exchange;
        let align = if atomic || random.one_in(2) { 16 } else { 1 };
        self.cpu.window() + (offset & !(align - 1)) as u64
    }

    /// Sets up registers at random, but `bytes` accesses the window; `bytes` change if it must.
    fn aim(&mut self, random: &mut Random, instruction: &Instruction, bytes: &mut [u8]) -> bool {
        let mask = self.mask();
        self.machine.registers = Registers {
            gpr: std::array::from_fn(|_| random.edge() & mask),
            // What user space has besides.
            rflags: random.bits() & FLAGS | 2 | IF,
            rip: self.cpu.rip(),
        };
        let operands = [instruction.destination, instruction.source];

        if let (Operation::Bit(_), Operand::Register(register)) =
            (instruction.operation, operands[1])
        {
            let number = (random.bits() % 2048).wrapping_sub(1024) & instruction.size.mask();
            let index = usize::from(register.index);
            let old = self.machine.registers.gpr[index];
            self.machine.registers.gpr[index] = instruction.size.merge(old, number) & mask;
        }
        if let (Operation::String(_), Some(_)) = (instruction.operation, instruction.repeat) {
            let count = random.bits() % 9;
            self.set_low(random, RCX, instruction.address_size, count);
        }
        if uses_stack(instruction) {
            for register in [RSP, RBP] {
                let stack = self.target(random, instruction);
                self.machine.registers.gpr[usize::from(register)] = stack;
            }
        }
        self.aim_operation(random, instruction, bytes);
        for operand in operands {
            if let Operand::Memory(memory) = operand {
                let target = self.target(random, instruction);
                if !self.aim_memory(random, &memory, target, bytes) {
                    return false;
                }
            }
        }
        if branches(instruction) {
            return self.aim_branch(instruction, bytes);
        }
        true
    }

    /// Makes results likely that are not errors.
    fn aim_operation(&mut self, random: &mut Random, instruction: &Instruction, bytes: &mut [u8]) {
        match instruction.operation {
            Operation::CountedBranch(_) => {
                let count = random.bits() % 3;
                self.set_low(random, RCX, instruction.address_size, count);
            }
            Operation::Divide { .. } => {
                let high = random.choose(&[0, 1, u64::MAX]) & self.mask();
                self.machine.registers.gpr[usize::from(RDX)] = high;
            }
            Operation::Enter => {
                let at = bytes.len() - 3;
                bytes[at] &= 0x3f;
                bytes[at + 1] = 0;
            }
            Operation::PopFlags => {
                let image = random.bits() & FLAGS | 2 | IF;
                self.put(self.machine.gpr(RSP), &image.to_le_bytes());
            }
            Operation::MoveVector(_) => {
                for vector in &mut self.machine.system.vectors {
                    vector.fill_with(|| random.byte());
                    if !has_avx() {
                        vector[16..].fill(0);
                    }
                }
            }
            _ => {}
        }
    }

    /// Sets the part of `register` that addresses of `size` use; the rest is random.
    fn set_low(&mut self, random: &mut Random, register: u8, size: Size, value: u64) {
        let rest = if random.one_in(2) { 0 } else { random.bits() };
        let value = (value & size.mask()) | (rest & !size.mask() & self.mask());
        self.machine.registers.gpr[usize::from(register)] = value;
    }

    /// Makes `memory` refer to `target`, and returns whether that worked.
    fn aim_memory(
        &mut self,
        random: &mut Random,
        memory: &Memory,
        target: u64,
        bytes: &mut [u8],
    ) -> bool {
        let rest = target.wrapping_sub(memory.displacement);
        match (memory.base, memory.index) {
            (Base::Register(base), None) => self.set_low(random, base, memory.size, rest),
            (Base::Register(base), Some(index)) if base == index.register => {
                // base * (1 + factor) has to be the rest: odd factors have an inverse.
                let inverse: u64 = match index.scale {
                    1 => 0xaaaa_aaaa_aaaa_aaab,
                    2 => 0xcccc_cccc_cccc_cccd,
                    3 => 0x8e38_e38e_38e3_8e39,
                    _ if rest & 1 != 0 => return false,
                    _ => {
                        self.set_low(random, base, memory.size, rest >> 1);
                        return true;
                    }
                };
                self.set_low(random, base, memory.size, rest.wrapping_mul(inverse));
            }
            (Base::Register(base), Some(index)) => {
                let index_value = self.machine.gpr(index.register) << index.scale;
                let rest = rest.wrapping_sub(index_value);
                self.set_low(random, base, memory.size, rest);
            }
            (Base::None, Some(index)) => {
                let unscaled = (rest & memory.size.mask()) >> index.scale;
                self.set_low(random, index.register, memory.size, unscaled);
            }
            (Base::None, None) => return patch(bytes, memory.displacement, target),
            (Base::NextInstruction, _) => {
                let end = self.cpu.rip() + bytes.len() as u64;
                return patch(bytes, memory.displacement, target.wrapping_sub(end));
            }
        }
        true
    }

    /// Makes a call or jump go to the landing, and returns whether that worked.
    fn aim_branch(&mut self, instruction: &Instruction, bytes: &mut [u8]) -> bool {
        let landing = self.cpu.landing();
        if landing & !instruction.size.mask() != 0 {
            return false;
        }
        if instruction.operation == Operation::Return {
            self.put(self.machine.gpr(RSP), &landing.to_le_bytes());
            return true;
        }
        match instruction.source {
            Operand::Relative(_) => {
                let distance = landing - self.cpu.rip() - bytes.len() as u64;
                [1, 2, 4].into_iter().any(|size| {
                    let Some(at) = bytes.len().checked_sub(size) else {
                        return false;
                    };
                    let old = bytes.to_vec();
                    bytes[at..].copy_from_slice(&distance.to_le_bytes()[..size]);
                    let patched = decode(self.machine.mode, bytes)
                        .is_ok_and(|new| new.source == Operand::Relative(distance));
                    if !patched {
                        bytes.copy_from_slice(&old);
                    }
                    patched
                })
            }
            Operand::Register(register) => {
                self.machine.registers.gpr[usize::from(register.index)] = landing;
                // Not if the stack pointer was lost by that.
                register.index != RSP
            }
            Operand::Memory(memory) => {
                let rip = self.cpu.rip() + u64::from(instruction.length());
                let at = memory.offset(rip, |register| self.machine.gpr(register));
                let data = landing.to_le_bytes();
                let size = usize::from(instruction.size.bytes());
                if self.machine.bytes(at, size, false).is_err() {
                    return false;
                }
                self.put(at, &data[..size]);
                true
            }
            _ => false,
        }
    }

    /// Puts something at the operands that makes comparisons interesting.
    fn seed_memory(&mut self, random: &mut Random, instruction: &Instruction) {
        let rip = self.cpu.rip() + u64::from(instruction.length());
        for operand in [instruction.destination, instruction.source] {
            let Operand::Memory(memory) = operand else {
                continue;
            };
            let at = memory.offset(rip, |register| self.machine.gpr(register));
            let accumulator = self.machine.gpr(RAX);
            let data = match random.below(4) {
                0 => accumulator,
                1 => random.edge(),
                2 if instruction.operation == Operation::CompareExchangePair => {
                    accumulator & 0xffff_ffff | (self.machine.gpr(2) << 32)
                }
                _ => continue,
            };
            if self.machine.bytes(at, 16, true).is_ok() {
                self.put(at, &data.to_le_bytes());
                self.put(at + 8, &self.machine.gpr(2).to_le_bytes());
            }
        }
    }

    /// Runs an instruction on both, if it can be.
    fn check(&mut self, random: &mut Random, bytes: &[u8]) -> Result<Verdict, String> {
        let mode = self.machine.mode;
        let Ok(instruction) = decode(mode, bytes) else {
            return Ok(Verdict::Skipped);
        };
        let mut bytes = bytes[..usize::from(instruction.length())].to_vec();
        if !runnable(&instruction) || !self.aim(random, &instruction, &mut bytes) {
            return Ok(Verdict::Skipped);
        }
        // Displacements may have changed, but nothing else.
        let Ok(instruction) = decode(mode, &bytes) else {
            return Ok(Verdict::Skipped);
        };
        if mode == Mode::Long64 && branches(&instruction) && !is_intel() && narrows(&bytes) {
            return Ok(Verdict::Skipped);
        }
        if usize::from(instruction.length()) != bytes.len() || !runnable(&instruction) {
            return Ok(Verdict::Skipped);
        }
        if !branches(&instruction) {
            self.seed_memory(random, &instruction);
        }

        let before = self.machine.registers;
        let mut vectors = self.machine.system.vectors;
        let memory = self.machine.memory.clone();
        let count = self.count(&instruction);
        if matches!(instruction.operation, Operation::DoubleShift { .. })
            && count > u64::from(instruction.size.bits())
        {
            return Ok(Verdict::Skipped);
        }
        loop {
            match execute(&instruction, &mut self.machine) {
                Ok(Outcome::Done) => break,
                Ok(Outcome::Again) => {}
                Err(_) => {
                    self.machine.memory = memory;
                    self.machine.registers = before;
                    return Ok(Verdict::Skipped);
                }
            }
        }
        let mut expected = before;
        self.cpu.run(&bytes, &mut expected, &mut vectors);
        let flags = defined_flags(&instruction, count);
        let mask = self.mask();
        let mut actual = self.machine.registers;
        for registers in [&mut expected, &mut actual] {
            registers.rflags &= flags;
            for value in &mut registers.gpr {
                *value &= mask;
            }
            if mode != Mode::Long64 {
                registers.gpr[8..].fill(0);
            }
        }
        if actual != expected {
            return Err(format!(
                "{mode:?} {bytes:02x?} {instruction:?}\n before {before:x?}\n    cpu {expected:x?}\n   ours {actual:x?}"
            ));
        }
        if self.machine.system.vectors != vectors {
            return Err(format!(
                "{mode:?} {bytes:02x?} {instruction:?}: vectors differ\n    cpu {vectors:x?}\n   ours {:x?}",
                self.machine.system.vectors
            ));
        }
        if self.machine.memory != self.cpu.memory() {
            return Err(format!(
                "{mode:?} {bytes:02x?} {instruction:?}: memory differs"
            ));
        }
        Ok(Verdict::Same(instruction.operation))
    }
}

impl Pair {
    /// Returns by how much `instruction` shifts, as the CPU counts.
    fn count(&self, instruction: &Instruction) -> u64 {
        let mask = if instruction.size == Size::Qword {
            63
        } else {
            31
        };
        let count = match (instruction.operation, instruction.source) {
            (Operation::DoubleShift { by_cl: true, .. }, _) => self.machine.gpr(RCX),
            (Operation::DoubleShift { .. }, _) => instruction.immediate.unwrap_or(0),
            (_, Operand::Immediate(count)) => count,
            _ => self.machine.gpr(RCX),
        };
        count & mask
    }
}

/// Replaces the displacement `old` in `bytes` by `new`, and returns whether it is there.
fn patch(bytes: &mut [u8], old: u64, new: u64) -> bool {
    for size in [8, 4, 2] {
        let (old, new) = (old.to_le_bytes(), new.to_le_bytes());
        let found = bytes.windows(size).position(|part| *part == old[..size]);
        if let Some(at) = found {
            bytes[at..][..size].copy_from_slice(&new[..size]);
            return true;
        }
    }
    false
}

/// Runs random instructions of `mode` on both.
fn agrees_with_cpu(mode: Mode) {
    let Some(mut pair) = Pair::new(mode) else {
        println!("skipped: the host has no {mode:?} for user space");
        return;
    };
    let (seed, count) = (super::seed(), super::count());
    let mut random = Random::new(seed ^ mode as u64);
    let mut same = BTreeMap::new();
    for number in 0..count {
        if number % 4096 == 0 {
            let data: Vec<u8> = (0..PAGE).map(|_| random.byte()).collect();
            pair.put(pair.cpu.window(), &data);
        }
        let mut bytes = generate::instruction(&mut random);
        while bytes.len() < 15 {
            bytes.push(random.byte());
        }
        match pair.check(&mut random, &bytes) {
            Ok(Verdict::Skipped) => {}
            Ok(Verdict::Same(operation)) => {
                *same.entry(format!("{operation:?}")).or_insert(0u64) += 1;
            }
            Err(text) => panic!("{text}\n (seed {seed})"),
        }
    }
    let total: u64 = same.values().sum();
    println!("{mode:?}: {total} of {count} ran on the CPU: {same:?}");
    assert!(total > count / 20);
    // All that user space can run, but one or two that older CPUs do not have.
    let operations = match mode {
        Mode::Long64 => 130,
        _ => 130,
    };
    assert!(same.len() + 2 >= operations, "{} operations", same.len());
}

#[test]
fn agrees_with_cpu_in_64_bit_code() {
    agrees_with_cpu(Mode::Long64);
}

#[test]
fn agrees_with_cpu_in_32_bit_code() {
    agrees_with_cpu(Mode::Protected32);
}

#[test]
fn agrees_with_cpu_in_16_bit_code() {
    agrees_with_cpu(Mode::Protected16);
}
