// SPDX-License-Identifier: GPL-2.0

//! What the tests share.

#![allow(
    clippy::indexing_slicing,
    clippy::panic,
    clippy::unwrap_used,
    reason = "a test that panics has found something"
)]

mod base;
mod deliver;
mod destination;
mod map;
mod mmio;
mod model;
mod msr;
mod priority;
mod register;
mod save;
mod threads;
mod timer;

use crate::rust::lapic::{
    ApicPage,
    Config,
    Effect,
    Lapic,
    Owned,
    Reset, //
};

/// APIC base MSR values.
const BASE: u64 = 0xfee0_0000;
const ENABLED: u64 = 1 << 11;
const X2APIC: u64 = 1 << 10;

/// A local APIC, boxed because its page is 4 KiB, and its owner's part.
struct Apic {
    shared: Box<Lapic<ApicPage>>,
    owned: Owned,
}

impl Apic {
    /// Returns an APIC after power-up, in xAPIC mode and disabled by software.
    fn reset(id: u32, config: Config) -> Self {
        let mut apic = Self {
            shared: Box::new(Lapic::new(ApicPage::new(), id)),
            owned: Owned::new(config),
        };
        apic.shared.reset(&mut apic.owned, Reset::PowerUp);
        apic
    }

    /// Returns an APIC in xAPIC mode that software enabled.
    fn xapic(id: u32) -> Self {
        let mut apic = Self::reset(id, Config::default());
        assert_eq!(apic.write(0xf0, 0x1ff), Effect::Identity);
        apic
    }

    /// Returns an APIC in x2APIC mode that software enabled.
    fn x2apic(id: u32) -> Self {
        let mut apic = Self::reset(id, Config::default());
        apic.set_base(BASE | ENABLED | X2APIC);
        assert_eq!(apic.wrmsr(0x80f, 0x1ff), Effect::Identity);
        apic
    }

    fn set_base(&mut self, value: u64) {
        let _ = self.shared.set_base(&mut self.owned, value, false).unwrap();
    }

    fn read(&self, offset: u16) -> u32 {
        self.read_at(offset, 0)
    }

    fn read_at(&self, offset: u16, now: u64) -> u32 {
        self.shared.read(&self.owned, offset, 4, now).value
    }

    fn write(&mut self, offset: u16, value: u32) -> Effect {
        self.write_at(offset, value, 0)
    }

    fn write_at(&mut self, offset: u16, value: u32, now: u64) -> Effect {
        self.shared.write(&mut self.owned, offset, 4, value, now)
    }

    fn rdmsr(&self, msr: u32) -> u64 {
        self.shared.msr_read(&self.owned, msr, 0).unwrap()
    }

    fn wrmsr(&mut self, msr: u32, value: u64) -> Effect {
        self.shared
            .msr_write(&mut self.owned, msr, value, 0)
            .unwrap()
    }

    fn rdmsr_faults(&self, msr: u32) -> bool {
        self.shared.msr_read(&self.owned, msr, 0).is_err()
    }

    fn wrmsr_faults(&mut self, msr: u32, value: u64) -> bool {
        self.shared
            .msr_write(&mut self.owned, msr, value, 0)
            .is_err()
    }
}

/// A small generator of numbers that look random.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0.wrapping_mul(0x2545_f491_4f6c_dd1d)
    }

    fn below(&mut self, bound: u64) -> u64 {
        (self.next() >> 11) % bound
    }
}
