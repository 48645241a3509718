// SPDX-License-Identifier: GPL-2.0

//! Delivery: from a message, a pin or the timer to a request, and from the request to its end.

use super::{
    access::Effect,
    message::{
        DeliveryMode,
        Message,
        Trigger, //
    },
    page::Page,
    posted::PostedInterrupts,
    priority::Priorities,
    register::{
        Lvt,
        Register,
        LVT_LEVEL,
        LVT_MASKED,
        SVR_DIRECTED_EOI, //
    },
    state::{
        DirectedEoi,
        Lapic,
        Owned, //
    },
    timer::{
        ArmTimer,
        Now, //
    },
    vectors, //
};

/// Lowest vector that may be delivered.
pub(crate) const FIRST_VECTOR: u8 = 16;

/// INIT is latched.
const SIGNAL_INIT: u32 = 1 << 0;
/// A start-up is latched; its vector stands in bits 15:8.
const SIGNAL_STARTUP: u32 = 1 << 1;
/// The vector of the start-up.
const SIGNAL_VECTOR: u32 = 0xff00;

/// An error that ESR logs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Error {
    /// A message to be sent had a vector below 16.
    SendIllegalVector,
    /// A message received, or an LVT entry, had a vector below 16.
    ReceiveIllegalVector,
    /// An access to a reserved register.
    IllegalRegister,
}

impl Error {
    /// Returns the error's bit in ESR.
    pub(crate) const fn bit(self) -> u32 {
        match self {
            Self::SendIllegalVector => 1 << 5,
            Self::ReceiveIllegalVector => 1 << 6,
            Self::IllegalRegister => 1 << 7,
        }
    }
}

/// What a delivery asks of the caller, who can do it from any thread.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[must_use]
pub(crate) enum Action {
    /// Nothing: the message was discarded.
    Discarded,
    /// A vector is requested: wake or kick the vCPU if it is `new`. If not, it merged with a
    /// request whose sender does that.
    Requested {
        /// The vector was not requested before.
        new: bool,
    },
    /// A vector is posted, see [`PostedInterrupts`].
    Posted {
        /// Notify the processor, or wake the vCPU.
        notify: bool,
    },
    /// The message was discarded, which was an error: a vector that reports it is requested. Do as for
    /// a new request or a notification.
    Erred,
    /// Inject an NMI.
    Nmi,
    /// Inject an SMI.
    Smi,
    /// INIT or a start-up is latched: wake or kick the vCPU, which takes it by
    /// [`Lapic::take_init`] and [`Lapic::take_startup`].
    Signalled,
    /// Wake the vCPU from HLT.
    Unhalt,
}

impl Action {
    /// Returns whether the message was accepted.
    pub(crate) const fn is_delivered(self) -> bool {
        !matches!(self, Self::Discarded | Self::Erred)
    }
}

/// What [`Lapic::expire`] found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[must_use]
pub(crate) struct Expired {
    /// The interrupt's delivery; `Discarded` if the timer is masked or has not gone off.
    pub(crate) action: Action,
    /// How the host timer should stand from now on.
    pub(crate) arm: ArmTimer,
}

impl<P: Page> Lapic<P> {
    /// Returns what the delivery of `message`, which concerns this APIC, asks for. Any thread.
    pub(crate) fn accept(&self, message: &Message) -> Action {
        self.deliver(
            message.mode,
            message.vector,
            message.trigger,
            message.asserted,
        )
    }

    /// Returns how the request of `vector` went. Any thread.
    ///
    /// A disabled APIC accepts none; one below 16 is an error that is logged.
    #[inline]
    pub(crate) fn post(&self, vector: u8, trigger: Trigger) -> Action {
        if !self.is_software_enabled() {
            return Action::Discarded;
        }
        if vector < FIRST_VECTOR {
            return if self.log(Error::ReceiveIllegalVector) {
                Action::Erred
            } else {
                Action::Discarded
            };
        }
        // The trigger mode must be there when the request is seen.
        vectors::assign(
            self.page(),
            Register::TMR,
            vector,
            trigger == Trigger::Level,
        );
        if let Some(posted) = self.posted() {
            return Self::post_to(posted, vector);
        }
        Action::Requested {
            new: self.irr().insert(vector),
        }
    }

    /// As [`Self::post`], with a descriptor.
    #[inline(never)]
    fn post_to(posted: &PostedInterrupts, vector: u8) -> Action {
        Action::Posted {
            notify: posted.post(vector),
        }
    }

