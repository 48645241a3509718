// SPDX-License-Identifier: GPL-2.0

//! Files of guest memory: page cache without storage, for a guest and, if it may, for its client.
//!
//! The file is neither read nor written. Its pages come when they are asked for, cleared, and go when a
//! hole is punched or the file does; they are not swapped out and do not move. Who has them mapped for
//! a guest is the file's [`Owner`], which is asked to let go first.

use super::{
    task,
    user_page::{
        self,
        UserPage, //
    }, //
};
use crate::bindings as shims;
use core::{
    cell::UnsafeCell,
    marker::PhantomData,
    ops::Range,
    ptr::NonNull, //
};
use kernel::{
    bindings,
    module::this_module,
    prelude::*,
    types::ForeignOwnable, //
};

const PAGE_SHIFT: u32 = crate::x86::addr::PAGE_SHIFT;

/// The guests that use a file. Ranges are of pages, by number in the file.
pub(crate) trait Owner: Send + Sync + Sized + 'static {
    /// Calls `change`, which takes `pages` from the file, while no guest has any of them mapped.
    fn while_unmapped(&self, pages: Range<u64>, change: impl FnOnce());

    /// Has guests let go of `pages`, which broke.
    fn unmap(&self, pages: Range<u64>);

    /// Has guests let go of all pages for good: the last reference to the file is gone.
    fn close(&self);
}

/// What a file allows.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Flags {
    /// It can be mapped into user space.
    pub(crate) mmap: bool,
    /// Its pages can be used there, too.
    pub(crate) shared: bool,
}

/// What an open file points to.
struct Data<O> {
    flags: Flags,
    owner: O,
}

/// The operations of the files of an `O`.
struct Operations<O>(PhantomData<O>);

impl<O: Owner> Operations<O> {
    const FILE: bindings::file_operations = bindings::file_operations {
        owner: this_module::<crate::KvmRs>().as_ptr(),
        open: Some(bindings::generic_file_open),
        mmap: Some(Self::mmap),
        fallocate: Some(Self::fallocate),
        release: Some(Self::release),
        ..pin_init::zeroed()
    };

    const AREA: bindings::vm_operations_struct = bindings::vm_operations_struct {
        fault: Some(Self::fault),
        ..pin_init::zeroed()
    };

    const PAGE_CACHE: bindings::address_space_operations = bindings::address_space_operations {
        dirty_folio: Some(bindings::noop_dirty_folio),
        migrate_folio: Some(Self::migrate_folio),
        error_remove_folio: Some(Self::error_remove_folio),
        ..pin_init::zeroed()
    };

