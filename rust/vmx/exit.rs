// SPDX-License-Identifier: GPL-2.0

//! VM exits as values.
//!
//! [`Exit::read`] turns the VM-exit information fields into an [`Exit`] that carries what its handler
//! needs, and reads no field that this reason does not define.

use super::{
    field::{
        self,
        Natural, //
    },
    inject::EventInfo,
    vmcs::CurrentVmcs, //
};
use kernel::prelude::*;

use crate::x86::{
    addr::{
        Gpa,
        Gva, //
    },
    segment_register::SegmentRegister, //
};

/// Bit 31 of the exit reason: the exit was a failure of VM entry.
pub(crate) const ENTRY_FAILURE: u32 = 1 << 31;

/// An access to a control register, from the exit qualification.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum ControlAccess {
    /// MOV to CR: control register, source register.
    Write(u8, u8),
    /// MOV from CR: control register, destination register.
    Read(u8, u8),
    /// CLTS.
    ClearTaskSwitched,
    /// LMSW with this source operand.
    LoadMachineStatus(u16),
}

impl ControlAccess {
    const fn decode(qualification: u64) -> Self {
        // CAST: Four bits each, and the upper half word.
        let (cr, gpr) = ((qualification & 15) as u8, (qualification >> 8 & 15) as u8);
        match qualification >> 4 & 3 {
            0 => Self::Write(cr, gpr),
            1 => Self::Read(cr, gpr),
            2 => Self::ClearTaskSwitched,
            _ => Self::LoadMachineStatus((qualification >> 16) as u16),
        }
    }
}

/// A MOV to or from a debug register.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct DebugAccess {
    /// The debug register.
    pub(crate) register: u8,
    /// The general-purpose register.
    pub(crate) gpr: u8,
    /// MOV from the debug register, not to it.
    pub(crate) read: bool,
}

/// An I/O instruction.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct IoAccess {
    /// The port.
    pub(crate) port: u16,
    /// Bytes per access: 1, 2 or 4.
    pub(crate) size: u8,
    /// IN or INS, not OUT or OUTS.
    pub(crate) input: bool,
    /// INS or OUTS.
    pub(crate) string: bool,
    /// With a REP prefix.
    pub(crate) rep: bool,
}

impl IoAccess {
    const fn decode(qualification: u64) -> Self {
        Self {
            // CAST: Sixteen and three bits.
            port: (qualification >> 16) as u16,
            size: (qualification & 7) as u8 + 1,
            input: qualification & 1 << 3 != 0,
            string: qualification & 1 << 4 != 0,
            rep: qualification & 1 << 5 != 0,
        }
    }
}

/// The memory operand of INS or OUTS, from the VM-exit instruction information.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct StringOperand {
    /// Bytes per address: 2, 4 or 8.
    pub(crate) address_size: u8,
    /// The segment of an OUTS; INS uses ES whatever stands here.
    pub(crate) segment: SegmentRegister,
}

/// An access that EPT refused.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct EptViolation {
    /// Where.
    pub(crate) gpa: Gpa,
    /// The linear address, if the CPU knows one.
    pub(crate) gva: Option<Gva>,
    /// The access was a data read.
    pub(crate) read: bool,
    /// It was a data write.
    pub(crate) write: bool,
    /// It was an instruction fetch.
    pub(crate) fetch: bool,
    /// The address is that of the access itself, not of a guest page-table entry.
    pub(crate) translated: bool,
    /// The exit came from IRET with NMI blocking removed.
    pub(crate) nmi_unblocked: bool,
}

impl EptViolation {
    fn read(vmcs: &CurrentVmcs<'_>) -> Self {
        let Natural(qualification) = vmcs.read(field::EXIT_QUALIFICATION);
        let has_gva = qualification & 1 << 7 != 0;
        Self {
            gpa: Gpa::new(vmcs.read(field::GUEST_PHYSICAL_ADDRESS)),
            gva: has_gva.then(|| Gva::new(vmcs.read(field::GUEST_LINEAR_ADDRESS).0)),
            read: qualification & 1 != 0,
            write: qualification & 1 << 1 != 0,
            fetch: qualification & 1 << 2 != 0,
            translated: has_gva && qualification & 1 << 8 != 0,
            nmi_unblocked: qualification & 1 << 12 != 0,
        }
    }
}

/// How the guest came to the APIC-access page.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum ApicAccessKind {
    /// An instruction read.
    Read,
    /// An instruction wrote.
    Write,
    /// An instruction was fetched.
    Fetch,
    /// An event was being delivered.
    Delivery,
    /// By a guest-physical address, as that of an entry of the guest's tables.
    Physical,
}

