// SPDX-License-Identifier: GPL-2.0

//! KVM_SET_GUEST_DEBUG: a client that debugs its guest.
//!
//! It can step the guest, by RFLAGS.TF, which is hidden from it then; have INT3 exit to it; and put its
//! breakpoints in place of the guest's own. What it asked for ends KVM_RUN with KVM_EXIT_DEBUG and is
//! not delivered to the guest.

use super::{
    reset,
    state::State,
    Owned,
    Vcpu, //
};
use crate::{
    bindings,
    vmx::{
        field,
        guest_state::{
            BLOCKING_BY_MOV_SS,
            BLOCKING_BY_STI, //
        },
        vmcs::CurrentVmcs, //
    },
    x86::{
        control_regs::{
            Dr6,
            Dr7,
            Rflags, //
        },
        exception::{
            Exception,
            Vector, //
        },
        segment_register::SegmentRegister, //
    }, //
};
use kernel::prelude::*;

/// Every flag of KVM_SET_GUEST_DEBUG.
pub(crate) const VALID_MASK: u32 = bindings::KVM_GUESTDBG_ENABLE
    | bindings::KVM_GUESTDBG_SINGLESTEP
    | bindings::KVM_GUESTDBG_USE_HW_BP
    | bindings::KVM_GUESTDBG_USE_SW_BP
    | bindings::KVM_GUESTDBG_INJECT_BP
    | bindings::KVM_GUESTDBG_INJECT_DB
    | bindings::KVM_GUESTDBG_BLOCKIRQ;

/// What the client debugs.
#[derive(Clone, Copy, Default)]
pub(crate) struct GuestDebug {
    /// The flags of KVM_SET_GUEST_DEBUG; none unless debugging is on.
    control: u32,
    /// The linear address at which stepping was turned on.
    step_rip: u64,
}

impl GuestDebug {
    fn has(self, flag: u32) -> bool {
        self.control & flag != 0
    }

    /// Returns whether the guest is debugged at all.
    #[inline]
    pub(crate) fn is_on(self) -> bool {
        self.control != 0
    }

    /// Returns whether each instruction ends KVM_RUN.
    pub(crate) fn steps(self) -> bool {
        self.has(bindings::KVM_GUESTDBG_SINGLESTEP)
    }

    /// Returns whether the client has its own breakpoints.
    pub(crate) fn has_breakpoints(self) -> bool {
        self.has(bindings::KVM_GUESTDBG_USE_HW_BP)
    }

    /// Returns whether #DB is the client's and not the guest's.
    pub(crate) fn takes_debug_exceptions(self) -> bool {
        self.steps() || self.has_breakpoints()
    }

    /// Returns whether INT3 is the client's and not the guest's.
    pub(crate) fn takes_int3(self) -> bool {
        self.has(bindings::KVM_GUESTDBG_USE_SW_BP)
    }

    /// Returns whether neither interrupts nor NMIs are to be delivered.
    pub(crate) fn blocks_interrupts(self) -> bool {
        self.has(bindings::KVM_GUESTDBG_BLOCKIRQ)
    }

    /// Returns the exception bitmap that the VMCS is to have.
    fn exception_bitmap(self) -> u32 {
        let breakpoint = if self.takes_int3() {
            1 << Vector::BP.number()
        } else {
            0
        };
        reset::EXCEPTION_BITMAP | breakpoint
    }
}

