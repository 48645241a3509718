// SPDX-License-Identifier: GPL-2.0

//! Being in VMX operation: on every CPU while the module is loaded, shared with kvm_intel.
//!
//! Core x86 owns VMXON and VMXOFF and counts its users on each CPU. This file takes one such count on
//! each CPU that is or comes online, and gives it back when the CPU goes offline, at unload, and when
//! the system goes down, since the firmware cannot start a CPU that blocks INIT.
//!
//! How a CPU leaves VMX operation:
//!
//! | on the way to                      | called here              | by                                 |
//! |------------------------------------|--------------------------|------------------------------------|
//! | the CPU's end, suspend             | `offline`, `suspend`     | that CPU, which runs no vCPU       |
//! | a reboot or kexec that was ordered | `shutdown`, on each CPU  | a call, beside threads that run on |
//! | a crash, a restart in an emergency | `emergency`, on each CPU | an interrupt or an NMI, the last   |
//!
//! The last is core x86's only callback of that kind. While kvm_intel is loaded, it has it.

use crate::bindings;
use core::{
    ffi::c_void,
    ptr, //
};
use kernel::{
    prelude::*,
    sync::atomic::{
        Atomic,
        Relaxed, //
    },
    types::Opaque, //
};

/// What must happen on a CPU before it leaves VMX operation.
pub(crate) trait CpuExit {
    /// Called before the first CPU leaves on the way to a reboot or to another kernel.
    fn going_down();

    /// Makes every VMCS that is active on this CPU inactive, and returns how many were.
    ///
    /// Called on that CPU when it goes offline, when the system is suspended or goes down.
    fn leave_cpu(cpu: u32) -> u32;

    /// Does the same where all else has failed; returns how many VMCSs there were.
    ///
    /// Called on each CPU with interrupts off, maybe in an NMI, after which no thread runs there.
    fn emergency() -> u32;
}

/// Per-CPU flags: whether this module counts as a user of VMX on the CPU.
///
/// Each is changed only on its own CPU.
static ENABLED: [Atomic<bool>; MAX_CPUS] = [const { Atomic::new(false) }; MAX_CPUS];

/// How many VMCSs were cleared where CPUs left VMX operation.
static CLEARED: Atomic<u32> = Atomic::new(0);

/// The largest number of CPUs a kernel can be configured for.
const MAX_CPUS: usize = kernel::bindings::NR_CPUS as usize;

/// VMX operation on all CPUs, for as long as it exists.
#[pin_data(PinnedDrop)]
pub(crate) struct Virtualization<T: CpuExit> {
    emergency: Emergency,
    state: i32,
    #[pin]
    syscore: Opaque<bindings::syscore>,
    _exit: core::marker::PhantomData<fn() -> T>,
}

// SAFETY: It holds a registration that may be undone from any thread.
unsafe impl<T: CpuExit> Send for Virtualization<T> {}
// SAFETY: It has no methods on `&self`.
unsafe impl<T: CpuExit> Sync for Virtualization<T> {}

extern "C" fn online(cpu: u32) -> i32 {
    // SAFETY: Runs on the CPU that comes up, as x86_virt_get_ref() asks.
    let ret = unsafe { bindings::kvm_rs_virt_get() };
    if ret == 0 {
        if let Some(flag) = ENABLED.get(cpu as usize) {
            flag.store(true, Relaxed);
        }
    }
    ret
}

fn leave<T: CpuExit>(cpu: u32) {
    let Some(flag) = ENABLED.get(cpu as usize) else {
        return;
    };
    if flag.load(Relaxed) {
        flag.store(false, Relaxed);
        CLEARED.fetch_add(T::leave_cpu(cpu), Relaxed);
        // SAFETY: The flag told that `online` took a reference on this CPU that was not yet given
        // back, and all VMCSs of ours are inactive here.
        unsafe { bindings::kvm_rs_virt_put() };
    }
}

extern "C" fn offline<T: CpuExit>(cpu: u32) -> i32 {
    leave::<T>(cpu);
    0
}

extern "C" fn leave_this_cpu<T: CpuExit>(_data: *mut c_void) {
    // SAFETY: Called with interrupts off, so the CPU does not change.
    leave::<T>(unsafe { bindings::kvm_rs_this_cpu() });
}

