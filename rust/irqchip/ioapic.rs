// SPDX-License-Identifier: GPL-2.0

//! The I/O APIC, as KVM has it: version 0x11, 24 pins, without an EOI register.
//!
//! What goes to local APICs is a [`Message`] that the caller delivers; it tells the pin how that went
//! ([`Ioapic::delivered`]) before it lets anybody else in. Nothing here calls out.
//!
//! This module depends on `core` only, so that its tests also run on the host.

use super::super::lapic::{
    DeliveryMode,
    Message,
    Shorthand,
    Trigger, //
};

/// Number of pins.
pub(crate) const PINS: u8 = 24;

/// Where the registers are unless the client says otherwise, and are looked for.
pub(crate) const DEFAULT_ADDRESS: u64 = 0xfec0_0000;

/// Length of the registers in bytes.
pub(crate) const LENGTH: u64 = 0x100;

/// Bytes of the state as the client saves it.
pub(crate) const SAVE_SIZE: usize = 24 + 8 * PINS as usize;

/// The pin of the real-time clock. Its clients want to know whether the guest has ended the last one.
pub(crate) const RTC_PIN: u8 = 8;

/// How often in a row an interrupt may be requested again at its end, before the guest gets time.
const STORM: u16 = 10_000;

/// Offsets of the registers in memory.
const SELECT: u64 = 0x00;
const WINDOW: u64 = 0x10;

/// Numbers of the registers behind the window.
const ID: u32 = 0;
const VERSION: u32 = 1;
const ARBITRATION: u32 = 2;
const FIRST_ENTRY: u32 = 0x10;

/// What the version register says: the version, and the last pin.
const VERSION_VALUE: u32 = 0x11 | (PINS as u32 - 1) << 16;

/// A redirection entry: what a pin's interrupt is, and to whom it goes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Entry(u64);

impl Entry {
    /// Read-only: a delivery is under way.
    const DELIVERY_STATUS: u64 = 1 << 12;
    /// Read-only: a level-triggered interrupt was accepted and has not ended.
    const REMOTE_IRR: u64 = 1 << 14;
    const LEVEL: u64 = 1 << 15;
    const MASKED: u64 = 1 << 16;
    const LOGICAL: u64 = 1 << 11;
    const READ_ONLY: u64 = Self::DELIVERY_STATUS | Self::REMOTE_IRR;

    /// Returns the vector.
    pub(crate) const fn vector(self) -> u8 {
        // CAST: the vector is the low byte.
        self.0 as u8
    }

    /// Returns whether the pin is level-triggered.
    pub(crate) const fn is_level(self) -> bool {
        self.0 & Self::LEVEL != 0
    }

    /// Returns whether the pin is masked.
    pub(crate) const fn is_masked(self) -> bool {
        self.0 & Self::MASKED != 0
    }

    const fn remote_irr(self) -> bool {
        self.0 & Self::REMOTE_IRR != 0
    }

    /// Returns the message that the pin sends.
    pub(crate) const fn message(self) -> Message {
        Message {
            vector: self.vector(),
            // CAST: the mode is in the low half, as in an interrupt command.
            mode: DeliveryMode::from_bits_8(self.0 as u32),
            asserted: true,
            trigger: Trigger::from_bit_15(self.0 as u32),
            shorthand: Shorthand::None,
            // CAST: eight bits are left.
            destination: (self.0 >> 56) as u32,
            logical: self.0 & Self::LOGICAL != 0,
            redirectable: false,
        }
    }

    /// Returns the entry after a write to one of its halves.
    fn written(self, upper: bool, value: u32) -> Self {
        let new = if upper {
            self.0 & 0xffff_ffff | u64::from(value) << 32
        } else {
            self.0 & !0xffff_ffff | u64::from(value)
        };
        let new = new & !Self::READ_ONLY | self.0 & Self::READ_ONLY;
        // Operating systems end an interrupt so where there is no EOI register.
        if new & Self::LEVEL == 0 {
            Self(new & !Self::REMOTE_IRR)
        } else {
            Self(new)
        }
    }
}

/// How an attempt to have a pin's interrupt requested went.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[must_use]
pub(crate) enum Service {
    /// Nothing is sent, and this is what becomes of it, see [`Ioapic::set_line`].
    Settled(Option<usize>),
    /// This is to be sent, and [`Ioapic::delivered`] to be told.
    Send(Message),
}

/// What a write to a redirection entry asks of the caller, in this order.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[must_use]
pub(crate) struct Written {
    /// The entry's pin.
    pub(crate) pin: u8,
    /// The pin is masked now, or no longer.
    pub(crate) mask_changed: Option<bool>,
    /// The vector or the trigger mode changed.
    pub(crate) vector_changed: bool,
    /// An interrupt that the mask held back waits. Whoever drives the line may look at it again, and
    /// [`Ioapic::forget`] is to be called then; else [`Ioapic::service`].
    pub(crate) waits: bool,
}

