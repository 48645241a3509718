// SPDX-License-Identifier: GPL-2.0

//! Interrupt and task priority: what can be delivered now, and which TPR write matters.
//!
//! This file is pure. Priorities compare by class; a vector is delivered if its class is above the
//! processor priority's, which is the higher of the task priority and the vector in service.

/// Returns the priority class of a vector or of a TPR.
#[inline]
pub(crate) const fn class(value: u8) -> u8 {
    value >> 4
}

/// Returns the processor priority.
///
/// The TPR's lower four bits show through only while the TPR decides.
#[inline]
pub(crate) const fn processor_priority(tpr: u8, isr: Option<u8>) -> u8 {
    match isr {
        Some(vector) if class(vector) > class(tpr) => vector & 0xf0,
        _ => tpr,
    }
}

/// Returns the TPR threshold: the class below which a new TPR lets the highest request through.
///
/// `irr` is the highest request that nothing but the TPR holds back. The result is 0, which no TPR
/// is below, if there is none or if the TPR holds nothing back; otherwise it is the request's
/// class, which is then the smaller one of the TPR's and the request's.
#[inline]
pub(crate) const fn tpr_threshold(tpr: u8, irr: Option<u8>) -> u8 {
    match irr {
        Some(vector) if class(vector) <= class(tpr) => class(vector),
        _ => 0,
    }
}

/// The three inputs of every decision on priority.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Priorities {
    /// Task priority.
    pub(crate) tpr: u8,
    /// Highest vector in service.
    pub(crate) isr: Option<u8>,
    /// Highest vector requested.
    pub(crate) irr: Option<u8>,
}

impl Priorities {
    /// Returns the processor priority.
    #[inline]
    pub(crate) const fn processor(self) -> u8 {
        processor_priority(self.tpr, self.isr)
    }

    /// Returns the vector that the processor would accept now.
    #[inline]
    pub(crate) const fn deliverable(self) -> Option<u8> {
        match self.irr {
            Some(vector) if class(vector) > class(self.processor()) => Some(vector),
            _ => None,
        }
    }

    /// Returns the TPR threshold, with what is in service taken into account.
    ///
    /// While the request's class is not above that of the vector in service, no TPR lets it
    /// through, and the end of that interrupt is seen anyway.
    #[inline]
    pub(crate) const fn tpr_threshold(self) -> u8 {
        match (self.irr, self.isr) {
            (Some(request), Some(service)) if class(request) <= class(service) => 0,
            (request, _) => tpr_threshold(self.tpr, request),
        }
    }
}
