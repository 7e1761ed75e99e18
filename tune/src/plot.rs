//! Draws how often each size occurs, and where the class boundaries are.

use crate::replay::{Candidate, Options};
use crate::report;
use plotters::element::DashedPathElement;
use plotters::prelude::*;
use std::error::Error;
use tierpool::Histogram;

const SIZE: (u32, u32) = (960, 540);
const BAR: RGBColor = RGBColor(158, 190, 220);
const DOUBLING: RGBColor = RGBColor(120, 120, 120);
const BEST: RGBColor = RGBColor(200, 60, 20);

/// The number of parts of a doubling. With parts of equal ratio, heights are comparable where the
/// histogram's cells have different widths.
const PARTS: f64 = 16.0;
/// The most labels that fit beside each other.
const LABELS_MAX: usize = 15;

/// A bar of the histogram: from and to as binary logarithms, and its height.
type Bar = (f64, f64, f64);

/// An SVG of the sizes, the classes of `best`, and the doubling classes of `defaults` for
/// comparison.
pub fn svg(all: &Histogram, defaults: &Candidate, best: &Candidate) -> Result<String, String> {
    let mut text = String::new();
    draw(&mut text, all, defaults, best).map_err(|error| error.to_string())?;
    Ok(text)
}

fn draw(
    text: &mut String,
    all: &Histogram,
    defaults: &Candidate,
    best: &Candidate,
) -> Result<(), Box<dyn Error>> {
    let bars = bars(all);
    let best_lines = lines(&best.classes);
    // From one power of two to another, around all sizes and the best candidate's classes.
    let least = bars.iter().map(|bar| bar.0).fold(f64::INFINITY, f64::min);
    let most = bars.iter().map(|bar| bar.1);
    let most = most.chain(
        best_lines
            .iter()
            .copied()
            .filter(|_| best.options == Options::Fitted),
    );
    let (from, to) = (least.floor(), most.fold(0.0, f64::max).ceil());
    let highest = bars.iter().map(|bar| bar.2).fold(0.0, f64::max);

    let root = SVGBackend::with_string(text, SIZE).into_drawing_area();
    root.fill(&WHITE)?;
    let title = format!("{}, and the classes for them", report::count(all.calls()));
    let mut chart = ChartBuilder::on(&root)
        .margin(15)
        .margin_right(40)
        .caption(title, ("sans-serif", 20))
        .x_label_area_size(45)
        .y_label_area_size(65)
        .build_cartesian_2d(from..to, 0.0..highest * 1.05)?;
    chart
        .configure_mesh()
        .disable_x_mesh()
        .light_line_style(TRANSPARENT)
        .x_labels(((to - from) as usize + 1).min(LABELS_MAX))
        .y_labels(8)
        .x_desc("size in bytes (logarithmic)")
        .y_desc("% of the sizes, per sixteenth of a doubling")
        .x_label_formatter(&|log| power_of_two(*log))
        .y_label_formatter(&|percent| short(*percent))
        .label_style(("sans-serif", 13))
        .draw()?;
    let drawn = bars
        .iter()
        .map(|&(from, to, percent)| Rectangle::new([(from, 0.0), (to, percent)], BAR.filled()));
    chart
        .draw_series(drawn)?
        .label("sizes")
        .legend(|(x, y)| Rectangle::new([(x, y - 5), (x + 20, y + 5)], BAR.filled()));

    let in_range = |log: &f64| (from..=to).contains(log);
    let vertical = |log: f64| [(log, 0.0), (log, highest * 1.05)];
    if best.options == Options::Fitted {
        let doubling = lines(&defaults.classes).into_iter().filter(in_range);
        let dashed = doubling
            .map(|log| DashedPathElement::new(vertical(log), 4, 4, DOUBLING.stroke_width(1)));
        chart
            .draw_series(dashed)?
            .label("defaults: doubling")
            .legend(|(x, y)| DashedPathElement::new([(x, y), (x + 20, y)], 4, 4, DOUBLING));
    }
    let solid = best_lines
        .iter()
        .copied()
        .filter(in_range)
        .map(|log| PathElement::new(vertical(log), BEST.stroke_width(2)));
    chart
        .draw_series(solid)?
        .label(format!("best: {}", best.name))
        .legend(|(x, y)| PathElement::new([(x, y), (x + 20, y)], BEST.stroke_width(2)));
    chart
        .configure_series_labels()
        .position(SeriesLabelPosition::UpperLeft)
        .label_font(("sans-serif", 14))
        .background_style(WHITE.mix(0.85))
        .border_style(DOUBLING)
        .draw()?;
    root.present()?;
    Ok(())
}

fn bars(all: &Histogram) -> Vec<Bar> {
    let calls = all.calls().max(1) as f64;
    let bars = all.cells().map(|cell| {
        // A cell begins where the one before ends. The first cell has no cell before it, and is
        // drawn half a doubling wide.
        let from = match cell.from {
            0 => -0.5,
            from => ((from - 1) as f64).log2(),
        };
        let to = (cell.to as f64).log2();
        let percent = 100.0 * cell.calls as f64 / calls;
        (from, to, percent / (PARTS * (to - from)))
    });
    bars.collect()
}

fn lines(classes: &[usize]) -> Vec<f64> {
    classes.iter().map(|&class| (class as f64).log2()).collect()
}

/// The label at a place of the x axis; empty between powers of two and below 1.
fn power_of_two(log: f64) -> String {
    match log.fract() == 0.0 && log >= 0.0 {
        true => report::bytes(log.exp2() as u128),
        false => String::new(),
    }
}

/// A number for an axis, without zeros at its end.
fn short(number: f64) -> String {
    let text = format!("{number:.3}");
    text.trim_end_matches('0').trim_end_matches('.').to_owned()
}
