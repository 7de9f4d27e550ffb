//! `proxy_cookie_domain`, `proxy_cookie_path` and `proxy_cookie_flags`: what becomes of a Set-Cookie field.

use std::sync::Arc;

use crate::base::level::Level;
use crate::conf::directive::{Call, Complaint};
use crate::conf::template::Template;
use crate::conf::tree::Word;
use crate::http::build::Scope;
use crate::http::context::Context;
use crate::http::exchange::Exchange;
use crate::http::matching;

use super::redirects::{Pattern, Rule};
use super::Settings;

/// Rules for one attribute.
#[derive(Clone, Debug, Default)]
pub struct CookieRewrites {
    is_off: bool,
    rules: Arc<Vec<CookieRule>>,
}

#[derive(Clone, Debug)]
enum CookieRule {
    /// The whole value, case ignored, with or without a dot in front.
    Domain(Template, Template),
    /// As `proxy_redirect` has it.
    Other(Rule),
}

impl CookieRewrites {
    pub(super) fn turn_off(&mut self) {
        *self = CookieRewrites { is_off: true, rules: Arc::default() };
    }

    fn push(&mut self, rule: CookieRule) {
        // What follows an `off` has no effect, as in nginx.
        if !self.is_off {
            Arc::make_mut(&mut self.rules).push(rule);
        }
    }

    pub(super) fn add_domain(&mut self, scope: &mut Scope, from: &Word, to: &Word) -> Result<(), Complaint> {
        let replacement = scope.builder.template(to)?;
        let rule = if from.as_bytes().starts_with(b"~") {
            CookieRule::Other(Rule::new(Pattern::read(scope, from, true)?, replacement))
        } else {
            let text = from.as_bytes();
            let name = scope.builder.template_of(text.strip_prefix(b".").unwrap_or(text), from)?;
            CookieRule::Domain(name, replacement)
        };
        self.push(rule);
        Ok(())
    }

    pub(super) fn add_path(&mut self, scope: &mut Scope, from: &Word, to: &Word) -> Result<(), Complaint> {
        let rule = Rule::read(scope, from, to)?;
        self.push(CookieRule::Other(rule));
        Ok(())
    }

    /// Rewrites a value by the first rule that fits.
    fn apply(&self, exchange: &mut Exchange, context: &mut Context, value: &mut Vec<u8>) -> bool {
        self.rules.iter().any(|rule| match rule {
            CookieRule::Other(rule) => rule.apply(exchange, context, 0, value),
            CookieRule::Domain(name, replacement) => {
                let bare = value.strip_prefix(b".").unwrap_or(value);
                let fits =
                    exchange.with_rendered(name, context, |_, _, name| bare.eq_ignore_ascii_case(name));
                if fits {
                    let has_dot = value.starts_with(b".");
                    value.clear();
                    exchange.render(replacement, context, value);
                    if has_dot && !value.starts_with(b".") {
                        value.insert(0, b'.');
                    }
                }
                fits
            }
        })
    }
}

/// `proxy_cookie_flags`
#[derive(Clone, Debug, Default)]
pub struct CookieFlags {
    is_off: bool,
    rules: Arc<Vec<FlagRule>>,
}

#[derive(Clone, Debug)]
struct FlagRule {
    cookie: Pattern,
    flags: Box<[Template]>,
}

impl CookieFlags {
    pub(super) fn turn_off(&mut self) {
        *self = CookieFlags { is_off: true, rules: Arc::default() };
    }

    pub(super) fn add(&mut self, scope: &mut Scope, call: &Call) -> Result<(), Complaint> {
        let cookie = Pattern::read(scope, call.arg(0), true)?;
        let flags: Result<Box<[Template]>, Complaint> =
            call.args()[1..].iter().map(|word| scope.builder.template(word)).collect();
        let flags = flags?;
        if !self.is_off {
            Arc::make_mut(&mut self.rules).push(FlagRule { cookie, flags });
        }
        Ok(())
    }
}

/// What becomes of one flag.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Change {
    #[default]
    Keep,
    Set,
    Remove,
}

/// What becomes of a cookie's flags.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Changes {
    secure: Change,
    http_only: Change,
    same_site: Change,
    same_site_value: &'static [u8],
}

impl Changes {
    fn take(&mut self, flag: &[u8]) -> bool {
        let mut same_site = |change, value| {
            self.same_site = change;
            self.same_site_value = value;
        };
        match flag.to_ascii_lowercase().as_slice() {
            b"" => {}
            b"secure" => self.secure = Change::Set,
            b"nosecure" => self.secure = Change::Remove,
            b"httponly" => self.http_only = Change::Set,
            b"nohttponly" => self.http_only = Change::Remove,
            b"samesite=strict" => same_site(Change::Set, b"Strict"),
            b"samesite=lax" => same_site(Change::Set, b"Lax"),
            b"samesite=none" => same_site(Change::Set, b"None"),
            b"nosamesite" => same_site(Change::Remove, b""),
            _ => return false,
        }
        true
    }
}

