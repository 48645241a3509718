// SPDX-License-Identifier: GPL-2.0

//! Events on their way to the guest: which one the next entry injects.
//!
//! In this order: an event whose delivery the last exit cut short; an exception that emulation or an
//! exit raised; an NMI; an interrupt. What cannot be delivered yet asks for a window: the CPU exits as
//! soon as the guest unblocks.

use super::{
    nmi::Nmis,
    state::State,
    stats::Event,
    tracing,
    Vcpu, //
};
use crate::{
    vm::Vm,
    vmx::{
        controls::primary,
        exit::Exit,
        field::{
            self,
            Natural, //
        },
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
        control_regs::{
            Cr0,
            Dr6,
            Dr7,
            Rflags, //
        },
        exception::{
            merge,
            Exception,
            Merge,
            Vector, //
        }, //
    }, //
};

/// An event that was being delivered when an exit came.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Interrupted {
    /// The event.
    pub(crate) event: EventInfo,
    /// Length of the instruction that raised it, if one did.
    pub(crate) instruction_length: u32,
}

/// Events on their way to the guest.
#[derive(Default)]
pub(crate) struct Events {
    /// To be delivered again, before anything else.
    pub(crate) interrupted: Option<Interrupted>,
    /// An exception to be delivered.
    pub(crate) exception: Option<Exception>,
    /// NMIs that wait: the CPU holds one more while one is handled.
    pub(crate) nmis: Nmis,
    /// An interrupt from the client's own interrupt controller.
    pub(crate) interrupt: Option<u8>,
    /// The guest got a triple fault.
    pub(crate) triple_fault: bool,
    /// VM entry may not accept the state of a guest that is not unrestricted: look at it.
    pub(crate) entry_unchecked: bool,
    /// The client's I/O APIC is to be told that an interrupt with this vector ended.
    pub(crate) ioapic_eoi: Option<u8>,
    /// An instruction that was executed in software has trapped to the client, which debugs the guest.
    pub(crate) debug_trap: bool,
}

impl Events {
    /// Returns whether something comes before the guest goes on: the client is to be told of it, or
    /// VM entry may not accept the guest's state.
    #[inline]
    pub(crate) fn come_first(&self) -> bool {
        self.triple_fault | self.debug_trap | self.entry_unchecked | self.ioapic_eoi.is_some()
    }

    /// Returns whether the client is to be told something before the guest goes on.
    #[inline]
    pub(crate) fn are_for_client(&self) -> bool {
        self.triple_fault | self.debug_trap | self.ioapic_eoi.is_some()
    }
}

impl State {
    /// Queues an exception, merging it with one that is under way.
    pub(crate) fn raise(&mut self, exception: Exception) {
        let first = self
            .events
            .exception
            .map(|first| first.vector)
            .or_else(|| self.events.interrupted.and_then(interrupted_exception));
        let Some(first) = first else {
            self.events.exception = Some(exception);
            return;
        };
        match merge(first, exception.vector) {
            Merge::Second => self.events.exception = Some(exception),
            Merge::DoubleFault => self.events.exception = Some(Exception::double_fault()),
            Merge::Shutdown => {
                self.events.exception = None;
                self.events.triple_fault = true;
            }
        }
        // The exception takes the place of the one that was interrupted: it will be raised again.
        if self
            .events
            .interrupted
            .and_then(interrupted_exception)
            .is_some()
        {
            self.events.interrupted = None;
        }
    }

    /// Notes the event whose delivery this exit cut short, if it did.
    #[inline]
    pub(crate) fn note_interrupted(&mut self, vmcs: &CurrentVmcs<'_>, exit: &Exit) {
        if !exit.may_interrupt_delivery() {
            return;
        }
        let Some(event) = EventInfo::being_delivered(vmcs) else {
            return;
        };
        let instruction_length = if event.kind.has_instruction() {
            vmcs.read(field::VM_EXIT_INSTRUCTION_LENGTH)
        } else {
            0
        };
        if event.kind == EventKind::Nmi {
            // The NMI was not delivered, so it must not block itself.
            self.set_blocks_nmis(vmcs, false);
        }
        self.events.interrupted = Some(Interrupted {
            event,
            instruction_length,
        });
    }

    /// Returns whether the guest takes interrupts now: RFLAGS.IF is set and nothing blocks.
    pub(crate) fn takes_interrupts(&mut self, vmcs: &CurrentVmcs<'_>) -> bool {
        self.rflags(vmcs) & Rflags::IF.value() != 0
            && vmcs.read(field::GUEST_INTERRUPTIBILITY) & (BLOCKING_BY_STI | BLOCKING_BY_MOV_SS)
                == 0
    }

