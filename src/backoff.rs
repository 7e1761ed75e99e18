//! A pause before something is tried again that was of no use, twice as long each time.
//!
//! Owns how often to pass. Knows nothing of what is tried.

use crate::sync::Hint;

/// How many occasions are passed at most before the next try.
///
/// 63: a try that takes some microseconds is little beside what 63 occasions take.
const PAUSE_MOST: usize = 63;

/// If two threads come at once, one occasion more or less is passed.
#[derive(Debug)]
pub(crate) struct Backoff {
    /// How many occasions to pass before the next try.
    skip: Hint,
    /// How many to pass after that, if it is of no use.
    pause: Hint,
}

impl Backoff {
    pub(crate) fn new() -> Self {
        Backoff {
            skip: Hint::new(0),
            pause: Hint::new(0),
        }
    }

    /// Whether to pass this occasion.
    pub(crate) fn skips(&self) -> bool {
        let left = self.skip.get();
        if left > 0 {
            self.skip.set(left - 1);
        }
        left > 0
    }

    /// Notes whether a try was of use. After the first that was not, the next occasion is
    /// taken all the same.
    pub(crate) fn note(&self, useful: bool) {
        let pause = self.pause.get();
        let (skip, pause) = match useful {
            true => (0, 0),
            false => (pause, (2 * pause + 1).min(PAUSE_MOST)),
        };
        self.skip.set(skip);
        self.pause.set(pause);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// How many occasions are passed until the next try.
    fn passed(backoff: &Backoff) -> usize {
        (0..).take_while(|_| backoff.skips()).count()
    }

    #[test]
    fn each_useless_try_doubles_the_pause_up_to_a_limit_and_a_useful_one_ends_it() {
        let backoff = Backoff::new();
        for round in 0..2 {
            assert_eq!(passed(&backoff), 0, "{round}");
            for pause in [0, 1, 3, 7, 15, 31, 63, 63, 63] {
                backoff.note(false);
                assert_eq!(passed(&backoff), pause, "{round}");
            }
            backoff.note(true);
        }
    }
}
