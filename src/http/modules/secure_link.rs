//! `secure_link`, `secure_link_md5`, `secure_link_secret`: whether a link was made by who knows the secret, and until
//! when it holds.

use md5::{Digest, Md5};

use crate::base::ascii::HEX_LOWER;
use crate::base::base64;
use crate::conf::directive::{Arity, Call, Complaint};
use crate::conf::source::{IncludeId, Span};
use crate::conf::template::Template;
use crate::http::build::Scope;
use crate::http::build::arguments::template;
use crate::http::context::Context;
use crate::http::exchange::Exchange;
use crate::http::settings::contexts::HTTP_SERVER_LOCATION;
use crate::http::settings::settings;
use crate::http::variables::VariableEntry;

settings! {
    module secure_link;
    fields {
        /// The text with the link's checksum and, behind a comma, the second in which it ends.
        link: Option<Template> = None, inherit;
            "secure_link" HTTP_SERVER_LOCATION, Arity::exactly(1), default "", once |scope, call| template(scope, call).map(Some);
        /// The text whose MD5 the checksum is.
        md5: Option<Template> = None, inherit;
            "secure_link_md5" HTTP_SERVER_LOCATION, Arity::exactly(1), default "", once |scope, call| template(scope, call).map(Some);
        /// The word that the older form of checksums is made with: `/prefix/checksum/link`.
        secret: Option<Secret> = None, inherit;
            "secure_link_secret" HTTP_SERVER_LOCATION, Arity::exactly(1), default "", once read_secret;
    }
}

/// `secure_link_secret`
#[derive(Clone, Debug)]
pub struct Secret {
    word: Box<[u8]>,
    place: (Span, IncludeId),
}

fn read_secret(_: &mut Scope, call: &Call) -> Result<Option<Secret>, Complaint> {
    let place = (call.span(), call.directive.include);
    Ok(Some(Secret { word: call.arg(0).as_bytes().into(), place }))
}

/// Where a scope mixes both forms: there the newer one would never be looked at.
pub fn mixed_forms(own: &Draft) -> Option<(Span, IncludeId)> {
    let secret = own.secret.as_ref()?.as_ref()?;
    (own.link.is_some() || own.md5.is_some()).then_some(secret.place)
}

/// What nginx says of it.
pub const MIXED_FORMS: &str =
    "\"secure_link_secret\" cannot be mixed with \"secure_link\" and \"secure_link_md5\"";

/// The module's variables.
pub static VARIABLES: &[VariableEntry] = &[
    VariableEntry::new("secure_link", secure_link).kept(),
    VariableEntry::new("secure_link_expires", |exchange, context, out| {
        let Some(expires) = with_link(exchange, context, |text| Some(split_link(text).1?.to_vec())) else {
            return false;
        };
        out.extend_from_slice(&expires);
        true
    })
    .kept(),
];

/// `1` for a link that holds, `0` for one that has ended, none for one that is not right. In the older form: the link
/// without its checksum.
fn secure_link(exchange: &mut Exchange, context: &mut Context, out: &mut Vec<u8>) -> bool {
    let site = context.site;
    let settings = &site.settings(exchange.location).secure_link;
    if let Some(secret) = &settings.secret {
        return old_link(exchange, &secret.word, out);
    }
    let Some(md5) = &settings.md5 else { return false };
    let now = context.env.now.wall_secs;
    let Some((checksum, is_over)) = with_link(exchange, context, |text| {
        let (checksum, expires) = split_link(text);
        let is_over = match expires {
            None => false,
            Some(expires) => parse_time(expires)? < now,
        };
        Some((decode_checksum(checksum)?, is_over))
    }) else {
        return false;
    };
    let expected = exchange.with_rendered(md5, context, |_, _, text| <[u8; 16]>::from(Md5::digest(text)));
    let is_right = is_equal(&checksum, &expected);
    if is_right {
        out.push(if is_over { b'0' } else { b'1' });
    }
    is_right
}

fn with_link<R>(
    exchange: &mut Exchange,
    context: &mut Context,
    then: impl FnOnce(&[u8]) -> Option<R>,
) -> Option<R> {
    let site = context.site;
    let link = site.settings(exchange.location).secure_link.link.as_ref()?;
    exchange.with_rendered(link, context, |_, _, text| then(text))
}

/// The checksum and, behind a comma, the end.
fn split_link(text: &[u8]) -> (&[u8], Option<&[u8]>) {
    match memchr::memchr(b',', text) {
        Some(comma) => (&text[..comma], Some(&text[comma + 1..])),
        None => (text, None),
    }
}

/// A positive number of seconds since 1970.
fn parse_time(text: &[u8]) -> Option<i64> {
    let text = std::str::from_utf8(text).ok()?;
    let digits = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    text.parse().ok().filter(|time| digits && *time > 0)
}

