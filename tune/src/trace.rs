//! Reads sizes from lines or from a CSV column, compressed or not.
//!
//! Owns the rules for sizes and bad lines. Beside the sizes, it takes a fixed amount of memory,
//! whatever the input is.

use csv_core::{ReadFieldResult, Reader};
use flate2::read::MultiGzDecoder;
use std::error::Error;
use std::fmt;
use std::io::{self, Cursor, Read};

/// The most bad lines that are kept for the report.
const BAD_FIRST_MAX: usize = 10;
/// 1 KiB: a size has at most 19 digits. The rest is for blanks.
const FIELD_MAX: usize = 1024;
/// 1 MiB: a longer first line is no line of column names.
const HEADER_MAX: usize = 1 << 20;
/// 256 KiB: few system calls, and fits a second-level cache.
const CHUNK: usize = 256 << 10;

const GZIP_MAGIC: [u8; 2] = [0x1f, 0x8b];
const BYTE_ORDER_MARK: [u8; 3] = [0xef, 0xbb, 0xbf];

/// The sizes of a trace, and its bad lines.
#[derive(Debug, Default)]
pub struct Trace {
    /// In bytes, at most `isize::MAX` each.
    pub sizes: Vec<usize>,
    /// The first bad lines, at most 10.
    pub bad_first: Vec<BadLine>,
    /// How many bad lines there were.
    pub bad_count: u64,
}

/// A line without a size.
#[derive(Debug, PartialEq, Eq)]
pub struct BadLine {
    /// Counted from 1. For a CSV record over several lines, its first line.
    pub line: u64,
    reason: Reason,
}

#[derive(Debug, PartialEq, Eq)]
enum Reason {
    NotASize(Vec<u8>),
    TooLarge,
    TooLong,
    NoColumn,
}

/// The reason why a trace cannot be read to its end.
#[derive(Debug)]
pub enum TraceError {
    Io { error: io::Error, line: u64 },
    Empty { bad: u64, hint: bool },
    NoSuchColumn { name: String, columns: String },
    ColumnTwice { name: String },
    HeaderTooLong,
    OpenQuote { line: u64 },
    OutOfMemory { sizes: usize },
}

/// Unpacks the input if it is compressed, and removes the byte order mark.
pub fn open<'a>(input: impl Read + 'a) -> Result<Box<dyn Read + 'a>, TraceError> {
    let fail = |error| TraceError::Io { error, line: 0 };
    let (is_gzip, input) = begins_with(input, &GZIP_MAGIC).map_err(fail)?;
    let text: Box<dyn Read + 'a> = match is_gzip {
        true => Box::new(MultiGzDecoder::new(input)),
        false => Box::new(input),
    };
    let (is_marked, mut text) = begins_with(text, &BYTE_ORDER_MARK).map_err(fail)?;
    if is_marked {
        text.read_exact(&mut [0; BYTE_ORDER_MARK.len()])
            .map_err(fail)?;
    }
    Ok(Box::new(text))
}

/// Returns whether the input begins with these bytes, and the whole input.
fn begins_with<R: Read>(mut input: R, bytes: &[u8]) -> io::Result<(bool, impl Read + use<R>)> {
    let mut start = Vec::new();
    // Reads until there are enough: a pipe may give one byte at a time.
    let count = bytes.len() as u64;
    input.by_ref().take(count).read_to_end(&mut start)?;
    Ok((start == bytes, Cursor::new(start).chain(input)))
}

impl Trace {
    /// Adds the sizes of `input`: one per line, or from the CSV column of this name.
    ///
    /// After an error, the sizes before it are kept.
    pub fn read(&mut self, input: impl Read, column: Option<&str>) -> Result<(), TraceError> {
        let mut input = Lines::new(input);
        match column {
            None => self.read_lines(&mut input)?,
            Some(name) => self.read_csv(&mut input, name)?,
        }
        if self.sizes.is_empty() {
            return Err(TraceError::Empty {
                bad: self.bad_count,
                hint: column.is_none(),
            });
        }
        Ok(())
    }

    fn read_lines(&mut self, input: &mut Lines<impl Read>) -> Result<(), TraceError> {
        let mut begun = Clip::default();
        loop {
            let line = input.line;
            let chunk = input.chunk()?;
            if chunk.is_empty() {
                return Ok(()); // the last line ends with a line feed, too
            }
            let mut rest = chunk;
            let mut ended = 0;
            while let Some(end) = rest.iter().position(|&byte| byte == b'\n') {
                ended += 1;
                if begun.is_empty() && end <= FIELD_MAX {
                    self.take_line(line + ended, &rest[..end], false)?;
                } else {
                    begun.push(&rest[..end]);
                    self.take_line(line + ended, &begun.kept, begun.overlong)?;
                    begun.clear();
                }
                rest = &rest[end + 1..];
            }
            begun.push(rest);
            let all = chunk.len();
            input.consume(all, ended);
        }
    }

