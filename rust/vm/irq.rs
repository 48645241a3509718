// SPDX-License-Identifier: GPL-2.0

//! The interrupt lines of a VM: from a GSI over its routes to controllers and local APICs.
//!
//! See [`crate::irqchip`] for the vocabulary.

mod chips;
mod devices;
mod eoi;

pub(crate) use self::{
    chips::Chips,
    eoi::End, //
};

use self::eoi::Filter;
use super::Vcpus;
use crate::{
    irqchip::{
        Msi,
        Pin,
        Routes,
        Target, //
    },
    lapic::{
        Lvt,
        Message, //
    },
    linux::srcu_cell::SrcuCell,
    vcpu::interrupt::deliver::{
        deliver,
        try_deliver, //
    }, //
};
use kernel::{
    new_mutex,
    prelude::*,
    sync::{
        Arc,
        Mutex, //
    }, //
};

/// Who drives a line.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[allow(dead_code, reason = "not every part has its caller yet")]
#[repr(u8)]
pub(crate) enum Source {
    /// The client, and irqfds without a resampler.
    Client,
    /// Irqfds with a resampler, all of a GSI together.
    Resampler,
    /// The interval timer.
    Timer,
}

impl Source {
    /// Returns the bit that stands for the source where they are put together.
    const fn bit(self) -> u8 {
        1 << self as u8
    }
}

/// How many vCPUs got an interrupt.
///
/// `None`: it was ignored, since it is masked, leads nowhere or reached nobody. `Some(0)`: it was
/// coalesced, since an earlier one still waits.
pub(crate) type Delivered = Option<usize>;

/// Who is told what becomes of a line. The methods must not sleep; they may raise and lower lines.
pub(crate) trait LineUser: Send + Sync {
    /// The guest has ended an interrupt of the line.
    fn acknowledged(&self);

    /// A level-triggered interrupt that was held back by a mask is about to be delivered: has the line
    /// looked at again, which raises it if it is to be up. Returns whether the user can do that; the
    /// interrupt that was held back is forgotten then.
    fn resample(&self) -> bool {
        false
    }

    /// The guest masks the line at a controller, or no longer does.
    fn mask_changed(&self, _masked: bool) {}
}

/// A line and one of its users.
#[derive(Clone)]
struct Use {
    gsi: u32,
    user: Arc<dyn LineUser>,
}

/// Which controllers are in the kernel besides the local APICs.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Kind {
    /// None: the client has them, and this many pins of an I/O APIC, to which the first GSIs lead.
    Split {
        /// The number of pins.
        pins: u32,
    },
    /// All: a pair of PICs and an I/O APIC.
    Full,
}

/// The interrupt lines of a VM whose local APICs are in the kernel.
#[pin_data]
pub(crate) struct Irqs {
    vcpus: Arc<Vcpus>,
    kind: Kind,
    /// The controllers in the kernel.
    chips: Option<Arc<Chips>>,
    /// The vectors whose end an I/O APIC wants to know.
    filter: Filter,
    #[pin]
    routes: SrcuCell<Routes>,
    #[pin]
    users: SrcuCell<KVVec<Use>>,
    /// Held to replace routes or users. Has the empty list that the VM's end replaces the users by.
    #[pin]
    changing: Mutex<Option<KBox<KVVec<Use>>>>,
}

#[allow(dead_code, reason = "not every part has its caller yet")]
impl Irqs {
    /// Returns the lines of a VM with these vCPUs, whose GSIs lead nowhere yet.
    pub(super) fn new(vcpus: Arc<Vcpus>, kind: Kind) -> Result<Arc<Self>> {
        let (routes, chips) = match kind {
            Kind::Split { .. } => (Routes::empty()?, None),
            Kind::Full => (Routes::standard()?, Some(Chips::new()?)),
        };
        let users = KBox::new(KVVec::new(), GFP_KERNEL_ACCOUNT)?;
        let none = KBox::new(KVVec::new(), GFP_KERNEL_ACCOUNT)?;
        let irqs = Arc::pin_init(
            try_pin_init!(Self {
                vcpus,
                kind,
                chips,
                filter: Filter::new(),
                routes <- SrcuCell::new(routes),
                users <- SrcuCell::new(users),
                changing <- new_mutex!(Some(none)),
            }? Error),
            GFP_KERNEL_ACCOUNT,
        )?;
        irqs.refresh_filter();
        Ok(irqs)
    }

    /// Returns which controllers are in the kernel.
    pub(crate) fn kind(&self) -> Kind {
        self.kind
    }

    /// Replaces the routes. Sleeps until nobody uses the old ones any more.
    pub(crate) fn set_routes(&self, routes: KBox<Routes>) {
        let _changing = self.changing.lock();
        // Interrupts of the new routes may be on their way, and end, before the readers of the old ones
        // are done.
        self.add_to_filter(&routes);
        let old = self.routes.replace(routes);
        self.refresh_filter();
        drop(old);
    }

    /// Raises or lowers the line `gsi` on behalf of `source`, and returns how many vCPUs got an
    /// interrupt from that.
    ///
    /// A message is sent when the line is raised. To be called with interrupts on.
    #[allow(dead_code, reason = "not every part has its caller yet")]
    pub(crate) fn set(&self, source: Source, gsi: u32, up: bool) -> Delivered {
        self.set_line(source, gsi, up, false)
    }

