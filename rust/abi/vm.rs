// SPDX-License-Identifier: GPL-2.0

//! The ioctls of a VM.

use super::{
    capability,
    command::command,
    eventfd,
    irq,
    msr_filter,
    pit,
    stats_fd::VmStats,
    vcpu::VcpuFile, //
};
use crate::{
    bindings::*,
    linux::{
        anon_inode::{
            self,
            FileObject, //
        },
        guest_memfd::Flags,
        task,
        uaccess, //
    },
    memory::{
        FilePiece,
        Logging,
        Region, //
    },
    vcpu::{
        hypercall,
        tsc::requested_khz, //
    },
    vm::{
        bus::Space,
        coalesced::Zone,
        Vm, //
    },
    x86::addr::{
        Gpa,
        Hva, //
    }, //
};
use kernel::{
    prelude::*,
    str::CString,
    sync::{
        Arc,
        ArcBorrow, //
    }, //
};

/// What `struct kvm_clock_data` can tell.
pub(super) const CLOCK_FLAGS: u32 = KVM_CLOCK_TSC_STABLE | KVM_CLOCK_REALTIME | KVM_CLOCK_HOST_TSC;

/// The least that KVM_SET_NR_MMU_PAGES takes.
const MIN_MMU_PAGES: usize = 64;

/// The file of a VM.
pub(super) struct VmFile;

impl FileObject for VmFile {
    type Pointer = Arc<Vm>;

    fn closed(vm: ArcBorrow<'_, Vm>) {
        vm.irqfds().close();
    }

