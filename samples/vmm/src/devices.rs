// SPDX-License-Identifier: GPL-2.0

//! The devices of the machine, and the bus that finds them.
//!
//! | address | device |
//! |---|---|
//! | port 0x3f8-0x3ff | [`serial`]: a 16550 whose output goes to the terminal |
//! | port 0xf4 | debug exit: a byte written here ends the guest with that status |
//! | memory 0xd000_0000-0xd000_0fff | [`counter`]: counts how often it was read |
//!
//! Where no device answers, a read yields all ones and a write is lost, as on a PC.

mod counter;
mod serial;

use std::io::Write;

use anyhow::Result;

use crate::memory::MMIO_HOLE;
use counter::Counter;
use serial::Serial;

/// First port of the serial port, a PC's COM1.
const SERIAL: u16 = 0x3f8;

/// Last port of the serial port.
const SERIAL_END: u16 = SERIAL + serial::PORTS - 1;

/// Port that ends the guest.
const DEBUG_EXIT: u16 = 0xf4;

/// What to do after an access.
#[derive(Debug, PartialEq)]
pub enum Next {
    /// Go on running the guest.
    Continue,
    /// End it with this status.
    Exit(u8),
}

/// All devices of one machine.
pub struct Devices {
    serial: Serial,
    counter: Counter,
}

impl Devices {
    /// Creates the devices; what the guest prints goes to `console`.
    pub fn new(console: impl Write + 'static) -> Self {
        Self {
            serial: Serial::new(console),
            counter: Counter::default(),
        }
    }

    /// Reads a byte from `port`.
    pub fn read_port(&mut self, port: u16) -> u8 {
        match port {
            SERIAL..=SERIAL_END => self.serial.read(port - SERIAL),
            _ => u8::MAX,
        }
    }

    /// Writes the bytes of `data` to `port`, one after the other.
    pub fn write_port(&mut self, port: u16, data: &[u8]) -> Result<Next> {
        match port {
            SERIAL..=SERIAL_END => {
                for &byte in data {
                    self.serial.write(port - SERIAL, byte)?;
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
    pub fn read_memory(&mut self, address: u64, data: &mut [u8]) {
        match counter_offset(address) {
            Some(offset) => self.counter.read(offset, data),
            None => data.fill(u8::MAX),
        }
    }

    /// Writes `data` to guest-physical `address`.
    pub fn write_memory(&mut self, address: u64, data: &[u8]) {
        if let Some(offset) = counter_offset(address) {
            self.counter.write(offset, data);
        }
    }
}

/// Returns the offset of `address` in the counter's registers, if it is there.
fn counter_offset(address: u64) -> Option<u64> {
    address
        .checked_sub(MMIO_HOLE.0)
        .filter(|&offset| offset < counter::SIZE)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn devices() -> Devices {
        Devices::new(std::io::sink())
    }

    #[test]
    fn debug_exit_ends_the_guest() {
        let mut devices = devices();
        assert_eq!(devices.write_port(0xf4, &[7]).unwrap(), Next::Exit(7));
        assert_eq!(devices.write_port(0x80, &[7]).unwrap(), Next::Continue);
    }

    #[test]
    fn nothing_reads_as_ones() {
        let mut devices = devices();
        assert_eq!(devices.read_port(0x60), 0xff);

        let mut data = [0; 4];
        devices.read_memory(MMIO_HOLE.0 + counter::SIZE, &mut data);
        assert_eq!(data, [0xff; 4]);
    }

    #[test]
    fn bus_reaches_the_counter() {
        let mut devices = devices();
        let mut data = [0; 4];
        devices.write_memory(MMIO_HOLE.0 + 4, &41u32.to_le_bytes());
        devices.read_memory(MMIO_HOLE.0 + 4, &mut data);
        assert_eq!(u32::from_le_bytes(data), 42);
    }
}
