// SPDX-License-Identifier: GPL-2.0

//! TAP interfaces of the host: what a program writes to the file, the interface receives, and what
//! is sent through the interface, the program reads; an Ethernet frame at a time.

use std::fs::File;
use std::io;
use std::os::fd::AsRawFd;
use std::os::unix::fs::OpenOptionsExt;

/// The file of all TUN and TAP interfaces.
const DEVICE: &str = "/dev/net/tun";

/// Opens the interface `name`, without blocking and with `header` bytes in front of each frame that
/// are a virtio network header.
pub fn open(name: &str, header: libc::c_int) -> io::Result<File> {
    let tap = File::options()
        .read(true)
        .write(true)
        .custom_flags(libc::O_NONBLOCK)
        .open(DEVICE)?;

    let mut request = libc::ifreq {
        ifr_name: interface_name(name)?,
        ifr_ifru: libc::__c_anonymous_ifr_ifru {
            ifru_flags: (libc::IFF_TAP | libc::IFF_NO_PI | libc::IFF_VNET_HDR) as libc::c_short,
        },
    };
    // SAFETY: TUNSETIFF reads and writes one `ifreq`, which is borrowed for the call.
    check(unsafe { libc::ioctl(tap.as_raw_fd(), libc::TUNSETIFF, &mut request) })?;
    // SAFETY: TUNSETVNETHDRSZ reads one integer, which is borrowed for the call.
    check(unsafe { libc::ioctl(tap.as_raw_fd(), libc::TUNSETVNETHDRSZ, &header) })?;
    Ok(tap)
}

/// Returns `name` as the kernel wants it: with its end, in 16 bytes.
fn interface_name(name: &str) -> io::Result<[libc::c_char; libc::IFNAMSIZ]> {
    let mut bytes = [0; libc::IFNAMSIZ];
    if name.is_empty() || name.len() >= bytes.len() || name.contains('\0') {
        return Err(io::Error::from(io::ErrorKind::InvalidInput));
    }
    for (to, from) in bytes.iter_mut().zip(name.bytes()) {
        *to = from as libc::c_char;
    }
    Ok(bytes)
}

/// Turns what a system call returned into a result.
fn check(returned: libc::c_int) -> io::Result<()> {
    match returned {
        0.. => Ok(()),
        _ => Err(io::Error::last_os_error()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_have_an_end() {
        assert!(interface_name("tap0").is_ok());
        assert_eq!(interface_name("123456789012345").unwrap()[15], 0);
        for name in ["", "1234567890123456", "a\0b"] {
            assert!(interface_name(name).is_err(), "{name:?}");
        }
    }
}
