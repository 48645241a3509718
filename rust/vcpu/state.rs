// SPDX-License-Identifier: GPL-2.0

//! A vCPU's state: what its mutex protects.
//!
//! Much of it lives in the VMCS. RIP, RSP and RFLAGS are cached here after the first read of an exit
//! and written back before the next entry only if they changed; the rest is read where it is needed.

use super::{
    async_page::AsyncPages,
    debug::DebugRegisters,
    disabled_exits::DisabledExits,
    entry_work::EntryWork,
    events::Events,
    guest_debug::GuestDebug,
    halt::PollTime,
    interrupt::{
        pv_eoi::PvEoi,
        vapic::Vapic, //
    },
    nmi::HandlerTime,
    pending::{
        AccessLog,
        Pending, //
    },
    protection_keys::ProtectionKeys,
    pv::Pv,
    restricted::{
        GuestOwned,
        Nonpaged,
        Restricted, //
    },
    tsc::{
        self,
        GuestTsc, //
    },
    view::View, //
};
use crate::{
    hypervisor::Hypervisor,
    lapic,
    linux::{
        fpu::GuestFpu,
        guest::GuestRegs, //
    },
    vm::msr_filter::MsrFilter,
    vmx::{
        apicv::Apicv,
        field::{
            self,
            Natural, //
        },
        flexpriority::{
            Accesses,
            TprShadow, //
        },
        guest_state::{
            BLOCKING_BY_MOV_SS,
            BLOCKING_BY_STI, //
        },
        host_state::HostControlRegisters,
        msr_bitmap::MsrBitmap,
        perf::PerfSwitch,
        pml::PmlBuffer,
        preemption_timer::PreemptionTimer,
        tlb::Owed,
        vmcs::CurrentVmcs, //
    },
    x86::{
        control_regs::{
            Cr0,
            Cr4,
            Efer,
            Rflags,
            Xcr0, //
        },
        cpuid::{
            CpuidEntry,
            GuestCpuid,
            GuestFeatures, //
        },
        guest_msr::GuestMsrs,
        segment_register::SegmentRegister, //
    }, //
};
use kernel::{
    prelude::*,
    sync::Arc, //
};

/// Index of RSP among the general-purpose registers.
pub(crate) const RSP: usize = 4;
/// Index of RAX.
pub(crate) const RAX: usize = 0;
/// Index of RCX.
pub(crate) const RCX: usize = 1;
/// Index of RDX.
pub(crate) const RDX: usize = 2;
/// Index of RBX.
pub(crate) const RBX: usize = 3;
/// Index of RSI.
pub(crate) const RSI: usize = 6;
/// Index of RDI.
pub(crate) const RDI: usize = 7;

/// CS.L in an access-rights word.
const RIGHTS_L: u32 = 1 << 13;

/// Whether a vCPU runs, as KVM_GET_MP_STATE tells.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum MpState {
    /// Running, or ready to.
    Runnable,
    /// An application processor that waits for INIT.
    Uninitialized,
    /// It got INIT and waits for a startup IPI.
    InitReceived,
    /// In HLT, until an interrupt comes.
    Halted,
    /// Waiting for a startup IPI in the manner of encrypted guests, as in HLT.
    ApResetHold,
    /// Running, as its client and its guest see it, but until a page that is away or an interrupt comes it
    /// is as in HLT.
    AwaitsPage,
}

/// Which cached registers hold the guest's value, or differ from the VMCS's.
#[derive(Clone, Copy, Default)]
struct Cache {
    rip: Cached,
    rsp: Cached,
    rflags: Cached,
}

/// How a cached register relates to the VMCS.
#[derive(Clone, Copy, Default, PartialEq, Eq)]
enum Cached {
    /// The VMCS has the value.
    #[default]
    Absent,
    /// Both have it.
    Clean,
    /// The cache has it.
    Dirty,
}

