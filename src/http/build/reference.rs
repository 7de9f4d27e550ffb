//! The reference of all directives, written from their tables: what the walk over a configuration checks is what
//! readers are told. `thalweg directives` prints it; a copy is kept in `conf/directives.md`.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write;

use crate::conf::context::Context;
use crate::conf::directive::{Arity, Directive};
use crate::conf::known;

use super::{main_scope, scope_table};

/// One directive, whatever kind of scope it is of.
struct Row {
    name: &'static str,
    arity: Arity,
    contexts: Context,
    default: &'static str,
    doc: &'static str,
}

impl<S> From<&'static Directive<S>> for Row {
    fn from(entry: &'static Directive<S>) -> Row {
        let Directive { name, contexts, arity, default, doc, .. } = *entry;
        Row { name, arity, contexts, default, doc }
    }
}

/// All directives as Markdown: a table of those that are built, and a list of those that only nginx has.
pub fn reference() -> String {
    let mut rows: Vec<Row> = main_scope::table().entries().into_iter().map(Row::from).collect();
    rows.extend(scope_table().entries().into_iter().map(Row::from));
    rows.push(Row {
        name: "include",
        arity: Arity::exactly(1),
        contexts: Context::ANY,
        default: "",
        doc: "Puts files in its place, named by a path or a pattern.",
    });
    // Settings that no directive sets, but handlers.
    rows.retain(|row| !row.contexts.is_empty());
    rows.sort_by_key(|row| (row.name, row.contexts.to_string()));

    let mut out = String::from(
        "# Directives\n\n\
         Written by `thalweg directives`. A directive with a star is one that nginx does not have.\n\n\
         | directive | arguments | where | default | meaning |\n\
         | --- | --- | --- | --- | --- |\n",
    );
    for row in &rows {
        let star = if known::is_known(row.name.as_bytes()) { "" } else { " \\*" };
        let default = if row.default.is_empty() { String::new() } else { format!("`{}`", row.default) };
        let doc = of_directive(row.doc);
        let cells =
            [format!("`{}`{star}", row.name), row.arity.to_string(), row.contexts.to_string(), default];
        let _ = writeln!(out, "| {} | {} |", cells.map(|cell| escape(&cell)).join(" | "), escape(&doc));
    }
    write_unbuilt(&rows, &mut out);
    out
}

/// An entry's line without what it says about the Rust field, whose type and unit are not those of the directive.
fn of_directive(doc: &str) -> String {
    let mut text = doc.trim().trim_end_matches('.');
    for about_field in ["; `None`", ", in milliseconds", ", in seconds", " (a directive of ours"] {
        text = text.split_once(about_field).map_or(text, |(before, _)| before);
    }
    format!("{text}.")
}

/// What stands between two bars of a table.
fn escape(text: &str) -> String {
    text.replace('|', "\\|")
}

/// Directives of nginx 1.31 that have no entry, by module. Using one is an error that says so.
fn write_unbuilt(rows: &[Row], out: &mut String) {
    let mut modules: BTreeMap<&str, BTreeSet<&str>> = BTreeMap::new();
    for known in known::all() {
        let built = |row: &&Row| row.name == known.name && row.contexts.meets(known.contexts);
        if rows.iter().find(built).is_none() {
            modules.entry(known.module).or_default().insert(known.name);
        }
    }
    out.push_str(
        "\n# Known to nginx 1.31 and not built yet\n\n\
         Using one of them is an error that says so, rather than a setting without effect.\n\n\
         | module | directives |\n\
         | --- | --- |\n",
    );
    for (module, names) in modules {
        let names: Vec<String> = names.into_iter().map(|name| format!("`{name}`")).collect();
        let _ = writeln!(out, "| `ngx_{module}_module` | {} |", names.join(", "));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_kept_reference_is_that_of_the_tables() {
        let path = concat!(env!("CARGO_MANIFEST_DIR"), "/conf/directives.md");
        let kept = std::fs::read_to_string(path).unwrap();
        let is_same = kept == reference();
        assert!(is_same, "out of date; run: cargo run -- directives > conf/directives.md");
    }

    #[test]
    fn a_directive_stands_in_one_of_the_two_tables() {
        let text = reference();
        let (built, unbuilt) = text.split_once("\n# Known").unwrap();
        assert!(built.contains("| `root` | 1 | http, server, location, if in location | `html` |"));
        assert!(built.contains("| `spa` \\* | 1 | http, server, location | `off` |"));
        assert!(built.contains("| `location` | 1 or 2, `{}` | server, location |"));
        assert!(!unbuilt.contains("`root`") && unbuilt.contains("`ngx_http_v3_module` | `http3`"));
    }

    #[test]
    fn every_directive_says_what_it_means() {
        let rows = main_scope::table().entries().into_iter().map(Row::from);
        for row in rows.chain(scope_table().entries().into_iter().map(Row::from)) {
            let doc = row.doc.trim();
            assert!(doc.ends_with('.') && !doc.contains('\n'), "{}: {doc:?}", row.name);
        }
    }
}
