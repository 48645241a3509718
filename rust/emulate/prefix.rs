// SPDX-License-Identifier: GPL-2.0

//! The bytes of an instruction and its prefixes.

use super::{
    bus::{
        Mode,
        Segment, //
    },
    decode::DecodeError,
    instruction::Repeat,
    operand::Size, //
};

/// The longest instruction, in bytes.
const MAX_LENGTH: u8 = 15;

/// Reads an encoding from its first byte to its last.
pub(super) struct Reader<'a> {
    bytes: &'a [u8],
    position: u8,
}

impl<'a> Reader<'a> {
    /// Returns a reader at the start of `bytes`.
    pub(super) const fn new(bytes: &'a [u8]) -> Self {
        Self { bytes, position: 0 }
    }

    /// Returns the number of bytes read.
    pub(super) const fn position(&self) -> u8 {
        self.position
    }

    /// Returns the next byte without reading it.
    pub(super) fn peek(&self) -> Result<u8, DecodeError> {
        if self.position >= MAX_LENGTH {
            return Err(DecodeError::TooLong);
        }
        match self.bytes.get(usize::from(self.position)) {
            Some(byte) => Ok(*byte),
            None => Err(DecodeError::Truncated),
        }
    }

    /// Reads a byte.
    pub(super) fn byte(&mut self) -> Result<u8, DecodeError> {
        let byte = self.peek()?;
        self.position = self.position.saturating_add(1);
        Ok(byte)
    }

    /// Reads a little-endian number of `size`, zero-extended.
    pub(super) fn unsigned(&mut self, size: Size) -> Result<u64, DecodeError> {
        let end = self.position.saturating_add(size.bytes());
        let part = self.bytes.get(usize::from(self.position)..usize::from(end));
        let value = match part {
            _ if end > MAX_LENGTH => None,
            Some(&[a]) => Some(u64::from(a)),
            Some(&[a, b]) => Some(u64::from(u16::from_le_bytes([a, b]))),
            Some(&[a, b, c, d]) => Some(u64::from(u32::from_le_bytes([a, b, c, d]))),
            Some(&[a, b, c, d, e, f, g, h]) => Some(u64::from_le_bytes([a, b, c, d, e, f, g, h])),
            _ => None,
        };
        let Some(value) = value else {
            // The first byte that cannot be read says why.
            return Err(if self.bytes.len() < usize::from(MAX_LENGTH) {
                DecodeError::Truncated
            } else {
                DecodeError::TooLong
            });
        };
        self.position = end;
        Ok(value)
    }

    /// Reads a little-endian number of `size`, sign-extended.
    pub(super) fn signed(&mut self, size: Size) -> Result<u64, DecodeError> {
        Ok(size.sign_extend(self.unsigned(size)?))
    }
}

/// A REX prefix, or the absence of one.
#[derive(Clone, Copy)]
pub(super) struct Rex(u8);

impl Rex {
    /// Returns whether there is one.
    pub(super) const fn present(self) -> bool {
        self.0 != 0
    }

    /// Returns whether the operand has 64 bits.
    const fn wide(self) -> bool {
        self.0 & 8 != 0
    }

    /// Returns `low`, 0 to 7, as the number of the register in ModRM.reg.
    pub(super) const fn reg(self, low: u8) -> u8 {
        low | ((self.0 & 4) << 1)
    }

    /// Returns `low`, 0 to 7, as the number of the index register.
    pub(super) const fn index(self, low: u8) -> u8 {
        low | ((self.0 & 2) << 2)
    }

    /// Returns `low`, 0 to 7, as the number of the base register, or of that in ModRM.rm.
    pub(super) const fn base(self, low: u8) -> u8 {
        low | ((self.0 & 1) << 3)
    }
}

/// The prefix that tells vector instructions with one opcode apart.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum VectorPrefix {
    None,
    /// 66.
    OperandSize,
    F3,
    F2,
}

/// The prefixes of an instruction.
pub(super) struct Prefixes {
    mode: Mode,
    /// 66.
    pub(super) operand_size: bool,
    /// 67.
    address_size: bool,
    /// F0.
    pub(super) lock: bool,
    /// F2 or F3: the last one counts.
    pub(super) repeat: Option<Repeat>,
    /// The segment override in effect: the last one counts.
    segment: Option<Segment>,
    /// REX, if it stands directly before the opcode.
    pub(super) rex: Rex,
}

