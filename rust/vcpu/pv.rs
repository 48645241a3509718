// SPDX-License-Identifier: GPL-2.0

//! What a guest that knows of KVM is told: its clock, and the time that was stolen from it. See
//! Documentation/virt/kvm/x86/msr.rst in the kernel's source.

use super::{
    request::Request,
    state::State,
    Owned,
    Vcpu, //
};
use crate::{
    linux::{
        clock::run_delay,
        task, //
    },
    memory::{
        Area,
        Place, //
    },
    vm::{
        clock::Scale,
        Vm, //
    },
    x86::{
        addr::Gpa,
        guest_msr::MsrError,
        msr_index, //
    }, //
};
use kernel::prelude::*;

/// A paravirtual feature, by its bit in leaf 0x4000_0001, EAX.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Feature {
    /// The clock by its old MSRs.
    Clock = 0,
    /// The clock by its new MSRs.
    Clock2 = 3,
    /// Pages that are away.
    AsyncPf = 4,
    /// Stolen time.
    StealTime = 5,
    /// Ends of interrupts without an exit.
    Eoi = 6,
    /// A halted vCPU can be woken by another one.
    Unhalt = 7,
    /// Flushes of a vCPU that is preempted, left to the host.
    TlbFlush = 9,
    /// Pages that are away, for guests of the guest.
    AsyncPfVmexit = 10,
    /// IPIs to many vCPUs at once.
    SendIpi = 11,
    /// The guest says whether halted vCPUs poll.
    PollControl = 12,
    /// A hint that another vCPU should run.
    SchedYield = 13,
    /// Pages that are there, by an interrupt.
    AsyncPfInt = 14,
}

/// Bit 1 of the features: there is no need to wait after port I/O.
const NOP_IO_DELAY: u32 = 1 << 1;
/// Bit 24 of the features: the clock's stable flag can be trusted.
const CLOCK_STABLE: u32 = 1 << 24;

/// The features that guests can be told of.
pub(crate) const FEATURES: u32 = 1 << Feature::Clock as u32
    | 1 << Feature::Clock2 as u32
    | 1 << Feature::AsyncPf as u32
    | 1 << Feature::StealTime as u32
    | 1 << Feature::Eoi as u32
    | 1 << Feature::Unhalt as u32
    | 1 << Feature::TlbFlush as u32
    | 1 << Feature::AsyncPfVmexit as u32
    | 1 << Feature::SendIpi as u32
    | 1 << Feature::PollControl as u32
    | 1 << Feature::SchedYield as u32
    | 1 << Feature::AsyncPfInt as u32
    | NOP_IO_DELAY
    | CLOCK_STABLE;

/// Bit 0 of the address in an MSR: what is at the address is kept up to date.
const ENABLED: u64 = 1;
/// Bits of the steal-time MSR that must be 0.
const STEAL_RESERVED: u64 = 0x3e;
/// Bytes of the clock.
const CLOCK_SIZE: u64 = 32;
/// In the clock: its flags.
const FLAGS_OFFSET: u64 = 29;
/// Bytes of the area of stolen time.
const STEAL_SIZE: u64 = 64;
/// In that area: its version.
const STEAL_VERSION_OFFSET: u64 = 8;
/// In that area: the byte that tells whether the vCPU is preempted.
const PREEMPTED_OFFSET: u64 = 16;
/// Flag of that byte: it is.
const PREEMPTED: u8 = 1 << 0;
/// Flag of that byte: the guest wants the vCPU's translations flushed before it runs again.
const FLUSH_TLB: u8 = 1 << 1;
/// Flag of the clock: its pair of counter and time is that of all vCPUs.
const STABLE: u8 = 1 << 0;
/// Flag of the clock: the client stopped the guest for a while. The guest clears it.
const STOPPED: u8 = 1 << 1;

