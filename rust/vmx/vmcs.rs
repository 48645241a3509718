// SPDX-License-Identifier: GPL-2.0

//! The virtual-machine control structure: its memory, and which CPU holds it.
//!
//! A VMCS may be *active* on one CPU at a time, which may cache it; one of a CPU's active VMCSs is
//! *current*, and VMREAD, VMWRITE and VM entry act on that one. So a VMCS moves like this:
//!
//! ```text
//!            VMPTRLD on B                    VMPTRLD of another on B
//!   clear ----------------> current on B <-----------------------------> active on B
//!     ^                          |                  VMPTRLD                  |
//!     +--------------------------+-------------------------------------------+
//!             VMCLEAR, executed on B: by call, offline, suspend or shutdown
//! ```
//!
//! [`Vmcs::make_current`] is the only way to a [`CurrentVmcs`], the proof that fields can be accessed.
//!
//! # Beside kvm_intel
//!
//! kvm_intel remembers which of its VMCSs it made current on a CPU, and does not look again. So this
//! module, which may run between two of its accesses, puts back what it found: [`Vmcs::make_current`]
//! asks the CPU (VMPTRST) and trusts no memory of its own, and a [`CurrentVmcs`] that displaced another
//! module's VMCS makes that one current again when it is dropped. Meanwhile interrupts are off, because
//! a call from another CPU may clear and free the VMCS that waits to be put back;
//! [`CurrentVmcs::lend`] returns it for as long as interrupts must be taken.
//!
//! # On the way down
//!
//! Before a CPU leaves VMX operation it clears the VMCSs in its list, since it could write what it caches
//! of them over the memory of whatever kernel comes next. Once the system goes down, no VMCS becomes
//! active again: threads that still run find none current, and every VMX instruction fails.

use super::{
    field::{
        Access,
        Field,
        ReadWrite,
        Value, //
    },
    instruction, //
};
use crate::{
    linux::{
        cpu_call::call_on_cpu,
        per_cpu::{
            self,
            Link, //
        },
        preempt::{
            with_irqs_off,
            IrqGuard,
            PreemptGuard, //
        }, //
    },
    x86::addr::Hpa, //
};
use core::cell::Cell;
use kernel::{
    page::PAGE_SIZE,
    prelude::*,
    sync::{
        atomic::{
            Acquire,
            Atomic,
            Full,
            Relaxed,
            Release, //
        },
        Arc, //
    }, //
};

/// No CPU.
const NOWHERE: i32 = -1;

/// The address of no VMCS.
const NONE: u64 = u64::MAX;

/// A page of memory in the layout of a VMCS region.
#[repr(C, align(4096))]
struct Region {
    revision: u32,
    abort_indicator: u32,
    data: [u8; PAGE_SIZE - 8],
}

/// The region and its whereabouts, shared with the CPU that holds it.
struct Shared {
    region: KBox<Region>,
    address: Hpa,
    /// The CPU on which it is active, or [`NOWHERE`]. Set by the vCPU's thread on that CPU, reset by
    /// that CPU with interrupts off.
    cpu: Atomic<i32>,
    /// Whether the next entry is VMRESUME. Changed only on the CPU that holds the VMCS.
    launched: Atomic<bool>,
    /// Its place in the list of that CPU.
    link: Link,
    witness: Witness,
}

/// What CPUs were told of a VMCS, instruction by instruction; in debug builds only.
///
/// CPUs do not say so when a VMCS is active on two of them, and the emulated one never minds. What
/// [`Shared`] says of the VMCS is what this module believes; a witness compares it with what was done.
struct Witness {
    /// The CPU that executed the last VMPTRLD, or [`NOWHERE`] after a VMCLEAR.
    active: Atomic<i32>,
    /// Whether VMLAUNCH succeeded since the last VMCLEAR.
    launched: Atomic<bool>,
}

impl Witness {
    /// Whether there are witnesses.
    const ON: bool = cfg!(CONFIG_RUST_DEBUG_ASSERTIONS);

    const fn new() -> Self {
        Self {
            active: Atomic::new(NOWHERE),
            launched: Atomic::new(false),
        }
    }

    /// Looks at a VMPTRLD on `cpu`.
    fn loaded(&self, cpu: u32) {
        if Self::ON {
            // CAST: CPU numbers are small.
            let old = self.active.xchg(cpu as i32, Full);
            kernel::warn_on!(old != NOWHERE && old != cpu as i32);
        }
    }

    /// Looks at a VMCLEAR on `cpu`.
    fn cleared(&self, cpu: u32) {
        if Self::ON {
            self.launched.store(false, Relaxed);
            let old = self.active.xchg(NOWHERE, Full);
            // CAST: CPU numbers are small.
            kernel::warn_on!(old != NOWHERE && old != cpu as i32);
        }
    }

