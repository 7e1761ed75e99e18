//! Pooled readers and writers: as those of the standard library, and without a buffer while idle.

use crate::{assert_accounts_balance, pool_of, total};
use proptest::prelude::*;
use std::cell::RefCell;
use std::collections::VecDeque;
use std::io::{self, BufRead, ErrorKind, IoSlice, IoSliceMut, Read, Seek, SeekFrom, Write};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::rc::Rc;
use tierpool::Pool;
use tierpool::io::{BufReader, BufWriter};

fn outstanding(pool: &Pool) -> u64 {
    total(pool).outstanding
}

/// The result of one call of the inner writer or reader.
#[derive(Clone, Copy, Debug)]
enum Step {
    /// At most this many bytes.
    Takes(usize),
    Fails(ErrorKind),
    Panics,
    /// Claims more than there was.
    Lies,
}
use Step::{Fails, Lies, Panics, Takes};

/// A writer that does the given steps, and then takes all. Its clones share what was written.
#[derive(Clone, Debug, Default)]
struct Scripted {
    steps: VecDeque<Step>,
    written: Rc<RefCell<Vec<u8>>>,
    writes: Rc<RefCell<usize>>,
    flushes: Rc<RefCell<usize>>,
}

impl Scripted {
    fn new(steps: impl IntoIterator<Item = Step>) -> Self {
        Scripted {
            steps: steps.into_iter().collect(),
            ..Scripted::default()
        }
    }

    fn written(&self) -> Vec<u8> {
        self.written.borrow().clone()
    }
}

impl Write for Scripted {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        *self.writes.borrow_mut() += 1;
        let most = match self.steps.pop_front() {
            Some(Takes(most)) => most,
            Some(Fails(kind)) => return Err(kind.into()),
            Some(Panics) => panic!("the inner writer panics"),
            Some(Lies) => {
                self.written.borrow_mut().extend_from_slice(bytes);
                return Ok(bytes.len() + 1);
            }
            None => usize::MAX,
        };
        let taken = &bytes[..most.min(bytes.len())];
        self.written.borrow_mut().extend_from_slice(taken);
        Ok(taken.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        *self.flushes.borrow_mut() += 1;
        Ok(())
    }
}

// ---- the reader ----

#[test]
fn a_reader_holds_a_buffer_only_while_there_are_unread_bytes_in_it() {
    let pool = pool_of(&[16, 64]);
    let mut reader = BufReader::with_size(&pool, 16, &b"one\ntwo\nthree\n"[..]);
    assert_eq!(outstanding(&pool), 0);
    let mut line = String::new();
    assert_eq!(reader.read_line(&mut line).unwrap(), 4);
    assert_eq!(
        (&line[..], reader.buffer()),
        ("one\n", &b"two\nthree\n"[..])
    );
    assert_eq!(outstanding(&pool), 1);
    reader.consume(9);
    assert_eq!(reader.buffer(), b"\n");
    reader.consume(1);
    assert_eq!(outstanding(&pool), 0);
    assert_eq!(reader.fill_buf().unwrap(), b"");
    assert_eq!(outstanding(&pool), 0, "the end of the source");
    drop(reader);
    assert_eq!(total(&pool).misses, 1, "the same buffer each time");
    assert_accounts_balance(&pool);
}

#[test]
fn a_reader_reads_at_most_its_size_ahead() {
    let pool = pool_of(&[64]);
    let mut reader = BufReader::with_size(&pool, 10, &[7; 100][..]);
    assert_eq!(reader.capacity(), 10);
    assert_eq!(reader.fill_buf().unwrap().len(), 10);
    assert_eq!(reader.get_ref().len(), 90);
    let mut none = BufReader::with_size(&pool, 0, &b"ab"[..]);
    assert_eq!(none.fill_buf().unwrap(), b"a");
    assert_eq!(none.into_inner(), b"b");
}

