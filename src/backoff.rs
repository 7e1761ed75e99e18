//! A pause before the next try of something that did not help. It doubles each time.
//!
//! Owns how many occasions to skip. Knows nothing of the tries themselves.

use crate::sync::Hint;

/// The most occasions that are skipped before the next try.
///
/// 63: a try takes some microseconds, which is little beside the time of 63 occasions.
const PAUSE_MOST: usize = 63;

/// Two threads that use it at once may skip one occasion more or fewer.
#[derive(Debug)]
pub(crate) struct Backoff {
    /// Occasions to skip before the next try.
    skip: Hint,
    /// Occasions to skip after that try, if it does not help.
    pause: Hint,
}

impl Backoff {
    pub(crate) fn new() -> Self {
        Backoff {
            skip: Hint::new(0),
            pause: Hint::new(0),
        }
    }

    /// Whether to skip this occasion.
    pub(crate) fn skips(&self) -> bool {
        let left = self.skip.get();
        if left > 0 {
            self.skip.set(left - 1);
        }
        left > 0
    }

    /// Notes whether a try helped. After the first one that did not, the next occasion is still
    /// taken.
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

    /// How many occasions are skipped until the next try.
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
