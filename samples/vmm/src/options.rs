// SPDX-License-Identifier: GPL-2.0

//! The command line.

use std::ffi::OsString;
use std::path::PathBuf;

use lexopt::Arg;
use lexopt::Parser;
use lexopt::ValueExt;

use crate::memory::Pages;
use crate::memory::MMIO_HOLE;

/// One line that says what may be on the command line.
pub const USAGE: &str = "usage: vmm [OPTIONS] GUEST (vmm --help explains the options)";

/// What `--help` prints.
pub const HELP: &str = "\
usage: vmm [OPTIONS] GUEST

Runs a guest on KVM with its serial port on the terminal. GUEST is a Linux
bzImage, or a flat 64-bit ELF file for the bare machine. Ctrl-A x ends it.

  --device PATH    KVM device to open (default /dev/kvm-rs)
  --memory MIB     memory of the guest (default 128)
  --pages 4k|2m    size of the host pages to ask for (default 2m)
  --stats          at the end, print the exits to user space by reason,
                   and what KVM counted
  --module-stats   at the end, print what the kvm-rs module counted
  --help           print this text

For Linux:

  --cpus N         number of vCPUs (default 1)
  --initrd FILE    initramfs
  --append WORDS   add words to the kernel's command line
  --block FILE     a virtio disk with the contents of a file
  --net TAP        a virtio network card; its other end is a TAP interface
  --prompt TEXT    type a line of standard input each time that the guest has
                   printed TEXT, and end when there is none left

Exits with the guest's status, 1 when the machine failed, 2 on wrong usage.
";

/// Smallest memory, in MiB, that holds the boot structures and a guest.
const MEMORY_MIN: u64 = 4;

/// Largest memory, in MiB: what fits below the MMIO hole.
const MEMORY_MAX: u64 = MMIO_HOLE.0 >> 20;

/// Largest number of vCPUs.
const CPUS_MAX: u8 = 16;

/// What the command line asks for.
#[derive(Debug, PartialEq)]
pub enum Command {
    /// Run a guest.
    Run(Options),
    /// Explain the program.
    Help,
}

/// How to run a guest.
#[derive(Debug, PartialEq)]
pub struct Options {
    /// KVM device to open.
    pub device: PathBuf,
    /// Memory of the guest in bytes.
    pub memory: u64,
    /// Size of the host pages that back the memory.
    pub pages: Pages,
    /// Print the exits that user space saw.
    pub stats: bool,
    /// Print the statistics of the module.
    pub module_stats: bool,
    /// File of the guest.
    pub guest: PathBuf,
    /// What only a Linux guest has.
    pub linux: Linux,
}

/// How to run a Linux guest.
#[derive(Debug, PartialEq)]
pub struct Linux {
    /// Number of vCPUs.
    pub cpus: u8,
    /// Initramfs.
    pub initrd: Option<PathBuf>,
    /// Words for the kernel's command line.
    pub append: Option<String>,
    /// File that is the disk.
    pub block: Option<PathBuf>,
    /// TAP interface that the network card leads to.
    pub net: Option<String>,
    /// Prompt behind which to type a line of standard input.
    pub prompt: Option<String>,
}

impl Default for Linux {
    fn default() -> Self {
        Self {
            cpus: 1,
            initrd: None,
            append: None,
            block: None,
            net: None,
            prompt: None,
        }
    }
}

