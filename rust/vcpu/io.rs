// SPDX-License-Identifier: GPL-2.0

//! Port I/O: IN, OUT, INS and OUTS.
//!
//! What no device in the kernel takes goes to the client, a coalesced write only when the client looks,
//! one that signals an eventfd not at all. A string instruction moves as many elements per exit as fit into
//! a page of guest memory and 1024 bytes of data. If its operand is no memory, it is executed in software,
//! element by element.

use super::{
    context::Context,
    emulation::{
        self,
        Start, //
    },
    pending::{
        Pending,
        StringIo, //
    },
    run::Next,
    state::{
        State,
        RAX,
        RCX,
        RDI,
        RSI, //
    },
    tracing,
    Owned,
    Vcpu, //
};
use crate::{
    emulate::Segment as Name,
    trace,
    vm::{
        bus::Space,
        settings::Quirk,
        Vm, //
    },
    vmx::{
        exit::{
            string_operand,
            IoAccess, //
        },
        field,
        vmcs::CurrentVmcs, //
    },
    x86::{
        addr::{
            Gpa,
            PAGE_SIZE, //
        },
        control_regs::Rflags,
        exception::Exception,
        segment_register::SegmentRegister, //
    }, //
};
use kernel::prelude::*;

/// The most bytes of string I/O per exit.
const MAX_STRING: usize = 1024;

/// The port of [`Quirk::Out7eOver`].
const OVER_AT_ONCE: u16 = 0x7e;

impl State {
    /// Does an IN or OUT, or asks the client to.
    pub(crate) fn start_io(
        &mut self,
        vm: &Vm,
        vcpu: &Vcpu,
        vmcs: &CurrentVmcs<'_>,
        io: IoAccess,
    ) -> Next {
        let page = vcpu.run_page();
        if !io.input {
            let bytes = self.gpr(RAX).to_le_bytes();
            trace_port(io.port, io.size, io.input, 1, &bytes);
            let data = bytes.get(..usize::from(io.size)).unwrap_or(&[]);
            if vm.write_device(Space::Pio, io.port.into(), data) {
                self.skip_instruction(vmcs);
                return Next::Resume;
            }
            page.write_data(data);
        } else {
            let mut bytes = [0; 4];
            let data = bytes.get_mut(..usize::from(io.size)).unwrap_or(&mut []);
            if vm.read_device(Space::Pio, io.port.into(), data) {
                self.finish_input(io, bytes);
                self.skip_instruction(vmcs);
                return Next::Resume;
            }
        }
        page.set_io(io.input, io.size, io.port, 1);
        if !io.input && io.port == OVER_AT_ONCE && vm.settings().has(Quirk::Out7eOver) {
            self.skip_instruction(vmcs);
            return Next::ToUser;
        }
        self.pending = Some(Pending::Io {
            io,
            linear_rip: self.linear_rip(vmcs),
            length: vmcs.read(field::VM_EXIT_INSTRUCTION_LENGTH),
        });
        Next::ToUser
    }

    /// Finishes an IN or OUT that the client has done.
    pub(crate) fn complete_io(
        &mut self,
        vcpu: &Vcpu,
        vmcs: &CurrentVmcs<'_>,
        io: IoAccess,
        linear_rip: u64,
        length: u32,
    ) {
        // The client may have moved the guest elsewhere meanwhile.
        if self.linear_rip(vmcs) != linear_rip {
            return;
        }
        if io.input {
            let mut bytes = [0; 4];
            let size = usize::from(io.size);
            vcpu.run_page()
                .read_data(bytes.get_mut(..size).unwrap_or(&mut []));
            self.finish_input(io, bytes);
        }
        self.advance(vmcs, length);
    }

    /// Puts what was read from a port into its register; bytes beyond the size are 0.
    fn finish_input(&mut self, io: IoAccess, bytes: [u8; 4]) {
        trace_port(io.port, io.size, true, 1, &bytes);
        let value = u64::from(u32::from_le_bytes(bytes));
        let old = self.gpr(RAX);
        self.set_gpr(
            RAX,
            match io.size {
                1 => (old & !0xff) | value,
                2 => (old & !0xffff) | value,
                _ => value,
            },
        );
    }

    /// Goes on `length` bytes further.
    pub(crate) fn advance(&mut self, vmcs: &CurrentVmcs<'_>, length: u32) {
        let old = self.rip(vmcs);
        let new = old.wrapping_add(u64::from(length));
        let new = if self.is_64bit(vmcs) {
            new
        } else {
            new & 0xffff_ffff
        };
        self.set_rip(new);
        self.finish_instruction(vmcs);
    }
}

/// Traces port I/O; `data` starts with the first element.
#[inline(always)]
fn trace_port(port: u16, size: u8, input: bool, count: u32, data: &[u8]) {
    trace::kvm_pio(|| {
        let value = tracing::port_value(data, size);
        (!input, u32::from(port), u32::from(size), count, value)
    });
}

