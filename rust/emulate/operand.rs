// SPDX-License-Identifier: GPL-2.0

//! Operands: sizes, registers and memory references, and how they are read and written.

use super::bus::{
    Bus,
    Segment,
    Stop, //
};

/// Number of RAX, the accumulator, among the general registers.
pub(super) const RAX: u8 = 0;
/// Number of RCX, the counter.
pub(super) const RCX: u8 = 1;
/// Number of RDX.
pub(super) const RDX: u8 = 2;
/// Number of RBX.
pub(super) const RBX: u8 = 3;
/// Number of RSP, the stack pointer.
pub(super) const RSP: u8 = 4;
/// Number of RBP, the frame pointer.
pub(super) const RBP: u8 = 5;
/// Number of RSI, the source of string instructions.
pub(super) const RSI: u8 = 6;
/// Number of RDI, the destination of string instructions.
pub(super) const RDI: u8 = 7;

/// Bytes of an operand or an address.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Size {
    /// 1 byte.
    Byte = 1,
    /// 2 bytes.
    Word = 2,
    /// 4 bytes.
    Dword = 4,
    /// 8 bytes.
    Qword = 8,
}

impl Size {
    /// Returns the number of bytes.
    pub(super) const fn bytes(self) -> u8 {
        self as u8
    }

    /// Returns the number of bits, which is a power of two.
    pub(super) const fn bits(self) -> u32 {
        match self {
            Self::Byte => 8,
            Self::Word => 16,
            Self::Dword => 32,
            Self::Qword => 64,
        }
    }

    /// Returns the bits of a value of this size.
    pub(super) const fn mask(self) -> u64 {
        match self {
            Self::Byte => 0xff,
            Self::Word => 0xffff,
            Self::Dword => 0xffff_ffff,
            Self::Qword => u64::MAX,
        }
    }

    /// Returns the most significant bit of a value of this size.
    pub(super) const fn sign_bit(self) -> u64 {
        match self {
            Self::Byte => 1 << 7,
            Self::Word => 1 << 15,
            Self::Dword => 1 << 31,
            Self::Qword => 1 << 63,
        }
    }

    /// Returns the low part of `value` of this size, sign-extended to 64 bits.
    pub(super) const fn sign_extend(self, value: u64) -> u64 {
        let sign = self.sign_bit();
        ((value & self.mask()) ^ sign).wrapping_sub(sign)
    }

    /// Returns `old` with a value of this size written to it as to a register: 1 and 2 bytes leave
    /// the rest alone, 4 bytes clear the upper half.
    pub(super) const fn merge(self, old: u64, value: u64) -> u64 {
        match self {
            Self::Byte | Self::Word => (old & !self.mask()) | (value & self.mask()),
            Self::Dword | Self::Qword => value & self.mask(),
        }
    }

    /// Returns the bytes of `data` that a value of this size occupies.
    fn part(self, data: &[u8; 8]) -> &[u8] {
        match self {
            Self::Byte => &data[..1],
            Self::Word => &data[..2],
            Self::Dword => &data[..4],
            Self::Qword => data,
        }
    }

    /// Returns the bytes of `data` that a value of this size occupies.
    fn part_mut(self, data: &mut [u8; 8]) -> &mut [u8] {
        match self {
            Self::Byte => &mut data[..1],
            Self::Word => &mut data[..2],
            Self::Dword => &mut data[..4],
            Self::Qword => data,
        }
    }
}

/// A general register, or the second byte of one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Register {
    /// The number of the full register, 0 to 15.
    pub(super) index: u8,
    /// Whether this is AH, CH, DH or BH.
    pub(super) high: bool,
}

impl Register {
    /// Returns the register `index`, from its lowest byte on.
    pub(super) const fn low(index: u8) -> Self {
        Self { index, high: false }
    }

    /// Returns the register that an instruction names by `number` for an operand of `size`.
    ///
    /// Without REX prefix, byte registers 4 to 7 are the second bytes of 0 to 3.
    pub(super) const fn encoded(number: u8, size: Size, rex: bool) -> Self {
        match (size, number) {
            (Size::Byte, 4..=7) if !rex => Self {
                index: number & 3,
                high: true,
            },
            _ => Self::low(number),
        }
    }

    /// Returns the value of the low `size` bytes.
    pub(super) fn read<B: Bus>(self, bus: &B, size: Size) -> u64 {
        let value = bus.gpr(self.index);
        let value = if self.high { value >> 8 } else { value };
        value & size.mask()
    }

    /// Sets the low `size` bytes.
    pub(super) fn write<B: Bus>(self, bus: &mut B, size: Size, value: u64) {
        let old = bus.gpr(self.index);
        bus.set_gpr(self.index, self.put(old, size, value));
    }

    /// Returns the full register, which was `old`, with the low `size` bytes set.
    pub(super) const fn put(self, old: u64, size: Size, value: u64) -> u64 {
        if self.high {
            (old & !0xff00) | ((value & 0xff) << 8)
        } else {
            size.merge(old, value)
        }
    }
}

/// Where the base of an offset comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Base {
    /// There is none.
    None,
    /// A general register.
    Register(u8),
    /// The offset of the next instruction.
    NextInstruction,
}

/// A register that is part of an offset, times 1, 2, 4 or 8.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Index {
    /// The general register.
    pub(super) register: u8,
    /// The binary logarithm of the factor, 0 to 3.
    pub(super) scale: u8,
}

