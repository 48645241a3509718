// SPDX-License-Identifier: GPL-2.0

//! The ends of interrupts, as far as an I/O APIC wants to know them.
//!
//! Most do not matter to it: those of IPIs, of timers, of edge-triggered messages. So there is a set of
//! the vectors that may ([`Filter`]), which a vCPU looks at first. Whether this very end concerns the I/O
//! APIC is decided then: it does if the interrupt was level-triggered, or if a pin with this vector leads
//! to the vCPU. The former finds the end of an interrupt whose pin leads elsewhere by now.

use super::{
    Irqs,
    Kind, //
};
use crate::{
    irqchip::{
        ioapic::{
            self,
            Ended,
            Ioapic, //
        },
        Pin,
        Routes, //
    },
    lapic::{
        Message,
        Sender,
        Trigger, //
    },
    vcpu::{
        request::Request,
        Vcpu, //
    }, //
};
use kernel::sync::atomic::{
    Atomic,
    Relaxed, //
};

/// Vectors, as bits.
pub(crate) type Vectors = [u64; 4];

/// Adds a vector to a set.
fn insert(vectors: &mut Vectors, vector: u8) {
    if let Some(word) = vectors.get_mut(usize::from(vector >> 6)) {
        *word |= 1 << (vector & 63);
    }
}

/// The vectors whose ends may concern an I/O APIC.
///
/// Who delivers an interrupt does so after its vector was added.
pub(super) struct Filter([Atomic<u64>; 4]);

impl Filter {
    /// Returns a filter that lets no vector pass.
    pub(super) fn new() -> Self {
        Self([0; 4].map(Atomic::new))
    }

    /// Returns whether the end of `vector` may concern an I/O APIC.
    #[inline]
    fn passes(&self, vector: u8) -> bool {
        self.0
            .get(usize::from(vector >> 6))
            .is_some_and(|word| word.load(Relaxed) >> (vector & 63) & 1 != 0)
    }

    /// Returns the vectors.
    fn vectors(&self) -> Vectors {
        [0, 1, 2, 3].map(|index| self.0.get(index).map_or(0, |word| word.load(Relaxed)))
    }

    /// Replaces the vectors; returns whether they are others. One that was there and stays is there all
    /// the time.
    #[must_use]
    fn set(&self, vectors: Vectors) -> bool {
        let changes = self.vectors() != vectors;
        for (word, new) in self.0.iter().zip(vectors) {
            word.store(new, Relaxed);
        }
        changes
    }

    /// Adds vectors; returns whether there were any that were not there.
    #[must_use]
    fn add(&self, vectors: Vectors) -> bool {
        let mut all = self.vectors();
        for (word, new) in all.iter_mut().zip(vectors) {
            *word |= new;
        }
        self.set(all)
    }
}

/// The end of an interrupt at a local APIC.
#[derive(Clone, Copy, Debug)]
pub(crate) struct End {
    /// Its vector.
    pub(crate) vector: u8,
    /// It was level-triggered.
    pub(crate) level: bool,
    /// The guest does not want I/O APICs told.
    pub(crate) suppressed: bool,
}

impl Irqs {
    /// Returns whether a message of a device reaches the vCPU.
    pub(super) fn reaches(&self, vcpu: &Vcpu, message: &Message) -> bool {
        let sender = Sender::Device {
            broadcast_quirk: self.vcpus.destinations().has_broadcast_quirk(),
        };
        vcpu.controller()
            .is_some_and(|controller| controller.lapic().receives(message, sender))
    }

    /// Returns the vectors of level-triggered messages to which the client's pins lead.
    fn split_vectors(&self, routes: &Routes, pins: u32) -> Vectors {
        let mut vectors = Vectors::default();
        routes
            .messages_below(pins)
            .map(|msi| self.message(msi))
            .filter(|message| message.trigger == Trigger::Level)
            .for_each(|message| insert(&mut vectors, message.vector));
        vectors
    }

    /// Returns the vectors of pins whose interrupts' ends matter.
    fn full_vectors(&self, ioapic: &Ioapic) -> Vectors {
        let mut vectors = Vectors::default();
        for (pin, entry) in ioapic.entries() {
            if entry.is_level()
                || pin == ioapic::RTC_PIN
                || self.any_user(Pin::Ioapic(pin), |_| true)
            {
                insert(&mut vectors, entry.vector());
            }
        }
        // The entry may have another vector by the time of the end.
        if ioapic.waits_for_rtc() {
            self.vcpus.for_each(|vcpu| {
                if let Some(vector) = vcpu
                    .controller()
                    .and_then(|controller| controller.expected_rtc_end())
                {
                    insert(&mut vectors, vector);
                }
            });
        }
        vectors
    }

