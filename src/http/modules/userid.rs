//! `userid`: a cookie that tells clients apart.
//!
//! The identifier is nginx's: 16 bytes of a service number, the time, and two numbers that make it unique, in base64.
//! Where nginx counts, these two are random, so that workers and servers need not agree on them.

use crate::base::ascii::{append_decimal, append_hex_upper_u32};
use crate::base::base64;
use crate::base::clock::Civil;
use crate::base::level::Level;
use crate::conf::directive::{Arity, Call, Complaint};
use crate::conf::template::VariableId;
use crate::conf::values;
use crate::http::build::Scope;
use crate::http::build::arguments::{invalid_value, number, one_of};
use crate::http::context::Context;
use crate::http::exchange::{Endpoint, Exchange};
use crate::http::modules::core_variables::find_cookie;
use crate::http::settings::contexts::HTTP_SERVER_LOCATION;
use crate::http::settings::settings;
use crate::http::variables::VariableEntry;
use crate::message::FieldName;

settings! {
    module userid;
    fields {
        /// Whether clients get the cookie, or those that they have are only logged.
        mode: Mode = Mode::Off, inherit;
            "userid" HTTP_SERVER_LOCATION, Arity::exactly(1), default "off", once read_mode;
        /// The cookie's name.
        name: Box<[u8]> = b"uid".as_slice().into(), inherit;
            "userid_name" HTTP_SERVER_LOCATION, Arity::exactly(1), default "uid", once word;
        /// The domain that the cookie is for.
        domain: Option<Box<[u8]>> = None, inherit;
            "userid_domain" HTTP_SERVER_LOCATION, Arity::exactly(1), default "none", once word_or_none;
        /// The path that the cookie is for.
        path: Box<[u8]> = b"/".as_slice().into(), inherit;
            "userid_path" HTTP_SERVER_LOCATION, Arity::exactly(1), default "/", once word;
        /// How long a browser keeps the cookie.
        expires: Expires = Expires::Session, inherit;
            "userid_expires" HTTP_SERVER_LOCATION, Arity::exactly(1), default "off", once read_expires;
        /// A value for the field P3P, sent along with the cookie.
        p3p: Option<Box<[u8]>> = None, inherit;
            "userid_p3p" HTTP_SERVER_LOCATION, Arity::exactly(1), default "none", once word_or_none;
        /// A letter that marks cookies; those without it are sent again with it.
        mark: Option<u8> = None, inherit;
            "userid_mark" HTTP_SERVER_LOCATION, Arity::exactly(1), default "off", once read_mark;
        /// The number that stands for this server in identifiers; its address without one.
        service: Option<u32> = None, inherit;
            "userid_service" HTTP_SERVER_LOCATION, Arity::exactly(1), default "", once read_service;
        /// Attributes of the cookie.
        flags: Flags = Flags::default(), inherit;
            "userid_flags" HTTP_SERVER_LOCATION, Arity::between(1, 3), default "off", once read_flags;
    }
}

/// `userid`
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mode {
    /// `off`
    Off,
    /// `log`: cookies are read and none is sent.
    Log,
    /// `v1`: identifiers of the first version.
    V1,
    /// `on`: identifiers of the second version.
    On,
}

/// `userid_expires`
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Expires {
    /// `off`: when the browser ends.
    Session,
    /// `max`: Thu, 31-Dec-37 23:55:55 GMT.
    Max,
    /// After so many seconds.
    After(u64),
}

/// `userid_flags`
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Flags {
    secure: bool,
    http_only: bool,
    same_site: Option<&'static str>,
}

/// What is known of the request's identifiers; `None` until the first question.
pub type Note = Option<Box<Identifiers>>;

/// The identifiers of one request.
#[derive(Clone, Copy, Debug)]
pub struct Identifiers {
    /// The one that the client sent.
    got: Option<[u8; 16]>,
    /// The one that it is sent.
    set: Option<[u8; 16]>,
}

/// `$uid_reset`, a variable of the configuration's.
pub const RESET: &str = "uid_reset";

