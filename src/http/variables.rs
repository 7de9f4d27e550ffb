//! Variables, compiled to slots: a template holds numbers, and a number leads straight to a getter.

use std::collections::HashMap;
use std::sync::Arc;

use crate::base::level::Level;
use crate::conf::template::{Part, Template, VariableId};

use super::context::Context;
use super::exchange::Exchange;

/// Appends a variable's value; `false` if the variable has none ("not found": empty in text, `-` in logs).
pub type Getter = fn(&mut Exchange, &mut Context, &mut Vec<u8>) -> bool;

/// The same for a family of variables (`$arg_NAME`): gets NAME in lower case.
pub type FamilyGetter = fn(&mut Exchange, &mut Context, &[u8], &mut Vec<u8>) -> bool;

/// What `set $name` does for a built-in variable that may be assigned.
pub type Assign = fn(&mut Exchange, &mut Context, &[u8]);

/// How the value of a built-in variable comes about.
#[derive(Clone, Copy)]
pub enum Get {
    /// By one getter.
    Value(Getter),
    /// By the getter of a family; the entry's name is the prefix.
    Family(FamilyGetter),
}

/// A built-in variable: everything about it in one entry.
pub struct VariableEntry {
    /// The name without `$`, or the prefix of a family.
    pub name: &'static str,
    /// Whether the first value is kept for the rest of the request.
    pub kept: bool,
    /// Whether `set`, `map` and the like may take the name over.
    pub changeable: bool,
    /// Its value.
    pub get: Get,
    /// What `set` does with it.
    pub assign: Option<Assign>,
}

impl VariableEntry {
    /// A plain variable: not kept, not changeable.
    pub const fn new(name: &'static str, get: Getter) -> VariableEntry {
        VariableEntry { name, kept: false, changeable: false, get: Get::Value(get), assign: None }
    }

    /// A family of variables that begin with `prefix`.
    pub const fn family(prefix: &'static str, get: FamilyGetter) -> VariableEntry {
        VariableEntry { name: prefix, kept: false, changeable: true, get: Get::Family(get), assign: None }
    }

    /// The same, with its first value kept for the rest of the request.
    pub const fn kept(self) -> VariableEntry {
        VariableEntry { kept: true, ..self }
    }

    /// The same, and `set`, `map` and the like may take the name over.
    pub const fn changeable(self) -> VariableEntry {
        VariableEntry { changeable: true, ..self }
    }

    /// The same, with what `set` does.
    pub const fn assigned_by(self, assign: Assign) -> VariableEntry {
        VariableEntry { assign: Some(assign), changeable: true, ..self }
    }
}

/// A value that the configuration defines (`map`, `geo`, ...).
pub trait Compute: Send + Sync {
    /// Appends the value; `false` if there is none.
    fn compute(&self, exchange: &mut Exchange, context: &mut Context, out: &mut Vec<u8>) -> bool;
}

/// How deep variables of the configuration may need one another; more is a cycle (nginx's bound).
const MAX_VARIABLE_DEPTH: u8 = 100;
/// The depth while a cycle is being left: nothing more is computed, or time and text could double with every level.
const LEAVING_CYCLE: u8 = u8::MAX;

/// Where a variable's value comes from.
pub enum Source {
    /// A built-in variable; with the slot that keeps its first value, if it is to be kept.
    Builtin(Getter, Option<Slot>),
    /// A member of a family, with its name's rest in lower case.
    Family(FamilyGetter, Box<[u8]>),
    /// Set by the request's own way through the configuration (`set`).
    Assigned(Slot),
    /// The same by what it met on that way (named captures, `auth_request_set`): without a value before.
    Met(Slot),
    /// Defined by the configuration; with the slot that keeps its first value, unless `volatile`.
    Computed(Arc<dyn Compute>, Option<Slot>),
}

/// Number of a place in an exchange where a value is kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Slot(pub u16);

/// A variable that the configuration mentions.
pub struct Variable {
    /// Its name without `$`.
    pub name: Box<str>,
    /// Its value.
    pub source: Source,
    /// What `set` does, for built-in ones.
    pub assign: Option<Assign>,
}

/// All variables that the configuration mentions, by number.
#[derive(Default)]
pub struct Variables {
    /// By [`VariableId`].
    pub list: Vec<Variable>,
    /// Their numbers by their names.
    pub numbers: HashMap<Box<str>, VariableId>,
    /// How many slots an exchange needs.
    pub slots: usize,
}

/// The value in a slot of an exchange.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Kept {
    /// Not asked for yet.
    #[default]
    Unset,
    /// Asked for: the variable has no value.
    Missing,
    /// Bytes `start..end` of the exchange's value text.
    Text(u32, u32),
}

