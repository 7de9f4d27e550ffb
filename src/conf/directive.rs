//! Directives as entries of tables: name, contexts, arity, what sets them, default and one line of documentation,
//! all in one place. The walk over a tree checks each directive against its entry before its setter sees it.

use std::collections::HashMap;
use std::fmt;

use super::context::Context;
use super::diagnostics::{Diagnostic, Severity};
use super::known;
use super::source::Span;
use super::tree::{self, Word};

/// How many arguments a directive takes, and whether a block follows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Arity {
    /// Bit n: n arguments are fine. The highest bit stands for "and any more".
    counts: u16,
    /// Whether a block follows.
    pub block: bool,
    /// Whether the one argument must be `on` or `off`.
    pub flag: bool,
}

impl Arity {
    const MORE: u16 = 1 << 15;

    /// Exactly `n` arguments.
    pub const fn exactly(n: u16) -> Arity {
        Arity { counts: 1 << n, block: false, flag: false }
    }

    /// Between `low` and `high` arguments.
    pub const fn between(low: u16, high: u16) -> Arity {
        Arity { counts: ((1 << (high + 1)) - 1) & !((1 << low) - 1), block: false, flag: false }
    }

    /// At least `n` arguments.
    pub const fn at_least(n: u16) -> Arity {
        Arity { counts: (Arity::MORE | (Arity::MORE - 1)) & !((1 << n) - 1), block: false, flag: false }
    }

    /// `on` or `off`.
    pub const FLAG: Arity = Arity { counts: 1 << 1, block: false, flag: true };

    /// The same with a block behind the arguments.
    pub const fn block(self) -> Arity {
        Arity { block: true, ..self }
    }

    fn allows(self, count: usize) -> bool {
        if count < 15 { self.counts & (1 << count) != 0 } else { self.counts & Arity::MORE != 0 }
    }
}

/// As a reference writes it: `on or off`, `1`, `1 or 2`, `2 to 4`, `1 or more`, with `{}` for a block.
impl fmt::Display for Arity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (low, high) = (self.counts.trailing_zeros(), 15 - self.counts.leading_zeros());
        match (low, high) {
            _ if self.flag => f.write_str("`on` or `off`")?,
            (low, high) if low == high => write!(f, "{low}")?,
            (low, 15) => write!(f, "{low} or more")?,
            (low, high) if high == low + 1 || self.counts.count_ones() == 2 => write!(f, "{low} or {high}")?,
            (low, high) => write!(f, "{low} to {high}")?,
        }
        f.write_str(if self.block { ", `{}`" } else { "" })
    }
}

/// What is wrong with a directive's arguments; becomes a diagnostic at the directive (or at `span`).
#[derive(Debug)]
pub struct Complaint {
    /// nginx's wording where nginx has the error.
    pub message: String,
    /// The word at fault, if it is one.
    pub span: Option<Span>,
    /// Advice.
    pub help: Option<String>,
    /// How bad it is; `Emerg` refuses the configuration.
    pub severity: Severity,
}

impl Complaint {
    /// An error at the directive.
    pub fn new(message: impl Into<String>) -> Complaint {
        Complaint { message: message.into(), span: None, help: None, severity: Severity::Error }
    }

    /// A warning at the directive.
    pub fn warning(message: impl Into<String>) -> Complaint {
        Complaint { severity: Severity::Warning, ..Complaint::new(message) }
    }

    /// nginx's `invalid value "x"`.
    pub fn invalid_value(word: &Word) -> Complaint {
        Complaint::new(format!("invalid value \"{}\"", word.lossy())).at(word)
    }

    /// nginx's `invalid parameter "x"`.
    pub fn invalid_parameter(word: &Word) -> Complaint {
        Complaint::new(format!("invalid parameter \"{}\"", word.lossy())).at(word)
    }

    /// Points at a word.
    pub fn at(mut self, word: &Word) -> Complaint {
        self.span = Some(word.span);
        self
    }

    /// Adds advice.
    pub fn help(mut self, help: impl Into<String>) -> Complaint {
        self.help = Some(help.into());
        self
    }
}

/// One use of a directive, as its setter sees it: its place and number of arguments have been checked.
#[derive(Clone, Copy, Debug)]
pub struct Call<'a> {
    /// The directive in the tree.
    pub directive: &'a tree::Directive,
}

impl<'a> Call<'a> {
    /// The directive's name.
    pub fn name(&self) -> &'a str {
        self.directive.name().as_str().unwrap_or("")
    }

    /// The arguments.
    pub fn args(&self) -> &'a [Word] {
        self.directive.args()
    }

    /// One argument; must be within the arity.
    pub fn arg(&self, index: usize) -> &'a Word {
        &self.directive.args()[index]
    }

    /// The directives of the block.
    pub fn block(&self) -> &'a [tree::Directive] {
        self.directive.block.as_deref().unwrap_or(&[])
    }

    /// Where the directive stands.
    pub fn span(&self) -> Span {
        self.directive.span
    }
}

