//! What `Buf` promises.

use super::{assert_panics, for_each_reader, guards, parts, pool};
use crate::rounds;
use bytes::{Buf, Bytes};
use std::io::{BufRead, IoSlice, Read};

/// 40 bytes. The first is negative as a signed number in either order, and no two of the first 16
/// are equal.
fn sample() -> Vec<u8> {
    (0..40_u8).map(|at| 0x91_u8.wrapping_mul(at + 1)).collect()
}

#[test]
fn what_remains_is_what_was_written() {
    for_each_reader(&sample(), |state, buf| {
        assert_eq!(buf.remaining(), 40, "{state}");
        assert!(buf.has_remaining(), "{state}");
        assert!(sample().starts_with(buf.chunk()), "{state}");
        assert!(!buf.chunk().is_empty(), "{state}");
    });
}

#[test]
fn nothing_remains_of_nothing() {
    for_each_reader(b"", |state, buf| {
        assert_eq!(
            (buf.remaining(), buf.has_remaining()),
            (0, false),
            "{state}"
        );
        assert!(buf.chunk().is_empty(), "{state}");
        let mut slices = [IoSlice::new(b"untouched"); 3];
        assert_eq!(buf.chunks_vectored(&mut slices), 0, "{state}");
        buf.advance(0);
        buf.copy_to_slice(&mut []);
        assert!(buf.copy_to_bytes(0).is_empty(), "{state}");
        assert_panics(state, || buf.advance(1));
        assert_panics(state, || buf.get_u8());
    });
}

#[test]
fn advancing_skips_bytes_to_the_end_and_no_further() {
    for_each_reader(&sample(), |state, buf| {
        buf.advance(0);
        buf.advance(3);
        assert_eq!(
            (buf.remaining(), buf.chunk()[0]),
            (37, sample()[3]),
            "{state}"
        );
        if state != "chained" {
            // A chain has consumed its first part by then.
            assert_panics(state, || buf.advance(38));
        }
        assert_eq!(buf.remaining(), 37, "{state}: a panic skips nothing");
        buf.advance(30); // across the chunks, where there are two
        assert_eq!(buf.chunk(), &sample()[33..], "{state}");
        buf.advance(7);
        assert!(!buf.has_remaining() && buf.chunk().is_empty(), "{state}");
        assert_panics(state, || buf.advance(1));
    });
}

#[test]
fn bytes_are_copied_out_in_order() {
    for_each_reader(&sample(), |state, buf| {
        let mut first = [0; 30];
        buf.copy_to_slice(&mut first);
        assert_eq!(first, sample()[..30], "{state}");
        let mut more = [7; 11];
        assert_panics(state, || buf.copy_to_slice(&mut more));
        assert_eq!((buf.remaining(), more), (10, [7; 11]), "{state}");
        let error = buf.try_copy_to_slice(&mut more).unwrap_err();
        assert_eq!((error.requested, error.available), (11, 10), "{state}");
        assert_eq!((buf.remaining(), more), (10, [7; 11]), "{state}");
        buf.try_copy_to_slice(&mut more[..10]).unwrap();
        assert_eq!(more[..10], sample()[30..], "{state}");
        assert!(!buf.has_remaining(), "{state}");
    });
}

#[test]
fn bytes_are_taken_out_as_a_bytes() {
    for_each_reader(&sample(), |state, buf| {
        assert!(buf.copy_to_bytes(0).is_empty(), "{state}");
        let first: Bytes = buf.copy_to_bytes(30);
        assert_eq!(buf.remaining(), 10, "{state}");
        assert_panics(state, || buf.copy_to_bytes(11));
        assert_eq!(buf.remaining(), 10, "{state}");
        let rest = buf.copy_to_bytes(10);
        assert!(!buf.has_remaining(), "{state}");
        assert_eq!([&first[..], &rest[..]].concat(), sample(), "{state}");
    });
}