impl Exchange {
    /// Appends the value of a variable; `false` if it has none.
    pub fn variable(&mut self, id: VariableId, context: &mut Context, out: &mut Vec<u8>) -> bool {
        let site = context.site;
        let variable = &site.variables.list[id.0 as usize];
        match &variable.source {
            Source::Builtin(get, None) => get(self, context, out),
            Source::Family(get, rest) => get(self, context, rest, out),
            Source::Assigned(slot) => match self.kept(*slot) {
                Kept::Unset => {
                    self.warn_uninitialized(context, &variable.name);
                    self.keep(*slot, Some(b""));
                    true
                }
                kept => self.append_kept(kept, out),
            },
            Source::Met(slot) => {
                let kept = self.kept(*slot);
                self.append_kept(kept, out)
            }
            Source::Computed(compute, None) => self.compute(&**compute, &variable.name, context, out),
            Source::Builtin(get, Some(slot)) => self.remember(*slot, context, out, get),
            Source::Computed(compute, Some(slot)) => {
                self.remember(*slot, context, out, |exchange, context, out| {
                    exchange.compute(&**compute, &variable.name, context, out)
                })
            }
        }
    }

    /// Appends the value of the variable of this name in lower case, which the configuration need not mention; `false`
    /// if it has none, or there is no such variable.
    pub fn variable_named(&mut self, name: &[u8], context: &mut Context, out: &mut Vec<u8>) -> bool {
        let Ok(name) = std::str::from_utf8(name) else { return false };
        let site = context.site;
        if let Some(id) = site.variables.numbers.get(name) {
            return self.variable(*id, context, out);
        }
        match find_builtin(name).map(|entry| (entry.get, entry.name.len())) {
            None => false,
            Some((Get::Value(get), _)) => get(self, context, out),
            Some((Get::Family(get), prefix)) => get(self, context, &name.as_bytes()[prefix..], out),
        }
    }

    /// Computes a value that the configuration defines; one that needs itself has none, nor has one that needs that.
    fn compute(
        &mut self,
        compute: &dyn Compute,
        name: &str,
        context: &mut Context,
        out: &mut Vec<u8>,
    ) -> bool {
        let depth = self.variable_depth;
        if depth >= MAX_VARIABLE_DEPTH {
            if depth != LEAVING_CYCLE {
                self.log(context, Level::Error, format_args!("cycle while evaluating variable \"{name}\""));
            }
            self.variable_depth = LEAVING_CYCLE;
            return false;
        }
        self.variable_depth = depth + 1;
        let start = out.len();
        let found = compute.compute(self, context, out);
        let is_left = self.variable_depth != LEAVING_CYCLE;
        if is_left || depth == 0 {
            self.variable_depth = depth;
        }
        if !is_left {
            out.truncate(start);
        }
        found && is_left
    }

    /// Gives the kept value of a slot, or computes and keeps it.
    fn remember(
        &mut self,
        slot: Slot,
        context: &mut Context,
        out: &mut Vec<u8>,
        compute: impl FnOnce(&mut Exchange, &mut Context, &mut Vec<u8>) -> bool,
    ) -> bool {
        let kept = self.kept(slot);
        if kept != Kept::Unset {
            return self.append_kept(kept, out);
        }
        let start = out.len();
        let found = compute(self, context, out);
        let value = if found { Some(&out[start..]) } else { None };
        self.keep(slot, value);
        found
    }

    /// Appends a template's text with the present values.
    pub fn render(&mut self, template: &Template, context: &mut Context, out: &mut Vec<u8>) {
        for part in template.parts() {
            match part {
                Part::Literal(text) => out.extend_from_slice(text),
                Part::Variable(id) => {
                    self.variable(*id, context, out);
                }
                Part::Capture(number) => {
                    let text = self.captures.text(usize::from(*number), &self.capture_subject);
                    out.extend_from_slice(text.unwrap_or(b""));
                }
            }
        }
    }

    /// Renders into a scratch buffer and hands the text to `then`.
    pub fn with_rendered<R>(
        &mut self,
        template: &Template,
        context: &mut Context,
        then: impl FnOnce(&mut Exchange, &mut Context, &[u8]) -> R,
    ) -> R {
        if let Some(text) = template.as_literal() {
            return then(self, context, text);
        }
        let mut text = context.env.scratch();
        self.render(template, context, &mut text);
        let result = then(self, context, &text);
        context.env.give_back(text);
        result
    }
}

/// The built-in variable of this name: an entry of its own, else the family with the longest prefix.
pub fn find_builtin(name: &str) -> Option<&'static VariableEntry> {
    let mut best: Option<&'static VariableEntry> = None;
    for entry in super::modules::variables() {
        match entry.get {
            Get::Value(_) if entry.name == name => return Some(entry),
            Get::Family(_)
                if name.starts_with(entry.name)
                    && best.is_none_or(|other| other.name.len() < entry.name.len()) =>
            {
                best = Some(entry);
            }
            _ => {}
        }
    }
    best
}

/// Conditions of `if=` parameters and predicates: true unless the text is empty or `0`.
pub fn is_true(text: &[u8]) -> bool {
    !text.is_empty() && text != b"0"
}