    /// Looks at an access to a field, or an entry, on `cpu`.
    #[inline(never)]
    fn accessed(&self, cpu: u32, address: Hpa) {
        if instruction::may_fail() {
            return;
        }
        // CAST: CPU numbers are small.
        kernel::warn_on!(self.active.load(Relaxed) != cpu as i32);
        // SAFETY: The CPU is in VMX operation, as it is wherever a VMCS was loaded.
        let current = unsafe { instruction::vmptrst() };
        // 0 is what an instruction that faulted leaves.
        kernel::warn_on!(current != address.value() && current != 0);
    }

    /// Looks at the choice between VMLAUNCH and VMRESUME.
    fn enters(&self, launched: bool) {
        if Self::ON && !instruction::may_fail() {
            kernel::warn_on!(self.launched.load(Relaxed) != launched);
        }
    }

    /// Looks at the end of the VMCS: no CPU may write its memory any more.
    fn ends(&self) {
        kernel::warn_on!(Self::ON && self.active.load(Relaxed) != NOWHERE);
    }
}

/// Prepares the CPUs' lists.
///
/// # Safety
///
/// Must be called exactly once, at module load, before anything else of this file.
pub(crate) unsafe fn init() {
    // SAFETY: No VMCS exists yet.
    unsafe { per_cpu::init_active_vmcss() };
}

impl Shared {
    /// Makes the VMCS inactive if it is active on `cpu`, which must be this CPU; interrupts are off.
    fn clear_on_this_cpu(&self, cpu: u32) {
        // CAST: CPU numbers are small.
        if self.cpu.load(Relaxed) != cpu as i32 {
            return;
        }
        // SAFETY: The region is a VMCS that is active on this CPU, and its vCPU cannot be entering it:
        // interrupts are off here, and off on entry.
        let result = unsafe { instruction::vmclear(self.address) };
        kernel::warn_on!(result.is_err());
        self.witness.cleared(cpu);
        // SAFETY: It was put into this CPU's list when it became active here, and interrupts are off.
        unsafe { self.link.remove() };
        if per_cpu::current_vmcs() == self.address.value() {
            per_cpu::set_current_vmcs(NONE);
        }
        self.launched.store(false, Relaxed);
        // Whoever sees the VMCS nowhere may load it elsewhere: its data must be in memory by then.
        self.cpu.store(NOWHERE, Release);
    }

    /// Makes the VMCS inactive wherever it is. Interrupts are on, preemption may be off.
    fn clear(&self) {
        let cpu = self.cpu.load(Acquire);
        if cpu == NOWHERE {
            return;
        }
        // CAST: Not negative, as it is somewhere.
        let cpu = cpu as u32;
        // If the CPU is offline by now, it has cleared the VMCS when it went.
        let _ = call_on_cpu(cpu, &|| self.clear_on_this_cpu(cpu));
    }
}

/// Makes every VMCS that is active on `cpu`, which must be this CPU, inactive; returns how many were.
pub(crate) fn clear_all_on(cpu: u32) -> u32 {
    let mut count = 0;
    with_irqs_off(|| {
        per_cpu::for_each_active_vmcs(|link| {
            // SAFETY: The links in the list are those of `Shared`, which are cleared, and so taken out
            // of the list, before they end.
            let shared = unsafe { &*kernel::container_of!(link, Shared, link) };
            shared.clear_on_this_cpu(cpu);
            count += 1;
        })
    });
    count
}

/// From now on, no VMCS becomes active on any CPU.
///
/// [`clear_all_on`] each CPU must follow. Threads that run on find that no VMCS is current.
pub(crate) fn stop() {
    instruction::let_fail();
}

/// Executes VMCLEAR on all VMCSs that are active on this CPU, which leaves VMX operation and will not run
/// any thread again; returns how many there are.
///
/// May interrupt anything on this CPU, and changes nothing that it may have interrupted the change of.
pub(crate) fn emergency_clear() -> u32 {
    instruction::let_fail();
    let mut count = 0;
    per_cpu::for_each_active_vmcs(|link| {
        // SAFETY: As in `clear_all_on`; an NMI finds the list whole.
        let shared = unsafe { &*kernel::container_of!(link, Shared, link) };
        // SAFETY: The VMCS is active on this CPU, or was about to be. Whoever was to use it will not run
        // again.
        let _ = unsafe { instruction::vmclear(shared.address) };
        count += 1;
    });
    count
}

