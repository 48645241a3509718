// SPDX-License-Identifier: GPL-2.0

//! Control registers, EFER, XCR0, debug registers and RFLAGS as sets of named bits.
//!
//! What the bits mean stands here; which values and which changes of value an instruction or user
//! space may make stands in [`rules`].

pub(crate) mod rules;

/// Declares a register as a set of bits with a name each.
macro_rules! bits {
    (
        $(#[$doc:meta])*
        $name:ident {
            $($(#[$bit_doc:meta])* $bit:ident = $position:literal,)*
        }
    ) => {
        $(#[$doc])*
        #[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
        #[repr(transparent)]
        pub(crate) struct $name(u64);

        #[allow(dead_code, reason = "each register has the same small set of accessors")]
        impl $name {
            $(
                $(#[$bit_doc])*
                pub(crate) const $bit: Self = Self(1 << $position);
            )*

            /// Every bit that has a name here.
            pub(crate) const DEFINED: Self = Self(0 $(| 1 << $position)*);

            /// The register with no bit set.
            pub(crate) const NONE: Self = Self(0);

            /// Returns the register with the raw value `value`, defined or not.
            #[must_use]
            pub(crate) const fn new(value: u64) -> Self {
                Self(value)
            }

            /// Returns the raw value.
            #[must_use]
            pub(crate) const fn value(self) -> u64 {
                self.0
            }

            /// Returns whether no bit is set.
            #[must_use]
            pub(crate) const fn is_empty(self) -> bool {
                self.0 == 0
            }

            /// Returns whether every bit of `bits` is set.
            #[must_use]
            pub(crate) const fn contains(self, bits: Self) -> bool {
                self.0 & bits.0 == bits.0
            }

            /// Returns whether any bit of `bits` is set.
            #[must_use]
            pub(crate) const fn intersects(self, bits: Self) -> bool {
                self.0 & bits.0 != 0
            }

            /// Returns the register with the bits of `bits` set.
            #[must_use]
            pub(crate) const fn with(self, bits: Self) -> Self {
                Self(self.0 | bits.0)
            }

            /// Returns the register with the bits of `bits` cleared.
            #[must_use]
            pub(crate) const fn without(self, bits: Self) -> Self {
                Self(self.0 & !bits.0)
            }

            /// Returns the register with the bits of `bits` set if `on`, else cleared.
            #[must_use]
            pub(crate) const fn assign(self, bits: Self, on: bool) -> Self {
                if on {
                    self.with(bits)
                } else {
                    self.without(bits)
                }
            }

            /// Returns the bits that `self` and `bits` both have.
            #[must_use]
            pub(crate) const fn common(self, bits: Self) -> Self {
                Self(self.0 & bits.0)
            }

            /// Returns the bits in which `self` and `other` differ.
            #[must_use]
            pub(crate) const fn difference(self, other: Self) -> Self {
                Self(self.0 ^ other.0)
            }
        }
    };
}

bits! {
    /// CR0: protection, paging, x87 and cache control.
    Cr0 {
        /// Protection enable.
        PE = 0,
        /// Monitor coprocessor: WAIT honours TS.
        MP = 1,
        /// Emulation: x87 instructions raise #NM.
        EM = 2,
        /// Task switched: x87 and SSE instructions raise #NM.
        TS = 3,
        /// Extension type: always reads 1.
        ET = 4,
        /// Numeric error: x87 errors raise #MF.
        NE = 5,
        /// Write protect: supervisor writes honour read-only pages.
        WP = 16,
        /// Alignment mask: EFLAGS.AC takes effect.
        AM = 18,
        /// Not write-through.
        NW = 29,
        /// Cache disable.
        CD = 30,
        /// Paging.
        PG = 31,
    }
}

#[allow(dead_code, reason = "a table of names; not each is used")]
impl Cr0 {
    /// The value after RESET.
    pub(crate) const RESET: Self = Self::ET.with(Self::NW).with(Self::CD);

    /// Bits whose change loads the PDPTEs anew under PAE paging.
    pub(crate) const PDPTE: Self = Self::CD.with(Self::NW).with(Self::PG);
}

bits! {
    /// CR4: extensions that the operating system turns on.
    Cr4 {
        /// Virtual-8086 mode extensions.
        VME = 0,
        /// Protected-mode virtual interrupts.
        PVI = 1,
        /// Time-stamp disable: RDTSC is privileged.
        TSD = 2,
        /// Debugging extensions: DR4 and DR5 do not exist.
        DE = 3,
        /// Page-size extensions: 4 MiB pages.
        PSE = 4,
        /// Physical-address extension.
        PAE = 5,
        /// Machine-check enable.
        MCE = 6,
        /// Page-global enable.
        PGE = 7,
        /// RDPMC at any privilege level.
        PCE = 8,
        /// FXSAVE and SSE are supported by the system.
        OSFXSR = 9,
        /// #XM is handled by the system.
        OSXMMEXCPT = 10,
        /// User-mode instruction prevention: SGDT and its like are privileged.
        UMIP = 11,
        /// 57-bit linear addresses.
        LA57 = 12,
        /// VMX enable.
        VMXE = 13,
        /// SMX enable.
        SMXE = 14,
        /// RDFSBASE and its like.
        FSGSBASE = 16,
        /// Process-context identifiers.
        PCIDE = 17,
        /// XSAVE and processor extended states.
        OSXSAVE = 18,
        /// Supervisor-mode execution prevention.
        SMEP = 20,
        /// Supervisor-mode access prevention.
        SMAP = 21,
        /// Protection keys of user pages.
        PKE = 22,
        /// Control-flow enforcement.
        CET = 23,
        /// Protection keys of supervisor pages.
        PKS = 24,
        /// Linear-address masking of supervisor pointers.
        LAM_SUP = 28,
    }
}

#[allow(dead_code, reason = "a table of names; not each is used")]
impl Cr4 {
    /// Bits that a guest may set whatever its CPUID says.
    pub(crate) const ALWAYS: Self = Self::VME
        .with(Self::PVI)
        .with(Self::TSD)
        .with(Self::DE)
        .with(Self::PSE)
        .with(Self::PAE)
        .with(Self::MCE)
        .with(Self::PGE)
        .with(Self::PCE)
        .with(Self::OSFXSR)
        .with(Self::OSXMMEXCPT);

    /// Bits whose change loads the PDPTEs anew under PAE paging.
    pub(crate) const PDPTE: Self = Self::PGE.with(Self::PSE).with(Self::PAE).with(Self::SMEP);
}

bits! {
    /// IA32_EFER: extended features.
    Efer {
        /// SYSCALL and SYSRET.
        SCE = 0,
        /// Long-mode enable.
        LME = 8,
        /// Long mode is active: follows LME and CR0.PG.
        LMA = 10,
        /// No-execute enable.
        NX = 11,
        /// Secure virtual machine (AMD).
        SVME = 12,
        /// Fast FXSAVE and FXRSTOR (AMD).
        FFXSR = 14,
        /// Automatic IBRS (AMD).
        AUTOIBRS = 21,
    }
}

bits! {
    /// XCR0: the state components that XSAVE handles and the guest has turned on.
    Xcr0 {
        /// x87: always 1.
        FP = 0,
        /// XMM registers and MXCSR.
        SSE = 1,
        /// Upper halves of the YMM registers.
        YMM = 2,
        /// MPX bound registers.
        BNDREGS = 3,
        /// MPX configuration.
        BNDCSR = 4,
        /// AVX-512 mask registers.
        OPMASK = 5,
        /// Upper halves of ZMM0 to ZMM15.
        ZMM_HI256 = 6,
        /// ZMM16 to ZMM31.
        HI16_ZMM = 7,
        /// PKRU.
        PKRU = 9,
        /// AMX tile configuration.
        XTILE_CFG = 17,
        /// AMX tile data.
        XTILE_DATA = 18,
    }
}

#[allow(dead_code, reason = "a table of names; not each is used")]
impl Xcr0 {
    /// The value after RESET.
    pub(crate) const RESET: Self = Self::FP;

    /// The two components of MPX, which come and go together.
    pub(crate) const MPX: Self = Self::BNDREGS.with(Self::BNDCSR);

    /// The three components of AVX-512, which come and go together.
    pub(crate) const AVX512: Self = Self::OPMASK.with(Self::ZMM_HI256).with(Self::HI16_ZMM);

    /// The two components of AMX, which come and go together.
    pub(crate) const XTILE: Self = Self::XTILE_CFG.with(Self::XTILE_DATA);
}

bits! {
    /// RFLAGS.
    Rflags {
        /// Carry.
        CF = 0,
        /// Always 1.
        FIXED = 1,
        /// Parity.
        PF = 2,
        /// Auxiliary carry.
        AF = 4,
        /// Zero.
        ZF = 6,
        /// Sign.
        SF = 7,
        /// Trap: single step.
        TF = 8,
        /// Interrupts are enabled.
        IF = 9,
        /// Direction of string instructions: down.
        DF = 10,
        /// Overflow.
        OF = 11,
        /// Nested task.
        NT = 14,
        /// Resume: the next instruction breakpoint is ignored.
        RF = 16,
        /// Virtual-8086 mode.
        VM = 17,
        /// Alignment check, and access control under SMAP.
        AC = 18,
        /// Virtual interrupt flag.
        VIF = 19,
        /// Virtual interrupt pending.
        VIP = 20,
        /// CPUID exists.
        ID = 21,
    }
}

#[allow(dead_code, reason = "a table of names; not each is used")]
impl Rflags {
    /// The I/O privilege level, both bits.
    pub(crate) const IOPL: Self = Self(3 << 12);

    /// The value after RESET.
    pub(crate) const RESET: Self = Self::FIXED;
}

bits! {
    /// DR6: what a debug exception was about.
    Dr6 {
        /// Breakpoint 0 was met.
        B0 = 0,
        /// Breakpoint 1 was met.
        B1 = 1,
        /// Breakpoint 2 was met.
        B2 = 2,
        /// Breakpoint 3 was met.
        B3 = 3,
        /// A bus lock was taken; active low.
        BUS_LOCK = 11,
        /// The next instruction accesses a debug register.
        BD = 13,
        /// Single step.
        BS = 14,
        /// Task switch.
        BT = 15,
        /// Met in a transactional region; active low.
        RTM = 16,
    }
}

#[allow(dead_code, reason = "a table of names; not each is used")]
impl Dr6 {
    /// Bits that read 1 where their meaning does not apply, and the value after RESET.
    pub(crate) const ACTIVE_LOW: Self = Self(0xffff_0ff0);

    /// Bits that a guest may write.
    pub(crate) const WRITABLE: Self = Self(0x0001_e80f);
}

bits! {
    /// DR7: which breakpoints are on.
    Dr7 {
        /// Exact breakpoints, local: ignored.
        LE = 8,
        /// Exact breakpoints, global: ignored.
        GE = 9,
        /// Always 1.
        FIXED = 10,
        /// Debugging of transactional regions.
        RTM = 11,
        /// General detect: accesses to debug registers raise #DB.
        GD = 13,
    }
}

#[allow(dead_code, reason = "a table of names; not each is used")]
impl Dr7 {
    /// The local and global enable bits of the four breakpoints.
    pub(crate) const ENABLE: Self = Self(0xff);

    /// Bits that a guest may write.
    pub(crate) const WRITABLE: Self = Self(0xffff_2bff);

    /// The value after RESET.
    pub(crate) const RESET: Self = Self::FIXED;
}
