// SPDX-License-Identifier: GPL-2.0

//! Facts of the x86 architecture, without the state of any VM.

pub(crate) mod addr;
pub(crate) mod control_regs;
pub(crate) mod cpuid;
pub(crate) mod exception;
pub(crate) mod guest_msr;
pub(crate) mod msr;
pub(crate) mod msr_index;
pub(crate) mod msr_value;
pub(crate) mod segment;
pub(crate) mod segment_register;
pub(crate) mod segment_rules;
pub(crate) mod sregs;
