//! Futures that are dropped at each of their await points.

use super::copy::Duplex;
use super::*;
use tierpool::tokio::{copy, copy_bidirectional};

/// Calls `attempt` with 0, 1, 2, .. until it returns `true`: its future was ready within that many polls.
/// Returns the number of calls in which it was not.
fn at_each_await(mut attempt: impl FnMut(usize) -> bool) -> usize {
    (0..10_000).find(|&polls| attempt(polls)).expect("it ends")
}

#[test]
fn a_frame_that_is_given_up_at_any_await_is_whole_in_the_next_call() {
    let by_length = (by_two_bytes(), &b"\0\x05hello\0\0\0\x03and"[..]);
    let by_line = (
        Framing::delimiter("\r\n").unwrap(),
        &b"hello\r\n\r\nand\r\n"[..],
    );
    let expected = ["hello", "", "and"];
    for (framing, input) in [by_length, by_line] {
        // At each await of the first frame, then of the second, then of the third.
        for (before, bytes) in [7, 2, 5].into_iter().enumerate() {
            let dropped = at_each_await(|polls| {
                let pool = Pool::new();
                let mut reader = PooledReader::new(&pool, framing.clone(), Source::slow(input));
                let mut frames = || next(&mut reader, false);
                let mut got: Vec<_> = (0..before).map(|_| frames().unwrap().unwrap()).collect();
                let frame = poll_times(reader.next_frame(), polls);
                let ready = frame.is_some();
                got.extend(frame.map(|frame| frame.unwrap().unwrap()));
                while let Some(frame) = next(&mut reader, false) {
                    got.push(frame.unwrap());
                }
                assert_eq!(got, expected, "dropped after {polls} polls");
                drop(got);
                assert_all_home(&pool);
                ready
            });
            assert_eq!(dropped, bytes + 1); // the source waits before each byte
        }
    }
}

#[test]
fn a_reader_that_is_dropped_at_any_await_leaves_nothing_out() {
    let large = [&b"\x27\x10"[..], &[7; 10_000]].concat();
    let pool = Pool::new();
    let dropped = at_each_await(|polls| {
        let pieces = large.chunks(1500);
        let steps = pieces.flat_map(|piece| [Step::Wait, Step::Bytes(piece.to_vec())]);
        let mut reader = PooledReader::new(&pool, by_two_bytes(), Source::new(steps));
        let ready = poll_times(reader.next_frame(), polls).is_some();
        let held = u64::from(!reader.buffer().is_empty());
        assert_eq!(outstanding(&pool), held); // the frame is gone already
        drop(reader);
        assert_all_home(&pool);
        ready
    });
    assert_eq!(dropped, large.chunks(1500).count() + 1);
}

#[test]
fn a_chunk_that_is_given_up_at_any_await_comes_in_the_next_call() {
    let input = b"some bytes";
    let dropped = at_each_await(|polls| {
        let pool = Pool::new();
        let waits = [Step::Wait, Step::Wait, Step::Wait];
        let steps = waits.into_iter().chain(Source::slow(input).steps);
        let mut chunks = PooledChunks::new(&pool, Source::new(steps));
        let chunk = poll_times(chunks.next_chunk(), polls);
        let ready = chunk.is_some();
        let mut got: Vec<_> = chunk.into_iter().flatten().collect();
        assert_eq!(outstanding(&pool), u64::from(ready));
        while let Some(chunk) = poll_times(chunks.next_chunk(), 9).unwrap() {
            got.push(chunk);
        }
        let got: Vec<u8> = got
            .into_iter()
            .flat_map(|chunk| chunk.unwrap().to_vec())
            .collect();
        assert_eq!(got, input);
        assert_all_home(&pool);
        ready
    });
    assert_eq!(dropped, 5);
}

#[test]
fn parts_that_are_not_written_at_any_await_are_left() {
    let pool = Pool::new();
    let expected = b"some partsof a message";
    let dropped = at_each_await(|polls| {
        let mut parts = ["some parts", "", "of a message"]
            .map(|text| pool.copy_from_slice(text.as_bytes()).freeze());
        let mut writer = Duplex::default().slow();
        let ready = poll_times(write_all_vectored(&mut writer, &mut parts), polls).is_some();
        let left = parts.each_ref().map(|part| &part[..]).concat();
        assert_eq!([&writer.written[..], &left].concat(), expected);
        let held = parts.iter().filter(|part| !part.is_empty()).count();
        if polls > 0 {
            assert_eq!(outstanding(&pool), held as u64);
        }
        // A further call writes the rest.
        poll_times(write_all_vectored(&mut writer, &mut parts), 1000)
            .unwrap()
            .unwrap();
        assert_eq!(writer.written, expected);
        assert_all_home(&pool);
        ready
    });
    assert_eq!(dropped, expected.len() + 1);
}

#[test]
fn a_copy_that_is_dropped_at_any_await_loses_only_what_it_holds() {
    let (ask, answer) = (&b"a question"[..], &b"and the answer"[..]);
    for slow in [false, true] {
        let side = |input: &[u8]| match slow {
            true => Duplex::new(Source::slow(input)).slow(),
            false => Duplex::new(Source::slow(input)),
        };
        let dropped = at_each_await(|polls| {
            let pool = Pool::new();
            let (mut a, mut b) = (side(ask), side(answer));
            let result = poll_times(copy_bidirectional(&pool, &mut a, &mut b), polls);
            let ready = result.is_some();
            assert_all_home(&pool);
            let sides = [(&a, &b, ask), (&b, &a, answer)];
            let [to_b, to_a] = sides.map(|(from, to, input)| {
                let (read, unread) = input.split_at(input.len() - from.unread());
                let lost = read.len() - to.written.len();
                assert!(lost <= 1, "a read gives one byte");
                assert_eq!(to.written, read[..read.len() - lost]);
                assert_eq!(ready, to.shut && from.shut);
                [&to.written, unread].concat()
            });
            if !a.shut && !b.shut {
                // A further call copies the rest.
                let copied = poll_times(copy_bidirectional(&pool, &mut a, &mut b), 1000);
                assert!(copied.unwrap().is_ok());
                assert_eq!((&a.written, &b.written), (&to_a, &to_b));
                assert_all_home(&pool);
            }
            ready
        });
        assert!(dropped > answer.len());
    }
    let dropped = at_each_await(|polls| {
        let pool = Pool::new();
        let (mut reader, mut writer) = (Source::slow(ask), Duplex::default().slow());
        let ready = poll_times(copy(&pool, &mut reader, &mut writer), polls).is_some();
        assert!(ask.starts_with(&writer.written));
        assert_all_home(&pool);
        ready
    });
    assert!(dropped > ask.len());
}
