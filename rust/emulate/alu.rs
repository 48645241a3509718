// SPDX-License-Identifier: GPL-2.0

//! Arithmetic and its flags, on values alone.

use super::operand::Size;

/// RFLAGS.CF: carry.
pub(super) const CF: u64 = 1 << 0;
/// RFLAGS.PF: the low byte has an even number of ones.
pub(super) const PF: u64 = 1 << 2;
/// RFLAGS.AF: carry out of bit 3.
pub(super) const AF: u64 = 1 << 4;
/// RFLAGS.ZF: zero.
pub(super) const ZF: u64 = 1 << 6;
/// RFLAGS.SF: sign.
pub(super) const SF: u64 = 1 << 7;
/// RFLAGS.DF: string instructions go down.
pub(super) const DF: u64 = 1 << 10;
/// RFLAGS.OF: signed overflow.
pub(super) const OF: u64 = 1 << 11;

/// The flags that arithmetic sets.
const STATUS: u64 = CF | PF | AF | ZF | SF | OF;

/// An operation on two values. The order is that of the encoding.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Binary {
    Add,
    Or,
    Adc,
    Sbb,
    And,
    Sub,
    Xor,
    /// Sub without a result.
    Compare,
    /// And without a result.
    Test,
}

impl Binary {
    /// Returns the operation with the number `code`, of which three bits count.
    pub(super) const fn encoded(code: u8) -> Self {
        match code & 7 {
            0 => Self::Add,
            1 => Self::Or,
            2 => Self::Adc,
            3 => Self::Sbb,
            4 => Self::And,
            5 => Self::Sub,
            6 => Self::Xor,
            _ => Self::Compare,
        }
    }

    /// Returns whether there is a result beside the flags.
    pub(super) const fn writes(self) -> bool {
        !matches!(self, Self::Compare | Self::Test)
    }

    /// Returns the result for `left` and `right` of `size`, and RFLAGS after it.
    pub(super) const fn apply(self, size: Size, left: u64, right: u64, rflags: u64) -> (u64, u64) {
        match self {
            Self::Add => add(size, left, right, 0, rflags),
            Self::Adc => add(size, left, right, rflags & CF, rflags),
            Self::Sub | Self::Compare => subtract(size, left, right, 0, rflags),
            Self::Sbb => subtract(size, left, right, rflags & CF, rflags),
            Self::Or => logic(size, left | right, rflags),
            Self::And | Self::Test => logic(size, left & right, rflags),
            Self::Xor => logic(size, left ^ right, rflags),
        }
    }
}

/// An operation on one value.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Unary {
    Increment,
    Decrement,
    Not,
    Negate,
}

impl Unary {
    /// Returns the result for `value` of `size`, and RFLAGS after it.
    pub(super) const fn apply(self, size: Size, value: u64, rflags: u64) -> (u64, u64) {
        match self {
            Self::Increment => keep_carry(add(size, value, 1, 0, rflags), rflags),
            Self::Decrement => keep_carry(subtract(size, value, 1, 0, rflags), rflags),
            Self::Not => (!value & size.mask(), rflags),
            Self::Negate => subtract(size, 0, value, 0, rflags),
        }
    }
}

/// Returns `result` with CF as it was in `rflags`.
const fn keep_carry((result, after): (u64, u64), rflags: u64) -> (u64, u64) {
    (result, (after & !CF) | (rflags & CF))
}

/// Returns `left + right + carry`, where carry is 0 or 1.
const fn add(size: Size, left: u64, right: u64, carry: u64, rflags: u64) -> (u64, u64) {
    let sum = left.wrapping_add(right).wrapping_add(carry) & size.mask();
    // The carry out of each bit: both inputs have it, or one does and the sum lost it.
    let carries = (left & right) | ((left | right) & !sum);
    let overflow = (left ^ sum) & (right ^ sum);
    (sum, flags(size, sum, carries, overflow, rflags))
}

/// Returns `left - right - borrow`, where borrow is 0 or 1.
const fn subtract(size: Size, left: u64, right: u64, borrow: u64, rflags: u64) -> (u64, u64) {
    let difference = left.wrapping_sub(right).wrapping_sub(borrow) & size.mask();
    let borrows = (!left & right) | ((!left | right) & difference);
    let overflow = (left ^ right) & (left ^ difference);
    (
        difference,
        flags(size, difference, borrows, overflow, rflags),
    )
}

/// Returns `result` of a bitwise operation. AF is undefined then: Intel's CPUs clear it.
const fn logic(size: Size, result: u64, rflags: u64) -> (u64, u64) {
    (result, flags(size, result, 0, 0, rflags))
}

/// Returns `rflags` after `result`; `carries` and `overflow` have a bit for each bit of it.
const fn flags(size: Size, result: u64, carries: u64, overflow: u64, rflags: u64) -> u64 {
    let mut status = 0;
    if carries & size.sign_bit() != 0 {
        status |= CF;
    }
    if (result & 0xff).count_ones() % 2 == 0 {
        status |= PF;
    }
    if carries & (1 << 3) != 0 {
        status |= AF;
    }
    if result == 0 {
        status |= ZF;
    }
    if result & size.sign_bit() != 0 {
        status |= SF;
    }
    if overflow & size.sign_bit() != 0 {
        status |= OF;
    }
    (rflags & !STATUS) | status
}
