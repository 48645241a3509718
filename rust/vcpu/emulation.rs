// SPDX-License-Identifier: GPL-2.0

//! Executing one instruction of the guest in software, because what it accesses is no memory.

use super::{
    context::{
        Context,
        MAX_INSTRUCTION, //
    },
    pending::{
        AccessLog,
        Done,
        Pending, //
    },
    run::Next,
    state::State,
    stats::Event,
    tracing,
    Vcpu, //
};
use crate::{
    bindings,
    emulate::{
        self,
        Bus,
        DecodeError,
        Instruction,
        Mode,
        Outcome,
        Segment as Name,
        Stop, //
    },
    linux::task,
    trace::{
        MMIO_READ,
        MMIO_READ_UNSATISFIED,
        MMIO_WRITE, //
    },
    vm::{
        coalesced::Space,
        Vm, //
    },
    x86::{
        addr::{
            Gpa,
            PAGE_SIZE, //
        },
        control_regs::Rflags,
        exception::{
            Exception,
            Vector, //
        }, //
    }, //
};
use kernel::prelude::*;

/// What the client must do for the instruction, or why it cannot go on.
enum DeviceExit {
    /// Read this many bytes at this address.
    Read(Gpa, usize),
    /// Write these bytes.
    Write(Gpa, usize, [u8; 8]),
    /// Something failed for the client.
    Error(Error),
}

/// The guest as the instruction sees it.
struct Machine<'a> {
    vm: &'a Vm,
    vcpu: &'a Vcpu,
    state: &'a mut State,
    context: &'a Context,
    log: AccessLog,
    /// Accesses to devices in this execution.
    accesses: usize,
    exit: Option<DeviceExit>,
}

/// Turns an exception into what stops an instruction.
fn fault(exception: Exception) -> Stop {
    Stop::Fault(emulate::Fault {
        vector: exception.vector.number(),
        error_code: exception.error_code,
        address: exception.payload,
    })
}

impl Machine<'_> {
    /// Returns what was read by the access to a device that is next in order, or asks for it.
    fn device_read(&mut self, gpa: Gpa, data: &mut [u8]) -> Result<(), Stop> {
        if self.vcpu.read_apic_page(self.vm, self.state, gpa, data) {
            tracing::mmio(MMIO_READ, gpa.value(), data);
            return Ok(());
        }
        let index = self.accesses;
        self.accesses += 1;
        match self.log.get(index) {
            Some(done) => {
                for (target, source) in data.iter_mut().zip(done.data) {
                    *target = source;
                }
                Ok(())
            }
            None => {
                self.exit = Some(DeviceExit::Read(gpa, data.len()));
                Err(Stop::Pending)
            }
        }
    }

    /// Does the write to a device that is next in order, unless it was done.
    fn device_write(&mut self, gpa: Gpa, data: &[u8]) -> Result<(), Stop> {
        if self.vcpu.write_apic_page(self.vm, self.state, gpa, data) {
            tracing::mmio(MMIO_WRITE, gpa.value(), data);
            return Ok(());
        }
        let index = self.accesses;
        self.accesses += 1;
        if self.log.get(index).is_some() {
            return Ok(());
        }
        // Once in the ring, it must not be done again, so first comes the note that it was.
        let before = self.log;
        if self.log.push(Done { data: [0; 8] }) {
            let ring = self.vm.coalesced();
            if ring.write(Space::Mmio, gpa.value(), data) {
                tracing::mmio(MMIO_WRITE, gpa.value(), data);
                return Ok(());
            }
            self.log = before;
        }
        let mut bytes = [0; 8];
        for (target, &source) in bytes.iter_mut().zip(data) {
            *target = source;
        }
        self.exit = Some(DeviceExit::Write(gpa, data.len(), bytes));
        Err(Stop::Pending)
    }

    fn fail(&mut self, error: Error) -> Stop {
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
        // Both pages are translated before the first is touched.
        let mut start = 0;
        while start < len {
            let at = linear.wrapping_add(start as u64);
            self.context
                .translate(self.vm, at, write, false)
                .map_err(fault)?;
            // CAST: At most the size of a page.
            start += (PAGE_SIZE - at % PAGE_SIZE) as usize;
        }
        let mut start = 0;
        while start < len {
            let at = linear.wrapping_add(start as u64);
            let gpa = self
                .context
                .translate(self.vm, at, write, false)
                .map_err(fault)?;
            // CAST: At most the size of a page.
            let end = len.min(start + (PAGE_SIZE - at % PAGE_SIZE) as usize);
            f(self, gpa, start..end)?;
            start = end;
        }
        Ok(())
    }
}

