// SPDX-License-Identifier: GPL-2.0

//! The ioctls of the interval timer in the kernel.

use super::command::command;
use crate::{
    bindings::*,
    irqchip::pit::Channel,
    linux::uaccess,
    vm::{
        pit::VmPit,
        Vm, //
    }, //
};
use kernel::{
    prelude::*,
    sync::Arc, //
};

/// Returns the timer; `ENXIO` if there is none.
fn pit(vm: &Vm) -> Result<&Arc<VmPit>> {
    vm.pit().ok_or(ENXIO)
}

/// Returns a channel as the client saves it.
fn save(channel: Channel) -> kvm_pit_channel_state {
    kvm_pit_channel_state {
        count: channel.count,
        latched_count: channel.latched_count,
        count_latched: channel.count_latched,
        status_latched: channel.status_latched,
        status: channel.status,
        read_state: channel.read_state,
        write_state: channel.write_state,
        write_latch: channel.write_latch,
        rw_mode: channel.rw_mode,
        mode: channel.mode,
        bcd: channel.bcd,
        gate: channel.gate,
        count_load_time: channel.count_load_time,
    }
}

/// Returns a channel that the client saved.
fn restore(channel: &kvm_pit_channel_state) -> Channel {
    Channel {
        count: channel.count,
        latched_count: channel.latched_count,
        count_latched: channel.count_latched,
        status_latched: channel.status_latched,
        status: channel.status,
        read_state: channel.read_state,
        write_state: channel.write_state,
        write_latch: channel.write_latch,
        rw_mode: channel.rw_mode,
        mode: channel.mode,
        bcd: channel.bcd,
        gate: channel.gate,
        count_load_time: channel.count_load_time,
    }
}

/// Answers KVM_CREATE_PIT2.
pub(super) fn create(vm: &Vm, argument: usize) -> Result<isize> {
    let config = command!(KVM_RS_IOCTL_CREATE_PIT2: kvm_pit_config).read(argument)?;
    vm.create_pit(config.flags & KVM_PIT_SPEAKER_DUMMY != 0)?;
    Ok(0)
}

/// Answers KVM_GET_PIT.
pub(super) fn get(vm: &Vm, argument: usize) -> Result<isize> {
    let command = command!(KVM_RS_IOCTL_GET_PIT: kvm_pit_state);
    let mut state = command.read(argument)?;
    state.channels = pit(vm)?.save().0.map(save);
    command.write(argument, &state)?;
    Ok(0)
}

/// Answers KVM_SET_PIT.
pub(super) fn set(vm: &Vm, argument: usize) -> Result<isize> {
    let state = command!(KVM_RS_IOCTL_SET_PIT: kvm_pit_state).read(argument)?;
    pit(vm)?.restore(state.channels.each_ref().map(restore), None);
    Ok(0)
}

/// Answers KVM_GET_PIT2.
pub(super) fn get2(vm: &Vm, argument: usize) -> Result<isize> {
    let (channels, flags) = pit(vm)?.save();
    let mut state: kvm_pit_state2 = uaccess::zeroed();
    state.channels = channels.map(save);
    state.flags = flags;
    command!(KVM_RS_IOCTL_GET_PIT2: kvm_pit_state2).write(argument, &state)?;
    Ok(0)
}

/// Answers KVM_SET_PIT2.
pub(super) fn set2(vm: &Vm, argument: usize) -> Result<isize> {
    let state = command!(KVM_RS_IOCTL_SET_PIT2: kvm_pit_state2).read(argument)?;
    pit(vm)?.restore(state.channels.each_ref().map(restore), Some(state.flags));
    Ok(0)
}

/// Answers KVM_REINJECT_CONTROL, whose number does not tell that it has an argument.
pub(super) fn control(vm: &Vm, argument: usize) -> Result<isize> {
    let control: kvm_reinject_control = uaccess::read(argument)?;
    pit(vm)?.set_reinject(control.pit_reinject != 0)?;
    Ok(0)
}