/// Sets what one directive says in the scope `S` that it stands in.
pub type Setter<S> = fn(&mut S, &Call) -> Result<(), Complaint>;

/// A directive: everything about it in one entry.
pub struct Directive<S: 'static> {
    /// Its name.
    pub name: &'static str,
    /// Where it may stand.
    pub contexts: Context,
    /// Its arguments.
    pub arity: Arity,
    /// Its default, as text for the reference; empty if there is none.
    pub default: &'static str,
    /// One line of documentation.
    pub doc: &'static str,
    /// What it does.
    pub set: Setter<S>,
}

/// All directives of one kind of scope, by name. A name may stand for different directives in different contexts.
pub struct Table<S: 'static> {
    by_name: HashMap<&'static str, Vec<&'static Directive<S>>>,
}

impl<S> Table<S> {
    /// A table of all these entries.
    pub fn new(entries: impl IntoIterator<Item = &'static Directive<S>>) -> Table<S> {
        let mut by_name: HashMap<_, Vec<_>> = HashMap::new();
        for entry in entries {
            by_name.entry(entry.name).or_default().push(entry);
        }
        Table { by_name }
    }

    /// All entries, sorted by name.
    pub fn entries(&self) -> Vec<&'static Directive<S>> {
        let mut all: Vec<_> = self.by_name.values().flatten().copied().collect();
        all.sort_by_key(|entry| entry.name);
        all
    }
}

/// A scope whose directives can be walked.
pub trait Scope: Sized + 'static {
    /// The context that the scope is.
    fn context(&self) -> Context;
    /// The directives that may occur.
    fn table(&self) -> &'static Table<Self>;
    /// Takes what is wrong with a directive.
    fn report(&mut self, diagnostic: Diagnostic, directive: &tree::Directive);
}

/// Gives every directive of `block` to its setter; what is wrong is reported, and the walk goes on.
pub fn walk<S: Scope>(scope: &mut S, block: &[tree::Directive]) {
    for directive in block {
        if let Err(diagnostic) = apply(scope, directive) {
            scope.report(*diagnostic, directive);
        }
    }
}

fn apply<S: Scope>(scope: &mut S, directive: &tree::Directive) -> Result<(), Box<Diagnostic>> {
    let name = directive.name().lossy();
    let table = scope.table();
    let candidates = table.by_name.get(&*name).map_or(&[][..], Vec::as_slice);
    let Some(entry) = candidates.iter().find(|entry| entry.contexts.contains(scope.context())) else {
        let built = table.by_name.values().flatten().map(|entry| (entry.name, entry.contexts));
        let refusal = known::complain(&name, directive.name().span, scope.context(), built);
        return Err(Box::new(refusal.within(directive.include)));
    };
    check_shape(entry.arity, directive, &name)?;
    (entry.set)(scope, &Call { directive })
        .map_err(|complaint| Box::new(complaint.into_diagnostic(directive)))
}

impl Complaint {
    /// The diagnostic that this complaint about `directive` is.
    pub fn into_diagnostic(self, directive: &tree::Directive) -> Diagnostic {
        let mut diagnostic = match self.severity {
            Severity::Warning => Diagnostic::warning(self.message),
            _ => Diagnostic::error(self.message),
        }
        .at(self.span.unwrap_or(directive.span))
        .within(directive.include);
        if let Some(help) = self.help {
            diagnostic = diagnostic.help(help);
        }
        diagnostic
    }
}

fn check_shape(arity: Arity, directive: &tree::Directive, name: &str) -> Result<(), Box<Diagnostic>> {
    let refuse = |message: String| Err(Box::new(Complaint::new(message).into_diagnostic(directive)));
    match (arity.block, directive.block.is_some()) {
        (true, false) => return refuse(format!("directive \"{name}\" has no opening \"{{\"")),
        (false, true) => return refuse(format!("directive \"{name}\" is not terminated by \";\"")),
        _ => {}
    }
    if !arity.allows(directive.args().len()) {
        return refuse(format!("invalid number of arguments in \"{name}\" directive"));
    }
    if arity.flag && !matches!(directive.args()[0].as_bytes().to_ascii_lowercase().as_slice(), b"on" | b"off")
    {
        let word = &directive.args()[0];
        let message = format!(
            "invalid value \"{}\" in \"{name}\" directive, it must be \"on\" or \"off\"",
            word.lossy()
        );
        return Err(Box::new(Complaint::new(message).at(word).into_diagnostic(directive)));
    }
    Ok(())
}

/// Sets `slot` once: a second time in the same scope is nginx's `"x" directive is duplicate`.
pub fn set_once<T>(call: &Call, slot: &mut Option<T>, value: Result<T, Complaint>) -> Result<(), Complaint> {
    if slot.is_some() {
        return Err(Complaint::new(format!("\"{}\" directive is duplicate", call.name())));
    }
    *slot = Some(value?);
    Ok(())
}