/// The state of a vCPU.
pub(crate) struct State {
    /// General-purpose registers and CR2, as the world switch swaps them.
    pub(crate) regs: GuestRegs,
    rip: u64,
    rflags: u64,
    cache: Cache,
    /// IA32_EFER; all accesses exit, so that this is always right.
    pub(crate) efer: Efer,
    /// XCR0; likewise.
    pub(crate) xcr0: Xcr0,
    /// CR8 of a guest without a local APIC in the kernel.
    pub(crate) cr8: u8,
    /// IA32_APIC_BASE of a guest without a local APIC in the kernel.
    pub(crate) apic_base: u64,
    /// The guest's FPU.
    pub(crate) fpu: GuestFpu,
    /// The guest's PKRU, which is not part of it.
    pub(crate) protection_keys: ProtectionKeys,
    /// The guest's CPUID table.
    pub(crate) cpuid: GuestCpuid<KVVec<CpuidEntry>>,
    /// What follows from it.
    pub(crate) features: GuestFeatures,
    /// Whether the runtime bits of the table may be out of date.
    pub(crate) cpuid_stale: bool,
    /// MSRs without a place of their own.
    pub(crate) msrs: KBox<GuestMsrs>,
    /// Events on their way to the guest.
    pub(crate) events: Events,
    /// Debug registers.
    pub(crate) debug: DebugRegisters,
    /// What the next entry has to load that most do not.
    pub(crate) entry_work: EntryWork,
    /// The CPU's timer that ends a stay in the guest, for the local APIC's.
    pub(crate) timer: PreemptionTimer,
    /// The host's timer may be armed for the local APIC's.
    pub(crate) host_timer: bool,
    /// What the client debugs.
    pub(crate) guest_debug: GuestDebug,
    /// What KVM_RUN must finish before it enters the guest.
    pub(crate) pending: Option<Pending>,
    /// What the instruction that is executed in software has accessed so far.
    pub(super) access_log: AccessLog,
    /// The host's control registers as the VMCS has them.
    pub(crate) host: HostControlRegisters,
    /// Flushes to be done before the next entry.
    pub(crate) owed: Owed,
    /// The bits of control registers that the guest changes without an exit, as the VMCS has them.
    pub(crate) guest_owned: GuestOwned,
    /// What the guest believes where hardware has something else; none on an unrestricted CPU.
    pub(crate) restricted: Option<KBox<Restricted>>,
    /// Exits that the client does without.
    pub(crate) disabled_exits: DisabledExits,
    /// The primary controls as the VMCS has them.
    pub(crate) primary: u32,
    /// Whether the vCPU runs.
    pub(crate) mp_state: MpState,
    /// How long the vCPU polls when it halts.
    pub(crate) poll_time: PollTime,
    /// Whether the guest was entered since the vCPU was created.
    pub(crate) has_run: bool,
    /// The local APIC's half that belongs to the vCPU's thread.
    pub(crate) lapic: Option<lapic::Owned>,
    /// The TPR in hardware, with the threshold for the next entry.
    pub(crate) tpr_shadow: TprShadow,
    /// Which other accesses to the local APIC the processor virtualises.
    pub(crate) accesses: Accesses,
    /// Whether the processor has the local APIC.
    pub(crate) apicv: Apicv,
    /// The TPR of a guest whose client patches its accesses.
    pub(crate) vapic: Vapic,
    /// Where the guest ends interrupts without an exit.
    pub(crate) pv_eoi: PvEoi,
    /// Whether this vCPU is a reason not to use the APIC-access page.
    pub(crate) inhibits_apic_access: bool,
    /// The time-stamp counter.
    pub(crate) tsc: GuestTsc,
    /// What debugfs shows.
    pub(crate) view: Arc<View>,
    /// What a guest that knows of KVM has.
    pub(crate) pv: Pv,
    /// Pages that the guest accessed while they were away.
    pub(crate) async_pages: AsyncPages,
    /// IA32_TSC_ADJUST.
    pub(crate) tsc_adjust: u64,
    /// How long an NMI's handler has run, where software blocks NMIs meanwhile.
    pub(crate) nmi_handler: Option<HandlerTime>,
    /// What is switched for the host's perf, if it drives counters.
    pub(crate) perf: Option<PerfSwitch>,
    /// Where the processor logs the pages that the guest writes, if it can.
    pub(crate) pml: Option<PmlBuffer>,
    /// Whether it does.
    pub(crate) logs_writes: bool,
    /// The VM's MSR filter as this vCPU knows it, which keeps the bitmap of the VMCS.
    pub(crate) msr_filter: Option<Arc<MsrFilter>>,
    /// The bitmap of the VMCS, if this vCPU needs one of its own.
    pub(crate) msr_bitmap: Option<MsrBitmap>,
}

