// SPDX-License-Identifier: GPL-2.0

//! How other threads reach a running vCPU: request bits and a kick.
//!
//! The protocol is that of Documentation/virt/kvm/vcpu-requests.rst:
//!
//! ```text
//!   requester                          vCPU thread, interrupts off
//!   ---------                          ---------------------------
//!   set the request                    mode = InGuest
//!   full barrier                       full barrier
//!   mode == InGuest? send an IPI       a request or task work pending? mode = Outside, do not enter
//! ```
//!
//! Either the vCPU sees the request before it enters, or the requester sees that it is in its guest and
//! the IPI, which stays pending while interrupts are off, makes it exit.

use crate::linux::{
    cpu_call::{
        send_posted_interrupt,
        send_reschedule, //
    },
    preempt::{
        full_barrier,
        PreemptGuard, //
    },
    wait::TaskWait, //
};
use kernel::{
    prelude::*,
    sync::atomic::{
        Acquire,
        Atomic,
        Full,
        Relaxed,
        Release, //
    }, //
};

/// Something that a vCPU must look at before it enters its guest again.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Request {
    /// Entries of the tables went away: a flush is owed.
    TlbFlush,
    /// An interrupt, NMI, INIT or SIPI may have become deliverable.
    Event,
    /// The local APIC's timer expired.
    Timer,
    /// The guest's clock in its memory is out of date.
    Clock,
    /// What exits is to be decided anew.
    Intercepts,
    /// The mode of the local APIC, or the APIC-access page, is another one.
    ApicAccess,
    /// Lines of the I/O APIC may be up that it has stopped looking at for a while.
    IoapicLines,
    /// The processor is to log the pages that the guest writes, or no longer.
    DirtyLogging,
    /// The ring of written pages may have to be emptied by the client first.
    DirtyRing,
    /// The VM's table of destinations is out of date.
    Destinations,
    /// A page that was away may be there, or the guest may be told of one.
    AsyncPage,
    /// Other ends of interrupts matter.
    EoiExits,
}

impl Request {
    /// Returns the request's bit.
    const fn bit(self) -> u32 {
        1 << self as u32
    }
}

/// Requests that were taken, to be looked at one by one.
#[derive(Clone, Copy)]
pub(crate) struct Taken(u32);

impl Taken {
    /// Returns whether this request was among them.
    pub(crate) const fn has(self, request: Request) -> bool {
        self.0 & request.bit() != 0
    }
}

/// The part of a vCPU that any thread, and any interrupt handler, may touch.
#[pin_data]
pub(crate) struct Doorbell {
    /// The CPU in whose guest mode the vCPU is, or [`OUTSIDE`].
    in_guest: Atomic<i32>,
    requests: Atomic<u32>,
    /// The vCPU's thread wants a CPU and has none, as far as is known.
    ready: Atomic<bool>,
    /// Where the vCPU's thread sleeps.
    sleeper: TaskWait,
}

/// The vCPU is not in guest mode.
const OUTSIDE: i32 = -1;

impl Doorbell {
    /// Returns an initialiser for the doorbell of a vCPU that is outside.
    pub(crate) fn new() -> impl PinInit<Self> {
        pin_init!(Self {
            in_guest: Atomic::new(OUTSIDE),
            requests: Atomic::new(0),
            ready: Atomic::new(false),
            sleeper: TaskWait::new(),
        })
    }

    /// Sets a request without kicking the vCPU; orders it before what follows.
    ///
    /// Returns whether it was not set before.
    #[inline]
    pub(crate) fn set(&self, request: Request) -> bool {
        let mut old = self.requests.load(Relaxed);
        while let Err(now) = self.requests.cmpxchg(old, old | request.bit(), Full) {
            old = now;
        }
        old & request.bit() == 0
    }

    /// Sets a request and makes the vCPU look at it soon, in its guest or halted. Any context.
    ///
    /// Who finds it set leaves the rest to who set it: it rings too, or is the vCPU's own thread,
    /// which looks before it enters its guest or sleeps.
    #[inline]
    pub(crate) fn ring(&self, request: Request) {
        // Others rely on the kick once they see the request.
        let _preempt = PreemptGuard::new();
        if !self.set(request) {
            return;
        }
        if let Some(cpu) = self.guest_cpu() {
            send_reschedule(cpu);
        } else {
            self.ready.store(true, Relaxed);
            self.sleeper.wake();
        }
    }

    /// Has the processor that runs the vCPU take what is posted to it, or the vCPU's thread if it is
    /// outside. Any context.
    pub(crate) fn notify(&self) {
        let _preempt = PreemptGuard::new();
        match self.guest_cpu() {
            Some(cpu) => send_posted_interrupt(cpu),
            None => self.ring(Request::Event),
        }
    }

    /// Returns whether the vCPU's thread wants a CPU and has none, as far as is known.
    pub(super) fn is_ready(&self) -> bool {
        self.ready.load(Relaxed)
    }

    /// Notes whether the vCPU's thread wants a CPU and has none.
    #[inline]
    pub(super) fn set_ready(&self, ready: bool) {
        self.ready.store(ready, Relaxed);
    }

    /// Returns the CPU on which the vCPU is in guest mode.
    pub(crate) fn guest_cpu(&self) -> Option<u32> {
        // CAST: Not negative if inside.
        match self.in_guest.load(Relaxed) {
            OUTSIDE => None,
            cpu => Some(cpu as u32),
        }
    }

    /// Announces that the vCPU is about to enter its guest on `cpu`; interrupts are off.
    ///
    /// Returns whether it must not, because requests wait.
    #[inline]
    pub(super) fn enter(&self, cpu: u32) -> bool {
        // CAST: CPU numbers are small.
        self.in_guest.store(cpu as i32, Relaxed);
        full_barrier();
        self.requests.load(Relaxed) != 0
    }

    /// Announces that the vCPU is outside again.
    #[inline]
    pub(super) fn leave(&self) {
        self.in_guest.store(OUTSIDE, Release);
    }

    /// Returns whether requests wait.
    #[inline]
    pub(super) fn is_pending(&self) -> bool {
        self.requests.load(Relaxed) != 0
    }

    /// Takes all requests.
    pub(super) fn take(&self) -> Taken {
        Taken(self.requests.xchg(0, Acquire))
    }

    /// Sleeps until a request comes; returns whether a signal came instead.
    ///
    /// To be called by the thread that holds the vCPU.
    pub(super) fn sleep(&self) -> bool {
        self.sleeper
            .wait_interruptible(&|| self.is_pending())
            .is_err()
    }
}