    /// Returns the static operations of a file.
    const fn file() -> &'static bindings::file_operations {
        &Self::FILE
    }

    /// Returns the static operations of a mapping into user space.
    const fn area() -> &'static bindings::vm_operations_struct {
        &Self::AREA
    }

    /// Returns the static operations of the page cache.
    const fn page_cache() -> &'static bindings::address_space_operations {
        &Self::PAGE_CACHE
    }

    /// Returns what the file points to.
    ///
    /// # Safety
    ///
    /// `file` must have been made by [`GuestMemfd::create`] for an `O`, and stay open during `'a`.
    unsafe fn data<'a>(file: *mut bindings::file) -> &'a Data<O> {
        // SAFETY: The private data does not change while the file is open.
        let data = unsafe { (*file).private_data };
        // SAFETY: `create` put it there, and the open file keeps it.
        unsafe { <KBox<Data<O>> as ForeignOwnable>::borrow(data) }
    }

    /// Has guests let go of the file's pages, and drops what the file points to.
    ///
    /// # Safety
    ///
    /// `file` must be valid, have been made by [`GuestMemfd::create`] for an `O`, and be about to be
    /// freed.
    unsafe extern "C" fn release(inode: *mut bindings::inode, file: *mut bindings::file) -> c_int {
        // SAFETY: The file is still there.
        unsafe { Self::data(file) }.owner.close();
        // SAFETY: The core releases a file once.
        let data = unsafe { shims::kvm_rs_memfd_release(inode, file) };
        // SAFETY: `create` put it there, and nobody reaches it any more.
        drop(unsafe { <KBox<Data<O>> as ForeignOwnable>::from_foreign(data) });
        0
    }

    /// Lets the client map the file, shared, if it may.
    ///
    /// # Safety
    ///
    /// `area` must be valid and not yet be visible to others; `file` must be its file, made by
    /// [`GuestMemfd::create`] for an `O`.
    unsafe extern "C" fn mmap(
        file: *mut bindings::file,
        area: *mut bindings::vm_area_struct,
    ) -> c_int {
        // SAFETY: The caller holds the file.
        if !unsafe { Self::data(file) }.flags.mmap {
            return ENODEV.to_errno();
        }
        // SAFETY: The area is valid.
        if !unsafe { shims::kvm_rs_vma_is_shared(area) } {
            return EINVAL.to_errno();
        }
        // SAFETY: The area is being set up by the caller and nobody else sees it.
        unsafe { (*area).vm_ops = &raw const *Self::area() };
        0
    }

    /// Answers a fault of the client.
    ///
    /// # Safety
    ///
    /// `fault` must be valid, in an area that [`Self::mmap`] set up.
    unsafe extern "C" fn fault(fault: *mut bindings::vm_fault) -> bindings::vm_fault_t {
        // SAFETY: The fault is valid for the duration of the call, and its area holds the file.
        let file = unsafe { shims::kvm_rs_fault_file(fault) };
        // SAFETY: As above.
        if !unsafe { Self::data(file) }.flags.shared {
            return bindings::vm_fault_reason_VM_FAULT_SIGBUS;
        }
        // SAFETY: The area is of a file of guest memory.
        unsafe { shims::kvm_rs_memfd_fault(fault) }
    }

    /// Allocates pages, or punches a hole; nothing else.
    ///
    /// # Safety
    ///
    /// `file` must be open and have been made by [`GuestMemfd::create`] for an `O`.
    unsafe extern "C" fn fallocate(
        file: *mut bindings::file,
        mode: c_int,
        offset: bindings::loff_t,
        len: bindings::loff_t,
    ) -> c_long {
        // SAFETY: The caller holds the file.
        let data = unsafe { Self::data(file) };
        let Some(file) = NonNull::new(file) else {
            return EBADF.to_errno() as c_long;
        };
        match data.fallocate(file, mode, offset, len) {
            Ok(()) => 0,
            Err(error) => error.to_errno() as c_long,
        }
    }

    /// Refuses to move a page.
    extern "C" fn migrate_folio(
        _mapping: *mut bindings::address_space,
        _to: *mut bindings::folio,
        _from: *mut bindings::folio,
        _mode: bindings::migrate_mode,
    ) -> c_int {
        EINVAL.to_errno()
    }

    /// Has guests let go of a page whose memory is broken. It stays, and whoever asks for it is told.
    ///
    /// # Safety
    ///
    /// `mapping` must be of a file that was made by [`GuestMemfd::create`] for an `O`, and `folio` be a
    /// locked one of it.
    unsafe extern "C" fn error_remove_folio(
        mapping: *mut bindings::address_space,
        folio: *mut bindings::folio,
    ) -> c_int {
        // SAFETY: The folio is locked, so that it stays where it is.
        let first = unsafe { shims::kvm_rs_folio_index(folio) } as u64;
        // SAFETY: As above.
        let pages = unsafe { shims::kvm_rs_folio_pages(folio) } as u64;
        // SAFETY: A folio of it is locked, so the mapping is there.
        let data = unsafe { shims::kvm_rs_memfd_lock_data(mapping) };
        if !data.is_null() {
            // SAFETY: `create` put it there, and while locked it stays.
            let data = unsafe { <KBox<Data<O>> as ForeignOwnable>::borrow(data) };
            data.owner.unmap(first..first.saturating_add(pages));
        }
        // SAFETY: Locked above.
        unsafe { shims::kvm_rs_memfd_unlock_data(mapping) };
        // CAST: A small number.
        bindings::mf_result_MF_DELAYED as c_int
    }
}