    fn read_csv(&mut self, input: &mut Lines<impl Read>, name: &str) -> Result<(), TraceError> {
        let mut parser = Reader::new();
        let mut out = [0; FIELD_MAX];
        // A blank line first. The parser removes a byte order mark at the start of its first input,
        // but only if it receives the whole mark at once. `open` has removed the mark already, and
        // the result must not depend on how the input is split.
        parser.read_field(b"\n", &mut out);
        let wanted = find_column(&mut parser, input, name)?;
        let mut field = Clip::default();
        while let Some(line) = input.seek_record()? {
            field.clear();
            let mut blank = true;
            let mut index = 0;
            loop {
                let (result, written) = input.parse(&mut parser, &mut out, line)?;
                blank &= out[..written].trim_ascii().is_empty();
                if index == wanted {
                    field.push(&out[..written]);
                }
                match result {
                    ReadFieldResult::Field { record_end: true } => break,
                    ReadFieldResult::Field { record_end: false } => index += 1,
                    _ => {} // more of this field follows
                }
            }
            if index < wanted {
                let is_blank_line = index == 0 && blank;
                if !is_blank_line {
                    self.bad(line, Reason::NoColumn);
                }
            } else if index == 0 {
                self.take_line(line, &field.kept, field.overlong)?;
            } else {
                self.take(line, &field.kept, field.overlong)?;
            }
        }
        Ok(())
    }

    /// Takes a size, unless the line is blank or a comment.
    fn take_line(&mut self, line: u64, text: &[u8], overlong: bool) -> Result<(), TraceError> {
        match text.trim_ascii_start().first() {
            None if !overlong => Ok(()),
            Some(b'#') => Ok(()),
            _ => self.take(line, text, overlong),
        }
    }

    /// Takes a text that should be a size. For an overlong text, `text` is its start.
    fn take(&mut self, line: u64, text: &[u8], overlong: bool) -> Result<(), TraceError> {
        if overlong {
            self.bad(line, Reason::TooLong);
            return Ok(());
        }
        match size(text.trim_ascii()) {
            Ok(size) => {
                if self.sizes.len() == self.sizes.capacity() {
                    let sizes = self.sizes.len();
                    let reserved = self.sizes.try_reserve(1);
                    reserved.map_err(|_| TraceError::OutOfMemory { sizes })?;
                }
                self.sizes.push(size);
            }
            Err(reason) => self.bad(line, reason),
        }
        Ok(())
    }

    fn bad(&mut self, line: u64, reason: Reason) {
        self.bad_count += 1;
        if self.bad_first.len() < BAD_FIRST_MAX {
            self.bad_first.push(BadLine { line, reason });
        }
    }
}

/// A decimal integer up to `isize::MAX`.
fn size(text: &[u8]) -> Result<usize, Reason> {
    if text.is_empty() || !text.iter().all(u8::is_ascii_digit) {
        return Err(Reason::NotASize(text.to_vec()));
    }
    let mut size = 0_usize;
    for &byte in text {
        // Once above the limit, it stays there.
        size = size.saturating_mul(10);
        size = size.saturating_add(usize::from(byte - b'0'));
    }
    if size > isize::MAX as usize {
        return Err(Reason::TooLarge);
    }
    Ok(size)
}

/// The index of the column of this name.
fn find_column(
    parser: &mut Reader,
    input: &mut Lines<impl Read>,
    name: &str,
) -> Result<usize, TraceError> {
    let Some(line) = input.seek_record()? else {
        return Err(TraceError::Empty {
            bad: 0,
            hint: false,
        });
    };
    let mut out = [0; FIELD_MAX];
    let mut columns: Vec<Vec<u8>> = vec![Vec::new()];
    let mut bytes = 0;
    loop {
        let (result, written) = input.parse(parser, &mut out, line)?;
        // One more for each field: empty fields take memory, too.
        bytes += written + 1;
        if bytes > HEADER_MAX {
            return Err(TraceError::HeaderTooLong);
        }
        if let Some(column) = columns.last_mut() {
            column.extend_from_slice(&out[..written]);
        }
        if let ReadFieldResult::Field { record_end } = result {
            if record_end {
                break;
            }
            columns.push(Vec::new());
        }
    }
    let is_wanted = |column: &Vec<u8>| column.trim_ascii() == name.trim().as_bytes();
    let mut found = (0..columns.len()).filter(|&index| is_wanted(&columns[index]));
    match (found.next(), found.next()) {
        (Some(index), None) => Ok(index),
        (Some(_), Some(_)) => Err(TraceError::ColumnTwice {
            name: name.to_owned(),
        }),
        (None, _) => Err(TraceError::NoSuchColumn {
            name: name.to_owned(),
            columns: list_of(&columns),
        }),
    }
}