/// Reads what a string instruction is about.
pub(crate) fn read_string_io(vmcs: &CurrentVmcs<'_>, io: IoAccess) -> StringIo {
    let operand = string_operand(vmcs);
    StringIo {
        port: io.port,
        size: io.size,
        input: io.input,
        rep: io.rep,
        address_size: operand.address_size,
        segment: if io.input {
            SegmentRegister::Es
        } else {
            operand.segment
        },
        length: vmcs.read(field::VM_EXIT_INSTRUCTION_LENGTH),
        count: 0,
    }
}

impl StringIo {
    /// Returns `value` as an address or count of this instruction.
    fn truncate(&self, value: u64) -> u64 {
        match self.address_size {
            2 => value & 0xffff,
            4 => value & 0xffff_ffff,
            _ => value,
        }
    }

    /// Returns `old` with its part that this instruction uses replaced by `new`.
    fn merge(&self, old: u64, new: u64) -> u64 {
        match self.address_size {
            2 => (old & !0xffff) | (new & 0xffff),
            4 => new & 0xffff_ffff,
            _ => new,
        }
    }

    /// Returns the register that points to memory.
    const fn pointer(&self) -> usize {
        if self.input {
            RDI
        } else {
            RSI
        }
    }

    /// Returns the number of elements that are still to be moved.
    fn remaining(&self, state: &State) -> u64 {
        if self.rep {
            self.truncate(state.gpr(RCX))
        } else {
            1
        }
    }

    fn name(&self) -> Name {
        match self.segment {
            SegmentRegister::Es => Name::Es,
            SegmentRegister::Cs => Name::Cs,
            SegmentRegister::Ss => Name::Ss,
            SegmentRegister::Fs => Name::Fs,
            SegmentRegister::Gs => Name::Gs,
            _ => Name::Ds,
        }
    }

    /// Returns where the parts of the element are that is `ahead` elements after the one at the pointer.
    fn locate(
        &self,
        vm: &Vm,
        state: &State,
        context: &Context,
        ahead: u64,
    ) -> Result<[(Gpa, usize); 2], Exception> {
        let distance = ahead.wrapping_mul(u64::from(self.size));
        let offset = self.truncate(state.gpr(self.pointer()).wrapping_add(distance));
        let size = usize::from(self.size);
        let linear = context.linear(self.name(), offset, u64::from(self.size), self.input)?;
        // CAST: At most the size of a page.
        let first = size.min((PAGE_SIZE - linear % PAGE_SIZE) as usize);
        let start = context.translate(vm, linear, self.input, false)?;
        if first == size {
            return Ok([(start, size), (start, 0)]);
        }
        let rest = context.translate(vm, linear.wrapping_add(first as u64), self.input, false)?;
        Ok([(start, first), (rest, size - first)])
    }

    /// Moves the pointer over one element, and counts it.
    fn advance(&self, state: &mut State, down: bool) {
        let pointer = state.gpr(self.pointer());
        let step = u64::from(self.size);
        let moved = if down {
            pointer.wrapping_sub(step)
        } else {
            pointer.wrapping_add(step)
        };
        state.set_gpr(self.pointer(), self.merge(pointer, moved));
        if self.rep {
            let count = state.gpr(RCX);
            state.set_gpr(RCX, self.merge(count, count.wrapping_sub(1)));
        }
    }
}

/// Starts or goes on with a string I/O instruction: asks the client for the next elements, or ends it.
pub(crate) fn string_io(vm: &Vm, vcpu: &Vcpu, owned: &mut Owned, mut io: StringIo) -> Result<Next> {
    let context = owned.with_vmcs(|vmcs, state| Context::read(state, vmcs));
    let state = &mut owned.state;
    let remaining = io.remaining(state);
    if remaining == 0 {
        owned.with_vmcs(|vmcs, state| state.advance(vmcs, io.length));
        return Ok(Next::Resume);
    }
    let down = state.fetched_rflags() & Rflags::DF.value() != 0;
    let size = u64::from(io.size);

    // An element that the guest may not access faults before the client sees it.
    let parts = match io.locate(vm, state, &context, 0) {
        Ok(parts) => parts,
        Err(exception) => {
            state.raise(exception);
            return Ok(Next::Resume);
        }
    };
    let [(first, first_len), (rest, rest_len)] = parts;
    if io.input && !(vm.memory().is_writable(first) && vm.memory().is_writable(rest)) {
        return emulation::emulate(vm, vcpu, owned, Start::Fetch);
    }
    let elements = |bytes: u64| bytes.checked_div(size).unwrap_or(0);
    let fits = if down {
        1
    } else {
        elements(PAGE_SIZE - first.offset_in_page())
    };
    let mut count = remaining.min(fits).min(elements(MAX_STRING as u64)).max(1);

    let mut data = [0; MAX_STRING];
    // CAST: At most MAX_STRING.
    let len = (count * size) as usize;
    if io.input {
        let answered = data
            .chunks_exact_mut(usize::from(io.size))
            .take(count as usize)
            .position(|element| !vm.read_device(Space::Pio, io.port.into(), element))
            .unwrap_or(count as usize);
        if answered > 0 {
            // CAST: At most MAX_STRING.
            io.count = answered as u32;
            return move_elements(vm, owned, io, &data);
        }
    } else {
        let split = if count == 1 { first_len } else { len };
        let (head, tail) = data.split_at_mut(split.min(MAX_STRING));
        let mut read = vm.memory().read(first, head);
        if count == 1 && rest_len > 0 {
            let tail = tail.get_mut(..rest_len).unwrap_or(&mut []);
            read = read.and_then(|()| vm.memory().read(rest, tail));
        }
        if read.is_err() {
            return emulation::emulate(vm, vcpu, owned, Start::Fetch);
        }
        let data = data.get(..len).unwrap_or(&[]);
        // CAST: At most MAX_STRING.
        trace_port(io.port, io.size, false, count as u32, data);
        let taken = data
            .chunks_exact(usize::from(io.size))
            .take_while(|element| vm.write_device(Space::Pio, io.port.into(), element))
            .count();
        if taken > 0 {
            // CAST: At most MAX_STRING.
            io.count = taken as u32;
            return move_elements(vm, owned, io, &[]);
        }
        if vm.ioeventfds().has(Space::Pio, io.port.into()) {
            // The elements after this one may be theirs again.
            count = 1;
        }
        vcpu.run_page().write_data(data);
    }
    // CAST: At most MAX_STRING.
    io.count = count as u32;
    vcpu.run_page().set_io(io.input, io.size, io.port, io.count);
    state.pending = Some(Pending::StringIo(io));
    Ok(Next::ToUser)
}

