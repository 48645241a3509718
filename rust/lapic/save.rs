// SPDX-License-Identifier: GPL-2.0

//! The registers as user space saves and restores them: the first 1 KiB of the page.
//!
//! In x2APIC mode two things differ from the page. Clients that did not ask for 32-bit IDs see
//! theirs in bits 31:24, and the 64-bit interrupt command appears in two registers.

use super::{
    base::Mode,
    page::Page,
    register::Register,
    state::{
        x2apic_logical_id,
        Lapic,
        Owned, //
    },
    timer::{
        ArmTimer,
        TimerMode, //
    },
};

/// Size of the saved registers in bytes.
pub(crate) const SAVE_SIZE: usize = 1024;

/// The saved registers in native byte order, as `struct kvm_lapic_state` has them.
pub(crate) type SaveArea = [u8; SAVE_SIZE];

/// The saved ID is not this vCPU's, which a client that asked for 32-bit IDs must get right.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct IdMismatch;

impl<P: Page> Lapic<P> {
    /// Fills `area` with the registers; `wide_ids` if the VM's client asked for 32-bit IDs.
    ///
    /// What is posted has been requested.
    pub(crate) fn get_lapic(
        &self,
        owned: &Owned,
        wide_ids: bool,
        now_ns: u64,
        area: &mut SaveArea,
    ) {
        self.take_posted();
        for (number, index, bytes) in words_mut(area) {
            *bytes = self.page().word(number, index).get().to_ne_bytes();
        }
        store(area, Register::PPR, u32::from(self.ppr()));
        if self.posted().is_some() {
            // The processor leaves there what a guest wrote.
            store(area, Register::SELF_IPI, 0);
        }
        store(
            area,
            Register::TIMER_CURRENT,
            self.timer_current(owned, now_ns),
        );
        if self.mode() == Mode::X2apic {
            if !wide_ids {
                store(area, Register::ID, self.id() << 24);
            }
            store(area, Register::ICR2, self.page().icr_upper());
        }
    }

    /// Takes the registers from `area`, and returns how the host timer should stand.
    ///
    /// The base MSR is set beforehand and the TSC deadline afterwards, as it is cleared if the
    /// timer's mode changes. Tables of destinations are stale, and interrupts must be rechecked.
    pub(crate) fn set_lapic(
        &self,
        owned: &mut Owned,
        wide_ids: bool,
        now_ns: u64,
        area: &SaveArea,
    ) -> Result<ArmTimer, IdMismatch> {
        let x2apic = self.mode() == Mode::X2apic;
        if x2apic && wide_ids && load(area, Register::ID) != self.id() {
            return Err(IdMismatch);
        }
        self.clear_posted();
        for (number, index, bytes) in words(area) {
            self.page()
                .word(number, index)
                .set(u32::from_ne_bytes(*bytes));
        }
        if x2apic {
            self.page().set(Register::ID, self.id());
            self.page().set(Register::LDR, x2apic_logical_id(self.id()));
            self.page().set_icr_upper(load(area, Register::ICR2));
        }
        let config = owned.config;
        self.configure(owned, config);
        self.irr().refresh();
        self.isr().refresh();
        self.errors.set(0);
        Ok(self.restore_timer(owned, now_ns))
    }

    /// Starts the timer from the registers just taken.
    fn restore_timer(&self, owned: &mut Owned, now_ns: u64) -> ArmTimer {
        let page = self.page();
        let mode = TimerMode::from_lvt(page.get(Register::LVT_TIMER));
        if owned.timer.set_mode(mode) {
            page.set(Register::TIMER_INITIAL, 0);
        }
        owned.timer.load_divide(page.get(Register::TIMER_DIVIDE));
        let initial = page.get(Register::TIMER_INITIAL);
        let current = page.register(Register::TIMER_CURRENT).swap(0);
        owned.timer.restore(initial, current, now_ns)
    }
}

/// Returns slot, word within it and bytes of each word of `area`.
fn words(area: &SaveArea) -> impl Iterator<Item = (u8, u8, &[u8; 4])> {
    area.chunks_exact(4)
        .filter_map(|bytes| <&[u8; 4]>::try_from(bytes).ok())
        .zip(positions())
        .map(|(bytes, (number, index))| (number, index, bytes))
}

/// Returns slot, word within it and bytes of each word of `area`, for writing.
fn words_mut(area: &mut SaveArea) -> impl Iterator<Item = (u8, u8, &mut [u8; 4])> {
    area.chunks_exact_mut(4)
        .filter_map(|bytes| <&mut [u8; 4]>::try_from(bytes).ok())
        .zip(positions())
        .map(|(bytes, (number, index))| (number, index, bytes))
}

/// Returns slot and word within it of each word of the saved registers.
fn positions() -> impl Iterator<Item = (u8, u8)> {
    (0..=u8::MAX).map(|word| (word >> 2, word & 3))
}

/// Returns the saved value of `register`.
fn load(area: &SaveArea, register: Register) -> u32 {
    let start = usize::from(register.offset());
    area.get(start..)
        .and_then(<[u8]>::first_chunk::<4>)
        .map_or(0, |bytes| u32::from_ne_bytes(*bytes))
}

/// Stores `value` as the saved value of `register`.
fn store(area: &mut SaveArea, register: Register, value: u32) {
    let start = usize::from(register.offset());
    if let Some(bytes) = area.get_mut(start..).and_then(<[u8]>::first_chunk_mut::<4>) {
        *bytes = value.to_ne_bytes();
    }
}
