//! `location`, `limit_except` and `if` blocks: scopes within a server.

use crate::conf::context::Context;
use crate::conf::directive::{Arity, Call, Complaint, Directive};
use crate::conf::source::{IncludeId, Span};
use crate::conf::tree::{self, Word};
use crate::http::location_tree::{self, LocationPattern, LocationTree};
use crate::http::modules::{self, Drafts, Merged};
use crate::http::site::{LimitExcept, Location, LocationId, LocationKind, ServerId};
use crate::message::Method;

use super::{Builder, Scope, SiteRegex};

/// What kind of location a scope is, and its name.
#[derive(Clone)]
pub struct LocationHead {
    /// Exact, prefix, regular expression, named; or a server's own scope.
    pub kind: LocationKind,
    /// Name as written, without the modifier.
    pub name: Box<[u8]>,
    /// `^~`: regular expressions are not tried after it.
    pub no_regex: bool,
    /// The regular expression.
    pub regex: Option<SiteRegex>,
}

impl Default for LocationHead {
    fn default() -> Self {
        LocationHead::server()
    }
}

impl LocationHead {
    /// The head of a server's own scope.
    pub fn server() -> LocationHead {
        LocationHead { kind: LocationKind::Server, name: Box::default(), no_regex: false, regex: None }
    }

    /// As an error message shows it.
    pub fn lossy_name(&self) -> String {
        String::from_utf8_lossy(&self.name).into_owned()
    }
}

/// How a scope within a server is reached.
pub enum Reach {
    /// By the URI (or by name).
    Location,
    /// By `if`.
    If,
    /// By a method that `limit_except` does not spare (bits by [`Method`]'s number).
    LimitExcept(u32),
    /// By subrequests of the directive that made it.
    Order,
}

/// A scope within a server, as read.
pub struct LocationDraft {
    /// Its number.
    pub id: LocationId,
    /// Its head; that of the location around for `if` and `limit_except`.
    pub head: LocationHead,
    /// How it is reached.
    pub reach: Reach,
    /// What it sets itself.
    pub drafts: Drafts,
    /// Scopes directly within.
    pub children: Vec<LocationDraft>,
    /// Where it stands.
    pub span: Span,
    /// Where it was included from.
    pub include: IncludeId,
}

/// `location`
pub const LOCATION: Directive<Scope> = Directive {
    name: "location",
    contexts: Context::SERVER.union(Context::LOCATION),
    arity: Arity::between(1, 2).block(),
    default: "",
    doc: "Settings for the requests whose path matches.",
    set: set_location,
};

/// `limit_except`
pub const LIMIT_EXCEPT: Directive<Scope> = Directive {
    name: "limit_except",
    contexts: Context::LOCATION,
    arity: Arity::at_least(1).block(),
    default: "",
    doc: "Settings for all methods but those named.",
    set: set_limit_except,
};

fn set_location(scope: &mut Scope, call: &Call) -> Result<(), Complaint> {
    let head = location_head(scope, call)?;
    check_nesting(scope, call, &head)?;
    add_scope(scope, call, Context::LOCATION, head, Reach::Location);
    Ok(())
}

/// Reads the modifier and the name; the modifier may be glued to the name, as in `location ~\.php$`.
fn location_head(scope: &mut Scope, call: &Call) -> Result<LocationHead, Complaint> {
    let (modifier, name, word): (&[u8], &[u8], &Word) = if call.args().len() == 2 {
        (call.arg(0).as_bytes(), call.arg(1).as_bytes(), call.arg(1))
    } else {
        let text = call.arg(0).as_bytes();
        let length = match text {
            [b'^', b'~', ..] | [b'~', b'*', ..] => 2,
            [b'=' | b'~', ..] => 1,
            _ => 0,
        };
        (&text[..length], &text[length..], call.arg(0))
    };
    let mut head =
        LocationHead { kind: LocationKind::Prefix, name: name.into(), no_regex: false, regex: None };
    match modifier {
        b"" if name.starts_with(b"@") => head.kind = LocationKind::Named,
        b"" => {}
        b"=" => head.kind = LocationKind::Exact,
        b"^~" => head.no_regex = true,
        b"~" | b"~*" => {
            head.kind = LocationKind::Regex;
            head.regex = Some(scope.builder.regex(name, modifier == b"~*", word)?);
        }
        _ => {
            let modifier = call.arg(0);
            return Err(
                Complaint::new(format!("invalid location modifier \"{}\"", modifier.lossy())).at(modifier)
            );
        }
    }
    Ok(head)
}

fn check_nesting(scope: &Scope, call: &Call, head: &LocationHead) -> Result<(), Complaint> {
    let around = &scope.head;
    let refuse = |message: String| Err(Complaint::new(message).at(call.arg(call.args().len() - 1)));
    let (inner, outer) = (head.lossy_name(), around.lossy_name());
    match around.kind {
        LocationKind::Server => Ok(()),
        LocationKind::Exact => {
            refuse(format!("location \"{inner}\" cannot be inside the exact location \"{outer}\""))
        }
        LocationKind::Named => {
            refuse(format!("location \"{inner}\" cannot be inside the named location \"{outer}\""))
        }
        _ if head.kind == LocationKind::Named => {
            refuse(format!("named location \"{inner}\" can be on the server level only"))
        }
        LocationKind::Prefix if head.kind != LocationKind::Regex && !head.name.starts_with(&around.name) => {
            refuse(format!("location \"{inner}\" is outside location \"{outer}\""))
        }
        LocationKind::Prefix | LocationKind::Regex => Ok(()),
    }
}

