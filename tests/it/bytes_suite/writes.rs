//! What `BufMut` promises.

use super::{assert_panics, for_each_writer, guards, pool};
use crate::rounds;
use bytes::{Buf, BufMut};
use std::io::Write;

const MOST: usize = isize::MAX as usize;

#[test]
fn there_is_room_until_no_allocation_can_be_that_large() {
    for_each_writer(|state, buf| {
        assert_eq!(buf.remaining_mut(), MOST, "{state}");
        assert!(buf.has_remaining_mut(), "{state}");
        buf.put_bytes(1, 100);
        assert_eq!(buf.remaining_mut(), MOST - 100, "{state}");
    });
}

#[test]
fn a_chunk_is_never_empty_and_takes_what_is_announced() {
    for_each_writer(|state, buf| {
        let mut expected = Vec::new();
        // Past the capacity of any state.
        while expected.len() < 6000 {
            let next = expected.len() as u8;
            let chunk = buf.chunk_mut();
            assert!(chunk.len() > 0, "{state}");
            let count = chunk.len().min(700);
            for at in 0..count {
                chunk.write_byte(at, next.wrapping_add(at as u8));
            }
            // SAFETY: these bytes were written above.
            unsafe { buf.advance_mut(count) };
            expected.extend((0..count).map(|at| next.wrapping_add(at as u8)));
            assert_eq!(*buf, expected, "{state}");
        }
    });
}

#[test]
fn what_is_written_to_a_chunk_and_not_announced_is_not_there() {
    for_each_writer(|state, buf| {
        buf.put_slice(b"abc");
        buf.chunk_mut().write_byte(0, b'x');
        assert_eq!(buf, "abc", "{state}");
        // SAFETY: of no bytes, none must be written.
        unsafe { buf.advance_mut(0) };
        buf.put_u8(b'd');
        assert_eq!(buf, "abcd", "{state}");
    });
}

#[test]
fn to_announce_more_than_a_chunk_has_panics() {
    for_each_writer(|state, buf| {
        buf.put_slice(b"abc");
        let len = buf.chunk_mut().len();
        for count in [len + 1, len + 10_000, usize::MAX] {
            assert_panics(state, || {
                // SAFETY: none is announced: it panics.
                unsafe { buf.advance_mut(count) };
            });
        }
        assert_eq!(buf, "abc", "{state}");
    });
}

#[test]
fn slices_are_appended_over_the_capacity() {
    for_each_writer(|state, buf| {
        let mut expected = Vec::new();
        for len in [0, 1, 63, 64, 65, 500, 3000, 0, 7] {
            let piece: Vec<u8> = (0..len).map(|at| at as u8).collect();
            buf.put_slice(&piece);
            expected.extend_from_slice(&piece);
            assert_eq!(*buf, expected, "{state}");
        }
    });
}

#[test]
fn bytes_are_repeated_over_the_capacity() {
    for_each_writer(|state, buf| {
        buf.put_bytes(b'a', 0);
        buf.put_bytes(b'a', 3);
        buf.put_bytes(0, 2000);
        assert_eq!((buf.len(), &buf[..4]), (2003, &b"aaa\0"[..]), "{state}");
        assert!(buf[3..].iter().all(|&byte| byte == 0), "{state}");
        assert_panics(state, || buf.put_bytes(0, MOST));
        assert_eq!(buf.len(), 2003, "{state}");
    });
}

#[test]
fn all_of_a_source_is_appended_and_consumed() {
    for_each_writer(|state, buf| {
        let pool = pool();
        let mut source = pool.copy_from_slice(&[1; 300]).chain(&[2; 700][..]);
        buf.put(&mut source);
        assert!(!source.has_remaining(), "{state}");
        buf.put(pool.copy_from_slice(b"end").freeze());
        buf.put(&b""[..]);
        assert_eq!(*buf, [&[1; 300][..], &[2; 700], b"end"].concat(), "{state}");
    });
}

#[test]
fn a_limit_takes_as_many_bytes_and_no_more() {
    for_each_writer(|state, buf| {
        let mut limited = (&mut *buf).limit(5);
        assert_eq!(limited.remaining_mut(), 5, "{state}");
        assert!((1..=5).contains(&limited.chunk_mut().len()), "{state}");
        limited.put_slice(b"abc");
        assert_panics(state, || limited.put_slice(b"def"));
        limited.put_slice(b"de");
        assert!(!limited.has_remaining_mut(), "{state}");
        assert_eq!(buf, "abcde", "{state}");
    });
}

#[test]
fn a_writer_and_a_chain_of_writers_append() {
    for_each_writer(|state, buf| {
        let mut writer = (&mut *buf).writer();
        write!(writer, "{}-x", 12).unwrap();
        writer.flush().unwrap();
        assert_eq!(writer.get_ref().len(), 4, "{state}");
        let pool = pool();
        let mut rest = pool.get(1);
        (&mut *buf)
            .limit(3)
            .chain_mut(&mut rest)
            .put_slice(b"abcdef");
        assert_eq!(
            (&buf[..], &rest[..]),
            (&b"12-xabc"[..], &b"def"[..]),
            "{state}"
        );
    });
}

