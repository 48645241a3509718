// SPDX-License-Identifier: GPL-2.0

//! Messages from vCPUs and devices to vCPUs.

use crate::{
    lapic::{
        lowest_priority_index,
        Action,
        Effect,
        Message,
        Sender, //
    },
    vcpu::{
        request::Request,
        state::State,
        Vcpu, //
    },
    vm::{
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
}

/// Delivers a device's message, and returns how many vCPUs accepted it; `None` if there is nobody yet.
///
/// `broadcast_quirk` tells that 0xff is everyone, see [`Sender::Device`]. Any thread.
pub(crate) fn deliver(vcpus: &Vcpus, message: &Message, broadcast_quirk: bool) -> Option<usize> {
    vcpus.with_list(|list| send_from_device(list, message, broadcast_quirk))
}

/// As [`deliver`], but in any context save an NMI; `None` if that would have to wait.
pub(crate) fn try_deliver(
    vcpus: &Vcpus,
    message: &Message,
    broadcast_quirk: bool,
) -> Option<Option<usize>> {
    vcpus.try_with_list(|list| send_from_device(list, message, broadcast_quirk))
}

/// See [`deliver`].
fn send_from_device(
    vcpus: &[Arc<Vcpu>],
    message: &Message,
    broadcast_quirk: bool,
) -> Option<usize> {
    let is_present = |vcpu: &Arc<Vcpu>| {
        vcpu.controller()
            .is_some_and(|controller| controller.lapic().is_enabled())
    };
    send(vcpus, message, Source::Device { broadcast_quirk })
        // One that misses everybody is held back, in KVM's words, by those who are there.
        .or_else(|| vcpus.iter().any(is_present).then_some(0))
}

/// Delivers a message, and returns how many vCPUs accepted it; `None` if it is for none.
fn send(vcpus: &[Arc<Vcpu>], message: &Message, source: Source<'_>) -> Option<usize> {
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
            let own = source.seen_from(vcpu) == Sender::Myself;
            accepted = accepted.saturating_add(usize::from(vcpu.accept(message, own)));
        }
    }
    (receivers != 0).then_some(accepted)
}

/// Returns whether the message concerns the vCPU.
fn concerns(vcpu: &Vcpu, message: &Message, source: Source<'_>) -> bool {
    vcpu.controller()
        .is_some_and(|controller| controller.lapic().receives(message, source.seen_from(vcpu)))
}

/// Returns whether the vCPU may be chosen for a message that only one gets.
fn is_candidate(vcpu: &Vcpu, message: &Message, source: Source<'_>) -> bool {
    concerns(vcpu, message, source)
        && vcpu
            .controller()
            .is_some_and(|controller| controller.lapic().is_software_enabled())
}

impl Vcpu {
    /// Returns whether the vCPU accepts a message that concerns it, and has it look at it.
    ///
    /// `own` tells that the caller is the vCPU's thread, which looks before it enters the guest.
    fn accept(&self, message: &Message, own: bool) -> bool {
        let Some(controller) = self.controller() else {
            return false;
        };
        match controller.lapic().accept(message) {
            // There is no system-management mode.
            Action::Discarded | Action::Smi => return false,
            Action::Requested { new } if own || !new => {}
            Action::Nmi => self.send_nmi(),
            Action::Requested { .. } | Action::Signalled | Action::Unhalt => {
                self.doorbell().ring(Request::Event);
            }
        }
        true
    }

    /// Does what an access to the local APIC asks for.
    pub(crate) fn perform(&self, vm: &Vm, state: &mut State, effect: Effect) {
        match effect {
            // This thread looks before the next VM entry anyway.
            Effect::None | Effect::Recheck => {}
            // Destinations are looked up in the APICs themselves, so nothing is stale.
            Effect::Identity => {}
            // The client's I/O APIC would want to know; no route tells yet which vectors are its.
            Effect::Eoi { .. } => {}
            Effect::Ipi(message) => {
                vm.vcpus()
                    .with_list(|list| send(list, &message, Source::Vcpu(self)));
            }
            Effect::Timer(wanted) => {
                if let (Some(controller), Some(owned)) = (self.controller(), state.lapic.as_mut()) {
                    controller.arm(owned, state.tsc, wanted);
                }
            }
        }
    }
}
