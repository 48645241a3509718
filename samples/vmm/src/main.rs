// SPDX-License-Identifier: GPL-2.0

//! A small virtual machine monitor for kvm-rs.
//!
//! It is a client of the KVM ABI built on the rust-vmm crates, and runs on the in-tree KVM as well:
//!
//! ```text
//! vmm [--device PATH] [--memory MIB] [--pages 4k|2m] [--stats] [--module-stats] GUEST.elf
//! ```
//!
//! It loads a flat 64-bit ELF file, starts it in long mode, shows what it prints on its serial
//! port, and ends when the guest halts or writes a status to the debug-exit port. The contract with
//! the guest stands in [`boot`].
//!
//! | module | owns |
//! |---|---|
//! | [`options`] | the command line |
//! | [`memory`] | the map of guest-physical addresses, the memory behind it, the KVM memory slots |
//! | [`boot`] | what memory and registers hold before the first instruction |
//! | [`vcpu`] | one virtual CPU: its CPUID, its run loop, the reasons why it stops |
//! | [`devices`] | serial port, counter, debug exit, and the bus that finds them |
//! | [`stats`] | exits counted by reason, and the module's own statistics |
//!
//! It exits with the guest's status, 1 when the machine failed, 2 on wrong usage.

mod boot;
mod devices;
mod memory;
mod options;
mod stats;
mod vcpu;

use std::ffi::CString;
use std::fmt::Display;
use std::io::Write;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::process::ExitCode;

use anyhow::ensure;
use anyhow::Context;
use anyhow::Result;
use kvm_bindings::KVM_API_VERSION;
use kvm_ioctls::Cap;
use kvm_ioctls::Kvm;

use devices::Devices;
use memory::Memory;
use options::Command;
use options::Options;
use vcpu::Stop;
use vcpu::Vcpu;

/// Status of a run that wrong arguments prevented.
const WRONG_USAGE: u8 = 2;

fn main() -> ExitCode {
    let options = match options::parse(std::env::args_os()) {
        Ok(Command::Run(options)) => options,
        Ok(Command::Help) => return finish(show(options::HELP).map(|()| 0)),
        Err(error) => {
            eprintln!("vmm: {error}\n{}", options::USAGE);
            return WRONG_USAGE.into();
        }
    };

    finish(run(&options))
}

/// Turns the outcome of the program into its status, and says why it failed if it did.
fn finish(outcome: Result<u8>) -> ExitCode {
    match outcome {
        Ok(status) => status.into(),
        Err(error) => {
            eprintln!("vmm: {error:#}");
            ExitCode::FAILURE
        }
    }
}

/// Prints `text` on the terminal, where the guest's output goes too.
fn show(text: impl Display) -> Result<()> {
    write!(std::io::stdout(), "{text}").context("cannot write to standard output")
}

/// Runs the guest to its end and returns its status.
fn run(options: &Options) -> Result<u8> {
    // First, so that it is dropped after the machine that uses it.
    let memory = Memory::new(options.memory, options.pages)?;

    let kvm = open(&options.device)?;
    let vm = kvm.create_vm().context("cannot create a virtual machine")?;
    memory.register(&vm)?;

    let entry = boot::load(memory.guest(), &options.guest)?;
    let mut vcpu = Vcpu::new(&kvm, &vm, 0)?;
    vcpu.start_at(&entry)?;

    let mut devices = Devices::new(std::io::stdout());
    let stop = vcpu.run(&mut devices);

    if options.stats {
        show(vcpu.exits())?;
    }
    // While the vCPU and the memory still exist: some of the module's figures are about now.
    if options.module_stats {
        show(stats::module(Path::new(stats::MODULE_STATS))?)?;
    }

    match stop? {
        Stop::Halted => Ok(0),
        Stop::Exited(status) => Ok(status),
    }
}

/// Opens the KVM device, and refuses one that does not speak this program's ABI.
fn open(device: &Path) -> Result<Kvm> {
    let name = device.display();
    let path = CString::new(device.as_os_str().as_bytes())
        .with_context(|| format!("{name}: a path has no NUL byte"))?;
    let kvm = Kvm::new_with_path(&path)
        .with_context(|| format!("cannot open {name} (is the module loaded?)"))?;

    let version = kvm.get_api_version();
    ensure!(version >= 0, "{name} is no KVM device");
    ensure!(
        version == KVM_API_VERSION as i32,
        "{name} answers KVM API version {version}, not {KVM_API_VERSION}"
    );
    for cap in [Cap::UserMemory, Cap::ExtCpuid] {
        ensure!(
            kvm.check_extension(cap),
            "{name} lacks the capability {cap:?}"
        );
    }
    Ok(kvm)
}
