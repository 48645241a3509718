// SPDX-License-Identifier: GPL-2.0

//! Events as a client saves and restores them.
//!
//! KVM's interface knows an exception that is *pending* (to be delivered, with a payload that delivery
//! writes to CR2 or DR6) and one that is *injected* (its delivery was cut short, and begins again). A
//! client that has not asked for the difference is told both, and its payload is delivered early.

use super::{
    events::Interrupted,
    state::State,
    Owned,
    Vcpu, //
};
use crate::{
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
        control_regs::Cr0,
        exception::{
            Exception,
            Vector, //
        }, //
    }, //
};

/// The length of INT n, for an interrupt of that kind that a client restores.
const INT_LENGTH: u32 = 2;

/// An exception as a client sees it.
#[derive(Clone, Copy, Default)]
pub(crate) struct ExceptionState {
    /// Its delivery was cut short.
    pub(crate) injected: bool,
    /// It is to be delivered.
    pub(crate) pending: bool,
    /// The vector.
    pub(crate) vector: u8,
    /// The error code.
    pub(crate) error_code: Option<u32>,
    /// What delivery writes to CR2 or DR6.
    pub(crate) payload: Option<u64>,
}

/// The events of a vCPU as a client sees them.
#[derive(Clone, Copy, Default)]
pub(crate) struct EventState {
    /// The exception.
    pub(crate) exception: ExceptionState,
    /// An external interrupt whose delivery was cut short.
    pub(crate) interrupt: Option<u8>,
    /// That interrupt is one of INT n.
    pub(crate) soft_interrupt: bool,
    /// Blocking by STI.
    pub(crate) sti: bool,
    /// Blocking by MOV SS.
    pub(crate) mov_ss: bool,
    /// An NMI whose delivery was cut short.
    pub(crate) nmi_injected: bool,
    /// NMIs that wait.
    pub(crate) nmis: u8,
    /// An NMI is being handled.
    pub(crate) nmi_masked: bool,
    /// INIT is latched.
    pub(crate) latched_init: bool,
    /// A triple fault is to be reported.
    pub(crate) triple_fault: bool,
}

/// Which parts of an [`EventState`] a client restores that it may leave alone.
#[derive(Clone, Copy, Default)]
pub(crate) struct EventParts {
    /// `nmis`.
    pub(crate) nmis: bool,
    /// `sti` and `mov_ss`.
    pub(crate) blocking: bool,
    /// `latched_init`.
    pub(crate) init: bool,
    /// `triple_fault`.
    pub(crate) triple_fault: bool,
    /// The vector that the next startup IPI has.
    pub(crate) startup_vector: Option<u8>,
}

impl Owned {
    /// Returns the events.
    pub(crate) fn events(&mut self, vm: &Vm, vcpu: &Vcpu) -> EventState {
        self.state.settle_payload(vm);
        self.with_vmcs(|vmcs, state| {
            state.follow_nmi_handler(vmcs);
            state.leave_nmi_handler();
            state.collect_nmis(vcpu, vmcs);
            let blocking = vmcs.read(field::GUEST_INTERRUPTIBILITY);
            EventState {
                exception: state.exception_state(vm.has_exception_payloads()),
                interrupt: state.interrupt_under_way(vcpu),
                soft_interrupt: false,
                sti: blocking & BLOCKING_BY_STI != 0,
                mov_ss: blocking & BLOCKING_BY_MOV_SS != 0,
                nmi_injected: state.interrupted_kind() == Some(EventKind::Nmi),
                nmis: state.events.nmis.waiting(),
                nmi_masked: state.blocks_nmis(vmcs),
                latched_init: vcpu
                    .controller()
                    .is_some_and(|controller| controller.lapic().has_init()),
                triple_fault: state.events.triple_fault,
            }
        })
    }

    /// Replaces the events, but for those that are not among `parts`.
    pub(crate) fn set_events(&mut self, vcpu: &Vcpu, events: &EventState, parts: &EventParts) {
        self.with_vmcs(|vmcs, state| {
            state.collect_nmis(vcpu, vmcs);
            state.restore_under_way(vcpu, vmcs, events);
            let mut blocking = vmcs.read(field::GUEST_INTERRUPTIBILITY);
            if parts.blocking {
                blocking &= !(BLOCKING_BY_STI | BLOCKING_BY_MOV_SS);
                // Both at once are not possible.
                if events.mov_ss {
                    blocking |= BLOCKING_BY_MOV_SS;
                } else if events.sti {
                    blocking |= BLOCKING_BY_STI;
                }
            }
            vmcs.write(field::GUEST_INTERRUPTIBILITY, blocking);
            state.set_blocks_nmis(vmcs, events.nmi_masked);
            if parts.nmis {
                state.events.nmis.set_waiting(events.nmis);
                state.collect_nmis(vcpu, vmcs);
            }
            if parts.triple_fault {
                state.events.triple_fault = events.triple_fault;
            }
        });
        if let Some(controller) = vcpu.controller() {
            if let Some(vector) = parts.startup_vector {
                controller.lapic().set_startup_vector(vector);
            }
            if parts.init {
                controller.lapic().set_init(events.latched_init);
            }
            // What was latched is looked at before the next entry.
            vcpu.doorbell().set(super::request::Request::Event);
        }
    }
}

