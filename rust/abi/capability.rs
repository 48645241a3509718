// SPDX-License-Identifier: GPL-2.0

//! KVM_CHECK_EXTENSION: what this module does. A capability is told only if all behind it works.

use super::vcpu::state::SYNC_FIELDS;
use super::vm::{
    CLOCK_FLAGS,
    GUEST_MEMFD_FLAGS, //
};
use crate::{
    bindings::*,
    hypervisor::Hypervisor,
    irqchip::routing::MAX_ROUTES,
    linux::cpu_call::{
        exits_to_disable,
        online_cpus, //
    },
    memory::MAX_RING_BYTES,
    vcpu::{
        guest_debug,
        hypercall,
        tsc,
        COALESCED_PAGE, //
    },
    vm::{
        settings::{
            quirks,
            X2APIC_API, //
        },
        Vm,
        MAX_VCPUS,
        MAX_VCPU_IDS, //
    },
    x86::guest_msr::MAX_BANKS, //
};

/// The slots that a client can use.
const USER_SLOTS: i32 = crate::memory::USER_SLOTS as i32;

/// Returns how many bytes KVM_GET_XSAVE2 writes and KVM_SET_XSAVE reads, at most.
fn xsave_size(hypervisor: &Hypervisor) -> i32 {
    let model = &hypervisor.model;
    let size = model.layout.standard_size(model.supported.xcr0()) as usize;
    // CAST: A few pages.
    size.max(size_of::<kvm_xsave>()) as i32
}

/// Returns what KVM_CHECK_EXTENSION answers on a VM's file.
pub(super) fn check_of_vm(vm: &Vm, capability: usize) -> i32 {
    let of_device = check(vm.hypervisor(), capability);
    match u32::try_from(capability) {
        // CAST: As KVM does, who sets more nanoseconds than fit sees their lower half.
        Ok(KVM_CAP_X86_APIC_BUS_CYCLES_NS) => vm.settings().bus_cycle_ns().get() as i32,
        // Only a client that has the I/O APIC can honour it.
        Ok(KVM_CAP_X2APIC_API) if !vm.has_split_irqchip() => {
            of_device & !(KVM_RS_X2APIC_ENABLE_SUPPRESS_EOI_BROADCAST as i32)
        }
        _ => of_device,
    }
}

