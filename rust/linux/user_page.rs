// SPDX-License-Identifier: GPL-2.0

//! The host page behind an address of the calling process.
//!
//! C header: `include/linux/mm.h`
//!
//! A [`UserPage`] holds a reference to the page where there is one to hold. A page table that is
//! tied to an MMU notifier needs the reference only until the translation is installed.

use crate::{
    bindings as shims,
    x86::addr::{
        Hva,
        Pfn, //
    },
};
use kernel::{
    bindings, current,
    mm::{
        virt::flags as vm,
        MmWithUser, //
    },
    prelude::*,
};

use core::ptr::NonNull;

/// Why there is no page to use.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum LookupError {
    /// Nothing is mapped there, or not with the access asked for.
    Fault,
    /// A signal is pending and the page would have to be waited for.
    Interrupted,
    /// The page's memory is broken.
    HwPoison,
    /// The address is of device memory that may be read but not written.
    ReadOnly,
    /// The page would have to be waited for, and was not to be.
    Away,
}

/// Whether to wait for a page that is not in memory.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Wait {
    /// No: what takes longer than making a page is for somebody else.
    No,
    /// As long as it takes, or until a signal comes.
    Yes,
}

/// A host page found behind a user address.
///
/// # Invariants
///
/// `page`, where present, is a `struct page` on which this object holds a reference.
pub(crate) struct UserPage {
    pfn: Pfn,
    writable: bool,
    page: Option<NonNull<c_void>>,
}

impl UserPage {
    /// Returns the page behind `hva` in the calling process, faulting it in where needed.
    ///
    /// With `write`, the page is one the process may write, copied first if it was shared. Without,
    /// and with `allow_writable`, it is reported as writable where the process may write it without
    /// a fault. Sleeps, with [`Wait::No`] only for memory.
    pub(crate) fn lookup(
        hva: Hva,
        write: bool,
        allow_writable: bool,
        wait: Wait,
    ) -> Result<Self, LookupError> {
        // Reading must go the slow way: the quick one can race with a copy-on-write break and see
        // the old page. Asking for a writable page is safe, and serves reads as well.
        if write || allow_writable {
            if let Some(page) = Self::get_fast(hva) {
                return Ok(page);
            }
        }
        match Self::get_slow(hva, write, allow_writable, wait) {
            Ok(Some(page)) => Ok(page),
            Ok(None) => Err(LookupError::Away),
            Err(e) if e == EINTR || e == EAGAIN => Err(LookupError::Interrupted),
            Err(e) if e == EHWPOISON => Err(LookupError::HwPoison),
            Err(_) => Self::follow_pfn(hva, write),
        }
    }

    /// Returns the page behind `hva` in the calling process if it is there and mapped writable. Does not sleep.
    pub(crate) fn lookup_at_hand(hva: Hva) -> Option<Self> {
        Self::get_fast(hva)
    }

    /// Returns the page's frame number.
    pub(crate) fn pfn(&self) -> Pfn {
        self.pfn
    }

    /// Returns whether the process may write the page as it is mapped now.
    pub(crate) fn is_writable(&self) -> bool {
        self.writable
    }

    /// Returns whether the page is device memory, to be mapped uncached.
    ///
    /// The answer costs a search of the firmware's memory map for frames without a `struct page`.
    pub(crate) fn is_mmio(&self) -> bool {
        if let Some(page) = self.page {
            // SAFETY: By the type invariant, there is a reference to the page.
            return unsafe { shims::kvm_rs_page_is_mmio(page.as_ptr()) };
        }
        // SAFETY: The function takes any frame number.
        unsafe { shims::kvm_rs_pfn_is_mmio(self.pfn.value() as usize) }
    }

    /// Tells the host that a guest uses the page, and may write it where `dirty` is set.
    ///
    /// Call it while nothing can complete an invalidation of the page: a page must not become dirty
    /// after its owner was told that nobody can write it.
    pub(crate) fn mark_used(&self, dirty: bool) {
        if let Some(page) = self.page {
            // SAFETY: By the type invariant, there is a reference to the page.
            unsafe { shims::kvm_rs_page_mark_used(page.as_ptr(), dirty) };
        }
    }

    /// Returns the pages from `hva` on, up to `count` and `N`, as far as they are mapped writable and
    /// present, one after the other. Does not sleep.
    pub(crate) fn lookup_present<const N: usize>(hva: Hva, count: usize) -> [Option<Self>; N] {
        let mut found = [const { None }; N];
        let mut pages: [*mut bindings::page; N] = [core::ptr::null_mut(); N];
        // CAST: A few pages.
        let count = count.min(N) as c_int;
        // SAFETY: `pages` has place for as many pages as are asked for; any address may be passed.
        let n = unsafe {
            bindings::get_user_pages_fast_only(
                hva.value() as usize,
                count,
                bindings::FOLL_WRITE,
                pages.as_mut_ptr(),
            )
        };
        let n = usize::try_from(n).unwrap_or(0);
        for (place, page) in found.iter_mut().zip(pages).take(n) {
            // SAFETY: The function gives these pages with a reference each.
            *place = unsafe { Self::from_referenced(page, true) };
        }
        found
    }

    /// Returns the page if it is mapped writable and present.
    fn get_fast(hva: Hva) -> Option<Self> {
        let mut page: *mut bindings::page = core::ptr::null_mut();
        // SAFETY: `page` has place for the one page asked for; any address may be passed.
        let n = unsafe {
            bindings::get_user_pages_fast_only(
                hva.value() as usize,
                1,
                bindings::FOLL_WRITE,
                &mut page,
            )
        };
        if n != 1 {
            return None;
        }
        // SAFETY: The function gives the page with a reference.
        unsafe { Self::from_referenced(page, true) }
    }

