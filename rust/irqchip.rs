// SPDX-License-Identifier: GPL-2.0

//! Interrupt controllers of a VM beside its local APICs, and the routes that lead to them.
//!
//! # Vocabulary
//!
//! - *GSI*: a number that stands for an interrupt line of the VM, 0 to 4095. What the client, an irqfd
//!   or the timer raises and lowers is a GSI.
//! - *Route*: what a GSI leads to: pins of the controllers in the kernel, or a message to local APICs.
//!   The table of routes is [`Routes`], an immutable snapshot.
//! - *Source*: who drives a line. A pin is up while at least one of its sources holds it up.
//! - *Acknowledged*: the guest has ended the interrupt of a pin; who drives it may look again whether
//!   the line is still to be up.
//!
//! # Who does what
//!
//! Here are tables and state machines that call nobody: [`Routes`], the pair of PICs ([`pic::Pic`]) and
//! the I/O APIC ([`ioapic::Ioapic`]); the latter two depend on `core` only, and are tested on the host as
//! well. The VM's side is
//! [`Irqs`](crate::vm::irq::Irqs), which exists once the client has asked for controllers in the kernel
//! (`vm.irqs()` is `None` before); devices in the kernel keep an `Arc` of it:
//!
//! - [`Irqs::set`](crate::vm::irq::Irqs::set) raises or lowers a GSI for a source, where sleeping is
//!   allowed or at least interrupts are on.
//! - [`Irqs::try_set_in_atomic`](crate::vm::irq::Irqs::try_set_in_atomic) does so in any context but an
//!   NMI, where it can: for messages. Who is told that it cannot tries again from a work item.
//! - [`Irqs::add_line_user`](crate::vm::irq::Irqs::add_line_user) has a
//!   [`LineUser`](crate::vm::irq::LineUser) told when a GSI is acknowledged or its mask changes.
//! - Registers of devices are found through [`Bus`](crate::vm::bus::Bus).

pub(crate) mod ioapic;
pub(crate) mod pic;
pub(crate) mod pit;
pub(crate) mod routing;

pub(crate) use self::routing::{
    Msi,
    Pin,
    Route,
    Routes,
    Target, //
};