/// How the end of a pin's interrupt went.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[must_use]
pub(crate) enum Ended {
    /// The line is down, or masked.
    Quiet,
    /// The line is up still: [`Ioapic::service`] is to be called.
    Again,
    /// The line has been up again at each of very many ends: [`Ioapic::service`] is to be called for
    /// all pins, after some time.
    Storm,
}

/// The I/O APIC.
#[derive(Clone, Debug)]
pub(crate) struct Ioapic {
    /// Guest-physical address of the registers.
    address: u64,
    /// The register behind the window.
    select: u32,
    id: u32,
    /// Pins with an interrupt that was requested; of level-triggered ones, whose line is up.
    irr: u32,
    /// Padding that the client gets back.
    padding: u32,
    entries: [Entry; PINS as usize],
    /// Who holds each line up, as bits.
    lines: [u8; PINS as usize],
    /// Edge-triggered pins whose interrupt was sent since their last edge.
    sent: u32,
    /// How often in a row a pin's interrupt was requested again at its end.
    successive: [u16; PINS as usize],
    /// How many vCPUs have not ended the interrupt of the real-time clock.
    rtc_waits: usize,
}

impl Ioapic {
    /// Returns the I/O APIC after power-up.
    pub(crate) fn new() -> Self {
        Self {
            address: DEFAULT_ADDRESS,
            select: 0,
            id: 0,
            irr: 0,
            padding: 0,
            entries: [Entry(Entry::MASKED); PINS as usize],
            lines: [0; PINS as usize],
            sent: 0,
            successive: [0; PINS as usize],
            rtc_waits: 0,
        }
    }

    /// Returns the bit of a pin.
    const fn bit(pin: u8) -> u32 {
        1 << (pin & 31)
    }

    /// Returns the entry of a pin; a masked one if there is none.
    pub(crate) fn entry(&self, pin: u8) -> Entry {
        self.entries
            .get(usize::from(pin))
            .copied()
            .unwrap_or(Entry(Entry::MASKED))
    }

