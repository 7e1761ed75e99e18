//! Any text as a saved profile: it is read if and only if it is valid, an error names the fault,
//! and a pool can begin with a profile that was read.
//!
//! JSON and the rules of a saved profile are written here a second time, from RFC 8259 and from the
//! documentation of `Profile`.

#![no_main]

use arbitrary::{Arbitrary, Result, Unstructured};
use bytes::BytesMut;
use libfuzzer_sys::fuzz_target;
use std::fmt::Write;
use tierpool::{Pool, Profile, Targets};

/// 16 KiB: limits how deep values are nested, and so the stack.
const LEN_MAX: usize = 16 << 10;
/// 2 MiB: no larger buffer is allocated here.
const ALLOCATED_MAX: u64 = 2 << 20;

const NAMES: [&str; 5] = ["version", "default_size", "max_size", "calls", "kept"];

// ---- the meaning of a text ----

/// A JSON value, as far as it matters here.
#[derive(Clone, Debug, PartialEq)]
enum Json {
    Null,
    Whole(u64),
    List(Vec<Json>),
    Object(Vec<(String, Json)>),
    Other,
}

/// Reads JSON. `None` means that the text is not JSON.
struct Reader<'a> {
    left: &'a [u8],
}

impl Reader<'_> {
    fn text(text: &[u8]) -> Option<Json> {
        let mut reader = Reader { left: text };
        let value = reader.value()?;
        reader.blanks();
        reader.left.is_empty().then_some(value)
    }

    fn blanks(&mut self) {
        while let [b' ' | b'\t' | b'\r' | b'\n', left @ ..] = self.left {
            self.left = left;
        }
    }

    fn next(&mut self) -> Option<u8> {
        let (&first, left) = self.left.split_first()?;
        self.left = left;
        Some(first)
    }

    fn skip(&mut self, word: &str) -> Option<()> {
        self.left = self.left.strip_prefix(word.as_bytes())?;
        Some(())
    }

    fn value(&mut self) -> Option<Json> {
        self.blanks();
        Some(match self.left.first()? {
            b'n' => self.skip("null").map(|()| Json::Null)?,
            b't' => self.skip("true").map(|()| Json::Other)?,
            b'f' => self.skip("false").map(|()| Json::Other)?,
            b'"' => self.string(false).map(|_| Json::Other)?,
            b'[' => Json::List(self.list(b']', Self::value)?),
            b'{' => Json::Object(self.list(b'}', Self::member)?),
            _ => self.number()?,
        })
    }

    fn list<T>(&mut self, end: u8, item: impl Fn(&mut Self) -> Option<T>) -> Option<Vec<T>> {
        self.next()?;
        self.blanks();
        let mut list = Vec::new();
        if self.left.first() == Some(&end) {
            self.next();
            return Some(list);
        }
        loop {
            list.push(item(self)?);
            self.blanks();
            match self.next()? {
                b',' => {}
                byte if byte == end => return Some(list),
                _ => return None,
            }
        }
    }

    fn member(&mut self) -> Option<(String, Json)> {
        self.blanks();
        let name = self.string(true)?;
        self.blanks();
        self.skip(":")?;
        Some((name, self.value()?))
    }

    /// Reads a string. If it is not `wanted`, only its end is found: it may hold invalid text.
    fn string(&mut self, wanted: bool) -> Option<String> {
        self.skip("\"")?;
        let mut bytes = Vec::new();
        loop {
            match self.next()? {
                b'"' => break,
                b'\\' => match self.next()? {
                    byte @ (b'"' | b'\\' | b'/') => bytes.push(byte),
                    b'b' => bytes.push(8),
                    b'f' => bytes.push(12),
                    b'n' => bytes.push(b'\n'),
                    b'r' => bytes.push(b'\r'),
                    b't' => bytes.push(b'\t'),
                    b'u' => {
                        let mut units = vec![self.hex()?];
                        if wanted && (0xd800..0xdc00).contains(&units[0]) {
                            self.skip("\\u")?;
                            units.push(self.hex()?);
                        }
                        match String::from_utf16(&units) {
                            Ok(text) => bytes.extend_from_slice(text.as_bytes()),
                            Err(_) if wanted => return None,
                            Err(_) => {}
                        }
                    }
                    _ => return None,
                },
                0..=0x1f => return None,
                byte => bytes.push(byte),
            }
        }
        match String::from_utf8(bytes) {
            Ok(text) => Some(text),
            Err(_) => (!wanted).then(String::new),
        }
    }

    fn hex(&mut self) -> Option<u16> {
        let (digits, left) = self.left.split_at_checked(4)?;
        self.left = left;
        let digits = std::str::from_utf8(digits).ok()?;
        // `from_str_radix` takes a sign.
        let all = digits.bytes().all(|byte| byte.is_ascii_hexdigit());
        u16::from_str_radix(digits, 16).ok().filter(|_| all)
    }

    fn digits(&mut self) -> Option<&[u8]> {
        let count = self.left.iter().take_while(|byte| byte.is_ascii_digit());
        let (digits, left) = self.left.split_at(count.count());
        self.left = left;
        (!digits.is_empty()).then_some(digits)
    }

    fn number(&mut self) -> Option<Json> {
        let negative = self.skip("-").is_some();
        let digits = self.digits()?;
        if digits.len() > 1 && digits[0] == b'0' {
            return None;
        }
        let whole = std::str::from_utf8(digits).ok()?.parse().ok();
        let mut fraction = negative;
        if self.skip(".").is_some() {
            self.digits()?;
            fraction = true;
        }
        if let Some(b'e' | b'E') = self.left.first() {
            self.next();
            if let Some(b'+' | b'-') = self.left.first() {
                self.next();
            }
            self.digits()?;
            fraction = true;
        }
        Some(match whole {
            Some(whole) if !fraction => Json::Whole(whole),
            _ => Json::Other, // not valid for any field
        })
    }
}

