//! The program as its user runs it: its input, its output and its errors.

use flate2::Compression;
use flate2::write::GzEncoder;
use std::fs;
use std::io::{Read, Write};
use std::path::PathBuf;
use std::process::{Child, Command, Output, Stdio};
use tierpool::{ConfigError, Pool};

#[path = "../examples/sample.rs"]
mod sample;

/// The code that the program prints, compiled without a change. A unit test of `src/report.rs`
/// compares the printed code with these files.
mod printed {
    pub mod defaults {
        include!("code/defaults.rs");
        pub const POOL: fn() -> Result<tierpool::Pool, tierpool::ConfigError> = pool;
    }
    pub mod calibrated {
        include!("code/calibrated.rs");
        pub const POOL: fn() -> Result<tierpool::Pool, tierpool::ConfigError> = pool;
    }
    pub mod fitted_one {
        include!("code/fitted_one.rs");
        pub const POOL: fn() -> Result<tierpool::Pool, tierpool::ConfigError> = pool;
    }
    pub mod fitted_few {
        include!("code/fitted_few.rs");
        pub const POOL: fn() -> Result<tierpool::Pool, tierpool::ConfigError> = pool;
    }
    pub mod fitted_many {
        include!("code/fitted_many.rs");
        pub const POOL: fn() -> Result<tierpool::Pool, tierpool::ConfigError> = pool;
    }
}

const PROGRAM: &str = env!("CARGO_BIN_EXE_tierpool-tune");

/// Starts the program. Each size is taken once unless `args` differ: most tests are not about the
/// replay.
fn start(args: &[&str]) -> Child {
    let mut command = Command::new(PROGRAM);
    if !args.contains(&"--min-gets") {
        command.args(["--min-gets", "1"]);
    }
    command.args(args).stdin(Stdio::piped());
    command.stdout(Stdio::piped()).stderr(Stdio::piped());
    command.spawn().expect("the program starts")
}

/// Runs the program on this input.
fn run(args: &[&str], input: impl AsRef<[u8]>) -> Output {
    feed(start(args), input)
}

fn feed(mut child: Child, input: impl AsRef<[u8]>) -> Output {
    let mut stdin = child.stdin.take().expect("it is piped");
    let input = input.as_ref().to_vec();
    // On a thread: the program may print before it has read everything. It may also end before
    // that; then its messages matter.
    let writer = std::thread::spawn(move || drop(stdin.write_all(&input)));
    let output = child.wait_with_output().expect("it ends");
    writer.join().expect("it does not panic");
    output
}

fn text(bytes: &[u8]) -> &str {
    std::str::from_utf8(bytes).expect("it is UTF-8")
}

/// The output of a success, with nothing on standard error.
fn printed(args: &[&str], input: impl AsRef<[u8]>) -> String {
    let output = run(args, input);
    assert_eq!(text(&output.stderr), "");
    assert!(output.status.success());
    text(&output.stdout).to_owned()
}

/// The messages of a failure, with nothing on standard output.
fn refused(args: &[&str], input: impl AsRef<[u8]>) -> String {
    let output = run(args, input);
    assert_eq!(text(&output.stdout), "");
    assert_eq!(output.status.code(), Some(1));
    text(&output.stderr).to_owned()
}

/// A directory for one test's files.
fn directory(test: &str) -> PathBuf {
    let directory = PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join(test);
    fs::create_dir_all(&directory).expect("it can be made");
    directory
}

fn gzip(text: impl AsRef<[u8]>) -> Vec<u8> {
    let mut packed = GzEncoder::new(Vec::new(), Compression::default());
    packed.write_all(text.as_ref()).expect("a vector takes all");
    packed.finish().expect("a vector takes all")
}

/// The cells of the line of the table that begins with this name.
fn row<'a>(output: &'a str, name: &str) -> Vec<&'a str> {
    let mut rows = output.lines().filter(|line| {
        let rest = line.strip_prefix(name);
        rest.is_some_and(|rest| rest.starts_with("  "))
    });
    let row = rows.next().unwrap_or_else(|| panic!("{name} in {output}"));
    let cells = row.split("  ").map(str::trim);
    cells.filter(|cell| !cell.is_empty()).collect()
}

