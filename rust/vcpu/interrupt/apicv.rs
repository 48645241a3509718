// SPDX-License-Identifier: GPL-2.0

//! APICv in use: when a vCPU has it, and what its thread does for it.
//!
//! `vmx/apicv.rs` has the mechanism and `lapic/posted.rs` the descriptor. A vCPU that can have APICv has
//! all interrupts posted, whether it is on or not, so that no sender needs to know. Before each VM entry
//! its thread moves what is posted to IRR, and from there either the processor or, while APICv is off,
//! the injection of events goes on.
//!
//! # When it is off
//!
//! A vCPU does without APICv as long as there is a reason to, of those that KVM calls inhibits. All of them
//! are its own: nothing that the processor does depends on another vCPU's state, as it sends no IPIs to
//! others.
//!
//! # Who is told
//!
//! In its guest, the processor that runs the vCPU is notified: it takes the request without an exit, or,
//! while APICv is off, it exits as for any interrupt of the host. Elsewhere the vCPU's thread is asked
//! to look, by [`Request::Event`].
//!
//! Who posts sets "outstanding" before it looks where the vCPU is; the vCPU's thread says that it is
//! in its guest, or no longer is, before it looks at "outstanding". So either the thread sees the request
//! or the sender sees where the vCPU is.

use super::InterruptController;
use crate::{
    lapic::Mode,
    linux::preempt::full_barrier,
    vcpu::{
        request::Request,
        state::State,
        Owned,
        Vcpu, //
    },
    vm::Vm,
    vmx::{
        flexpriority::Accesses,
        vmcs::CurrentVmcs, //
    }, //
};
use kernel::prelude::*;

/// Returns whether the ID in the registers is not the one that a vCPU with the number `id` starts with.
fn is_id_modified(mode: Mode, xapic_id: u8, id: u32) -> bool {
    // CAST: The ID of xAPIC mode is the low byte.
    mode == Mode::Xapic && xapic_id != id as u8
}

impl InterruptController {
    /// Returns whether nothing stands against APICv for the vCPU if these accesses are virtualised.
    fn allows_apicv(&self, state: &State, accesses: Accesses) -> bool {
        let lapic = self.lapic();
        // The APIC is disabled, or its registers are not at the usual address.
        accesses != Accesses::None
            && !is_id_modified(lapic.mode(), lapic.xapic_id(), lapic.id())
            // The client that debugs the guest wants no interrupts delivered.
            && !state.guest_debug.blocks_interrupts()
            // The guest's task priority is elsewhere, where its client patched the accesses to it.
            && !state.vapic.is_used()
    }

    /// Takes into account that the processor keeps IRR and ISR from now on, or no longer does.
    pub(super) fn change_hands(&self, processor: bool) {
        if processor {
            self.lapic().mark_status_stale();
        } else {
            self.lapic().take_back();
        }
    }
}

impl Vcpu {
    /// Returns whether the vCPU is to have APICv if these accesses are virtualised.
    pub(super) fn wants_apicv(&self, state: &State, accesses: Accesses) -> bool {
        state.apicv.is_available()
            && self
                .controller()
                .is_some_and(|controller| controller.allows_apicv(state, accesses))
    }

    /// Has the vCPU look before its next VM entry whether it is to have APICv.
    #[inline(never)]
    pub(crate) fn recheck_apicv(&self, state: &State) {
        if state.apicv.is_available() {
            self.doorbell().set(Request::ApicAccess);
        }
    }

    /// Moves what is posted to IRR, for who looks at that while the vCPU is outside.
    pub(crate) fn take_posted(&self) {
        if let Some(controller) = self.controller().filter(|controller| controller.posts()) {
            // Before this, the vCPU has said that it is outside.
            full_barrier();
            controller.lapic().take_posted();
        }
    }

    /// Moves what is posted to IRR, and has the processor go on with that if APICv is on; the guest is
    /// about to be entered.
    #[inline]
    pub(crate) fn settle_posted(&self, vmcs: &CurrentVmcs<'_>, state: &State) {
        let Some(controller) = self.controller() else {
            return;
        };
        let lapic = controller.lapic();
        lapic.take_posted();
        if state.apicv.is_active() && lapic.take_status_stale() {
            let (requested, in_service) = lapic.status();
            state.apicv.set_status(vmcs, requested, in_service);
        }
    }

    /// Does what a write to the register at `offset` asks for that the processor has done as far as
    /// memory goes.
    #[inline(never)]
    pub(crate) fn apic_written(&self, vm: &Vm, state: &mut State, offset: u16) {
        let (Some(controller), Some(owned)) = (self.controller(), state.lapic.as_mut()) else {
            return;
        };
        // CAST: The offset has twelve bits.
        let time = super::access::time_for((offset >> 4) as u8);
        let effect = controller.lapic().written(owned, offset, time);
        self.perform(vm, state, effect);
    }

