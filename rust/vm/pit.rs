// SPDX-License-Identifier: GPL-2.0

//! The interval timer of a VM: its ports, and interrupt line 0 that channel 0 pulses.
//!
//! The host's timer goes off in an interrupt handler, which has a work item pulse the line. A guest that
//! is late with one interrupt may have missed others. As long as the client wants these **reinjected**,
//! they are counted, and each comes when the guest has ended the one before; else they are lost.
//!
//! ```text
//!   tick: pending + 1 --+--> work: unless one is under way, pulse the line
//!   end:  pending - 1 --+    (an interrupt is under way from the pulse to its end)
//! ```
//!
//! When the guest opens the line's mask, or the timer is programmed anew, the past is forgotten.

use super::{
    bus::{
        Bus,
        Device,
        Space, //
    },
    irq::{
        Irqs,
        LineUser,
        Source, //
    }, //
};
use crate::{
    irqchip::pit::{
        Arm,
        Channel,
        Pit, //
    },
    linux::{
        timer::{
            now_ns,
            Expire,
            HostTimer, //
        },
        work::{
            new_work,
            Job,
            Work, //
        }, //
    },
};
use kernel::{
    new_mutex,
    new_spinlock,
    prelude::*,
    sync::{
        atomic::{
            Atomic,
            Full,
            Relaxed, //
        },
        Arc,
        Mutex,
        SpinLock, //
    }, //
};

/// The interrupt line.
const GSI: u32 = 0;

/// The ports of the channels, and that of the speaker with those behind it, which are nobody's.
const PORTS: u64 = 0x40;
const SPEAKER: u64 = 0x61;
const LENGTH: u64 = 4;

/// What became of the interrupts.
struct Ticks {
    reinject: Atomic<bool>,
    /// Ticks whose interrupts have not ended.
    pending: Atomic<u64>,
    /// No interrupt is under way.
    acknowledged: Atomic<bool>,
    /// The line is to be pulsed.
    due: Atomic<bool>,
}

impl Ticks {
    /// Forgets the past.
    fn reset(&self) {
        self.pending.store(0, Relaxed);
        self.acknowledged.store(true, Relaxed);
    }

    /// Counts an end; returns whether there are more interrupts to come.
    fn end(&self) -> bool {
        // Before `pending` is read, or a tick that comes now would see neither.
        self.acknowledged.xchg(true, Full);
        let mut pending = self.pending.load(Relaxed);
        while let Some(left) = pending.checked_sub(1) {
            match self.pending.cmpxchg(pending, left, Full) {
                Ok(_) => return left > 0,
                Err(now) => pending = now,
            }
        }
        false
    }
}

/// Pulses the line.
struct Pulse {
    irqs: Arc<Irqs>,
    ticks: Arc<Ticks>,
}

impl Job for Pulse {
    fn run(&self) {
        let ticks = &self.ticks;
        if !ticks.due.xchg(false, Full) {
            return;
        }
        if ticks.reinject.load(Relaxed) && !ticks.acknowledged.xchg(false, Full) {
            return;
        }
        self.irqs.set(Source::Timer, GSI, true);
        self.irqs.set(Source::Timer, GSI, false);
        self.irqs.signal_nmi_watchdogs();
    }
}

/// What the host's timer tells.
struct Alarm {
    ticks: Arc<Ticks>,
    pulse: Arc<Work<Pulse>>,
}

impl Expire for Alarm {
    const HARD: bool = false;

    fn expired(&self, ticks: u64) {
        if self.ticks.reinject.load(Relaxed) {
            self.ticks.pending.add(ticks, Relaxed);
        }
        self.ticks.due.xchg(true, Full);
        self.pulse.queue();
    }
}

/// The interval timer of a VM.
#[pin_data]
pub(crate) struct VmPit {
    irqs: Arc<Irqs>,
    #[pin]
    state: SpinLock<Pit>,
    /// Armed and stopped with `state` locked.
    #[pin]
    timer: HostTimer<Alarm>,
    ticks: Arc<Ticks>,
    pulse: Arc<Work<Pulse>>,
    /// Held to change whether interrupts are reinjected.
    #[pin]
    changing: Mutex<()>,
}

