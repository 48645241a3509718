// SPDX-License-Identifier: GPL-2.0

//! Exceptions: their vectors, error codes and classes, and what becomes of two at once.

/// The number of an exception or interrupt in the interrupt-descriptor table.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(transparent)]
pub(crate) struct Vector(u8);

#[allow(dead_code, reason = "a table of names; not each is used")]
impl Vector {
    /// Divide error.
    pub(crate) const DE: Self = Self(0);
    /// Debug.
    pub(crate) const DB: Self = Self(1);
    /// Non-maskable interrupt.
    pub(crate) const NMI: Self = Self(2);
    /// Breakpoint.
    pub(crate) const BP: Self = Self(3);
    /// Overflow.
    pub(crate) const OF: Self = Self(4);
    /// Bound range exceeded.
    pub(crate) const BR: Self = Self(5);
    /// Invalid opcode.
    pub(crate) const UD: Self = Self(6);
    /// Device not available.
    pub(crate) const NM: Self = Self(7);
    /// Double fault.
    pub(crate) const DF: Self = Self(8);
    /// Invalid task-state segment.
    pub(crate) const TS: Self = Self(10);
    /// Segment not present.
    pub(crate) const NP: Self = Self(11);
    /// Stack fault.
    pub(crate) const SS: Self = Self(12);
    /// General protection.
    pub(crate) const GP: Self = Self(13);
    /// Page fault.
    pub(crate) const PF: Self = Self(14);
    /// x87 error.
    pub(crate) const MF: Self = Self(16);
    /// Alignment check.
    pub(crate) const AC: Self = Self(17);
    /// Machine check.
    pub(crate) const MC: Self = Self(18);
    /// SIMD floating-point error.
    pub(crate) const XM: Self = Self(19);
    /// Virtualization exception.
    pub(crate) const VE: Self = Self(20);
    /// Control protection.
    pub(crate) const CP: Self = Self(21);

    /// Returns the vector with number `number`.
    #[must_use]
    pub(crate) const fn new(number: u8) -> Self {
        Self(number)
    }

    /// Returns the number.
    #[must_use]
    pub(crate) const fn number(self) -> u8 {
        self.0
    }

    /// Returns whether the exception pushes an error code, in protected mode.
    ///
    /// In real mode none does.
    #[must_use]
    pub(crate) const fn has_error_code(self) -> bool {
        matches!(
            self,
            Self::DF | Self::TS | Self::NP | Self::SS | Self::GP | Self::PF | Self::AC | Self::CP
        )
    }

    /// Returns whether INT3 or INTO raised it: VM entry injects these as software exceptions, with
    /// the length of the instruction.
    #[must_use]
    pub(crate) const fn is_software(self) -> bool {
        matches!(self, Self::BP | Self::OF)
    }

    /// Returns the class that decides whether two exceptions make a double fault.
    #[must_use]
    pub(crate) const fn class(self) -> Class {
        match self {
            Self::DE | Self::TS | Self::NP | Self::SS | Self::GP | Self::CP => Class::Contributory,
            Self::PF | Self::VE => Class::PageFault,
            _ => Class::Benign,
        }
    }

    /// Returns where the saved RIP of the exception points.
    #[must_use]
    pub(crate) const fn kind(self) -> Kind {
        match self {
            Self::NMI => Kind::Interrupt,
            Self::BP | Self::OF => Kind::Trap,
            Self::DF | Self::MC => Kind::Abort,
            Self::DB => Kind::FaultOrTrap,
            _ => Kind::Fault,
        }
    }
}

/// How an exception behaves when it meets another.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Class {
    /// Never part of a double fault.
    Benign,
    /// Makes a double fault with another contributory one.
    Contributory,
    /// Makes a double fault with a contributory one or another page fault after it.
    PageFault,
}

/// Where the saved RIP of an exception points.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Kind {
    /// At the instruction that caused it, which is started over; RF is saved set.
    Fault,
    /// After the instruction that caused it.
    Trap,
    /// A debug exception: its cause decides.
    FaultOrTrap,
    /// Nowhere of use.
    Abort,
    /// Between two instructions.
    Interrupt,
}

/// An exception on its way to the guest.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Exception {
    /// Which.
    pub(crate) vector: Vector,
    /// The error code, for a vector that pushes one.
    pub(crate) error_code: Option<u32>,
    /// What delivery writes to CR2 (#PF) or merges into DR6 (#DB).
    pub(crate) payload: Option<u64>,
}

#[allow(
    dead_code,
    reason = "a constructor for each exception that code raises"
)]
impl Exception {
    /// Returns the exception `vector` without error code.
    #[must_use]
    pub(crate) const fn plain(vector: Vector) -> Self {
        Self {
            vector,
            error_code: None,
            payload: None,
        }
    }

    /// Returns the exception `vector` with `error_code`.
    #[must_use]
    pub(crate) const fn with_error_code(vector: Vector, error_code: u32) -> Self {
        Self {
            vector,
            error_code: Some(error_code),
            payload: None,
        }
    }

    /// Returns #UD.
    #[must_use]
    pub(crate) const fn invalid_opcode() -> Self {
        Self::plain(Vector::UD)
    }

    /// Returns #GP with error code 0.
    #[must_use]
    pub(crate) const fn general_protection() -> Self {
        Self::with_error_code(Vector::GP, 0)
    }

    /// Returns #PF at the linear address `address`.
    #[must_use]
    pub(crate) const fn page_fault(error_code: u32, address: u64) -> Self {
        Self {
            vector: Vector::PF,
            error_code: Some(error_code),
            payload: Some(address),
        }
    }

    /// Returns #DF.
    #[must_use]
    pub(crate) const fn double_fault() -> Self {
        Self::with_error_code(Vector::DF, 0)
    }

    /// Returns the exception as it is delivered in real mode (`protected` false) or else: without
    /// its error code in real mode, with one if the vector has one otherwise.
    #[must_use]
    pub(crate) const fn for_mode(self, protected: bool) -> Self {
        let error_code = match self.error_code {
            _ if !protected || !self.vector.has_error_code() => None,
            None => Some(0),
            code => code,
        };
        Self { error_code, ..self }
    }
}

/// What becomes of an exception that is raised while another is being delivered.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Merge {
    /// The second is delivered alone; the instruction raises the first again if it still stands.
    Second,
    /// A double fault is delivered in place of both.
    DoubleFault,
    /// A triple fault: the CPU shuts down.
    Shutdown,
}

/// Returns what becomes of `second`, raised while `first` was being delivered.
#[must_use]
pub(crate) const fn merge(first: Vector, second: Vector) -> Merge {
    if matches!(first, Vector::DF) {
        return Merge::Shutdown;
    }
    match (first.class(), second.class()) {
        (Class::Contributory, Class::Contributory)
        | (Class::PageFault, Class::Contributory | Class::PageFault) => Merge::DoubleFault,
        _ => Merge::Second,
    }
}