impl State {
    /// Returns the state of a new vCPU; its registers are set by `reset`.
    pub(crate) fn new(
        hypervisor: &Hypervisor,
        bootstrap: bool,
        zeroed_features: bool,
        nonpaged: Option<Nonpaged>,
    ) -> Result<Self> {
        Ok(Self {
            regs: GuestRegs::default(),
            rip: 0,
            rflags: 0,
            cache: Cache::default(),
            efer: Efer::NONE,
            xcr0: Xcr0::RESET,
            cr8: 0,
            apic_base: lapic::base_after_reset(bootstrap),
            fpu: GuestFpu::new()?,
            protection_keys: ProtectionKeys::default(),
            cpuid: GuestCpuid::new(KVVec::new()),
            features: GuestFeatures::derive(&[], &hypervisor.model),
            cpuid_stale: true,
            msrs: KBox::new(
                GuestMsrs::new(hypervisor.arch_capabilities, zeroed_features),
                GFP_KERNEL_ACCOUNT,
            )?,
            events: Events::default(),
            debug: DebugRegisters::new(),
            entry_work: EntryWork::default(),
            timer: PreemptionTimer::off(),
            host_timer: false,
            guest_debug: GuestDebug::default(),
            pending: None,
            access_log: AccessLog::default(),
            host: HostControlRegisters::default(),
            owed: Owed::ALL,
            guest_owned: GuestOwned::default(),
            restricted: match nonpaged {
                Some(nonpaged) => Some(KBox::new(Restricted::new(nonpaged), GFP_KERNEL_ACCOUNT)?),
                None => None,
            },
            disabled_exits: DisabledExits::default(),
            primary: 0,
            mp_state: MpState::Runnable,
            poll_time: PollTime::default(),
            has_run: false,
            lapic: None,
            tpr_shadow: TprShadow::off(),
            accesses: Accesses::None,
            apicv: Apicv::absent(),
            vapic: Vapic::default(),
            pv_eoi: PvEoi::default(),
            inhibits_apic_access: false,
            tsc: GuestTsc::of_host(),
            view: View::new(tsc::UNITY)?,
            pv: Pv::default(),
            async_pages: AsyncPages::new(),
            tsc_adjust: 0,
            nmi_handler: (!hypervisor.capabilities.virtual_nmis()).then(HandlerTime::default),
            perf: if hypervisor.perf_counts {
                Some(PerfSwitch::new()?)
            } else {
                None
            },
            pml: if hypervisor.capabilities.pml() {
                Some(PmlBuffer::new()?)
            } else {
                None
            },
            logs_writes: false,
            msr_filter: None,
            msr_bitmap: None,
        })
    }

    /// Returns a general-purpose register other than RSP; RSP only where it is cached.
    #[inline]
    pub(crate) fn gpr(&self, index: usize) -> u64 {
        self.regs.gpr.get(index).map_or(0, |&value| value as u64)
    }

