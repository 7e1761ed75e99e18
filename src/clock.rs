//! A coarse clock, and a timer that recovers from any jump of the clock.
//!
//! Owns the unit, milliseconds that wrap, and every read of a clock: on a system without one, no
//! timer is ever over. Knows nothing of the use of a timer.
//!
//! The system promises that its clock does not go back. Virtual machines that were stopped, moved
//! or restored have broken that promise. A timer that waits for the clock to catch up then waits
//! for days.

#![allow(clippy::disallowed_methods)] // only this file reads the clock

use crate::sync::Hint;
use std::thread;
use std::time::{Duration, Instant};

/// Whether the system has a clock. `wasm32-unknown-unknown` has none: `Instant::now` panics.
const HAS_CLOCK: bool = !cfg!(all(target_family = "wasm", target_os = "unknown"));

/// Sleeps for at least `least`. Returns how long that took, as far as there is a clock.
pub(crate) fn nap(least: Duration) -> Duration {
    let before = has_clock().then(Instant::now);
    thread::sleep(least);
    before.map_or(least, |before| before.elapsed())
}

/// Measures how long something takes.
pub(crate) struct Stopwatch(Option<Instant>);

impl Stopwatch {
    pub(crate) fn start() -> Self {
        Stopwatch(has_clock().then(Instant::now))
    }

    /// The time since the start: 0 where there is no clock, or if the clock has gone back.
    pub(crate) fn passed(&self) -> Duration {
        self.0.map_or(Duration::ZERO, |start| start.elapsed())
    }
}

/// Milliseconds since a fixed moment, which wrap; `None` where there is no clock.
fn now() -> Option<usize> {
    has_clock().then(system::now)
}

#[cfg(not(test))]
fn has_clock() -> bool {
    HAS_CLOCK
}

#[cfg(test)]
fn has_clock() -> bool {
    HAS_CLOCK && !tests::CLOCK_IS_GONE.get()
}

/// How many milliseconds behind the last restart the clock may be without counting as set back.
///
/// A second: more than lies between two threads' reads of the clock.
const BACK_MOST: usize = 1000;

/// An event after an interval; never where there is no clock.
pub(crate) struct Timer {
    interval: usize,
    /// The time of the last restart.
    since: Hint,
}

impl Timer {
    pub(crate) fn new(interval: Duration) -> Self {
        Self::new_at(interval, now().unwrap_or(0))
    }

    fn new_at(interval: Duration, now: usize) -> Self {
        // At most half of the range, so that the timer stays over for at least as long.
        let interval = usize::try_from(interval.as_millis())
            .unwrap_or(usize::MAX)
            .min(usize::MAX / 2);
        Timer {
            interval,
            since: Hint::new(now),
        }
    }

    /// Whether the interval has passed since the last restart, or the clock has been set back
    /// since.
    pub(crate) fn is_over(&self) -> bool {
        now().is_some_and(|now| self.is_over_at(now))
    }

    /// Over too soon once after the clock was set back. The restart then takes the present time.
    fn is_over_at(&self, now: usize) -> bool {
        let passed = now.wrapping_sub(self.since.get());
        // A clock that is a little behind gives the highest values.
        (self.interval..=usize::MAX - BACK_MOST).contains(&passed)
    }

    pub(crate) fn restart(&self) {
        if let Some(now) = now() {
            self.restart_at(now);
        }
    }

    fn restart_at(&self, now: usize) {
        self.since.set(now);
    }
}

#[cfg(all(target_os = "linux", not(miri)))]
mod system {
    use std::mem::MaybeUninit;

    /// The time of the kernel's tick, 1 to 10 ms old: read without asking the hardware.
    pub(super) fn now() -> usize {
        // Zeroed, since on some machines it has unnamed fields.
        let mut time = MaybeUninit::<libc::timespec>::zeroed();
        // SAFETY: writes one `timespec`, to the one that it is given, which is made of numbers. The
        // call cannot fail with this clock. If it did, the time would stand still.
        let time = unsafe {
            libc::clock_gettime(libc::CLOCK_MONOTONIC_COARSE, time.as_mut_ptr());
            time.assume_init()
        };
        (time.tv_sec as usize)
            .wrapping_mul(1000)
            .wrapping_add(time.tv_nsec as usize / 1_000_000)
    }
}

#[cfg(any(miri, not(target_os = "linux")))]
mod system {
    use std::sync::OnceLock;
    use std::time::Instant;

