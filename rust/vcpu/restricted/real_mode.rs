// SPDX-License-Identifier: GPL-2.0

//! Real mode, run as virtual-8086 mode.
//!
//! The two compute addresses in the same way. What differs in virtual-8086 mode, and what is done:
//!
//! * It has privilege level 3: instructions for level 0 fault, exit, and are executed in software. With
//!   IOPL at 3, those for interrupt flag and flags do not fault.
//! * Segments have a limit of 64 KiB and a base of 16 times the selector. What the guest has else is kept
//!   in [`RealMode`] and the guest's instructions are executed in software while it matters
//!   ([`invalid`](super::invalid)).
//! * I/O instructions and INT n look into the TSS. The client gave a place for one in guest memory, with
//!   a map that allows all ports and lets INT n go through the table at address 0, as in real mode.
//! * Exceptions and interrupts would be delivered through gates of protected mode. So all exceptions
//!   exit, nothing is injected, and [`deliver`] does what real mode does.

use super::{
    super::{
        context::Context,
        events::Interrupted,
        exits::{
            Later,
            Step, //
        },
        state::{
            State,
            RSP, //
        },
        Owned, //
    },
    Restricted, //
};
use crate::{
    emulate::Segment as Name,
    vm::Vm,
    vmx::{
        field,
        guest_state::{
            BLOCKING_BY_MOV_SS,
            BLOCKING_BY_STI, //
        },
        inject::{
            EventInfo,
            EventKind, //
        },
        vmcs::CurrentVmcs, //
    },
    x86::{
        control_regs::Rflags,
        exception::{
            Exception,
            Vector, //
        },
        segment::Segment,
        segment_register::SegmentRegister,
        segment_rules::Segments, //
    }, //
};
use kernel::prelude::*;

/// Bytes of the TSS that real mode needs: the TSS itself, the map for INT n, that for ports, and a byte
/// of ones behind it.
pub(crate) const TSS_SIZE: usize = TSS_HEADER + INT_MAP + PORT_MAP + 1;

const TSS_HEADER: usize = 0x68;
const INT_MAP: usize = 256 / 8;
const PORT_MAP: usize = 65536 / 8;

/// Where the TSS has the offset of its map for ports.
pub(crate) const TSS_PORT_MAP_FIELD: u64 = 0x66;

/// That offset. The map for INT n ends there.
pub(crate) const TSS_PORT_MAP: u16 = (TSS_HEADER + INT_MAP) as u16;

/// Bits of RFLAGS that are the VMM's in real mode: they make it virtual-8086 mode without faults of the
/// instructions for flags.
const OWNED_FLAGS: u64 = Rflags::VM.with(Rflags::IOPL).value();

/// What a guest in real mode believes.
pub(crate) struct RealMode {
    segments: Segments,
    /// Those of [`OWNED_FLAGS`].
    flags: u64,
}

/// Returns the place of a register in [`Segments`].
const fn index(register: SegmentRegister) -> usize {
    // CAST: The order of the registers.
    register as usize
}

impl RealMode {
    /// Returns a segment register as the guest sees it.
    ///
    /// The guest loads them without an exit: then the selector in the VMCS is another, and base follows.
    pub(super) fn segment(&self, vmcs: &CurrentVmcs<'_>, register: SegmentRegister) -> Segment {
        let Some(&kept) = self.segments.get(index(register)) else {
            return vmcs.segment(register);
        };
        match register {
            SegmentRegister::Ldtr => vmcs.segment(register),
            SegmentRegister::Tr => kept,
            _ => {
                let now = vmcs.segment(register);
                if now.selector == kept.selector {
                    kept
                } else {
                    Segment {
                        selector: now.selector,
                        base: now.base,
                        ..kept
                    }
                }
            }
        }
    }

    /// Loads a segment register.
    pub(super) fn load_segment(
        &mut self,
        vmcs: &CurrentVmcs<'_>,
        register: SegmentRegister,
        segment: &Segment,
    ) {
        if register == SegmentRegister::Ldtr {
            vmcs.set_segment(register, segment);
            return;
        }
        if let Some(kept) = self.segments.get_mut(index(register)) {
            *kept = *segment;
        }
        if register != SegmentRegister::Tr {
            write_8086(vmcs, register, segment);
        }
    }

    /// Returns RFLAGS as the guest sees it, of what hardware has.
    pub(crate) fn visible_flags(&self, hardware: u64) -> u64 {
        (hardware & !OWNED_FLAGS) | self.flags
    }

