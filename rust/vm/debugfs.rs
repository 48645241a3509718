// SPDX-License-Identifier: GPL-2.0

//! A VM in debugfs: `PID-FD`, with a file for each statistic, those of vCPUs summed up, and `vcpuN` for
//! each vCPU. As in KVM, but that the files cannot be written.

use super::Vcpus;
use crate::{
    linux::debugfs::{
        Folder,
        Root, //
    },
    mmu::Entries,
    vcpu::{
        tsc,
        view::View,
        Vcpu, //
    },
    vmx::capability::Capabilities, //
};
use kernel::{
    debugfs::{
        Dir,
        File, //
    },
    fmt,
    prelude::*,
    str::CString,
    sync::Arc, //
};

/// What the statistics of a VM are made of.
///
/// It does not keep the VM, so that the VM can keep the files that show it.
#[derive(Clone)]
pub(crate) struct Counters {
    /// The vCPUs.
    pub(crate) vcpus: Arc<Vcpus>,
    /// The entries in the tables.
    pub(crate) entries: Arc<dyn Entries>,
}

/// Where the value in a file comes from.
pub(crate) enum Source {
    /// One of the VM's own.
    Vm(fn(&Counters) -> u64),
    /// The sum over its vCPUs.
    Vcpus(fn(&Vcpu) -> u64),
}

/// The value in a file.
enum Value {
    Vm(Counters, fn(&Counters) -> u64),
    Vcpus(Counters, fn(&Vcpu) -> u64),
    Vcpu(Arc<View>, fn(&View) -> i64),
}

/// Prints a value.
fn show(value: &Value, f: &mut fmt::Formatter<'_>) -> fmt::Result {
    match value {
        Value::Vm(counters, get) => writeln!(f, "{}", get(counters)),
        Value::Vcpus(counters, get) => {
            let mut sum = 0u64;
            counters
                .vcpus
                .for_each(|vcpu| sum = sum.wrapping_add(get(vcpu)));
            writeln!(f, "{sum}")
        }
        Value::Vcpu(view, get) => writeln!(f, "{}", get(view)),
    }
}

/// Files, which go when this is dropped.
type Files = KVec<Pin<KBox<File<Value>>>>;

/// Adds a file.
fn add(files: &mut Files, dir: &Dir, name: &CStr, value: Value) -> Result {
    let file = KBox::pin_init(
        dir.read_callback_file(name, value, &show),
        GFP_KERNEL_ACCOUNT,
    )?;
    files.push(file, GFP_KERNEL_ACCOUNT)?;
    Ok(())
}

/// A vCPU's folder.
struct VcpuFolder {
    /// Dropped before the folder.
    _files: Files,
    _dir: Dir,
}

/// What debugfs has of a VM.
pub(crate) struct Shown {
    // In the order in which they must go.
    vcpus: KVec<VcpuFolder>,
    _files: Files,
    folder: Folder,
}

impl Shown {
    /// Creates the VM's folder with a file for each of `statistics`.
    pub(super) fn new<'a>(
        root: &Arc<Root>,
        pid: i32,
        fd: u32,
        counters: &Counters,
        statistics: impl Iterator<Item = (&'a CStr, Source)>,
    ) -> Result<Self> {
        let folder = root.folder(pid, fd)?;
        let mut files = KVec::new();
        if let Some(dir) = folder.dir() {
            for (name, source) in statistics {
                let value = match source {
                    Source::Vm(get) => Value::Vm(counters.clone(), get),
                    Source::Vcpus(get) => Value::Vcpus(counters.clone(), get),
                };
                add(&mut files, dir, name, value)?;
            }
        }
        Ok(Self {
            vcpus: KVec::new(),
            _files: files,
            folder,
        })
    }

    /// Adds a vCPU's folder.
    pub(super) fn add_vcpu(&mut self, vcpu: &Vcpu, capabilities: &Capabilities) -> Result {
        let Some(dir) = self.folder.dir() else {
            return Ok(());
        };
        let name = CString::try_from_fmt(fmt!("vcpu{}", vcpu.id()))?;
        let dir = dir.subdir(&name);
        let mut files = KVec::new();
        let mut file = |name, get| add(&mut files, &dir, name, Value::Vcpu(vcpu.view(), get));
        file(c"pid", |view| i64::from(view.pid()))?;
        // No guest has guests.
        file(c"guest_mode", |_| 0)?;
        // CAST: It is meant as a signed number, the ratio below has its top bit clear.
        file(c"tsc-offset", |view| view.tsc_offset() as i64)?;
        if vcpu.controller().is_some() {
            // Timers of the local APIC expire when they are due.
            file(c"lapic_timer_advance_ns", |_| 0)?;
        }
        if tsc::can_scale(capabilities) {
            file(c"tsc-scaling-ratio", |view| view.tsc_ratio() as i64)?;
            file(c"tsc-scaling-ratio-frac-bits", |_| i64::from(tsc::FRACTION))?;
        }
        self.vcpus.push(
            VcpuFolder {
                _files: files,
                _dir: dir,
            },
            GFP_KERNEL_ACCOUNT,
        )?;
        Ok(())
    }
}
