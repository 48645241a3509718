// SPDX-License-Identifier: GPL-2.0

//! KVM_X86_SET_MSR_FILTER.

use crate::{
    bindings::*,
    linux::uaccess,
    vm::{
        msr_filter::{
            MsrFilter,
            Range,
            Rules, //
        },
        Vm, //
    }, //
};
use kernel::{
    prelude::*,
    sync::Arc, //
};

/// Bytes per word of a bitmap, which is copied in whole words.
const WORD: u64 = 8;

/// Replaces the VM's MSR filter.
pub(super) fn set(vm: &Vm, filter: &kvm_msr_filter) -> Result {
    if filter.flags & !KVM_MSR_FILTER_DEFAULT_DENY != 0 {
        return Err(EINVAL);
    }
    let default_allow = filter.flags & KVM_MSR_FILTER_DEFAULT_DENY == 0;
    let empty = filter.ranges.iter().all(|range| range.nmsrs == 0);
    if empty && !default_allow {
        return Err(EINVAL);
    }
    let mut ranges = KVec::new();
    for range in filter.ranges.iter().filter(|range| range.nmsrs != 0) {
        ranges.push(read_range(range)?, GFP_KERNEL_ACCOUNT)?;
    }
    let filter = MsrFilter::new(Rules {
        default_allow,
        ranges,
    })?;
    vm.set_msr_filter(Arc::new(filter, GFP_KERNEL_ACCOUNT)?);
    Ok(())
}

/// Copies a range with its bits.
fn read_range(range: &kvm_msr_filter_range) -> Result<Range> {
    let flags = range.flags;
    if flags == 0 || flags & !(KVM_MSR_FILTER_READ | KVM_MSR_FILTER_WRITE) != 0 {
        return Err(EINVAL);
    }
    let size = u64::from(range.nmsrs).div_ceil(8 * WORD) * WORD;
    if size > u64::from(KVM_MSR_FILTER_MAX_BITMAP_SIZE) {
        return Err(EINVAL);
    }
    // CAST: At most the maximum.
    let size = size as usize;
    let mut bitmap = KVVec::from_elem(0, size, GFP_KERNEL_ACCOUNT)?;
    uaccess::read_bytes(range.bitmap.addr(), &mut bitmap)?;
    Ok(Range {
        base: range.base,
        count: range.nmsrs,
        reads: flags & KVM_MSR_FILTER_READ != 0,
        writes: flags & KVM_MSR_FILTER_WRITE != 0,
        bitmap,
    })
}