/// An access to the APIC-access page that the CPU did not virtualise.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct ApicAccess {
    /// Where in the page.
    pub(crate) offset: u16,
    /// How.
    pub(crate) kind: ApicAccessKind,
}

impl ApicAccess {
    const fn decode(qualification: u64) -> Self {
        Self {
            // CAST: Twelve bits.
            offset: (qualification & 0xfff) as u16,
            kind: match qualification >> 12 & 15 {
                0 => ApicAccessKind::Read,
                1 => ApicAccessKind::Write,
                2 => ApicAccessKind::Fetch,
                3 | 10 => ApicAccessKind::Delivery,
                _ => ApicAccessKind::Physical,
            },
        }
    }
}

/// Why VM entry failed after it began to look at the guest's state.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum EntryFailure {
    /// The guest state is not valid.
    GuestState,
    /// An MSR could not be loaded.
    MsrLoading,
    /// A machine check.
    MachineCheck,
}

/// A VM exit.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Exit {
    /// An exception or NMI; the NMI has been handled already.
    Exception(EventInfo),
    /// An external interrupt, acknowledged.
    ExternalInterrupt(u8),
    /// A triple fault.
    TripleFault,
    /// INIT: reserved to the host.
    Init,
    /// The guest can take an interrupt now.
    InterruptWindow,
    /// The guest can take an NMI now.
    NmiWindow,
    /// A task switch.
    TaskSwitch,
    /// CPUID.
    Cpuid,
    /// HLT.
    Hlt,
    /// INVD.
    Invd,
    /// RDPMC.
    Rdpmc,
    /// VMCALL.
    Vmcall,
    /// Another VMX instruction, by its exit reason.
    VmxInstruction(u16),
    /// A control-register access.
    Control(ControlAccess),
    /// MOV DR.
    Debug(DebugAccess),
    /// An I/O instruction.
    Io(IoAccess),
    /// RDMSR.
    Rdmsr,
    /// WRMSR.
    Wrmsr,
    /// VM entry failed.
    EntryFailed(EntryFailure),
    /// MWAIT.
    Mwait,
    /// MONITOR.
    Monitor,
    /// PAUSE.
    Pause,
    /// The guest's TPR fell below the threshold; the instruction is done.
    TprBelowThreshold,
    /// An access to the APIC-access page.
    ApicAccess(ApicAccess),
    /// An interrupt with this vector ended, and somebody wants to know; the instruction is done.
    VirtualizedEoi(u8),
    /// The register at this offset of the virtual-APIC page was written; the instruction is done.
    ApicWrite(u16),
    /// An access that EPT refused.
    EptViolation(EptViolation),
    /// An EPT entry that no CPU understands; at this address.
    EptMisconfiguration(Gpa),
    /// WBINVD or WBNOINVD.
    Wbinvd,
    /// XSETBV.
    Xsetbv,
    /// RDRAND, RDSEED or ENCLS, in a guest that does not have them.
    Foreign,
    /// The page-modification log is full.
    LogFull {
        /// The exit came from IRET with NMI blocking removed.
        nmi_unblocked: bool,
    },
    /// The time of the VMX-preemption timer is over.
    PreemptionTimer,
    /// A reason that this module did not ask for.
    Unknown(u16),
}

/// Basic exit reasons.
pub(crate) mod reason {
    pub(crate) const EXCEPTION_OR_NMI: u16 = 0;
    pub(crate) const EXTERNAL_INTERRUPT: u16 = 1;
    pub(crate) const TRIPLE_FAULT: u16 = 2;
    pub(crate) const INIT: u16 = 3;
    pub(crate) const INTERRUPT_WINDOW: u16 = 7;
    pub(crate) const NMI_WINDOW: u16 = 8;
    pub(crate) const TASK_SWITCH: u16 = 9;
    pub(crate) const CPUID: u16 = 10;
    pub(crate) const HLT: u16 = 12;
    pub(crate) const INVD: u16 = 13;
    pub(crate) const RDPMC: u16 = 15;
    pub(crate) const VMCALL: u16 = 18;
    pub(crate) const VMCLEAR: u16 = 19;
    pub(crate) const VMXON: u16 = 27;
    pub(crate) const CONTROL_REGISTER: u16 = 28;
    pub(crate) const DEBUG_REGISTER: u16 = 29;
    pub(crate) const IO: u16 = 30;
    pub(crate) const RDMSR: u16 = 31;
    pub(crate) const WRMSR: u16 = 32;
    pub(crate) const ENTRY_GUEST_STATE: u16 = 33;
    pub(crate) const ENTRY_MSR_LOADING: u16 = 34;
    pub(crate) const MWAIT: u16 = 36;
    pub(crate) const MONITOR: u16 = 39;
    pub(crate) const PAUSE: u16 = 40;
    pub(crate) const ENTRY_MACHINE_CHECK: u16 = 41;
    pub(crate) const TPR_BELOW_THRESHOLD: u16 = 43;
    pub(crate) const APIC_ACCESS: u16 = 44;
    pub(crate) const VIRTUALIZED_EOI: u16 = 45;
    pub(crate) const EPT_VIOLATION: u16 = 48;
    pub(crate) const EPT_MISCONFIGURATION: u16 = 49;
    pub(crate) const INVEPT: u16 = 50;
    pub(crate) const PREEMPTION_TIMER: u16 = 52;
    pub(crate) const INVVPID: u16 = 53;
    pub(crate) const WBINVD: u16 = 54;
    pub(crate) const XSETBV: u16 = 55;
    pub(crate) const APIC_WRITE: u16 = 56;
    pub(crate) const RDRAND: u16 = 57;
    pub(crate) const ENCLS: u16 = 60;
    pub(crate) const RDSEED: u16 = 61;
    pub(crate) const PML_FULL: u16 = 62;

