// SPDX-License-Identifier: GPL-2.0

//! The guest's time-stamp counter: the host's, scaled and with an offset.

use super::{
    request::Request,
    state::State,
    Vcpu, //
};
use crate::{
    linux::{
        cpu_call::{
            rdtsc,
            tsc_khz, //
        },
        timer::now_ns, //
    },
    vm::{
        tsc::ns_to_ticks,
        Vm, //
    },
    vmx::{
        capability::Capabilities,
        controls::secondary,
        field,
        vmcs::CurrentVmcs, //
    }, //
};
use kernel::prelude::*;

/// How far a frequency may be from the host's without being scaled, in parts per million.
const TOLERANCE_PPM: u64 = 250;

/// Bits behind the point of a ratio of frequencies.
pub(crate) const FRACTION: u32 = 48;

/// Nanoseconds in a millisecond.
const NS_PER_MS: u64 = 1_000_000;

/// The ratio of equal frequencies.
pub(crate) const UNITY: u64 = 1 << FRACTION;

/// How the guest's counter follows from the host's.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct GuestTsc {
    /// What the host's counter is multiplied by, as in the VMCS.
    ratio: u64,
    /// What is added then.
    pub(crate) offset: u64,
    /// Frequency in kHz, as the guest is told.
    pub(crate) khz: u32,
    /// A time in ns and the guest's counter then, if the counter must catch up with the time since: it
    /// is faster than the host's and the CPU cannot scale.
    catch_up: Option<(u64, u64)>,
}

impl GuestTsc {
    /// Returns a counter that is the host's.
    pub(crate) fn of_host() -> Self {
        Self {
            ratio: UNITY,
            offset: 0,
            khz: tsc_khz(),
            catch_up: None,
        }
    }

    /// Returns the guest's counter when the host's is `host`.
    pub(crate) fn at(&self, host: u64) -> u64 {
        self.scale(host).wrapping_add(self.offset)
    }

    /// Returns the guest's counter now.
    pub(crate) fn now(&self) -> u64 {
        self.at(rdtsc())
    }

    /// Returns the frequency in kHz that the counter really has.
    pub(crate) fn hardware_khz(&self) -> u32 {
        // CAST: As KVM limits it.
        (u128::from(tsc_khz()) * u128::from(self.ratio) >> FRACTION) as u32
    }

    /// Returns how many ticks of the host's counter `ticks` of the guest's take, or about so.
    pub(super) fn host_ticks(&self, ticks: u64) -> u64 {
        if self.ratio == UNITY {
            ticks
        } else {
            ns_to_host_ticks(ticks_to_ns(ticks, self.khz))
        }
    }

    /// Returns whether the counter must catch up with the time now and then.
    pub(crate) fn catches_up(&self) -> bool {
        self.catch_up.is_some()
    }

    /// Returns the offset with which the counter is `value` now.
    fn offset_for(&self, value: u64) -> u64 {
        value.wrapping_sub(self.scale(rdtsc()))
    }

    /// Returns the host's counter at the guest's frequency.
    fn scale(&self, host: u64) -> u64 {
        // CAST: The counter wraps.
        (u128::from(host) * u128::from(self.ratio) >> FRACTION) as u64
    }
}

/// Returns how many ticks the host's counter does in `ns` nanoseconds, rounded up. A time of weeks is taken
/// for a shorter one.
pub(super) fn ns_to_host_ticks(ns: u64) -> u64 {
    const LONGEST_NS: u64 = 1 << 50;
    ns_to_ticks(ns.min(LONGEST_NS), tsc_khz()).saturating_add(1)
}

/// Returns how many nanoseconds `ticks` of a clock of `khz` kHz take, rounded up.
pub(super) fn ticks_to_ns(ticks: u64, khz: u32) -> u64 {
    // A clock that stands never gets there.
    let khz = u64::from(khz);
    let (Some(ms), Some(rest)) = (ticks.checked_div(khz), ticks.checked_rem(khz)) else {
        return u64::MAX;
    };
    // The rest is below 2^32, so that its product fits.
    let rest_ns = rest.saturating_mul(NS_PER_MS).div_ceil(khz);
    ms.saturating_mul(NS_PER_MS).saturating_add(rest_ns)
}