    /// Returns all pins and their entries.
    pub(crate) fn entries(&self) -> impl Iterator<Item = (u8, Entry)> + '_ {
        (0..PINS).zip(self.entries)
    }

    /// Raises or lowers the line of `pin` for one of its sources (a bit).
    ///
    /// Who `asks` wants to know how that went: `None` if it is masked or reached nobody, 0 if an earlier
    /// interrupt still waits, else the number of vCPUs that got it.
    pub(crate) fn set_line(&mut self, pin: u8, source: u8, up: bool, asks: bool) -> Service {
        let Some(line) = self.lines.get_mut(usize::from(pin)) else {
            return Service::Settled(None);
        };
        if up {
            *line |= source;
        } else {
            *line &= !source;
        }
        let up = *line != 0;
        self.drive(pin, up, asks)
    }

    /// Has `pin` see its line up or down.
    fn drive(&mut self, pin: u8, up: bool, asks: bool) -> Service {
        let bit = Self::bit(pin);
        if !up {
            self.irr &= !bit;
            return Service::Settled(Some(1));
        }
        if pin == RTC_PIN && asks && self.rtc_waits > 0 {
            return Service::Settled(Some(0));
        }
        let waited = self.irr & bit != 0;
        self.irr |= bit;
        if !self.entry(pin).is_level() {
            self.sent &= !bit;
            if waited {
                return Service::Settled(Some(0));
            }
        }
        self.service(pin)
    }

    /// Returns the message that `pin` is to send, if its mask lets it and no earlier one of a level is
    /// under way.
    pub(crate) fn service(&mut self, pin: u8) -> Service {
        let entry = self.entry(pin);
        if entry.is_masked() || entry.is_level() && entry.remote_irr() {
            return Service::Settled(None);
        }
        if !entry.is_level() {
            self.sent |= Self::bit(pin);
        }
        Service::Send(entry.message())
    }

    /// Tells `pin` how many vCPUs accepted its message; `None` if there is nobody.
    pub(crate) fn delivered(&mut self, pin: u8, count: Option<usize>) {
        if let Some(entry) = self.entries.get_mut(usize::from(pin)) {
            if count != Some(0) && entry.is_level() {
                entry.0 |= Entry::REMOTE_IRR;
            }
        }
    }

    /// Says how many vCPUs have yet to end the interrupt of the real-time clock.
    pub(crate) fn set_rtc_waits(&mut self, count: usize) {
        self.rtc_waits = count;
    }

    /// Returns whether a vCPU has yet to end the interrupt of the real-time clock.
    pub(crate) fn waits_for_rtc(&self) -> bool {
        self.rtc_waits > 0
    }

    /// Notes that a vCPU has ended the interrupt of the real-time clock.
    pub(crate) fn rtc_ended(&mut self) {
        self.rtc_waits = self.rtc_waits.saturating_sub(1);
    }

    /// Forgets the interrupt that waits at a pin, whose line is being looked at again.
    pub(crate) fn forget(&mut self, pin: u8) {
        self.irr &= !Self::bit(pin);
    }

    /// Returns whether `pin` has a level-triggered interrupt that waits and could be sent.
    pub(crate) fn waits(&self, pin: u8) -> bool {
        let entry = self.entry(pin);
        entry.is_level()
            && self.irr & Self::bit(pin) != 0
            && !entry.is_masked()
            && !entry.remote_irr()
    }

    /// Ends the level-triggered interrupt of a pin.
    pub(crate) fn end(&mut self, pin: u8) -> Ended {
        let index = usize::from(pin);
        let up = self.irr & Self::bit(pin) != 0;
        let (Some(entry), Some(successive)) =
            (self.entries.get_mut(index), self.successive.get_mut(index))
        else {
            return Ended::Quiet;
        };
        entry.0 &= !Entry::REMOTE_IRR;
        if entry.is_masked() || !up {
            *successive = 0;
            return Ended::Quiet;
        }
        *successive = successive.saturating_add(1);
        if *successive < STORM {
            return Ended::Again;
        }
        *successive = 0;
        Ended::Storm
    }

    /// Returns whether the registers are at `address`.
    pub(crate) fn covers(&self, address: u64) -> bool {
        address
            .checked_sub(self.address)
            .is_some_and(|offset| offset < LENGTH)
    }

    /// Returns the register at `address`.
    pub(crate) fn read(&self, address: u64) -> u32 {
        match address & 0xff {
            SELECT => self.select,
            WINDOW => self.read_window(),
            _ => 0,
        }
    }

    fn read_window(&self) -> u32 {
        match self.select {
            VERSION => VERSION_VALUE,
            ID | ARBITRATION => (self.id & 0xf) << 24,
            select => {
                let index = select.wrapping_sub(FIRST_ENTRY) >> 1;
                // CAST: widens.
                let bits = self
                    .entries
                    .get(index as usize)
                    .map_or(u64::MAX, |entry| entry.0);
                // CAST: the halves.
                if select & 1 != 0 {
                    (bits >> 32) as u32
                } else {
                    bits as u32
                }
            }
        }
    }

    /// Writes the register at `address`; `None` if that asks nothing of the caller.
    #[inline]
    pub(crate) fn write(&mut self, address: u64, value: u32) -> Option<Written> {
        match address & 0xff {
            SELECT => {
                self.select = value & 0xff;
                None
            }
            WINDOW => self.write_window(value),
            _ => None,
        }
    }

    fn write_window(&mut self, value: u32) -> Option<Written> {
        let select = self.select;
        match select {
            VERSION | ARBITRATION => return None,
            ID => {
                self.id = value >> 24 & 0xf;
                return None;
            }
            _ => {}
        }
        let pin = u8::try_from(select.wrapping_sub(FIRST_ENTRY) >> 1).ok()?;
        let entry = self.entries.get_mut(usize::from(pin))?;
        let old = *entry;
        let new = old.written(select & 1 != 0, value);
        *entry = new;
        let mask_changed = old.is_masked() != new.is_masked();
        let vector_changed = old.vector() != new.vector() || old.is_level() != new.is_level();
        let waits = new.is_level()
            && !new.is_masked()
            && !new.remote_irr()
            && self.irr & Self::bit(pin) != 0;
        (mask_changed || vector_changed || waits).then_some(Written {
            pin,
            mask_changed: mask_changed.then_some(new.is_masked()),
            vector_changed,
            waits,
        })
    }

    /// Returns the state as the client saves it.
    pub(crate) fn save(&self) -> [u8; SAVE_SIZE] {
        let mut saved = [0; SAVE_SIZE];
        let head = [
            self.address,
            u64::from(self.select) | u64::from(self.id) << 32,
            u64::from(self.irr & !self.sent) | u64::from(self.padding) << 32,
        ];
        let words = head
            .into_iter()
            .chain(self.entries.iter().map(|entry| entry.0));
        for (target, word) in saved.chunks_exact_mut(8).zip(words) {
            target.copy_from_slice(&word.to_le_bytes());
        }
        saved
    }

    /// Takes the state as the client saved it, and returns the pins whose interrupts were requested:
    /// [`Ioapic::request_again`] is to be called for each.
    #[must_use]
    pub(crate) fn restore(&mut self, saved: &[u8; SAVE_SIZE]) -> u32 {
        let mut words = saved
            .chunks_exact(8)
            .map(|word| word.try_into().map_or(0, u64::from_le_bytes));
        let mut next = || words.next().unwrap_or(0);
        self.address = next();
        let (select_and_id, irr_and_padding) = (next(), next());
        // CAST: the halves.
        self.select = select_and_id as u32;
        self.id = (select_and_id >> 32) as u32;
        self.padding = (irr_and_padding >> 32) as u32;
        for entry in &mut self.entries {
            *entry = Entry(next());
        }
        self.irr = 0;
        self.sent = 0;
        self.rtc_waits = 0;
        irr_and_padding as u32 & (Self::bit(PINS) - 1)
    }

    /// Has a pin see its line up, after [`Ioapic::restore`].
    pub(crate) fn request_again(&mut self, pin: u8) -> Service {
        self.drive(pin, true, true)
    }
}