fn set_limit_except(scope: &mut Scope, call: &Call) -> Result<(), Complaint> {
    if scope.children.iter().any(|child| matches!(child.reach, Reach::LimitExcept(_))) {
        return Err(Complaint::new("\"limit_except\" directive is duplicate"));
    }
    let mut spared = 0u32;
    for word in call.args() {
        match Method::of(&word.as_bytes().to_ascii_uppercase()) {
            Method::Other | Method::Connect | Method::Trace => {
                return Err(Complaint::new(format!("invalid method \"{}\"", word.lossy())).at(word));
            }
            method => spared |= 1 << method as u32,
        }
    }
    if spared & (1 << Method::Get as u32) != 0 {
        spared |= 1 << Method::Head as u32;
    }
    let head = scope.head.clone();
    add_scope(scope, call, Context::LIMIT_EXCEPT, head, Reach::LimitExcept(spared));
    Ok(())
}

/// Reads the block of an `if` as a scope of its own; its rewrite program is the caller's to inline.
pub fn add_if_scope(scope: &mut Scope, call: &Call) -> LocationId {
    let context = if scope.context == Context::SERVER { Context::IF_SERVER } else { Context::IF_LOCATION };
    let head = scope.head.clone();
    add_scope(scope, call, context, head, Reach::If)
}

/// Makes a scope of these directives that only subrequests of the directive `call` reach.
pub fn add_hidden_scope(scope: &mut Scope, call: &Call, block: &[tree::Directive]) -> LocationId {
    // Orders come with its name as their path, so that a URL in it is taken as it is.
    let head =
        LocationHead { kind: LocationKind::Exact, name: b"/"[..].into(), no_regex: false, regex: None };
    add_scope_of(scope, call, block, Context::LOCATION, head, Reach::Order)
}

fn add_scope(
    scope: &mut Scope,
    call: &Call,
    context: Context,
    head: LocationHead,
    reach: Reach,
) -> LocationId {
    add_scope_of(scope, call, call.block(), context, head, reach)
}

fn add_scope_of(
    scope: &mut Scope,
    call: &Call,
    block: &[tree::Directive],
    context: Context,
    head: LocationHead,
    reach: Reach,
) -> LocationId {
    let id = scope.builder.new_location();
    let (drafts, children) = scope.nested(context, head.clone(), block);
    scope.children.push(LocationDraft {
        id,
        head,
        reach,
        drafts,
        children,
        span: call.span(),
        include: call.directive.include,
    });
    id
}

/// Freezes a scope and all within it, from the outside in.
pub fn freeze(builder: &mut Builder, draft: &mut LocationDraft, around: &Merged, server: ServerId) {
    modules::warn_of_traps(builder, &draft.drafts, &around.settings);
    if matches!(draft.reach, Reach::If) {
        // A location's handler stays in charge when an `if` of it holds; in locations within it does not.
        let core = draft.drafts.core.get_or_insert_default();
        core.handler.get_or_insert(around.settings.core.handler);
    }
    if matches!(draft.reach, Reach::LimitExcept(_)) && around.settings.core.passes_on {
        let core = draft.drafts.core.get_or_insert_default();
        core.handler.get_or_insert(around.settings.core.handler);
    }
    let merged = std::mem::take(&mut draft.drafts).merge(around);
    freeze_as(builder, draft.id, &draft.head, merged, server, &mut draft.children);
}

/// Puts merged settings into the scope's place and goes on with the scopes within.
pub fn freeze_as(
    builder: &mut Builder,
    id: LocationId,
    head: &LocationHead,
    merged: Merged,
    server: ServerId,
    children: &mut [LocationDraft],
) {
    let mut limit_except = None;
    for child in children {
        freeze(builder, child, &merged, server);
        if let Reach::LimitExcept(spared) = child.reach {
            limit_except = Some(LimitExcept { spared, location: child.id });
        }
    }
    builder.locations[id.0 as usize] = Some(Location {
        file_options: merged.settings.static_files.file_options(),
        settings: merged.settings,
        name: head.name.clone(),
        kind: head.kind,
        server,
        limit_except,
        named_captures: head.regex.as_ref().map(|regex| regex.named.clone()).unwrap_or_default(),
    });
}

/// The tree of the locations that are found by URI; contradictions are reported.
pub fn tree(builder: &mut Builder, children: &[LocationDraft]) -> LocationTree<LocationId> {
    match LocationTree::build(tree_entries(builder, children)) {
        Ok(tree) => tree,
        Err(error) => {
            if let Some((span, include)) = place_of(children, error.target) {
                builder.error_at(span, include, error.message);
            }
            LocationTree::default()
        }
    }
}

fn tree_entries(builder: &Builder, children: &[LocationDraft]) -> Vec<location_tree::Location<LocationId>> {
    children
        .iter()
        .filter(|child| matches!(child.reach, Reach::Location) && child.head.kind != LocationKind::Named)
        .map(|child| location_tree::Location {
            pattern: pattern(&child.head),
            target: child.id,
            auto_redirect: builder.locations[child.id.0 as usize]
                .as_ref()
                .is_some_and(|location| location.settings.core.auto_redirect),
            children: tree_entries(builder, &child.children),
        })
        .collect()
}

fn pattern(head: &LocationHead) -> LocationPattern {
    let name = head.name.to_vec();
    match (&head.regex, head.kind) {
        (Some(regex), _) => LocationPattern::Regex(regex.regex.clone()),
        (None, LocationKind::Exact) => LocationPattern::Exact(name),
        (None, _) if head.no_regex => LocationPattern::PreferredPrefix(name),
        (None, _) => LocationPattern::Prefix(name),
    }
}

fn place_of(children: &[LocationDraft], id: LocationId) -> Option<(Span, IncludeId)> {
    children.iter().find_map(|child| {
        if child.id == id { Some((child.span, child.include)) } else { place_of(&child.children, id) }
    })
}
