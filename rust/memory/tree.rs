// SPDX-License-Identifier: GPL-2.0

//! A balanced tree of slots that is never changed: a change is a new tree, which shares all but the
//! nodes on one path with the old.
//!
//! It is an AVL tree of intervals. Depth, and so the nodes that a change copies and the steps of a
//! look-up, grow with the logarithm of the number of slots. What a change allocates before it fails
//! goes with the half-made tree; the old one is as it was.

use super::slot::Slot;
use kernel::{
    prelude::*,
    sync::Arc, //
};

use core::{
    cmp::{
        max,
        Ordering, //
    },
    marker::PhantomData,
    ops::Range, //
};

/// What a tree sorts slots by.
pub(super) trait Order {
    /// Returns the points that belong to a slot; never none.
    fn interval(slot: &Slot) -> Range<u64>;
}

/// Where a slot stands in a tree: the first of its points, then its number.
type Key = (u64, u16);

/// A tree, or a part of one.
type Link<O> = Option<Arc<Node<O>>>;

/// A slot and those below it.
///
/// # Invariants
///
/// All keys in `left` are below that of `slot`, and all in `right` above. The heights of the two
/// differ by at most one.
struct Node<O: Order> {
    /// The points of `slot`.
    start: u64,
    end: u64,
    /// The highest end in this part of the tree.
    reach: u64,
    slot: Arc<Slot>,
    left: Link<O>,
    right: Link<O>,
    height: u8,
    _order: PhantomData<fn() -> O>,
}

impl<O: Order> Node<O> {
    fn key(&self) -> Key {
        (self.start, self.slot.id().0)
    }

    fn overlaps(&self, points: &Range<u64>) -> bool {
        self.start < points.end && points.start < self.end
    }
}

/// An immutable set of slots, sorted by `O`.
pub(super) struct Tree<O: Order> {
    root: Link<O>,
}

impl<O: Order> Tree<O> {
    /// Returns the empty set.
    pub(super) const fn new() -> Self {
        Self { root: None }
    }

    /// Returns the slot to which `point` belongs, of slots that share no points.
    #[inline]
    pub(super) fn at(&self, point: u64) -> Option<&Arc<Slot>> {
        let mut link = &self.root;
        while let Some(node) = link {
            if point < node.start {
                link = &node.left;
            } else if point < node.end {
                return Some(&node.slot);
            } else {
                link = &node.right;
            }
        }
        None
    }

    /// Returns the slots that have one of `points`, in order.
    pub(super) fn overlapping(&self, points: Range<u64>) -> impl Iterator<Item = &Arc<Slot>> {
        let next = move |after| next_overlapping(&self.root, after, &points);
        core::iter::successors(next(None), move |node| next(Some(node.key())))
            .map(|node| &node.slot)
    }

    /// Returns this set without `old`, and with `new`, which is not in it. Fails with `ENOMEM`.
    pub(super) fn replaced(&self, old: Option<&Slot>, new: Option<&Arc<Slot>>) -> Result<Self> {
        let rest = match old {
            Some(old) => remove(&self.root, key::<O>(old))?,
            None => self.root.clone(),
        };
        let root = match new {
            Some(new) => insert(&rest, new)?,
            None => rest,
        };
        Ok(Self { root })
    }
}

/// Returns where `slot` stands.
fn key<O: Order>(slot: &Slot) -> Key {
    (O::interval(slot).start, slot.id().0)
}

fn height<O: Order>(link: &Link<O>) -> u8 {
    link.as_ref().map_or(0, |node| node.height)
}

fn reach<O: Order>(link: &Link<O>) -> u64 {
    link.as_ref().map_or(0, |node| node.reach)
}

