// SPDX-License-Identifier: GPL-2.0

//! The pair of PICs and the I/O APIC in the kernel: their locks, and what their state machines ask for.
//!
//! Each has a spinlock that is taken with interrupts on, and with preemption off at times, so nothing
//! below it sleeps. Below that of the I/O APIC come the locks of delivery. No user of a line is called,
//! and no vCPU looked for on behalf of the PICs, with either lock held.

use super::{
    Delivered,
    Irqs,
    Source, //
};
use crate::{
    irqchip::{
        ioapic::{
            self,
            Ioapic,
            Service, //
        },
        pic::{
            self,
            Effects,
            Pic,
            Which, //
        },
        routing::PIC_PINS,
        Pin, //
    },
    linux::timer::{
        now_ns,
        Expire,
        HostTimer, //
    },
    vcpu::{
        interrupt::deliver::deliver,
        request::{
            Doorbell,
            Request, //
        },
        Vcpu, //
    },
};
use kernel::{
    new_spinlock,
    prelude::*,
    sync::{
        atomic::{
            Atomic,
            Relaxed, //
        },
        lock::{
            spinlock::SpinLockBackend,
            Guard, //
        },
        Arc,
        SetOnce,
        SpinLock, //
    }, //
};

/// Nanoseconds that a guest gets before a line that does not go down interrupts it once more.
const STORM_PAUSE_NS: u64 = 10_000_000;

/// Has a vCPU's thread look at the lines of the I/O APIC.
struct Ring(Arc<SetOnce<Arc<Doorbell>>>);

impl Expire for Ring {
    const HARD: bool = true;

    fn expired(&self, _ticks: u64) {
        let Self(bell) = self;
        if let Some(doorbell) = SetOnce::as_ref(bell) {
            doorbell.ring(Request::IoapicLines);
        }
    }
}

/// The controllers in the kernel.
#[pin_data]
pub(crate) struct Chips {
    /// The PICs' interrupt line, as vCPUs see it without the lock.
    pic_asks: Atomic<bool>,
    #[pin]
    pic: SpinLock<Pic>,
    #[pin]
    ioapic: SpinLock<Ioapic>,
    #[pin]
    later: HostTimer<Ring>,
    /// Whom `later` rings.
    bell: Arc<SetOnce<Arc<Doorbell>>>,
}

impl Chips {
    /// Returns the controllers after power-up.
    pub(super) fn new() -> Result<Arc<Self>> {
        let bell = Arc::new(SetOnce::new(), GFP_KERNEL_ACCOUNT)?;
        Arc::pin_init(
            pin_init!(Self {
                pic_asks: Atomic::new(false),
                pic <- new_spinlock!(Pic::new()),
                ioapic <- new_spinlock!(Ioapic::new()),
                later <- HostTimer::new(Ring(bell.clone())),
                bell,
            }),
            GFP_KERNEL_ACCOUNT,
        )
    }

    /// Returns whether the PICs have an interrupt.
    #[inline]
    pub(crate) fn pic_asks(&self) -> bool {
        self.pic_asks.load(Relaxed)
    }

    /// Locks the I/O APIC.
    pub(super) fn ioapic(&self) -> Guard<'_, Ioapic, SpinLockBackend> {
        self.ioapic.lock()
    }

    /// Computes the PICs' line anew; returns whether a vCPU has to look.
    fn update(&self, pic: &mut Pic) -> bool {
        let rose = pic.update();
        self.pic_asks.store(pic.output(), Relaxed);
        rose
    }

    /// Has the lines of the I/O APIC looked at after a while, by the vCPU of `doorbell` or one that was
    /// named before.
    pub(super) fn look_later(&self, doorbell: &Arc<Doorbell>) {
        self.bell.populate(doorbell.clone());
        self.later.arm(now_ns().saturating_add(STORM_PAUSE_NS));
    }

    /// Returns the state of a PIC as the client saves it.
    pub(crate) fn save_pic(&self, which: Which) -> [u8; pic::SAVE_SIZE] {
        self.pic.lock().save(which)
    }

    /// Returns the state of the I/O APIC as the client saves it.
    pub(crate) fn save_ioapic(&self) -> [u8; ioapic::SAVE_SIZE] {
        self.ioapic.lock().save()
    }
}

