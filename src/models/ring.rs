//! A ring of a depot, by itself: its pushes and pops against each other.
//!
//! Loom runs two steps in both orders only where it sees that the order matters. It misses a load
//! of one thread and a store of another if the other one has loaded in between. All stamps are used
//! that way. Therefore each push and each pop here begins with a step whose order matters to loom
//! (`in_order`). Loom does not run a pop in the middle of a push. It lets the pop see an old stamp
//! instead, which has the same effect.

use super::{Number, allow, check, in_order, spawn};
use crate::engine::ring::Ring;
use std::sync::Arc;

/// The fewest places that are allowed: each push soon reaches a place where another thread pops.
const LEN: usize = 2;

/// A ring with items in it, after some that have come and gone.
fn ring(gone: usize, held: usize) -> Arc<Ring<Number>> {
    allow(LEN);
    let ring = Ring::new(LEN).expect("the heap has room");
    for _ in 0..gone {
        push(&ring).expect("room");
        pop(&ring).expect("an item");
    }
    (0..held).for_each(|_| assert!(push(&ring).is_some()));
    Arc::new(ring)
}

/// Pushes a new item, and returns its number; `None` if the ring refuses it.
fn push(ring: &Ring<Number>) -> Option<usize> {
    in_order();
    let item = Number::new();
    let number = item.number();
    ring.push(item).ok().map(|()| number)
}

/// Pops an item, which belongs to the caller alone then. Returns its number.
fn pop(ring: &Ring<Number>) -> Option<usize> {
    in_order();
    let item = ring.pop()?;
    item.came_out();
    Some(item.number())
}

#[test]
pub(super) fn push_races_push() {
    // At the beginning, and where the next place is that of index 0.
    for gone in [0, 1] {
        check(4, move || {
            let ring = ring(gone, 0);
            let other = Arc::clone(&ring);
            let pusher = spawn(move || assert!(push(&other).is_some(), "there is room for both"));
            assert!(push(&ring).is_some(), "there is room for both");
            pusher.join().unwrap();
            assert_eq!(ring.len(), 2);
            assert!(push(&ring).is_none());
            let both = [pop(&ring), pop(&ring)];
            assert!(both.iter().all(Option::is_some) && both[0] != both[1]);
            assert_eq!(pop(&ring), None);
        });
    }
}

#[test]
fn push_races_push_for_the_last_place() {
    check(4, || {
        let ring = ring(1, 1);
        let other = Arc::clone(&ring);
        let pusher = spawn(move || _ = push(&other));
        let mine = push(&ring).is_some();
        pusher.join().unwrap();
        assert_eq!(ring.len(), 2, "one push has taken the place: {mine}");
        assert_eq!([pop(&ring), pop(&ring)].iter().flatten().count(), 2);
    });
}

#[test]
fn pop_races_pop() {
    for gone in [0, 1] {
        check(4, move || {
            let ring = ring(gone, 2);
            let other = Arc::clone(&ring);
            let popper = spawn(move || assert!(pop(&other).is_some(), "there is one for each"));
            assert!(pop(&ring).is_some(), "there is one for each");
            popper.join().unwrap();
            assert_eq!((pop(&ring), ring.len()), (None, 0));
        });
    }
}

#[test]
pub(super) fn push_races_pop() {
    for (gone, held) in [(0, 0), (1, 1), (1, 2)] {
        check(5, move || {
            let ring = ring(gone, held);
            let other = Arc::clone(&ring);
            let pusher = spawn(move || {
                // Two, so that one push reaches a place that another thread is popping from.
                (0..2).for_each(|_| _ = push(&other));
            });
            let popped = [pop(&ring), pop(&ring)];
            pusher.join().unwrap();
            let mut all: Vec<_> = popped.into_iter().flatten().collect();
            all.extend(std::iter::from_fn(|| pop(&ring)));
            assert!(
                all.is_sorted(),
                "not in the order in which they were pushed"
            );
            assert!(all.len() >= held, "lost");
            assert!(all.len() <= held + 2, "doubled");
        });
    }
}

// An item that was there before both pops is there for one of them, whatever the other does.
#[test]
fn pop_races_push_and_pop() {
    check(4, || {
        let ring = ring(1, 1);
        let other = Arc::clone(&ring);
        let user = spawn(move || {
            let pushed = push(&other).expect("two places, one item");
            let popped = pop(&other);
            assert!(popped.is_some_and(|popped| popped <= pushed));
        });
        let mine = pop(&ring);
        user.join().unwrap();
        let left = pop(&ring);
        assert_eq!(
            [mine, left].iter().flatten().count(),
            1,
            "{mine:?} {left:?}"
        );
    });
}

// Three threads at a ring of two, so that each end goes round while another thread uses it.
#[test]
fn pushes_and_pops_race_round_the_ring() {
    check(2, || {
        let ring = ring(1, 1);
        let others = [(); 2].map(|()| {
            let other = Arc::clone(&ring);
            spawn(move || {
                _ = push(&other);
                pop(&other);
            })
        });
        pop(&ring);
        for other in others {
            other.join().unwrap();
        }
        let left = std::iter::from_fn(|| pop(&ring)).count();
        assert!(left <= LEN);
        assert_eq!(ring.len(), 0);
    });
}

#[test]
pub(super) fn len_races_push_and_pop() {
    check(4, || {
        let ring = ring(1, 1);
        let other = Arc::clone(&ring);
        let user = spawn(move || {
            pop(&other).expect("an item");
            push(&other).expect("room");
            push(&other).expect("room");
            pop(&other).expect("an item");
        });
        for _ in 0..2 {
            in_order();
            assert!(ring.len() <= LEN);
        }
        user.join().unwrap();
        assert_eq!(ring.len(), 1);
    });
}

#[test]
fn items_left_in_a_ring_end_with_it() {
    check(3, || {
        let ring = ring(1, 0);
        let other = Arc::clone(&ring);
        let pusher = spawn(move || _ = push(&other));
        _ = push(&ring);
        pusher.join().unwrap();
        drop(Arc::into_inner(ring).expect("this is the last reference"));
        assert_eq!(super::alive(), 0);
    });
}