    /// Number of reasons that statistics count apart.
    pub(crate) const COUNT: usize = 80;

    /// Returns the name of a reason in statistics, or `None` if it has none.
    pub(crate) const fn name(reason: usize) -> Option<&'static str> {
        Some(match reason {
            0 => "exception_nmi",
            1 => "external_interrupt",
            2 => "triple_fault",
            3 => "init",
            7 => "interrupt_window",
            8 => "nmi_window",
            9 => "task_switch",
            10 => "cpuid",
            12 => "hlt",
            13 => "invd",
            15 => "rdpmc",
            18 => "vmcall",
            19..=27 => "vmx_instruction",
            28 => "cr_access",
            29 => "dr_access",
            30 => "io_instruction",
            31 => "msr_read",
            32 => "msr_write",
            33..=34 | 41 => "entry_failure",
            36 => "mwait",
            39 => "monitor",
            40 => "pause",
            43 => "tpr_below_threshold",
            44 => "apic_access",
            45 => "eoi_induced",
            48 => "ept_violation",
            49 => "ept_misconfig",
            52 => "preemption_timer",
            54 => "wbinvd",
            55 => "xsetbv",
            56 => "apic_write",
            57 => "rdrand",
            60 => "encls",
            61 => "rdseed",
            62 => "pml_full",
            _ => return None,
        })
    }
}

/// Returns the vector of the external interrupt that caused the current exit.
pub(crate) fn acknowledged_vector(vmcs: &CurrentVmcs<'_>) -> u8 {
    // CAST: The vector is the low byte.
    vmcs.read(field::VM_EXIT_INTERRUPTION_INFO) as u8
}

impl Exit {
    /// Returns the exit that `exit_reason` and the information fields describe.
    #[inline]
    pub(crate) fn read(vmcs: &CurrentVmcs<'_>, exit_reason: u32) -> Self {
        // CAST: The basic reason is the low half.
        let basic = exit_reason as u16;
        if exit_reason & ENTRY_FAILURE != 0 {
            return match basic {
                reason::ENTRY_GUEST_STATE => Self::EntryFailed(EntryFailure::GuestState),
                reason::ENTRY_MSR_LOADING => Self::EntryFailed(EntryFailure::MsrLoading),
                reason::ENTRY_MACHINE_CHECK => Self::EntryFailed(EntryFailure::MachineCheck),
                _ => Self::Unknown(basic),
            };
        }
        let qualification = || vmcs.read(field::EXIT_QUALIFICATION).0;
        match basic {
            reason::EXCEPTION_OR_NMI => Self::Exception(EventInfo::of_exit(vmcs)),
            reason::EXTERNAL_INTERRUPT => Self::ExternalInterrupt(acknowledged_vector(vmcs)),
            reason::TRIPLE_FAULT => Self::TripleFault,
            reason::INIT => Self::Init,
            reason::INTERRUPT_WINDOW => Self::InterruptWindow,
            reason::NMI_WINDOW => Self::NmiWindow,
            reason::TASK_SWITCH => Self::TaskSwitch,
            reason::CPUID => Self::Cpuid,
            reason::HLT => Self::Hlt,
            reason::INVD => Self::Invd,
            reason::RDPMC => Self::Rdpmc,
            reason::VMCALL => Self::Vmcall,
            reason::VMCLEAR..=reason::VMXON | reason::INVEPT | reason::INVVPID => {
                Self::VmxInstruction(basic)
            }
            reason::CONTROL_REGISTER => Self::Control(ControlAccess::decode(qualification())),
            reason::DEBUG_REGISTER => {
                let qualification = qualification();
                Self::Debug(DebugAccess {
                    // CAST: Three and four bits.
                    register: (qualification & 7) as u8,
                    gpr: (qualification >> 8 & 15) as u8,
                    read: qualification & 1 << 4 != 0,
                })
            }
            reason::IO => Self::Io(IoAccess::decode(qualification())),
            reason::RDMSR => Self::Rdmsr,
            reason::WRMSR => Self::Wrmsr,
            reason::MWAIT => Self::Mwait,
            reason::MONITOR => Self::Monitor,
            reason::PAUSE => Self::Pause,
            reason::TPR_BELOW_THRESHOLD => Self::TprBelowThreshold,
            reason::APIC_ACCESS => Self::ApicAccess(ApicAccess::decode(qualification())),
            // CAST: The vector is the low byte.
            reason::VIRTUALIZED_EOI => Self::VirtualizedEoi(qualification() as u8),
            // CAST: Twelve bits.
            reason::APIC_WRITE => Self::ApicWrite((qualification() & 0xfff) as u16),
            reason::EPT_VIOLATION => Self::EptViolation(EptViolation::read(vmcs)),
            reason::EPT_MISCONFIGURATION => {
                Self::EptMisconfiguration(Gpa::new(vmcs.read(field::GUEST_PHYSICAL_ADDRESS)))
            }
            reason::PREEMPTION_TIMER => Self::PreemptionTimer,
            reason::WBINVD => Self::Wbinvd,
            reason::XSETBV => Self::Xsetbv,
            reason::RDRAND | reason::RDSEED | reason::ENCLS => Self::Foreign,
            reason::PML_FULL => Self::LogFull {
                nmi_unblocked: qualification() & 1 << 12 != 0,
            },
            _ => Self::Unknown(basic),
        }
    }