#[test]
fn a_read_as_large_as_the_buffer_bypasses_it_if_it_is_empty() {
    let pool = pool_of(&[64]);
    let mut reader = BufReader::with_size(&pool, 10, &[7; 100][..]);
    let mut room = [0; 50];
    assert_eq!(reader.read(&mut room[..10]).unwrap(), 10);
    assert_eq!(total(&pool).gets, 0);
    assert_eq!(reader.read(&mut room[..9]).unwrap(), 9);
    assert_eq!(
        reader.read(&mut room).unwrap(),
        1,
        "the rest of the buffer first"
    );
    assert_eq!(reader.read(&mut room).unwrap(), 50);
    assert_eq!(room, [7; 50]);
    assert_eq!(total(&pool).gets, 1);
}

#[test]
fn after_an_error_or_a_panic_of_the_source_the_buffer_is_back() {
    struct Broken(u8);
    impl Read for Broken {
        fn read(&mut self, _: &mut [u8]) -> io::Result<usize> {
            self.0 += 1;
            match self.0 {
                1 => Err(ErrorKind::ConnectionReset.into()),
                2 => panic!("the source panics"),
                _ => Ok(0),
            }
        }
    }
    let pool = pool_of(&[64]);
    let mut reader = BufReader::with_size(&pool, 64, Broken(0));
    let error = reader.fill_buf().unwrap_err();
    assert_eq!(error.kind(), ErrorKind::ConnectionReset);
    assert_eq!(outstanding(&pool), 0);
    assert!(catch_unwind(AssertUnwindSafe(|| reader.fill_buf().map(<[u8]>::len))).is_err());
    assert_eq!(outstanding(&pool), 0);
    assert_eq!(reader.read(&mut [0; 3]).unwrap(), 0);
    assert_accounts_balance(&pool);
}

#[test]
fn a_seek_counts_from_the_bytes_that_were_read() {
    let pool = pool_of(&[64]);
    let bytes: Vec<u8> = (0..100).collect();
    let mut reader = BufReader::with_size(&pool, 20, io::Cursor::new(&bytes));
    let mut one = [0];
    reader.read_exact(&mut one).unwrap();
    assert_eq!(reader.seek(SeekFrom::Current(4)).unwrap(), 5);
    assert_eq!(outstanding(&pool), 0);
    reader.read_exact(&mut one).unwrap();
    assert_eq!(one, [5]);
    assert_eq!(reader.stream_position().unwrap(), 6);
    assert_eq!(reader.seek(SeekFrom::Start(50)).unwrap(), 50);
    reader.read_exact(&mut one).unwrap();
    assert_eq!(one, [50]);
    let unread = reader.buffer().len();
    assert!(
        reader.seek(SeekFrom::Current(-52)).is_err(),
        "before the beginning"
    );
    assert_eq!(reader.buffer().len(), unread, "an error loses nothing");
    assert!(reader.seek(SeekFrom::Current(i64::MIN)).is_err());
    assert_eq!(reader.seek(SeekFrom::End(-1)).unwrap(), 99);
    reader.read_exact(&mut one).unwrap();
    assert_eq!(one, [99]);
}

#[test]
fn the_position_and_a_seek_within_the_buffer_leave_the_bytes_in_it() {
    let pool = pool_of(&[64]);
    let bytes: Vec<u8> = (0..100).collect();
    let mut reader = BufReader::with_size(&pool, 20, io::Cursor::new(&bytes));
    reader.seek_relative(0).unwrap();
    assert_eq!(reader.fill_buf().unwrap().len(), 20);
    reader.consume(5);
    assert_eq!(reader.stream_position().unwrap(), 5);
    reader.seek_relative(10).unwrap();
    assert_eq!(reader.buffer(), [15, 16, 17, 18, 19]);
    reader.seek_relative(-15).unwrap();
    assert_eq!(reader.buffer(), &bytes[..20]);
    reader.seek_relative(20).unwrap();
    assert_eq!(outstanding(&pool), 0);
    assert_eq!(reader.stream_position().unwrap(), 20);
    reader.seek_relative(-3).unwrap();
    assert_eq!(reader.fill_buf().unwrap()[0], 17);
    assert!(reader.seek_relative(i64::MIN).is_err());
    assert_eq!(reader.fill_buf().unwrap()[0], 17, "an error moves nothing");
    reader.get_mut().set_position(1);
    let error = reader.stream_position().map_err(|error| error.kind());
    assert_eq!(error, Err(ErrorKind::InvalidInput));
    assert_eq!(total(&pool).gets, 3);
}

