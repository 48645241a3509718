// SPDX-License-Identifier: GPL-2.0

//! Virtio devices: a transport by registers in memory, and behind it a disk and a network card.
//!
//! Each device has a page of registers ([`mmio`]), an interrupt line and a queue or two in guest
//! memory. The exits that this costs are few: a driver's notification is an ioeventfd, so KVM turns
//! the guest's write into an event for the thread that serves all devices, and the interrupt is an
//! irqfd, which needs no exit either. Only the setup and the acknowledgement of interrupts come to
//! the vCPU threads, as accesses to registers.
//!
//! The queues themselves are the crate `virtio-queue`'s, and the numbers `virtio-bindings`'. A guest
//! may put anything into its queues; what makes no sense stops that device, not the machine.

mod block;
mod mmio;
mod net;

use vm_memory::GuestMemoryMmap;

pub use block::Block;
pub use mmio::Mmio;
pub use net::Net;

/// A descriptor chain that lies in `memory`.
type Chain<'a> = virtio_queue::DescriptorChain<&'a GuestMemoryMmap>;
