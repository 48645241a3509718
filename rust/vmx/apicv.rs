// SPDX-License-Identifier: GPL-2.0

//! APICv: the processor has a guest's local APIC, all but its timer and its IPIs to others.
//!
//! It is FlexPriority gone further, by three controls that this module uses together:
//!
//! - *APIC-register virtualisation*: registers are read on the virtual-APIC page without an exit.
//!   Writes go there too; those that mean more than memory exit after the instruction.
//! - *Virtual-interrupt delivery*: the processor keeps IRR, ISR and PPR on the page. Whenever one of
//!   them, the TPR or RFLAGS.IF changes, it delivers what can be delivered. Ends of interrupts exit only
//!   where the EOI-exit bitmap says so, and IPIs of a CPU to itself not at all.
//! - *Posted interrupts*: at an interrupt with the notification vector it does not exit, but takes the
//!   requests of the posted-interrupt descriptor ([`lapic::PostedInterrupts`]).
//!
//! The guest interrupt status of the VMCS is the processor's summary of the page: RVI, the highest vector
//! requested, and SVI, the highest one in service. Whoever else changes the page makes it right again.
//!
//! The notification vector is the one that the kernel sets aside for KVM. Its handler does nothing but
//! acknowledge the interrupt, so one that comes too late for its guest is harmless.
//!
//! [`lapic::PostedInterrupts`]: crate::lapic::PostedInterrupts

use super::{
    controls::{
        pin,
        secondary, //
    },
    field,
    vmcs::CurrentVmcs, //
};
use crate::{
    linux::cpu_call::POSTED_INTERRUPT_VECTOR,
    x86::addr::Hpa, //
};
use kernel::prelude::*;

/// The secondary controls of APICv.
pub(super) const SECONDARY: u32 =
    secondary::APIC_REGISTER_VIRTUALIZATION | secondary::VIRTUAL_INTERRUPT_DELIVERY;

/// Returns whether a CPU that offers these controls has APICv.
pub(super) const fn is_offered(pin: u32, secondary: u32, tpr_shadow: bool) -> bool {
    tpr_shadow && pin & pin::PROCESS_POSTED_INTERRUPTS != 0 && secondary & SECONDARY == SECONDARY
}

/// Returns the guest interrupt status: RVI in the low byte, SVI in the high one, each 0 for none.
const fn status(requested: Option<u8>, in_service: Option<u8>) -> u16 {
    // CAST: Widens; `from` is not const.
    let rvi = match requested {
        Some(vector) => vector as u16,
        None => 0,
    };
    let svi = match in_service {
        Some(vector) => vector as u16,
        None => 0,
    };
    svi << 8 | rvi
}

/// Vectors, as bits.
pub(crate) type Vectors = [u64; 4];

/// The APICv of a vCPU.
pub(crate) struct Apicv {
    /// The CPU has it, and the vCPU a local APIC in the kernel.
    available: bool,
    /// It is on.
    active: bool,
    /// The EOI-exit bitmap as the VMCS has it.
    eoi_exits: Vectors,
}

impl Apicv {
    /// Returns APICv that is off for ever.
    pub(crate) const fn absent() -> Self {
        Self {
            available: false,
            active: false,
            eoi_exits: [0; 4],
        }
    }

    /// Returns APICv that is off as yet, with the descriptor at `descriptor`, which must live as long as
    /// the VMCS is used.
    pub(crate) fn attach(vmcs: &CurrentVmcs<'_>, descriptor: Hpa) -> Self {
        vmcs.write(
            field::POSTED_INTERRUPT_NOTIFICATION_VECTOR,
            u16::from(POSTED_INTERRUPT_VECTOR),
        );
        vmcs.write(field::POSTED_INTERRUPT_DESCRIPTOR, descriptor.value());
        vmcs.write(field::GUEST_INTERRUPT_STATUS, 0);
        let new = Self {
            available: true,
            ..Self::absent()
        };
        new.write_eoi_exits(vmcs);
        new
    }

