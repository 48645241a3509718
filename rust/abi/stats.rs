// SPDX-License-Identifier: GPL-2.0

//! `/sys/kernel/debug/kvm-rs/stats`: what the module did since it was loaded, a `name value` a line.

use crate::{
    hypervisor::Hypervisor,
    mmu::ALL_VMS,
    vcpu::stats::totals,
    vmx::{
        exit::reason,
        tlb::FLUSHES, //
    }, //
};
use kernel::{
    debugfs::File,
    fmt,
    prelude::*,
    sync::{
        atomic::Relaxed,
        Arc, //
    }, //
};

/// The statistics' files, which go when this is dropped.
#[pin_data]
pub(crate) struct StatsFiles {
    #[pin]
    stats: File<Source>,
}

/// Where the numbers come from.
struct Source(Arc<Hypervisor>);

impl StatsFiles {
    /// Returns an initialiser that shows the statistics.
    pub(crate) fn new(hypervisor: Arc<Hypervisor>) -> impl PinInit<Self, Error> {
        let folder = hypervisor.debugfs.clone();
        try_pin_init!(Self {
            stats <- folder.dir().read_callback_file(c"stats", Source(hypervisor), &show),
        }? Error)
    }
}

/// Prints all statistics.
fn show(source: &Source, f: &mut fmt::Formatter<'_>) -> fmt::Result {
    let exits = totals();
    let sum = exits
        .iter()
        .fold(0u64, |sum, &count| sum.wrapping_add(count));
    writeln!(f, "exits {sum}")?;
    for (number, &count) in exits.iter().enumerate() {
        if count == 0 {
            continue;
        }
        match reason::name(number) {
            Some(name) => writeln!(f, "exits_{name} {count}")?,
            None => writeln!(f, "exits_reason_{number} {count}")?,
        }
    }
    let (now, ever) = (ALL_VMS.mapped(), ALL_VMS.ever_mapped());
    writeln!(f, "ept_4k {}", now.pages_4k)?;
    writeln!(f, "ept_2m {}", now.pages_2m)?;
    writeln!(f, "ept_1g {}", now.pages_1g)?;
    writeln!(f, "ept_4k_mapped {}", ever.pages_4k)?;
    writeln!(f, "ept_2m_mapped {}", ever.pages_2m)?;
    writeln!(f, "ept_1g_mapped {}", ever.pages_1g)?;
    let vpids = source.0.vpids.usage();
    writeln!(f, "vpid_in_use {}", vpids.in_use)?;
    writeln!(f, "vpid_max_in_use {}", vpids.most_in_use)?;
    writeln!(f, "vpid_refused {}", vpids.refused)?;
    for (name, counter) in [
        ("invvpid_single", &FLUSHES.invvpid_single),
        ("invvpid_all", &FLUSHES.invvpid_all),
        ("invept_single", &FLUSHES.invept_single),
        ("invept_all", &FLUSHES.invept_all),
    ] {
        writeln!(f, "{name} {}", counter.load(Relaxed))?;
    }
    Ok(())
}
