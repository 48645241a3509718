// SPDX-License-Identifier: GPL-2.0

//! Structures of the KVM uapi, copied from and to the client once.

use crate::bindings;
use core::mem::MaybeUninit;
use kernel::{
    prelude::*,
    uaccess::{
        UserPtr,
        UserSlice, //
    }, //
};

/// A plain structure of the uapi.
///
/// # Safety
///
/// Every bit pattern must be a valid value, and a value that was made from zeroes by writing fields
/// must have no uninitialised padding that matters: the structures of the uapi name their padding.
pub(crate) unsafe trait Plain: Sized {}

macro_rules! plain {
    ($($name:ty),* $(,)?) => {
        $(
            // SAFETY: The structure consists of integers and arrays and unions of them, with its
            // padding named.
            unsafe impl Plain for $name {}
        )*
    };
}

plain!(
    u8,
    u32,
    u64,
    [u8; 520],
    [u8; 1024],
    [u32; 2],
    [u32; 12],
    bindings::kvm_clear_dirty_log,
    bindings::kvm_clock_data,
    bindings::kvm_cpuid2,
    bindings::kvm_cpuid,
    bindings::kvm_cpuid_entry,
    bindings::kvm_debugregs,
    bindings::kvm_device_attr,
    bindings::kvm_dirty_log,
    bindings::kvm_enable_cap,
    bindings::kvm_fpu,
    bindings::kvm_guest_debug,
    bindings::kvm_interrupt,
    bindings::kvm_ioeventfd,
    bindings::kvm_irqfd,
    bindings::kvm_mp_state,
    bindings::kvm_msi,
    bindings::kvm_one_reg,
    bindings::kvm_pit_config,
    bindings::kvm_pit_state,
    bindings::kvm_pit_state2,
    bindings::kvm_pre_fault_memory,
    bindings::kvm_reinject_control,
    bindings::kvm_rs_coalesced_zone,
    bindings::kvm_msr_entry,
    bindings::kvm_msr_filter,
    bindings::kvm_msr_list,
    bindings::kvm_msrs,
    bindings::kvm_regs,
    bindings::kvm_signal_mask,
    bindings::kvm_sregs,
    bindings::kvm_sregs2,
    bindings::kvm_tpr_access_ctl,
    bindings::kvm_translation,
    bindings::kvm_userspace_memory_region,
    bindings::kvm_userspace_memory_region2,
    bindings::kvm_create_guest_memfd,
    bindings::kvm_vapic_addr,
    bindings::kvm_vcpu_events,
    bindings::kvm_x86_mce,
    bindings::kvm_xcrs,
    crate::x86::cpuid::CpuidEntry,
);

/// Returns the client's address of a bitmap for KVM_GET_DIRTY_LOG.
pub(crate) fn dirty_bitmap(log: &bindings::kvm_dirty_log) -> usize {
    // SAFETY: Both members of the union are 64-bit integers or addresses, of which every bit pattern is
    // valid.
    unsafe { log.__bindgen_anon_1.padding2 as usize }
}

/// Returns the client's address of a bitmap for KVM_CLEAR_DIRTY_LOG.
pub(crate) fn cleared_bitmap(log: &bindings::kvm_clear_dirty_log) -> usize {
    // SAFETY: As for `dirty_bitmap`.
    unsafe { log.__bindgen_anon_1.padding2 as usize }
}

/// Returns a structure of zeroes.
pub(crate) fn zeroed<T: Plain>() -> T {
    // SAFETY: Every bit pattern is a valid `T`.
    unsafe { MaybeUninit::zeroed().assume_init() }
}

/// Copies a structure from the client's `address`; `EFAULT` if it cannot be read.
pub(crate) fn read<T: Plain>(address: usize) -> Result<T> {
    let mut value = MaybeUninit::<T>::uninit();
    let bytes: *mut [MaybeUninit<u8>] =
        core::ptr::slice_from_raw_parts_mut(value.as_mut_ptr().cast(), size_of::<T>());
    // SAFETY: `value` has these bytes, they may be uninitialised, and nothing else refers to them.
    let bytes = unsafe { &mut *bytes };
    UserSlice::new(UserPtr::from_addr(address), size_of::<T>())
        .reader()
        .read_raw(bytes)?;
    // SAFETY: All bytes were written, and every bit pattern is a valid `T`.
    Ok(unsafe { value.assume_init() })
}

/// Copies a structure to the client's `address`; `EFAULT` if it cannot be written.
pub(crate) fn write<T: Plain>(address: usize, value: &T) -> Result {
    let value: *const T = value;
    let bytes = core::ptr::slice_from_raw_parts(value.cast::<u8>(), size_of::<T>());
    // SAFETY: By the trait's requirement the value has no uninitialised bytes.
    let bytes = unsafe { &*bytes };
    UserSlice::new(UserPtr::from_addr(address), size_of::<T>())
        .writer()
        .write_slice(bytes)
}

/// Copies bytes from the client's `address`; `EFAULT` if they cannot be read.
pub(crate) fn read_bytes(address: usize, bytes: &mut [u8]) -> Result {
    UserSlice::new(UserPtr::from_addr(address), bytes.len())
        .reader()
        .read_slice(bytes)
}

/// Copies bytes to the client's `address`; `EFAULT` if they cannot be written.
pub(crate) fn write_bytes(address: usize, bytes: &[u8]) -> Result {
    UserSlice::new(UserPtr::from_addr(address), bytes.len())
        .writer()
        .write_slice(bytes)
}

/// Copies `count` structures from the client's `address`.
pub(crate) fn read_list<T: Plain>(address: usize, count: usize) -> Result<KVVec<T>> {
    let mut list = KVVec::with_capacity(count, GFP_KERNEL_ACCOUNT)?;
    for index in 0..count {
        list.push(read(element::<T>(address, index)?)?, GFP_KERNEL_ACCOUNT)?;
    }
    Ok(list)
}

/// Copies structures to the client's `address`.
pub(crate) fn write_list<T: Plain>(address: usize, list: &[T]) -> Result {
    let bytes = core::ptr::slice_from_raw_parts(list.as_ptr().cast::<u8>(), size_of_val(list));
    // SAFETY: They are the bytes of the list, and by the trait's requirement all are initialised.
    write_bytes(address, unsafe { &*bytes })
}

/// Returns the address of an element of a list at `address`.
fn element<T>(address: usize, index: usize) -> Result<usize> {
    index
        .checked_mul(size_of::<T>())
        .and_then(|offset| address.checked_add(offset))
        .ok_or(EFAULT)
}