/// The cells of the best candidate.
fn best(output: &str) -> Vec<&str> {
    let best = output.lines().find(|line| line.ends_with("<- best"));
    let name = best.expect("one is the best").split("  ").next();
    row(output, name.expect("it has a name"))
}

/// The pool of the printed code, built from its numbers.
fn pool_of(output: &str) -> Pool {
    let (_, body) = output.split_once("Pool::builder()").expect("it has code");
    let number = |text: &str| -> usize { text.trim().replace('_', "").parse().expect("a number") };
    let inside = |from: &str, to: &str| -> Option<String> {
        let (_, rest) = body.split_once(from)?;
        Some(rest.split_once(to)?.0.to_owned())
    };
    let mut builder = Pool::builder();
    if let Some(list) = inside(".classes([", "])") {
        let list = list.split(',').filter(|class| !class.trim().is_empty());
        builder = builder.classes(list.map(number).collect::<Vec<_>>());
    }
    if let Some(max_size) = inside(".max_size(", ")") {
        builder = builder.max_size(number(&max_size));
    }
    builder.build().expect("the printed options are valid")
}

fn lines(sizes: impl IntoIterator<Item = usize>) -> String {
    sizes.into_iter().map(|size| format!("{size}\n")).collect()
}

// ---- output ----

#[test]
fn the_table_equals_one_computed_by_hand() {
    // One buffer at a time. The defaults miss 600 and 5000 once each and waste 424 * 3 + 3192. The
    // calibrator finds 1 KiB and 8 KiB. Two classes fit exactly.
    let args = ["--outstanding", "1", "--classes", "1,2"];
    let output = printed(&args, "600\n600\n5000\n600\n");
    let first =
        "4 sizes, 6.64 KiB in all, from 600 B to 4.88 KiB; replayed once: 4 gets, 1 outstanding";
    assert_eq!(output.lines().next(), Some(first));
    assert!(output.contains("\ncalibrated: default_size 1 KiB, max_size 8 KiB\n"));
    let expected = [
        (
            "defaults", "12", "4.36 KiB", "65.6 %", "50.00 %", "2", "9 KiB",
        ),
        (
            "to max_size",
            "5",
            "4.36 KiB",
            "65.6 %",
            "50.00 %",
            "2",
            "9 KiB",
        ),
        (
            "fitted, 1",
            "1",
            "12.9 KiB",
            "194.1 %",
            "75.00 %",
            "1",
            "4.88 KiB",
        ),
        ("fitted, 2", "2", "0 B", "0.0 %", "50.00 %", "2", "5.47 KiB"),
    ];
    for (name, classes, waste, rate, hits, misses, bytes) in expected {
        let cells = row(&output, name);
        let cells = &cells[..9];
        assert_eq!(
            cells,
            [name, classes, waste, rate, hits, misses, "0", bytes, bytes]
        );
    }
    // With one fitted class it hits more, and wastes far too much.
    assert_eq!(best(&output)[0], "fitted, 2");
    assert!(output.ends_with(
        "\n/// Size classes fitted to 4 sizes.\n\
         fn pool() -> Result<tierpool::Pool, tierpool::ConfigError> {\n    \
         tierpool::Pool::builder().classes([600, 5_000]).build()\n}\n"
    ));
}

#[test]
fn requests_above_the_largest_class_are_oversize() {
    let output = printed(
        &[],
        lines((0..1000).map(|n| if n % 4 == 0 { 3 << 20 } else { 700 })),
    );
    assert_eq!(row(&output, "defaults")[6], "250");
    assert_eq!(row(&output, "fitted, 4")[6], "0");
}

#[test]
fn a_short_trace_is_replayed_until_there_are_enough_gets() {
    let output = Command::new(PROGRAM)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn();
    let output = feed(output.expect("the program starts"), "100\n200\n300\n");
    let expected = "replayed 333,334 times: 1,000,002 gets, 64 outstanding";
    assert!(text(&output.stdout).contains(expected));
    let output = printed(&["--min-gets", "7"], "100\n200\n300\n");
    assert!(output.contains("replayed 3 times: 9 gets"));
}