impl<O: Owner> Data<O> {
    /// Answers fallocate() on `file`, which is this one's.
    fn fallocate(
        &self,
        file: NonNull<bindings::file>,
        mode: c_int,
        offset: bindings::loff_t,
        len: bindings::loff_t,
    ) -> Result {
        const KEEP_SIZE: u32 = shims::FALLOC_FL_KEEP_SIZE;
        const PUNCH_HOLE: u32 = shims::FALLOC_FL_PUNCH_HOLE;
        // CAST: Bits.
        let mode = mode as u32;
        if mode & KEEP_SIZE == 0 || mode & !(KEEP_SIZE | PUNCH_HOLE) != 0 {
            return Err(EOPNOTSUPP);
        }
        let start = u64::try_from(offset)?;
        let end = start.checked_add(u64::try_from(len)?).ok_or(EINVAL)?;
        if (start | end) & ((1 << PAGE_SHIFT) - 1) != 0 {
            return Err(EINVAL);
        }
        if mode & PUNCH_HOLE != 0 {
            self.owner
                .while_unmapped(start >> PAGE_SHIFT..end >> PAGE_SHIFT, || {
                    // SAFETY: The file is open, and the range not empty, as the caller of `fallocate`
                    // checks.
                    unsafe { shims::kvm_rs_memfd_punch(file.as_ptr(), start, end) };
                });
        } else {
            allocate(file, start, end)?;
        }
        // SAFETY: The file is open.
        unsafe { shims::kvm_rs_memfd_modified(file.as_ptr()) };
        Ok(())
    }
}

/// Has pages in an open file of guest memory, from offset `start` to `end`.
fn allocate(file: NonNull<bindings::file>, start: u64, end: u64) -> Result {
    // SAFETY: The file is open.
    if end > unsafe { shims::kvm_rs_memfd_size(file.as_ptr()) } {
        return Err(EINVAL);
    }
    for index in start >> PAGE_SHIFT..end >> PAGE_SHIFT {
        if task::signal_pending() {
            return Err(EINTR);
        }
        // SAFETY: The file is open, and the page below its end.
        let ret = unsafe { shims::kvm_rs_memfd_allocate(file.as_ptr(), index as usize) };
        if ret != 0 {
            return Err(Error::from_errno(ret));
        }
        user_page::cond_resched();
    }
    Ok(())
}

/// A reference to an open file of guest memory.
///
/// # Invariants
///
/// `file` was made by [`GuestMemfd::create`] for an `O`, and this object holds a reference to it.
pub(crate) struct GuestMemfd<O> {
    file: NonNull<bindings::file>,
    _owner: PhantomData<O>,
}

impl<O: Owner> GuestMemfd<O> {
    /// Opens a new file of `size` bytes in the current process, and returns its descriptor.
    ///
    /// `EINVAL` for a size that is 0, not of pages, or too large for a file.
    pub(crate) fn create(size: u64, flags: Flags, owner: O) -> Result<c_int> {
        if i64::try_from(size).map_or(true, |size| size == 0) || size & ((1 << PAGE_SHIFT) - 1) != 0
        {
            return Err(EINVAL);
        }
        let data = KBox::new(Data { flags, owner }, GFP_KERNEL_ACCOUNT)?;
        // SAFETY: Any flags may be given.
        let fd = unsafe { bindings::get_unused_fd_flags(0) };
        let number = u32::try_from(fd).map_err(|_| Error::from_errno(fd))?;
        let data = data.into_foreign();
        let mut error = 0;
        // SAFETY: The operations are static and know `data`, which is theirs from here on; the size was
        // checked.
        let file = unsafe {
            shims::kvm_rs_memfd_create(
                size,
                Operations::<O>::file(),
                Operations::<O>::page_cache(),
                data,
                &mut error,
            )
        };
        if file.is_null() {
            // SAFETY: No file was made, so the pointer is still ours.
            drop(unsafe { <KBox<Data<O>> as ForeignOwnable>::from_foreign(data) });
            // SAFETY: The descriptor was reserved above.
            unsafe { bindings::put_unused_fd(number) };
            return Err(Error::from_errno(error));
        }
        // SAFETY: The descriptor was reserved above, and takes over the only reference to the file.
        unsafe { bindings::fd_install(number, file) };
        Ok(fd)
    }