    /// Returns the page, faulting it in; `None` if it was not to be waited for and would have to be.
    fn get_slow(hva: Hva, write: bool, allow_writable: bool, wait: Wait) -> Result<Option<Self>> {
        let mut flags = bindings::FOLL_HWPOISON | bindings::FOLL_HONOR_NUMA_FAULT;
        flags |= match wait {
            Wait::No => bindings::FOLL_NOWAIT,
            Wait::Yes => bindings::FOLL_INTERRUPTIBLE,
        };
        if write {
            flags |= bindings::FOLL_WRITE;
        }
        let mut page: *mut bindings::page = core::ptr::null_mut();
        // SAFETY: `page` has place for the one page asked for; the caller is a user thread that
        // holds no lock of memory management.
        let n =
            unsafe { bindings::get_user_pages_unlocked(hva.value() as usize, 1, &mut page, flags) };
        if n == 0 && wait == Wait::No {
            return Ok(None);
        }
        if n != 1 {
            // No page and no error does not happen for one page; treat it as a fault.
            return Err(c_int::try_from(n).map_or(EFAULT, |n| {
                if n < 0 {
                    Error::from_errno(n)
                } else {
                    EFAULT
                }
            }));
        }
        // SAFETY: The function gives the page with a reference.
        let found = unsafe { Self::from_referenced(page, write) }.ok_or(EFAULT)?;
        if !write && allow_writable {
            if let Some(writable) = Self::get_fast(hva) {
                return Ok(Some(writable));
            }
        }
        Ok(Some(found))
    }

    /// Returns the page for a pointer that comes with a reference, `None` for null.
    ///
    /// # Safety
    ///
    /// `page` must be null or a page of which the caller gives a reference away.
    pub(super) unsafe fn from_referenced(
        page: *mut bindings::page,
        writable: bool,
    ) -> Option<Self> {
        let page = NonNull::new(page.cast::<c_void>())?;
        // SAFETY: By this function's contract, there is a reference to the page.
        let pfn = unsafe { shims::kvm_rs_page_to_pfn(page.as_ptr()) };
        // INVARIANT: The reference that came with the pointer is this object's now.
        Some(Self {
            pfn: Pfn::new(pfn as u64),
            writable,
            page: Some(page),
        })
    }

    /// Returns the frame behind an address of a mapping that has no pages to refer to.
    fn follow_pfn(hva: Hva, write: bool) -> Result<Self, LookupError> {
        let task = current!();
        let mm = task.mm().ok_or(LookupError::Fault)?;
        // Faulting a frame in can drop the lock, after which the mapping is looked up again.
        loop {
            if let Some(found) = Self::follow_pfn_once(mm, hva, write)? {
                return Ok(found);
            }
        }
    }

    /// Returns the frame, or `None` where the mapping must be looked up again.
    fn follow_pfn_once(
        mm: &MmWithUser,
        hva: Hva,
        write: bool,
    ) -> Result<Option<Self>, LookupError> {
        let guard = mm.mmap_read_lock();
        let vma = guard
            .vma_lookup(hva.value() as usize)
            .ok_or(LookupError::Fault)?;
        if vma.flags() & (vm::IO | vm::PFNMAP) == 0 {
            return Err(LookupError::Fault);
        }

        let mut args = bindings::follow_pfnmap_args {
            vma: vma.as_ptr(),
            address: hva.value() as usize,
            ..Default::default()
        };
        // SAFETY: `vma` is a mapping that holds the address, under the mmap lock.
        if unsafe { bindings::follow_pfnmap_start(&mut args) } != 0 {
            let flags = if write {
                bindings::fault_flag_FAULT_FLAG_WRITE
            } else {
                0
            };
            let mut unlocked = false;
            // SAFETY: The mmap lock is held for reading, and is again on return.
            let ret = unsafe {
                bindings::fixup_user_fault(mm.as_raw(), hva.value() as usize, flags, &mut unlocked)
            };
            if unlocked {
                return Ok(None);
            }
            if ret != 0 {
                return Err(LookupError::Fault);
            }
            // SAFETY: The lock was not dropped, so `vma` is still such a mapping.
            if unsafe { bindings::follow_pfnmap_start(&mut args) } != 0 {
                return Err(LookupError::Fault);
            }
        }

        let found = if write && !args.writable {
            Err(LookupError::ReadOnly)
        } else {
            // INVARIANT: There is no page to refer to.
            Ok(Some(Self {
                pfn: Pfn::new(args.pfn as u64),
                writable: args.writable,
                page: None,
            }))
        };
        // SAFETY: Pairs with the successful start above.
        unsafe { bindings::follow_pfnmap_end(&mut args) };
        found
    }
}

impl Drop for UserPage {
    fn drop(&mut self) {
        if let Some(page) = self.page {
            // SAFETY: By the type invariant, there is a reference, which goes with this object.
            unsafe { shims::kvm_rs_page_put(page.as_ptr()) };
        }
    }
}

/// Lets another task run if one waits.
pub(crate) fn cond_resched() {
    // SAFETY: Called where the thread may sleep, as looking up a page does.
    unsafe { shims::kvm_rs_cond_resched() };
}

/// Returns how large the host maps `hva` in the calling process: 1 for 4 KiB, 2 for 2 MiB, 3 for
/// 1 GiB.
///
/// The answer may be stale when it arrives; see the C function for when it may be used.
pub(crate) fn host_mapping_level(hva: Hva) -> u8 {
    // SAFETY: Any address may be passed; the caller is a user thread.
    let level = unsafe { shims::kvm_rs_host_mapping_level(hva.value() as usize) };
    u8::try_from(level).unwrap_or(1)
}
