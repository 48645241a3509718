// SPDX-License-Identifier: GPL-2.0

//! The table of routes: what each GSI leads to.
//!
//! A GSI leads to one message, or to at most one pin of each controller: the two PICs and the I/O APIC.

use kernel::prelude::*;

/// GSIs are below this, and there are no more routes than that.
pub(crate) const MAX_ROUTES: u32 = 4096;

/// Pins of the pair of PICs.
pub(crate) const PIC_PINS: u8 = 16;

/// Pins of the I/O APIC.
pub(crate) const IOAPIC_PINS: u8 = super::ioapic::PINS;

/// No GSI leads to a pin.
const NO_GSI: u16 = u16::MAX;

/// A pin of a controller in the kernel.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Pin {
    /// Of the PICs: 0 to 7 are the master's, 8 to 15 the slave's.
    Pic(u8),
    /// Of the I/O APIC, 0 to 23.
    Ioapic(u8),
}

impl Pin {
    /// Returns which of the three controllers has the pin.
    const fn controller(self) -> u8 {
        match self {
            Self::Pic(pin) => pin >> 3 & 1,
            Self::Ioapic(_) => 2,
        }
    }

    /// Returns the pin's place among all pins of all controllers.
    const fn index(self) -> usize {
        // CAST: widens; `usize::from` is not const.
        match self {
            Self::Pic(pin) => pin as usize,
            Self::Ioapic(pin) => PIC_PINS as usize + pin as usize,
        }
    }
}

/// Number of pins of all controllers.
const ALL_PINS: usize = PIC_PINS as usize + IOAPIC_PINS as usize;

/// A message as a device writes it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Msi {
    /// Lower half of the address.
    pub(crate) address_low: u32,
    /// Upper half of the address.
    pub(crate) address_high: u32,
    /// What is written.
    pub(crate) data: u32,
}

/// What a GSI leads to.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Target {
    /// A pin of a controller in the kernel.
    Pin(Pin),
    /// A message, sent when the line is raised.
    Msi(Msi),
}

/// One route.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Route {
    /// Where it comes from.
    pub(crate) gsi: u32,
    /// Where it leads to.
    pub(crate) target: Target,
}

/// All routes of a VM.
///
/// # Invariants
///
/// `targets` is ordered by GSI; those of GSI `n` are between `starts[n]` and `starts[n + 1]`.
pub(crate) struct Routes {
    targets: KVVec<Target>,
    starts: KVVec<u16>,
    gsis: [u16; ALL_PINS],
}

impl Routes {
    /// Returns a table without routes.
    pub(crate) fn empty() -> Result<KBox<Self>> {
        Self::new(&[])
    }

    /// Returns the table of `routes`, of which there are at most [`MAX_ROUTES`].
    ///
    /// Fails with `EINVAL` for a GSI or pin that is too large, and where a GSI leads to more than one
    /// message, to a message and a pin, or to two pins of one controller; and with `ENOMEM`.
    pub(crate) fn new(routes: &[Route]) -> Result<KBox<Self>> {
        let highest = routes.iter().map(|route| route.gsi).max().unwrap_or(0);
        if highest >= MAX_ROUTES || routes.len() > MAX_ROUTES as usize {
            return Err(EINVAL);
        }
        let starts = count(routes, highest as usize)?;
        let mut table = KBox::new(
            Self {
                targets: place(routes, &starts)?,
                starts,
                gsis: [NO_GSI; ALL_PINS],
            },
            GFP_KERNEL_ACCOUNT,
        )?;
        for route in routes {
            if let Target::Pin(pin) = route.target {
                // CAST: Below MAX_ROUTES.
                *table.gsis.get_mut(pin.index()).ok_or(EINVAL)? = route.gsi as u16;
            }
        }
        for gsi in 0..=highest {
            check(table.of(gsi))?;
        }
        Ok(table)
    }

    /// Returns the routes that a VM with all controllers in the kernel starts with: each GSI to the pin
    /// of the same number, below 16 also of the PICs.
    pub(crate) fn standard() -> Result<KBox<Self>> {
        let mut routes = [Route {
            gsi: 0,
            target: Target::Pin(Pin::Ioapic(0)),
        }; ALL_PINS];
        let pins = (0..IOAPIC_PINS).flat_map(|pin| {
            let pic = (pin < PIC_PINS).then_some(Pin::Pic(pin));
            [Some(Pin::Ioapic(pin)), pic].into_iter().flatten()
        });
        for (route, pin) in routes.iter_mut().zip(pins) {
            let (Pin::Ioapic(number) | Pin::Pic(number)) = pin;
            *route = Route {
                gsi: u32::from(number),
                target: Target::Pin(pin),
            };
        }
        Self::new(&routes)
    }

    /// Returns what a GSI leads to, in the order in which the routes were given.
    #[inline]
    pub(crate) fn of(&self, gsi: u32) -> &[Target] {
        // CAST: widens.
        let gsi = gsi as usize;
        let start = self.starts.get(gsi);
        let end = gsi.checked_add(1).and_then(|next| self.starts.get(next));
        match (start, end) {
            (Some(&start), Some(&end)) => self
                .targets
                .get(usize::from(start)..usize::from(end))
                .unwrap_or(&[]),
            _ => &[],
        }
    }

    /// Returns the GSI that leads to a pin; the last one that was given if there are several.
    pub(crate) fn gsi_of(&self, pin: Pin) -> Option<u32> {
        let gsi = *self.gsis.get(pin.index())?;
        (gsi != NO_GSI).then_some(u32::from(gsi))
    }