proptest! {
    /// The same calls give the same results as those of the standard library's reader.
    #[test]
    fn a_reader_reads_as_the_standard_librarys(
        len in 0..200_usize,
        size in 1..40_usize,
        calls in prop::collection::vec((0..6_u8, 0..60_usize), 0..40),
    ) {
        let pool = pool_of(&[8, 64]);
        let bytes: Vec<u8> = (0..len).map(|at| (at % 7) as u8).collect();
        let mut ours = BufReader::with_size(&pool, size, io::Cursor::new(&bytes));
        let mut theirs = io::BufReader::with_capacity(size, io::Cursor::new(&bytes));
        for (call, count) in calls {
            let (mut a, mut b) = (vec![0; count], vec![0; count]);
            match call {
                0 => prop_assert_eq!(ours.read(&mut a).unwrap(), theirs.read(&mut b).unwrap()),
                1 => prop_assert_eq!(
                    ours.read_until(3, &mut a).unwrap(),
                    theirs.read_until(3, &mut b).unwrap()
                ),
                2 => {
                    prop_assert_eq!(ours.fill_buf().unwrap(), theirs.fill_buf().unwrap());
                    ours.consume(count);
                    theirs.consume(count);
                }
                3 => {
                    let to = SeekFrom::Current(count as i64 - 30);
                    prop_assert_eq!(ours.seek(to).ok(), theirs.seek(to).ok());
                }
                4 => prop_assert_eq!(
                    ours.stream_position().unwrap(),
                    theirs.stream_position().unwrap()
                ),
                _ => {
                    let ((a1, a2), (b1, b2)) = (a.split_at_mut(count / 3), b.split_at_mut(count / 3));
                    prop_assert_eq!(
                        ours.read_vectored(&mut [a1, a2].map(IoSliceMut::new)).unwrap(),
                        theirs.read_vectored(&mut [b1, b2].map(IoSliceMut::new)).unwrap()
                    );
                }
            }
            prop_assert_eq!(a, b);
            prop_assert_eq!(ours.buffer(), theirs.buffer());
            prop_assert_eq!(outstanding(&pool), u64::from(!ours.buffer().is_empty()));
        }
        let (mut a, mut b) = (vec![1], vec![1]);
        prop_assert_eq!(ours.read_to_end(&mut a).unwrap(), theirs.read_to_end(&mut b).unwrap());
        prop_assert_eq!(a, b);
        prop_assert_eq!(outstanding(&pool), 0);
    }
}

// ---- the writer ----

#[test]
fn a_writer_holds_a_buffer_only_while_there_are_unwritten_bytes_in_it() {
    let pool = pool_of(&[16]);
    let inner = Scripted::new([]);
    let mut writer = BufWriter::with_size(&pool, 16, inner.clone());
    assert_eq!(outstanding(&pool), 0);
    writer.write_all(b"hello ").unwrap();
    writer.write_all(b"").unwrap();
    assert_eq!((writer.buffer(), outstanding(&pool)), (&b"hello "[..], 1));
    writer.flush().unwrap();
    assert_eq!((writer.buffer(), outstanding(&pool)), (&b""[..], 0));
    assert_eq!(*inner.flushes.borrow(), 1);
    writer.write_all(b"world").unwrap();
    drop(writer);
    assert_eq!(inner.written(), b"hello world");
    assert_eq!((total(&pool).misses, outstanding(&pool)), (1, 0));
    assert_accounts_balance(&pool);
}

