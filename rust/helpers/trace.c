// SPDX-License-Identifier: GPL-2.0
/*
 * The trace events and what Rust calls to write them to the trace.
 */

#define CREATE_TRACE_POINTS
#define CREATE_RUST_TRACE_POINTS
#include "kvm_rs_trace.h"
