// SPDX-License-Identifier: GPL-2.0

//! `/dev/kvm-rs`: the ioctls that concern no VM in particular.

use super::{
    capability,
    command::command,
    device_attr,
    msr_list,
    stats_fd,
    vm::VmFile, //
};
use crate::{
    bindings::*,
    hypervisor::{
        Hypervisor,
        ThisCpu, //
    },
    linux::{
        anon_inode,
        uaccess, //
    },
    vcpu::MAPPING_SIZE,
    vm::Vm,
    x86::{
        cpuid::{
            self,
            CpuidEntry, //
        },
        guest_msr::SUPPORTED_MCG_CAP, //
    }, //
};
use kernel::{
    fs::File,
    miscdevice::{
        MiscDevice,
        MiscDeviceRegistration, //
    },
    prelude::*,
    sync::Arc, //
};

kernel::sync::global_lock! {
    // SAFETY: Initialised in `init`, before the device exists.
    unsafe(uninit) static HYPERVISOR: Mutex<Option<Arc<Hypervisor>>> = None;
}

/// Lets files of the device find the hypervisor.
///
/// # Safety
///
/// Must be called exactly once, at module load, before the device is registered.
pub(crate) unsafe fn init(hypervisor: Arc<Hypervisor>) {
    // SAFETY: Called once.
    unsafe { HYPERVISOR.init() };
    *HYPERVISOR.lock() = Some(hypervisor);
}

/// Undoes [`init`] at module unload.
pub(crate) fn exit() {
    let hypervisor = HYPERVISOR.lock().take();
    drop(hypervisor);
}

/// An open `/dev/kvm-rs`.
pub(crate) struct SystemFile {
    hypervisor: Arc<Hypervisor>,
}

#[vtable]
impl MiscDevice for SystemFile {
    type Ptr = KBox<Self>;

    fn open(_file: &File, _device: &MiscDeviceRegistration<Self>) -> Result<KBox<Self>> {
        let hypervisor = HYPERVISOR.lock().clone().ok_or(ENODEV)?;
        Ok(KBox::new(Self { hypervisor }, GFP_KERNEL)?)
    }

    fn ioctl(this: &Self, _file: &File, command: u32, argument: usize) -> Result<isize> {
        this.dispatch(command, argument)
    }
}

impl SystemFile {
    fn dispatch(&self, command: u32, argument: usize) -> Result<isize> {
        match command {
            KVM_RS_IOCTL_GET_API_VERSION => {
                no_argument(argument)?;
                Ok(KVM_API_VERSION as isize)
            }
            KVM_RS_IOCTL_CREATE_VM => self.create_vm(argument),
            KVM_RS_IOCTL_CHECK_EXTENSION => {
                Ok(capability::check(&self.hypervisor, argument) as isize)
            }
            KVM_RS_IOCTL_GET_VCPU_MMAP_SIZE => {
                no_argument(argument)?;
                Ok(MAPPING_SIZE as isize)
            }
            KVM_RS_IOCTL_GET_SUPPORTED_CPUID => self.supported_cpuid(argument),
            KVM_RS_IOCTL_GET_EMULATED_CPUID => self.emulated_cpuid(argument),
            KVM_RS_IOCTL_GET_MSR_INDEX_LIST => {
                msr_list::write_saved(argument, &self.hypervisor.model.features)
            }
            KVM_RS_IOCTL_GET_MSR_FEATURE_INDEX_LIST => {
                msr_list::write_features(argument, &self.hypervisor.model.features)
            }
            KVM_RS_IOCTL_X86_GET_MCE_CAP_SUPPORTED => {
                command!(KVM_RS_IOCTL_X86_GET_MCE_CAP_SUPPORTED: u64)
                    .write(argument, &SUPPORTED_MCG_CAP)?;
                Ok(0)
            }
            KVM_RS_IOCTL_HAS_DEVICE_ATTR | KVM_RS_IOCTL_GET_DEVICE_ATTR => {
                device_attr::of_system(&self.hypervisor, command, argument)
            }
            KVM_RS_IOCTL_GET_MSRS => msr_list::get_features(&self.hypervisor, argument),
            _ => Err(EINVAL),
        }
    }

    fn create_vm(&self, kind: usize) -> Result<isize> {
        if kind != KVM_X86_DEFAULT_VM as usize {
            return Err(EINVAL);
        }
        let fd = anon_inode::install_with::<VmFile>(c"kvm-rs-vm", |fd| {
            let vm = Vm::new(self.hypervisor.clone())?;
            vm.show(fd, stats_fd::for_debugfs());
            Ok(vm)
        })?;
        Ok(fd as isize)
    }

    fn supported_cpuid(&self, argument: usize) -> Result<isize> {
        let mut header: kvm_cpuid2 = uaccess::read(argument)?;
        if header.nent < 1 {
            return Err(E2BIG);
        }
        let room = (header.nent as usize).min(cpuid::MAX_ENTRIES);
        let mut entries = KVVec::from_elem(CpuidEntry::default(), room, GFP_KERNEL)?;
        let count =
            cpuid::fill(&ThisCpu, &self.hypervisor.model, &mut entries).map_err(|_| E2BIG)?;
        let entries = entries.get(..count).ok_or(E2BIG)?;
        uaccess::write_list(entries_address(argument)?, entries)?;
        // CAST: At most MAX_ENTRIES.
        header.nent = count as u32;
        uaccess::write(argument, &header)?;
        Ok(0)
    }
}

impl SystemFile {
    fn emulated_cpuid(&self, argument: usize) -> Result<isize> {
        let mut header: kvm_cpuid2 = uaccess::read(argument)?;
        if header.nent < 1 {
            return Err(E2BIG);
        }
        let room = (header.nent as usize).min(cpuid::MAX_ENTRIES);
        let address = entries_address(argument)?;
        // The client must have cleared what has no meaning yet.
        let given: KVVec<CpuidEntry> = uaccess::read_list(address, room).map_err(|_| EINVAL)?;
        if given.iter().any(|entry| entry.padding != [0; 3]) {
            return Err(EINVAL);
        }
        let entries = self.hypervisor.model.emulated();
        // KVM looks for more leaves, and wants room for one.
        if room <= entries.len() {
            return Err(E2BIG);
        }
        uaccess::write_list(address, &entries)?;
        // CAST: A few.
        header.nent = entries.len() as u32;
        uaccess::write(argument, &header)?;
        Ok(0)
    }
}

/// Returns the address of the entries behind a `struct kvm_cpuid2`.
pub(super) fn entries_address(argument: usize) -> Result<usize> {
    argument.checked_add(size_of::<kvm_cpuid2>()).ok_or(EFAULT)
}

/// Fails with `EINVAL` if an ioctl that takes no argument got one.
pub(super) fn no_argument(argument: usize) -> Result {
    if argument == 0 {
        Ok(())
    } else {
        Err(EINVAL)
    }
}
