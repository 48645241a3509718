// SPDX-License-Identifier: GPL-2.0

//! The pair of 8259 PICs, as KVM has them.
//!
//! The slave's output is pin 2 of the master, whose output is the interrupt line of the pair. What an
//! access asks of the caller is a value ([`Effects`]); nothing here calls out. The caller passes
//! acknowledgements on before it has the output computed anew ([`Pic::update`]): who hears of one may
//! lower a line, and that interrupt is not to be requested once more.
//!
//! Two things are as in KVM, not as in the hardware: special mask mode is kept but changes nothing, and
//! initialisation neither ends what is in service nor lowers the output.
//!
//! This module depends on `core` only, so that its tests also run on the host.

/// Bytes of one PIC's state as the client saves it.
pub(crate) const SAVE_SIZE: usize = 16;

/// The pin of the master that the slave's output drives.
const CASCADE: u8 = 2;

/// The pin whose vector stands for a request that went away.
const SPURIOUS: u8 = 7;

/// Bits of a pin's [`Chip::elcr`] that the client's chip set lets a guest set.
const ELCR_MASKS: [u8; 2] = [0xf8, 0xde];

/// Initialisation commands that a PIC still waits for.
mod init_state {
    pub(super) const DONE: u8 = 0;
    pub(super) const ICW2: u8 = 1;
    pub(super) const ICW3: u8 = 2;
    pub(super) const ICW4: u8 = 3;
}

/// One PIC. Each register is a byte that the client may set to anything.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Chip {
    /// Levels of the lines, by which edges are seen.
    last_irr: u8,
    /// Requested.
    irr: u8,
    /// Masked.
    imr: u8,
    /// In service.
    isr: u8,
    /// The pin of the highest priority.
    priority_add: u8,
    /// The vector of pin 0.
    irq_base: u8,
    /// Not 0: the command port reads as ISR, not IRR.
    read_reg_select: u8,
    /// Not 0: the next read polls.
    poll: u8,
    /// Special mask mode.
    special_mask: u8,
    /// See [`init_state`].
    init_state: u8,
    /// Not 0: an interrupt ends when it is acknowledged.
    auto_eoi: u8,
    /// Not 0: the priorities rotate then.
    rotate_on_auto_eoi: u8,
    /// Not 0: the slave's requests do not wait for each other.
    special_fully_nested_mode: u8,
    /// Not 0: initialisation has a fourth command.
    init4: u8,
    /// Level-triggered pins.
    elcr: u8,
    /// Those that can be.
    elcr_mask: u8,
}

/// Returns the bit of a pin of one PIC.
const fn bit(pin: u8) -> u8 {
    1 << (pin & 7)
}

impl Chip {
    /// Drives a line, and returns how that went, see [`Pic::set_line`].
    fn set_line(&mut self, pin: u8, up: bool) -> Option<usize> {
        let bit = bit(pin);
        let mut new = true;
        if self.elcr & bit != 0 {
            if up {
                new = self.irr & bit == 0;
                self.irr |= bit;
                self.last_irr |= bit;
            } else {
                self.irr &= !bit;
                self.last_irr &= !bit;
            }
        } else if up {
            if self.last_irr & bit == 0 {
                new = self.irr & bit == 0;
                self.irr |= bit;
            }
            self.last_irr |= bit;
        } else {
            self.last_irr &= !bit;
        }
        (self.imr & bit == 0).then_some(usize::from(new))
    }

    /// Returns the pin of the highest priority among `pins`, and its distance from the highest.
    fn highest(&self, pins: u8) -> Option<(u8, u8)> {
        (0..8)
            .map(|distance: u8| (distance.wrapping_add(self.priority_add) & 7, distance))
            .find(|&(pin, _)| pins & bit(pin) != 0)
    }

    /// Returns the pin whose interrupt is to be taken next.
    fn next(&self, is_master: bool) -> Option<u8> {
        let (pin, distance) = self.highest(self.irr & !self.imr)?;
        let mut in_service = self.isr;
        if self.special_fully_nested_mode != 0 && is_master {
            in_service &= !bit(CASCADE);
        }
        match self.highest(in_service) {
            Some((_, other)) if distance >= other => None,
            _ => Some(pin),
        }
    }