/// Returns what KVM_CHECK_EXTENSION answers: 0 for what is not there.
pub(super) fn check(hypervisor: &Hypervisor, capability: usize) -> i32 {
    let Ok(capability) = u32::try_from(capability) else {
        return 0;
    };
    match capability {
        KVM_CAP_USER_MEMORY
        | KVM_CAP_USER_MEMORY2
        | KVM_CAP_DESTROY_MEMORY_REGION_WORKS
        | KVM_CAP_JOIN_MEMORY_REGIONS_WORKS
        | KVM_CAP_READONLY_MEM
        | KVM_CAP_GUEST_MEMFD
        | KVM_CAP_COALESCED_PIO
        | KVM_CAP_IOEVENTFD
        | KVM_CAP_IRQFD
        | KVM_CAP_IRQFD_RESAMPLE
        | KVM_CAP_PIT
        | KVM_CAP_PIT2
        | KVM_CAP_PIT_STATE2
        | KVM_CAP_REINJECT_CONTROL
        | KVM_CAP_IOEVENTFD_ANY_LENGTH
        | KVM_CAP_IOEVENTFD_NO_LENGTH
        | KVM_CAP_MMU_SHADOW_CACHE_CONTROL
        | KVM_CAP_SYNC_MMU
        | KVM_CAP_EXT_CPUID
        | KVM_CAP_VAPIC
        | KVM_CAP_MP_STATE
        | KVM_CAP_VCPU_EVENTS
        | KVM_CAP_EXCEPTION_PAYLOAD
        | KVM_CAP_X86_TRIPLE_FAULT_EVENT
        | KVM_CAP_DEBUGREGS
        | KVM_CAP_SREGS2
        | KVM_CAP_XSAVE
        | KVM_CAP_SET_GUEST_DEBUG
        | KVM_CAP_X86_ROBUST_SINGLESTEP
        | KVM_CAP_USER_NMI
        | KVM_CAP_XCRS
        | KVM_CAP_GET_TSC_KHZ
        | KVM_CAP_SPLIT_IRQCHIP
        | KVM_CAP_SIGNAL_MSI
        | KVM_CAP_IRQ_INJECT_STATUS
        | KVM_CAP_IRQCHIP
        | KVM_CAP_IOAPIC_POLARITY_IGNORED
        | KVM_CAP_SET_BOOT_CPU_ID
        | KVM_CAP_SET_TSS_ADDR
        | KVM_CAP_SET_IDENTITY_MAP_ADDR
        | KVM_CAP_IMMEDIATE_EXIT
        | KVM_CAP_BINARY_STATS_FD
        | KVM_CAP_ENABLE_CAP_VM
        | KVM_CAP_CHECK_EXTENSION_VM
        | KVM_CAP_INTERNAL_ERROR_DATA
        | KVM_CAP_EXIT_ON_EMULATION_FAILURE
        | KVM_CAP_MEMORY_FAULT_INFO
        | KVM_CAP_GET_MSR_FEATURES
        | KVM_CAP_MSR_PLATFORM_INFO
        | KVM_CAP_CLOCKSOURCE
        | KVM_CAP_KVMCLOCK_CTRL
        | KVM_CAP_ENABLE_CAP
        | KVM_CAP_ENFORCE_PV_FEATURE_CPUID
        | KVM_CAP_STEAL_TIME
        | KVM_CAP_ASYNC_PF
        | KVM_CAP_ASYNC_PF_INT
        | KVM_CAP_X86_USER_SPACE_MSR
        | KVM_CAP_X86_MSR_FILTER
        | KVM_CAP_SYS_ATTRIBUTES
        | KVM_CAP_VCPU_ATTRIBUTES
        | KVM_CAP_EXT_EMUL_CPUID
        | KVM_CAP_ONE_REG
        | KVM_CAP_LAST_CPU
        | KVM_CAP_NOP_IO_DELAY
        | KVM_CAP_DISABLE_QUIRKS
        | KVM_CAP_VM_DISABLE_NX_HUGE_PAGES
        | KVM_CAP_HLT
        | KVM_CAP_HALT_POLL
        | KVM_CAP_TSC_DEADLINE_TIMER => 1,
        // Bits, one for each kind of VM: only the default one.
        KVM_CAP_VM_TYPES => 1 << KVM_X86_DEFAULT_VM,
        KVM_CAP_X86_APIC_BUS_CYCLES_NS => 1,
        KVM_CAP_X86_DISABLE_EXITS => exits_to_disable() as i32,
        // CAST: A few bits, and small numbers.
        KVM_CAP_X2APIC_API => X2APIC_API as i32,
        KVM_CAP_DISABLE_QUIRKS2 => quirks(hypervisor.self_snoop) as i32,
        KVM_CAP_EXIT_HYPERCALL => hypercall::FOR_CLIENT as i32,
        KVM_CAP_TSC_CONTROL | KVM_CAP_VM_TSC_CONTROL => {
            i32::from(tsc::can_scale(&hypervisor.capabilities))
        }
        KVM_CAP_MANUAL_DIRTY_LOG_PROTECT2 => {
            (KVM_DIRTY_LOG_MANUAL_PROTECT_ENABLE | KVM_DIRTY_LOG_INITIALLY_SET) as i32
        }
        KVM_CAP_DIRTY_LOG_RING | KVM_CAP_DIRTY_LOG_RING_ACQ_REL => MAX_RING_BYTES as i32,
        KVM_CAP_GUEST_MEMFD_FLAGS => GUEST_MEMFD_FLAGS as i32,
        KVM_CAP_ADJUST_CLOCK => CLOCK_FLAGS as i32,
        KVM_CAP_MCE => MAX_BANKS as i32,
        KVM_CAP_IRQ_ROUTING => MAX_ROUTES as i32,
        KVM_CAP_NR_VCPUS => online_cpus().min(MAX_VCPUS) as i32,
        KVM_CAP_MAX_VCPUS => MAX_VCPUS as i32,
        KVM_CAP_MAX_VCPU_ID => MAX_VCPU_IDS as i32,
        KVM_CAP_NR_MEMSLOTS => USER_SLOTS,
        KVM_CAP_PRE_FAULT_MEMORY => i32::from(hypervisor.capabilities.ept()),
        KVM_CAP_COALESCED_MMIO => COALESCED_PAGE as i32,
        KVM_CAP_SYNC_REGS => SYNC_FIELDS as i32,
        KVM_CAP_SET_GUEST_DEBUG2 => guest_debug::VALID_MASK as i32,
        KVM_CAP_XSAVE2 => xsave_size(hypervisor),
        _ => 0,
    }
}
