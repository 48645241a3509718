// SPDX-License-Identifier: GPL-2.0

//! The guest's machine as an instruction that is executed in software sees it.

use super::super::{
    context::Context,
    pending::{
        Done,
        Known,
        Pending, //
    },
    tracing,
    Owned,
    Vcpu, //
};
use crate::{
    emulate::{
        self,
        Bus,
        Mode,
        Segment as Name,
        Shadow,
        Stop, //
    },
    memory::{
        GuestMemory,
        Word, //
    },
    trace::{
        MMIO_READ,
        MMIO_WRITE, //
    },
    vm::{
        bus::Space,
        Vm, //
    },
    x86::{
        addr::{
            Gpa,
            PAGE_SIZE, //
        },
        exception::Exception, //
    }, //
};
use kernel::prelude::*;

/// What the client must do for the instruction, or why it cannot go on.
pub(super) enum DeviceExit {
    /// Read this many bytes at this address.
    Read(Gpa, usize),
    /// Write these bytes.
    Write(Gpa, usize, [u8; 8]),
    /// Read this many bytes from this port.
    PortRead(u16, usize),
    /// Write to this port the bytes that are in the run page.
    PortWrite(u16, usize),
    /// What the run page has, to be finished in this way.
    Prepared(Pending),
    /// Something failed for the client.
    Error(Error),
}

/// What else an instruction does once it is complete.
#[derive(Clone, Copy)]
pub(super) enum After {
    /// The vCPU halts.
    Halt,
    /// The client, which has the local APIC, is told that the task priority is lower.
    LowerPriority,
}

/// The guest as the instruction sees it.
pub(super) struct Machine<'a> {
    pub(super) vm: &'a Vm,
    pub(super) vcpu: &'a Vcpu,
    pub(super) owned: &'a mut Owned,
    pub(super) context: &'a Context,
    /// Bytes of the instruction.
    pub(super) length: u32,
    /// The translation that was needed last.
    pub(super) known: Option<Known>,
    /// Accesses to devices in this execution.
    pub(super) accesses: usize,
    pub(super) exit: Option<DeviceExit>,
    pub(super) after: Option<After>,
    pub(super) shadow: Option<Shadow>,
}

/// Turns an exception into what stops an instruction.
pub(super) fn fault(exception: Exception) -> Stop {
    Stop::Fault(emulate::Fault {
        vector: exception.vector.number(),
        error_code: exception.error_code,
        address: exception.payload,
    })
}