    fn ioctl(vm: ArcBorrow<'_, Vm>, command: u32, argument: usize) -> Result<isize> {
        vm.check_owner()?;
        match command {
            KVM_RS_IOCTL_CHECK_EXTENSION => Ok(capability::check_of_vm(&vm, argument) as isize),
            KVM_RS_IOCTL_CREATE_VCPU => create_vcpu(vm, argument),
            KVM_RS_IOCTL_SET_USER_MEMORY_REGION => set_smaller_region(
                &vm,
                &command!(KVM_RS_IOCTL_SET_USER_MEMORY_REGION: kvm_userspace_memory_region)
                    .read(argument)?,
            ),
            KVM_RS_IOCTL_SET_USER_MEMORY_REGION2 => set_region(
                &vm,
                &command!(KVM_RS_IOCTL_SET_USER_MEMORY_REGION2: kvm_userspace_memory_region2)
                    .read(argument)?,
            ),
            KVM_RS_IOCTL_CREATE_GUEST_MEMFD => create_guest_memfd(
                vm,
                &command!(KVM_RS_IOCTL_CREATE_GUEST_MEMFD: kvm_create_guest_memfd)
                    .read(argument)?,
            ),
            KVM_RS_IOCTL_GET_DIRTY_LOG => {
                let log = command!(KVM_RS_IOCTL_GET_DIRTY_LOG: kvm_dirty_log).read(argument)?;
                vm.mmu().dirty_log(log.slot, uaccess::dirty_bitmap(&log))?;
                Ok(0)
            }
            KVM_RS_IOCTL_CLEAR_DIRTY_LOG => {
                let log =
                    command!(KVM_RS_IOCTL_CLEAR_DIRTY_LOG: kvm_clear_dirty_log).read(argument)?;
                let bitmap = uaccess::cleared_bitmap(&log);
                vm.mmu()
                    .clear_dirty_log(log.slot, log.first_page, log.num_pages, bitmap)?;
                Ok(0)
            }
            KVM_RS_IOCTL_RESET_DIRTY_RINGS => {
                if !vm.memory().rings().are_used() {
                    return Err(EINVAL);
                }
                Ok(vm.mmu().reset_rings() as isize)
            }
            KVM_RS_IOCTL_ENABLE_CAP => enable(
                &vm,
                &command!(KVM_RS_IOCTL_ENABLE_CAP: kvm_enable_cap).read(argument)?,
            ),
            KVM_RS_IOCTL_SET_BOOT_CPU_ID => {
                vm.set_boot_cpu_id(argument as u64)?;
                Ok(0)
            }
            KVM_RS_IOCTL_CREATE_IRQCHIP => {
                vm.create_irqchip()?;
                Ok(0)
            }
            KVM_RS_IOCTL_GET_IRQCHIP => irq::get_irqchip(&vm, argument),
            KVM_RS_IOCTL_SET_IRQCHIP => irq::set_irqchip(&vm, argument),
            KVM_RS_IOCTL_SIGNAL_MSI => irq::signal_msi(
                &vm,
                &command!(KVM_RS_IOCTL_SIGNAL_MSI: kvm_msi).read(argument)?,
            ),
            KVM_RS_IOCTL_SET_GSI_ROUTING => irq::set_routing(&vm, argument),
            KVM_RS_IOCTL_IRQ_LINE => irq::set_line(&vm, argument),
            KVM_RS_IOCTL_IRQ_LINE_STATUS => irq::set_line_with_status(&vm, argument),
            KVM_RS_IOCTL_GET_STATS_FD => {
                let stats = VmStats::new(vm.into())?;
                Ok(anon_inode::install::<VmStats>(c"kvm-rs-vm-stats", stats)? as isize)
            }
            KVM_RS_IOCTL_GET_TSC_KHZ => Ok(vm.tsc_khz() as isize),
            KVM_RS_IOCTL_SET_TSC_KHZ => {
                vm.set_tsc_khz(requested_khz(&vm, argument)?)?;
                Ok(0)
            }
            KVM_RS_IOCTL_GET_CLOCK => {
                let data = clock_data(&vm);
                command!(KVM_RS_IOCTL_GET_CLOCK: kvm_clock_data).write(argument, &data)?;
                Ok(0)
            }
            KVM_RS_IOCTL_SET_CLOCK => {
                let data = command!(KVM_RS_IOCTL_SET_CLOCK: kvm_clock_data).read(argument)?;
                if data.flags & !CLOCK_FLAGS != 0 {
                    return Err(EINVAL);
                }
                let realtime = data.flags & KVM_CLOCK_REALTIME != 0;
                vm.set_clock(data.clock, realtime.then_some(data.realtime));
                Ok(0)
            }
            KVM_RS_IOCTL_X86_SET_MSR_FILTER => {
                let filter =
                    command!(KVM_RS_IOCTL_X86_SET_MSR_FILTER: kvm_msr_filter).read(argument)?;
                msr_filter::set(&vm, &filter)?;
                Ok(0)
            }
            KVM_RS_IOCTL_SET_NR_MMU_PAGES => {
                // A limit of shadow page tables, of which there are none.
                if argument < MIN_MMU_PAGES {
                    return Err(EINVAL);
                }
                Ok(0)
            }
            KVM_RS_IOCTL_REGISTER_COALESCED_MMIO => {
                let zone = command!(KVM_RS_IOCTL_REGISTER_COALESCED_MMIO: kvm_rs_coalesced_zone)
                    .read(argument)?;
                vm.coalesced().register(coalesced_zone(&zone)?)?;
                Ok(0)
            }
            KVM_RS_IOCTL_UNREGISTER_COALESCED_MMIO => {
                let zone = command!(KVM_RS_IOCTL_UNREGISTER_COALESCED_MMIO: kvm_rs_coalesced_zone)
                    .read(argument)?;
                vm.coalesced().unregister(coalesced_zone(&zone)?);
                Ok(0)
            }
            KVM_RS_IOCTL_IOEVENTFD => eventfd::ioeventfd(
                &vm,
                &command!(KVM_RS_IOCTL_IOEVENTFD: kvm_ioeventfd).read(argument)?,
            ),
            KVM_RS_IOCTL_IRQFD => eventfd::irqfd(
                &vm,
                &command!(KVM_RS_IOCTL_IRQFD: kvm_irqfd).read(argument)?,
            ),
            KVM_RS_IOCTL_CREATE_PIT => {
                vm.create_pit(true)?;
                Ok(0)
            }
            KVM_RS_IOCTL_CREATE_PIT2 => pit::create(&vm, argument),
            KVM_RS_IOCTL_GET_PIT => pit::get(&vm, argument),
            KVM_RS_IOCTL_SET_PIT => pit::set(&vm, argument),
            KVM_RS_IOCTL_GET_PIT2 => pit::get2(&vm, argument),
            KVM_RS_IOCTL_SET_PIT2 => pit::set2(&vm, argument),
            KVM_RS_IOCTL_REINJECT_CONTROL => pit::control(&vm, argument),
            KVM_RS_IOCTL_SET_TSS_ADDR => {
                vm.set_tss_address(argument as u64)?;
                Ok(0)
            }
            KVM_RS_IOCTL_SET_IDENTITY_MAP_ADDR => {
                let address = command!(KVM_RS_IOCTL_SET_IDENTITY_MAP_ADDR: u64);
                vm.set_identity_map_address(|| address.read(argument))?;
                Ok(0)
            }
            _ => Err(ENOTTY),
        }
    }
}

