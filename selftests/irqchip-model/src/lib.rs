// SPDX-License-Identifier: GPL-2.0

//! The module's PICs and I/O APIC, compiled for the host and held against slow models.
//!
//! `cargo test` in this folder runs all of it. The sources are the module's own.

// The local APIC gives the I/O APIC its messages; its own tests are in `lapic-model`.
#[allow(dead_code, reason = "see above")]
#[path = "../../../rust"]
mod rust {
    pub(crate) mod lapic;
    pub(crate) mod irqchip {
        pub(crate) mod ioapic;
        pub(crate) mod pic;
    }
}

#[cfg(test)]
mod tests;
