// SPDX-License-Identifier: GPL-2.0

//! What happened: exits as user space saw them, and what KVM and the module counted.

mod kvm;

use std::collections::BTreeMap;
use std::fmt;
use std::fs;
use std::path::Path;

use anyhow::Context;
use anyhow::Result;
use kvm_ioctls::VcpuExit;

pub use kvm::Statistics;

/// File in which the module counts since it was loaded, for all machines.
pub const MODULE_STATS: &str = "/sys/kernel/debug/kvm-rs/stats";

/// Width of the column of names.
const NAME_WIDTH: usize = 24;

/// Width of the column of numbers.
const VALUE_WIDTH: usize = 12;

/// Why KVM_RUN returned.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Reason {
    /// The guest read from this port.
    PortRead(u16),
    /// The guest wrote to this port.
    PortWrite(u16),
    /// The guest read where no memory is.
    MmioRead,
    /// The guest wrote where no memory is.
    MmioWrite,
    /// The guest executed HLT.
    Halt,
    /// A signal was pending.
    Interrupted,
    /// Triple fault.
    Shutdown,
    /// VM entry refused the guest's state.
    FailEntry,
    /// KVM could not go on.
    InternalError,
    /// Anything else.
    Other,
}

impl Reason {
    /// Returns the reason of `exit`.
    pub fn of(exit: &VcpuExit<'_>) -> Self {
        match exit {
            VcpuExit::IoIn(port, _) => Reason::PortRead(*port),
            VcpuExit::IoOut(port, _) => Reason::PortWrite(*port),
            VcpuExit::MmioRead(..) => Reason::MmioRead,
            VcpuExit::MmioWrite(..) => Reason::MmioWrite,
            VcpuExit::Hlt => Reason::Halt,
            VcpuExit::Intr => Reason::Interrupted,
            VcpuExit::Shutdown => Reason::Shutdown,
            VcpuExit::FailEntry(..) => Reason::FailEntry,
            VcpuExit::InternalError => Reason::InternalError,
            _ => Reason::Other,
        }
    }
}

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Reason::PortRead(port) => write!(f, "port read {port:#x}"),
            Reason::PortWrite(port) => write!(f, "port write {port:#x}"),
            Reason::MmioRead => f.write_str("MMIO read"),
            Reason::MmioWrite => f.write_str("MMIO write"),
            Reason::Halt => f.write_str("halt"),
            Reason::Interrupted => f.write_str("signal"),
            Reason::Shutdown => f.write_str("triple fault"),
            Reason::FailEntry => f.write_str("entry refused"),
            Reason::InternalError => f.write_str("internal error"),
            Reason::Other => f.write_str("other"),
        }
    }
}

/// Exits to user space, counted by reason.
#[derive(Debug, Default)]
pub struct Exits(BTreeMap<Reason, u64>);

impl Exits {
    /// Counts one exit.
    pub fn count(&mut self, reason: Reason) {
        *self.0.entry(reason).or_default() += 1;
    }

    /// Adds what another vCPU counted.
    pub fn add(&mut self, other: &Self) {
        for (&reason, &count) in &other.0 {
            *self.0.entry(reason).or_default() += count;
        }
    }
}

impl fmt::Display for Exits {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "exits to user space")?;
        for (reason, count) in &self.0 {
            write_line(f, &reason.to_string(), *count)?;
        }
        write_line(f, "total", self.0.values().sum())
    }
}

/// What the module counted, line by line.
pub struct Module(Vec<(String, u64)>);

/// Reads the module's statistics from the file at `path`.
pub fn module(path: &Path) -> Result<Module> {
    let text = fs::read_to_string(path).with_context(|| {
        let name = path.display();
        format!("cannot read {name} (is kvm_rs loaded and debugfs mounted?)")
    })?;
    Ok(Module(parse_module(&text)))
}

/// Parses lines of a name and a number; skips those of another form.
fn parse_module(text: &str) -> Vec<(String, u64)> {
    text.lines()
        .filter_map(|line| {
            let (name, value) = line.split_once(' ')?;
            Some((name.to_string(), value.trim().parse().ok()?))
        })
        .collect()
}

impl fmt::Display for Module {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "kvm_rs since it was loaded")?;
        self.0
            .iter()
            .try_for_each(|(name, value)| write_line(f, name, *value))
    }
}

/// Writes a line of a table.
fn write_line(f: &mut fmt::Formatter<'_>, name: &str, value: u64) -> fmt::Result {
    writeln!(f, "  {name:NAME_WIDTH$}{value:>VALUE_WIDTH$}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn exits_are_counted_by_reason() {
        let mut exits = Exits::default();
        exits.count(Reason::Halt);
        exits.count(Reason::PortWrite(0x3f8));
        exits.count(Reason::PortWrite(0x3f8));
        let text = exits.to_string();
        let words: Vec<Vec<_>> = text
            .lines()
            .map(|line| line.split_whitespace().collect())
            .collect();
        assert_eq!(words[1], ["port", "write", "0x3f8", "2"]);
        assert_eq!(words[2], ["halt", "1"]);
        assert_eq!(words[3], ["total", "3"]);

        let mut sum = Exits::default();
        sum.add(&exits);
        sum.add(&exits);
        assert!(sum.to_string().ends_with(" 6\n"));
    }

    #[test]
    fn module_lines_are_names_and_numbers() {
        let text = "exits_io 12\nept_2m   3\n\nnonsense\nname word\n";
        let lines = parse_module(text);
        assert_eq!(
            lines,
            [("exits_io".to_string(), 12), ("ept_2m".to_string(), 3)]
        );
    }
}
