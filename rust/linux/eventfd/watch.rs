// SPDX-License-Identifier: GPL-2.0

//! Watching an eventfd: taking what is written to it in the writer's context, before anyone who polls
//! or reads.
//!
//! ```text
//!   watched --- last file closed --> closed()   (the owner is to drop the watch, later)
//!      |                                |
//!      +---------- dropped -------------+--> no more calls
//! ```

use super::EventFd;
use crate::bindings;
use core::{
    pin::Pin,
    ptr::NonNull, //
};
use kernel::{
    container_of,
    error::{
        from_err_ptr,
        to_result, //
    },
    fs::LocalFile,
    prelude::*,
    sync::aref::ARef,
    types::Opaque, //
};

/// An open file of an eventfd. Holding one keeps the eventfd from closing.
///
/// # Invariants
///
/// The file is one of an eventfd.
pub(crate) struct EventFile(ARef<LocalFile>);

impl EventFile {
    /// Returns the file behind a descriptor of the current process; fails as [`EventFd::from_fd`].
    pub(crate) fn from_fd(fd: i32) -> Result<Self> {
        // CAST: As in the kernel, a negative number is one that is not open.
        let file = LocalFile::fget(fd as u32).map_err(|_| EBADF)?;
        // SAFETY: The file is valid, as long as `file` is.
        let context = unsafe { bindings::eventfd_ctx_fileget(file.as_ptr()) };
        // INVARIANT: The call returned a counted context.
        let _eventfd = NonNull::new(from_err_ptr(context)?)
            .map(EventFd)
            .ok_or(EINVAL)?;
        // INVARIANT: So it is one of an eventfd.
        Ok(Self(file))
    }
}

/// What is done when something happens to an eventfd that is watched.
///
/// Calls come in any context, with interrupts off and the eventfd's lock held: the target must not
/// sleep, and must neither signal an eventfd nor end the watch.
pub(crate) trait Target: Send + Sync {
    /// The eventfd was written to. Its counter is 0 again.
    fn signalled(&self);

    /// The eventfd's last file is closed: nothing will be written to it any more.
    fn closed(&self);
}

/// The only watch of an eventfd, which tells a `T`. It ends when dropped.
///
/// # Invariants
///
/// `raw` was begun by `kvm_rs_eventfd_watch` with the operations for this `T`, and lies in a pinned
/// `Watch<T>`.
#[pin_data(PinnedDrop)]
pub(crate) struct Watch<T: Target> {
    #[pin]
    raw: Opaque<bindings::kvm_rs_eventfd_watch>,
    #[pin]
    target: T,
}

// SAFETY: A watch may end on any thread, and `T` may be sent.
unsafe impl<T: Target> Send for Watch<T> {}
// SAFETY: Nothing is done through `&` but to use `T`, which may be shared.
unsafe impl<T: Target> Sync for Watch<T> {}

impl<T: Target> Watch<T> {
    const OPERATIONS: bindings::kvm_rs_eventfd_watch_ops = bindings::kvm_rs_eventfd_watch_ops {
        signalled: Some(Self::signalled),
        closed: Some(Self::closed),
    };

    const fn operations() -> &'static bindings::kvm_rs_eventfd_watch_ops {
        &Self::OPERATIONS
    }

    /// Returns an initialiser that watches the eventfd of `file`.
    ///
    /// Calls can come before it returns, but not that the eventfd is closed. `EBUSY` if it is
    /// watched already.
    pub(crate) fn new<'a>(
        file: &'a EventFile,
        target: impl PinInit<T> + 'a,
    ) -> impl PinInit<Self, Error> + 'a
    where
        T: 'static,
    {
        try_pin_init!(Self {
            // The calls use it, so it is in its place first.
            target <- target,
            // INVARIANT: On success, the watch is begun, in its final place.
            raw <- Opaque::try_ffi_init(|raw| {
                // SAFETY: `raw` is memory for a watch that stays where it is until it is dropped,
                // the file is valid, and the operations are static.
                to_result(unsafe {
                    bindings::kvm_rs_eventfd_watch(raw, file.0.as_ptr(), Self::operations())
                })
            }),
        })
    }

    /// Returns whom the watch tells.
    pub(crate) fn target(&self) -> &T {
        &self.target
    }

    /// Returns whether it is that eventfd that is watched.
    pub(crate) fn is_of(&self, eventfd: &EventFd) -> bool {
        // SAFETY: By the type invariant, the watch is set up.
        let watched = unsafe { (*self.raw.get()).eventfd };
        watched == eventfd.0.as_ptr()
    }

    /// Returns whether the counter was not 0 when the watch began. It was left so, and not told.
    pub(crate) fn was_pending(&self) -> bool {
        // SAFETY: By the type invariant, the watch is set up.
        unsafe { (*self.raw.get()).pending }
    }

    /// Returns whom a call is for.
    ///
    /// # Safety
    ///
    /// `raw` must be that of a pinned `Watch<T>`, which is valid for `'a`.
    unsafe fn of<'a>(raw: *mut bindings::kvm_rs_eventfd_watch) -> &'a T {
        let raw = Opaque::cast_from(raw).cast_mut();
        // SAFETY: By this function's contract, `raw` lies in a `Watch<T>`.
        let watch = unsafe { container_of!(raw, Self, raw) };
        // SAFETY: The target is in its place before the watch begins, and is only shared until it
        // has ended.
        unsafe { &(*watch).target }
    }

    /// # Safety
    ///
    /// To be called by the shim only, with the `raw` of a `Watch<T>`.
    unsafe extern "C" fn signalled(raw: *mut bindings::kvm_rs_eventfd_watch) {
        // SAFETY: By this function's contract; ending the watch waits for this call.
        unsafe { Self::of(raw) }.signalled();
    }

    /// # Safety
    ///
    /// As for `signalled`.
    unsafe extern "C" fn closed(raw: *mut bindings::kvm_rs_eventfd_watch) {
        // SAFETY: As in `signalled`.
        unsafe { Self::of(raw) }.closed();
    }
}

#[pinned_drop]
impl<T: Target> PinnedDrop for Watch<T> {
    fn drop(self: Pin<&mut Self>) {
        // SAFETY: By the type invariant, the watch was begun; it is ended here only.
        unsafe { bindings::kvm_rs_eventfd_unwatch(self.raw.get()) };
    }
}