#[test]
fn slices_for_a_vectored_write_show_all_that_remains() {
    for_each_reader(&sample(), |state, buf| {
        buf.advance(1);
        let mut slices = [IoSlice::new(&[]); 4];
        let count = buf.chunks_vectored(&mut slices);
        assert!((1..=2).contains(&count), "{state}");
        let shown: Vec<u8> = slices[..count]
            .iter()
            .flat_map(|slice| slice.iter().copied())
            .collect();
        assert_eq!(shown, sample()[1..], "{state}");
        assert!(slices[count..].iter().all(|slice| slice.is_empty()));
        assert_eq!(buf.chunks_vectored(&mut []), 0, "{state}");
        assert_eq!(buf.remaining(), 39, "{state}: a look consumes nothing");
    });
}

/// Reads a number by each of its methods, and compares it with what `$from` makes of the bytes.
macro_rules! numbers {
    ($($test:ident: $type:ty, $get:ident $from:ident, $try_get:ident;)*) => {
        $(
            #[test]
            fn $test() {
                const SIZE: usize = size_of::<$type>();
                let bytes = sample();
                let number = |at: usize| {
                    <$type>::$from(bytes[at..at + SIZE].try_into().expect("as many"))
                };
                // In two chunks, the middle is between them.
                let starts = [20 - SIZE / 2, 19, 0, 1, 40 - SIZE];
                for &start in &starts[..rounds(5, 1)] {
                    for_each_reader(&bytes, |state, buf| {
                        buf.advance(start);
                        assert_eq!(buf.$get().to_ne_bytes(), number(start).to_ne_bytes(), "{state}");
                        assert_eq!(buf.remaining(), 40 - start - SIZE, "{state}");
                    });
                    for_each_reader(&bytes, |state, buf| {
                        buf.advance(start);
                        let read = buf.$try_get().unwrap();
                        assert_eq!(read.to_ne_bytes(), number(start).to_ne_bytes(), "{state}");
                        assert_eq!(buf.remaining(), 40 - start - SIZE, "{state}");
                    });
                }
                for_each_reader(&bytes[..SIZE - 1], |state, buf| {
                    assert_panics(state, || buf.$get());
                    assert_eq!(buf.remaining(), SIZE - 1, "{state}");
                    let error = buf.$try_get().unwrap_err();
                    assert_eq!((error.requested, error.available), (SIZE, SIZE - 1), "{state}");
                    assert_eq!(buf.remaining(), SIZE - 1, "{state}");
                });
            }
        )*
    };
}

numbers! {
    a_u8_is_read: u8, get_u8 from_ne_bytes, try_get_u8;
    an_i8_is_read: i8, get_i8 from_ne_bytes, try_get_i8;
    a_u16_is_read: u16, get_u16 from_be_bytes, try_get_u16;
    a_u16_is_read_from_the_low_end: u16, get_u16_le from_le_bytes, try_get_u16_le;
    a_u16_is_read_as_the_machine_has_it: u16, get_u16_ne from_ne_bytes, try_get_u16_ne;
    an_i16_is_read: i16, get_i16 from_be_bytes, try_get_i16;
    an_i16_is_read_from_the_low_end: i16, get_i16_le from_le_bytes, try_get_i16_le;
    an_i16_is_read_as_the_machine_has_it: i16, get_i16_ne from_ne_bytes, try_get_i16_ne;
    a_u32_is_read: u32, get_u32 from_be_bytes, try_get_u32;
    a_u32_is_read_from_the_low_end: u32, get_u32_le from_le_bytes, try_get_u32_le;
    a_u32_is_read_as_the_machine_has_it: u32, get_u32_ne from_ne_bytes, try_get_u32_ne;
    an_i32_is_read: i32, get_i32 from_be_bytes, try_get_i32;
    an_i32_is_read_from_the_low_end: i32, get_i32_le from_le_bytes, try_get_i32_le;
    an_i32_is_read_as_the_machine_has_it: i32, get_i32_ne from_ne_bytes, try_get_i32_ne;
    a_u64_is_read: u64, get_u64 from_be_bytes, try_get_u64;
    a_u64_is_read_from_the_low_end: u64, get_u64_le from_le_bytes, try_get_u64_le;
    a_u64_is_read_as_the_machine_has_it: u64, get_u64_ne from_ne_bytes, try_get_u64_ne;
    an_i64_is_read: i64, get_i64 from_be_bytes, try_get_i64;
    an_i64_is_read_from_the_low_end: i64, get_i64_le from_le_bytes, try_get_i64_le;
    an_i64_is_read_as_the_machine_has_it: i64, get_i64_ne from_ne_bytes, try_get_i64_ne;
    a_u128_is_read: u128, get_u128 from_be_bytes, try_get_u128;
    a_u128_is_read_from_the_low_end: u128, get_u128_le from_le_bytes, try_get_u128_le;
    a_u128_is_read_as_the_machine_has_it: u128, get_u128_ne from_ne_bytes, try_get_u128_ne;
    an_i128_is_read: i128, get_i128 from_be_bytes, try_get_i128;
    an_i128_is_read_from_the_low_end: i128, get_i128_le from_le_bytes, try_get_i128_le;
    an_i128_is_read_as_the_machine_has_it: i128, get_i128_ne from_ne_bytes, try_get_i128_ne;
    an_f32_is_read: f32, get_f32 from_be_bytes, try_get_f32;
    an_f32_is_read_from_the_low_end: f32, get_f32_le from_le_bytes, try_get_f32_le;
    an_f32_is_read_as_the_machine_has_it: f32, get_f32_ne from_ne_bytes, try_get_f32_ne;
    an_f64_is_read: f64, get_f64 from_be_bytes, try_get_f64;
    an_f64_is_read_from_the_low_end: f64, get_f64_le from_le_bytes, try_get_f64_le;
    an_f64_is_read_as_the_machine_has_it: f64, get_f64_ne from_ne_bytes, try_get_f64_ne;
}