/// A reference to memory: segment and offset.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Memory {
    /// The segment, after overrides.
    pub(super) segment: Segment,
    /// The base.
    pub(super) base: Base,
    /// The index.
    pub(super) index: Option<Index>,
    /// The displacement, sign-extended.
    pub(super) displacement: u64,
    /// The address size: what the sum is truncated to.
    pub(super) size: Size,
}

impl Memory {
    /// Returns a reference to what the register `base` points at.
    pub(super) const fn at(segment: Segment, base: u8, size: Size) -> Self {
        Self {
            segment,
            base: Base::Register(base),
            index: None,
            displacement: 0,
            size,
        }
    }

    /// Returns the offset, with register values from `gpr`.
    pub(super) fn offset(&self, next_rip: u64, gpr: impl Fn(u8) -> u64) -> u64 {
        let base = match self.base {
            Base::None => 0,
            Base::Register(register) => gpr(register),
            Base::NextInstruction => next_rip,
        };
        let index = match self.index {
            None => 0,
            Some(index) => gpr(index.register) << (index.scale & 3),
        };
        base.wrapping_add(index).wrapping_add(self.displacement) & self.size.mask()
    }
}

/// An operand of an instruction.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Operand {
    /// There is none.
    None,
    /// In a register.
    Register(Register),
    /// In memory.
    Memory(Memory),
    /// In the instruction, sign-extended.
    Immediate(u64),
    /// An offset, relative to that of the next instruction.
    Relative(u64),
    /// A segment register.
    Segment(Segment),
    /// A selector and an offset in the instruction.
    Far { selector: u16, offset: u64 },
    /// A control register, 0, 2, 3, 4 or 8.
    Control(u8),
    /// A debug register, 0 to 7.
    Debug(u8),
    /// A vector register, 0 to 15.
    Vector(u8),
}

impl Operand {
    /// Returns the operand with its address computed and checked for an access of `size` bytes.
    pub(super) fn locate<B: Bus>(
        &self,
        bus: &B,
        next_rip: u64,
        size: u8,
        write: bool,
    ) -> Result<Place, Stop> {
        Ok(match self {
            Self::Register(register) => Place::Register(*register),
            Self::Immediate(value) => Place::Immediate(*value),
            Self::Relative(distance) => Place::Immediate(next_rip.wrapping_add(*distance)),
            Self::Memory(memory) => {
                let offset = memory.offset(next_rip, |register| bus.gpr(register));
                Place::Memory(bus.linear(memory.segment, offset, size, write)?)
            }
            _ => return Err(Stop::Unsupported),
        })
    }
}

/// An operand whose address is known.
#[derive(Clone, Copy, Debug)]
pub(super) enum Place {
    /// In a register.
    Register(Register),
    /// At a linear address.
    Memory(u64),
    /// In the instruction.
    Immediate(u64),
}

impl Place {
    /// Returns the value, zero-extended.
    pub(super) fn read<B: Bus>(self, bus: &mut B, size: Size) -> Result<u64, Stop> {
        match self {
            Self::Register(register) => Ok(register.read(bus, size)),
            Self::Immediate(value) => Ok(value & size.mask()),
            Self::Memory(linear) => read(bus, linear, size),
        }
    }

    /// Writes `value`.
    pub(super) fn write<B: Bus>(self, bus: &mut B, size: Size, value: u64) -> Result<(), Stop> {
        match self {
            Self::Register(register) => register.write(bus, size, value),
            Self::Immediate(_) => return Err(Stop::Unsupported),
            Self::Memory(linear) => write(bus, linear, size, value)?,
        }
        Ok(())
    }

    /// Replaces `old`, which was just read here, by `new`.
    ///
    /// Returns false if `atomic` is asked for and the place no longer holds `old`.
    pub(super) fn replace<B: Bus>(
        self,
        bus: &mut B,
        size: Size,
        old: u64,
        new: u64,
        atomic: bool,
    ) -> Result<bool, Stop> {
        match self {
            Self::Memory(linear) if atomic => {
                let (old, new) = (old.to_le_bytes(), new.to_le_bytes());
                bus.compare_exchange(linear, size.part(&old), size.part(&new))
            }
            _ => self.write(bus, size, new).map(|()| true),
        }
    }
}

/// Returns the value of `size` at the address `linear`, zero-extended.
pub(super) fn read<B: Bus>(bus: &mut B, linear: u64, size: Size) -> Result<u64, Stop> {
    let mut data = [0; 8];
    bus.read(linear, size.part_mut(&mut data))?;
    Ok(u64::from_le_bytes(data))
}

/// Writes the low part of `value` of `size` at the address `linear`.
pub(super) fn write<B: Bus>(bus: &mut B, linear: u64, size: Size, value: u64) -> Result<(), Stop> {
    bus.write(linear, size.part(&value.to_le_bytes()))
}

/// Returns the value of `size` read from `port`, zero-extended.
pub(super) fn port_in<B: Bus>(bus: &mut B, port: u16, size: Size) -> Result<u64, Stop> {
    let mut data = [0; 8];
    bus.port_in(port, size.part_mut(&mut data))?;
    Ok(u64::from_le_bytes(data))
}

/// Writes the low part of `value` of `size` to `port`.
pub(super) fn port_out<B: Bus>(bus: &mut B, port: u16, size: Size, value: u64) -> Result<(), Stop> {
    bus.port_out(port, size.part(&value.to_le_bytes()))
}