/// Returns whether a counter of `khz` may run as the host's of `host_khz` does.
fn is_tolerable(khz: u32, host_khz: u32) -> bool {
    const MILLION: u64 = 1_000_000;
    let bound = |ppm: u64| u64::from(host_khz) * ppm / MILLION;
    let khz = u64::from(khz);
    bound(MILLION - TOLERANCE_PPM) <= khz && khz <= bound(MILLION + TOLERANCE_PPM)
}

/// Returns the ratio of two frequencies with [`FRACTION`] bits behind the point, or `None` if it cannot
/// be told so.
fn ratio(khz: u32, host_khz: u32) -> Option<u64> {
    let (khz, host) = (u64::from(khz), u64::from(host_khz));
    let whole = khz.checked_div(host)?;
    // Long division in pieces that do not overflow.
    let high = (khz % host) << 32;
    let low = (high % host) << 16;
    let fraction = (high / host) << 16 | low / host;
    let ratio = whole.checked_mul(UNITY)? | fraction;
    (whole < 1 << (64 - FRACTION) && ratio != 0).then_some(ratio)
}

/// Returns whether guests can have counters of another frequency than the host's.
pub(crate) fn can_scale(capabilities: &Capabilities) -> bool {
    capabilities.has_secondary(secondary::USE_TSC_SCALING)
}

/// Returns the frequency that a client asks for, 0 being the host's; `EINVAL` for one that no guest can
/// have.
pub(crate) fn requested_khz(vm: &Vm, argument: usize) -> Result<u32> {
    // CAST: As in KVM, the lower half counts.
    let khz = argument as u32;
    // The largest ratio, and what KVM's own arithmetic takes.
    let end = (u64::from(tsc_khz()) * 0xffff).min(0x7fff_ffff);
    if can_scale(vm.capabilities()) && u64::from(khz) >= end {
        return Err(EINVAL);
    }
    Ok(if khz == 0 { tsc_khz() } else { khz })
}

impl State {
    /// Gives the guest's counter another frequency; `EINVAL` if the CPU cannot scale to that.
    pub(crate) fn set_tsc_khz(&mut self, vm: &Vm, vmcs: &CurrentVmcs<'_>, khz: u32) -> Result {
        // As in KVM, the client reads this back even if it is refused.
        self.tsc.khz = khz;
        self.tsc.ratio = if is_tolerable(khz, tsc_khz()) {
            UNITY
        } else if can_scale(vm.capabilities()) {
            ratio(khz, tsc_khz()).ok_or(EINVAL)?
        } else if khz > tsc_khz() {
            self.tsc.catch_up = Some((now_ns(), self.tsc.now()));
            return Ok(());
        } else {
            return Err(EINVAL);
        };
        self.tsc.catch_up = None;
        self.view.set_tsc_ratio(self.tsc.ratio);
        if can_scale(vm.capabilities()) {
            vmcs.write(field::TSC_MULTIPLIER, self.tsc.ratio);
        }
        Ok(())
    }

    /// Sets the guest's counter, or starts that of a new vCPU, equal to those of the other vCPUs where
    /// it seems to be meant so.
    pub(crate) fn synchronize_tsc(
        &mut self,
        vm: &Vm,
        vcpu: &Vcpu,
        vmcs: &CurrentVmcs<'_>,
        value: Option<u64>,
    ) {
        let exact = self.tsc.offset_for(value.unwrap_or(0));
        let offset = vm.with_tsc(|sync| sync.write(value, self.tsc.khz, now_ns(), exact));
        self.set_tsc_offset(vcpu, vmcs, offset);
    }

