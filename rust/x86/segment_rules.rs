// SPDX-License-Identifier: GPL-2.0

//! Which segment registers VM entry accepts of a guest that is not unrestricted.
//!
//! Real mode and the first instructions of protected mode allow more: a segment that keeps the base,
//! limit or type that another mode gave it. The checks here are those that a guest can fail by ordinary
//! means; a client that sets what no guest can have is told by VM entry.

use super::segment::Segment;

/// The registers, in the order of [`SegmentRegister::ALL`](super::segment_register::SegmentRegister).
pub(crate) type Segments = [Segment; 8];

/// Types of a code or data segment: bits of [`Segment::kind`].
mod kind {
    pub(super) const ACCESSED: u8 = 1;
    pub(super) const WRITABLE_OR_READABLE: u8 = 2;
    pub(super) const CONFORMING: u8 = 4;
    pub(super) const CODE: u8 = 8;
    pub(super) const DATA: u8 = ACCESSED | WRITABLE_OR_READABLE;
    pub(super) const EXPAND_DOWN: u8 = DATA | 4;
}

/// Selector bit: the descriptor is one of the local table.
const TI: u16 = 1 << 2;

/// Returns whether virtual-8086 mode has such a segment, but for its privilege level.
///
/// `code` says that it is CS, whose type is that of data in virtual-8086 mode.
fn is_8086(segment: &Segment, code: bool) -> bool {
    segment.base == u64::from(segment.selector) << 4
        && segment.limit == 0xffff
        && (code || segment.kind == kind::DATA)
        && segment.s
        && segment.present
        && !segment.unusable
        && !segment.avl
        && !segment.l
        && !segment.db
        && !segment.g
}

/// Returns whether VM entry accepts the segments of a guest in virtual-8086 mode, or of one in real mode
/// that is run in it.
#[must_use]
pub(crate) fn are_8086(segments: &Segments) -> bool {
    let [es, cs, ss, ds, fs, gs, ..] = segments;
    is_8086(cs, true)
        && [es, ss, ds, fs, gs]
            .into_iter()
            .all(|segment| is_8086(segment, false))
}

/// Returns whether VM entry accepts the segments of a guest in protected mode.
#[must_use]
pub(crate) fn are_protected(segments: &Segments) -> bool {
    let [es, cs, ss, ds, fs, gs, ldtr, tr] = segments;
    cs.rpl() == ss.rpl()
        && is_code(cs)
        && is_stack(ss)
        && [es, ds, fs, gs].into_iter().all(is_data)
        && is_task(tr)
        && is_local_table(ldtr)
}

fn is_code(cs: &Segment) -> bool {
    let level = if cs.kind & kind::CONFORMING != 0 {
        cs.dpl <= cs.rpl()
    } else {
        cs.dpl == cs.rpl()
    };
    !cs.unusable
        && cs.kind & (kind::CODE | kind::ACCESSED) == kind::CODE | kind::ACCESSED
        && cs.s
        && level
        && cs.present
}

fn is_stack(ss: &Segment) -> bool {
    ss.unusable
        || (ss.kind == kind::DATA || ss.kind == kind::EXPAND_DOWN)
            && ss.s
            && ss.dpl == ss.rpl()
            && ss.present
}

fn is_data(segment: &Segment) -> bool {
    let code = segment.kind & kind::CODE != 0;
    let conforming_code = code && segment.kind & kind::CONFORMING != 0;
    segment.unusable
        || segment.s
            && segment.present
            && segment.kind & kind::ACCESSED != 0
            && (!code || segment.kind & kind::WRITABLE_OR_READABLE != 0)
            && (conforming_code || segment.dpl >= segment.rpl())
}

fn is_task(tr: &Segment) -> bool {
    const BUSY_16: u8 = 3;
    const BUSY_32: u8 = 11;
    !tr.unusable
        && tr.selector & TI == 0
        && (tr.kind == BUSY_16 || tr.kind == BUSY_32)
        && !tr.s
        && tr.present
}

fn is_local_table(ldtr: &Segment) -> bool {
    const LDT: u8 = 2;
    ldtr.unusable || ldtr.selector & TI == 0 && ldtr.kind == LDT && !ldtr.s && ldtr.present
}
