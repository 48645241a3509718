// SPDX-License-Identifier: GPL-2.0

//! The module's model of a guest CPU, compiled for the host and tested there.
//!
//! `cargo test` in this folder runs all of it. The sources are the module's own.

#[path = "../../../rust/x86"]
mod x86 {
    #![allow(dead_code, reason = "the rest of the module uses it")]
    #![cfg_attr(
        not(test),
        allow(unused_imports, reason = "the rest of the module uses them")
    )]

    pub(crate) mod control_regs;
    pub(crate) mod cpuid;
    pub(crate) mod exception;
    pub(crate) mod guest_msr;
    pub(crate) mod msr_index;
    pub(crate) mod msr_value;
    pub(crate) mod segment;
    pub(crate) mod sregs;
}

#[cfg(test)]
mod tests;
