// SPDX-License-Identifier: GPL-2.0

//! KVM_GET_STATS_FD: a VM's or vCPU's statistics as a file that describes itself.
//!
//! ```text
//!   header, with the offsets of the rest | name of the object | a descriptor for each value | values
//! ```
//!
//! A value is called as in KVM where it counts the same; what KVM counts and this module does not have is
//! left out.

use crate::{
    bindings::*,
    linux::{
        anon_inode::FileObject,
        uaccess, //
    },
    vcpu::{
        stats::{
            Event,
            Histogram, //
        },
        Vcpu, //
    },
    vm::{
        debugfs::{
            Counters,
            Source, //
        },
        Vm, //
    },
    vmx::exit::reason, //
};
use core::ops::Range;
use kernel::{
    prelude::*,
    str::CString,
    sync::{
        Arc,
        ArcBorrow, //
    }, //
};

/// Size of a name in bytes, as KVM has it.
const NAME_SIZE: usize = KVM_STATS_NAME_SIZE as usize;

/// Size of the header in bytes: six 32-bit words.
const HEADER_SIZE: usize = size_of::<kvm_stats_header>();

/// Size of a descriptor in bytes, its name included.
const DESCRIPTOR_SIZE: usize = 16 + NAME_SIZE;

/// The largest file: what a read may have to make.
const MAX_STATS: usize = 64;

/// What a value means.
#[derive(Clone, Copy)]
enum Kind {
    /// A number that only grows.
    Cumulative,
    /// A number as of now.
    Instant,
    /// Nanoseconds, whose sum only grows.
    Nanoseconds,
    /// Whether something is so now.
    Boolean,
    /// How often something took so many nanoseconds, by powers of two.
    Histogram,
}

impl Kind {
    /// Returns the descriptor's flags: the type and the unit; none, and a base of ten, are both 0.
    const fn flags(self) -> u32 {
        match self {
            Self::Cumulative => KVM_STATS_TYPE_CUMULATIVE,
            Self::Instant => KVM_STATS_TYPE_INSTANT,
            Self::Nanoseconds => KVM_STATS_TYPE_CUMULATIVE | KVM_STATS_UNIT_SECONDS,
            Self::Histogram => KVM_STATS_TYPE_LOG_HIST | KVM_STATS_UNIT_SECONDS,
            Self::Boolean => KVM_STATS_TYPE_INSTANT | KVM_STATS_UNIT_BOOLEAN,
        }
    }

    /// Returns the power of ten by which the value counts in the unit.
    const fn exponent(self) -> i16 {
        match self {
            Self::Nanoseconds | Self::Histogram => -9,
            _ => 0,
        }
    }

    /// Returns the number of values.
    const fn size(self) -> usize {
        match self {
            Self::Histogram => Histogram::BUCKETS,
            _ => 1,
        }
    }
}

/// A value of the statistics of a `T`.
struct Stat<T> {
    name: &'static CStr,
    kind: Kind,
    value: Values<T>,
}

/// Where the values come from.
enum Values<T> {
    One(fn(&T) -> u64),
    Many(fn(&T, usize) -> u64),
}

impl<T> Stat<T> {
    const fn cumulative(name: &'static CStr, value: fn(&T) -> u64) -> Self {
        assert!(name.to_bytes().len() < NAME_SIZE);
        Self {
            name,
            kind: Kind::Cumulative,
            value: Values::One(value),
        }
    }

    const fn nanoseconds(name: &'static CStr, value: fn(&T) -> u64) -> Self {
        assert!(name.to_bytes().len() < NAME_SIZE);
        Self {
            name,
            kind: Kind::Nanoseconds,
            value: Values::One(value),
        }
    }

    const fn boolean(name: &'static CStr, value: fn(&T) -> u64) -> Self {
        assert!(name.to_bytes().len() < NAME_SIZE);
        Self {
            name,
            kind: Kind::Boolean,
            value: Values::One(value),
        }
    }

    const fn histogram(name: &'static CStr, value: fn(&T, usize) -> u64) -> Self {
        assert!(name.to_bytes().len() < NAME_SIZE);
        Self {
            name,
            kind: Kind::Histogram,
            value: Values::Many(value),
        }
    }