/// Whether some rule may change cookies.
pub fn has_rules(settings: &Settings) -> bool {
    !settings.cookie_domains.rules.is_empty()
        || !settings.cookie_paths.rules.is_empty()
        || !settings.cookie_flags.rules.is_empty()
}

/// One `name=value` of a Set-Cookie field.
struct Attribute {
    name: Vec<u8>,
    value: Option<Vec<u8>>,
}

/// Rewrites a Set-Cookie value; without a rule that fits it stays byte for byte.
pub fn rewrite(exchange: &mut Exchange, context: &mut Context, settings: &Settings, text: &mut Vec<u8>) {
    let mut attributes = parse(text);
    if attributes.first().is_none_or(|cookie| cookie.value.is_none()) {
        return;
    }
    let mut is_changed = false;
    for attribute in &mut attributes[1..] {
        let Some(value) = &mut attribute.value else { continue };
        if attribute.name.eq_ignore_ascii_case(b"domain") {
            is_changed |= settings.cookie_domains.apply(exchange, context, value);
        } else if attribute.name.eq_ignore_ascii_case(b"path") {
            is_changed |= settings.cookie_paths.apply(exchange, context, value);
        }
    }
    let changes = flag_changes(exchange, context, settings, &attributes[0].name);
    is_changed |= apply_flags(&mut attributes, changes);
    if is_changed {
        write(&attributes, text);
    }
}

fn parse(text: &[u8]) -> Vec<Attribute> {
    text.split(|byte| *byte == b';')
        .map(|part| match memchr::memchr(b'=', part) {
            Some(at) => Attribute {
                name: trim_spaces(&part[..at]).to_vec(),
                value: Some(trim_spaces(&part[at + 1..]).to_vec()),
            },
            None => Attribute { name: trim_spaces(part).to_vec(), value: None },
        })
        .collect()
}

fn trim_spaces(mut text: &[u8]) -> &[u8] {
    while let [b' ', rest @ ..] | [rest @ .., b' '] = text {
        text = rest;
    }
    text
}

fn write(attributes: &[Attribute], out: &mut Vec<u8>) {
    out.clear();
    for (index, attribute) in attributes.iter().enumerate() {
        if index > 0 {
            out.extend_from_slice(b"; ");
        }
        out.extend_from_slice(&attribute.name);
        if let Some(value) = &attribute.value {
            out.push(b'=');
            out.extend_from_slice(value);
        }
    }
}

/// What the first rule that fits the cookie's name says.
fn flag_changes(
    exchange: &mut Exchange,
    context: &mut Context,
    settings: &Settings,
    name: &[u8],
) -> Changes {
    let mut changes = Changes::default();
    let fits = |exchange: &mut Exchange, context: &mut Context, rule: &FlagRule| match &rule.cookie {
        Pattern::Prefix(template) => exchange.with_rendered(template, context, |_, _, text| {
            text.eq_ignore_ascii_case(name)
        }),
        Pattern::Regex(regex) => matching::matches(exchange, context, regex, name),
    };
    let Some(rule) = settings.cookie_flags.rules.iter().find(|rule| fits(exchange, context, rule)) else {
        return changes;
    };
    for flag in &rule.flags {
        exchange.with_rendered(flag, context, |exchange, context, text| {
            if !changes.take(text) {
                let shown = String::from_utf8_lossy(text);
                let message = format_args!("invalid proxy_cookie_flags flag \"{shown}\"");
                exchange.log(context, Level::Error, message);
            }
        });
    }
    changes
}

/// Removes, replaces and adds flags; `false` if there was nothing to do.
fn apply_flags(attributes: &mut Vec<Attribute>, changes: Changes) -> bool {
    if changes == Changes::default() {
        return false;
    }
    let same_site = (&b"SameSite"[..], changes.same_site, Some(changes.same_site_value));
    let flags = [(&b"Secure"[..], changes.secure, None), (b"HttpOnly", changes.http_only, None), same_site];
    for (name, change, value) in flags {
        let is_flag = |attribute: &Attribute| attribute.name.eq_ignore_ascii_case(name);
        match change {
            Change::Keep => {}
            Change::Remove => {
                let mut index = 0;
                attributes.retain(|attribute| {
                    index += 1;
                    index == 1 || !is_flag(attribute)
                });
            }
            Change::Set => match attributes[1..].iter_mut().find(|attribute| is_flag(attribute)) {
                Some(present) => present.value = value.map(<[u8]>::to_vec).or(present.value.take()),
                None => {
                    attributes.push(Attribute { name: name.to_vec(), value: value.map(<[u8]>::to_vec) });
                }
            },
        }
    }
    true
}