/// Returns the pins in a set of those of the PICs.
fn pic_pins(set: u16) -> impl Iterator<Item = u8> {
    (0..PIC_PINS).filter(move |pin| set & 1 << pin != 0)
}

impl Irqs {
    /// Returns the controllers in the kernel.
    pub(crate) fn chips(&self) -> Option<&Arc<Chips>> {
        self.chips.as_ref()
    }

    /// Raises or lowers the line of a pin.
    pub(super) fn set_pin(&self, pin: Pin, source: Source, up: bool, asks: bool) -> Delivered {
        let chips = self.chips.as_ref()?;
        match pin {
            Pin::Pic(pin) => {
                let (delivered, rose) = {
                    let mut pic = chips.pic.lock();
                    let delivered = pic.set_line(pin, source.bit(), up);
                    (delivered, chips.update(&mut pic))
                };
                if rose {
                    self.wake_for_pic();
                }
                delivered
            }
            Pin::Ioapic(pin) => {
                let mut ioapic = chips.ioapic.lock();
                let service = ioapic.set_line(pin, source.bit(), up, asks);
                self.finish(&mut ioapic, pin, service, asks)
            }
        }
    }

    /// Sends what a pin of the I/O APIC has to send, and returns what became of its interrupt.
    pub(super) fn finish(
        &self,
        ioapic: &mut Ioapic,
        pin: u8,
        service: Service,
        asks: bool,
    ) -> Delivered {
        match service {
            Service::Settled(delivered) => delivered,
            Service::Send(message) => {
                let delivered = deliver(&self.vcpus, &message);
                ioapic.delivered(pin, delivered);
                if pin == ioapic::RTC_PIN && asks {
                    self.track_rtc(ioapic);
                }
                delivered
            }
        }
    }

    /// Notes which vCPUs have yet to end the interrupt of the real-time clock.
    fn track_rtc(&self, ioapic: &mut Ioapic) {
        let message = ioapic.entry(ioapic::RTC_PIN).message();
        let mut count = 0;
        self.vcpus.for_each(|vcpu| {
            let Some(controller) = vcpu.controller() else {
                return;
            };
            let waits =
                controller.lapic().is_pending(message.vector) && self.reaches(vcpu, &message);
            controller.expect_rtc_end(waits.then_some(message.vector));
            count += usize::from(waits);
        });
        ioapic.set_rtc_waits(count);
    }

    /// Takes into account that a local APIC has the state that its client saved.
    pub(crate) fn lapic_restored(&self) {
        if let Some(chips) = &self.chips {
            self.track_rtc(&mut chips.ioapic.lock());
        }
    }

    /// Requests what waits at level-triggered pins of the I/O APIC.
    pub(crate) fn request_waiting(&self) {
        let Some(chips) = &self.chips else {
            return;
        };
        let mut ioapic = chips.ioapic.lock();
        for pin in 0..ioapic::PINS {
            self.request_if_waiting(&mut ioapic, pin);
        }
    }

    /// Requests what waits at a level-triggered pin.
    fn request_if_waiting(&self, ioapic: &mut Ioapic, pin: u8) {
        if ioapic.waits(pin) {
            let service = ioapic.service(pin);
            self.finish(ioapic, pin, service, false);
        }
    }

    /// Writes a register of the I/O APIC; returns whether it is there.
    pub(super) fn write_ioapic(&self, chips: &Chips, address: u64, value: u32) -> bool {
        let (pin, mask_changed, waits) = {
            let mut ioapic = chips.ioapic.lock();
            if !ioapic.covers(address) {
                return false;
            }
            let Some(written) = ioapic.write(address, value) else {
                return true;
            };
            if written.vector_changed {
                self.refresh_filter_of(&ioapic);
            }
            (written.pin, written.mask_changed, written.waits)
        };
        if let Some(masked) = mask_changed {
            self.tell(Pin::Ioapic(pin), |user| user.mask_changed(masked));
        }
        if waits {
            // What waited may be out of date: its line went down, and nobody could tell.
            let mut resampled = false;
            self.tell(Pin::Ioapic(pin), |user| resampled |= user.resample());
            let mut ioapic = chips.ioapic.lock();
            if !resampled {
                self.request_if_waiting(&mut ioapic, pin);
            } else if ioapic.waits(pin) {
                ioapic.forget(pin);
            }
        }
        true
    }

