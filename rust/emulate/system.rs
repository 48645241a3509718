// SPDX-License-Identifier: GPL-2.0

//! What system instructions need of the guest: hidden parts of segment registers, descriptor
//! tables, control and debug registers, MSRs.

use super::bus::{
    Segment,
    Stop, //
};

/// Bits of [`SegmentRegister::rights`], which is laid out as in a VMCS: bits 0 to 3 are the type.
pub(super) mod rights {
    /// The type bit of code that can be read, or data that can be written.
    pub(crate) const READ_WRITE: u32 = 1 << 1;
    /// The type bit of conforming code, or data that expands down.
    pub(crate) const CONFORMING: u32 = 1 << 2;
    /// The type bit of code.
    pub(crate) const CODE: u32 = 1 << 3;
    /// Code or data, not a system segment.
    pub(crate) const S: u32 = 1 << 4;
    /// Where the descriptor privilege level starts.
    pub(crate) const DPL_SHIFT: u32 = 5;
    /// Present.
    pub(crate) const PRESENT: u32 = 1 << 7;
    /// 64-bit code.
    pub(crate) const L: u32 = 1 << 13;
    /// 32-bit operands and stack.
    pub(crate) const DB: u32 = 1 << 14;
    /// The descriptor counts the limit in 4 KiB units.
    pub(crate) const G: u32 = 1 << 15;
    /// A null selector was loaded.
    pub(crate) const UNUSABLE: u32 = 1 << 16;
}

/// A segment register with its hidden part.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct SegmentRegister {
    /// The selector.
    pub(crate) selector: u16,
    /// Linear address of the first byte.
    pub(crate) base: u64,
    /// Offset of the last byte, in bytes whatever G says.
    pub(crate) limit: u32,
    /// Access rights as a VMCS has them: bits 40 to 47 and 52 to 55 of the descriptor from bit 0
    /// on, and bit 16 if a null selector was loaded.
    pub(crate) rights: u32,
}

/// A segment register that code does not use to access memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum SystemSegment {
    /// LDTR.
    Ldt,
    /// TR.
    Task,
}

/// A descriptor table.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Table {
    /// GDTR.
    Global,
    /// IDTR.
    Interrupt,
}

/// The register of a descriptor table.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct DescriptorTable {
    /// Linear address of the first byte.
    pub(crate) base: u64,
    /// Offset of the last byte.
    pub(crate) limit: u16,
}

/// What keeps interrupts away until the next instruction is complete.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Shadow {
    /// STI.
    Sti,
    /// MOV SS or POP SS, which keeps away debug exceptions, too.
    MovSs,
}

/// The guest as a system instruction sees it.
///
/// What can fail is asked for before the instruction changes anything else. Privilege is checked
/// by the instruction, values are checked by the implementation, which raises what the CPU would.
/// A change shows in the next instruction, which is decoded in the mode that then is.
pub(crate) trait System {
    /// Returns the current privilege level, 0 to 3: 0 in real mode, 3 in virtual-8086 mode.
    fn cpl(&mut self) -> u8;

    /// Returns whether IA-32e mode is active (EFER.LMA).
    fn long_mode(&mut self) -> bool;

    /// Returns a segment register.
    fn segment(&mut self, name: Segment) -> SegmentRegister;

    /// Sets a segment register. The value was checked.
    fn set_segment(&mut self, name: Segment, value: &SegmentRegister);

    /// Returns LDTR or TR.
    fn system_segment(&mut self, name: SystemSegment) -> SegmentRegister;

    /// Sets LDTR or TR. The value was checked.
    fn set_system_segment(&mut self, name: SystemSegment, value: &SegmentRegister);

    /// Returns GDTR or IDTR.
    fn table(&mut self, table: Table) -> DescriptorTable;

    /// Sets GDTR or IDTR.
    fn set_table(&mut self, table: Table, value: DescriptorTable);

    /// Reads `data.len()` bytes, 1 to 16, of a descriptor table at `linear`, as a supervisor
    /// whatever the privilege level.
    fn read_table(&mut self, linear: u64, data: &mut [u8]) -> Result<(), Stop>;

    /// Writes a byte of a descriptor table at `linear`: the accessed or busy bit of a type.
    fn write_table(&mut self, linear: u64, data: u8) -> Result<(), Stop>;

    /// Returns CR0, CR2, CR3, CR4 or CR8.
    fn control(&mut self, register: u8) -> Result<u64, Stop>;

    /// Sets CR0, CR2, CR3, CR4 or CR8, with all that follows; #GP for a value that is refused.
    fn set_control(&mut self, register: u8, value: u64) -> Result<(), Stop>;

    /// Returns DR0 to DR7; #UD for DR4 and DR5 with CR4.DE, #DB with DR7.GD.
    fn debug(&mut self, register: u8) -> Result<u64, Stop>;

    /// Sets DR0 to DR7; as [`System::debug`], and #GP for a value that is refused.
    fn set_debug(&mut self, register: u8, value: u64) -> Result<(), Stop>;

    /// Returns a model-specific register; #GP for one that does not exist.
    fn read_msr(&mut self, index: u32) -> Result<u64, Stop>;

    /// Sets a model-specific register; #GP for one that does not exist or refuses the value.
    fn write_msr(&mut self, index: u32, value: u64) -> Result<(), Stop>;

    /// Returns EAX, EBX, ECX and EDX of CPUID; #GP if the guest has made it fault.
    fn cpuid(&mut self, leaf: u32, subleaf: u32) -> Result<[u32; 4], Stop>;

    /// Returns the time-stamp counter.
    fn time_stamp(&mut self) -> u64;

    /// Drops the translation of the linear address `linear`.
    fn invalidate(&mut self, linear: u64);

    /// Halts the CPU once this instruction is complete.
    fn halt(&mut self);

    /// Keeps interrupts away until the instruction after this one is complete.
    fn shadow(&mut self, shadow: Shadow);

    /// Ends the blocking of NMIs: an IRET has begun.
    fn unblock_nmis(&mut self);

    /// Checks that SSE instructions, with `wide` those of AVX, can be executed: #UD or #NM.
    fn check_vectors(&mut self, wide: bool) -> Result<(), Stop>;

    /// Returns the vector register `index`, 0 to 15: YMM, as far as the guest has it.
    fn vector(&mut self, index: u8) -> [u8; 32];

    /// Sets the lower half of the vector register `index`, 0 to 15, or with `wide` all of it.
    fn set_vector(&mut self, index: u8, value: &[u8; 32], wide: bool);
}
