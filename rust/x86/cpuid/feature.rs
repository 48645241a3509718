// SPDX-License-Identifier: GPL-2.0

//! CPU features by name, and sets of them.

use super::Reg;

/// Declares the words that hold feature bits.
macro_rules! words {
    ($($(#[$doc:meta])* $word:ident = ($leaf:literal, $index:literal, $reg:ident, $kernel:literal),)*) => {
        /// A register of a (sub)leaf whose bits are features.
        #[derive(Clone, Copy, PartialEq, Eq, Debug)]
        pub(crate) enum Word {
            $($(#[$doc])* $word,)*
        }

        impl Word {
            /// Every word.
            pub(crate) const ALL: &'static [Self] = &[$(Self::$word,)*];

            /// Number of words.
            pub(crate) const COUNT: usize = Self::ALL.len();

            /// Returns the leaf, the subleaf and the register that hold the word.
            #[must_use]
            pub(crate) const fn location(self) -> (u32, u32, Reg) {
                match self {
                    $(Self::$word => ($leaf, $index, Reg::$reg),)*
                }
            }

            /// Returns the number of the kernel's word with the same bits (`enum cpuid_leafs`).
            ///
            /// [`Self::NO_KERNEL_WORD`] if the kernel keeps none.
            #[must_use]
            pub(crate) const fn kernel_word(self) -> usize {
                match self {
                    $(Self::$word => $kernel,)*
                }
            }
        }
    };
}

words! {
    /// Leaf 1, ECX.
    L1Ecx = (1, 0, Ecx, 4),
    /// Leaf 1, EDX.
    L1Edx = (1, 0, Edx, 0),
    /// Leaf 7, EBX.
    L7Ebx = (7, 0, Ebx, 9),
    /// Leaf 7, ECX.
    L7Ecx = (7, 0, Ecx, 16),
    /// Leaf 7, EDX.
    L7Edx = (7, 0, Edx, 18),
    /// Leaf 7, subleaf 1, EAX.
    L7s1Eax = (7, 1, Eax, 12),
    /// Leaf 7, subleaf 1, EDX.
    L7s1Edx = (7, 1, Edx, 0xffff),
    /// Leaf 7, subleaf 2, EDX.
    L7s2Edx = (7, 2, Edx, 0xffff),
    /// Leaf 0xd, subleaf 1, EAX.
    LDs1Eax = (0xd, 1, Eax, 10),
    /// Leaf 0x8000_0001, ECX.
    E1Ecx = (0x8000_0001, 0, Ecx, 6),
    /// Leaf 0x8000_0001, EDX.
    E1Edx = (0x8000_0001, 0, Edx, 1),
    /// Leaf 0x8000_0007, EDX. Bit 8 is at the same place in the kernel's own word.
    E7Edx = (0x8000_0007, 0, Edx, 3),
    /// Leaf 0x8000_0008, EBX.
    E8Ebx = (0x8000_0008, 0, Ebx, 13),
}

impl Word {
    /// The number of a word that the kernel does not keep.
    pub(crate) const NO_KERNEL_WORD: usize = 0xffff;
}

/// One feature bit.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Feature {
    word: Word,
    bit: u8,
}

impl Feature {
    /// Returns the word that holds the bit.
    #[must_use]
    pub(crate) const fn word(self) -> Word {
        self.word
    }

    /// Returns the word's value with this bit only.
    #[must_use]
    pub(crate) const fn mask(self) -> u32 {
        1 << self.bit
    }
}

/// Declares the features of each word with their bit numbers.
macro_rules! features {
    ($($word:ident { $($name:ident = $bit:literal,)* })*) => {
        #[allow(dead_code, reason = "a table of names; not each is used")]
        impl Feature {
            $($(
                #[doc = concat!("The feature `", stringify!($name), "`.")]
                pub(crate) const $name: Self = Self { word: Word::$word, bit: $bit };
            )*)*
        }
    };
}

features! {
    L1Ecx {
        SSE3 = 0, PCLMULQDQ = 1, DTES64 = 2, MWAIT = 3, VMX = 5, SMX = 6, SSSE3 = 9, FMA = 12,
        CX16 = 13, PDCM = 15, PCID = 17, SSE4_1 = 19, SSE4_2 = 20, X2APIC = 21, MOVBE = 22,
        POPCNT = 23, TSC_DEADLINE = 24, AES = 25, XSAVE = 26, OSXSAVE = 27, AVX = 28, F16C = 29,
        RDRAND = 30, HYPERVISOR = 31,
    }
    L1Edx {
        FPU = 0, VME = 1, DE = 2, PSE = 3, TSC = 4, MSR = 5, PAE = 6, MCE = 7, CX8 = 8, APIC = 9,
        SEP = 11, MTRR = 12, PGE = 13, MCA = 14, CMOV = 15, PAT = 16, PSE36 = 17, CLFLUSH = 19,
        DS = 21, MMX = 23, FXSR = 24, SSE = 25, SSE2 = 26, SELFSNOOP = 27,
    }
    L7Ebx {
        FSGSBASE = 0, TSC_ADJUST = 1, SGX = 2, BMI1 = 3, HLE = 4, AVX2 = 5, FDP_EXCPTN_ONLY = 6,
        SMEP = 7, BMI2 = 8, ERMS = 9, INVPCID = 10, RTM = 11, ZERO_FCS_FDS = 13, MPX = 14,
        AVX512F = 16, AVX512DQ = 17, RDSEED = 18, ADX = 19, SMAP = 20, AVX512IFMA = 21,
        CLFLUSHOPT = 23, CLWB = 24, INTEL_PT = 25, AVX512PF = 26, AVX512ER = 27, AVX512CD = 28,
        SHA = 29, AVX512BW = 30, AVX512VL = 31,
    }
    L7Ecx {
        AVX512VBMI = 1, UMIP = 2, PKU = 3, OSPKE = 4, WAITPKG = 5, AVX512_VBMI2 = 6, SHSTK = 7,
        GFNI = 8, VAES = 9, VPCLMULQDQ = 10, AVX512_VNNI = 11, AVX512_BITALG = 12,
        AVX512_VPOPCNTDQ = 14, LA57 = 16, RDPID = 22, BUS_LOCK_DETECT = 24, CLDEMOTE = 25,
        MOVDIRI = 27, MOVDIR64B = 28, SGX_LC = 30,
    }
    L7Edx {
        AVX512_4VNNIW = 2, AVX512_4FMAPS = 3, FSRM = 4, AVX512_VP2INTERSECT = 8, MD_CLEAR = 10,
        SERIALIZE = 14, TSXLDTRK = 16, IBT = 20, AVX512_FP16 = 23, SPEC_CTRL = 26, STIBP = 27,
        FLUSH_L1D = 28, ARCH_CAPABILITIES = 29, SSBD = 31,
    }
    L7s1Eax {
        SHA512 = 0, SM3 = 1, SM4 = 2, AVX_VNNI = 4, AVX512_BF16 = 5, CMPCCXADD = 7, FZRM = 10,
        FSRS = 11, FSRC = 12, AVX_IFMA = 23, LAM = 26,
    }
    L7s1Edx {
        AVX_VNNI_INT8 = 4, AVX_NE_CONVERT = 5, AVX_VNNI_INT16 = 10, PREFETCHITI = 14,
    }
    L7s2Edx {
        PSFD = 0, IPRED_CTRL = 1, RRSBA_CTRL = 2, DDPD_U = 3, BHI_CTRL = 4, MCDT_NO = 5,
    }
    LDs1Eax {
        XSAVEOPT = 0, XSAVEC = 1, XGETBV1 = 2, XSAVES = 3, XFD = 4,
    }
    E1Ecx {
        LAHF_LM = 0, SVM = 2, ABM = 5, PREFETCHW = 8,
    }
    E1Edx {
        SYSCALL = 11, NX = 20, FXSR_OPT = 25, GBPAGES = 26, RDTSCP = 27, LM = 29,
    }
    E7Edx {
        INVARIANT_TSC = 8,
    }
    E8Ebx {
        WBNOINVD = 9, AMD_IBPB = 12, AMD_IBRS = 14, AMD_STIBP = 15, AMD_SSBD = 24,
        AMD_SSB_NO = 26, AMD_IBPB_RET = 30,
    }
}

/// A set of features.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub(crate) struct Features {
    words: [u32; Word::COUNT],
}

impl Features {
    /// Returns the set that `word` of each [`Word`] makes up.
    #[must_use]
    pub(crate) fn from_words(mut word: impl FnMut(Word) -> u32) -> Self {
        let mut features = Self::default();
        for (slot, &name) in features.words.iter_mut().zip(Word::ALL) {
            *slot = word(name);
        }
        features
    }

    /// Returns the bits of one word.
    #[must_use]
    pub(crate) fn word(&self, word: Word) -> u32 {
        // CAST: the discriminants count from 0.
        self.words.get(word as usize).copied().unwrap_or(0)
    }

    /// Returns whether the feature is in the set.
    #[must_use]
    pub(crate) fn has(&self, feature: Feature) -> bool {
        self.word(feature.word) & feature.mask() != 0
    }

    /// Adds the feature, or removes it if `on` is false.
    pub(crate) fn set(&mut self, feature: Feature, on: bool) {
        // CAST: the discriminants count from 0.
        if let Some(word) = self.words.get_mut(feature.word as usize) {
            if on {
                *word |= feature.mask();
            } else {
                *word &= !feature.mask();
            }
        }
    }
}
