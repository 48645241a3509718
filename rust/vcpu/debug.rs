// SPDX-License-Identifier: GPL-2.0

//! Debug registers.
//!
//! The values are kept here. The *effective* registers are those that the CPU has while the guest runs:
//! the guest's, or a debugger's in their place. The effective DR7 is in the VMCS; the breakpoint addresses
//! are loaded into the CPU before an entry only while it enables one of them.
//!
//! MOV DR exits. As who accesses one debug register will access others, as a switch of tasks does, the
//! guest then has all of them *on lease*: they are loaded, MOV DR does not exit, and what they hold is
//! taken back at the next exit, whatever that is for. While a debugger has the CPU's registers, or steps,
//! each access is emulated.

use super::{
    entry_work::EntryWork,
    state::State,
    Owned, //
};
use crate::{
    linux::host,
    vm::Vm,
    vmx::{
        controls::primary,
        field::{
            self,
            Natural, //
        },
        vmcs::CurrentVmcs, //
    },
    x86::{
        control_regs::{
            rules::{
                check_dr6,
                check_dr7, //
            },
            Cr4,
            Dr6,
            Dr7, //
        },
        exception::{
            Exception,
            Vector, //
        }, //
    }, //
};
use kernel::prelude::*;

/// The guest's debug registers.
pub(crate) struct DebugRegisters {
    /// DR0 to DR3.
    pub(crate) address: [u64; 4],
    /// DR6.
    pub(crate) dr6: Dr6,
    /// DR7.
    pub(crate) dr7: Dr7,
    /// A debugger's DR0 to DR3 and DR7, which the CPU has instead of the guest's.
    debugger: Option<([u64; 4], Dr7)>,
    /// The DR7 that the CPU has.
    effective_dr7: Dr7,
}

/// The bits of DR6 that read as 1 if nothing happened, and are cleared when it does.
const ACTIVE_LOW: u64 = Dr6::ACTIVE_LOW.value();

/// The bits of DR6 that are 1 always: the active-low ones but for RTM and BUS_LOCK.
const ALWAYS_ONE: u64 = ACTIVE_LOW & !Dr6::RTM.value() & !Dr6::BUS_LOCK.value();

/// A breakpoint was met that DR7 enables: only in pending debug exceptions, never in DR6.
const ENABLED_BREAKPOINT: u64 = 1 << 12;

impl DebugRegisters {
    /// Returns the registers as after RESET.
    pub(crate) const fn new() -> Self {
        Self {
            address: [0; 4],
            dr6: Dr6::ACTIVE_LOW,
            dr7: Dr7::RESET,
            debugger: None,
            effective_dr7: Dr7::RESET,
        }
    }

    /// Gives the registers the values as after RESET; a debugger's stay.
    pub(crate) fn reset(&mut self) {
        *self = Self {
            debugger: self.debugger,
            ..Self::new()
        };
    }

    /// Loads the addresses; the guest is about to be entered.
    pub(super) fn load(&self) {
        match &self.debugger {
            Some((address, _)) => host::load_debug_registers(address),
            None => host::load_debug_registers(&self.address),
        }
    }

    /// Loads DR6 too, which is the guest's own from now on. Interrupts must be off until it is taken back.
    pub(super) fn load_status(&self) {
        host::load_debug_status(self.dr6.value());
    }

    /// Notes in DR6 what a debug exception reports, in the layout of its exit qualification.
    pub(crate) fn record(&mut self, payload: u64) {
        // B0 to B3 and RTM are of this exception alone; the others accumulate.
        let sticky = (self.dr6.value() & !0xf) | Dr6::RTM.value();
        let value = (sticky & !(payload & ACTIVE_LOW)) | (payload & !ACTIVE_LOW);
        self.dr6 = Dr6::new((value & !ENABLED_BREAKPOINT) | ALWAYS_ONE);
    }
}

/// The debug registers as a client reads and writes them.
#[derive(Clone, Copy)]
pub(crate) struct DebugRegisterValues {
    /// DR0 to DR3.
    pub(crate) address: [u64; 4],
    /// DR6.
    pub(crate) dr6: u64,
    /// DR7.
    pub(crate) dr7: u64,
}

impl Owned {
    /// Returns the debug registers.
    pub(crate) fn debug_registers(&mut self, vm: &Vm) -> DebugRegisterValues {
        self.state.settle_payload(vm);
        let debug = &self.state.debug;
        DebugRegisterValues {
            address: debug.address,
            dr6: debug.dr6.value(),
            dr7: debug.dr7.value(),
        }
    }

    /// Replaces the debug registers; `EINVAL` for values with bits that do not exist in the upper half.
    pub(crate) fn set_debug_registers(&mut self, values: &DebugRegisterValues) -> Result {
        if (values.dr6 | values.dr7) >> 32 != 0 {
            return Err(EINVAL);
        }
        self.with_vmcs(|vmcs, state| {
            state.debug.address = values.address;
            state.debug.dr6 = Dr6::new(values.dr6);
            state.load_dr7(vmcs, Dr7::new(values.dr7));
        });
        Ok(())
    }
}