    pub(super) fn now() -> usize {
        static START: OnceLock<Instant> = OnceLock::new();
        START.get_or_init(Instant::now).elapsed().as_millis() as usize
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Pool;
    use std::cell::Cell;
    use std::thread;

    thread_local! {
        /// Whether this thread runs as on a system without a clock.
        pub(super) static CLOCK_IS_GONE: Cell<bool> = const { Cell::new(false) };
    }

    const INTERVAL: usize = 10_000;
    const DAY: usize = 24 * 60 * 60 * 1000;
    /// Where the clock begins: at 0, in the middle, and so that it wraps in each stretch of the
    /// interval.
    const STARTS: [usize; 6] = [
        0,
        123_456_789,
        usize::MAX,
        usize::MAX - 1,
        usize::MAX - INTERVAL,
        usize::MAX - INTERVAL / 2,
    ];

    fn timer(now: usize) -> Timer {
        Timer::new_at(Duration::from_millis(INTERVAL as u64), now)
    }

    #[test]
    fn it_is_over_from_the_end_of_the_interval_on() {
        for start in STARTS {
            let timer = timer(start);
            for (passed, over) in [
                (0, false),
                (1, false),
                (INTERVAL - 1, false),
                (INTERVAL, true),
                (INTERVAL + 1, true),
                (20 * DAY, true),
                (usize::MAX / 2, true),
            ] {
                assert_eq!(
                    timer.is_over_at(start.wrapping_add(passed)),
                    over,
                    "{passed}"
                );
            }
        }
    }

    #[test]
    fn a_restart_begins_the_interval_anew() {
        for start in STARTS {
            let timer = timer(start);
            let mut now = start;
            for _ in 0..5 {
                now = now.wrapping_add(INTERVAL + 7);
                assert!(timer.is_over_at(now));
                timer.restart_at(now);
                assert!(!timer.is_over_at(now));
                assert!(!timer.is_over_at(now.wrapping_add(INTERVAL - 1)));
            }
        }
    }

    // Failed once: the timer waited until the clock had reached its old time again.
    #[test]
    fn a_clock_that_jumps_back_makes_it_over_once() {
        for start in STARTS {
            for back in [BACK_MOST + 1, INTERVAL, 2 * INTERVAL, DAY, 20 * DAY] {
                let timer = timer(start);
                let now = start.wrapping_sub(back);
                assert!(timer.is_over_at(now), "back by {back}");
                timer.restart_at(now);
                assert!(!timer.is_over_at(now));
                assert!(!timer.is_over_at(now.wrapping_add(INTERVAL - 1)));
                assert!(timer.is_over_at(now.wrapping_add(INTERVAL)));
            }
        }
    }

    // Otherwise a thread that read the clock right before another one restarted the timer would
    // repeat the same work at once.
    #[test]
    fn a_clock_that_is_a_little_behind_has_not_moved() {
        for start in STARTS {
            let timer = timer(start);
            for back in [1, 2, BACK_MOST] {
                assert!(
                    !timer.is_over_at(start.wrapping_sub(back)),
                    "back by {back}"
                );
            }
            assert!(timer.is_over_at(start.wrapping_add(INTERVAL)));
        }
    }

    #[test]
    fn an_interval_of_no_length_is_over_at_once_and_the_longest_is_over_some_day() {
        for start in STARTS {
            let none = Timer::new_at(Duration::ZERO, start);
            assert!(none.is_over_at(start));
            let longest = Timer::new_at(Duration::MAX, start);
            assert!(!longest.is_over_at(start.wrapping_add(usize::MAX / 2 - 1)));
            assert!(longest.is_over_at(start.wrapping_add(usize::MAX / 2)));
            assert!(longest.is_over_at(start.wrapping_add(usize::MAX / 2 + DAY)));
        }
    }

    #[test]
    fn the_systems_clock_moves_in_milliseconds() {
        let timer = Timer::new(Duration::from_millis(20));
        let longer = Timer::new(Duration::from_secs(100_000));
        thread::sleep(Duration::from_millis(60)); // 20, and more than two of the coarsest ticks
        assert!(timer.is_over());
        assert!(!longer.is_over(), "its interval is a day");
    }

    /// Runs on a new thread, so that other tests have a clock.
    fn without_a_clock(work: impl FnOnce() + Send) {
        let run = || {
            CLOCK_IS_GONE.set(true);
            work();
        };
        thread::scope(|scope| scope.spawn(run).join()).expect("it did not fail");
    }

    #[test]
    fn without_a_clock_no_interval_is_ever_over() {
        without_a_clock(|| {
            for interval in [0, 1, 1000] {
                let timer = Timer::new(Duration::from_millis(interval));
                thread::sleep(Duration::from_millis(3));
                assert!(!timer.is_over());
                timer.restart();
                assert!(!timer.is_over());
            }
        });
    }

    // Where there is no clock, reading it would panic.
    #[test]
    fn a_pool_without_a_clock_serves_and_calibrates() {
        without_a_clock(|| {
            let options = Pool::builder()
                .trim_interval(Duration::from_millis(1))
                .calibrate_interval(Duration::from_millis(1))
                .calibrate_after(5);
            let pool = options.build().expect("valid");
            drop((0..100).map(|_| pool.get(600)).collect::<Vec<_>>());
            let idle = pool.stats().total.retained_buffers;
            for _ in 0..3 {
                thread::sleep(Duration::from_millis(3));
                drop(pool.get(5000)); // a miss or a depot hit: the slow path
                drop(pool.adopt(bytes::BytesMut::with_capacity(700)));
            }
            let after = pool.stats().total;
            assert_eq!(after.trimmed, 0, "no time has passed");
            assert!(after.retained_buffers > idle);
            assert!(
                pool.stats().calibrations > 0,
                "calibrations by returns go on"
            );
            assert_eq!((pool.trim().buffers, pool.trim().buffers > 0), (0, true));
        });
    }
}
