// SPDX-License-Identifier: GPL-2.0

//! This module's own bindgen output: the KVM uapi, the C shims of `helpers/` and what
//! [`kernel::bindings`] lacks. Only `linux/`, `abi/` and the few places that own hardware use it.

#![allow(
    clippy::all,
    clippy::cast_lossless,
    clippy::ptr_as_ptr,
    clippy::ref_as_ptr,
    clippy::undocumented_unsafe_blocks,
    dead_code,
    improper_ctypes,
    missing_docs,
    non_camel_case_types,
    non_snake_case,
    non_upper_case_globals,
    rustdoc::all,
    unreachable_pub,
    unsafe_op_in_unsafe_fn,
    reason = "generated code"
)]

use kernel::ffi;

include!(env!("KVM_RS_BINDINGS"));