    /// Returns whether it can be turned on, so that requests are posted.
    #[inline]
    pub(crate) const fn is_available(&self) -> bool {
        self.available
    }

    /// Returns whether it is on.
    #[inline]
    pub(crate) const fn is_active(&self) -> bool {
        self.active
    }

    /// Turns it on or off; returns whether that is a change. The controls are to be written then.
    #[must_use]
    pub(crate) fn set_active(&mut self, active: bool) -> bool {
        let active = active && self.available;
        let changes = active != self.active;
        self.active = active;
        changes
    }

    /// Writes what of the pin-based controls goes with it.
    pub(crate) fn write_pin(&self, vmcs: &CurrentVmcs<'_>) {
        if self.active {
            vmcs.set_bits(field::PIN_BASED_CONTROLS, pin::PROCESS_POSTED_INTERRUPTS);
        } else {
            vmcs.clear_bits(field::PIN_BASED_CONTROLS, pin::PROCESS_POSTED_INTERRUPTS);
        }
    }

    /// Returns the secondary controls that go with it.
    pub(crate) const fn secondary(&self, controls: u32) -> u32 {
        if self.active {
            controls | SECONDARY
        } else {
            controls & !SECONDARY
        }
    }

    /// Has the processor go on with these vectors, the highest ones requested and in service.
    #[inline]
    pub(crate) fn set_status(
        &self,
        vmcs: &CurrentVmcs<'_>,
        requested: Option<u8>,
        in_service: Option<u8>,
    ) {
        let status = status(requested, in_service);
        if vmcs.read(field::GUEST_INTERRUPT_STATUS) != status {
            vmcs.write(field::GUEST_INTERRUPT_STATUS, status);
        }
    }

    /// Has the ends of interrupts with these vectors exit, and of no others.
    pub(crate) fn set_eoi_exits(&mut self, vmcs: &CurrentVmcs<'_>, vectors: Vectors) {
        if self.available && vectors != self.eoi_exits {
            self.eoi_exits = vectors;
            self.write_eoi_exits(vmcs);
        }
    }

    fn write_eoi_exits(&self, vmcs: &CurrentVmcs<'_>) {
        for (field, bits) in field::EOI_EXIT_BITMAP.into_iter().zip(self.eoi_exits) {
            vmcs.write(field, bits);
        }
    }
}

#[kunit_tests(kvm_rs_apicv)]
mod tests {
    use super::*;

    #[test]
    fn the_status_has_the_layout_of_the_manual() {
        assert_eq!(status(None, None), 0);
        assert_eq!(status(Some(0x31), None), 0x0031);
        assert_eq!(status(None, Some(0xef)), 0xef00);
        assert_eq!(status(Some(0x31), Some(0xef)), 0xef31);
    }

    #[test]
    fn needs_all_controls() {
        let pins = pin::PROCESS_POSTED_INTERRUPTS | pin::NMI_EXITING;
        let both = SECONDARY | secondary::ENABLE_EPT;
        assert!(is_offered(pins, both, true));
        assert!(!is_offered(pins, both, false));
        assert!(!is_offered(pin::NMI_EXITING, both, true));
        assert!(!is_offered(
            pins,
            secondary::APIC_REGISTER_VIRTUALIZATION,
            true
        ));
        assert!(!is_offered(
            pins,
            secondary::VIRTUAL_INTERRUPT_DELIVERY,
            true
        ));
    }

    #[test]
    fn controls_follow() {
        let mut apicv = Apicv::absent();
        assert!(!apicv.set_active(true));
        assert_eq!(apicv.secondary(SECONDARY), 0);
        apicv.available = true;
        assert!(apicv.set_active(true));
        assert!(!apicv.set_active(true));
        assert_eq!(apicv.secondary(0), SECONDARY);
        assert!(apicv.set_active(false));
        assert_eq!(apicv.secondary(SECONDARY), 0);
    }
}
