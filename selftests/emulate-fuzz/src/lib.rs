// SPDX-License-Identifier: GPL-2.0

//! Host tests of the module's instruction emulator, `rust/emulate.rs`.
//!
//! `cargo test` compiles the emulator as it is and checks it against two references: the decoder
//! of the `iced-x86` crate, and the CPU that the tests run on. See `tests.rs` for the options.

#![cfg(test)]

#[expect(
    unused_imports,
    reason = "the tests are inside; there is no user of what is exported"
)]
#[expect(
    dead_code,
    reason = "the module asks more of an instruction than the tests"
)]
#[path = "../../../rust"]
mod rust {
    mod emulate;
}
