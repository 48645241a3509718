// SPDX-License-Identifier: GPL-2.0

//! MMU notifiers: hearing of changes to the page tables of a process.
//!
//! C header: `include/linux/mmu_notifier.h`

use crate::{
    bindings,
    x86::addr::Hva, //
};
use kernel::{
    container_of,
    error::{
        from_result,
        to_result, //
    },
    prelude::*,
    sync::Arc,
    types::Opaque, //
};

use core::mem::MaybeUninit;

/// A range of a process's address space that a callback is about.
#[derive(Clone, Copy)]
pub(crate) struct Range {
    /// First address.
    pub(crate) start: Hva,
    /// First address past the range, above `start`.
    pub(crate) end: Hva,
    /// Whether the callback may sleep.
    pub(crate) blockable: bool,
}

/// What is done when the process's page tables change.
///
/// Callbacks come from any thread, with locks of memory management held. They must not allocate
/// memory in ways that wait for reclaim, nor take a lock under which user memory is touched.
pub(crate) trait Operations: Send + Sync + 'static {
    /// Forgets all translations of `range` before the process's own are changed.
    ///
    /// On return, nothing may use the old translations, and none may be made before the matching
    /// [`Self::invalidate_range_end`].
    fn invalidate_range_start(&self, range: &Range) -> Result;

    /// Allows translations of `range` again: the process's page tables have changed.
    fn invalidate_range_end(&self, range: &Range);

    /// Returns whether a page of `start..end` was used since this was last asked, and takes note of
    /// uses anew. Uses may go unnoticed for a while after. Must not sleep.
    fn age(&self, start: Hva, end: Hva) -> bool;

    /// Returns whether the page at `address` was used since [`Self::age`] was last called for it.
    /// Must not sleep.
    fn is_young(&self, address: Hva) -> bool;

    /// Forgets all translations: the address space goes, or the registration does.
    fn release(&self);
}

/// A registration of `T` on the address space of the process that made it.
///
/// Dropping it unregisters, and waits until no callback runs.
///
/// # Invariants
///
/// `notifier` is registered, with the operations of [`Vtable`] for this `T`.
#[pin_data(PinnedDrop)]
pub(crate) struct Registration<T: Operations> {
    #[pin]
    notifier: Opaque<bindings::mmu_notifier>,
    target: Arc<T>,
}

// SAFETY: Unregistering may happen on any thread, and `T` may be sent and shared.
unsafe impl<T: Operations> Send for Registration<T> {}
// SAFETY: Nothing can be done to a registration through `&` that needs exclusion.
unsafe impl<T: Operations> Sync for Registration<T> {}

impl<T: Operations> Registration<T> {
    /// Returns an initialiser that registers `target` on the address space of the calling process.
    ///
    /// Callbacks can come before it returns. Takes the mmap lock: call it with no lock of memory
    /// management held. Fails with `ESRCH` for a kernel thread and with `ENOMEM` or `EINTR`.
    pub(crate) fn new(target: Arc<T>) -> impl PinInit<Self, Error> {
        try_pin_init!(Self {
            // The callbacks use `target`, so it is in its place before the registration.
            target: target,
            // INVARIANT: On success, the notifier is registered with this type's operations.
            notifier <- Opaque::try_ffi_init(|notifier: *mut bindings::mmu_notifier| {
                // SAFETY: `notifier` points to memory for a `struct mmu_notifier`, for which all
                // zeroes is a valid state before registration.
                unsafe { notifier.write_bytes(0, 1) };
                // SAFETY: `notifier` is valid for writes, as above.
                unsafe { (*notifier).ops = Vtable::<T>::build() };
                // SAFETY: The notifier has its operations, stays pinned until the drop
                // unregisters it, and the operations are static.
                to_result(unsafe { bindings::kvm_rs_mmu_notifier_register(notifier) })
            }),
        })
    }

    /// Returns whether the registration is on the address space of the calling thread.
    pub(crate) fn is_of_current(&self) -> bool {
        // SAFETY: By the type invariant, the notifier is registered.
        unsafe { bindings::kvm_rs_mmu_notifier_of_current(self.notifier.get()) }
    }
}

#[pinned_drop]
impl<T: Operations> PinnedDrop for Registration<T> {
    fn drop(self: Pin<&mut Self>) {
        // SAFETY: By the type invariant, the notifier is registered; registering took a reference
        // to the address space, which lasts until this call.
        unsafe { bindings::kvm_rs_mmu_notifier_unregister(self.notifier.get()) };
    }
}

/// The C callbacks for a `T`.
struct Vtable<T: Operations>(core::marker::PhantomData<T>);

