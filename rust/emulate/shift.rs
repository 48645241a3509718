// SPDX-License-Identifier: GPL-2.0

//! Shifts and rotations.

use super::{
    bus::{
        Bus,
        Stop, //
    },
    execute::{
        Execution,
        Outcome, //
    },
    flags::{
        AF,
        CF,
        OF,
        PF,
        SF,
        ZF, //
    },
    operand::{
        Register,
        Size,
        RCX, //
    },
};

/// A shift or rotation. The order is that of the encoding.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Shift {
    RotateLeft,
    RotateRight,
    /// Through CF.
    RotateCarryLeft,
    /// Through CF.
    RotateCarryRight,
    Left,
    Right,
    /// Keeps the sign.
    ArithmeticRight,
}

impl Shift {
    /// Returns the operation with the number `code`, of which three bits count.
    pub(super) const fn encoded(code: u8) -> Self {
        match code & 7 {
            0 => Self::RotateLeft,
            1 => Self::RotateRight,
            2 => Self::RotateCarryLeft,
            3 => Self::RotateCarryRight,
            5 => Self::Right,
            7 => Self::ArithmeticRight,
            // 6 is a second name that manuals do not have.
            _ => Self::Left,
        }
    }

    /// Returns the result for `value` of `size` and `count`, and RFLAGS after it.
    ///
    /// OF is that of a shift by 1 for other counts, too, where it is undefined.
    fn apply(self, size: Size, value: u64, count: u64, rflags: u64) -> (u64, u64) {
        let bits = size.bits();
        // CAST: at most 63.
        let count = (count & if size == Size::Qword { 63 } else { 31 }) as u32;
        if count == 0 {
            return (value, rflags);
        }
        // All but shifts work on one more bit than fits, below or above the value.
        let wide = u128::from(value);
        let carry_in = u128::from(rflags & CF);
        let (result, carry) = match self {
            Self::RotateLeft => {
                let count = count & bits.wrapping_sub(1);
                let result = (wide << count) | (wide >> bits.wrapping_sub(count));
                (result, result & 1 != 0)
            }
            Self::RotateRight => {
                let count = count & bits.wrapping_sub(1);
                let result = (wide >> count) | (wide << bits.wrapping_sub(count));
                (result, result & u128::from(size.sign_bit()) != 0)
            }
            Self::RotateCarryLeft | Self::RotateCarryRight => {
                let all = bits.saturating_add(1);
                let count = count.checked_rem(all).unwrap_or(0);
                let count = match self {
                    Self::RotateCarryLeft => count,
                    _ => all.wrapping_sub(count),
                };
                let joined = wide | (carry_in << bits);
                let result = (joined << count) | (joined >> all.wrapping_sub(count));
                (result, (result >> bits) & 1 != 0)
            }
            Self::Left => {
                let result = wide << count;
                (result, (result >> bits) & 1 != 0)
            }
            Self::Right => (wide >> count, (wide >> count.wrapping_sub(1)) & 1 != 0),
            Self::ArithmeticRight => {
                // CAST: the sign is in the upper bits.
                let signed = i128::from(size.sign_extend(value) as i64);
                let last = signed >> count.wrapping_sub(1);
                ((last >> 1) as u128, last & 1 != 0)
            }
        };
        // CAST: cut to the size.
        let result = result as u64 & size.mask();
        (result, self.flags(size, value, result, carry, rflags))
    }

    /// Returns RFLAGS after a shift by more than 0.
    fn flags(self, size: Size, old: u64, result: u64, carry: bool, rflags: u64) -> u64 {
        let sign = |value: u64| value & size.sign_bit() != 0;
        let next = |value: u64| value & (size.sign_bit() >> 1) != 0;
        let overflow = match self {
            Self::RotateLeft | Self::RotateCarryLeft | Self::Left => sign(result) != carry,
            Self::RotateRight | Self::RotateCarryRight => sign(result) != next(result),
            Self::Right => sign(old),
            Self::ArithmeticRight => false,
        };
        let mut status = if carry { CF } else { 0 };
        if overflow {
            status |= OF;
        }
        match self {
            Self::Left | Self::Right | Self::ArithmeticRight => {
                (rflags & !(CF | OF | AF | SF | ZF | PF)) | status | result_flags(size, result)
            }
            _ => (rflags & !(CF | OF)) | status,
        }
    }
}

/// Returns SF, ZF and PF of `result`.
pub(super) const fn result_flags(size: Size, result: u64) -> u64 {
    let mut status = 0;
    if result & size.mask() == 0 {
        status |= ZF;
    }
    if result & size.sign_bit() != 0 {
        status |= SF;
    }
    if (result & 0xff).count_ones() % 2 == 0 {
        status |= PF;
    }
    status
}

impl<B: Bus> Execution<'_, B> {
    /// Executes a shift or rotation.
    pub(super) fn shift(&mut self, operation: Shift) -> Result<Outcome, Stop> {
        let size = self.insn.size;
        let source = self.locate(&self.insn.source, Size::Byte, false)?;
        let place = self.writable_destination()?;
        let count = source.read(self.bus, Size::Byte)?;
        let old = self.read(place)?;
        let (new, rflags) = operation.apply(size, old, count, self.bus.rflags());
        if !self.replace(place, old, new)? {
            return Ok(Outcome::Again);
        }
        self.bus.set_rflags(rflags);
        self.done()
    }

    /// Executes `shld`, or with `right` `shrd`.
    pub(super) fn double_shift(&mut self, right: bool, by_cl: bool) -> Result<Outcome, Stop> {
        let size = self.insn.size;
        let bits = size.bits();
        let source = self.source()?;
        let place = self.writable_destination()?;
        let count = if by_cl {
            Register::low(RCX).read(self.bus, Size::Byte)
        } else {
            self.insn.immediate.unwrap_or(0)
        };
        // CAST: at most 63.
        let count = (count & if size == Size::Qword { 63 } else { 31 }) as u32;
        let old = self.read(place)?;
        let fill = self.read(source)?;
        let rflags = self.bus.rflags();
        let (new, rflags) = if count == 0 {
            (old, rflags)
        } else {
            let (low, high) = if right { (old, fill) } else { (fill, old) };
            // Of 16 bits there are three, so that counts up to 31 have something to shift in, as
            // on Intel's CPUs.
            let joined = u128::from(low) | (u128::from(high) << bits);
            let (shifted, carry) = if right {
                let joined = match size {
                    Size::Word => joined | (u128::from(low) << 32),
                    _ => joined,
                };
                let last = joined >> count.wrapping_sub(1);
                (last >> 1, last & 1 != 0)
            } else {
                let (joined, top) = match size {
                    Size::Word => ((joined << 16) | u128::from(high), 48),
                    _ => (joined, bits.wrapping_mul(2)),
                };
                // The bit that leaves is the lowest of those above what stays.
                let last = joined >> top.wrapping_sub(count);
                (
                    joined >> top.wrapping_sub(bits).wrapping_sub(count),
                    last & 1 != 0,
                )
            };
            // CAST: cut to the size.
            let new = shifted as u64 & size.mask();
            let mut status = result_flags(size, new);
            if carry {
                status |= CF;
            }
            if (new ^ old) & size.sign_bit() != 0 {
                status |= OF;
            }
            (new, (rflags & !(CF | OF | AF | SF | ZF | PF)) | status)
        };
        if !self.replace(place, old, new)? {
            return Ok(Outcome::Again);
        }
        self.bus.set_rflags(rflags);
        self.done()
    }
}