    /// Takes the interrupt of a pin, and returns whether that ends it too.
    fn acknowledge(&mut self, pin: u8) -> bool {
        let bit = bit(pin);
        self.isr |= bit;
        if self.elcr & bit == 0 {
            self.irr &= !bit;
        }
        if self.auto_eoi == 0 {
            return false;
        }
        if self.rotate_on_auto_eoi != 0 {
            self.priority_add = pin.wrapping_add(1) & 7;
        }
        self.isr &= !bit;
        true
    }

    /// Starts initialisation, and returns the pins with edges that nobody will see.
    fn initialize(&mut self, command: u8) -> u8 {
        self.init4 = command & 1;
        let edges = self.irr & !self.elcr;
        self.last_irr = 0;
        self.irr &= self.elcr;
        self.imr = 0;
        self.priority_add = 0;
        self.special_mask = 0;
        self.read_reg_select = 0;
        if self.init4 == 0 {
            self.special_fully_nested_mode = 0;
            self.auto_eoi = 0;
        }
        self.init_state = init_state::ICW2;
        edges
    }

    /// Does the third kind of operation command: what is read, and special mask mode.
    fn select(&mut self, command: u8) {
        if command & 0x04 != 0 {
            self.poll = 1;
        }
        if command & 0x02 != 0 {
            self.read_reg_select = command & 1;
        }
        if command & 0x40 != 0 {
            self.special_mask = command >> 5 & 1;
        }
    }

    /// Does the second kind of operation command: ends interrupts, turns priorities. Returns the pins
    /// whose interrupts ended, and whether what is to be taken next may be another.
    fn end(&mut self, command: u8) -> (u8, bool) {
        let named = command & 7;
        let turned = named.wrapping_add(1) & 7;
        match command >> 5 {
            kind @ (0 | 4) => {
                self.rotate_on_auto_eoi = kind >> 2;
                (0, false)
            }
            kind @ (1 | 5) => {
                let Some((pin, _)) = self.highest(self.isr) else {
                    return (0, false);
                };
                if kind == 5 {
                    self.priority_add = pin.wrapping_add(1) & 7;
                }
                self.isr &= !bit(pin);
                (bit(pin), true)
            }
            kind @ (3 | 7) => {
                if kind == 7 {
                    self.priority_add = turned;
                }
                self.isr &= !bit(named);
                (bit(named), true)
            }
            6 => {
                self.priority_add = turned;
                (0, true)
            }
            _ => (0, false),
        }
    }

    /// Writes the data port, and returns whether that was the mask.
    fn write_data(&mut self, value: u8) -> bool {
        match self.init_state {
            init_state::DONE => {
                self.imr = value;
                return true;
            }
            init_state::ICW2 => {
                self.irq_base = value & 0xf8;
                self.init_state = init_state::ICW3;
            }
            init_state::ICW3 => {
                self.init_state = if self.init4 != 0 {
                    init_state::ICW4
                } else {
                    init_state::DONE
                };
            }
            init_state::ICW4 => {
                self.special_fully_nested_mode = value >> 4 & 1;
                self.auto_eoi = value >> 1 & 1;
                self.init_state = init_state::DONE;
            }
            // No command leads there, but a client can.
            _ => {}
        }
        false
    }

    /// Returns the state as the client saves it.
    fn save(&self) -> [u8; SAVE_SIZE] {
        [
            self.last_irr,
            self.irr,
            self.imr,
            self.isr,
            self.priority_add,
            self.irq_base,
            self.read_reg_select,
            self.poll,
            self.special_mask,
            self.init_state,
            self.auto_eoi,
            self.rotate_on_auto_eoi,
            self.special_fully_nested_mode,
            self.init4,
            self.elcr,
            self.elcr_mask,
        ]
    }