/// Finishes the elements that the client was asked for, and goes on.
pub(crate) fn complete_string_io(
    vm: &Vm,
    vcpu: &Vcpu,
    owned: &mut Owned,
    io: StringIo,
) -> Result<Next> {
    let mut data = [0; MAX_STRING];
    if io.input {
        vcpu.run_page().read_data(&mut data);
    }
    move_elements(vm, owned, io, &data)
}

/// Moves the elements that were transferred: what was read, from `data` to memory.
///
/// The client may have changed the count: what it leaves is what counts.
fn move_elements(vm: &Vm, owned: &mut Owned, io: StringIo, data: &[u8]) -> Result<Next> {
    let context = owned.with_vmcs(|vmcs, state| Context::read(state, vmcs));
    let state = &mut owned.state;
    let down = state.fetched_rflags() & Rflags::DF.value() != 0;
    if io.input {
        trace_port(io.port, io.size, true, io.count, data);
    }
    let count = u64::from(io.count).min(io.remaining(state));
    let mut moved = 0;
    while moved < count {
        let run = if io.input {
            match store_run(vm, state, &context, io, data, moved..count)? {
                Ok(run) => run,
                Err(exception) => {
                    state.raise(exception);
                    return Ok(Next::Resume);
                }
            }
        } else {
            count - moved
        };
        for _ in 0..run {
            io.advance(state, down);
        }
        moved += run;
    }
    if io.rep && io.remaining(state) != 0 {
        // Between elements interrupts are taken; the guest starts the instruction over.
        return Ok(Next::Resume);
    }
    owned.with_vmcs(|vmcs, state| state.advance(vmcs, io.length));
    Ok(Next::Resume)
}

/// Writes the first of the `elements` in `data` to memory, where the pointer says, and with it those that
/// lie in the same page after it: one write, for a log of writes too. Returns how many that were.
fn store_run(
    vm: &Vm,
    state: &State,
    context: &Context,
    io: StringIo,
    data: &[u8],
    elements: core::ops::Range<u64>,
) -> Result<Result<u64, Exception>> {
    let size = u64::from(io.size);
    let [(first, first_len), (rest, rest_len)] = match io.locate(vm, state, context, 0) {
        Ok(parts) => parts,
        Err(exception) => return Ok(Err(exception)),
    };
    let mut run = 1;
    if rest_len == 0 && state.fetched_rflags() & Rflags::DF.value() == 0 {
        let most = elements.end.saturating_sub(elements.start);
        let follows = |ahead: u64| {
            let next = first.checked_add(ahead.wrapping_mul(size));
            next.is_some_and(|next| next.gfn() == first.gfn())
                && matches!(io.locate(vm, state, context, ahead),
                    Ok([(gpa, _), (_, 0)]) if Some(gpa) == next)
        };
        while run < most && follows(run) {
            run += 1;
        }
    }
    // CAST: At most MAX_STRING; beyond that there is nothing.
    let start = elements.start.saturating_mul(size) as usize;
    let len = if rest_len == 0 {
        run.saturating_mul(size) as usize
    } else {
        first_len
    };
    let bytes = data.get(start..).unwrap_or(&[]);
    let (head, tail) = bytes.split_at_checked(len).ok_or(EFAULT)?;
    vm.memory().write(first, head)?;
    if rest_len > 0 {
        vm.memory()
            .write(rest, tail.get(..rest_len).unwrap_or(&[]))?;
    }
    Ok(Ok(run))
}
