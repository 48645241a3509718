// SPDX-License-Identifier: GPL-2.0

//! The registers as a client reads and writes them.

use super::{
    context::Context,
    control,
    pv::Feature,
    reset,
    state::{
        State,
        RSP, //
    },
    Owned,
    Vcpu, //
};
use crate::{
    vm::{
        settings::Quirk,
        Vm, //
    },
    vmx::{
        guest_state::DescriptorTable,
        vmcs::CurrentVmcs, //
    },
    x86::{
        addr::{
            Gpa,
            Gva, //
        },
        control_regs::{
            rules::{
                self,
                Paging, //
            },
            Cr0,
            Cr4,
            Efer,
            Xcr0, //
        },
        cpuid::{
            hide_kvm_feature,
            CpuidEntry,
            GuestFeatures,
            Runtime, //
        },
        segment::Segment,
        segment_register::SegmentRegister,
        sregs::{
            self,
            SpecialRegs, //
        }, //
    }, //
};
use kernel::prelude::*;

/// What KVM_GET_REGS gives: RAX to R15 in the order of their encoding, RIP and RFLAGS.
#[derive(Clone, Copy, Default)]
pub(crate) struct GeneralRegisters {
    /// RAX, RCX, RDX, RBX, RSP, RBP, RSI, RDI, R8 to R15.
    pub(crate) gpr: [u64; 16],
    /// RIP.
    pub(crate) rip: u64,
    /// RFLAGS.
    pub(crate) rflags: u64,
}

/// What KVM_GET_SREGS gives.
#[derive(Clone, Copy)]
pub(crate) struct SystemRegisters {
    /// ES, CS, SS, DS, FS, GS, LDTR, TR.
    pub(crate) segments: [Segment; 8],
    /// GDTR.
    pub(crate) gdt: DescriptorTable,
    /// IDTR.
    pub(crate) idt: DescriptorTable,
    /// CR0.
    pub(crate) cr0: Cr0,
    /// CR2.
    pub(crate) cr2: u64,
    /// CR3.
    pub(crate) cr3: u64,
    /// CR4.
    pub(crate) cr4: Cr4,
    /// CR8.
    pub(crate) cr8: u64,
    /// EFER.
    pub(crate) efer: Efer,
    /// IA32_APIC_BASE.
    pub(crate) apic_base: u64,
    /// An interrupt on its way to the guest; the older of the two interfaces has it here.
    pub(crate) interrupt: Option<u8>,
    /// The PDPTEs: with PAE paging, and where the newer of the two interfaces has them.
    pub(crate) pdptes: Option<[u64; 4]>,
}

impl Owned {
    /// Returns the general registers.
    pub(crate) fn general_registers(&mut self) -> GeneralRegisters {
        self.with_vmcs(|vmcs, state| {
            state.fetch(vmcs);
            let mut registers = GeneralRegisters {
                rip: state.fetched_rip(),
                rflags: state.visible_rflags(),
                ..GeneralRegisters::default()
            };
            for (index, register) in registers.gpr.iter_mut().enumerate() {
                *register = state.gpr(index);
            }
            registers
        })
    }

    /// Replaces the general registers; an exception that was to be delivered is dropped.
    pub(crate) fn set_general_registers(&mut self, registers: &GeneralRegisters) {
        if self.state.guest_debug.steps() {
            self.with_vmcs(|vmcs, state| {
                state.set_rip(registers.rip);
                state.set_visible_rflags(vmcs, registers.rflags);
            });
        } else {
            self.state.set_rip(registers.rip);
            self.state.set_rflags(registers.rflags);
        }
        let state = &mut self.state;
        for (index, &value) in registers.gpr.iter().enumerate() {
            state.set_gpr(index, value);
        }
        state.events.exception = None;
        state.recheck_entry();
        // What the VMCS has is stale now, RSP included.
        state.set_gpr(RSP, state.gpr(RSP));
    }

    /// Returns the special registers.
    pub(crate) fn system_registers(&mut self, vm: &Vm, vcpu: &Vcpu) -> SystemRegisters {
        self.state.settle_payload(vm);
        self.with_vmcs(|vmcs, state| {
            let mut segments = [Segment::reset_data(); 8];
            for (segment, register) in segments.iter_mut().zip(SegmentRegister::ALL) {
                *segment = state.segment(vmcs, register);
            }
            let paging = Paging::of(state.cr0(vmcs), state.cr4(vmcs), state.efer);
            SystemRegisters {
                segments,
                gdt: vmcs.gdtr(),
                idt: vmcs.idtr(),
                cr0: state.cr0(vmcs),
                cr2: state.regs.cr2 as u64,
                cr3: state.cr3(vmcs),
                cr4: state.cr4(vmcs),
                cr8: u64::from(vcpu.cr8(state)),
                efer: state.efer,
                apic_base: vcpu.apic_base(state),
                interrupt: state.interrupt_under_way(vcpu),
                pdptes: (paging == Paging::Pae).then(|| state.pdptes(vmcs)),
            }
        })
    }