/// A saved profile whose fields are of the right types.
#[derive(Default)]
struct Fields {
    /// In the order of `NAMES`, without `kept`.
    numbers: [Option<u64>; 4],
    kept: Option<Vec<u64>>,
}

/// `None` if serde_json must refuse the text: it is not JSON, or a field has a wrong type or occurs
/// twice.
fn fields(text: &[u8]) -> Option<Fields> {
    let mut fields = Fields::default();
    let mut seen = [false; NAMES.len()];
    let members: Vec<(String, Json)> = match Reader::text(text)? {
        Json::Object(members) => members,
        // Without names, in the order of the fields.
        Json::List(items) if items.len() <= NAMES.len() => {
            let names = NAMES.iter().map(|name| name.to_string());
            names.zip(items).collect()
        }
        _ => return None,
    };
    for (name, value) in members {
        let Some(index) = NAMES.iter().position(|known| *known == name) else {
            continue;
        };
        if std::mem::replace(&mut seen[index], true) {
            return None;
        }
        match (index, value) {
            (_, Json::Null) => {}
            (0, Json::Whole(version)) if version > u64::from(u32::MAX) => return None,
            (0..=3, Json::Whole(number)) => fields.numbers[index] = Some(number),
            (4, Json::List(items)) => {
                let sizes = items.into_iter().map(|item| match item {
                    Json::Whole(size) => Some(size),
                    _ => None,
                });
                fields.kept = Some(sizes.collect::<Option<_>>()?);
            }
            _ => return None,
        }
    }
    Some(fields)
}

/// A learned profile.
#[derive(Debug, Default, PartialEq)]
struct Learned {
    targets: Option<(u64, u64)>,
    calls: u64,
    kept: Vec<u64>,
}

