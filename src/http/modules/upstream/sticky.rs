//! `sticky` in an `upstream` block.

use crate::conf::directive::{Call, Complaint};
use crate::conf::template::{Template, VariableId};
use crate::conf::tree::Word;
use crate::conf::values;
use crate::http::build::Scope;
use crate::upstream::plan::{StickyPlan, Zone};

use super::{block_once, zone};

/// How long a learned session is kept that is not used, in milliseconds.
const LEARN_TIMEOUT_MS: u64 = 600_000;

/// What sessions are recognised by.
#[derive(Debug)]
pub enum Sticky {
    /// A cookie of ours.
    Cookie(StickyCookie),
    /// The first of these texts that is not empty.
    Route(Vec<Template>),
    /// What the upstream's response said.
    Learn {
        /// The first of these that is not empty makes a session known.
        create: Vec<Template>,
        /// The first of these that is not empty is looked up.
        lookup: Vec<Template>,
    },
}

/// The cookie that says which server a session belongs to.
#[derive(Debug)]
pub struct StickyCookie {
    /// Its name.
    pub name: Box<[u8]>,
    /// `$cookie_NAME`
    pub variable: VariableId,
    /// How long it lasts; without, as long as the browser runs.
    pub expires: Option<Expires>,
    /// `Domain`
    pub domain: Option<Template>,
    /// `Path`
    pub path: Option<Template>,
    /// `SameSite`
    pub samesite: Option<Template>,
    /// `HttpOnly`
    pub httponly: bool,
    /// `Secure`
    pub secure: bool,
}

/// `expires=`
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Expires {
    /// As long as can be said: to the end of 2037.
    Max,
    /// For so many seconds.
    Seconds(u64),
}

/// `sticky cookie|route|learn ...`
pub fn set(scope: &mut Scope, call: &Call) -> Result<(), Complaint> {
    let kind = call.arg(0);
    let rest = &call.args()[1..];
    let (plan, sticky) = match kind.as_bytes() {
        b"cookie" => (StickyPlan::Cookie, Sticky::Cookie(cookie(scope, rest)?)),
        b"route" => {
            let texts = rest.iter().map(|word| variable(scope, word, word.as_bytes()));
            (StickyPlan::Route, Sticky::Route(texts.collect::<Result<_, _>>()?))
        }
        b"learn" => learn(scope, call, rest)?,
        _ => return Err(Complaint::invalid_parameter(kind)),
    };
    let draft = block_once(scope, call)?;
    draft.plan.sticky = Some(plan);
    draft.settings.sticky = Some(sticky);
    Ok(())
}

/// A text that must have a variable: one without would be the same for everybody.
fn variable(scope: &mut Scope, word: &Word, text: &[u8]) -> Result<Template, Complaint> {
    if !text.contains(&b'$') {
        let message = format!("invalid variable name \"{}\"", String::from_utf8_lossy(text));
        return Err(Complaint::new(message).at(word));
    }
    scope.builder.template_of(text, word)
}

fn cookie(scope: &mut Scope, words: &[Word]) -> Result<StickyCookie, Complaint> {
    let [name, parameters @ ..] = words else { return Err(Complaint::new("no cookie name")) };
    let invalid_name = || Complaint::new(format!("invalid cookie name \"{}\"", name.lossy())).at(name);
    let text = name.as_str().filter(|name| !name.is_empty()).ok_or_else(invalid_name)?;
    // Whatever ends a name or a line would be another cookie, or another field.
    if text.bytes().any(|byte| byte <= b' ' || byte == 0x7f || b"=;,\"".contains(&byte)) {
        return Err(invalid_name());
    }
    let variable = scope.builder.variable(&format!("cookie_{text}"), name);
    let mut cookie = StickyCookie {
        name: text.as_bytes().into(),
        variable,
        expires: None,
        domain: None,
        path: None,
        samesite: None,
        httponly: false,
        secure: false,
    };
    for word in parameters {
        let invalid = || Complaint::invalid_parameter(word);
        let text = word.as_str().ok_or_else(invalid)?;
        match text.split_once('=') {
            None if text == "httponly" => cookie.httponly = true,
            None if text == "secure" => cookie.secure = true,
            Some(("expires", "max")) => cookie.expires = Some(Expires::Max),
            Some(("expires", time)) => {
                let seconds = values::parse_time_s(time.as_bytes()).map_err(|_| invalid())?;
                cookie.expires = Some(Expires::Seconds(seconds));
            }
            Some(("domain", value)) => cookie.domain = Some(attribute(scope, word, value)?),
            Some(("path", value)) => cookie.path = Some(attribute(scope, word, value)?),
            Some(("samesite", value)) => {
                if !value.contains('$') && !is_samesite(value.as_bytes()) {
                    return Err(invalid());
                }
                cookie.samesite = Some(attribute(scope, word, value)?);
            }
            _ => return Err(invalid()),
        }
    }
    Ok(cookie)
}

fn attribute(scope: &mut Scope, word: &Word, value: &str) -> Result<Template, Complaint> {
    if value.is_empty() {
        return Err(Complaint::invalid_parameter(word));
    }
    scope.builder.template_of(value.as_bytes(), word)
}

/// Whether a text is a value of the attribute SameSite.
pub fn is_samesite(value: &[u8]) -> bool {
    [&b"strict"[..], b"lax", b"none"].iter().any(|known| value.eq_ignore_ascii_case(known))
}

fn learn(scope: &mut Scope, call: &Call, words: &[Word]) -> Result<(StickyPlan, Sticky), Complaint> {
    let (mut create, mut lookup) = (Vec::new(), Vec::new());
    let mut own_zone: Option<Zone> = None;
    let mut timeout_ms = LEARN_TIMEOUT_MS;
    let mut header = false;
    for word in words {
        let invalid = || Complaint::invalid_parameter(word);
        match word.as_str().ok_or_else(invalid)?.split_once('=') {
            None if *word == "header" => header = true,
            Some(("create", text)) => create.push(variable(scope, word, text.as_bytes())?),
            Some(("lookup", text)) => lookup.push(variable(scope, word, text.as_bytes())?),
            Some(("zone", text)) => {
                let (name, size) = text.split_once(':').ok_or_else(invalid)?;
                own_zone = Some(zone(word, name.as_bytes(), Some((word, size.as_bytes())))?);
            }
            Some(("timeout", time)) => {
                timeout_ms = values::parse_time_ms(time.as_bytes()).map_err(|_| invalid())?;
            }
            _ => return Err(invalid()),
        }
    }
    let missing = |what: &str| Complaint::new(format!("\"{}\" directive needs \"{what}\"", call.name()));
    if create.is_empty() {
        return Err(missing("create="));
    }
    if lookup.is_empty() {
        return Err(missing("lookup="));
    }
    let zone = own_zone.ok_or_else(|| missing("zone="))?;
    Ok((StickyPlan::Learn { zone, timeout_ms, header }, Sticky::Learn { create, lookup }))
}
