// SPDX-License-Identifier: GPL-2.0

//! Segment registers with their hidden parts.
//!
//! One segment has four forms: [`Segment`], which the module uses; [`SegmentFields`], the bytes of
//! `struct kvm_segment`; the access-rights word of a VMCS; and the 8-byte descriptor in memory.

/// A segment register: its selector and what the CPU keeps of the descriptor.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Segment {
    /// The visible part.
    pub(crate) selector: u16,
    /// Linear address of the first byte.
    pub(crate) base: u64,
    /// Offset of the last byte, in bytes whatever `g` says.
    pub(crate) limit: u32,
    /// The four type bits of the descriptor.
    pub(crate) kind: u8,
    /// Code or data (true) or system (false).
    pub(crate) s: bool,
    /// Descriptor privilege level, 0 to 3.
    pub(crate) dpl: u8,
    /// The segment is present.
    pub(crate) present: bool,
    /// Free for software.
    pub(crate) avl: bool,
    /// 64-bit code.
    pub(crate) l: bool,
    /// 32-bit operands and stack.
    pub(crate) db: bool,
    /// The descriptor counts the limit in 4 KiB units.
    pub(crate) g: bool,
    /// A null selector was loaded; using the segment faults.
    pub(crate) unusable: bool,
}

/// The fields of `struct kvm_segment`, by its names.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub(crate) struct SegmentFields {
    /// As [`Segment::base`].
    pub(crate) base: u64,
    /// As [`Segment::limit`].
    pub(crate) limit: u32,
    /// As [`Segment::selector`].
    pub(crate) selector: u16,
    /// As [`Segment::kind`]: the lowest four bits count.
    pub(crate) type_: u8,
    /// As [`Segment::present`]: the lowest bit counts, as in the flags below.
    pub(crate) present: u8,
    /// As [`Segment::dpl`]: the lowest two bits count.
    pub(crate) dpl: u8,
    /// As [`Segment::db`].
    pub(crate) db: u8,
    /// As [`Segment::s`].
    pub(crate) s: u8,
    /// As [`Segment::l`].
    pub(crate) l: u8,
    /// As [`Segment::g`].
    pub(crate) g: u8,
    /// As [`Segment::avl`].
    pub(crate) avl: u8,
    /// As [`Segment::unusable`].
    pub(crate) unusable: u8,
}

/// Bits of the VMCS's access-rights word. Bits 0 to 3 are the type, 5 and 6 the privilege level.
mod rights {
    pub(super) const S: u32 = 1 << 4;
    pub(super) const DPL_SHIFT: u32 = 5;
    pub(super) const PRESENT: u32 = 1 << 7;
    pub(super) const AVL: u32 = 1 << 12;
    pub(super) const L: u32 = 1 << 13;
    pub(super) const DB: u32 = 1 << 14;
    pub(super) const G: u32 = 1 << 15;
    pub(super) const UNUSABLE: u32 = 1 << 16;
}

/// Type of a code segment that can be read and was accessed.
const CODE: u8 = 0xb;

/// Type of a data segment that can be written and was accessed.
const DATA: u8 = 0x3;

/// Type of a local descriptor table.
const LDT: u8 = 0x2;

/// Type of a busy 32-bit (in long mode 64-bit) task-state segment.
const BUSY_TSS: u8 = 0xb;

/// Returns whether the lowest bit is set: the meaning of a flag byte in `struct kvm_segment`.
const fn flag(byte: u8) -> bool {
    byte & 1 != 0
}

/// Returns `bit` if `on`, else 0.
const fn bit_if(bit: u32, on: bool) -> u32 {
    if on {
        bit
    } else {
        0
    }
}

impl Segment {
    /// A null selector's segment.
    pub(crate) const UNUSABLE: Self = Self::from_vmcs(0, 0, 0, rights::UNUSABLE);

    /// Returns a present 64 KiB segment at `base`, as after RESET.
    const fn at_reset(selector: u16, base: u64, kind: u8, s: bool) -> Self {
        Self {
            selector,
            base,
            limit: 0xffff,
            kind,
            s,
            dpl: 0,
            present: true,
            avl: false,
            l: false,
            db: false,
            g: false,
            unusable: false,
        }
    }

    /// Returns CS after RESET: the first instruction is at 0xffff_fff0.
    #[must_use]
    pub(crate) const fn reset_code() -> Self {
        Self::at_reset(0xf000, 0xffff_0000, CODE, true)
    }

    /// Returns DS, ES, FS, GS or SS after RESET.
    #[must_use]
    pub(crate) const fn reset_data() -> Self {
        Self::at_reset(0, 0, DATA, true)
    }

    /// Returns LDTR after RESET.
    #[must_use]
    pub(crate) const fn reset_ldt() -> Self {
        Self::at_reset(0, 0, LDT, false)
    }