/// The module's variables.
pub static VARIABLES: &[VariableEntry] = &[
    VariableEntry::new("uid_got", |exchange, context, out| {
        let got = identifiers(exchange, context).and_then(|identifiers| identifiers.got);
        show(exchange, context, got, out)
    }),
    VariableEntry::new("uid_set", |exchange, context, out| {
        let set = identifiers(exchange, context).and_then(|identifiers| identifiers.set);
        show(exchange, context, set, out)
    }),
    VariableEntry::new(RESET, |_, _, _| false).changeable(),
];

fn word(_: &mut Scope, call: &Call) -> Result<Box<[u8]>, Complaint> {
    Ok(call.arg(0).as_bytes().into())
}

fn word_or_none(_: &mut Scope, call: &Call) -> Result<Option<Box<[u8]>>, Complaint> {
    let word = call.arg(0);
    Ok((word != "none").then(|| word.as_bytes().into()))
}

fn read_mode(_: &mut Scope, call: &Call) -> Result<Mode, Complaint> {
    one_of(call, &[("off", Mode::Off), ("log", Mode::Log), ("v1", Mode::V1), ("on", Mode::On)])
}

fn read_expires(_: &mut Scope, call: &Call) -> Result<Expires, Complaint> {
    match call.arg(0).as_bytes() {
        b"max" => Ok(Expires::Max),
        b"off" => Ok(Expires::Session),
        text => {
            values::parse_time_s(text).map(Expires::After).map_err(|_| invalid_value(call, call.arg(0)))
        }
    }
}

fn read_mark(_: &mut Scope, call: &Call) -> Result<Option<u8>, Complaint> {
    match call.arg(0).as_bytes() {
        b"off" => Ok(None),
        [mark] if mark.is_ascii_alphanumeric() || *mark == b'=' => Ok(Some(*mark)),
        _ => {
            let name = call.name();
            let message =
                format!("\"{name}\" directive value must be \"off\" or a single letter, digit or \"=\"");
            Err(Complaint::new(message).at(call.arg(0)))
        }
    }
}

fn read_service(scope: &mut Scope, call: &Call) -> Result<Option<u32>, Complaint> {
    // nginx keeps the lower 32 bits.
    number(scope, call).map(|number| Some(number as u32))
}

fn read_flags(_: &mut Scope, call: &Call) -> Result<Flags, Complaint> {
    let mut flags = Flags::default();
    for word in call.args() {
        match word.as_bytes() {
            b"off" if call.args().len() == 1 => {}
            b"secure" => flags.secure = true,
            b"httponly" => flags.http_only = true,
            b"samesite=strict" => flags.same_site = Some("strict"),
            b"samesite=lax" => flags.same_site = Some("lax"),
            b"samesite=none" => flags.same_site = Some("none"),
            _ => return Err(Complaint::invalid_value(word)),
        }
    }
    Ok(flags)
}

impl Settings {
    /// Whether identifiers name the server by its address, so that it has to be known.
    pub fn needs_local_address(&self) -> bool {
        self.mode == Mode::On && self.service.is_none()
    }
}

/// The header filter: sends the cookie, if there is one to send.
pub fn filter(exchange: &mut Exchange, context: &mut Context) {
    let site = context.site;
    let settings = &site.settings(exchange.location).userid;
    if !matches!(settings.mode, Mode::V1 | Mode::On) {
        return;
    }
    let Some(Identifiers { got, set: Some(set) }) = identifiers(exchange, context) else { return };
    let mut cookie = context.env.scratch();
    cookie.extend_from_slice(&settings.name);
    cookie.push(b'=');
    let fields = &mut exchange.response.fields;
    // The filters run again where one of them replaced the response.
    if !fields.named(b"Set-Cookie").any(|line| line.starts_with(&cookie)) {
        base64::encode(&mut cookie, &set);
        if let Some(mark) = settings.mark {
            let place = cookie.len() - 2;
            cookie[place] = mark;
        }
        debug_assert!(got.is_none() || settings.mark.is_some() || got != Some(set), "it is a new one");
        settings.append_attributes(context.env.now.wall_secs, &mut cookie);
        fields.push(b"Set-Cookie", &cookie);
        if let Some(p3p) = &settings.p3p {
            fields.push(b"P3P", p3p);
        }
    }
    context.env.give_back(cookie);
}

