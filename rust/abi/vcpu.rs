// SPDX-License-Identifier: GPL-2.0

//! The ioctls of a vCPU.

mod msr;
pub(super) mod state;

use super::{
    command::command,
    convert,
    stats_fd::VcpuStats,
    system::entries_address, //
};
use crate::{
    bindings::*,
    linux::{
        anon_inode::{
            self,
            FileObject,
            MappedPage, //
        },
        signal_mask::SignalMask,
        task,
        uaccess,
        user_page, //
    },
    memory::DirtyRing,
    trace,
    vcpu::{
        request::Request,
        tsc::requested_khz,
        MpState,
        Owned,
        Vcpu,
        COALESCED_PAGE, //
    },
    vm::Vm,
    x86::{
        addr::{
            Gpa,
            Gva, //
        },
        cpuid::{
            self,
            CpuidEntry, //
        },
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

/// The file of a vCPU, which keeps its VM.
pub(super) struct VcpuFile {
    vm: Arc<Vm>,
    vcpu: Arc<Vcpu>,
}

impl VcpuFile {
    /// Returns the file of a VM's vCPU.
    pub(super) fn new(vm: Arc<Vm>, vcpu: Arc<Vcpu>) -> Self {
        Self { vm, vcpu }
    }
}

impl FileObject for VcpuFile {
    const MAPPABLE: bool = true;

    type Pointer = Arc<Self>;

    fn ioctl(this: ArcBorrow<'_, Self>, command: u32, argument: usize) -> Result<isize> {
        this.vm.check_owner()?;
        // The type of an ioctl is in bits 8 to 15: what is not KVM's is not waited for.
        if command >> 8 & 0xff != KVM_RS_KVMIO {
            return Err(EINVAL);
        }
        let mut owned = this.vcpu.lock()?;
        if command == KVM_RS_IOCTL_GET_STATS_FD {
            let name = CString::try_from_fmt(fmt!("kvm-rs-vcpu-stats:{}", this.vcpu.id()))?;
            let stats = VcpuStats::new(this.vm.clone(), this.vcpu.clone())?;
            return Ok(anon_inode::install::<VcpuStats>(&name, stats)? as isize);
        }
        let _writing = this.vcpu.ring().map(DirtyRing::write_as);
        dispatch(&this.vm, &this.vcpu, &mut owned, command, argument)
    }

    fn may_map(this: ArcBorrow<'_, Self>, first: usize, count: usize, shared_data: bool) -> bool {
        let last = first.saturating_add(count.saturating_sub(1));
        let in_ring = |page| ring_index(&this.vcpu, page).is_some();
        shared_data || !in_ring(first) && !in_ring(last)
    }

    fn page(this: ArcBorrow<'_, Self>, index: usize) -> Option<MappedPage> {
        match index {
            COALESCED_PAGE => Some(this.vm.coalesced().page()),
            _ => match ring_index(&this.vcpu, index) {
                Some(index) => {
                    let page = this.vcpu.ring()?.page(index)?;
                    Some(MappedPage(page.as_ptr()))
                }
                None => this.vcpu.run_page().page(index),
            },
        }
    }
}

/// Returns which page of the vCPU's ring the page `index` of its file is, if it is one.
fn ring_index(vcpu: &Vcpu, index: usize) -> Option<usize> {
    let index = index.checked_sub(KVM_DIRTY_LOG_PAGE_OFFSET as usize)?;
    (index < vcpu.ring()?.page_count()).then_some(index)
}

fn dispatch(
    vm: &Vm,
    vcpu: &Arc<Vcpu>,
    owned: &mut Owned,
    command: u32,
    argument: usize,
) -> Result<isize> {
    match command {
        KVM_RS_IOCTL_RUN => {
            if argument != 0 {
                return Err(EINVAL);
            }
            return run(vm, vcpu, owned);
        }
        KVM_RS_IOCTL_PRE_FAULT_MEMORY => {
            let command = command!(KVM_RS_IOCTL_PRE_FAULT_MEMORY: kvm_pre_fault_memory);
            let mut range = command.read(argument)?;
            let done = pre_fault(vm, &mut range);
            // What is left, after a failure too.
            command.write(argument, &range)?;
            done?;
        }
        KVM_RS_IOCTL_GET_REGS => {
            let regs = convert::to_regs(&owned.general_registers());
            command!(KVM_RS_IOCTL_GET_REGS: kvm_regs).write(argument, &regs)?;
        }
        KVM_RS_IOCTL_SET_REGS => {
            let regs = command!(KVM_RS_IOCTL_SET_REGS: kvm_regs).read(argument)?;
            owned.set_general_registers(&convert::from_regs(&regs));
        }
        KVM_RS_IOCTL_GET_SREGS => {
            let sregs = convert::to_sregs(&owned.system_registers(vm, vcpu));
            command!(KVM_RS_IOCTL_GET_SREGS: kvm_sregs).write(argument, &sregs)?;
        }
        KVM_RS_IOCTL_SET_SREGS => {
            let sregs = command!(KVM_RS_IOCTL_SET_SREGS: kvm_sregs).read(argument)?;
            owned.set_system_registers(vm, vcpu, &convert::from_sregs(&sregs))?;
        }
        KVM_RS_IOCTL_GET_FPU => {
            let fpu = convert::to_fpu(&owned.state.fpu.fxsave());
            command!(KVM_RS_IOCTL_GET_FPU: kvm_fpu).write(argument, &fpu)?;
        }
        KVM_RS_IOCTL_SET_FPU => {
            let fpu = command!(KVM_RS_IOCTL_SET_FPU: kvm_fpu).read(argument)?;
            let mut image = owned.state.fpu.fxsave();
            convert::from_fpu(&fpu, &mut image);
            owned.state.fpu.set_fxsave(&image);
        }
        KVM_RS_IOCTL_SET_CPUID => set_cpuid(vm, vcpu, owned, argument)?,
        KVM_RS_IOCTL_SET_CPUID2 => set_cpuid2(vm, vcpu, owned, argument)?,
        KVM_RS_IOCTL_GET_CPUID2 => get_cpuid2(vm, vcpu, owned, argument)?,
        KVM_RS_IOCTL_GET_MSRS => return msr::get(vm, vcpu, owned, argument),
        KVM_RS_IOCTL_SET_MSRS => return msr::set(vm, vcpu, owned, argument),
        KVM_RS_IOCTL_GET_ONE_REG => {
            let register = command!(KVM_RS_IOCTL_GET_ONE_REG: kvm_one_reg).read(argument)?;
            msr::get_one(vm, vcpu, owned, &register)?;
        }
        KVM_RS_IOCTL_SET_ONE_REG => {
            let register = command!(KVM_RS_IOCTL_SET_ONE_REG: kvm_one_reg).read(argument)?;
            msr::set_one(vm, vcpu, owned, &register)?;
        }
        KVM_RS_IOCTL_GET_REG_LIST => {
            // Of registers that are no MSRs there is none.
            let _room: u64 = uaccess::read(argument)?;
            uaccess::write(argument, &0u64)?;
        }
        KVM_RS_IOCTL_GET_XCRS => {
            let mut xcrs: kvm_xcrs = uaccess::zeroed();
            xcrs.nr_xcrs = 1;
            if let Some(first) = xcrs.xcrs.first_mut() {
                first.value = owned.state.xcr0.value();
            }
            command!(KVM_RS_IOCTL_GET_XCRS: kvm_xcrs).write(argument, &xcrs)?;
        }
        KVM_RS_IOCTL_SET_XCRS => set_xcrs(owned, argument)?,
        KVM_RS_IOCTL_GET_MP_STATE => {
            vcpu.apply_signals(vm, owned);
            let mut state: kvm_mp_state = uaccess::zeroed();
            state.mp_state = match owned.state.mp_state {
                MpState::Runnable | MpState::AwaitsPage => KVM_MP_STATE_RUNNABLE,
                MpState::Halted | MpState::ApResetHold if vcpu.is_unhalted() => {
                    KVM_MP_STATE_RUNNABLE
                }
                MpState::Uninitialized => KVM_MP_STATE_UNINITIALIZED,
                MpState::InitReceived => KVM_MP_STATE_INIT_RECEIVED,
                MpState::Halted => KVM_MP_STATE_HALTED,
                MpState::ApResetHold => KVM_MP_STATE_AP_RESET_HOLD,
            };
            command!(KVM_RS_IOCTL_GET_MP_STATE: kvm_mp_state).write(argument, &state)?;
        }
        KVM_RS_IOCTL_SET_MP_STATE => {
            let state = command!(KVM_RS_IOCTL_SET_MP_STATE: kvm_mp_state).read(argument)?;
            set_mp_state(vcpu, owned, state.mp_state)?;
        }
        KVM_RS_IOCTL_INTERRUPT => {
            let interrupt = command!(KVM_RS_IOCTL_INTERRUPT: kvm_interrupt).read(argument)?;
            let vector = u8::try_from(interrupt.irq).map_err(|_| EINVAL)?;
            // A client's whole interrupt controller replaces what it asked for; one that is wired to
            // the local APIC waits until that took it.
            if vcpu.has_pic() {
                return Err(ENXIO);
            }
            if vcpu.controller().is_some() && owned.state.events.interrupt.is_some() {
                return Err(EEXIST);
            }
            owned.state.events.interrupt = Some(vector);
        }
        KVM_RS_IOCTL_NMI => vcpu.send_nmi(),
        KVM_RS_IOCTL_SET_SIGNAL_MASK => set_signal_mask(owned, argument)?,
        KVM_RS_IOCTL_GET_LAPIC => {
            let area = vcpu.get_lapic(vm, &owned.state)?;
            command!(KVM_RS_IOCTL_GET_LAPIC: [u8; 1024]).write(argument, &area)?;
        }
        KVM_RS_IOCTL_SET_LAPIC => {
            if vcpu.controller().is_none() {
                return Err(EINVAL);
            }
            let area = command!(KVM_RS_IOCTL_SET_LAPIC: [u8; 1024]).read(argument)?;
            vcpu.set_lapic(vm, &mut owned.state, &area)?;
            if let Some(irqs) = vm.irqs() {
                irqs.lapic_restored();
            }
        }
        KVM_RS_IOCTL_TPR_ACCESS_REPORTING => {
            let command = command!(KVM_RS_IOCTL_TPR_ACCESS_REPORTING: kvm_tpr_access_ctl);
            let control = command.read(argument)?;
            if control.flags != 0 {
                return Err(EINVAL);
            }
            owned.state.vapic.set_reports(control.enabled != 0);
            command.write(argument, &control)?;
        }
        KVM_RS_IOCTL_SET_VAPIC_ADDR => {
            vcpu.controller().ok_or(EINVAL)?;
            let vapic = command!(KVM_RS_IOCTL_SET_VAPIC_ADDR: kvm_vapic_addr).read(argument)?;
            vcpu.set_vapic_address(vm.memory(), &mut owned.state, vapic.vapic_addr)?;
            vcpu.recheck_apicv(&owned.state);
        }
        KVM_RS_IOCTL_GET_TSC_KHZ => return Ok(owned.state.tsc.khz as isize),
        KVM_RS_IOCTL_SET_TSC_KHZ => {
            let khz = requested_khz(vm, argument)?;
            owned.with_vmcs(|vmcs, state| state.set_tsc_khz(vm, vmcs, khz))?;
        }
        KVM_RS_IOCTL_KVMCLOCK_CTRL => owned.state.note_stopped(vcpu)?,
        KVM_RS_IOCTL_ENABLE_CAP => {
            let capability = command!(KVM_RS_IOCTL_ENABLE_CAP: kvm_enable_cap).read(argument)?;
            let [value, ..] = capability.args;
            if capability.flags != 0 || capability.cap != KVM_CAP_ENFORCE_PV_FEATURE_CPUID {
                return Err(EINVAL);
            }
            owned.state.pv.enforced = value != 0;
        }
        KVM_RS_IOCTL_X86_SETUP_MCE => {
            let cap = command!(KVM_RS_IOCTL_X86_SETUP_MCE: u64).read(argument)?;
            let machine_check = owned.state.msrs.machine_check_mut();
            machine_check.set_up(cap).map_err(|_| EINVAL)?;
            vcpu.follow_machine_check(&mut owned.state);
        }
        KVM_RS_IOCTL_X86_SET_MCE => {
            let mce = command!(KVM_RS_IOCTL_X86_SET_MCE: kvm_x86_mce).read(argument)?;
            owned.inject_machine_check(vcpu, mce.bank, &convert::from_mce(&mce))?;
        }
        KVM_RS_IOCTL_TRANSLATE => {
            let mut translation =
                command!(KVM_RS_IOCTL_TRANSLATE: kvm_translation).read(argument)?;
            let gpa = owned.translate(vm, Gva::new(translation.linear_address));
            translation.physical_address = gpa.map_or(!0, |gpa| gpa.value());
            translation.valid = u8::from(gpa.is_some());
            translation.writeable = 1;
            translation.usermode = 0;
            uaccess::write(argument, &translation)?;
        }
        _ => return state::dispatch(vm, vcpu, owned, command, argument),
    }
    Ok(0)
}

/// Runs the guest, with registers in the shared page as the client asks for it.
fn run(vm: &Vm, vcpu: &Arc<Vcpu>, owned: &mut Owned) -> Result<isize> {
    let taken = if owned.state.mp_state == MpState::Uninitialized {
        Ok(())
    } else {
        state::take_page(vm, vcpu, owned)
    };
    let result = taken.and_then(|()| vcpu.run(vm, owned));
    if vcpu.run_page().valid_registers() != 0 {
        state::fill_page(vm, vcpu, owned);
    }
    trace::kvm_userspace_exit(|| {
        let errno = result.err().map_or(0, |error| error.to_errno());
        (vcpu.run_page().exit_reason(), errno)
    });
    result.map(|()| 0)
}

/// Takes the older table, whose entries have no subleaves.
fn set_cpuid(vm: &Vm, vcpu: &Vcpu, owned: &mut Owned, argument: usize) -> Result {
    let header: kvm_cpuid = uaccess::read(argument)?;
    let count = header.nent as usize;
    if count > cpuid::MAX_ENTRIES {
        return Err(E2BIG);
    }
    let old: KVVec<kvm_cpuid_entry> = uaccess::read_list(entries_address(argument)?, count)?;
    let mut entries = KVVec::with_capacity(count, GFP_KERNEL_ACCOUNT)?;
    for entry in &old {
        let entry = CpuidEntry {
            function: entry.function,
            eax: entry.eax,
            ebx: entry.ebx,
            ecx: entry.ecx,
            edx: entry.edx,
            ..CpuidEntry::default()
        };
        entries.push(entry, GFP_KERNEL_ACCOUNT)?;
    }
    owned.set_cpuid(vm, vcpu, entries)
}

fn set_cpuid2(vm: &Vm, vcpu: &Vcpu, owned: &mut Owned, argument: usize) -> Result {
    let header: kvm_cpuid2 = uaccess::read(argument)?;
    let count = header.nent as usize;
    if count > cpuid::MAX_ENTRIES {
        return Err(E2BIG);
    }
    let entries = uaccess::read_list(entries_address(argument)?, count)?;
    owned.set_cpuid(vm, vcpu, entries)
}

fn get_cpuid2(vm: &Vm, vcpu: &Vcpu, owned: &mut Owned, argument: usize) -> Result {
    let mut header: kvm_cpuid2 = uaccess::read(argument)?;
    owned.with_vmcs(|vmcs, state| state.refresh_cpuid(vm, vcpu, vmcs));
    let entries = owned.state.cpuid.entries();
    if (header.nent as usize) < entries.len() {
        return Err(E2BIG);
    }
    uaccess::write_list(entries_address(argument)?, entries)?;
    // CAST: At most MAX_ENTRIES.
    header.nent = entries.len() as u32;
    uaccess::write(argument, &header)
}

fn set_xcrs(owned: &mut Owned, argument: usize) -> Result {
    let xcrs = command!(KVM_RS_IOCTL_SET_XCRS: kvm_xcrs).read(argument)?;
    if xcrs.nr_xcrs > KVM_MAX_XCRS || xcrs.flags != 0 {
        return Err(EINVAL);
    }
    // Only XCR0 exists; entries for others are passed over, as in KVM.
    for entry in xcrs.xcrs.iter().take(xcrs.nr_xcrs as usize) {
        if entry.xcr == 0 {
            return owned.set_xcr0(entry.value);
        }
    }
    Ok(())
}

fn set_mp_state(vcpu: &Vcpu, owned: &mut Owned, value: u32) -> Result {
    let state = match value {
        KVM_MP_STATE_RUNNABLE => MpState::Runnable,
        KVM_MP_STATE_UNINITIALIZED => MpState::Uninitialized,
        KVM_MP_STATE_INIT_RECEIVED => MpState::InitReceived,
        KVM_MP_STATE_HALTED => MpState::Halted,
        KVM_MP_STATE_AP_RESET_HOLD => MpState::ApResetHold,
        // The older way to say that a startup IPI came after INIT.
        KVM_MP_STATE_SIPI_RECEIVED => MpState::InitReceived,
        _ => return Err(EINVAL),
    };
    // Without a local APIC in the kernel nothing could end the other states.
    if vcpu.controller().is_none() && state != MpState::Runnable {
        return Err(EINVAL);
    }
    if value == KVM_MP_STATE_SIPI_RECEIVED {
        if let Some(controller) = vcpu.controller() {
            controller.lapic().latch_startup();
        }
    }
    if state == MpState::Runnable {
        vcpu.forget_unhalt();
    }
    owned.state.mp_state = state;
    if state != MpState::Halted {
        owned.with_vmcs(|vmcs, state| state.end_hlt(vmcs));
    }
    vcpu.doorbell().set(Request::Event);
    Ok(())
}

fn set_signal_mask(owned: &mut Owned, argument: usize) -> Result {
    if argument == 0 {
        owned.signal_mask = None;
        return Ok(());
    }
    let header: kvm_signal_mask = uaccess::read(argument)?;
    if header.len as usize != size_of::<u64>() {
        return Err(EINVAL);
    }
    let address = argument
        .checked_add(size_of::<kvm_signal_mask>())
        .ok_or(EFAULT)?;
    owned.signal_mask = Some(SignalMask(uaccess::read(address)?));
    Ok(())
}

/// Maps the range before the guest uses it, and takes what was mapped off its start.
///
/// A failure counts only if nothing was mapped; else the next call meets it again.
fn pre_fault(vm: &Vm, range: &mut kvm_pre_fault_memory) -> Result {
    let start = Gpa::new(range.gpa);
    let aligned = start.is_page_aligned() && Gpa::new(range.size).is_page_aligned();
    if range.flags != 0 || !aligned || range.gpa.wrapping_add(range.size) <= range.gpa {
        return Err(EINVAL);
    }
    while range.size > 0 {
        let mapped = if task::signal_pending() {
            Err(EINTR)
        } else {
            vm.mmu().populate(Gpa::new(range.gpa))
        };
        match mapped {
            Ok(bytes) => {
                let bytes = bytes.min(range.size);
                range.gpa = range.gpa.wrapping_add(bytes);
                range.size = range.size.wrapping_sub(bytes);
            }
            Err(_) if range.gpa != start.value() => return Ok(()),
            Err(error) => return Err(error),
        }
        user_page::cond_resched();
    }
    Ok(())
}