    /// Lets the ends of interrupts of `routes` pass, besides those that do.
    pub(super) fn add_to_filter(&self, routes: &Routes) {
        if let Kind::Split { pins } = self.kind {
            let changes = self.filter.add(self.split_vectors(routes, pins));
            self.tell_vcpus(changes);
        }
    }

    /// Has the vCPUs' processors exit for other ends if the vectors have changed.
    fn tell_vcpus(&self, changes: bool) {
        if changes {
            self.vcpus.for_each(|vcpu| {
                if vcpu
                    .controller()
                    .is_some_and(|controller| controller.posts())
                {
                    vcpu.doorbell().ring(Request::EoiExits);
                }
            });
        }
    }

    /// Returns the vectors whose ends may concern an I/O APIC.
    pub(crate) fn wanted_ends(&self) -> Vectors {
        self.filter.vectors()
    }

    /// Has the ends pass that matter by the present routes, users and pins. Their changes are locked out.
    pub(super) fn refresh_filter(&self) {
        match (self.kind, &self.chips) {
            (Kind::Split { pins }, _) => {
                let vectors = self.split_vectors(&self.routes.read(), pins);
                let changes = self.filter.set(vectors);
                self.tell_vcpus(changes);
            }
            (Kind::Full, Some(chips)) => self.refresh_filter_of(&chips.ioapic()),
            (Kind::Full, None) => {}
        }
    }

    /// Returns whether an I/O APIC may want to know the end of an interrupt with this vector.
    pub(crate) fn may_want_end(&self, vector: u8) -> bool {
        self.filter.passes(vector)
    }

    /// As [`Irqs::refresh_filter`], with the I/O APIC locked.
    pub(super) fn refresh_filter_of(&self, ioapic: &Ioapic) {
        let changes = self.filter.set(self.full_vectors(ioapic));
        self.tell_vcpus(changes);
    }

    /// Takes the end of an interrupt at the vCPU's local APIC, and returns whether the client, which has
    /// the I/O APIC, is to be told. To be called by the vCPU's thread.
    #[inline]
    pub(crate) fn ended(&self, vcpu: &Vcpu, end: End) -> bool {
        self.filter.passes(end.vector) && self.ended_at_ioapic(vcpu, end)
    }

    /// See [`Irqs::ended`].
    fn ended_at_ioapic(&self, vcpu: &Vcpu, end: End) -> bool {
        let Kind::Split { pins } = self.kind else {
            self.end_pins(vcpu, end);
            return false;
        };
        let leads_here = || {
            self.routes
                .read()
                .messages_below(pins)
                .map(|msi| self.message(msi))
                .any(|message| {
                    message.vector == end.vector
                        && message.trigger == Trigger::Level
                        && self.reaches(vcpu, &message)
                })
        };
        !end.suppressed && (end.level || leads_here())
    }

    /// Ends the interrupts of pins with this vector.
    fn end_pins(&self, vcpu: &Vcpu, end: End) {
        let Some(chips) = &self.chips else {
            return;
        };
        let mut pins: u32 = 0;
        {
            let mut ioapic = chips.ioapic();
            if vcpu
                .controller()
                .is_some_and(|controller| controller.ends_rtc(end.vector))
            {
                ioapic.rtc_ended();
            }
            for (pin, entry) in ioapic.entries() {
                if entry.vector() == end.vector
                    && (end.level || self.reaches(vcpu, &entry.message()))
                {
                    pins |= 1 << pin;
                }
            }
        }
        for pin in (0..ioapic::PINS).filter(|pin| pins & 1 << pin != 0) {
            // Who drives the line may lower it, so the I/O APIC is not locked.
            self.tell(Pin::Ioapic(pin), |user| user.acknowledged());
            if !end.level || end.suppressed {
                continue;
            }
            let mut ioapic = chips.ioapic();
            match ioapic.end(pin) {
                Ended::Quiet => {}
                Ended::Again => {
                    let service = ioapic.service(pin);
                    self.finish(&mut ioapic, pin, service, false);
                }
                Ended::Storm => chips.look_later(vcpu.doorbell()),
            }
        }
    }
}
