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

/// IA32_SPEC_CTRL, IA32_PRED_CMD and IA32_FLUSH_CMD.
const SPEC_CTRL: u32 = 0x48;
const PRED_CMD: u32 = 0x49;
const FLUSH_CMD: u32 = 0x10b;

/// MSR_CORE_C1_RES, MSR_CORE_C3_RESIDENCY, MSR_CORE_C6_RESIDENCY and MSR_CORE_C7_RESIDENCY.
const CSTATES: &[u32] = &[0x660, 0x3fc, 0x3fd, 0x3fe];

/// IA32_MPERF and IA32_APERF.
const APERF_MPERF: &[u32] = &[0xe7, 0xe8];

/// The MSR of the x2APIC's register number 0, and those of its TPR, EOI and self-IPI.
const X2APIC: u32 = 0x800;
const X2APIC_TPR: u32 = 0x808;
const X2APIC_EOI: u32 = 0x80b;
const X2APIC_SELF_IPI: u32 = 0x83f;

/// MSRs that some vCPUs access directly: those that use them.
#[derive(Clone, Copy, Default, PartialEq, Eq, Debug)]
pub(crate) struct Direct {
    /// IA32_SPEC_CTRL, which the world switch swaps.
    pub(crate) spec_ctrl: bool,
    /// Writes of IA32_PRED_CMD.
    pub(crate) pred_cmd: bool,
    /// Writes of IA32_FLUSH_CMD.
    pub(crate) flush_cmd: bool,
    /// The x2APIC's TPR, which the processor virtualises.
    pub(crate) x2apic_tpr: bool,
    /// Reads of how long the core was in each C-state.
    pub(crate) cstates: bool,
    /// Reads of IA32_APERF and IA32_MPERF.
    pub(crate) aperf_mperf: bool,
    /// Reads of these registers of the x2APIC, and writes of EOI and self-IPI if there are any: what else
    /// the processor virtualises.
    pub(crate) x2apic_reads: u64,
}

impl Direct {
    /// Returns whether it is none of them.
    pub(crate) fn is_none(self) -> bool {
        self == Self::default()
    }
}

/// The page that the VMCS points to. It never changes; vCPUs share one if they can.
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
        Self::filtered(Direct::default(), |_, _| true)
    }

    /// Returns the bitmap that also lets `direct` pass; and of all only what `allows` says, of an
    /// MSR and of whether it is written.
    pub(crate) fn filtered(direct: Direct, allows: impl Fn(u32, bool) -> bool) -> Result<Self> {
        let mut page: KBox<Page> = KBox::init(pin_init::init_zeroed(), GFP_KERNEL_ACCOUNT)?;
        page.bits.fill(0xff);
        let mut pass = |index: u32, reads: bool, writes: bool| {
            let Some((byte, bit)) = position(index) else {
                return;
            };
            for (offset, write, passes) in [(0, false, reads), (WRITE, true, writes)] {
                if let Some(byte) = page.bits.get_mut(byte + offset) {
                    if passes && allows(index, write) {
                        *byte &= !bit;
                    }
                }
            }
        };
        for &index in DIRECT {
            pass(index, true, true);
        }
        pass(TSC, true, false);
        pass(SPEC_CTRL, direct.spec_ctrl, direct.spec_ctrl);
        pass(PRED_CMD, false, direct.pred_cmd);
        pass(FLUSH_CMD, false, direct.flush_cmd);
        pass(X2APIC_TPR, direct.x2apic_tpr, direct.x2apic_tpr);
        for &index in CSTATES {
            pass(index, direct.cstates, false);
        }
        for &index in APERF_MPERF {
            pass(index, direct.aperf_mperf, false);
        }
        if direct.x2apic_reads != 0 {
            for number in (0..u64::BITS).filter(|number| direct.x2apic_reads >> number & 1 != 0) {
                pass(X2APIC + number, true, false);
            }
            pass(X2APIC_EOI, false, true);
            pass(X2APIC_SELF_IPI, false, true);
        }
        Ok(Self(page))
    }

    /// Returns whether the guest writes IA32_SPEC_CTRL without an exit.
    pub(crate) fn passes_spec_ctrl(&self) -> bool {
        position(SPEC_CTRL).is_some_and(|(byte, bit)| {
            self.0
                .bits
                .get(byte + WRITE)
                .is_some_and(|byte| byte & bit == 0)
        })
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

    #[test]
    fn the_tpr_passes_where_it_is_virtualised() -> Result {
        let virtualised = Direct {
            x2apic_tpr: true,
            ..Direct::default()
        };
        let (byte, bit) = (0x808 / 8, 0xff);
        let exits = MsrBitmap::new()?;
        let passes = MsrBitmap::filtered(virtualised, |index, _| index == X2APIC_TPR)?;
        for offset in [0, WRITE] {
            assert_eq!(exits.0.bits[byte + offset], bit);
            // That of the TPR alone.
            assert_eq!(passes.0.bits[byte + offset], bit & !1);
        }
        assert_eq!(passes.0.bits[2], 0xff);
        Ok(())
    }

    #[test]
    fn the_registers_pass_that_are_virtualised() -> Result {
        let virtualised = Direct {
            x2apic_tpr: true,
            // The ID, the TPR and the ICR.
            x2apic_reads: 1 << 2 | 1 << 8 | 1 << 0x30,
            ..Direct::default()
        };
        let bitmap = MsrBitmap::filtered(virtualised, |_, _| true)?;
        let reads: [u8; 8] = [!4, !1, 0xff, 0xff, 0xff, 0xff, !1, 0xff];
        // TPR, EOI and self-IPI.
        let writes: [u8; 8] = [0xff, !9, 0xff, 0xff, 0xff, 0xff, 0xff, !0x80];
        assert!(bitmap.0.bits[0x100..0x108] == reads);
        assert!(bitmap.0.bits[WRITE + 0x100..WRITE + 0x108] == writes);
        Ok(())
    }

    #[test]
    fn others_pass_where_asked_and_allowed() -> Result {
        assert!(!MsrBitmap::new()?.passes_spec_ctrl());
        let all = Direct {
            spec_ctrl: true,
            pred_cmd: true,
            flush_cmd: true,
            ..Direct::default()
        };
        let bitmap = MsrBitmap::filtered(all, |_, _| true)?;
        assert!(bitmap.passes_spec_ctrl());
        // SPEC_CTRL is read and written, the commands are only written.
        assert_eq!(bitmap.0.bits[9], 0xfe);
        assert_eq!(bitmap.0.bits[WRITE + 9], 0xfc);
        assert_eq!(bitmap.0.bits[0x21], 0xff);
        assert_eq!(bitmap.0.bits[WRITE + 0x21], 0xf7);
        let filtered = MsrBitmap::filtered(all, |index, write| index != SPEC_CTRL || !write)?;
        assert!(!filtered.passes_spec_ctrl());
        assert_eq!(filtered.0.bits[9], 0xfe);
        Ok(())
    }
}
