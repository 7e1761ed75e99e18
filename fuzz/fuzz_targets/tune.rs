//! Any trace: it is read as a plain reader reads it, in whatever pieces it arrives. The results add
//! up, and the printed code makes the pool of the table.
//!
//! The first three bytes of the input decide how the rest is read. The format of a trace and the
//! choice of the best configuration are written here a second time, from the program's `--help`.

#![no_main]

use flate2::Compression;
use flate2::write::GzEncoder;
use libfuzzer_sys::fuzz_target;
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::io::{self, Read, Write};
use tierpool::Pool;
use tierpool_tune::plot;
use tierpool_tune::replay::{self, Candidate, Options, Outcome, Requests};
use tierpool_tune::report::{self, Report};
use tierpool_tune::trace::{self, Trace, TraceError};

/// The name of the column with the sizes.
const COLUMN: &str = "size";
/// 1 KiB: a longer field is no size.
const FIELD_MAX: usize = 1024;
/// 32 MiB: no larger buffer is allocated.
const CLASS_MAX: usize = 32 << 20;
/// This many sizes of the trace are replayed. The statistics are checked after each get, and that
/// takes the time.
const REPLAYED_MAX: usize = 24;
const BYTE_ORDER_MARK: &[u8] = b"\xef\xbb\xbf";
const GZIP_MAGIC: &[u8] = b"\x1f\x8b";

// ---- a plain reader ----

/// The result of reading.
#[derive(Debug, PartialEq)]
struct Said {
    sizes: Vec<usize>,
    /// All bad lines. The tested reader gives the first 10.
    bad: Vec<(u64, Bad)>,
    bad_count: u64,
    end: End,
}

#[derive(Clone, Copy, Debug, PartialEq)]
enum Bad {
    NotASize,
    TooLarge,
    TooLong,
    NoColumn,
}

/// How reading ends.
#[derive(Debug, PartialEq)]
enum End {
    Read,
    Empty,
    NoSuchColumn,
    ColumnTwice,
    OpenQuote(u64),
    Corrupt,
}

impl Said {
    fn nothing() -> Self {
        Said {
            sizes: Vec::new(),
            bad: Vec::new(),
            bad_count: 0,
            end: End::Read,
        }
    }

    /// One size per line.
    fn of_lines(text: &[u8]) -> Self {
        let mut said = Said::nothing();
        for (index, line) in text.split(|&byte| byte == b'\n').enumerate() {
            said.take(index as u64 + 1, line, true);
        }
        said.ended()
    }

    /// Sizes in a column.
    fn of_csv(text: &[u8]) -> Self {
        let mut said = Said::nothing();
        let (records, open) = records(text);
        let mut records = records.into_iter();
        let Some((_, names)) = records.next() else {
            said.end = open.map_or(End::Empty, End::OpenQuote);
            return said;
        };
        let is_wanted = |name: &Vec<u8>| name.trim_ascii() == COLUMN.as_bytes();
        let Some(wanted) = names.iter().position(is_wanted) else {
            said.end = End::NoSuchColumn;
            return said;
        };
        if names[wanted + 1..].iter().any(is_wanted) {
            said.end = End::ColumnTwice;
            return said;
        }
        for (line, fields) in records {
            match fields.get(wanted) {
                Some(field) => said.take(line, field, fields.len() == 1),
                None if fields.len() == 1 && fields[0].trim_ascii().is_empty() => {}
                None => said.is_bad(line, Bad::NoColumn),
            }
        }
        match open {
            Some(line) => {
                said.end = End::OpenQuote(line);
                said
            }
            None => said.ended(),
        }
    }

    /// Takes a text that may be a size. If it is a whole line, it may also be blank or a comment.
    fn take(&mut self, line: u64, text: &[u8], whole: bool) {
        let is_long = text.len() > FIELD_MAX;
        let text = text[..text.len().min(FIELD_MAX)].trim_ascii();
        if whole && (text.starts_with(b"#") || (text.is_empty() && !is_long)) {
            return;
        }
        if is_long {
            return self.is_bad(line, Bad::TooLong);
        }
        let digits = std::str::from_utf8(text).unwrap_or("");
        if digits.is_empty() || digits.contains(|digit: char| !digit.is_ascii_digit()) {
            return self.is_bad(line, Bad::NotASize);
        }
        // Parsing fails only because the number is too large.
        match digits.parse::<u64>() {
            Ok(size) if size <= isize::MAX as u64 => self.sizes.push(size as usize),
            _ => self.is_bad(line, Bad::TooLarge),
        }
    }