    const fn instant(name: &'static CStr, value: fn(&T) -> u64) -> Self {
        assert!(name.to_bytes().len() < NAME_SIZE);
        Self {
            name,
            kind: Kind::Instant,
            value: Values::One(value),
        }
    }
}

impl<T> Stat<T> {
    /// Returns where the value comes from, unless there are several.
    fn single(&self) -> Option<fn(&T) -> u64> {
        match self.value {
            Values::One(value) => Some(value),
            Values::Many(_) => None,
        }
    }
}

/// The statistics of a VM.
static VM: &[Stat<Counters>] = &[
    Stat::cumulative(c"remote_tlb_flush", |vm| vm.vcpus.flushes().kicked),
    Stat::cumulative(c"remote_tlb_flush_requests", |vm| {
        vm.vcpus.flushes().requested
    }),
    Stat::instant(c"nx_lpage_splits", |vm| vm.entries.splits_for_execution()),
    Stat::instant(c"pages_4k", |vm| vm.entries.mapped().pages_4k),
    Stat::instant(c"pages_2m", |vm| vm.entries.mapped().pages_2m),
    Stat::instant(c"pages_1g", |vm| vm.entries.mapped().pages_1g),
];

/// The statistics of a vCPU.
static VCPU: &[Stat<Vcpu>] = &[
    Stat::cumulative(c"halt_successful_poll", |vcpu| {
        vcpu.events(Event::HaltSuccessfulPoll)
    }),
    Stat::cumulative(c"halt_attempted_poll", |vcpu| {
        vcpu.events(Event::HaltAttemptedPoll)
    }),
    // Each end of a halt is one of the vCPU's.
    Stat::cumulative(c"halt_poll_invalid", |_| 0),
    Stat::cumulative(c"halt_wakeup", |vcpu| vcpu.events(Event::HaltWakeup)),
    Stat::nanoseconds(c"halt_poll_success_ns", |vcpu| {
        vcpu.events(Event::HaltPollSuccessNs)
    }),
    Stat::nanoseconds(c"halt_poll_fail_ns", |vcpu| {
        vcpu.events(Event::HaltPollFailNs)
    }),
    Stat::nanoseconds(c"halt_wait_ns", |vcpu| vcpu.events(Event::HaltWaitNs)),
    Stat::histogram(c"halt_poll_success_hist", |vcpu, bucket| {
        vcpu.bucket(Histogram::PollSuccess, bucket)
    }),
    Stat::histogram(c"halt_poll_fail_hist", |vcpu, bucket| {
        vcpu.bucket(Histogram::PollFail, bucket)
    }),
    Stat::histogram(c"halt_wait_hist", |vcpu, bucket| {
        vcpu.bucket(Histogram::Wait, bucket)
    }),
    Stat::boolean(c"blocking", |vcpu| u64::from(vcpu.is_blocking())),
    Stat::cumulative(c"directed_yield_attempted", |vcpu| {
        vcpu.events(Event::DirectedYieldAttempted)
    }),
    Stat::cumulative(c"directed_yield_successful", |vcpu| {
        vcpu.events(Event::DirectedYieldSuccessful)
    }),
    Stat::cumulative(c"pf_taken", |vcpu| vcpu.exits(reason::EPT_VIOLATION)),
    Stat::cumulative(c"pf_fixed", |vcpu| vcpu.events(Event::FaultFixed)),
    Stat::cumulative(c"pf_emulate", |vcpu| vcpu.events(Event::FaultEmulated)),
    Stat::cumulative(c"pf_spurious", |vcpu| vcpu.events(Event::FaultSpurious)),
    Stat::cumulative(c"pf_fast", |vcpu| vcpu.events(Event::FaultFast)),
    Stat::cumulative(c"pf_mmio_spte_created", |vcpu| {
        vcpu.events(Event::MmioRemembered)
    }),
    Stat::cumulative(c"pf_guest", |vcpu| vcpu.events(Event::FaultOfGuest)),
    Stat::cumulative(c"tlb_flush", |vcpu| vcpu.events(Event::TlbFlush)),
    Stat::cumulative(c"invlpg", |vcpu| vcpu.events(Event::Invalidated)),
    Stat::cumulative(c"l1d_flush", Vcpu::l1d_flushes),
    Stat::cumulative(c"exits", Vcpu::all_exits),
    Stat::cumulative(c"io_exits", |vcpu| vcpu.exits(reason::IO)),
    Stat::cumulative(c"mmio_exits", |vcpu| vcpu.events(Event::MmioExit)),
    Stat::cumulative(c"signal_exits", |vcpu| vcpu.events(Event::SignalExit)),
    Stat::cumulative(c"irq_window_exits", |vcpu| {
        vcpu.exits(reason::INTERRUPT_WINDOW)
    }),
    Stat::cumulative(c"nmi_window_exits", |vcpu| vcpu.exits(reason::NMI_WINDOW)),
    Stat::cumulative(c"halt_exits", |vcpu| vcpu.exits(reason::HLT)),
    Stat::cumulative(c"request_irq_exits", |vcpu| {
        vcpu.events(Event::WindowToUser)
    }),
    Stat::cumulative(c"irq_exits", |vcpu| vcpu.exits(reason::EXTERNAL_INTERRUPT)),
    Stat::cumulative(c"host_state_reload", |vcpu| vcpu.host_switch().reloads()),
    Stat::cumulative(c"fpu_reload", |vcpu| vcpu.events(Event::FpuReloaded)),
    Stat::cumulative(c"insn_emulation", |vcpu| vcpu.events(Event::Emulated)),
    Stat::cumulative(c"insn_emulation_fail", |vcpu| {
        vcpu.events(Event::EmulationFailed)
    }),
    Stat::cumulative(c"hypercalls", |vcpu| vcpu.exits(reason::VMCALL)),
    Stat::cumulative(c"irq_injections", |vcpu| {
        vcpu.events(Event::InterruptInjected)
    }),
    Stat::cumulative(c"nmi_injections", |vcpu| vcpu.events(Event::NmiInjected)),
    Stat::cumulative(c"req_event", |vcpu| vcpu.events(Event::DeliveryRequested)),
    // No guest has guests, and none has a time within which it must let events in.
    Stat::cumulative(c"nested_run", |_| 0),
    Stat::boolean(c"guest_mode", |_| 0),
    Stat::cumulative(c"notify_window_exits", |_| 0),
];