#[test]
fn the_same_trace_gives_the_same_output() {
    let trace = lines(sample::sizes(sample::Shape::LogNormal, 20_000));
    let args = ["--outstanding", "100"];
    assert_eq!(printed(&args, &trace), printed(&args, &trace));
}

#[test]
fn fitted_classes_are_best_for_the_published_shapes() {
    for (name, shape) in sample::Shape::ALL {
        let output = printed(&[], lines(sample::sizes(shape, 200_000)));
        let percent =
            |cell: &str| -> f64 { cell.trim_end_matches(" %").parse().expect("a number") };
        let (defaults, best) = (row(&output, "defaults"), best(&output));
        assert!(best[0].starts_with("fitted"), "{name}: {output}");
        assert!(
            percent(best[3]) < 0.8 * percent(defaults[3]),
            "{name}: {output}"
        );
        assert!(percent(best[4]) > 99.8, "{name}: {output}");
        let pool = pool_of(&output);
        assert_eq!(
            pool.classes().len().to_string(),
            best[1],
            "{name}: {output}"
        );
    }
}

#[test]
fn the_shapes_have_their_documented_quantiles() {
    const COUNT: usize = 100_000;
    let sorted = |shape| {
        let mut sizes: Vec<usize> = sample::sizes(shape, COUNT).collect();
        sizes.sort_unstable();
        sizes
    };
    let share = |sizes: &[usize], from: usize, to: usize| {
        let within = sizes.iter().filter(|&&size| (from..=to).contains(&size));
        within.count() as f64 / COUNT as f64
    };
    let normal = sorted(sample::Shape::LogNormal);
    assert!(
        (2950..3200).contains(&normal[COUNT / 2]),
        "{}",
        normal[COUNT / 2]
    );
    assert!((share(&normal, 102_400, 102_400) - 0.01).abs() < 0.002);
    // One standard deviation above the median: 84.1 % of the 99 %.
    assert!((6500..7100).contains(&normal[COUNT * 833 / 1000]));
    let uniform = sorted(sample::Shape::LogUniform);
    assert!(uniform[0] >= 64 && uniform[COUNT - 1] < 65_536);
    for doubling in 6..16 {
        let share = share(&uniform, 1 << doubling, (2 << doubling) - 1);
        assert!((share - 0.1).abs() < 0.01, "2^{doubling}: {share}");
    }
    let bimodal = sorted(sample::Shape::Bimodal);
    assert!((share(&bimodal, 540, 660) - 0.6).abs() < 0.01);
    assert!((share(&bimodal, 14_745, 18_023) - 0.4).abs() < 0.01);
}

#[test]
fn the_printed_code_makes_the_pool_of_the_table() {
    // The best candidate is the defaults, the calibrated one, and a fitted one in turn.
    let rare = lines((0..20_000).map(|n| {
        if n % 2000 == 0 {
            8 << 20
        } else {
            512 << (n % 12)
        }
    }));
    let output = printed(&["--classes", "1"], rare);
    assert_eq!(best(&output)[0], "defaults");
    assert_eq!(pool_of(&output).classes(), Pool::default().classes());

    let large = lines(sample::sizes(sample::Shape::LogUniform, 5000).map(|size| size * 64));
    let output = printed(&["--classes", "1"], large);
    assert_eq!(best(&output)[0], "to max_size");
    let pool = pool_of(&output);
    assert_eq!(pool.classes().len().to_string(), best(&output)[1]);
    assert_eq!(pool.classes().last(), Some(&(4 << 20)));

    let output = printed(&["--classes", "3"], lines([700, 800, 900].repeat(1000)));
    assert_eq!(best(&output)[0], "fitted, 3");
    assert_eq!(pool_of(&output).classes(), [700, 800, 900]);
}

