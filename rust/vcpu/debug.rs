// SPDX-License-Identifier: GPL-2.0

//! Debug registers.
//!
//! MOV DR always exits; the values are kept here. DR7 is also in the VMCS. The breakpoint addresses are
//! loaded into the CPU before an entry only while DR7 enables one of them.

use super::state::State;
use crate::{
    linux::host,
    vmx::{
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

/// The guest's debug registers.
pub(crate) struct DebugRegisters {
    /// DR0 to DR3.
    pub(crate) address: [u64; 4],
    /// DR6.
    pub(crate) dr6: Dr6,
    /// DR7.
    pub(crate) dr7: Dr7,
}

/// DR6.BD: an access to a debug register while DR7.GD was set.
const DR6_BD: u64 = 1 << 13;
/// DR7.GD.
const DR7_GD: u64 = 1 << 13;
/// The bits of DR6 that read as 1 if nothing happened, and are cleared when it does.
const ACTIVE_LOW: u64 = Dr6::ACTIVE_LOW.value();

impl DebugRegisters {
    /// Returns the registers as after RESET.
    pub(crate) const fn new() -> Self {
        Self {
            address: [0; 4],
            dr6: Dr6::ACTIVE_LOW,
            dr7: Dr7::RESET,
        }
    }

    /// Loads the addresses if one of them is armed; the guest is about to be entered.
    #[inline]
    pub(crate) fn load(&self) {
        if self.dr7.intersects(Dr7::ENABLE) {
            host::load_debug_registers(&self.address);
        }
    }

    /// Notes in DR6 what a debug exception reports, in the layout of its exit qualification.
    pub(crate) fn record(&mut self, payload: u64) {
        // B0 to B3 are of this exception alone; the others accumulate.
        let sticky = self.dr6.value() & !0xf;
        let active_low = payload & ACTIVE_LOW;
        self.dr6 = Dr6::new((sticky | payload) ^ active_low);
    }
}

impl State {
    /// Returns DR7 as the guest sees it; the CPU clears GD when it delivers #DB.
    pub(crate) fn dr7(&self, vmcs: &CurrentVmcs<'_>) -> u64 {
        vmcs.read(field::GUEST_DR7).0
    }

    /// Loads DR7.
    pub(crate) fn load_dr7(&mut self, vmcs: &CurrentVmcs<'_>, value: Dr7) {
        self.debug.dr7 = value;
        vmcs.write(field::GUEST_DR7, Natural(value.value()));
    }

    /// Checks whether the guest may execute MOV DR now.
    pub(crate) fn check_debug_access(
        &mut self,
        vmcs: &CurrentVmcs<'_>,
        register: u8,
    ) -> Result<(), Exception> {
        if matches!(register, 4 | 5) && self.cr4(vmcs).contains(Cr4::DE) {
            return Err(Exception::invalid_opcode());
        }
        if self.cpl(vmcs) != 0 {
            return Err(Exception::general_protection());
        }
        if self.dr7(vmcs) & DR7_GD != 0 {
            self.debug.record(DR6_BD);
            return Err(Exception::plain(Vector::DB));
        }
        Ok(())
    }

    /// Returns a debug register; 4 and 5 are 6 and 7.
    pub(crate) fn read_debug_register(&self, vmcs: &CurrentVmcs<'_>, register: u8) -> u64 {
        match register {
            0..=3 => self
                .debug
                .address
                .get(usize::from(register))
                .copied()
                .unwrap_or(0),
            4 | 6 => self.debug.dr6.value(),
            _ => self.dr7(vmcs),
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
