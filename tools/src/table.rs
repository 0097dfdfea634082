//! Aligned tables for people.

use std::fmt::{self, Display};

/// How a column stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Align {
    /// Text.
    Left,
    /// Numbers.
    Right,
}

/// Rows under a header; two spaces between columns.
#[derive(Clone, Debug)]
pub struct Table {
    columns: Vec<(&'static str, Align)>,
    rows: Vec<Vec<String>>,
}

impl Table {
    /// A table with these columns.
    pub fn new(columns: &[(&'static str, Align)]) -> Self {
        Self { columns: columns.to_vec(), rows: Vec::new() }
    }

    /// Appends a row.
    ///
    /// # Panics
    /// If the row has another number of cells than the header.
    pub fn row(&mut self, cells: impl IntoIterator<Item = String>) {
        let cells: Vec<String> = cells.into_iter().collect();
        assert_eq!(cells.len(), self.columns.len(), "a cell for every column");
        self.rows.push(cells);
    }
}

/// Writes one line without trailing space.
fn line<'a>(
    f: &mut fmt::Formatter<'_>,
    cells: impl Iterator<Item = (&'a str, Align, usize)>,
) -> fmt::Result {
    let mut text = String::new();
    for (cell, align, width) in cells {
        match align {
            Align::Left => text += &format!("{cell:<width$}  "),
            Align::Right => text += &format!("{cell:>width$}  "),
        }
    }
    writeln!(f, "{}", text.trim_end())
}

impl Display for Table {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let width = |at: usize| {
            let cells = self.rows.iter().map(|row| row[at].chars().count());
            cells.chain([self.columns[at].0.chars().count()]).max().unwrap_or(0)
        };
        let widths: Vec<usize> = (0..self.columns.len()).map(width).collect();
        line(f, self.columns.iter().zip(&widths).map(|((name, align), w)| (*name, *align, *w)))?;
        for row in &self.rows {
            let cells = row.iter().zip(&self.columns).zip(&widths);
            line(f, cells.map(|((cell, (_, align)), w)| (cell.as_str(), *align, *w)))?;
        }
        Ok(())
    }
}

/// Names and values, one pair per line.
#[derive(Clone, Debug, Default)]
pub struct Pairs(Vec<(&'static str, String)>);

impl Pairs {
    /// Appends a pair.
    #[must_use]
    pub fn with(mut self, name: &'static str, value: impl Display) -> Self {
        self.0.push((name, value.to_string()));
        self
    }
}

impl Display for Pairs {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let width = self.0.iter().map(|(name, _)| name.chars().count()).max().unwrap_or(0);
        for (name, value) in &self.0 {
            line(f, [(*name, Align::Left, width), (value.as_str(), Align::Left, 0)].into_iter())?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_align() {
        let mut table = Table::new(&[("name", Align::Left), ("size", Align::Right)]);
        table.row(["größe".to_owned(), "8".to_owned()]);
        table.row(["b".to_owned(), "1024 GiB".to_owned()]);
        assert_eq!(table.to_string(), "name       size\ngröße         8\nb      1024 GiB\n");
    }

    #[test]
    fn pairs_align() {
        let pairs = Pairs::default().with("a", 1).with("long", "x").with("e", "");
        assert_eq!(pairs.to_string(), "a     1\nlong  x\ne\n");
    }
}