impl Owned {
    /// Replaces what the client debugs; `EBUSY` if an exception is to be raised and one is under way.
    ///
    /// `registers` are DR0 to DR7 as the client wants them.
    pub(crate) fn set_guest_debug(&mut self, control: u32, registers: &[u64; 8]) -> Result {
        const INJECT: u32 = bindings::KVM_GUESTDBG_INJECT_DB | bindings::KVM_GUESTDBG_INJECT_BP;
        let [first, second, third, fourth, .., dr7] = *registers;
        self.with_vmcs(|vmcs, state| {
            if control & INJECT != 0 {
                if state.has_exception() {
                    return Err(EBUSY);
                }
                let vector = if control & bindings::KVM_GUESTDBG_INJECT_DB != 0 {
                    Vector::DB
                } else {
                    Vector::BP
                };
                state.events.exception = Some(Exception::plain(vector));
            }
            state.fetch(vmcs);
            let rflags = state.visible_rflags();
            state.guest_debug.control = if control & bindings::KVM_GUESTDBG_ENABLE != 0 {
                control
            } else {
                0
            };
            let breakpoints = state
                .guest_debug
                .has_breakpoints()
                .then_some(([first, second, third, fourth], Dr7::new(dr7)));
            state.end_debug_lease(vmcs);
            state.load_debugger_breakpoints(vmcs, breakpoints);
            if state.guest_debug.steps() {
                state.guest_debug.step_rip = state.linear_rip(vmcs);
            }
            if !state.guest_debug.takes_debug_exceptions() {
                state.events.debug_trap = false;
            }
            state.set_visible_rflags(vmcs, rflags);
            state.update_exception_bitmap(vmcs);
            Ok(())
        })
    }
}

impl State {
    /// Tells the VMCS which exceptions exit.
    pub(crate) fn update_exception_bitmap(&self, vmcs: &CurrentVmcs<'_>) {
        let mut bitmap = self.guest_debug.exception_bitmap();
        if self.is_shadow() {
            bitmap |= 1 << Vector::PF.number();
        }
        if self.real_mode().is_some() {
            bitmap = !0;
        }
        vmcs.write(field::EXCEPTION_BITMAP, bitmap);
    }

    /// Returns the linear address of the next instruction.
    pub(crate) fn linear_rip(&mut self, vmcs: &CurrentVmcs<'_>) -> u64 {
        let rip = self.rip(vmcs);
        if self.is_64bit(vmcs) {
            rip
        } else {
            self.segment_base(vmcs, SegmentRegister::Cs)
                .wrapping_add(rip)
                & 0xffff_ffff
        }
    }

    /// Returns RFLAGS as the client sees it, where it was fetched before (see [`State::fetch`]).
    pub(crate) fn visible_rflags(&self) -> u64 {
        let rflags = self.fetched_rflags();
        if self.guest_debug.steps() {
            rflags & !Rflags::TF.value()
        } else {
            rflags
        }
    }

    /// Sets RFLAGS as the client sees it; stepping goes on where it was turned on.
    pub(crate) fn set_visible_rflags(&mut self, vmcs: &CurrentVmcs<'_>, value: u64) {
        let steps = self.guest_debug.steps() && self.linear_rip(vmcs) == self.guest_debug.step_rip;
        let trap = if steps { Rflags::TF.value() } else { 0 };
        self.set_rflags(value | trap);
    }

    /// Does what the end of an instruction does while RFLAGS.TF is set: it traps, to the client if that
    /// debugs the guest.
    #[cold]
    pub(crate) fn step_trap(&mut self) {
        if self.guest_debug.takes_debug_exceptions() {
            self.events.debug_trap = true;
        } else {
            self.raise(Exception {
                vector: Vector::DB,
                error_code: None,
                payload: Some(Dr6::BS.value()),
            });
        }
    }

    /// Lets the next entry begin with stepping: it refuses RFLAGS.TF while STI or MOV SS blocks.
    pub(crate) fn prepare_step(&self, vmcs: &CurrentVmcs<'_>) {
        if self.guest_debug.steps() {
            vmcs.clear_bits(
                field::GUEST_INTERRUPTIBILITY,
                BLOCKING_BY_STI | BLOCKING_BY_MOV_SS,
            );
        }
    }
}

impl Vcpu {
    /// Reports a debug exception to the client, in the layout of its exit qualification.
    pub(crate) fn report_debug(&self, vmcs: &CurrentVmcs<'_>, state: &mut State, payload: u64) {
        self.report_exception(vmcs, state, Vector::DB);
        self.run_page().set_debug_registers(
            payload | Dr6::ACTIVE_LOW.value(),
            vmcs.read(field::GUEST_DR7).0,
        );
    }

    /// Reports an exception at RIP that the client debugs.
    pub(crate) fn report_exception(
        &self,
        vmcs: &CurrentVmcs<'_>,
        state: &mut State,
        vector: Vector,
    ) {
        let rip = state.linear_rip(vmcs);
        self.run_page().set_debug(u32::from(vector.number()), rip);
    }
}
