// SPDX-License-Identifier: GPL-2.0

//! Tests, a file for each topic.

mod control_regs;
mod cpuid;
mod exception;
mod host;
mod msr;
mod segment;
mod sregs;