#[test]
fn a_full_writer_writes_its_bytes_first_and_large_writes_bypass_it() {
    let pool = pool_of(&[16]);
    let inner = Scripted::new([]);
    let mut writer = BufWriter::with_size(&pool, 10, inner.clone());
    writer.write_all(&[1; 6]).unwrap();
    writer.write_all(&[2; 4]).unwrap();
    assert_eq!((writer.buffer().len(), inner.written().len()), (10, 0));
    writer.write_all(&[3; 1]).unwrap();
    assert_eq!((writer.buffer(), inner.written().len()), (&[3][..], 10));
    assert_eq!(writer.write(&[4; 10]).unwrap(), 10);
    assert_eq!((writer.buffer().len(), inner.written().len()), (0, 21));
    let slices = [&[5; 4][..], &[6; 3]];
    let slices = slices.map(IoSlice::new);
    assert_eq!(writer.write_vectored(&slices).unwrap(), 7);
    assert_eq!(writer.buffer(), [5, 5, 5, 5, 6, 6, 6]);
    let slices = [&[7; 9][..], &[8; 9]];
    assert_eq!(writer.write_vectored(&slices.map(IoSlice::new)).unwrap(), 9);
    assert_eq!((writer.buffer(), inner.written().len()), (&[7; 9][..], 28));
    let mut unbuffered = BufWriter::with_size(&pool, 0, inner.clone());
    unbuffered.write_all(b"!").unwrap();
    assert_eq!(inner.written().last(), Some(&b'!'));
}

#[test]
fn small_slices_are_gathered_in_the_buffer() {
    let pool = pool_of(&[64]);
    let inner = Scripted::new([]);
    let mut writer = BufWriter::with_size(&pool, 64, inner.clone());
    let bytes = [7; 10];
    let mut slices = &[IoSlice::new(&bytes); 100][..];
    while !slices.is_empty() {
        let count = writer.write_vectored(slices).unwrap();
        slices = &slices[count / 10..];
    }
    writer.flush().unwrap();
    assert_eq!(inner.written(), [7; 1000]);
    assert_eq!(*inner.writes.borrow(), 1000_usize.div_ceil(60));
}

