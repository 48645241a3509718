// SPDX-License-Identifier: GPL-2.0

//! A 16550 serial port.
//!
//! Output goes to the console a byte at a time. Input comes from the console through
//! [`Serial::feed`], as much as the guest takes: none before its driver has turned on the interrupt
//! for received data, since what arrives earlier is lost when the driver empties the FIFO. Whenever
//! the guest may take more, [`Serial::wants_input`] becomes readable.

use std::io;
use std::io::Write;

use anyhow::anyhow;
use anyhow::Context;
use anyhow::Result;
use vm_superio::serial::NoEvents;
use vm_superio::Trigger;
use vmm_sys_util::eventfd::EventFd;
use vmm_sys_util::eventfd::EFD_NONBLOCK;

/// Number of ports that it takes.
pub const PORTS: u16 = 8;

/// The interrupt line of a PC's COM1.
pub const INTERRUPT: u32 = 4;

/// Register of the interrupts that are on, while the divisor latch is closed.
const INTERRUPT_ENABLE: u16 = 1;

/// Bytes of input that the port holds for the guest.
const FIFO: usize = 64;

/// The interrupt for received data.
const RECEIVED_DATA: u8 = 1 << 0;

/// An event that is signalled by a write to an eventfd.
struct Line(EventFd);

impl Trigger for Line {
    type E = io::Error;

    fn trigger(&self) -> io::Result<()> {
        self.0.write(1)
    }
}

/// The serial port.
pub struct Serial {
    port: vm_superio::Serial<Line, NoEvents, Box<dyn Write + Send>>,
    interrupt: EventFd,
    wants_input: EventFd,
    /// The guest's driver waits for input.
    listens: bool,
    /// There is input that the guest could not take.
    waiting: bool,
}

impl Serial {
    /// Creates a port that sends its output to `console`, each byte at once.
    pub fn new(console: Box<dyn Write + Send>) -> Result<Self> {
        let event = || EventFd::new(EFD_NONBLOCK).context("cannot create an eventfd");
        let interrupt = event()?;
        let line = Line(interrupt.try_clone()?);
        Ok(Self {
            port: vm_superio::Serial::new(line, console),
            interrupt,
            wants_input: event()?,
            listens: false,
            waiting: false,
        })
    }

    /// Returns the event that raises the interrupt.
    pub fn interrupt(&self) -> &EventFd {
        &self.interrupt
    }

    /// Returns the event that tells that the guest may take input that it did not take before.
    pub fn wants_input(&self) -> &EventFd {
        &self.wants_input
    }

    /// Reads the register at `offset`.
    pub fn read(&mut self, offset: u16) -> u8 {
        let value = self.port.read(offset as u8);
        if self.waiting && self.port.fifo_capacity() == FIFO {
            self.ask_for_input();
        }
        value
    }

    /// Writes `value` to the register at `offset`; fails when the console cannot be written.
    pub fn write(&mut self, offset: u16, value: u8) -> Result<()> {
        self.port
            .write(offset as u8, value)
            .map_err(|error| anyhow!("cannot show the guest's serial output: {error:?}"))?;
        if offset == INTERRUPT_ENABLE {
            self.listens = self.port.state().interrupt_enable & RECEIVED_DATA != 0;
            if self.waiting && self.listens {
                self.ask_for_input();
            }
        }
        Ok(())
    }

    /// Gives the guest the first bytes of `input`; returns how many it took.
    pub fn feed(&mut self, input: &[u8]) -> Result<usize> {
        let room = self.port.fifo_capacity().min(input.len());
        let taken = match input.get(..room) {
            Some(first) if self.listens && room > 0 => self
                .port
                .enqueue_raw_bytes(first)
                .map_err(|error| anyhow!("cannot give the guest serial input: {error:?}"))?,
            _ => 0,
        };
        self.waiting = taken < input.len();
        Ok(taken)
    }

    /// Shows `text` as if the guest had written it.
    pub fn show(&mut self, text: &[u8]) -> Result<()> {
        let console = self.port.writer_mut();
        console
            .write_all(text)
            .and_then(|()| console.flush())
            .context("cannot show the guest's input")
    }

    /// Tells the console that the guest may take more.
    fn ask_for_input(&mut self) {
        self.waiting = false;
        // Fails only if nobody has read 2^64 of these, and then it is readable.
        let _ = self.wants_input.write(1);
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
        let mut serial = Serial::new(Box::new(Sink(sender))).unwrap();
        for byte in *b"hi\n" {
            assert_ne!(serial.read(5) & 0x20, 0, "room for a byte");
            serial.write(0, byte).unwrap();
        }
        assert_eq!(receiver.try_iter().collect::<Vec<_>>(), b"hi\n");
    }

    #[test]
    fn input_waits_for_the_driver() {
        let mut serial = Serial::new(Box::new(io::sink())).unwrap();
        assert_eq!(serial.feed(b"x").unwrap(), 0);
        assert!(serial.wants_input().read().is_err(), "nothing to tell yet");

        serial.write(1, 1).unwrap();
        assert_eq!(serial.wants_input().read().unwrap(), 1);
        assert_eq!(serial.feed(&[b'y'; 100]).unwrap(), 64);
        assert_eq!(serial.interrupt().read().unwrap(), 1);
        for _ in 0..64 {
            assert_eq!(serial.read(0), b'y');
        }
        assert_eq!(serial.wants_input().read().unwrap(), 1);
    }
}
