// SPDX-License-Identifier: GPL-2.0

//! The module's local APIC, compiled for the host and held against slow models of the SDM.
//!
//! `cargo test` in this folder runs all of it. The sources are the module's own.

#[path = "../../../rust"]
mod rust {
    pub(crate) mod lapic;
}

#[cfg(test)]
mod tests;