    /// As [`Irqs::set`], for who `asks` what became of it: an interrupt of the real-time clock is
    /// coalesced until the guest has ended the one before.
    pub(crate) fn set_line(&self, source: Source, gsi: u32, up: bool, asks: bool) -> Delivered {
        let mut total = None;
        let routes = self.routes.read();
        for target in routes.of(gsi) {
            let delivered = match target {
                Target::Msi(msi) if up => self.send(msi),
                Target::Msi(_) => None,
                Target::Pin(pin) => self.set_pin(*pin, source, up, asks),
            };
            total = sum(total, delivered);
        }
        total
    }

    /// As [`Irqs::set`], but in any context save an NMI; `None` if that cannot be done right now in such
    /// a context, and nothing was done.
    ///
    /// That is so for pins of controllers, and if the vCPUs cannot be looked at without waiting.
    pub(crate) fn try_set_in_atomic(&self, gsi: u32, up: bool) -> Option<Delivered> {
        let routes = self.routes.read();
        match routes.of(gsi) {
            [] => Some(None),
            [Target::Msi(_)] if !up => Some(None),
            [Target::Msi(msi)] => try_deliver(&self.vcpus, &self.message(msi)),
            _ => None,
        }
    }

    /// Sends a message, and returns how many vCPUs accepted it.
    pub(crate) fn send(&self, msi: &Msi) -> Delivered {
        deliver(&self.vcpus, &self.message(msi))
    }

    /// Returns whether a message can be sent: as the VM's client writes them, the lowest eight bits of
    /// the upper half of the address mean nothing or must be 0.
    pub(crate) fn is_valid(&self, msi: &Msi) -> bool {
        !self.vcpus.destinations().are_wide() || msi.address_high & 0xff == 0
    }

    /// Returns the message that a device's write is.
    fn message(&self, msi: &Msi) -> Message {
        let wide = self.vcpus.destinations().are_wide();
        Message::from_msi(msi.address_low, msi.address_high, msi.data, wide)
    }

    /// Signals LINT0 where a guest has it make NMIs, as a watchdog of its own does by the interval timer.
    pub(crate) fn signal_nmi_watchdogs(&self) {
        self.vcpus.for_each(|vcpu| {
            let is_nmi = vcpu
                .controller()
                .is_some_and(|controller| controller.lapic().lint0_is_nmi());
            if is_nmi {
                vcpu.signal(Lvt::Lint0);
            }
        });
    }

    /// Has `user` told of what becomes of the line `gsi`. Sleeps.
    pub(crate) fn add_line_user(&self, gsi: u32, user: Arc<dyn LineUser>) -> Result {
        self.replace_users(|_| true, Some(Use { gsi, user }))
    }

    /// No longer has `user` told of what becomes of `gsi`. Sleeps until it is not being told any more,
    /// so that its methods must not call this.
    ///
    /// Fails with `ENOMEM` and changes nothing.
    pub(crate) fn remove_line_user(&self, gsi: u32, user: &dyn LineUser) -> Result {
        let other = |entry: &Use| entry.gsi != gsi || !core::ptr::addr_eq(&*entry.user, user);
        self.replace_users(other, None)
    }

    /// No longer has anybody told of anything: the VM is about to go. Sleeps.
    pub(super) fn remove_all_line_users(&self) {
        if let Some(none) = self.changing.lock().take() {
            drop(self.users.replace(none));
        }
    }

    fn replace_users(&self, keep: impl Fn(&Use) -> bool, more: Option<Use>) -> Result {
        let _changing = self.changing.lock();
        let mut users = KVVec::new();
        for entry in self.users.read().iter().filter(|entry| keep(entry)) {
            users.push(entry.clone(), GFP_KERNEL_ACCOUNT)?;
        }
        if let Some(entry) = more {
            users.push(entry, GFP_KERNEL_ACCOUNT)?;
        }
        let old = self.users.replace(KBox::new(users, GFP_KERNEL_ACCOUNT)?);
        self.refresh_filter();
        drop(old);
        Ok(())
    }

    /// Calls `f` with each user of the line that leads to `pin`, until it returns `true`; returns
    /// whether it did.
    fn any_user(&self, pin: Pin, f: impl FnMut(&dyn LineUser) -> bool) -> bool {
        let users = self.users.read();
        if users.is_empty() {
            return false;
        }
        let Some(gsi) = self.routes.read().gsi_of(pin) else {
            return false;
        };
        users
            .iter()
            .filter(|entry| entry.gsi == gsi)
            .map(|entry| &*entry.user)
            .any(f)
    }

    /// Tells the users of the line that leads to `pin`.
    fn tell(&self, pin: Pin, mut f: impl FnMut(&dyn LineUser)) {
        self.any_user(pin, |user| {
            f(user);
            false
        });
    }
}

/// Adds up what the targets of a line say: one that was ignored does not count beside another.
fn sum(total: Delivered, delivered: Delivered) -> Delivered {
    match (total, delivered) {
        (Some(total), Some(delivered)) => Some(total.saturating_add(delivered)),
        (total, delivered) => total.or(delivered),
    }
}
