// SPDX-License-Identifier: GPL-2.0

//! Tests of the emulator, as a child of it.
//!
//! - `EMULATE_FUZZ_COUNT`: random instructions a test tries. If not set, 10,000,000 to decode and
//!   300,000 to execute.
//! - `EMULATE_FUZZ_SEED`: where the random numbers start. A failure names the seed it had.

mod cases;
mod decode;
mod generate;
mod machine;
mod native;
mod native_cpu;
mod random;
mod reference;
mod replay;
mod system;
mod system_cases;

/// Returns how many random instructions to execute.
fn count() -> u64 {
    number("EMULATE_FUZZ_COUNT").unwrap_or(300_000)
}

/// Returns how many random instructions to decode.
fn count_to_decode() -> u64 {
    number("EMULATE_FUZZ_COUNT").unwrap_or(10_000_000)
}

/// Returns the seed to start from.
fn seed() -> u64 {
    number("EMULATE_FUZZ_SEED").unwrap_or(0x6b76_6d2d_7273)
}

/// Returns the number in the environment variable `name`.
fn number(name: &str) -> Option<u64> {
    let text = std::env::var(name).ok()?;
    let text = text.replace('_', "");
    Some(text.parse().expect("a decimal number"))
}