    /// Replaces the special registers, all or none; `EINVAL` if the guest cannot be in that state.
    pub(crate) fn set_system_registers(
        &mut self,
        vm: &Vm,
        vcpu: &Vcpu,
        registers: &SystemRegisters,
    ) -> Result {
        let [_, code, ..] = registers.segments;
        let special = SpecialRegs {
            cr0: registers.cr0,
            cr3: registers.cr3,
            cr4: registers.cr4,
            efer: registers.efer,
            cs_l: code.l,
        };
        if !sregs::is_valid(&special, &self.state.features) {
            return Err(EINVAL);
        }
        vcpu.set_apic_base(vm, &mut self.state, registers.apic_base, true)
            .map_err(|_| EINVAL)?;

        let paging = Paging::of(registers.cr0, registers.cr4, registers.efer);
        let pdptes = match paging {
            Paging::Pae if registers.pdptes.is_some() => registers.pdptes,
            // Entries that the guest cannot have are kept as not present, as KVM does.
            Paging::Pae => Some(
                control::read_pdptes(vm.memory(), &self.state.features, registers.cr3)
                    .unwrap_or([0; 4]),
            ),
            _ => None,
        };
        self.with_vmcs(|vmcs, state| {
            for (segment, register) in registers.segments.iter().zip(SegmentRegister::ALL) {
                state.load_segment(vmcs, register, segment);
            }
            vmcs.set_gdtr(registers.gdt);
            vmcs.set_idtr(registers.idt);
            state.regs.cr2 = registers.cr2 as usize;
            state.load_cr3(vmcs, registers.cr3);
            vcpu.set_cr8(state, (registers.cr8 & 0xf) as u8);
            state.load_efer(vmcs, registers.efer);
            state.load_cr0(vmcs, registers.cr0);
            state.load_cr4(vmcs, registers.cr4);
            if let Some(pdptes) = pdptes {
                state.load_pdptes(vmcs, pdptes);
            }
            state.follow_cpuid(vcpu);
            if let Some(vector) = registers.interrupt {
                state.resume_interrupt(vcpu, vector);
            }
            state.settle_mp_state(vcpu, registers);
            // The guest's own translations may be from other tables, at another width.
            state.owed.vpid = true;
        });
        Ok(())
    }

    /// Replaces the CPUID table; `EINVAL` if it may not change any more or makes no sense.
    pub(crate) fn set_cpuid(&mut self, vm: &Vm, vcpu: &Vcpu, entries: KVVec<CpuidEntry>) -> Result {
        let hypervisor = vm.hypervisor();
        let has_vpid = vcpu.vpid().is_some();
        let mut entries = entries;
        if self.state.disabled_exits.hlt() {
            // One that waits in its guest cannot be woken by a hypercall.
            hide_kvm_feature(&mut entries, 1 << Feature::Unhalt as u32);
        }
        let runtime = self.with_vmcs(|vmcs, state| state.cpuid_runtime(vm, vcpu, vmcs));
        let frozen = self.state.has_run;
        let layout = &hypervisor.model.layout;
        // What is replaced is freed here, not with preemption off.
        self.state
            .cpuid
            .replace(entries, frozen, &runtime, layout)
            .map_err(|_| EINVAL)?;
        if frozen {
            return Ok(());
        }
        let features = GuestFeatures::derive(self.state.cpuid.entries(), &hypervisor.model);
        self.with_vmcs(|vmcs, state| {
            let cr4 = state.cr4(vmcs);
            state.features = features;
            vcpu.configure_controller(state, &features, vm.settings());
            state.set_masks(vmcs);
            state.load_cr4(vmcs, cr4);
            reset::set_secondary(hypervisor, vmcs, state, has_vpid);
            state.follow_cpuid(vcpu);
            state.cpuid_stale = true;
        });
        Ok(())
    }

    /// Replaces XCR0; `EINVAL` for a value that the guest's CPUID does not allow.
    pub(crate) fn set_xcr0(&mut self, value: u64) -> Result {
        let state = &mut self.state;
        let xcr0 = rules::check_xcr0(Xcr0::new(value), state.features.xcr0).map_err(|_| EINVAL)?;
        state.load_xcr0(xcr0);
        Ok(())
    }
}

impl State {
    /// Returns the state that shows in CPUID.
    fn cpuid_runtime(&self, vm: &Vm, vcpu: &Vcpu, vmcs: &CurrentVmcs<'_>) -> Runtime {
        const APIC_ENABLED: u64 = 1 << 11;
        let cr4 = self.cr4(vmcs);
        Runtime {
            osxsave: cr4.contains(Cr4::OSXSAVE),
            pke: cr4.contains(Cr4::PKE),
            apic_enabled: vcpu.apic_base(self) & APIC_ENABLED != 0,
            mwait: (!vm.settings().has(Quirk::MiscEnableNoMwait)).then(|| self.msrs.has_mwait()),
            xcr0: self.xcr0.value(),
            xss: 0,
        }
    }

    /// Brings the runtime bits of the CPUID table up to date.
    pub(crate) fn refresh_cpuid(&mut self, vm: &Vm, vcpu: &Vcpu, vmcs: &CurrentVmcs<'_>) {
        let runtime = self.cpuid_runtime(vm, vcpu, vmcs);
        self.cpuid.refresh(&runtime, &vm.hypervisor().model.layout);
        self.cpuid_stale = false;
    }

    /// Older clients do not set the MP state of the bootstrap processor: a guest at the reset vector
    /// runs.
    fn settle_mp_state(&mut self, vcpu: &Vcpu, registers: &SystemRegisters) {
        let [_, code, ..] = registers.segments;
        let at_reset = self.fetched_rip() == 0xfff0
            && code.selector == 0xf000
            && code.base == 0xffff_0000
            && !registers.cr0.contains(Cr0::PE);
        if at_reset && vcpu.is_bootstrap() {
            self.mp_state = super::MpState::Runnable;
        }
    }
}

impl Owned {
    /// Returns where the guest's own tables put a linear address, as its kernel would read it.
    pub(crate) fn translate(&mut self, vm: &Vm, gva: Gva) -> Option<Gpa> {
        let mut context = self.with_vmcs(|vmcs, state| Context::read(state, vmcs));
        context.paging.cpl = 0;
        context.translate(vm, gva.value(), false, false).ok()
    }
}