    /// Returns what a signal of the given kind asks for.
    fn deliver(&self, mode: DeliveryMode, vector: u8, trigger: Trigger, asserted: bool) -> Action {
        let deasserted = trigger == Trigger::Level && !asserted;
        match mode {
            DeliveryMode::Fixed | DeliveryMode::LowestPriority if deasserted => Action::Discarded,
            DeliveryMode::Fixed | DeliveryMode::LowestPriority => self.post(vector, trigger),
            DeliveryMode::Smi => Action::Smi,
            DeliveryMode::RemoteRead => Action::Unhalt,
            DeliveryMode::Nmi => Action::Nmi,
            // The de-assertion only concerned arbitration IDs.
            DeliveryMode::Init if deasserted => Action::Discarded,
            DeliveryMode::Init => {
                // An INIT forgets start-ups that came before it.
                self.signals.swap(SIGNAL_INIT);
                Action::Signalled
            }
            DeliveryMode::Startup => {
                let startup = SIGNAL_STARTUP | u32::from(vector) << 8;
                self.signals.update(|old| old & SIGNAL_INIT | startup);
                Action::Signalled
            }
            // The PIC's interrupt is taken where it is known, see `accepts_pic`.
            DeliveryMode::ExtInt => Action::Discarded,
        }
    }

    /// Returns what a signal at an LVT entry asks for.
    pub(crate) fn deliver_local(&self, entry: Lvt) -> Action {
        let value = self.page().get(entry.register());
        if !self.is_enabled() || value & LVT_MASKED != 0 {
            return Action::Discarded;
        }
        let mode = match entry {
            Lvt::Timer | Lvt::Error => DeliveryMode::Fixed,
            _ => DeliveryMode::from_bits_8(value),
        };
        let level = matches!(entry, Lvt::Lint0 | Lvt::Lint1) && value & LVT_LEVEL != 0;
        let trigger = if level { Trigger::Level } else { Trigger::Edge };
        // CAST: the vector is the low byte.
        let action = self.deliver(mode, value as u8, trigger, true);
        // The processor masks the counters' entry when their interrupt is delivered.
        if entry == Lvt::Performance && action.is_delivered() {
            self.page().set(entry.register(), value | LVT_MASKED);
        }
        action
    }

    /// Logs `error`, and returns whether its interrupt is requested anew.
    pub(super) fn log(&self, error: Error) -> bool {
        let old = self.errors.set_bits(error.bit());
        if old & error.bit() != 0 {
            return false;
        }
        let entry = self.page().get(Register::LVT_ERROR);
        // CAST: the vector is the low byte.
        let vector = entry as u8;
        // A vector that cannot be delivered must not lead back here.
        let open = entry & LVT_MASKED == 0 && vector >= FIRST_VECTOR;
        open && matches!(
            self.post(vector, Trigger::Edge),
            Action::Requested { new: true } | Action::Posted { notify: true }
        )
    }

    /// Returns what the timer's expiry asks for; also right if it did not go off yet.
    ///
    /// To be called by the owner after the host timer fired, or if the time to arm is past.
    pub(crate) fn expire(&self, owned: &mut Owned, now: Now) -> Expired {
        let action = if owned.timer.expire(now) {
            self.deliver_local(Lvt::Timer)
        } else {
            Action::Discarded
        };
        Expired {
            action,
            arm: owned.timer.armed(),
        }
    }

    /// Returns the vector to deliver next: the highest request, if above the processor priority.
    #[inline]
    pub(crate) fn next_interrupt(&self) -> Option<u8> {
        // Most of the time nothing is requested, and then ISR does not matter.
        let irr = Some(self.irr().highest()?);
        if !self.is_enabled() {
            return None;
        }
        let priorities = Priorities {
            tpr: self.tpr(),
            isr: self.isr().highest(),
            irr,
        };
        priorities.deliverable()
    }

    /// Moves `vector`, which [`Self::next_interrupt`] returned, from request to service.
    #[inline]
    pub(crate) fn acknowledge(&self, vector: u8) {
        self.irr().remove(vector);
        self.isr().insert(vector);
    }

    /// Returns whether `vector` is requested or in service.
    pub(crate) fn is_pending(&self, vector: u8) -> bool {
        self.posted().is_some_and(|posted| posted.contains(vector))
            || self.irr().contains(vector)
            || self.isr().contains(vector)
    }

    /// Adds the posted requests to IRR; returns whether there may have been any. To be called by the
    /// owner, while the processor does not work on the page.
    #[inline]
    pub(crate) fn take_posted(&self) -> bool {
        match self.posted() {
            Some(posted) if posted.is_outstanding() => {
                posted.take(self.irr());
                self.status_stale.set(1);
                true
            }
            _ => false,
        }
    }

