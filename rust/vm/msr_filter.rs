// SPDX-License-Identifier: GPL-2.0

//! KVM_X86_SET_MSR_FILTER: which MSRs the guest may access, whatever the module could give.

use crate::vmx::msr_bitmap::{
    Direct,
    MsrBitmap, //
};
use kernel::prelude::*;

/// MSRs of the x2APIC, which are never filtered.
const X2APIC: core::ops::RangeInclusive<u32> = 0x800..=0x8ff;

/// What the guest does with an MSR.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Direction {
    /// RDMSR.
    Read,
    /// WRMSR.
    Write,
}

/// A run of MSRs with a bit for each, which is 1 for those that are allowed.
pub(crate) struct Range {
    /// The first MSR.
    pub(crate) base: u32,
    /// The number of MSRs.
    pub(crate) count: u32,
    /// Reads are decided here.
    pub(crate) reads: bool,
    /// Writes are decided here.
    pub(crate) writes: bool,
    /// The bits, the lowest of the first byte for `base`.
    pub(crate) bitmap: KVVec<u8>,
}

impl Range {
    /// Returns whether an access is allowed, if it is decided here.
    fn decide(&self, index: u32, direction: Direction) -> Option<bool> {
        let decides = match direction {
            Direction::Read => self.reads,
            Direction::Write => self.writes,
        };
        let offset = index.checked_sub(self.base)?;
        if !decides || offset >= self.count {
            return None;
        }
        // CAST: To a wider type.
        let byte = self.bitmap.get((offset / 8) as usize)?;
        Some(byte >> (offset % 8) & 1 != 0)
    }
}

/// A VM's filter: the first range that knows an MSR decides.
pub(crate) struct Rules {
    /// Whether MSRs outside all ranges are allowed.
    pub(crate) default_allow: bool,
    /// The ranges.
    pub(crate) ranges: KVec<Range>,
}

impl Rules {
    /// Returns whether the guest may access the MSR.
    pub(crate) fn allows(&self, index: u32, direction: Direction) -> bool {
        if X2APIC.contains(&index) {
            return true;
        }
        self.ranges
            .iter()
            .find_map(|range| range.decide(index, direction))
            .unwrap_or(self.default_allow)
    }

    /// Returns the MSR bitmap of a vCPU that would have `direct` pass.
    fn bitmap(&self, direct: Direct) -> Result<MsrBitmap> {
        MsrBitmap::filtered(direct, |index, write| {
            let direction = if write {
                Direction::Write
            } else {
                Direction::Read
            };
            self.allows(index, direction)
        })
    }
}

/// A filter, with the MSR bitmap that makes all exit that it denies.
pub(crate) struct MsrFilter {
    rules: Rules,
    /// The bitmap for the VMCS of each vCPU.
    pub(crate) bitmap: MsrBitmap,
}

impl MsrFilter {
    /// Returns the filter with these rules.
    pub(crate) fn new(rules: Rules) -> Result<Self> {
        let bitmap = rules.bitmap(Direct::default())?;
        Ok(Self { rules, bitmap })
    }

    /// Returns the bitmap of a vCPU that would have `direct` pass.
    pub(crate) fn bitmap_with(&self, direct: Direct) -> Result<MsrBitmap> {
        self.rules.bitmap(direct)
    }

    /// Returns whether the guest may access the MSR.
    pub(crate) fn allows(&self, index: u32, direction: Direction) -> bool {
        self.rules.allows(index, direction)
    }
}

#[kunit_tests(kvm_rs_msr_filter)]
mod tests {
    use super::*;

    fn rules(default_allow: bool) -> Result<Rules> {
        let mut bitmap = KVVec::new();
        bitmap.push(0b0000_0101, GFP_KERNEL)?;
        let mut ranges = KVec::new();
        ranges.push(
            Range {
                base: 0x10,
                count: 4,
                reads: true,
                writes: false,
                bitmap,
            },
            GFP_KERNEL,
        )?;
        Ok(Rules {
            default_allow,
            ranges,
        })
    }

    #[test]
    fn a_range_decides() -> Result {
        let rules = rules(true)?;
        assert!(rules.allows(0x10, Direction::Read));
        assert!(!rules.allows(0x11, Direction::Read));
        assert!(rules.allows(0x12, Direction::Read));
        assert!(!rules.allows(0x13, Direction::Read));
        assert!(rules.allows(0x11, Direction::Write));
        Ok(())
    }

    #[test]
    fn the_default_decides_elsewhere() -> Result {
        let rules = rules(false)?;
        assert!(!rules.allows(0xf, Direction::Read));
        assert!(!rules.allows(0x14, Direction::Read));
        assert!(!rules.allows(0x10, Direction::Write));
        assert!(rules.allows(0x808, Direction::Write));
        Ok(())
    }
}