    fn is_bad(&mut self, line: u64, bad: Bad) {
        self.bad.push((line, bad));
        self.bad_count += 1;
    }

    fn ended(mut self) -> Self {
        if self.sizes.is_empty() {
            self.end = End::Empty;
        }
        self
    }
}

type Record = (u64, Vec<Vec<u8>>);

/// The records of CSV, each with the number of its first line. Also the line of a record with a
/// quote that is never closed.
fn records(text: &[u8]) -> (Vec<Record>, Option<u64>) {
    #[derive(PartialEq)]
    enum At {
        Line,
        Comment,
        Field,
        Plain,
        Quoted,
        Quote,
    }
    let mut records: Vec<Record> = Vec::new();
    let mut at = At::Line;
    let mut line = 1;
    let mut before = b' ';
    for &byte in text {
        let is_end = byte == b'\n' || byte == b'\r';
        if at == At::Line && byte != b'#' && !is_end {
            records.push((line, vec![Vec::new()]));
            at = At::Field;
        }
        line += u64::from(is_end && !(before == b'\r' && byte == b'\n'));
        before = byte;
        if at == At::Line || at == At::Comment {
            let goes_on = !is_end && (at == At::Comment || byte == b'#');
            at = if goes_on { At::Comment } else { At::Line };
            continue;
        }
        let Some((_, fields)) = records.last_mut() else {
            unreachable!("a field belongs to a record");
        };
        let last = fields.len() - 1;
        at = match (at, byte) {
            (At::Field, b'"') => At::Quoted,
            (At::Quoted, b'"') => At::Quote,
            (At::Quote, b'"') | (At::Quoted, _) => {
                fields[last].push(byte);
                At::Quoted
            }
            (_, b',') => {
                fields.push(Vec::new());
                At::Field
            }
            _ if is_end => At::Line,
            _ => {
                fields[last].push(byte);
                At::Plain
            }
        };
    }
    match at {
        At::Quoted => (
            records[..records.len() - 1].to_vec(),
            records.last().map(|&(line, _)| line),
        ),
        _ => (records, None),
    }
}

// ---- the code under test ----

/// Gives a few bytes at a time, and is interrupted now and then.
struct Slowly<'a> {
    left: &'a [u8],
    most: usize,
    interrupted: bool,
}

impl Read for Slowly<'_> {
    fn read(&mut self, out: &mut [u8]) -> io::Result<usize> {
        self.interrupted = !self.interrupted;
        if self.interrupted {
            return Err(io::ErrorKind::Interrupted.into());
        }
        let count = self.most.min(self.left.len()).min(out.len());
        let (now, left) = self.left.split_at(count);
        out[..count].copy_from_slice(now);
        self.left = left;
        Ok(count)
    }
}

fn read(input: impl Read, column: Option<&str>) -> Said {
    let mut trace = Trace::default();
    let read = trace::open(input).and_then(|input| trace.read(input, column));
    let end = match read {
        Ok(()) => End::Read,
        Err(error) => {
            assert!(!error.to_string().contains(char::is_control), "{error}");
            match error {
                TraceError::Empty { bad, hint } => {
                    assert_eq!((bad, hint), (trace.bad_count, column.is_none()));
                    End::Empty
                }
                TraceError::NoSuchColumn { .. } => End::NoSuchColumn,
                TraceError::ColumnTwice { .. } => End::ColumnTwice,
                TraceError::OpenQuote { line } => End::OpenQuote(line),
                TraceError::Io { .. } => End::Corrupt,
                TraceError::HeaderTooLong | TraceError::OutOfMemory { .. } => {
                    panic!("unexpected for a small input: {error}")
                }
            }
        }
    };
    let bad = trace.bad_first.iter().map(|bad| {
        let text = bad.to_string();
        assert!(!text.contains(char::is_control) && text.len() < 1000);
        let said = text.strip_prefix(&format!("line {}: ", bad.line));
        let kind = match said.expect("the line is named") {
            said if said.starts_with("not a size: longer than 1024") => Bad::TooLong,
            said if said.starts_with("not a size: \"") => Bad::NotASize,
            said if said.starts_with("above 9223372036854775807 bytes") => Bad::TooLarge,
            said if said.starts_with("the record ends before the column") => Bad::NoColumn,
            said => panic!("{said}"),
        };
        (bad.line, kind)
    });
    Said {
        bad: bad.collect(),
        sizes: trace.sizes,
        bad_count: trace.bad_count,
        end,
    }
}