extern "C" fn shutdown<T: CpuExit>(_data: *mut c_void) {
    T::going_down();
    CLEARED.store(0, Relaxed);
    // SAFETY: The function is called on each CPU with interrupts off and does not sleep.
    unsafe { bindings::kvm_rs_on_each_cpu(Some(leave_this_cpu::<T>)) };
    pr_info!("{} VMCSs cleared on the way down\n", CLEARED.load(Relaxed));
}

extern "C" fn emergency<T: CpuExit>() {
    let cleared = T::emergency();
    pr_info!("{} VMCSs cleared in an emergency\n", cleared);
}

extern "C" fn suspend<T: CpuExit>(_data: *mut c_void) -> i32 {
    // SAFETY: Only the boot CPU is left, with interrupts off.
    leave::<T>(unsafe { bindings::kvm_rs_this_cpu() });
    0
}

extern "C" fn resume(_data: *mut c_void) {
    // SAFETY: Only the boot CPU is there, with interrupts off.
    let cpu = unsafe { bindings::kvm_rs_this_cpu() };
    if online(cpu) != 0 {
        pr_err!("VMX could not be enabled again on CPU {}\n", cpu);
    }
}

/// The registration of [`emergency`].
struct Emergency(());

impl Emergency {
    /// Has [`emergency`] called for as long as the value exists.
    fn new<T: CpuExit>() -> Result<Self> {
        // SAFETY: The function is unregistered in `drop`, which waits until no call runs.
        let ret = unsafe { bindings::kvm_rs_emergency_register(Some(emergency::<T>)) };
        kernel::error::to_result(ret)?;
        Ok(Self(()))
    }
}

impl Drop for Emergency {
    fn drop(&mut self) {
        // SAFETY: It was registered by `new`.
        unsafe { bindings::kvm_rs_emergency_unregister() };
    }
}

/// Gives each `T` its syscore operations.
struct Operations<T>(core::marker::PhantomData<T>);

impl<T: CpuExit> Operations<T> {
    const TABLE: bindings::syscore_ops = bindings::syscore_ops {
        suspend: Some(suspend::<T>),
        resume: Some(resume),
        shutdown: Some(shutdown::<T>),
    };
}

impl<T: CpuExit> Virtualization<T> {
    /// Returns an initialiser that puts all CPUs into VMX operation.
    ///
    /// Fails with `EBUSY` if something else than the kernel's own users did VMXON, or if the system is
    /// going down.
    pub(crate) fn new() -> impl PinInit<Self, Error> {
        try_pin_init!(Self {
            syscore <- Opaque::ffi_init(|slot: *mut bindings::syscore| {
                let table: &'static bindings::syscore_ops = &Operations::<T>::TABLE;
                // SAFETY: `slot` is memory for a `struct syscore` that stays where it is.
                unsafe { (&raw mut (*slot).ops).write(table) };
                // SAFETY: As above.
                unsafe { (&raw mut (*slot).data).write(ptr::null_mut()) };
            }),
            emergency: Emergency::new::<T>()?,
            state: {
                // SAFETY: Both functions stay until the state is removed in `drop`.
                let state = unsafe {
                    bindings::kvm_rs_hotplug_register(
                        c"virt/kvm-rs:online".as_char_ptr(),
                        Some(online),
                        Some(offline::<T>),
                    )
                };
                if state < 0 {
                    return Err(Error::from_errno(state));
                }
                // SAFETY: It is initialised above, pinned, and unregistered in `drop`.
                unsafe { bindings::register_syscore(syscore.get()) };
                state
            },
            _exit: core::marker::PhantomData,
        })
    }

    /// Returns `EBUSY` if the system went down before the registration could notice.
    pub(crate) fn check(&self) -> Result {
        // SAFETY: Reading the system's state has no preconditions.
        if unsafe { bindings::kvm_rs_system_is_going_down() } {
            Err(EBUSY)
        } else {
            Ok(())
        }
    }
}

#[pinned_drop]
impl<T: CpuExit> PinnedDrop for Virtualization<T> {
    fn drop(self: Pin<&mut Self>) {
        // SAFETY: It was registered by `new`.
        unsafe { bindings::unregister_syscore(self.syscore.get()) };
        // SAFETY: `state` was returned by the registration in `new`.
        unsafe { bindings::kvm_rs_hotplug_unregister(self.state) };
    }
}
