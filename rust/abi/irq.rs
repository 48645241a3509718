// SPDX-License-Identifier: GPL-2.0

//! The ioctls of a VM's interrupt lines.

use super::command::command;
use crate::{
    bindings::*,
    irqchip::{
        pic::Which,
        routing::{
            IOAPIC_PINS,
            MAX_ROUTES,
            PIC_PINS, //
        },
        Msi,
        Pin,
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

/// `struct kvm_irqchip` in bytes: the controller's number, padding, and its state.
type Irqchip = [u8; size_of::<kvm_irqchip>()];

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
        (KVM_IRQ_ROUTING_IRQCHIP, Kind::Full) if flags == 0 => Target::Pin(pin(first, second)?),
        _ => return Err(EINVAL),
    };
    Ok(Route { gsi, target })
}

/// Returns a pin as the client names it.
fn pin(chip: u32, pin: u32) -> Result<Pin> {
    let pin = u8::try_from(pin).map_err(|_| EINVAL)?;
    match chip {
        KVM_IRQCHIP_PIC_MASTER if pin < PIC_PINS / 2 => Ok(Pin::Pic(pin)),
        KVM_IRQCHIP_PIC_SLAVE if pin < PIC_PINS / 2 => Ok(Pin::Pic(pin + PIC_PINS / 2)),
        KVM_IRQCHIP_IOAPIC if pin < IOAPIC_PINS => Ok(Pin::Ioapic(pin)),
        _ => Err(EINVAL),
    }
}

/// Answers KVM_GET_IRQCHIP.
pub(super) fn get_irqchip(vm: &Vm, argument: usize) -> Result<isize> {
    let command = command!(KVM_RS_IOCTL_GET_IRQCHIP: Irqchip);
    let mut area = command.read(argument)?;
    let chips = vm.irqs().and_then(|irqs| irqs.chips()).ok_or(ENXIO)?;
    let number = controller(&area);
    let state = state_mut(&mut area);
    match number {
        KVM_IRQCHIP_PIC_MASTER => fill(state, &chips.save_pic(Which::Master)),
        KVM_IRQCHIP_PIC_SLAVE => fill(state, &chips.save_pic(Which::Slave)),
        KVM_IRQCHIP_IOAPIC => fill(state, &chips.save_ioapic()),
        _ => return Err(EINVAL),
    }
    command.write(argument, &area)?;
    Ok(0)
}

/// Answers KVM_SET_IRQCHIP.
pub(super) fn set_irqchip(vm: &Vm, argument: usize) -> Result<isize> {
    let mut area = command!(KVM_RS_IOCTL_SET_IRQCHIP: Irqchip).read(argument)?;
    let irqs = vm.irqs().ok_or(ENXIO)?;
    if irqs.kind() != Kind::Full {
        return Err(ENXIO);
    }
    let number = controller(&area);
    let state = state_mut(&mut area);
    let pic = state.first_chunk().ok_or(EINVAL)?;
    let ioapic = state.first_chunk().ok_or(EINVAL)?;
    match number {
        KVM_IRQCHIP_PIC_MASTER => irqs.restore_pic(Which::Master, *pic),
        KVM_IRQCHIP_PIC_SLAVE => irqs.restore_pic(Which::Slave, *pic),
        KVM_IRQCHIP_IOAPIC => irqs.restore_ioapic(ioapic),
        _ => return Err(EINVAL),
    }
    Ok(0)
}

/// Returns which controller `struct kvm_irqchip` is about.
fn controller(area: &Irqchip) -> u32 {
    area.first_chunk()
        .map_or(u32::MAX, |bytes| u32::from_le_bytes(*bytes))
}

/// Returns the state in `struct kvm_irqchip`.
fn state_mut(area: &mut Irqchip) -> &mut [u8] {
    /// Bytes of the number and padding.
    const HEAD: usize = 8;
    area.get_mut(HEAD..).unwrap_or(&mut [])
}

/// Puts a controller's state where the client wants it; what is behind stays.
fn fill(target: &mut [u8], state: &[u8]) {
    for (target, &byte) in target.iter_mut().zip(state) {
        *target = byte;
    }
}

/// Answers KVM_IRQ_LINE.
pub(super) fn set_line(vm: &Vm, argument: usize) -> Result<isize> {
    let level = command!(KVM_RS_IOCTL_IRQ_LINE: Level).read(argument)?;
    set(vm, level, false)?;
    Ok(0)
}

/// Answers KVM_IRQ_LINE_STATUS.
pub(super) fn set_line_with_status(vm: &Vm, argument: usize) -> Result<isize> {
    let command = command!(KVM_RS_IOCTL_IRQ_LINE_STATUS: Level);
    let level @ [_, up] = command.read(argument)?;
    let status = match set(vm, level, true)? {
        // A negative number: it was ignored.
        None => u32::MAX,
        Some(count) => u32::try_from(count).unwrap_or(u32::MAX >> 1),
    };
    command.write(argument, &[status, up])?;
    Ok(0)
}

/// Raises or lowers a line; `ENXIO` if there are none.
fn set(vm: &Vm, [gsi, up]: Level, asks: bool) -> Result<Delivered> {
    let irqs = vm.irqs().ok_or(ENXIO)?;
    Ok(irqs.set_line(Source::Client, gsi, up != 0, asks))
}
