// SPDX-License-Identifier: GPL-2.0

//! The registers of the PICs and of the I/O APIC on the bus.

use super::Irqs;
use crate::{
    irqchip::{
        ioapic,
        pic::{
            Effects,
            Which, //
        }, //
    },
    vm::bus::{
        Bus,
        Device,
        Space, //
    }, //
};
use kernel::{
    prelude::*,
    sync::Arc, //
};

/// The ports of the PICs: command and data of each, and the edge/level control registers.
const MASTER: u64 = 0x20;
const SLAVE: u64 = 0xa0;
const ELCR: u64 = 0x4d0;

/// A register of the PICs.
enum Port {
    Command(Which),
    Data(Which),
    Elcr(Which),
}

/// Returns the register of a port.
fn port(address: u64) -> Option<Port> {
    Some(match address.checked_sub(address & 1)? {
        MASTER if address & 1 == 0 => Port::Command(Which::Master),
        MASTER => Port::Data(Which::Master),
        SLAVE if address & 1 == 0 => Port::Command(Which::Slave),
        SLAVE => Port::Data(Which::Slave),
        ELCR if address & 1 == 0 => Port::Elcr(Which::Master),
        ELCR => Port::Elcr(Which::Slave),
        _ => return None,
    })
}

/// The ports of the PICs.
struct PicPorts(Arc<Irqs>);

impl Device for PicPorts {
    fn read(&self, address: u64, data: &mut [u8]) -> bool {
        let (Some(chips), Some(port)) = (self.0.chips(), port(address)) else {
            return false;
        };
        let [value] = data else {
            // There is nothing to be read but bytes.
            data.fill(0);
            return true;
        };
        *value = self.0.access_pic(chips, |pic| match port {
            Port::Command(which) => pic.read_command(which),
            Port::Data(which) => pic.read_data(which),
            Port::Elcr(which) => (pic.read_elcr(which), Effects::default()),
        });
        true
    }

    fn write(&self, address: u64, data: &[u8]) -> bool {
        let (Some(chips), Some(port)) = (self.0.chips(), port(address)) else {
            return false;
        };
        if let &[value] = data {
            self.0.access_pic(chips, |pic| {
                let effects = match port {
                    Port::Command(which) => pic.write_command(which, value),
                    Port::Data(which) => pic.write_data(which, value),
                    Port::Elcr(which) => {
                        pic.write_elcr(which, value);
                        Effects::default()
                    }
                };
                ((), effects)
            });
        }
        true
    }
}

/// The registers of the I/O APIC.
struct IoapicPage(Arc<Irqs>);

impl Device for IoapicPage {
    fn read(&self, address: u64, data: &mut [u8]) -> bool {
        let Some(chips) = self.0.chips() else {
            return false;
        };
        let Some(value) = self.0.read_ioapic(chips, address) else {
            return false;
        };
        data.fill(0);
        for (target, source) in data.iter_mut().zip(value.to_le_bytes()) {
            *target = source;
        }
        true
    }

    fn write(&self, address: u64, data: &[u8]) -> bool {
        let Some(chips) = self.0.chips() else {
            return false;
        };
        let value = match data.first_chunk() {
            Some(&value) => value,
            None => {
                let mut value = [0; 4];
                for (target, &source) in value.iter_mut().zip(data) {
                    *target = source;
                }
                value
            }
        };
        self.0
            .write_ioapic(chips, address, u32::from_le_bytes(value))
    }
}

impl Irqs {
    /// Puts the registers of the controllers in the kernel on the bus.
    pub(crate) fn add_devices(self: &Arc<Self>, bus: &Bus) -> Result {
        let pic: Arc<dyn Device> = Arc::new(PicPorts(self.clone()), GFP_KERNEL_ACCOUNT)?;
        let ioapic: Arc<dyn Device> = Arc::new(IoapicPage(self.clone()), GFP_KERNEL_ACCOUNT)?;
        bus.add_all([
            (Space::Pio, MASTER, 2, pic.clone()),
            (Space::Pio, SLAVE, 2, pic.clone()),
            (Space::Pio, ELCR, 2, pic),
            (Space::Mmio, ioapic::DEFAULT_ADDRESS, ioapic::LENGTH, ioapic),
        ])
    }
}
