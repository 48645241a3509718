// SPDX-License-Identifier: GPL-2.0

//! A 16550 serial port without an interrupt: the guest polls it.

use std::convert::Infallible;
use std::io::Write;

use anyhow::anyhow;
use anyhow::Result;
use vm_superio::serial::NoEvents;
use vm_superio::Trigger;

/// Number of ports that it takes.
pub const PORTS: u16 = 8;

/// An interrupt line that leads nowhere.
struct NoInterrupt;

impl Trigger for NoInterrupt {
    type E = Infallible;

    fn trigger(&self) -> Result<(), Self::E> {
        Ok(())
    }
}

/// The serial port.
pub struct Serial(vm_superio::Serial<NoInterrupt, NoEvents, Box<dyn Write>>);

impl Serial {
    /// Creates a port that sends its output to `console`, each byte at once.
    pub fn new(console: impl Write + 'static) -> Self {
        Self(vm_superio::Serial::new(NoInterrupt, Box::new(console)))
    }

    /// Reads the register at `offset`.
    pub fn read(&mut self, offset: u16) -> u8 {
        self.0.read(offset as u8)
    }

    /// Writes `value` to the register at `offset`; fails when the console cannot be written.
    pub fn write(&mut self, offset: u16, value: u8) -> Result<()> {
        self.0
            .write(offset as u8, value)
            .map_err(|error| anyhow!("cannot show the guest's serial output: {error:?}"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::mpsc;

    struct Sink(mpsc::Sender<u8>);

    impl Write for Sink {
        fn write(&mut self, data: &[u8]) -> std::io::Result<usize> {
            data.iter().for_each(|&byte| self.0.send(byte).unwrap());
            Ok(data.len())
        }

        fn flush(&mut self) -> std::io::Result<()> {
            Ok(())
        }
    }

    #[test]
    fn sends_what_is_written() {
        let (sender, receiver) = mpsc::channel();
        let mut serial = Serial::new(Sink(sender));
        for byte in *b"hi\n" {
            assert_ne!(serial.read(5) & 0x20, 0, "room for a byte");
            serial.write(0, byte).unwrap();
        }
        assert_eq!(receiver.try_iter().collect::<Vec<_>>(), b"hi\n");
    }
}