impl State {
    /// Loads DR7.
    pub(crate) fn load_dr7(&mut self, vmcs: &CurrentVmcs<'_>, value: Dr7) {
        self.debug.dr7 = value;
        self.load_effective_dr7(vmcs);
    }

    /// Puts a debugger's DR0 to DR3 and DR7 in place of the guest's, or takes them away.
    pub(crate) fn load_debugger_breakpoints(
        &mut self,
        vmcs: &CurrentVmcs<'_>,
        breakpoints: Option<([u64; 4], Dr7)>,
    ) {
        self.debug.debugger = breakpoints;
        self.load_effective_dr7(vmcs);
    }

    /// Loads the DR7 that the CPU is to have.
    fn load_effective_dr7(&mut self, vmcs: &CurrentVmcs<'_>) {
        let value = self.debug.debugger.map_or(self.debug.dr7, |(_, dr7)| dr7);
        self.note_effective_dr7(value);
        vmcs.write(field::GUEST_DR7, Natural(value.value()));
    }

    /// Notes which DR7 the VMCS has.
    fn note_effective_dr7(&mut self, value: Dr7) {
        self.debug.effective_dr7 = value;
        let armed = value.intersects(Dr7::ENABLE);
        self.entry_work.set(EntryWork::BREAKPOINTS, armed);
    }

    /// Has the next entry give the guest its debug registers, if no debugger is about.
    ///
    /// Returns whether it does: then the instruction that exited is to be executed again.
    pub(crate) fn lease_debug_registers(&mut self, vmcs: &CurrentVmcs<'_>) -> bool {
        if self.guest_debug.is_on() {
            return false;
        }
        self.set_debug_lease(vmcs, true);
        true
    }

    /// Ends a lease that was not entered with: a debugger comes.
    pub(crate) fn end_debug_lease(&mut self, vmcs: &CurrentVmcs<'_>) {
        if self.entry_work.has(EntryWork::DEBUG_LEASE) {
            self.set_debug_lease(vmcs, false);
        }
    }

    fn set_debug_lease(&mut self, vmcs: &CurrentVmcs<'_>, on: bool) {
        self.entry_work.set(EntryWork::DEBUG_LEASE, on);
        self.set_primary(vmcs, primary::MOV_DR_EXITING, !on);
    }

    /// Takes back what was on lease, at an exit, with interrupts off.
    pub(super) fn take_back_debug_registers(&mut self, vmcs: &CurrentVmcs<'_>) {
        let (address, dr6) = host::take_debug_registers();
        self.debug.address = address;
        // Two bits are features of the CPU's that no guest has.
        self.debug.dr6 = Dr6::new(dr6).with(Dr6::RTM).with(Dr6::BUS_LOCK);
        self.debug.dr7 = Dr7::new(vmcs.read(field::GUEST_DR7).0);
        self.note_effective_dr7(self.debug.dr7);
        self.set_debug_lease(vmcs, false);
    }

    /// Checks whether the guest may execute MOV DR now.
    pub(crate) fn check_debug_access(
        &self,
        vmcs: &CurrentVmcs<'_>,
        register: u8,
    ) -> Result<(), Exception> {
        if matches!(register, 4 | 5) && self.cr4(vmcs).contains(Cr4::DE) {
            return Err(Exception::invalid_opcode());
        }
        // The exit comes before the debug trap would.
        if self.debug.effective_dr7.contains(Dr7::GD) {
            return Err(Exception {
                vector: Vector::DB,
                error_code: None,
                payload: Some(Dr6::BD.value()),
            });
        }
        if self.cpl(vmcs) != 0 {
            return Err(Exception::general_protection());
        }
        Ok(())
    }

    /// Returns a debug register; 4 and 5 are 6 and 7.
    pub(crate) fn read_debug_register(&self, register: u8) -> u64 {
        match register {
            0..=3 => self
                .debug
                .address
                .get(usize::from(register))
                .copied()
                .unwrap_or(0),
            4 | 6 => self.debug.dr6.value(),
            _ => self.debug.dr7.value(),
        }
    }

    /// Writes a debug register; an error is #GP(0).
    pub(crate) fn write_debug_register(
        &mut self,
        vmcs: &CurrentVmcs<'_>,
        register: u8,
        value: u64,
    ) -> Result<(), Exception> {
        let fault = |_| Exception::general_protection();
        match register {
            0..=3 => {
                if let Some(address) = self.debug.address.get_mut(usize::from(register)) {
                    *address = value;
                }
            }
            4 | 6 => self.debug.dr6 = check_dr6(Dr6::new(value), Dr6::NONE).map_err(fault)?,
            _ => {
                let value = check_dr7(Dr7::new(value)).map_err(fault)?;
                self.load_dr7(vmcs, value);
            }
        }
        Ok(())
    }
}