impl Settings {
    fn append_attributes(&self, now: i64, out: &mut Vec<u8>) {
        match self.expires {
            Expires::Session | Expires::After(0) => {}
            Expires::Max => out.extend_from_slice(b"; expires=Thu, 31-Dec-37 23:55:55 GMT"),
            Expires::After(secs) => {
                out.extend_from_slice(b"; expires=");
                append_cookie_date(now.saturating_add_unsigned(secs), out);
            }
        }
        if let Some(domain) = &self.domain {
            out.extend_from_slice(b"; domain=");
            out.extend_from_slice(domain);
        }
        out.extend_from_slice(b"; path=");
        out.extend_from_slice(&self.path);
        if self.flags.secure {
            out.extend_from_slice(b"; secure");
        }
        if self.flags.http_only {
            out.extend_from_slice(b"; httponly");
        }
        if let Some(same_site) = self.flags.same_site {
            out.extend_from_slice(b"; samesite=");
            out.extend_from_slice(same_site.as_bytes());
        }
    }
}

/// The date in the form that the first browsers with cookies knew; the year has four digits from 2038 on, as in nginx.
pub fn append_cookie_date(secs: i64, out: &mut Vec<u8>) {
    let civil = Civil::from_secs(secs.clamp(0, 253_402_300_799));
    let two = |number: u32, out: &mut Vec<u8>| out.extend([number / 10 % 10, number % 10].map(|n| b'0' + n as u8));
    out.extend_from_slice(civil.day_name());
    out.extend_from_slice(b", ");
    two(civil.day, out);
    out.push(b'-');
    out.extend_from_slice(civil.month_name());
    out.push(b'-');
    if civil.year > 2037 { append_decimal(out, civil.year) } else { two(civil.year, out) }
    for (separator, number) in [(b' ', civil.hour), (b':', civil.minute), (b':', civil.second)] {
        out.push(separator);
        two(number, out);
    }
    out.extend_from_slice(b" GMT");
}

/// `name=` and the identifier as four numbers in hexadecimal.
fn show(exchange: &Exchange, context: &Context, uid: Option<[u8; 16]>, out: &mut Vec<u8>) -> bool {
    let Some(uid) = uid else { return false };
    out.extend_from_slice(&context.site.settings(exchange.location).userid.name);
    out.push(b'=');
    for word in uid.chunks_exact(4) {
        // As the numbers lie in the memory of the machines that nginx mostly runs on.
        append_hex_upper_u32(out, u32::from_le_bytes([word[0], word[1], word[2], word[3]]));
    }
    true
}

/// The request's identifiers; `None` where the module is off.
fn identifiers(exchange: &mut Exchange, context: &mut Context) -> Option<Identifiers> {
    if let Some(known) = &exchange.notes.user_id {
        return Some(**known);
    }
    let site = context.site;
    let settings = &site.settings(exchange.location).userid;
    if settings.mode == Mode::Off {
        return None;
    }
    let cookie = read_cookie(exchange, context, settings);
    let got = cookie.map(|(uid, _)| uid);
    let set = if settings.mode == Mode::Log {
        None
    } else if cookie.is_none() || is_reset(exchange, context, settings) {
        Some(new_identifier(exchange, context, settings))
    } else if settings.mark.is_some() && cookie.is_some_and(|(_, mark)| mark != settings.mark) {
        got
    } else {
        None
    };
    let identifiers = Identifiers { got, set };
    exchange.notes.user_id = Some(Box::new(identifiers));
    Some(identifiers)
}

