// SPDX-License-Identifier: GPL-2.0

//! Multiplication and division.

use super::{
    bus::{
        Bus,
        Fault,
        Stop, //
    },
    execute::{
        Execution,
        Outcome, //
    },
    flags::{
        CF,
        OF, //
    },
    operand::{
        Operand,
        Register,
        Size,
        RAX,
        RDX, //
    },
    shift::result_flags,
};

/// Returns `value` of `size` as a signed number.
fn signed(size: Size, value: u64) -> i128 {
    // CAST: the sign is in the upper bits.
    i128::from(size.sign_extend(value) as i64)
}

/// Returns RFLAGS after a multiplication whose `result` was cut to `size` if `lost`. SF, ZF, AF
/// and PF are undefined: they are those of the result.
fn flags(size: Size, result: u64, lost: bool, rflags: u64) -> u64 {
    const STATUS: u64 = 0x8d5;
    let carry = if lost { CF | OF } else { 0 };
    (rflags & !STATUS) | result_flags(size, result) | carry
}

impl<B: Bus> Execution<'_, B> {
    /// Returns the double-width number in rDX:rAX, or in AX for bytes.
    fn wide_accumulator(&self) -> u128 {
        let size = self.insn.size;
        if size == Size::Byte {
            return u128::from(Register::low(RAX).read(self.bus, Size::Word));
        }
        let high = u128::from(Register::low(RDX).read(self.bus, size));
        (high << size.bits()) | u128::from(Register::low(RAX).read(self.bus, size))
    }

    /// Sets rDX and rAX, or AH and AL for bytes.
    fn set_halves(&mut self, high: u64, low: u64) {
        let size = self.insn.size;
        if size == Size::Byte {
            let both = ((high & 0xff) << 8) | (low & 0xff);
            Register::low(RAX).write(self.bus, Size::Word, both);
        } else {
            Register::low(RAX).write(self.bus, size, low);
            Register::low(RDX).write(self.bus, size, high);
        }
    }

    /// Executes `mul` or `imul` of the accumulator.
    pub(super) fn multiply(&mut self, is_signed: bool) -> Result<Outcome, Stop> {
        let size = self.insn.size;
        let source = self.source()?;
        let right = self.read(source)?;
        let left = Register::low(RAX).read(self.bus, size);
        let product = if is_signed {
            // CAST: the two's complement of it.
            signed(size, left).wrapping_mul(signed(size, right)) as u128
        } else {
            u128::from(left).wrapping_mul(u128::from(right))
        };
        // CAST: both are cut to the size.
        let low = product as u64 & size.mask();
        let high = (product >> size.bits()) as u64 & size.mask();
        let lost = if is_signed {
            high != (size.sign_extend(low) >> 63).wrapping_neg() & size.mask()
        } else {
            high != 0
        };
        let rflags = flags(size, low, lost, self.bus.rflags());
        self.set_halves(high, low);
        self.bus.set_rflags(rflags);
        self.done()
    }

    /// Executes `imul` with two or, where there is an immediate, three operands.
    pub(super) fn multiply_into(&mut self) -> Result<Outcome, Stop> {
        let size = self.insn.size;
        let source = self.source()?;
        let right = self.read(source)?;
        let Operand::Register(destination) = self.insn.destination else {
            return Err(Stop::Unsupported);
        };
        let left = match self.insn.immediate {
            Some(immediate) => immediate,
            None => destination.read(self.bus, size),
        };
        let product = signed(size, left).wrapping_mul(signed(size, right));
        // CAST: cut to the size.
        let result = product as u64 & size.mask();
        let lost = signed(size, result) != product;
        let rflags = flags(size, result, lost, self.bus.rflags());
        destination.write(self.bus, size, result);
        self.bus.set_rflags(rflags);
        self.done()
    }

    /// Executes `div` or `idiv`. Flags are undefined: they stay.
    pub(super) fn divide(&mut self, is_signed: bool) -> Result<Outcome, Stop> {
        let error = Stop::Fault(Fault::plain(0));
        let size = self.insn.size;
        let source = self.source()?;
        let divisor = self.read(source)?;
        let dividend = self.wide_accumulator();
        let (quotient, remainder) = if is_signed {
            let unused = 128_u32.wrapping_sub(size.bits().wrapping_mul(2));
            // CAST: the sign is moved to the top, and back.
            let dividend = ((dividend << unused) as i128) >> unused;
            let divisor = signed(size, divisor);
            // CAST: at most 64 bits.
            let magnitude = divisor.unsigned_abs() as u64;
            let (quotient, remainder) = divide(dividend.unsigned_abs(), magnitude).ok_or(error)?;
            let negative = (dividend < 0) != (divisor < 0);
            let largest = size.sign_bit().wrapping_sub(u64::from(!negative));
            if quotient > largest {
                return Err(error);
            }
            let negate = |value: u64, negative| match negative {
                true => value.wrapping_neg(),
                false => value,
            };
            (negate(quotient, negative), negate(remainder, dividend < 0))
        } else {
            let (quotient, remainder) = divide(dividend, divisor).ok_or(error)?;
            if quotient > size.mask() {
                return Err(error);
            }
            (quotient, remainder)
        };
        self.set_halves(remainder, quotient);
        self.done()
    }
}

/// Returns quotient and remainder, or `None` if the quotient has more than 64 bits.
///
/// Division of 128-bit numbers is not at hand in the kernel.
fn divide(dividend: u128, divisor: u64) -> Option<(u64, u64)> {
    // CAST: the two halves.
    let (high, low) = ((dividend >> 64) as u64, dividend as u64);
    if high == 0 {
        return Some((low.checked_div(divisor)?, low.checked_rem(divisor)?));
    }
    if high >= divisor {
        return None;
    }
    let mut remainder = high;
    let mut quotient = 0;
    for bit in (0..64).rev() {
        // A bit beyond the 64 makes it larger than any divisor.
        let overflows = remainder >> 63 != 0;
        remainder = (remainder << 1) | ((low >> bit) & 1);
        if overflows || remainder >= divisor {
            remainder = remainder.wrapping_sub(divisor);
            quotient |= 1 << bit;
        }
    }
    Some((quotient, remainder))
}