    /// Sets the window bits of the primary controls to `wanted`.
    pub(crate) fn set_windows(&mut self, vmcs: &CurrentVmcs<'_>, wanted: u32) {
        const WINDOWS: u32 = primary::INTERRUPT_WINDOW_EXITING | primary::NMI_WINDOW_EXITING;
        self.write_primary(vmcs, (self.primary & !WINDOWS) | wanted);
    }

    /// Turns bits of the primary controls on or off.
    pub(crate) fn set_primary(&mut self, vmcs: &CurrentVmcs<'_>, bits: u32, on: bool) {
        let controls = if on {
            self.primary | bits
        } else {
            self.primary & !bits
        };
        self.write_primary(vmcs, controls);
    }

    fn write_primary(&mut self, vmcs: &CurrentVmcs<'_>, controls: u32) {
        if controls != self.primary {
            vmcs.write(field::PRIMARY_CONTROLS, controls);
            self.primary = controls;
        }
    }

    /// Has the next entry inject what is due; interrupts are off and the entry will happen.
    ///
    /// Returns whether it may not: what is due has to be delivered by software first.
    #[inline]
    #[must_use]
    pub(crate) fn inject(
        &mut self,
        vm: &Vm,
        vcpu: &Vcpu,
        vmcs: &CurrentVmcs<'_>,
        window: bool,
    ) -> bool {
        let events = &self.events;
        let quiet = events.interrupted.is_none()
            && events.exception.is_none()
            && events.nmis.is_quiet()
            && events.interrupt.is_none()
            && !window
            && !self.guest_debug.is_on()
            && !self.tpr_shadow.is_to_look()
            && !vcpu.may_have_interrupt();
        if quiet {
            self.set_windows(vmcs, 0);
            false
        } else {
            self.inject_what_waits(vm, vcpu, vmcs, window)
        }
    }

    /// As [`Self::inject`], where there may be something.
    #[inline(never)]
    fn inject_what_waits(
        &mut self,
        vm: &Vm,
        vcpu: &Vcpu,
        vmcs: &CurrentVmcs<'_>,
        window: bool,
    ) -> bool {
        if self.tpr_shadow.always_looks() && self.inject_beside_apicv(vm, vcpu, vmcs, window) {
            return false;
        }
        self.inject_slow::<false>(vm, vcpu, vmcs, window);
        // After an interrupt was taken, and for the TPR as it is now.
        let threshold = vcpu.tpr_threshold(self);
        self.tpr_shadow.set_threshold(vmcs, threshold);
        self.must_deliver()
    }

    /// As [`Self::inject`], of a vCPU to which interrupts are posted; returns whether it is done, since the
    /// processor delivers those of the local APIC.
    #[inline(never)]
    fn inject_beside_apicv(
        &mut self,
        vm: &Vm,
        vcpu: &Vcpu,
        vmcs: &CurrentVmcs<'_>,
        window: bool,
    ) -> bool {
        vcpu.settle_posted(vmcs, self);
        if !self.apicv.is_active() {
            return false;
        }
        let events = &self.events;
        let quiet = events.interrupted.is_none()
            && events.exception.is_none()
            && events.nmis.is_quiet()
            && !window
            && !self.guest_debug.is_on()
            && !vcpu.has_external_interrupt(self);
        if quiet {
            self.set_windows(vmcs, 0);
        } else {
            self.inject_slow::<true>(vm, vcpu, vmcs, window);
        }
        true
    }

