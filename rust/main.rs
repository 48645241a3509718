// SPDX-License-Identifier: GPL-2.0

//! kvm-rs: a hypervisor for Intel VT-x that speaks the KVM ioctl ABI on `/dev/kvm-rs`.

use kernel::prelude::*;

mod bindings;
mod emulate;
mod lapic;
mod linux;
mod vmx;
mod x86;

module! {
    type: KvmRs,
    name: "kvm_rs",
    authors: ["The kvm-rs developers"],
    description: "Hypervisor for Intel VT-x with the KVM ioctl ABI",
    license: "GPL",
}

pub(crate) struct KvmRs {}

impl kernel::Module for KvmRs {
    fn init(_module: &'static ThisModule) -> Result<Self> {
        Ok(Self {})
    }
}