impl Fields {
    /// The profile, or the fault in it.
    fn judge(self) -> std::result::Result<Learned, String> {
        let missing = |name: &str| format!("{name} is missing");
        let [version, default_size, max_size, calls] = self.numbers;
        match version {
            None => return Err(missing("version")),
            Some(1) => {}
            Some(other) => return Err(format!("version {other} cannot be read")),
        }
        let calls = calls.ok_or(missing("calls"))?;
        let kept = self.kept.ok_or(missing("kept"))?;
        if default_size.is_none() && max_size.is_none() && calls == 0 && kept.is_empty() {
            return Ok(Learned::default());
        }
        let default_size = default_size.ok_or(missing("default_size"))?;
        let max_size = max_size.ok_or(missing("max_size"))?;
        if max_size < default_size {
            return Err(format!("max_size: {max_size} bytes is below default_size"));
        }
        if calls == 0 {
            return Err(String::from("calls: 0"));
        }
        for (name, size) in [("default_size", default_size), ("max_size", max_size)] {
            if !size.is_power_of_two() || !(64..=32 << 20).contains(&size) {
                return Err(format!("{name}: {size} bytes is not a power of two"));
            }
        }
        let all: Vec<u64> = [max_size].into_iter().chain(kept.clone()).collect();
        let ascending = all.windows(2).all(|pair| pair[0] < pair[1]);
        if !ascending || kept.len() > 128 || all.iter().any(|&size| size > isize::MAX as u64) {
            return Err(String::from("kept: not an ascending list"));
        }
        Ok(Learned {
            targets: Some((default_size, max_size)),
            calls,
            kept,
        })
    }
}

// ---- a text that is nearly a profile ----

/// `true` in one of `of` cases. Never after the end of the input, so that rare cases take bytes.
fn seldom(u: &mut Unstructured, of: u8) -> Result<bool> {
    Ok(u.int_in_range(1..=of)? == of)
}

/// A value for the field of this index, mostly a valid one.
fn value(u: &mut Unstructured, index: usize) -> Result<String> {
    Ok(match u.int_in_range(0..=19_u8)? {
        19 => String::from("null"),
        18 => u64::arbitrary(u)?.to_string(),
        17 => "9".repeat(u.int_in_range(1..=400)?),
        16 => {
            let depth = u.int_in_range(1..=500)?;
            "[".repeat(depth) + &"]".repeat(depth)
        }
        15 => String::from(*u.choose(&[
            "-1",
            "-0",
            "0",
            "1.0",
            "1e0",
            "1E+2",
            "\"1\"",
            "true",
            "false",
            "{}",
            "[]",
            "01",
            "[null]",
            "\"\\ud800\"",
            "1e999",
        ])?),
        _ => match index {
            0 if seldom(u, 16)? => u32::arbitrary(u)?.to_string(),
            0 => String::from("1"),
            1 | 2 => {
                let near = u.int_in_range(0..=15_u8)?;
                let step = 64_u64 << u.int_in_range(0..=20)?;
                match near {
                    14 => step - 1,
                    15 => step + 1,
                    _ => step,
                }
                .to_string()
            }
            3 => match seldom(u, 8)? {
                true => String::from("0"),
                false => u64::arbitrary(u)?.saturating_add(1).to_string(),
            },
            4 => {
                let mut list = Vec::new();
                let mut last = (64 << u.int_in_range(0..=19)?) + u.int_in_range(0..=2)?;
                let count = match seldom(u, 4)? {
                    true => u.int_in_range(128..=129)?,
                    false => u.int_in_range(0..=5)?,
                };
                for _ in 0..count {
                    list.push(last.to_string());
                    last = match u.int_in_range(0..=31_u8)? {
                        31 => u64::arbitrary(u)?,
                        30 => last,
                        _ => last.saturating_add(u.int_in_range(1..=1 << 20)?),
                    };
                }
                format!("[{}]", list.join(","))
            }
            _ => String::from("{\"by\":[\"hand\",1.5,null]}"),
        },
    })
}

fn nearly(u: &mut Unstructured) -> Result<String> {
    let mut members = Vec::new();
    let is_list = seldom(u, 8)?;
    for (index, name) in NAMES.iter().enumerate() {
        // Missing, doubled, or once.
        let times = match u.int_in_range(0..=31_u8)? {
            31 => 0,
            30 => 2,
            _ => 1,
        };
        for _ in 0..times {
            let value = value(u, index)?;
            members.push(match (is_list, u.int_in_range(0..=31_u8)?) {
                (true, _) => value,
                (_, 31) => format!(
                    " \"\\u{:04x}{}\" :\t{value}",
                    name.as_bytes()[0],
                    &name[1..]
                ),
                (_, 30) => format!("\"{name}s\":{value}"),
                _ => format!("\"{name}\":{value}"),
            });
        }
        if seldom(u, 16)? {
            let value = value(u, NAMES.len())?;
            members.push(match is_list {
                true => value,
                false => format!("\"\u{e4}{index}\":{value}"),
            });
        }
    }
    if !is_list && seldom(u, 4)? {
        let by = u.int_in_range(0..=members.len())?;
        members.rotate_left(by);
    }
    let [open, close] = if is_list { ["[", "]"] } else { ["{", "}"] };
    let mut text = String::new();
    let _ = write!(text, "{open}{}{close}", members.join(",")); // a string takes all
    Ok(text)
}

