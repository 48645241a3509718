// SPDX-License-Identifier: GPL-2.0

//! kvm-rs: a hypervisor for Intel VT-x that speaks the KVM ioctl ABI on `/dev/kvm-rs`.
//!
//! Where to find what the project is about:
//!
//! * VMCS management: [`vmx::vmcs`], with the controls negotiated in [`vmx::capability`];
//! * the MMU that nonpaging shadow and EPT share: [`mmu::direct`](mmu);
//! * the VPID allocator: [`vmx::vpid`], and what is flushed when: [`vmx::tlb`];
//! * FlexPriority: [`vmx::flexpriority`], and the threshold: [`lapic`], in `lapic/priority.rs`.
//!
//! A reader who wants to follow one ioctl starts in [`abi`]; one VM entry, in [`vcpu`].
//!
//! Imports point one way: `abi` → `vm`, `vcpu` → `hypervisor` → `vmx`, `lapic`, `emulate` → `mmu` →
//! `memory` → `linux` → `x86`, `bindings`.

use kernel::{
    miscdevice::{
        MiscDeviceOptions,
        MiscDeviceRegistration, //
    },
    prelude::*, //
};

mod abi;
mod bindings;
mod emulate;
mod hypervisor;
mod irqchip;
mod lapic;
mod linux;
mod memory;
mod mmu;
mod trace;
mod vcpu;
mod vm;
mod vmx;
mod x86;

use abi::{
    stats::StatsFiles,
    system::{
        self,
        SystemFile, //
    }, //
};
use hypervisor::Hypervisor;
use linux::virt::{
    CpuExit,
    Virtualization, //
};

module! {
    type: KvmRs,
    name: "kvm_rs",
    authors: ["The kvm-rs developers"],
    description: "Hypervisor for Intel VT-x with the KVM ioctl ABI",
    license: "GPL",
}

/// What must happen on a CPU before it leaves VMX operation.
struct ClearVmcss;

impl CpuExit for ClearVmcss {
    fn going_down() {
        vmx::vmcs::stop();
    }

    fn leave_cpu(cpu: u32) -> u32 {
        vmx::vmcs::clear_all_on(cpu)
    }

    fn emergency() -> u32 {
        vmx::vmcs::emergency_clear()
    }
}

/// The loaded module. Fields are dropped in order: first what the world can reach.
#[pin_data(PinnedDrop)]
pub(crate) struct KvmRs {
    #[pin]
    device: MiscDeviceRegistration<SystemFile>,
    #[pin]
    stats: StatsFiles,
    #[pin]
    virtualization: Virtualization<ClearVmcss>,
    globals: Globals,
}

/// The module's static bookkeeping, which is emptied when this is dropped.
struct Globals;

impl Globals {
    /// Prepares the bookkeeping.
    ///
    /// # Safety
    ///
    /// Must be called exactly once, at module load.
    unsafe fn init(hypervisor: kernel::sync::Arc<Hypervisor>) -> Self {
        // SAFETY: Called once, before any VMCS exists.
        unsafe { vmx::vmcs::init() };
        // SAFETY: Called once, before any vCPU exists.
        unsafe { vcpu::stats::init() };
        // SAFETY: Called once, before the device is registered.
        unsafe { system::init(hypervisor) };
        Self
    }
}

impl Drop for Globals {
    fn drop(&mut self) {
        system::exit();
        vcpu::stats::exit();
    }
}

impl kernel::InPlaceModule for KvmRs {
    fn init(_module: &'static ThisModule) -> impl PinInit<Self, Error> {
        pin_init::pin_init_scope(|| {
            let hypervisor = Hypervisor::new(vcpu::pv::FEATURES)?;
            Ok(try_pin_init!(Self {
                // SAFETY: A module is initialised once, and nothing below has started.
                globals: unsafe { Globals::init(hypervisor.clone()) },
                virtualization <- Virtualization::new(),
                _: { virtualization.check()? },
                stats <- StatsFiles::new(hypervisor),
                device <- MiscDeviceRegistration::register(MiscDeviceOptions {
                    name: c"kvm-rs",
                }),
            }? Error))
        })
    }
}

#[pinned_drop]
impl PinnedDrop for KvmRs {
    fn drop(self: Pin<&mut Self>) {
        pr_info!("unloaded\n");
    }
}
