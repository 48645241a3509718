// SPDX-License-Identifier: GPL-2.0

//! A vCPU's VMCS as it is made, and its registers after RESET.

use super::{
    interrupt::ApicAddresses,
    state::{
        MpState,
        State,
        RDX, //
    },
    tsc::UNITY as TSC_UNITY,
    yielding::{
        PAUSE_GAP,
        PAUSE_WINDOW, //
    },
    Owned,
    Vcpu, //
};
use crate::{
    hypervisor::Hypervisor,
    lapic::Reset,
    linux::parameter,
    mmu::Root,
    vm::Vm,
    vmx::{
        apicv::Apicv,
        controls::secondary,
        field::{
            self,
            Natural, //
        },
        flexpriority::TprShadow,
        guest_state::DescriptorTable,
        host_state,
        preemption_timer::PreemptionTimer,
        vmcs::CurrentVmcs, //
    },
    x86::{
        control_regs::{
            Cr0,
            Cr4,
            Dr7,
            Efer,
            Rflags, //
        },
        exception::Vector,
        msr_value::PAT_RESET,
        segment::Segment,
        segment_register::SegmentRegister, //
    }, //
};
use kernel::prelude::*;

/// Exceptions that exit: with #DB and #AC a guest could otherwise keep the CPU delivering one after the
/// other for ever, without ever taking an interrupt of the host; #UD may be a hypercall in the words of
/// another maker's CPU; #MC is the host's.
pub(super) const EXCEPTION_BITMAP: u32 = 1 << Vector::DB.number() as u32
    | 1 << Vector::UD.number() as u32
    | 1 << Vector::AC.number() as u32
    | 1 << Vector::MC.number() as u32;

/// RFLAGS after RESET.
const RFLAGS_RESET: u64 = Rflags::RESET.value();

/// Writes everything of a new VMCS that does not depend on the guest's registers.
///
/// `apic` is where the local APIC is, if that is in the kernel.
pub(super) fn set_up(
    hypervisor: &Hypervisor,
    vmcs: &CurrentVmcs<'_>,
    state: &mut State,
    root: Root,
    vpid: Option<u16>,
    apic: Option<ApicAddresses>,
) {
    let capabilities = &hypervisor.capabilities;
    vmcs.write(field::PIN_BASED_CONTROLS, capabilities.pin());
    if let Some(apic) = apic.filter(|_| capabilities.tpr_shadow()) {
        state.tpr_shadow = TprShadow::attach(vmcs, apic.registers);
        if let Some(descriptor) = apic.posted {
            state.apicv = Apicv::attach(vmcs, descriptor);
            state.tpr_shadow.look_always();
        }
    }
    let exits = state.disabled_exits;
    // What waits by MWAIT may wait in a state in which the CPU's timer stands.
    if apic.is_some() && state.restricted.is_none() && !exits.mwait() {
        state.timer = PreemptionTimer::attach(vmcs, capabilities);
    }
    state.primary = exits.primary(state.tpr_shadow.primary(capabilities.primary()));
    vmcs.write(field::PRIMARY_CONTROLS, state.primary);
    set_secondary(hypervisor, vmcs, state, vpid.is_some());
    vmcs.write(field::VM_EXIT_CONTROLS, capabilities.exit());
    vmcs.write(field::VM_ENTRY_CONTROLS, capabilities.entry());
    state.update_exception_bitmap(vmcs);
    vmcs.write(field::PAGE_FAULT_ERROR_CODE_MASK, 0);
    vmcs.write(field::PAGE_FAULT_ERROR_CODE_MATCH, 0);
    vmcs.write(field::CR3_TARGET_COUNT, 0);
    vmcs.write(field::VM_EXIT_MSR_STORE_COUNT, 0);
    vmcs.write(field::VM_EXIT_MSR_LOAD_COUNT, 0);
    vmcs.write(field::VM_ENTRY_MSR_LOAD_COUNT, 0);
    vmcs.write(field::VM_ENTRY_INTERRUPTION_INFO, 0);
    vmcs.write(field::MSR_BITMAP, hypervisor.msr_bitmap.address().value());
    vmcs.write(field::VMCS_LINK_POINTER, !0);
    if let Root::Ept(pointer) = root {
        vmcs.write(field::EPT_POINTER, pointer);
    }
    if let Some(perf) = &state.perf {
        perf.attach(vmcs);
    }
    if let Some(pml) = &state.pml {
        pml.attach(vmcs);
    }
    if let Some(vpid) = vpid {
        vmcs.write(field::VIRTUAL_PROCESSOR_ID, vpid);
    }
    if capabilities.has_secondary(secondary::ENABLE_XSAVES) {
        vmcs.write(field::XSS_EXITING_BITMAP, 0);
    }
    if capabilities.has_secondary(secondary::ENCLS_EXITING) {
        // No guest has SGX.
        vmcs.write(field::ENCLS_EXITING_BITMAP, !0);
    }
    if capabilities.has_secondary(secondary::PAUSE_LOOP_EXITING) {
        vmcs.write(field::PLE_GAP, PAUSE_GAP);
        vmcs.write(field::PLE_WINDOW, PAUSE_WINDOW);
    }
    if capabilities.has_secondary(secondary::USE_TSC_SCALING) {
        vmcs.write(field::TSC_MULTIPLIER, TSC_UNITY);
    }
    host_state::write_constants(vmcs, &hypervisor.host, capabilities.swaps_msrs());
}