// ---- the checks ----

fn check(text: &[u8]) {
    let read = serde_json::from_slice::<Profile>(text);
    if let Ok(text) = std::str::from_utf8(text) {
        assert_eq!(
            serde_json::from_str::<Profile>(text).ok(),
            read.as_ref().ok().cloned()
        );
    }
    let judged = fields(text).map(Fields::judge);
    match (read, judged) {
        (Ok(profile), Some(Ok(learned))) => check_profile(profile, &learned),
        (Err(error), Some(Err(wrong))) => {
            let text = error.to_string();
            let says = format!("tierpool profile: {wrong}");
            assert!(text.starts_with(&says), "{text}: not {says}");
            assert!(error.is_data());
        }
        (Err(error), None) => {
            assert!(!error.to_string().is_empty());
            assert!(error.is_data() || error.is_syntax() || error.is_eof());
        }
        (Ok(profile), judged) => {
            panic!(
                "read as {profile:?}, but {:?}",
                judged.map(|said| said.err())
            );
        }
        (Err(error), Some(Ok(learned))) => panic!("{error}, but it is valid: {learned:?}"),
    }
}

fn check_profile(profile: Profile, learned: &Learned) {
    let sizes = |targets: Targets| (targets.default_size as u64, targets.max_size as u64);
    let targets = profile.targets().map(sizes);
    assert_eq!((targets, profile.calls()), (learned.targets, learned.calls));

    // A saved copy has the same values.
    let saved = serde_json::to_string(&profile).expect("a profile can be saved");
    assert_eq!(serde_json::from_str::<Profile>(&saved).unwrap(), profile);
    let again = fields(saved.as_bytes()).expect("it is JSON").judge();
    assert_eq!(again.as_ref(), Ok(learned));

    // A pool begins with it, whatever its classes are.
    let pool = Pool::builder().profile(profile.clone()).build();
    let pool = pool.expect("any profile is valid");
    let calibrations = pool.stats().calibrations;
    assert_eq!((pool.profile().calls(), calibrations), (learned.calls, 0));
    let first = (4096, 1 << 20);
    assert_eq!(sizes(pool.targets()), targets.unwrap_or(first));

    let Some((_, max_size)) = learned.targets else {
        return;
    };
    // A pool with exactly these classes, and one more that no caller has requested.
    let kept = || [max_size].into_iter().chain(learned.kept.iter().copied());
    let stranger = kept().last().map_or(0, |last| last + 1000);
    if learned.kept.len() + 2 > 128 || stranger > isize::MAX as u64 {
        return;
    }
    let classes = kept().chain([stranger]).map(|size| size as usize);
    let pool = Pool::builder()
        .classes(classes)
        .trim_interval(None)
        .learn_sizes(false)
        .profile(profile.clone())
        .build()
        .expect("the classes ascend");
    assert_eq!(pool.profile(), profile);
    let retained = || pool.stats().total.retained_buffers;
    for size in kept().take(4).chain([stranger]) {
        if size > ALLOCATED_MAX {
            continue;
        }
        let before = retained();
        drop(pool.adopt(BytesMut::with_capacity(size as usize)));
        let is_kept = retained() > before;
        assert_eq!(is_kept, size != stranger, "{size} of {learned:?}");
    }
}

fuzz_target!(|data: &[u8]| {
    let Some((&first, rest)) = data.split_first() else {
        return;
    };
    // If the first byte cannot begin a text, the rest is drawn as a text.
    if first.is_ascii_graphic() || first.is_ascii_whitespace() {
        if data.len() <= LEN_MAX {
            check(data);
        }
    } else if let Ok(text) = nearly(&mut Unstructured::new(rest)) {
        check(text.as_bytes());
    }
});
