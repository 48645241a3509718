// SPDX-License-Identifier: GPL-2.0

//! Accesses to the local APIC: the guest's by memory and MSR, and the client's.

use super::InterruptController;
use crate::{
    lapic::{
        self,
        Mode,
        Register,
        SaveArea,
        SAVE_SIZE, //
    },
    linux::timer::now_ns,
    vcpu::{
        request::Request,
        state::State,
        Vcpu, //
    },
    vm::{
        settings::Quirk,
        Vm, //
    },
    x86::{
        addr::{
            Gpa,
            PAGE_SIZE, //
        },
        control_regs::rules::GpFault,
        cpuid::Feature,
        guest_msr::MsrError, //
    }, //
};
use kernel::prelude::*;

/// Returns whether an access at `offset` of the page is to the TPR's 16 bytes.
fn is_tpr(offset: u16) -> bool {
    offset & 0xff0 == Register::TPR.offset()
}

/// Returns the time for an access to the register in slot `number`; 0 where it does not matter, since
/// asking for it costs more than most accesses.
#[inline]
pub(super) fn time_for(number: u8) -> u64 {
    if Register::from_number(number).depends_on_time() {
        now_ns()
    } else {
        0
    }
}

impl InterruptController {
    /// Returns the offset of `gpa` in the page at which the registers lie in xAPIC mode.
    fn offset_of(&self, gpa: Gpa) -> Option<u16> {
        let offset = gpa.value().checked_sub(self.lapic().address())?;
        if offset >= PAGE_SIZE {
            return None;
        }
        u16::try_from(offset).ok()
    }
}

impl Vcpu {
    /// Returns IA32_APIC_BASE.
    pub(crate) fn apic_base(&self, state: &State) -> u64 {
        match self.controller() {
            Some(controller) => controller.lapic().base(),
            None => state.apic_base,
        }
    }

    /// Sets IA32_APIC_BASE, for the client if `from_user`.
    ///
    /// The client may go from any mode to any other; a guest may not leave x2APIC mode but by
    /// disabling the APIC, nor enter it from there.
    pub(crate) fn set_apic_base(
        &self,
        vm: &Vm,
        state: &mut State,
        value: u64,
        from_user: bool,
    ) -> Result<(), GpFault> {
        let change = match (self.controller(), state.lapic.as_mut()) {
            (Some(controller), Some(owned)) => controller.lapic().set_base(owned, value, from_user),
            _ => lapic::change_base(
                state.apic_base,
                value,
                state.features.has(Feature::X2APIC),
                state.features.physical_bits,
                from_user,
            )
            .inspect(|_| state.apic_base = value),
        };
        let change = change.map_err(|lapic::GeneralProtection| GpFault)?;
        if change.mode_changed() {
            vm.note_destination(self);
        }
        // CPUID shows whether there is an APIC.
        if (change.from == Mode::Disabled) != (change.to == Mode::Disabled) {
            state.cpuid_stale = true;
        }
        if change.mode_changed() || change.moved {
            self.doorbell().set(Request::ApicAccess);
        }
        Ok(())
    }

    /// Returns the value of MSR `index`, 0x800 to 0x8ff.
    pub(crate) fn read_x2apic(&self, state: &mut State, index: u32) -> Result<u64, MsrError> {
        let (Some(controller), Some(owned)) = (self.controller(), state.lapic.as_ref()) else {
            return Err(MsrError::Invalid);
        };
        // CAST: The register's number is the low byte.
        let time = time_for(index as u8);
        controller
            .lapic()
            .msr_read(owned, index, time)
            .map_err(|lapic::GeneralProtection| MsrError::Invalid)
    }

    /// Writes MSR `index`, 0x800 to 0x8ff.
    pub(crate) fn write_x2apic(
        &self,
        vm: &Vm,
        state: &mut State,
        index: u32,
        value: u64,
    ) -> Result<(), MsrError> {
        let (Some(controller), Some(owned)) = (self.controller(), state.lapic.as_mut()) else {
            return Err(MsrError::Invalid);
        };
        // CAST: The register's number is the low byte.
        let time = time_for(index as u8);
        let effect = controller
            .lapic()
            .msr_write(owned, index, value, time)
            .map_err(|lapic::GeneralProtection| MsrError::Invalid)?;
        self.perform(vm, state, effect);
        Ok(())
    }

    /// Returns IA32_TSC_DEADLINE: 0 if no deadline is armed, or there is no APIC to have one.
    pub(crate) fn read_tsc_deadline(&self, state: &State) -> Result<u64, MsrError> {
        let (Some(controller), Some(owned)) = (self.controller(), state.lapic.as_ref()) else {
            return Ok(0);
        };
        Ok(controller.lapic().tsc_deadline(owned))
    }