    /// Sets a general-purpose register.
    #[inline]
    pub(crate) fn set_gpr(&mut self, index: usize, value: u64) {
        if index == RSP {
            self.cache.rsp = Cached::Dirty;
        }
        if let Some(register) = self.regs.gpr.get_mut(index) {
            *register = value as usize;
        }
    }

    /// Returns a general-purpose register, RSP included.
    pub(crate) fn gpr_with(&mut self, vmcs: &CurrentVmcs<'_>, index: usize) -> u64 {
        if index == RSP && self.cache.rsp == Cached::Absent {
            let Natural(rsp) = vmcs.read(field::GUEST_RSP);
            if let Some(register) = self.regs.gpr.get_mut(RSP) {
                *register = rsp as usize;
            }
            self.cache.rsp = Cached::Clean;
        }
        self.gpr(index)
    }

    /// Returns EDX:EAX.
    pub(crate) fn edx_eax(&self) -> u64 {
        (self.gpr(RDX) << 32) | (self.gpr(RAX) & 0xffff_ffff)
    }

    /// Sets EDX:EAX, and the upper halves of RDX and RAX to 0.
    pub(crate) fn set_edx_eax(&mut self, value: u64) {
        self.set_gpr(RAX, value & 0xffff_ffff);
        self.set_gpr(RDX, value >> 32);
    }

    /// Returns RIP.
    #[inline]
    pub(crate) fn rip(&mut self, vmcs: &CurrentVmcs<'_>) -> u64 {
        if self.cache.rip == Cached::Absent {
            self.rip = vmcs.read(field::GUEST_RIP).0;
            self.cache.rip = Cached::Clean;
        }
        self.rip
    }

    /// Returns RIP where it was fetched before (see [`State::fetch`]).
    pub(crate) fn fetched_rip(&self) -> u64 {
        self.rip
    }

    /// Sets RIP.
    #[inline]
    pub(crate) fn set_rip(&mut self, value: u64) {
        self.rip = value;
        self.cache.rip = Cached::Dirty;
    }

    /// Returns RFLAGS.
    #[inline]
    pub(crate) fn rflags(&mut self, vmcs: &CurrentVmcs<'_>) -> u64 {
        if self.cache.rflags == Cached::Absent {
            let Natural(hardware) = vmcs.read(field::GUEST_RFLAGS);
            self.rflags = match self.real_mode() {
                None => hardware,
                Some(real_mode) => real_mode.visible_flags(hardware),
            };
            self.cache.rflags = Cached::Clean;
        }
        self.rflags
    }

    /// Returns RFLAGS where it was fetched before (see [`State::fetch`]).
    pub(crate) fn fetched_rflags(&self) -> u64 {
        self.rflags
    }

    /// Sets RFLAGS; bit 1 reads as 1 always.
    pub(crate) fn set_rflags(&mut self, value: u64) {
        self.rflags = value | Rflags::FIXED.value();
        self.cache.rflags = Cached::Dirty;
    }

    /// Reads RIP, RSP and RFLAGS, so that they are there when the VMCS is not.
    pub(crate) fn fetch(&mut self, vmcs: &CurrentVmcs<'_>) {
        self.rip(vmcs);
        self.gpr_with(vmcs, RSP);
        self.rflags(vmcs);
    }

    /// Writes changed registers to the VMCS; the guest is about to be entered.
    #[inline]
    pub(crate) fn flush(&mut self, vmcs: &CurrentVmcs<'_>) {
        if self.cache.rip == Cached::Dirty {
            vmcs.write(field::GUEST_RIP, Natural(self.rip));
        }
        if self.cache.rsp == Cached::Dirty {
            vmcs.write(field::GUEST_RSP, Natural(self.gpr(RSP)));
        }
        if self.cache.rflags == Cached::Dirty {
            let visible = self.rflags;
            let hardware = match self.real_mode_mut() {
                None => visible,
                Some(real_mode) => real_mode.hide_flags(visible),
            };
            vmcs.write(field::GUEST_RFLAGS, Natural(hardware));
        }
        self.cache = Cache::default();
    }