/// The names of the first columns, for a message.
fn list_of(columns: &[Vec<u8>]) -> String {
    const SHOWN: usize = 20;
    let names = columns.iter().take(SHOWN);
    let names: Vec<String> = names.map(|name| quoted(name.trim_ascii())).collect();
    let more = match columns.len().saturating_sub(SHOWN) {
        0 => String::new(),
        more => format!(" and {more} more"),
    };
    names.join(", ") + &more
}

/// For a message: short, and without characters that move a terminal's cursor.
fn quoted(text: &[u8]) -> String {
    const SHOWN: usize = 40;
    let text = String::from_utf8_lossy(text);
    let shown = text.chars().take(SHOWN).flat_map(char::escape_debug);
    let cut = if text.chars().count() > SHOWN {
        "..."
    } else {
        ""
    };
    format!("\"{}{cut}\"", shown.collect::<String>())
}

/// The start of a text that may be very long.
#[derive(Default)]
struct Clip {
    kept: Vec<u8>,
    overlong: bool,
}

impl Clip {
    fn push(&mut self, bytes: &[u8]) {
        let room = FIELD_MAX - self.kept.len();
        self.overlong |= bytes.len() > room;
        self.kept.extend_from_slice(&bytes[..bytes.len().min(room)]);
    }

    fn is_empty(&self) -> bool {
        self.kept.is_empty()
    }

    fn clear(&mut self) {
        self.kept.clear();
        self.overlong = false;
    }
}

/// An input that counts its lines. It adds a line feed to a last line without one.
///
/// Its reader decides what ends a line: a line feed; in CSV, also a carriage return, or both
/// together.
struct Lines<R> {
    input: R,
    buffer: Box<[u8]>,
    /// `buffer[from..to]` is read and not yet consumed.
    from: usize,
    to: usize,
    /// How many lines have ended.
    line: u64,
    /// Whether the last byte was not a line feed.
    is_open: bool,
    /// For CSV: whether the last consumed byte was a carriage return, which a line feed may follow.
    after_return: bool,
}

impl<R: Read> Lines<R> {
    fn new(input: R) -> Self {
        Lines {
            input,
            buffer: vec![0; CHUNK].into_boxed_slice(),
            from: 0,
            to: 0,
            line: 0,
            is_open: false,
            after_return: false,
        }
    }

    /// The next part of the input; empty at the end.
    fn chunk(&mut self) -> Result<&[u8], TraceError> {
        if self.from == self.to {
            self.from = 0;
            self.to = self.fill()?;
        }
        Ok(&self.buffer[self.from..self.to])
    }

