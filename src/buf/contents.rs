//! The traits by which a guard and a part are the bytes that they show.
//!
//! Each holds for both: they print, hash, compare and order as the slice of their bytes.

use super::{PooledBuf, PooledBytes};
use ::bytes::{Bytes, BytesMut};
use std::borrow::Borrow;
use std::cmp::Ordering;
use std::fmt;
use std::hash::{Hash, Hasher};
use std::slice;

/// Implements what needs no other type.
macro_rules! as_slice {
    ($of:ty) => {
        impl Borrow<[u8]> for $of {
            #[inline]
            fn borrow(&self) -> &[u8] {
                self
            }
        }

        impl Hash for $of {
            /// As a slice.
            fn hash<S: Hasher>(&self, state: &mut S) {
                self[..].hash(state);
            }
        }

        impl PartialEq for $of {
            fn eq(&self, other: &Self) -> bool {
                self[..] == other[..]
            }
        }

        impl Eq for $of {}

        impl PartialOrd for $of {
            fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
                Some(self.cmp(other))
            }
        }

        impl Ord for $of {
            fn cmp(&self, other: &Self) -> Ordering {
                self[..].cmp(&other[..])
            }
        }

        impl<T: ?Sized> PartialEq<&T> for $of
        where
            $of: PartialEq<T>,
        {
            fn eq(&self, other: &&T) -> bool {
                *self == **other
            }
        }

        impl<T: ?Sized> PartialOrd<&T> for $of
        where
            $of: PartialOrd<T>,
        {
            fn partial_cmp(&self, other: &&T) -> Option<Ordering> {
                self.partial_cmp(*other)
            }
        }

        impl fmt::LowerHex for $of {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                self.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
            }
        }

        impl fmt::UpperHex for $of {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                self.iter().try_for_each(|byte| write!(f, "{byte:02X}"))
            }
        }

        impl<'a> IntoIterator for &'a $of {
            type Item = &'a u8;
            type IntoIter = slice::Iter<'a, u8>;

            fn into_iter(self) -> Self::IntoIter {
                self.iter()
            }
        }

        impl IntoIterator for $of {
            type Item = u8;
            type IntoIter = ::bytes::buf::IntoIter<$of>;

            fn into_iter(self) -> Self::IntoIter {
                ::bytes::buf::IntoIter::new(self)
            }
        }
    };
}

as_slice!(PooledBuf);
as_slice!(PooledBytes);

/// Compares with another kind of bytes, in both directions.
macro_rules! compare {
    ($of:ty, [$($of_other:tt)*] $other:ty) => {
        impl<$($of_other)*> PartialEq<$other> for $of {
            fn eq(&self, other: &$other) -> bool {
                self[..] == *AsRef::<[u8]>::as_ref(other)
            }
        }

        impl<$($of_other)*> PartialOrd<$other> for $of {
            fn partial_cmp(&self, other: &$other) -> Option<Ordering> {
                self[..].partial_cmp(AsRef::<[u8]>::as_ref(other))
            }
        }

        compare!(reversed $of, [$($of_other)*] $other);
    };
    // With the other kind on the left side.
    (reversed $of:ty, [$($of_other:tt)*] $other:ty) => {
        impl<$($of_other)*> PartialEq<$of> for $other {
            fn eq(&self, other: &$of) -> bool {
                *AsRef::<[u8]>::as_ref(self) == other[..]
            }
        }

        impl<$($of_other)*> PartialOrd<$of> for $other {
            fn partial_cmp(&self, other: &$of) -> Option<Ordering> {
                AsRef::<[u8]>::as_ref(self).partial_cmp(&other[..])
            }
        }
    };
}

/// Compares with all kinds of bytes that are not this crate's.
macro_rules! compare_foreign {
    ($of:ty) => {
        compare!($of, [][u8]);
        compare!($of, [const N: usize] [u8; N]);
        compare!($of, [] str);
        compare!($of, [] String);
        compare!($of, [] Vec<u8>);
        compare!($of, [] Bytes);
        compare!($of, [] BytesMut);
        compare!(reversed $of, [] &[u8]);
        compare!(reversed $of, [const N: usize] &[u8; N]);
        compare!(reversed $of, [] &str);
    };
}

compare_foreign!(PooledBuf);
compare_foreign!(PooledBytes);
compare!(PooledBytes, [] PooledBuf);
