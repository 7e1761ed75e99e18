//! A limit on retained weight: room is leased before an item is put there.
//!
//! Owns one number and its limit. Knows nothing of the items, or of who leases.
//!
//! Thread caches lease room for several items at once. A magazine takes its lease along from level
//! to level. So a get or a drop in a thread's own cache leases nothing. The retained weight is
//! never above the leased weight, and the leased weight never above the limit.

use crate::sync::{AtomicUsize, Ordering};

/// The limit of an account that has none.
pub(crate) const UNLIMITED: usize = usize::MAX;

/// A limit, and how much of it is leased.
pub(super) struct Account {
    limit: usize,
    leased: AtomicUsize,
}

impl Account {
    pub(super) fn new(limit: usize) -> Self {
        Account {
            limit,
            leased: AtomicUsize::new(0),
        }
    }

    /// Leases room for `count` items of `weight`, or for as many as fit. Returns how many that is.
    pub(super) fn lease(&self, weight: usize, count: usize) -> usize {
        if self.limit == UNLIMITED {
            return count; // not even counted
        }
        let mut granted = 0;
        // Acquire: pairs with the Release in `give_back`: an item that ended is gone before another
        // takes its place. Relaxed: if the exchange fails, no item is put anywhere.
        let _ = self
            .leased
            .fetch_update(Ordering::Acquire, Ordering::Relaxed, |leased| {
                granted = count.min((self.limit - leased) / weight);
                (granted > 0).then(|| leased + granted * weight)
            });
        granted
    }

    /// How many items of `weight` there is room for; a hint.
    pub(super) fn room_for(&self, weight: usize) -> usize {
        // Relaxed: a hint.
        match self.limit {
            UNLIMITED => usize::MAX,
            limit => (limit - self.leased.load(Ordering::Relaxed)) / weight,
        }
    }

    pub(super) fn limit(&self) -> usize {
        self.limit
    }

    /// Ends leases of `weight` in all.
    pub(super) fn give_back(&self, weight: usize) {
        if self.limit != UNLIMITED && weight > 0 {
            // Release: see `lease`.
            let before = self.leased.fetch_sub(weight, Ordering::Release);
            debug_assert!(before >= weight, "more is given back than was leased");
        }
    }

    /// Whether there would be room for `weight` if enough other items were freed.
    pub(super) fn is_short_of(&self, weight: usize) -> bool {
        // Relaxed: a hint.
        let leased = self.leased.load(Ordering::Relaxed);
        weight <= self.limit && self.limit - weight < leased // nothing is counted without a limit
    }

    /// The leased weight, never less than the weight retained under it.
    pub(super) fn leased(&self) -> usize {
        // Relaxed: read for `Stats`.
        match self.limit {
            UNLIMITED => UNLIMITED,
            _ => self.leased.load(Ordering::Relaxed),
        }
    }

    /// Fails if the account counts leases, and has not leased exactly this weight.
    pub(super) fn assert_leased(&self, leased: usize) {
        if self.limit != UNLIMITED {
            assert_eq!(
                self.leased(),
                leased,
                "leased weight, and weight of its holders"
            );
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    // Which of two accounts is short decides which trim makes room.
    #[test]
    fn an_account_is_short_of_a_weight_that_fits_the_limit_but_not_beside_the_leases() {
        for (limit, leased, weight, short) in [
            (10, 10, 1, true),
            (10, 9, 1, false),
            (10, 7, 4, true),
            (10, 6, 4, false),
            (10, 1, 10, true),
            (10, 0, 10, false),
            (10, 10, 11, false), // too large in any case
            (0, 0, 1, false),
            (UNLIMITED, 1000, 1, false),
        ] {
            let account = Account::new(limit);
            assert_eq!(account.lease(1, leased), leased);
            let told = account.is_short_of(weight);
            assert_eq!(told, short, "{weight} more than {leased} of {limit}");
        }
    }
}
