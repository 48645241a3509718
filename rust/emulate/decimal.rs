// SPDX-License-Identifier: GPL-2.0

//! Arithmetic on decimal digits, which 64-bit mode does not have.

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
        RAX, //
    },
    shift::result_flags,
};

/// A decimal adjustment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Decimal {
    /// `daa`: of AL after an addition of two digits each.
    AfterAdd,
    /// `das`: of AL after a subtraction of two digits each.
    AfterSubtract,
    /// `aaa`: of AX after an addition of one digit each.
    UnpackedAfterAdd,
    /// `aas`: of AX after a subtraction of one digit each.
    UnpackedAfterSubtract,
    /// `aam`: of AX after a multiplication, to an immediate base.
    AfterMultiply,
    /// `aad`: of AX before a division, from an immediate base.
    BeforeDivide,
}

impl<B: Bus> Execution<'_, B> {
    /// Executes a decimal adjustment.
    pub(super) fn decimal(&mut self, operation: Decimal) -> Result<Outcome, Stop> {
        let ax = Register::low(RAX).read(self.bus, Size::Word);
        let rflags = self.bus.rflags();
        let base = self.insn.immediate.unwrap_or(0) & 0xff;
        let (ax, carries) = match operation {
            Decimal::AfterAdd | Decimal::AfterSubtract => {
                packed(ax, rflags, operation == Decimal::AfterAdd)
            }
            Decimal::UnpackedAfterAdd => unpacked(ax, rflags, 0x106),
            Decimal::UnpackedAfterSubtract => unpacked(ax, rflags, 0x106_u64.wrapping_neg()),
            Decimal::AfterMultiply => {
                let al = ax & 0xff;
                let error = Stop::Fault(Fault::plain(0));
                let high = al.checked_div(base).ok_or(error)?;
                let low = al.checked_rem(base).ok_or(error)?;
                ((high << 8) | low, 0)
            }
            Decimal::BeforeDivide => {
                let al = (ax & 0xff).wrapping_add((ax >> 8).wrapping_mul(base));
                (al & 0xff, 0)
            }
        };
        // Flags that are undefined are those of the result, or clear.
        let status = result_flags(Size::Byte, ax & 0xff) | carries;
        Register::low(RAX).write(self.bus, Size::Word, ax);
        self.bus
            .set_rflags((rflags & !(CF | PF | AF | ZF | SF | OF)) | status);
        self.done()
    }
}

/// Adjusts AL of `ax`; returns AX, and CF and AF.
fn packed(ax: u64, rflags: u64, add: bool) -> (u64, u64) {
    let old = ax & 0xff;
    let adjust = |al: u64, by: u64| {
        if add {
            al.wrapping_add(by)
        } else {
            al.wrapping_sub(by)
        }
    };
    let mut al = old;
    let mut carries = 0;
    if old & 0xf > 9 || rflags & AF != 0 {
        al = adjust(al, 6);
        carries |= AF | (rflags & CF);
        if !add && old < 6 {
            carries |= CF;
        }
    }
    if old > 0x99 || rflags & CF != 0 {
        al = adjust(al, 0x60);
        carries |= CF;
    }
    ((ax & 0xff00) | (al & 0xff), carries)
}

/// Adds `adjustment` to `ax` if AL is no digit; returns AX, and CF and AF.
fn unpacked(ax: u64, rflags: u64, adjustment: u64) -> (u64, u64) {
    let (ax, carries) = if ax & 0xf > 9 || rflags & AF != 0 {
        (ax.wrapping_add(adjustment), AF | CF)
    } else {
        (ax, 0)
    };
    (ax & 0xff0f, carries)
}
