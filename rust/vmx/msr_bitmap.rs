// SPDX-License-Identifier: GPL-2.0

//! The MSR bitmap: which RDMSR and WRMSR do not exit.

use crate::{
    linux::page::physical_address,
    x86::addr::Hpa, //
};
use kernel::prelude::*;

/// MSRs 0 to 0x1fff and 0xc000_0000 to 0xc000_1fff have bits; accesses to all others exit.
const HIGH_BASE: u32 = 0xc000_0000;
const RANGE: u32 = 0x2000;

/// Byte offset of the write bitmaps.
const WRITE: usize = 2048;
/// Byte offset, within reads or writes, of the bitmap for high MSRs.
const HIGH: usize = 1024;

/// MSRs that VM entry and exit swap by themselves, or that [`host_state`](super::host_state) swaps when
/// the thread leaves the CPU: the guest reads and writes them directly.
const DIRECT: &[u32] = &[
    0x0000_0174, // IA32_SYSENTER_CS
    0x0000_0175, // IA32_SYSENTER_ESP
    0x0000_0176, // IA32_SYSENTER_EIP
    0xc000_0100, // IA32_FS_BASE
    0xc000_0101, // IA32_GS_BASE
    0xc000_0102, // IA32_KERNEL_GS_BASE
];

/// IA32_TIME_STAMP_COUNTER: reads get the offset, writes exit.
const TSC: u32 = 0x10;

/// The page that the VMCS points to. It never changes, so all vCPUs share one.
pub(crate) struct MsrBitmap(KBox<Page>);

#[repr(C, align(4096))]
#[derive(Zeroable)]
struct Page {
    bits: [u8; 4096],
}

/// Returns the byte and the bit in it of an MSR's bit for reads, if it has one.
fn position(index: u32) -> Option<(usize, u8)> {
    let (offset, base) = if index < RANGE {
        (0, index)
    } else if (HIGH_BASE..HIGH_BASE + RANGE).contains(&index) {
        (HIGH, index - HIGH_BASE)
    } else {
        return None;
    };
    // CAST: Below 1024, and a bit number.
    Some((offset + (base / 8) as usize, 1 << (base % 8)))
}

impl MsrBitmap {
    /// Returns the bitmap that lets [`DIRECT`] and reads of the TSC pass.
    pub(crate) fn new() -> Result<Self> {
        let mut page: KBox<Page> = KBox::init(pin_init::init_zeroed(), GFP_KERNEL)?;
        page.bits.fill(0xff);
        let mut pass = |index: u32, writes: bool| {
            if let Some((byte, bit)) = position(index) {
                if let Some(byte) = page.bits.get_mut(byte) {
                    *byte &= !bit;
                }
                if let Some(byte) = page.bits.get_mut(byte + WRITE).filter(|_| writes) {
                    *byte &= !bit;
                }
            }
        };
        for &index in DIRECT {
            pass(index, true);
        }
        pass(TSC, false);
        Ok(Self(page))
    }

    /// Returns a bitmap that lets less pass: only what `allows` says, too, of an MSR and of whether it
    /// is written.
    pub(crate) fn filtered(allows: impl Fn(u32, bool) -> bool) -> Result<Self> {
        let mut bitmap = Self::new()?;
        for &index in [DIRECT, &[TSC]].into_iter().flatten() {
            let Some((byte, bit)) = position(index) else {
                continue;
            };
            for (offset, write) in [(0, false), (WRITE, true)] {
                if let Some(byte) = bitmap.0.bits.get_mut(byte + offset) {
                    *byte |= if allows(index, write) { 0 } else { bit };
                }
            }
        }
        Ok(bitmap)
    }

    /// Returns the address for the VMCS.
    pub(crate) fn address(&self) -> Hpa {
        physical_address(&raw const *self.0)
    }
}

#[kunit_tests(kvm_rs_msr_bitmap)]
mod tests {
    use super::*;

    #[test]
    fn positions() {
        assert_eq!(position(0x174), Some((46, 1 << 4)));
        assert_eq!(position(0xc000_0100), Some((HIGH + 32, 1)));
        assert_eq!(position(0x2000), None);
        assert_eq!(position(0x4b56_4d00), None);
    }
}
