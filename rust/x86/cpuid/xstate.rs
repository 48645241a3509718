// SPDX-License-Identifier: GPL-2.0

//! Sizes of the XSAVE area, as CPUID leaf 0xd tells them.

use super::HostCpuid;

/// Bytes of the part that every XSAVE area has: the FXSAVE area and the header.
const LEGACY_AND_HEADER: u32 = 512 + 64;

/// The first component that lies behind the header.
const FIRST_EXTENDED: usize = 2;

/// One more than the highest component that is looked at.
const COMPONENTS: usize = 19;

/// Where one state component lies.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
struct Component {
    /// Bytes.
    size: u32,
    /// Offset in the standard form; 0 for a component of IA32_XSS.
    offset: u32,
    /// In the compacted form, the component starts at a multiple of 64.
    aligned: bool,
}

/// The layout of this CPU's XSAVE area.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub(crate) struct XstateLayout {
    components: [Component; COMPONENTS],
}

impl XstateLayout {
    /// Returns the layout that `host` tells.
    #[must_use]
    pub(crate) fn read(host: &impl HostCpuid) -> Self {
        let mut layout = Self::default();
        let [max_leaf, ..] = host.cpuid(0, 0);
        if max_leaf < 0xd {
            return layout;
        }
        for (index, component) in (0..).zip(&mut layout.components).skip(FIRST_EXTENDED) {
            let [size, offset, flags, _] = host.cpuid(0xd, index);
            *component = Component {
                size,
                offset,
                aligned: flags & 2 != 0,
            };
        }
        layout
    }

    /// Returns the bytes of an area in the standard form that holds the components of `mask`.
    #[must_use]
    pub(crate) fn standard_size(&self, mask: u64) -> u32 {
        self.chosen(mask).fold(LEGACY_AND_HEADER, |end, part| {
            end.max(part.offset.saturating_add(part.size))
        })
    }

    /// Returns the bytes of an area in the compacted form that holds the components of `mask`.
    #[must_use]
    pub(crate) fn compacted_size(&self, mask: u64) -> u32 {
        self.chosen(mask).fold(LEGACY_AND_HEADER, |end, part| {
            let start = if part.aligned {
                end.checked_next_multiple_of(64).unwrap_or(end)
            } else {
                end
            };
            start.saturating_add(part.size)
        })
    }

    /// Returns whether the CPU has component `index`.
    #[must_use]
    pub(crate) fn has(&self, index: u32) -> bool {
        usize::try_from(index)
            .ok()
            .and_then(|index| self.components.get(index))
            .is_some_and(|component| component.size != 0)
    }

    /// Iterates over the extended components whose bit is set in `mask`.
    fn chosen(&self, mask: u64) -> impl Iterator<Item = &Component> {
        self.components
            .iter()
            .zip(0u32..)
            .skip(FIRST_EXTENDED)
            .filter(move |&(_, index)| mask.checked_shr(index).unwrap_or(0) & 1 != 0)
            .map(|(component, _)| component)
    }
}
