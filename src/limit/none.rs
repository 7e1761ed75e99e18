//! The limit of a crate without the feature `limit`: a type without values.
//!
//! So `Option<Limit>` is always `None` and takes no room, and the compiler removes what would follow.

use crate::error::GetError;
use std::marker::PhantomData;

pub(crate) enum Limit {}

pub(crate) struct Charged<'a> {
    none: Limit,
    of: PhantomData<&'a Limit>,
}

impl Charged<'_> {
    pub(crate) fn keep(self, _bytes: usize) {
        match self.none {}
    }
}

impl Limit {
    pub(crate) fn new(_bytes: usize) -> Self {
        unreachable!("no option sets a limit")
    }

    pub(crate) fn bytes(&self) -> usize {
        match *self {}
    }

    pub(crate) fn waits(&self) -> u64 {
        match *self {}
    }

    pub(crate) fn refusals(&self) -> u64 {
        match *self {}
    }

    pub(crate) fn try_charge(&self, _bytes: usize) -> Result<Charged<'_>, GetError> {
        match *self {}
    }

    pub(crate) fn charge(&self, _bytes: usize) {
        match *self {}
    }

    pub(crate) fn give_back(&self, _bytes: usize) {
        match *self {}
    }

    pub(crate) fn changes(&self, _before: usize, _after: usize) {
        match *self {}
    }
}