#[test]
fn a_small_slice_before_a_large_one_is_one_write() {
    /// Counts its calls, and takes all slices.
    #[derive(Default)]
    struct Gathers(usize, Vec<u8>);
    impl Write for Gathers {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.write_vectored(&[IoSlice::new(bytes)])
        }

        fn write_vectored(&mut self, slices: &[IoSlice<'_>]) -> io::Result<usize> {
            self.0 += 1;
            slices
                .iter()
                .for_each(|slice| self.1.extend_from_slice(slice));
            Ok(slices.iter().map(|slice| slice.len()).sum())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }
    let pool = pool_of(&[64]);
    let mut writer = BufWriter::with_size(&pool, 64, Gathers::default());
    let slices = [&b"head"[..], &[b'.'; 64]].map(IoSlice::new);
    assert_eq!(writer.write_vectored(&slices).unwrap(), 68);
    assert_eq!((writer.get_ref().0, writer.get_ref().1.len()), (1, 68));
    writer.write_all(b"before").unwrap();
    assert_eq!(writer.write_vectored(&slices).unwrap(), 68);
    let Gathers(calls, bytes) = writer.into_inner().unwrap();
    assert_eq!((calls, &bytes[68..78]), (3, &b"beforehead"[..]));
}

#[test]
fn a_seek_writes_the_bytes_first() {
    let pool = pool_of(&[64]);
    let mut writer = BufWriter::with_size(&pool, 64, io::Cursor::new(Vec::new()));
    writer.write_all(b"abcd").unwrap();
    assert_eq!(writer.seek(SeekFrom::Current(-3)).unwrap(), 1);
    assert_eq!(outstanding(&pool), 0);
    writer.write_all(b"BC").unwrap();
    assert_eq!(writer.stream_position().unwrap(), 3);
    assert_eq!(writer.into_inner().unwrap().into_inner(), b"aBCd");
}

#[test]
fn an_error_keeps_what_is_not_written_and_no_byte_is_written_twice() {
    let pool = pool_of(&[64]);
    let steps = [
        Takes(2),
        Fails(ErrorKind::Interrupted),
        Takes(3),
        Fails(ErrorKind::WouldBlock),
        Takes(0),
        Takes(1),
    ];
    let inner = Scripted::new(steps);
    let mut writer = BufWriter::with_size(&pool, 64, inner.clone());
    writer.write_all(b"0123456789").unwrap();
    let error = writer.flush().unwrap_err();
    assert_eq!(error.kind(), ErrorKind::WouldBlock);
    assert_eq!(writer.buffer(), b"56789");
    assert_eq!(writer.flush().unwrap_err().kind(), ErrorKind::WriteZero);
    writer.write_all(b"!").unwrap();
    writer.flush().unwrap();
    assert_eq!(inner.written(), b"0123456789!");
    assert_eq!(outstanding(&pool), 0);
}

#[test]
fn into_inner_returns_the_inner_writer_or_the_error_with_this_one() {
    let pool = pool_of(&[64]);
    let inner = Scripted::new([Takes(1), Fails(ErrorKind::BrokenPipe)]);
    let mut writer = BufWriter::with_size(&pool, 64, inner);
    writer.write_all(b"abc").unwrap();
    let refused = writer.into_inner().unwrap_err();
    assert_eq!(refused.error().kind(), ErrorKind::BrokenPipe);
    assert_eq!(refused.to_string(), refused.error().to_string());
    let (error, writer) = refused.into_parts();
    assert_eq!(error.kind(), ErrorKind::BrokenPipe);
    assert_eq!(writer.buffer(), b"bc");
    assert_eq!(writer.into_inner().unwrap().written(), b"abc");
    assert_eq!(outstanding(&pool), 0);
    // As `?` converts it: the writer ends, and tries once more.
    let inner = Scripted::new([Fails(ErrorKind::BrokenPipe)]);
    let mut writer = BufWriter::with_size(&pool, 64, inner.clone());
    writer.write_all(b"abc").unwrap();
    let error = io::Error::from(writer.into_inner().unwrap_err());
    assert_eq!(error.kind(), ErrorKind::BrokenPipe);
    assert_eq!((inner.written(), outstanding(&pool)), (b"abc".to_vec(), 0));
}

#[test]
fn after_a_panic_of_the_inner_writer_the_drop_writes_nothing_again() {
    let pool = pool_of(&[64]);
    let inner = Scripted::new([Takes(2), Panics]);
    let mut writer = BufWriter::with_size(&pool, 64, inner.clone());
    writer.write_all(b"abcd").unwrap();
    assert!(catch_unwind(AssertUnwindSafe(|| writer.flush())).is_err());
    assert_eq!(writer.buffer(), b"cd", "nothing is lost");
    drop(writer);
    assert_eq!(inner.written(), b"ab");
    assert_eq!(outstanding(&pool), 0);
    // It may be used again.
    let inner = Scripted::new([Panics]);
    let mut writer = BufWriter::with_size(&pool, 64, inner.clone());
    writer.write_all(b"abcd").unwrap();
    assert!(catch_unwind(AssertUnwindSafe(|| writer.flush())).is_err());
    writer.flush().unwrap();
    assert_eq!(inner.written(), b"abcd");
}

#[test]
fn what_is_written_after_a_panic_of_the_inner_flush_is_not_lost() {
    struct FlushPanics(Scripted);
    impl Write for FlushPanics {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0.write(bytes)
        }

        fn flush(&mut self) -> io::Result<()> {
            panic!("the inner flush panics")
        }
    }
    let pool = pool_of(&[64]);
    let inner = Scripted::new([]);
    let mut writer = BufWriter::with_size(&pool, 64, FlushPanics(inner.clone()));
    writer.write_all(b"ab").unwrap();
    assert!(catch_unwind(AssertUnwindSafe(|| writer.flush())).is_err());
    writer.write_all(b"cd").unwrap();
    drop(writer);
    assert_eq!(inner.written(), b"abcd");
    assert_eq!(outstanding(&pool), 0);
}

