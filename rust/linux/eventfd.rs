// SPDX-License-Identifier: GPL-2.0

//! Eventfds: counters behind a file descriptor, by which user space and the kernel wake one another.
//!
//! C header: `include/linux/eventfd.h`

pub(crate) mod watch;

use crate::bindings;
use core::ptr::NonNull;
use kernel::{
    error::from_err_ptr,
    prelude::*, //
};

/// A counted reference to an eventfd, which lives on after its files are closed.
///
/// # Invariants
///
/// The pointer is to an eventfd's context, and this object holds a count of it.
pub(crate) struct EventFd(NonNull<bindings::eventfd_ctx>);

// SAFETY: The count is atomic, and the context has its own lock.
unsafe impl Send for EventFd {}
// SAFETY: As above.
unsafe impl Sync for EventFd {}

impl EventFd {
    /// Returns the eventfd behind a descriptor of the current process.
    ///
    /// `EBADF` for a descriptor that is not open, `EINVAL` for one of another kind.
    pub(crate) fn from_fd(fd: i32) -> Result<Self> {
        // SAFETY: Any number may be asked for.
        let context = from_err_ptr(unsafe { bindings::eventfd_ctx_fdget(fd) })?;
        // INVARIANT: The call returned a counted context.
        NonNull::new(context).map(Self).ok_or(EINVAL)
    }

    /// Adds one to the counter, and wakes who waits. Any context, but not from a call of a
    /// [`Watch`](watch::Watch).
    #[inline]
    pub(crate) fn signal(&self) {
        // SAFETY: By the type invariant, the context is valid.
        unsafe { bindings::eventfd_signal_mask(self.0.as_ptr(), 0) };
    }

    /// Returns whether both are the same eventfd.
    pub(crate) fn is(&self, other: &Self) -> bool {
        self.0 == other.0
    }
}

impl Drop for EventFd {
    fn drop(&mut self) {
        // SAFETY: By the type invariant, this object holds a count, which is given up here.
        unsafe { bindings::eventfd_ctx_put(self.0.as_ptr()) };
    }
}
