//! Progress bars on standard error. Hidden if that is not a terminal.

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use std::io::{self, IsTerminal};

/// A bar for `length` bytes, or for an unknown number if it is 0.
pub fn reading(length: u64) -> ProgressBar {
    match length {
        0 => bar(None, "{spinner} reading  {bytes}  {bytes_per_sec}"),
        length => bar(
            Some(length),
            "reading  [{bar:40}] {bytes} of {total_bytes}, {eta} to go",
        ),
    }
}

pub fn replaying(gets: u64) -> ProgressBar {
    bar(
        Some(gets),
        "replaying  [{bar:40}] {human_pos} of {human_len} gets, {eta} to go",
    )
}

fn bar(length: Option<u64>, template: &str) -> ProgressBar {
    if !io::stderr().is_terminal() {
        return ProgressBar::hidden();
    }
    let style = ProgressStyle::with_template(template).expect("the templates are valid");
    ProgressBar::with_draw_target(length, ProgressDrawTarget::stderr())
        .with_style(style.progress_chars("=> "))
}
