// SPDX-License-Identifier: GPL-2.0

//! A device in memory that counts how often it was read.
//!
//! | offset | register, 32 bits |
//! |---|---|
//! | 0 | identification, reads as the bytes `cntr` |
//! | 4 | the counter: a read adds one and returns the sum, a write sets it |
//!
//! Other offsets read as zero. Accesses of other widths see the low bytes of a register.

use super::Registers;

/// Bytes of address space that it takes.
pub const SIZE: u64 = 0x1000;

const IDENTIFICATION: u64 = 0;
const COUNT: u64 = 4;

/// The counter.
#[derive(Default)]
pub struct Counter {
    count: u32,
}

impl Registers for Counter {
    fn read(&mut self, offset: u64, data: &mut [u8]) {
        let value = match offset {
            IDENTIFICATION => *b"cntr",
            COUNT => {
                self.count = self.count.wrapping_add(1);
                self.count.to_le_bytes()
            }
            _ => [0; 4],
        };
        data.fill(0);
        data.iter_mut().zip(value).for_each(|(to, from)| *to = from);
    }

    fn write(&mut self, offset: u64, data: &[u8]) {
        if offset == COUNT {
            let mut value = [0; 4];
            value
                .iter_mut()
                .zip(data)
                .for_each(|(to, &from)| *to = from);
            self.count = u32::from_le_bytes(value);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read<const N: usize>(counter: &mut Counter, offset: u64) -> [u8; N] {
        let mut data = [0xff; N];
        counter.read(offset, &mut data);
        data
    }

    #[test]
    fn counts_its_reads() {
        let mut counter = Counter::default();
        assert_eq!(read(&mut counter, 0), *b"cntr");
        assert_eq!(read(&mut counter, 4), [1, 0, 0, 0]);
        assert_eq!(read(&mut counter, 4), [2]);
        assert_eq!(read(&mut counter, 4), [3, 0, 0, 0, 0, 0, 0, 0]);

        counter.write(4, &u32::MAX.to_le_bytes());
        assert_eq!(read(&mut counter, 4), [0; 4]);
        counter.write(8, &[9; 4]);
        assert_eq!(read(&mut counter, 8), [0; 4]);
    }
}