impl State {
    /// Returns whether an exception is on its way to the guest.
    pub(crate) fn has_exception(&self) -> bool {
        self.events.exception.is_some()
            || matches!(
                self.interrupted_kind(),
                Some(EventKind::HardwareException | EventKind::SoftwareException)
            )
    }

    /// Delivers the payload of a pending exception early, unless the client knows of payloads: one that
    /// does not could not restore it.
    pub(crate) fn settle_payload(&mut self, vm: &Vm) {
        if vm.has_exception_payloads() {
            return;
        }
        let Some(exception) = self.events.exception.as_mut() else {
            return;
        };
        match (exception.vector, exception.payload.take()) {
            (Vector::PF, Some(address)) => self.regs.cr2 = address as usize,
            (Vector::DB, Some(payload)) => self.debug.record(payload),
            _ => {}
        }
    }

    /// Returns the external interrupt that is on its way to the guest.
    pub(crate) fn interrupt_under_way(&self, vcpu: &Vcpu) -> Option<u8> {
        match self.events.interrupted {
            Some(interrupted) if interrupted.event.kind == EventKind::ExternalInterrupt => {
                Some(interrupted.event.vector)
            }
            // Without a local APIC in the kernel, what the client asked for counts as under way.
            _ if vcpu.controller().is_none() => self.events.interrupt,
            _ => None,
        }
    }

    /// Puts an external interrupt on its way to the guest.
    pub(crate) fn resume_interrupt(&mut self, vcpu: &Vcpu, vector: u8) {
        if vcpu.controller().is_none() {
            self.events.interrupt = Some(vector);
        } else {
            self.interrupt_again(EventInfo::interrupt(vector), 0);
        }
    }

    /// Returns the kind of the event whose delivery was cut short.
    fn interrupted_kind(&self) -> Option<EventKind> {
        self.events
            .interrupted
            .map(|interrupted| interrupted.event.kind)
    }

    /// Has the next entry deliver an event once more.
    fn interrupt_again(&mut self, event: EventInfo, instruction_length: u32) {
        self.events.interrupted = Some(Interrupted {
            event,
            instruction_length,
        });
    }

    /// Adds the NMIs that were sent to those that wait.
    fn collect_nmis(&mut self, vcpu: &Vcpu, vmcs: &CurrentVmcs<'_>) {
        self.add_nmis(vmcs, vcpu.take_nmis());
    }

    /// Adds `sent` NMIs to those that wait, as far as the CPU would hold them.
    pub(crate) fn add_nmis(&mut self, vmcs: &CurrentVmcs<'_>, sent: u8) {
        // The CPU holds one more while one is handled.
        let blocked = self.blocks_nmis(vmcs) || self.interrupted_kind() == Some(EventKind::Nmi);
        let limit = if blocked { 1 } else { 2 };
        let nmis = self.events.nmis.waiting().saturating_add(sent);
        self.events.nmis.set_waiting(nmis.min(limit));
    }

    /// Returns the exception that is on its way, as the client sees it.
    fn exception_state(&self, payloads: bool) -> ExceptionState {
        if let Some(exception) = self.events.exception {
            // That of INT3 and INTO is raised again, as RIP has not moved.
            let pending = !exception.vector.is_software();
            return ExceptionState {
                injected: pending && !payloads,
                pending,
                vector: exception.vector.number(),
                error_code: exception.error_code,
                payload: exception.payload,
            };
        }
        match self.events.interrupted {
            Some(Interrupted { event, .. }) if event.kind == EventKind::HardwareException => {
                ExceptionState {
                    injected: true,
                    pending: false,
                    vector: event.vector,
                    error_code: event.error_code,
                    payload: None,
                }
            }
            _ => ExceptionState::default(),
        }
    }

    /// Restores the events that are pending or whose delivery was cut short.
    fn restore_under_way(&mut self, vcpu: &Vcpu, vmcs: &CurrentVmcs<'_>, events: &EventState) {
        let saved = &events.exception;
        let exception = Exception {
            vector: Vector::new(saved.vector),
            error_code: saved.error_code,
            payload: saved.payload,
        };
        self.events.interrupted = None;
        self.events.exception = (saved.pending && !saved.injected).then_some(exception);
        if vcpu.controller().is_none() && !events.soft_interrupt {
            self.events.interrupt = events.interrupt;
        }
        if saved.injected {
            let protected = self.cr0(vmcs).contains(Cr0::PE);
            // INT3 and INTO are one byte long.
            self.interrupt_again(EventInfo::exception(exception, protected), 1);
        } else if events.nmi_injected {
            self.interrupt_again(EventInfo::nmi(), 0);
        } else if let Some(vector) = events.interrupt {
            if events.soft_interrupt {
                let event = EventInfo {
                    kind: EventKind::SoftwareInterrupt,
                    ..EventInfo::interrupt(vector)
                };
                self.interrupt_again(event, INT_LENGTH);
            } else {
                self.resume_interrupt(vcpu, vector);
            }
        }
    }
}
