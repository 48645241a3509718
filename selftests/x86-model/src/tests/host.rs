// SPDX-License-Identifier: GPL-2.0

//! A host to test against: CPUID answers in the manner of a Haswell with four caches.

use crate::x86::cpuid::{
    HostCpuid,
    Model,
    Supported, //
};

/// Host CPUID as a function, and kernel words that hide `hidden` of word 0.
pub(crate) struct Host {
    /// Highest extended leaf.
    pub(crate) max_extended: u32,
    /// Bits that the kernel has turned off, by word.
    pub(crate) hidden: [u32; 32],
}

impl Default for Host {
    fn default() -> Self {
        Self {
            max_extended: 0x8000_0008,
            hidden: [0; 32],
        }
    }
}

impl HostCpuid for Host {
    fn cpuid(&self, leaf: u32, subleaf: u32) -> [u32; 4] {
        match (leaf, subleaf) {
            (0, _) => [0xd, 0x756e_6547, 0x6c65_746e, 0x4965_6e69],
            (1, _) => [0x0003_06c3, 0x0510_0800, 0x77fa_fbff, 0xbfeb_fbff],
            (2, _) => [0x7603_6301, 0x00f0_b5ff, 0, 0x00c1_0000],
            (4, 0) => [0x1c00_4121, 0x01c0_003f, 0x3f, 0],
            (4, 1) => [0x1c00_4122, 0x01c0_003f, 0x3f, 0],
            (4, 2) => [0x1c00_4143, 0x01c0_003f, 0x1ff, 0],
            (4, 3) => [0x1c03_c163, 0x03c0_003f, 0x1fff, 6],
            (7, 0) => [0, 0x0000_27ab, 0, 0],
            (0xd, 0) => [7, 832, 832, 0],
            (0xd, 1) => [1, 0, 0, 0],
            (0xd, 2) => [256, 576, 0, 0],
            (0x8000_0000, _) => [self.max_extended, 0, 0, 0],
            (0x8000_0001, _) => [0, 0, 0x21, 0x2c10_0800],
            (0x8000_0006, _) => [0, 0, 0x0100_6040, 0],
            (0x8000_0007, _) => [0, 0, 0, 0x100],
            (0x8000_0008, _) => [0x3027, 0, 0, 0],
            _ => [0; 4],
        }
    }

    fn kernel_word(&self, index: usize) -> u32 {
        self.hidden.get(index).map_or(u32::MAX, |hidden| !hidden)
    }
}

/// Returns what a module with all of VT-x's features on that host supports.
pub(crate) fn supported() -> Supported {
    Supported {
        host_xcr0: 7,
        ept: true,
        host_physical_bits: 39,
        x2apic: true,
        tsc_deadline: true,
        tsc_adjust: true,
        rdtscp: true,
        invpcid: true,
        arch_capabilities: true,
        ..Supported::default()
    }
}

/// Returns the model of that module on that host.
pub(crate) fn model() -> Model {
    Model::new(&Host::default(), supported())
}