/// Returns the first node behind `after` that overlaps `points`.
///
/// Recurses once per level at most.
fn next_overlapping<'a, O: Order>(
    link: &'a Link<O>,
    after: Option<Key>,
    points: &Range<u64>,
) -> Option<&'a Node<O>> {
    let node = link.as_ref().filter(|node| node.reach > points.start)?;
    if after.is_none_or(|after| node.key() > after) {
        if let Some(found) = next_overlapping(&node.left, after, points) {
            return Some(found);
        }
        if node.overlaps(points) {
            return Some(node);
        }
    }
    // Behind this node, nothing starts before it does.
    if node.start >= points.end {
        return None;
    }
    next_overlapping(&node.right, after, points)
}

/// Returns the tree of `slot` between `left` and `right`, whose heights differ by at most one.
fn join<O: Order>(left: Link<O>, slot: &Arc<Slot>, right: Link<O>) -> Result<Link<O>> {
    let interval = O::interval(slot);
    // INVARIANT: As the callers promise.
    let node = Node {
        start: interval.start,
        end: interval.end,
        reach: max(interval.end, max(reach(&left), reach(&right))),
        slot: slot.clone(),
        height: max(height(&left), height(&right)).saturating_add(1),
        left,
        right,
        _order: PhantomData,
    };
    Ok(Some(Arc::new(node, GFP_KERNEL_ACCOUNT)?))
}

/// Returns the tree of `slot` between `left` and `right`, whose heights differ by at most two.
fn balance<O: Order>(left: Link<O>, slot: &Arc<Slot>, right: Link<O>) -> Result<Link<O>> {
    if let Some(high) = left.as_ref().filter(|_| height(&left) > height(&right) + 1) {
        return match &high.right {
            Some(inner) if inner.height > height(&high.left) => join(
                join(high.left.clone(), &high.slot, inner.left.clone())?,
                &inner.slot,
                join(inner.right.clone(), slot, right)?,
            ),
            inner => join(
                high.left.clone(),
                &high.slot,
                join(inner.clone(), slot, right)?,
            ),
        };
    }
    if let Some(high) = right
        .as_ref()
        .filter(|_| height(&right) > height(&left) + 1)
    {
        return match &high.left {
            Some(inner) if inner.height > height(&high.right) => join(
                join(left, slot, inner.left.clone())?,
                &inner.slot,
                join(inner.right.clone(), &high.slot, high.right.clone())?,
            ),
            inner => join(
                join(left, slot, inner.clone())?,
                &high.slot,
                high.right.clone(),
            ),
        };
    }
    join(left, slot, right)
}

/// Returns the tree with `slot`. Recurses once per level.
fn insert<O: Order>(link: &Link<O>, slot: &Arc<Slot>) -> Result<Link<O>> {
    let Some(node) = link else {
        return join(None, slot, None);
    };
    if key::<O>(slot) < node.key() {
        balance(insert(&node.left, slot)?, &node.slot, node.right.clone())
    } else {
        balance(node.left.clone(), &node.slot, insert(&node.right, slot)?)
    }
}

/// Returns the tree without the slot at `key`. Recurses once per level.
fn remove<O: Order>(link: &Link<O>, key: Key) -> Result<Link<O>> {
    let Some(node) = link else {
        return Ok(None);
    };
    match key.cmp(&node.key()) {
        Ordering::Less => balance(remove(&node.left, key)?, &node.slot, node.right.clone()),
        Ordering::Greater => balance(node.left.clone(), &node.slot, remove(&node.right, key)?),
        Ordering::Equal => match first(&node.right) {
            Some(next) => balance(
                node.left.clone(),
                &next.slot,
                remove(&node.right, next.key())?,
            ),
            None => Ok(node.left.clone()),
        },
    }
}

/// Returns the lowest node.
fn first<O: Order>(link: &Link<O>) -> Option<&Node<O>> {
    let mut node = link.as_ref()?;
    while let Some(left) = &node.left {
        node = left;
    }
    Some(node)
}

#[kunit_tests(kvm_rs_slot_tree)]
mod tests {
    use super::*;
    use crate::{
        memory::slot::{
            SlotFlags,
            SlotId, //
        },
        x86::addr::{
            Gfn,
            Hva, //
        },
    };

    struct ByHva;