impl Prefixes {
    /// Reads the prefixes and the first byte of the opcode.
    pub(super) fn read(mode: Mode, reader: &mut Reader<'_>) -> Result<(Self, u8), DecodeError> {
        let mut prefixes = Self {
            mode,
            operand_size: false,
            address_size: false,
            lock: false,
            repeat: None,
            segment: None,
            rex: Rex(0),
        };
        loop {
            let byte = reader.byte()?;
            if prefixes.long64() && byte & 0xf0 == 0x40 {
                prefixes.rex = Rex(byte);
                continue;
            }
            match byte {
                0x26 => prefixes.override_segment(Segment::Es),
                0x2e => prefixes.override_segment(Segment::Cs),
                0x36 => prefixes.override_segment(Segment::Ss),
                0x3e => prefixes.override_segment(Segment::Ds),
                0x64 => prefixes.override_segment(Segment::Fs),
                0x65 => prefixes.override_segment(Segment::Gs),
                0x66 => prefixes.operand_size = true,
                0x67 => prefixes.address_size = true,
                0xf0 => prefixes.lock = true,
                0xf2 => prefixes.repeat = Some(Repeat::WhileNotEqual),
                0xf3 => prefixes.repeat = Some(Repeat::WhileEqual),
                opcode => return Ok((prefixes, opcode)),
            }
            prefixes.rex = Rex(0);
        }
    }

    /// Notes a segment override. In 64-bit mode only those of FS and GS exist.
    fn override_segment(&mut self, segment: Segment) {
        if !self.long64() || matches!(segment, Segment::Fs | Segment::Gs) {
            self.segment = Some(segment);
        }
    }

    /// Returns the mode.
    pub(super) fn mode(&self) -> Mode {
        self.mode
    }

    /// Notes the upper bits of register numbers that a VEX prefix has: of ModRM.reg, of the index
    /// and of the base in bits 2 to 0.
    pub(super) fn set_vex_registers(&mut self, bits: u8) {
        self.rex = Rex(0x40 | bits & 7);
    }

    /// Returns the prefix that tells vector instructions apart.
    pub(super) fn vector_prefix(&self) -> VectorPrefix {
        match (self.repeat, self.operand_size) {
            (Some(Repeat::WhileEqual), _) => VectorPrefix::F3,
            (Some(Repeat::WhileNotEqual), _) => VectorPrefix::F2,
            (None, true) => VectorPrefix::OperandSize,
            (None, false) => VectorPrefix::None,
        }
    }

    /// Returns whether this is 64-bit mode.
    pub(super) fn long64(&self) -> bool {
        self.mode == Mode::Long64
    }

    /// Returns the segment of an operand for which `default` is the segment without override.
    pub(super) fn segment(&self, default: Segment) -> Segment {
        self.segment.unwrap_or(default)
    }

    /// Returns the operand size of instructions that have no rule of their own.
    pub(super) fn operand(&self) -> Size {
        if self.rex.wide() {
            return Size::Qword;
        }
        let small = match self.mode {
            Mode::Real | Mode::Virtual8086 | Mode::Protected16 => !self.operand_size,
            Mode::Protected32 | Mode::Long64 => self.operand_size,
        };
        if small {
            Size::Word
        } else {
            Size::Dword
        }
    }

    /// Returns the operand size of stack instructions, for which 64-bit mode has no 4 bytes.
    pub(super) fn stack_operand(&self) -> Size {
        match self.operand() {
            Size::Dword if self.long64() => Size::Qword,
            size => size,
        }
    }

    /// Returns the operand size of near branches: 64-bit mode has one only.
    pub(super) fn branch_operand(&self) -> Size {
        if self.long64() {
            Size::Qword
        } else {
            self.operand()
        }
    }

    /// Returns the operand size of port instructions: 4 bytes at most.
    pub(super) fn port_operand(&self) -> Size {
        match self.operand() {
            Size::Qword => Size::Dword,
            size => size,
        }
    }

    /// Returns the operand size of instructions that ignore 66.
    pub(super) fn wide_operand(&self) -> Size {
        if self.rex.wide() {
            Size::Qword
        } else {
            Size::Dword
        }
    }

    /// Returns the address size.
    pub(super) fn address(&self) -> Size {
        match (self.mode, self.address_size) {
            (Mode::Real | Mode::Virtual8086 | Mode::Protected16, false) => Size::Word,
            (Mode::Real | Mode::Virtual8086 | Mode::Protected16, true) => Size::Dword,
            (Mode::Protected32, false) => Size::Dword,
            (Mode::Protected32, true) => Size::Word,
            (Mode::Long64, false) => Size::Qword,
            (Mode::Long64, true) => Size::Dword,
        }
    }
}
