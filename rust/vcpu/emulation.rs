// SPDX-License-Identifier: GPL-2.0

//! Executing one instruction of the guest in software, because what it accesses is no memory, or
//! because the CPU does not enter the guest in the state that it is in.

mod port;
mod system;

use super::{
    context::{
        Context,
        MAX_INSTRUCTION, //
    },
    events::Interrupted,
    pending::{
        Asked,
        Done,
        Known,
        Pending, //
    },
    run::Next,
    state::{
        MpState,
        State, //
    },
    stats::Event,
    tracing,
    Owned,
    Vcpu, //
};
use crate::{
    bindings,
    emulate::{
        self,
        Bus,
        DecodeError,
        Instruction,
        InterruptKind,
        Mode,
        Outcome,
        Remainder,
        Segment as Name,
        Shadow,
        Stop, //
    },
    linux::task,
    trace::{
        MMIO_READ,
        MMIO_READ_UNSATISFIED,
        MMIO_WRITE, //
    },
    vm::{
        bus::Space,
        Vm, //
    },
    vmx::{
        field,
        guest_state::{
            BLOCKING_BY_MOV_SS,
            BLOCKING_BY_STI, //
        },
        inject::{
            EventInfo,
            EventKind, //
        }, //
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
enum After {
    /// The vCPU halts.
    Halt,
    /// The client, which has the local APIC, is told that the task priority is lower.
    LowerPriority,
}

/// The guest as the instruction sees it.
struct Machine<'a> {
    vm: &'a Vm,
    vcpu: &'a Vcpu,
    owned: &'a mut Owned,
    context: &'a Context,
    /// Bytes of the instruction.
    length: u32,
    /// The translation that was needed last.
    known: Option<Known>,
    /// Accesses to devices in this execution.
    accesses: usize,
    exit: Option<DeviceExit>,
    after: Option<After>,
    shadow: Option<Shadow>,
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
    fn read_in_kernel(&mut self, space: Space, address: u64, data: &mut [u8]) -> bool {
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
    fn write_in_kernel(&mut self, space: Space, address: u64, data: &[u8]) -> bool {
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
    fn once(&mut self, access: impl FnOnce(&Self, &mut Done) -> bool) -> bool {
        // Room for the note that it was comes first.
        if self.owned.state.access_log.is_full() {
            return false;
        }
        let mut done = Done { data: [0; 8] };
        access(self, &mut done) && self.owned.state.access_log.push(done)
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
    fn translate(&mut self, linear: u64, write: bool) -> Result<Gpa, Stop> {
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
    Done(Option<After>, Option<Shadow>),
    /// An iteration of a string instruction is done.
    Iterated,
    /// The guest goes on with this exception.
    Fault(Exception),
    /// The guest goes on with the event that the instruction raises, once it has been injected.
    Inject(EventInfo),
    /// To the client.
    ToUser,
    /// It cannot be emulated.
    Unsupported,
    /// KVM_RUN fails.
    Failed(Error),
}

/// Where emulation starts.
#[derive(Clone, Copy)]
pub(crate) enum Start {
    /// With the instruction at RIP.
    Fetch,
    /// With that, which exited because it accessed this address; whether it is known to write there.
    Access(Gpa, bool),
}

/// Emulates the instruction at RIP.
///
/// The instruction is complete, or has raised an exception, or the client is asked, on return; it
/// was executed in the mode that the guest was in, and the guest may be in another one after. A
/// repeated string instruction goes on until something else wants the vCPU.
pub(crate) fn emulate(vm: &Vm, vcpu: &Vcpu, owned: &mut Owned, start: Start) -> Result<Next> {
    vcpu.count_event(Event::Emulated);
    let mut context = owned.with_vmcs(|vmcs, state| Context::read(state, vmcs));
    match decode(vm, &owned.state, &context) {
        Ok(instruction) => {
            let known = match start {
                Start::Access(gpa, write) if instruction.accesses_one_place() => {
                    Some(Known::by_exit(gpa, write))
                }
                _ => None,
            };
            owned.state.access_log.clear();
            run(vm, vcpu, owned, &mut context, &instruction, known)
        }
        Err(Refused::Fault(exception)) => {
            owned.state.raise(exception);
            Ok(Next::Resume)
        }
        Err(Refused::Unsupported(bytes)) => Ok(give_up(vm, vcpu, owned, &bytes)),
    }
}

/// Executes an instruction that has made the accesses noted so far, with the translation that it needed
/// last.
fn run(
    vm: &Vm,
    vcpu: &Vcpu,
    owned: &mut Owned,
    context: &mut Context,
    instruction: &Instruction,
    mut known: Option<Known>,
) -> Result<Next> {
    if !instruction.accesses_one_place() {
        owned.with_vmcs(|vmcs, state| context.complete(state, vmcs));
    }
    loop {
        // What a POPF or IRET puts there counts for the instruction after it.
        let trap = owned.state.fetched_rflags() & Rflags::TF.value() != 0;
        match step(vm, vcpu, owned, context, instruction, known.take()) {
            End::Done(after, shadow) => {
                finish(owned, trap, shadow);
                return Ok(after.map_or(Next::Resume, |after| do_after(vcpu, owned, after)));
            }
            End::Iterated => {
                if trap || task::work_pending() || vcpu.doorbell().is_pending() {
                    if trap {
                        finish(owned, trap, None);
                    }
                    return Ok(Next::Resume);
                }
                owned.state.access_log.clear();
            }
            End::Fault(exception) => {
                owned.state.raise(exception);
                return Ok(Next::Resume);
            }
            End::Inject(event) => {
                owned.state.events.interrupted = Some(Interrupted {
                    event,
                    instruction_length: u32::from(instruction.length()),
                });
                return Ok(Next::Resume);
            }
            End::ToUser => return Ok(Next::ToUser),
            End::Failed(error) => return Err(error),
            End::Unsupported => {
                let bytes = context
                    .fetch(vm, owned.state.fetched_rip())
                    .unwrap_or(([0; MAX_INSTRUCTION], 0));
                return Ok(give_up(vm, vcpu, owned, &bytes));
            }
        }
    }
}

/// Does what the end of an instruction does besides moving RIP. A single step traps if RFLAGS.TF was
/// set before, not after MOV SS; other blocking ends, and that of the instruction begins.
fn finish(owned: &mut Owned, trap: bool, shadow: Option<Shadow>) {
    owned.with_vmcs(|vmcs, state| {
        state.end_blocking(vmcs);
        match shadow {
            Some(Shadow::Sti) => vmcs.set_bits(field::GUEST_INTERRUPTIBILITY, BLOCKING_BY_STI),
            Some(Shadow::MovSs) => {
                vmcs.set_bits(field::GUEST_INTERRUPTIBILITY, BLOCKING_BY_MOV_SS);
            }
            None => {}
        }
        if trap && shadow != Some(Shadow::MovSs) {
            state.step_trap();
        }
    });
}

/// Does what an instruction does once it is complete.
fn do_after(vcpu: &Vcpu, owned: &mut Owned, after: After) -> Next {
    match after {
        After::Halt if vcpu.controller().is_some() => {
            // The run loop sleeps until there is something to do.
            owned.state.mp_state = MpState::Halted;
            Next::Resume
        }
        After::Halt => {
            vcpu.run_page().set_plain(bindings::KVM_EXIT_HLT);
            Next::ToUser
        }
        After::LowerPriority => {
            vcpu.run_page().set_plain(bindings::KVM_EXIT_SET_TPR);
            Next::ToUser
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
    // One byte more than needed: two words are copied faster.
    let (fetched, len) = context
        .fetch::<{ MAX_INSTRUCTION + 1 }>(vm, state.fetched_rip())
        .map_err(Refused::Fault)?;
    let bytes = fetched.get(..len.min(MAX_INSTRUCTION)).unwrap_or(&[]);
    match emulate::decode(context.mode, bytes) {
        Ok(instruction) => Ok(instruction),
        Err(DecodeError::Invalid) => Err(Refused::Fault(Exception::invalid_opcode())),
        Err(DecodeError::TooLong) => Err(Refused::Fault(Exception::general_protection())),
        Err(DecodeError::Unsupported | DecodeError::Truncated) => {
            let mut unknown = [0; MAX_INSTRUCTION];
            for (target, source) in unknown.iter_mut().zip(bytes) {
                *target = *source;
            }
            Err(Refused::Unsupported((unknown, bytes.len())))
        }
    }
}

/// Executes an instruction once.
// Inlined into a loop, all that any operation might look at would be computed before.
#[inline(never)]
fn step(
    vm: &Vm,
    vcpu: &Vcpu,
    owned: &mut Owned,
    context: &Context,
    instruction: &Instruction,
    known: Option<Known>,
) -> End {
    let rip = owned.state.fetched_rip();
    let mut machine = Machine {
        vm,
        vcpu,
        owned,
        context,
        length: u32::from(instruction.length()),
        known,
        accesses: 0,
        exit: None,
        after: None,
        shadow: None,
    };
    let result = emulate::execute(instruction, &mut machine);
    let Machine {
        exit,
        known,
        accesses,
        after,
        shadow,
        ..
    } = machine;
    match result {
        Ok(Outcome::Done) => End::Done(after, shadow),
        Ok(Outcome::Again) => End::Iterated,
        Err(Stop::Fault(fault)) => End::Fault(Exception {
            vector: Vector::new(fault.vector),
            error_code: fault.error_code,
            payload: fault.address,
        }),
        Err(Stop::Interrupt { vector, kind }) => End::Inject(EventInfo {
            kind: match kind {
                InterruptKind::Software => EventKind::SoftwareInterrupt,
                InterruptKind::Exception => EventKind::SoftwareException,
            },
            vector,
            error_code: None,
            nmi_unblocked: false,
        }),
        Err(Stop::Unsupported) => End::Unsupported,
        Err(Stop::Pending) => {
            let asked = match exit {
                Some(DeviceExit::Error(error)) => return End::Failed(error),
                Some(DeviceExit::Prepared(pending)) => {
                    owned.state.pending = Some(pending);
                    return End::ToUser;
                }
                Some(exit) => {
                    if let Some(pending) = remainder(context, instruction, rip, accesses, &exit) {
                        owned.state.pending = Some(pending);
                        return match ask(vcpu, exit) {
                            Some(_) => End::ToUser,
                            None => End::Unsupported,
                        };
                    }
                    ask(vcpu, exit)
                }
                None => None,
            };
            let Some(asked) = asked else {
                return End::Unsupported;
            };
            owned.state.pending = Some(Pending::Mmio {
                instruction: *instruction,
                rip,
                known,
                asked,
            });
            End::ToUser
        }
    }
}

/// Returns what there is to finish once the client has done `exit`, if that is all that the instruction
/// accesses and nothing needs to be computed again.
fn remainder(
    context: &Context,
    instruction: &Instruction,
    rip: u64,
    accesses: usize,
    exit: &DeviceExit,
) -> Option<Pending> {
    let (len, read) = match exit {
        DeviceExit::Read(gpa, len) => (*len, Some((*gpa, *len))),
        DeviceExit::Write(_, len, _) => (*len, None),
        _ => return None,
    };
    if accesses != 1 {
        return None;
    }
    Some(Pending::Remainder {
        remainder: instruction.remainder(len)?,
        read,
        rip: [rip, context.next_rip(rip, instruction.length())],
    })
}

/// Asks the client to do an access to a device; `None` for what is none.
fn ask(vcpu: &Vcpu, exit: DeviceExit) -> Option<Asked> {
    let page = vcpu.run_page();
    match exit {
        DeviceExit::Read(gpa, len) => {
            vcpu.count_event(Event::MmioExit);
            // CAST: At most 8.
            page.set_mmio(gpa.value(), len as u32, None);
            let none = [0; 8];
            let nothing = none.get(..len).unwrap_or(&none);
            tracing::mmio(MMIO_READ_UNSATISFIED, gpa.value(), nothing);
            Some(Asked::MmioRead(gpa, len))
        }
        DeviceExit::Write(gpa, len, data) => {
            vcpu.count_event(Event::MmioExit);
            // CAST: At most 8.
            page.set_mmio(gpa.value(), len as u32, Some(data));
            tracing::mmio(MMIO_WRITE, gpa.value(), data.get(..len).unwrap_or(&data));
            Some(Asked::Write)
        }
        DeviceExit::PortRead(port, len) => {
            // CAST: At most 4, as below.
            page.set_io(true, len as u8, port, 1);
            Some(Asked::PortRead)
        }
        DeviceExit::PortWrite(port, len) => {
            page.set_io(false, len as u8, port, 1);
            Some(Asked::Write)
        }
        DeviceExit::Prepared(_) | DeviceExit::Error(_) => None,
    }
}

/// Gives up an instruction that cannot be emulated: the guest gets #UD, and the client is told if it was
/// the guest's kernel, or wants to know in any case (KVM_CAP_EXIT_ON_EMULATION_FAILURE: instead of #UD).
fn give_up(
    vm: &Vm,
    vcpu: &Vcpu,
    owned: &mut Owned,
    bytes: &([u8; MAX_INSTRUCTION], usize),
) -> Next {
    vcpu.count_event(Event::EmulationFailed);
    if vm.settings().exits_on_emulation_failure() {
        return cannot_emulate(vcpu, owned, bytes);
    }
    owned.state.raise(Exception::invalid_opcode());
    if owned.with_vmcs(|vmcs, state| state.cpl(vmcs)) == 0 {
        cannot_emulate(vcpu, owned, bytes)
    } else {
        Next::Resume
    }
}

/// Reports an instruction that cannot be emulated, with its bytes if there are any, and the exit that led
/// to it.
fn cannot_emulate(
    vcpu: &Vcpu,
    owned: &mut Owned,
    &(bytes, len): &([u8; MAX_INSTRUCTION], usize),
) -> Next {
    // The layout of kvm_run's emulation_failure: flags, then the size and the bytes, no-operations
    // behind them.
    let mut packed = [0x90; 16];
    if let Some((size, rest)) = packed.split_first_mut() {
        // CAST: At most 15.
        *size = len as u8;
        for (target, source) in rest.iter_mut().zip(bytes.into_iter().take(len)) {
            *target = source;
        }
    }
    let [mut first, mut second] = [0; 2];
    for (word, chunk) in [&mut first, &mut second]
        .into_iter()
        .zip(packed.chunks_exact(8))
    {
        *word = chunk.try_into().map_or(0, u64::from_le_bytes);
    }
    let reason = u64::from(owned.state.regs.exit_reason);
    let [qualification, vectoring, info, code] = owned.with_vmcs(|vmcs, _| {
        let info = vmcs.read(field::VM_EXIT_INTERRUPTION_INFO);
        let event = EventInfo::of_exit(vmcs);
        [
            vmcs.read(field::EXIT_QUALIFICATION).0,
            u64::from(vmcs.read(field::IDT_VECTORING_INFO)),
            u64::from(info),
            event.error_code.map_or(0, u64::from),
        ]
    });
    let flag = u64::from(bindings::KVM_INTERNAL_ERROR_EMULATION_FLAG_INSTRUCTION_BYTES);
    let details = if len == 0 {
        [0, reason, qualification, vectoring, info, code, 0, 0]
    } else {
        [
            flag,
            first,
            second,
            reason,
            qualification,
            vectoring,
            info,
            code,
        ]
    };
    let count = if len == 0 { 6 } else { 8 };
    vcpu.run_page().set_internal_error(
        bindings::KVM_INTERNAL_ERROR_EMULATION,
        details.get(..count).unwrap_or(&[]),
    );
    Next::ToUser
}

/// Finishes a load or store after the client has done its access.
pub(crate) fn complete_remainder(
    vcpu: &Vcpu,
    owned: &mut Owned,
    remainder: Remainder,
    read: Option<(Gpa, usize)>,
    [rip, next_rip]: [u64; 2],
) {
    let mut data = [0; 8];
    if let Some((gpa, len)) = read {
        data = vcpu.run_page().mmio_data();
        tracing::mmio(MMIO_READ, gpa.value(), data.get(..len).unwrap_or(&data));
    }
    owned.with_vmcs(|vmcs, state| {
        // The client may have moved the guest elsewhere; then the instruction is abandoned.
        if state.rip(vmcs) != rip {
            return;
        }
        if let Remainder::Load(load) = remainder {
            let register = usize::from(load.register());
            let old = state.gpr_with(vmcs, register);
            state.set_gpr(register, load.apply(old, data));
        }
        state.set_rip(next_rip);
        state.finish_instruction(vmcs);
    });
}

/// Finishes an access to a device after the client has done it.
pub(crate) fn complete(
    vm: &Vm,
    vcpu: &Vcpu,
    owned: &mut Owned,
    instruction: Instruction,
    rip: u64,
    known: Option<Known>,
    asked: Asked,
) -> Result<Next> {
    let mut data = [0; 8];
    match asked {
        Asked::MmioRead(gpa, len) => {
            data = vcpu.run_page().mmio_data();
            tracing::mmio(MMIO_READ, gpa.value(), data.get(..len).unwrap_or(&data));
        }
        Asked::PortRead => vcpu.run_page().read_data(&mut data),
        Asked::Write => {}
    }
    // The client may have moved the guest elsewhere; then the instruction is abandoned.
    let current = owned.with_vmcs(|vmcs, state| state.rip(vmcs));
    if current != rip {
        return Ok(Next::Resume);
    }
    if !owned.state.access_log.push(Done { data }) {
        return Ok(cannot_emulate(vcpu, owned, &([0; MAX_INSTRUCTION], 0)));
    }
    let mut context = owned.with_vmcs(|vmcs, state| Context::read(state, vmcs));
    run(vm, vcpu, owned, &mut context, &instruction, known)
}