    /// Reads a register of the I/O APIC; `None` if it is not there.
    pub(super) fn read_ioapic(&self, chips: &Chips, address: u64) -> Option<u32> {
        let ioapic = chips.ioapic.lock();
        ioapic.covers(address).then(|| ioapic.read(address))
    }

    /// Takes the state of the I/O APIC as the client saved it.
    pub(crate) fn restore_ioapic(&self, saved: &[u8; ioapic::SAVE_SIZE]) {
        let Some(chips) = &self.chips else {
            return;
        };
        {
            let mut ioapic = chips.ioapic.lock();
            let requested = ioapic.restore(saved);
            self.refresh_filter_of(&ioapic);
            for pin in (0..ioapic::PINS).filter(|pin| requested & 1 << pin != 0) {
                let service = ioapic.request_again(pin);
                self.finish(&mut ioapic, pin, service, true);
            }
            self.track_rtc(&mut ioapic);
        }
        self.update_pic(chips);
    }

    /// Takes the state of a PIC as the client saved it.
    pub(crate) fn restore_pic(&self, which: Which, saved: [u8; pic::SAVE_SIZE]) {
        if let Some(chips) = &self.chips {
            chips.pic.lock().restore(which, saved);
            self.update_pic(chips);
        }
    }

    /// Computes the PICs' line anew.
    fn update_pic(&self, chips: &Chips) {
        let rose = chips.update(&mut chips.pic.lock());
        if rose {
            self.wake_for_pic();
        }
    }

    /// Returns the vector of the PICs' interrupt, which counts as taken then; `None` if it went away.
    pub(crate) fn take_pic_interrupt(&self) -> Option<u8> {
        let chips = self.chips.as_ref()?;
        self.access_pic(chips, |pic| {
            if pic.output() {
                let (vector, effects) = pic.acknowledge();
                (Some(vector), effects)
            } else {
                (None, Effects::default())
            }
        })
    }

    /// Accesses the PICs, and does what that asks for.
    pub(super) fn access_pic<R>(
        &self,
        chips: &Chips,
        access: impl FnOnce(&mut Pic) -> (R, Effects),
    ) -> R {
        let (result, effects, rose) = {
            let mut pic = chips.pic.lock();
            let (result, effects) = access(&mut pic);
            // Who is told of something may drive lines, and the output is computed after that.
            let tells = effects.acknowledged | effects.forgotten | effects.mask_changed != 0;
            let rose = effects.update && !tells && chips.update(&mut pic);
            (result, tells.then_some(effects), rose)
        };
        if rose {
            self.wake_for_pic();
        }
        if let Some(effects) = effects {
            self.perform_pic(chips, effects);
        }
        result
    }

    /// Does what an access to the PICs asks for.
    fn perform_pic(&self, chips: &Chips, effects: Effects) {
        let mut acknowledged = effects.acknowledged;
        if effects.forgotten != 0 && self.pic_listener(|_| ()).is_some() {
            chips.pic.lock().forget(effects.forgotten);
            acknowledged |= effects.forgotten;
        }
        for pin in pic_pins(acknowledged) {
            self.tell(Pin::Pic(pin), |user| user.acknowledged());
        }
        let masked = chips.pic.lock().masked();
        for pin in pic_pins(effects.mask_changed) {
            self.tell(Pin::Pic(pin), |user| {
                user.mask_changed(masked & 1 << pin != 0);
            });
        }
        if effects.update {
            self.update_pic(chips);
        }
    }

    /// Calls `f` with the first vCPU whose local APIC lets the PICs' interrupts through.
    fn pic_listener<R>(&self, f: impl FnOnce(&Vcpu) -> R) -> Option<R> {
        self.vcpus.with_list(|list| {
            list.iter()
                .find(|vcpu| {
                    vcpu.controller()
                        .is_some_and(|controller| controller.lapic().accepts_pic())
                })
                .map(|vcpu| f(vcpu))
        })
    }

    /// Has the vCPU that takes the PICs' interrupts look.
    fn wake_for_pic(&self) {
        self.pic_listener(|vcpu| vcpu.doorbell().ring(Request::Event));
    }
}