/// In two members, as `cat` of two files gives.
fn gzip(text: &[u8]) -> Vec<u8> {
    let mut packed = Vec::new();
    let (one, two) = text.split_at(text.len() / 2);
    for part in [one, two] {
        let mut encoder = GzEncoder::new(packed, Compression::fast());
        encoder.write_all(part).expect("a vector takes all");
        packed = encoder.finish().expect("a vector takes all");
    }
    packed
}

// ---- the replay ----

/// The expected result of a replay, by counting.
struct Counted {
    hits: u64,
    oversize: u64,
    waste: u128,
    /// The capacity of all buffers that were made.
    made: usize,
}

fn count(sizes: &[usize], gets: usize, classes: &[usize], outstanding: usize) -> Counted {
    let mut counted = Counted {
        hits: 0,
        oversize: 0,
        waste: 0,
        made: 0,
    };
    let mut idle: BTreeMap<usize, u64> = BTreeMap::new();
    let mut held = VecDeque::from(vec![None; outstanding]);
    for &size in sizes.iter().cycle().take(gets) {
        if let Some(Some(class)) = held.pop_front() {
            *idle.entry(class).or_default() += 1;
        }
        let class = classes.iter().copied().find(|&class| class >= size);
        held.push_back(class.filter(|_| size <= CLASS_MAX));
        match class.filter(|_| size <= CLASS_MAX) {
            None => counted.oversize += 1,
            Some(class) => {
                counted.waste += (class - size) as u128;
                let idle = idle.entry(class).or_default();
                match idle.checked_sub(1) {
                    Some(left) => {
                        counted.hits += 1;
                        *idle = left;
                    }
                    None => counted.made += class,
                }
            }
        }
    }
    counted
}

fn check_outcome(outcome: &Outcome, candidate: &Candidate, sizes: &[usize], outstanding: usize) {
    let gets = outcome.gets;
    let counted = count(sizes, gets as usize, &candidate.classes, outstanding);
    assert_eq!(gets, outcome.hits + outcome.misses + outcome.oversize);
    assert_eq!(outcome.oversize, counted.oversize);
    assert_eq!(outcome.waste, counted.waste);
    let requested = sizes.iter().cycle().take(gets as usize);
    let requested: u128 = requested.map(|&size| size as u128).sum();
    assert_eq!(outcome.requested, requested);
    assert!(outcome.retained <= 64 << 20 && outcome.retained <= outcome.memory);
    assert!(outcome.hits <= counted.hits);
    // Far below the budget, no buffer is refused.
    if counted.made <= 32 << 20 {
        assert_eq!((outcome.hits, outcome.refused), (counted.hits, 0));
        assert_eq!(outcome.retained, counted.made as u64);
    }
}

fn check_candidates(requests: &Requests, candidates: &[Candidate], sizes: &[usize]) {
    let doubling: Vec<usize> = (9..=20).map(|bits| 1 << bits).collect();
    assert_eq!(candidates[0].classes, doubling);
    let classes: BTreeSet<&[usize]> = candidates.iter().map(|c| &c.classes[..]).collect();
    assert_eq!(
        classes.len(),
        candidates.len(),
        "two candidates are the same"
    );
    let small = || sizes.iter().copied().filter(|&size| size <= CLASS_MAX);
    let waste = |classes: &[usize]| -> u128 {
        let class = |size| classes.iter().copied().find(|&class| class >= size);
        small()
            .map(|size| (class(size).expect("all fit") - size) as u128)
            .sum()
    };
    let fitted = candidates.iter().filter(|c| c.options == Options::Fitted);
    let fitted: Vec<&[usize]> = fitted.map(|c| &c.classes[..]).collect();
    for classes in &fitted {
        assert_eq!(
            classes.last().copied(),
            small().max().map(|most| most.max(1))
        );
        assert!(classes.windows(2).all(|pair| pair[0] < pair[1]));
    }
    for pair in fitted.windows(2) {
        assert!(waste(pair[1]) <= waste(pair[0]), "more classes waste more");
    }
    // No other set of this many classes is better, among those that `SizeClasses::fit` promises to
    // search.
    let cells = requests.classed.cells().map(|cell| cell.largest.max(1));
    let cells: Vec<usize> = BTreeSet::from_iter(cells).into_iter().collect();
    let cost = |to: usize| {
        let below = [0].into_iter().chain(cells.iter().copied());
        let wasted = below.map(|from| {
            // A size of 0 takes the smallest class.
            let sizes = small().filter(|&size| size <= to && size.max(1) > from);
            sizes.map(|size| (to - size) as u128).sum()
        });
        wasted.collect()
    };
    let costs: Vec<Vec<u128>> = cells.iter().map(|&to| cost(to)).collect();
    for classes in &fitted {
        let least = least_waste(&costs, classes.len());
        assert_eq!(waste(classes), least, "{classes:?} of {cells:?}");
    }
}