    /// Returns whether IRR or ISR have been changed by others than the processor since this was asked
    /// last, so that [`Lapic::status`] may be another.
    #[inline]
    pub(crate) fn take_status_stale(&self) -> bool {
        let stale = self.status_stale.get() != 0;
        if stale {
            self.status_stale.set(0);
        }
        stale
    }

    /// Has [`Lapic::status`] be asked for.
    pub(crate) fn mark_status_stale(&self) {
        self.status_stale.set(1);
    }

    /// Returns the vectors that the processor goes on with: the highest one requested, and the highest
    /// one in service.
    ///
    /// From now on the processor changes the sets by itself.
    pub(crate) fn status(&self) -> (Option<u8>, Option<u8>) {
        self.irr().look_at_all();
        self.isr().look_at_all();
        (self.irr().highest(), self.isr().highest())
    }

    /// Notes that the processor no longer changes the sets.
    pub(crate) fn take_back(&self) {
        self.irr().refresh();
        self.isr().refresh();
    }

    /// Returns the highest requested vector, whether deliverable or not.
    pub(crate) fn highest_request(&self) -> Option<u8> {
        self.irr().highest()
    }

    /// Returns the highest vector in service.
    pub(crate) fn highest_in_service(&self) -> Option<u8> {
        self.isr().highest()
    }

    /// Returns whether nothing waits for the next end of an interrupt: no request but one that is about
    /// to be delivered, and nobody by the trigger mode or by `is_wanted`, which is asked about vectors.
    pub(crate) fn end_can_wait(&self, is_wanted: impl Fn(u8) -> bool) -> bool {
        let can_wait =
            |vector| !vectors::contains(self.page(), Register::TMR, vector) && !is_wanted(vector);
        let in_service = self.isr().highest();
        match self.irr().highest() {
            None => in_service.is_some_and(can_wait),
            Some(requested) => {
                self.next_interrupt() == Some(requested)
                    && self.irr().is_only(requested)
                    && can_wait(requested)
                    && in_service.is_none_or(can_wait)
            }
        }
    }

    /// Ends the interrupt in service, and returns what that means to others.
    pub(crate) fn end_of_interrupt(&self, owned: &Owned) -> Effect {
        let Some(vector) = self.isr().highest() else {
            return Effect::None;
        };
        self.isr().remove(vector);
        self.status_stale.set(1);
        self.ended(owned, vector)
    }

    /// Returns what the end of `vector`, which is no longer in service, means to others.
    #[inline]
    pub(crate) fn ended(&self, owned: &Owned, vector: u8) -> Effect {
        let suppressed = owned.config.directed_eoi == DirectedEoi::Honoured
            && self.page().get(Register::SVR) & SVR_DIRECTED_EOI != 0;
        Effect::Eoi {
            vector,
            level: vectors::contains(self.page(), Register::TMR, vector),
            suppressed,
        }
    }

    /// Returns whether INIT or a start-up is latched.
    #[inline]
    pub(crate) fn is_signalled(&self) -> bool {
        self.signals.get() & (SIGNAL_INIT | SIGNAL_STARTUP) != 0
    }

    /// Returns whether INIT was latched, and takes it.
    pub(crate) fn take_init(&self) -> bool {
        self.signals.get() & SIGNAL_INIT != 0
            && self.signals.clear_bits(SIGNAL_INIT) & SIGNAL_INIT != 0
    }

    /// Returns whether INIT is latched.
    pub(crate) fn has_init(&self) -> bool {
        self.signals.get() & SIGNAL_INIT != 0
    }

    /// Latches INIT, or forgets it, as the client restores it.
    pub(crate) fn set_init(&self, latched: bool) {
        if latched {
            self.signals.set_bits(SIGNAL_INIT);
        } else {
            self.signals.clear_bits(SIGNAL_INIT);
        }
    }

    /// Sets the vector that a start-up has which the client latches.
    pub(crate) fn set_startup_vector(&self, vector: u8) {
        self.signals
            .update(|old| (old & !SIGNAL_VECTOR) | u32::from(vector) << 8);
    }

    /// Latches a start-up with the vector that was set last.
    pub(crate) fn latch_startup(&self) {
        self.signals.set_bits(SIGNAL_STARTUP);
    }

    /// Returns the vector of a start-up that was latched after the last INIT, and takes it.
    pub(crate) fn take_startup(&self) -> Option<u8> {
        let old = self.signals.clear_bits(SIGNAL_STARTUP);
        // CAST: eight bits are left.
        (old & SIGNAL_STARTUP != 0).then_some(((old & SIGNAL_VECTOR) >> 8) as u8)
    }
}