    /// Returns the file of descriptor `fd` of the current process.
    ///
    /// `EBADF` if there is none, `EINVAL` if it is not one of guest memory.
    pub(crate) fn get(fd: u32) -> Result<Self> {
        // SAFETY: Any number may be given.
        let file = NonNull::new(unsafe { bindings::fget(fd) }).ok_or(EBADF)?;
        // SAFETY: The file is open, and its operations do not change.
        let operations = unsafe { (*file.as_ptr()).f_op };
        if !core::ptr::eq(operations, Operations::<O>::file()) {
            // SAFETY: The reference was taken above.
            unsafe { bindings::fput(file.as_ptr()) };
            return Err(EINVAL);
        }
        // INVARIANT: Only files that `create` made have these operations; the reference was taken above.
        Ok(Self {
            file,
            _owner: PhantomData,
        })
    }

    /// Returns who has the pages mapped for guests.
    pub(crate) fn owner(&self) -> &O {
        // SAFETY: By the type's invariant.
        &unsafe { Operations::<O>::data(self.file.as_ptr()) }.owner
    }

    /// Returns the size in bytes.
    pub(crate) fn size(&self) -> u64 {
        // SAFETY: By the type's invariant.
        unsafe { shims::kvm_rs_memfd_size(self.file.as_ptr()) }
    }

    /// Returns the page `index`, which is below the file's end.
    ///
    /// Sleeps; fails with `ENOMEM`, and with `EHWPOISON` if its memory is broken.
    pub(crate) fn page(&self, index: u64) -> Result<UserPage> {
        let mut error = 0;
        // SAFETY: By the type's invariant, the file is open.
        let page =
            unsafe { shims::kvm_rs_memfd_get_page(self.file.as_ptr(), index as usize, &mut error) };
        // SAFETY: The page comes with a reference.
        unsafe { UserPage::from_referenced(page.cast(), true) }
            .ok_or_else(|| Error::from_errno(error))
    }
}

impl<O> Drop for GuestMemfd<O> {
    fn drop(&mut self) {
        // SAFETY: By the type's invariant, the reference goes with this object.
        unsafe { bindings::fput(self.file.as_ptr()) };
    }
}

/// Finds a file as long as it is open, and does not keep it so.
///
/// # Invariants
///
/// `file` is null, or of an `O` and not yet freed.
pub(crate) struct WeakMemfd<O> {
    file: UnsafeCell<*mut bindings::file>,
    _owner: PhantomData<O>,
}

// SAFETY: The file can be used from any thread.
unsafe impl<O: Owner> Send for WeakMemfd<O> {}
// SAFETY: The pointer is read and written as a whole.
unsafe impl<O: Owner> Sync for WeakMemfd<O> {}

impl<O: Owner> WeakMemfd<O> {
    /// Returns one that finds nothing.
    pub(crate) const fn new() -> Self {
        // INVARIANT: The pointer is null.
        Self {
            file: UnsafeCell::new(core::ptr::null_mut()),
            _owner: PhantomData,
        }
    }

    /// Finds `memfd` from now on, until [`Self::clear`], which its [`Owner::close`] must call.
    pub(crate) fn set(&self, memfd: &GuestMemfd<O>) {
        // INVARIANT: The file is freed after `close`.
        // SAFETY: The pointer is valid and aligned; who reads it sees the old or the new one.
        unsafe { self.file.get().write_volatile(memfd.file.as_ptr()) };
    }

    /// Finds nothing from now on.
    pub(crate) fn clear(&self) {
        // INVARIANT: The pointer is null.
        // SAFETY: As above.
        unsafe { self.file.get().write_volatile(core::ptr::null_mut()) };
    }

    /// Returns the file, unless its last reference is gone.
    pub(crate) fn get(&self) -> Option<GuestMemfd<O>> {
        // SAFETY: By the type's invariant, the pointer is null or that of a file, whose memory the
        // function reads with care for its being freed meanwhile.
        let file = NonNull::new(unsafe { bindings::get_file_active(self.file.get()) })?;
        // INVARIANT: The function took a reference, to the file that `set` was given.
        Some(GuestMemfd {
            file,
            _owner: PhantomData,
        })
    }
}