/// The least waste of `classes` classes that include the largest cell, by trying all classes before
/// each. `costs[cell]` has the waste of a class at `cell`, for the sizes above 0, above the first
/// cell, and so on.
fn least_waste(costs: &[Vec<u128>], classes: usize) -> u128 {
    // Indexed by the last class.
    let mut least: Vec<u128> = costs.iter().map(|costs| costs[0]).collect();
    for _ in 1..classes {
        let with_one_more = costs.iter().enumerate().map(|(last, costs)| {
            let before = (0..last).map(|from| least[from].saturating_add(costs[from + 1]));
            before.min().unwrap_or(u128::MAX)
        });
        least = with_one_more.collect();
    }
    *least.last().expect("there is a size")
}

/// The best candidate, by the four rules.
fn best(candidates: &[Candidate], outcomes: &[Outcome]) -> usize {
    let rate = |outcome: &Outcome| match outcome.requested {
        0 => 0.0,
        requested => outcome.waste as f64 / requested as f64,
    };
    let hits = |outcome: &Outcome| outcome.hits as f64 / outcome.gets as f64;
    let mut left: Vec<usize> = (0..outcomes.len()).collect();
    left.retain(|&index| rate(&outcomes[index]) <= rate(&outcomes[0]).max(0.5));
    let most = left.iter().map(|&index| hits(&outcomes[index]));
    let most = most.fold(0.0, f64::max);
    left.retain(|&index| hits(&outcomes[index]) >= most - 0.001);
    let least = left.iter().map(|&index| outcomes[index].memory).min();
    let least = least.expect("one is left") as f64;
    left.retain(|&index| outcomes[index].memory as f64 <= least * 1.2);
    left.sort_by_key(|&index| (outcomes[index].waste, candidates[index].classes.len()));
    left[0]
}

/// Checks the choice among outcomes that no replay would give. Each is made of four bytes.
fn check_choice(bytes: &[u8]) {
    let (mut candidates, mut outcomes) = (Vec::new(), Vec::new());
    for of in bytes.chunks_exact(4).take(8) {
        let &[hits, waste, memory, classes] = of else {
            unreachable!("a chunk has four bytes");
        };
        candidates.push(Candidate {
            name: String::new(),
            options: Options::Fitted,
            classes: vec![1; usize::from(classes % 4)],
        });
        outcomes.push(Outcome {
            gets: 10_000,
            hits: 10_000 - u64::from(hits),
            requested: 100,
            waste: u128::from(waste),
            memory: 100 + u64::from(memory),
            ..Outcome::default()
        });
    }
    if !candidates.is_empty() {
        let chosen = report::best(&candidates, &outcomes);
        assert_eq!(chosen, best(&candidates, &outcomes), "{outcomes:?}");
    }
}

/// The size classes of the pool that the printed code makes.
fn classes_of(code: &str) -> Vec<usize> {
    let (_, body) = code.split_once("tierpool::Pool::builder()").expect("code");
    let (options, _) = body.split_once(".build()").expect("all of it");
    let number = |text: &str| -> usize { text.replace('_', "").parse().expect("a number") };
    let mut builder = Pool::builder();
    let options: String = options.split_whitespace().collect();
    if let Some(list) = options.strip_prefix(".classes([") {
        let list = list.strip_suffix("])").expect("a list that ends");
        let list = list.split(',').filter(|text| !text.is_empty());
        builder = builder.classes(list.map(number).collect::<Vec<_>>());
    } else if let Some(max_size) = options.strip_prefix(".max_size(") {
        builder = builder.max_size(number(max_size.strip_suffix(')').expect("a number")));
    } else {
        assert_eq!(options, "");
    }
    builder
        .build()
        .expect("the code is valid")
        .classes()
        .to_vec()
}