impl Machine<'_> {
    /// Returns the access to a device that is next in order, if it was done.
    fn next_done(&mut self) -> Option<Done> {
        let index = self.accesses;
        self.accesses += 1;
        self.owned.state.access_log.get(index)
    }

    /// Returns what was read by the access to a device that is next in order, or asks for it.
    fn device_read(&mut self, gpa: Gpa, data: &mut [u8]) -> Result<(), Stop> {
        let state = &mut self.owned.state;
        if self.vcpu.read_apic_page(self.vm, state, gpa, data) {
            tracing::mmio(MMIO_READ, gpa.value(), data);
            return Ok(());
        }
        if self.read_in_kernel(Space::Mmio, gpa.value(), data) {
            return Ok(());
        }
        self.exit = Some(DeviceExit::Read(gpa, data.len()));
        Err(Stop::Pending)
    }

    /// Returns whether the access that is next in order was done, or a device in the kernel answers it
    /// now; `data` has what it reads then.
    pub(super) fn read_in_kernel(&mut self, space: Space, address: u64, data: &mut [u8]) -> bool {
        if let Some(done) = self.next_done() {
            for (target, source) in data.iter_mut().zip(done.data) {
                *target = source;
            }
            return true;
        }
        let answered = self.once(|machine, done| {
            let answered = machine.vm.read_device(space, address, data);
            for (target, &source) in done.data.iter_mut().zip(&*data) {
                *target = source;
            }
            answered
        });
        if answered && space == Space::Mmio {
            tracing::mmio(MMIO_READ, address, data);
        }
        answered
    }

    /// Does the write to a device that is next in order, unless it was done.
    fn device_write(&mut self, gpa: Gpa, data: &[u8]) -> Result<(), Stop> {
        let state = &mut self.owned.state;
        if self.vcpu.write_apic_page(self.vm, state, gpa, data) {
            tracing::mmio(MMIO_WRITE, gpa.value(), data);
            return Ok(());
        }
        if self.write_in_kernel(Space::Mmio, gpa.value(), data) {
            return Ok(());
        }
        let mut bytes = [0; 8];
        for (target, &source) in bytes.iter_mut().zip(data) {
            *target = source;
        }
        self.exit = Some(DeviceExit::Write(gpa, data.len(), bytes));
        Err(Stop::Pending)
    }

    /// Returns whether the write that is next in order was done, or now goes to a device in the kernel
    /// or into the ring of those that the client looks at later.
    pub(super) fn write_in_kernel(&mut self, space: Space, address: u64, data: &[u8]) -> bool {
        if self.next_done().is_some() {
            return true;
        }
        let taken = self.once(|machine, _| machine.vm.write_device(space, address, data));
        if taken && space == Space::Mmio {
            tracing::mmio(MMIO_WRITE, address, data);
        }
        taken
    }

    /// Makes an access that must not be made again when the instruction is executed again, and returns
    /// whether `access` says that it was made.
    pub(super) fn once(&mut self, access: impl FnOnce(&Self, &mut Done) -> bool) -> bool {
        // Room for the note that it was comes first.
        if self.owned.state.access_log.is_full() {
            return false;
        }
        let mut done = Done { data: [0; 8] };
        access(self, &mut done) && self.owned.state.access_log.push(done)
    }

    pub(super) fn fail(&mut self, error: Error) -> Stop {
        self.exit = Some(DeviceExit::Error(error));
        Stop::Pending
    }

    /// Calls `f` for each part of an access that is in one page, and at most 8 bytes if on a device.
    fn for_each_page(
        &mut self,
        linear: u64,
        len: usize,
        write: bool,
        mut f: impl FnMut(&mut Self, Gpa, core::ops::Range<usize>) -> Result<(), Stop>,
    ) -> Result<(), Stop> {
        // CAST: At most the size of a page.
        let in_page = (PAGE_SIZE - linear % PAGE_SIZE) as usize;
        if len <= in_page {
            let gpa = self.translate(linear, write)?;
            return f(self, gpa, 0..len);
        }
        // Both pages are translated before the first is touched.
        let first = self.translate(linear, write)?;
        let second = self.translate(linear.wrapping_add(in_page as u64), write)?;
        f(self, first, 0..in_page)?;
        f(self, second, in_page..len)
    }

    /// Returns whether the exit said that there is no memory at `gpa`.
    fn is_device(&self, gpa: Gpa) -> bool {
        self.known
            .is_some_and(|known| known.device && known.gpa.gfn() == gpa.gfn())
    }

    /// Returns the guest-physical address behind a linear one.
    pub(super) fn translate(&mut self, linear: u64, write: bool) -> Result<Gpa, Stop> {
        if let Some(gpa) = self.known.and_then(|known| known.find(linear, write)) {
            return Ok(gpa);
        }
        let gpa = self
            .context
            .translate(self.vm, linear, write, false)
            .map_err(fault)?;
        self.known = Some(Known {
            linear: Some(linear),
            gpa,
            write,
            device: false,
        });
        Ok(gpa)
    }
}

