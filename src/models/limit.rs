//! The limit on outstanding bytes: those who wait, those who do not, and those who come home.
//!
//! The queue is a library's semaphore, whose inside no checker sees. Here each of its operations takes
//! effect at once. A thread that waits yields until its waker is called. So a wake-up that is lost fails
//! the model.

use super::{check, spawn};
use crate::error::GetError;
use crate::limit::{Charged, Limit};
use crate::sync::{AtomicUsize, Ordering, yield_now};
use std::future::Future;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::task::{Context, Poll, Wake, Waker};

/// Counts how often it is woken.
struct Wakes(AtomicUsize);

impl Wake for Wakes {
    fn wake(self: Arc<Self>) {
        // Release: as in an executor, whose next poll sees all earlier writes.
        self.0.fetch_add(1, Ordering::Release);
    }
}

/// Charges `bytes` as a thread does that waits for its turn.
fn wait_for(limit: &Limit, bytes: usize) -> Result<Charged<'_>, GetError> {
    let wakes = Arc::new(Wakes(AtomicUsize::new(0)));
    let waker = Waker::from(Arc::clone(&wakes));
    let mut context = Context::from_waker(&waker);
    let mut turn = pin!(limit.charge_in_turn(bytes));
    let mut seen = 0;
    loop {
        if let Poll::Ready(turn) = turn.as_mut().poll(&mut context) {
            return turn;
        }
        // Acquire: see `wake`.
        while wakes.0.load(Ordering::Acquire) == seen {
            yield_now();
        }
        seen = wakes.0.load(Ordering::Acquire);
    }
}

/// Polls once, and gives the charge or the wait up.
fn cancel(limit: &Limit, bytes: usize) {
    let mut turn: Pin<Box<_>> = Box::pin(limit.charge_in_turn(bytes));
    let _ = turn.as_mut().poll(&mut Context::from_waker(Waker::noop()));
}

fn limit_of(bytes: usize) -> Arc<Limit> {
    Arc::new(Limit::new(bytes))
}

fn assert_free(limit: &Limit) {
    assert!(limit.is_free(), "bytes of the limit are lost or gained");
}

// A lost wake-up would leave the waiter for ever.
#[test]
fn wait_races_coming_home() {
    check(3, || {
        let limit = limit_of(2);
        limit.charge(2);
        let other = Arc::clone(&limit);
        let homecoming = spawn(move || {
            other.give_back(1);
            other.give_back(1);
        });
        drop(wait_for(&limit, 2).unwrap());
        homecoming.join().unwrap();
        assert_free(&limit);
    });
}

// The one who leaves may have been promised what another waits for.
#[test]
fn cancel_races_coming_home() {
    check(2, || {
        let limit = limit_of(2);
        limit.charge(2);
        let other = Arc::clone(&limit);
        let homecoming = spawn(move || other.give_back(2));
        let other = Arc::clone(&limit);
        let cancelled = spawn(move || cancel(&other, 2));
        drop(wait_for(&limit, 1).unwrap());
        homecoming.join().unwrap();
        cancelled.join().unwrap();
        assert_free(&limit);
    });
}

// The debt and the free bytes must find each other: else a later get finds too much room, and a
// waiter none.
#[test]
fn debt_races_coming_home() {
    check(3, || {
        let limit = limit_of(2);
        limit.charge(2);
        let other = Arc::clone(&limit);
        let homecoming = spawn(move || other.give_back(2));
        limit.charge(1);
        homecoming.join().unwrap();
        assert!(limit.try_charge(2).is_err(), "1 of 2 bytes is charged");
        drop(limit.try_charge(1).unwrap());
        limit.give_back(1);
        assert_free(&limit);
    });
}

#[test]
fn debt_races_cancel() {
    check(3, || {
        let limit = limit_of(2);
        limit.charge(1);
        let other = Arc::clone(&limit);
        let cancelled = spawn(move || cancel(&other, 2)); // collects the free byte
        limit.charge(1);
        cancelled.join().unwrap();
        assert!(limit.try_charge(1).is_err(), "2 of 2 bytes are charged");
        limit.give_back(2);
        assert_free(&limit);
    });
}

#[test]
fn debts_race_wait_and_coming_home() {
    check(2, || {
        let limit = limit_of(2);
        limit.charge(3);
        let other = Arc::clone(&limit);
        let homecoming = spawn(move || {
            other.give_back(3);
            other.charge(1);
            other.give_back(1);
        });
        let other = Arc::clone(&limit);
        let waits = spawn(move || wait_for(&other, 2).unwrap().keep(1));
        limit.changes(0, 1);
        limit.changes(1, 0);
        homecoming.join().unwrap();
        waits.join().unwrap();
        limit.give_back(1);
        assert_free(&limit);
    });
}

// A waiter that the new limit is too low for must not wait for ever.
#[test]
fn set_races_wait() {
    check(3, || {
        let limit = limit_of(2);
        limit.charge(1);
        let other = Arc::clone(&limit);
        let setting = spawn(move || other.set(1));
        match wait_for(&limit, 2) {
            Err(error) => assert!(matches!(error, GetError::AboveLimit { .. })),
            Ok(_) => panic!("1 of 2 bytes is charged"),
        }
        setting.join().unwrap();
        limit.give_back(1);
        assert_free(&limit);
    });
}

#[test]
fn set_races_set_and_coming_home() {
    check(2, || {
        let limit = limit_of(2);
        limit.charge(2);
        let other = Arc::clone(&limit);
        let setting = spawn(move || other.set(1));
        let other = Arc::clone(&limit);
        let raising = spawn(move || other.set(3));
        limit.give_back(2);
        setting.join().unwrap();
        raising.join().unwrap();
        assert_free(&limit);
    });
}

#[test]
fn close_races_wait() {
    check(3, || {
        let limit = limit_of(1);
        limit.charge(1);
        let other = Arc::clone(&limit);
        let closing = spawn(move || other.close());
        assert!(matches!(wait_for(&limit, 1), Err(GetError::Closed)));
        closing.join().unwrap();
        limit.give_back(1);
        assert_free(&limit);
    });
}
