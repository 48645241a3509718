// SPDX-License-Identifier: GPL-2.0

//! A small virtual machine monitor for kvm-rs.
//!
//! It is a client of the KVM ABI built on the rust-vmm crates, and runs on the in-tree KVM as well:
//!
//! ```text
//! vmm [OPTIONS] GUEST
//! ```
//!
//! It boots a Linux kernel, with several vCPUs, a disk and a network card; or loads a flat 64-bit ELF
//! file and starts it in long mode. The guest's serial port is on the terminal. It ends when the
//! guest resets the machine, writes a status to the debug-exit port or halts for good. The contract
//! with the guest stands in [`boot`].
//!
//! | module | owns |
//! |---|---|
//! | [`options`] | the command line |
//! | [`machine`] | one virtual machine: what it has, its threads, its end |
//! | [`memory`] | the map of guest-physical addresses, the memory behind it, the KVM memory slots |
//! | [`boot`] | what memory and registers hold before the first instruction |
//! | [`vcpu`] | one virtual CPU: its CPUID, its run loop, the reasons why it stops |
//! | [`devices`] | serial port, counter, keyboard controller, debug exit, and the bus that finds them |
//! | [`virtio`] | disk and network card |
//! | [`console`] | the terminal: raw mode, Ctrl-A x, lines typed at a prompt |
//! | [`stats`] | exits counted by reason, and KVM's and the module's own statistics |
//!
//! It exits with the guest's status, 1 when the machine failed, 2 on wrong usage.

mod boot;
mod console;
mod devices;
mod machine;
mod memory;
mod options;
mod stats;
mod vcpu;
mod virtio;

use std::fmt::Display;
use std::io::Write;
use std::path::Path;
use std::process::ExitCode;

use anyhow::Context;
use anyhow::Result;

use console::RawMode;
use machine::Machine;
use options::Command;
use options::Options;
use vcpu::Stop;

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
    let mut machine = Machine::new(options)?;
    let stop = {
        let _raw_mode = RawMode::enter()?;
        machine.run()
    };

    if options.stats {
        show(machine.exits())?;
        show(machine.statistics()?)?;
    }
    // While the vCPUs and the memory still exist: some of the module's figures are about now.
    if options.module_stats {
        show(stats::module(Path::new(stats::MODULE_STATS))?)?;
    }

    match stop? {
        Stop::Halted | Stop::Reset | Stop::Quit => Ok(0),
        Stop::Exited(status) => Ok(status),
    }
}