/// The identifier in the client's cookie, and the letter that it is marked with.
fn read_cookie(
    exchange: &mut Exchange,
    context: &mut Context,
    settings: &Settings,
) -> Option<([u8; 16], Option<u8>)> {
    /// Letters of 16 bytes; what follows is a mark, padding, or what some clients have made of them.
    const LETTERS: usize = 22;
    let lines = exchange.head.fields.all(FieldName::Cookie);
    let (line, value) = lines.filter_map(|line| Some((line, find_cookie(line, &settings.name)?))).next()?;
    let Some((letters, rest)) = value.split_at_checked(LETTERS) else {
        let line = String::from_utf8_lossy(line);
        exchange.log(context, Level::Error, format_args!("client sent too short userid cookie \"{line}\""));
        return None;
    };
    let mut bytes = Vec::with_capacity(18);
    let decoded = base64::decode(&mut bytes, letters).then(|| <[u8; 16]>::try_from(&*bytes).ok()).flatten();
    let Some(uid) = decoded else {
        let line = String::from_utf8_lossy(line);
        exchange.log(context, Level::Error, format_args!("client sent invalid userid cookie \"{line}\""));
        return None;
    };
    let mark = match rest {
        [mark, b'=', ..] => Some(*mark),
        _ => None,
    };
    Some((uid, mark))
}

/// Whether `$uid_reset` asks for a new identifier.
fn is_reset(exchange: &mut Exchange, context: &mut Context, settings: &Settings) -> bool {
    let list = &context.site.variables.list;
    let Some(index) = list.iter().position(|variable| &*variable.name == RESET) else { return false };
    let mut text = context.env.scratch();
    exchange.variable(VariableId(index as u32), context, &mut text);
    let is_reset = !text.is_empty() && text != b"0";
    if text == b"log" {
        let name = String::from_utf8_lossy(&settings.name);
        exchange.log(context, Level::Notice, format_args!("userid cookie \"{name}\" was reset"));
    }
    context.env.give_back(text);
    is_reset
}

fn new_identifier(exchange: &Exchange, context: &mut Context, settings: &Settings) -> [u8; 16] {
    let time = context.env.now.wall_secs as u32;
    let random = &mut context.env.random;
    let unique = random.u32(..);
    let numbers = if settings.mode == Mode::V1 {
        // The last number is never 0, by which old readers know that there is an identifier.
        [settings.service.unwrap_or(0), time, unique, random.u32(..) | 1].map(u32::to_le_bytes)
    } else {
        let service = settings.service.map_or_else(|| address_of(&exchange.connection.local), u32::to_be_bytes);
        // Nor is it ever below this one, by which they know the second version.
        let last = random.u32(0x0303_0302..);
        [service, time.to_be_bytes(), unique.to_be_bytes(), last.to_be_bytes()]
    };
    let mut uid = [0; 16];
    for (place, number) in uid.chunks_exact_mut(4).zip(numbers) {
        place.copy_from_slice(&number);
    }
    uid
}

/// The (last) four bytes of our address.
fn address_of(local: &Endpoint) -> [u8; 4] {
    match local {
        Endpoint::Inet(address) => match address.ip() {
            std::net::IpAddr::V4(address) => address.octets(),
            std::net::IpAddr::V6(address) => (address.to_bits() as u32).to_be_bytes(),
        },
        Endpoint::Unix(_) => [0; 4],
    }
}

#[cfg(test)]
mod tests {
    use crate::http::testing::{World, complaints};

    const SHOW: &str = "add_header X-Got $uid_got; add_header X-Set $uid_set; return 200 ok;";
    /// As nginx made it.
    const COOKIE: &str = "Cookie: a=1; uid=fwAAAWkgAABnAgMDAwMCAg==\r\n";
    const SHOWN: &str = "uid=0100007F000020690303026702020303";

    fn world(settings: &str) -> World {
        World::new(&format!("server {{ {settings} {SHOW} }}"))
    }

    #[test]
    fn a_client_without_a_cookie_gets_one_and_is_known_by_it() {
        let mut world = world("userid on; userid_expires 365d; userid_domain example.com; userid_path /p; userid_p3p CP;");
        let reply = world.get("/");
        let cookie = reply.field("Set-Cookie");
        let (uid, attributes) = cookie.split_once("; ").unwrap();
        assert_eq!(attributes, "expires=Wed, 13-Nov-24 22:13:20 GMT; domain=example.com; path=/p");
        assert_eq!((reply.field("P3P").as_str(), uid.len()), ("CP", "uid=".len() + 24));
        assert_eq!(reply.field("X-Got"), "");
        let back = world.get_with("/", &format!("Cookie: {uid}\r\n"));
        assert!(!back.has("Set-Cookie") && !back.has("P3P"));
        assert_eq!(back.field("X-Got"), reply.field("X-Set"));
        assert!(back.field("X-Got").starts_with("uid=016433C6"), "{}", back.field("X-Got"));
        assert_ne!(world.get("/").field("Set-Cookie"), cookie);
    }

