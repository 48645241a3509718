// SPDX-License-Identifier: GPL-2.0

//! What the processor does of the local APIC, and how the vCPU keeps to it: FlexPriority in use.
//!
//! `vmx/flexpriority.rs` has the mechanism, `lapic/priority.rs` the threshold, and
//! `mmu/apic_access.rs` the page. Here a vCPU follows the mode of its local APIC:
//!
//! | mode | accesses |
//! |---|---|
//! | disabled | exit or not as if there was no APIC |
//! | xAPIC, registers at the usual address | to the TPR virtualised; others exit as such |
//! | xAPIC, registers elsewhere | emulated as those to a device |
//! | x2APIC | to the MSR of the TPR virtualised; others exit as those to any MSR |
//!
//! Of these others the processor virtualises most where it has APICv, see [`super::apicv`].

use crate::{
    lapic::{
        Effect,
        Mode,
        Register, //
    },
    mmu::{
        ApicAccessPage,
        APIC_ACCESS, //
    },
    vcpu::{
        request::Request,
        reset,
        state::State,
        Owned,
        Vcpu, //
    },
    vm::Vm,
    vmx::{
        flexpriority::Accesses,
        tlb::Owed, //
    }, //
};
use kernel::prelude::*;

/// Where the register for the end of an interrupt is in the page.
pub(crate) const EOI_OFFSET: u16 = Register::EOI.offset();

impl Vcpu {
    /// Ends the interrupt in service.
    pub(crate) fn end_of_interrupt(&self, vm: &Vm, state: &mut State) {
        let effect = match (self.controller(), state.lapic.as_ref()) {
            (Some(controller), Some(owned)) => controller.lapic().end_of_interrupt(owned),
            _ => Effect::None,
        };
        self.perform(vm, state, effect);
    }
}

impl Owned {
    /// Has the processor virtualise the accesses that belong to the mode of the local APIC.
    ///
    /// To be called when [`Request::ApicAccess`] was taken. If that is set again, a signal waits.
    pub(crate) fn follow_apic_mode(&mut self, vm: &Vm, vcpu: &Vcpu) {
        let Some(controller) = vcpu.controller() else {
            return;
        };
        let (mode, address) = (controller.lapic().mode(), controller.lapic().address());
        let in_place = mode == Mode::Xapic && address == APIC_ACCESS.value();
        let flexpriority = vm.capabilities().flexpriority();
        if flexpriority && self.state.inhibits_apic_access == in_place {
            self.state.inhibits_apic_access = !in_place;
            vm.mmu().inhibit_apic_access(!in_place);
        }
        let accesses = match mode {
            Mode::X2apic if vm.capabilities().virtualizes_x2apic() => Accesses::X2apic,
            Mode::Xapic if in_place && flexpriority => match vm.mmu().apic_access_page() {
                ApicAccessPage::At(page) => Accesses::Page(page),
                ApicAccessPage::Absent => Accesses::None,
                ApicAccessPage::Lost => {
                    // For good, so that no later memory of the client's is taken for registers.
                    vm.mmu().inhibit_apic_access(true);
                    Accesses::None
                }
                ApicAccessPage::Interrupted => {
                    vcpu.doorbell().set(Request::ApicAccess);
                    return;
                }
            },
            _ => Accesses::None,
        };
        let apicv = vcpu.wants_apicv(&self.state, accesses);
        if accesses == self.state.accesses && apicv == self.state.apicv.is_active() {
            return;
        }
        self.with_vmcs(|vmcs, state| {
            if accesses != state.accesses {
                state.accesses = accesses;
                accesses.write_page(vmcs);
                // What the processor cached of the page, it cached for the way it was used.
                state.owed = Owed::ALL;
            }
            if state.apicv.set_active(apicv) {
                state.apicv.write_pin(vmcs);
                state.tpr_shadow.set_threshold(vmcs, 0);
                controller.change_hands(apicv);
            }
            reset::set_secondary(vm.hypervisor(), vmcs, state, vcpu.vpid().is_some());
        });
        self.update_intercepts(vm);
    }
}

#[kunit_tests(kvm_rs_tpr_threshold)]
mod tests {
    use crate::lapic::Priorities;

    /// Returns whether a processor with this state accepts its highest request, in the words of the
    /// SDM: its class is above that of PPR, whose class is the larger one of the TPR's and the highest
    /// vector's in service.
    fn accepts(tpr: u8, request: Option<u8>, service: Option<u8>) -> bool {
        let task_class = tpr / 16;
        let service_class = match service {
            Some(vector) => vector / 16,
            None => 0,
        };
        let processor_class = if task_class > service_class {
            task_class
        } else {
            service_class
        };
        match request {
            Some(vector) => vector / 16 > processor_class,
            None => false,
        }
    }

    /// A vector of each class, with lower bits that do not matter, and none.
    fn vectors() -> impl Iterator<Item = Option<u8>> {
        (0..=16u8).map(|class| (class < 16).then(|| class * 16 + (15 - class)))
    }

    /// The processor exits for a write of a TPR whose class is below the threshold. That must be so for
    /// every write that lets a request through, and for no other.
    #[test]
    fn a_write_exits_if_and_only_if_it_unmasks() {
        for tpr in (0..16u8).map(|class| class * 16 + 3) {
            for irr in vectors() {
                for isr in vectors() {
                    let threshold = Priorities { tpr, isr, irr }.tpr_threshold();
                    // Else VM entry fails, or exits at once.
                    assert!(threshold <= tpr / 16);
                    for new in (0..16u8).map(|class| class * 16 + 9) {
                        let unmasks = !accepts(tpr, irr, isr) && accepts(new, irr, isr);
                        let exits = new / 16 < threshold;
                        assert_eq!(exits, unmasks);
                    }
                }
            }
        }
    }
}
