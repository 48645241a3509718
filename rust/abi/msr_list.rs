// SPDX-License-Identifier: GPL-2.0

//! Lists of MSRs, and MSRs in bulk.

use crate::{
    bindings::{
        kvm_msr_entry,
        kvm_msr_list,
        kvm_msrs, //
    },
    hypervisor::Hypervisor,
    linux::{
        speculation::microcode_revision,
        uaccess, //
    },
    x86::{
        cpuid::Features,
        guest_msr::GuestMsrs,
        msr_index, //
    }, //
};
use kernel::prelude::*;

/// Writes a `struct kvm_msr_list`: the count always, the indices if there is room (else `E2BIG`).
fn write_indices(argument: usize, indices: &[u32]) -> Result<isize> {
    let room: kvm_msr_list = uaccess::read(argument)?;
    let mut header: kvm_msr_list = uaccess::zeroed();
    // CAST: A short list.
    header.nmsrs = indices.len() as u32;
    uaccess::write(argument, &header)?;
    if room.nmsrs < header.nmsrs {
        return Err(E2BIG);
    }
    let address = argument
        .checked_add(size_of::<kvm_msr_list>())
        .ok_or(EFAULT)?;
    uaccess::write_list(address, indices)?;
    Ok(0)
}

/// Collects indices.
fn collect(iterator: impl Iterator<Item = u32>) -> Result<KVVec<u32>> {
    let mut list = KVVec::new();
    for index in iterator {
        list.push(index, GFP_KERNEL)?;
    }
    Ok(list)
}

/// Answers KVM_GET_MSR_INDEX_LIST.
pub(super) fn write_saved(argument: usize, features: &Features) -> Result<isize> {
    write_indices(argument, &collect(msr_index::saved(features))?)
}

/// Answers KVM_GET_MSR_FEATURE_INDEX_LIST.
pub(super) fn write_features(argument: usize, features: &Features) -> Result<isize> {
    write_indices(argument, &collect(msr_index::feature_msrs(features))?)
}

/// Answers KVM_GET_MSRS on the device: what feature MSRs can be at most.
pub(super) fn get_features(hypervisor: &Hypervisor, argument: usize) -> Result<isize> {
    access(argument, true, |entry| {
        let revision = microcode_revision();
        entry.data = GuestMsrs::feature_msr(entry.index, hypervisor.arch_capabilities, revision)?;
        Some(())
    })
}

/// Calls `f` for each entry of a `struct kvm_msrs` up to the first that fails, and returns how many
/// succeeded; writes the entries back if `read`.
pub(super) fn access(
    argument: usize,
    read: bool,
    mut f: impl FnMut(&mut kvm_msr_entry) -> Option<()>,
) -> Result<isize> {
    let header: kvm_msrs = uaccess::read(argument)?;
    if header.nmsrs > msr_index::MAX_ACCESSES {
        return Err(E2BIG);
    }
    let address = argument.checked_add(size_of::<kvm_msrs>()).ok_or(EFAULT)?;
    let mut entries: KVVec<kvm_msr_entry> = uaccess::read_list(address, header.nmsrs as usize)?;
    let mut done = 0;
    for entry in entries.iter_mut() {
        if f(entry).is_none() {
            break;
        }
        done += 1;
    }
    if read {
        uaccess::write_list(address, &entries)?;
    }
    Ok(done)
}
