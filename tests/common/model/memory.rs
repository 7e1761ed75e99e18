//! Allocations, and which part of one each `BytesMut` or `Bytes` covers.
//!
//! Owns what `bytes` does with them: splits, and room that comes back. Knows nothing of
//! pools.

use bytes::BytesMut;
use std::collections::BTreeMap;
use std::mem;

/// One allocation, which views share.
#[derive(Clone, Debug)]
pub(super) struct Allocation {
    pub(super) base: usize,
    pub(super) capacity: usize,
    pub(super) views: usize,
    /// Whether its `BytesMut` counts its parts; it does from the first split on.
    pub(super) counted: bool,
}

/// What one `BytesMut` or `Bytes` covers of an allocation.
#[derive(Clone, Debug)]
pub(super) struct View {
    pub(super) allocation: usize,
    pub(super) offset: usize,
    pub(super) capacity: usize,
    pub(super) contents: Vec<u8>,
}

#[derive(Debug, Default)]
pub(super) struct Memory {
    pub(super) allocations: BTreeMap<usize, Allocation>,
    last: usize,
}

impl Memory {
    /// The view of a `BytesMut` that is alone on its allocation.
    pub(super) fn seen(&mut self, buf: &BytesMut, offset: usize, counted: bool) -> View {
        self.last += 1;
        self.allocations.insert(
            self.last,
            Allocation {
                base: buf.as_ptr().addr() - offset,
                capacity: buf.capacity() + offset,
                views: 1,
                counted,
            },
        );
        View {
            allocation: self.last,
            offset,
            capacity: buf.capacity(),
            contents: buf.to_vec(),
        }
    }

    pub(super) fn of(&self, view: &View) -> &Allocation {
        &self.allocations[&view.allocation]
    }

    pub(super) fn address(&self, view: &View) -> usize {
        self.of(view).base + view.offset
    }

    pub(super) fn is_alone(&self, view: &View) -> bool {
        self.of(view).views == 1
    }

    pub(super) fn end(&mut self, view: &View) {
        let allocation = self.allocations.get_mut(&view.allocation).unwrap();
        allocation.views -= 1;
        if allocation.views == 0 {
            self.allocations.remove(&view.allocation);
        }
    }

    /// Cuts off what lies before `at`, and returns it.
    pub(super) fn split_to(&mut self, view: &mut View, at: usize) -> View {
        let allocation = self.allocations.get_mut(&view.allocation).unwrap();
        allocation.views += 1;
        allocation.counted = true;
        let rest = view.contents.split_off(at);
        let head = View {
            allocation: view.allocation,
            offset: view.offset,
            capacity: at,
            contents: mem::replace(&mut view.contents, rest),
        };
        view.offset += at;
        view.capacity -= at;
        head
    }

    /// Cuts off what lies from `at` on, and returns it.
    pub(super) fn split_off(&mut self, view: &mut View, at: usize) -> View {
        let allocation = self.allocations.get_mut(&view.allocation).unwrap();
        allocation.views += 1;
        allocation.counted = true;
        let len = view.contents.len();
        let tail = View {
            allocation: view.allocation,
            offset: view.offset + at,
            capacity: view.capacity - at,
            contents: view.contents.split_off(at.min(len)),
        };
        view.capacity = at;
        tail
    }

    /// `BytesMut::try_reclaim`: room without the heap.
    pub(super) fn try_reclaim(&self, view: &mut View, additional: usize) -> bool {
        let (len, allocation) = (view.contents.len(), self.of(view));
        if view.capacity - len >= additional {
            return true;
        }
        if allocation.counted {
            if allocation.views > 1 {
                return false;
            }
            if view.offset + len + additional <= allocation.capacity {
                view.capacity = len + additional;
                return true;
            }
        }
        let fits = len + additional <= allocation.capacity && view.offset >= len;
        if fits {
            view.offset = 0;
            view.capacity = allocation.capacity;
        }
        fits
    }
}