/// The number in these bytes, the highest byte first.
fn unsigned(bytes: impl Iterator<Item = u8>) -> u64 {
    bytes.fold(0, |number, byte| number << 8 | u64::from(byte))
}

/// The same, with the sign in the highest bit of `width` bytes.
fn signed(number: u64, width: usize) -> i64 {
    match 64 - 8 * width as u32 {
        64 => 0,
        unused => (number << unused) as i64 >> unused,
    }
}

#[test]
fn numbers_of_any_width_are_read_with_their_sign() {
    let bytes = sample();
    // Not 0: `get_int(0)` panics in `bytes` 1.11.
    for width in 1..=8 {
        let of_high = unsigned(bytes[..width].iter().copied());
        let of_low = unsigned(bytes[..width].iter().rev().copied());
        let of_machine = match cfg!(target_endian = "big") {
            true => of_high,
            false => of_low,
        };
        for_each_reader(&bytes, |state, buf| {
            let read = [buf.get_uint(width), buf.remaining() as u64];
            assert_eq!(read, [of_high, 40 - width as u64], "{state}, {width}");
        });
        for_each_reader(&bytes, |state, buf| {
            assert_eq!(buf.get_uint_le(width), of_low, "{state}, {width}");
        });
        for_each_reader(&bytes, |state, buf| {
            assert_eq!(buf.get_uint_ne(width), of_machine, "{state}, {width}");
        });
        for_each_reader(&bytes, |state, buf| {
            assert_eq!(
                buf.get_int(width),
                signed(of_high, width),
                "{state}, {width}"
            );
        });
        for_each_reader(&bytes, |state, buf| {
            assert_eq!(
                buf.get_int_le(width),
                signed(of_low, width),
                "{state}, {width}"
            );
        });
        for_each_reader(&bytes, |state, buf| {
            assert_eq!(
                buf.get_int_ne(width),
                signed(of_machine, width),
                "{state}, {width}"
            );
        });
        for_each_reader(&bytes, |state, buf| {
            // Not `try_get_int`: in bytes 1.12 it does not extend the sign.
            assert_eq!(buf.try_get_uint(width), Ok(of_high), "{state}, {width}");
        });
        for_each_reader(&bytes, |state, buf| {
            assert_eq!(buf.try_get_uint_le(width), Ok(of_low), "{state}, {width}");
        });
    }
}

