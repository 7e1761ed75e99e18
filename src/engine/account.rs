//! A limit on retained weight: room is leased before an item is put there.
//!
//! Owns one number and its limit. Knows nothing of the items, or of who leases.
//!
//! Thread caches lease room for several items at once. A magazine takes its lease along from level
//! to level. So a get or a drop in a thread's own cache leases nothing. The retained weight is
//! never above the leased weight. The leased weight is never above the limit, unless that has fallen: then
//! no more is leased, and `trim` frees what is above.

use crate::sync::{AtomicUsize, Hint, Ordering};

/// The limit of an account that has none.
pub(crate) const UNLIMITED: usize = usize::MAX;

/// A limit, and how much of it is leased.
pub(super) struct Account {
    limit: Hint,
    leased: AtomicUsize,
    /// `false` for an account that never has a limit: it counts nothing.
    counts: bool,
}

impl Account {
    /// An account whose limit stays.
    pub(super) fn new(limit: usize) -> Self {
        Account {
            counts: limit != UNLIMITED,
            ..Account::with_variable(limit)
        }
    }

    /// An account whose limit may change, also from and to none.
    pub(super) fn with_variable(limit: usize) -> Self {
        Account {
            limit: Hint::new(limit),
            leased: AtomicUsize::new(0),
            counts: true,
        }
    }

    /// Sets the limit. Leases above it go on, and so does one that another thread is just taking.
    pub(super) fn set_limit(&self, limit: usize) {
        debug_assert!(self.counts, "nobody knows what is leased");
        self.limit.set(limit);
    }

    /// Leases room for `count` items of `weight`, or for as many as fit. Returns how many that is.
    pub(super) fn lease(&self, weight: usize, count: usize) -> usize {
        if !self.counts {
            return count;
        }
        let mut granted = 0;
        // Acquire: pairs with the Release in `give_back`: an item that ended is gone before another
        // takes its place. Relaxed: if the exchange fails, no item is put anywhere.
        let _ = self
            .leased
            .fetch_update(Ordering::Acquire, Ordering::Relaxed, |leased| {
                granted = count.min(self.limit.get().saturating_sub(leased) / weight);
                (granted > 0).then(|| leased + granted * weight)
            });
        granted
    }

    /// How many items of `weight` there is room for; a hint.
    pub(super) fn room_for(&self, weight: usize) -> usize {
        // Relaxed: a hint. It is 0 if nothing is counted.
        let leased = self.leased.load(Ordering::Relaxed);
        self.limit.get().saturating_sub(leased) / weight
    }

    pub(super) fn limit(&self) -> usize {
        self.limit.get()
    }

    /// Ends leases of `weight` in all.
    pub(super) fn give_back(&self, weight: usize) {
        if self.counts && weight > 0 {
            // Release: see `lease`.
            let before = self.leased.fetch_sub(weight, Ordering::Release);
            debug_assert!(before >= weight, "more is given back than was leased");
        }
    }

    /// Whether there would be room for `weight` if enough other items were freed.
    pub(super) fn is_short_of(&self, weight: usize) -> bool {
        // Relaxed: a hint. It is 0 if nothing is counted.
        let leased = self.leased.load(Ordering::Relaxed);
        let limit = self.limit.get();
        weight <= limit && limit - weight < leased
    }

    /// Whether more is leased than the limit, which has fallen.
    pub(super) fn is_above_limit(&self) -> bool {
        // Relaxed: a hint. Whoever leases next looks again.
        self.leased.load(Ordering::Relaxed) > self.limit.get()
    }

    /// The leased weight, never less than the weight retained under it. 0 if nothing is counted.
    pub(super) fn leased(&self) -> usize {
        // Relaxed: read for `Stats`.
        self.leased.load(Ordering::Relaxed)
    }

    /// Fails if the account counts leases, and has not leased exactly this weight.
    pub(super) fn assert_leased(&self, leased: usize) {
        if self.counts {
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

    #[test]
    fn leases_above_a_lower_limit_go_on_and_no_others_begin() {
        let account = Account::with_variable(UNLIMITED);
        assert_eq!(account.lease(2, 10), 10);
        account.set_limit(20);
        assert!(!account.is_above_limit());
        assert_eq!((account.lease(1, 1), account.room_for(1)), (0, 0));
        account.set_limit(7);
        assert!(account.is_above_limit());
        account.give_back(14);
        assert!(!account.is_above_limit());
        assert_eq!((account.lease(1, 5), account.leased()), (1, 7));
        account.set_limit(UNLIMITED);
        assert_eq!(account.lease(5, 3), 3);
        account.assert_leased(22);
    }
}
