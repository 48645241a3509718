// SPDX-License-Identifier: GPL-2.0

//! Messages from vCPUs and devices to vCPUs.
//!
//! The VM's table of destinations tells whom a message concerns. Where it cannot, as for broadcasts,
//! the message is shown to each vCPU.

use crate::{
    lapic::{
        lowest_priority_index,
        Action,
        DeliveryMode,
        Effect,
        Lvt,
        Message,
        Sender,
        Shorthand, //
    },
    linux::preempt::PreemptGuard,
    vcpu::{
        request::Request,
        state::State,
        Vcpu, //
    },
    vm::{
        destinations::Concerned,
        irq::End,
        Vcpus,
        Vm, //
    }, //
};
use core::ptr;
use kernel::sync::Arc;

/// Where a message comes from.
#[derive(Clone, Copy)]
enum Source<'a> {
    /// A vCPU.
    Vcpu(&'a Vcpu),
    /// A device.
    Device {
        /// See [`Sender::Device`].
        broadcast_quirk: bool,
    },
}

impl Source<'_> {
    /// Returns the source as `receiver` sees it.
    fn seen_from(self, receiver: &Vcpu) -> Sender {
        match self {
            Self::Vcpu(sender) if ptr::eq(sender, receiver) => Sender::Myself,
            Self::Vcpu(_) => Sender::Other,
            Self::Device { broadcast_quirk } => Sender::Device { broadcast_quirk },
        }
    }

    /// Returns whether the message is shown to the vCPU that sent it.
    fn is(self, receiver: &Vcpu) -> bool {
        matches!(self, Self::Vcpu(sender) if ptr::eq(sender, receiver))
    }
}

/// Delivers a device's message, and returns how many vCPUs accepted it; `None` if there is nobody yet.
///
/// Any thread.
pub(crate) fn deliver(vcpus: &Vcpus, message: &Message) -> Option<usize> {
    let source = device(vcpus);
    match send_by_table(vcpus, message, source) {
        Some(accepted) => accepted.or(Some(0)),
        None => vcpus.with_list(|list| send_from_device(list, message, source)),
    }
}

/// As [`deliver`], but in any context save an NMI; `None` if that would have to wait.
pub(crate) fn try_deliver(vcpus: &Vcpus, message: &Message) -> Option<Option<usize>> {
    let source = device(vcpus);
    match send_by_table(vcpus, message, source) {
        Some(accepted) => Some(accepted.or(Some(0))),
        None => vcpus.try_with_list(|list| send_from_device(list, message, source)),
    }
}

/// Returns the source of a device's message.
fn device(vcpus: &Vcpus) -> Source<'static> {
    Source::Device {
        broadcast_quirk: vcpus.destinations().has_broadcast_quirk(),
    }
}

/// Wakes the vCPU with the physical APIC ID `id` for a guest that has it halt: with a message that
/// nothing else sends.
pub(crate) fn kick(vcpus: &Vcpus, id: u32) {
    let message = Message {
        mode: DeliveryMode::RemoteRead,
        shorthand: Shorthand::None,
        destination: id,
        ..Message::to_self(0)
    };
    deliver(vcpus, &message);
}

/// IPIs that a guest sends at once.
pub(crate) struct IpiRequest {
    /// The lower bits of the set of receivers.
    pub(crate) low: u64,
    /// The bits that follow.
    pub(crate) high: u64,
    /// The physical APIC ID that the first bit stands for.
    pub(crate) first: u32,
    /// The interrupt command, without a destination.
    pub(crate) command: u32,
    /// The bits in each half of the set.
    pub(crate) width: u32,
}

