// SPDX-License-Identifier: GPL-2.0

//! What a VM has of interrupt controllers in the kernel: given to it before its vCPUs, and how they are
//! set up.

use super::{
    irq::{
        Irqs,
        Kind, //
    },
    pit::VmPit,
    settings,
    Vm, //
};
use crate::{
    irqchip::routing::MAX_ROUTES,
    vcpu::{
        request::Request,
        Vcpu, //
    }, //
};
use core::num::NonZeroU64;
use kernel::{
    prelude::*,
    sync::Arc, //
};

impl Vm {
    /// Gives every vCPU a local APIC in the kernel, and the VM a pair of PICs and an I/O APIC.
    ///
    /// `EEXIST` if it has controllers in the kernel already, `EINVAL` after a vCPU was created.
    pub(crate) fn create_irqchip(&self) -> Result {
        let config = self.config.lock();
        if self.irqs().is_some() {
            return Err(EEXIST);
        }
        if config.created > 0 {
            return Err(EINVAL);
        }
        let irqs = Irqs::new(self.vcpus.clone(), Kind::Full)?;
        irqs.add_devices(self.make_bus(&config)?)?;
        self.irqs.populate(irqs);
        Ok(())
    }

    /// Gives the VM an interval timer, and port 0x61 if `speaker` says so.
    ///
    /// `EEXIST` if it has one, `ENOENT` without a PIC in the kernel, `ENOMEM`.
    pub(crate) fn create_pit(&self, speaker: bool) -> Result {
        let config = self.config.lock();
        if self.pit().is_some() {
            return Err(EEXIST);
        }
        let irqs = self.irqs().filter(|irqs| irqs.kind() == Kind::Full);
        let pit = VmPit::new(irqs.ok_or(ENOENT)?, self.make_bus(&config)?, speaker)?;
        self.pit.populate(pit);
        Ok(())
    }

    /// Returns the interval timer in the kernel.
    pub(crate) fn pit(&self) -> Option<&Arc<VmPit>> {
        self.pit.as_ref()
    }

    /// Gives every vCPU a local APIC in the kernel, with the I/O APIC and the PIC left to the client.
    pub(crate) fn split_irqchip(&self, pins: u64) -> Result {
        let config = self.config.lock();
        if pins > u64::from(MAX_ROUTES) {
            return Err(EINVAL);
        }
        if self.irqs().is_some() || config.created > 0 {
            return Err(EEXIST);
        }
        // CAST: At most MAX_ROUTES.
        let kind = Kind::Split { pins: pins as u32 };
        self.irqs.populate(Irqs::new(self.vcpus.clone(), kind)?);
        Ok(())
    }

    /// Returns the interrupt lines, if the vCPUs have local APICs in the kernel.
    #[inline]
    pub(crate) fn irqs(&self) -> Option<&Arc<Irqs>> {
        self.irqs.as_ref()
    }

    /// Turns on what KVM_CAP_X2APIC_API asks for.
    ///
    /// `EINVAL` for an unknown flag, for two that exclude each other, and for the suppression of EOI
    /// broadcasts where the client does not have the I/O APIC.
    pub(crate) fn enable_x2apic_api(&self, flags: u64) -> Result {
        let flags = u32::try_from(flags).map_err(|_| EINVAL)?;
        let suppress = flags & settings::X2APIC_API_SUPPRESS != 0;
        let both = suppress && flags & settings::X2APIC_API_NO_SUPPRESS != 0;
        if flags & !settings::X2APIC_API != 0 || both || (suppress && !self.has_split_irqchip()) {
            return Err(EINVAL);
        }
        self.vcpus.destinations().enable_formats(flags);
        self.settings.choose_suppression(flags);
        Ok(())
    }

    /// Sets the nanoseconds of an undivided count of the local APICs' timers.
    ///
    /// `EINVAL` if that is 0, or so long that the longest count overflows, or after a vCPU was created;
    /// `ENXIO` without local APICs in the kernel.
    pub(crate) fn set_bus_cycle_ns(&self, ns: u64) -> Result {
        /// The largest divisor.
        const DIVISOR: u64 = 128;
        let longest = ns.checked_mul(u64::from(u32::MAX).wrapping_mul(DIVISOR));
        let ns = NonZeroU64::new(ns)
            .filter(|_| longest.is_some())
            .ok_or(EINVAL)?;
        let config = self.config.lock();
        if self.irqs().is_none() {
            return Err(ENXIO);
        }
        if config.created > 0 {
            return Err(EINVAL);
        }
        self.settings.set_bus_cycle_ns(ns);
        Ok(())
    }

    /// Returns whether the client has the I/O APIC, and the vCPUs have local APICs in the kernel.
    pub(crate) fn has_split_irqchip(&self) -> bool {
        self.irqs()
            .is_some_and(|irqs| matches!(irqs.kind(), Kind::Split { .. }))
    }

    /// Notes that the mode or the IDs of the vCPU's local APIC have changed; the vCPU makes a new table
    /// of destinations before it enters its guest.
    pub(crate) fn note_destination(&self, vcpu: &Vcpu) {
        if vcpu.controller().is_some() {
            self.vcpus.destinations().note_change();
            vcpu.doorbell().set(Request::Destinations);
        }
    }

    /// Makes a new table of destinations if the old one is out of date. May sleep.
    pub(crate) fn update_destinations(&self) {
        self.vcpus.destinations().update(&self.vcpus);
    }
}
