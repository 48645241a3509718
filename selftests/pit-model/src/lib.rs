// SPDX-License-Identifier: GPL-2.0

//! The module's interval timer, compiled for the host and held against a chip that counts tick by tick.
//!
//! `cargo test` in this folder runs all of it. The source is the module's own.

#[path = "../../../rust/irqchip/pit.rs"]
#[cfg(test)]
pub(crate) mod pit;

#[cfg(test)]
mod tests;