/// Parses a command line, whose first word is the program's name.
pub fn parse(words: impl IntoIterator<Item = OsString>) -> Result<Command, lexopt::Error> {
    let mut device = PathBuf::from("/dev/kvm-rs");
    let mut memory = 128;
    let mut pages = Pages::Huge;
    let mut stats = false;
    let mut module_stats = false;
    let mut guest = None;
    let mut linux = Linux::default();

    let mut parser = Parser::from_iter(words);
    while let Some(arg) = parser.next()? {
        match arg {
            Arg::Long("device") => device = parser.value()?.into(),
            Arg::Long("memory") => memory = parser.value()?.parse_with(parse_memory)?,
            Arg::Long("pages") => pages = parser.value()?.parse_with(parse_pages)?,
            Arg::Long("stats") => stats = true,
            Arg::Long("module-stats") => module_stats = true,
            Arg::Long("cpus") => linux.cpus = parser.value()?.parse_with(parse_cpus)?,
            Arg::Long("initrd") => linux.initrd = Some(parser.value()?.into()),
            Arg::Long("append") => linux.append = Some(parser.value()?.string()?),
            Arg::Long("block") => linux.block = Some(parser.value()?.into()),
            Arg::Long("net") => linux.net = Some(parser.value()?.string()?),
            Arg::Long("prompt") => linux.prompt = Some(parser.value()?.string()?),
            Arg::Long("help") | Arg::Short('h') => return Ok(Command::Help),
            Arg::Value(value) if guest.is_none() => guest = Some(PathBuf::from(value)),
            _ => return Err(arg.unexpected()),
        }
    }

    Ok(Command::Run(Options {
        device,
        memory: memory << 20,
        pages,
        stats,
        module_stats,
        guest: guest.ok_or("which guest? give its file")?,
        linux,
    }))
}

/// Parses a number of MiB.
fn parse_memory(text: &str) -> Result<u64, String> {
    match text.parse() {
        Ok(mib) if (MEMORY_MIN..=MEMORY_MAX).contains(&mib) => Ok(mib),
        _ => Err(format!(
            "want a number of MiB from {MEMORY_MIN} to {MEMORY_MAX}"
        )),
    }
}

/// Parses a number of vCPUs.
fn parse_cpus(text: &str) -> Result<u8, String> {
    match text.parse() {
        Ok(cpus) if (1..=CPUS_MAX).contains(&cpus) => Ok(cpus),
        _ => Err(format!("want a number of vCPUs from 1 to {CPUS_MAX}")),
    }
}

/// Parses the name of a page size.
fn parse_pages(text: &str) -> Result<Pages, String> {
    match text {
        "4k" => Ok(Pages::Small),
        "2m" => Ok(Pages::Huge),
        _ => Err("want 4k or 2m".to_string()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse_line(line: &str) -> Result<Command, lexopt::Error> {
        parse(line.split_whitespace().map(OsString::from))
    }

    #[test]
    fn defaults() {
        assert_eq!(
            parse_line("vmm g.elf").unwrap(),
            Command::Run(Options {
                device: "/dev/kvm-rs".into(),
                memory: 128 << 20,
                pages: Pages::Huge,
                stats: false,
                module_stats: false,
                guest: "g.elf".into(),
                linux: Linux::default(),
            })
        );
    }

    #[test]
    fn every_option() {
        let line = "vmm --device /dev/kvm --memory 16 --pages 4k --stats --module-stats g.elf";
        assert_eq!(
            parse_line(line).unwrap(),
            Command::Run(Options {
                device: "/dev/kvm".into(),
                memory: 16 << 20,
                pages: Pages::Small,
                stats: true,
                module_stats: true,
                guest: "g.elf".into(),
                linux: Linux::default(),
            })
        );
        assert_eq!(parse_line("vmm --help").unwrap(), Command::Help);
    }

    #[test]
    fn every_option_of_linux() {
        let line = "vmm --cpus 2 --initrd i --append a=b --block d --net t --prompt # bzImage";
        let Ok(Command::Run(options)) = parse_line(line) else {
            panic!("{line}");
        };
        assert_eq!(
            options.linux,
            Linux {
                cpus: 2,
                initrd: Some("i".into()),
                append: Some("a=b".to_string()),
                block: Some("d".into()),
                net: Some("t".to_string()),
                prompt: Some("#".to_string()),
            }
        );
    }

    #[test]
    fn wrong_usage() {
        for line in [
            "vmm",
            "vmm a b",
            "vmm --memory 3 a",
            "vmm --memory 4096 a",
            "vmm --memory -1 a",
            "vmm --memory much a",
            "vmm --pages 1g a",
            "vmm --what a",
            "vmm a --device",
            "vmm --cpus 0 a",
            "vmm --cpus 17 a",
        ] {
            assert!(parse_line(line).is_err(), "{line}");
        }
    }
}