/// What KVM_CAP_GUEST_MEMFD_FLAGS tells.
pub(super) const GUEST_MEMFD_FLAGS: u64 =
    (GUEST_MEMFD_FLAG_MMAP | GUEST_MEMFD_FLAG_INIT_SHARED) as u64;

/// Answers the ioctl whose argument does not have all members.
fn set_smaller_region(vm: &Vm, region: &kvm_userspace_memory_region) -> Result<isize> {
    // These flags need no more.
    if region.flags & !(KVM_MEM_LOG_DIRTY_PAGES | KVM_MEM_READONLY) != 0 {
        return Err(EINVAL);
    }
    let mut larger: kvm_userspace_memory_region2 = uaccess::zeroed();
    larger.slot = region.slot;
    larger.flags = region.flags;
    larger.guest_phys_addr = region.guest_phys_addr;
    larger.memory_size = region.memory_size;
    larger.userspace_addr = region.userspace_addr;
    set_region(vm, &larger)
}

fn set_region(vm: &Vm, region: &kvm_userspace_memory_region2) -> Result<isize> {
    vm.mmu().set_region(&Region {
        slot: region.slot,
        flags: region.flags,
        gpa: Gpa::new(region.guest_phys_addr),
        size: region.memory_size,
        hva: Hva::new(region.userspace_addr),
        file: FilePiece {
            fd: region.guest_memfd,
            offset: region.guest_memfd_offset,
        },
    })?;
    Ok(0)
}

fn create_guest_memfd(vm: ArcBorrow<'_, Vm>, file: &kvm_create_guest_memfd) -> Result<isize> {
    if file.flags & !GUEST_MEMFD_FLAGS != 0 {
        return Err(EINVAL);
    }
    let flags = Flags {
        mmap: file.flags & u64::from(GUEST_MEMFD_FLAG_MMAP) != 0,
        shared: file.flags & u64::from(GUEST_MEMFD_FLAG_INIT_SHARED) != 0,
    };
    Ok(Vm::create_guest_memfd(vm, file.size, flags)? as isize)
}

/// Returns a zone of coalesced I/O as the client wrote it.
fn coalesced_zone(zone: &kvm_rs_coalesced_zone) -> Result<Zone> {
    let space = match zone.pio {
        0 => Space::Mmio,
        1 => Space::Pio,
        _ => return Err(EINVAL),
    };
    Ok(Zone {
        space,
        start: zone.addr,
        size: zone.size,
    })
}

fn create_vcpu(vm: ArcBorrow<'_, Vm>, id: usize) -> Result<isize> {
    let vcpu = vm.create_vcpu(id as u64)?;
    let install = || {
        let name = CString::try_from_fmt(fmt!("kvm-rs-vcpu:{}", vcpu.id()))?;
        let file = Arc::new(VcpuFile::new(vm.into(), vcpu.clone()), GFP_KERNEL_ACCOUNT)?;
        anon_inode::install::<VcpuFile>(&name, file)
    };
    // Without a file nobody could use the vCPU, and its number would be taken for ever.
    let fd = install().inspect_err(|_| vm.remove_vcpu(&vcpu))?;
    vm.show_vcpu(&vcpu);
    Ok(fd as isize)
}

/// Returns what the argument of KVM_CAP_MANUAL_DIRTY_LOG_PROTECT2 asks for.
fn logging(argument: u64) -> Result<Logging> {
    let logging = Logging {
        manual: argument & u64::from(KVM_DIRTY_LOG_MANUAL_PROTECT_ENABLE) != 0,
        initially_set: argument & u64::from(KVM_DIRTY_LOG_INITIALLY_SET) != 0,
    };
    let known = u64::from(KVM_DIRTY_LOG_MANUAL_PROTECT_ENABLE | KVM_DIRTY_LOG_INITIALLY_SET);
    if argument & !known != 0 || (logging.initially_set && !logging.manual) {
        return Err(EINVAL);
    }
    Ok(logging)
}