    /// Returns RFLAGS for hardware, and keeps what it does not hold.
    pub(crate) fn hide_flags(&mut self, visible: u64) -> u64 {
        self.flags = visible & OWNED_FLAGS;
        visible | OWNED_FLAGS
    }
}

/// Gives hardware a segment of real mode as one of virtual-8086 mode.
fn write_8086(vmcs: &CurrentVmcs<'_>, register: SegmentRegister, segment: &Segment) {
    let mut segment = Segment { dpl: 3, ..*segment };
    if register == SegmentRegister::Cs {
        // A data segment that can be written.
        segment.kind = 3;
    }
    vmcs.set_segment(register, &segment);
}

impl Restricted {
    /// Gives TR the TSS that virtual-8086 mode needs, at `address`.
    pub(super) fn load_tss(&self, vmcs: &CurrentVmcs<'_>, address: u64) {
        if self.real_mode.is_some() {
            let tss = Segment {
                base: address,
                // CAST: About 8 KiB.
                limit: TSS_SIZE as u32 - 1,
                ..Segment::reset_tss()
            };
            vmcs.set_segment(SegmentRegister::Tr, &tss);
        }
    }
}

impl State {
    /// Returns what the guest believes if it is in real mode and run in virtual-8086 mode.
    #[inline]
    pub(crate) fn real_mode(&self) -> Option<&RealMode> {
        self.restricted.as_ref()?.real_mode.as_ref()
    }

    /// As [`State::real_mode`], to be changed.
    pub(crate) fn real_mode_mut(&mut self) -> Option<&mut RealMode> {
        self.restricted.as_mut()?.real_mode.as_mut()
    }

    /// Has hardware go to virtual-8086 mode, as the guest goes to real mode.
    pub(super) fn enter_real_mode(&mut self, vmcs: &CurrentVmcs<'_>) {
        let rflags = self.rflags(vmcs);
        let segments = SegmentRegister::ALL.map(|register| vmcs.segment(register));
        if let Some(restricted) = &mut self.restricted {
            restricted.real_mode = Some(RealMode { segments, flags: 0 });
        }
        // The cache holds what the guest sees, and the next entry writes what hardware is to have.
        self.set_rflags(rflags);
        for (register, segment) in SegmentRegister::ALL.into_iter().zip(&segments) {
            self.load_segment(vmcs, register, segment);
        }
        self.update_exception_bitmap(vmcs);
    }

    /// Has hardware go back to protected mode.
    pub(super) fn leave_real_mode(&mut self, vmcs: &CurrentVmcs<'_>) {
        let rflags = self.rflags(vmcs);
        let segments = self.segments(vmcs);
        if let Some(restricted) = &mut self.restricted {
            restricted.real_mode = None;
        }
        self.set_rflags(rflags);
        for (register, segment) in SegmentRegister::ALL.into_iter().zip(&segments) {
            self.load_segment(vmcs, register, segment);
        }
        self.update_exception_bitmap(vmcs);
    }

    /// Has the next entry deliver an event; in real mode, software does so before it.
    pub(crate) fn inject_event(
        &mut self,
        vmcs: &CurrentVmcs<'_>,
        event: EventInfo,
        instruction_length: u32,
    ) {
        if self.real_mode().is_some() {
            let has_instruction = event.kind.has_instruction();
            self.events.interrupted = Some(Interrupted {
                event,
                instruction_length: if has_instruction {
                    instruction_length
                } else {
                    0
                },
            });
        } else {
            self.end_hlt(vmcs);
            event.inject(vmcs, instruction_length);
            if event.kind == EventKind::Nmi {
                self.note_nmi();
            }
        }
    }

    /// Notes that the handler of an event of this kind begins.
    fn begin_handler(&mut self, vmcs: &CurrentVmcs<'_>, kind: EventKind) {
        let mut blocking = vmcs.read(field::GUEST_INTERRUPTIBILITY);
        blocking &= !(BLOCKING_BY_STI | BLOCKING_BY_MOV_SS);
        vmcs.write(field::GUEST_INTERRUPTIBILITY, blocking);
        if kind == EventKind::Nmi {
            self.set_blocks_nmis(vmcs, true);
        }
    }

    /// Returns whether an event waits to be delivered by software.
    #[inline]
    pub(crate) fn must_deliver(&self) -> bool {
        self.restricted.is_some() && self.events.interrupted.is_some() && self.real_mode().is_some()
    }
}

