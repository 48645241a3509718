// SPDX-License-Identifier: GPL-2.0

//! File descriptors that are objects of this module, with file operations of their own.

use crate::bindings;
use core::{
    marker::PhantomData,
    ptr::NonNull, //
};
use kernel::{
    bindings as kernel_bindings,
    error::from_err_ptr,
    ffi::{
        c_char,
        c_long,
        c_uint,
        c_ulong,
        c_void, //
    },
    fs::{
        file::FileDescriptorReservation,
        File, //
    },
    module::this_module,
    prelude::*,
    sync::aref::ARef,
    types::ForeignOwnable, //
};

/// The address of a page that a file maps into user space.
pub(crate) struct MappedPage(pub(crate) NonNull<u8>);

/// What a kind of file does.
pub(crate) trait FileObject: Sized + 'static {
    /// Whether the file can be mapped; its pages are then those of [`FileObject::page`].
    const MAPPABLE: bool = false;

    /// The pointer that the file keeps.
    type Pointer: ForeignOwnable + Send + Sync;

    /// Whether the file is there to be read, by [`FileObject::read`], and for nothing else.
    const READABLE: bool = false;

    /// The file is closed, and nobody uses it any more; its pointer is dropped next.
    fn closed(_this: <Self::Pointer as ForeignOwnable>::Borrowed<'_>) {}

    /// Answers an ioctl.
    fn ioctl(
        _this: <Self::Pointer as ForeignOwnable>::Borrowed<'_>,
        _command: u32,
        _argument: usize,
    ) -> Result<isize> {
        Err(ENOTTY)
    }

    /// Copies at most `size` bytes from `offset` on to the address in user space; returns how many, 0 at
    /// the end of the file.
    fn read(
        _this: <Self::Pointer as ForeignOwnable>::Borrowed<'_>,
        _offset: u64,
        _address: usize,
        _size: usize,
    ) -> Result<usize> {
        Err(EINVAL)
    }

    /// Returns whether `count` pages from `first` on may be mapped; `shared_data` says that what one writes
    /// there goes to the file, and that it cannot be executed.
    fn may_map(
        _this: <Self::Pointer as ForeignOwnable>::Borrowed<'_>,
        _first: usize,
        _count: usize,
        _shared_data: bool,
    ) -> bool {
        true
    }

    /// Returns the page `index` of the file's mapping, or `None` if there is none.
    ///
    /// The page must live as long as the file.
    fn page(
        _this: <Self::Pointer as ForeignOwnable>::Borrowed<'_>,
        _index: usize,
    ) -> Option<MappedPage> {
        None
    }
}

/// The file operations of a `T`.
struct Operations<T>(PhantomData<T>);

impl<T: FileObject> Operations<T> {
    const FILE: kernel_bindings::file_operations = kernel_bindings::file_operations {
        owner: this_module::<crate::KvmRs>().as_ptr(),
        release: Some(Self::release),
        unlocked_ioctl: Some(Self::ioctl),
        read: if T::READABLE { Some(Self::read) } else { None },
        #[cfg(CONFIG_COMPAT)]
        compat_ioctl: kernel_bindings::compat_ptr_ioctl,
        mmap: if T::MAPPABLE { Some(Self::mmap) } else { None },
        llseek: Some(kernel_bindings::noop_llseek),
        ..pin_init::zeroed()
    };

    const MAPPING: kernel_bindings::vm_operations_struct = kernel_bindings::vm_operations_struct {
        fault: Some(Self::fault),
        ..pin_init::zeroed()
    };

    /// Drops the object when the last reference to the file is gone.
    ///
    /// # Safety
    ///
    /// `file` must be valid, have been made by [`install`] for a `T`, and be about to be freed.
    unsafe extern "C" fn release(
        _inode: *mut kernel_bindings::inode,
        file: *mut kernel_bindings::file,
    ) -> i32 {
        // SAFETY: The release call of a file owns the private data.
        let data = unsafe { (*file).private_data };
        // SAFETY: `install` put a `T::Pointer` there, which this call owns.
        T::closed(unsafe { <T::Pointer as ForeignOwnable>::borrow(data) });
        // SAFETY: `install` put a `T::Pointer` there, and nobody borrows it any more.
        drop(unsafe { <T::Pointer as ForeignOwnable>::from_foreign(data) });
        0
    }

    /// Passes an ioctl on to the object.
    ///
    /// # Safety
    ///
    /// `file` must be open and have been made by [`install`] for a `T`.
    unsafe extern "C" fn ioctl(
        file: *mut kernel_bindings::file,
        command: c_uint,
        argument: c_ulong,
    ) -> c_long {
        // SAFETY: The private data does not change while the file is open.
        let data = unsafe { (*file).private_data };
        // SAFETY: `install` put a `T::Pointer` there, and the open file keeps it.
        let this = unsafe { <T::Pointer as ForeignOwnable>::borrow(data) };
        match T::ioctl(this, command, argument) {
            Ok(value) => value as c_long,
            Err(error) => error.to_errno() as c_long,
        }
    }