fn check_replay(sizes: &[usize], fitted: &[usize], outstanding: usize, plotted: bool) {
    let requests = Requests::of(sizes);
    let sum: u128 = sizes.iter().map(|&size| size as u128).sum();
    assert_eq!(
        (requests.bytes, requests.all.calls()),
        (sum, sizes.len() as u64)
    );
    assert_eq!(Some(requests.least), sizes.iter().min().copied());
    assert_eq!(Some(requests.most), sizes.iter().max().copied());
    let (candidates, notes) = replay::candidates(&requests, fitted);
    check_candidates(&requests, &candidates, sizes);

    // One and a half times the sizes, so that the trace starts again.
    let gets = sizes.len() as u64 * 3 / 2;
    let outcomes = candidates.iter().map(|candidate| {
        let pool = candidate.pool().expect("it is valid");
        assert_eq!(pool.classes(), candidate.classes);
        let outcome = replay::replay(&pool, sizes, gets, outstanding, |_| {});
        assert_eq!(outcome.gets, gets);
        check_outcome(&outcome, candidate, sizes, outstanding);
        outcome
    });
    let outcomes: Vec<Outcome> = outcomes.collect();
    let chosen = report::best(&candidates, &outcomes);
    assert_eq!(chosen, best(&candidates, &outcomes));

    let text = Report {
        requests: &requests,
        candidates: &candidates,
        outcomes: &outcomes,
        best: chosen,
        gets,
        outstanding,
        notes: &notes,
    }
    .to_string();
    let marked: Vec<&str> = text
        .lines()
        .filter(|line| line.ends_with("<- best"))
        .collect();
    assert!(
        marked.len() == 1 && marked[0].starts_with(&candidates[chosen].name),
        "{text}"
    );
    assert_eq!(classes_of(&text), candidates[chosen].classes, "{text}");
    for candidate in &candidates {
        let code = report::code(candidate, sizes.len() as u64);
        assert!(code.lines().all(|line| line.len() <= 100), "{code}");
        assert_eq!(classes_of(&code), candidate.classes, "{code}");
    }
    if plotted {
        let svg = plot::svg(&requests.all, &candidates[0], &candidates[chosen]);
        let svg = svg.expect("any trace can be drawn");
        assert!(svg.starts_with("<svg") && svg.trim_end().ends_with("</svg>"));
        assert!(!svg.contains("NaN") && !svg.contains("inf"), "{svg}");
        // One line for each class of the best candidate, and one in the legend.
        let lines = svg.matches("stroke=\"#C83C14\"").count();
        let classes = candidates[chosen].classes.len();
        match candidates[chosen].options {
            Options::Fitted => assert_eq!(lines, classes + 1, "{svg}"),
            _ => assert!(lines <= classes + 1),
        }
    }
}

fuzz_target!(|data: &[u8]| {
    let [how, most, classes, text @ ..] = data else {
        return;
    };
    let flag = |bit: u8| how >> bit & 1 == 1;
    if flag(4) {
        return check_choice(text);
    }
    let column = flag(0).then_some(COLUMN);
    let is_packed = flag(1);
    let packed = match is_packed {
        true => gzip(text),
        false => text.to_vec(),
    };
    let said = read(&packed[..], column);
    let slowly = Slowly {
        left: &packed,
        most: usize::from(*most).max(1),
        interrupted: false,
    };
    // A text that begins like gzip without being compressed is read differently.
    if is_packed || !text.starts_with(GZIP_MAGIC) {
        assert_eq!(read(slowly, column), said, "given slowly");
        let text = text.strip_prefix(BYTE_ORDER_MARK).unwrap_or(text);
        let mut plain = match column {
            None => Said::of_lines(text),
            Some(_) => Said::of_csv(text),
        };
        plain.bad.truncate(10);
        assert_eq!(said, plain);
    }
    let sizes = &said.sizes[..said.sizes.len().min(REPLAYED_MAX)];
    if flag(2) && !sizes.is_empty() {
        let outstanding = usize::from(how >> 5) + 1;
        // With as many classes as sizes there is no choice, so fewer are requested.
        let more = match classes {
            255 => 128,
            few => 3 + usize::from(few % 8),
        };
        let fitted = [1, 2, more];
        check_replay(sizes, &fitted, outstanding, flag(3));
    }
});