/// Answers KVM_GET_CLOCK.
fn clock_data(vm: &Vm) -> kvm_clock_data {
    let mut data: kvm_clock_data = uaccess::zeroed();
    let reading = vm.clock().read();
    data.clock = reading.ns;
    if let Some(host) = reading.host {
        data.flags = CLOCK_FLAGS;
        data.realtime = host.real_ns;
        data.host_tsc = host.tsc;
    }
    data
}

fn enable(vm: &Vm, capability: &kvm_enable_cap) -> Result<isize> {
    let [argument, ..] = capability.args;
    if let KVM_CAP_DIRTY_LOG_RING | KVM_CAP_DIRTY_LOG_RING_ACQ_REL = capability.cap {
        // CAST: KVM, too, looks neither at the upper half nor at the flags.
        vm.enable_dirty_rings(argument as u32)?;
        return Ok(0);
    }
    if capability.flags != 0 {
        return Err(EINVAL);
    }
    match capability.cap {
        KVM_CAP_SPLIT_IRQCHIP => vm.split_irqchip(argument)?,
        KVM_CAP_MANUAL_DIRTY_LOG_PROTECT2 => vm.memory().set_logging(logging(argument)?),
        KVM_CAP_VM_DISABLE_NX_HUGE_PAGES => {
            // What the guest can do then is as good as a reboot.
            if !task::may_reboot() {
                return Err(EPERM);
            }
            if argument != 0 {
                return Err(EINVAL);
            }
            vm.allow_large_execution()?;
        }
        KVM_CAP_EXCEPTION_PAYLOAD => vm.enable_exception_payloads(argument != 0),
        KVM_CAP_X86_TRIPLE_FAULT_EVENT => vm.enable_triple_fault_events(argument != 0),
        KVM_CAP_MAX_VCPU_ID => vm.set_max_vcpu_ids(argument)?,
        KVM_CAP_DISABLE_QUIRKS2 if argument & !u64::from(vm.quirks()) != 0 => return Err(EINVAL),
        // CAST: Of the older capability's argument, unknown quirks are dropped.
        KVM_CAP_DISABLE_QUIRKS | KVM_CAP_DISABLE_QUIRKS2 => {
            vm.disable_quirks(argument as u32);
        }
        KVM_CAP_HALT_POLL => {
            let ns = u32::try_from(argument).map_err(|_| EINVAL)?;
            vm.settings().set_halt_poll_ns(ns);
        }
        KVM_CAP_X86_DISABLE_EXITS => vm.disable_exits(argument)?,
        KVM_CAP_X2APIC_API => vm.enable_x2apic_api(argument)?,
        KVM_CAP_X86_APIC_BUS_CYCLES_NS => vm.set_bus_cycle_ns(argument)?,
        KVM_CAP_EXIT_HYPERCALL => {
            let hypercalls = u32::try_from(argument).map_err(|_| EINVAL)?;
            if hypercalls & !hypercall::FOR_CLIENT != 0 {
                return Err(EINVAL);
            }
            vm.settings().set_user_hypercalls(hypercalls);
        }
        KVM_CAP_EXIT_ON_EMULATION_FAILURE if argument > 1 => return Err(EINVAL),
        KVM_CAP_EXIT_ON_EMULATION_FAILURE => {
            vm.settings().set_exit_on_emulation_failure(argument != 0);
        }
        KVM_CAP_MSR_PLATFORM_INFO => vm.settings().set_platform_info_readable(argument != 0),
        KVM_CAP_X86_USER_SPACE_MSR => {
            const VALID: u32 = KVM_MSR_EXIT_REASON_INVAL
                | KVM_MSR_EXIT_REASON_UNKNOWN
                | KVM_MSR_EXIT_REASON_FILTER;
            let reasons = u32::try_from(argument).map_err(|_| EINVAL)?;
            if reasons & !VALID != 0 {
                return Err(EINVAL);
            }
            vm.settings().set_user_msr_reasons(reasons);
        }
        _ => return Err(EINVAL),
    }
    Ok(0)
}