    /// Returns whether this kind of exit can cut short the delivery of an event.
    #[inline]
    pub(crate) const fn may_interrupt_delivery(&self) -> bool {
        matches!(
            self,
            Self::ApicAccess(ApicAccess {
                kind: ApicAccessKind::Delivery,
                ..
            }) | Self::Exception(_)
                | Self::TaskSwitch
                | Self::EptViolation(_)
                | Self::EptMisconfiguration(_)
                | Self::LogFull { .. }
                | Self::TripleFault
                | Self::Unknown(_)
        )
    }
}

/// Returns the memory operand of the INS or OUTS that exited.
pub(crate) fn string_operand(vmcs: &CurrentVmcs<'_>) -> StringOperand {
    let information = vmcs.read(field::VM_EXIT_INSTRUCTION_INFO);
    StringOperand {
        address_size: match information >> 7 & 7 {
            0 => 2,
            1 => 4,
            _ => 8,
        },
        // CAST: Three bits.
        segment: SegmentRegister::from_encoding((information >> 15 & 7) as u8),
    }
}

#[kunit_tests(kvm_rs_exit)]
mod tests {
    use super::*;

    #[test]
    fn decodes_io() {
        // REP OUTSW to port 0x3f8.
        let io = IoAccess::decode(0x03f8_0000 | 1 << 5 | 1 << 4 | 1);
        assert_eq!(
            io,
            IoAccess {
                port: 0x3f8,
                size: 2,
                input: false,
                string: true,
                rep: true
            }
        );
    }

    #[test]
    fn decodes_apic_accesses() {
        let eoi = ApicAccess {
            offset: 0xb0,
            kind: ApicAccessKind::Write,
        };
        assert_eq!(ApicAccess::decode(0x10b0), eoi);
        let kinds = [
            (0, ApicAccessKind::Read),
            (2, ApicAccessKind::Fetch),
            (3, ApicAccessKind::Delivery),
            (10, ApicAccessKind::Delivery),
            (15, ApicAccessKind::Physical),
        ];
        for (number, kind) in kinds {
            let access = ApicAccess::decode(number << 12 | 0xfff);
            assert_eq!(
                access,
                ApicAccess {
                    offset: 0xfff,
                    kind
                }
            );
            let cuts_delivery = kind == ApicAccessKind::Delivery;
            assert_eq!(
                Exit::ApicAccess(access).may_interrupt_delivery(),
                cuts_delivery
            );
        }
    }

    #[test]
    fn decodes_control_registers() {
        assert_eq!(ControlAccess::decode(0x0300), ControlAccess::Write(0, 3));
        assert_eq!(ControlAccess::decode(0x0f18), ControlAccess::Read(8, 15));
        assert_eq!(
            ControlAccess::decode(0x20),
            ControlAccess::ClearTaskSwitched
        );
        assert_eq!(
            ControlAccess::decode(0x1234_0030),
            ControlAccess::LoadMachineStatus(0x1234)
        );
    }
}
