// SPDX-License-Identifier: GPL-2.0

//! Addresses and frame numbers as types.
//!
//! | type    | what it addresses                                   |
//! |---------|-----------------------------------------------------|
//! | [`Gva`] | guest linear memory, through the guest's own tables |
//! | [`Gpa`] | guest-physical memory                               |
//! | [`Gfn`] | a 4 KiB frame of guest-physical memory              |
//! | [`Hva`] | memory of the client's address space                |
//! | [`Hpa`] | host-physical memory                                |
//! | [`Pfn`] | a 4 KiB frame of host-physical memory               |
//!
//! A raw `u64` never stands for one of these above `bindings`; conversions are named.

/// Number of address bits inside a 4 KiB page.
pub(crate) const PAGE_SHIFT: u32 = 12;

/// Size in bytes of a 4 KiB page.
pub(crate) const PAGE_SIZE: u64 = 1 << PAGE_SHIFT;

/// Mask of the address bits inside a 4 KiB page.
pub(crate) const PAGE_OFFSET_MASK: u64 = PAGE_SIZE - 1;

macro_rules! address {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Default)]
        #[repr(transparent)]
        pub(crate) struct $name(u64);

        #[allow(dead_code, reason = "each kind of address has the same small set of accessors")]
        impl $name {
            /// Returns the address or frame with the raw value `value`.
            pub(crate) const fn new(value: u64) -> Self {
                Self(value)
            }

            /// Returns the raw value.
            pub(crate) const fn value(self) -> u64 {
                self.0
            }

            /// Returns `self + n`, or `None` if that wraps.
            pub(crate) const fn checked_add(self, n: u64) -> Option<Self> {
                match self.0.checked_add(n) {
                    Some(value) => Some(Self(value)),
                    None => None,
                }
            }
        }
    };
}

macro_rules! byte_address {
    ($name:ident, $frame:ident, $to_frame:ident) => {
        #[allow(
            dead_code,
            reason = "each kind of address has the same small set of accessors"
        )]
        impl $name {
            /// Returns the 4 KiB frame that holds this address.
            pub(crate) const fn $to_frame(self) -> $frame {
                $frame::new(self.value() >> PAGE_SHIFT)
            }

            /// Returns the offset inside the 4 KiB page, below [`PAGE_SIZE`].
            pub(crate) const fn offset_in_page(self) -> u64 {
                self.value() & PAGE_OFFSET_MASK
            }

            /// Returns whether the address is that of a 4 KiB page's first byte.
            pub(crate) const fn is_page_aligned(self) -> bool {
                self.offset_in_page() == 0
            }
        }
    };
}

address! {
    /// A guest linear ("virtual") address, before the guest's own translation.
    Gva
}
address! {
    /// A guest-physical address.
    Gpa
}
address! {
    /// A guest frame number: a guest-physical address divided by 4 KiB.
    Gfn
}
address! {
    /// An address in the client's (host user) address space.
    Hva
}
address! {
    /// A host-physical address.
    Hpa
}
address! {
    /// A host page frame number: a host-physical address divided by 4 KiB.
    Pfn
}

byte_address!(Gpa, Gfn, gfn);
byte_address!(Hpa, Pfn, pfn);

impl Gfn {
    /// Returns the guest-physical address of the frame's first byte.
    ///
    /// A frame number of more than 52 bits does not exist on x86; its excess bits are dropped.
    pub(crate) const fn to_gpa(self) -> Gpa {
        Gpa::new(self.0 << PAGE_SHIFT)
    }
}

impl Pfn {
    /// Returns the host-physical address of the frame's first byte.
    pub(crate) const fn to_hpa(self) -> Hpa {
        Hpa::new(self.0 << PAGE_SHIFT)
    }
}

impl Hva {
    /// Returns whether the address is that of a 4 KiB page's first byte.
    pub(crate) const fn is_page_aligned(self) -> bool {
        self.0 & PAGE_OFFSET_MASK == 0
    }
}
