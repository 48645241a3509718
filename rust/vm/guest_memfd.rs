// SPDX-License-Identifier: GPL-2.0

//! Files of a VM's memory.

use super::Vm;
use crate::{
    linux::guest_memfd::Flags,
    memory::{
        guest_memfd::{
            MemfdFile,
            Translations, //
        },
        GuestMemory, //
    },
    x86::addr::Hva, //
};
use kernel::{
    prelude::*,
    sync::{
        Arc,
        ArcBorrow, //
    }, //
};

/// The VM that a file keeps.
struct VmOfFile(Arc<Vm>);

impl Translations for VmOfFile {
    fn memory(&self) -> &GuestMemory {
        self.0.memory()
    }

    fn begin(&self, start: Hva, end: Hva) {
        self.0.mmu().begin_invalidation(start, end);
    }

    fn finish(&self) {
        self.0.mmu().finish_invalidation();
    }
}

impl Vm {
    /// Opens a file of `size` bytes for memory of this VM in the current process; returns its descriptor.
    ///
    /// `EINVAL` for a size that is 0, not of pages, or too large.
    pub(crate) fn create_guest_memfd(
        this: ArcBorrow<'_, Self>,
        size: u64,
        flags: Flags,
    ) -> Result<c_int> {
        let vm = KBox::new(VmOfFile(this.into()), GFP_KERNEL_ACCOUNT)?;
        MemfdFile::create(size, flags, vm)
    }
}