/// Writes the secondary controls, some of which follow the guest's CPUID, what it does not have raises
/// #UD; and some the mode of its local APIC.
pub(super) fn set_secondary(
    hypervisor: &Hypervisor,
    vmcs: &CurrentVmcs<'_>,
    state: &State,
    has_vpid: bool,
) {
    use crate::x86::cpuid::Feature;
    let mut controls = state
        .accesses
        .secondary(hypervisor.capabilities.secondary());
    controls = state.disabled_exits.secondary(controls);
    controls = state.apicv.secondary(controls);
    if !has_vpid {
        controls &= !secondary::ENABLE_VPID;
    }
    if !state.logs_writes {
        controls &= !secondary::ENABLE_PML;
    }
    if !state.features.has(Feature::RDTSCP) && !state.features.has(Feature::RDPID) {
        controls &= !secondary::ENABLE_RDTSCP;
    }
    if !state.features.has(Feature::INVPCID) {
        controls &= !secondary::ENABLE_INVPCID;
    }
    if !state.features.has(Feature::XSAVES) {
        controls &= !secondary::ENABLE_XSAVES;
    }
    if !state.features.has(Feature::WAITPKG) {
        controls &= !secondary::ENABLE_USER_WAIT_PAUSE;
    }
    if state.features.has(Feature::RDRAND) {
        controls &= !secondary::RDRAND_EXITING;
    }
    if state.features.has(Feature::RDSEED) {
        controls &= !secondary::RDSEED_EXITING;
    }
    vmcs.write(field::SECONDARY_CONTROLS, controls);
}

/// What RESET sets and INIT leaves as it is, by a note to the SDM's table.
const NO_CACHE: Cr0 = Cr0::CD.with(Cr0::NW);

impl Vcpu {
    /// Gives the vCPU the registers that RESET or INIT leaves; see the table in the SDM.
    pub(super) fn reset(&self, owned: &mut Owned, kind: Reset) {
        owned.state.async_pages.reset();
        owned.state.pv.reset();
        owned.with_vmcs(|vmcs, state| {
            if kind == Reset::PowerUp {
                state.power_up_registers(vmcs);
            }
            state.reset_registers(vmcs, kind);
            state.follow_cpuid(self);
        });
    }

    /// Does what INIT and startup IPIs ask for, if they came.
    pub(crate) fn apply_signals(&self, vm: &Vm, owned: &mut Owned) {
        let signals = self.accept_init_and_startup(vm, &mut owned.state);
        if signals.init {
            vm.note_destination(self);
            self.reset(owned, Reset::Init);
            owned.state.mp_state = if self.is_bootstrap() {
                MpState::Runnable
            } else {
                MpState::InitReceived
            };
        }
        if let Some(vector) = signals.startup {
            if owned.state.mp_state == MpState::InitReceived {
                self.start_up(owned, vector);
            }
        }
    }

