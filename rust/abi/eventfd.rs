// SPDX-License-Identifier: GPL-2.0

//! The ioctls of eventfds: those that the guest signals, and those that interrupt it.

use crate::{
    bindings::*,
    linux::eventfd::{
        watch::EventFile,
        EventFd, //
    },
    vm::{
        ioeventfd::{
            Doorbell,
            Kind, //
        },
        irq,
        Vm, //
    }, //
};
use kernel::prelude::*;

/// Has a write of the guest signal an eventfd, or no longer.
pub(super) fn ioeventfd(vm: &Vm, request: &kvm_ioeventfd) -> Result<isize> {
    let has = |flag: u32| request.flags & flag != 0;
    let doorbell = Doorbell {
        kind: if has(KVM_RS_IOEVENTFD_PIO) {
            Kind::Pio
        } else if has(KVM_RS_IOEVENTFD_VIRTIO_CCW_NOTIFY) {
            Kind::VirtioCcw
        } else {
            Kind::Mmio
        },
        address: request.addr,
        length: request.len,
        value: has(KVM_RS_IOEVENTFD_DATAMATCH).then_some(request.datamatch),
    };
    if has(KVM_RS_IOEVENTFD_DEASSIGN) {
        let eventfd = EventFd::from_fd(request.fd)?;
        vm.ioeventfds().deassign(&doorbell, &eventfd)?;
        return Ok(0);
    }
    if !doorbell.is_valid() || request.flags & !KVM_RS_IOEVENTFD_VALID != 0 {
        return Err(EINVAL);
    }
    vm.ioeventfds()
        .assign(doorbell, EventFd::from_fd(request.fd)?)?;
    Ok(0)
}

/// Has what is written to an eventfd interrupt the guest, or no longer.
pub(super) fn irqfd(vm: &Vm, request: &kvm_irqfd) -> Result<isize> {
    if request.flags & !(KVM_IRQFD_FLAG_DEASSIGN | KVM_IRQFD_FLAG_RESAMPLE) != 0 {
        return Err(EINVAL);
    }
    // CAST: A descriptor, whose sign the structure does not keep.
    let fd = request.fd as i32;
    if request.flags & KVM_IRQFD_FLAG_DEASSIGN != 0 {
        vm.irqfds().deassign(request.gsi, &EventFd::from_fd(fd)?);
        return Ok(0);
    }
    let irqs = vm.irqs().ok_or(EINVAL)?;
    let resample = request.flags & KVM_IRQFD_FLAG_RESAMPLE != 0;
    if resample && irqs.kind() != irq::Kind::Full {
        // Only pins of controllers in the kernel tell when an interrupt has ended.
        return Err(EINVAL);
    }
    let file = EventFile::from_fd(fd)?;
    // CAST: As above.
    let resample = resample
        .then(|| EventFd::from_fd(request.resamplefd as i32))
        .transpose()?;
    vm.irqfds().assign(irqs, request.gsi, &file, resample)?;
    Ok(0)
}
