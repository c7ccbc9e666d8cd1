//! Columns for people: aligned, no lines, no colours.

use std::io::{self, Write};

use comfy_table::{CellAlignment, ColumnConstraint, Table, Width, presets};

/// Rows that are held before they are printed, so that a million flows need
/// neither memory for a million rows nor a wait for the last.
const PAGE: usize = 2000;

/// One column.
#[derive(Debug, Clone, Copy)]
pub struct Column {
    title: &'static str,
    right: bool,
}

/// A column of text.
pub const fn text(title: &'static str) -> Column {
    Column {
        title,
        right: false,
    }
}

/// A column of numbers, aligned at their end.
pub const fn number(title: &'static str) -> Column {
    Column { title, right: true }
}

/// A table on its way out, page by page under one header.
pub struct Pager<'a, W> {
    out: &'a mut W,
    columns: &'static [Column],
    rows: Vec<Vec<String>>,
    /// Widths of the pages before; empty before the first.
    widths: Vec<u16>,
}

impl<'a, W: Write> Pager<'a, W> {
    /// A table with these columns.
    pub fn new(out: &'a mut W, columns: &'static [Column]) -> Self {
        Self {
            out,
            columns,
            rows: Vec::new(),
            widths: Vec::new(),
        }
    }

    /// Adds a row, one cell a column.
    ///
    /// # Errors
    /// As writing to the output.
    pub fn row(&mut self, cells: Vec<String>) -> io::Result<()> {
        self.rows.push(cells);
        if self.rows.len() < PAGE {
            return Ok(());
        }
        self.page()
    }

    /// Prints what is left; the header even if there was no row.
    ///
    /// # Errors
    /// As writing to the output.
    pub fn finish(mut self) -> io::Result<()> {
        if self.rows.is_empty() && !self.widths.is_empty() {
            return Ok(());
        }
        self.page()
    }

    fn page(&mut self) -> io::Result<()> {
        let mut table = Table::new();
        table.load_preset(presets::NOTHING);
        let first = self.widths.is_empty();
        if first {
            table.set_header(self.columns.iter().map(|column| column.title));
        }
        table.add_rows(self.rows.drain(..));
        for (index, column) in table.column_iter_mut().enumerate() {
            let right = self.columns.get(index).is_some_and(|c| c.right);
            if right {
                column.set_cell_alignment(CellAlignment::Right);
            }
            column.set_padding((0, 1));
            // Later pages keep the columns where the earlier ones have them.
            if let Some(width) = self.widths.get(index) {
                column.set_constraint(ColumnConstraint::LowerBoundary(Width::Fixed(*width)));
            }
        }
        self.widths = table
            .column_max_content_widths()
            .iter()
            .enumerate()
            .map(|(index, width)| (width + 1).max(self.widths.get(index).copied().unwrap_or(0)))
            .collect();
        let text = table.trim_fmt();
        if text.is_empty() {
            return Ok(());
        }
        writeln!(self.out, "{text}")
    }
}

/// Bytes as people read them: `999`, `1.5K`, `12M`; K is 1024.
pub fn bytes(bytes: u64) -> String {
    let mut value = bytes as f64;
    let mut unit = "";
    for next in ["K", "M", "G", "T", "P"] {
        if value < 1000.0 {
            break;
        }
        value /= 1024.0;
        unit = next;
    }
    if unit.is_empty() || value >= 10.0 {
        format!("{value:.0}{unit}")
    } else {
        format!("{value:.1}{unit}")
    }
}

/// Seconds as people read them: `1.5s`, `12s`, `29m59s`, `2h00m`; expired
/// times are negative.
pub fn seconds(seconds: f64) -> String {
    let sign = if seconds < 0.0 { "-" } else { "" };
    let tenths = (seconds.abs() * 10.0).round() as u64;
    let whole = tenths / 10;
    match whole {
        0..10 => format!("{sign}{whole}.{}s", tenths % 10),
        10..60 => format!("{sign}{whole}s"),
        60..3600 => format!("{sign}{}m{:02}s", whole / 60, whole % 60),
        _ => format!("{sign}{}h{:02}m", whole / 3600, whole % 3600 / 60),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const COLUMNS: &[Column] = &[text("NAME"), number("COUNT"), text("NOTE")];

    fn cells(row: [&str; 3]) -> Vec<String> {
        row.map(str::to_owned).to_vec()
    }

    #[test]
    fn columns_are_aligned() {
        let mut out = Vec::new();
        let mut pager = Pager::new(&mut out, COLUMNS);
        pager.row(cells(["a", "7", "x"])).unwrap();
        pager.row(cells(["longer", "1000", ""])).unwrap();
        pager.finish().unwrap();
        let expected = "NAME   COUNT NOTE\na          7 x\nlonger  1000\n";
        assert_eq!(String::from_utf8(out).unwrap(), expected);
    }

    #[test]
    fn an_empty_table_has_its_header() {
        let mut out = Vec::new();
        Pager::new(&mut out, COLUMNS).finish().unwrap();
        assert_eq!(String::from_utf8(out).unwrap(), "NAME COUNT NOTE\n");
    }

    #[test]
    fn later_pages_line_up_under_one_header() {
        let mut out = Vec::new();
        let mut pager = Pager::new(&mut out, COLUMNS);
        pager.row(cells(["the longest", "12345678", "x"])).unwrap();
        for _ in 0..2 * PAGE {
            pager.row(cells(["a", "1", "y"])).unwrap();
        }
        pager.finish().unwrap();
        let text = String::from_utf8(out).unwrap();
        let lines: Vec<_> = text.lines().collect();
        assert_eq!(lines.len(), 2 * PAGE + 2);
        assert_eq!(lines.iter().filter(|l| l.starts_with("NAME")).count(), 1);
        assert_eq!(lines[2], lines[2 * PAGE + 1]);
    }

    #[test]
    fn figures_are_short() {
        for (value, expected) in [
            (0, "0"),
            (999, "999"),
            (1000, "1.0K"),
            (1536, "1.5K"),
            (12 << 20, "12M"),
            (u64::MAX, "16384P"),
        ] {
            assert_eq!(bytes(value), expected);
        }
        for (value, expected) in [
            (0.0, "0.0s"),
            (1.54, "1.5s"),
            (9.99, "10s"),
            (59.99, "1m00s"),
            (1799.5, "29m59s"),
            (7200.0, "2h00m"),
            (-3.0, "-3.0s"),
        ] {
            assert_eq!(seconds(value), expected, "{value}");
        }
    }
}
