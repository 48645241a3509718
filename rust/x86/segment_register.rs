// SPDX-License-Identifier: GPL-2.0

//! The segment registers by name, in the order that instructions encode them.

/// A segment register, LDTR and TR included.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum SegmentRegister {
    /// ES.
    Es,
    /// CS.
    Cs,
    /// SS.
    Ss,
    /// DS.
    Ds,
    /// FS.
    Fs,
    /// GS.
    Gs,
    /// The local descriptor table.
    Ldtr,
    /// The task register.
    Tr,
}

impl SegmentRegister {
    /// Every register.
    pub(crate) const ALL: [Self; 8] = [
        Self::Es,
        Self::Cs,
        Self::Ss,
        Self::Ds,
        Self::Fs,
        Self::Gs,
        Self::Ldtr,
        Self::Tr,
    ];

    /// Returns the register that the three-bit code of an instruction or of VMX names; DS for the two
    /// codes without one.
    pub(crate) const fn from_encoding(code: u8) -> Self {
        match code {
            0 => Self::Es,
            1 => Self::Cs,
            2 => Self::Ss,
            4 => Self::Fs,
            5 => Self::Gs,
            _ => Self::Ds,
        }
    }
}