    impl Order for ByHva {
        fn interval(slot: &Slot) -> Range<u64> {
            let start = slot.hva().value();
            start..start + (slot.pages() << 12)
        }
    }

    /// A slot of `pages` pages from page `page` of the client's address space.
    fn slot(id: u16, page: u64, pages: u64) -> Arc<Slot> {
        let flags = SlotFlags::default();
        let slot = Slot::new(SlotId(id), flags, Gfn::new(0), pages, Hva::new(page << 12));
        Arc::new(slot.unwrap(), GFP_KERNEL).unwrap()
    }

    /// Checks order, balance and reach below `link`; returns the number of slots.
    fn check(link: &Link<ByHva>, above: Option<Key>, below: Option<Key>) -> usize {
        let Some(node) = link else {
            return 0;
        };
        let key = node.key();
        assert_eq!(node.start..node.end, ByHva::interval(&node.slot));
        assert!(above.is_none_or(|above| above < key));
        assert!(below.is_none_or(|below| key < below));
        let (left, right) = (height(&node.left), height(&node.right));
        assert!(left.abs_diff(right) <= 1);
        assert_eq!(node.height, left.max(right) + 1);
        let deepest = node.end.max(reach(&node.left)).max(reach(&node.right));
        assert_eq!(node.reach, deepest);
        1 + check(&node.left, above, Some(key)) + check(&node.right, Some(key), below)
    }

    #[test]
    fn random_changes_agree_with_a_list() {
        let mut tree = Tree::<ByHva>::new();
        let mut list: KVec<Arc<Slot>> = KVec::new();
        let mut seed = 1_u64;
        let mut random = move |below: u64| {
            seed = seed.wrapping_mul(6364136223846793005).wrapping_add(1);
            (seed >> 33) % below
        };
        for round in 0..300_u16 {
            // Grow, then shrink.
            let grow = random(8) < if round < 180 { 5 } else { 2 };
            if grow || list.is_empty() {
                let new = slot(round, random(300), 1 + random(20));
                tree = tree.replaced(None, Some(&new)).unwrap();
                list.push(new, GFP_KERNEL).unwrap();
            } else {
                let old = list.remove(random(list.len() as u64) as usize).unwrap();
                tree = tree.replaced(Some(&old), None).unwrap();
            }
            assert_eq!(check(&tree.root, None, None), list.len());

            let start = random(320) << 12;
            let end = start + random(30 << 12);
            let mut found = 0;
            let mut last = None;
            for slot in tree.overlapping(start..end) {
                let points = ByHva::interval(slot);
                assert!(points.start < end && start < points.end);
                assert!(last < Some(key::<ByHva>(slot)));
                last = Some(key::<ByHva>(slot));
                found += 1;
            }
            let expected = list.iter().filter(|slot| {
                let points = ByHva::interval(slot);
                points.start < end && start < points.end
            });
            assert_eq!(found, expected.count());
        }
    }

    #[test]
    fn trees_stay_low_and_old_ones_stay() {
        const PAGES: u16 = 128;
        let mut tree = Tree::<ByHva>::new();
        for page in 0..PAGES {
            let new = slot(page, page.into(), 1);
            tree = tree.replaced(None, Some(&new)).unwrap();
        }
        // An AVL tree of n nodes is lower than 1.45 * log2(n + 2).
        assert!(height(&tree.root) <= 10);
        let old = tree
            .replaced(None, Some(&slot(PAGES, PAGES.into(), 1)))
            .unwrap();
        for page in 0..PAGES {
            let gone = slot(page, page.into(), 1);
            tree = tree.replaced(Some(&gone), None).unwrap();
            // All that is left is looked at each time, so not each time.
            if page % 16 == 15 {
                assert_eq!(check(&tree.root, None, None), usize::from(PAGES - 1 - page));
            }
        }
        assert_eq!(check(&old.root, None, None), usize::from(PAGES) + 1);
        assert_eq!(old.at(0x7f_fff).map(|slot| slot.id().0), Some(PAGES - 1));
        assert!(old.at(0x81_000).is_none());
    }
}