    /// Returns TR after RESET, busy as VM entry demands.
    #[must_use]
    pub(crate) const fn reset_tss() -> Self {
        Self::at_reset(0, 0, BUSY_TSS, false)
    }

    /// Returns the access-rights word for the VMCS.
    ///
    /// A segment that is not present is unusable to VM entry.
    #[must_use]
    pub(crate) const fn access_rights(&self) -> u32 {
        // CAST: from u8 to u32, which `From` would do but not in a const fn.
        let (kind, dpl) = (self.kind as u32 & 0xf, self.dpl as u32 & 3);
        kind | (dpl << rights::DPL_SHIFT)
            | bit_if(rights::S, self.s)
            | bit_if(rights::PRESENT, self.present)
            | bit_if(rights::AVL, self.avl)
            | bit_if(rights::L, self.l)
            | bit_if(rights::DB, self.db)
            | bit_if(rights::G, self.g)
            | bit_if(rights::UNUSABLE, self.unusable || !self.present)
    }

    /// Returns the segment that a VMCS holds as these four fields.
    ///
    /// An unusable segment reads as not present, so that a client which restores `present` but not
    /// `unusable` gets the same segment back.
    #[must_use]
    pub(crate) const fn from_vmcs(selector: u16, base: u64, limit: u32, access: u32) -> Self {
        let unusable = access & rights::UNUSABLE != 0;
        Self {
            selector,
            base,
            limit,
            // CAST: four and two bits.
            kind: (access & 0xf) as u8,
            dpl: ((access >> rights::DPL_SHIFT) & 3) as u8,
            s: access & rights::S != 0,
            present: !unusable,
            avl: access & rights::AVL != 0,
            l: access & rights::L != 0,
            db: access & rights::DB != 0,
            g: access & rights::G != 0,
            unusable,
        }
    }

    /// Returns the segment that user space describes.
    #[must_use]
    pub(crate) const fn from_fields(fields: &SegmentFields) -> Self {
        Self {
            selector: fields.selector,
            base: fields.base,
            limit: fields.limit,
            kind: fields.type_ & 0xf,
            s: flag(fields.s),
            dpl: fields.dpl & 3,
            present: flag(fields.present),
            avl: flag(fields.avl),
            l: flag(fields.l),
            db: flag(fields.db),
            g: flag(fields.g),
            unusable: flag(fields.unusable),
        }
    }

    /// Returns the segment as user space sees it.
    #[must_use]
    pub(crate) fn to_fields(self) -> SegmentFields {
        SegmentFields {
            base: self.base,
            limit: self.limit,
            selector: self.selector,
            type_: self.kind,
            present: u8::from(self.present),
            dpl: self.dpl,
            db: u8::from(self.db),
            s: u8::from(self.s),
            l: u8::from(self.l),
            g: u8::from(self.g),
            avl: u8::from(self.avl),
            unusable: u8::from(self.unusable),
        }
    }

    /// Returns the segment that loading `selector` makes of the 8-byte descriptor `descriptor`.
    ///
    /// The upper half of a 16-byte system descriptor adds bits 63:32 of the base.
    #[must_use]
    #[allow(dead_code, reason = "for segment loads and task switches in software")]
    pub(crate) const fn from_descriptor(selector: u16, descriptor: u64) -> Self {
        let base = ((descriptor >> 16) & 0xff_ffff) | ((descriptor >> 56) << 24);
        let raw_limit = (descriptor & 0xffff | (descriptor >> 32) & 0xf_0000) as u32; // CAST: 20 bits.
        let g = (descriptor >> 55) & 1 != 0;
        Self {
            selector,
            base,
            limit: if g {
                (raw_limit << 12) | 0xfff
            } else {
                raw_limit
            },
            // CAST: four and two bits.
            kind: ((descriptor >> 40) & 0xf) as u8,
            dpl: ((descriptor >> 45) & 3) as u8,
            s: (descriptor >> 44) & 1 != 0,
            present: (descriptor >> 47) & 1 != 0,
            avl: (descriptor >> 52) & 1 != 0,
            l: (descriptor >> 53) & 1 != 0,
            db: (descriptor >> 54) & 1 != 0,
            g,
            unusable: false,
        }
    }

    /// Returns the requested privilege level of the selector, 0 to 3.
    #[must_use]
    #[allow(dead_code, reason = "for segment loads and task switches in software")]
    pub(crate) const fn rpl(&self) -> u8 {
        // CAST: two bits.
        (self.selector & 3) as u8
    }
}

const _: () = {
    assert!(Segment::reset_code().access_rights() == 0x9b);
    assert!(Segment::reset_data().access_rights() == 0x93);
    assert!(Segment::reset_ldt().access_rights() == 0x82);
    assert!(Segment::reset_tss().access_rights() == 0x8b);
};
