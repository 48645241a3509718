// SPDX-License-Identifier: GPL-2.0

//! The devices of the machine, and the bus that finds them.
//!
//! | address | device |
//! |---|---|
//! | port 0x64 | keyboard controller, of which only the reset of the machine is there |
//! | port 0x70-0x71 | [`clock`]: the time of day |
//! | port 0x3f8-0x3ff | [`serial`]: a 16550 whose output goes to the terminal, interrupt 4 |
//! | port 0xf4 | debug exit: a byte written here ends the guest with that status |
//! | memory 0xd000_0000-0xd000_0fff | [`counter`]: counts how often it was read |
//! | memory from 0xd000_1000, a page each | virtio devices, interrupts from 5, see [`crate::virtio`] |
//!
//! Where no device answers, a read yields all ones and a write is lost, as on a PC.

mod clock;
mod counter;
pub mod serial;

use std::cell::Cell;
use std::convert::Infallible;
use std::sync::Arc;
use std::sync::Mutex;
use std::sync::MutexGuard;
use std::sync::PoisonError;

use anyhow::Result;
use vm_superio::I8042Device;
use vm_superio::Trigger;

use crate::memory::MMIO_HOLE;
use clock::Clock;
use counter::Counter;
use serial::Serial;

/// First port of the keyboard controller, its data port, and the one of commands.
const KEYBOARD: u16 = 0x60;
const KEYBOARD_COMMAND: u16 = 0x64;

/// Ports of the clock: a register's number, and its value.
const CLOCK_REGISTER: u16 = 0x70;
const CLOCK_VALUE: u16 = 0x71;

/// First port of the serial port, a PC's COM1.
const SERIAL: u16 = 0x3f8;

/// Last port of the serial port.
const SERIAL_END: u16 = SERIAL + serial::PORTS - 1;

/// Port that ends the guest.
const DEBUG_EXIT: u16 = 0xf4;

/// Where the virtio devices start.
pub const VIRTIO: u64 = MMIO_HOLE.0 + counter::SIZE;

/// Bytes of address space of a virtio device.
pub const VIRTIO_SIZE: u64 = 0x1000;

/// What to do after an access.
#[derive(Debug, PartialEq)]
pub enum Next {
    /// Go on running the guest.
    Continue,
    /// End it with this status.
    Exit(u8),
    /// End it because it reset the machine.
    Reset,
}

/// Registers in memory.
pub trait Registers: Send {
    /// Fills `data` from the register at `offset`.
    fn read(&mut self, offset: u64, data: &mut [u8]);

    /// Writes `data` to the register at `offset`.
    fn write(&mut self, offset: u64, data: &[u8]);
}

/// Notes that the guest asked for a reset.
#[derive(Default)]
struct ResetLine(Cell<bool>);

impl Trigger for ResetLine {
    type E = Infallible;

    fn trigger(&self) -> Result<(), Self::E> {
        self.0.set(true);
        Ok(())
    }
}

/// All devices of one machine, shared by its vCPUs.
pub struct Devices {
    serial: Arc<Mutex<Serial>>,
    clock: Mutex<Clock>,
    keyboard: Mutex<I8042Device<ResetLine>>,
    counter: Mutex<Counter>,
    virtio: Vec<Arc<Mutex<dyn Registers>>>,
}

impl Devices {
    /// Creates the bus with `serial` and the devices that every machine has.
    pub fn new(serial: Arc<Mutex<Serial>>) -> Self {
        Self {
            serial,
            clock: Mutex::default(),
            keyboard: Mutex::new(I8042Device::new(ResetLine::default())),
            counter: Mutex::default(),
            virtio: Vec::new(),
        }
    }

    /// Adds a virtio device behind those there are.
    pub fn add_virtio(&mut self, device: Arc<Mutex<dyn Registers>>) {
        self.virtio.push(device);
    }

    /// Reads a byte from `port`.
    pub fn read_port(&self, port: u16) -> u8 {
        match port {
            SERIAL..=SERIAL_END => lock(&self.serial).read(port - SERIAL),
            CLOCK_VALUE => lock(&self.clock).read(),
            KEYBOARD_COMMAND => lock(&self.keyboard).read((port - KEYBOARD) as u8),
            _ => u8::MAX,
        }
    }