    /// Has the next entry inject what is due, but for interrupts of the local APIC if the processor
    /// delivers these.
    #[cold]
    fn inject_slow<const DELIVERS: bool>(
        &mut self,
        vm: &Vm,
        vcpu: &Vcpu,
        vmcs: &CurrentVmcs<'_>,
        window: bool,
    ) {
        let mut windows = 0;
        let mut injected = true;
        self.follow_nmi_handler(vmcs);
        if let Some(interrupted) = self.events.interrupted.take() {
            tracing::injection(vcpu, &interrupted.event, true);
            self.inject_event(vmcs, interrupted.event, interrupted.instruction_length);
        } else if let Some(exception) = self.events.exception.take() {
            self.deliver(vcpu, vmcs, exception);
        } else {
            injected = false;
        }
        self.prepare_step(vmcs);
        if self.guest_debug.blocks_interrupts() {
            self.set_windows(vmcs, 0);
            return;
        }

        let waiting = self.events.nmis.waiting();
        if waiting > 0 {
            const BLOCKING: u32 = BLOCKING_BY_MOV_SS | BLOCKING_BY_STI;
            let blocking = vmcs.read(field::GUEST_INTERRUPTIBILITY);
            if !injected && blocking & BLOCKING == 0 && !self.blocks_nmis(vmcs) {
                tracing::injection(vcpu, &EventInfo::nmi(), false);
                self.inject_event(vmcs, EventInfo::nmi(), 0);
                vcpu.count_event(Event::NmiInjected);
                self.events.nmis.set_waiting(waiting.wrapping_sub(1));
                injected = true;
            }
            if self.events.nmis.waiting() > 0 {
                // Blocking by STI keeps the NMI back here, but not the NMI window of every CPU, which
                // would open again and again. Interrupts are on after STI, so their window serves. And
                // there is no window for NMIs where the CPU does not know what blocks them.
                windows |= if blocking & BLOCKING_BY_STI != 0 || self.nmi_handler.is_some() {
                    primary::INTERRUPT_WINDOW_EXITING
                } else {
                    primary::NMI_WINDOW_EXITING
                };
            }
        }

        let external = vcpu.has_external_interrupt(self);
        let own = if DELIVERS {
            None
        } else {
            vcpu.next_interrupt()
        };
        if external || own.is_some() {
            let mut more = true;
            if !injected && self.takes_interrupts(vmcs) {
                let vector = if external {
                    let vector = vcpu.take_external_interrupt(vm, self);
                    more = own.is_some() || vcpu.has_external_interrupt(self);
                    vector
                } else {
                    // Of those that the local APIC has, none comes before this one ends.
                    more = false;
                    own.inspect(|&vector| vcpu.acknowledge(vector))
                };
                if let Some(vector) = vector {
                    let event = EventInfo::interrupt(vector);
                    tracing::injection(vcpu, &event, false);
                    self.inject_event(vmcs, event, 0);
                    vcpu.count_event(Event::InterruptInjected);
                }
            }
            if more {
                windows |= primary::INTERRUPT_WINDOW_EXITING;
            }
        }
        if window {
            windows |= primary::INTERRUPT_WINDOW_EXITING;
        }
        self.set_windows(vmcs, windows);
    }

    /// Delivers an exception: what it leaves in registers, and the injection.
    fn deliver(&mut self, vcpu: &Vcpu, vmcs: &CurrentVmcs<'_>, exception: Exception) {
        match (exception.vector, exception.payload) {
            (Vector::PF, Some(address)) => {
                vcpu.count_event(Event::FaultOfGuest);
                self.regs.cr2 = address as usize;
            }
            (Vector::DB, payload) => {
                if let Some(payload) = payload {
                    self.debug.record(payload);
                }
                // Delivery clears GD, so that the handler can use the debug registers.
                if self.debug.dr7.contains(Dr7::GD) {
                    let dr7 = self.debug.dr7.without(Dr7::GD);
                    self.load_dr7(vmcs, dr7);
                }
            }
            _ => {}
        }
        if matches!(exception.vector.kind(), crate::x86::exception::Kind::Fault) {
            // The saved image has RF set, so that the instruction can be started over.
            let flags = self.rflags(vmcs) | Rflags::RF.value();
            self.set_rflags(flags);
            self.flush(vmcs);
        }
        if exception.vector == Vector::DB {
            self.match_single_step(vmcs);
        }
        let protected = self.cr0(vmcs).contains(Cr0::PE);
        // INT3 and INTO are one byte long; that is the length if they come from the client.
        let event = EventInfo::exception(exception, protected);
        tracing::injection(vcpu, &event, false);
        self.inject_event(vmcs, event, 1);
    }

    /// Makes pending debug exceptions say what VM entry demands of a guest that steps through an
    /// instruction under blocking by STI or MOV SS: that the step is pending.
    ///
    /// An intercepted #DB takes the step out of there, and leaves the blocking.
    fn match_single_step(&mut self, vmcs: &CurrentVmcs<'_>) {
        let blocking = vmcs.read(field::GUEST_INTERRUPTIBILITY);
        if blocking & (BLOCKING_BY_STI | BLOCKING_BY_MOV_SS) != 0
            && self.rflags(vmcs) & Rflags::TF.value() != 0
        {
            let Natural(pending) = vmcs.read(field::GUEST_PENDING_DEBUG_EXCEPTIONS);
            vmcs.write(
                field::GUEST_PENDING_DEBUG_EXCEPTIONS,
                Natural(pending | Dr6::BS.value()),
            );
        }
    }
}

/// Returns the vector of an interrupted event that is an exception.
fn interrupted_exception(interrupted: Interrupted) -> Option<Vector> {
    match interrupted.event.kind {
        EventKind::HardwareException => Some(Vector::new(interrupted.event.vector)),
        _ => None,
    }
}