    fn fill(&mut self) -> Result<usize, TraceError> {
        loop {
            match self.input.read(&mut self.buffer) {
                Ok(0) if self.is_open => {
                    self.buffer[0] = b'\n';
                    self.is_open = false;
                    return Ok(1);
                }
                Ok(0) => return Ok(0),
                Ok(bytes) => {
                    self.is_open = self.buffer[bytes - 1] != b'\n';
                    return Ok(bytes);
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => {
                    let line = self.line;
                    return Err(TraceError::Io { error, line });
                }
            }
        }
    }

    /// Consumes `bytes` bytes of the chunk, in which `lines` lines end.
    fn consume(&mut self, bytes: usize, lines: u64) {
        self.from += bytes;
        self.line += lines;
    }

    /// Consumes `bytes` bytes of the chunk, which are CSV.
    fn consume_csv(&mut self, bytes: usize) {
        let mut ended = 0;
        for &byte in &self.buffer[self.from..self.from + bytes] {
            let is_return = byte == b'\r';
            ended += u64::from(is_return || (byte == b'\n' && !self.after_return));
            self.after_return = is_return;
        }
        self.consume(bytes, ended);
    }

    /// Skips blank lines and comments up to the next CSV record. Returns the number of its first
    /// line, or `None` at the end.
    fn seek_record(&mut self) -> Result<Option<u64>, TraceError> {
        let is_line_end = |byte: &u8| matches!(byte, b'\n' | b'\r');
        let mut comment = false;
        loop {
            let chunk = self.chunk()?;
            let Some(&first) = chunk.first() else {
                return Ok(None);
            };
            if comment || first == b'#' {
                let end = chunk.iter().position(is_line_end);
                comment = end.is_none();
                let bytes = end.map_or(chunk.len(), |end| end + 1);
                self.consume_csv(bytes);
            } else if is_line_end(&first) {
                self.consume_csv(1);
            } else {
                return Ok(Some(self.line + 1));
            }
        }
    }

    /// Parses up to the end of a field, of the output or of the chunk, whichever comes first. The
    /// record began in this line.
    fn parse(
        &mut self,
        parser: &mut Reader,
        out: &mut [u8],
        line: u64,
    ) -> Result<(ReadFieldResult, usize), TraceError> {
        let chunk = self.chunk()?;
        if chunk.is_empty() {
            // The parser has consumed the line feed at the end, and the record goes on.
            return Err(TraceError::OpenQuote { line });
        }
        let (result, read, written) = parser.read_field(chunk, out);
        self.consume_csv(read);
        Ok((result, written))
    }
}

impl fmt::Display for BadLine {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "line {}: ", self.line)?;
        match &self.reason {
            Reason::NotASize(text) => write!(f, "not a size: {}", quoted(text)),
            Reason::TooLarge => write!(f, "above {} bytes, the largest buffer", isize::MAX),
            Reason::TooLong => write!(f, "not a size: longer than {FIELD_MAX} characters"),
            Reason::NoColumn => write!(f, "the record ends before the column"),
        }
    }
}

impl fmt::Display for TraceError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Io { error, line: 0 } => write!(f, "{error}"),
            Self::Io { error, line } => write!(f, "after line {line}: {error}"),
            Self::Empty { bad: 0, .. } => write!(f, "the trace is empty: it has no size"),
            Self::Empty { bad, hint } => {
                write!(f, "no line of the trace is a size; {bad} are bad")?;
                if *hint {
                    write!(f, " (if it is CSV, name a column with --column)")?;
                }
                Ok(())
            }
            Self::NoSuchColumn { name, columns } => {
                write!(f, "no column {name:?}; there are {columns}")
            }
            Self::ColumnTwice { name } => write!(f, "there are several columns {name:?}"),
            Self::HeaderTooLong => {
                write!(
                    f,
                    "the names of the columns take more than {HEADER_MAX} bytes"
                )
            }
            Self::OpenQuote { line } => {
                write!(
                    f,
                    "the record that begins in line {line} has a quote that is never closed"
                )
            }
            Self::OutOfMemory { sizes } => write!(f, "out of memory after {sizes} sizes"),
        }
    }
}

impl Error for TraceError {}

#[cfg(test)]
mod tests {
    use super::*;

