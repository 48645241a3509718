// SPDX-License-Identifier: GPL-2.0

//! What debugfs shows of a vCPU, which must not wait for its mutex.

use kernel::{
    prelude::*,
    sync::{
        atomic::{
            Atomic,
            Relaxed, //
        },
        Arc, //
    }, //
};

/// Copies of a vCPU's values, written by its thread.
pub(crate) struct View {
    pid: Atomic<i32>,
    tsc_offset: Atomic<u64>,
    tsc_ratio: Atomic<u64>,
}

impl View {
    /// Returns the view of a vCPU that nothing was set of.
    pub(super) fn new(tsc_ratio: u64) -> Result<Arc<Self>> {
        Ok(Arc::new(
            Self {
                pid: Atomic::new(0),
                tsc_offset: Atomic::new(0),
                tsc_ratio: Atomic::new(tsc_ratio),
            },
            GFP_KERNEL_ACCOUNT,
        )?)
    }

    /// Returns the thread that ran the vCPU last, 0 if none did.
    pub(crate) fn pid(&self) -> i32 {
        self.pid.load(Relaxed)
    }

    /// Notes the thread that runs the vCPU.
    #[inline]
    pub(super) fn set_pid(&self, pid: i32) {
        self.pid.store(pid, Relaxed);
    }

    /// Returns the offset of the guest's time-stamp counter.
    pub(crate) fn tsc_offset(&self) -> u64 {
        self.tsc_offset.load(Relaxed)
    }

    /// Notes the offset of the guest's time-stamp counter.
    pub(super) fn set_tsc_offset(&self, offset: u64) {
        self.tsc_offset.store(offset, Relaxed);
    }

    /// Returns the ratio of the guest's time-stamp counter to the host's.
    pub(crate) fn tsc_ratio(&self) -> u64 {
        self.tsc_ratio.load(Relaxed)
    }

    /// Notes the ratio of the guest's time-stamp counter to the host's.
    pub(super) fn set_tsc_ratio(&self, ratio: u64) {
        self.tsc_ratio.store(ratio, Relaxed);
    }
}