#[test]
fn the_printed_code_compiles_and_makes_a_pool() {
    type Make = fn() -> Result<Pool, ConfigError>;
    let classes = |make: Make| make().expect("the options are valid").classes().to_vec();
    assert_eq!(classes(printed::defaults::POOL), Pool::default().classes());
    let doubling = [512, 1024, 2048, 4096, 8192, 16_384];
    assert_eq!(classes(printed::calibrated::POOL), doubling);
    assert_eq!(classes(printed::fitted_one::POOL), [700]);
    assert_eq!(
        classes(printed::fitted_few::POOL),
        [659, 15_872, 17_408, 18_022]
    );
    let many: Vec<usize> = (1..=32).map(|n| n * n * 1000).collect();
    assert_eq!(classes(printed::fitted_many::POOL), many);
}

#[test]
fn a_note_tells_that_the_budget_is_too_small_for_the_best() {
    let output = printed(
        &["--outstanding", "200"],
        lines([1 << 20, 600_000].repeat(200)),
    );
    assert!(output.contains("budget was full"), "{output}");
    let output = printed(
        &["--outstanding", "20"],
        lines([1 << 20, 600_000].repeat(200)),
    );
    assert!(!output.contains("budget was full"), "{output}");
}

#[test]
fn sizes_that_no_machine_has_are_no_danger() {
    let output = printed(&[], format!("{}\n100\n40000000\n", isize::MAX));
    assert!(
        output.contains("sizes above 32 MiB: 2; oversize"),
        "{output}"
    );
    assert_eq!(row(&output, "fitted, 4")[6], "2");
    let output = printed(&[], format!("{}\n", isize::MAX));
    assert!(output.contains("no size is left to fit"), "{output}");
    assert_eq!(best(&output)[0], "defaults");
    let output = printed(&[], "0\n");
    assert_eq!(row(&output, "defaults")[3], "-");
}

// ---- input ----

#[test]
fn a_file_and_standard_input_give_the_same_table() {
    let trace = "\u{feff}100\r\n\r\n# a comment\r\n  2000\t\r\n30";
    let path = directory("inputs").join("trace");
    fs::write(&path, trace).expect("it can be written");
    let expected = printed(&[], trace);
    assert!(expected.starts_with("3 sizes, 2.08 KiB in all, from 30 B to 1.95 KiB"));
    assert_eq!(printed(&["-"], trace), expected);
    assert_eq!(
        printed(&[path.to_str().expect("it is UTF-8")], ""),
        expected
    );
}

#[test]
fn bad_lines_are_reported_by_number_and_skipped() {
    let output = run(&[], "100\nx\n\n200\n-5\n");
    assert!(output.status.success());
    assert!(text(&output.stdout).starts_with("2 sizes, 300 B in all"));
    let expected = "tierpool-tune: standard input: line 2: not a size: \"x\"\n\
                    tierpool-tune: standard input: line 5: not a size: \"-5\"\n";
    assert_eq!(text(&output.stderr), expected);
}

#[test]
fn the_first_ten_bad_lines_are_shown_and_the_rest_counted() {
    let output = run(&[], "x\n".repeat(10) + "5\n");
    assert_eq!(text(&output.stderr).lines().count(), 10);
    let output = run(&[], "x\n".repeat(1010) + "5\n");
    let said: Vec<&str> = text(&output.stderr).lines().collect();
    assert_eq!(said.len(), 11);
    assert!(said[9].contains("line 10: "), "{}", said[9]);
    let more = "tierpool-tune: standard input: 1000 more bad lines were skipped";
    assert_eq!(said[10], more);
    assert!(output.status.success());
}

#[test]
fn a_csv_column_is_read_by_name() {
    let csv = "id,\"name, quoted\",bytes\r\n1,\"a, b\",100\r\n2,\"c\"\"d\",\"200\"\r\n3,e\r\n";
    let output = run(&["--column", "bytes"], csv);
    assert!(text(&output.stdout).starts_with("2 sizes, 300 B in all"));
    let expected = "tierpool-tune: standard input: line 4: the record ends before the column\n";
    assert_eq!(text(&output.stderr), expected);
    let said = refused(&["--column", "size"], csv);
    let expected = "tierpool-tune: error: standard input: no column \"size\"; \
                    there are \"id\", \"name, quoted\", \"bytes\"\n";
    assert_eq!(said, expected);
}

