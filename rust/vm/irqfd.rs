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
//! Of a line that devices share, each has an irqfd of its own with a **resampler**: they raise the line
//! together. When the guest ends the interrupt, the line goes down, and each device is told by another
//! eventfd, to raise it again if it wants more.
//!
//! Who finds one active and marks it as dying has it removed: a client's thread does so itself, the
//! closing of an eventfd, which cannot sleep, asks a work item to. An eventfd belongs to one irqfd at
//! most, of any VM, until that is gone.

use super::irq::{
    Irqs,
    LineUser,
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
    new_spinlock,
    prelude::*,
    sync::{
        atomic::{
            Atomic,
            Relaxed, //
        },
        Arc,
        Mutex,
        SpinLock, //
    }, //
};

/// The devices that share a line, as who is told that its interrupt has ended.
#[pin_data]
struct Resampler {
    irqs: Arc<Irqs>,
    gsi: u32,
    /// Who is told. Signalled with the lock held, so that it is over when one was removed.
    #[pin]
    eventfds: SpinLock<KVVec<Arc<EventFd>>>,
}

impl Resampler {
    fn signal(&self) {
        for eventfd in &*self.eventfds.lock() {
            eventfd.signal();
        }
    }

    /// Adds one. Additions and removals are locked out.
    fn add(&self, eventfd: Arc<EventFd>) -> Result {
        let len = self.eventfds.lock().len();
        let mut larger = KVVec::with_capacity(len + 1, GFP_KERNEL_ACCOUNT)?;
        for other in &*self.eventfds.lock() {
            larger
                .push_within_capacity(other.clone())
                .map_err(|_| ENOMEM)?;
        }
        larger.push_within_capacity(eventfd).map_err(|_| ENOMEM)?;
        let old = core::mem::replace(&mut *self.eventfds.lock(), larger);
        // Freed outside the spinlock.
        drop(old);
        Ok(())
    }

    /// Removes one; returns whether there is none any more.
    fn remove(&self, eventfd: &Arc<EventFd>) -> bool {
        let mut eventfds = self.eventfds.lock();
        // The caller holds it, so that nothing is freed here.
        eventfds.retain(|other| !Arc::ptr_eq(other, eventfd));
        eventfds.is_empty()
    }
}

impl LineUser for Resampler {
    fn acknowledged(&self) {
        // Once for all of them: one that raises it again must not be undone.
        self.irqs.set(Source::Resampler, self.gsi, false);
        self.signal();
    }

    fn resample(&self) -> bool {
        self.signal();
        true
    }
}

/// An irqfd's part in a resampler.
#[derive(Clone)]
struct Resample {
    resampler: Arc<Resampler>,
    eventfd: Arc<EventFd>,
}

/// Raises and lowers a line, or leaves it up for a resampler.
struct Pulse {
    irqs: Arc<Irqs>,
    gsi: u32,
    stays_up: bool,
}