    /// Returns the messages that GSIs below `count` lead to.
    pub(crate) fn messages_below(&self, count: u32) -> impl Iterator<Item = &Msi> {
        let end = self
            .starts
            .get(count as usize)
            .map_or(self.targets.len(), |&end| usize::from(end));
        self.targets
            .get(..end)
            .unwrap_or(&[])
            .iter()
            .filter_map(|target| match target {
                Target::Msi(msi) => Some(msi),
                Target::Pin(_) => None,
            })
    }
}

/// Returns where the targets of each GSI up to `highest` start, and where those of the last one end.
fn count(routes: &[Route], highest: usize) -> Result<KVVec<u16>> {
    // One more than needed: `place` counts up to the start of the next.
    let mut starts = KVVec::from_elem(0, highest.saturating_add(2), GFP_KERNEL_ACCOUNT)?;
    for route in routes {
        let next: &mut u16 = starts.get_mut(route.gsi as usize + 1).ok_or(EINVAL)?;
        *next = next.saturating_add(1);
    }
    let mut sum: u16 = 0;
    for start in &mut starts {
        sum = sum.saturating_add(*start);
        *start = sum;
    }
    Ok(starts)
}

/// Returns the targets in the order of their GSIs.
fn place(routes: &[Route], starts: &[u16]) -> Result<KVVec<Target>> {
    let Some(first) = routes.first() else {
        return Ok(KVVec::new());
    };
    let mut targets = KVVec::from_elem(first.target, routes.len(), GFP_KERNEL_ACCOUNT)?;
    let mut next = KVVec::with_capacity(starts.len(), GFP_KERNEL_ACCOUNT)?;
    next.extend_from_slice(starts, GFP_KERNEL_ACCOUNT)?;
    for route in routes {
        let index = next.get_mut(route.gsi as usize).ok_or(EINVAL)?;
        *targets.get_mut(usize::from(*index)).ok_or(EINVAL)? = route.target;
        *index = index.saturating_add(1);
    }
    Ok(targets)
}

/// Fails unless one GSI may lead to these targets.
fn check(targets: &[Target]) -> Result {
    let mut controllers: u8 = 0;
    for target in targets {
        match target {
            Target::Msi(_) if targets.len() > 1 => return Err(EINVAL),
            Target::Msi(_) => {}
            Target::Pin(pin) => {
                let bit = 1 << pin.controller();
                if controllers & bit != 0 {
                    return Err(EINVAL);
                }
                controllers |= bit;
            }
        }
    }
    Ok(())
}

#[kunit_tests(kvm_rs_irq_routing)]
mod tests {
    use super::*;

    fn pin(gsi: u32, pin: Pin) -> Route {
        Route {
            gsi,
            target: Target::Pin(pin),
        }
    }

    fn msi(gsi: u32, data: u32) -> Route {
        Route {
            gsi,
            target: Target::Msi(Msi {
                address_low: 0xfee0_0000,
                address_high: 0,
                data,
            }),
        }
    }

    #[test]
    fn empty_table_leads_nowhere() {
        let table = Routes::empty().unwrap();
        for gsi in [0, 1, MAX_ROUTES, u32::MAX] {
            assert!(table.of(gsi).is_empty());
        }
        assert_eq!(table.gsi_of(Pin::Pic(0)), None);
        assert_eq!(table.messages_below(u32::MAX).count(), 0);
    }

    #[test]
    fn standard_table_is_that_of_kvm() {
        let table = Routes::standard().unwrap();
        for gsi in 0..24 {
            let number = gsi as u8;
            let ioapic = Target::Pin(Pin::Ioapic(number));
            if gsi < 16 {
                assert!(table.of(gsi) == [ioapic, Target::Pin(Pin::Pic(number))]);
                assert_eq!(table.gsi_of(Pin::Pic(number)), Some(gsi));
            } else {
                assert!(table.of(gsi) == [ioapic]);
            }
            assert_eq!(table.gsi_of(Pin::Ioapic(number)), Some(gsi));
        }
        assert!(table.of(24).is_empty());
    }

    #[test]
    fn any_order_is_kept_within_a_gsi() {
        let table = Routes::new(&[
            msi(4095, 1),
            pin(5, Pin::Pic(9)),
            msi(7, 2),
            pin(5, Pin::Ioapic(3)),
            pin(5, Pin::Pic(1)),
            pin(6, Pin::Pic(1)),
        ])
        .unwrap();
        assert!(table.of(4095) == [msi(0, 1).target]);
        assert!(table.of(7) == [msi(0, 2).target]);
        let expected = [Pin::Pic(9), Pin::Ioapic(3), Pin::Pic(1)].map(Target::Pin);
        assert!(table.of(5) == expected);
        assert_eq!(table.gsi_of(Pin::Pic(1)), Some(6));
        assert_eq!(table.gsi_of(Pin::Ioapic(0)), None);
        assert_eq!(table.messages_below(8).count(), 1);
        assert_eq!(table.messages_below(7).count(), 0);
        assert_eq!(table.messages_below(u32::MAX).count(), 2);
    }

    #[test]
    fn conflicts_are_refused() {
        let twice = [
            [pin(1, Pin::Ioapic(1)), pin(1, Pin::Ioapic(2))],
            [pin(1, Pin::Pic(0)), pin(1, Pin::Pic(7))],
            [pin(1, Pin::Pic(8)), pin(1, Pin::Pic(8))],
            [msi(1, 0), msi(1, 0)],
            [msi(1, 0), pin(1, Pin::Pic(0))],
        ];
        for routes in twice {
            assert!(matches!(Routes::new(&routes), Err(error) if error == EINVAL));
        }
        assert!(Routes::new(&[msi(MAX_ROUTES, 0)]).is_err());
        assert!(Routes::new(&[pin(0, Pin::Ioapic(IOAPIC_PINS))]).is_err());
        assert!(Routes::new(&[pin(0, Pin::Pic(0)), pin(0, Pin::Pic(8))]).is_ok());
    }
}