/// The paravirtual state of a vCPU.
#[derive(Clone, Copy, Default)]
pub(crate) struct Pv {
    /// What CPUID does not tell is not there (KVM_CAP_ENFORCE_PV_FEATURE_CPUID).
    pub(crate) enforced: bool,
    system_time: u64,
    clock_place: Place,
    steal_time: u64,
    steal_place: Place,
    last_delay: u64,
    wall_clock: Option<u64>,
    stopped: bool,
    /// The guest was told that the vCPU is preempted.
    preempted: bool,
    /// The guest polls itself, so that the host need not.
    guest_polls: bool,
}

impl Pv {
    /// Opens the area of stolen time.
    fn steal_area<'a>(&mut self, vm: &'a Vm) -> Area<'a> {
        let gpa = Gpa::new(self.steal_time & !(STEAL_RESERVED | ENABLED));
        self.steal_place.open(vm.memory(), gpa, STEAL_SIZE)
    }

    /// Forgets where the guest wanted to be told, as RESET and INIT do: who comes next may use that memory.
    pub(super) fn reset(&mut self) {
        *self = Self {
            enforced: self.enforced,
            wall_clock: self.wall_clock,
            last_delay: self.last_delay,
            guest_polls: self.guest_polls,
            ..Self::default()
        };
    }

    /// Returns whether the host may poll in the place of a halted vCPU.
    pub(super) fn host_polls(&self) -> bool {
        !self.guest_polls
    }
}

impl State {
    /// Returns whether the guest may use the feature.
    pub(super) fn has_pv(&self, feature: Feature) -> bool {
        !self.pv.enforced || self.features.kvm_features & 1 << feature as u32 != 0
    }

    /// Returns `Unknown` unless the guest may use the feature.
    pub(super) fn need_pv(&self, feature: Feature) -> Result<(), MsrError> {
        if self.has_pv(feature) {
            Ok(())
        } else {
            Err(MsrError::Unknown)
        }
    }

    /// Returns the value of a paravirtual MSR.
    pub(crate) fn read_pv_msr(&self, vm: &Vm, index: u32) -> Result<u64, MsrError> {
        match index {
            msr_index::KVM_WALL_CLOCK => self.need_pv(Feature::Clock).map(|()| vm.wall_clock()),
            msr_index::KVM_WALL_CLOCK_NEW => {
                self.need_pv(Feature::Clock2).map(|()| vm.wall_clock())
            }
            msr_index::KVM_SYSTEM_TIME => {
                self.need_pv(Feature::Clock).map(|()| self.pv.system_time)
            }
            msr_index::KVM_SYSTEM_TIME_NEW => {
                self.need_pv(Feature::Clock2).map(|()| self.pv.system_time)
            }
            msr_index::KVM_STEAL_TIME => self
                .need_pv(Feature::StealTime)
                .map(|()| self.pv.steal_time),
            msr_index::KVM_PV_EOI => self.need_pv(Feature::Eoi).map(|()| self.pv_eoi.msr()),
            msr_index::KVM_POLL_CONTROL => self
                .need_pv(Feature::PollControl)
                .map(|()| u64::from(self.pv.host_polls())),
            _ => self.read_async_page_msr(index),
        }
    }

