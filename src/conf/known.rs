//! What nginx 1.31 knows: so that a directive that is misspelt, misplaced or not built yet is told apart.

use super::context::Context;
use super::diagnostics::Diagnostic;
use super::known_table::KNOWN;
use super::source::Span;
use super::suggest;

/// A directive in one of nginx's modules.
#[derive(Clone, Copy, Debug)]
pub struct Known {
    pub name: &'static str,
    pub contexts: Context,
    /// The module's name without `ngx_` in front and `_module` behind: `http_core`.
    pub module: &'static str,
    /// How many arguments it takes, at least and at most; 255 stands for any number.
    pub min_args: u8,
    pub max_args: u8,
    /// Ends with `{ ... }`, not with `;`.
    pub block: bool,
    /// Takes `on` or `off`.
    pub flag: bool,
}

/// All rows, sorted by name.
pub fn all() -> &'static [Known] {
    KNOWN
}

/// The rows of a name: none if nginx does not know it, several if several modules do (`server`).
pub fn find(name: &[u8]) -> &'static [Known] {
    let start = KNOWN.partition_point(|known| known.name.as_bytes() < name);
    let count = KNOWN[start..].iter().take_while(|known| known.name.as_bytes() == name).count();
    &KNOWN[start..start + count]
}

/// Whether nginx has a directive of this name.
pub fn is_known(name: &[u8]) -> bool {
    !find(name).is_empty()
}

/// Whether nginx knows the name, and only as a directive without a block.
pub fn is_never_block(name: &[u8]) -> bool {
    is_known(name) && find(name).iter().all(|known| !known.block)
}

/// Every context that a name is allowed in, over all modules.
pub fn contexts_of(name: &[u8]) -> Context {
    find(name).iter().fold(Context::NONE, |all, known| all | known.contexts)
}

/// What to say about a directive that has no entry of ours for the context `here`.
///
/// `built` are the names that have an entry, each with the contexts of that entry; a name may come more than once.
pub fn complain<'a, B>(name: &str, span: Span, here: Context, built: B) -> Diagnostic
where
    B: IntoIterator<Item = (&'a str, Context)>,
    B::IntoIter: Clone,
{
    let built = built.into_iter();
    let ours =
        built.clone().filter(|(other, _)| *other == name).fold(Context::NONE, |all, (_, set)| all | set);
    let belongs = ours | contexts_of(name.as_bytes());
    if !belongs.is_empty() && !belongs.meets(here) {
        return Diagnostic::error(format!("\"{name}\" directive is not allowed here"))
            .at(span)
            .note(format!("\"{name}\" belongs in {belongs}"));
    }
    let in_nginx = find(name.as_bytes()).iter().find(|known| known.contexts.meets(here));
    if let Some(known) = in_nginx {
        return Diagnostic::error(format!(
            "directive \"{name}\" is known to nginx (module ngx_{}_module) but not built into thalweg yet",
            known.module
        ))
        .at(span);
    }
    let message = format!("unknown directive \"{name}\"");
    // What may stand here is likelier meant than what may not.
    let fitting = built.clone().filter(|(_, contexts)| contexts.meets(here)).map(|(name, _)| name);
    let any = built.map(|(name, _)| name).chain(KNOWN.iter().map(|known| known.name));
    let meant = suggest::nearest(name, fitting).or_else(|| suggest::nearest(name, any));
    let error = Diagnostic::error(message).at(span);
    match meant {
        Some(meant) => error.help(format!("did you mean `{meant}`?")),
        None => error,
    }
}

#[cfg(test)]
mod tests {
    use super::super::source::FileId;
    use super::*;

    const BUILT: [(&str, Context); 3] = [
        ("root", Context::HTTP.union(Context::SERVER).union(Context::LOCATION)),
        ("spa", Context::LOCATION),
        ("server", Context::HTTP),
    ];

    fn said(name: &str, here: Context) -> Diagnostic {
        complain(name, Span { file: FileId(0), start: 0, end: 0 }, here, BUILT)
    }

    #[test]
    fn the_table_is_sorted_so_that_names_are_found() {
        assert!(KNOWN.windows(2).all(|pair| pair[0].name <= pair[1].name));
        assert_eq!(KNOWN.len(), 784);
        for known in KNOWN {
            assert!(find(known.name.as_bytes()).iter().any(|found| found.module == known.module));
            assert!(known.min_args <= known.max_args && !known.contexts.is_empty());
        }
    }

    #[test]
    fn a_name_of_several_modules_has_all_their_contexts() {
        assert_eq!(find(b"server").len(), 5);
        assert!(contexts_of(b"server").contains(Context::HTTP | Context::UPSTREAM | Context::MAIL));
        assert!(is_never_block(b"root") && !is_never_block(b"location") && !is_never_block(b"server"));
        assert!(!is_known(b"spa"));
    }

    #[test]
    fn a_misspelt_directive_is_answered_with_the_nearest_name() {
        let error = said("rooot", Context::SERVER);
        assert_eq!(error.message, "unknown directive \"rooot\"");
        assert_eq!(error.helps, ["did you mean `root`?"]);
    }

    #[test]
    fn a_misplaced_directive_is_told_where_it_belongs() {
        let error = said("root", Context::EVENTS);
        assert_eq!(error.message, "\"root\" directive is not allowed here");
        assert_eq!(error.notes, ["\"root\" belongs in http, server, location, if in location"]);
        let ours_alone = said("spa", Context::MAIN);
        assert_eq!(ours_alone.notes, ["\"spa\" belongs in location"]);
    }

    #[test]
    fn a_directive_that_only_nginx_has_is_named_as_such() {
        assert_eq!(
            said("xslt_types", Context::LOCATION).message,
            "directive \"xslt_types\" is known to nginx (module ngx_http_xslt_filter_module) but not built into thalweg yet"
        );
    }
}