/// What [`Vmcs::make_current`] did.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Load {
    /// The VMCS was on this CPU already.
    Stayed,
    /// It came from another CPU, or from nowhere: host state and cached translations are not this
    /// CPU's.
    Moved,
}

/// A VMCS.
pub(crate) struct Vmcs {
    shared: Arc<Shared>,
}

impl Vmcs {
    /// Returns a clear VMCS with this revision identifier.
    pub(crate) fn new(revision: u32) -> Result<Self> {
        let mut region = KBox::<Region>::init(
            pin_init::init!(Region {
                revision: revision,
                abort_indicator: 0,
                data <- pin_init::init_zeroed(),
            }),
            GFP_KERNEL_ACCOUNT,
        )?;
        let address = crate::linux::page::physical_address(&raw mut *region);
        let shared = Arc::new(
            Shared {
                region,
                address,
                cpu: Atomic::new(NOWHERE),
                launched: Atomic::new(false),
                link: Link::new(),
                witness: Witness::new(),
            },
            GFP_KERNEL,
        )?;
        // A region must be cleared once before its first VMPTRLD. That writes no CPU state, so any
        // CPU in VMX operation will do.
        {
            let _preempt = PreemptGuard::new();
            // SAFETY: The region is new, the CPU is in VMX operation while the module is loaded.
            unsafe { instruction::vmclear(address) }.map_err(|_| EIO)?;
        }
        Ok(Self { shared })
    }

    /// Makes this VMCS the current one of the CPU that `preempt` holds us on.
    ///
    /// Interrupts must be on: a VMCS that is active on another CPU is cleared by a call to it.
    #[inline(always)]
    pub(crate) fn make_current<'a>(&'a self, preempt: &'a PreemptGuard) -> (CurrentVmcs<'a>, Load) {
        let cpu = preempt.cpu();
        let current = CurrentVmcs {
            vmcs: self,
            displaced: Cell::new(None),
            preempt,
        };
        let load = if self.is_current(cpu) {
            Load::Stayed
        } else {
            self.move_to(cpu, &current)
        };
        (current, load)
    }

    /// Returns whether this VMCS is the current one of `cpu`, which is this CPU.
    #[inline(always)]
    fn is_current(&self, cpu: u32) -> bool {
        // CAST: CPU numbers are small.
        self.shared.cpu.load(Relaxed) == cpu as i32
            // SAFETY: The CPU is in VMX operation while the module is loaded; preemption is off.
            && unsafe { instruction::vmptrst() } == self.shared.address.value()
    }

    /// Makes this VMCS current on `cpu`, which is this CPU, from wherever it was.
    #[cold]
    fn move_to(&self, cpu: u32, current: &CurrentVmcs<'_>) -> Load {
        // CAST: CPU numbers are small.
        let load = if self.shared.cpu.load(Relaxed) == cpu as i32 {
            Load::Stayed
        } else {
            self.shared.clear();
            Load::Moved
        };
        self.load_on(cpu, current, load);
        load
    }

    /// Executes VMPTRLD on `cpu`, which is this CPU, and notes it, with what was displaced.
    fn load_on(&self, cpu: u32, current: &CurrentVmcs<'_>, load: Load) {
        let irqs = IrqGuard::new();
        if load == Load::Moved {
            // Before it is active, so that an NMI finds it.
            // SAFETY: It is in no list, being active nowhere; it is cleared before it ends.
            unsafe { self.shared.link.add() };
            // CAST: CPU numbers are small.
            self.shared.cpu.store(cpu as i32, Release);
        }
        let found = self.displace(cpu);
        if let Some(found) = found {
            current.displaced.set(Some(Displaced { found, irqs }));
        }
    }

    /// Makes this VMCS current on `cpu`, this CPU, and returns another module's that was; interrupts are
    /// off.
    fn displace(&self, cpu: u32) -> Option<Hpa> {
        let own = self.shared.address;
        // SAFETY: The CPU is in VMX operation while the module is loaded; preemption is off.
        let found = unsafe { instruction::vmptrst() };
        // SAFETY: The region has the right revision and is active nowhere else; preemption is off.
        let result = unsafe { instruction::vmptrld(own) };
        kernel::warn_on!(result.is_err());
        self.shared.witness.loaded(cpu);
        if instruction::may_fail() {
            self.unload(cpu);
        }
        if found == NONE || found == per_cpu::current_vmcs() {
            per_cpu::set_current_vmcs(own.value());
            None
        } else {
            Some(Hpa::new(found))
        }
    }

    /// Makes the current VMCS inactive again, with no other in its place: the system goes down.
    #[cold]
    fn unload(&self, cpu: u32) {
        // SAFETY: It is active on this CPU, where interrupts are off.
        let _ = unsafe { instruction::vmclear(self.shared.address) };
        self.shared.witness.cleared(cpu);
        self.shared.launched.store(false, Relaxed);
    }
}