    /// Writes a paravirtual MSR; guest memory is written before the next VM entry.
    pub(crate) fn write_pv_msr(
        &mut self,
        vm: &Vm,
        vcpu: &Vcpu,
        index: u32,
        value: u64,
    ) -> Result<(), MsrError> {
        match index {
            msr_index::KVM_WALL_CLOCK | msr_index::KVM_WALL_CLOCK_NEW => {
                self.need_pv(if index == msr_index::KVM_WALL_CLOCK {
                    Feature::Clock
                } else {
                    Feature::Clock2
                })?;
                vm.set_wall_clock(value);
                self.pv.wall_clock = Some(value);
            }
            msr_index::KVM_SYSTEM_TIME | msr_index::KVM_SYSTEM_TIME_NEW => {
                self.need_pv(if index == msr_index::KVM_SYSTEM_TIME {
                    Feature::Clock
                } else {
                    Feature::Clock2
                })?;
                self.pv.system_time = value;
            }
            msr_index::KVM_STEAL_TIME => {
                self.need_pv(Feature::StealTime)?;
                if value & STEAL_RESERVED != 0 {
                    return Err(MsrError::Invalid);
                }
                self.pv.steal_time = value;
            }
            msr_index::KVM_PV_EOI => {
                self.need_pv(Feature::Eoi)?;
                return self.pv_eoi.set_msr(vm, value);
            }
            msr_index::KVM_POLL_CONTROL => {
                self.need_pv(Feature::PollControl)?;
                if value > 1 {
                    return Err(MsrError::Invalid);
                }
                self.pv.guest_polls = value == 0;
                return Ok(());
            }
            _ => return self.write_async_page_msr(vm, vcpu, index, value),
        }
        vcpu.doorbell().set(Request::Clock);
        Ok(())
    }

    /// Tells the guest that the vCPU is preempted, if its thread is about to lose its CPU.
    ///
    /// To be called between two instructions of the guest only: another vCPU may then leave it to the
    /// host to forget a translation, which an instruction that is half done might still use.
    #[inline]
    pub(crate) fn note_preemption(&mut self, vm: &Vm, vcpu: &Vcpu) {
        let pv = &mut self.pv;
        if pv.steal_time & ENABLED != 0 && !pv.preempted && task::is_to_give_way() {
            let area = pv.steal_area(vm);
            let written = area.try_write_byte(PREEMPTED_OFFSET, PREEMPTED, vcpu.ring());
            pv.preempted = written.is_ok();
        }
    }

    /// Notes that the client stopped the guest for a while; `EINVAL` if it has no clock.
    pub(crate) fn note_stopped(&mut self, vcpu: &Vcpu) -> Result {
        if self.pv.system_time & ENABLED == 0 {
            return Err(EINVAL);
        }
        self.pv.stopped = true;
        vcpu.doorbell().set(Request::Clock);
        Ok(())
    }
}

impl Owned {
    /// Returns whether something in guest memory may be out of date without a request.
    #[inline]
    pub(crate) fn pv_may_be_stale(&self) -> bool {
        self.state.pv.steal_time & ENABLED != 0 || self.state.tsc.catches_up()
    }

    /// Brings up to date what changes without a request.
    pub(crate) fn refresh_pv(&mut self, vm: &Vm) {
        if self.state.tsc.catches_up() {
            self.with_vmcs(|vmcs, state| state.catch_up_tsc(vmcs));
            self.write_clock(vm);
        }
        let pv = &self.state.pv;
        if pv.steal_time & ENABLED != 0 && (pv.preempted || run_delay() != pv.last_delay) {
            self.write_steal_time(vm);
        }
    }

    /// Writes the time at which the VM began to guest memory, if the MSR that asks for it was written.
    pub(crate) fn settle_wall_clock(&mut self, vm: &Vm) {
        if let Some(gpa) = self.state.pv.wall_clock.take() {
            // A guest that names no memory gets nothing.
            let _ = write_wall_clock(vm, gpa);
        }
    }

    /// Writes to guest memory what [`Request::Clock`] is about.
    pub(crate) fn update_pv(&mut self, vm: &Vm) {
        self.settle_wall_clock(vm);
        self.write_clock(vm);
        if self.state.pv.steal_time & ENABLED != 0 {
            self.write_steal_time(vm);
        }
    }

