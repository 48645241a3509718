// SPDX-License-Identifier: GPL-2.0

//! What a vCPU waits for its client to do, and finishes at the next KVM_RUN.

use crate::{
    emulate::{
        Instruction,
        Remainder, //
    },
    vmx::exit::IoAccess,
    x86::{
        addr::{
            Gpa,
            PAGE_SIZE, //
        },
        segment_register::SegmentRegister, //
    }, //
};

/// The most device accesses that one instruction (one iteration of a string instruction) makes: a
/// read-modify-write that crosses from one device's page to another's, in pieces of 8 bytes.
pub(crate) const MAX_LOG: usize = 8;

/// An access of an instruction to a device, done.
#[derive(Clone, Copy, Default, Debug)]
pub(crate) struct Done {
    /// What was read; meaningless for a write.
    pub(crate) data: [u8; 8],
}

/// What the client was asked for, for an instruction that is executed in software.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Asked {
    /// To read memory-mapped I/O: as many bytes at this address.
    MmioRead(Gpa, usize),
    /// To read from a port.
    PortRead,
    /// To write.
    Write,
}

/// A translation of a linear address, by the tables of the guest.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Known {
    /// The linear address; `None` if the CPU translated it and tells the offset in the page only.
    pub(crate) linear: Option<u64>,
    /// The guest-physical address.
    pub(crate) gpa: Gpa,
    /// A write is allowed.
    pub(crate) write: bool,
    /// The exit said that there is no memory.
    pub(crate) device: bool,
}

impl Known {
    /// Returns what an exit for an access to `gpa`, where there is no memory, tells. It may have been a
    /// read, if not known to `write`.
    pub(crate) fn by_exit(gpa: Gpa, write: bool) -> Self {
        Self {
            linear: None,
            gpa,
            write,
            device: true,
        }
    }

    /// Returns the address behind `linear`, for a write or a read, if it is in the same page.
    pub(crate) fn find(self, linear: u64, write: bool) -> Option<Gpa> {
        if write && !self.write {
            return None;
        }
        let offset = linear % PAGE_SIZE;
        let same = match self.linear {
            Some(known) => known / PAGE_SIZE == linear / PAGE_SIZE,
            None => self.gpa.offset_in_page() == offset,
        };
        same.then(|| Gpa::new(self.gpa.gfn().to_gpa().value() | offset))
    }
}

/// The accesses to devices that an instruction has made so far.
///
/// When it is executed again, these are answered from here and not repeated.
#[derive(Default, Debug)]
pub(crate) struct AccessLog {
    entries: [Done; MAX_LOG],
    len: usize,
}

impl AccessLog {
    /// Forgets all accesses: an instruction begins.
    pub(crate) fn clear(&mut self) {
        self.len = 0;
    }

    /// Returns the access at `index`, if it was made.
    pub(crate) fn get(&self, index: usize) -> Option<Done> {
        self.entries.get(..self.len)?.get(index).copied()
    }

    /// Returns whether there is no room for another access.
    pub(crate) fn is_full(&self) -> bool {
        self.len >= MAX_LOG
    }

    /// Adds an access; `false` if there is no room.
    pub(crate) fn push(&mut self, done: Done) -> bool {
        match self.entries.get_mut(self.len) {
            Some(entry) => {
                *entry = done;
                self.len += 1;
                true
            }
            None => false,
        }
    }
}

/// A string I/O instruction in the middle.
#[derive(Clone, Copy, Debug)]
pub(crate) struct StringIo {
    /// The port.
    pub(crate) port: u16,
    /// Bytes per element.
    pub(crate) size: u8,
    /// INS, not OUTS.
    pub(crate) input: bool,
    /// With a REP prefix.
    pub(crate) rep: bool,
    /// Bytes per address.
    pub(crate) address_size: u8,
    /// The segment of the memory operand.
    pub(crate) segment: SegmentRegister,
    /// Length of the instruction.
    pub(crate) length: u32,
    /// Elements that the client was asked for.
    pub(crate) count: u32,
}

/// What must be finished before the guest goes on.
pub(crate) enum Pending {
    /// IN or OUT.
    Io {
        /// The access.
        io: IoAccess,
        /// Linear address of the instruction: it is skipped only if the client left RIP there.
        linear_rip: u64,
        /// Length of the instruction.
        length: u32,
    },
    /// INS or OUTS.
    StringIo(StringIo),
    /// RDMSR or WRMSR that the client does.
    Msr {
        /// RDMSR, not WRMSR.
        read: bool,
        /// Length of the instruction.
        length: u32,
    },
    /// A load or store that only has to end.
    Remainder {
        /// What is left of it.
        remainder: Remainder,
        /// What was read: as many bytes at this address; `None` for a store.
        read: Option<(Gpa, usize)>,
        /// RIP of the instruction, and of the next.
        rip: [u64; 2],
    },
    /// A hypercall that the client does.
    Hypercall {
        /// Length of the instruction.
        length: u32,
    },
    /// An instruction that is executed in software and accesses a device.
    Mmio {
        /// The instruction.
        instruction: Instruction,
        /// RIP when it was started.
        rip: u64,
        /// The translation that the access needed.
        known: Option<Known>,
        /// What the client was asked for: the next access to be noted in the vCPU's [`AccessLog`].
        asked: Asked,
    },
}