impl Bus for Machine<'_> {
    fn gpr(&self, index: u8) -> u64 {
        self.owned.state.gpr(usize::from(index))
    }

    fn set_gpr(&mut self, index: u8, value: u64) {
        self.owned.state.set_gpr(usize::from(index), value);
    }

    fn rflags(&self) -> u64 {
        self.owned.state.fetched_rflags()
    }

    fn set_rflags(&mut self, value: u64) {
        self.owned.state.set_rflags(value);
    }

    fn rip(&self) -> u64 {
        self.owned.state.fetched_rip()
    }

    fn set_rip(&mut self, value: u64) {
        self.owned.state.set_rip(value);
    }

    fn mode(&self) -> Mode {
        self.context.mode
    }

    fn stack_pointer_size(&self) -> u8 {
        if self.context.mode == Mode::Long64 {
            8
        } else if self.context.segment(Name::Ss).db {
            4
        } else {
            2
        }
    }

    fn linear(&self, segment: Name, offset: u64, size: u8, write: bool) -> Result<u64, Stop> {
        self.context
            .linear(segment, offset, u64::from(size), write)
            .map_err(fault)
    }

    fn check_write(&mut self, linear: u64, size: u8) -> Result<(), Stop> {
        self.for_each_page(linear, usize::from(size), true, |_, _, _| Ok(()))
    }

    fn read(&mut self, linear: u64, data: &mut [u8]) -> Result<(), Stop> {
        self.for_each_page(linear, data.len(), false, |machine, gpa, range| {
            let part = data.get_mut(range).unwrap_or(&mut []);
            // What the client cannot read either is the client's to answer, as in KVM.
            if !machine.is_device(gpa) && machine.vm.memory().read(gpa, part).is_ok() {
                return Ok(());
            }
            for (index, piece) in part.chunks_mut(8).enumerate() {
                let at = gpa.checked_add(index as u64 * 8).unwrap_or(gpa);
                machine.device_read(at, piece)?;
            }
            Ok(())
        })
    }

    fn write(&mut self, linear: u64, data: &[u8]) -> Result<(), Stop> {
        self.for_each_page(linear, data.len(), true, |machine, gpa, range| {
            let part = data.get(range).unwrap_or(&[]);
            // So is what the client cannot write: a mapping of a device that is read-only, say.
            if !machine.is_device(gpa) && machine.vm.memory().write(gpa, part).is_ok() {
                return Ok(());
            }
            for (index, piece) in part.chunks(8).enumerate() {
                let at = gpa.checked_add(index as u64 * 8).unwrap_or(gpa);
                machine.device_write(at, piece)?;
            }
            Ok(())
        })
    }

    fn compare_exchange(&mut self, linear: u64, old: &[u8], new: &[u8]) -> Result<bool, Stop> {
        let gpa = self.translate(linear, true)?;
        let memory = self.vm.memory();
        if memory.is_writable(gpa) {
            if let Some(result) = exchange(memory, gpa, old, new) {
                return result.map_err(|error| self.fail(error));
            }
        }
        // A device, or an access that no instruction of the host does at once: a plain write.
        self.write(linear, new)?;
        Ok(true)
    }

    fn port_in(&mut self, port: u16, data: &mut [u8]) -> Result<(), Stop> {
        self.read_port(port, data)
    }

    fn port_out(&mut self, port: u16, data: &[u8]) -> Result<(), Stop> {
        self.write_port(port, data)
    }
}

/// Compares and exchanges an aligned word of guest memory; `None` for a size that has no such access.
fn exchange(memory: &GuestMemory, gpa: Gpa, old: &[u8], new: &[u8]) -> Option<Result<bool>> {
    if gpa.value().checked_rem(old.len() as u64) != Some(0) {
        return None;
    }
    let exchange = match old.len() {
        1 => exchange_word::<u8>,
        2 => exchange_word::<u16>,
        4 => exchange_word::<u32>,
        8 => exchange_word::<u64>,
        _ => return None,
    };
    Some(exchange(memory, gpa, old, new))
}

/// Compares and exchanges one word.
fn exchange_word<W: Word>(memory: &GuestMemory, gpa: Gpa, old: &[u8], new: &[u8]) -> Result<bool> {
    let word = |bytes: &[u8]| {
        let mut value = [0; 8];
        for (target, source) in value.iter_mut().zip(bytes) {
            *target = *source;
        }
        W::truncate(u64::from_le_bytes(value))
    };
    let found = memory.compare_exchange(gpa, word(old), word(new))?;
    Ok(found.is_ok())
}