impl<T: Operations> Vtable<T> {
    /// Returns the object whose registration `notifier` is.
    ///
    /// # Safety
    ///
    /// `notifier` must be that of a [`Registration<T>`] which is not dropped during `'a`.
    unsafe fn target<'a>(notifier: *mut bindings::mmu_notifier) -> &'a T {
        let inner = Opaque::cast_from(notifier);
        // SAFETY: By this function's contract, the notifier is that field of a registration.
        let registration = unsafe { container_of!(inner, Registration<T>, notifier) };
        // SAFETY: The registration is alive by this function's contract, and `target` was written
        // before it was registered. Only this field is borrowed.
        unsafe { &(*registration).target }
    }

    /// # Safety
    ///
    /// Called by the MMU-notifier core only, for a registered [`Registration<T>`].
    unsafe extern "C" fn invalidate_range_start(
        notifier: *mut bindings::mmu_notifier,
        range: *const bindings::mmu_notifier_range,
    ) -> c_int {
        // SAFETY: The core calls this for a registration, and unregistering waits for it.
        let target = unsafe { Self::target(notifier) };
        // SAFETY: The core passes a valid range.
        let range = unsafe { Self::range(range) };
        from_result(|| target.invalidate_range_start(&range).map(|()| 0))
    }

    /// # Safety
    ///
    /// Called by the MMU-notifier core only, for a registered [`Registration<T>`].
    unsafe extern "C" fn invalidate_range_end(
        notifier: *mut bindings::mmu_notifier,
        range: *const bindings::mmu_notifier_range,
    ) {
        // SAFETY: The core calls this for a registration, and unregistering waits for it.
        let target = unsafe { Self::target(notifier) };
        // SAFETY: The core passes a valid range.
        let range = unsafe { Self::range(range) };
        target.invalidate_range_end(&range);
    }

    /// # Safety
    ///
    /// Called by the MMU-notifier core only, for a registered [`Registration<T>`].
    unsafe extern "C" fn release(
        notifier: *mut bindings::mmu_notifier,
        _mm: *mut kernel::bindings::mm_struct,
    ) {
        // SAFETY: The core calls this for a registration, and unregistering waits for it.
        unsafe { Self::target(notifier) }.release();
    }

    /// Serves `clear_young` and `clear_flush_young`, which differ in whether processors may keep
    /// what they have cached. As on x86 in general, they may.
    ///
    /// # Safety
    ///
    /// Called by the MMU-notifier core only, for a registered [`Registration<T>`].
    unsafe extern "C" fn clear_young(
        notifier: *mut bindings::mmu_notifier,
        _mm: *mut kernel::bindings::mm_struct,
        start: c_ulong,
        end: c_ulong,
    ) -> bool {
        // SAFETY: The core calls this for a registration, and unregistering waits for it.
        let target = unsafe { Self::target(notifier) };
        target.age(Hva::new(start as u64), Hva::new(end as u64))
    }

    /// # Safety
    ///
    /// Called by the MMU-notifier core only, for a registered [`Registration<T>`].
    unsafe extern "C" fn test_young(
        notifier: *mut bindings::mmu_notifier,
        _mm: *mut kernel::bindings::mm_struct,
        address: c_ulong,
    ) -> bool {
        // SAFETY: The core calls this for a registration, and unregistering waits for it.
        let target = unsafe { Self::target(notifier) };
        target.is_young(Hva::new(address as u64))
    }

    /// Returns the Rust form of a range.
    ///
    /// # Safety
    ///
    /// `range` must point to a valid range.
    unsafe fn range(range: *const bindings::mmu_notifier_range) -> Range {
        // SAFETY: By this function's contract.
        let blockable = unsafe { bindings::kvm_rs_mmu_notifier_blockable(range) };
        // SAFETY: By this function's contract.
        let range = unsafe { &*range };
        Range {
            start: Hva::new(range.start as u64),
            end: Hva::new(range.end as u64),
            blockable,
        }
    }

    /// The operations, all others absent.
    const OPERATIONS: bindings::mmu_notifier_ops = bindings::mmu_notifier_ops {
        invalidate_range_start: Some(Self::invalidate_range_start),
        invalidate_range_end: Some(Self::invalidate_range_end),
        clear_flush_young: Some(Self::clear_young),
        clear_young: Some(Self::clear_young),
        test_young: Some(Self::test_young),
        release: Some(Self::release),
        // SAFETY: All members are optional function pointers, for which zero is `None`.
        ..unsafe { MaybeUninit::zeroed().assume_init() }
    };

    /// Returns the static operations.
    const fn build() -> &'static bindings::mmu_notifier_ops {
        &Self::OPERATIONS
    }
}
