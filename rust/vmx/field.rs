// SPDX-License-Identifier: GPL-2.0

//! VMCS fields as typed constants.
//!
//! A field's encoding tells its width, its area and its index. Here it is a constant of type
//! [`Field<T, A>`]: `T` is the Rust integer of the field's width, `A` says whether VMWRITE may be used
//! on it. Both are held against the encoding at compile time, so that a field that is declared with
//! the wrong width or as writable by mistake does not build. Reads and writes themselves exist only on
//! [`CurrentVmcs`](super::vmcs::CurrentVmcs).

use core::marker::PhantomData;

/// Access marker: a control, guest-state or host-state field.
pub(crate) struct ReadWrite;

/// Access marker: a VM-exit information field.
pub(crate) struct ReadOnly;

/// The access kinds a [`Field`] can have.
pub(crate) trait Access {
    /// Whether VMWRITE may be used on fields of this kind.
    const WRITABLE: bool;
}

impl Access for ReadWrite {
    const WRITABLE: bool = true;
}

impl Access for ReadOnly {
    const WRITABLE: bool = false;
}

/// An integer of the width of a VMCS field.
pub(crate) trait Value: Copy + PartialEq {
    /// The width code in bits 14:13 of an encoding.
    const WIDTH_CODE: u32;
    /// Returns the value from the 64 bits that VMREAD gave.
    fn from_raw(raw: u64) -> Self;
    /// Returns the 64 bits that VMWRITE takes.
    fn to_raw(self) -> u64;
}

/// A natural-width field: 64 bits on the CPUs this module runs on.
#[derive(Clone, Copy, PartialEq, Eq)]
#[repr(transparent)]
pub(crate) struct Natural(pub(crate) u64);

impl Value for u16 {
    const WIDTH_CODE: u32 = 0;
    fn from_raw(raw: u64) -> Self {
        // CAST: VMREAD zero-extends a 16-bit field.
        raw as u16
    }
    fn to_raw(self) -> u64 {
        u64::from(self)
    }
}

impl Value for u64 {
    const WIDTH_CODE: u32 = 1;
    fn from_raw(raw: u64) -> Self {
        raw
    }
    fn to_raw(self) -> u64 {
        self
    }
}

impl Value for u32 {
    const WIDTH_CODE: u32 = 2;
    fn from_raw(raw: u64) -> Self {
        // CAST: VMREAD zero-extends a 32-bit field.
        raw as u32
    }
    fn to_raw(self) -> u64 {
        u64::from(self)
    }
}

impl Value for Natural {
    const WIDTH_CODE: u32 = 3;
    fn from_raw(raw: u64) -> Self {
        Self(raw)
    }
    fn to_raw(self) -> u64 {
        self.0
    }
}

/// A VMCS field with values of type `T`.
pub(crate) struct Field<T, A = ReadWrite> {
    encoding: u32,
    _kind: PhantomData<fn() -> (T, A)>,
}

impl<T, A> Clone for Field<T, A> {
    fn clone(&self) -> Self {
        *self
    }
}

impl<T, A> Copy for Field<T, A> {}

impl<T: Value, A: Access> Field<T, A> {
    /// Returns the field with this encoding; fails to build if width or access do not fit it.
    pub(crate) const fn new(encoding: u32) -> Self {
        assert!((encoding >> 13) & 3 == T::WIDTH_CODE, "wrong width");
        // Bits 11:10 are 1 for the read-only area.
        assert!(((encoding >> 10) & 3 == 1) != A::WRITABLE, "wrong access");
        // Bit 0 selects the high half of a 64-bit field, which a 64-bit VMM never needs.
        assert!(encoding & 1 == 0 && encoding >> 15 == 0, "not a full field");
        Self {
            encoding,
            _kind: PhantomData,
        }
    }

    /// Returns the encoding that VMREAD and VMWRITE take.
    pub(crate) const fn encoding(self) -> u32 {
        self.encoding
    }
}

