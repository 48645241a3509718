// SPDX-License-Identifier: GPL-2.0

//! What an instruction needs of the guest.

use super::system::System;

/// The mode the code runs in, as far as sizes and defaults depend on it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Mode {
    /// Real-address mode.
    Real,
    /// Virtual-8086 mode.
    Virtual8086,
    /// Protected mode, or compatibility mode, with a 16-bit code segment.
    Protected16,
    /// Protected mode, or compatibility mode, with a 32-bit code segment.
    Protected32,
    /// 64-bit mode.
    Long64,
}

/// A segment register, numbered as instructions encode it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Segment {
    /// Destination of string instructions.
    Es = 0,
    /// Code.
    Cs = 1,
    /// Stack.
    Ss = 2,
    /// Data.
    Ds = 3,
    /// Extra data; has a base in 64-bit mode.
    Fs = 4,
    /// Extra data; has a base in 64-bit mode.
    Gs = 5,
}

/// An exception that the instruction raises in the guest.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Fault {
    /// The vector, 0 to 31.
    pub(crate) vector: u8,
    /// The error code, for vectors that push one.
    pub(crate) error_code: Option<u32>,
    /// What CR2 becomes, for #PF.
    pub(crate) address: Option<u64>,
}

impl Fault {
    /// Returns a general-protection fault with error code 0.
    pub(super) const fn general_protection() -> Self {
        Self::with_error_code(13, 0)
    }

    /// Returns an invalid-opcode fault.
    pub(super) const fn invalid_opcode() -> Self {
        Self::plain(6)
    }

    /// Returns a fault without error code.
    pub(super) const fn plain(vector: u8) -> Self {
        Self {
            vector,
            error_code: None,
            address: None,
        }
    }

    /// Returns a fault with an error code.
    pub(super) const fn with_error_code(vector: u8, error_code: u32) -> Self {
        Self {
            vector,
            error_code: Some(error_code),
            address: None,
        }
    }
}

/// Which instruction asked for an interrupt.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum InterruptKind {
    /// `int n`: a software interrupt.
    Software,
    /// `int3` or `into`: a software exception.
    Exception,
}

/// Why an instruction stopped before its end. Nothing of it has happened in the registers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Stop {
    /// The guest takes an exception.
    Fault(Fault),
    /// The instruction is `int n`, `int3` or `into`, and the CPU has to deliver it through the IDT
    /// of protected mode: inject it with the length of the instruction. RIP has not advanced.
    Interrupt { vector: u8, kind: InterruptKind },
    /// The access must be completed outside, by user space; execute the instruction again after.
    Pending,
    /// This cannot be emulated.
    Unsupported,
}

/// The guest as an instruction sees it.
///
/// Linear addresses are what [`Bus::linear`] returned, plus what a page-crossing access of up to
/// 16 bytes needs: an access may cross from memory to I/O, and wraps where the mode wraps.
pub(crate) trait Bus: System {
    /// Returns the general register `index`, 0 to 15, as encoded (RAX, RCX, RDX, RBX, RSP, ...).
    fn gpr(&self, index: u8) -> u64;

    /// Sets all 64 bits of the general register `index`.
    fn set_gpr(&mut self, index: u8, value: u64);

    /// Returns RFLAGS.
    fn rflags(&self) -> u64;

    /// Sets RFLAGS.
    fn set_rflags(&mut self, value: u64);

    /// Returns RIP: the offset of the instruction that executes.
    fn rip(&self) -> u64;

    /// Sets RIP.
    fn set_rip(&mut self, value: u64);

    /// Returns the mode the instruction was decoded for.
    fn mode(&self) -> Mode;

    /// Returns the bytes of the stack pointer that the stack uses: 2, 4 or 8.
    ///
    /// The default follows the mode. Override it where SS.B can differ from CS.D.
    fn stack_pointer_size(&self) -> u8 {
        match self.mode() {
            Mode::Real | Mode::Virtual8086 | Mode::Protected16 => 2,
            Mode::Protected32 => 4,
            Mode::Long64 => 8,
        }
    }

    /// Returns the linear address of `offset` in `segment` for an access of `size` bytes, 1 to 16.
    ///
    /// Limit, type and canonical form are checked here: the fault is #SS or #GP.
    fn linear(&self, segment: Segment, offset: u64, size: u8, write: bool) -> Result<u64, Stop>;

    /// Checks that execution can continue at `target` in the code segment: #GP if it cannot.
    ///
    /// The default asks for a byte to read there. Override it where code may be execute-only.
    fn check_target(&self, target: u64) -> Result<(), Stop> {
        self.linear(Segment::Cs, target, 1, false).map(|_| ())
    }

    /// Checks that a write of `size` bytes at `linear` would not fault, and writes nothing.
    ///
    /// It precedes reads that cannot be taken back (`ins`) or that would report the wrong kind of
    /// access (read-modify-write). The default lets everything pass: then the access itself
    /// faults.
    fn check_write(&mut self, linear: u64, size: u8) -> Result<(), Stop> {
        let _ = (linear, size);
        Ok(())
    }

    /// Reads `data.len()` bytes, 1 to 16, at `linear`.
    fn read(&mut self, linear: u64, data: &mut [u8]) -> Result<(), Stop>;

    /// Writes `data.len()` bytes, 1 to 16, at `linear`.
    fn write(&mut self, linear: u64, data: &[u8]) -> Result<(), Stop>;

    /// Replaces `old` by `new`, both of 1, 2, 4, 8 or 16 bytes, in one atomic access.
    ///
    /// Returns whether the memory still held `old`. This is the write of an instruction with LOCK
    /// prefix, and of `xchg`.
    fn compare_exchange(&mut self, linear: u64, old: &[u8], new: &[u8]) -> Result<bool, Stop>;

    /// Reads `data.len()` bytes, 1, 2 or 4, from `port`.
    fn port_in(&mut self, port: u16, data: &mut [u8]) -> Result<(), Stop>;

    /// Writes `data.len()` bytes, 1, 2 or 4, to `port`.
    fn port_out(&mut self, port: u16, data: &[u8]) -> Result<(), Stop>;
}