#[test]
fn an_inner_writer_that_claims_too_much_has_written_all() {
    let pool = pool_of(&[64]);
    let inner = Scripted::new([Lies]);
    let mut writer = BufWriter::with_size(&pool, 64, inner.clone());
    writer.write_all(b"abcd").unwrap();
    writer.flush().unwrap();
    assert_eq!(
        (writer.buffer(), inner.written()),
        (&b""[..], b"abcd".to_vec())
    );
}

#[test]
fn json_is_written_in_few_writes_and_without_a_miss_once_warm() {
    #[derive(Default)]
    struct Counting(usize, usize);
    impl Write for Counting {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            (self.0, self.1) = (self.0 + 1, self.1 + bytes.len());
            Ok(bytes.len())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }
    let pool = Pool::new();
    let numbers: Vec<u32> = (0..5000).collect();
    for round in 0..10 {
        let mut writer = BufWriter::new(&pool, Counting::default());
        serde_json::to_writer(&mut writer, &numbers).unwrap();
        let Counting(calls, bytes) = writer.into_inner().unwrap();
        assert_eq!(bytes, serde_json::to_string(&numbers).unwrap().len());
        assert_eq!(calls, bytes.div_ceil(8 << 10), "round {round}");
    }
    assert_eq!((total(&pool).misses, outstanding(&pool)), (1, 0));
}

proptest! {
    /// The same calls write the same bytes, at the same calls, as the standard library's writer.
    #[test]
    fn a_writer_writes_as_the_standard_librarys(
        size in 0..40_usize,
        most in prop::collection::vec(1..20_usize, 0..20),
        calls in prop::collection::vec((0..5_u8, 0..60_usize), 0..40),
    ) {
        let pool = pool_of(&[8, 64]);
        let [a, b] = [(); 2].map(|()| Scripted::new(most.iter().map(|&most| Takes(most))));
        let mut ours = BufWriter::with_size(&pool, size, a.clone());
        let mut theirs = io::BufWriter::with_capacity(size, b.clone());
        for (at, (call, count)) in calls.into_iter().enumerate() {
            let bytes = vec![at as u8; count];
            match call {
                0 => prop_assert_eq!(ours.write(&bytes).unwrap(), theirs.write(&bytes).unwrap()),
                // Not with a slice as large as the buffer: these go to the inner writer at once.
                1 if count - count / 3 < size => {
                    // 2 empty slices too.
                    let pieces = [&bytes[..0], &bytes[..count / 3], &bytes[..0], &bytes[count / 3..]];
                    let slices = pieces.map(IoSlice::new);
                    prop_assert_eq!(
                        ours.write_vectored(&slices).unwrap(),
                        theirs.write_vectored(&slices).unwrap()
                    );
                }
                1..=3 => {
                    ours.write_all(&bytes).unwrap();
                    theirs.write_all(&bytes).unwrap();
                }
                _ => {
                    ours.flush().unwrap();
                    theirs.flush().unwrap();
                }
            }
            prop_assert_eq!(ours.buffer(), theirs.buffer());
            prop_assert_eq!(a.written(), b.written());
            prop_assert_eq!(outstanding(&pool), u64::from(!ours.buffer().is_empty()));
        }
        drop((ours, theirs));
        prop_assert_eq!(a.written(), b.written());
    }
}