macro_rules! fields {
    ($($(#[$doc:meta])* $name:ident: $value:ty $(, $access:ty)? = $encoding:literal;)*) => {
        $(
            $(#[$doc])*
            #[allow(dead_code, reason = "a table of names; not each is used")]
            pub(crate) const $name: Field<$value $(, $access)?> = Field::new($encoding);
        )*

        /// Every field by name, for a dump of the VMCS: `(name, encoding)`.
        pub(crate) const ALL: &[(&str, u32)] = &[$((stringify!($name), $encoding),)*];
    };
}

fields! {
    // Control fields.
    /// Tag of the guest's linear and combined translations.
    VIRTUAL_PROCESSOR_ID: u16 = 0x0000;
    /// The vector at which the CPU takes what is posted to the guest.
    POSTED_INTERRUPT_NOTIFICATION_VECTOR: u16 = 0x0002;
    /// Physical address of the MSR bitmap.
    MSR_BITMAP: u64 = 0x2004;
    /// Physical address of the MSRs that exits store; their count is kept 0.
    VM_EXIT_MSR_STORE_ADDR: u64 = 0x2006;
    /// Physical address of the MSRs that exits load.
    VM_EXIT_MSR_LOAD_ADDR: u64 = 0x2008;
    /// Physical address of the MSRs that entries load.
    VM_ENTRY_MSR_LOAD_ADDR: u64 = 0x200a;
    /// Physical address of the page-modification log.
    PML_ADDRESS: u64 = 0x200e;
    /// What is added to the TSC that the guest reads.
    TSC_OFFSET: u64 = 0x2010;
    /// Physical address of the virtual-APIC page.
    VIRTUAL_APIC_PAGE_ADDRESS: u64 = 0x2012;
    /// Physical address of the page whose accesses are virtualised.
    APIC_ACCESS_ADDRESS: u64 = 0x2014;
    /// Physical address of the posted-interrupt descriptor.
    POSTED_INTERRUPT_DESCRIPTOR: u64 = 0x2016;
    /// Which vectors' ends exit: 0 to 63.
    EOI_EXIT_BITMAP0: u64 = 0x201c;
    /// Likewise 64 to 127.
    EOI_EXIT_BITMAP1: u64 = 0x201e;
    /// Likewise 128 to 191.
    EOI_EXIT_BITMAP2: u64 = 0x2020;
    /// Likewise 192 to 255.
    EOI_EXIT_BITMAP3: u64 = 0x2022;
    /// Root of the EPT with its walk length, memory type and A/D enable.
    EPT_POINTER: u64 = 0x201a;
    /// For which components of IA32_XSS XSAVES and XRSTORS exit.
    XSS_EXITING_BITMAP: u64 = 0x202c;
    /// Which leaves of ENCLS exit.
    ENCLS_EXITING_BITMAP: u64 = 0x202e;
    /// What the TSC is multiplied by, with 48 bits behind the point.
    TSC_MULTIPLIER: u64 = 0x2032;
    /// Pin-based VM-execution controls.
    PIN_BASED_CONTROLS: u32 = 0x4000;
    /// Primary processor-based VM-execution controls.
    PRIMARY_CONTROLS: u32 = 0x4002;
    /// Which exception vectors exit.
    EXCEPTION_BITMAP: u32 = 0x4004;
    /// Page-fault error-code bits that are compared.
    PAGE_FAULT_ERROR_CODE_MASK: u32 = 0x4006;
    /// What they are compared with.
    PAGE_FAULT_ERROR_CODE_MATCH: u32 = 0x4008;
    /// Number of CR3 values that can be loaded without an exit.
    CR3_TARGET_COUNT: u32 = 0x400a;
    /// VM-exit controls.
    VM_EXIT_CONTROLS: u32 = 0x400c;
    /// Number of MSRs stored on exit.
    VM_EXIT_MSR_STORE_COUNT: u32 = 0x400e;
    /// Number of MSRs loaded on exit.
    VM_EXIT_MSR_LOAD_COUNT: u32 = 0x4010;
    /// VM-entry controls.
    VM_ENTRY_CONTROLS: u32 = 0x4012;
    /// Number of MSRs loaded on entry.
    VM_ENTRY_MSR_LOAD_COUNT: u32 = 0x4014;
    /// The event to inject on the next entry.
    VM_ENTRY_INTERRUPTION_INFO: u32 = 0x4016;
    /// Its error code.
    VM_ENTRY_EXCEPTION_ERROR_CODE: u32 = 0x4018;
    /// Length of the instruction behind an injected software event.
    VM_ENTRY_INSTRUCTION_LENGTH: u32 = 0x401a;
    /// The class below which a new TPR makes an exit.
    TPR_THRESHOLD: u32 = 0x401c;
    /// Secondary processor-based VM-execution controls.
    SECONDARY_CONTROLS: u32 = 0x401e;
    /// Cycles between two PAUSEs of one loop, at most.
    PLE_GAP: u32 = 0x4020;
    /// Cycles that such a loop may last before it exits.
    PLE_WINDOW: u32 = 0x4022;
    /// Bits of CR0 that the VMM owns.
    CR0_GUEST_HOST_MASK: Natural = 0x6000;
    /// Bits of CR4 that the VMM owns.
    CR4_GUEST_HOST_MASK: Natural = 0x6002;
    /// What the guest reads in the bits of CR0 that the VMM owns.
    CR0_READ_SHADOW: Natural = 0x6004;
    /// What the guest reads in the bits of CR4 that the VMM owns.
    CR4_READ_SHADOW: Natural = 0x6006;

    // Read-only data fields.
    /// Guest-physical address of an EPT violation or misconfiguration.
    GUEST_PHYSICAL_ADDRESS: u64, ReadOnly = 0x2400;
    /// Why a VMX instruction failed.
    VM_INSTRUCTION_ERROR: u32, ReadOnly = 0x4400;
    /// Why the guest exited.
    VM_EXIT_REASON: u32, ReadOnly = 0x4402;
    /// The event that caused the exit.
    VM_EXIT_INTERRUPTION_INFO: u32, ReadOnly = 0x4404;
    /// Its error code.
    VM_EXIT_INTERRUPTION_ERROR_CODE: u32, ReadOnly = 0x4406;
    /// The event whose delivery the exit cut short.
    IDT_VECTORING_INFO: u32, ReadOnly = 0x4408;
    /// Its error code.
    IDT_VECTORING_ERROR_CODE: u32, ReadOnly = 0x440a;
    /// Length of the instruction that exited.
    VM_EXIT_INSTRUCTION_LENGTH: u32, ReadOnly = 0x440c;
    /// Operands of the instruction that exited.
    VM_EXIT_INSTRUCTION_INFO: u32, ReadOnly = 0x440e;
    /// More on the exit; its layout depends on the reason.
    EXIT_QUALIFICATION: Natural, ReadOnly = 0x6400;
    /// Linear address of the exit, for the reasons that have one.
    GUEST_LINEAR_ADDRESS: Natural, ReadOnly = 0x640a;

    // Guest-state fields.
    /// ES selector.
    GUEST_ES_SELECTOR: u16 = 0x0800;
    /// The highest vectors requested and in service, of virtual-interrupt delivery.
    GUEST_INTERRUPT_STATUS: u16 = 0x0810;
    /// Entry of the page-modification log to be written next.
    GUEST_PML_INDEX: u16 = 0x0812;
    /// CS selector.
    GUEST_CS_SELECTOR: u16 = 0x0802;
    /// SS selector.
    GUEST_SS_SELECTOR: u16 = 0x0804;
    /// DS selector.
    GUEST_DS_SELECTOR: u16 = 0x0806;
    /// FS selector.
    GUEST_FS_SELECTOR: u16 = 0x0808;
    /// GS selector.
    GUEST_GS_SELECTOR: u16 = 0x080a;
    /// LDTR selector.
    GUEST_LDTR_SELECTOR: u16 = 0x080c;
    /// TR selector.
    GUEST_TR_SELECTOR: u16 = 0x080e;
    /// Must be all ones without VMCS shadowing.
    VMCS_LINK_POINTER: u64 = 0x2800;
    /// IA32_DEBUGCTL.
    GUEST_DEBUGCTL: u64 = 0x2802;
    /// IA32_PAT.
    GUEST_PAT: u64 = 0x2804;
    /// IA32_EFER.
    GUEST_EFER: u64 = 0x2806;
    /// IA32_PERF_GLOBAL_CTRL.
    GUEST_PERF_GLOBAL_CTRL: u64 = 0x2808;
    /// Page-directory-pointer-table entry 0 of a guest in PAE paging.
    GUEST_PDPTE0: u64 = 0x280a;
    /// PDPTE 1.
    GUEST_PDPTE1: u64 = 0x280c;
    /// PDPTE 2.
    GUEST_PDPTE2: u64 = 0x280e;
    /// PDPTE 3.
    GUEST_PDPTE3: u64 = 0x2810;
    /// ES limit.
    GUEST_ES_LIMIT: u32 = 0x4800;
    /// CS limit.
    GUEST_CS_LIMIT: u32 = 0x4802;
    /// SS limit.
    GUEST_SS_LIMIT: u32 = 0x4804;
    /// DS limit.
    GUEST_DS_LIMIT: u32 = 0x4806;
    /// FS limit.
    GUEST_FS_LIMIT: u32 = 0x4808;
    /// GS limit.
    GUEST_GS_LIMIT: u32 = 0x480a;
    /// LDTR limit.
    GUEST_LDTR_LIMIT: u32 = 0x480c;
    /// TR limit.
    GUEST_TR_LIMIT: u32 = 0x480e;
    /// GDTR limit.
    GUEST_GDTR_LIMIT: u32 = 0x4810;
    /// IDTR limit.
    GUEST_IDTR_LIMIT: u32 = 0x4812;
    /// ES access rights.
    GUEST_ES_ACCESS_RIGHTS: u32 = 0x4814;
    /// CS access rights.
    GUEST_CS_ACCESS_RIGHTS: u32 = 0x4816;
    /// SS access rights.
    GUEST_SS_ACCESS_RIGHTS: u32 = 0x4818;
    /// DS access rights.
    GUEST_DS_ACCESS_RIGHTS: u32 = 0x481a;
    /// FS access rights.
    GUEST_FS_ACCESS_RIGHTS: u32 = 0x481c;
    /// GS access rights.
    GUEST_GS_ACCESS_RIGHTS: u32 = 0x481e;
    /// LDTR access rights.
    GUEST_LDTR_ACCESS_RIGHTS: u32 = 0x4820;
    /// TR access rights.
    GUEST_TR_ACCESS_RIGHTS: u32 = 0x4822;
    /// Blocking by STI, MOV SS, SMI and NMI.
    GUEST_INTERRUPTIBILITY: u32 = 0x4824;
    /// Active, HLT, shutdown or wait-for-SIPI.
    GUEST_ACTIVITY_STATE: u32 = 0x4826;
    /// What is left of the VMX-preemption timer at VM entry.
    PREEMPTION_TIMER_VALUE: u32 = 0x482e;
    /// IA32_SYSENTER_CS.
    GUEST_SYSENTER_CS: u32 = 0x482a;
    /// CR0.
    GUEST_CR0: Natural = 0x6800;
    /// CR3.
    GUEST_CR3: Natural = 0x6802;
    /// CR4.
    GUEST_CR4: Natural = 0x6804;
    /// ES base.
    GUEST_ES_BASE: Natural = 0x6806;
    /// CS base.
    GUEST_CS_BASE: Natural = 0x6808;
    /// SS base.
    GUEST_SS_BASE: Natural = 0x680a;
    /// DS base.
    GUEST_DS_BASE: Natural = 0x680c;
    /// FS base.
    GUEST_FS_BASE: Natural = 0x680e;
    /// GS base.
    GUEST_GS_BASE: Natural = 0x6810;
    /// LDTR base.
    GUEST_LDTR_BASE: Natural = 0x6812;
    /// TR base.
    GUEST_TR_BASE: Natural = 0x6814;
    /// GDTR base.
    GUEST_GDTR_BASE: Natural = 0x6816;
    /// IDTR base.
    GUEST_IDTR_BASE: Natural = 0x6818;
    /// DR7.
    GUEST_DR7: Natural = 0x681a;
    /// RSP.
    GUEST_RSP: Natural = 0x681c;
    /// RIP.
    GUEST_RIP: Natural = 0x681e;
    /// RFLAGS.
    GUEST_RFLAGS: Natural = 0x6820;
    /// Debug exceptions that are pending.
    GUEST_PENDING_DEBUG_EXCEPTIONS: Natural = 0x6822;
    /// IA32_SYSENTER_ESP.
    GUEST_SYSENTER_ESP: Natural = 0x6824;
    /// IA32_SYSENTER_EIP.
    GUEST_SYSENTER_EIP: Natural = 0x6826;

    // Host-state fields.
    /// ES selector.
    HOST_ES_SELECTOR: u16 = 0x0c00;
    /// CS selector.
    HOST_CS_SELECTOR: u16 = 0x0c02;
    /// SS selector.
    HOST_SS_SELECTOR: u16 = 0x0c04;
    /// DS selector.
    HOST_DS_SELECTOR: u16 = 0x0c06;
    /// FS selector.
    HOST_FS_SELECTOR: u16 = 0x0c08;
    /// GS selector.
    HOST_GS_SELECTOR: u16 = 0x0c0a;
    /// TR selector.
    HOST_TR_SELECTOR: u16 = 0x0c0c;
    /// IA32_PAT.
    HOST_PAT: u64 = 0x2c00;
    /// IA32_EFER.
    HOST_EFER: u64 = 0x2c02;
    /// IA32_PERF_GLOBAL_CTRL.
    HOST_PERF_GLOBAL_CTRL: u64 = 0x2c04;
    /// IA32_SYSENTER_CS.
    HOST_SYSENTER_CS: u32 = 0x4c00;
    /// CR0.
    HOST_CR0: Natural = 0x6c00;
    /// CR3.
    HOST_CR3: Natural = 0x6c02;
    /// CR4.
    HOST_CR4: Natural = 0x6c04;
    /// FS base.
    HOST_FS_BASE: Natural = 0x6c06;
    /// GS base.
    HOST_GS_BASE: Natural = 0x6c08;
    /// TR base.
    HOST_TR_BASE: Natural = 0x6c0a;
    /// GDTR base.
    HOST_GDTR_BASE: Natural = 0x6c0c;
    /// IDTR base.
    HOST_IDTR_BASE: Natural = 0x6c0e;
    /// IA32_SYSENTER_ESP.
    HOST_SYSENTER_ESP: Natural = 0x6c10;
    /// IA32_SYSENTER_EIP.
    HOST_SYSENTER_EIP: Natural = 0x6c12;
    /// RSP.
    HOST_RSP: Natural = 0x6c14;
    /// RIP.
    HOST_RIP: Natural = 0x6c16;
}

/// The EOI-exit bitmap, from the lowest vectors up.
pub(crate) const EOI_EXIT_BITMAP: [Field<u64>; 4] = [
    EOI_EXIT_BITMAP0,
    EOI_EXIT_BITMAP1,
    EOI_EXIT_BITMAP2,
    EOI_EXIT_BITMAP3,
];