/// Returns all statistics for debugfs: those of a VM, and those of its vCPUs.
pub(super) fn for_debugfs() -> impl Iterator<Item = (&'static CStr, Source)> {
    let of_vm = VM
        .iter()
        .filter_map(|stat| Some((stat.name, Source::Vm(stat.single()?))));
    let of_vcpus = VCPU
        .iter()
        .filter_map(|stat| Some((stat.name, Source::Vcpus(stat.single()?))));
    Iterator::chain(of_vm, of_vcpus)
}

/// The file of a VM's statistics.
pub(super) struct VmStats {
    vm: Arc<Vm>,
    name: CString,
}

/// The file of a vCPU's statistics. Keeps the VM too, as a vCPU's own file does.
pub(super) struct VcpuStats {
    _vm: Arc<Vm>,
    vcpu: Arc<Vcpu>,
    name: CString,
}

impl VmStats {
    /// Returns the file's object.
    pub(super) fn new(vm: Arc<Vm>) -> Result<Arc<Self>> {
        let name = CString::try_from_fmt(fmt!("kvm-{}", vm.creator()))?;
        Ok(Arc::new(Self { vm, name }, GFP_KERNEL_ACCOUNT)?)
    }
}

impl VcpuStats {
    /// Returns the file's object.
    pub(super) fn new(vm: Arc<Vm>, vcpu: Arc<Vcpu>) -> Result<Arc<Self>> {
        let name = CString::try_from_fmt(fmt!("kvm-{}/vcpu-{}", vm.creator(), vcpu.id()))?;
        Ok(Arc::new(
            Self {
                _vm: vm,
                vcpu,
                name,
            },
            GFP_KERNEL_ACCOUNT,
        )?)
    }
}

impl FileObject for VmStats {
    const READABLE: bool = true;

    type Pointer = Arc<Self>;

