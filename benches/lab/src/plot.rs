//! What the plots have in common.

use crate::Result;
use plotters::coord::Shift;
use plotters::prelude::*;

// Colours that the colour-blind can tell apart.
pub const ORANGE: RGBColor = RGBColor(213, 94, 0);
pub const BLUE: RGBColor = RGBColor(0, 114, 178);
pub const GREEN: RGBColor = RGBColor(0, 158, 115);
pub const GREY: RGBColor = RGBColor(150, 150, 150);
pub const WIDTH: u32 = 880;
pub const FONT: (&str, i32) = ("sans-serif", 14);
pub const CAPTION: (&str, i32) = ("sans-serif", 18);
/// The height of one row of a legend.
pub const LEGEND_ROW: i32 = 22;

/// The points of a legend's line, and of its text, in an area below a chart.
pub fn legend_places(row: i32, left: i32) -> ([(i32, i32); 2], (i32, i32)) {
    let y = LEGEND_ROW * row + 12;
    ([(left, y), (left + 28, y)], (left + 36, y - 7))
}

/// Draws one row of a legend.
pub fn legend<DB: DrawingBackend>(
    area: &DrawingArea<DB, Shift>,
    (row, left): (i32, i32),
    style: ShapeStyle,
    text: &str,
) -> Result<()>
where
    DB::ErrorType: 'static,
{
    let (line, at) = legend_places(row, left);
    area.draw(&PathElement::new(line, style))?;
    area.draw(&Text::new(text.to_owned(), at, FONT))?;
    Ok(())
}
