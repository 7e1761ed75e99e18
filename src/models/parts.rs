//! The parts of a buffer and its guard, which leave it in any order.
//!
//! The buffer is a row of cells here, one for each part and one for the guard's room. The last
//! holder uses all of them, as the next user of the buffer would.

use super::{check, model, spawn};
use crate::inner::holders::Holders;
use crate::sync::{AtomicUsize, Exclusive, Ordering};
use std::sync::Arc;

/// A buffer with two parts, and the room of the guard behind them.
struct Buffer {
    holders: Holders,
    cells: [Exclusive; 3],
    came_home: AtomicUsize,
}

// SAFETY: loom fails the model if two threads touch a cell and no operation orders them.
unsafe impl Sync for Buffer {}

/// The cell of the guard's room.
const ROOM: usize = 2;

impl Buffer {
    /// A buffer that the guard alone holds.
    fn new() -> Arc<Self> {
        Arc::new(Buffer {
            holders: Holders::one(),
            cells: std::array::from_fn(|_| Exclusive::new()),
            came_home: AtomicUsize::new(0),
        })
    }

    fn touch(&self, cell: usize) {
        self.cells[cell].touch();
    }

    fn touch_all(&self) {
        self.cells.iter().for_each(Exclusive::touch);
    }

    /// Moves a part with this cell to another thread, which reads it and drops it.
    fn part(self: &Arc<Self>, cell: usize) -> model::JoinHandle<()> {
        self.holders.join();
        let part = Arc::clone(self);
        spawn(move || {
            part.touch(cell);
            part.leave();
        })
    }

    /// Gives a hold up. The last holder takes the buffer home.
    fn leave(&self) {
        if self.holders.leave() {
            self.touch_all();
            // Relaxed: only read when all threads have ended.
            self.came_home.fetch_add(1, Ordering::Relaxed);
        }
    }

    fn assert_home_once(&self) {
        // Relaxed: as above.
        assert_eq!(self.came_home.load(Ordering::Relaxed), 1);
        assert!(self.holders.is_alone(), "the next user is alone");
    }
}

// The guard writes behind its parts meanwhile.
#[test]
pub(super) fn guard_drop_races_last_drop() {
    check(3, || {
        let buffer = Buffer::new();
        let parts = [0, 1].map(|cell| buffer.part(cell));
        buffer.touch(ROOM);
        buffer.leave();
        parts.into_iter().for_each(|part| part.join().unwrap());
        buffer.assert_home_once();
    });
}

#[test]
fn last_drop_races_clone() {
    check(3, || {
        let buffer = Buffer::new();
        buffer.holders.join();
        let part = Arc::clone(&buffer);
        let cloning = spawn(move || {
            part.holders.join();
            part.leave();
            part.touch(0);
            part.leave();
        });
        let other = buffer.part(1);
        buffer.leave();
        cloning.join().unwrap();
        other.join().unwrap();
        buffer.assert_home_once();
    });
}

// A full guard uses the space before its contents if it is alone. If not, it takes another buffer.
#[test]
pub(super) fn growth_races_last_drop() {
    check(3, || {
        let buffer = Buffer::new();
        let parts = [0, 1].map(|cell| buffer.part(cell));
        buffer.touch(ROOM);
        if buffer.holders.is_alone() {
            buffer.touch_all();
        }
        buffer.leave();
        parts.into_iter().for_each(|part| part.join().unwrap());
        buffer.assert_home_once();
    });
}

// It cuts off one more part, if it can stay in the same buffer.
#[test]
fn split_races_last_drop() {
    check(3, || {
        let buffer = Buffer::new();
        let first = buffer.part(0);
        buffer.touch(1);
        let second = buffer.part(1);
        buffer.touch(ROOM);
        buffer.leave();
        first.join().unwrap();
        second.join().unwrap();
        buffer.assert_home_once();
    });
}

// `try_into_mut` of one part, and the drop of the other.
#[test]
fn try_into_mut_races_last_drop() {
    check(3, || {
        let buffer = Buffer::new();
        let part = buffer.part(0);
        let writes_again = buffer.holders.is_alone();
        if writes_again {
            buffer.touch_all();
        }
        buffer.leave();
        part.join().unwrap();
        buffer.assert_home_once();
    });
}