    /// Writes the bytes of `data` to `port`, one after the other.
    pub fn write_port(&self, port: u16, data: &[u8]) -> Result<Next> {
        match port {
            SERIAL..=SERIAL_END => {
                let mut serial = lock(&self.serial);
                for &byte in data {
                    serial.write(port - SERIAL, byte)?;
                }
            }
            KEYBOARD_COMMAND => {
                let mut keyboard = lock(&self.keyboard);
                for &byte in data {
                    let Ok(()) = keyboard.write((port - KEYBOARD) as u8, byte);
                }
                if keyboard.reset_evt().0.take() {
                    return Ok(Next::Reset);
                }
            }
            CLOCK_REGISTER => {
                if let Some(&register) = data.first() {
                    lock(&self.clock).select(register);
                }
            }
            DEBUG_EXIT => {
                if let Some(&status) = data.first() {
                    return Ok(Next::Exit(status));
                }
            }
            _ => {}
        }
        Ok(Next::Continue)
    }

    /// Fills `data` from guest-physical `address`.
    pub fn read_memory(&self, address: u64, data: &mut [u8]) {
        match self.find(address) {
            Some((Place::Counter, offset)) => lock(&self.counter).read(offset, data),
            Some((Place::Virtio(device), offset)) => lock(device).read(offset, data),
            None => data.fill(u8::MAX),
        }
    }

    /// Writes `data` to guest-physical `address`.
    pub fn write_memory(&self, address: u64, data: &[u8]) {
        match self.find(address) {
            Some((Place::Counter, offset)) => lock(&self.counter).write(offset, data),
            Some((Place::Virtio(device), offset)) => lock(device).write(offset, data),
            None => {}
        }
    }

    /// Returns the device at guest-physical `address`, and the offset in its registers.
    fn find(&self, address: u64) -> Option<(Place<'_>, u64)> {
        let offset = address.checked_sub(MMIO_HOLE.0)?;
        if offset < counter::SIZE {
            return Some((Place::Counter, offset));
        }
        let offset = offset - counter::SIZE;
        let index = usize::try_from(offset / VIRTIO_SIZE).ok()?;
        let device = self.virtio.get(index)?;
        Some((Place::Virtio(device), offset % VIRTIO_SIZE))
    }
}

/// A device in memory.
enum Place<'a> {
    /// The counter.
    Counter,
    /// A virtio device.
    Virtio(&'a Mutex<dyn Registers>),
}

/// Locks `mutex`; that another thread died while it held it is no reason to stop here.
pub fn lock<T: ?Sized>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn devices() -> Devices {
        let serial = Serial::new(Box::new(std::io::sink())).unwrap();
        Devices::new(Arc::new(Mutex::new(serial)))
    }

    #[test]
    fn debug_exit_ends_the_guest() {
        let devices = devices();
        assert_eq!(devices.write_port(0xf4, &[7]).unwrap(), Next::Exit(7));
        assert_eq!(devices.write_port(0x80, &[7]).unwrap(), Next::Continue);
    }

    #[test]
    fn keyboard_controller_resets() {
        let devices = devices();
        assert_eq!(devices.read_port(0x64) & 2, 0, "takes commands");
        assert_eq!(devices.write_port(0x64, &[0xd1]).unwrap(), Next::Continue);
        assert_eq!(devices.write_port(0x64, &[0xfe]).unwrap(), Next::Reset);
        assert_eq!(devices.write_port(0x64, &[0xd1]).unwrap(), Next::Continue);
    }

    #[test]
    fn nothing_reads_as_ones() {
        let devices = devices();
        assert_eq!(devices.read_port(0x60), 0xff);

        let mut data = [0; 4];
        devices.read_memory(VIRTIO, &mut data);
        assert_eq!(data, [0xff; 4]);
    }

    #[test]
    fn bus_reaches_the_counter() {
        let devices = devices();
        let mut data = [0; 4];
        devices.write_memory(MMIO_HOLE.0 + 4, &41u32.to_le_bytes());
        devices.read_memory(MMIO_HOLE.0 + 4, &mut data);
        assert_eq!(u32::from_le_bytes(data), 42);
    }

    #[test]
    fn bus_reaches_the_second_virtio_device() {
        /// Reads as its number and the offset.
        struct Numbered(u8);

        impl Registers for Numbered {
            fn read(&mut self, offset: u64, data: &mut [u8]) {
                data.copy_from_slice(&[self.0, offset as u8]);
            }

            fn write(&mut self, _offset: u64, _data: &[u8]) {}
        }

        let mut devices = devices();
        devices.add_virtio(Arc::new(Mutex::new(Numbered(1))));
        devices.add_virtio(Arc::new(Mutex::new(Numbered(2))));
        let mut data = [0; 2];
        devices.read_memory(VIRTIO + VIRTIO_SIZE + 0x70, &mut data);
        assert_eq!(data, [2, 0x70]);
        devices.read_memory(VIRTIO + 2 * VIRTIO_SIZE, &mut data);
        assert_eq!(data, [0xff; 2]);
    }
}