    /// Returns the PIC with the state that the client saved.
    fn restored(
        [last_irr, irr, imr, isr, priority_add, irq_base, read_reg_select, poll, special_mask, init_state, auto_eoi, rotate_on_auto_eoi, special_fully_nested_mode, init4, elcr, elcr_mask]: [u8;
            SAVE_SIZE],
    ) -> Self {
        Self {
            last_irr,
            irr,
            imr,
            isr,
            priority_add,
            irq_base,
            read_reg_select,
            poll,
            special_mask,
            init_state,
            auto_eoi,
            rotate_on_auto_eoi,
            special_fully_nested_mode,
            init4,
            elcr,
            elcr_mask,
        }
    }
}

/// What an access asks of the caller, in this order. Pins are bits, the master's the lower eight.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[must_use]
pub(crate) struct Effects {
    /// Interrupts of these pins ended: tell who drives them.
    pub(crate) acknowledged: u16,
    /// Requests of these pins were forgotten: if a vCPU listens to the PICs, they end, see
    /// [`Pic::forget`].
    pub(crate) forgotten: u16,
    /// The masks of these pins changed.
    pub(crate) mask_changed: u16,
    /// Have the output computed anew by [`Pic::update`].
    pub(crate) update: bool,
}

/// One of the two PICs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Which {
    /// The one that drives the vCPUs.
    Master,
    /// The one that drives the master.
    Slave,
}

impl Which {
    /// Returns where the pins of this PIC are among those of both.
    const fn shift(self) -> u32 {
        match self {
            Self::Master => 0,
            Self::Slave => 8,
        }
    }

    /// Returns pins of this PIC as pins of both.
    fn pins(self, pins: u8) -> u16 {
        u16::from(pins) << self.shift()
    }
}

/// The pair of PICs.
#[derive(Clone, Debug)]
pub(crate) struct Pic {
    master: Chip,
    slave: Chip,
    /// Who holds each line up, as bits.
    lines: [u8; 16],
    output: bool,
}

impl Pic {
    /// Returns the pair after power-up.
    pub(crate) fn new() -> Self {
        let [master, slave] = ELCR_MASKS.map(|elcr_mask| Chip {
            elcr_mask,
            ..Chip::default()
        });
        Self {
            master,
            slave,
            lines: [0; 16],
            output: false,
        }
    }

    fn chip(&self, which: Which) -> &Chip {
        match which {
            Which::Master => &self.master,
            Which::Slave => &self.slave,
        }
    }

    fn chip_mut(&mut self, which: Which) -> &mut Chip {
        match which {
            Which::Master => &mut self.master,
            Which::Slave => &mut self.slave,
        }
    }

    /// Returns whether the interrupt line of the pair is up.
    pub(crate) fn output(&self) -> bool {
        self.output
    }

    /// Returns the masks of all pins.
    pub(crate) fn masked(&self) -> u16 {
        u16::from_le_bytes([self.master.imr, self.slave.imr])
    }

    /// Raises or lowers the line of `pin` for one of its sources (a bit); the output is to be computed
    /// anew.
    ///
    /// Returns how many interrupts that requested: `None` if the pin is masked, 0 if its request
    /// waited already.
    pub(crate) fn set_line(&mut self, pin: u8, source: u8, up: bool) -> Option<usize> {
        let line = self.lines.get_mut(usize::from(pin))?;
        if up {
            *line |= source;
        } else {
            *line &= !source;
        }
        let up = *line != 0;
        let chip = if pin < 8 {
            &mut self.master
        } else {
            &mut self.slave
        };
        chip.set_line(pin, up)
    }

    /// Computes the output anew, and returns whether it went up: then a vCPU has to look.
    pub(crate) fn update(&mut self) -> bool {
        if self.slave.next(false).is_some() {
            // An edge for each look.
            self.master.set_line(CASCADE, true);
            self.master.set_line(CASCADE, false);
        }
        let up = self.master.next(true).is_some();
        let rose = up && !self.output;
        self.output = up;
        rose
    }

