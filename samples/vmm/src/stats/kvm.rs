// SPDX-License-Identifier: GPL-2.0

//! What KVM counts for a vCPU: its binary statistics, KVM_GET_STATS_FD.
//!
//! A file that KVM opens describes itself: a header, the descriptors of the figures with their names,
//! and the values. Of the figures those that count something are taken.

use std::collections::BTreeMap;
use std::fmt;
use std::fs::File;
use std::os::fd::FromRawFd;
use std::os::unix::fs::FileExt;

use anyhow::bail;
use anyhow::Context;
use anyhow::Result;
use kvm_ioctls::VcpuFd;
use vmm_sys_util::ioctl::ioctl;
use vmm_sys_util::ioctl_io_nr;

use super::write_line;

ioctl_io_nr!(KVM_GET_STATS_FD, kvm_bindings::KVMIO, 0xce);

/// Bytes of the file's header, `struct kvm_stats_header`.
const HEADER_SIZE: usize = 24;

/// Bytes of a descriptor, `struct kvm_stats_desc`, before the name.
const DESCRIPTOR_SIZE: usize = 16;

/// Flags of a figure that says what it is; 0 for one that only grows.
const TYPE_MASK: u32 = 0xf;
const CUMULATIVE: u32 = 0;

/// Sums of what KVM counted, by name.
#[derive(Debug, Default, PartialEq)]
pub struct Statistics(BTreeMap<String, u64>);

impl Statistics {
    /// Reads what KVM counted for `vcpu`.
    pub fn read(vcpu: &VcpuFd) -> Result<Self> {
        // SAFETY: The request takes no argument, and returns a file descriptor or an error.
        let fd = unsafe { ioctl(vcpu, KVM_GET_STATS_FD()) };
        if fd < 0 {
            return Err(std::io::Error::last_os_error()).context("KVM has no statistics");
        }
        // SAFETY: The descriptor is new, so nothing else owns it.
        let file = unsafe { File::from_raw_fd(fd) };
        Self::parse(|buffer, offset| Ok(file.read_exact_at(buffer, offset)?))
    }

    /// Parses a file of statistics, of which `read` fills a buffer from an offset.
    fn parse(read: impl Fn(&mut [u8], u64) -> Result<()>) -> Result<Self> {
        let mut header = [0; HEADER_SIZE];
        read(&mut header, 0)?;
        let name_size = u32_at(&header, 4)? as usize;
        let count = u32_at(&header, 8)?;
        let descriptors = u64::from(u32_at(&header, 16)?);
        let values = u64::from(u32_at(&header, 20)?);

        let mut figures = BTreeMap::new();
        let mut descriptor = vec![0; DESCRIPTOR_SIZE + name_size];
        let stride = descriptor.len() as u64;
        for index in 0..u64::from(count) {
            read(&mut descriptor, descriptors + index * stride)?;
            let flags = u32_at(&descriptor, 0)?;
            let size = u32_at(&descriptor, 4)? >> 16;
            // Histograms have more than one value.
            if flags & TYPE_MASK != CUMULATIVE || size != 1 {
                continue;
            }
            let mut value = [0; 8];
            read(&mut value, values + u64::from(u32_at(&descriptor, 8)?))?;
            let (_, name) = descriptor.split_at(DESCRIPTOR_SIZE);
            let name = name.split(|&byte| byte == 0).next().unwrap_or_default();
            let name = String::from_utf8_lossy(name).into_owned();
            figures.insert(name, u64::from_le_bytes(value));
        }
        Ok(Self(figures))
    }

    /// Adds what was counted for another vCPU.
    pub fn add(&mut self, other: &Self) {
        for (name, value) in &other.0 {
            *self.0.entry(name.clone()).or_default() += value;
        }
    }
}

impl fmt::Display for Statistics {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "counted by KVM")?;
        self.0
            .iter()
            .filter(|(_, &value)| value > 0)
            .try_for_each(|(name, &value)| write_line(f, name, value))
    }
}

/// Returns the integer at `offset` of `bytes`.
fn u32_at(bytes: &[u8], offset: usize) -> Result<u32> {
    match bytes.get(offset..).and_then(|bytes| bytes.first_chunk()) {
        Some(&bytes) => Ok(u32::from_le_bytes(bytes)),
        None => bail!("statistics of KVM that this program does not know"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Returns a file with these figures: flags, number of values, name, value.
    fn file(figures: &[(u32, u16, &[u8; 8], u64)]) -> Vec<u8> {
        let count = figures.len() as u32;
        let values = HEADER_SIZE as u32 + count * (DESCRIPTOR_SIZE as u32 + 8);
        let mut file = Vec::new();
        for word in [0, 8, count, 0, HEADER_SIZE as u32, values] {
            file.extend(u32::to_le_bytes(word));
        }
        for (index, (flags, size, name, _)) in figures.iter().enumerate() {
            file.extend(flags.to_le_bytes());
            file.extend([0, 0]); // exponent
            file.extend(size.to_le_bytes());
            file.extend((index as u32 * 8).to_le_bytes());
            file.extend([0; 4]); // bucket size
            file.extend(*name);
        }
        for (_, _, _, value) in figures {
            file.extend(value.to_le_bytes());
        }
        file
    }

    fn parse(file: &[u8]) -> Result<Statistics> {
        Statistics::parse(|buffer, offset| {
            let part = file.get(offset as usize..).unwrap_or_default();
            let part = part.get(..buffer.len()).context("the file is too short")?;
            buffer.copy_from_slice(part);
            Ok(())
        })
    }

    #[test]
    fn figures_that_grow_are_taken() {
        let file = file(&[
            (0, 1, b"exits\0\0\0", 7),
            (1, 1, b"now\0\0\0\0\0", 8),
            (0, 2, b"hist\0\0\0\0", 9),
            (0, 1, b"halts\0\0\0", 3),
        ]);
        let mut figures = parse(&file).unwrap();
        figures.add(&parse(&file).unwrap());
        let expected = [("exits".to_string(), 14), ("halts".to_string(), 6)];
        assert_eq!(figures, Statistics(expected.into()));
        assert!(parse(&file[..file.len() - 1]).is_err());
    }
}