    /// Gives one byte at a time, as a slow pipe does.
    struct Bytes<'a>(&'a [u8]);

    impl Read for Bytes<'_> {
        fn read(&mut self, out: &mut [u8]) -> io::Result<usize> {
            let Some((&first, rest)) = self.0.split_first() else {
                return Ok(0);
            };
            out[0] = first;
            self.0 = rest;
            Ok(1)
        }
    }

    type Got = (Vec<usize>, Vec<String>, Option<String>);

    fn read_from(input: impl Read, column: Option<&str>) -> Got {
        let mut trace = Trace::default();
        let read = open(input).and_then(|input| trace.read(input, column));
        let bad = trace.bad_first.iter().map(BadLine::to_string);
        let error = read.err().map(|error| error.to_string());
        (trace.sizes, bad.collect(), error)
    }

    /// Reads the text at once and byte by byte. The results must be the same.
    fn read(text: &[u8], column: Option<&str>) -> Got {
        let whole = read_from(text, column);
        assert_eq!(whole, read_from(Bytes(text), column));
        whole
    }

    fn sizes(text: &[u8], column: Option<&str>) -> Vec<usize> {
        let (sizes, bad, error) = read(text, column);
        assert_eq!((bad, error), (Vec::new(), None));
        sizes
    }

    #[test]
    fn blanks_comments_and_line_ends_do_not_matter() {
        let text = b"\xef\xbb\xbf12\r\n\n  \t \n# 5\n  # 6\n 7 \t\r\n\r\n0\n00042";
        assert_eq!(sizes(text, None), [12, 7, 0, 42]);
    }

    #[test]
    fn a_size_is_a_decimal_integer_up_to_the_largest_buffer() {
        let most = isize::MAX.to_string();
        assert_eq!(sizes(most.as_bytes(), None), [isize::MAX as usize]);
        let above = (isize::MAX as u128 + 1).to_string();
        let far_above = "9".repeat(500);
        for text in [&above, &far_above] {
            let (sizes, bad, _) = read(text.as_bytes(), None);
            assert!(sizes.is_empty());
            assert!(bad[0].starts_with("line 1: above 92"), "{bad:?}");
        }
        for text in [
            "-1", "+1", "1.5", "1_000", "0x10", "1 2", "1,2", "\u{0661}", "1#",
        ] {
            let (sizes, bad, _) = read(text.as_bytes(), None);
            assert_eq!((sizes.len(), bad.len()), (0, 1), "{text}");
            assert!(bad[0].starts_with("line 1: not a size"), "{text}");
        }
    }

    #[test]
    fn a_bad_line_is_named_by_number_and_the_other_lines_count() {
        let (sizes, bad, error) = read(b"1\n\n#\nx\x1b[2J\n2\n\xff\xfe\n3", None);
        assert_eq!((sizes, error), (vec![1, 2, 3], None));
        let expected = [
            "line 4: not a size: \"x\\u{1b}[2J\"",
            "line 6: not a size: \"\u{fffd}\u{fffd}\"",
        ];
        assert_eq!(bad, expected);
    }

    #[test]
    fn part_of_a_byte_order_mark_is_a_bad_line() {
        let (sizes, bad, _) = read(b"\xef\xbb1\n2\n", None);
        assert_eq!((sizes, bad.len()), (vec![2], 1));
    }

    #[test]
    fn a_line_of_any_length_is_one_bad_line() {
        for length in [FIELD_MAX, FIELD_MAX + 1, CHUNK - 2, CHUNK, 3 * CHUNK + 7] {
            for filler in ["7", " ", "#", "\r"] {
                let text = format!("1\n{}\n2\n", filler.repeat(length));
                let (sizes, bad, error) = read_from(text.as_bytes(), None);
                assert_eq!((sizes, error), (vec![1, 2], None));
                let is_silent = filler == "#" || (length == FIELD_MAX && filler != "7");
                assert_eq!(bad.len(), usize::from(!is_silent), "{length} {filler:?}");
            }
        }
    }

    #[test]
    fn lines_across_chunk_borders_are_whole() {
        let text: String = (0..CHUNK).map(|n| format!("{n}\n")).collect();
        let (sizes, bad, error) = read_from(text.as_bytes(), None);
        assert_eq!((bad, error), (Vec::new(), None));
        assert!(sizes.into_iter().eq(0..CHUNK));
    }

    #[test]
    fn a_csv_column_is_found_by_name() {
        let text =
            b"id,\" size \",name\r\n1, 10 ,\"a, b\"\r\n\r\n# no\r\n2,\"20\",\"say \"\"x\"\"\"";
        assert_eq!(sizes(text, Some("size")), [10, 20]);
        assert_eq!(sizes(b"\n# sizes\nsize\n5\n  \n6\n", Some("size")), [5, 6]);
        assert_eq!(sizes(b"\xef\xbb\xbfsize,x\n5,1\n", Some("size")), [5]);
        assert_eq!(sizes(b"size,x\n5,\"7\" tall\"\n6,\n", Some("size")), [5, 6]);
    }

    #[test]
    fn a_csv_record_is_named_by_its_first_line() {
        let text = b"name,size\n\n\"two\nlines\",1\n\"two\r\nlines\",x\n# c\nshort\n\n,\n,#5\n,9\n";
        let (sizes, bad, error) = read(text, Some("size"));
        assert_eq!((sizes, error), (vec![1, 9], None));
        let expected = [
            "line 5: not a size: \"x\"",
            "line 8: the record ends before the column",
            "line 10: not a size: \"\"",
            "line 11: not a size: \"#5\"",
        ];
        assert_eq!(bad, expected);
    }

    // Failed once: a second mark was removed if it came at once, and was part of the name if it
    // came byte by byte.
    #[test]
    fn one_byte_order_mark_is_taken_off_and_only_at_the_start() {
        for text in ["\u{feff}\u{feff}size\n5\n", "\n\u{feff}size\n5\n"] {
            let (sizes, _, error) = read(text.as_bytes(), Some("size"));
            assert_eq!(sizes, [0; 0]);
            let error = error.expect("no column has this name");
            assert!(error.starts_with("no column"), "{error}");
        }
    }

    // Failed once: a carriage return alone ended a record but did not count as a line end. So a
    // comment went on behind it.
    #[test]
    fn a_csv_line_ends_with_a_line_feed_a_carriage_return_or_both() {
        let text = "# c\nname,size\n\n\"two\nlines\",1\nx,y\n# c\n2,2\nshort\n\n# c\n3,3";
        let expected = (
            vec![1, 2, 3],
            vec![
                String::from("line 6: not a size: \"y\""),
                String::from("line 9: the record ends before the column"),
            ],
            None,
        );
        for end in ["\n", "\r\n", "\r"] {
            let text = text.replace('\n', end);
            for text in [text.clone(), text + end] {
                assert_eq!(read(text.as_bytes(), Some("size")), expected, "{text:?}");
            }
        }
    }

    #[test]
    fn a_csv_field_of_any_length_takes_no_memory() {
        let text = format!("a,size\n\"{0}\",1\n2,{0}\n3,3\n", "x,".repeat(CHUNK));
        let text = text.replace(&format!("2,{}", "x,"), "2,");
        let (sizes, bad, error) = read_from(text.as_bytes(), Some("size"));
        assert_eq!((sizes, error), (vec![1, 3], None));
        assert_eq!(bad, ["line 3: not a size: \"x\""]);
        let text = format!("size\n\"{}\"\n3\n", "7\n".repeat(CHUNK));
        let (sizes, bad, error) = read_from(text.as_bytes(), Some("size"));
        assert_eq!((sizes, error), (vec![3], None));
        assert_eq!(bad, ["line 2: not a size: longer than 1024 characters"]);
    }

    #[test]
    fn a_quote_that_is_never_closed_is_an_error() {
        for text in ["a,size\n1,1\n\"x,2\n3,3\n", "a,size\n1,1\n\"x,2\n3,3"] {
            let (sizes, _, error) = read(text.as_bytes(), Some("size"));
            assert_eq!(sizes, [1]);
            let error = error.expect("an error");
            assert!(error.contains("begins in line 3"), "{error}");
        }
        let (_, _, error) = read(b"\"size\n1\n", Some("size"));
        assert!(error.is_some_and(|error| error.contains("begins in line 1")));
    }

    #[test]
    fn a_column_that_is_missing_or_ambiguous_is_an_error() {
        let (_, _, error) = read(b"a,b\n1,2\n", Some("size"));
        assert_eq!(error.unwrap(), "no column \"size\"; there are \"a\", \"b\"");
        let (_, _, error) = read(b"size,b,size\n1,2,3\n", Some("size"));
        assert_eq!(error.unwrap(), "there are several columns \"size\"");
        let header = "x,".repeat(HEADER_MAX);
        let (_, _, error) = read_from(header.as_bytes(), Some("size"));
        assert!(error.unwrap().contains("take more than"));
        let header = "\u{e4},".repeat(100);
        let (_, _, error) = read(header.as_bytes(), Some("size"));
        let error = error.unwrap();
        assert!(error.ends_with(" and 81 more"), "{error}");
    }

    #[test]
    fn a_trace_without_a_size_is_an_error_that_gives_the_reason() {
        for (text, column) in [
            ("", None),
            ("# x\n\n", None),
            ("", Some("a")),
            ("a\n", Some("a")),
        ] {
            let (_, _, error) = read(text.as_bytes(), column);
            assert_eq!(
                error.unwrap(),
                "the trace is empty: it has no size",
                "{text:?}"
            );
        }
        let (_, _, error) = read(b"size,x\n1,2\n", None);
        let error = error.unwrap();
        assert!(
            error.contains("2 are bad") && error.contains("--column"),
            "{error}"
        );
        let (_, _, error) = read(b"a\nx\n", Some("a"));
        assert_eq!(error.unwrap(), "no line of the trace is a size; 1 are bad");
    }

    #[test]
    fn ten_bad_lines_are_kept_and_all_are_counted() {
        let mut trace = Trace::default();
        let text = "x\n".repeat(1000) + "1";
        trace.read(text.as_bytes(), None).unwrap();
        assert_eq!((trace.bad_first.len(), trace.bad_count), (10, 1000));
        assert_eq!(trace.bad_first[9].line, 10);
    }
}