    /// Gives the guest's counter the offset that the client asks for.
    pub(crate) fn give_tsc_offset(
        &mut self,
        vm: &Vm,
        vcpu: &Vcpu,
        vmcs: &CurrentVmcs<'_>,
        offset: u64,
    ) {
        let value = self.tsc.scale(rdtsc()).wrapping_add(offset);
        vm.with_tsc(|sync| sync.note_offset(value, self.tsc.khz, now_ns(), offset));
        self.set_tsc_offset(vcpu, vmcs, offset);
    }

    /// Does the guest's own write to its counter, which IA32_TSC_ADJUST follows.
    pub(crate) fn write_tsc(&mut self, vcpu: &Vcpu, vmcs: &CurrentVmcs<'_>, value: u64) {
        let offset = self.tsc.offset_for(value);
        let change = offset.wrapping_sub(self.tsc.offset);
        self.tsc_adjust = self.tsc_adjust.wrapping_add(change);
        self.set_tsc_offset(vcpu, vmcs, offset);
    }

    /// Writes IA32_TSC_ADJUST; the guest's own write changes its counter as much.
    pub(crate) fn write_tsc_adjust(
        &mut self,
        vcpu: &Vcpu,
        vmcs: &CurrentVmcs<'_>,
        value: u64,
        from_user: bool,
    ) {
        let change = value.wrapping_sub(self.tsc_adjust);
        self.tsc_adjust = value;
        if !from_user {
            let offset = self.tsc.offset.wrapping_add(change);
            self.set_tsc_offset(vcpu, vmcs, offset);
        }
    }

    /// Lets a counter that is faster than the host's catch up with the time that went by.
    pub(crate) fn catch_up_tsc(&mut self, vmcs: &CurrentVmcs<'_>) {
        let Some((ns, value)) = self.tsc.catch_up else {
            return;
        };
        let elapsed = now_ns().saturating_sub(ns);
        let expected = value.wrapping_add(ns_to_ticks(elapsed, self.tsc.khz));
        let behind = expected.wrapping_sub(self.tsc.now());
        // It never goes back.
        if behind as i64 > 0 {
            self.tsc.offset = self.tsc.offset.wrapping_add(behind);
            vmcs.write(field::TSC_OFFSET, self.tsc.offset);
            self.view.set_tsc_offset(self.tsc.offset);
        }
    }

    fn set_tsc_offset(&mut self, vcpu: &Vcpu, vmcs: &CurrentVmcs<'_>, offset: u64) {
        self.tsc.offset = offset;
        if self.tsc.catch_up.is_some() {
            self.tsc.catch_up = Some((now_ns(), self.tsc.now()));
        }
        vmcs.write(field::TSC_OFFSET, offset);
        self.view.set_tsc_offset(offset);
        vcpu.doorbell().set(Request::Clock);
        // A deadline is in guest time.
        vcpu.on_timer(self);
    }
}

#[kunit_tests(kvm_rs_tsc)]
mod tests {
    use super::*;

    #[test]
    fn ratios() {
        assert_eq!(ratio(3, 3), Some(UNITY));
        assert_eq!(ratio(3_000_000, 2_000_000), Some(UNITY + UNITY / 2));
        assert_eq!(ratio(1, 3), Some(0x5555_5555_5555));
        assert_eq!(ratio(5, 0), None);
        assert_eq!(ratio(0, 5), None);
        assert_eq!(ratio(u32::MAX, 1), None);
    }

    #[test]
    fn scaling() {
        let tsc = GuestTsc {
            ratio: UNITY / 2,
            offset: 7,
            khz: 1,
            catch_up: None,
        };
        assert_eq!(tsc.at(0x1000), 0x807);
        assert_eq!(tsc.at(u64::MAX), u64::MAX / 2 + 7);
    }

    #[test]
    fn tolerance() {
        assert!(is_tolerable(1_000_000, 1_000_000));
        assert!(is_tolerable(999_750, 1_000_000));
        assert!(is_tolerable(1_000_250, 1_000_000));
        assert!(!is_tolerable(999_749, 1_000_000));
        assert!(!is_tolerable(1_000_251, 1_000_000));
    }
}