/// Sends IPIs, and returns how many vCPUs accepted one, or `-EINVAL` as KVM's guests know it; `None` if
/// the table of destinations is out of date.
pub(crate) fn send_ipis(vcpus: &Vcpus, request: &IpiRequest) -> Option<i64> {
    /// Logical destinations, and shorthands.
    const DESTINATION: u32 = 1 << 11 | 3 << 18;
    const KVM_EINVAL: i64 = -22;
    if request.command & DESTINATION != 0 {
        return Some(KVM_EINVAL);
    }
    let message = Message::from_command(request.command, 0);
    vcpus.destinations().with_ids(|by_id| {
        let mut accepted = 0;
        let halves = [(request.low, 0), (request.high, request.width)];
        for (mut bits, offset) in halves {
            while bits != 0 {
                // The second half's may wrap, as in KVM.
                let first = request.first.wrapping_add(offset);
                let id = first.checked_add(bits.trailing_zeros());
                bits &= bits.wrapping_sub(1);
                if let Some(vcpu) = id.and_then(|id| by_id.find(id)) {
                    // The sender looks before it enters its guest, but does not know that it is one.
                    accepted += i64::from(vcpu.accept(&message, false));
                }
            }
        }
        accepted
    })
}

/// Delivers a vCPU's message.
fn send(vcpus: &Vcpus, message: &Message, sender: &Vcpu) {
    if message.shorthand == Shorthand::Myself {
        sender.accept(message, true);
        return;
    }
    let source = Source::Vcpu(sender);
    if send_by_table(vcpus, message, source).is_none() {
        vcpus.with_list(|list| send_to_each(list, message, source));
    }
}

/// Delivers a message to those that the table names; `None` if it cannot tell.
///
/// If it can, returns how many vCPUs accepted the message, or `None` if it is for none.
#[inline]
fn send_by_table(vcpus: &Vcpus, message: &Message, source: Source<'_>) -> Option<Option<usize>> {
    let broadcast_quirk = matches!(
        source,
        Source::Device {
            broadcast_quirk: true
        }
    );
    vcpus
        .destinations()
        .find(message, broadcast_quirk, |concerned| {
            send_to(concerned, message, source)
        })
}

/// Delivers a message to those of the table, or to one of them.
fn send_to(concerned: &Concerned<'_>, message: &Message, source: Source<'_>) -> Option<usize> {
    let accept = |vcpu: &Vcpu| usize::from(vcpu.accept(message, source.is(vcpu)));
    if message.is_for_one() {
        let candidates = || concerned.iter().filter(|vcpu| is_software_enabled(vcpu));
        let index = lowest_priority_index(message.vector, candidates().count())?;
        return candidates().nth(index).map(accept);
    }
    let mut receivers = concerned.iter().map(accept);
    let first = receivers.next()?;
    Some(receivers.fold(first, usize::saturating_add))
}

/// See [`deliver`].
fn send_from_device(vcpus: &[Arc<Vcpu>], message: &Message, source: Source<'_>) -> Option<usize> {
    let is_present = |vcpu: &Arc<Vcpu>| {
        vcpu.controller()
            .is_some_and(|controller| controller.lapic().is_enabled())
    };
    send_to_each(vcpus, message, source)
        // One that misses everybody is held back, in KVM's words, by those who are there.
        .or_else(|| vcpus.iter().any(is_present).then_some(0))
}

/// Delivers a message by showing it to each vCPU.
#[cold]
fn send_to_each(vcpus: &[Arc<Vcpu>], message: &Message, source: Source<'_>) -> Option<usize> {
    let chosen = if message.is_for_one() {
        let candidates = vcpus
            .iter()
            .filter(|vcpu| is_candidate(vcpu, message, source))
            .count();
        Some(lowest_priority_index(message.vector, candidates)?)
    } else {
        None
    };
    let mut receivers: usize = 0;
    let mut accepted: usize = 0;
    let mut candidate: usize = 0;
    for vcpu in vcpus {
        let receives = match chosen {
            None => concerns(vcpu, message, source),
            Some(index) => {
                let is_candidate = is_candidate(vcpu, message, source);
                let is_chosen = is_candidate && candidate == index;
                candidate = candidate.saturating_add(usize::from(is_candidate));
                is_chosen
            }
        };
        if receives {
            receivers = receivers.saturating_add(1);
            accepted = accepted.saturating_add(usize::from(vcpu.accept(message, source.is(vcpu))));
        }
    }
    (receivers != 0).then_some(accepted)
}