#[test]
fn a_reference_and_a_box_write_as_the_guard_itself() {
    fn write(mut buf: impl BufMut) {
        buf.put_u16(0x0102);
    }
    let mut buf = pool().get(1);
    write(&mut buf);
    write(Box::new(&mut buf));
    let writer: &mut dyn BufMut = &mut buf;
    writer.put_u8(3);
    assert_eq!(buf, [1, 2, 1, 2, 3]);
}

/// Writes numbers by each method, as many as pass the capacity, and compares the bytes.
macro_rules! numbers {
    ($($test:ident: $type:ty, $($put:ident $to:ident),*;)*) => {
        $(
            #[test]
            fn $test() {
                for_each_writer(|state, buf| {
                    let mut expected = Vec::new();
                    for round in 0..60_u8 {
                        let bytes = std::array::from_fn(|at| round.wrapping_mul(0x91) ^ at as u8);
                        let number = <$type>::from_ne_bytes(bytes);
                        $(
                            buf.$put(number);
                            expected.extend_from_slice(&number.$to());
                        )*
                    }
                    assert_eq!(*buf, expected, "{state}");
                });
            }
        )*
    };
}

numbers! {
    a_u8_is_written: u8, put_u8 to_ne_bytes;
    an_i8_is_written: i8, put_i8 to_ne_bytes;
    a_u16_is_written_in_each_order: u16,
        put_u16 to_be_bytes, put_u16_le to_le_bytes, put_u16_ne to_ne_bytes;
    an_i16_is_written_in_each_order: i16,
        put_i16 to_be_bytes, put_i16_le to_le_bytes, put_i16_ne to_ne_bytes;
    a_u32_is_written_in_each_order: u32,
        put_u32 to_be_bytes, put_u32_le to_le_bytes, put_u32_ne to_ne_bytes;
    an_i32_is_written_in_each_order: i32,
        put_i32 to_be_bytes, put_i32_le to_le_bytes, put_i32_ne to_ne_bytes;
    a_u64_is_written_in_each_order: u64,
        put_u64 to_be_bytes, put_u64_le to_le_bytes, put_u64_ne to_ne_bytes;
    an_i64_is_written_in_each_order: i64,
        put_i64 to_be_bytes, put_i64_le to_le_bytes, put_i64_ne to_ne_bytes;
    a_u128_is_written_in_each_order: u128,
        put_u128 to_be_bytes, put_u128_le to_le_bytes, put_u128_ne to_ne_bytes;
    an_i128_is_written_in_each_order: i128,
        put_i128 to_be_bytes, put_i128_le to_le_bytes, put_i128_ne to_ne_bytes;
    an_f32_is_written_in_each_order: f32,
        put_f32 to_be_bytes, put_f32_le to_le_bytes, put_f32_ne to_ne_bytes;
    an_f64_is_written_in_each_order: f64,
        put_f64 to_be_bytes, put_f64_le to_le_bytes, put_f64_ne to_ne_bytes;
}

#[test]
fn numbers_of_any_width_are_written_with_their_lowest_bytes() {
    let number = 0x8899_aabb_ccdd_eeff_u64;
    for width in 0..=8 {
        for_each_writer(|state, buf| {
            let (high, low) = (number.to_be_bytes(), number.to_le_bytes());
            let machine = match cfg!(target_endian = "big") {
                true => &high[8 - width..],
                false => &low[..width],
            };
            buf.put_uint(number, width);
            buf.put_uint_le(number, width);
            buf.put_uint_ne(number, width);
            buf.put_int(number as i64, width);
            buf.put_int_le(number as i64, width);
            buf.put_int_ne(number as i64, width);
            let once = [&high[8 - width..], &low[..width], machine].concat();
            assert_eq!(*buf, [&once[..], &once[..]].concat(), "{state}, {width}");
        });
    }
    for_each_writer(|state, buf| {
        assert_panics(state, || buf.put_uint(1, 9));
        assert_panics(state, || buf.put_int_le(1, 9));
        assert!(buf.is_empty(), "{state}");
    });
}

#[test]
fn what_is_written_is_read_again_while_more_is_written() {
    let pool = pool();
    for mut guard in guards(&pool, b"") {
        for round in 0..rounds(1000, 40) as u32 {
            guard.buf.put_u32(round);
            guard.buf.put_u16_le(round as u16);
            assert_eq!(guard.buf.get_u32(), round, "{}", guard.state);
            if round % 3 > 0 {
                assert_eq!(guard.buf.get_u16_le(), round as u16, "{}", guard.state);
            } else {
                drop(guard.buf.split_to(2));
            }
        }
        assert!(guard.buf.is_empty(), "{}", guard.state);
    }
    assert_eq!(crate::total(&pool).outstanding, 0);
}