#[test]
fn gzip_is_recognised_in_files_and_on_standard_input() {
    let expected = printed(&[], "100\n200\n300\n400\n");
    // Two members, with a line across both.
    let packed = [gzip("100\n200\n3"), gzip("00\n400")].concat();
    assert_eq!(printed(&[], &packed), expected);
    let path = directory("gzip").join("trace"); // recognised by its bytes, not by its name
    fs::write(&path, &packed).expect("it can be written");
    assert_eq!(
        printed(&[path.to_str().expect("it is UTF-8")], ""),
        expected
    );
    let csv = gzip("\u{feff}size\n100\n200\n300\n400\n");
    assert_eq!(printed(&["-c", "size"], csv), expected);
}

#[test]
fn corrupt_gzip_is_an_error_and_gives_no_table() {
    let whole = gzip(lines(sample::sizes(sample::Shape::LogUniform, 10_000)));
    for cut in [2, 9, 10, 11, 1000, whole.len() - 5, whole.len() - 1] {
        let said = refused(&[], &whole[..cut]);
        assert!(
            said.starts_with("tierpool-tune: error: standard input: "),
            "{cut}: {said}"
        );
    }
    let mut changed = whole.clone();
    let checksum = changed.len() - 8;
    changed[checksum] ^= 1;
    let said = refused(&[], changed);
    assert!(
        said.contains("after line 10000: ") && said.contains("checksum"),
        "{said}"
    );
    let trailing = [whole, b"garbage".to_vec()].concat();
    refused(&[], trailing);
}

// ---- errors ----

#[test]
fn an_empty_trace_is_an_error() {
    for trace in ["", "\n\n", "# nothing\n", "\u{feff}"] {
        let said = refused(&[], trace);
        let expected = "tierpool-tune: error: standard input: the trace is empty: it has no size\n";
        assert_eq!(said, expected);
    }
    refused(&[], gzip(""));
    refused(&["--column", "size"], "size\n");
    let said = refused(&[], "a,b\n1,2\n");
    assert_eq!(said.lines().count(), 3);
    assert!(said.ends_with(
        "no line of the trace is a size; 2 are bad (if it is CSV, name a column with --column)\n"
    ));
}

#[test]
fn an_unreadable_input_is_named() {
    let said = refused(&["no/such/file"], "");
    assert!(
        said.starts_with("tierpool-tune: error: no/such/file: "),
        "{said}"
    );
    let directory = directory("unreadable");
    let said = refused(&[directory.to_str().expect("it is UTF-8")], "");
    assert!(said.contains("unreadable: "), "{said}");
}

#[test]
fn arguments_out_of_range_are_refused() {
    let bad: [&[&str]; 6] = [
        &["--classes", "0"],
        &["--classes", "4,129"],
        &["--classes", ""],
        &["--outstanding", "0"],
        &["--min-gets", "0"],
        &["one", "two"],
    ];
    for args in bad {
        let output = run(args, "5\n");
        assert_eq!(output.status.code(), Some(2), "{args:?}");
        assert_eq!(text(&output.stdout), "");
    }
}

#[test]
fn a_reader_that_stops_reading_is_no_error() {
    let mut child = start(&[]);
    drop(child.stdout.take()); // before it prints: it has no input yet
    let output = feed(child, "5\n");
    assert_eq!(text(&output.stderr), "");
    assert!(output.status.success());
}

#[cfg(target_os = "linux")]
#[test]
fn an_output_that_is_full_is_an_error() {
    let full = fs::File::options().write(true).open("/dev/full");
    let mut command = Command::new(PROGRAM);
    command.stdin(Stdio::piped()).stderr(Stdio::piped());
    let child = command.stdout(full.expect("Linux has it")).spawn();
    let output = feed(child.expect("the program starts"), "5\n");
    assert_eq!(output.status.code(), Some(1));
    let said = text(&output.stderr);
    assert!(
        said.starts_with("tierpool-tune: error: standard output: "),
        "{said}"
    );
}