/// Another module's VMCS, to be put back before interrupts are on.
struct Displaced {
    found: Hpa,
    irqs: IrqGuard,
}

impl Displaced {
    /// Makes the other module's VMCS current again.
    fn put_back(&self) {
        // SAFETY: It was current on this CPU, and interrupts have been off since, so that nobody can
        // have cleared it by a call to this CPU; preemption is off.
        let result = unsafe { instruction::vmptrld(self.found) };
        kernel::warn_on!(result.is_err());
    }
}

impl Drop for Vmcs {
    fn drop(&mut self) {
        self.shared.clear();
        self.shared.witness.ends();
        kernel::warn_on!(self.shared.region.abort_indicator != 0);
    }
}

/// Proof that a VMCS is current on this CPU and stays so: preemption is off.
pub(crate) struct CurrentVmcs<'a> {
    vmcs: &'a Vmcs,
    displaced: Cell<Option<Displaced>>,
    preempt: &'a PreemptGuard,
}

impl Drop for CurrentVmcs<'_> {
    #[inline]
    fn drop(&mut self) {
        if let Some(displaced) = self.displaced.take() {
            displaced.put_back();
        }
    }
}

impl CurrentVmcs<'_> {
    /// Checks, in debug builds, that the type's meaning holds.
    #[inline(always)]
    fn check(&self) {
        if Witness::ON {
            let shared = &self.vmcs.shared;
            shared.witness.accessed(self.preempt.cpu(), shared.address);
        }
    }

    /// Calls `f`, which takes interrupts, with another module's VMCS put back if one was displaced.
    ///
    /// Interrupts must be off now and when `f` returns. `f` must not access the VMCS.
    #[inline]
    pub(crate) fn lend<R>(&self, f: impl FnOnce() -> R) -> R {
        match self.displaced.take() {
            None => f(),
            Some(displaced) => self.lend_slow(displaced, f),
        }
    }

    #[cold]
    fn lend_slow<R>(&self, displaced: Displaced, f: impl FnOnce() -> R) -> R {
        displaced.put_back();
        let result = f();
        // What was put back may be gone by now; then ours stays current.
        if let Some(found) = self.vmcs.displace(self.preempt.cpu()) {
            let irqs = displaced.irqs;
            self.displaced.set(Some(Displaced { found, irqs }));
        }
        result
    }

    /// Returns the value of a field.
    #[inline(always)]
    pub(crate) fn read<T: Value, A: Access>(&self, field: Field<T, A>) -> T {
        self.check();
        // SAFETY: By the type's meaning a VMCS is current. The CPU has the field: those that depend on
        // an optional feature are used only where that was negotiated.
        T::from_raw(unsafe { instruction::vmread(field.encoding()) })
    }

    /// Sets a field.
    #[inline(always)]
    pub(crate) fn write<T: Value>(&self, field: Field<T, ReadWrite>, value: T) {
        self.check();
        // SAFETY: As in `read`. What is written to host fields comes from `host_state`, which takes it
        // from the host itself.
        unsafe { instruction::vmwrite(field.encoding(), value.to_raw()) };
    }

    /// Sets bits of a 32-bit control field.
    pub(crate) fn set_bits(&self, field: Field<u32, ReadWrite>, bits: u32) {
        self.write(field, self.read(field) | bits);
    }

    /// Clears bits of a 32-bit control field.
    pub(crate) fn clear_bits(&self, field: Field<u32, ReadWrite>, bits: u32) {
        self.write(field, self.read(field) & !bits);
    }

    /// Returns the raw value of the field with this encoding, for a dump; `None` if the CPU has no such
    /// field.
    pub(crate) fn read_encoding(&self, encoding: u32) -> Option<u64> {
        self.check();
        // SAFETY: By the type's meaning a VMCS is current.
        unsafe { instruction::vmread_if_present(encoding) }
    }

    /// Returns whether the VMCS, which is about to be entered, was launched since it was last clear.
    #[inline(always)]
    pub(super) fn launched(&self) -> bool {
        self.check();
        let launched = self.vmcs.shared.launched.load(Relaxed);
        self.vmcs.shared.witness.enters(launched);
        launched
    }

    /// Notes that the VMCS was launched.
    #[inline(always)]
    pub(super) fn set_launched(&self) {
        self.vmcs.shared.launched.store(true, Relaxed);
        if Witness::ON {
            self.vmcs.shared.witness.launched.store(true, Relaxed);
        }
    }
}
