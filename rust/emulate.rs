// SPDX-License-Identifier: GPL-2.0

//! Execution of a guest's instructions in software.
//!
//! The CPU runs the guest; what it cannot finish comes here one instruction at a time: an access
//! to an address with no memory behind it (memory-mapped I/O), and code in states that VM entry
//! refuses. Instructions outside the set below end in [`Stop::Unsupported`] or
//! [`DecodeError::Unsupported`], which the caller reports to user space with the bytes.
//!
//! # Vocabulary
//!
//! - **Bus**: the guest as one instruction sees it: registers, memory behind linear addresses and
//!   I/O ports. This module knows nothing else of the virtual machine.
//! - **Offset**: an effective address, before the segment base is added. **Linear**: after.
//! - **Operand size** and **address size**: bytes of data, and of an offset, that the mode and the
//!   prefixes select.
//! - **Element**: what a string instruction handles in one iteration.
//! - **Pending**: an access that user space has to finish. See below.
//!
//! # Steps
//!
//! ```text
//!   bytes --decode()--> Instruction --execute(bus)--> Done      RIP has advanced
//!                                                 +-> Again     RIP has not: execute once more
//!                                                 +-> Err(Stop) nothing has changed
//! ```
//!
//! An instruction that stops has changed no register, flag or RIP, so that it can be started over:
//! registers are written after the last access has succeeded. After [`Stop::Pending`] the caller
//! lets user space finish the access and executes the same instruction on the same registers
//! again, with a bus that answers the accesses that were done before from a log and does not
//! repeat them. The accesses of an instruction, and their order, depend only on the registers and
//! on the data read, so the log lines up. [`Outcome::Again`] is a new start: registers may have
//! advanced by one element, and the log begins empty.
//!
//! # Instructions
//!
//! All with operands in memory or registers, every addressing mode, prefix and operand size:
//!
//! - `mov`, `movzx`, `movsx`, `movsxd`, `movbe`, `movnti`, `cmovcc`, `setcc`, `lea`, `xlat`, `bswap`
//! - `add`, `or`, `adc`, `sbb`, `and`, `sub`, `xor`, `cmp`, `test`, `inc`, `dec`, `not`, `neg`, `mul`,
//!   `imul`, `div`, `idiv`, shifts, rotations, `shld`, `shrd`, `cbw` and `cwd` of all sizes, those on
//!   decimal digits
//! - `xchg`, `xadd`, `cmpxchg`, `cmpxchg8b`, `cmpxchg16b`, `bt`, `bts`, `btr`, `btc`, `bsf`, `bsr`
//! - `movs`, `cmps`, `stos`, `lods`, `scas`, `ins`, `outs`, with and without repeat prefix
//! - `in`, `out`; those on flags; `nop`, `pause` and fences
//! - `push`, `pop`, `pusha`, `popa`, `pushf`, `popf`, `enter`, `leave`, `bound`
//! - near `call`, `jmp`, `ret`, `jcc`, `loop`, `jcxz`; far `jmp`, `call` and `ret` and `iret` within the
//!   privilege level, but for `iret` in IA-32e mode; `int`, `int3`, `into`
//! - moves of segment, control and debug registers, `lds` and the like, `lgdt`, `lidt`, `lldt`, `ltr`,
//!   `sgdt`, `sidt`, `sldt`, `str`, `lmsw`, `smsw`, `clts`, `invlpg`, `wbinvd`, `rdmsr`, `wrmsr`,
//!   `rdtsc`, `cpuid`, `hlt`
//! - `movaps`, `movups`, `movdqa`, `movdqu`, `movntps`, `movntdq`, `movntdqa`, and those for pairs of
//!   `double`, of XMM and, with VEX prefix, YMM registers
//!
//! What goes to another privilege level, through a gate or to another task is left out.
//!
//! # What is left to the caller
//!
//! Single-stepping: RFLAGS.TF as it was before the instruction decides, and what MOV SS keeps away
//! [`System::shadow`] tells; breakpoints, RFLAGS.RF; whether CPUID offers the instruction to the
//! guest; permission to use a port, which [`Bus`] checks; interrupts and exceptions through the IDT of
//! protected mode ([`Stop::Interrupt`], [`Stop::Fault`]), while `int` in real mode is done here. The
//! length of the code segment was checked when the bytes were fetched. What an instruction changes in
//! segments or control registers shows in the mode that the caller gives for the next one.

mod alu;
mod bits;
mod branch;
mod bus;
mod control;
mod decimal;
mod decode;
mod execute;
mod far;
mod flags;
mod instruction;
mod interrupt;
mod modrm;
mod multiply;
mod one_byte;
mod opcode;
mod operand;
mod prefix;
mod remainder;
mod segment;
mod shift;
mod stack;
mod string;
mod system;
mod transfer;
mod two_byte;
mod vector;
mod vex;

// The tests run on the host and see inside: `cargo test` in selftests/emulate-fuzz.
#[cfg(test)]
#[path = "../selftests/emulate-fuzz/src/tests.rs"]
mod tests;

pub(crate) use self::{
    bus::{
        Bus,
        Fault,
        InterruptKind,
        Mode,
        Segment,
        Stop, //
    },
    decode::{
        decode,
        DecodeError, //
    },
    execute::{
        execute,
        Outcome, //
    },
    instruction::Instruction,
    remainder::Remainder,
    system::{
        DescriptorTable,
        SegmentRegister,
        Shadow,
        System,
        SystemSegment,
        Table, //
    }, //
};