    fn write_clock(&mut self, vm: &Vm) {
        let pv = &mut self.state.pv;
        if pv.system_time & ENABLED == 0 {
            return;
        }
        let gpa = Gpa::new(pv.system_time & !ENABLED);
        let stopped = core::mem::take(&mut pv.stopped);
        let (host_tsc, ns, stable) = vm.clock().pair();
        let tsc = &self.state.tsc;
        let scale = Scale::of_khz(tsc.hardware_khz());
        let mut flags = if stable && !tsc.catches_up() {
            STABLE
        } else {
            0
        };
        if stopped {
            flags |= STOPPED;
        }
        let area = pv.clock_place.open(vm.memory(), gpa, CLOCK_SIZE);
        // What the guest has not cleared stays.
        let old = area.read::<u8>(FLAGS_OFFSET).unwrap_or(0);
        flags |= old & STOPPED;
        let mut data = [0; 24];
        let fields = [
            (0, &tsc.at(host_tsc).to_le_bytes()[..]),
            (8, &ns.to_le_bytes()[..]),
            (16, &scale.multiplier.to_le_bytes()[..]),
            (20, &scale.shift.to_le_bytes()[..]),
            (21, &[flags][..]),
        ];
        for (at, bytes) in fields {
            if let Some(target) = data.get_mut(at..at + bytes.len()) {
                target.copy_from_slice(bytes);
            }
        }
        let _ = versioned(&area, 0, || area.write_bytes(8, &data));
    }

    fn write_steal_time(&mut self, vm: &Vm) {
        let area = self.state.pv.steal_area(vm);
        // The vCPU runs: it is not preempted.
        match take_preempted(&area) {
            Ok(preempted) => {
                self.state.pv.preempted = false;
                if preempted & FLUSH_TLB != 0 && self.state.has_pv(Feature::TlbFlush) {
                    self.state.owed.vpid = true;
                }
            }
            // A guest that names no memory is told nothing.
            Err(_) => return,
        }
        let delay = run_delay();
        let stolen = delay.wrapping_sub(self.state.pv.last_delay);
        let written = versioned(&area, STEAL_VERSION_OFFSET, || {
            let steal: u64 = area.read(0)?;
            area.write(0, steal.wrapping_add(stolen))
        });
        if written.is_ok() {
            self.state.pv.last_delay = delay;
        }
    }
}

/// Returns what is in the byte that tells whether the vCPU is preempted, having cleared it.
///
/// Other vCPUs add a flag for as long as the first is set, so this is one access.
fn take_preempted(area: &Area<'_>) -> Result<u8> {
    /// A guest that writes there all the time gets its flush without being asked.
    const ATTEMPTS: u32 = 16;
    let mut old: u8 = area.read(PREEMPTED_OFFSET)?;
    for _ in 0..ATTEMPTS {
        if old == 0 {
            return Ok(0);
        }
        match area.compare_exchange(PREEMPTED_OFFSET, old, 0)? {
            Ok(()) => return Ok(old),
            Err(now) => old = now,
        }
    }
    area.write(PREEMPTED_OFFSET, 0_u8)?;
    Ok(FLUSH_TLB)
}

/// Writes something whose version, at offset `at`, is odd meanwhile and a higher even number then.
fn versioned(area: &Area<'_>, at: u64, write: impl FnOnce() -> Result) -> Result {
    // The first time there may be anything.
    let odd = area.read::<u32>(at)?.wrapping_add(1) | 1;
    area.write(at, odd)?;
    let result = write();
    area.write(at, odd.wrapping_add(1))?;
    result
}

/// Writes the wall-clock time at which the VM's clock was 0.
fn write_wall_clock(vm: &Vm, gpa: u64) -> Result {
    const NS_PER_SEC: u64 = 1_000_000_000;
    if gpa == 0 {
        return Ok(());
    }
    let area = Place::default().open(vm.memory(), Gpa::new(gpa), 12);
    let epoch = vm.clock().epoch_ns();
    // CAST: Seconds until 2106, and below a thousand million.
    let (seconds, ns) = ((epoch / NS_PER_SEC) as u32, (epoch % NS_PER_SEC) as u32);
    versioned(&area, 0, || {
        area.write(4, seconds)?;
        area.write(8, ns)
    })
}