fn decode_checksum(text: &[u8]) -> Option<[u8; 16]> {
    if text.len() > 24 {
        return None;
    }
    let mut bytes = Vec::with_capacity(18);
    base64::decode_url(&mut bytes, text).then_some(())?;
    bytes.try_into().ok()
}

/// Compares without telling by the time how much is right.
fn is_equal(one: &[u8; 16], other: &[u8; 16]) -> bool {
    one.iter().zip(other).fold(0, |difference, (one, other)| difference | (one ^ other)) == 0
}

/// The older form: `/prefix/checksum/link`, of the target as the client sent it, arguments included.
fn old_link(exchange: &Exchange, secret: &[u8], out: &mut Vec<u8>) -> bool {
    let target = exchange.head.text(exchange.head.target);
    let Some(rest) = target.get(1..) else { return false };
    let Some(slash) = memchr::memchr(b'/', rest) else { return false };
    let rest = &rest[slash + 1..];
    let Some((checksum, link)) = rest.split_at_checked(32) else { return false };
    let Some(link) = link.strip_prefix(b"/").filter(|link| !link.is_empty()) else { return false };
    let digest = Md5::new_with_prefix(link).chain_update(secret).finalize();
    let mut difference = 0;
    for (pair, byte) in checksum.chunks(2).zip(digest) {
        difference |= pair[0].to_ascii_lowercase() ^ HEX_LOWER[usize::from(byte >> 4)];
        difference |= pair[1].to_ascii_lowercase() ^ HEX_LOWER[usize::from(byte & 15)];
    }
    if difference != 0 {
        return false;
    }
    out.extend_from_slice(link);
    true
}

#[cfg(test)]
mod tests {
    use crate::http::testing::{NOW, World, complaints};
    use md5::{Digest, Md5};

    fn url_base64(bytes: &[u8]) -> String {
        let mut out = Vec::new();
        crate::base::base64::encode(&mut out, bytes);
        String::from_utf8(out).unwrap().replace('+', "-").replace('/', "_").trim_end_matches('=').to_owned()
    }

    #[test]
    fn a_checksum_and_an_end_are_checked() {
        let mut world = World::new(
            "server { secure_link $arg_md5,$arg_e; secure_link_md5 \"$uri$arg_e secret\";
                return 200 \"[$secure_link] $secure_link_expires\"; }",
        );
        let mut ask = |end: i64, secret: &str| {
            let sum = url_base64(&Md5::digest(format!("/p{end} {secret}")));
            world.get(&format!("/p?md5={sum}&e={end}")).text().to_owned()
        };
        assert_eq!(ask(NOW + 10, "secret"), format!("[1] {}", NOW + 10));
        assert_eq!(ask(NOW, "secret"), format!("[1] {NOW}"));
        assert_eq!(ask(NOW - 1, "secret"), format!("[0] {}", NOW - 1));
        assert_eq!(ask(NOW + 10, "guess"), format!("[] {}", NOW + 10));
        assert_eq!(ask(0, "secret"), "[] 0");
        for target in ["/p", "/p?md5=abc&e=1", "/p?md5=!!!!&e=9999999999", "/p?md5=AAAAAAAAAAAAAAAAAAAAAAAAAAAA&e=99999999999"] {
            assert!(world.get(target).text().starts_with("[]"), "{target}");
        }
    }

    #[test]
    fn a_link_without_an_end_holds_for_ever() {
        let mut world = World::new(
            "server { secure_link $arg_md5; secure_link_md5 $uri; return 200 \"[$secure_link]\"; }",
        );
        let sum = url_base64(&Md5::digest("/p"));
        assert_eq!(world.get(&format!("/p?md5={sum}")).text(), "[1]");
        assert_eq!(world.get(&format!("/p?md5={sum}==")).text(), "[1]");
        assert_eq!(world.get("/p?md5=x").text(), "[]");
    }

    #[test]
    fn the_older_form_gives_the_link() {
        let mut world = World::new(
            "server { location /p/ { secure_link_secret s; return 200 \"[$secure_link]\"; } }",
        );
        let sum = Md5::digest("a/b.txts").iter().map(|byte| format!("{byte:02x}")).collect::<String>();
        assert_eq!(world.get(&format!("/p/{sum}/a/b.txt")).text(), "[a/b.txt]");
        assert_eq!(world.get(&format!("/p/{sum}/a/c.txt")).text(), "[]");
        for target in ["/p/", "/p/x/a", &format!("/p/{sum}"), &format!("/p/{sum}/")] {
            assert_eq!(world.get(target).text(), "[]", "{target}");
        }
    }

    #[test]
    fn both_forms_in_one_place_are_an_error() {
        assert_eq!(
            complaints("server { secure_link_secret a; secure_link b; }"),
            ["[emerg] \"secure_link_secret\" cannot be mixed with \"secure_link\" and \"secure_link_md5\""]
        );
    }
}