    /// Has the object answer a read.
    ///
    /// # Safety
    ///
    /// `file` must be valid and have been made by [`install`] for a `T`, `offset` be the caller's to
    /// change.
    unsafe extern "C" fn read(
        file: *mut kernel_bindings::file,
        buffer: *mut c_char,
        size: usize,
        offset: *mut kernel_bindings::loff_t,
    ) -> isize {
        // SAFETY: The private data does not change while the file is open.
        let data = unsafe { (*file).private_data };
        // SAFETY: `install` put a `T::Pointer` there, and the open file keeps it.
        let this = unsafe { <T::Pointer as ForeignOwnable>::borrow(data) };
        // SAFETY: The caller gives its own offset.
        let position = unsafe { &mut *offset };
        let Ok(start) = u64::try_from(*position) else {
            return EINVAL.to_errno() as isize;
        };
        match T::read(this, start, buffer.addr(), size) {
            // CAST: Both are sizes of what is in memory.
            Ok(count) => {
                *position = position.saturating_add(count as i64);
                count as isize
            }
            Err(error) => error.to_errno() as isize,
        }
    }

    /// Has the faults of a new mapping answered by the object.
    ///
    /// # Safety
    ///
    /// `area` must be valid and not yet be visible to others; its file must have been made by
    /// [`install`] for a `T`.
    unsafe extern "C" fn mmap(
        file: *mut kernel_bindings::file,
        area: *mut kernel_bindings::vm_area_struct,
    ) -> i32 {
        let (mut first, mut count) = (0, 0);
        // SAFETY: The area is valid, and so are the references.
        let shared_data =
            unsafe { bindings::kvm_rs_area_is_shared_data(area, &mut first, &mut count) };
        // SAFETY: The private data does not change while the file is open.
        let data = unsafe { (*file).private_data };
        // SAFETY: `install` put a `T::Pointer` there, and the open file keeps it.
        let this = unsafe { <T::Pointer as ForeignOwnable>::borrow(data) };
        if !T::may_map(this, first, count, shared_data) {
            return EINVAL.to_errno();
        }
        // SAFETY: The area is being set up by the caller and nobody else sees it.
        unsafe { (*area).vm_ops = &raw const *Self::mapping() };
        0
    }

    const fn mapping() -> &'static kernel_bindings::vm_operations_struct {
        &Self::MAPPING
    }

    /// Maps the object's page that a fault asks for.
    ///
    /// # Safety
    ///
    /// `fault` must be valid, in an area that [`Operations::mmap`] set up.
    unsafe extern "C" fn fault(
        fault: *mut kernel_bindings::vm_fault,
    ) -> kernel_bindings::vm_fault_t {
        // SAFETY: The fault is valid for the duration of the call, and its area holds the file.
        let file = unsafe { bindings::kvm_rs_fault_file(fault) };
        // SAFETY: As above.
        let index = unsafe { bindings::kvm_rs_fault_pgoff(fault) };
        // SAFETY: The area's file stays open, with its private data.
        let data = unsafe { (*file).private_data };
        // SAFETY: `install` put a `T::Pointer` there.
        let this = unsafe { <T::Pointer as ForeignOwnable>::borrow(data) };
        match T::page(this, index) {
            Some(MappedPage(address)) => {
                // SAFETY: `page` gives a page that lives as long as the file.
                unsafe { bindings::kvm_rs_fault_install(fault, address.as_ptr().cast()) };
                0
            }
            None => kernel_bindings::vm_fault_reason_VM_FAULT_SIGBUS,
        }
    }
}

/// Opens a file for `object` in the current process, with this name in /proc.
///
/// Returns the new file descriptor, which is closed on exec.
pub(crate) fn install<T: FileObject>(name: &CStr, object: T::Pointer) -> Result<i32> {
    let data: *mut c_void = object.into_foreign();
    let operations: &'static kernel_bindings::file_operations = &Operations::<T>::FILE;
    let fd = if T::READABLE {
        // SAFETY: The operations are static and know `data`, which is theirs from here on.
        unsafe { bindings::kvm_rs_anon_inode_getfd_pread(name.as_char_ptr(), operations, data) }
    } else {
        // SAFETY: As above.
        unsafe { bindings::kvm_rs_anon_inode_getfd(name.as_char_ptr(), operations, data) }
    };
    if fd < 0 {
        // SAFETY: No file was made, so the pointer is still ours.
        drop(unsafe { <T::Pointer as ForeignOwnable>::from_foreign(data) });
        return Err(Error::from_errno(fd));
    }
    Ok(fd)
}

/// Opens a file in the current process, with this name in /proc, for the object that `make` gives when it
/// is told the number of the file descriptor.
///
/// Returns the file descriptor, which is closed on exec.
pub(crate) fn install_with<T: FileObject>(
    name: &CStr,
    make: impl FnOnce(u32) -> Result<T::Pointer>,
) -> Result<i32> {
    let reservation = FileDescriptorReservation::get_unused_fd_flags(kernel_bindings::O_CLOEXEC)?;
    let fd = reservation.reserved_fd();
    let data: *mut c_void = make(fd)?.into_foreign();
    let operations: &'static kernel_bindings::file_operations = &Operations::<T>::FILE;
    // SAFETY: The operations are static and know `data`, which is theirs from here on.
    let file = unsafe { bindings::kvm_rs_anon_inode_getfile(name.as_char_ptr(), operations, data) };
    let file = from_err_ptr(file).and_then(|file| NonNull::new(file).ok_or(ENOMEM));
    let file = match file {
        Ok(file) => file,
        Err(error) => {
            // SAFETY: No file was made, so the pointer is still ours.
            drop(unsafe { <T::Pointer as ForeignOwnable>::from_foreign(data) });
            return Err(error);
        }
    };
    // SAFETY: The reference to the new file is ours, and nobody has its position locked.
    reservation.fd_install(unsafe { ARef::from_raw(file.cast::<File>()) });
    // CAST: File descriptors are not negative.
    Ok(fd as i32)
}
