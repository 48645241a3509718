// SPDX-License-Identifier: GPL-2.0

//! MSRs that guests touch without looking whether they exist, and whose contents do not matter.
//!
//! To answer #GP would stop some guests, so each reads as a constant. Nothing is stored.

/// What a write does.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Write {
    /// The MSR cannot be written.
    Refused,
    /// Any value is accepted and dropped.
    Ignored,
    /// Only 0 is accepted.
    Zero,
}

/// A range of MSRs.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Legacy {
    first: u32,
    last: u32,
    /// What they read as, or `None` if they cannot be read.
    pub(super) read: Option<u64>,
    /// What a write does.
    pub(super) write: Write,
}

/// Returns the row of one MSR.
const fn one(index: u32, read: u64, write: Write) -> Legacy {
    range(index, index, read, write)
}

/// Returns the row of the MSRs from `first` to `last`, inclusive.
const fn range(first: u32, last: u32, read: u64, write: Write) -> Legacy {
    Legacy {
        first,
        last,
        read: Some(read),
        write,
    }
}

/// Returns the row of an MSR that can only be written.
const fn write_only(index: u32) -> Legacy {
    Legacy {
        first: index,
        last: index,
        read: None,
        write: Write::Ignored,
    }
}

/// The rows, by number.
const LEGACY: &[Legacy] = &[
    // P5_MC_ADDR, P5_MC_TYPE.
    range(0x0, 0x1, 0, Write::Refused),
    // PLATFORM_ID.
    one(0x17, 0, Write::Refused),
    // EBL_CR_POWERON.
    one(0x2a, 0, Write::Refused),
    // EBC_FREQUENCY_ID: a ratio of 1, since guests divide by it.
    one(0x2c, 1 << 24, Write::Refused),
    // UCODE_WRITE.
    write_only(0x79),
    // PERFCTR0 and 1 of the P6 family.
    range(0xc1, 0xc2, 0, Write::Ignored),
    // FSB_FREQ: 166 MHz.
    one(0xcd, 3, Write::Refused),
    // BBL_CR_CTL3: an enabled second-level cache.
    one(0x11e, 0xbe70_2111, Write::Ignored),
    // EVNTSEL0 and 1 of the P6 family.
    range(0x186, 0x187, 0, Write::Ignored),
    // PERF_STATUS: a ratio of 4.
    one(0x198, 1000 | (4 << 40), Write::Refused),
    // PERF_CTL.
    one(0x199, 0, Write::Refused),
    // The last branch and interrupt.
    range(0x1db, 0x1de, 0, Write::Refused),
    // RAPL: units, then energy of package, memory and the two power planes.
    one(0x606, 0, Write::Refused),
    one(0x611, 0, Write::Refused),
    one(0x619, 0, Write::Refused),
    one(0x639, 0, Write::Refused),
    one(0x641, 0, Write::Refused),
    // EVNTSEL and PERFCTR of the K7.
    range(0xc001_0000, 0xc001_0007, 0, Write::Ignored),
    // SYSCFG.
    one(0xc001_0010, 0, Write::Refused),
    // CLK_CTL: the ramp-up count that a K7 has.
    one(0xc001_001b, 0x2000_0000, Write::Ignored),
    // NB_CFG.
    one(0xc001_001f, 0, Write::Ignored),
    // PATCH_LOADER.
    write_only(0xc001_0020),
    // INT_PENDING_MSG.
    one(0xc001_0055, 0, Write::Refused),
    // MMIO_CONF_BASE.
    one(0xc001_0058, 0, Write::Zero),
    // TSEG_ADDR and TSEG_MASK.
    range(0xc001_0112, 0xc001_0113, 0, Write::Refused),
    // VM_HSAVE_PA.
    one(0xc001_0117, 0, Write::Ignored),
    // DC_CFG and TW_CFG.
    range(0xc001_1022, 0xc001_1023, 0, Write::Ignored),
    // BU_CFG2.
    one(0xc001_102a, 0, Write::Ignored),
    // EX_CFG.
    one(0xc001_102c, 0, Write::Ignored),
];

/// Returns the row of MSR `index`, if it has one.
pub(super) fn find(index: u32) -> Option<&'static Legacy> {
    LEGACY
        .iter()
        .find(|msr| msr.first <= index && index <= msr.last)
}