/// Returns whether the message concerns the vCPU.
fn concerns(vcpu: &Vcpu, message: &Message, source: Source<'_>) -> bool {
    vcpu.controller()
        .is_some_and(|controller| controller.lapic().receives(message, source.seen_from(vcpu)))
}

/// Returns whether software enabled the vCPU's local APIC.
fn is_software_enabled(vcpu: &Vcpu) -> bool {
    vcpu.controller()
        .is_some_and(|controller| controller.lapic().is_software_enabled())
}

/// Returns whether the vCPU may be chosen for a message that only one gets.
fn is_candidate(vcpu: &Vcpu, message: &Message, source: Source<'_>) -> bool {
    concerns(vcpu, message, source) && is_software_enabled(vcpu)
}

impl Vcpu {
    /// Returns whether the vCPU accepts a message that concerns it, and has it look at it.
    ///
    /// `own` tells that the caller is the vCPU's thread, which looks before it enters the guest.
    fn accept(&self, message: &Message, own: bool) -> bool {
        let Some(controller) = self.controller() else {
            return false;
        };
        // Who sends the same vector meanwhile leaves the kick to this thread.
        let _preempt = PreemptGuard::new();
        self.act(controller.lapic().accept(message), own)
    }

    /// Posts an interrupt to the vCPU, whose thread calls this.
    pub(crate) fn post_own(&self, vector: u8) {
        self.accept(&Message::to_self(vector), true);
    }

    /// Returns whether software enabled the local APIC.
    pub(crate) fn is_apic_software_enabled(&self) -> bool {
        is_software_enabled(self)
    }

    /// Signals an entry of the local vector table.
    pub(crate) fn signal(&self, entry: Lvt) {
        if let Some(controller) = self.controller() {
            let _preempt = PreemptGuard::new();
            self.act(controller.lapic().deliver_local(entry), false);
        }
    }

    /// Does what a delivery asks for, and returns whether there was one.
    #[inline]
    fn act(&self, action: Action, own: bool) -> bool {
        match action {
            // There is no system-management mode.
            Action::Discarded | Action::Smi => return false,
            Action::Requested { new } if own || !new => {}
            Action::Posted { .. } | Action::Erred => return self.act_on_posted(action, own),
            Action::Nmi => self.send_nmi(),
            Action::Unhalt => self.unhalt(),
            Action::Requested { .. } | Action::Signalled => {
                self.doorbell().ring(Request::Event);
            }
        }
        true
    }

    /// As [`Self::act`], where the vCPU may have to be notified.
    #[inline(never)]
    fn act_on_posted(&self, action: Action, own: bool) -> bool {
        match action {
            _ if own => {}
            Action::Posted { notify: true } => self.doorbell().notify(),
            Action::Erred => self.doorbell().ring(Request::Event),
            _ => {}
        }
        action.is_delivered()
    }

    /// Does what an access to the local APIC asks for.
    pub(crate) fn perform(&self, vm: &Vm, state: &mut State, effect: Effect) {
        match effect {
            // This thread looks before the next VM entry anyway.
            Effect::None | Effect::Recheck => {}
            Effect::Identity => {
                vm.note_destination(self);
                self.recheck_apicv(state);
            }
            Effect::Eoi {
                vector,
                level,
                suppressed,
            } => {
                let end = End {
                    vector,
                    level,
                    suppressed,
                };
                if vm.irqs().is_some_and(|irqs| irqs.ended(self, end)) {
                    state.events.ioapic_eoi = Some(vector);
                }
            }
            Effect::Ipi(message) => {
                send(vm.vcpus(), &message, self);
            }
            Effect::Timer(wanted) => {
                self.arm_timer(state, wanted);
            }
        }
    }
}