#[test]
fn numbers_of_a_width_that_is_not_there_are_refused() {
    for_each_reader(&sample()[..3], |state, buf| {
        assert_panics(state, || buf.get_uint(4));
        assert_panics(state, || buf.get_int_le(4));
        let error = buf.try_get_uint(4).unwrap_err();
        assert_eq!((error.requested, error.available), (4, 3), "{state}");
        assert_eq!(buf.remaining(), 3, "{state}");
    });
    for_each_reader(&sample(), |state, buf| {
        assert_panics(state, || buf.get_uint(9));
        assert_panics(state, || buf.get_int(9));
    });
}

#[test]
fn adapters_of_a_guard_and_of_a_part_read_the_same() {
    fn with_all(state: &str, make: &dyn Fn() -> Box<dyn Buf>) {
        let bytes = sample();
        let mut taken = make().take(10);
        assert_eq!(
            (taken.remaining(), taken.chunk().len()),
            (10, 10),
            "{state}"
        );
        assert_panics(state, || taken.advance(11));
        taken.advance(4);
        taken.set_limit(2);
        assert_eq!(taken.copy_to_bytes(2), bytes[4..6], "{state}");
        assert_eq!(taken.into_inner().remaining(), 34, "{state}");

        let mut chained = make().chain(make());
        chained.advance(38);
        assert_eq!(
            chained.get_u32().to_be_bytes(),
            [bytes[38], bytes[39], bytes[0], bytes[1]]
        );
        let mut slices = [IoSlice::new(&[]); 2];
        assert_eq!(chained.chunks_vectored(&mut slices), 1, "{state}");
        assert_eq!(chained.last_ref().remaining(), 38, "{state}");
        assert_eq!(chained.copy_to_bytes(38), bytes[2..], "{state}");

        let mut reader = make().reader();
        let mut read = [0; 15];
        assert_eq!(reader.read(&mut read).unwrap(), 15, "{state}");
        assert_eq!(read, bytes[..15], "{state}");
        assert_eq!(reader.fill_buf().unwrap(), &bytes[15..], "{state}");
        reader.consume(5);
        let mut rest = Vec::new();
        reader.read_to_end(&mut rest).unwrap();
        assert_eq!(rest, bytes[20..], "{state}");
        assert_eq!(reader.read(&mut read).unwrap(), 0, "{state}: the end");
    }
    let pool = pool();
    for (at, guard) in guards(&pool, &sample()).iter().enumerate() {
        with_all(guard.state, &|| {
            let mut guards = guards(&pool, &sample());
            let guard = guards.swap_remove(at);
            // Without the part beside it: the guard alone.
            Box::new(guard.buf)
        });
    }
    for (state, part) in parts(&pool, &sample()) {
        with_all(state, &|| Box::new(part.clone()));
    }
}

#[test]
fn a_guard_and_a_part_are_iterated_by_byte() {
    let pool = pool();
    for guard in guards(&pool, &sample()) {
        let bytes: Vec<u8> = guard.buf.into_iter().collect();
        assert_eq!(bytes, sample(), "{}", guard.state);
    }
    for (state, part) in parts(&pool, &sample()) {
        let bytes: Vec<u8> = (&part).into_iter().copied().collect();
        assert_eq!(bytes, sample(), "{state}");
        assert_eq!(part.into_iter().size_hint(), (40, Some(40)), "{state}");
    }
}

#[test]
fn a_reference_and_a_box_read_as_the_guard_itself() {
    fn read(mut buf: impl Buf) -> u16 {
        buf.get_u16()
    }
    let pool = pool();
    let mut buf = pool.copy_from_slice(&[1, 2, 3, 4]);
    assert_eq!(read(&mut buf), 0x0102);
    assert_eq!(read(Box::new(buf)), 0x0304);
    let mut part = pool.copy_from_slice(&[1, 2, 3, 4]).freeze();
    assert_eq!(read(&mut part), 0x0102);
    assert_eq!(read(Box::new(part)), 0x0304);
    assert_eq!(crate::total(&pool).outstanding, 0);
}