impl Bus for Machine<'_> {
    fn gpr(&self, index: u8) -> u64 {
        self.state.gpr(usize::from(index))
    }

    fn set_gpr(&mut self, index: u8, value: u64) {
        self.state.set_gpr(usize::from(index), value);
    }

    fn rflags(&self) -> u64 {
        self.state.fetched_rflags()
    }

    fn set_rflags(&mut self, value: u64) {
        self.state.set_rflags(value);
    }

    fn rip(&self) -> u64 {
        self.state.fetched_rip()
    }

    fn set_rip(&mut self, value: u64) {
        self.state.set_rip(value);
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
            if machine.vm.memory().read(gpa, part).is_ok() {
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
            if machine.vm.memory().write(gpa, part).is_ok() {
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
        let gpa = self
            .context
            .translate(self.vm, linear, true, false)
            .map_err(fault)?;
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

    fn port_in(&mut self, _port: u16, _data: &mut [u8]) -> Result<(), Stop> {
        // Port I/O exits by itself and is not executed here.
        Err(Stop::Unsupported)
    }

    fn port_out(&mut self, _port: u16, _data: &[u8]) -> Result<(), Stop> {
        Err(Stop::Unsupported)
    }
}

/// Compares and exchanges an aligned word of guest memory; `None` for a size that has no such access.
fn exchange(
    memory: &crate::memory::GuestMemory,
    gpa: Gpa,
    old: &[u8],
    new: &[u8],
) -> Option<Result<bool>> {
    if gpa.value().checked_rem(old.len() as u64) != Some(0) {
        return None;
    }
    match old.len() {
        4 => {
            let old = u32::from_le_bytes(old.try_into().ok()?);
            let new = u32::from_le_bytes(new.try_into().ok()?);
            Some(
                memory
                    .compare_exchange(gpa, old, new)
                    .map(|found| found.is_ok()),
            )
        }
        8 => {
            let old = u64::from_le_bytes(old.try_into().ok()?);
            let new = u64::from_le_bytes(new.try_into().ok()?);
            Some(
                memory
                    .compare_exchange(gpa, old, new)
                    .map(|found| found.is_ok()),
            )
        }
        _ => None,
    }
}

/// How the emulation of an instruction ended, before the VMCS is told.
enum End {
    /// RIP is behind the instruction.
    Done,
    /// An iteration of a string instruction is done.
    Iterated,
    /// The guest goes on with this exception.
    Fault(Exception),
    /// To the client.
    ToUser,
    /// It cannot be emulated.
    Unsupported,
    /// KVM_RUN fails.
    Failed(Error),
}

/// Emulates the instruction at RIP, or goes on with one that the client has done an access for.
pub(crate) fn emulate(
    vm: &Vm,
    vcpu: &Vcpu,
    owned: &mut super::Owned,
    mut resume: Option<(Instruction, AccessLog)>,
) -> Result<Next> {
    loop {
        let context = owned.with_vmcs(|vmcs, state| Context::read(state, vmcs));
        let state = &mut owned.state;
        let (instruction, log) = match resume.take() {
            Some(resumed) => resumed,
            None => match decode(vm, state, &context) {
                Ok(instruction) => (instruction, AccessLog::default()),
                Err(Refused::Fault(exception)) => {
                    state.raise(exception);
                    return Ok(Next::Resume);
                }
                Err(Refused::Unsupported(bytes)) => {
                    return Ok(cannot_emulate(vcpu, &bytes));
                }
            },
        };
        let end = step(vm, vcpu, state, &context, &instruction, log);
        match end {
            End::Done => {
                owned.with_vmcs(|vmcs, state| state.finish_instruction(vmcs));
                return Ok(Next::Resume);
            }
            End::Iterated => {
                let trap = owned.state.fetched_rflags() & Rflags::TF.value() != 0;
                if trap || task::work_pending() || vcpu.doorbell().is_pending() {
                    if trap {
                        owned.with_vmcs(|vmcs, state| state.finish_instruction(vmcs));
                    }
                    return Ok(Next::Resume);
                }
            }
            End::Fault(exception) => {
                owned.state.raise(exception);
                return Ok(Next::Resume);
            }
            End::ToUser => return Ok(Next::ToUser),
            End::Failed(error) => return Err(error),
            End::Unsupported => {
                let bytes = context
                    .fetch(vm, owned.state.fetched_rip())
                    .unwrap_or(([0; MAX_INSTRUCTION], 0));
                return Ok(cannot_emulate(vcpu, &bytes));
            }
        }
    }
}

/// Why an instruction was not decoded.
enum Refused {
    Fault(Exception),
    Unsupported(([u8; MAX_INSTRUCTION], usize)),
}

/// Fetches and decodes the instruction at RIP.
fn decode(vm: &Vm, state: &State, context: &Context) -> Result<Instruction, Refused> {
    let fetched = context
        .fetch(vm, state.fetched_rip())
        .map_err(Refused::Fault)?;
    let (bytes, len) = fetched;
    let bytes = bytes.get(..len).unwrap_or(&[]);
    match emulate::decode(context.mode, bytes) {
        Ok(instruction) => Ok(instruction),
        Err(DecodeError::Invalid) => Err(Refused::Fault(Exception::invalid_opcode())),
        Err(DecodeError::TooLong) => Err(Refused::Fault(Exception::general_protection())),
        Err(DecodeError::Unsupported | DecodeError::Truncated) => {
            Err(Refused::Unsupported(fetched))
        }
    }
}

/// Executes an instruction once.
fn step(
    vm: &Vm,
    vcpu: &Vcpu,
    state: &mut State,
    context: &Context,
    instruction: &Instruction,
    log: AccessLog,
) -> End {
    let rip = state.fetched_rip();
    let mut machine = Machine {
        vm,
        vcpu,
        state,
        context,
        log,
        accesses: 0,
        exit: None,
    };
    let result = emulate::execute(instruction, &mut machine);
    let exit = machine.exit.take();
    let log = machine.log;
    match result {
        Ok(Outcome::Done) => End::Done,
        Ok(Outcome::Again) => End::Iterated,
        Err(Stop::Fault(fault)) => End::Fault(Exception {
            vector: Vector::new(fault.vector),
            error_code: fault.error_code,
            payload: fault.address,
        }),
        Err(Stop::Unsupported) => End::Unsupported,
        Err(Stop::Pending) => {
            vcpu.count_event(Event::MmioExit);
            let read = match exit {
                Some(DeviceExit::Read(gpa, len)) => {
                    // CAST: At most 8.
                    vcpu.run_page().set_mmio(gpa.value(), len as u32, None);
                    let none = [0; 8];
                    tracing::mmio(
                        MMIO_READ_UNSATISFIED,
                        gpa.value(),
                        none.get(..len).unwrap_or(&none),
                    );
                    Some((gpa, len))
                }
                Some(DeviceExit::Write(gpa, len, data)) => {
                    // CAST: At most 8.
                    vcpu.run_page()
                        .set_mmio(gpa.value(), len as u32, Some(data));
                    tracing::mmio(MMIO_WRITE, gpa.value(), data.get(..len).unwrap_or(&data));
                    None
                }
                Some(DeviceExit::Error(error)) => return End::Failed(error),
                None => return End::Unsupported,
            };
            state.pending = Some(Pending::Mmio {
                instruction: *instruction,
                rip,
                log,
                read,
            });
            End::ToUser
        }
    }
}

/// Reports an instruction that cannot be emulated, with its bytes.
fn cannot_emulate(vcpu: &Vcpu, &(bytes, len): &([u8; MAX_INSTRUCTION], usize)) -> Next {
    // The layout of kvm_run's emulation_failure: flags, then the size and the bytes.
    let mut packed = [0; 16];
    if let Some((size, rest)) = packed.split_first_mut() {
        // CAST: At most 15.
        *size = len as u8;
        for (target, source) in rest.iter_mut().zip(bytes) {
            *target = source;
        }
    }
    let mut details = [
        u64::from(bindings::KVM_INTERNAL_ERROR_EMULATION_FLAG_INSTRUCTION_BYTES),
        0,
        0,
    ];
    for (word, chunk) in details.iter_mut().skip(1).zip(packed.chunks_exact(8)) {
        *word = chunk.try_into().map_or(0, u64::from_le_bytes);
    }
    vcpu.run_page()
        .set_internal_error(bindings::KVM_INTERNAL_ERROR_EMULATION, &details);
    Next::ToUser
}

/// Finishes an access to memory-mapped I/O after the client has done it.
pub(crate) fn complete(
    vm: &Vm,
    vcpu: &Vcpu,
    owned: &mut super::Owned,
    instruction: Instruction,
    rip: u64,
    mut log: AccessLog,
    read: Option<(Gpa, usize)>,
) -> Result<Next> {
    let data = if let Some((gpa, len)) = read {
        let data = vcpu.run_page().mmio_data();
        tracing::mmio(MMIO_READ, gpa.value(), data.get(..len).unwrap_or(&data));
        data
    } else {
        [0; 8]
    };
    // The client may have moved the guest elsewhere; then the instruction is abandoned.
    let current = owned.with_vmcs(|vmcs, state| state.rip(vmcs));
    if current != rip {
        return Ok(Next::Resume);
    }
    if !log.push(Done { data }) {
        return Ok(cannot_emulate(vcpu, &([0; MAX_INSTRUCTION], 0)));
    }
    emulate(vm, vcpu, owned, Some((instruction, log)))
}
