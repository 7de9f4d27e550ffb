//! `modern_browser`, `ancient_browser`: what the User-Agent says of a browser's age, and `$msie`.

use std::sync::Arc;

use crate::conf::directive::{Arity, Call, Complaint};
use crate::http::build::Scope;
use crate::http::context::Context;
use crate::http::exchange::Exchange;
use crate::http::settings::contexts::HTTP_SERVER_LOCATION;
use crate::http::settings::settings;
use crate::http::variables::VariableEntry;
use crate::message::FieldName;

settings! {
    module browser;
    fields {
        /// Browsers that are modern from a version on, or `unlisted` for all that are not named.
        modern: Arc<Modern> = Arc::default(), inherit;
            "modern_browser" HTTP_SERVER_LOCATION, Arity::between(1, 2), default "", with add_modern;
        /// The value of `$modern_browser` for a modern browser.
        modern_value: Box<[u8]> = b"1".as_slice().into(), inherit;
            "modern_browser_value" HTTP_SERVER_LOCATION, Arity::exactly(1), default "1", with set_value;
        /// Texts in the User-Agent that make a browser an ancient one, or `netscape4`.
        ancient: Arc<Ancient> = Arc::default(), inherit;
            "ancient_browser" HTTP_SERVER_LOCATION, Arity::at_least(1), default "", with add_ancient;
        /// The value of `$ancient_browser` for an ancient browser.
        ancient_value: Box<[u8]> = b"1".as_slice().into(), inherit;
            "ancient_browser_value" HTTP_SERVER_LOCATION, Arity::exactly(1), default "1", with set_value;
    }
}

/// `modern_browser`s of one scope.
#[derive(Clone, Debug, Default)]
pub struct Modern {
    /// In the order in which they are looked for.
    browsers: Vec<(&'static Signature, u64)>,
    unlisted: bool,
}

/// `ancient_browser`s of one scope.
#[derive(Clone, Debug, Default)]
pub struct Ancient {
    texts: Vec<Box<[u8]>>,
    netscape4: bool,
}

/// How a browser says in its User-Agent which version it is.
#[derive(Debug, PartialEq, Eq)]
struct Signature {
    name: &'static str,
    /// Bytes of the User-Agent that stand before anything of interest.
    skip: usize,
    /// What is looked for.
    text: &'static str,
    /// Bytes from its start to the version.
    version_at: usize,
}

/// Those with less to skip are looked for first; Opera, which pretends to be others, before all.
static SIGNATURES: [Signature; 5] = [
    Signature { name: "opera", skip: 0, text: "Opera", version_at: 6 },
    Signature { name: "gecko", skip: 13, text: "rv:", version_at: 3 },
    Signature { name: "safari", skip: 13, text: "Safari/", version_at: 7 },
    Signature { name: "msie", skip: 25, text: "MSIE ", version_at: 5 },
    Signature { name: "konqueror", skip: 25, text: "Konqueror/", version_at: 10 },
];

/// The module's variables.
pub static VARIABLES: &[VariableEntry] = &[
    VariableEntry::new("ancient_browser", |exchange, context, out| {
        let settings = &context.site.settings(exchange.location).browser;
        if !settings.is_modern(exchange.head.field(FieldName::UserAgent)) {
            out.extend_from_slice(&settings.ancient_value);
        }
        true
    })
    .kept()
    .changeable(),
    VariableEntry::new("modern_browser", |exchange, context, out| {
        let settings = &context.site.settings(exchange.location).browser;
        if settings.is_modern(exchange.head.field(FieldName::UserAgent)) {
            out.extend_from_slice(&settings.modern_value);
        }
        true
    })
    .kept()
    .changeable(),
    VariableEntry::new("msie", msie).kept().changeable(),
];

fn set_value(_: &mut Scope, call: &Call, slot: &mut Option<Box<[u8]>>) -> Result<(), Complaint> {
    *slot = Some(call.arg(0).as_bytes().into());
    Ok(())
}

fn add_modern(_: &mut Scope, call: &Call, slot: &mut Option<Arc<Modern>>) -> Result<(), Complaint> {
    let modern = Arc::make_mut(slot.get_or_insert_default());
    match call.args() {
        [word] if word == "unlisted" => modern.unlisted = true,
        [_] => return Err(Complaint::new("invalid number of arguments in \"modern_browser\" directive")),
        args => {
            let (name, version) = (&args[0], &args[1]);
            let signature = SIGNATURES.iter().find(|signature| name == signature.name);
            let unknown = || Complaint::new(format!("unknown browser name \"{}\"", name.lossy())).at(name);
            let signature = signature.ok_or_else(unknown)?;
            let number = parse_version(version.as_bytes(), false);
            let invalid =
                || Complaint::new(format!("invalid browser version \"{}\"", version.lossy())).at(version);
            modern.browsers.push((signature, number.ok_or_else(invalid)?));
            modern.browsers.sort_by_key(|(signature, _)| signature.skip);
        }
    }
    Ok(())
}

fn add_ancient(_: &mut Scope, call: &Call, slot: &mut Option<Arc<Ancient>>) -> Result<(), Complaint> {
    let ancient = Arc::make_mut(slot.get_or_insert_default());
    for word in call.args() {
        match word.as_bytes() {
            b"netscape4" => ancient.netscape4 = true,
            text => ancient.texts.push(text.into()),
        }
    }
    Ok(())
}

/// `1.2.3.4` as a number that compares: each part counts a hundredth of the one before it. In a User-Agent the version
/// ends at the first other byte; in the configuration there may be none.
fn parse_version(text: &[u8], in_agent: bool) -> Option<u64> {
    let (mut version, mut part, mut scale) = (0u64, 0u64, 1_000_000);
    for &byte in text {
        match byte {
            b'0'..=b'9' => part = part.saturating_mul(10).saturating_add(u64::from(byte - b'0')),
            b'.' => {
                version = version.saturating_add(part.saturating_mul(scale));
                part = 0;
                scale /= 100;
            }
            _ if in_agent => break,
            _ => return None,
        }
    }
    Some(version.saturating_add(part.saturating_mul(scale)))
}

impl Settings {
    fn is_modern(&self, agent: Option<&[u8]>) -> bool {
        let Some(agent) = agent else { return self.modern.unlisted };
        for (signature, least) in &self.modern.browsers {
            let Some(rest) = agent.get(signature.skip..) else { continue };
            let Some(at) = memchr::memmem::find(rest, signature.text.as_bytes()) else { continue };
            let Some(version) = rest.get(at + signature.version_at..).filter(|text| !text.is_empty()) else {
                continue;
            };
            return parse_version(version, true).is_some_and(|version| version >= *least);
        }
        let is_netscape4 = agent.len() > b"Mozilla/4.72 ".len()
            && agent.starts_with(b"Mozilla/")
            && matches!(agent.get(8), Some(b'1'..=b'4'));
        if self.ancient.netscape4 && is_netscape4 {
            return false;
        }
        let is_ancient = |text: &[u8]| memchr::memmem::find(agent, text).is_some();
        self.modern.unlisted && !self.ancient.texts.iter().any(|text| is_ancient(text))
    }
}

fn msie(exchange: &mut Exchange, _: &mut Context, out: &mut Vec<u8>) -> bool {
    let agent = exchange.head.field(FieldName::UserAgent).unwrap_or(b"");
    let is_msie = memchr::memmem::find(agent, b"MSIE ").is_some_and(|at| at + 7 < agent.len())
        && memchr::memmem::find(agent, b"Opera").is_none();
    if is_msie {
        out.push(b'1');
    }
    true
}

#[cfg(test)]
mod tests {
    use crate::http::testing::{World, complaints};