    #[test]
    fn the_first_version_and_the_attributes_are_as_in_nginx() {
        let mut world = world("userid v1; userid_service 7; userid_expires max; userid_name n; userid_flags secure httponly samesite=lax;");
        let cookie = world.get("/").field("Set-Cookie");
        assert!(cookie.starts_with("n=BwAAA"), "{cookie}");
        assert!(cookie.ends_with("==; expires=Thu, 31-Dec-37 23:55:55 GMT; path=/; secure; httponly; samesite=lax"), "{cookie}");
    }

    #[test]
    fn cookies_are_read_and_only_logged() {
        let mut world = world("userid log;");
        let reply = world.get_with("/", COOKIE);
        assert_eq!((reply.field("X-Got").as_str(), reply.has("Set-Cookie")), (SHOWN, false));
        assert!(!world.get("/").has("Set-Cookie"));
        let reply = self::world("").get_with("/", COOKIE);
        assert_eq!(reply.field("X-Got"), "");
    }

    #[test]
    fn cookies_without_the_mark_are_sent_again_with_it() {
        let mut world = world("userid on; userid_mark Z;");
        let reply = world.get_with("/", COOKIE);
        assert_eq!(reply.field("Set-Cookie"), "uid=fwAAAWkgAABnAgMDAwMCAgZ=; path=/");
        assert_eq!(reply.field("X-Set"), SHOWN);
        let reply = world.get_with("/", "Cookie: uid=fwAAAWkgAABnAgMDAwMCAgZ=\r\n");
        assert_eq!((reply.has("Set-Cookie"), reply.field("X-Got").as_str()), (false, SHOWN));
        assert_eq!(&world.get("/").field("Set-Cookie")[26..28], "Z=");
    }

    #[test]
    fn garbage_is_logged_and_replaced() {
        let mut world = world("userid on;");
        let reply = world.get_with("/", "Cookie: uid=short\r\n");
        assert_eq!(reply.log_texts(), ["[error] client sent too short userid cookie \"uid=short\""]);
        assert!(reply.has("Set-Cookie"));
        let reply = world.get_with("/", "Cookie: uid=!!AAAWkgAABnAgMDAwMCAg==\r\n");
        assert!(reply.log[0].contains("invalid userid cookie") && reply.has("Set-Cookie"));
    }

    #[test]
    fn a_variable_asks_for_a_new_identifier() {
        let reply = world("userid on; set $uid_reset log;").get_with("/", COOKIE);
        assert!(reply.has("Set-Cookie"));
        assert_eq!(reply.log_texts(), ["[notice] userid cookie \"uid\" was reset"]);
        assert!(!world("userid on; set $uid_reset 0;").get_with("/", COOKIE).has("Set-Cookie"));
    }

    #[test]
    fn error_pages_and_ranges_get_one_cookie_too() {
        let mut world = World::new("server { userid on; root /srv; }").file("/srv/f", "text");
        assert_eq!(world.get("/none").field("Set-Cookie").matches("uid=").count(), 1);
        let reply = world.get_with("/f", "Range: bytes=9-\r\n");
        assert_eq!((reply.status, reply.field("Set-Cookie").matches("uid=").count()), (416, 1));
    }

    #[test]
    fn mistakes_are_told_in_nginx_s_words() {
        for (text, told) in [
            ("userid foo;", "invalid value \"foo\""),
            ("userid_mark ab;", "\"userid_mark\" directive value must be \"off\" or a single letter, digit or \"=\""),
            ("userid_expires foo;", "\"userid_expires\" directive invalid value"),
            ("userid_service foo;", "\"userid_service\" directive invalid number"),
            ("userid_flags foo;", "invalid value \"foo\""),
        ] {
            assert_eq!(complaints(text), [format!("[emerg] {told}")]);
        }
    }
}