// If a whole line or field were kept, there would be no memory left.
#[cfg(target_os = "linux")]
#[test]
fn a_line_without_an_end_takes_no_memory() {
    const LINE: usize = 64 << 20;
    for (args, before) in [("", "5\n"), ("--column size", "a,size\n1,5\n\"")] {
        let mut command = Command::new("sh");
        // In KiB: half of the line.
        let limited = format!("ulimit -v {} && exec \"$0\" {args}", LINE / 2048);
        command.args(["-c", &limited, PROGRAM]);
        command
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped());
        let mut child = command.spawn().expect("there is a shell");
        let mut stdin = child.stdin.take().expect("it is piped");
        let writer = std::thread::spawn(move || -> std::io::Result<()> {
            stdin.write_all(before.as_bytes())?;
            let part = vec![b'7'; 1 << 20];
            (0..LINE / part.len()).try_for_each(|_| stdin.write_all(&part))
        });
        let (mut said, mut output) = (String::new(), String::new());
        let (mut stderr, mut stdout) = (child.stderr.take(), child.stdout.take());
        let read = stdout.as_mut().map(|out| out.read_to_string(&mut output));
        read.expect("it is piped").expect("it is UTF-8");
        let read = stderr.as_mut().map(|out| out.read_to_string(&mut said));
        read.expect("it is piped").expect("it is UTF-8");
        child.wait().expect("it ends");
        let written = writer.join().expect("it does not panic");
        assert!(written.is_ok(), "it has ended early: {said}");
        if args.is_empty() {
            assert!(
                said.contains("line 2: not a size: longer than 1024"),
                "{said}"
            );
            assert!(output.starts_with("1 size, 5 B in all"), "{output}");
        } else {
            assert!(
                said.contains("line 3 has a quote that is never closed"),
                "{said}"
            );
        }
    }
}

// ---- the plot ----

#[test]
fn the_plot_shows_the_sizes_and_both_kinds_of_classes() {
    let path = directory("plot").join("out.svg");
    let name = path.to_str().expect("it is UTF-8");
    let trace = lines(sample::sizes(sample::Shape::LogNormal, 20_000));
    let output = printed(&["--plot", name], &trace);
    assert_eq!(output, printed(&[], &trace));
    let svg = fs::read_to_string(&path).expect("it is there");
    assert!(svg.starts_with("<svg") && svg.trim_end().ends_with("</svg>"));
    for label in [
        "20,000 sizes",
        "size in bytes",
        "% of the sizes",
        "1 KiB",
        "64 KiB",
        "defaults: doubling",
        best(&output)[0],
    ] {
        assert!(svg.contains(label), "{label}");
    }
    // The legend has one line of each kind.
    let classes: usize = best(&output)[1].parse().expect("a number");
    assert_eq!(svg.matches("stroke=\"#C83C14\"").count(), classes + 1);
    assert!(svg.matches("fill=\"#9EBEDC\"").count() > 50);
}

#[test]
fn any_trace_can_be_plotted() {
    let most = isize::MAX.to_string();
    let path = directory("plots").join("out.svg");
    let name = path.to_str().expect("it is UTF-8");
    for trace in ["0", "1", "2", "1024", &most, &format!("0\n1\n{most}")] {
        printed(&["--plot", name], trace);
        let svg = fs::read_to_string(&path).expect("it is there");
        assert!(svg.contains("</svg>") && !svg.contains("NaN"), "{trace}");
    }
}

#[test]
fn a_plot_that_cannot_be_written_is_an_error_after_the_table() {
    let output = run(&["--plot", "no/such/directory/out.svg"], "5\n");
    assert_eq!(output.status.code(), Some(1));
    assert_eq!(text(&output.stdout), printed(&[], "5\n"));
    let said = text(&output.stderr);
    let expected = "tierpool-tune: error: no/such/directory/out.svg: ";
    assert!(said.starts_with(expected), "{said}");
}

#[test]
fn the_help_explains_how_the_best_is_chosen() {
    let help = printed(&["--help"], "");
    assert!(help.contains("\nThe best:\n"));
    assert!(printed(&["-h"], "").contains("--help explains how"));
}
