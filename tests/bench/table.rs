//! Plain tables with aligned columns.

use std::time::Duration;

/// Rows under a title.
#[derive(Debug)]
pub struct Table {
    title: String,
    rows: Vec<Vec<String>>,
}

impl Table {
    /// A table with these column names.
    pub fn new(title: &str, columns: &[&str]) -> Table {
        let names = columns.iter().map(|name| (*name).to_owned()).collect();
        Table { title: title.to_owned(), rows: vec![names] }
    }

    /// Adds a row.
    pub fn row(&mut self, cells: Vec<String>) {
        assert_eq!(cells.len(), self.rows[0].len(), "a row has a cell per column");
        self.rows.push(cells);
    }

    /// Writes the table to standard output.
    pub fn print(&self) {
        println!("\n{}", self.title);
        let columns = self.rows[0].len();
        let width =
            |column: usize| self.rows.iter().map(|row| row[column].chars().count()).max().unwrap_or(0);
        let widths: Vec<usize> = (0..columns).map(width).collect();
        for row in &self.rows {
            let mut line = format!("  {:<width$}", row[0], width = widths[0]);
            for (cell, width) in row.iter().zip(&widths).skip(1) {
                line += &format!("  {cell:>width$}");
            }
            println!("{}", line.trim_end());
        }
    }
}

/// Microseconds with their unit.
pub fn microseconds(duration: Duration) -> String {
    format!("{:.0} us", duration.as_secs_f64() * 1e6)
}

/// Milliseconds with their unit.
pub fn milliseconds(duration: Duration) -> String {
    format!("{:.0} ms", duration.as_secs_f64() * 1e3)
}

/// Seconds with their unit.
pub fn seconds(duration: Duration) -> String {
    format!("{:.2} s", duration.as_secs_f64())
}

/// Mebibytes with their unit.
pub fn mebibytes(bytes: u64) -> String {
    format!("{:.1} MiB", bytes as f64 / f64::from(1 << 20))
}