    /// Takes the next interrupt, and returns its vector. The output is down until it is computed anew.
    pub(crate) fn acknowledge(&mut self) -> (u8, Effects) {
        self.output = false;
        let mut ended = 0;
        let vector = match self.master.next(true) {
            Some(pin) => {
                if self.master.acknowledge(pin) {
                    ended |= Which::Master.pins(bit(pin));
                }
                if pin == CASCADE {
                    let pin = self.slave.next(false);
                    if pin.is_some_and(|pin| self.slave.acknowledge(pin)) {
                        ended |= Which::Slave.pins(pin.map_or(0, bit));
                    }
                    let pin = pin.unwrap_or(SPURIOUS);
                    self.slave.irq_base.wrapping_add(pin)
                } else {
                    self.master.irq_base.wrapping_add(pin)
                }
            }
            None => self.master.irq_base.wrapping_add(SPURIOUS),
        };
        let effects = Effects {
            acknowledged: ended,
            update: true,
            ..Effects::default()
        };
        (vector, effects)
    }

    /// Ends interrupts of pins whose requests initialisation has forgotten.
    pub(crate) fn forget(&mut self, pins: u16) {
        let [master, slave] = pins.to_le_bytes();
        self.master.isr &= !master;
        self.slave.isr &= !slave;
    }

    /// Writes the command port of a PIC.
    pub(crate) fn write_command(&mut self, which: Which, value: u8) -> Effects {
        let chip = self.chip_mut(which);
        let mut effects = Effects::default();
        if value & 0x10 != 0 {
            effects.forgotten = which.pins(chip.initialize(value));
        } else if value & 0x08 != 0 {
            chip.select(value);
        } else {
            let (ended, update) = chip.end(value);
            effects.acknowledged = which.pins(ended);
            effects.update = update;
        }
        effects
    }

    /// Writes the data port of a PIC.
    pub(crate) fn write_data(&mut self, which: Which, value: u8) -> Effects {
        let chip = self.chip_mut(which);
        let changed = chip.imr ^ value;
        if !chip.write_data(value) {
            return Effects::default();
        }
        Effects {
            mask_changed: which.pins(changed),
            update: true,
            ..Effects::default()
        }
    }

    /// Writes the edge/level control register of a PIC.
    pub(crate) fn write_elcr(&mut self, which: Which, value: u8) {
        let chip = self.chip_mut(which);
        chip.elcr = value & chip.elcr_mask;
    }

    /// Returns the edge/level control register of a PIC.
    pub(crate) fn read_elcr(&self, which: Which) -> u8 {
        self.chip(which).elcr
    }

    /// Reads the command port of a PIC.
    pub(crate) fn read_command(&mut self, which: Which) -> (u8, Effects) {
        let chip = self.chip(which);
        if chip.poll != 0 {
            return self.poll(which);
        }
        let value = if chip.read_reg_select != 0 {
            chip.isr
        } else {
            chip.irr
        };
        (value, Effects::default())
    }

    /// Reads the data port of a PIC.
    pub(crate) fn read_data(&mut self, which: Which) -> (u8, Effects) {
        if self.chip(which).poll != 0 {
            return self.poll(which);
        }
        (self.chip(which).imr, Effects::default())
    }

    /// Takes the next interrupt of a PIC and ends it, and returns its pin.
    fn poll(&mut self, which: Which) -> (u8, Effects) {
        let is_master = which == Which::Master;
        self.chip_mut(which).poll = 0;
        let Some(pin) = self.chip(which).next(is_master) else {
            let effects = Effects {
                update: true,
                ..Effects::default()
            };
            return (SPURIOUS, effects);
        };
        if !is_master {
            self.master.isr &= !bit(CASCADE);
            self.master.irr &= !bit(CASCADE);
        }
        let chip = self.chip_mut(which);
        chip.irr &= !bit(pin);
        chip.isr &= !bit(pin);
        let effects = Effects {
            acknowledged: which.pins(bit(pin)),
            // The slave is polled next, and lowers the pin then.
            update: !is_master || pin != CASCADE,
            ..Effects::default()
        };
        (0x80 | pin, effects)
    }

    /// Returns the state of a PIC as the client saves it.
    pub(crate) fn save(&self, which: Which) -> [u8; SAVE_SIZE] {
        self.chip(which).save()
    }

    /// Takes the state of a PIC as the client saved it; the output is to be computed anew.
    pub(crate) fn restore(&mut self, which: Which, saved: [u8; SAVE_SIZE]) {
        *self.chip_mut(which) = Chip::restored(saved);
    }
}
