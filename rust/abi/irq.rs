// SPDX-License-Identifier: GPL-2.0

//! The ioctls of a VM's interrupt lines.

use super::command::command;
use crate::{
    bindings::*,
    irqchip::{
        routing::MAX_ROUTES,
        Msi,
        Route,
        Routes,
        Target, //
    },
    linux::uaccess,
    vm::{
        irq::{
            Delivered,
            Kind,
            Source, //
        },
        Vm, //
    },
};
use kernel::prelude::*;

/// `struct kvm_irq_routing_entry` in words: GSI, type, flags, padding, then what the type says.
type RoutingEntry = [u32; size_of::<kvm_irq_routing_entry>() / 4];

/// `struct kvm_irq_routing` in words, without its entries: their number, flags.
type RoutingHead = [u32; 2];

/// `struct kvm_irq_level` in words: a GSI, or the status; the level.
type Level = [u32; 2];

/// Sends the message of a device, and returns how many vCPUs accepted it; `EPERM` if there are none, as
/// KVM does.
pub(super) fn signal_msi(vm: &Vm, msi: &kvm_msi) -> Result<isize> {
    let irqs = vm.irqs().ok_or(EINVAL)?;
    if msi.flags & !KVM_MSI_VALID_DEVID != 0 {
        return Err(EINVAL);
    }
    let msi = Msi {
        address_low: msi.address_lo,
        address_high: msi.address_hi,
        data: msi.data,
    };
    if !irqs.is_valid(&msi) {
        return Err(EINVAL);
    }
    let delivered = irqs.send(&msi);
    Ok(delivered.ok_or(EPERM)? as isize)
}

/// Answers KVM_SET_GSI_ROUTING.
pub(super) fn set_routing(vm: &Vm, argument: usize) -> Result<isize> {
    let [count, flags] = command!(KVM_RS_IOCTL_SET_GSI_ROUTING: RoutingHead).read(argument)?;
    let irqs = vm.irqs().ok_or(EINVAL)?;
    if count > MAX_ROUTES || flags != 0 {
        return Err(EINVAL);
    }
    let list = argument
        .checked_add(size_of::<RoutingHead>())
        .ok_or(EFAULT)?;
    let entries = uaccess::read_list::<RoutingEntry>(list, count as usize)?;
    let mut routes = KVVec::with_capacity(entries.len(), GFP_KERNEL_ACCOUNT)?;
    for entry in &entries {
        let route = route(irqs.kind(), entry)?;
        if matches!(&route.target, Target::Msi(msi) if !irqs.is_valid(msi)) {
            return Err(EINVAL);
        }
        routes.push(route, GFP_KERNEL_ACCOUNT)?;
    }
    irqs.set_routes(Routes::new(&routes)?);
    Ok(0)
}

/// Returns the route that the client wrote, `EINVAL` if a VM with these controllers has no such.
fn route(kind: Kind, entry: &RoutingEntry) -> Result<Route> {
    let &[gsi, kind_of_route, flags, _, first, second, third, ..] = entry;
    let target = match (kind_of_route, kind) {
        (KVM_IRQ_ROUTING_MSI, _) if flags & !KVM_MSI_VALID_DEVID == 0 => Target::Msi(Msi {
            address_low: first,
            address_high: second,
            data: third,
        }),
        _ => return Err(EINVAL),
    };
    Ok(Route { gsi, target })
}

/// Answers KVM_IRQ_LINE.
pub(super) fn set_line(vm: &Vm, argument: usize) -> Result<isize> {
    let level = command!(KVM_RS_IOCTL_IRQ_LINE: Level).read(argument)?;
    set(vm, level)?;
    Ok(0)
}

/// Answers KVM_IRQ_LINE_STATUS.
pub(super) fn set_line_with_status(vm: &Vm, argument: usize) -> Result<isize> {
    let command = command!(KVM_RS_IOCTL_IRQ_LINE_STATUS: Level);
    let level @ [_, up] = command.read(argument)?;
    let status = match set(vm, level)? {
        // A negative number: it was ignored.
        None => u32::MAX,
        Some(count) => u32::try_from(count).unwrap_or(u32::MAX >> 1),
    };
    command.write(argument, &[status, up])?;
    Ok(0)
}

/// Raises or lowers a line; `ENXIO` if there are none.
fn set(vm: &Vm, [gsi, up]: Level) -> Result<Delivered> {
    let irqs = vm.irqs().ok_or(ENXIO)?;
    Ok(irqs.set(Source::Client, gsi, up != 0))
}