    fn read(this: ArcBorrow<'_, Self>, offset: u64, address: usize, size: usize) -> Result<usize> {
        let part = read(&this.name, VM, &this.vm.counters(), offset, size)?;
        uaccess::write_bytes(address, &part)?;
        Ok(part.len())
    }
}

impl FileObject for VcpuStats {
    const READABLE: bool = true;

    type Pointer = Arc<Self>;

    fn read(this: ArcBorrow<'_, Self>, offset: u64, address: usize, size: usize) -> Result<usize> {
        let part = read(&this.name, VCPU, &this.vcpu, offset, size)?;
        uaccess::write_bytes(address, &part)?;
        Ok(part.len())
    }
}

/// The part of the file that a read wants, made while the file passes by from its start.
struct Part {
    wanted: Range<usize>,
    position: usize,
    bytes: KVec<u8>,
}

impl Part {
    /// Passes over the next `len` bytes if none of them is wanted, and returns whether that is so.
    fn passes(&mut self, len: usize) -> bool {
        let end = self.position.saturating_add(len);
        let passes = end <= self.wanted.start || self.position >= self.wanted.end;
        if passes {
            self.position = end;
        }
        passes
    }

    /// Takes what is wanted of the next bytes.
    fn put(&mut self, bytes: &[u8]) -> Result {
        let from = self.wanted.start.saturating_sub(self.position);
        let to = self.wanted.end.saturating_sub(self.position);
        if let Some(bytes) = bytes.get(from..to.min(bytes.len())) {
            self.bytes.extend_from_slice(bytes, GFP_KERNEL)?;
        }
        self.position = self.position.saturating_add(bytes.len());
        Ok(())
    }

    /// Takes a name, cut or filled up with zeroes to its size.
    fn put_name(&mut self, name: &[u8]) -> Result {
        const ZEROES: [u8; NAME_SIZE] = [0; NAME_SIZE];
        let name = name.get(..NAME_SIZE - 1).unwrap_or(name);
        self.put(name)?;
        self.put(ZEROES.get(name.len()..).unwrap_or_default())
    }
}

/// Returns as much of the file as a read of `size` bytes at `offset` gets: less at its end.
fn read<T>(
    name: &CStr,
    stats: &[Stat<T>],
    object: &T,
    offset: u64,
    size: usize,
) -> Result<KVec<u8>> {
    let count = stats.len().min(MAX_STATS);
    let descriptors = HEADER_SIZE + NAME_SIZE;
    let data = descriptors + count * DESCRIPTOR_SIZE;
    let values = stats
        .iter()
        .take(count)
        .fold(0, |sum, stat| sum + stat.kind.size());
    let start = usize::try_from(offset).unwrap_or(usize::MAX);
    let mut part = Part {
        wanted: start..start.saturating_add(size),
        position: 0,
        bytes: KVec::with_capacity(size.min(data + values * 8), GFP_KERNEL)?,
    };
    let words = [0, NAME_SIZE, count, HEADER_SIZE, descriptors, data];
    for word in words {
        // CAST: At most a few thousand.
        part.put(&(word as u32).to_ne_bytes())?;
    }
    part.put_name(name.to_bytes())?;
    let mut place = 0;
    for stat in stats.iter().take(count) {
        let (values, here) = (stat.kind.size(), place);
        place += values * 8;
        if part.passes(DESCRIPTOR_SIZE) {
            continue;
        }
        part.put(&stat.kind.flags().to_ne_bytes())?;
        part.put(&stat.kind.exponent().to_ne_bytes())?;
        // CAST: At most a few dozen.
        part.put(&(values as u16).to_ne_bytes())?;
        // CAST: At most MAX_STATS times as many values.
        part.put(&(here as u32).to_ne_bytes())?;
        // Only linear histograms have a bucket size.
        part.put(&0u32.to_ne_bytes())?;
        part.put_name(stat.name.to_bytes())?;
    }
    for stat in stats.iter().take(count) {
        for index in 0..stat.kind.size() {
            if part.passes(8) {
                continue;
            }
            let value = match stat.value {
                Values::One(value) => value(object),
                Values::Many(value) => value(object, index),
            };
            part.put(&value.to_ne_bytes())?;
        }
    }
    Ok(part.bytes)
}
