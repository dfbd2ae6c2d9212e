//! Rows for people: aligned columns, no borders, foreign text made harmless.

use comfy_table::presets::NOTHING;

use super::escape;

/// Column names and rows of cells.
#[derive(Debug, Clone)]
pub struct Table {
    columns: &'static [&'static str],
    rows: Vec<Vec<String>>,
}

impl Table {
    pub fn new(columns: &'static [&'static str]) -> Self {
        Table { columns, rows: Vec::new() }
    }

    pub fn row(&mut self, cells: impl IntoIterator<Item = impl AsRef<str>>) {
        self.rows.push(cells.into_iter().map(|cell| clean(cell.as_ref())).collect());
    }

    /// The lines, each with its `\n`, as wide as they have to be: a script or a pager may read them. Nothing at all
    /// without rows.
    pub fn text(&self) -> String {
        if self.rows.is_empty() {
            return String::new();
        }
        let mut table = comfy_table::Table::new();
        table.load_style(NOTHING).set_header(self.columns).add_rows(&self.rows);
        aligned(table)
    }
}

/// `name  value` lines, for one thing and all that is known of it; several lines of a value stay in their column.
pub fn fields<'a>(fields: impl IntoIterator<Item = (&'a str, String)>) -> String {
    let mut table = comfy_table::Table::new();
    table.load_style(NOTHING);
    for (name, value) in fields {
        let value = value.lines().map(clean).collect::<Vec<_>>().join("\n");
        table.add_row([name.to_owned(), value]);
    }
    aligned(table)
}

fn clean(cell: &str) -> String {
    escape(cell).replace('\t', " ")
}

fn aligned(mut table: comfy_table::Table) -> String {
    // Never wrap at the terminal's width: a wrapped table is neither readable nor greppable.
    table.set_content_arrangement(comfy_table::ContentArrangement::Disabled);
    for column in table.column_iter_mut() {
        column.set_padding((0, 2));
    }
    table.lines().map(|line| line.trim_end().to_owned() + "\n").collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_are_aligned_and_cells_harmless() {
        let mut table = Table::new(&["NAME", "OWNER", "IMAGE"]);
        table.row(["siem-9-2-ann", "@support", "a\x1b[2J"]);
        table.row(["x", "ann", "moorage/demo:latest"]);
        insta::assert_snapshot!(table.text(), @r"
        NAME          OWNER     IMAGE
        siem-9-2-ann  @support  a\u{1b}[2J
        x             ann       moorage/demo:latest
        ");
    }

    #[test]
    fn fields_keep_their_column() {
        insta::assert_snapshot!(fields([("name", "x".into()), ("address", "10.0.0.1\nfe80::1".into())]), @r"
        name     x
        address  10.0.0.1
                 fe80::1
        ");
    }
}