    /// Returns CR0 as the guest sees it.
    pub(crate) fn cr0(&self, vmcs: &CurrentVmcs<'_>) -> Cr0 {
        let owned = self.guest_owned.cr0;
        Cr0::new(vmcs.read(field::GUEST_CR0).0)
            .common(owned)
            .with(Cr0::new(vmcs.read(field::CR0_READ_SHADOW).0).without(owned))
    }

    /// Returns CR4 as the guest sees it.
    pub(crate) fn cr4(&self, vmcs: &CurrentVmcs<'_>) -> Cr4 {
        let owned = self.guest_owned.cr4;
        Cr4::new(vmcs.read(field::GUEST_CR4).0)
            .common(owned)
            .with(Cr4::new(vmcs.read(field::CR4_READ_SHADOW).0).without(owned))
    }

    /// Returns whether the guest runs 64-bit code.
    pub(crate) fn is_64bit(&self, vmcs: &CurrentVmcs<'_>) -> bool {
        self.efer.contains(Efer::LMA) && vmcs.access_rights(SegmentRegister::Cs) & RIGHTS_L != 0
    }

    /// Returns the current privilege level, 0 to 3: the DPL of SS.
    pub(crate) fn cpl(&self, vmcs: &CurrentVmcs<'_>) -> u8 {
        self.cpl_with(vmcs, self.cr0(vmcs))
    }

    /// As [`State::cpl`], for who has CR0.
    pub(super) fn cpl_with(&self, vmcs: &CurrentVmcs<'_>, cr0: Cr0) -> u8 {
        if !cr0.contains(Cr0::PE) {
            return 0;
        }
        // CAST: Two bits.
        (vmcs.access_rights(SegmentRegister::Ss) >> 5 & 3) as u8
    }

    /// Goes on after the instruction that exited.
    #[inline]
    pub(crate) fn skip_instruction(&mut self, vmcs: &CurrentVmcs<'_>) {
        self.move_over_instruction(vmcs);
        self.finish_instruction(vmcs);
    }

    /// Goes on after the instruction that exited, which traps in another way than by a single step.
    pub(crate) fn skip_without_trap(&mut self, vmcs: &CurrentVmcs<'_>) {
        self.move_over_instruction(vmcs);
        self.end_blocking(vmcs);
    }

    /// Moves RIP over the instruction that exited.
    #[inline]
    fn move_over_instruction(&mut self, vmcs: &CurrentVmcs<'_>) {
        let old = self.rip(vmcs);
        let length = vmcs.read(field::VM_EXIT_INSTRUCTION_LENGTH);
        let new = old.wrapping_add(u64::from(length));
        // Outside 64-bit mode, RIP wraps at 4 GiB.
        let new = if (old ^ new) >> 31 == 3 && !self.is_64bit(vmcs) {
            new & 0xffff_ffff
        } else {
            new
        };
        self.set_rip(new);
    }

    /// Does what the end of an instruction does besides moving RIP: blocking by STI or MOV SS ends,
    /// and a single step traps.
    #[inline]
    pub(crate) fn finish_instruction(&mut self, vmcs: &CurrentVmcs<'_>) {
        self.end_blocking(vmcs);
        if self.rflags(vmcs) & Rflags::TF.value() != 0 {
            self.step_trap();
        }
    }

    /// Ends blocking by STI or MOV SS.
    #[inline]
    pub(super) fn end_blocking(&self, vmcs: &CurrentVmcs<'_>) {
        let blocking = vmcs.read(field::GUEST_INTERRUPTIBILITY);
        if blocking & (BLOCKING_BY_STI | BLOCKING_BY_MOV_SS) != 0 {
            vmcs.write(
                field::GUEST_INTERRUPTIBILITY,
                blocking & !(BLOCKING_BY_STI | BLOCKING_BY_MOV_SS),
            );
        }
    }
}