impl VmPit {
    /// Returns the timer after power-up, on the bus; with port 0x61 if `speaker` says so.
    pub(super) fn new(irqs: &Arc<Irqs>, bus: &Bus, speaker: bool) -> Result<Arc<Self>> {
        let ticks = Arc::new(
            Ticks {
                reinject: Atomic::new(false),
                pending: Atomic::new(0),
                acknowledged: Atomic::new(true),
                due: Atomic::new(false),
            },
            GFP_KERNEL_ACCOUNT,
        )?;
        let job = Pulse {
            irqs: irqs.clone(),
            ticks: ticks.clone(),
        };
        let pulse = Arc::pin_init(new_work!(job, c"kvm_rs_pit"), GFP_KERNEL_ACCOUNT)?;
        let alarm = Alarm {
            ticks: ticks.clone(),
            pulse: pulse.clone(),
        };
        let pit = Arc::pin_init(
            pin_init!(Self {
                irqs: irqs.clone(),
                state <- new_spinlock!(Pit::new(now_ns())),
                timer <- HostTimer::new(alarm),
                ticks,
                pulse,
                changing <- new_mutex!(()),
            }),
            GFP_KERNEL_ACCOUNT,
        )?;
        pit.set_reinject(true)?;
        pit.add_to(bus, speaker).inspect_err(|_| {
            // Without memory it stays a user of the line, as which it does nothing.
            let _ = pit.set_reinject(false);
        })?;
        Ok(pit)
    }

    /// Puts the ports on the bus.
    fn add_to(self: &Arc<Self>, bus: &Bus, speaker: bool) -> Result {
        let ports: Arc<dyn Device> = self.clone();
        let channels = (Space::Pio, PORTS, LENGTH, ports.clone());
        if speaker {
            bus.add_all([channels, (Space::Pio, SPEAKER, LENGTH, ports)])
        } else {
            bus.add_all([channels])
        }
    }

    /// Says whether interrupts that the guest missed come later.
    pub(crate) fn set_reinject(self: &Arc<Self>, on: bool) -> Result {
        let _changing = self.changing.lock();
        if self.ticks.reinject.load(Relaxed) == on {
            return Ok(());
        }
        if on {
            self.ticks.reset();
            self.irqs.add_line_user(GSI, self.clone())?;
        } else {
            self.irqs.remove_line_user(GSI, &**self)?;
        }
        self.ticks.reinject.store(on, Relaxed);
        Ok(())
    }

    /// Calls `f` with the chip, and has the host's timer be what it returns.
    fn change(&self, f: impl FnOnce(&mut Pit, u64) -> Option<Arm>) {
        let mut pit = self.state.lock();
        let Some(arm) = f(&mut pit, now_ns()) else {
            return;
        };
        self.timer.cancel();
        self.ticks.due.xchg(false, Full);
        match arm {
            Arm::Stop => {}
            Arm::Once(first) => {
                self.ticks.reset();
                self.timer.start(first, 0);
            }
            Arm::Periodic(first, period) => {
                self.ticks.reset();
                self.timer.start(first, period);
            }
        }
    }

    /// Returns the channels and flags as the client saves them.
    pub(crate) fn save(&self) -> ([Channel; 3], u32) {
        let pit = self.state.lock();
        (pit.channels(), pit.flags())
    }

    /// Takes the channels as the client saved them, and the flags if they are given.
    pub(crate) fn restore(&self, channels: [Channel; 3], flags: Option<u32>) {
        self.change(|pit, now| pit.restore(channels, flags, now));
    }
}

impl Device for VmPit {
    fn read(&self, address: u64, data: &mut [u8]) -> bool {
        let value = match address {
            SPEAKER => self.state.lock().read_speaker(now_ns()),
            // CAST: The low bits select the register.
            ..SPEAKER => self.state.lock().read(address as u8 & 3, now_ns()),
            _ => return false,
        };
        data.fill(0);
        if let Some(first) = data.first_mut() {
            *first = value;
        }
        true
    }

    fn write(&self, address: u64, data: &[u8]) -> bool {
        let &[value, ..] = data else {
            return false;
        };
        match address {
            SPEAKER => self.state.lock().write_speaker(value, now_ns()),
            // CAST: As above.
            ..SPEAKER => self.change(|pit, now| pit.write(address as u8 & 3, value, now)),
            _ => return false,
        }
        true
    }
}

impl LineUser for VmPit {
    fn acknowledged(&self) {
        if self.ticks.end() {
            self.ticks.due.xchg(true, Full);
            self.pulse.queue();
        }
    }

    fn mask_changed(&self, masked: bool) {
        if !masked {
            self.ticks.reset();
        }
    }
}