    /// Tells who wants to know that the interrupt with this vector ended.
    #[inline(never)]
    pub(crate) fn virtual_interrupt_ended(&self, vm: &Vm, state: &mut State, vector: u8) {
        let (Some(controller), Some(owned)) = (self.controller(), state.lapic.as_ref()) else {
            return;
        };
        let effect = controller.lapic().ended(owned, vector);
        self.perform(vm, state, effect);
    }
}

impl Owned {
    /// Takes the vectors whose ends somebody wants to know, as they are now.
    pub(crate) fn follow_eoi_exits(&mut self, vm: &Vm) {
        if !self.state.apicv.is_available() {
            return;
        }
        let vectors = vm.irqs().map_or([0; 4], |irqs| irqs.wanted_ends());
        self.with_vmcs(|vmcs, state| state.apicv.set_eoi_exits(vmcs, vectors));
    }
}

#[kunit_tests(kvm_rs_apicv_use)]
mod tests {
    use super::*;
    use crate::lapic::{
        ApicPage,
        Config,
        Lapic,
        Message,
        Page,
        PostedInterrupts,
        Reset, //
    };

    #[test]
    fn the_id_counts_in_xapic_mode_only() {
        assert!(!is_id_modified(Mode::Xapic, 3, 3));
        assert!(is_id_modified(Mode::Xapic, 1, 3));
        // What is left of a number that does not fit.
        assert!(!is_id_modified(Mode::Xapic, 3, 0x103));
        assert!(!is_id_modified(Mode::X2apic, 1, 3));
    }

    /// Registers with a descriptor.
    struct Pages(KBox<ApicPage>, PostedInterrupts);

    impl Page for Pages {
        fn page(&self) -> &ApicPage {
            &self.0
        }

        fn posted(&self) -> Option<&PostedInterrupts> {
            Some(&self.1)
        }
    }

    #[test]
    fn posted_interrupts_reach_irr() -> Result {
        let page = KBox::new(ApicPage::new(), GFP_KERNEL)?;
        let lapic = Lapic::new(Pages(page, PostedInterrupts::new()), 0);
        let mut owned = crate::lapic::Owned::new(Config::default());
        lapic.reset(&mut owned, Reset::PowerUp);
        let _ = lapic.write(&mut owned, 0xf0, 4, 0x1ff, 0);
        assert!(lapic.take_status_stale());
        assert!(!lapic.take_posted());

        use crate::lapic::Action;
        // The first one notifies, and nobody sees it in IRR as yet.
        let accept = |vector| lapic.accept(&Message::to_self(vector));
        assert_eq!(accept(0x31), Action::Posted { notify: true });
        assert_eq!(accept(0x31), Action::Posted { notify: false });
        assert_eq!(accept(0xe0), Action::Posted { notify: false });
        assert!(lapic.is_pending(0x31) && lapic.is_pending(0xe0));
        assert_eq!(lapic.highest_request(), None);

        assert!(lapic.take_posted());
        assert!(!lapic.take_posted());
        assert!(lapic.take_status_stale());
        assert_eq!(lapic.status(), (Some(0xe0), None));
        lapic.acknowledge(0xe0);
        assert_eq!(lapic.status(), (Some(0x31), Some(0xe0)));
        // From now on a new one notifies again.
        assert_eq!(accept(0x32), Action::Posted { notify: true });
        // What is restored replaces it.
        lapic.reset(&mut owned, Reset::Init);
        assert!(!lapic.is_pending(0x32));
        assert!(lapic.take_status_stale());
        assert_eq!(lapic.status(), (None, None));
        Ok(())
    }

    #[test]
    fn the_processors_sets_are_looked_at_anew() -> Result {
        let page = KBox::new(ApicPage::new(), GFP_KERNEL)?;
        let lapic = Lapic::new(Pages(page, PostedInterrupts::new()), 0);
        let mut owned = crate::lapic::Owned::new(Config::default());
        lapic.reset(&mut owned, Reset::PowerUp);
        assert_eq!(lapic.status(), (None, None));
        // The processor delivered 0x55, and got another request for it.
        lapic.backing().page().word(0x12, 0).set_bits(1 << 0x15);
        lapic.backing().page().word(0x22, 0).set_bits(1 << 0x15);
        assert_eq!(lapic.highest_request(), Some(0x55));
        assert_eq!(lapic.highest_in_service(), Some(0x55));
        lapic.take_back();
        assert_eq!(lapic.highest_in_service(), Some(0x55));
        let _ = lapic.end_of_interrupt(&owned);
        assert_eq!(lapic.highest_in_service(), None);
        assert!(lapic.take_status_stale());
        Ok(())
    }
}