impl Job for Pulse {
    fn run(&self) {
        if self.stays_up {
            self.irqs.set(Source::Resampler, self.gsi, true);
        } else {
            self.irqs.set(Source::Client, self.gsi, true);
            self.irqs.set(Source::Client, self.gsi, false);
        }
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
    resample: Option<Resample>,
    reaper: Arc<Work<Reaper>>,
}

impl Line {
    /// Returns an initialiser.
    fn new(
        irqs: Arc<Irqs>,
        gsi: u32,
        resample: Option<Resample>,
        reaper: Arc<Work<Reaper>>,
    ) -> impl PinInit<Self> {
        let pulse = Pulse {
            irqs: irqs.clone(),
            gsi,
            stays_up: resample.is_some(),
        };
        pin_init!(Self {
            irqs,
            gsi,
            dying: Atomic::new(false),
            pulse <- new_work!(pulse, c"kvm_rs_irqfd"),
            resample,
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
struct Members {
    watches: KVVec<Pin<KBox<Watch<Line>>>>,
    resamplers: KVVec<Arc<Resampler>>,
}

impl Members {
    /// Has the device of an irqfd told by `eventfd` when interrupts of the line end.
    fn join(&mut self, irqs: &Arc<Irqs>, gsi: u32, eventfd: EventFd) -> Result<Resample> {
        let eventfd = Arc::new(eventfd, GFP_KERNEL_ACCOUNT)?;
        let found = self.resamplers.iter().find(|other| other.gsi == gsi);
        let resampler = match found {
            Some(resampler) => resampler.clone(),
            None => {
                self.resamplers.reserve(1, GFP_KERNEL_ACCOUNT)?;
                let resampler = Arc::pin_init(
                    pin_init!(Resampler {
                        irqs: irqs.clone(),
                        gsi,
                        eventfds <- new_spinlock!(KVVec::new()),
                    }),
                    GFP_KERNEL_ACCOUNT,
                )?;
                irqs.add_line_user(gsi, resampler.clone())?;
                self.resamplers
                    .push_within_capacity(resampler.clone())
                    .map_err(|_| ENOMEM)?;
                resampler
            }
        };
        resampler.add(eventfd.clone())?;
        Ok(Resample { resampler, eventfd })
    }

    /// Undoes [`Members::join`].
    fn leave(&mut self, Resample { resampler, eventfd }: Resample) {
        if !resampler.remove(&eventfd) {
            return;
        }
        let (irqs, gsi) = (&resampler.irqs, resampler.gsi);
        // Without memory, it stays to be joined by the next one.
        if irqs.remove_line_user(gsi, &*resampler).is_ok() {
            self.resamplers
                .retain(|other| !Arc::ptr_eq(other, &resampler));
        }
        irqs.set(Source::Resampler, gsi, false);
    }
}

/// The irqfds of a VM.
#[pin_data]
struct List {
    #[pin]
    members: Mutex<Members>,
}

impl List {
    /// Removes the irqfds that are dying or that `chosen` says, and waits until their interrupts are
    /// delivered.
    fn reap(&self, chosen: impl Fn(&Watch<Line>) -> bool) {
        // Held until they are gone: whoever marked others waits here for those, too.
        let mut members = self.members.lock();
        let mut index = 0;
        while let Some(watch) = members.watches.get(index) {
            if !(watch.target().dying.load(Relaxed) || chosen(watch)) {
                index += 1;
                continue;
            }
            let resample = watch.target().resample.clone();
            drop(members.watches.remove(index));
            if let Some(resample) = resample {
                members.leave(resample);
            }
        }
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
                members <- new_mutex!(Members {
                    watches: KVVec::new(),
                    resamplers: KVVec::new(),
                }),
            }),
            GFP_KERNEL_ACCOUNT,
        )?;
        let reaper = Arc::pin_init(
            new_work!(Reaper(list.clone()), c"kvm_rs_irqfd_reaper"),
            GFP_KERNEL_ACCOUNT,
        )?;
        Ok(Self { list, reaper })
    }

    /// Has what is written to an eventfd interrupt the guest through `gsi`; with `resample`, the line stays
    /// up until the guest has ended its interrupt, and that eventfd is signalled then.
    ///
    /// `EBUSY` if the eventfd belongs to an irqfd already.
    pub(crate) fn assign(
        &self,
        irqs: &Arc<Irqs>,
        gsi: u32,
        file: &EventFile,
        resample: Option<EventFd>,
    ) -> Result {
        let mut members = self.list.members.lock();
        members.watches.reserve(1, GFP_KERNEL_ACCOUNT)?;
        let resample = resample
            .map(|eventfd| members.join(irqs, gsi, eventfd))
            .transpose()?;
        let line = Line::new(irqs.clone(), gsi, resample.clone(), self.reaper.clone());
        let watch = match KBox::pin_init(Watch::new(file, line), GFP_KERNEL_ACCOUNT) {
            Ok(watch) => watch,
            Err(error) => {
                if let Some(resample) = resample {
                    members.leave(resample);
                }
                return Err(error);
            }
        };
        if watch.was_pending() {
            watch.target().pulse.queue();
        }
        members
            .watches
            .push_within_capacity(watch)
            .map_err(|_| ENOMEM)
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