    /// Starts an application processor at the page that its startup IPI names.
    pub(super) fn start_up(&self, owned: &mut Owned, vector: u8) {
        owned.with_vmcs(|vmcs, state| {
            let mut code = Segment::reset_code();
            code.selector = u16::from(vector) << 8;
            code.base = u64::from(vector) << 12;
            state.load_segment(vmcs, SegmentRegister::Cs, &code);
            state.set_rip(0);
            state.mp_state = MpState::Runnable;
        });
    }
}

impl State {
    /// Gives what INIT leaves as it is its first values.
    fn power_up_registers(&mut self, vmcs: &CurrentVmcs<'_>) {
        self.write_hardware_pat(vmcs, PAT_RESET);
        vmcs.write(field::GUEST_SYSENTER_CS, 0);
        vmcs.write(field::GUEST_SYSENTER_ESP, Natural(0));
        vmcs.write(field::GUEST_SYSENTER_EIP, Natural(0));
        vmcs.write(field::GUEST_DEBUGCTL, 0);
    }

    fn reset_registers(&mut self, vmcs: &CurrentVmcs<'_>, kind: Reset) {
        let cr0 = match kind {
            Reset::PowerUp => Cr0::RESET,
            Reset::Init => Cr0::RESET
                .without(NO_CACHE)
                .with(self.cr0(vmcs).common(NO_CACHE)),
        };
        for index in 0..16 {
            self.set_gpr(index, 0);
        }
        // The version that CPUID tells; family 6 as long as it tells nothing.
        let [version, ..] = self.cpuid.cpuid(1, 0);
        let has_version = self.cpuid.has(1, 0);
        self.set_gpr(RDX, if has_version { version.into() } else { 0x600 });
        self.set_rip(0xfff0);
        self.set_rflags(RFLAGS_RESET);
        self.regs.cr2 = 0;
        self.regs.spec_ctrl = 0;
        self.msrs.reset_umwait_control();
        self.cr8 = 0;
        self.debug.reset();
        self.events = super::events::Events::default();
        self.pending = None;

        self.load_segment(vmcs, SegmentRegister::Cs, &Segment::reset_code());
        for register in [
            SegmentRegister::Ds,
            SegmentRegister::Es,
            SegmentRegister::Fs,
            SegmentRegister::Gs,
            SegmentRegister::Ss,
        ] {
            self.load_segment(vmcs, register, &Segment::reset_data());
        }
        self.load_segment(vmcs, SegmentRegister::Ldtr, &Segment::reset_ldt());
        self.load_segment(vmcs, SegmentRegister::Tr, &Segment::reset_tss());
        let table = DescriptorTable {
            base: 0,
            limit: 0xffff,
        };
        vmcs.set_gdtr(table);
        vmcs.set_idtr(table);

        self.set_masks(vmcs);
        self.load_cr3(vmcs, 0);
        self.load_cr0(vmcs, cr0);
        self.load_cr4(vmcs, Cr4::NONE);
        self.load_efer(vmcs, Efer::NONE);
        vmcs.write(field::GUEST_PENDING_DEBUG_EXCEPTIONS, Natural(0));
        vmcs.write(field::GUEST_INTERRUPTIBILITY, 0);
        vmcs.write(field::GUEST_ACTIVITY_STATE, 0);
        vmcs.write(field::VM_ENTRY_INTERRUPTION_INFO, 0);
        self.load_pdptes(vmcs, [0; 4]);
        self.load_dr7(vmcs, Dr7::RESET);
        self.cpuid_stale = true;
        self.owed.vpid = true;
        self.flush(vmcs);
    }
}

/// Prints the VMCS after a failed entry, if the parameter `dump_invalid_vmcs` asks for it.
pub(super) fn dump(vmcs: &CurrentVmcs<'_>) {
    if !parameter::wants_vmcs_dump() {
        return;
    }
    for &(name, encoding) in field::ALL {
        if let Some(value) = vmcs.read_encoding(encoding) {
            pr_err!("{}: {:#x}\n", name, value);
        }
    }
}