    /// Sets IA32_TSC_DEADLINE, which is ignored outside TSC-deadline mode and without an APIC.
    pub(crate) fn write_tsc_deadline(&self, state: &mut State, value: u64) -> Result<(), MsrError> {
        if let (Some(controller), Some(owned)) = (self.controller(), state.lapic.as_mut()) {
            let effect = controller.lapic().set_tsc_deadline(owned, value);
            if let lapic::Effect::Timer(wanted) = effect {
                self.arm_timer(state, wanted);
            }
        }
        Ok(())
    }

    /// Reads from the APIC's registers if `gpa` is in their page; returns whether it is.
    ///
    /// In the other modes the page reads as ones, unless [`Quirk::LapicHole`] is off: then the access is
    /// the client's.
    pub(crate) fn read_apic_page(
        &self,
        vm: &Vm,
        state: &mut State,
        gpa: Gpa,
        data: &mut [u8],
    ) -> bool {
        let Some(controller) = self.controller() else {
            return false;
        };
        let Some(offset) = controller.offset_of(gpa) else {
            return false;
        };
        if controller.lapic().mode() != Mode::Xapic {
            data.fill(0xff);
            return vm.settings().has(Quirk::LapicHole);
        }
        if is_tpr(offset) {
            let rip = state.fetched_rip();
            self.report_tpr_access(state, rip, false);
        }
        let Some(owned) = state.lapic.as_ref() else {
            return false;
        };
        let size = u8::try_from(data.len()).unwrap_or(u8::MAX);
        // CAST: The offset has twelve bits.
        let time = time_for((offset >> 4) as u8);
        // The one effect of a read is an error interrupt, seen before the next VM entry.
        let read = controller.lapic().read(owned, offset, size, time);
        data.fill(0);
        for (target, source) in data.iter_mut().zip(read.value.to_le_bytes()) {
            *target = source;
        }
        true
    }

    /// Writes to the APIC's registers if `gpa` is in their page; returns whether it is.
    ///
    /// In the other modes the write is lost, see [`Vcpu::read_apic_page`].
    pub(crate) fn write_apic_page(
        &self,
        vm: &Vm,
        state: &mut State,
        gpa: Gpa,
        data: &[u8],
    ) -> bool {
        let Some(controller) = self.controller() else {
            return false;
        };
        let Some(offset) = controller.offset_of(gpa) else {
            return false;
        };
        if controller.lapic().mode() != Mode::Xapic {
            return vm.settings().has(Quirk::LapicHole);
        }
        if is_tpr(offset) {
            let rip = state.fetched_rip();
            self.report_tpr_access(state, rip, true);
        }
        let Some(owned) = state.lapic.as_mut() else {
            return false;
        };
        let size = u8::try_from(data.len()).unwrap_or(u8::MAX);
        let mut bytes = [0; 4];
        for (target, &source) in bytes.iter_mut().zip(data) {
            *target = source;
        }
        let value = u32::from_le_bytes(bytes);
        // CAST: The offset has twelve bits.
        let time = time_for((offset >> 4) as u8);
        let effect = controller.lapic().write(owned, offset, size, value, time);
        self.perform(vm, state, effect);
        true
    }

    /// Returns the APIC's registers, as KVM_GET_LAPIC does; `EINVAL` without one.
    pub(crate) fn get_lapic(&self, vm: &Vm, state: &State) -> Result<SaveArea> {
        let controller = self.controller().ok_or(EINVAL)?;
        let owned = state.lapic.as_ref().ok_or(EINVAL)?;
        let mut area = [0; SAVE_SIZE];
        let wide = vm.vcpus().destinations().are_wide();
        controller
            .lapic()
            .get_lapic(owned, wide, now_ns(), &mut area);
        Ok(area)
    }

    /// Takes the APIC's registers from `area`, as KVM_SET_LAPIC does; `EINVAL` without one.
    pub(crate) fn set_lapic(&self, vm: &Vm, state: &mut State, area: &SaveArea) -> Result {
        let controller = self.controller().ok_or(EINVAL)?;
        let owned = state.lapic.as_mut().ok_or(EINVAL)?;
        let wanted = controller
            .lapic()
            .set_lapic(owned, vm.vcpus().destinations().are_wide(), now_ns(), area)
            .map_err(|lapic::IdMismatch| EINVAL)?;
        vm.note_destination(self);
        self.arm_timer(state, wanted);
        self.recheck_apicv(state);
        self.doorbell().set(Request::Event);
        Ok(())
    }
}
