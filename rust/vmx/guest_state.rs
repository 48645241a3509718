// SPDX-License-Identifier: GPL-2.0

//! The guest-state area: segments, descriptor tables, interruptibility.

use super::{
    field::{
        self,
        Field,
        Natural, //
    },
    vmcs::CurrentVmcs, //
};
use crate::x86::{
    segment::Segment,
    segment_register::SegmentRegister, //
};

/// Interruptibility: the instruction after STI.
pub(crate) const BLOCKING_BY_STI: u32 = 1 << 0;
/// Interruptibility: the instruction after MOV SS or POP SS.
pub(crate) const BLOCKING_BY_MOV_SS: u32 = 1 << 1;
/// Interruptibility: an NMI is being handled.
pub(crate) const BLOCKING_BY_NMI: u32 = 1 << 3;

/// In the activity state: in HLT.
pub(crate) const ACTIVITY_HLT: u32 = 1;

/// The four fields of a segment register.
struct Fields {
    selector: Field<u16>,
    base: Field<Natural>,
    limit: Field<u32>,
    rights: Field<u32>,
}

macro_rules! segment_fields {
    ($selector:ident, $base:ident, $limit:ident, $rights:ident) => {
        Fields {
            selector: field::$selector,
            base: field::$base,
            limit: field::$limit,
            rights: field::$rights,
        }
    };
}

/// Returns the fields of a segment register.
const fn fields(register: SegmentRegister) -> Fields {
    match register {
        SegmentRegister::Es => segment_fields!(
            GUEST_ES_SELECTOR,
            GUEST_ES_BASE,
            GUEST_ES_LIMIT,
            GUEST_ES_ACCESS_RIGHTS
        ),
        SegmentRegister::Cs => segment_fields!(
            GUEST_CS_SELECTOR,
            GUEST_CS_BASE,
            GUEST_CS_LIMIT,
            GUEST_CS_ACCESS_RIGHTS
        ),
        SegmentRegister::Ss => segment_fields!(
            GUEST_SS_SELECTOR,
            GUEST_SS_BASE,
            GUEST_SS_LIMIT,
            GUEST_SS_ACCESS_RIGHTS
        ),
        SegmentRegister::Ds => segment_fields!(
            GUEST_DS_SELECTOR,
            GUEST_DS_BASE,
            GUEST_DS_LIMIT,
            GUEST_DS_ACCESS_RIGHTS
        ),
        SegmentRegister::Fs => segment_fields!(
            GUEST_FS_SELECTOR,
            GUEST_FS_BASE,
            GUEST_FS_LIMIT,
            GUEST_FS_ACCESS_RIGHTS
        ),
        SegmentRegister::Gs => segment_fields!(
            GUEST_GS_SELECTOR,
            GUEST_GS_BASE,
            GUEST_GS_LIMIT,
            GUEST_GS_ACCESS_RIGHTS
        ),
        SegmentRegister::Ldtr => segment_fields!(
            GUEST_LDTR_SELECTOR,
            GUEST_LDTR_BASE,
            GUEST_LDTR_LIMIT,
            GUEST_LDTR_ACCESS_RIGHTS
        ),
        SegmentRegister::Tr => segment_fields!(
            GUEST_TR_SELECTOR,
            GUEST_TR_BASE,
            GUEST_TR_LIMIT,
            GUEST_TR_ACCESS_RIGHTS
        ),
    }
}

/// A descriptor-table register.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub(crate) struct DescriptorTable {
    /// Linear address of the table.
    pub(crate) base: u64,
    /// Offset of its last byte.
    pub(crate) limit: u16,
}

/// Access to the guest-state area in terms of the architecture.
impl CurrentVmcs<'_> {
    /// Returns a segment register.
    pub(crate) fn segment(&self, register: SegmentRegister) -> Segment {
        let fields = fields(register);
        Segment::from_vmcs(
            self.read(fields.selector),
            self.read(fields.base).0,
            self.read(fields.limit),
            self.read(fields.rights),
        )
    }

    /// Returns the linear address of a segment's first byte.
    pub(crate) fn segment_base(&self, register: SegmentRegister) -> u64 {
        self.read(fields(register).base).0
    }

    /// Loads a segment register.
    pub(crate) fn set_segment(&self, register: SegmentRegister, segment: &Segment) {
        let fields = fields(register);
        self.write(fields.selector, segment.selector);
        self.write(fields.base, Natural(segment.base));
        self.write(fields.limit, segment.limit);
        self.write(fields.rights, segment.access_rights());
    }

    /// Returns the access-rights word of a segment register.
    pub(crate) fn access_rights(&self, register: SegmentRegister) -> u32 {
        self.read(fields(register).rights)
    }

    /// Returns the global descriptor table register.
    pub(crate) fn gdtr(&self) -> DescriptorTable {
        DescriptorTable {
            base: self.read(field::GUEST_GDTR_BASE).0,
            // CAST: Loaded from 16 bits.
            limit: self.read(field::GUEST_GDTR_LIMIT) as u16,
        }
    }

    /// Loads the global descriptor table register.
    pub(crate) fn set_gdtr(&self, table: DescriptorTable) {
        self.write(field::GUEST_GDTR_BASE, Natural(table.base));
        self.write(field::GUEST_GDTR_LIMIT, u32::from(table.limit));
    }

    /// Returns the interrupt descriptor table register.
    pub(crate) fn idtr(&self) -> DescriptorTable {
        DescriptorTable {
            base: self.read(field::GUEST_IDTR_BASE).0,
            // CAST: Loaded from 16 bits.
            limit: self.read(field::GUEST_IDTR_LIMIT) as u16,
        }
    }

    /// Loads the interrupt descriptor table register.
    pub(crate) fn set_idtr(&self, table: DescriptorTable) {
        self.write(field::GUEST_IDTR_BASE, Natural(table.base));
        self.write(field::GUEST_IDTR_LIMIT, u32::from(table.limit));
    }

    /// Returns the four page-directory-pointer-table entries.
    pub(crate) fn pdptes(&self) -> [u64; 4] {
        [
            self.read(field::GUEST_PDPTE0),
            self.read(field::GUEST_PDPTE1),
            self.read(field::GUEST_PDPTE2),
            self.read(field::GUEST_PDPTE3),
        ]
    }

    /// Loads the four page-directory-pointer-table entries.
    pub(crate) fn set_pdptes(&self, [first, second, third, fourth]: [u64; 4]) {
        self.write(field::GUEST_PDPTE0, first);
        self.write(field::GUEST_PDPTE1, second);
        self.write(field::GUEST_PDPTE2, third);
        self.write(field::GUEST_PDPTE3, fourth);
    }
}
