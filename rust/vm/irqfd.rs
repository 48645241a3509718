// SPDX-License-Identifier: GPL-2.0

//! Eventfds by which devices outside of the kernel interrupt the guest.
//!
//! What is written to one raises its GSI and lowers it again. If the GSI leads to a message, that is
//! sent at once, in the context of the writer; else, or if that context cannot, by a work item. Routes
//! are looked up when it happens, so that none can be stale.
//!
//! ```text
//!   assign() --> active --- deassign(), eventfd closed, VM's file closed --> dying --> gone
//! ```
//!
//! Who finds one active and marks it as dying has it removed: a client's thread does so itself, the
//! closing of an eventfd, which cannot sleep, asks a work item to. An eventfd belongs to one irqfd at
//! most, of any VM, until that is gone.

use super::irq::{
    Irqs,
    Source, //
};
use crate::linux::{
    eventfd::{
        watch::{
            EventFile,
            Target,
            Watch, //
        },
        EventFd, //
    },
    work::{
        new_work,
        Job,
        Work, //
    }, //
};
use kernel::{
    new_mutex,
    prelude::*,
    sync::{
        atomic::{
            Atomic,
            Relaxed, //
        },
        Arc,
        Mutex, //
    }, //
};

/// Raises and lowers a line.
struct Pulse {
    irqs: Arc<Irqs>,
    gsi: u32,
}

impl Job for Pulse {
    fn run(&self) {
        self.irqs.set(Source::Client, self.gsi, true);
        self.irqs.set(Source::Client, self.gsi, false);
    }
}

/// What the eventfd of an irqfd drives.
#[pin_data(PinnedDrop)]
struct Line {
    irqs: Arc<Irqs>,
    gsi: u32,
    dying: Atomic<bool>,
    /// For what cannot be done in the writer's context.
    #[pin]
    pulse: Work<Pulse>,
    reaper: Arc<Work<Reaper>>,
}

impl Line {
    /// Returns an initialiser.
    fn new(irqs: Arc<Irqs>, gsi: u32, reaper: Arc<Work<Reaper>>) -> impl PinInit<Self> {
        let pulse = Pulse {
            irqs: irqs.clone(),
            gsi,
        };
        pin_init!(Self {
            irqs,
            gsi,
            dying: Atomic::new(false),
            pulse <- new_work!(pulse, c"kvm_rs_irqfd"),
            reaper,
        })
    }
}

impl Target for Line {
    fn signalled(&self) {
        if self.irqs.try_set_in_atomic(self.gsi, true).is_none() {
            self.pulse.queue();
        }
    }

    fn closed(&self) {
        self.dying.store(true, Relaxed);
        self.reaper.queue();
    }
}

#[pinned_drop]
impl PinnedDrop for Line {
    fn drop(self: Pin<&mut Self>) {
        // What was written before the end is not lost.
        self.pulse.flush();
    }
}

/// The irqfds of a VM that are not gone.
#[pin_data]
struct List {
    #[pin]
    watches: Mutex<KVVec<Pin<KBox<Watch<Line>>>>>,
}

impl List {
    /// Removes the irqfds that are dying or that `chosen` says, and waits until their interrupts are
    /// delivered.
    fn reap(&self, chosen: impl Fn(&Watch<Line>) -> bool) {
        // Held until they are gone: whoever marked others waits here for those, too.
        self.watches
            .lock()
            .retain(|watch| !(watch.target().dying.load(Relaxed) || chosen(watch)));
    }
}

/// Removes irqfds whose eventfds are closed.
struct Reaper(Arc<List>);

impl Job for Reaper {
    fn run(&self) {
        self.0.reap(|_| false);
    }
}

/// The irqfds of a VM.
pub(crate) struct IrqFds {
    list: Arc<List>,
    reaper: Arc<Work<Reaper>>,
}

impl IrqFds {
    /// Returns none.
    pub(super) fn new() -> Result<Self> {
        let list = Arc::pin_init(
            pin_init!(List {
                watches <- new_mutex!(KVVec::new()),
            }),
            GFP_KERNEL_ACCOUNT,
        )?;
        let reaper = Arc::pin_init(
            new_work!(Reaper(list.clone()), c"kvm_rs_irqfd_reaper"),
            GFP_KERNEL_ACCOUNT,
        )?;
        Ok(Self { list, reaper })
    }

    /// Has what is written to an eventfd interrupt the guest through `gsi`.
    ///
    /// `EBUSY` if the eventfd belongs to an irqfd already.
    pub(crate) fn assign(&self, irqs: &Arc<Irqs>, gsi: u32, file: &EventFile) -> Result {
        let line = Line::new(irqs.clone(), gsi, self.reaper.clone());
        let mut watches = self.list.watches.lock();
        watches.reserve(1, GFP_KERNEL_ACCOUNT)?;
        let watch = KBox::pin_init(Watch::new(file, line), GFP_KERNEL_ACCOUNT)?;
        if watch.was_pending() {
            watch.target().pulse.queue();
        }
        watches.push_within_capacity(watch).map_err(|_| ENOMEM)
    }

    /// Undoes [`IrqFds::assign`] for an eventfd and a GSI. On return, no interrupt comes from it any more;
    /// it does not matter if none did.
    pub(crate) fn deassign(&self, gsi: u32, eventfd: &EventFd) {
        self.list
            .reap(|watch| watch.target().gsi == gsi && watch.is_of(eventfd));
    }

    /// Removes all irqfds: the VM's file is closed.
    pub(crate) fn close(&self) {
        self.list.reap(|_| true);
        self.reaper.flush();
    }
}
