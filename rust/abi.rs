// SPDX-License-Identifier: GPL-2.0

//! The KVM ioctl ABI: three kinds of files, and what their ioctls take and give.
//!
//! | file             | object                | handler    |
//! |------------------|-----------------------|------------|
//! | `/dev/kvm-rs`    | all VMs               | [`system`] |
//! | from `CREATE_VM` | a VM                  | [`vm`]     |
//! | from `CREATE_VCPU` | a vCPU              | [`vcpu`]   |
//!
//! An ioctl's number says how large its argument is: [`command`] holds that against the type that is
//! copied, at compile time. A number that is in no table is `ENOTTY` on the device, `ENOTTY` on the others.

mod capability;
mod command;
mod convert;
mod device_attr;
mod eventfd;
mod irq;
mod msr_filter;
mod msr_list;
mod pit;
pub(crate) mod stats;
mod stats_fd;
pub(crate) mod system;
mod vcpu;
mod vm;