/// Handles an exception in real mode, all of which exit; NMIs and machine checks have been handled.
pub(crate) fn exception(vmcs: &CurrentVmcs<'_>, state: &mut State, event: EventInfo) -> Step {
    let vector = Vector::new(event.vector);
    let privileged = matches!(vector, Vector::GP | Vector::SS) && event.error_code == Some(0);
    if privileged {
        match state.events.interrupted {
            None => return Step::Later(Later::Emulate),
            // INT n does its own work in hardware; in software it is an instruction like others.
            Some(interrupted) if interrupted.event.kind.has_instruction() => {
                state.events.interrupted = None;
                return Step::Later(Later::Emulate);
            }
            Some(_) => {}
        }
    }
    let length = vmcs.read(field::VM_EXIT_INSTRUCTION_LENGTH);
    if event.kind == EventKind::SoftwareException {
        // INT3 and INTO: the saved IP is behind the instruction.
        state.events.interrupted = Some(Interrupted {
            event,
            instruction_length: length,
        });
        return Step::Resume;
    }
    state.raise(Exception::plain(vector));
    Step::Resume
}

/// Delivers the event that waits, through the interrupt vector table. A guest whose table or stack is no
/// memory shuts down.
pub(super) fn deliver(vm: &Vm, owned: &mut Owned) {
    let Some(interrupted) = owned.state.events.interrupted.take() else {
        return;
    };
    let (context, table) = owned.with_vmcs(|vmcs, state| (Context::read(state, vmcs), vmcs.idtr()));
    let offset = u64::from(interrupted.event.vector) * 4;
    if offset + 3 > u64::from(table.limit) {
        // The event counts as under way: what the fault makes of the two is the CPU's rule.
        owned.state.events.interrupted = Some(interrupted);
        owned.state.raise(Exception::plain(Vector::GP));
        owned.state.events.interrupted = None;
        return;
    }
    let mut target = [0; 4];
    let frame = Frame::new(&owned.state, &context, &interrupted);
    let done = context
        .translate(
            vm,
            table.base.wrapping_add(offset) & 0xffff_ffff,
            false,
            false,
        )
        .map_err(|_| EFAULT)
        .and_then(|gpa| vm.memory().read(gpa, &mut target))
        .and_then(|()| frame.push(vm, &context));
    if done.is_err() {
        owned.state.events.triple_fault = true;
        return;
    }
    let [ip_low, ip_high, cs_low, cs_high] = target;
    let ip = u16::from_le_bytes([ip_low, ip_high]);
    let selector = u16::from_le_bytes([cs_low, cs_high]);
    owned.with_vmcs(|vmcs, state| {
        let code = Segment {
            selector,
            base: u64::from(selector) << 4,
            ..state.segment(vmcs, SegmentRegister::Cs)
        };
        state.load_segment(vmcs, SegmentRegister::Cs, &code);
        state.set_rip(u64::from(ip));
        let sp = state.gpr(RSP);
        state.set_gpr(RSP, (sp & !0xffff) | u64::from(frame.sp));
        let cleared = Rflags::IF
            .with(Rflags::TF)
            .with(Rflags::AC)
            .with(Rflags::RF);
        let rflags = state.rflags(vmcs) & !cleared.value();
        state.set_rflags(rflags);
        state.begin_handler(vmcs, interrupted.event.kind);
    });
}

/// What delivery pushes.
struct Frame {
    /// SP after it.
    sp: u16,
    words: [u16; 3],
}

impl Frame {
    fn new(state: &State, context: &Context, interrupted: &Interrupted) -> Self {
        let next = state
            .fetched_rip()
            .wrapping_add(u64::from(interrupted.instruction_length));
        // CAST: Real mode has 16 bits of each.
        Self {
            sp: (state.gpr(RSP) as u16).wrapping_sub(6),
            words: [
                next as u16,
                context.segment(Name::Cs).selector,
                state.fetched_rflags() as u16,
            ],
        }
    }

    /// Writes the words to the stack, one by one, as SP may wrap between them.
    fn push(&self, vm: &Vm, context: &Context) -> Result {
        for (index, word) in self.words.iter().enumerate() {
            // CAST: At most 4.
            let offset = self.sp.wrapping_add(index as u16 * 2);
            let linear = context
                .linear(Name::Ss, u64::from(offset), 2, true)
                .map_err(|_| EFAULT)?;
            let gpa = context
                .translate(vm, linear, true, false)
                .map_err(|_| EFAULT)?;
            vm.memory().write(gpa, &word.to_le_bytes())?;
        }
        Ok(())
    }
}