    #[track_caller]
    fn check(settings: &str, cases: &[(&str, &str)]) {
        let mut world = World::new(&format!(
            "server {{ {settings} return 200 \"$modern_browser|$ancient_browser|$msie\"; }}"
        ));
        for (agent, text) in cases {
            let line = if agent.is_empty() { String::new() } else { format!("User-Agent: {agent}\r\n") };
            assert_eq!(world.get_with("/", &line).text(), *text, "{agent}");
        }
    }

    const MSIE6: &str = "Mozilla/4.0 (compatible; MSIE 6.0; Windows NT 5.1)";
    const MSIE5: &str = "Mozilla/4.0 (compatible; MSIE 5.01; Windows 98)";
    const SAFARI: &str = "Mozilla/5.0 (Macintosh; U) AppleWebKit/523.10 (KHTML) Version/3.0 Safari/419.3";

    #[test]
    fn a_browser_is_modern_from_its_version_on() {
        check(
            "modern_browser msie 5.5; modern_browser safari 419.3; modern_browser_value new;",
            &[(MSIE6, "new||1"), (MSIE5, "|1|1"), (SAFARI, "new||"), ("curl/8", "|1|"), ("", "|1|")],
        );
        check("modern_browser safari 420; modern_browser unlisted;", &[(SAFARI, "|1|"), ("curl/8", "1||"), ("", "1||")]);
    }

    #[test]
    fn ancient_browsers_are_told_by_a_text() {
        check(
            "modern_browser unlisted; ancient_browser Links Lynx netscape4; ancient_browser_value old;",
            &[
                ("Lynx/2.8", "|old|"),
                ("Mozilla/4.79 [en] (X11)", "|old|"),
                ("Mozilla/5.0 (X11; Linux)", "1||"),
            ],
        );
    }

    #[test]
    fn mistakes_are_told_in_nginx_s_words() {
        assert_eq!(complaints("modern_browser foo 1;"), ["[emerg] unknown browser name \"foo\""]);
        assert_eq!(complaints("modern_browser msie a.b;"), ["[emerg] invalid browser version \"a.b\""]);
        let told = complaints("modern_browser msie;");
        assert_eq!(told, ["[emerg] invalid number of arguments in \"modern_browser\" directive"]);
    }
}
