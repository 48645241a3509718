// SPDX-License-Identifier: GPL-2.0

//! Page-modification logging: the processor's own log of the pages that a vCPU writes.
//!
//! Whenever the processor sets the dirty bit of an EPT entry, it puts the guest-physical address of the
//! page into a buffer of 512 entries, the last one first. A full buffer makes it exit before it sets the
//! next bit. The index in the VMCS is that of the next entry to be written; below 0 it wraps to 0xffff.

use super::{
    field,
    vmcs::CurrentVmcs, //
};
use crate::{
    linux::page::{
        physical_address,
        KernelPage, //
    },
    x86::addr::Gpa, //
};
use kernel::{
    prelude::*,
    sync::atomic::Relaxed, //
};

/// The index of an empty buffer.
const LAST: u16 = 511;

/// The buffer of a vCPU. It is emptied after each exit, so that it is empty outside the guest.
pub(crate) struct PmlBuffer(KernelPage);

impl PmlBuffer {
    /// Returns an empty buffer.
    pub(crate) fn new() -> Result<Self> {
        Ok(Self(KernelPage::new()?))
    }

    /// Makes the buffer that of the VMCS. It must live as long as the VMCS is used.
    pub(crate) fn attach(&self, vmcs: &CurrentVmcs<'_>) {
        let address = physical_address(self.0.as_ptr().as_ptr());
        vmcs.write(field::PML_ADDRESS, address.value());
        vmcs.write(field::GUEST_PML_INDEX, LAST);
    }

    /// Empties the buffer; calls `f` with the address of each page in it.
    #[inline]
    pub(crate) fn drain(&self, vmcs: &CurrentVmcs<'_>, f: impl FnMut(Gpa)) {
        let index = vmcs.read(field::GUEST_PML_INDEX);
        if index != LAST {
            self.take(index, f);
            vmcs.write(field::GUEST_PML_INDEX, LAST);
        }
    }

    /// Calls `f` with the address of each page that was logged when the index is `index`.
    fn take(&self, index: u16, mut f: impl FnMut(Gpa)) {
        let first = if index > LAST {
            0
        } else {
            index.wrapping_add(1)
        };
        let entries = self.0.words().chunks_exact(2);
        for entry in entries.skip(usize::from(first)) {
            if let [low, high] = entry {
                let high = u64::from(high.load(Relaxed)) << 32;
                f(Gpa::new(high | u64::from(low.load(Relaxed))));
            }
        }
    }
}

#[kunit_tests(kvm_rs_pml)]
mod tests {
    use super::*;

    #[test]
    fn entries_above_the_index_are_logged() {
        let buffer = PmlBuffer::new().unwrap();
        for (n, word) in buffer.0.words().iter().enumerate() {
            let value = if n % 2 == 0 { (n as u32 / 2) << 12 } else { 3 };
            word.store(value, Relaxed);
        }
        let look = |index| {
            let (mut count, mut first) = (0, None);
            buffer.take(index, |gpa| {
                count += 1;
                first = first.or(Some(gpa.value()));
            });
            (count, first)
        };
        assert_eq!(look(511), (0, None));
        assert_eq!(look(510), (1, Some(3 << 32 | 511 << 12)));
        assert_eq!(look(0), (511, Some(3 << 32 | 1 << 12)));
        assert_eq!(look(0xffff), (512, Some(3 << 32)));
    }
}
